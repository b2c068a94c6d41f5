/* table.c: the table of ops. A row gives an op its C function (resin_apply), its Lua function and
 * method, its gradient, its line in the documentation (`lua5.4 scripts/ops.lua`) and its gradient
 * check. The columns are described in op.h. */
#include "core/ops/families.h"
#include "core/ops/op.h"

const op_row op_table[] = {
    /* ---- Arithmetic and comparisons (pointwise.c, kernels/arithmetic.c) ---- */
    {"add", "a, b",
     "a + b, broadcast",
     binary_forward, binary_backward,
     "{a = {2, 3, 4}, b = {2, 3, 4}},"
     "{a = {3, 1, 5}, b = {2, 1, 4, 1}},"
     "{a = {7}, b = {}},"
     "{a = {}, b = {2, 3}}"},
    {"subtract", "a, b",
     "a - b, broadcast",
     binary_forward, binary_backward,
     "{a = {2, 3, 4}, b = {2, 3, 4}},"
     "{a = {3, 1, 5}, b = {2, 1, 4, 1}},"
     "{a = {7}, b = {}},"
     "{a = {}, b = {2, 3}}"},
    {"multiply", "a, b",
     "a b, broadcast",
     binary_forward, binary_backward,
     "{a = {2, 3, 4}, b = {2, 3, 4}},"
     "{a = {3, 1, 5}, b = {2, 1, 4, 1}},"
     "{a = {7}, b = {}},"
     "{a = {}, b = {2, 3}}"},
    {"divide", "a, b",
     "a / b, broadcast; float32 and float64",
     binary_forward, binary_backward,
     "{a = {2, 3, 4}, b = {shape = {2, 3, 4}, low = 0.5, high = 2}},"
     "{a = {3, 1, 5}, b = {shape = {2, 1, 4, 1}, low = -2, high = -0.5}}"},
    {"pow", "a, b",
     "a^b, broadcast; float32 and float64",
     binary_forward, binary_backward,
     "{a = {shape = {3, 5}, low = 0.2, high = 2}, b = {3, 5}},"
     "{a = {shape = {4, 1}, low = 0.2, high = 2}, b = {3}},"
     "{a = {5, 3}, b = {shape = {}, constant = true, low = 2, high = 2}}"},
    {"minimum", "a, b",
     "the smaller of a and b, broadcast; NaN if one is NaN",
     binary_forward, binary_backward,
     "{a = {5, 3}, b = {5, 3}},"
     "{a = {4, 1}, b = {3}}"},
    {"maximum", "a, b",
     "the greater of a and b, broadcast; NaN if one is NaN",
     binary_forward, binary_backward,
     "{a = {5, 3}, b = {5, 3}},"
     "{a = {4, 1}, b = {3}}"},
    {"equal", "a, b",
     "1 where a = b, else 0 (uint8), broadcast",
     binary_forward, NULL,
     NULL},
    {"not_equal", "a, b",
     "1 where a and b differ, else 0 (uint8), broadcast; NaN differs from everything",
     binary_forward, NULL,
     NULL},
    {"less", "a, b",
     "1 where a < b, else 0 (uint8), broadcast",
     binary_forward, NULL,
     NULL},
    {"less_equal", "a, b",
     "1 where a <= b, else 0 (uint8), broadcast",
     binary_forward, NULL,
     NULL},
    {"greater", "a, b",
     "1 where a > b, else 0 (uint8), broadcast",
     binary_forward, NULL,
     NULL},
    {"greater_equal", "a, b",
     "1 where a >= b, else 0 (uint8), broadcast",
     binary_forward, NULL,
     NULL},
    {"where", "condition, a, b",
     "a where the condition (uint8) is not 0, else b; broadcast",
     where_forward, where_backward,
     "{condition = {shape = {3, 5}, mask = true}, a = {3, 5}, b = {3, 5}},"
     "{condition = {shape = {4, 1}, mask = true}, a = {3}, b = {2, 1, 1}}"},

    /* ---- Elementary functions (pointwise.c, kernels/elementary.c) ---- */
    {"exp", "x",
     "e^x",
     unary_forward, unary_backward,
     "{x = {3, 5}},"
     "{x = {'n', 'h', 'w', 'c'}}"},
    {"log", "x",
     "natural logarithm of x",
     unary_forward, unary_backward,
     "{x = {shape = {3, 5}, low = 0.2, high = 3}}"},
    {"sqrt", "x",
     "square root of x",
     unary_forward, unary_backward,
     "{x = {shape = {3, 5}, low = 0.2, high = 3}}"},
    {"rsqrt", "x",
     "1 / sqrt(x)",
     unary_forward, unary_backward,
     "{x = {shape = {3, 5}, low = 0.2, high = 3}}"},
    {"reciprocal", "x",
     "1 / x",
     unary_forward, unary_backward,
     "{x = {shape = {3, 5}, low = 0.2, high = 3}}"},
    {"square", "x",
     "x^2",
     unary_forward, unary_backward,
     "{x = {3, 5}}"},
    {"sin", "x",
     "sine of x",
     unary_forward, unary_backward,
     "{x = {3, 5}}"},
    {"cos", "x",
     "cosine of x",
     unary_forward, unary_backward,
     "{x = {3, 5}}"},
    {"neg", "x",
     "-x",
     unary_forward, unary_backward,
     "{x = {3, 5}}"},
    {"abs", "x",
     "|x|, derivative 0 at 0",
     unary_forward, unary_backward,
     "{x = {3, 5}, distinct = true}"},
    {"sign", "x",
     "-1, 0 or 1; derivative 0",
     unary_forward, unary_backward,
     "{x = {3, 5}, distinct = true}"},
    {"floor", "x",
     "greatest integer not above x; derivative 0",
     unary_forward, unary_backward,
     "{x = {3, 5}, distinct = true}"},
    {"ceil", "x",
     "least integer not below x; derivative 0",
     unary_forward, unary_backward,
     "{x = {3, 5}, distinct = true}"},
    {"round", "x",
     "nearest integer, halves to even; derivative 0",
     unary_forward, unary_backward,
     "{x = {3, 5}, distinct = true}"},
    {"clamp", "x; min: number = -inf, max: number = inf",
     "x, but not below min nor above max; derivative 1 at the bounds",
     unary_forward, unary_backward,
     "{x = {5, 7}, min = -0.5, max = 0.7},"
     "{x = {5, 7}, max = 0.2}"},

    /* ---- Activations (pointwise.c, kernels/activations.c; softmax.c) ---- */
    {"relu", "x",
     "max(x, 0), derivative 0 at 0",
     unary_forward, unary_backward,
     "{x = {5, 7}, distinct = true},"
     "{x = {'n', 'h', 'w', 'c'}}"},
    {"leaky_relu", "x; slope: number = 0.01",
     "x above 0, slope x below",
     unary_forward, unary_backward,
     "{x = {5, 7}},"
     "{x = {5, 7}, slope = 0.3}"},
    {"relu6", "x",
     "min(max(x, 0), 6)",
     unary_forward, unary_backward,
     "{x = {shape = {5, 7}, low = -3, high = 9}}"},
    {"elu", "x; alpha: number = 1",
     "x above 0, alpha (e^x - 1) below",
     unary_forward, unary_backward,
     "{x = {5, 7}},"
     "{x = {5, 7}, alpha = 0.7}"},
    {"selu", "x",
     "1.0507 elu(x, 1.67326)",
     unary_forward, unary_backward,
     "{x = {5, 7}}"},
    {"gelu", "x; approximate: string = none",
     "x P(x), P the normal distribution; approximate = 'tanh': x (1 + tanh(sqrt(2 / pi) (x + "
     "0.044715 x^3))) / 2",
     unary_forward, unary_backward,
     "{x = {5, 7}},"
     "{x = {5, 7}, approximate = 'tanh'}"},
    {"silu", "x",
     "x / (1 + e^-x)",
     unary_forward, unary_backward,
     "{x = {5, 7}}"},
    {"sigmoid", "x",
     "1 / (1 + e^-x)",
     unary_forward, unary_backward,
     "{x = {5, 7}}"},
    {"tanh", "x",
     "hyperbolic tangent of x",
     unary_forward, unary_backward,
     "{x = {5, 7}}"},
    {"softplus", "x; beta: number = 1, threshold: number = 20",
     "ln(1 + e^(beta x)) / beta; x where beta x > threshold",
     unary_forward, unary_backward,
     "{x = {5, 7}},"
     "{x = {shape = {5, 7}, low = -3, high = 3}, beta = 2, threshold = 3}"},
    {"hard_sigmoid", "x",
     "min(max(x + 3, 0), 6) / 6",
     unary_forward, unary_backward,
     "{x = {shape = {5, 7}, low = -5, high = 5}}"},
    {"hard_swish", "x",
     "x min(max(x + 3, 0), 6) / 6",
     unary_forward, unary_backward,
     "{x = {shape = {5, 7}, low = -5, high = 5}}"},
    {"softmax", "x; axis: axis = -1",
     "e^x / sum of e^x along the axis",
     softmax_forward, softmax_backward,
     "{x = {3, 19}},"
     "{x = {3, 5, 4}, axis = 2},"
     "{x = {'n', 'h', 'w', 'c'}, axis = 1}"},
    {"log_softmax", "x; axis: axis = -1",
     "x - ln(sum of e^x along the axis)",
     log_softmax_forward, log_softmax_backward,
     "{x = {3, 19}},"
     "{x = {3, 5, 4}, axis = 2},"
     "{x = {'n', 'h', 'w', 'c'}, axis = 1}"},

    /* ---- Reductions (reduce.c) ---- */
    {"sum", "x; axes: axes = none, keep: bool = false",
     "sum over the axes; int64 for integers",
     sum_forward, sum_backward,
     "{x = {3, 4, 5}},"
     "{x = {3, 4, 5}, axes = 2},"
     "{x = {2, 3, 4, 5}, axes = {1, 3}, keep = true},"
     "{x = {2, 3, 4, 5}, axes = {-1, 2}}"},
    {"mean", "x; axes: axes = none, keep: bool = false",
     "mean over the axes",
     mean_forward, mean_backward,
     "{x = {3, 4, 5}},"
     "{x = {3, 4, 5}, axes = 2},"
     "{x = {2, 3, 4, 5}, axes = {1, 3}, keep = true},"
     "{x = {2, 3, 4, 5}, axes = {-1, 2}}"},
    {"variance", "x; axes: axes = none, unbiased: bool = true, keep: bool = false",
     "sum of (x - mean)^2 over the axes, divided by n - 1 (unbiased) or n",
     variance_forward, variance_backward,
     "{x = {3, 4, 5}},"
     "{x = {3, 4, 5}, axes = 2},"
     "{x = {2, 3, 4, 5}, axes = {1, 3}, keep = true},"
     "{x = {4, 3, 5}, axes = {1, 3}, unbiased = false}"},
    {"prod", "x; axes: axes = none, keep: bool = false",
     "product over the axes; int64 for integers",
     prod_forward, prod_backward,
     "{x = {3, 4}},"
     "{x = {3, 4, 5}, axes = {1, 3}}"},
    {"max", "x; axes: axes = none, keep: bool = false",
     "greatest over the axes; NaN if there is one; equals share the gradient",
     max_forward, extreme_backward,
     "{x = {3, 4, 5}, distinct = true},"
     "{x = {3, 4, 5}, axes = 2, distinct = true},"
     "{x = {2, 3, 4, 5}, axes = {1, 3}, keep = true, distinct = true},"
     "{x = {2, 3, 4, 5}, axes = {-1, 2}, distinct = true}"},
    {"min", "x; axes: axes = none, keep: bool = false",
     "least over the axes; NaN if there is one; equals share the gradient",
     min_forward, extreme_backward,
     "{x = {3, 4, 5}, distinct = true},"
     "{x = {3, 4, 5}, axes = 2, distinct = true},"
     "{x = {2, 3, 4, 5}, axes = {1, 3}, keep = true, distinct = true},"
     "{x = {2, 3, 4, 5}, axes = {-1, 2}, distinct = true}"},
    {"norm", "x; p: number = 2, axes: axes = none, keep: bool = false",
     "p = 1: sum of |x|, 2: sqrt of the sum of x^2, inf: greatest |x|; over the axes",
     norm_forward, norm_backward,
     "{x = {3, 4, 5}},"
     "{x = {3, 4, 5}, axes = {1, 3}, keep = true},"
     "{x = {3, 4, 5}, p = 1, axes = 2, distinct = true},"
     "{x = {3, 4, 5}, p = 1 / 0, axes = {1, 2}, distinct = true}"},
    {"logsumexp", "x; axes: axes = none, keep: bool = false",
     "ln(sum of e^x) over the axes",
     logsumexp_forward, logsumexp_backward,
     "{x = {3, 4, 5}},"
     "{x = {3, 4, 5}, axes = 2},"
     "{x = {2, 3, 4, 5}, axes = {1, 3}, keep = true},"
     "{x = {2, 3, 4, 5}, axes = {-1, 2}}"},
    {"argmax", "x; axis: axes = none, keep: bool = false, base: base = 0",
     "position of the greatest along the axis, or of the flattened tensor (int64); the first of "
     "equals",
     argmax_forward, NULL,
     NULL},
    {"argmin", "x; axis: axes = none, keep: bool = false, base: base = 0",
     "position of the least along the axis, or of the flattened tensor (int64); the first of "
     "equals",
     argmin_forward, NULL,
     NULL},

    /* ---- Products (matmul.c) ---- */
    {"matmul", "a, b",
     "matrix product over the last axis of a and the last but one of b; axes before them are "
     "batches and broadcast; vectors as in numpy",
     matmul_forward, matmul_backward,
     "{a = {5, 7}, b = {7, 3}},"
     "{a = {7}, b = {7, 3}},"
     "{a = {5, 7}, b = {7}},"
     "{a = {7}, b = {7}},"
     "{a = {2, 3, 5, 7}, b = {2, 3, 7, 4}},"
     "{a = {2, 3, 5, 7}, b = {7, 4}},"
     "{a = {3, 1, 5, 7}, b = {2, 7, 4}},"
     "{a = {7}, b = {2, 3, 7, 4}},"
     "{a = {2, 3, 5, 7}, b = {7}}"},
    {"linear", "x, weights, bias?",
     "x weights + bias along the last axis; weights (in, out)",
     linear_forward, linear_backward,
     "{x = {5, 7}, weights = {7, 3}, bias = {3}},"
     "{x = {2, 3, 7}, weights = {7, 4}},"
     "{x = {7}, weights = {7, 3}, bias = {3}}"},

    /* ---- Layout: views, joining, indexing (view.c, join.c, index.c) ---- */
    {"reshape", "x; shape: ints = required",
     "the same elements in another shape; one size may be -1",
     reshape_forward, reshape_backward,
     "{x = {3, 4, 5}, shape = {5, -1, 2}},"
     "{x = {6}, shape = {1, 2, 3, 1}}"},
    {"flatten", "x; first: axis = 0, last: axis = -1",
     "the axes first .. last as one",
     flatten_forward, reshape_backward,
     "{x = {2, 3, 4, 5}, first = 2},"
     "{x = {2, 3, 4}}"},
    {"squeeze", "x; axes: axes = none",
     "without the axes of size 1, or without those named",
     squeeze_forward, squeeze_backward,
     "{x = {2, 1, 3, 1}},"
     "{x = {2, 1, 3, 1}, axes = -1}"},
    {"expand_dims", "x; axis: axis = required",
     "a new axis of size 1 at this position of the result",
     expand_dims_forward, expand_dims_backward,
     "{x = {2, 3}, axis = 2},"
     "{x = {2, 3}, axis = -1}"},
    {"transpose", "x; axes: axes = none",
     "axis i of the result is axis axes[i] of x; none: all reversed",
     transpose_forward, transpose_backward,
     "{x = {2, 3, 4}},"
     "{x = {2, 3, 4, 5}, axes = {3, 1, 4, 2}}"},
    {"swap_axes", "x; first: axis = -2, second: axis = -1",
     "two axes exchanged",
     swap_axes_forward, swap_axes_backward,
     "{x = {2, 3, 4}},"
     "{x = {2, 3, 4}, first = 1, second = 3}"},
    {"slice", "x; start: ints = required, stop: ints = required, step: ints = none",
     "positions start, start + step, ... before stop of the first axes, counted from 0 (in Lua "
     "x[{{first, last, step}, ...}]); backward to the front: stop = -1",
     slice_forward, slice_backward,
     "{x = {5, 7, 3}, start = {1, 2}, stop = {4, 7}, step = {1, 2}},"
     "{x = {5, 7}, start = {4, 5}, stop = {-1, 0}, step = {-1, -2}}"},
    {"select", "x; axis: axis = required, index: axis = required",
     "one position of an axis, which goes away",
     select_forward, select_backward,
     "{x = {4, 5, 3}, axis = 2, index = 3},"
     "{x = {4, 5}, axis = -1, index = -1}"},
    {"flip", "x; axes: axes = none",
     "the axes in reverse order",
     flip_forward, flip_backward,
     "{x = {4, 5, 3}, axes = {1, 3}},"
     "{x = {4, 5}}"},
    {"broadcast_to", "x; shape: ints = required",
     "x repeated to the shape, as in broadcasting",
     broadcast_to_forward, broadcast_to_backward,
     "{x = {3, 1}, shape = {2, 3, 4}},"
     "{x = {}, shape = {3}}"},
    {"contiguous", "x",
     "the same elements, row by row in memory",
     contiguous_forward, contiguous_backward,
     "{x = {3, 4}}"},
    {"cast", "x; dtype: string = required",
     "x converted; to integers by cutting the fraction off",
     cast_forward, cast_backward,
     "{x = {3, 4}, dtype = 'float64'}"},
    {"concatenate", "xs*; axis: axis = 0",
     "one behind the other along the axis",
     concatenate_forward, concatenate_backward,
     "{xs = {{2, 3}, {4, 3}, {1, 3}}},"
     "{xs = {{2, 3, 2}, {2, 1, 2}}, axis = 2}"},
    {"stack", "xs*; axis: axis = 0",
     "side by side along a new axis",
     stack_forward, stack_backward,
     "{xs = {{2, 3}, {2, 3}, {2, 3}}},"
     "{xs = {{2, 3}, {2, 3}}, axis = -1}"},
    {"pad", "x; before: ints = required, after: ints = required, value: number = 0",
     "more positions of a value before and behind each axis",
     pad_forward, pad_backward,
     "{x = {2, 3, 4}, before = {1, 0, 2}, after = {0, 2, 1}},"
     "{x = {3}, before = {1}, after = {1}, value = 2}"},
    {"tile", "x; repeats: ints = required",
     "the whole tensor so many times along each axis",
     tile_forward, tile_backward,
     "{x = {2, 3}, repeats = {3, 2}},"
     "{x = {2, 1, 3}, repeats = {1, 4, 2}}"},
    {"gather", "x, indices; axis: axis = required, base: base = 0",
     "x[..., indices[..., i, ...], ...]: one element of x for each position along the axis",
     gather_forward, gather_backward,
     "{x = {4, 5}, indices = {shape = {4, 3}, integers = 5}, axis = 2},"
     "{x = {4, 2, 3}, indices = {shape = {7, 2, 2}, integers = 4}, axis = 1}"},
    {"take", "x, indices; axis: axis = 0, base: base = 0",
     "the slices of x at the positions along the axis, in the shape of the indices",
     take_forward, take_backward,
     "{x = {5, 3}, indices = {shape = {2, 4}, integers = 5}},"
     "{x = {3, 4, 2}, indices = {shape = {6}, integers = 4}, axis = 2}"},
    {"one_hot", "labels; classes: int = required, base: base = 0, dtype: string = float32",
     "1 at the label's position of a new last axis, else 0",
     one_hot_forward, NULL,
     NULL},

    /* ---- Convolution and pooling (conv2d.c, conv2d_transpose.c, pool.c) ---- */
    {"conv2d",
     "x~, weights, bias?; stride: ints = 1, padding: ints = 0, dilation: ints = 1, "
     "groups: int = 1, same: bool = false",
     "y[n,i,j,k] = bias[k] + sum over u,v,c of x[n, i stride - top + u dilation, ..., c] "
     "weights[u,v,c,k]; NHWC, weights (height, width, in / groups, out); padding: all sides, "
     "(h, w) or (top, bottom, left, right); same: ceil(in / stride) pixels, TensorFlow's padding",
     conv2d_forward, conv2d_backward,
     "{x = {2, 6, 5, 3}, weights = {3, 3, 3, 4}, bias = {4}, padding = 1},"
     "{x = {1, 7, 8, 2}, weights = {3, 2, 2, 3}, stride = {2, 3}, padding = {2, 0, 1, 3}},"
     "{x = {2, 7, 7, 4}, weights = {3, 3, 2, 6}, bias = {6}, groups = 2, dilation = {2, 1}, "
     "padding = {2, 1}},"
     "{x = {1, 5, 5, 6}, weights = {3, 3, 1, 6}, groups = 6, padding = 1, stride = 2},"
     "{x = {2, 7, 6, 2}, weights = {5, 4, 2, 3}, bias = {3}, stride = 2, same = true},"
     "{x = {2, 3, 4, 5}, weights = {1, 1, 5, 7}, bias = {7}},"
     "{x = {1, 5, 4, 3}, weights = {1, 1, 3, 2}, stride = 2, same = true},"
     "{x = {'n', 'h', 'w', 'c'}, weights = {3, 3, 'c', 5}, same = true}"},
    {"conv2d_transpose",
     "x, weights, bias?; stride: ints = 1, padding: ints = 0, output_padding: ints = 0, "
     "dilation: ints = 1, groups: int = 1",
     "bias + the gradient of conv2d by its image, where the gradient of its result is x; weights "
     "(height, width, out / groups, in); pixels (in - 1) stride - padding + dilation (kernel - 1) "
     "+ 1 + output_padding",
     conv2d_transpose_forward, conv2d_transpose_backward,
     "{x = {2, 4, 3, 3}, weights = {3, 3, 4, 3}, bias = {4}},"
     "{x = {1, 3, 4, 4}, weights = {3, 2, 3, 4}, bias = {6}, groups = 2, stride = {2, 3}, "
     "padding = {1, 0}, output_padding = {1, 2}},"
     "{x = {1, 4, 4, 2}, weights = {2, 3, 3, 2}, stride = 2, padding = {0, 1, 1, 2}, "
     "dilation = {1, 2}}"},
    {"max_pool2d",
     "x~; kernel: ints = required, stride: ints = none, padding: ints = 0, same: bool = false, "
     "ceil: bool = false",
     "largest value of each window (stride: the kernel's size; ceil: also windows that stand out "
     "behind); the gradient goes to the first of equal values",
     max_pool2d_forward, max_pool2d_backward,
     "{x = {2, 6, 4, 3}, kernel = 2, distinct = true},"
     "{x = {1, 7, 8, 2}, kernel = {3, 2}, stride = {2, 1}, padding = {1, 0}, distinct = true},"
     "{x = {2, 7, 6, 2}, kernel = 3, stride = 2, same = true, distinct = true},"
     "{x = {1, 8, 6, 2}, kernel = 3, stride = 2, padding = {0, 1, 1, 0}, ceil = true, "
     "distinct = true},"
     "{x = {1, 5, 5, 3}, kernel = 1, stride = 2, distinct = true},"
     "{x = {1, 19, 18, 1}, kernel = 17, stride = 1, distinct = true}"},
    {"avg_pool2d",
     "x; kernel: ints = required, stride: ints = none, padding: ints = 0, same: bool = false, "
     "ceil: bool = false, count_padding: bool = true",
     "mean of each window; count_padding: padding counts as zeros (never with same)",
     avg_pool2d_forward, avg_pool2d_backward,
     "{x = {2, 6, 4, 3}, kernel = 2},"
     "{x = {1, 7, 8, 2}, kernel = {3, 2}, stride = {2, 1}, padding = {1, 0}},"
     "{x = {1, 8, 6, 2}, kernel = 3, stride = 2, padding = {0, 1, 1, 0}, ceil = true},"
     "{x = {1, 8, 7, 2}, kernel = 3, stride = 2, padding = 1, count_padding = false},"
     "{x = {2, 7, 6, 2}, kernel = 3, stride = 2, same = true}"},
    {"global_avg_pool", "x", "mean of all pixels: (n, h, w, c) to (n, c)",
     global_avg_pool_forward, global_avg_pool_backward, "{x = {2, 5, 4, 3}}"},
    {"global_max_pool", "x", "largest of all pixels: (n, h, w, c) to (n, c)",
     global_max_pool_forward, global_max_pool_backward,
     "{x = {2, 5, 4, 3}, distinct = true}, {x = {1, 17, 16, 2}, distinct = true}"},

    /* ---- Normalization and dropout (batch_norm.c, conv_bn_act.c, dropout.c) ---- */
    {"dropout", "x; rate: number = 0.5, training: bool = true",
     "0 with probability rate, else x / (1 - rate); x itself if not training",
     dropout_forward, dropout_backward,
     "{x = {5, 7}, rate = 0.3},"
     "{x = {5, 7}, training = false}"},
    {"batch_norm",
     "x, gamma?, beta?, mean, variance, shortcut?; training: bool = false, "
     "momentum: number = 0.1, epsilon: number = 1e-5, unbiased: bool = true, "
     "activation: string = linear",
     "activation((x - mean) / sqrt(variance + epsilon) gamma + beta + shortcut) over the last "
     "axis; in training with the batch's mean and variance, and mean and variance move towards "
     "them by momentum (unbiased: the variance by n - 1); activation: linear or relu",
     batch_norm_forward, batch_norm_backward,
     "{x = {3, 2, 4, 5}, gamma = {5}, beta = {5}, mean = {shape = {5}, constant = true}, "
     "variance = {shape = {5}, low = 0.5, high = 2, constant = true}, training = true},"
     "{x = {7, 3}, gamma = {3}, beta = {3}, mean = {shape = {3}, constant = true}, "
     "variance = {shape = {3}, low = 0.5, high = 2, constant = true}, shortcut = {7, 3}, "
     "training = true, activation = 'relu', epsilon = 1e-3},"
     "{x = {2, 3, 17}, mean = {shape = {17}, constant = true}, "
     "variance = {shape = {17}, low = 0.5, high = 2, constant = true}, training = true},"
     "{x = {2, 3, 3, 4}, gamma = {4}, beta = {4}, mean = {shape = {4}, constant = true}, "
     "variance = {shape = {4}, low = 0.5, high = 2, constant = true}, "
     "shortcut = {2, 3, 3, 4}, activation = 'relu'},"
     "{x = {4, 3}, beta = {3}, mean = {shape = {3}, constant = true}, "
     "variance = {shape = {3}, low = 0.5, high = 2, constant = true}, shortcut = {4, 3}}"},
    {"conv_bn_act",
     "x~, weights, bias?, gamma?, beta?, mean, variance, shortcut?~; stride: ints = 1, "
     "padding: ints = 0, dilation: ints = 1, groups: int = 1, same: bool = false, "
     "training: bool = false, momentum: number = 0.1, epsilon: number = 1e-5, "
     "unbiased: bool = true, activation: string = linear, deferred: bool = false",
     "batch_norm(conv2d(x, weights, bias), gamma, beta, mean, variance, shortcut) as one; "
     "deferred: a result of relu, or without shortcut, is computed where it is read, by "
     "convolutions and max_pool2d on the way; until then the shortcut must not change",
     conv_bn_act_forward, conv_bn_act_backward,
     "{x = {2, 5, 4, 3}, weights = {3, 3, 3, 4}, gamma = {4}, beta = {4}, "
     "mean = {shape = {4}, constant = true}, "
     "variance = {shape = {4}, low = 0.5, high = 2, constant = true}, same = true, "
     "shortcut = {2, 5, 4, 4}, training = true, activation = 'relu'},"
     "{x = {2, 6, 6, 4}, weights = {3, 3, 2, 6}, bias = {6}, gamma = {6}, beta = {6}, "
     "mean = {shape = {6}, constant = true}, "
     "variance = {shape = {6}, low = 0.5, high = 2, constant = true}, stride = 2, "
     "padding = {0, 1, 0, 1}, groups = 2, activation = 'relu'},"
     "{x = {3, 3, 3, 2}, weights = {1, 1, 2, 5}, "
     "mean = {shape = {5}, constant = true}, "
     "variance = {shape = {5}, low = 0.5, high = 2, constant = true}, training = true},"
     "{x = {2, 5, 4, 3}, weights = {3, 3, 3, 4}, gamma = {4}, beta = {4}, "
     "mean = {shape = {4}, constant = true}, "
     "variance = {shape = {4}, low = 0.5, high = 2, constant = true}, same = true, "
     "training = true, activation = 'relu', deferred = true}"},

    /* ---- Losses (losses.c, label_losses.c) ---- */
    {"cross_entropy",
     "logits, labels; label_smoothing: number = 0, base: base = 0, ignore: ints = none, "
     "reduction: string = mean",
     "-ln softmax(logits)[label] over the last axis; labels: integers that count from base, or "
     "probabilities of the logits' shape; labels in ignore (as given) count nowhere; reduction: "
     "mean, sum or none",
     cross_entropy_forward, cross_entropy_backward,
     "{logits = {4, 5}, labels = {shape = {4}, integers = 5}},"
     "{logits = {2, 3, 4}, labels = {shape = {2, 3}, integers = 4}, label_smoothing = 0.1, "
     "reduction = 'sum'},"
     "{logits = {3, 6}, labels = {shape = {3}, integers = 6}, ignore = 2, reduction = 'none'},"
     "{logits = {3, 4}, labels = {shape = {3, 4}, low = 0.1, high = 0.5}, label_smoothing = 0.2}"},
    {"nll_loss",
     "x, labels; base: base = 0, ignore: ints = none, reduction: string = mean",
     "-x[label] over the last axis, of log-probabilities x",
     nll_loss_forward, nll_loss_backward,
     "{x = {4, 5}, labels = {shape = {4}, integers = 5}}"},
    {"mse_loss", "x, target; reduction: string = mean", "(x - target)^2",
     pair_loss_forward, pair_loss_backward,
     "{x = {3, 4}, target = {3, 4}}, {x = {5}, target = {5}, reduction = 'none'},"
     "{x = {2, 3}, target = {2, 3}, reduction = 'sum'}"},
    {"l1_loss", "x, target; reduction: string = mean", "|x - target|",
     pair_loss_forward, pair_loss_backward, "{x = {3, 4}, target = {3, 4}}"},
    {"huber_loss", "x, target; delta: number = 1, reduction: string = mean",
     "(x - target)^2 / 2 up to |x - target| = delta, then delta (|x - target| - delta / 2)",
     pair_loss_forward, pair_loss_backward,
     "{x = {3, 4}, target = {3, 4}}, {x = {3, 4}, target = {3, 4}, delta = 0.3}"},
    {"binary_cross_entropy", "x, target; reduction: string = mean",
     "-(target ln x + (1 - target) ln(1 - x)) of probabilities x; logarithms not below -100",
     pair_loss_forward, pair_loss_backward,
     "{x = {shape = {3, 4}, low = 0.1, high = 0.9}, "
     "target = {shape = {3, 4}, low = 0, high = 1}}"},
    {"binary_cross_entropy_with_logits", "x, target; reduction: string = mean",
     "binary_cross_entropy(sigmoid(x), target) without overflow",
     pair_loss_forward, pair_loss_backward,
     "{x = {3, 4}, target = {shape = {3, 4}, low = 0, high = 1}},"
     "{x = {5}, target = {5}, reduction = 'none'}"},
};

const int op_table_count = sizeof op_table / sizeof op_table[0];
