/* conv_bn_act.c: convolution, batch normalization, addition of a shortcut and activation as one
 * node of the graph: the unit that residual networks are made of.
 *
 * Backward needs the convolution's result z, the statistics and, for relu with a shortcut, the
 * output, which the next layer keeps anyhow. A `deferred` output is not computed: the next
 * convolution reads z and normalizes, and adds the shortcut, on the way (normalized.h). Without a
 * graph z is normalized in place, in inference where the convolution writes it. */
#include "core/base/memory.h"
#include "core/ops/batch_norm.h"
#include "core/ops/conv2d.h"
#include "core/ops/families.h"

enum { FIRST_OF_NORM = CONV2D_BIAS + 1 };

/* Inference: the running statistics, the shortcut and the activation are applied where the
 * convolution writes. */
static resin_status run_folded(op_call *call, const batch_norm *norm, const conv_shape *shape) {
    resin_tensor *shortcut = call->in[FIRST_OF_NORM + BATCH_NORM_SHORTCUT], *dense = NULL;
    conv_epilogue epilogue;
    void *block;
    RESIN_TRY(batch_norm_fold(norm, CONV2D_BIAS, CONV2D_SLOTS, &epilogue, &block));
    resin_status status = shortcut ? tensor_compute(shortcut) : RESIN_OK;
    if (status == RESIN_OK && shortcut) status = tensor_contiguous(shortcut, &dense);
    if (status == RESIN_OK) {
        epilogue.shortcut = dense ? tensor_data(dense) : NULL;
        status = conv2d_compute(call, BATCH_NORM_SLOTS, shape, &epilogue, NULL, call->out);
    }
    resin_release(dense);
    resin_deallocate(call->context, block);
    return status;
}

static resin_status run_both(op_call *call, const batch_norm *norm, const conv_shape *shape,
                             resin_tensor *z) {
    RESIN_TRY(batch_norm_check(norm, z->rank, z->shape));
    /* A checkpoint's first run takes the way of its second, which is recorded. */
    bool alone = !call->recording && !call->context->probing;
    if (alone && !norm->training && norm->dtype == RESIN_FLOAT32) {
        call->out = resin_retain(z);
        return run_folded(call, norm, shape);
    }
    norm_watch watch = batch_norm_watch_statistics(call);
    norm_output output = !call->recording             ? NORM_IN_PLACE
                         : op_bool(call, "deferred") ? NORM_DEFERRED
                                                     : NORM_NEW;
    resin_status status = conv2d_compute(call, BATCH_NORM_SLOTS, shape, NULL,
                                         norm->training ? &watch.watch : NULL, z);
    if (status == RESIN_OK) status = batch_norm_run(norm, z, output, &watch);
    resin_deallocate(call->context, watch.block);
    return status;
}

resin_status conv_bn_act_forward(op_call *call) {
    batch_norm norm;
    conv_shape shape;
    resin_tensor *z;
    RESIN_TRY(conv2d_begin(call, &shape, &z));
    resin_status status = batch_norm_start(call, FIRST_OF_NORM, z->dtype, z->rank, z->shape, &norm);
    if (status == RESIN_OK) status = run_both(call, &norm, &shape, z);
    resin_release(z);
    return status;
}

static resin_status through_watched(op_call *call, const batch_norm *norm,
                                    const batch_norm_return *backward, conv_watch *watch) {
    if (!backward->by_output && conv2d_reads_norm(call))
        return conv2d_run_backward(call, BATCH_NORM_SLOTS, backward->dy, &backward->norm, watch);
    resin_tensor *dz;
    RESIN_TRY(tensor_new_like(call->saved[BATCH_NORM_X], &dz));
    batch_norm_write_gradient(norm, backward, dz);
    resin_status status = conv2d_run_backward(call, BATCH_NORM_SLOTS, dz, NULL, watch);
    resin_release(dz);
    return status;
}

bool conv_bn_act_watch_gradient(op_call *before, norm_watch *watch) {
    return before->op->backward == conv_bn_act_backward &&
           batch_norm_watch_gradient(before, FIRST_OF_NORM, watch);
}

/* Where x comes from such an op, the sums over its gradient that its batch normalization needs are
 * taken while the convolution writes it. */
static resin_status through_conv(op_call *call, const batch_norm *norm,
                                 const batch_norm_return *backward) {
    op_call *before = op_finished_before(call, CONV2D_X);
    norm_watch watch = {.block = NULL};
    if (!before || !conv_bn_act_watch_gradient(before, &watch))
        return through_watched(call, norm, backward, NULL);
    resin_status status = through_watched(call, norm, backward, &watch.watch);
    if (status == RESIN_OK) batch_norm_finish_gradient(before, &watch);
    else resin_deallocate(call->context, watch.block);
    return status;
}

resin_status conv_bn_act_backward(op_call *call) {
    batch_norm norm;
    batch_norm_return backward;
    const resin_tensor *z = call->saved[BATCH_NORM_X];
    bool through = call->wants_grad[CONV2D_X] || call->wants_grad[CONV2D_WEIGHTS] ||
                   call->wants_grad[CONV2D_BIAS];
    RESIN_TRY(batch_norm_start(call, FIRST_OF_NORM, z->dtype, z->rank, z->shape, &norm));
    resin_status status = batch_norm_begin_backward(&norm, &backward);
    if (status == RESIN_OK && through) status = through_conv(call, &norm, &backward);
    batch_norm_end_backward(&norm, &backward);
    return status;
}
