/* conv.c: the three passes of convolution on raw arrays, by the method asked for. */
#include "core/ops/conv.h"

#include "core/base/memory.h"
#include "core/base/profile.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/conv_call.h"

enum { FINISH_FLOATS = 8 << 10 }; /* that a piece finishes: they fit the first-level cache */

resin_status conv_reserve(resin_context *context, int64_t count, int64_t size, float **block) {
    size_t bytes;
    if (!resin_size_multiply((size_t)count, (size_t)size, &bytes) ||
        !resin_size_multiply(bytes, sizeof(float), &bytes)) {
        return resin_fail(context, RESIN_ERROR_MEMORY,
                          "scratch of %lld x %lld floats is larger than memory can be",
                          (long long)count, (long long)size);
    }
    return resin_allocate(context, bytes, (void **)block);
}

typedef struct parts_job {
    const conv_kernels *kernels;
    const float *partial;
    int64_t parts, size, pieces;
    float *result;
} parts_job;

static void parts_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const parts_job *job = argument;
    int64_t first, last;
    resin_piece_bounds(job->size, job->pieces, piece, &first, &last);
    job->kernels->column_sums(job->parts, last - first, job->partial + first, job->size,
                              job->result + first, false);
}

void conv_add_parts(resin_context *context, const conv_kernels *kernels, const float *partial,
                    int64_t parts, int64_t size, float *result) {
    parts_job job = {kernels, partial, parts, size, resin_piece_count(size, 4096), result};
    resin_parallel(context, job.pieces, parts_piece, &job);
}

static resin_status run_method(resin_context *context, const conv_call *call,
                               conv_method method) {
    switch (method) {
    case CONV_WINOGRAD: return conv_winograd_run(context, call);
    case CONV_DIRECT: return conv_direct_run(context, call);
    case CONV_PRODUCT: return conv_product_run(context, call);
    case CONV_GROUPED: return conv_grouped_run(context, call);
    case CONV_PHASES: return conv_phases_run(context, call);
    case CONV_STRIDED: return conv_strided_run(context, call);
    default: return conv_reference_run(context, call);
    }
}

typedef struct normalize_job {
    const conv_call *call;
    int64_t pixels, pieces;
    float *to;
} normalize_job;

static void normalize_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const normalize_job *job = argument;
    const conv_call *call = job->call;
    int64_t first, last, channels = call->shape.in_c;
    resin_piece_bounds(job->pixels, job->pieces, piece, &first, &last);
    call->kernels->normalize(last - first, channels, call->x.pixels + first * channels, channels,
                             call->x.scale, call->x.shift, job->to + first * channels, channels);
}

/* By a method that reads pixels as they lie. */
static resin_status run_on_normalized(resin_context *context, const conv_call *call,
                                      conv_method method) {
    const conv_shape *s = &call->shape;
    normalize_job job = {.call = call, .pixels = s->batch * s->in_h * s->in_w};
    job.pieces = resin_piece_count(job.pixels, 256);
    RESIN_TRY(conv_reserve(context, job.pixels, s->in_c, &job.to));
    resin_parallel(context, job.pieces, normalize_piece, &job);
    conv_call plain = *call;
    plain.x = (conv_image){.pixels = job.to};
    resin_status status = run_method(context, &plain, method);
    resin_deallocate(context, job.to);
    return status;
}

/* ---- The epilogue ---------------------------------------------------------------------------- */

bool conv_epilogue_at(const conv_call *call, const float *y, int64_t channel, conv_epilogue *here) {
    const conv_epilogue *whole = call->epilogue;
    if (!whole) return false;
    *here = (conv_epilogue){whole->scale + channel, whole->shift + channel, NULL, whole->relu};
    if (whole->shortcut) here->shortcut = whole->shortcut + (y - call->result);
    return true;
}

void conv_finish(const conv_call *call, float *y, int64_t pixels, int64_t channel,
                 int64_t channels) {
    conv_epilogue here;
    if (conv_epilogue_at(call, y, channel, &here))
        call->kernels->finish(pixels, channels, y, call->shape.out_c, &here, y,
                              call->shape.out_c);
}

typedef struct finish_job {
    const conv_call *call;
    int64_t pixels, pieces;
} finish_job;

static void finish_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const finish_job *job = argument;
    int64_t first, last, channels = job->call->shape.out_c;
    resin_piece_bounds(job->pixels, job->pieces, piece, &first, &last);
    conv_finish(job->call, job->call->result + first * channels, last - first, 0, channels);
}

/* Behind a method that does not do it itself. */
static void finish_result(resin_context *context, const conv_call *call) {
    const conv_shape *s = &call->shape;
    finish_job job = {.call = call, .pixels = s->batch * s->out_h * s->out_w};
    job.pieces = resin_piece_count(job.pixels, 1 + FINISH_FLOATS / conv_max(s->out_c, 1));
    resin_parallel(context, job.pieces, finish_piece, &job);
}

/* ---- One call -------------------------------------------------------------------------------- */

/* Methods but the naive one divide by these sizes. */
static bool is_empty(const conv_shape *s) {
    return s->batch == 0 || s->in_c == 0 || s->out_c == 0 || s->in_h == 0 || s->in_w == 0 ||
           s->out_h == 0 || s->out_w == 0;
}

int64_t conv_call_prepared(const conv_call *call, conv_method method) {
    if (is_empty(&call->shape)) return 0;
    switch (method) {
    case CONV_WINOGRAD: return conv_winograd_prepared(call);
    case CONV_DIRECT: return conv_direct_prepared(call);
    case CONV_PHASES: return conv_phases_prepared(call);
    default: return 0;
    }
}

void conv_call_prepare(resin_context *context, const conv_call *call, conv_method method,
                       float *to) {
    if (method == CONV_WINOGRAD) conv_winograd_prepare(context, call, to);
    else if (method == CONV_DIRECT) conv_direct_prepare(context, call, to);
    else if (method == CONV_PHASES) conv_phases_prepare(context, call, to);
}

/* Multiply-adds that one thread does in the time that some parallel regions cost. */
static const double small_work = 1 << 20;

resin_status conv_run(resin_context *context, const conv_call *call, conv_method method) {
    if (!conv_method_fits(&call->shape, call->pass, method)) {
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "conv2d: method %s cannot do a kernel of %lldx%lld with stride "
                          "%lldx%lld, dilation %lldx%lld and %lld groups",
                          conv_method_name(method), (long long)call->shape.kernel_h,
                          (long long)call->shape.kernel_w, (long long)call->shape.stride_h,
                          (long long)call->shape.stride_w, (long long)call->shape.dilation_h,
                          (long long)call->shape.dilation_w, (long long)call->shape.groups);
    }
    const conv_shape *s = &call->shape;
    if (is_empty(s)) method = CONV_REFERENCE;
    /* The bits are the same at any number of threads; a small call stays in the caller's. */
    int threads = context->threads;
    if (conv_multiply_adds(s) < small_work) context->threads = 1;
    double begun = profile_begin(context);
    bool before = call->x.scale && !conv_method_normalizes(method);
    resin_status status = before ? run_on_normalized(context, call, method)
                                 : run_method(context, call, method);
    if (status == RESIN_OK && call->epilogue && !conv_method_finishes(method))
        finish_result(context, call);
    profile_end(context, begun,
                (resin_profile_event){.name = "conv2d", .pass = conv_pass_name(call->pass),
                                      .method = conv_method_name(method),
                                      .multiply_adds = conv_multiply_adds(s)});
    context->threads = threads;
    return status;
}

resin_status conv_forward(resin_context *context, const conv_shape *shape, conv_method method,
                          conv_image x, const float *weights, const float *bias, float *y) {
    return conv_forward_with(context, shape, method, x, weights, bias, NULL, y);
}

resin_status conv_forward_with(resin_context *context, const conv_shape *shape, conv_method method,
                               conv_image x, const float *weights, const float *bias,
                               const conv_extras *extras, float *y) {
    conv_call call = {.kernels = &resin_kernels()->conv, .shape = *shape, .pass = CONV_FORWARD,
                      .x = x, .weights = weights, .bias = bias, .result = y};
    if (extras) {
        call.prepared = extras->prepared;
        call.epilogue = extras->epilogue;
        call.watch = extras->watch;
    }
    return conv_run(context, &call, method);
}

bool conv_reads_sum(const conv_shape *shape, conv_method method) {
    const conv_call call = {.kernels = &resin_kernels()->conv, .shape = *shape,
                            .pass = CONV_FORWARD};
    return method == CONV_DIRECT && !is_empty(shape) && conv_rows_reads_sum(&call);
}

int64_t conv_prepared(const conv_shape *shape, conv_method method) {
    const conv_call call = {.kernels = &resin_kernels()->conv, .shape = *shape,
                            .pass = CONV_FORWARD};
    return conv_call_prepared(&call, method);
}

void conv_prepare(resin_context *context, const conv_shape *shape, conv_method method,
                  const float *weights, float *to) {
    const conv_call call = {.kernels = &resin_kernels()->conv, .shape = *shape,
                            .pass = CONV_FORWARD, .weights = weights};
    conv_call_prepare(context, &call, method, to);
}

resin_status conv_backward_data(resin_context *context, const conv_shape *shape, conv_method method,
                                const float *dy, const float *weights, float *dx) {
    const conv_call call = {.kernels = &resin_kernels()->conv, .shape = *shape,
                            .pass = CONV_BACKWARD_DATA, .dy = dy, .weights = weights, .result = dx};
    return conv_run(context, &call, method);
}

/* Sums of dy over pixels: by parts of the pixels, which are added in order. */
typedef struct bias_sums {
    const conv_kernels *kernels;
    const float *dy;
    int64_t pixels, channels, parts;
    float *partial;
} bias_sums;

static void bias_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const bias_sums *b = argument;
    int64_t first, last;
    resin_piece_bounds(b->pixels, b->parts, piece, &first, &last);
    b->kernels->column_sums(last - first, b->channels, b->dy + first * b->channels, b->channels,
                            b->partial + piece * b->channels, false);
}

static resin_status backward_bias(resin_context *context, const conv_kernels *kernels,
                                  const conv_shape *shape, const float *dy, float *dbias) {
    bias_sums b = {.kernels = kernels, .dy = dy, .channels = shape->out_c,
                   .pixels = shape->batch * shape->out_h * shape->out_w};
    b.parts = resin_piece_count(b.pixels, 512);
    RESIN_TRY(conv_reserve(context, b.parts, b.channels, &b.partial));
    resin_parallel(context, b.parts, bias_piece, &b);
    kernels->column_sums(b.parts, b.channels, b.partial, b.channels, dbias, false);
    resin_deallocate(context, b.partial);
    return RESIN_OK;
}

resin_status conv_backward_weights(resin_context *context, const conv_shape *shape,
                                   conv_method method, conv_image x, const float *dy,
                                   float *dweights, float *dbias) {
    const conv_call call = {.kernels = &resin_kernels()->conv, .shape = *shape,
                            .pass = CONV_BACKWARD_WEIGHTS, .x = x, .dy = dy, .result = dweights};
    RESIN_TRY(conv_run(context, &call, method));
    return dbias ? backward_bias(context, call.kernels, shape, dy, dbias) : RESIN_OK;
}

/* ---- Both backward passes -------------------------------------------------------------------- */

bool conv_reads_norm(const conv_shape *shape, bool dx, bool dweights, bool exact) {
    return (!dx || conv_method_reads_norm(conv_choose(shape, CONV_BACKWARD_DATA, exact))) &&
           (!dweights || conv_method_reads_norm(conv_choose(shape, CONV_BACKWARD_WEIGHTS, exact)));
}

bool conv_adds(const conv_shape *shape, bool exact) {
    return conv_method_adds(conv_choose(shape, CONV_BACKWARD_DATA, exact));
}

/* Whether both passes are one call of a method. */
static bool joins(const conv_call *call, conv_method method) {
    if (method == CONV_WINOGRAD)
        return call->shape.batch > 0 && conv_winograd_joins(&call->shape, call->kernels);
    return method == CONV_DIRECT && conv_multiply_adds(&call->shape) >= small_work &&
           conv_rows_joins(call);
}

resin_status conv_backward(resin_context *context, const conv_shape *shape,
                           const conv_gradients *g, bool exact) {
    conv_method data_method = conv_choose(shape, CONV_BACKWARD_DATA, exact);
    conv_method weights_method = conv_choose(shape, CONV_BACKWARD_WEIGHTS, exact);
    conv_call call = {.kernels = &resin_kernels()->conv, .shape = *shape, .x = g->x, .dy = g->dy,
                      .weights = g->weights, .norm = g->norm};
    conv_call data = call, weights = call;
    data.pass = CONV_BACKWARD_DATA;
    data.result = g->dx;
    data.add = g->add_dx;
    data.watch = g->watch;
    weights.pass = CONV_BACKWARD_WEIGHTS;
    weights.result = g->dweights;
    if (g->dx && g->dweights && data_method == weights_method && joins(&call, data_method)) {
        double begun = profile_begin(context);
        resin_status status = data_method == CONV_WINOGRAD
                                  ? conv_winograd_run_both(context, &data, &weights)
                                  : conv_rows_run_both(context, &data, &weights);
        profile_end(context, begun,
                    (resin_profile_event){.name = "conv2d", .pass = "backward",
                                          .method = conv_method_name(data_method),
                                          .multiply_adds = 2 * conv_multiply_adds(shape)});
        return status;
    }
    if (g->dweights) RESIN_TRY(conv_run(context, &weights, weights_method));
    return g->dx ? conv_run(context, &data, data_method) : RESIN_OK;
}
