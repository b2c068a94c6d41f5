/* reduce.c: sums, means, extremes, variances and norms over any axes, and where the extremes lie.
 *
 * Folding itself is in fold.c; here are the shape rules, what becomes of the totals, and the
 * gradients. `axes` lists the axes (none: all of them), `keep` leaves them with size 1. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/families.h"
#include "core/ops/fold.h"
#include "core/ops/rows.h"

#include <math.h>
#include <string.h>

/* ---- Axes ----------------------------------------------------------------------------------- */

static resin_status given_axes(const op_call *call, const resin_tensor *x, const char *attribute,
                               axis_set *axes) {
    const op_value *given = op_attribute(call, attribute);
    *axes = given->count == 0 ? (1u << x->rank) - 1 : 0;
    for (int i = 0; i < given->count; i++) {
        int axis;
        RESIN_TRY(shape_axis(call->context, call->op->name, x->rank, given->ints[i], &axis));
        if (*axes >> axis & 1)
            return op_fail(call, RESIN_ERROR_ARGUMENT, "axis %lld is given twice",
                           (long long)given->ints[i]);
        *axes |= 1u << axis;
    }
    return RESIN_OK;
}

/* A tensor of the reduced shape (or with kept axes) seen in the shape of the input: its strides are
 * 0 along the reduced axes. */
static resin_status spread(resin_tensor *small, int rank, const int64_t *shape, axis_set reduced,
                           resin_tensor **view) {
    int64_t stride[RESIN_MAX_RANK];
    const bool kept = small->rank == rank;
    int own = 0;
    for (int i = 0; i < rank; i++) {
        if (!(reduced >> i & 1)) stride[i] = small->stride[kept ? i : own++];
        else stride[i] = 0;
    }
    return tensor_view(small, rank, shape, stride, small->offset, view);
}

/* ---- From totals to results ----------------------------------------------------------------- */

/* call->out from totals, which are freed. */
static resin_status make_result(op_call *call, axis_set axes, resin_dtype dtype, void *totals) {
    const resin_tensor *x = call->in[0];
    int64_t shape[RESIN_MAX_RANK];
    int rank = fold_shape(x, axes, op_bool(call, "keep"), shape);
    resin_status status = tensor_new(call->context, dtype, rank, shape, &call->out);
    if (status == RESIN_OK) fold_store(call->out, totals);
    resin_deallocate(call->context, totals);
    call->saved_number[0] = axes;
    call->saved_number[1] = fold_length(x, axes);
    return status;
}

static axis_set saved_axes(const op_call *call) { return (axis_set)call->saved_number[0]; }

static int64_t result_count(const resin_tensor *x, axis_set axes) {
    return fold_length(x, ~axes);
}

/* ---- Gradients that walk over the input ----------------------------------------------------- */

/* dx[i] = gradient(x, y, dy, n) for each element, where y and dy are those of its output. */
typedef double (*element_gradient)(double x, double y, double dy, double n);

typedef struct gradient_job {
    resin_tensor *x, *y, *dy, *dx;
    element_gradient gradient;
    double n;
} gradient_job;

static void gradient_row(void *argument, const tensor_iterator *it, int64_t n,
                         const int64_t offset[ITERATE_MAX]) {
    const gradient_job *job = argument;
    const int64_t *stride = it->inner_stride;
    if (job->x->dtype == RESIN_FLOAT32) {
        const float *x = (const float *)tensor_data(job->x) + offset[0];
        const float *y = (const float *)tensor_data(job->y) + offset[1];
        const float *dy = (const float *)tensor_data(job->dy) + offset[2];
        float *dx = (float *)tensor_data(job->dx) + offset[3];
        for (int64_t i = 0; i < n; i++)
            dx[i * stride[3]] = (float)job->gradient((double)x[i * stride[0]],
                                                     (double)y[i * stride[1]],
                                                     (double)dy[i * stride[2]], job->n);
    } else {
        const double *x = (const double *)tensor_data(job->x) + offset[0];
        const double *y = (const double *)tensor_data(job->y) + offset[1];
        const double *dy = (const double *)tensor_data(job->dy) + offset[2];
        double *dx = (double *)tensor_data(job->dx) + offset[3];
        for (int64_t i = 0; i < n; i++)
            dx[i * stride[3]] = job->gradient(x[i * stride[0]], y[i * stride[1]],
                                              dy[i * stride[2]], job->n);
    }
}

/* Fills dx of x's shape; y and dy have the reduced shape. */
static resin_status walk_gradient(resin_tensor *x, resin_tensor *y, resin_tensor *dy,
                                  axis_set axes, element_gradient gradient, double n,
                                  resin_tensor *dx) {
    gradient_job job = {.x = x, .dx = dx, .gradient = gradient, .n = n};
    resin_status status = spread(y, x->rank, x->shape, axes, &job.y);
    if (status == RESIN_OK) status = spread(dy, x->rank, x->shape, axes, &job.dy);
    if (status == RESIN_OK) {
        tensor_iterator it;
        const resin_tensor *operands[] = {x, job.y, job.dy, dx};
        iterator_start(&it, x->rank, x->shape, 4, operands);
        rows_parallel(x->context, &it, gradient_row, &job);
    }
    resin_release(job.y);
    resin_release(job.dy);
    return status;
}

/* ---- sum and mean --------------------------------------------------------------------------- */

resin_status sum_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    axis_set axes;
    void *totals;
    RESIN_TRY(given_axes(call, x, "axes", &axes));
    RESIN_TRY(fold_axes(x, axes, "sum", NULL, &totals));
    return make_result(call, axes, tensor_is_float(x) ? x->dtype : RESIN_INT64, totals);
}

/* The gradient of each element is that of its sum: a view, nothing is copied. */
resin_status sum_backward(op_call *call) {
    int rank;
    const int64_t *shape = op_input_shape(call, 0, &rank);
    resin_tensor *view;
    RESIN_TRY(spread(call->out_grad, rank, shape, saved_axes(call), &view));
    op_give_grad(call, 0, view);
    resin_release(view);
    return RESIN_OK;
}

resin_status mean_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    axis_set axes;
    void *totals;
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(given_axes(call, x, "axes", &axes));
    RESIN_TRY(fold_axes(x, axes, "sum", NULL, &totals));
    const double length = (double)fold_length(x, axes);
    const int64_t outputs = result_count(x, axes);
    for (int64_t i = 0; i < outputs; i++) ((double *)totals)[i] /= length;
    return make_result(call, axes, x->dtype, totals);
}

resin_status mean_backward(op_call *call) {
    int rank;
    const int64_t *shape = op_input_shape(call, 0, &rank);
    resin_tensor *share, *view;
    RESIN_TRY(tensor_new_like(call->out_grad, &share));
    resin_status status = tensor_copy_elements(share, call->out_grad);
    const int64_t count = resin_tensor_count(share);
    const double length = (double)call->saved_number[1];
    for (int64_t i = 0; i < count; i++) {
        if (share->dtype == RESIN_FLOAT32) {
            float *value = (float *)tensor_data(share) + i;
            *value = (float)((double)*value / length);
        } else {
            ((double *)tensor_data(share))[i] /= length;
        }
    }
    if (status == RESIN_OK) status = spread(share, rank, shape, saved_axes(call), &view);
    resin_release(share);
    if (status != RESIN_OK) return status;
    op_give_grad(call, 0, view);
    resin_release(view);
    return RESIN_OK;
}

/* ---- variance: the mean first, then the squared deviations from it -------------------------- */

/* Means of x as doubles, freed by the caller. */
static resin_status fold_means(const resin_tensor *x, axis_set axes, double **means) {
    void *totals;
    RESIN_TRY(fold_axes(x, axes, "sum", NULL, &totals));
    const double length = (double)fold_length(x, axes);
    const int64_t outputs = result_count(x, axes);
    *means = totals;
    for (int64_t i = 0; i < outputs; i++) (*means)[i] /= length;
    return RESIN_OK;
}

resin_status variance_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    axis_set axes;
    double *means;
    void *totals = NULL;
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(given_axes(call, x, "axes", &axes));
    RESIN_TRY(fold_means(x, axes, &means));
    resin_status status = fold_axes(x, axes, "square_deviations", means, &totals);
    resin_deallocate(call->context, means);
    if (status != RESIN_OK) return status;
    const double divisor = (double)(fold_length(x, axes) - (op_bool(call, "unbiased") ? 1 : 0));
    const int64_t outputs = result_count(x, axes);
    for (int64_t i = 0; i < outputs; i++)
        ((double *)totals)[i] = divisor > 0 ? ((double *)totals)[i] / divisor : (double)NAN;
    op_save(call, 0, x);
    return make_result(call, axes, x->dtype, totals);
}

/* y is the mean here, n the divisor. */
static double variance_gradient(double x, double y, double dy, double n) {
    return dy * 2 * (x - y) / n;
}

resin_status variance_backward(op_call *call) {
    resin_tensor *x = call->saved[0], *dx, *mean;
    const axis_set axes = saved_axes(call);
    double *means;
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(tensor_new_like(call->out_grad, &mean));
    resin_status status = fold_means(x, axes, &means);
    if (status == RESIN_OK) {
        fold_store(mean, means);
        resin_deallocate(call->context, means);
        const int64_t divisor = call->saved_number[1] - (op_bool(call, "unbiased") ? 1 : 0);
        status = walk_gradient(x, mean, call->out_grad, axes, variance_gradient, (double)divisor,
                               dx);
    }
    resin_release(mean);
    return status;
}

/* ---- max and min ---------------------------------------------------------------------------- */

static resin_status extreme_forward(op_call *call, const char *kernel) {
    resin_tensor *x = call->in[0];
    axis_set axes;
    void *totals;
    RESIN_TRY(given_axes(call, x, "axes", &axes));
    if (fold_length(x, axes) == 0) {
        char text[SHAPE_TEXT];
        return op_fail(call, RESIN_ERROR_SHAPE, "no elements to choose from in shape %s",
                       shape_format(x->rank, x->shape, text));
    }
    RESIN_TRY(fold_axes(x, axes, kernel, NULL, &totals));
    RESIN_TRY(make_result(call, axes, x->dtype, totals));
    op_save(call, 0, x);
    op_save(call, 1, call->out);
    return RESIN_OK;
}

resin_status max_forward(op_call *call) { return extreme_forward(call, "maximum"); }
resin_status min_forward(op_call *call) { return extreme_forward(call, "minimum"); }

static double one_if_equal(double x, double y, double dy, double n) {
    (void)dy;
    (void)n;
    return x == y;
}
static double share_if_equal(double x, double y, double dy, double n) {
    (void)n;
    return x == y ? dy : 0;
}

/* dy divided by the number of elements that are their output's extreme. */
static resin_status shares_of_ties(resin_tensor *x, resin_tensor *y, resin_tensor *dy,
                                   axis_set axes, element_gradient is_extreme,
                                   resin_tensor **shares) {
    resin_tensor *ties;
    void *counts = NULL;
    RESIN_TRY(tensor_new_like(x, &ties));
    resin_status status = walk_gradient(x, y, y, axes, is_extreme, 0, ties);
    if (status == RESIN_OK) status = fold_axes(ties, axes, "sum", NULL, &counts);
    resin_release(ties);
    if (status != RESIN_OK) return status;
    status = tensor_new_like(dy, shares);
    if (status == RESIN_OK) status = tensor_copy_elements(*shares, dy);
    const int64_t outputs = resin_tensor_count(dy);
    for (int64_t i = 0; status == RESIN_OK && i < outputs; i++) {
        const double count = ((double *)counts)[i];
        if (dy->dtype == RESIN_FLOAT32) {
            float *share = (float *)tensor_data(*shares) + i;
            *share = (float)((double)*share / count);
        } else {
            ((double *)tensor_data(*shares))[i] /= count;
        }
    }
    resin_deallocate(x->context, counts);
    return status;
}

/* The gradient goes to the extreme elements, evenly if there are several. */
resin_status extreme_backward(op_call *call) {
    resin_tensor *x = call->saved[0], *y = call->saved[1], *shares, *dx;
    const axis_set axes = saved_axes(call);
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(shares_of_ties(x, y, call->out_grad, axes, one_if_equal, &shares));
    resin_status status = walk_gradient(x, y, shares, axes, share_if_equal, 0, dx);
    resin_release(shares);
    return status;
}

/* ---- norm: p = 1, 2 or infinity ------------------------------------------------------------- */

resin_status norm_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    const double p = op_number(call, "p");
    axis_set axes;
    void *totals;
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(given_axes(call, x, "axes", &axes));
    if (p != 1 && p != 2 && p != (double)INFINITY)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "p must be 1, 2 or inf, got %g", p);
    const char *kernel = p == 1 ? "sum_sizes" : p == 2 ? "sum_squares" : "maximum_size";
    RESIN_TRY(fold_axes(x, axes, kernel, NULL, &totals));
    const int64_t outputs = result_count(x, axes);
    for (int64_t i = 0; p == 2 && i < outputs; i++)
        ((double *)totals)[i] = sqrt(((double *)totals)[i]);
    RESIN_TRY(make_result(call, axes, x->dtype, totals));
    op_save(call, 0, x);
    op_save(call, 1, call->out);
    return RESIN_OK;
}

static double sign(double x) { return (x > 0) - (x < 0); }

static double norm1_gradient(double x, double y, double dy, double n) {
    (void)y;
    (void)n;
    return dy * sign(x);
}
/* 0 where the norm is 0, as in PyTorch. */
static double norm2_gradient(double x, double y, double dy, double n) {
    (void)n;
    return y == 0 ? 0 : dy * (x / y);
}
static double one_if_size(double x, double y, double dy, double n) {
    return one_if_equal(fabs(x), y, dy, n);
}
static double norm_infinity_gradient(double x, double y, double dy, double n) {
    return share_if_equal(fabs(x), y, dy, n) * sign(x);
}

resin_status norm_backward(op_call *call) {
    resin_tensor *x = call->saved[0], *y = call->saved[1], *dx, *shares;
    const double p = op_number(call, "p");
    const axis_set axes = saved_axes(call);
    RESIN_TRY(op_input_grad(call, 0, &dx));
    if (p == 1) return walk_gradient(x, y, call->out_grad, axes, norm1_gradient, 0, dx);
    if (p == 2) return walk_gradient(x, y, call->out_grad, axes, norm2_gradient, 0, dx);
    RESIN_TRY(shares_of_ties(x, y, call->out_grad, axes, one_if_size, &shares));
    resin_status status = walk_gradient(x, y, shares, axes, norm_infinity_gradient, 0, dx);
    resin_release(shares);
    return status;
}

/* ---- prod ----------------------------------------------------------------------------------- */

resin_status prod_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    axis_set axes;
    void *totals;
    RESIN_TRY(given_axes(call, x, "axes", &axes));
    RESIN_TRY(fold_axes(x, axes, "product", NULL, &totals));
    op_save(call, 0, x);
    return make_result(call, axes, tensor_is_float(x) ? x->dtype : RESIN_INT64, totals);
}

static double is_zero(double x, double y, double dy, double n) {
    return one_if_equal(x, 0, y + dy, n);
}
static double itself_or_one(double x, double y, double dy, double n) {
    (void)y;
    (void)dy;
    (void)n;
    return x == 0 ? 1 : x;
}
/* Folds f(x) over the axes; `like` has the reduced shape. */
static resin_status fold_function(resin_tensor *x, resin_tensor *like, axis_set axes,
                                  element_gradient f, const char *kernel, void **totals) {
    resin_tensor *mapped;
    RESIN_TRY(tensor_new_like(x, &mapped));
    resin_status status = walk_gradient(x, like, like, axes, f, 0, mapped);
    if (status == RESIN_OK) status = fold_axes(mapped, axes, kernel, NULL, totals);
    resin_release(mapped);
    return status;
}

/* An element's gradient is dy times the product of the others: dy P / x where no element is 0 (here
 * y stands for dy P), and dy P for the only zero (dy stands for that), P without zeros. */
static double prod_gradient(double x, double y, double dy, double n) {
    (void)n;
    return x == 0 ? dy : y / x;
}

static void prod_factors(resin_tensor *none, resin_tensor *one, resin_tensor *dy,
                         double *product, const double *zeros) {
    const int64_t outputs = resin_tensor_count(dy);
    for (int64_t i = 0; i < outputs; i++)
        product[i] *= dy->dtype == RESIN_FLOAT32 ? (double)((float *)tensor_data(dy))[i]
                                                 : ((double *)tensor_data(dy))[i];
    fold_store(none, product);
    fold_store(one, product);
    for (int64_t i = 0; i < outputs; i++) {
        const bool keep_none = zeros[i] == 0, keep_one = zeros[i] == 1;
        if (dy->dtype == RESIN_FLOAT32) {
            if (!keep_none) ((float *)tensor_data(none))[i] = 0;
            if (!keep_one) ((float *)tensor_data(one))[i] = 0;
        } else {
            if (!keep_none) ((double *)tensor_data(none))[i] = 0;
            if (!keep_one) ((double *)tensor_data(one))[i] = 0;
        }
    }
}

resin_status prod_backward(op_call *call) {
    resin_tensor *x = call->saved[0], *dy, *dx, *none = NULL, *one = NULL;
    const axis_set axes = saved_axes(call);
    void *product = NULL, *zeros = NULL;
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    resin_status status = fold_function(x, dy, axes, itself_or_one, "product", &product);
    if (status == RESIN_OK) status = fold_function(x, dy, axes, is_zero, "sum", &zeros);
    if (status == RESIN_OK) status = tensor_new_like(dy, &none);
    if (status == RESIN_OK) status = tensor_new_like(dy, &one);
    if (status == RESIN_OK) {
        prod_factors(none, one, dy, product, zeros);
        status = walk_gradient(x, none, one, axes, prod_gradient, 0, dx);
    }
    resin_deallocate(call->context, product);
    resin_deallocate(call->context, zeros);
    resin_release(none);
    resin_release(one);
    resin_release(dy);
    return status;
}

/* ---- argmax and argmin ---------------------------------------------------------------------- */

typedef struct position_job {
    const resin_tensor *x;
    position_loop find;
    int64_t *positions, base;
    int64_t outputs, pieces;
    int axis;
} position_job;

/* Offset of an output's first element: its position in x without the axis. */
static int64_t output_offset(const resin_tensor *x, int axis, int64_t output) {
    int64_t offset = 0;
    for (int i = x->rank - 1; i >= 0; i--) {
        if (i == axis) continue;
        offset += output % x->shape[i] * x->stride[i];
        output /= x->shape[i];
    }
    return offset;
}

static void position_piece(void *argument, int64_t piece, int worker) {
    const position_job *job = argument;
    const resin_tensor *x = job->x;
    const int64_t size = (int64_t)resin_dtype_size(x->dtype);
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->outputs, job->pieces, piece, &first, &last);
    for (int64_t output = first; output < last; output++) {
        const char *at = (const char *)tensor_data(x) +
                         output_offset(x, job->axis, output) * size;
        job->positions[output] =
            job->base + job->find(x->shape[job->axis], at, x->stride[job->axis]);
    }
}

/* Along one axis of x. */
static resin_status find_positions(op_call *call, const resin_tensor *x, int axis,
                                   const position_loop *find) {
    if (x->shape[axis] == 0) return op_fail(call, RESIN_ERROR_SHAPE, "no elements to choose from");
    position_job job = {.x = x, .find = find[x->dtype], .axis = axis, .base = op_int(call, "base"),
                        .positions = tensor_data(call->out),
                        .outputs = resin_tensor_count(call->out)};
    job.pieces = resin_piece_count(job.outputs * x->shape[axis], ROWS_GRAIN);
    if (job.pieces > job.outputs) job.pieces = job.outputs;
    if (job.outputs > 0) resin_parallel(call->context, job.pieces, position_piece, &job);
    return RESIN_OK;
}

static resin_status position_forward(op_call *call, const position_loop *find) {
    resin_tensor *x = call->in[0], *flat, *row;
    const int given = op_attribute(call, "axis")->count;
    axis_set axes;
    int64_t shape[RESIN_MAX_RANK];
    if (given > 1)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "expected one axis or none, got %d", given);
    RESIN_TRY(given_axes(call, x, "axis", &axes));
    int rank = fold_shape(x, axes, op_bool(call, "keep"), shape);
    RESIN_TRY(tensor_new(call->context, RESIN_INT64, rank, shape, &call->out));
    if (given == 1) return find_positions(call, x, __builtin_ctz(axes), find);

    const int64_t count = resin_tensor_count(x), stride = 1;
    RESIN_TRY(tensor_contiguous(x, &flat));
    resin_status status = tensor_view(flat, 1, &count, &stride, flat->offset, &row);
    resin_release(flat);
    if (status != RESIN_OK) return status;
    status = find_positions(call, row, 0, find);
    resin_release(row);
    return status;
}

resin_status argmax_forward(op_call *call) {
    return position_forward(call, resin_kernels()->pointwise.largest);
}
resin_status argmin_forward(op_call *call) {
    return position_forward(call, resin_kernels()->pointwise.smallest);
}
