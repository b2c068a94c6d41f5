/* matmul.c: matrix products: matmul with batches, broadcasting and vectors, and linear, the dense
 * layer. The products themselves are product_f32 (product.c) and, for float64, OpenBLAS.
 *
 * A matrix here is the last two axes of a tensor. One whose rows or columns lie densely is passed
 * as it is, or as transposed; any other is copied first. */
#include "core/base/blas.h"
#include "core/ops/families.h"
#include "core/ops/product.h"

#include <string.h>

/* ---- One product, or a batch of them -------------------------------------------------------- */

typedef struct matrix {
    resin_tensor *tensor; /* retained */
    bool transposed;
    int64_t leading; /* distance of neighbouring rows (of columns, if transposed) */
} matrix;

/* Whether a matrix with these sizes and strides can be passed to a product without a copy. */
static bool dense_rows(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                       int64_t *leading) {
    if (columns > 1 && column_stride != 1) return false;
    *leading = rows > 1 ? row_stride : columns;
    if (*leading < columns || *leading < 1) return false;
    return true;
}

static resin_status matrix_of(resin_tensor *t, matrix *m) {
    const int64_t rows = t->shape[t->rank - 2], columns = t->shape[t->rank - 1];
    const int64_t row_stride = t->stride[t->rank - 2], column_stride = t->stride[t->rank - 1];
    *m = (matrix){.tensor = NULL};
    if (dense_rows(rows, columns, row_stride, column_stride, &m->leading)) {
        m->tensor = resin_retain(t);
        return RESIN_OK;
    }
    if (dense_rows(columns, rows, column_stride, row_stride, &m->leading)) {
        m->transposed = true;
        m->tensor = resin_retain(t);
        return RESIN_OK;
    }
    m->leading = columns > 0 ? columns : 1;
    return tensor_contiguous(t, &m->tensor);
}

/* The distance from each matrix of a batch to the next, if it is the same for all. */
static bool even_step(const resin_tensor *t, int batch_rank, int64_t *step) {
    bool first = true;
    int64_t next = 0;
    *step = 0;
    for (int i = batch_rank - 1; i >= 0; i--) {
        if (t->shape[i] == 1) continue;
        if (first) *step = t->stride[i];
        else if (t->stride[i] != next) return false;
        first = false;
        next = t->stride[i] * t->shape[i];
    }
    return true;
}

static int64_t batch_offset(const resin_tensor *t, int batch_rank, int64_t index) {
    int64_t offset = 0;
    for (int i = batch_rank - 1; i >= 0; i--) {
        offset += index % t->shape[i] * t->stride[i];
        index /= t->shape[i];
    }
    return offset;
}

static resin_status one_product(resin_context *context, const matrix *a, const matrix *b,
                                resin_tensor *c, const int64_t offset[3]) {
    const int64_t m = c->shape[c->rank - 2], n = c->shape[c->rank - 1];
    const int64_t k = a->tensor->shape[a->tensor->rank - 1];
    if (c->dtype == RESIN_FLOAT32)
        return product_f32(context, a->transposed, b->transposed, m, n, k,
                           (const float *)tensor_data(a->tensor) + offset[0], a->leading,
                           (const float *)tensor_data(b->tensor) + offset[1], b->leading,
                           (float *)tensor_data(c) + offset[2], n, false);
    return blas_dgemm(context, a->transposed, b->transposed, m, n, k,
                      (const double *)tensor_data(a->tensor) + offset[0], a->leading,
                      (const double *)tensor_data(b->tensor) + offset[1], b->leading,
                      (double *)tensor_data(c) + offset[2], n, false);
}

/* c = a b for matrices with the same batch axes (an axis may have stride 0); c is contiguous. */
static resin_status products(resin_context *context, const matrix *a, const matrix *b,
                             resin_tensor *c) {
    const int batch_rank = c->rank - 2;
    const int64_t m = c->shape[c->rank - 2], n = c->shape[c->rank - 1];
    const int64_t k = a->tensor->shape[a->tensor->rank - 1];
    int64_t batch = 1, step_a, step_b;
    for (int i = 0; i < batch_rank; i++) batch *= c->shape[i];
    if (batch == 0 || m == 0 || n == 0) return RESIN_OK;
    if (k == 0) return resin_fill(c, 0);
    if (batch > 1 && c->dtype == RESIN_FLOAT32 && even_step(a->tensor, batch_rank, &step_a) &&
        even_step(b->tensor, batch_rank, &step_b))
        return product_batched_f32(context, batch, a->transposed, b->transposed, m, n, k,
                                   tensor_data(a->tensor), a->leading, step_a,
                                   tensor_data(b->tensor), b->leading, step_b, tensor_data(c), n,
                                   m * n, false);
    for (int64_t i = 0; i < batch; i++) {
        const int64_t offset[3] = {batch_offset(a->tensor, batch_rank, i),
                                   batch_offset(b->tensor, batch_rank, i), i * m * n};
        RESIN_TRY(one_product(context, a, b, c, offset));
    }
    return RESIN_OK;
}

/* ---- Views ---------------------------------------------------------------------------------- */

static resin_status swap_last_two(resin_tensor *t, resin_tensor **view) {
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    memcpy(shape, t->shape, sizeof shape);
    memcpy(stride, t->stride, sizeof stride);
    const int last = t->rank - 1;
    shape[last] = t->shape[last - 1];
    shape[last - 1] = t->shape[last];
    stride[last] = t->stride[last - 1];
    stride[last - 1] = t->stride[last];
    return tensor_view(t, t->rank, shape, stride, t->offset, view);
}

/* t with axes in front so that it has the batch axes of `shape`; stride 0 where it is repeated. */
static resin_status spread_batch(resin_tensor *t, int rank, const int64_t *shape,
                                 resin_tensor **view) {
    int64_t wanted[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        const int own = i - (rank - t->rank);
        wanted[i] = i < rank - 2 ? shape[i] : t->shape[own];
        const bool repeated = own < 0 || (t->shape[own] == 1 && wanted[i] != 1);
        stride[i] = repeated ? 0 : t->stride[own];
    }
    return tensor_view(t, rank, wanted, stride, t->offset, view);
}

/* Puts an axis of size 1 in front or at the end of a vector; a matrix stays as it is. */
static resin_status as_matrix(resin_tensor *t, bool row, resin_tensor **view) {
    if (t->rank != 1) {
        *view = resin_retain(t);
        return RESIN_OK;
    }
    const int64_t shape[2] = {row ? 1 : t->shape[0], row ? t->shape[0] : 1};
    const int64_t stride[2] = {row ? 0 : t->stride[0], row ? t->stride[0] : 0};
    return tensor_view(t, 2, shape, stride, t->offset, view);
}

/* c = a b into a contiguous c with the batch axes of both together. */
static resin_status multiply_into(resin_tensor *a, resin_tensor *b, resin_tensor *c) {
    resin_tensor *view_a = NULL, *view_b = NULL;
    matrix matrix_a = {.tensor = NULL}, matrix_b = {.tensor = NULL};
    resin_status status = spread_batch(a, c->rank, c->shape, &view_a);
    if (status == RESIN_OK) status = spread_batch(b, c->rank, c->shape, &view_b);
    if (status == RESIN_OK) status = matrix_of(view_a, &matrix_a);
    if (status == RESIN_OK) status = matrix_of(view_b, &matrix_b);
    if (status == RESIN_OK) status = products(c->context, &matrix_a, &matrix_b, c);
    resin_release(matrix_a.tensor);
    resin_release(matrix_b.tensor);
    resin_release(view_a);
    resin_release(view_b);
    return status;
}

/* The same with tensors of at least two axes; makes c. */
static resin_status multiply(const op_call *call, resin_tensor *a, resin_tensor *b,
                             resin_tensor **c) {
    resin_tensor batch_a = {.context = call->context, .rank = a->rank - 2};
    resin_tensor batch_b = {.context = call->context, .rank = b->rank - 2};
    memcpy(batch_a.shape, a->shape, sizeof batch_a.shape);
    memcpy(batch_b.shape, b->shape, sizeof batch_b.shape);
    int rank;
    int64_t shape[RESIN_MAX_RANK];
    if (shape_broadcast(call->context, call->op->name, &batch_a, &batch_b, &rank, shape)) {
        char text_a[SHAPE_TEXT], text_b[SHAPE_TEXT];
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "the batch axes of shapes %s and %s cannot be broadcast together",
                       shape_format(a->rank, a->shape, text_a),
                       shape_format(b->rank, b->shape, text_b));
    }
    shape[rank] = a->shape[a->rank - 2];
    shape[rank + 1] = b->shape[b->rank - 1];
    RESIN_TRY(tensor_new(call->context, a->dtype, rank + 2, shape, c));
    resin_status status = multiply_into(a, b, *c);
    if (status != RESIN_OK) {
        resin_release(*c);
        *c = NULL;
    }
    return status;
}

/* A contiguous (..., k) as one matrix (rows, k). */
static resin_status rows_as_matrix(resin_tensor *t, resin_tensor **out) {
    resin_tensor *dense;
    RESIN_TRY(tensor_contiguous(t, &dense));
    int64_t shape[2] = {1, t->shape[t->rank - 1]}, stride[2] = {t->shape[t->rank - 1], 1};
    for (int i = 0; i < t->rank - 1; i++) shape[0] *= t->shape[i];
    resin_status status = tensor_view(dense, 2, shape, stride, dense->offset, out);
    resin_release(dense);
    return status;
}

/* ---- matmul --------------------------------------------------------------------------------- */

static resin_status check_product(const op_call *call, const resin_tensor *a,
                                  const resin_tensor *b) {
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(op_check_float(call, 1));
    char text_a[SHAPE_TEXT], text_b[SHAPE_TEXT];
    shape_format(a->rank, a->shape, text_a);
    shape_format(b->rank, b->shape, text_b);
    if (a->rank == 0 || b->rank == 0)
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "expected vectors or matrices, got shapes %s and %s", text_a, text_b);
    const int64_t inner_a = a->shape[a->rank - 1];
    const int64_t inner_b = b->shape[b->rank == 1 ? 0 : b->rank - 2];
    if (inner_a != inner_b)
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "the inner sizes %lld and %lld of shapes %s and %s differ",
                       (long long)inner_a, (long long)inner_b, text_a, text_b);
    return RESIN_OK;
}

/* Takes away the axes that as_matrix put in. */
static resin_status drop_axes(resin_tensor *t, bool a_vector, bool b_vector, resin_tensor **view) {
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < t->rank; i++) {
        if ((a_vector && i == t->rank - 2) || (b_vector && i == t->rank - 1)) continue;
        shape[rank] = t->shape[i];
        stride[rank++] = t->stride[i];
    }
    return tensor_view(t, rank, shape, stride, t->offset, view);
}

/* A product (..., m, k) (k, n) is one product of all rows. */
static bool is_one_product(const resin_tensor *a, const resin_tensor *b) {
    return b->rank == 2 && a->rank > 2 && resin_tensor_contiguous(a);
}

static resin_status matmul_matrices(op_call *call, resin_tensor *a, resin_tensor *b,
                                    resin_tensor **c) {
    if (!is_one_product(a, b)) return multiply(call, a, b, c);
    resin_tensor *rows, *flat;
    RESIN_TRY(rows_as_matrix(a, &rows));
    resin_status status = multiply(call, rows, b, &flat);
    resin_release(rows);
    if (status != RESIN_OK) return status;
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    memcpy(shape, a->shape, sizeof shape);
    shape[a->rank - 1] = b->shape[1];
    shape_strides(a->rank, shape, stride);
    status = tensor_view(flat, a->rank, shape, stride, flat->offset, c);
    resin_release(flat);
    return status;
}

resin_status matmul_forward(op_call *call) {
    resin_tensor *a = call->in[0], *b = call->in[1], *matrix_a, *matrix_b, *c;
    RESIN_TRY(check_product(call, a, b));
    RESIN_TRY(as_matrix(a, true, &matrix_a));
    resin_status status = as_matrix(b, false, &matrix_b);
    if (status == RESIN_OK) {
        status = matmul_matrices(call, matrix_a, matrix_b, &c);
        resin_release(matrix_b);
    }
    resin_release(matrix_a);
    if (status != RESIN_OK) return status;
    status = drop_axes(c, a->rank == 1, b->rank == 1, &call->out);
    resin_release(c);
    /* Each one's gradient is made of the other. */
    if (call->wants_grad[1]) op_save(call, 0, a);
    if (call->wants_grad[0]) op_save(call, 1, b);
    return status;
}

/* Gives a gradient in the shape of as_matrix's result (with batch axes) to the input. */
static resin_status give_matrix_gradient(op_call *call, int index, resin_tensor *gradient) {
    int rank;
    op_input_shape(call, index, &rank);
    if (rank != 1) return op_give_grad_broadcast(call, index, gradient);
    resin_tensor *vector;
    RESIN_TRY(drop_axes(gradient, index == 0, index == 1, &vector));
    resin_status status = op_give_grad_broadcast(call, index, vector);
    resin_release(vector);
    return status;
}

/* dc with the axes of vectors put back in. */
static resin_status matrix_out_grad(op_call *call, resin_tensor **dc) {
    resin_tensor *t = call->out_grad;
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    int rank_a, rank_b, rank = t->rank;
    op_input_shape(call, 0, &rank_a);
    op_input_shape(call, 1, &rank_b);
    memcpy(shape, t->shape, sizeof shape);
    memcpy(stride, t->stride, sizeof stride);
    if (rank_a == 1) {
        const int at = rank_b == 1 ? 0 : rank - 1;
        if (rank > at) {
            shape[at + 1] = shape[at];
            stride[at + 1] = stride[at];
        }
        shape[at] = 1;
        stride[at] = 0;
        rank++;
    }
    if (rank_b == 1) {
        shape[rank] = 1;
        stride[rank++] = 0;
    }
    return tensor_view(t, rank, shape, stride, t->offset, dc);
}

/* da = dc b^T. */
static resin_status matmul_gradient_a(op_call *call, resin_tensor *dc) {
    resin_tensor *b, *turned = NULL, *da = NULL;
    RESIN_TRY(as_matrix(call->saved[1], false, &b));
    resin_status status = swap_last_two(b, &turned);
    if (status == RESIN_OK) status = matmul_matrices(call, dc, turned, &da);
    if (status == RESIN_OK) status = give_matrix_gradient(call, 0, da);
    resin_release(b);
    resin_release(turned);
    resin_release(da);
    return status;
}

/* db = a^T dc; summed over the batch by the product itself where b has none. */
static resin_status matmul_gradient_b(op_call *call, resin_tensor *dc) {
    resin_tensor *a, *rows_a = NULL, *rows_dc = NULL, *turned = NULL, *db = NULL;
    int rank;
    op_input_shape(call, 1, &rank);
    RESIN_TRY(as_matrix(call->saved[0], true, &a));
    const bool one = rank <= 2 && a->rank > 2;
    resin_status status = RESIN_OK;
    if (one) {
        status = rows_as_matrix(a, &rows_a);
        if (status == RESIN_OK) status = rows_as_matrix(dc, &rows_dc);
    } else {
        rows_a = resin_retain(a);
        rows_dc = resin_retain(dc);
    }
    if (status == RESIN_OK) status = swap_last_two(rows_a, &turned);
    if (status == RESIN_OK)
        status = multiply(call, turned, rows_dc, &db);
    if (status == RESIN_OK) status = give_matrix_gradient(call, 1, db);
    resin_release(a);
    resin_release(rows_a);
    resin_release(rows_dc);
    resin_release(turned);
    resin_release(db);
    return status;
}

resin_status matmul_backward(op_call *call) {
    resin_tensor *dc;
    RESIN_TRY(matrix_out_grad(call, &dc));
    resin_status status = RESIN_OK;
    if (call->wants_grad[0]) status = matmul_gradient_a(call, dc);
    if (status == RESIN_OK && call->wants_grad[1]) status = matmul_gradient_b(call, dc);
    resin_release(dc);
    return status;
}

/* ---- linear --------------------------------------------------------------------------------- */

static resin_status check_linear(const op_call *call) {
    const resin_tensor *x = call->in[0], *weights = call->in[1], *bias = call->in[2];
    char text[SHAPE_TEXT], text_weights[SHAPE_TEXT], text_bias[SHAPE_TEXT];
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(op_check_float(call, 1));
    RESIN_TRY(op_check_rank(call, 1, 2));
    shape_format(weights->rank, weights->shape, text_weights);
    if (x->rank == 0 || x->shape[x->rank - 1] != weights->shape[0])
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "expected %lld features on the last axis for weights %s, got shape %s",
                       (long long)weights->shape[0], text_weights,
                       shape_format(x->rank, x->shape, text));
    if (!bias) return RESIN_OK;
    RESIN_TRY(op_check_float(call, 2));
    if (bias->rank != 1 || bias->shape[0] != weights->shape[1])
        return op_fail(call, RESIN_ERROR_SHAPE, "weights %s need a bias of shape (%lld), got %s",
                       text_weights, (long long)weights->shape[1],
                       shape_format(bias->rank, bias->shape, text_bias));
    return RESIN_OK;
}

/* Every row of a contiguous y += bias. */
static void add_bias(resin_tensor *y, const resin_tensor *bias) {
    const int64_t columns = bias->shape[0], stride = bias->stride[0];
    const int64_t count = resin_tensor_count(y);
    for (int64_t row = 0; row < count; row += columns) {
        if (y->dtype == RESIN_FLOAT32) {
            float *at = (float *)tensor_data(y) + row;
            const float *b = tensor_data(bias);
            for (int64_t i = 0; i < columns; i++) at[i] += b[i * stride];
        } else {
            double *at = (double *)tensor_data(y) + row;
            const double *b = tensor_data(bias);
            for (int64_t i = 0; i < columns; i++) at[i] += b[i * stride];
        }
    }
}

resin_status linear_forward(op_call *call) {
    resin_tensor *x = call->in[0], *weights = call->in[1], *bias = call->in[2], *rows, *flat;
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    RESIN_TRY(check_linear(call));
    RESIN_TRY(rows_as_matrix(x, &rows));
    resin_status status = multiply(call, rows, weights, &flat);
    resin_release(rows);
    if (status != RESIN_OK) return status;
    if (bias) add_bias(flat, bias);
    memcpy(shape, x->shape, sizeof shape);
    shape[x->rank - 1] = weights->shape[1];
    shape_strides(x->rank, shape, stride);
    status = tensor_view(flat, x->rank, shape, stride, flat->offset, &call->out);
    resin_release(flat);
    if (call->wants_grad[1]) op_save(call, 0, x);
    if (call->wants_grad[0]) op_save(call, 1, weights);
    return status;
}

/* dx = dy weights^T, dweights = x^T dy, written where they are wanted. */
static resin_status linear_product_gradient(op_call *call, int index, resin_tensor *dy) {
    resin_tensor *gradient, *other, *flat = NULL, *turned = NULL;
    RESIN_TRY(op_input_grad(call, index, &gradient));
    if (index == 0) other = resin_retain(call->saved[1]);
    else RESIN_TRY(rows_as_matrix(call->saved[0], &other));
    resin_status status = rows_as_matrix(gradient, &flat);
    if (status == RESIN_OK) status = swap_last_two(other, &turned);
    if (status == RESIN_OK)
        status = multiply_into(index == 0 ? dy : turned, index == 0 ? turned : dy, flat);
    resin_release(other);
    resin_release(flat);
    resin_release(turned);
    return status;
}

resin_status linear_backward(op_call *call) {
    resin_tensor *dy;
    RESIN_TRY(rows_as_matrix(call->out_grad, &dy));
    resin_status status = RESIN_OK;
    if (call->wants_grad[0]) status = linear_product_gradient(call, 0, dy);
    if (status == RESIN_OK && call->wants_grad[1]) status = linear_product_gradient(call, 1, dy);
    if (status == RESIN_OK && call->wants_grad[2]) status = op_give_grad_broadcast(call, 2, dy);
    resin_release(dy);
    return status;
}
