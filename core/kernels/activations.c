/* activations.c: activation functions, each with its derivative below it. How they are written:
 * lanes.h. The parameters p and q are the op's first two numbers in the table of ops.
 *
 * At kinks the derivatives are PyTorch's: relu'(0) = 0, leaky_relu'(0) = slope, relu6'(6) = 0,
 * elu'(0) = alpha. */
#include "core/kernels/lanes.h"

#ifndef real

#define real float
#define lanes vfloat
#include "core/kernels/activations.c"
#undef real
#undef lanes
#define real double
#define lanes double
#include "core/kernels/activations.c"
#undef real
#undef lanes

extern const unary_kernel KERNEL(activations)[];

const unary_kernel KERNEL(activations)[] = {
    UNARY_ROW(relu, READS_Y),         UNARY_ROW(leaky_relu, READS_X),
    UNARY_ROW(relu6, READS_X),        UNARY_ROW(elu, READS_X),
    UNARY_ROW(selu, READS_X),         UNARY_ROW(gelu, READS_X),
    UNARY_ROW(gelu_tanh, READS_X),    UNARY_ROW(silu, READS_X),
    UNARY_ROW(sigmoid, READS_Y),      UNARY_ROW(tanh, READS_Y),
    UNARY_ROW(softplus, READS_X),     UNARY_ROW(hard_sigmoid, READS_X),
    UNARY_ROW(hard_swish, READS_X),
    {.name = NULL},
};

#else

/* relu: max(x, 0); NaN stays NaN. */
VALUE(relu) { return choose(x <= constant(0), constant(0), x); }
GRADIENT(relu) { return choose(y <= constant(0), constant(0), dy); }
VALUE_LOOP(relu)
GRADIENT_LOOP(relu)

/* leaky_relu: x above 0, slope x below; p is the slope. */
VALUE(leaky_relu) { return choose(x > constant(0), x, p * x); }
GRADIENT(leaky_relu) { return choose(x > constant(0), dy, p * dy); }
VALUE_LOOP(leaky_relu)
GRADIENT_LOOP(leaky_relu)

/* relu6: min(max(x, 0), 6). */
VALUE(relu6) {
    return choose(x < constant(0), constant(0), choose(x > constant(6), constant(6), x));
}
GRADIENT(relu6) {
    return choose(x > constant(0), choose(x < constant(6), dy, constant(0)), constant(0));
}
VALUE_LOOP(relu6)
GRADIENT_LOOP(relu6)

/* elu (Clevert, Unterthiner, Hochreiter: arXiv 1511.07289): x above 0, alpha (e^x - 1) below, whose
 * derivative is alpha e^x; p is alpha. */
VALUE(elu) { return choose(x > constant(0), x, p * lane_expm1(x)); }
GRADIENT(elu) { return choose(x > constant(0), dy, dy * (p * lane_exp(x))); }
VALUE_LOOP(elu)
GRADIENT_LOOP(elu)

/* selu (Klambauer et al.: arXiv 1706.02515): scale * elu with alpha, both fixed so that mean 0 and
 * variance 1 are kept. */
#define SELU_SCALE 1.0507009873554804934193349852946
#define SELU_ALPHA 1.6732632423543772848170429916717
VALUE(selu) {
    lanes below = constant(SELU_SCALE * SELU_ALPHA) * lane_expm1(x);
    return choose(x > constant(0), constant(SELU_SCALE) * x, below);
}
GRADIENT(selu) {
    lanes below = constant(SELU_SCALE * SELU_ALPHA) * lane_exp(x);
    return dy * choose(x > constant(0), constant(SELU_SCALE), below);
}
VALUE_LOOP(selu)
GRADIENT_LOOP(selu)

/* gelu (Hendrycks, Gimpel: arXiv 1606.08415): x P(x), where P is the normal distribution, whose
 * derivative is e^(-x x / 2) / sqrt(2 pi). */
#define NORMAL_DENSITY_AT_0 0.39894228040143267794
VALUE(gelu) {
    x = lane_finite(x);
    return x * lane_normal(x);
}
GRADIENT(gelu) {
    x = lane_finite(x);
    lanes density = constant(NORMAL_DENSITY_AT_0) * lane_exp(constant(-0.5) * x * x);
    return dy * (lane_normal(x) + x * density);
}
VALUE_LOOP(gelu)
GRADIENT_LOOP(gelu)

/* gelu with approximate = "tanh": x (1 + tanh u) / 2 = x sigmoid(2 u),
 * u = sqrt(2 / pi) (x + 0.044715 x^3). Beyond 64 the sigmoid is 0 or 1. */
#define TWICE_ROOT 1.59576912160573071176
static inline lanes NAME(gelu_argument)(lanes x) {
    return constant(TWICE_ROOT) * (x + constant(0.044715) * x * x * x);
}
VALUE(gelu_tanh) { return lane_finite(x) * lane_sigmoid(NAME(gelu_argument)(x)); }
GRADIENT(gelu_tanh) {
    x = choose(x < constant(-64), constant(-64), choose(x > constant(64), constant(64), x));
    lanes u = NAME(gelu_argument)(x), s = lane_sigmoid(u);
    lanes slope = constant(TWICE_ROOT) * (constant(1) + constant(3 * 0.044715) * x * x);
    return dy * (s + x * slope * (s * lane_sigmoid(-u)));
}
VALUE_LOOP(gelu_tanh)
GRADIENT_LOOP(gelu_tanh)

/* silu, also called swish: x s with s = sigmoid(x); derivative s (1 + x (1 - s)), and
 * 1 - s = sigmoid(-x). */
VALUE(silu) { return lane_finite(x) * lane_sigmoid(x); }
GRADIENT(silu) {
    lanes s = lane_sigmoid(x);
    return dy * (s * (constant(1) + lane_finite(x) * lane_sigmoid(-x)));
}
VALUE_LOOP(silu)
GRADIENT_LOOP(silu)

/* sigmoid: 1 / (1 + e^-x), with s' = s (1 - s). */
VALUE(sigmoid) { return lane_sigmoid(x); }
GRADIENT(sigmoid) { return dy * (y * (constant(1) - y)); }
VALUE_LOOP(sigmoid)
GRADIENT_LOOP(sigmoid)

/* tanh, with t' = 1 - t^2. */
VALUE(tanh) { return lane_tanh(x); }
GRADIENT(tanh) { return dy * (constant(1) - y * y); }
VALUE_LOOP(tanh)
GRADIENT_LOOP(tanh)

/* softplus: ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold; p is beta, q the
 * threshold. */
VALUE(softplus) {
    lanes t = p * x;
    return choose(t > q, x, lane_log1p(lane_exp(t)) / p);
}
GRADIENT(softplus) {
    lanes t = p * x;
    return choose(t > q, dy, dy * lane_sigmoid(t));
}
VALUE_LOOP(softplus)
GRADIENT_LOOP(softplus)

/* hard_sigmoid: relu6(x + 3) / 6. */
VALUE(hard_sigmoid) { return NAME(relu6)(x + constant(3), p, q) * constant(1.0 / 6); }
GRADIENT(hard_sigmoid) {
    lanes rising = choose(x < constant(3), dy * constant(1.0 / 6), constant(0));
    return choose(x > constant(-3), rising, constant(0));
}
VALUE_LOOP(hard_sigmoid)
GRADIENT_LOOP(hard_sigmoid)

/* hard_swish: x relu6(x + 3) / 6. */
VALUE(hard_swish) {
    return lane_finite(x) * (NAME(relu6)(x + constant(3), p, q) * constant(1.0 / 6));
}
GRADIENT(hard_swish) {
    lanes between = dy * (x * constant(1.0 / 3) + constant(0.5));
    lanes rising = choose(x > constant(3), dy, between);
    return choose(x < constant(-3), constant(0), rising);
}
VALUE_LOOP(hard_swish)
GRADIENT_LOOP(hard_swish)

#endif
