/* conv2d.c: two-dimensional convolution (strictly: cross-correlation) of NHWC images.
 *
 *   y[n,i,j,k] = bias[k] + sum over u, v, c of
 *       x[n, i stride - top + u dilation, j stride - left + v dilation, c] weights[u,v,c,k]
 *
 * How it is computed is conv.h's affair. */
#include "core/ops/conv2d.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/families.h"
#include "core/ops/normalized.h"
#include "core/ops/window.h"

#include <inttypes.h>
#include <string.h>

/* ---- Shapes --------------------------------------------------------------------------------- */

resin_status conv2d_check_inputs(const op_call *call) {
    RESIN_TRY(op_check_float(call, CONV2D_X));
    RESIN_TRY(op_check_float(call, CONV2D_WEIGHTS));
    RESIN_TRY(op_check_rank(call, CONV2D_X, 4));
    RESIN_TRY(op_check_rank(call, CONV2D_WEIGHTS, 4));
    if (!call->in[CONV2D_BIAS]) return RESIN_OK;
    RESIN_TRY(op_check_float(call, CONV2D_BIAS));
    return op_check_rank(call, CONV2D_BIAS, 1);
}

static resin_status check_channels(const op_call *call, const int64_t *x, const int64_t *weights,
                                   int64_t groups) {
    char x_text[SHAPE_TEXT], weights_text[SHAPE_TEXT];
    shape_format(4, x, x_text);
    shape_format(4, weights, weights_text);
    if (x[3] < 1 || weights[3] < 1)
        return op_fail(call, RESIN_ERROR_SHAPE, "x %s and weights %s need at least one channel",
                       x_text, weights_text);
    if (groups < 1 || x[3] % groups || weights[3] % groups)
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "groups = %" PRId64 " must divide the channels of x %s and of weights %s",
                       groups, x_text, weights_text);
    if (weights[2] != x[3] / groups)
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "x %s with groups = %" PRId64 " needs weights (kernel_h, kernel_w, %" PRId64
                       ", out_c), got %s",
                       x_text, groups, x[3] / groups, weights_text);
    return RESIN_OK;
}

/* The geometry, from the shapes of x and weights and the attributes. */
static resin_status conv2d_shape(const op_call *call, const int64_t *x, const int64_t *weights,
                                 conv_shape *shape) {
    window_axis axis[2];
    int64_t stride[2], dilation[2], groups = op_int(call, "groups");
    RESIN_TRY(check_channels(call, x, weights, groups));
    RESIN_TRY(window_pair(call, "stride", 1, stride));
    RESIN_TRY(window_pair(call, "dilation", 1, dilation));
    RESIN_TRY(window_padding(call, axis));
    for (int i = 0; i < 2; i++) {
        axis[i].in = x[1 + i];
        axis[i].kernel = weights[i];
        axis[i].stride = stride[i];
        axis[i].dilation = dilation[i];
        RESIN_TRY(window_fit(call, i ? "width" : "height", op_bool(call, "same"), false,
                             &axis[i]));
    }
    *shape = (conv_shape){
        .batch = x[0], .in_h = x[1], .in_w = x[2], .in_c = x[3],
        .out_h = axis[0].out, .out_w = axis[1].out, .out_c = weights[3],
        .kernel_h = weights[0], .kernel_w = weights[1],
        .stride_h = stride[0], .stride_w = stride[1],
        .pad_top = axis[0].before, .pad_bottom = axis[0].after,
        .pad_left = axis[1].before, .pad_right = axis[1].after,
        .dilation_h = dilation[0], .dilation_w = dilation[1], .groups = groups,
    };
    return RESIN_OK;
}

/* ---- The passes by float type ---------------------------------------------------------------- */

/* x as a convolution reads it: normalized on the way, where its elements do not exist. */
static conv_image image_of(const resin_tensor *x) {
    normalized_parts parts;
    if (normalized_read_sum(x, &parts))
        return (conv_image){parts.x, parts.scale, parts.shift, parts.sum};
    return (conv_image){.pixels = tensor_data(x)};
}

/* Forward of an x that comes about on the way. */
static resin_status forward_with_sum(resin_context *context, const conv_shape *shape,
                                     conv_method method, const resin_tensor *x,
                                     const float *weights, const float *bias,
                                     const conv_extras *extras, float *y) {
    conv_image image = image_of(x);
    void *made;
    RESIN_TRY(resin_allocate(context, x->storage->bytes, &made));
    image.sum.to = made;
    resin_status status =
        conv_forward_with(context, shape, method, image, weights, bias, extras, y);
    if (status == RESIN_OK) tensor_give_elements(x, made);
    else resin_deallocate(context, made);
    return status;
}

resin_status conv2d_forward_pass(resin_context *context, const conv_shape *shape,
                                 const resin_tensor *x, const resin_tensor *weights,
                                 const resin_tensor *bias, const conv_extras *extras,
                                 resin_tensor *y) {
    const void *b = bias ? tensor_data(bias) : NULL;
    if (shape->batch == 0) return RESIN_OK;
    if (x->dtype == RESIN_FLOAT64)
        return conv_forward_f64(context, shape, tensor_data(x), tensor_data(weights), b,
                                tensor_data(y));
    conv_method method = conv_choose(shape, CONV_FORWARD, context->conv_direct);
    conv_image image = image_of(x);
    if (image.sum.shortcut)
        return forward_with_sum(context, shape, method, x, tensor_data(weights), b, extras,
                                tensor_data(y));
    return conv_forward_with(context, shape, method, image, tensor_data(weights), b, extras,
                             tensor_data(y));
}

resin_status conv2d_data_pass(resin_context *context, const conv_shape *shape,
                              const resin_tensor *dy, const resin_tensor *weights,
                              resin_tensor *dx) {
    if (shape->batch == 0) return RESIN_OK;
    if (dy->dtype == RESIN_FLOAT64)
        return conv_backward_data_f64(context, shape, tensor_data(dy), tensor_data(weights),
                                      tensor_data(dx));
    return conv_backward_data(context, shape,
                              conv_choose(shape, CONV_BACKWARD_DATA, context->conv_direct),
                              tensor_data(dy), tensor_data(weights), tensor_data(dx));
}

resin_status conv2d_weights_pass(resin_context *context, const conv_shape *shape,
                                 const resin_tensor *x, const resin_tensor *dy,
                                 resin_tensor *dweights) {
    if (shape->batch == 0) {
        memset(tensor_data(dweights), 0,
               (size_t)resin_tensor_count(dweights) * resin_dtype_size(dweights->dtype));
        return RESIN_OK;
    }
    if (x->dtype == RESIN_FLOAT64)
        return conv_backward_weights_f64(context, shape, tensor_data(x), tensor_data(dy),
                                         tensor_data(dweights), NULL);
    return conv_backward_weights(context, shape,
                                 conv_choose(shape, CONV_BACKWARD_WEIGHTS, context->conv_direct),
                                 image_of(x), tensor_data(dy), tensor_data(dweights), NULL);
}

/* ---- The bias alone -------------------------------------------------------------------------- */

typedef struct bias_job {
    const norm_loops *loops;
    const char *dy;
    char *scratch;   /* by worker: one block's sums */
    double *partial; /* by piece */
    int64_t rows, channels, pieces;
    size_t size;
} bias_job;

static void bias_piece(void *argument, int64_t piece, int worker) {
    bias_job *job = argument;
    int64_t first, last, block = norm_block_rows(job->channels);
    double *total = job->partial + piece * job->channels;
    void *sum = job->scratch + (size_t)(worker * job->channels) * job->size;
    resin_piece_bounds(job->rows, job->pieces, piece, &first, &last);
    memset(total, 0, (size_t)job->channels * sizeof *total);
    for (int64_t row = first; row < last; row += block) {
        int64_t rows = last - row < block ? last - row : block;
        job->loops->channel_sums(rows, job->channels,
                                 job->dy + (size_t)(row * job->channels) * job->size, sum);
        job->loops->add_sums(job->channels, sum, total);
    }
}

resin_status conv2d_bias_pass(resin_context *context, const resin_tensor *dy, resin_tensor *dbias) {
    int64_t channels = dbias->shape[0], rows = resin_tensor_count(dy) / channels;
    bias_job job = {.loops = &resin_kernels()->norm.of[dy->dtype], .dy = tensor_data(dy),
                    .rows = rows, .channels = channels,
                    .pieces = resin_piece_count(rows, 4 * norm_block_rows(channels)),
                    .size = resin_dtype_size(dy->dtype)};
    void *block;
    size_t lines = (size_t)job.pieces + (size_t)resin_workers(context);
    RESIN_TRY(resin_allocate(context, lines * (size_t)channels * sizeof(double), &block));
    job.partial = block;
    job.scratch = (char *)(job.partial + job.pieces * channels);
    resin_parallel(context, job.pieces, bias_piece, &job);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t piece = 0; piece < job.pieces; piece++)
            sum += job.partial[piece * channels + c];
        if (dy->dtype == RESIN_FLOAT64) ((double *)tensor_data(dbias))[c] = sum;
        else ((float *)tensor_data(dbias))[c] = (float)sum;
    }
    resin_deallocate(context, block);
    return RESIN_OK;
}

/* ---- On tensors ------------------------------------------------------------------------------ */

resin_status conv2d_check_bias(const op_call *call, int64_t out_c) {
    const resin_tensor *bias = call->in[CONV2D_BIAS];
    if (!bias || bias->shape[0] == out_c) return RESIN_OK;
    char bias_text[SHAPE_TEXT], weights_text[SHAPE_TEXT];
    const resin_tensor *weights = call->in[CONV2D_WEIGHTS];
    return op_fail(call, RESIN_ERROR_SHAPE, "bias %s does not fit weights %s: expected (%" PRId64
                   ")", shape_format(1, bias->shape, bias_text),
                   shape_format(4, weights->shape, weights_text), out_c);
}

/* Deferred elements that a convolution cannot make on the way are made before. */
static resin_status compute_unless_normalized(const resin_tensor *x, const conv_shape *shape) {
    normalized_parts parts;
    bool reads = normalized_read_sum(x, &parts);
    if (reads && parts.sum.shortcut)
        reads = conv_reads_sum(shape, conv_choose(shape, CONV_FORWARD, x->context->conv_direct));
    return reads ? RESIN_OK : tensor_compute(x);
}

resin_status conv2d_begin(op_call *call, conv_shape *shape, resin_tensor **y) {
    RESIN_TRY(conv2d_check_inputs(call));
    RESIN_TRY(conv2d_shape(call, call->in[CONV2D_X]->shape, call->in[CONV2D_WEIGHTS]->shape,
                           shape));
    RESIN_TRY(conv2d_check_bias(call, shape->out_c));
    const int64_t out[4] = {shape->batch, shape->out_h, shape->out_w, shape->out_c};
    return tensor_new(call->context, call->in[CONV2D_X]->dtype, 4, out, y);
}

/* In a plan, weights that are the same in all runs are arranged for the method in the first, and
 * again when they have changed. */
static resin_status keep_prepared(op_call *call, const conv_shape *shape,
                                  const resin_tensor *weights, const float **prepared) {
    static const int inputs[] = {CONV2D_WEIGHTS};
    void *block;
    bool made;
    if (weights->dtype != RESIN_FLOAT32 || !op_keeps(call, inputs, 1)) return RESIN_OK;
    conv_method method = conv_choose(shape, CONV_FORWARD, call->context->conv_direct);
    const int64_t floats = conv_prepared(shape, method);
    if (floats == 0) return RESIN_OK;
    RESIN_TRY(op_keep(call, CONV2D_KEPT, inputs, 1, (size_t)floats * sizeof(float), &block, &made));
    if (!made) conv_prepare(call->context, shape, method, tensor_data(weights), block);
    *prepared = block;
    return RESIN_OK;
}

resin_status conv2d_compute(op_call *call, int slot, const conv_shape *shape,
                            const conv_epilogue *epilogue, conv_watch *watch, resin_tensor *y) {
    resin_tensor *part[3] = {NULL, NULL, NULL}; /* x, weights and bias, contiguous */
    RESIN_TRY(compute_unless_normalized(call->in[CONV2D_X], shape));
    resin_status status = RESIN_OK;
    for (int i = 0; i < (epilogue ? CONV2D_BIAS : 3) && status == RESIN_OK; i++)
        if (call->in[i]) status = tensor_contiguous(call->in[i], &part[i]);
    conv_extras extras = {.epilogue = epilogue, .watch = watch};
    if (status == RESIN_OK)
        status = keep_prepared(call, shape, part[CONV2D_WEIGHTS], &extras.prepared);
    if (status == RESIN_OK)
        status = conv2d_forward_pass(call->context, shape, part[CONV2D_X], part[CONV2D_WEIGHTS],
                                     part[CONV2D_BIAS], &extras, y);
    if (status == RESIN_OK && call->wants_grad[CONV2D_WEIGHTS])
        op_save(call, slot, part[CONV2D_X]);
    if (status == RESIN_OK && call->wants_grad[CONV2D_X])
        op_save(call, slot + 1, part[CONV2D_WEIGHTS]);
    for (int i = 0; i < 3; i++) resin_release(part[i]);
    return status;
}

static resin_status backward_shape(const op_call *call, conv_shape *shape) {
    int rank;
    return conv2d_shape(call, op_input_shape(call, CONV2D_X, &rank),
                        op_input_shape(call, CONV2D_WEIGHTS, &rank), shape);
}

static bool wants_bias(const op_call *call) {
    return call->inputs > CONV2D_BIAS && call->wants_grad[CONV2D_BIAS];
}

bool conv2d_reads_norm(const op_call *call) {
    conv_shape shape;
    if (call->out_grad->dtype != RESIN_FLOAT32 || wants_bias(call) ||
        backward_shape(call, &shape) != RESIN_OK)
        return false;
    return conv_reads_norm(&shape, call->wants_grad[CONV2D_X], call->wants_grad[CONV2D_WEIGHTS],
                           call->context->conv_direct);
}

/* Both gradients in float32. Where the gradient of x has begun with another branch's, it is added
 * there, if the method can. */
static resin_status run_joint(op_call *call, int slot, const conv_shape *shape,
                              const resin_tensor *dy, const conv_norm *norm,
                              resin_tensor *dweights, conv_watch *watch) {
    bool exact = call->context->conv_direct;
    conv_gradients g = {.dy = tensor_data(dy), .norm = norm};
    if (dweights) {
        g.x = image_of(call->saved[slot]);
        g.dweights = tensor_data(dweights);
    }
    if (call->wants_grad[CONV2D_X]) {
        resin_tensor *begun = op_begun_grad(call, CONV2D_X);
        resin_tensor *dx = conv_adds(shape, exact) ? begun : NULL;
        g.add_dx = dx != NULL;
        g.watch = dx == begun ? watch : NULL; /* else dx is a part */
        if (!dx) RESIN_TRY(op_input_grad(call, CONV2D_X, &dx));
        g.dx = tensor_data(dx);
        g.weights = tensor_data(call->saved[slot + 1]);
    }
    return conv_backward(call->context, shape, &g, exact);
}

resin_status conv2d_run_backward(op_call *call, int slot, const resin_tensor *dy,
                                 const conv_norm *norm, conv_watch *watch) {
    conv_shape shape;
    resin_tensor *dx = NULL, *dweights = NULL, *dbias = NULL;
    RESIN_TRY(backward_shape(call, &shape));
    if (wants_bias(call)) {
        RESIN_TRY(op_input_grad(call, CONV2D_BIAS, &dbias));
        RESIN_TRY(conv2d_bias_pass(call->context, dy, dbias));
    }
    if (call->wants_grad[CONV2D_WEIGHTS]) RESIN_TRY(op_input_grad(call, CONV2D_WEIGHTS, &dweights));
    if (dy->dtype == RESIN_FLOAT32 && shape.batch > 0)
        return run_joint(call, slot, &shape, dy, norm, dweights, watch);
    if (dweights)
        RESIN_TRY(conv2d_weights_pass(call->context, &shape, call->saved[slot], dy, dweights));
    if (!call->wants_grad[CONV2D_X]) return RESIN_OK;
    RESIN_TRY(op_input_grad(call, CONV2D_X, &dx));
    return conv2d_data_pass(call->context, &shape, dy, call->saved[slot + 1], dx);
}

/* ---- The op ---------------------------------------------------------------------------------- */

resin_status conv2d_forward(op_call *call) {
    conv_shape shape;
    RESIN_TRY(conv2d_begin(call, &shape, &call->out));
    return conv2d_compute(call, 0, &shape, NULL, NULL, call->out);
}

resin_status conv2d_backward(op_call *call) {
    resin_tensor *dy;
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    resin_status status = conv2d_run_backward(call, 0, dy, NULL, NULL);
    resin_release(dy);
    return status;
}
