/* conv2d_transpose.c: transposed convolution: the gradient of a convolution with respect to its
 * image, taken as an operation of its own (PyTorch's ConvTranspose2d, in NHWC).
 *
 * The weights are those of the convolution whose gradient it is: (kernel_h, kernel_w,
 * out_c / groups, in_c), where in_c counts the channels of x here. */
#include "core/ops/conv2d.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/families.h"
#include "core/ops/window.h"

#include <inttypes.h>

/* The size of y along one axis: `in` of the convolution, while x has its `out`. */
static resin_status transposed_size(const op_call *call, const char *what, int64_t x_size,
                                    int64_t more, window_axis *axis) {
    int64_t spread, extent;
    if (axis->kernel < 1 || axis->kernel > WINDOW_LIMIT || x_size < 1)
        return op_fail(call, RESIN_ERROR_SHAPE, "the %s of x and of the kernel must be 1 to 2^30",
                       what);
    if (more >= axis->stride && more >= axis->dilation)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "output_padding %" PRId64
                       " must be smaller than the stride %" PRId64 " or the dilation %" PRId64,
                       more, axis->stride, axis->dilation);
    extent = (axis->kernel - 1) * axis->dilation + 1 - axis->before - axis->after + more;
    if (__builtin_mul_overflow(x_size - 1, axis->stride, &spread) ||
        __builtin_add_overflow(spread, extent, &axis->in) || axis->in < 1)
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "x of %s %" PRId64 " with padding %" PRId64 " and %" PRId64
                       " gives no valid %s of the output", what, x_size, axis->before, axis->after,
                       what);
    axis->out = x_size;
    return RESIN_OK;
}

static resin_status check_channels(const op_call *call, const int64_t *x, const int64_t *weights,
                                   int64_t groups) {
    char x_text[SHAPE_TEXT], weights_text[SHAPE_TEXT];
    if (x[3] < 1 || weights[2] < 1 || weights[3] != x[3])
        return op_fail(call, RESIN_ERROR_SHAPE, "x %s needs weights (kernel_h, kernel_w, out_c / "
                       "groups, %" PRId64 "), got %s", shape_format(4, x, x_text), x[3],
                       shape_format(4, weights, weights_text));
    if (groups < 1 || x[3] % groups || groups > INT64_MAX / weights[2])
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "groups = %" PRId64 " must divide the channels of x %s", groups,
                       shape_format(4, x, x_text));
    return RESIN_OK;
}

/* The convolution whose gradient the call is: its image is y, its result is x. */
static resin_status transposed_shape(const op_call *call, const int64_t *x, const int64_t *weights,
                                     conv_shape *shape) {
    window_axis axis[2];
    int64_t stride[2], dilation[2], more[2], groups = op_int(call, "groups");
    RESIN_TRY(check_channels(call, x, weights, groups));
    RESIN_TRY(window_pair(call, "stride", 1, stride));
    RESIN_TRY(window_pair(call, "dilation", 1, dilation));
    RESIN_TRY(window_pair(call, "output_padding", 0, more));
    RESIN_TRY(window_padding(call, axis));
    for (int i = 0; i < 2; i++) {
        axis[i].kernel = weights[i];
        axis[i].stride = stride[i];
        axis[i].dilation = dilation[i];
        RESIN_TRY(transposed_size(call, i ? "width" : "height", x[1 + i], more[i], &axis[i]));
    }
    *shape = (conv_shape){
        .batch = x[0], .in_h = axis[0].in, .in_w = axis[1].in, .in_c = weights[2] * groups,
        .out_h = x[1], .out_w = x[2], .out_c = x[3],
        .kernel_h = weights[0], .kernel_w = weights[1],
        .stride_h = stride[0], .stride_w = stride[1],
        .pad_top = axis[0].before, .pad_bottom = axis[0].after,
        .pad_left = axis[1].before, .pad_right = axis[1].after,
        .dilation_h = dilation[0], .dilation_w = dilation[1], .groups = groups,
    };
    return RESIN_OK;
}

/* ---- Bias: y = y * 1 + bias, in place -------------------------------------------------------- */

typedef struct bias_job {
    const norm_loops *loops;
    const void *one, *bias;
    char *y;
    int64_t rows, channels, pieces;
    size_t size;
} bias_job;

static void bias_piece(void *argument, int64_t piece, int worker) {
    const bias_job *job = argument;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->rows, job->pieces, piece, &first, &last);
    char *y = job->y + (size_t)(first * job->channels) * job->size;
    job->loops->apply(last - first, job->channels, y, job->one, job->bias, NULL, NORM_LINEAR, y);
}

static resin_status add_bias(resin_context *context, const resin_tensor *bias, resin_tensor *y) {
    resin_tensor *one;
    int64_t channels = bias->shape[0], rows = resin_tensor_count(y) / channels;
    RESIN_TRY(resin_full(context, y->dtype, 1, bias->shape, 1, &one));
    bias_job job = {&resin_kernels()->norm.of[y->dtype], tensor_data(one), tensor_data(bias),
                    tensor_data(y), rows, channels,
                    resin_piece_count(rows, 4 * norm_block_rows(channels)),
                    resin_dtype_size(y->dtype)};
    resin_parallel(context, job.pieces, bias_piece, &job);
    resin_release(one);
    return RESIN_OK;
}

/* ---- The op ---------------------------------------------------------------------------------- */

static resin_status compute(op_call *call, const conv_shape *shape, resin_tensor **part) {
    for (int i = 0; i < 3; i++)
        if (call->in[i]) RESIN_TRY(tensor_contiguous(call->in[i], &part[i]));
    RESIN_TRY(conv2d_data_pass(call->context, shape, part[CONV2D_X], part[CONV2D_WEIGHTS],
                               call->out));
    if (part[CONV2D_BIAS]) RESIN_TRY(add_bias(call->context, part[CONV2D_BIAS], call->out));
    if (call->wants_grad[CONV2D_WEIGHTS]) op_save(call, 0, part[CONV2D_X]);
    if (call->wants_grad[CONV2D_X]) op_save(call, 1, part[CONV2D_WEIGHTS]);
    return RESIN_OK;
}

resin_status conv2d_transpose_forward(op_call *call) {
    resin_tensor *part[3] = {NULL, NULL, NULL}; /* x, weights and bias, contiguous */
    conv_shape shape;
    RESIN_TRY(conv2d_check_inputs(call));
    RESIN_TRY(transposed_shape(call, call->in[CONV2D_X]->shape, call->in[CONV2D_WEIGHTS]->shape,
                               &shape));
    RESIN_TRY(conv2d_check_bias(call, shape.in_c));
    const int64_t out[4] = {shape.batch, shape.in_h, shape.in_w, shape.in_c};
    RESIN_TRY(tensor_new(call->context, call->in[CONV2D_X]->dtype, 4, out, &call->out));
    resin_status status = compute(call, &shape, part);
    for (int i = 0; i < 3; i++) resin_release(part[i]);
    return status;
}

static resin_status gradients(op_call *call, const conv_shape *shape, const resin_tensor *dy) {
    resin_tensor *grad;
    if (call->inputs > CONV2D_BIAS && call->wants_grad[CONV2D_BIAS]) {
        RESIN_TRY(op_input_grad(call, CONV2D_BIAS, &grad));
        RESIN_TRY(conv2d_bias_pass(call->context, dy, grad));
    }
    if (call->wants_grad[CONV2D_WEIGHTS]) {
        RESIN_TRY(op_input_grad(call, CONV2D_WEIGHTS, &grad));
        RESIN_TRY(conv2d_weights_pass(call->context, shape, dy, call->saved[0], grad));
    }
    if (!call->wants_grad[CONV2D_X]) return RESIN_OK;
    RESIN_TRY(op_input_grad(call, CONV2D_X, &grad));
    return conv2d_forward_pass(call->context, shape, dy, call->saved[1], NULL, NULL,
                               grad);
}

resin_status conv2d_transpose_backward(op_call *call) {
    conv_shape shape;
    resin_tensor *dy;
    int rank;
    RESIN_TRY(transposed_shape(call, op_input_shape(call, CONV2D_X, &rank),
                               op_input_shape(call, CONV2D_WEIGHTS, &rank), &shape));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    resin_status status = gradients(call, &shape, dy);
    resin_release(dy);
    return status;
}
