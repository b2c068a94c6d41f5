/* memory.h: the caching arena. Blocks are aligned to 64 bytes; freed blocks are kept and reused, so
 * that a training step takes nothing from the system after the first. */
#ifndef RESIN_BASE_MEMORY_H
#define RESIN_BASE_MEMORY_H

#include "core/base/context.h"

typedef struct resin_arena resin_arena;

resin_arena *resin_arena_new(void);
void resin_arena_free(resin_arena *arena);

/* A block of at least `size` bytes (size 0 gives a valid block), or RESIN_ERROR_MEMORY. */
resin_status resin_allocate(resin_context *context, size_t size, void **block);
void resin_deallocate(resin_context *context, void *block); /* NULL is allowed */

/* For tests: the allocation that follows after `allocations` others fails; < 0 ends it. */
void resin_arena_fail_after(resin_context *context, long allocations);

#endif
