/* memory_plan.c: traces requests, lays them out in one block and answers them from it. */
#include "core/base/memory_plan.h"

#include "core/base/memory.h"

#include <stdlib.h>
#include <string.h>

/* ---- Tracing -------------------------------------------------------------------------------- */

void memory_plan_free(resin_context *context, memory_plan *plan) {
    free(plan->request);
    resin_deallocate(context, plan->block);
    *plan = (memory_plan){0};
}

void memory_plan_trace(resin_context *context, memory_plan *plan) {
    memory_plan_free(context, plan);
    context->memory_plan = plan;
}

void memory_plan_stop(resin_context *context) { context->memory_plan = NULL; }

int64_t memory_plan_note(memory_plan *plan, size_t size) {
    if (plan->count == plan->capacity) {
        int64_t capacity = plan->capacity ? 2 * plan->capacity : 256;
        void *more = realloc(plan->request, (size_t)capacity * sizeof *plan->request);
        plan->incomplete |= !more;
        if (!more) return -1;
        plan->request = more;
        plan->capacity = capacity;
    }
    plan->request[plan->count] =
        (memory_request){.size = size, .born = plan->events++, .died = INT64_MAX};
    return plan->count++;
}

void memory_plan_died(memory_plan *plan, int64_t number) {
    plan->request[number].died = plan->events++;
}

/* ---- Layout --------------------------------------------------------------------------------- */

static int largest_first(const void *a, const void *b) {
    const memory_request *x = *(memory_request *const *)a, *y = *(memory_request *const *)b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    return x->born > y->born ? 1 : -1;
}

static bool live_together(const memory_request *a, const memory_request *b) {
    return a->born < b->died && b->born < a->died;
}

/* The smallest gap that `request` fits into, between those of `placed` (in the order of their
 * offsets) that live when it does; else the end of them. */
static size_t best_offset(const memory_request *request, memory_request *const *placed,
                          int64_t count) {
    size_t end = 0, best = 0, best_gap = SIZE_MAX;
    for (int64_t i = 0; i < count; i++) {
        const memory_request *other = placed[i];
        if (!live_together(request, other)) continue;
        if (other->offset >= end) {
            const size_t gap = other->offset - end;
            if (gap >= request->size && gap < best_gap) {
                best = end;
                best_gap = gap;
            }
        }
        if (other->offset + other->size > end) end = other->offset + other->size;
    }
    return best_gap < SIZE_MAX ? best : end;
}

/* Greedy by size: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
 * 2020, section 5.2. */
resin_status memory_plan_lay_out(resin_context *context, memory_plan *plan) {
    const size_t count = (size_t)plan->count;
    memory_request **order = malloc((2 * count + 1) * sizeof *order), **placed = order + count;
    plan->bytes = 0;
    if (!order || plan->incomplete) {
        free(order);
        return resin_fail(context, RESIN_ERROR_MEMORY, "out of memory for a plan of %lld requests",
                          (long long)plan->count);
    }
    for (size_t i = 0; i < count; i++) order[i] = &plan->request[i];
    qsort(order, count, sizeof *order, largest_first);
    for (size_t i = 0; i < count; i++) {
        memory_request *request = order[i];
        request->offset = best_offset(request, placed, (int64_t)i);
        if (request->offset + request->size > plan->bytes)
            plan->bytes = request->offset + request->size;
        size_t place = i;
        while (place > 0 && placed[place - 1]->offset > request->offset) place--;
        memmove(&placed[place + 1], &placed[place], (i - place) * sizeof *placed);
        placed[place] = request;
    }
    free(order);
    return RESIN_OK;
}

resin_status memory_plan_take_block(resin_context *context, memory_plan *plan) {
    void *block;
    RESIN_TRY(memory_plan_lay_out(context, plan));
    resin_memory_trim(context);
    RESIN_TRY(resin_allocate(context, plan->bytes, &block));
    plan->block = block;
    memset(block, 0, plan->bytes); /* the first run, too, finds its pages in memory */
    return RESIN_OK;
}

/* ---- Replaying ------------------------------------------------------------------------------ */

void memory_plan_replay(resin_context *context, memory_plan *plan) {
    plan->replaying = true;
    plan->next = 0;
    context->memory_plan = plan;
}

resin_status memory_plan_next(resin_context *context, size_t size, void **place) {
    memory_plan *plan = context->memory_plan;
    const memory_request *request = plan->next < plan->count ? &plan->request[plan->next] : NULL;
    if (!request || request->size != size)
        return resin_fail(context, RESIN_ERROR_SYSTEM,
                          "request %lld for memory is one of %zu bytes, planned were %zu",
                          (long long)plan->next, size, request ? request->size : 0);
    plan->next++;
    *place = plan->block + request->offset;
    return RESIN_OK;
}
