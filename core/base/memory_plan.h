/* memory_plan.h: memory for work that always makes the same requests. The arena notes the requests
 * of one run (memory_plan_trace), lay_out finds each a place in one block, and in later runs
 * (memory_plan_replay) the n-th request gets the n-th place: nothing is searched for, and how much
 * memory it takes is known before. See core/ops/plan.c. */
#ifndef RESIN_BASE_MEMORY_PLAN_H
#define RESIN_BASE_MEMORY_PLAN_H

#include "core/base/context.h"

/* Alive from event `born` to event `died`: each request and each release is an event. */
typedef struct memory_request {
    size_t size, offset;
    int64_t born, died;
} memory_request;

typedef struct memory_plan {
    memory_request *request;
    int64_t count, capacity, events;
    bool replaying;  /* else it is traced */
    bool incomplete; /* there was no memory to note a request */
    int64_t next;    /* replaying: the number of the next request */
    char *block;     /* of the arena */
    size_t bytes;    /* of the block */
} memory_plan;

/* From here to memory_plan_stop the context's requests are noted. What an older trace and its
 * layout hold is given back. */
void memory_plan_trace(resin_context *context, memory_plan *plan);
/* Offsets that keep apart what lives at the same time, and plan->bytes. */
resin_status memory_plan_lay_out(resin_context *context, memory_plan *plan);
/* Lays out and takes the block. Memory that the arena keeps for reuse is given back to the system
 * first: the trace has left as much there. */
resin_status memory_plan_take_block(resin_context *context, memory_plan *plan);
/* From here to memory_plan_stop the context's requests are answered from the block. */
void memory_plan_replay(resin_context *context, memory_plan *plan);
void memory_plan_stop(resin_context *context);
void memory_plan_free(resin_context *context, memory_plan *plan);

/* For the arena. A new request, and its number or -1; its end; the place of the next one of a
 * replay, or an error where the size is not what was planned. */
int64_t memory_plan_note(memory_plan *plan, size_t size);
void memory_plan_died(memory_plan *plan, int64_t number);
resin_status memory_plan_next(resin_context *context, size_t size, void **place);

#endif
