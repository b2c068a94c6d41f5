/* memory.c: the caching arena. Sizes are rounded up to classes, eight between two powers of two, and
 * each class keeps a list of freed blocks. A block's header stands in the 64 bytes before it. */
#include "core/base/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

/* AddressSanitizer sees blocks, not the arena's reuse of them: tell it what may be touched. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

enum {
    ALIGNMENT = 64,
    CLASS_STEPS = 8, /* classes between two powers of two: at most 12.5 % is lost */
    CLASS_COUNT = CLASS_STEPS * 56,
    BORROW_STEPS = 3 /* a block of up to three classes above may serve: 37.5 % larger at most */
};
static const size_t smallest_block = 256;
/* From here on blocks start at a huge page and ask the kernel for huge pages: first use of fresh
 * memory is then 512 times fewer page faults. */
static const size_t huge_page = (size_t)2 << 20;
static const size_t huge_block = (size_t)4 << 20;

typedef struct block {
    struct block *next; /* in the list of its class, while free */
    size_t size;        /* bytes usable, the class's size */
    void *allocation;   /* what free() takes */
    int class;
} block;

struct resin_arena {
    pthread_mutex_t lock; /* a tensor may be released by another thread than made it */
    block *free_blocks[CLASS_COUNT];
    resin_memory_info info;
    long fail_after; /* tests: the allocation with this number fails; < 0: none */
};

static size_t class_size(int class) {
    size_t power = smallest_block << (class / CLASS_STEPS);
    return power + power / CLASS_STEPS * (size_t)(class % CLASS_STEPS);
}

/* The smallest class that holds `size`, or -1. */
static int class_of(size_t size) {
    if (size <= smallest_block) return 0;
    if (size > SIZE_MAX / 4) return -1;
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
            free(b->allocation);
        }
        arena->free_blocks[class] = NULL;
    }
    arena->info.cached = 0;
}

void resin_arena_free(resin_arena *arena) {
    arena_trim(arena);
    pthread_mutex_destroy(&arena->lock);
    free(arena);
}

void resin_arena_fail_after(resin_context *context, long allocations) {
    context->arena->fail_after = allocations;
}

static block *block_new(resin_arena *arena, int class) {
    size_t size = class_size(class), alignment = size >= huge_block ? huge_page : ALIGNMENT;
    void *allocation = NULL;
    if (posix_memalign(&allocation, alignment, size + ALIGNMENT) != 0) return NULL;
    /* Only advice: memory works the same without it. */
    if (size >= huge_block) (void)madvise(allocation, size, MADV_HUGEPAGE);
    block *b = allocation;
    *b = (block){.size = size, .allocation = allocation, .class = class};
    arena->info.system_allocations++;
    return b;
}

static block *block_take(resin_arena *arena, int class) {
    int last = class + BORROW_STEPS < CLASS_COUNT ? class + BORROW_STEPS : CLASS_COUNT - 1;
    for (int c = class; c <= last; c++) {
        block *b = arena->free_blocks[c];
        if (!b) continue;
        arena->free_blocks[c] = b->next;
        arena->info.cached -= b->size;
        return b;
    }
    return NULL;
}

resin_status resin_allocate(resin_context *context, size_t size, void **out) {
    resin_arena *arena = context->arena;
    *out = NULL;
    int class = class_of(size);
    pthread_mutex_lock(&arena->lock);
    block *b = NULL;
    bool fail = arena->fail_after == 0;
    if (arena->fail_after >= 0) arena->fail_after--;
    if (class >= 0 && class < CLASS_COUNT && !fail) {
        b = block_take(arena, class);
        if (!b) b = block_new(arena, class);
        if (!b) {
            arena_trim(arena);
            b = block_new(arena, class);
        }
    }
    if (b) {
        arena->info.held += b->size;
        if (arena->info.held > arena->info.peak) arena->info.peak = arena->info.held;
    }
    size_t held = arena->info.held;
    pthread_mutex_unlock(&arena->lock);
    if (!b)
        return resin_fail(context, RESIN_ERROR_MEMORY,
                          "out of memory: %zu bytes wanted, %zu bytes held", size, held);
    *out = (char *)b + ALIGNMENT;
    ASAN_UNPOISON_MEMORY_REGION(*out, size);
    ASAN_POISON_MEMORY_REGION((char *)*out + size, b->size - size);
    return RESIN_OK;
}

void resin_deallocate(resin_context *context, void *data) {
    if (!data) return;
    resin_arena *arena = context->arena;
    block *b = (block *)((char *)data - ALIGNMENT);
    ASAN_POISON_MEMORY_REGION(data, b->size);
    pthread_mutex_lock(&arena->lock);
    b->next = arena->free_blocks[b->class];
    arena->free_blocks[b->class] = b;
    arena->info.held -= b->size;
    arena->info.cached += b->size;
    pthread_mutex_unlock(&arena->lock);
}

resin_memory_info resin_memory(const resin_context *context) {
    resin_arena *arena = context->arena;
    pthread_mutex_lock(&arena->lock);
    resin_memory_info info = arena->info;
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
