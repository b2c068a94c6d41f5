/* context.c: the engine instance, its settings and errors. */
#include "core/base/context.h"

#include "core/base/memory.h"
#include "core/base/pool.h"
#include "core/base/threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 64 };

resin_context *resin_context_new(void) {
    resin_context *context = calloc(1, sizeof *context);
    if (!context) return NULL;
    context->arena = resin_arena_new();
    context->pool = resin_pool_new();
    if (!context->arena || !context->pool) {
        if (context->arena) resin_arena_free(context->arena);
        if (context->pool) resin_pool_free(context->pool);
        free(context);
        return NULL;
    }
    atomic_init(&context->references, 1);
    atomic_init(&context->cancelled, false);
    int processors = resin_available_processors();
    context->threads = processors < MAX_THREADS ? processors : MAX_THREADS;
    context->process = (int)getpid();
    context->recording = true;
    return context;
}

resin_context *resin_context_retain(resin_context *context) {
    atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);
    return context;
}

void resin_context_release(resin_context *context) {
    if (!context) return;
    if (atomic_fetch_sub_explicit(&context->references, 1, memory_order_acq_rel) != 1) return;
    if ((int)getpid() == context->process)
        resin_pool_free(context->pool);
    else
        resin_pool_abandon(context->pool);
    resin_arena_free(context->arena);
    free(context->profile.event);
    free(context);
}

int resin_threads(const resin_context *context) { return context->threads; }

resin_status resin_set_threads(resin_context *context, int threads) {
    if (threads < 1 || threads > MAX_THREADS)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "set_threads: expected 1 to %d threads, got %d", MAX_THREADS, threads);
    context->threads = threads;
    return RESIN_OK;
}

void resin_cancel(resin_context *context) { atomic_store(&context->cancelled, true); }

bool resin_cancelled(resin_context *context, bool clear) {
    return clear ? atomic_exchange(&context->cancelled, false) : atomic_load(&context->cancelled);
}

resin_status resin_fail(resin_context *context, resin_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context->message, sizeof context->message, format, arguments);
    va_end(arguments);
    return status;
}

const char *resin_error_message(const resin_context *context) { return context->message; }

const char *resin_status_name(resin_status status) {
    static const char *const names[] = {"ok",     "argument", "shape",     "graph",
                                        "memory", "file",     "cancelled", "system"};
    if ((unsigned)status >= sizeof names / sizeof names[0]) return "unknown";
    return names[status];
}

void resin_seed(resin_context *context, uint64_t seed) {
    context->random = (resin_random_state){.seed = seed, .stream = 0};
}

resin_random_state resin_random_get(const resin_context *context) { return context->random; }

void resin_random_set(resin_context *context, resin_random_state state) {
    context->random = state;
}

bool resin_set_recording(resin_context *context, bool recording) {
    bool before = context->recording;
    context->recording = recording;
    return before;
}

bool resin_recording(const resin_context *context) { return context->recording; }

resin_status resin_set_conv_method(resin_context *context, const char *method) {
    if (strcmp(method, "auto") != 0 && strcmp(method, "direct") != 0)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "conv_method: expected \"auto\" or \"direct\", got \"%s\"", method);
    context->conv_direct = strcmp(method, "direct") == 0;
    return RESIN_OK;
}

const char *resin_conv_method(const resin_context *context) {
    return context->conv_direct ? "direct" : "auto";
}
