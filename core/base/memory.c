/* memory.c: the caching arena. Small sizes are rounded up to classes, eight between two powers of
 * two, and each class keeps a list of freed blocks. A block's header stands in the 64 bytes before
 * it. Large blocks are the heap's (heap.c). */
#include "core/base/memory.h"

#include "core/base/heap.h"
#include "core/base/memory_plan.h"
#include "core/base/sanitize.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    ALIGNMENT = 64,
    CLASS_STEPS = 8, /* classes between two powers of two: at most 12.5 % is lost */
    CLASS_COUNT = CLASS_STEPS * 9 + 1, /* up to 128 KB, from where on the heap serves */
    PLANNED = -1      /* the class of a block that lies in that of a memory plan */
};
static const size_t smallest_block = 256;
static const size_t largest_block = 128 << 10; /* of a class; the heap has the larger ones */

typedef struct block {
    size_t size;        /* bytes usable: the class's size */
    struct block *next; /* in the list of its class, while free */
    int class;
} block;

struct resin_arena {
    pthread_mutex_t lock; /* a tensor may be released by another thread than made it */
    block *free_blocks[CLASS_COUNT];
    resin_heap heap;
    resin_memory_info info; /* cached and system_allocations: without the heap's */
    long fail_after;        /* tests: the allocation with this number fails; < 0: none */
};

static size_t class_size(int class) {
    size_t power = smallest_block << (class / CLASS_STEPS);
    return power + power / CLASS_STEPS * (size_t)(class % CLASS_STEPS);
}

/* The smallest class that holds `size`, which is at most largest_block. */
static int class_of(size_t size) {
    if (size <= smallest_block) return 0;
    int exponent = 63 - __builtin_clzll((unsigned long long)size / smallest_block);
    size_t power = smallest_block << exponent, step = power / CLASS_STEPS;
    return exponent * CLASS_STEPS + (int)((size - power + step - 1) / step);
}

resin_arena *resin_arena_new(void) {
    resin_arena *arena = calloc(1, sizeof *arena);
    if (!arena) return NULL;
    if (pthread_mutex_init(&arena->lock, NULL) != 0) {
        free(arena);
        return NULL;
    }
    arena->fail_after = -1;
    return arena;
}

static void arena_trim(resin_arena *arena) {
    for (int class = 0; class < CLASS_COUNT; class++) {
        for (block *b = arena->free_blocks[class], *next; b; b = next) {
            next = b->next;
            free(b);
        }
        arena->free_blocks[class] = NULL;
    }
    arena->info.cached = 0;
    heap_trim(&arena->heap);
}

void resin_arena_free(resin_arena *arena) {
    arena_trim(arena);
    heap_drop(&arena->heap);
    pthread_mutex_destroy(&arena->lock);
    free(arena);
}

void resin_arena_fail_after(resin_context *context, long allocations) {
    context->arena->fail_after = allocations;
}

static block *block_new(resin_arena *arena, int class) {
    size_t size = class_size(class);
    void *memory = NULL;
    if (posix_memalign(&memory, ALIGNMENT, size + ALIGNMENT) != 0) return NULL;
    block *b = memory;
    *b = (block){.size = size, .class = class};
    arena->info.system_allocations++;
    return b;
}

/* Of this class only: a larger block that serves here would be missing where it is needed, and a
 * step would take from the system what the one before it did not. */
static block *block_take(resin_arena *arena, int class) {
    block *b = arena->free_blocks[class];
    if (!b) return block_new(arena, class);
    arena->free_blocks[class] = b->next;
    arena->info.cached -= b->size;
    return b;
}

/* The data of a block, or NULL; its usable bytes in *usable. */
static void *take(resin_arena *arena, size_t size, size_t *usable) {
    if (size > largest_block) {
        heap_block *large = heap_take(&arena->heap, size);
        if (!large) return NULL;
        *usable = heap_data_size(large);
        return heap_data(large);
    }
    block *small = block_take(arena, class_of(size));
    if (!small) return NULL;
    *usable = small->size;
    return (char *)small + ALIGNMENT;
}

/* At the end of either header: the number in the memory plan that is traced; -1: in none. Of a
 * block that lies in a plan's: the bytes asked for. */
static int64_t *request_of(void *data) { return (int64_t *)data - 1; }
_Static_assert(sizeof(heap_block) <= ALIGNMENT - sizeof(int64_t), "room for the number");

/* Bytes of a request in a memory plan, with the header. */
static size_t planned_size(size_t size) {
    return ALIGNMENT + (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* From the block of the plan that is replayed. Its user has the context, and so needs no lock. */
static resin_status allocate_planned(resin_context *context, size_t size, void **out) {
    void *place;
    RESIN_TRY(memory_plan_next(context, planned_size(size), &place));
    ASAN_UNPOISON_MEMORY_REGION(place, ALIGNMENT + size);
    block *b = place;
    *b = (block){.class = PLANNED}; /* of size 0: none of the heap's */
    *out = (char *)b + ALIGNMENT;
    *request_of(*out) = (int64_t)size;
    return RESIN_OK;
}

resin_status resin_allocate(resin_context *context, size_t size, void **out) {
    resin_arena *arena = context->arena;
    memory_plan *plan = context->memory_plan;
    size_t usable = 0;
    *out = NULL;
    if (plan && plan->replaying) return allocate_planned(context, size, out);
    pthread_mutex_lock(&arena->lock);
    bool fail = arena->fail_after == 0;
    if (arena->fail_after >= 0) arena->fail_after--;
    if (!fail) *out = take(arena, size, &usable);
    if (!fail && !*out) {
        arena_trim(arena);
        *out = take(arena, size, &usable);
    }
    arena->info.held += usable;
    if (arena->info.held > arena->info.peak) arena->info.peak = arena->info.held;
    size_t held = arena->info.held;
    pthread_mutex_unlock(&arena->lock);
    if (!*out)
        return resin_fail(context, RESIN_ERROR_MEMORY,
                          "out of memory: %zu bytes wanted, %zu bytes held", size, held);
    ASAN_UNPOISON_MEMORY_REGION(request_of(*out), sizeof(int64_t));
    *request_of(*out) = plan ? memory_plan_note(plan, planned_size(size)) : -1;
    ASAN_UNPOISON_MEMORY_REGION(*out, size);
    ASAN_POISON_MEMORY_REGION((char *)*out + size, usable - size);
    return RESIN_OK;
}

/* Where both kinds of blocks have their headers. */
_Static_assert((int)HEAP_HEADER == (int)ALIGNMENT, "one distance from header to data");

void resin_deallocate(resin_context *context, void *data) {
    if (!data) return;
    resin_arena *arena = context->arena;
    heap_block *large = heap_block_of(data);
    block *small = (block *)((char *)data - ALIGNMENT);
    bool is_large = *(const size_t *)(const void *)large > largest_block; /* first in both */
    if (!is_large && small->class == PLANNED) { /* a later request overwrites it */
        ASAN_POISON_MEMORY_REGION(data, (size_t)*request_of(data));
        return;
    }
    if (*request_of(data) >= 0 && context->memory_plan)
        memory_plan_died(context->memory_plan, *request_of(data));
    size_t usable = is_large ? heap_data_size(large) : small->size;
    ASAN_POISON_MEMORY_REGION(data, usable);
    pthread_mutex_lock(&arena->lock);
    arena->info.held -= usable;
    if (is_large) {
        heap_give(&arena->heap, large);
    } else {
        small->next = arena->free_blocks[small->class];
        arena->free_blocks[small->class] = small;
        arena->info.cached += usable;
    }
    pthread_mutex_unlock(&arena->lock);
}

resin_memory_info resin_memory(const resin_context *context) {
    resin_arena *arena = context->arena;
    pthread_mutex_lock(&arena->lock);
    resin_memory_info info = arena->info;
    info.cached += arena->heap.kept_bytes;
    info.system_allocations += arena->heap.taken;
    pthread_mutex_unlock(&arena->lock);
    return info;
}

void resin_memory_trim(resin_context *context) {
    pthread_mutex_lock(&context->arena->lock);
    arena_trim(context->arena);
    pthread_mutex_unlock(&context->arena->lock);
}

void resin_memory_reset_peak(resin_context *context) {
    pthread_mutex_lock(&context->arena->lock);
    context->arena->info.peak = context->arena->info.held;
    pthread_mutex_unlock(&context->arena->lock);
}
