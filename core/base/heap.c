/* heap.c: large blocks: best fit among the free ones, freed neighbours joined.
 *
 * Free blocks with memory behind them (kept) and without (fresh) stay apart, so that what was never
 * used is taken last. Of equally good blocks the one freed last is taken: the caches know it best.
 *
 * On machines with several memory nodes a page lies on the node of the thread that touches it
 * first. Nothing here writes to more than a block's header, and whoever fills large tensors
 * (resin_fill, the random tensors, copies, all ops) does it in the pool's pieces: pages are spread
 * over the nodes of the threads that work on them. Which piece is whose is not fixed, and blocks
 * serve one tensor after the other, so it is a spread, no placement; it has not been measured on
 * such a machine. */
#include "core/base/heap.h"

#include "core/base/sanitize.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t huge_page = (size_t)2 << 20;
static const size_t smallest_rest = 64 << 10; /* less than that stays with the block */

typedef struct heap_range {
    struct heap_range *next;
    void *mapping;
    size_t mapped;
    heap_block *first;
} heap_range;

/* ---- Lists and neighbours -------------------------------------------------------------------- */

static heap_block *above(const heap_block *block) {
    return block->is_last ? NULL : (heap_block *)((char *)block + block->size);
}

static heap_block **list_of(resin_heap *heap, bool fresh) {
    return fresh ? &heap->fresh : &heap->kept;
}

static void list_add(resin_heap *heap, heap_block *block, bool fresh) {
    heap_block **list = list_of(heap, fresh);
    block->is_free = true;
    block->is_fresh = fresh;
    block->previous = NULL;
    block->next = *list;
    if (*list) (*list)->previous = block;
    *list = block;
    if (!fresh) heap->kept_bytes += block->size;
}

static void list_remove(resin_heap *heap, heap_block *block) {
    if (block->previous) block->previous->next = block->next;
    else *list_of(heap, block->is_fresh) = block->next;
    if (block->next) block->next->previous = block->previous;
    if (!block->is_fresh) heap->kept_bytes -= block->size;
    block->is_free = false;
}

/* Cuts off what is above the first `size` bytes: a block in no list. */
static heap_block *cut(heap_block *block, size_t size) {
    heap_block *rest = (heap_block *)((char *)block + size);
    ASAN_UNPOISON_MEMORY_REGION(rest, sizeof *rest);
    *rest = (heap_block){.is_last = block->is_last, .size = block->size - size, .below = block};
    block->size = size;
    block->is_last = false;
    heap_block *next = above(rest);
    if (next) next->below = rest;
    return rest;
}

/* Adds the neighbour above, which is in no list. */
static void join(heap_block *block, const heap_block *neighbour) {
    block->size += neighbour->size;
    block->is_last = neighbour->is_last;
    heap_block *next = above(block);
    if (next) next->below = block;
}

/* ---- Memory from the system ------------------------------------------------------------------ */

static size_t page_size(void) {
    long size = sysconf(_SC_PAGESIZE);
    return size > 0 ? (size_t)size : 4096;
}

static size_t physical_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES);
    return pages > 0 ? (size_t)pages * page_size() : (size_t)1 << 30;
}

static void *map(size_t size) {
    void *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return mapping == MAP_FAILED ? NULL : mapping;
}

/* As many addresses as there is memory. Where limits forbid that, half of what they allow or less,
 * since the rest of the process lives below the same limits; but at least *size, which becomes the
 * size. */
static void *map_range(size_t *size) {
    size_t least = *size, wanted = physical_memory();
    void *mapping = wanted > least ? map(wanted) : NULL;
    if (!mapping) {
        while (wanted > least && !(mapping = map(wanted))) wanted /= 2;
        if (mapping) munmap(mapping, wanted);
        wanted = wanted / 2 > least ? wanted / 2 : least;
        mapping = map(wanted);
    }
    *size = wanted;
    return mapping;
}

/* A new range as one fresh block for at least `size` bytes. */
static heap_block *range_new(resin_heap *heap, size_t size) {
    heap_range *range = malloc(sizeof *range);
    if (!range) return NULL;
    size_t wanted = size + huge_page;
    void *mapping = map_range(&wanted);
    if (!mapping) {
        free(range);
        return NULL;
    }
    uintptr_t at = (uintptr_t)mapping, start = (at + huge_page - 1) & ~(huge_page - 1);
    /* Only advice: first use of memory is then 512 times fewer page faults. */
    (void)madvise((void *)start, wanted - (start - at), MADV_HUGEPAGE);
    heap_block *block = (heap_block *)start;
    *block = (heap_block){.is_last = true, .size = (wanted - (start - at)) & ~(page_size() - 1)};
    *range = (heap_range){.next = heap->ranges, .mapping = mapping, .mapped = wanted,
                          .first = block};
    heap->ranges = range;
    list_add(heap, block, true);
    return block;
}

/* ---- Taking and giving ----------------------------------------------------------------------- */

static heap_block *best_fit(heap_block *list, size_t size) {
    heap_block *best = NULL;
    for (heap_block *block = list; block; block = block->next) {
        if (block->size < size || (best && block->size >= best->size)) continue;
        best = block;
        if (block->size == size) break;
    }
    return best;
}

/* The largest kept block that together with the fresh one above it is large enough. */
static heap_block *best_begun(const resin_heap *heap, size_t size) {
    heap_block *best = NULL;
    for (heap_block *block = heap->kept; block; block = block->next) {
        const heap_block *next = above(block);
        if (!next || !next->is_free || block->size + next->size < size) continue;
        if (!best || block->size > best->size) best = block;
    }
    return best;
}

static heap_block *take_fresh(resin_heap *heap, size_t size) {
    heap_block *block = best_begun(heap, size);
    if (block) {
        heap_block *rest = above(block);
        list_remove(heap, block);
        list_remove(heap, rest);
        join(block, rest);
    } else {
        block = best_fit(heap->fresh, size);
        if (!block) block = range_new(heap, size);
        if (!block) return NULL;
        list_remove(heap, block);
    }
    heap->taken++;
    if (block->size - size >= smallest_rest) list_add(heap, cut(block, size), true);
    return block;
}

heap_block *heap_take(resin_heap *heap, size_t size) {
    if (size > SIZE_MAX / 4) return NULL;
    size_t page = page_size();
    size = (size + HEAP_HEADER + page - 1) & ~(page - 1);
    heap_block *block = best_fit(heap->kept, size);
    if (!block) return take_fresh(heap, size);
    list_remove(heap, block);
    if (block->size - size >= smallest_rest) list_add(heap, cut(block, size), false);
    return block;
}

static bool joins(const heap_block *neighbour, bool fresh) {
    return neighbour && neighbour->is_free && neighbour->is_fresh == fresh;
}

/* Puts a block that is in no list among the free ones, with its neighbours of the same kind. */
static heap_block *release(resin_heap *heap, heap_block *block, bool fresh) {
    heap_block *next = above(block), *below = block->below;
    if (joins(next, fresh)) {
        list_remove(heap, next);
        join(block, next);
    }
    if (joins(below, fresh)) {
        list_remove(heap, below);
        join(below, block);
        block = below;
    }
    list_add(heap, block, fresh);
    return block;
}

void heap_give(resin_heap *heap, heap_block *block) { release(heap, block, false); }

void heap_trim(resin_heap *heap) {
    while (heap->kept) {
        heap_block *block = heap->kept;
        list_remove(heap, block);
        /* The page with the header stays. */
        size_t page = page_size();
        if (block->size > page)
            (void)madvise((char *)block + page, block->size - page, MADV_DONTNEED);
        release(heap, block, true);
    }
}

void heap_drop(resin_heap *heap) {
    for (heap_range *range = heap->ranges, *next; range; range = next) {
        next = range->next;
        ASAN_UNPOISON_MEMORY_REGION(range->mapping, range->mapped);
        munmap(range->mapping, range->mapped);
        free(range);
    }
    *heap = (resin_heap){0};
}
