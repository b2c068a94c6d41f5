/* apply.c: calls an op: inputs and attributes against the signature, forward, and the graph's node.
 * Also what ops use of the contract in op.h. */
#include "core/base/memory.h"
#include "core/base/profile.h"
#include "core/ops/autograd.h"
#include "core/ops/op_profile.h"
#include "core/ops/plan.h"
#include "core/ops/signature.h"

#include <stdio.h>
#include <string.h>

enum { INPUTS_ON_STACK = 16 };

static resin_status check_inputs(resin_context *context, int index, resin_tensor *const *inputs,
                                 int count) {
    const op_signature *signature = signature_of(index);
    const char *op = op_table[index].name;
    bool fits = signature->variadic ? count >= 1
                                    : count >= signature->required_tensors &&
                                          count <= signature->tensors;
    if (!fits)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "%s: got %d tensors; its arguments are (%s)", op, count,
                          op_table[index].signature);
    for (int i = 0; i < count; i++) {
        const resin_op_argument *argument =
            &signature->tensor[i < signature->tensors ? i : signature->tensors - 1];
        if (!inputs[i] && !argument->optional)
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "%s: tensor %s is missing; its arguments are (%s)", op,
                              argument->name, op_table[index].signature);
        if (inputs[i] && inputs[i]->context != context)
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "%s: tensor %s belongs to another context", op, argument->name);
    }
    return RESIN_OK;
}

static void release_saved(op_call *call) {
    for (int i = 0; i < OP_MAX_SAVED; i++) {
        resin_release(call->saved[i]);
        call->saved[i] = NULL;
    }
}

static resin_status run_forward(op_call *call) {
    const bool planned = call->context->plan;
    plan_state before = {0};
    if (planned) before = plan_look(call);
    resin_status status = call->op->forward(call);
    if (status == RESIN_OK && planned) status = plan_record(call, before);
    if (status == RESIN_OK && call->recording) status = graph_record(call);
    if (status != RESIN_OK) {
        release_saved(call);
        resin_release(call->out);
        call->out = NULL;
    }
    return status;
}

resin_status resin_apply(resin_context *context, const char *op, resin_tensor *const *inputs,
                         int count, const resin_attribute *attributes, int attribute_count,
                         resin_tensor **out) {
    *out = NULL;
    int index = signature_find(op);
    if (index < 0)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "there is no op \"%s\"", op);
    RESIN_TRY(check_inputs(context, index, inputs, count));

    op_call call = {.context = context, .op = &op_table[index], .signature = signature_of(index),
                    .mark = context->profile.mark};
    RESIN_TRY(signature_values(context, index, attributes, attribute_count, call.value));
    /* Optional tensors left out at the end are NULL, so that ops need not count. */
    int slots = call.signature->variadic ? count : call.signature->tensors;
    resin_tensor *in_stack[INPUTS_ON_STACK];
    bool wants_stack[INPUTS_ON_STACK];
    void *block = NULL;
    call.inputs = slots;
    call.in = in_stack;
    call.wants_grad = wants_stack;
    if (slots > INPUTS_ON_STACK) {
        RESIN_TRY(resin_allocate(context, (size_t)slots * (sizeof *call.in + sizeof(bool)),
                                 &block));
        call.in = block;
        call.wants_grad = (bool *)(call.in + slots);
    }
    double begun = profile_begin(context);
    resin_status status = RESIN_OK;
    for (int i = 0; i < slots; i++) {
        call.in[i] = i < count ? inputs[i] : NULL;
        if (status == RESIN_OK && call.in[i] &&
            (call.signature->variadic || !call.signature->deferred[i]))
            status = tensor_compute(call.in[i]);
        bool wants = call.in[i] && tensor_is_float(call.in[i]) && resin_requires_grad(call.in[i]);
        call.wants_grad[i] = wants && context->recording;
        call.recording |= call.wants_grad[i] && call.op->backward;
    }
    if (call.recording && context->probing) { /* a checkpoint's first run */
        context->noticed = true;
        call.recording = false;
    }
    if (status == RESIN_OK) status = run_forward(&call);
    if (status == RESIN_OK) op_profile_forward(&call, begun);
    resin_deallocate(context, block);
    *out = call.out;
    return status;
}

/* ---- For ops -------------------------------------------------------------------------------- */

const op_value *op_attribute(const op_call *call, const char *name) {
    int a = 0;
    while (a < call->signature->attributes - 1 &&
           strcmp(call->signature->attribute[a].name, name) != 0)
        a++;
    return &call->value[a];
}

bool op_keeps(const op_call *call, const int *inputs, int count) {
    if (!call->kept) return false;
    for (int i = 0; i < count; i++)
        if (call->in[inputs[i]] && !(call->kept->constants >> inputs[i] & 1)) return false;
    return true;
}

resin_status op_keep(op_call *call, int slot, const int *inputs, int count, size_t size,
                     void **block, bool *made) {
    uint64_t versions = 0;
    for (int i = 0; i < count; i++)
        if (call->in[inputs[i]]) versions += call->in[inputs[i]]->storage->version;
    *made = call->kept->slot[slot].block && call->kept->slot[slot].versions == versions;
    if (!call->kept->slot[slot].block)
        RESIN_TRY(resin_allocate(call->context, size, &call->kept->slot[slot].block));
    call->kept->slot[slot].size = size;
    call->kept->slot[slot].versions = versions;
    *block = call->kept->slot[slot].block;
    return RESIN_OK;
}

void op_save(op_call *call, int slot, resin_tensor *tensor) {
    if (!call->recording || !tensor) return;
    call->saved[slot] = resin_retain(tensor);
    call->saved_version[slot] = tensor->storage->version;
}

resin_status op_fail(const op_call *call, resin_status status, const char *format, ...) {
    char text[768];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return resin_fail(call->context, status, "%s: %s", call->op->name, text);
}

resin_status op_check_float(const op_call *call, int index) {
    const resin_tensor *t = call->in[index];
    const char *name = call->signature->tensor[call->signature->variadic ? 0 : index].name;
    if (!tensor_is_float(t))
        return op_fail(call, RESIN_ERROR_ARGUMENT, "%s must be float32 or float64, got %s", name,
                       resin_dtype_name(t->dtype));
    for (int i = 0; i < index; i++) {
        const resin_tensor *first = call->in[i];
        if (!first || !tensor_is_float(first)) continue;
        if (first->dtype != t->dtype)
            return op_fail(call, RESIN_ERROR_ARGUMENT, "%s is %s, but %s is %s", name,
                           resin_dtype_name(t->dtype), call->signature->tensor[i].name,
                           resin_dtype_name(first->dtype));
        break;
    }
    return RESIN_OK;
}

resin_status op_check_rank(const op_call *call, int index, int rank) {
    const resin_tensor *t = call->in[index];
    if (t->rank == rank) return RESIN_OK;
    char text[SHAPE_TEXT];
    return op_fail(call, RESIN_ERROR_SHAPE, "%s must have %d axes, got shape %s",
                   call->signature->tensor[call->signature->variadic ? 0 : index].name, rank,
                   shape_format(t->rank, t->shape, text));
}
