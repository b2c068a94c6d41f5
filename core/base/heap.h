/* heap.h: large blocks, cut from ranges of addresses and joined again when they are freed.
 *
 * A range has as many addresses as the machine has memory, but only what was used of it is memory.
 * What one size of blocks leaves serves all others, so a training takes from the system about what
 * its tensors hold at their peak. Not locked: the arena does that (memory.c). */
#ifndef RESIN_BASE_HEAP_H
#define RESIN_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>

enum { HEAP_HEADER = 64 }; /* bytes before a block's data, which start on a cache line */

typedef struct heap_block {
    size_t size;   /* with the header, in whole pages; first, as in the arena's small blocks */
    bool is_free;
    bool is_fresh; /* free, and no memory behind it: never used, or trimmed */
    bool is_last;  /* of its range */
    struct heap_block *below;           /* the neighbour; NULL for the first of a range */
    struct heap_block *next, *previous; /* in the list of free blocks */
} heap_block;

typedef struct resin_heap {
    heap_block *kept, *fresh; /* the free blocks, by whether there is memory behind them */
    struct heap_range *ranges;
    size_t kept_bytes;
    size_t taken; /* how often memory came from the system */
} resin_heap;

/* A block for `size` bytes, or NULL. */
heap_block *heap_take(resin_heap *heap, size_t size);
void heap_give(resin_heap *heap, heap_block *block);
/* Gives the memory behind all free blocks back to the system. */
void heap_trim(resin_heap *heap);
/* Gives everything back, blocks in use, too. */
void heap_drop(resin_heap *heap);

static inline void *heap_data(heap_block *block) { return (char *)block + HEAP_HEADER; }
static inline heap_block *heap_block_of(void *data) {
    return (heap_block *)((char *)data - HEAP_HEADER);
}
static inline size_t heap_data_size(const heap_block *block) { return block->size - HEAP_HEADER; }

#endif
