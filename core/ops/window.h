/* window.h: the geometry of windows that slide over images, for convolution and pooling. */
#ifndef RESIN_OPS_WINDOW_H
#define RESIN_OPS_WINDOW_H

#include "core/ops/op.h"

/* One of the two axes of an image. */
typedef struct window_axis {
    int64_t in, out, kernel, stride, dilation;
    int64_t before, after; /* padding */
} window_axis;

/* No stride, kernel, dilation or padding may be larger, so that sums and products do not overflow. */
#define WINDOW_LIMIT ((int64_t)1 << 30)

/* An attribute of 1 integer (both axes) or 2 (height, width), each at least `minimum`. */
resin_status window_pair(const op_call *call, const char *name, int64_t minimum, int64_t pair[2]);
/* "padding": 1, 2 or 4 integers (top, bottom, left, right) into the axes' before and after. */
resin_status window_padding(const op_call *call, window_axis axis[2]);
/* Checks the axis and sets `out` = (in + before + after - extent) / stride + 1, rounded down.
 *   same  TensorFlow's SAME sets the padding first: out = ceil(in / stride), the odd pixel after
 *   ceil  rounds up, unless the last window would start in the padding behind (as PyTorch)
 * Errors name `what` ("height"). */
resin_status window_fit(const op_call *call, const char *what, bool same, bool ceil,
                        window_axis *axis);

#endif
