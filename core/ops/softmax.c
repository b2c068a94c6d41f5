/* softmax.c: softmax, log-softmax and log-sum-exp along one axis. The rows are computed by
 * core/kernels/softmax.c; another axis than the last is brought there by a copy. */
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/families.h"
#include "core/ops/fold.h"
#include "core/ops/rows.h"

typedef struct softmax_job {
    const resin_tensor *x, *dy;
    resin_tensor *y;
    void (*forward)(int64_t n, const void *x, void *y);
    void (*gradient)(int64_t n, const void *y, const void *dy, void *dx);
    double (*log_sum_exp)(int64_t n, const void *x);
    int64_t rows, n, pieces;
} softmax_job;

/* A view of t with `axis` moved to the end, or from the end to `axis`. */
static resin_status move_axis(resin_tensor *t, int from, int to, resin_tensor **view) {
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    for (int i = 0, next = 0; i < t->rank; i++) {
        if (next == from) next++;
        int source = i == to ? from : next++;
        shape[i] = t->shape[source];
        stride[i] = t->stride[source];
    }
    return tensor_view(t, t->rank, shape, stride, t->offset, view);
}

/* A contiguous tensor in which `axis` of t is the last. */
static resin_status axis_last(resin_tensor *t, int axis, resin_tensor **out) {
    resin_tensor *view;
    RESIN_TRY(move_axis(t, axis, t->rank - 1, &view));
    resin_status status = tensor_contiguous(view, out);
    resin_release(view);
    return status;
}

/* Copies a tensor whose last axis is `axis` of `target` there. */
static resin_status axis_back(resin_tensor *last, int axis, resin_tensor *target) {
    resin_tensor *view;
    RESIN_TRY(move_axis(last, last->rank - 1, axis, &view));
    resin_status status = tensor_copy_elements(target, view);
    resin_release(view);
    return status;
}

static resin_status softmax_axis(const op_call *call, int rank, int *axis) {
    if (rank == 0) return op_fail(call, RESIN_ERROR_SHAPE, "expected at least one axis, got none");
    return shape_axis(call->context, call->op->name, rank, op_int(call, "axis"), axis);
}

static const char *row_of(const resin_tensor *t, int64_t row, int64_t n) {
    return (const char *)tensor_data(t) + row * n * (int64_t)resin_dtype_size(t->dtype);
}

static void softmax_piece(void *argument, int64_t piece, int worker) {
    const softmax_job *job = argument;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->rows, job->pieces, piece, &first, &last);
    for (int64_t row = first; row < last; row++) {
        const char *x = row_of(job->x, row, job->n);
        if (job->forward) job->forward(job->n, x, (char *)row_of(job->y, row, job->n));
        else if (job->gradient)
            job->gradient(job->n, x, row_of(job->dy, row, job->n),
                          (char *)row_of(job->y, row, job->n));
        else if (job->y->dtype == RESIN_FLOAT32)
            ((float *)tensor_data(job->y))[row] = (float)job->log_sum_exp(job->n, x);
        else
            ((double *)tensor_data(job->y))[row] = job->log_sum_exp(job->n, x);
    }
}

static void run_rows(softmax_job *job) {
    job->n = job->x->shape[job->x->rank - 1];
    job->rows = 1;
    for (int i = 0; i < job->x->rank - 1; i++) job->rows *= job->x->shape[i];
    if (job->rows == 0 || (job->n == 0 && !job->log_sum_exp)) return;
    const int64_t rows_of_piece = ROWS_GRAIN / 4 / (job->n > 0 ? job->n : 1);
    job->pieces = resin_piece_count(job->rows, rows_of_piece > 0 ? rows_of_piece : 1);
    resin_parallel(job->x->context, job->pieces, softmax_piece, job);
}

/* ---- softmax, log_softmax ------------------------------------------------------------------- */

static resin_status rows_forward(op_call *call, softmax_job job) {
    resin_tensor *in, *x = call->in[0];
    int axis;
    RESIN_TRY(softmax_axis(call, x->rank, &axis));
    RESIN_TRY(axis_last(x, axis, &in));
    job.x = in;
    resin_status status = tensor_new_like(in, &job.y);
    if (status == RESIN_OK) {
        run_rows(&job);
        if (axis == x->rank - 1) {
            call->out = resin_retain(job.y);
        } else {
            status = tensor_new_like(x, &call->out);
            if (status == RESIN_OK) status = axis_back(job.y, axis, call->out);
        }
    }
    resin_release(job.y);
    resin_release(in);
    if (status == RESIN_OK) op_save(call, 0, call->out);
    return status;
}

static resin_status rows_backward(op_call *call, softmax_job job) {
    resin_tensor *dx, *y = NULL, *dy = NULL;
    int axis;
    RESIN_TRY(softmax_axis(call, call->out_grad->rank, &axis));
    RESIN_TRY(op_input_grad(call, 0, &dx));
    resin_status status = axis_last(call->saved[0], axis, &y);
    if (status == RESIN_OK) status = axis_last(call->out_grad, axis, &dy);
    job.x = y;
    job.dy = dy;
    if (status == RESIN_OK && axis == dx->rank - 1) {
        job.y = dx;
        run_rows(&job);
    } else if (status == RESIN_OK) {
        status = tensor_new_like(y, &job.y);
        if (status == RESIN_OK) {
            run_rows(&job);
            status = axis_back(job.y, axis, dx);
        }
        resin_release(job.y);
    }
    resin_release(y);
    resin_release(dy);
    return status;
}

static int kind_of(const resin_tensor *t) { return t->dtype == RESIN_FLOAT64; }

resin_status softmax_forward(op_call *call) {
    RESIN_TRY(op_check_float(call, 0));
    const softmax_kernels *kernels = resin_kernels()->pointwise.softmax;
    return rows_forward(call, (softmax_job){.forward = kernels->softmax[kind_of(call->in[0])]});
}
resin_status softmax_backward(op_call *call) {
    const softmax_kernels *kernels = resin_kernels()->pointwise.softmax;
    return rows_backward(
        call, (softmax_job){.gradient = kernels->softmax_gradient[kind_of(call->out_grad)]});
}

resin_status log_softmax_forward(op_call *call) {
    RESIN_TRY(op_check_float(call, 0));
    const softmax_kernels *kernels = resin_kernels()->pointwise.softmax;
    return rows_forward(call,
                        (softmax_job){.forward = kernels->log_softmax[kind_of(call->in[0])]});
}
resin_status log_softmax_backward(op_call *call) {
    const softmax_kernels *kernels = resin_kernels()->pointwise.softmax;
    return rows_backward(
        call, (softmax_job){.gradient = kernels->log_softmax_gradient[kind_of(call->out_grad)]});
}

/* ---- logsumexp ------------------------------------------------------------------------------ */

static resin_status sum_axes(const op_call *call, const resin_tensor *x, axis_set *axes) {
    const op_value *given = op_attribute(call, "axes");
    *axes = given->count == 0 ? (1u << x->rank) - 1 : 0;
    for (int i = 0; i < given->count; i++) {
        int axis;
        RESIN_TRY(shape_axis(call->context, "logsumexp", x->rank, given->ints[i], &axis));
        *axes |= 1u << axis;
    }
    return RESIN_OK;
}

/* A view of t with the chosen axes behind the others. */
static resin_status axes_last(resin_tensor *t, axis_set axes, resin_tensor **view) {
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    int next = 0;
    for (unsigned chosen = 0; chosen <= 1; chosen++) {
        for (int i = 0; i < t->rank; i++) {
            if ((axes >> i & 1) != chosen) continue;
            shape[next] = t->shape[i];
            stride[next++] = t->stride[i];
        }
    }
    return tensor_view(t, t->rank, shape, stride, t->offset, view);
}

/* x as rows that hold the elements of one sum each. */
static resin_status sum_rows(resin_tensor *x, axis_set axes, resin_tensor **rows) {
    resin_tensor *view, *dense;
    RESIN_TRY(axes_last(x, axes, &view));
    resin_status status = tensor_contiguous(view, &dense);
    resin_release(view);
    if (status != RESIN_OK) return status;
    const int64_t shape[2] = {fold_length(x, ~axes), fold_length(x, axes)};
    const int64_t stride[2] = {shape[1], 1};
    status = tensor_view(dense, 2, shape, stride, dense->offset, rows);
    resin_release(dense);
    return status;
}

resin_status logsumexp_forward(op_call *call) {
    resin_tensor *rows, *x = call->in[0];
    int64_t shape[RESIN_MAX_RANK];
    axis_set axes;
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(sum_axes(call, x, &axes));
    const int rank = fold_shape(x, axes, op_bool(call, "keep"), shape);
    RESIN_TRY(tensor_new(call->context, x->dtype, rank, shape, &call->out));
    RESIN_TRY(sum_rows(x, axes, &rows));
    const softmax_kernels *kernels = resin_kernels()->pointwise.softmax;
    softmax_job job = {.x = rows, .y = call->out,
                       .log_sum_exp = kernels->log_sum_exp[kind_of(x)]};
    run_rows(&job);
    resin_release(rows);
    op_save(call, 0, x);
    return RESIN_OK;
}

/* Row r of a contiguous (rows, n) times dy[r]. */
static void scale_rows(resin_tensor *rows, const resin_tensor *dy) {
    const int64_t count = rows->shape[0], n = rows->shape[1];
    for (int64_t r = 0; r < count; r++) {
        for (int64_t i = r * n; i < (r + 1) * n; i++) {
            if (rows->dtype == RESIN_FLOAT32)
                ((float *)tensor_data(rows))[i] *= ((const float *)tensor_data(dy))[r];
            else
                ((double *)tensor_data(rows))[i] *= ((const double *)tensor_data(dy))[r];
        }
    }
}

/* Copies rows (made from a tensor of dx's shape) to where their elements belong in dx. */
static resin_status rows_back(resin_tensor *rows, axis_set axes, resin_tensor *dx) {
    resin_tensor *target, *source;
    int64_t stride[RESIN_MAX_RANK];
    RESIN_TRY(axes_last(dx, axes, &target));
    shape_strides(target->rank, target->shape, stride);
    resin_status status =
        tensor_view(rows, target->rank, target->shape, stride, rows->offset, &source);
    if (status == RESIN_OK) {
        status = tensor_copy_elements(target, source);
        resin_release(source);
    }
    resin_release(target);
    return status;
}

/* dx = softmax(x) dy. */
resin_status logsumexp_backward(op_call *call) {
    resin_tensor *x = call->saved[0], *rows = NULL, *dx, *dy;
    axis_set axes;
    RESIN_TRY(sum_axes(call, x, &axes));
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    const softmax_kernels *kernels = resin_kernels()->pointwise.softmax;
    softmax_job job = {.forward = kernels->softmax[kind_of(x)]};
    resin_status status = sum_rows(x, axes, &rows);
    job.x = rows;
    if (status == RESIN_OK) status = tensor_new_like(rows, &job.y);
    if (status == RESIN_OK) {
        run_rows(&job);
        scale_rows(job.y, dy);
        status = rows_back(job.y, axes, dx);
    }
    resin_release(job.y);
    resin_release(rows);
    resin_release(dy);
    return status;
}
