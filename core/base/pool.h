/* pool.h: the threads of one context. Pieces of a job are claimed one by one, by the caller as well,
 * so that a thread which the system has not scheduled is not waited for: on a busy machine, or in a
 * container that may use half a processor, OpenMP's barriers made a training step three times as
 * slow. */
#ifndef RESIN_BASE_POOL_H
#define RESIN_BASE_POOL_H

#include "core/base/threads.h"

typedef struct resin_pool resin_pool;

/* A pool whose threads are started when they are first needed; NULL if memory is out. */
resin_pool *resin_pool_new(void);
/* Ends the threads and waits for them. */
void resin_pool_free(resin_pool *pool);
/* After fork: forgets the threads, which the child does not have. */
void resin_pool_abandon(resin_pool *pool);

/* Runs a job (see resin_parallel) on the caller, as worker 0, and on up to workers - 1 threads. */
void resin_pool_run(resin_pool *pool, int workers, int64_t pieces, resin_piece body,
                    void *argument);

#endif
