/* op_profile.c: the events of ops: time, and the bytes of the tensors that they read and make. */
#include "core/ops/op_profile.h"

#include "core/base/profile.h"

/* What moves at least if each element is moved once: a broadcast tensor is no larger than what it
 * lies in, and elements that nobody has computed yet (tensor_recipe) are not written. */
static double bytes_of(const resin_tensor *tensor) {
    if (!tensor) return 0;
    double bytes = (double)resin_tensor_count(tensor) * (double)resin_dtype_size(tensor->dtype);
    double storage = (double)tensor->storage->bytes;
    return bytes < storage ? bytes : storage;
}

static double bytes_made(const resin_tensor *tensor) {
    return tensor && !tensor->storage->recipe ? bytes_of(tensor) : 0;
}

static bool is_view_of(const resin_tensor *tensor, const resin_tensor *other) {
    return tensor && other && tensor->storage == other->storage;
}

void op_profile_forward(const op_call *call, double begun) {
    if (begun == 0) return;
    resin_profile_event event = {.name = call->op->name, .pass = "forward"};
    bool is_view = false;
    for (int i = 0; i < call->inputs; i++) {
        event.bytes_read += bytes_of(call->in[i]);
        is_view |= is_view_of(call->in[i], call->out);
    }
    event.bytes_written = bytes_made(call->out);
    if (is_view) event.bytes_read = event.bytes_written = 0;
    profile_end(call->context, begun, event);
}

void op_profile_backward_begin(const op_call *call, op_backward_profile *profile) {
    *profile = (op_backward_profile){.begun = profile_begin(call->context)};
    if (profile->begun != 0) profile->mark = resin_profile_mark(call->context, call->mark);
}

void op_profile_backward_count(const op_call *call, op_backward_profile *profile) {
    if (profile->begun == 0) return;
    bool passes_on = true; /* the gradient itself: nothing moves */
    for (int i = 0; i < call->inputs; i++) {
        const resin_tensor *grad = call->in_grad[i];
        if (!grad || is_view_of(grad, call->out_grad)) continue;
        profile->bytes_written += bytes_made(grad);
        passes_on = false;
    }
    if (passes_on) return;
    profile->bytes_read = bytes_of(call->out_grad);
    for (int i = 0; i < OP_MAX_SAVED; i++) profile->bytes_read += bytes_of(call->saved[i]);
}

void op_profile_backward_end(const op_call *call, const op_backward_profile *profile) {
    if (profile->begun == 0) return;
    profile_end(call->context, profile->begun,
                (resin_profile_event){.name = call->op->name, .pass = "backward",
                                      .bytes_read = profile->bytes_read,
                                      .bytes_written = profile->bytes_written});
    resin_profile_mark(call->context, profile->mark);
}
