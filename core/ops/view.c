/* view.c: ops that look at the same elements in another shape or order. Their results share the
 * input's storage; only reshape (of what does not lie regularly), contiguous and cast copy. The
 * gradient is the same view taken backward. */
#include "core/ops/families.h"

#include <string.h>

/* ---- reshape, flatten, squeeze, expand_dims ------------------------------------------------- */

/* Strides with which t's elements, in their order, have the new shape; false if a copy is needed.
 * Groups of old and new axes with equal products are matched from the front. */
static bool reshape_strides(const resin_tensor *t, int rank, const int64_t *shape,
                            int64_t stride[RESIN_MAX_RANK]) {
    int64_t old_shape[RESIN_MAX_RANK], old_stride[RESIN_MAX_RANK];
    int old_rank = 0;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0) {
            shape_strides(rank, shape, stride);
            return true;
        }
        if (t->shape[i] == 1) continue;
        old_shape[old_rank] = t->shape[i];
        old_stride[old_rank++] = t->stride[i];
    }
    int old = 0, new = 0;
    while (old < old_rank) {
        int old_end = old + 1, new_end = new + 1;
        int64_t old_count = old_shape[old], new_count = shape[new];
        while (old_count != new_count) {
            if (new_count < old_count) new_count *= shape[new_end++];
            else old_count *= old_shape[old_end++];
        }
        for (int i = old; i < old_end - 1; i++)
            if (old_stride[i] != old_shape[i + 1] * old_stride[i + 1]) return false;
        int64_t step = old_stride[old_end - 1];
        for (int i = new_end - 1; i >= new; i--) {
            stride[i] = step;
            step *= shape[i];
        }
        old = old_end;
        new = new_end;
    }
    for (; new < rank; new++) stride[new] = 1; /* what is left has size 1 */
    return true;
}

/* t in a shape with as many elements: a view, or a view of a copy. */
static resin_status reshaped(resin_tensor *t, int rank, const int64_t *shape, resin_tensor **out) {
    int64_t stride[RESIN_MAX_RANK];
    if (reshape_strides(t, rank, shape, stride))
        return tensor_view(t, rank, shape, stride, t->offset, out);
    resin_tensor *dense;
    RESIN_TRY(tensor_contiguous(t, &dense));
    shape_strides(rank, shape, stride);
    resin_status status = tensor_view(dense, rank, shape, stride, dense->offset, out);
    resin_release(dense);
    return status;
}

/* The new shape with its -1 filled in, or an error. */
static resin_status reshape_shape(op_call *call, const resin_tensor *x, int64_t *shape) {
    const op_value *given = op_attribute(call, "shape");
    char old_text[SHAPE_TEXT], new_text[SHAPE_TEXT];
    int64_t known = 1, count = resin_tensor_count(x);
    int open = -1;
    memcpy(shape, given->ints, sizeof given->ints);
    shape_format(x->rank, x->shape, old_text);
    shape_format(given->count, given->ints, new_text);
    for (int i = 0; i < given->count; i++) {
        if (shape[i] == -1 && open < 0) {
            open = i;
        } else if (shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known)) {
            return op_fail(call, RESIN_ERROR_SHAPE, "%s is no shape (one size may be -1)",
                           new_text);
        }
    }
    if (open >= 0) {
        if (known == 0)
            return op_fail(call, RESIN_ERROR_SHAPE, "the -1 of %s can be anything for shape %s",
                           new_text, old_text);
        shape[open] = count / known;
        known *= shape[open];
    }
    if (known != count)
        return op_fail(call, RESIN_ERROR_SHAPE, "shape %s has %lld elements, which do not fit %s",
                       old_text, (long long)count, new_text);
    return RESIN_OK;
}

resin_status reshape_forward(op_call *call) {
    int64_t shape[RESIN_MAX_RANK];
    RESIN_TRY(reshape_shape(call, call->in[0], shape));
    return reshaped(call->in[0], op_attribute(call, "shape")->count, shape, &call->out);
}

/* The same for all that keep the order of elements. */
resin_status reshape_backward(op_call *call) {
    int rank;
    const int64_t *shape = op_input_shape(call, 0, &rank);
    resin_tensor *view;
    RESIN_TRY(reshaped(call->out_grad, rank, shape, &view));
    op_give_grad(call, 0, view);
    resin_release(view);
    return RESIN_OK;
}

/* One axis in place of first .. last. */
resin_status flatten_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    int64_t shape[RESIN_MAX_RANK] = {1};
    int first, last, rank = 0;
    if (x->rank == 0) return reshaped(x, 1, shape, &call->out);
    RESIN_TRY(shape_axis(call->context, "flatten", x->rank, op_int(call, "first"), &first));
    RESIN_TRY(shape_axis(call->context, "flatten", x->rank, op_int(call, "last"), &last));
    if (first > last)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "the first axis lies behind the last");
    for (int i = 0; i < x->rank; i++) {
        if (i > first && i <= last) shape[rank - 1] *= x->shape[i];
        else shape[rank++] = x->shape[i];
    }
    return reshaped(x, rank, shape, &call->out);
}

/* Without the axes of size 1, or without those that are named. */
resin_status squeeze_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    const op_value *axes = op_attribute(call, "axes");
    bool drop[RESIN_MAX_RANK] = {false};
    int64_t shape[RESIN_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < x->rank && axes->count == 0; i++) drop[i] = x->shape[i] == 1;
    for (int i = 0; i < axes->count; i++) {
        int axis;
        RESIN_TRY(shape_axis(call->context, "squeeze", x->rank, axes->ints[i], &axis));
        if (x->shape[axis] != 1) {
            char text[SHAPE_TEXT];
            return op_fail(call, RESIN_ERROR_SHAPE, "axis %lld of shape %s is not of size 1",
                           (long long)axes->ints[i], shape_format(x->rank, x->shape, text));
        }
        drop[axis] = true;
    }
    for (int i = 0; i < x->rank; i++)
        if (!drop[i]) shape[rank++] = x->shape[i];
    return reshaped(x, rank, shape, &call->out);
}
resin_status squeeze_backward(op_call *call) { return reshape_backward(call); }

/* A new axis of size 1, which has the given position in the result. */
resin_status expand_dims_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    int64_t shape[RESIN_MAX_RANK];
    int axis;
    if (x->rank == RESIN_MAX_RANK)
        return op_fail(call, RESIN_ERROR_SHAPE, "a tensor has at most %d axes", RESIN_MAX_RANK);
    RESIN_TRY(shape_axis(call->context, "expand_dims", x->rank + 1, op_int(call, "axis"), &axis));
    for (int i = 0, own = 0; i <= x->rank; i++) shape[i] = i == axis ? 1 : x->shape[own++];
    return reshaped(x, x->rank + 1, shape, &call->out);
}
resin_status expand_dims_backward(op_call *call) { return reshape_backward(call); }

/* ---- transpose, swap_axes ------------------------------------------------------------------- */

/* Axis i of the result is axis order[i] of t. */
static resin_status reordered(resin_tensor *t, const int *order, resin_tensor **out) {
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    for (int i = 0; i < t->rank; i++) {
        shape[i] = t->shape[order[i]];
        stride[i] = t->stride[order[i]];
    }
    return tensor_view(t, t->rank, shape, stride, t->offset, out);
}

/* The order that `axes` asks for; all axes reversed if there are none. */
static resin_status transpose_order(const op_call *call, int rank, int order[RESIN_MAX_RANK]) {
    const op_value *axes = op_attribute(call, "axes");
    unsigned seen = 0;
    for (int i = 0; i < rank; i++) order[i] = rank - 1 - i;
    if (axes->count == 0) return RESIN_OK;
    if (axes->count != rank)
        return op_fail(call, RESIN_ERROR_SHAPE, "expected an order of %d axes, got %d", rank,
                       axes->count);
    for (int i = 0; i < rank; i++) {
        RESIN_TRY(shape_axis(call->context, "transpose", rank, axes->ints[i], &order[i]));
        if (seen >> order[i] & 1)
            return op_fail(call, RESIN_ERROR_ARGUMENT, "axis %lld is given twice",
                           (long long)axes->ints[i]);
        seen |= 1u << order[i];
    }
    return RESIN_OK;
}

resin_status transpose_forward(op_call *call) {
    int order[RESIN_MAX_RANK];
    RESIN_TRY(transpose_order(call, call->in[0]->rank, order));
    return reordered(call->in[0], order, &call->out);
}

resin_status transpose_backward(op_call *call) {
    int order[RESIN_MAX_RANK], inverse[RESIN_MAX_RANK];
    resin_tensor *view, *dy = call->out_grad;
    RESIN_TRY(transpose_order(call, dy->rank, order));
    for (int i = 0; i < dy->rank; i++) inverse[order[i]] = i;
    RESIN_TRY(reordered(dy, inverse, &view));
    op_give_grad(call, 0, view);
    resin_release(view);
    return RESIN_OK;
}

static resin_status swapped(const op_call *call, resin_tensor *t, resin_tensor **out) {
    int order[RESIN_MAX_RANK], first, second;
    RESIN_TRY(shape_axis(call->context, "swap_axes", t->rank, op_int(call, "first"), &first));
    RESIN_TRY(shape_axis(call->context, "swap_axes", t->rank, op_int(call, "second"), &second));
    for (int i = 0; i < t->rank; i++) order[i] = i;
    order[first] = second;
    order[second] = first;
    return reordered(t, order, out);
}

resin_status swap_axes_forward(op_call *call) { return swapped(call, call->in[0], &call->out); }

resin_status swap_axes_backward(op_call *call) {
    resin_tensor *view;
    RESIN_TRY(swapped(call, call->out_grad, &view));
    op_give_grad(call, 0, view);
    resin_release(view);
    return RESIN_OK;
}

/* ---- slice, select, flip -------------------------------------------------------------------- */

/* The part of t that the attributes name: start, stop (exclusive; -1 before the first element, for
 * negative steps) and step for the first axes, positions as they are; the other axes stay whole. */
static resin_status sliced(const op_call *call, resin_tensor *t, resin_tensor **out) {
    const op_value *start = op_attribute(call, "start"), *stop = op_attribute(call, "stop");
    const op_value *step = op_attribute(call, "step");
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK], offset = t->offset;
    char text[SHAPE_TEXT];
    shape_format(t->rank, t->shape, text);
    if (start->count != stop->count || start->count > t->rank ||
        (step->count != 0 && step->count != start->count))
        return op_fail(call, RESIN_ERROR_ARGUMENT,
                       "expected start, stop and step for the same axes of shape %s, got %d, %d "
                       "and %d", text, start->count, stop->count, step->count);
    memcpy(shape, t->shape, sizeof shape);
    memcpy(stride, t->stride, sizeof stride);
    for (int i = 0; i < start->count; i++) {
        const int64_t first = start->ints[i], end = stop->ints[i], size = t->shape[i];
        const int64_t by = step->count ? step->ints[i] : 1;
        if (by == 0 || by < -INT32_MAX || by > INT32_MAX)
            return op_fail(call, RESIN_ERROR_ARGUMENT, "a step of %lld", (long long)by);
        const bool fits = by > 0 ? first >= 0 && end <= size && first <= end
                                 : first < size && end >= -1 && first >= end;
        if (!fits)
            return op_fail(call, RESIN_ERROR_ARGUMENT,
                           "positions %lld to %lld in steps of %lld lie outside of axis %d of "
                           "shape %s", (long long)first, (long long)end, (long long)by, i, text);
        shape[i] = by > 0 ? (end - first + by - 1) / by : (first - end - by - 1) / -by;
        stride[i] = t->stride[i] * by;
        if (shape[i] > 0) offset += first * t->stride[i];
    }
    return tensor_view(t, t->rank, shape, stride, offset, out);
}

resin_status slice_forward(op_call *call) { return sliced(call, call->in[0], &call->out); }

/* The view of a tensor that an op takes. */
typedef resin_status (*part_of)(const op_call *call, resin_tensor *t, resin_tensor **out);

/* Zeros, with the gradient in the part that was looked at. */
static resin_status part_backward(op_call *call, part_of view) {
    resin_tensor *dx, *part;
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(resin_fill(dx, 0));
    RESIN_TRY(view(call, dx, &part));
    resin_status status = tensor_copy_elements(part, call->out_grad);
    resin_release(part);
    return status;
}

resin_status slice_backward(op_call *call) { return part_backward(call, sliced); }

/* Position `index` of one axis, which goes away. */
static resin_status selected(const op_call *call, resin_tensor *t, resin_tensor **out) {
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    int axis;
    RESIN_TRY(shape_axis(call->context, "select", t->rank, op_int(call, "axis"), &axis));
    const int64_t given = op_int(call, "index");
    const int64_t index = given < 0 ? given + t->shape[axis] : given;
    if (index < 0 || index >= t->shape[axis]) {
        char text[SHAPE_TEXT];
        return op_fail(call, RESIN_ERROR_ARGUMENT, "position %lld lies outside of axis %d of "
                       "shape %s", (long long)given, axis, shape_format(t->rank, t->shape, text));
    }
    for (int i = 0, next = 0; i < t->rank; i++) {
        if (i == axis) continue;
        shape[next] = t->shape[i];
        stride[next++] = t->stride[i];
    }
    return tensor_view(t, t->rank - 1, shape, stride, t->offset + index * t->stride[axis], out);
}

resin_status select_forward(op_call *call) { return selected(call, call->in[0], &call->out); }

resin_status select_backward(op_call *call) { return part_backward(call, selected); }

/* The axes in reverse: negative strides from the last element. */
static resin_status flipped(const op_call *call, resin_tensor *t, resin_tensor **out) {
    const op_value *axes = op_attribute(call, "axes");
    int64_t stride[RESIN_MAX_RANK], offset = t->offset;
    unsigned chosen = axes->count == 0 ? (1u << t->rank) - 1 : 0;
    for (int i = 0; i < axes->count; i++) {
        int axis;
        RESIN_TRY(shape_axis(call->context, "flip", t->rank, axes->ints[i], &axis));
        chosen |= 1u << axis;
    }
    for (int i = 0; i < t->rank; i++) {
        const bool turn = (chosen >> i & 1) && t->shape[i] > 0;
        stride[i] = turn ? -t->stride[i] : t->stride[i];
        if (turn) offset += (t->shape[i] - 1) * t->stride[i];
    }
    return tensor_view(t, t->rank, t->shape, stride, offset, out);
}

resin_status flip_forward(op_call *call) { return flipped(call, call->in[0], &call->out); }

resin_status flip_backward(op_call *call) {
    resin_tensor *view;
    RESIN_TRY(flipped(call, call->out_grad, &view));
    op_give_grad(call, 0, view);
    resin_release(view);
    return RESIN_OK;
}

/* ---- broadcast_to --------------------------------------------------------------------------- */

resin_status broadcast_to_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    const op_value *given = op_attribute(call, "shape");
    int64_t stride[RESIN_MAX_RANK], count;
    RESIN_TRY(shape_count(call->context, "broadcast_to", given->count, given->ints, &count));
    bool fits = given->count >= x->rank;
    for (int i = 0; fits && i < given->count; i++) {
        const int own = i - (given->count - x->rank);
        const bool repeated = own < 0 || (x->shape[own] == 1 && given->ints[i] != 1);
        stride[i] = repeated ? 0 : x->stride[own];
        fits = repeated || x->shape[own] == given->ints[i];
    }
    if (!fits) {
        char text[SHAPE_TEXT], wanted[SHAPE_TEXT];
        return op_fail(call, RESIN_ERROR_SHAPE, "shape %s cannot be broadcast to %s",
                       shape_format(x->rank, x->shape, text),
                       shape_format(given->count, given->ints, wanted));
    }
    return tensor_view(x, given->count, given->ints, stride, x->offset, &call->out);
}

resin_status broadcast_to_backward(op_call *call) {
    return op_give_grad_broadcast(call, 0, call->out_grad);
}

/* ---- contiguous, cast ----------------------------------------------------------------------- */

/* Another tensor of the same storage: an op's result is never the input itself. */
static resin_status same_view(resin_tensor *t, resin_tensor **out) {
    return tensor_view(t, t->rank, t->shape, t->stride, t->offset, out);
}

resin_status contiguous_forward(op_call *call) {
    resin_tensor *dense;
    RESIN_TRY(tensor_contiguous(call->in[0], &dense));
    if (dense != call->in[0]) {
        call->out = dense;
        return RESIN_OK;
    }
    resin_status status = same_view(dense, &call->out);
    resin_release(dense);
    return status;
}

resin_status contiguous_backward(op_call *call) {
    op_give_grad(call, 0, call->out_grad);
    return RESIN_OK;
}

resin_status cast_forward(op_call *call) {
    resin_tensor *x = call->in[0];
    const char *name = op_string(call, "dtype");
    resin_dtype dtype;
    if (!resin_dtype_from_name(name, &dtype))
        return op_fail(call, RESIN_ERROR_ARGUMENT, "there is no dtype \"%s\"", name);
    if (dtype == x->dtype) return same_view(x, &call->out);
    if (dtype != RESIN_FLOAT32 && dtype != RESIN_FLOAT64) call->recording = false;
    RESIN_TRY(tensor_new(call->context, dtype, x->rank, x->shape, &call->out));
    return tensor_copy_elements(call->out, x);
}

/* Between the float types; integers have no gradient. */
resin_status cast_backward(op_call *call) {
    resin_tensor *dx;
    RESIN_TRY(op_input_grad(call, 0, &dx));
    return tensor_copy_elements(dx, call->out_grad);
}
