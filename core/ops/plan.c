/* plan.c: plans: the calls of ops that a computation is made of, recorded once and run again
 * without taking memory (resin.h, "Plans").
 *
 * Every tensor that the recorded calls read or make is a value with a number: an input, a constant
 * (what no recorded call made: weights), or a result. A run calls forward of each op, as
 * resin_apply does, and releases each result behind its last reader. So it makes the same requests
 * for memory every time, those of the ops' scratch too: one run on the arena is traced, and all
 * later ones get their memory from the block that core/base/memory_plan.c lays out. */
#include "core/ops/plan.h"

#include "core/base/memory.h"
#include "core/base/memory_plan.h"
#include "core/base/profile.h"
#include "core/base/threads.h"
#include "core/ops/op_profile.h"
#include "core/ops/signature.h"

#include <string.h>

enum { LEFT_OUT = -1, STAYS = INT32_MAX };

typedef struct plan_value {
    resin_tensor *tensor; /* of inputs and constants, and of results while a run needs them */
    int32_t last;         /* the step behind which it is released, or STAYS */
} plan_value;

typedef struct plan_step {
    op_call call;   /* with the attributes; the three arrays stand behind the step */
    int32_t *value; /* of each input, or LEFT_OUT */
    int32_t out;
    op_kept kept;
    int64_t requests; /* how many requests for memory were made up to its end */
} plan_step;

typedef struct plan_output {
    int32_t value;
    resin_plan_value described;
    int64_t shape[RESIN_MAX_RANK];
} plan_output;

struct resin_plan {
    atomic_int references;
    resin_context *context;
    bool was_recording; /* gradients, before the plan was recorded */
    plan_value *value;  /* the inputs first */
    plan_step **step;
    plan_output *output;
    resin_tensor **example; /* the inputs that it was recorded with, until it is laid out */
    int64_t values, value_capacity, steps, step_capacity;
    int inputs, outputs;
    memory_plan memory;
    int workers; /* what the layout holds for; 0: there is none */
    bool conv_direct;
};

/* ---- Storing -------------------------------------------------------------------------------- */

static resin_status zeroed(resin_context *context, size_t count, size_t size, void *out) {
    size_t bytes;
    void *memory = NULL;
    if (!resin_size_multiply(count, size, &bytes))
        return resin_fail(context, RESIN_ERROR_MEMORY, "plan: too many entries");
    RESIN_TRY(resin_allocate(context, bytes, &memory));
    memset(memory, 0, bytes);
    memcpy(out, &memory, sizeof memory);
    return RESIN_OK;
}

/* Room for one more entry in the array that `array` points at. */
static resin_status grow(resin_context *context, void *array, int64_t count, int64_t *capacity,
                         size_t size) {
    if (count < *capacity) return RESIN_OK;
    if (count >= INT32_MAX / 2)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "plan: too many calls of ops");
    void *old, *more;
    const int64_t room = *capacity ? 2 * *capacity : 64;
    RESIN_TRY(zeroed(context, (size_t)room, size, &more));
    memcpy(&old, array, sizeof old);
    if (old) memcpy(more, old, (size_t)count * size);
    resin_deallocate(context, old);
    memcpy(array, &more, sizeof more);
    *capacity = room;
    return RESIN_OK;
}

/* A new value for a tensor, by which the recording knows it from here on. */
static resin_status add_value(resin_plan *plan, resin_tensor *tensor, int32_t *number) {
    resin_context *context = plan->context;
    RESIN_TRY(grow(context, &plan->value, plan->values, &plan->value_capacity,
                   sizeof *plan->value));
    *number = (int32_t)plan->values++;
    tensor->plan_serial = context->plan_serial;
    tensor->plan_value = *number;
    return RESIN_OK;
}

/* The number of a tensor; one that is not known yet is a constant. */
static resin_status value_of(resin_plan *plan, resin_tensor *tensor, int32_t *number) {
    *number = tensor->plan_value;
    if (tensor->plan_serial == plan->context->plan_serial) return RESIN_OK;
    RESIN_TRY(tensor_compute(tensor));
    RESIN_TRY(add_value(plan, tensor, number));
    plan->value[*number] = (plan_value){.tensor = resin_retain(tensor), .last = STAYS};
    return RESIN_OK;
}

/* Between runs the results are the outputs of the last one. */
static void drop_results(resin_plan *plan) {
    for (int64_t i = 0; i < plan->steps; i++) {
        plan_value *result = &plan->value[plan->step[i]->out];
        resin_release(result->tensor);
        result->tensor = NULL;
    }
}

static void drop_kept(resin_plan *plan) {
    for (int64_t i = 0; i < plan->steps; i++) {
        op_kept *kept = &plan->step[i]->kept;
        for (int slot = 0; slot < OP_MAX_KEPT; slot++)
            resin_deallocate(plan->context, kept->slot[slot].block);
        memset(kept->slot, 0, sizeof kept->slot);
    }
}

static void drop_examples(resin_plan *plan) {
    for (int i = 0; plan->example && i < plan->inputs; i++) resin_release(plan->example[i]);
    resin_deallocate(plan->context, plan->example);
    plan->example = NULL;
}

/* The context stays: while a plan is recorded it does not hold it. */
static void free_parts(resin_plan *plan) {
    resin_context *context = plan->context;
    drop_results(plan);
    drop_kept(plan);
    drop_examples(plan);
    for (int64_t i = 0; i < plan->values; i++) resin_release(plan->value[i].tensor);
    for (int64_t i = 0; i < plan->steps; i++) resin_deallocate(context, plan->step[i]);
    memory_plan_free(context, &plan->memory);
    resin_deallocate(context, plan->value);
    resin_deallocate(context, plan->step);
    resin_deallocate(context, plan->output);
    resin_deallocate(context, plan);
}

/* ---- Recording ------------------------------------------------------------------------------ */

plan_state plan_look(const op_call *call) {
    plan_state state = {.stream = resin_random_get(call->context).stream};
    for (int i = 0; i < call->inputs; i++)
        if (call->in[i]) state.versions += call->in[i]->storage->version;
    return state;
}

/* One block of memory: the step, in, value and wants_grad. */
static resin_status new_step(resin_context *context, const op_call *call, plan_step **out) {
    const size_t inputs = (size_t)call->inputs;
    plan_step *step;
    RESIN_TRY(zeroed(context, 1, sizeof *step + inputs * (sizeof *call->in + sizeof *step->value +
                                                          sizeof *call->wants_grad), &step));
    step->call = *call;
    step->call.in = (resin_tensor **)(step + 1);
    step->value = (int32_t *)(step->call.in + inputs);
    step->call.wants_grad = (bool *)(step->value + inputs);
    step->call.out = NULL;
    step->call.recording = false;
    *out = step;
    return RESIN_OK;
}

static resin_status add_step(resin_plan *plan, plan_step *step, const op_call *call) {
    for (int i = 0; i < call->inputs; i++) {
        step->value[i] = LEFT_OUT;
        if (!call->in[i]) continue;
        RESIN_TRY(value_of(plan, call->in[i], &step->value[i]));
        const int32_t value = step->value[i];
        if (value >= plan->inputs && plan->value[value].tensor && i < 32)
            step->kept.constants |= UINT32_C(1) << i;
    }
    RESIN_TRY(grow(plan->context, &plan->step, plan->steps, &plan->step_capacity,
                   sizeof *plan->step));
    RESIN_TRY(add_value(plan, call->out, &step->out));
    plan->step[plan->steps++] = step;
    return RESIN_OK;
}

resin_status plan_record(op_call *call, plan_state before) {
    const plan_state after = plan_look(call);
    plan_step *step;
    if (call->recording)
        return op_fail(call, RESIN_ERROR_GRAPH,
                       "gradients cannot be recorded together with a plan");
    if (after.stream != before.stream)
        return op_fail(call, RESIN_ERROR_GRAPH,
                       "it draws random numbers, which a plan would repeat");
    if (after.versions != before.versions)
        return op_fail(call, RESIN_ERROR_GRAPH,
                       "it changes its inputs, which a plan cannot do (training?)");
    RESIN_TRY(new_step(call->context, call, &step));
    resin_status status = add_step(call->context->plan, step, call);
    if (status != RESIN_OK) resin_deallocate(call->context, step);
    return status;
}

/* A tensor over memory that each run names. */
static resin_status add_input(resin_plan *plan, resin_tensor *example) {
    int32_t number;
    resin_context *context = plan->context;
    if (!example || example->context != context || !resin_tensor_contiguous(example))
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "plan: input %d must be a contiguous "
                          "tensor of this context", plan->inputs);
    if (example->plan_serial == context->plan_serial)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "plan: input %d is given twice",
                          plan->inputs);
    RESIN_TRY(tensor_compute(example));
    RESIN_TRY(add_value(plan, example, &number));
    plan->value[number].last = STAYS;
    plan->example[plan->inputs++] = resin_retain(example);
    return resin_from_buffer(context, tensor_data(example), example->dtype, example->rank,
                             example->shape, NULL, NULL, &plan->value[number].tensor);
}

resin_status resin_plan_begin(resin_context *context, resin_tensor *const *inputs, int count) {
    resin_plan *plan;
    if (context->plan)
        return resin_fail(context, RESIN_ERROR_GRAPH, "plan: another one is being recorded");
    if (count < 0) return resin_fail(context, RESIN_ERROR_ARGUMENT, "plan: %d inputs", count);
    RESIN_TRY(zeroed(context, 1, sizeof *plan, &plan));
    atomic_init(&plan->references, 1);
    plan->context = context;
    context->plan_serial++;
    resin_status status =
        zeroed(context, (size_t)count + 1, sizeof *plan->example, &plan->example);
    for (int i = 0; i < count && status == RESIN_OK; i++) status = add_input(plan, inputs[i]);
    if (status != RESIN_OK) {
        free_parts(plan);
        return status;
    }
    plan->was_recording = resin_set_recording(context, false);
    context->plan = plan;
    return RESIN_OK;
}

/* The plan that is recorded, which ends with this. */
static resin_plan *stop_recording(resin_context *context) {
    resin_plan *plan = context->plan;
    context->plan = NULL;
    context->plan_serial++; /* nothing is known by its number any more */
    resin_set_recording(context, plan->was_recording);
    return plan;
}

void resin_plan_cancel(resin_context *context) {
    if (context->plan) free_parts(stop_recording(context));
}

/* ---- Running -------------------------------------------------------------------------------- */

static void release_value(resin_plan *plan, int32_t number, int64_t step) {
    plan_value *value = &plan->value[number];
    if (value->last != step) return;
    resin_release(value->tensor);
    value->tensor = NULL;
}

static resin_status run_step(resin_plan *plan, plan_step *step) {
    op_call *call = &step->call;
    for (int i = 0; i < call->inputs; i++)
        call->in[i] = step->value[i] == LEFT_OUT ? NULL : plan->value[step->value[i]].tensor;
    if (plan->context->profile.on) resin_profile_mark(plan->context, call->mark);
    const double begun = profile_begin(plan->context);
    call->out = NULL;
    call->kept = &step->kept;
    resin_status status = call->op->forward(call);
    if (status == RESIN_OK) op_profile_forward(call, begun);
    plan->value[step->out].tensor = call->out;
    return status;
}

static resin_status run_steps(resin_plan *plan) {
    const int64_t mark = resin_profile_mark(plan->context, 0);
    memory_plan *memory = &plan->memory;
    resin_status status = RESIN_OK;
    for (int64_t s = 0; s < plan->steps && status == RESIN_OK; s++) {
        plan_step *step = plan->step[s];
        status = run_step(plan, step);
        for (int i = 0; i < step->call.inputs; i++)
            if (step->value[i] != LEFT_OUT) release_value(plan, step->value[i], s);
        release_value(plan, step->out, s);
        if (!memory->replaying)
            step->requests = memory->count;
        else if (status == RESIN_OK && memory->next != step->requests)
            status = op_fail(&step->call, RESIN_ERROR_SYSTEM,
                             "it made %lld requests for memory, planned were %lld",
                             (long long)memory->next, (long long)step->requests);
    }
    resin_profile_mark(plan->context, mark);
    return status;
}

/* Runs on the arena twice, to let ops make what they keep and to see which memory is wanted then,
 * and takes that. */
static resin_status lay_out(resin_plan *plan) {
    resin_context *context = plan->context;
    plan->workers = 0;
    drop_results(plan);
    drop_kept(plan);
    memory_plan_free(context, &plan->memory);
    resin_status status = run_steps(plan);
    drop_results(plan);
    if (status != RESIN_OK) return status;
    memory_plan_trace(context, &plan->memory);
    status = run_steps(plan);
    memory_plan_stop(context);
    drop_results(plan);
    if (status == RESIN_OK) status = memory_plan_take_block(context, &plan->memory);
    if (status != RESIN_OK) return status;
    plan->workers = resin_workers(context);
    plan->conv_direct = context->conv_direct;
    return RESIN_OK;
}

static resin_status set_inputs(resin_plan *plan, const void *const *inputs) {
    for (int i = 0; i < plan->inputs; i++) {
        const resin_tensor *tensor = plan->value[i].tensor;
        const size_t size = resin_dtype_size(tensor->dtype);
        if ((!inputs[i] && resin_tensor_count(tensor) > 0) || (uintptr_t)inputs[i] % size != 0)
            return resin_fail(plan->context, RESIN_ERROR_ARGUMENT, "plan: expected input %d in "
                              "memory aligned to %zu bytes, got %p", i, size, inputs[i]);
        tensor->storage->data = (void *)(uintptr_t)inputs[i]; /* which no op writes to */
    }
    return RESIN_OK;
}

resin_status resin_plan_run(resin_plan *plan, const void *const *inputs) {
    resin_context *context = plan->context;
    if (context->plan)
        return resin_fail(context, RESIN_ERROR_GRAPH,
                          "plan: it cannot run while another one is recorded");
    RESIN_TRY(set_inputs(plan, inputs));
    if (plan->workers != resin_workers(context) || plan->conv_direct != context->conv_direct)
        RESIN_TRY(lay_out(plan));
    drop_results(plan);
    memory_plan_replay(context, &plan->memory);
    resin_status status = run_steps(plan);
    memory_plan_stop(context);
    if (status != RESIN_OK) drop_results(plan);
    return status;
}

/* ---- From the recording to the plan ---------------------------------------------------------- */

/* The value of output `index`, contiguous, and what it looks like. */
static resin_status add_output(resin_plan *plan, resin_tensor *tensor) {
    resin_context *context = plan->context;
    plan_output *output = &plan->output[plan->outputs];
    if (!tensor || tensor->context != context)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "plan: output %d must be a tensor of this "
                          "context", plan->outputs);
    resin_tensor *dense = resin_retain(tensor);
    resin_status status = RESIN_OK;
    if (!resin_tensor_contiguous(tensor)) {
        resin_release(dense);
        status = resin_apply(context, "contiguous", &tensor, 1, NULL, 0, &dense);
    }
    if (status == RESIN_OK) status = value_of(plan, dense, &output->value);
    resin_release(dense);
    if (status != RESIN_OK) return status;
    memcpy(output->shape, tensor->shape, sizeof output->shape);
    output->described = (resin_plan_value){.dtype = tensor->dtype, .rank = tensor->rank,
                                           .shape = output->shape};
    plan->outputs++;
    return RESIN_OK;
}

/* By which step each result is read last; a result that nobody reads goes at once. */
static void find_last_readers(resin_plan *plan) {
    for (int64_t s = 0; s < plan->steps; s++) {
        const plan_step *step = plan->step[s];
        plan->value[step->out].last = (int32_t)s;
        for (int i = 0; i < step->call.inputs; i++) {
            plan_value *value = step->value[i] == LEFT_OUT ? NULL : &plan->value[step->value[i]];
            if (value && value->last != STAYS) value->last = (int32_t)s;
        }
    }
    for (int i = 0; i < plan->outputs; i++) plan->value[plan->output[i].value].last = STAYS;
}

resin_status resin_plan_end(resin_context *context, resin_tensor *const *outputs, int count,
                            resin_plan **out) {
    resin_plan *plan = context->plan;
    *out = NULL;
    if (!plan) return resin_fail(context, RESIN_ERROR_GRAPH, "plan: none is being recorded");
    resin_status status = RESIN_OK;
    if (count < 1)
        status = resin_fail(context, RESIN_ERROR_ARGUMENT, "plan: expected an output");
    else
        status = zeroed(context, (size_t)count, sizeof *plan->output, &plan->output);
    for (int i = 0; i < count && status == RESIN_OK; i++) status = add_output(plan, outputs[i]);
    stop_recording(context);
    if (status == RESIN_OK) {
        find_last_readers(plan);
        status = lay_out(plan);
    }
    if (status != RESIN_OK) {
        free_parts(plan);
        return status;
    }
    drop_examples(plan);
    resin_context_retain(context);
    *out = plan;
    return RESIN_OK;
}

/* ---- Plans as objects ------------------------------------------------------------------------ */

resin_plan *resin_plan_retain(resin_plan *plan) {
    atomic_fetch_add_explicit(&plan->references, 1, memory_order_relaxed);
    return plan;
}

void resin_plan_release(resin_plan *plan) {
    if (!plan) return;
    if (atomic_fetch_sub_explicit(&plan->references, 1, memory_order_acq_rel) != 1) return;
    resin_context *context = plan->context;
    free_parts(plan);
    resin_context_release(context);
}

resin_context *resin_plan_context(const resin_plan *plan) { return plan->context; }
size_t resin_plan_memory(const resin_plan *plan) { return plan->memory.bytes; }

size_t resin_plan_kept_memory(const resin_plan *plan) {
    size_t bytes = 0;
    for (int64_t i = 0; i < plan->steps; i++)
        for (int slot = 0; slot < OP_MAX_KEPT; slot++) bytes += plan->step[i]->kept.slot[slot].size;
    return bytes;
}

int resin_plan_inputs(const resin_plan *plan) { return plan->inputs; }
int resin_plan_outputs(const resin_plan *plan) { return plan->outputs; }

resin_plan_value resin_plan_input(const resin_plan *plan, int index) {
    const resin_tensor *tensor = plan->value[index].tensor;
    return (resin_plan_value){.dtype = tensor->dtype, .rank = tensor->rank, .shape = tensor->shape};
}

resin_plan_value resin_plan_output(const resin_plan *plan, int index) {
    resin_plan_value value = plan->output[index].described;
    const resin_tensor *tensor = plan->value[plan->output[index].value].tensor;
    value.data = tensor ? tensor_data(tensor) : NULL;
    return value;
}
