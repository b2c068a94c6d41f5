/* context.h: the engine instance, its errors, and the internal side of core/base. */
#ifndef RESIN_BASE_CONTEXT_H
#define RESIN_BASE_CONTEXT_H

#include "core/resin.h"

#include <stdatomic.h>
#include <stdarg.h>

struct resin_arena;
struct resin_pool;
struct graph_node;
struct memory_plan;

/* See profile.h. The events are kept until the next profile starts. */
typedef struct profile_state {
    bool on;
    resin_profile_event *event;
    int64_t count, capacity, lost, mark;
} profile_state;

struct resin_context {
    atomic_int references;
    atomic_bool cancelled;
    int threads;
    int process; /* the process that made it: after fork the child runs with one thread */
    bool recording;
    bool probing, noticed; /* nothing is recorded, but whether something would have been is noted */
    bool replaying;        /* a checkpoint's block runs again: what it changes, it has changed */
    bool conv_direct; /* resin_set_conv_method("direct") */
    resin_random_state random;
    profile_state profile;
    struct resin_arena *arena;
    struct resin_pool *pool;
    struct memory_plan *memory_plan; /* what is traced or replayed now, see memory_plan.h */
    struct resin_plan *plan;         /* what is recorded now, see core/ops/plan.h */
    uint32_t plan_serial;            /* of the last recording */
    uint64_t last_version;           /* that a storage has got, see core/tensor/tensor.h */
    struct graph_node *dead_nodes; /* graph nodes waiting to be freed, see autograd.c */
    bool freeing_nodes;
    uint64_t node_sequence;
    char message[1024];
};

resin_context *resin_context_retain(resin_context *context);

/* Stores a printf-style message and returns `status`, so that callers write
 * `return resin_fail(context, RESIN_ERROR_SHAPE, "add: ...")`. */
resin_status resin_fail(resin_context *context, resin_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Returns early with the status of a call that failed. */
#define RESIN_TRY(call)                              \
    do {                                             \
        resin_status try_status_ = (call);           \
        if (try_status_ != RESIN_OK) return try_status_; \
    } while (0)

/* a * b and a + b of sizes, false when they overflow. */
static inline bool resin_size_multiply(size_t a, size_t b, size_t *product) {
    return !__builtin_mul_overflow(a, b, product);
}
static inline bool resin_size_add(size_t a, size_t b, size_t *sum) {
    return !__builtin_add_overflow(a, b, sum);
}

#endif
