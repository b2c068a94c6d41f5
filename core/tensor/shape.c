/* shape.c: sizes, strides, broadcasting, and walking over strided operands. */
#include "core/tensor/tensor.h"

#include <stdio.h>
#include <string.h>

resin_status shape_count(resin_context *context, const char *what, int rank, const int64_t *shape,
                         int64_t *count) {
    if (rank < 0 || rank > RESIN_MAX_RANK)
        return resin_fail(context, RESIN_ERROR_SHAPE, "%s: expected at most %d axes, got %d", what,
                          RESIN_MAX_RANK, rank);
    char text[SHAPE_TEXT];
    int64_t product = 1, nonzero = 1;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0)
            return resin_fail(context, RESIN_ERROR_SHAPE, "%s: a negative size in shape %s", what,
                              shape_format(rank, shape, text));
        /* Sizes beyond a zero are checked too, so that strides cannot overflow. */
        if (shape[i] > 0 && __builtin_mul_overflow(nonzero, shape[i], &nonzero))
            return resin_fail(context, RESIN_ERROR_SHAPE, "%s: shape %s is too large", what,
                              shape_format(rank, shape, text));
        product = shape[i] == 0 ? 0 : product == 0 ? 0 : nonzero;
    }
    if (nonzero > INT64_MAX / 16)
        return resin_fail(context, RESIN_ERROR_SHAPE, "%s: shape %s is too large", what,
                          shape_format(rank, shape, text));
    *count = product;
    return RESIN_OK;
}

void shape_strides(int rank, const int64_t *shape, int64_t *stride) {
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= shape[i] > 0 ? shape[i] : 1;
    }
}

const char *shape_format(int rank, const int64_t *shape, char text[SHAPE_TEXT]) {
    int length = snprintf(text, SHAPE_TEXT, "(");
    for (int i = 0; i < rank && length < SHAPE_TEXT; i++)
        length += snprintf(text + length, (size_t)(SHAPE_TEXT - length), "%s%lld",
                           i ? ", " : "", (long long)shape[i]);
    if (length < SHAPE_TEXT) snprintf(text + length, (size_t)(SHAPE_TEXT - length), ")");
    return text;
}

resin_status shape_broadcast(resin_context *context, const char *op, const resin_tensor *a,
                             const resin_tensor *b, int *rank, int64_t *shape) {
    *rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 1; i <= *rank; i++) {
        int64_t size_a = i <= a->rank ? a->shape[a->rank - i] : 1;
        int64_t size_b = i <= b->rank ? b->shape[b->rank - i] : 1;
        if (size_a != size_b && size_a != 1 && size_b != 1) {
            char text_a[SHAPE_TEXT], text_b[SHAPE_TEXT];
            return resin_fail(context, RESIN_ERROR_SHAPE,
                              "%s: shapes %s and %s cannot be broadcast together", op,
                              shape_format(a->rank, a->shape, text_a),
                              shape_format(b->rank, b->shape, text_b));
        }
        shape[*rank - i] = size_a == 1 ? size_b : size_a;
    }
    return RESIN_OK;
}

resin_status shape_axis(resin_context *context, const char *op, int rank, int64_t given,
                        int *axis) {
    int64_t a = given < 0 ? given + rank : given;
    if (a < 0 || a >= rank)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "%s: axis %lld is out of range for %d axes", op, (long long)given, rank);
    *axis = (int)a;
    return RESIN_OK;
}

/* Whether axis `outer` continues axis `inner` in every operand, so that both are one. */
static bool axes_merge(const tensor_iterator *it, int outer, int inner) {
    for (int o = 0; o < it->operands; o++)
        if (it->stride[o][outer] != it->stride[o][inner] * it->shape[inner]) return false;
    return true;
}

static void merge_axes(tensor_iterator *it) {
    int kept = 0; /* axes 0 .. kept - 1 are done */
    for (int i = 0; i < it->rank; i++) {
        if (it->shape[i] == 1) continue;
        it->shape[kept] = it->shape[i];
        for (int o = 0; o < it->operands; o++) it->stride[o][kept] = it->stride[o][i];
        kept++;
        if (kept >= 2 && axes_merge(it, kept - 2, kept - 1)) {
            it->shape[kept - 2] *= it->shape[kept - 1];
            for (int o = 0; o < it->operands; o++)
                it->stride[o][kept - 2] = it->stride[o][kept - 1];
            kept--;
        }
    }
    it->rank = kept;
}

void iterator_start(tensor_iterator *it, int rank, const int64_t *shape, int operands,
                    const resin_tensor *const *tensors) {
    *it = (tensor_iterator){.operands = operands, .rank = rank, .inner = 1, .outer = 1};
    if (rank > 0) memcpy(it->shape, shape, (size_t)rank * sizeof *shape);
    for (int o = 0; o < operands; o++) {
        const resin_tensor *t = tensors[o];
        for (int i = 0; i < rank; i++) {
            int own = i - (rank - t->rank);
            it->stride[o][i] = own < 0 || (t->shape[own] == 1 && shape[i] != 1) ? 0 : t->stride[own];
        }
    }
    merge_axes(it);
    if (it->rank > 0) {
        it->rank--;
        it->inner = it->shape[it->rank];
        for (int o = 0; o < operands; o++) it->inner_stride[o] = it->stride[o][it->rank];
    }
    for (int i = 0; i < it->rank; i++) it->outer *= it->shape[i];
    if (it->inner == 0) it->outer = 0;
}

void iterator_offsets(const tensor_iterator *it, int64_t position, int64_t offset[ITERATE_MAX]) {
    for (int o = 0; o < it->operands; o++) offset[o] = 0;
    for (int i = it->rank - 1; i >= 0; i--) {
        int64_t index = position % it->shape[i];
        position /= it->shape[i];
        for (int o = 0; o < it->operands; o++) offset[o] += index * it->stride[o][i];
    }
}
