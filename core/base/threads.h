/* threads.h: the context's threads (pool.h) and how work is cut.
 *
 * Work is cut by shape, never by the number of threads, and results of pieces are combined in a
 * fixed order by the caller: the same bits come out at any number of threads. Nothing inside a
 * piece may fail: scratch is reserved before. */
#ifndef RESIN_BASE_THREADS_H
#define RESIN_BASE_THREADS_H

#include "core/base/context.h"

/* Calls body(argument, piece, worker) for piece = 0 .. pieces - 1 in any order on the context's
 * threads; 0 <= worker < resin_workers(context), no two calls with the same worker at once, so
 * `worker` picks the scratch. Small work should come as one piece, which runs in the caller. A piece
 * must not call resin_parallel itself. */
typedef void (*resin_piece)(void *argument, int64_t piece, int worker);
void resin_parallel(resin_context *context, int64_t pieces, resin_piece body, void *argument);

/* How many workers resin_parallel uses at most: the context's threads, 1 after fork. */
int resin_workers(const resin_context *context);

/* Splits `count` items into pieces of at least `grain` items (the same for every thread count):
 * the number of pieces, and the bounds of one. Larger pieces are spread among the smaller, so that
 * neighbours together have even work. */
int64_t resin_piece_count(int64_t count, int64_t grain);
void resin_piece_bounds(int64_t count, int64_t pieces, int64_t piece, int64_t *first, int64_t *last);

/* Processors this process may use: affinity and the container's quota. */
int resin_available_processors(void);

#endif
