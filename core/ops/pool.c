/* pool.c: maxima and means over windows of NHWC images.
 *
 * Maxima are taken along each row of the image once, for all windows, then over rows. Backward goes
 * pixel by pixel and gathers from the windows that cover it, so that every element of the gradient
 * is written once, by one thread in a fixed order.
 *
 * Behind a convolution with batch norm and relu, a maximum reads what the convolution has written
 * and normalizes on the way (normalized.h), and the sums that the batch norm's gradient needs are
 * taken while the pooling's is written. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/batch_norm.h"
#include "core/ops/families.h"
#include "core/ops/normalized.h"
#include "core/ops/window.h"

#include <inttypes.h>
#include <string.h>

typedef enum pool_kind { POOL_MAX, POOL_AVG } pool_kind;

enum { WATCHED_ELEMENTS = 1 << 17 }; /* smaller gradients stay in the cache anyhow */

typedef struct pool {
    pool_kind kind;
    bool global;        /* one window over the whole image; the result has rank 2 */
    bool count_padding; /* means divide by the window's size, padding included */
    int64_t batch, channels;
    window_axis axis[2];
    resin_dtype dtype;
    const pool_loops *loops;

    const char *from; /* forward: x; backward: dy */
    char *to;         /* forward: y; backward: dx */
    pool_positions positions; /* of maxima */
    char *reduced;            /* by worker: rows of the image, reduced */
    size_t worker_bytes;
    const float *scale, *shift; /* not NULL: x is normalized while it is read, with relu */
    const conv_watch *watch;    /* of dx, or NULL */
    int64_t pieces;
} pool;

/* ---- Shapes --------------------------------------------------------------------------------- */

static resin_status read_windows(const op_call *call, pool *p) {
    int64_t kernel[2], stride[2];
    bool same = op_bool(call, "same");
    RESIN_TRY(window_pair(call, "kernel", 1, kernel));
    memcpy(stride, kernel, sizeof stride);
    if (op_attribute(call, "stride")->count > 0) RESIN_TRY(window_pair(call, "stride", 1, stride));
    RESIN_TRY(window_padding(call, p->axis));
    for (int i = 0; i < 2; i++) {
        window_axis *axis = &p->axis[i];
        axis->kernel = kernel[i];
        axis->stride = stride[i];
        axis->dilation = 1;
        RESIN_TRY(window_fit(call, i ? "width" : "height", same, op_bool(call, "ceil"), axis));
        if (axis->before >= kernel[i] || axis->after >= kernel[i])
            return op_fail(call, RESIN_ERROR_ARGUMENT,
                           "padding %" PRId64 " and %" PRId64 " must be smaller than the kernel's "
                           "size %" PRId64, axis->before, axis->after, kernel[i]);
    }
    p->count_padding = p->kind == POOL_AVG && !same && op_bool(call, "count_padding");
    return RESIN_OK;
}

/* The geometry for an x of that shape (rank 4). */
static resin_status pool_start(const op_call *call, pool_kind kind, bool global, resin_dtype dtype,
                               const int64_t *x, pool *p) {
    char text[SHAPE_TEXT];
    *p = (pool){.kind = kind, .global = global, .batch = x[0], .channels = x[3], .dtype = dtype,
                .loops = &resin_kernels()->pool.of[dtype]};
    if (x[1] < 1 || x[2] < 1)
        return op_fail(call, RESIN_ERROR_SHAPE, "x %s has no pixels", shape_format(4, x, text));
    for (int i = 0; i < 2; i++)
        p->axis[i] = (window_axis){.in = x[1 + i], .out = 1, .kernel = x[1 + i],
                                   .stride = x[1 + i], .dilation = 1};
    if (!global) RESIN_TRY(read_windows(call, p));
    if (p->axis[0].kernel > INT32_MAX / p->axis[1].kernel)
        return op_fail(call, RESIN_ERROR_SHAPE, "a window over %" PRId64 " x %" PRId64
                       " pixels is too large", p->axis[0].kernel, p->axis[1].kernel);
    return RESIN_OK;
}

static bool positions_are_narrow(const pool *p) {
    return p->axis[0].kernel * p->axis[1].kernel <= 256;
}

static void use_positions(pool *p, const resin_tensor *positions) {
    if (positions_are_narrow(p)) p->positions.narrow = tensor_data(positions);
    else p->positions.wide = tensor_data(positions);
}

static pool_positions positions_at(const pool *p, int64_t pixel) {
    pool_positions from = p->positions;
    if (from.narrow) from.narrow += pixel * p->channels;
    if (from.wide) from.wide += pixel * p->channels;
    return from;
}

/* One row of the image, and the windows along it. */
static pool_row row_of(const pool *p) {
    const window_axis *w = &p->axis[1];
    return (pool_row){p->channels, w->in, w->out, w->kernel, w->stride, w->before};
}

static char *pixel_at(const pool *p, const char *base, int64_t pixel) {
    return (char *)base + (size_t)(pixel * p->channels) * resin_dtype_size(p->dtype);
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* The pixels first .. last - 1 of one axis that window `out` covers inside the image. */
static void covered(const window_axis *axis, int64_t out, int64_t *first, int64_t *last) {
    int64_t start = out * axis->stride - axis->before, end = start + axis->kernel;
    *first = start > 0 ? start : 0;
    *last = end < axis->in ? end : axis->in;
}

/* By how many pixels of one axis a mean divides: with padding counted, the window ends at the
 * padded image's edge (PyTorch, for windows that `ceil` lets stand out). */
static int64_t divisor(const pool *p, int i, int64_t out) {
    const window_axis *axis = &p->axis[i];
    int64_t first, last;
    covered(axis, out, &first, &last);
    if (!p->count_padding) return last - first;
    first = out * axis->stride - axis->before;
    last = first + axis->kernel;
    return (last < axis->in + axis->after ? last : axis->in + axis->after) - first;
}

static double mean_factor(const pool *p, int64_t i, int64_t j) {
    return 1 / ((double)divisor(p, 0, i) * (double)divisor(p, 1, j));
}

static void mean_window(const pool *p, int64_t image, int64_t i, int64_t j) {
    const window_axis *h = &p->axis[0], *w = &p->axis[1];
    int64_t top, bottom, left, right, out = (image * h->out + i) * w->out + j;
    covered(h, i, &top, &bottom);
    covered(w, j, &left, &right);
    const pool_window window = {bottom - top, right - left, w->in * p->channels};
    const char *x = pixel_at(p, p->from, (image * h->in + top) * w->in + left);
    p->loops->sum_window(p->channels, x, &window, mean_factor(p, i, j), pixel_at(p, p->to, out));
}

static void mean_piece(void *argument, int64_t piece, int worker) {
    const pool *p = argument;
    int64_t first, last, height = p->axis[0].out;
    (void)worker;
    resin_piece_bounds(p->batch * height, p->pieces, piece, &first, &last);
    for (int64_t row = first; row < last; row++)
        for (int64_t j = 0; j < p->axis[1].out; j++)
            mean_window(p, row / height, row % height, j);
}

/* Elements from one reduced row to the next: whole lines of the cache. */
static int64_t reduced_step(const pool *p) {
    return (p->axis[1].out * p->channels + 63) / 64 * 64;
}

/* Where a worker keeps row `i` of an image, reduced: as many rows as a window has. */
static void *reduced_row(const pool *p, int worker, int64_t i, pool_positions *columns) {
    const int64_t slots = p->axis[0].kernel, step = reduced_step(p), at = i % slots * step;
    const size_t element = resin_dtype_size(p->dtype);
    char *best = p->reduced + (size_t)worker * p->worker_bytes;
    char *all_columns = best + (size_t)(slots * step) * element;
    *columns = (pool_positions){p->positions.narrow ? (uint8_t *)all_columns + at : NULL,
                                p->positions.wide ? (int32_t *)all_columns + at : NULL};
    return best + (size_t)at * element;
}

/* The row `out` of windows, from rows top .. bottom - 1 of the image, which begin with row `at` of
 * the windows: three at a time, where those before stand for one. */
static void max_of_rows(const pool *p, int worker, int64_t top, int64_t bottom, int64_t at,
                        int64_t out) {
    const window_axis *w = &p->axis[1];
    const pool_positions positions = positions_at(p, out * w->out);
    char *y = pixel_at(p, p->to, out * w->out);
    int64_t next = top;
    do {
        pool_three three = {.best = {y}, .positions = {positions}};
        for (int i = next > top; i < 3; i++) {
            int64_t row = next < bottom ? next++ : bottom - 1; /* too few: the last counts again */
            three.best[i] = reduced_row(p, worker, row, &three.positions[i]);
            three.add[i] = (int32_t)((at + row - top) * w->kernel);
        }
        p->loops->max_of_three(w->out * p->channels, &three, p->scale != NULL, y, positions);
    } while (next < bottom);
}

static void max_piece(void *argument, int64_t piece, int worker) {
    const pool *p = argument;
    const window_axis *h = &p->axis[0];
    const pool_row row = row_of(p);
    int64_t first, last, top, bottom, done = 0; /* rows of the image that are reduced */
    resin_piece_bounds(p->batch * h->out, p->pieces, piece, &first, &last);
    for (int64_t out = first; out < last; out++) {
        int64_t image = out / h->out, i = out % h->out;
        covered(h, i, &top, &bottom);
        if (i == 0 || out == first) done = 0;
        for (int64_t r = done > top ? done : top; r < bottom; r++) {
            pool_positions columns;
            void *best = reduced_row(p, worker, r, &columns);
            p->loops->max_in_row(&row, pixel_at(p, p->from, (image * h->in + r) * row.pixels),
                                 p->scale, p->shift, best, columns);
        }
        done = bottom;
        max_of_rows(p, worker, top, bottom, top - (i * h->stride - h->before), out);
    }
}

/* Rows of an image that make a piece worth a thread: about 64 KB. */
static int64_t grain(int64_t row_elements) {
    int64_t rows = 16384 / (row_elements > 0 ? row_elements : 1);
    return rows < 1 ? 1 : rows;
}

/* Where rows beside a piece's border are read for both pieces: larger ones. */
static int64_t max_grain(int64_t row_elements) { return 4 * grain(row_elements); }

static resin_status run_max(op_call *call, pool *p) {
    const window_axis *h = &p->axis[0], *w = &p->axis[1];
    size_t element = resin_dtype_size(p->dtype), bytes, all;
    void *block;
    if (p->positions.narrow) element += sizeof(uint8_t);
    if (p->positions.wide) element += sizeof(int32_t);
    if (!resin_size_multiply((size_t)h->kernel, (size_t)reduced_step(p), &bytes) ||
        !resin_size_multiply(bytes, element, &p->worker_bytes) ||
        !resin_size_multiply(p->worker_bytes, (size_t)resin_workers(call->context), &all))
        return op_fail(call, RESIN_ERROR_SHAPE, "the image is too large");
    RESIN_TRY(resin_allocate(call->context, all, &block));
    p->reduced = block;
    int64_t rows = p->batch * h->out;
    p->pieces = resin_piece_count(rows, max_grain(w->in * h->stride * p->channels));
    if (rows > 0) resin_parallel(call->context, p->pieces, max_piece, p);
    resin_deallocate(call->context, block);
    return RESIN_OK;
}

static resin_status run_means(op_call *call, pool *p) {
    const window_axis *h = &p->axis[0], *w = &p->axis[1];
    int64_t rows = p->batch * h->out;
    p->pieces = resin_piece_count(rows, grain(w->out * w->kernel * h->kernel * p->channels));
    if (rows > 0) resin_parallel(call->context, p->pieces, mean_piece, p);
    return RESIN_OK;
}

static resin_status forward_from(op_call *call, pool *p, const resin_tensor *x) {
    const window_axis *h = &p->axis[0], *w = &p->axis[1];
    const int64_t out[4] = {p->batch, h->out, w->out, p->channels}, flat[2] = {out[0], out[3]};
    RESIN_TRY(tensor_new(call->context, p->dtype, p->global ? 2 : 4, p->global ? flat : out,
                         &call->out));
    if (p->kind == POOL_MAX && call->recording) {
        resin_tensor *positions;
        RESIN_TRY(tensor_new(call->context, positions_are_narrow(p) ? RESIN_UINT8 : RESIN_INT32, 4,
                             out, &positions));
        use_positions(p, positions);
        op_save(call, 0, positions);
        resin_release(positions);
    }
    normalized_parts parts;
    if (normalized_read(x, &parts)) {
        p->from = (const char *)parts.x;
        p->scale = parts.scale;
        p->shift = parts.shift;
    } else {
        p->from = tensor_data(x);
    }
    p->to = tensor_data(call->out);
    return p->kind == POOL_MAX ? run_max(call, p) : run_means(call, p);
}

static resin_status pool_forward(op_call *call, pool_kind kind, bool global) {
    pool p;
    normalized_parts parts;
    resin_tensor *x = call->in[0];
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(op_check_rank(call, 0, 4));
    RESIN_TRY(pool_start(call, kind, global, x->dtype, x->shape, &p));
    if (!normalized_read(x, &parts)) RESIN_TRY(tensor_compute(x));
    RESIN_TRY(tensor_contiguous(x, &x));
    resin_status status = forward_from(call, &p, x);
    resin_release(x);
    return status;
}

/* ---- Backward -------------------------------------------------------------------------------- */

/* The windows first .. last of one axis that cover `pixel`. */
static void covering(const window_axis *axis, int64_t pixel, int64_t *first, int64_t *last) {
    int64_t place = pixel + axis->before;
    *first = place < axis->kernel ? 0 : (place - axis->kernel) / axis->stride + 1;
    *last = place / axis->stride;
    if (*last > axis->out - 1) *last = axis->out - 1;
}

static void mean_pixel(const pool *p, int64_t image, int64_t row, int64_t column) {
    const window_axis *h = &p->axis[0], *w = &p->axis[1];
    int64_t top, bottom, left, right;
    char *dx = pixel_at(p, p->to, (image * h->in + row) * w->in + column);
    bool first = true;
    covering(h, row, &top, &bottom);
    covering(w, column, &left, &right);
    for (int64_t i = top; i <= bottom; i++)
        for (int64_t j = left; j <= right; j++) {
            const char *dy = pixel_at(p, p->from, (image * h->out + i) * w->out + j);
            p->loops->add_scaled(p->channels, dy, mean_factor(p, i, j), first, dx);
            first = false;
        }
    if (first) memset(dx, 0, (size_t)p->channels * resin_dtype_size(p->dtype));
}

static void max_row(const pool *p, int64_t image, int64_t row) {
    const window_axis *h = &p->axis[0], *w = &p->axis[1];
    const pool_row windows = row_of(p);
    int64_t top, bottom;
    covering(h, row, &top, &bottom);
    int64_t out = (image * h->out + top) * w->out;
    const pool_cover cover = {.rows = bottom >= top ? bottom - top + 1 : 0,
                              .at = row - (top * h->stride - h->before), .stride = h->stride,
                              .dy = pixel_at(p, p->from, out), .positions = positions_at(p, out)};
    p->loops->max_gradient(&windows, &cover, pixel_at(p, p->to, (image * h->in + row) * w->in));
}

static void backward_row(const pool *p, int64_t row) {
    int64_t image = row / p->axis[0].in, i = row % p->axis[0].in;
    if (p->kind == POOL_MAX) {
        max_row(p, image, i);
        return;
    }
    for (int64_t column = 0; column < p->axis[1].in; column++) mean_pixel(p, image, i, column);
}

/* Whoever watches sees some rows at a time. */
static void backward_piece(void *argument, int64_t piece, int worker) {
    const pool *p = argument;
    int64_t first, last, width = p->axis[1].in;
    int64_t rows = 1 + (norm_block_rows(p->channels) - 1) / width;
    resin_piece_bounds(p->batch * p->axis[0].in, p->pieces, piece, &first, &last);
    for (int64_t row = first, seen = first; row < last; row++) {
        backward_row(p, row);
        if (!p->watch || (row + 1 - seen < rows && row + 1 < last)) continue;
        p->watch->pixels(p->watch, piece, seen * width, (row + 1 - seen) * width, worker);
        seen = row + 1;
    }
}

static resin_status run_backward(op_call *call, pool *p, conv_watch *watch) {
    int64_t rows = p->batch * p->axis[0].in;
    p->pieces = resin_piece_count(rows, max_grain(p->axis[1].in * p->channels));
    p->watch = watch;
    if (watch) RESIN_TRY(watch->begin(watch, (float *)p->to, p->channels, p->pieces));
    if (rows > 0) resin_parallel(call->context, p->pieces, backward_piece, p);
    return RESIN_OK;
}

/* Where x comes from a convolution with batch norm, its op, with a watch that takes the sums over
 * its gradient. Not of small ones, which stay in the cache: then a checkpoint between the two gives
 * the same bits. */
static op_call *norm_before(const op_call *call, const pool *p, norm_watch *watch) {
    int64_t elements = p->batch * p->axis[0].in * p->axis[1].in * p->channels;
    op_call *before = op_finished_before(call, 0);
    bool watched = before && elements >= WATCHED_ELEMENTS && !op_begun_grad(call, 0) &&
                   conv_bn_act_watch_gradient(before, watch);
    return watched ? before : NULL;
}

static resin_status pool_backward(op_call *call, pool_kind kind, bool global) {
    pool p;
    int rank;
    resin_tensor *dx, *dy;
    RESIN_TRY(pool_start(call, kind, global, call->out_grad->dtype, op_input_shape(call, 0, &rank),
                         &p));
    if (kind == POOL_MAX) use_positions(&p, call->saved[0]);
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    p.from = tensor_data(dy);
    p.to = tensor_data(dx);
    norm_watch watch = {.block = NULL};
    op_call *before = norm_before(call, &p, &watch);
    resin_status status = run_backward(call, &p, before ? &watch.watch : NULL);
    if (before && status == RESIN_OK) batch_norm_finish_gradient(before, &watch);
    else resin_deallocate(call->context, watch.block);
    resin_release(dy);
    return status;
}

/* ---- The ops --------------------------------------------------------------------------------- */

resin_status max_pool2d_forward(op_call *call) { return pool_forward(call, POOL_MAX, false); }
resin_status max_pool2d_backward(op_call *call) { return pool_backward(call, POOL_MAX, false); }
resin_status avg_pool2d_forward(op_call *call) { return pool_forward(call, POOL_AVG, false); }
resin_status avg_pool2d_backward(op_call *call) { return pool_backward(call, POOL_AVG, false); }
resin_status global_max_pool_forward(op_call *call) { return pool_forward(call, POOL_MAX, true); }
resin_status global_max_pool_backward(op_call *call) { return pool_backward(call, POOL_MAX, true); }
resin_status global_avg_pool_forward(op_call *call) { return pool_forward(call, POOL_AVG, true); }
resin_status global_avg_pool_backward(op_call *call) { return pool_backward(call, POOL_AVG, true); }
