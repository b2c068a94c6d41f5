/* join.c: ops that put tensors together or repeat them: concatenate, stack, pad, tile. */
#include "core/base/memory.h"
#include "core/ops/families.h"
#include "core/ops/fold.h"

#include <string.h>

/* The part first .. first + size - 1 of one axis of t. */
static resin_status part_of(resin_tensor *t, int axis, int64_t first, int64_t size,
                            resin_tensor **part) {
    int64_t shape[RESIN_MAX_RANK];
    memcpy(shape, t->shape, sizeof shape);
    shape[axis] = size;
    return tensor_view(t, t->rank, shape, t->stride, t->offset + first * t->stride[axis], part);
}

/* ---- concatenate ---------------------------------------------------------------------------- */

static resin_status same_but_for(const op_call *call, const resin_tensor *t, int index, int axis) {
    const resin_tensor *first = call->in[0];
    char a[SHAPE_TEXT], b[SHAPE_TEXT];
    if (t->dtype != first->dtype)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "tensor %d is %s, but the first is %s",
                       index + 1, resin_dtype_name(t->dtype), resin_dtype_name(first->dtype));
    bool fits = t->rank == first->rank;
    for (int i = 0; fits && i < t->rank; i++) fits = i == axis || t->shape[i] == first->shape[i];
    if (fits) return RESIN_OK;
    return op_fail(call, RESIN_ERROR_SHAPE, "shape %s of tensor %d does not fit the first, %s",
                   shape_format(t->rank, t->shape, a), index + 1,
                   shape_format(first->rank, first->shape, b));
}

resin_status concatenate_forward(op_call *call) {
    resin_tensor *first = call->in[0];
    int64_t shape[RESIN_MAX_RANK], at = 0;
    int axis;
    RESIN_TRY(shape_axis(call->context, "concatenate", first->rank, op_int(call, "axis"), &axis));
    memcpy(shape, first->shape, sizeof shape);
    shape[axis] = 0;
    for (int i = 0; i < call->inputs; i++) {
        RESIN_TRY(same_but_for(call, call->in[i], i, axis));
        shape[axis] += call->in[i]->shape[axis];
    }
    RESIN_TRY(tensor_new(call->context, first->dtype, first->rank, shape, &call->out));
    for (int i = 0; i < call->inputs; i++) {
        resin_tensor *part;
        RESIN_TRY(part_of(call->out, axis, at, call->in[i]->shape[axis], &part));
        resin_status status = tensor_copy_elements(part, call->in[i]);
        resin_release(part);
        if (status != RESIN_OK) return status;
        at += call->in[i]->shape[axis];
    }
    return RESIN_OK;
}

/* Each input's gradient is a part of the result's: a view, nothing is copied. */
resin_status concatenate_backward(op_call *call) {
    resin_tensor *dy = call->out_grad;
    int64_t at = 0;
    int axis;
    RESIN_TRY(shape_axis(call->context, "concatenate", dy->rank, op_int(call, "axis"), &axis));
    for (int i = 0; i < call->inputs; i++) {
        int rank;
        const int64_t size = op_input_shape(call, i, &rank)[axis];
        if (call->wants_grad[i]) {
            resin_tensor *part;
            RESIN_TRY(part_of(dy, axis, at, size, &part));
            op_give_grad(call, i, part);
            resin_release(part);
        }
        at += size;
    }
    return RESIN_OK;
}

/* ---- stack ---------------------------------------------------------------------------------- */

/* Position `index` of the new axis, which goes away. */
static resin_status layer_of(resin_tensor *t, int axis, int64_t index, resin_tensor **layer) {
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    for (int i = 0, next = 0; i < t->rank; i++) {
        if (i == axis) continue;
        shape[next] = t->shape[i];
        stride[next++] = t->stride[i];
    }
    return tensor_view(t, t->rank - 1, shape, stride, t->offset + index * t->stride[axis], layer);
}

resin_status stack_forward(op_call *call) {
    resin_tensor *first = call->in[0];
    int64_t shape[RESIN_MAX_RANK];
    int axis;
    if (first->rank == RESIN_MAX_RANK)
        return op_fail(call, RESIN_ERROR_SHAPE, "a tensor has at most %d axes", RESIN_MAX_RANK);
    RESIN_TRY(shape_axis(call->context, "stack", first->rank + 1, op_int(call, "axis"), &axis));
    for (int i = 0, own = 0; i <= first->rank; i++)
        shape[i] = i == axis ? call->inputs : first->shape[own++];
    for (int i = 0; i < call->inputs; i++) RESIN_TRY(same_but_for(call, call->in[i], i, -1));
    RESIN_TRY(tensor_new(call->context, first->dtype, first->rank + 1, shape, &call->out));
    for (int i = 0; i < call->inputs; i++) {
        resin_tensor *layer;
        RESIN_TRY(layer_of(call->out, axis, i, &layer));
        resin_status status = tensor_copy_elements(layer, call->in[i]);
        resin_release(layer);
        if (status != RESIN_OK) return status;
    }
    return RESIN_OK;
}

resin_status stack_backward(op_call *call) {
    resin_tensor *dy = call->out_grad;
    int axis;
    RESIN_TRY(shape_axis(call->context, "stack", dy->rank, op_int(call, "axis"), &axis));
    for (int i = 0; i < call->inputs; i++) {
        resin_tensor *layer;
        if (!call->wants_grad[i]) continue;
        RESIN_TRY(layer_of(dy, axis, i, &layer));
        op_give_grad(call, i, layer);
        resin_release(layer);
    }
    return RESIN_OK;
}

/* ---- pad ------------------------------------------------------------------------------------ */

/* The part of the padded tensor that is the unpadded one. */
static resin_status inside(const op_call *call, resin_tensor *padded, const int64_t *shape,
                           resin_tensor **part) {
    const op_value *before = op_attribute(call, "before");
    int64_t offset = padded->offset;
    for (int i = 0; i < padded->rank; i++) offset += before->ints[i] * padded->stride[i];
    return tensor_view(padded, padded->rank, shape, padded->stride, offset, part);
}

resin_status pad_forward(op_call *call) {
    resin_tensor *x = call->in[0], *part;
    const op_value *before = op_attribute(call, "before"), *after = op_attribute(call, "after");
    int64_t shape[RESIN_MAX_RANK];
    char text[SHAPE_TEXT];
    if (before->count != x->rank || after->count != x->rank)
        return op_fail(call, RESIN_ERROR_ARGUMENT,
                       "expected before and after for each axis of shape %s, got %d and %d",
                       shape_format(x->rank, x->shape, text), before->count, after->count);
    for (int i = 0; i < x->rank; i++) {
        if (before->ints[i] < 0 || after->ints[i] < 0)
            return op_fail(call, RESIN_ERROR_ARGUMENT, "negative padding on axis %d", i);
        if (__builtin_add_overflow(x->shape[i], before->ints[i], &shape[i]) ||
            __builtin_add_overflow(shape[i], after->ints[i], &shape[i]))
            return op_fail(call, RESIN_ERROR_SHAPE, "the padding of axis %d is too large", i);
    }
    RESIN_TRY(tensor_new(call->context, x->dtype, x->rank, shape, &call->out));
    RESIN_TRY(resin_fill(call->out, op_number(call, "value")));
    RESIN_TRY(inside(call, call->out, x->shape, &part));
    resin_status status = tensor_copy_elements(part, x);
    resin_release(part);
    return status;
}

resin_status pad_backward(op_call *call) {
    int rank;
    const int64_t *shape = op_input_shape(call, 0, &rank);
    resin_tensor *part;
    RESIN_TRY(inside(call, call->out_grad, shape, &part));
    op_give_grad(call, 0, part);
    resin_release(part);
    return RESIN_OK;
}

/* ---- tile ----------------------------------------------------------------------------------- */

/* The tiled tensor with each axis of n elements repeated r times as two axes (r, n): the shape, and
 * the set of those that count the repeats. */
static resin_status tile_axes(const op_call *call, int input_rank, const int64_t *input_shape,
                              int *rank, int64_t shape[RESIN_MAX_RANK], axis_set *repeats) {
    const op_value *given = op_attribute(call, "repeats");
    *rank = 0;
    *repeats = 0;
    if (given->count != input_rank)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "expected repeats for %d axes, got %d",
                       input_rank, given->count);
    for (int i = 0; i < input_rank; i++) {
        if (given->ints[i] < 0)
            return op_fail(call, RESIN_ERROR_ARGUMENT, "axis %d repeated %lld times", i,
                           (long long)given->ints[i]);
        if (*rank + 1 + (given->ints[i] != 1) > RESIN_MAX_RANK)
            return op_fail(call, RESIN_ERROR_SHAPE, "too many axes are repeated");
        if (given->ints[i] != 1) {
            *repeats |= 1u << *rank;
            shape[(*rank)++] = given->ints[i];
        }
        shape[(*rank)++] = input_shape[i];
    }
    return RESIN_OK;
}

/* t, which has the axes that are not in `repeats`, seen with all of them. */
static resin_status repeat_view(resin_tensor *t, int rank, const int64_t *shape, axis_set repeats,
                                resin_tensor **view) {
    int64_t stride[RESIN_MAX_RANK];
    for (int i = 0, own = 0; i < rank; i++) stride[i] = repeats >> i & 1 ? 0 : t->stride[own++];
    return tensor_view(t, rank, shape, stride, t->offset, view);
}

/* A contiguous t in another shape. */
static resin_status dense_view(resin_tensor *t, int rank, const int64_t *shape,
                               resin_tensor **view) {
    int64_t stride[RESIN_MAX_RANK];
    shape_strides(rank, shape, stride);
    return tensor_view(t, rank, shape, stride, t->offset, view);
}

resin_status tile_forward(op_call *call) {
    resin_tensor *x = call->in[0], *from, *to;
    int rank;
    int64_t split[RESIN_MAX_RANK], shape[RESIN_MAX_RANK], count;
    axis_set repeats;
    RESIN_TRY(tile_axes(call, x->rank, x->shape, &rank, split, &repeats));
    RESIN_TRY(shape_count(call->context, "tile", rank, split, &count));
    for (int i = 0; i < x->rank; i++)
        shape[i] = x->shape[i] * op_attribute(call, "repeats")->ints[i];
    RESIN_TRY(tensor_new(call->context, x->dtype, x->rank, shape, &call->out));
    RESIN_TRY(dense_view(call->out, rank, split, &to));
    resin_status status = repeat_view(x, rank, split, repeats, &from);
    if (status == RESIN_OK) {
        status = tensor_copy_elements(to, from);
        resin_release(from);
    }
    resin_release(to);
    return status;
}

/* The sum over the repeats. */
resin_status tile_backward(op_call *call) {
    int input_rank, rank;
    const int64_t *input_shape = op_input_shape(call, 0, &input_rank);
    int64_t split[RESIN_MAX_RANK];
    axis_set repeats;
    resin_tensor *dense, *dy, *dx;
    void *totals;
    RESIN_TRY(tile_axes(call, input_rank, input_shape, &rank, split, &repeats));
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(op_out_grad_contiguous(call, &dense));
    resin_status status = dense_view(dense, rank, split, &dy);
    resin_release(dense);
    if (status != RESIN_OK) return status;
    status = fold_axes(dy, repeats, "sum", NULL, &totals);
    resin_release(dy);
    if (status != RESIN_OK) return status;
    fold_store(dx, totals);
    resin_deallocate(call->context, totals);
    return RESIN_OK;
}
