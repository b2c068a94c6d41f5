/* index.c: ops that read or write by position: gather, take, one_hot. Positions are int64, int32 or
 * uint8 and count from `base`; the gradients add up in a fixed order. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/families.h"
#include "core/ops/rows.h"
#include "core/ops/signature.h"

#include <string.h>

/* ---- Positions ------------------------------------------------------------------------------ */

/* An error for the first position that is not base .. base + size - 1; `what` it stands for. */
static resin_status outside(const op_call *call, const char *what, int64_t value, int64_t place,
                            int64_t base, int64_t size) {
    const char *hint =
        value == 0 && base == 1 ? " (for positions that count from 0: base = 0)" : "";
    return op_fail(call, RESIN_ERROR_ARGUMENT,
                   "%s number %lld is %lld, expected %lld to %lld%s", what,
                   (long long)(place + base), (long long)value, (long long)base,
                   (long long)(base + size - 1), hint);
}

static int64_t integer_at(const resin_tensor *t, int64_t i) {
    const void *data = tensor_data(t);
    switch (t->dtype) {
    case RESIN_INT32: return ((const int32_t *)data)[i];
    case RESIN_INT64: return ((const int64_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

/* Positions as a contiguous int64 tensor that counts from 0, each checked to be below `size`. */
static resin_status read_positions(const op_call *call, resin_tensor *given, const char *what,
                                   int64_t size, resin_tensor **out) {
    const int64_t base = op_int(call, "base");
    resin_tensor *dense;
    if (tensor_is_float(given))
        return op_fail(call, RESIN_ERROR_ARGUMENT, "%s must be int64, int32 or uint8, got %s",
                       call->signature->tensor[call->inputs - 1].name,
                       resin_dtype_name(given->dtype));
    RESIN_TRY(tensor_contiguous(given, &dense));
    resin_status status =
        tensor_new(call->context, RESIN_INT64, given->rank, given->shape, out);
    const int64_t count = resin_tensor_count(given);
    for (int64_t i = 0; status == RESIN_OK && i < count; i++) {
        const int64_t value = integer_at(dense, i);
        if (value < base || value - base >= size) {
            status = outside(call, what, value, i, base, size);
            resin_release(*out);
            *out = NULL;
            break;
        }
        ((int64_t *)tensor_data(*out))[i] = value - base;
    }
    resin_release(dense);
    return status;
}

static int64_t product_of(const int64_t *shape, int first, int last) {
    int64_t product = 1;
    for (int i = first; i < last; i++) product *= shape[i];
    return product;
}

/* ---- take: whole slices by position --------------------------------------------------------- */

/* x (outer, size, inner) and positions (n): out (outer, n, inner). */
typedef struct take_job {
    const int64_t *positions;
    const char *from;
    char *to;
    int64_t outer, size, n, inner, pieces;
    size_t element;
    bool is_float32;
} take_job;

static void take_piece(void *argument, int64_t piece, int worker) {
    const take_job *job = argument;
    const size_t bytes = (size_t)job->inner * job->element;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->outer * job->n, job->pieces, piece, &first, &last);
    for (int64_t row = first; row < last; row++) {
        const int64_t source = row / job->n * job->size + job->positions[row % job->n];
        memcpy(job->to + (size_t)row * bytes, job->from + (size_t)source * bytes, bytes);
    }
}

resin_status take_forward(op_call *call) {
    resin_tensor *x = call->in[0], *indices = call->in[1], *dense, *positions;
    int64_t shape[RESIN_MAX_RANK];
    int axis;
    RESIN_TRY(shape_axis(call->context, "take", x->rank, op_int(call, "axis"), &axis));
    const int rank = x->rank - 1 + indices->rank;
    if (rank > RESIN_MAX_RANK)
        return op_fail(call, RESIN_ERROR_SHAPE, "the result would have %d axes", rank);
    for (int i = 0, next = 0; i < x->rank; i++) {
        if (i != axis) shape[next++] = x->shape[i];
        for (int j = 0; i == axis && j < indices->rank; j++) shape[next++] = indices->shape[j];
    }
    RESIN_TRY(read_positions(call, indices, "position", x->shape[axis], &positions));
    op_save(call, 0, positions);
    call->saved_number[0] = axis;
    resin_status status = tensor_contiguous(x, &dense);
    if (status == RESIN_OK)
        status = tensor_new(call->context, x->dtype, rank, shape, &call->out);
    if (status == RESIN_OK) {
        take_job job = {.positions = tensor_data(positions), .from = tensor_data(dense),
                        .to = tensor_data(call->out), .outer = product_of(x->shape, 0, axis),
                        .size = x->shape[axis], .n = resin_tensor_count(positions),
                        .inner = product_of(x->shape, axis + 1, x->rank),
                        .element = resin_dtype_size(x->dtype)};
        const int64_t grain = ROWS_GRAIN / (job.inner > 0 ? job.inner : 1);
        job.pieces = resin_piece_count(job.outer * job.n, grain > 0 ? grain : 1);
        if (resin_tensor_count(call->out) > 0)
            resin_parallel(call->context, job.pieces, take_piece, &job);
        resin_release(dense);
    }
    resin_release(positions);
    return status;
}

/* Adds the rows in their order; a piece owns some columns of one outer position, so that no two
 * pieces write to the same place. */
enum { TAKE_COLUMNS = 256 };

static void take_gradient_piece(void *argument, int64_t piece, int worker) {
    const take_job *job = argument;
    const int64_t blocks = (job->inner + TAKE_COLUMNS - 1) / TAKE_COLUMNS;
    const int64_t outer = piece / blocks, column = piece % blocks * TAKE_COLUMNS;
    const int64_t end = column + TAKE_COLUMNS < job->inner ? column + TAKE_COLUMNS : job->inner;
    (void)worker;
    for (int64_t i = 0; i < job->n; i++) {
        const int64_t source = (outer * job->n + i) * job->inner;
        const int64_t target = (outer * job->size + job->positions[i]) * job->inner;
        if (job->is_float32) {
            const float *from = (const float *)job->from + source;
            float *to = (float *)job->to + target;
            for (int64_t j = column; j < end; j++) to[j] += from[j];
        } else {
            const double *from = (const double *)job->from + source;
            double *to = (double *)job->to + target;
            for (int64_t j = column; j < end; j++) to[j] += from[j];
        }
    }
}

resin_status take_backward(op_call *call) {
    resin_tensor *positions = call->saved[0], *dx, *dy;
    const int axis = (int)call->saved_number[0];
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(resin_fill(dx, 0));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    take_job job = {.positions = tensor_data(positions), .from = tensor_data(dy),
                    .to = tensor_data(dx), .outer = product_of(dx->shape, 0, axis),
                    .size = dx->shape[axis], .n = resin_tensor_count(positions),
                    .inner = product_of(dx->shape, axis + 1, dx->rank),
                    .is_float32 = dx->dtype == RESIN_FLOAT32};
    const int64_t blocks = (job.inner + TAKE_COLUMNS - 1) / TAKE_COLUMNS;
    if (job.outer * blocks > 0)
        resin_parallel(call->context, job.outer * blocks, take_gradient_piece, &job);
    resin_release(dy);
    return RESIN_OK;
}

/* ---- gather: single elements by position ---------------------------------------------------- */

/* out[i, j, k] = x[i, positions[i, j, k], k] for axis 1, likewise for others. A line is what runs
 * along the axis at one position of the other axes. */
typedef struct gather_job {
    const int64_t *positions;
    const char *x, *dy;
    char *out, *dx;
    int rank, axis;
    const int64_t *shape; /* of positions and out */
    int64_t stride[RESIN_MAX_RANK], x_stride[RESIN_MAX_RANK];
    int64_t lines, pieces;
    size_t element;
    bool is_float32;
} gather_job;

static void line_offsets(const gather_job *job, int64_t line, int64_t *own, int64_t *in_x) {
    *own = *in_x = 0;
    for (int i = job->rank - 1; i >= 0; i--) {
        if (i == job->axis) continue;
        *own += line % job->shape[i] * job->stride[i];
        *in_x += line % job->shape[i] * job->x_stride[i];
        line /= job->shape[i];
    }
}

static void gather_piece(void *argument, int64_t piece, int worker) {
    const gather_job *job = argument;
    int64_t first, last, own, in_x;
    (void)worker;
    resin_piece_bounds(job->lines, job->pieces, piece, &first, &last);
    for (int64_t line = first; line < last; line++) {
        line_offsets(job, line, &own, &in_x);
        for (int64_t i = 0; i < job->shape[job->axis]; i++) {
            const int64_t at = own + i * job->stride[job->axis];
            const int64_t from = in_x + job->positions[at] * job->x_stride[job->axis];
            if (job->dx && job->is_float32)
                ((float *)job->dx)[from] += ((const float *)job->dy)[at];
            else if (job->dx)
                ((double *)job->dx)[from] += ((const double *)job->dy)[at];
            else
                memcpy(job->out + (size_t)at * job->element,
                       job->x + from * (int64_t)job->element, job->element);
        }
    }
}

static void gather_lines(resin_context *context, gather_job *job) {
    shape_strides(job->rank, job->shape, job->stride);
    job->lines = product_of(job->shape, 0, job->axis) *
                 product_of(job->shape, job->axis + 1, job->rank);
    const int64_t length = job->shape[job->axis];
    if (job->lines * length == 0) return;
    const int64_t grain = ROWS_GRAIN / 4 / length;
    job->pieces = resin_piece_count(job->lines, grain > 0 ? grain : 1);
    resin_parallel(context, job->pieces, gather_piece, job);
}

static resin_status check_gather(const op_call *call, const resin_tensor *x,
                                 const resin_tensor *indices, int axis) {
    bool fits = x->rank == indices->rank;
    for (int i = 0; fits && i < x->rank; i++)
        fits = i == axis || indices->shape[i] <= x->shape[i];
    if (fits) return RESIN_OK;
    char a[SHAPE_TEXT], b[SHAPE_TEXT];
    return op_fail(call, RESIN_ERROR_SHAPE,
                   "indices of shape %s do not fit x of shape %s outside of axis %d",
                   shape_format(indices->rank, indices->shape, a),
                   shape_format(x->rank, x->shape, b), axis);
}

resin_status gather_forward(op_call *call) {
    resin_tensor *x = call->in[0], *indices = call->in[1], *positions;
    int axis;
    RESIN_TRY(shape_axis(call->context, "gather", x->rank, op_int(call, "axis"), &axis));
    RESIN_TRY(check_gather(call, x, indices, axis));
    RESIN_TRY(read_positions(call, indices, "position", x->shape[axis], &positions));
    op_save(call, 0, positions);
    call->saved_number[0] = axis;
    resin_status status =
        tensor_new(call->context, x->dtype, indices->rank, indices->shape, &call->out);
    if (status == RESIN_OK) {
        gather_job job = {.positions = tensor_data(positions), .x = tensor_data(x),
                          .out = tensor_data(call->out), .rank = x->rank, .axis = axis,
                          .shape = positions->shape, .element = resin_dtype_size(x->dtype)};
        memcpy(job.x_stride, x->stride, sizeof job.x_stride);
        gather_lines(call->context, &job);
    }
    resin_release(positions);
    return status;
}

/* Lines do not share elements of dx, and each one adds in its order. */
resin_status gather_backward(op_call *call) {
    resin_tensor *positions = call->saved[0], *dx, *dy;
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(resin_fill(dx, 0));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    gather_job job = {.positions = tensor_data(positions), .dy = tensor_data(dy),
                      .dx = tensor_data(dx), .rank = dx->rank, .axis = (int)call->saved_number[0],
                      .shape = positions->shape, .is_float32 = dx->dtype == RESIN_FLOAT32};
    memcpy(job.x_stride, dx->stride, sizeof job.x_stride);
    gather_lines(call->context, &job);
    resin_release(dy);
    return RESIN_OK;
}

/* ---- one_hot -------------------------------------------------------------------------------- */

static void set_one(resin_tensor *t, int64_t i) {
    void *data = tensor_data(t);
    switch (t->dtype) {
    case RESIN_FLOAT32: ((float *)data)[i] = 1; break;
    case RESIN_FLOAT64: ((double *)data)[i] = 1; break;
    case RESIN_INT32: ((int32_t *)data)[i] = 1; break;
    case RESIN_INT64: ((int64_t *)data)[i] = 1; break;
    default: ((uint8_t *)data)[i] = 1; break;
    }
}

resin_status one_hot_forward(op_call *call) {
    resin_tensor *labels = call->in[0], *positions;
    const int64_t classes = op_int(call, "classes");
    int64_t shape[RESIN_MAX_RANK];
    resin_dtype dtype;
    if (!resin_dtype_from_name(op_string(call, "dtype"), &dtype))
        return op_fail(call, RESIN_ERROR_ARGUMENT, "there is no dtype \"%s\"",
                       op_string(call, "dtype"));
    if (classes < 1 || labels->rank == RESIN_MAX_RANK)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "%lld classes for labels with %d axes",
                       (long long)classes, labels->rank);
    memcpy(shape, labels->shape, sizeof shape);
    shape[labels->rank] = classes;
    RESIN_TRY(tensor_new(call->context, dtype, labels->rank + 1, shape, &call->out));
    RESIN_TRY(resin_fill(call->out, 0));
    RESIN_TRY(read_positions(call, labels, "label", classes, &positions));
    const int64_t count = resin_tensor_count(positions);
    for (int64_t i = 0; i < count; i++)
        set_one(call->out, i * classes + ((const int64_t *)tensor_data(positions))[i]);
    resin_release(positions);
    return RESIN_OK;
}
