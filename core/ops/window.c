/* window.c: strides, padding and output sizes of convolution and pooling. */
#include "core/ops/window.h"

#include <inttypes.h>

static resin_status check_range(const op_call *call, const char *name, int64_t value,
                                int64_t minimum) {
    if (value >= minimum && value <= WINDOW_LIMIT) return RESIN_OK;
    return op_fail(call, RESIN_ERROR_ARGUMENT, "%s must be %" PRId64 " to 2^30, got %" PRId64, name,
                   minimum, value);
}

resin_status window_pair(const op_call *call, const char *name, int64_t minimum, int64_t pair[2]) {
    const op_value *value = op_attribute(call, name);
    if (value->count != 1 && value->count != 2)
        return op_fail(call, RESIN_ERROR_ARGUMENT,
                       "%s takes 1 integer, or 2 (height, width), got %d", name, value->count);
    for (int i = 0; i < 2; i++) {
        pair[i] = value->ints[value->count == 2 ? i : 0];
        RESIN_TRY(check_range(call, name, pair[i], minimum));
    }
    return RESIN_OK;
}

resin_status window_padding(const op_call *call, window_axis axis[2]) {
    const op_value *value = op_attribute(call, "padding");
    int count = value->count;
    if (count != 1 && count != 2 && count != 4)
        return op_fail(call, RESIN_ERROR_ARGUMENT,
                       "padding takes 1 integer, 2 (height, width) or 4 (top, bottom, left, "
                       "right), got %d", count);
    for (int i = 0; i < 2; i++) {
        axis[i].before = value->ints[count == 4 ? 2 * i : count == 2 ? i : 0];
        axis[i].after = value->ints[count == 4 ? 2 * i + 1 : count == 2 ? i : 0];
        RESIN_TRY(check_range(call, "padding", axis[i].before, 0));
        RESIN_TRY(check_range(call, "padding", axis[i].after, 0));
    }
    return RESIN_OK;
}

/* The pixels that a dilated kernel spans. */
static int64_t window_extent(const window_axis *axis) {
    return (axis->kernel - 1) * axis->dilation + 1;
}

static void pad_same(window_axis *axis) {
    int64_t out = axis->in / axis->stride + (axis->in % axis->stride != 0);
    int64_t total = (out - 1) * axis->stride + window_extent(axis) - axis->in;
    if (total < 0) total = 0;
    axis->before = total / 2;
    axis->after = total - total / 2;
}

resin_status window_fit(const op_call *call, const char *what, bool same, bool ceil,
                        window_axis *axis) {
    RESIN_TRY(check_range(call, "the kernel's size", axis->kernel, 1));
    if (axis->in < 1 || axis->in > INT64_MAX / 4)
        return op_fail(call, RESIN_ERROR_SHAPE, "images need a %s of at least 1, got %" PRId64,
                       what, axis->in);
    if (same) pad_same(axis);
    int64_t padded = axis->in + axis->before + axis->after, extent = window_extent(axis);
    if (padded < extent)
        return op_fail(call, RESIN_ERROR_SHAPE,
                       "the kernel's %s %" PRId64 " is larger than the image's %" PRId64
                       " with padding %" PRId64 " and %" PRId64,
                       what, extent, axis->in, axis->before, axis->after);
    int64_t rest = padded - extent;
    axis->out = rest / axis->stride + 1;
    if (ceil && rest % axis->stride != 0 && axis->out * axis->stride < axis->in + axis->before)
        axis->out++;
    return RESIN_OK;
}
