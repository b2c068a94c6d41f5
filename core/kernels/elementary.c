/* elementary.c: elementary functions, each with its derivative below it. How they are written:
 * lanes.h. The parameters p and q are the op's first two numbers in the table of ops. Some exist
 * for integers, too: the part at the end.
 *
 * At kinks the derivatives are PyTorch's: abs'(0) = 0, clamp' = 1 at the bounds. */
#include "core/kernels/lanes.h"

#if !defined(real) && !defined(integer)

#define real float
#define lanes vfloat
#include "core/kernels/elementary.c"
#undef real
#undef lanes
#define real double
#define lanes double
#include "core/kernels/elementary.c"
#undef real
#undef lanes

#define integer int32_t
#define LEAST INT32_MIN
#define MOST INT32_MAX
#include "core/kernels/elementary.c"
#undef integer
#undef LEAST
#undef MOST
#define integer int64_t
#define LEAST INT64_MIN
#define MOST INT64_MAX
#include "core/kernels/elementary.c"
#undef integer
#undef LEAST
#undef MOST
#define integer uint8_t
#define LEAST 0
#define MOST UINT8_MAX
#include "core/kernels/elementary.c"
#undef integer
#undef LEAST
#undef MOST

/* An entry for a function that takes integers, too. */
#define UNARY_ROW_INTEGERS(name_, reads_)                                                       \
    {                                                                                           \
        .name = #name_, .needs_x = (reads_) & READS_X, .needs_y = (reads_) & READS_Y,           \
        .forward = {name_##_float_loop, name_##_double_loop, name_##_int32_t, name_##_int64_t,  \
                    name_##_uint8_t},                                                           \
        .gradient = {name_##_float_gradient_loop, name_##_double_gradient_loop},                \
    }

extern const unary_kernel KERNEL(elementary)[];

const unary_kernel KERNEL(elementary)[] = {
    UNARY_ROW(exp, READS_Y),
    UNARY_ROW(log, READS_X),
    UNARY_ROW(sqrt, READS_Y),
    UNARY_ROW(rsqrt, READS_Y),
    UNARY_ROW(reciprocal, READS_Y),
    UNARY_ROW(sin, READS_X),
    UNARY_ROW(cos, READS_X),
    UNARY_ROW(floor, READS_NOTHING),
    UNARY_ROW(ceil, READS_NOTHING),
    UNARY_ROW(round, READS_NOTHING),
    UNARY_ROW_INTEGERS(neg, READS_NOTHING),
    UNARY_ROW_INTEGERS(abs, READS_X),
    UNARY_ROW_INTEGERS(sign, READS_NOTHING),
    UNARY_ROW_INTEGERS(square, READS_X),
    UNARY_ROW_INTEGERS(clamp, READS_X),
    {.name = NULL},
};

#elif defined(real)

#define lane_sqrt(x) NAME(root)(x)
#define lane_floor(x) NAME(down)(x)
#define lane_ceil(x) NAME(up)(x)
#define lane_round(x) NAME(nearest)(x)
#define lane_sin(x) NAME(sine)(x)
#define lane_cos(x) NAME(cosine)(x)
#ifndef LANE_FUNCTIONS
#define LANE_FUNCTIONS
/* The first four are single instructions on most processors. */
static inline vfloat root_float(vfloat x) {
    for (int i = 0; i < VECTOR_FLOATS; i++) x[i] = sqrtf(x[i]);
    return x;
}
static inline vfloat down_float(vfloat x) {
    for (int i = 0; i < VECTOR_FLOATS; i++) x[i] = floorf(x[i]);
    return x;
}
static inline vfloat up_float(vfloat x) {
    for (int i = 0; i < VECTOR_FLOATS; i++) x[i] = ceilf(x[i]);
    return x;
}
static inline vfloat nearest_float(vfloat x) {
    for (int i = 0; i < VECTOR_FLOATS; i++) x[i] = nearbyintf(x[i]);
    return x;
}
/* libm's functions, one number after the other. */
static __attribute__((noinline)) vfloat each(float (*function)(float), vfloat x) {
    for (int i = 0; i < VECTOR_FLOATS; i++) x[i] = function(x[i]);
    return x;
}
static inline vfloat sine_float(vfloat x) { return each(sinf, x); }
static inline vfloat cosine_float(vfloat x) { return each(cosf, x); }

static inline double root_double(double x) { return sqrt(x); }
static inline double down_double(double x) { return floor(x); }
static inline double up_double(double x) { return ceil(x); }
static inline double nearest_double(double x) { return nearbyint(x); }
static inline double sine_double(double x) { return sin(x); }
static inline double cosine_double(double x) { return cos(x); }
#endif

/* exp: its own derivative. */
VALUE(exp) { return lane_exp(x); }
GRADIENT(exp) { return dy * y; }
VALUE_LOOP(exp)
GRADIENT_LOOP(exp)

/* log: derivative 1 / x. */
VALUE(log) { return lane_log(x); }
GRADIENT(log) { return dy / x; }
VALUE_LOOP(log)
GRADIENT_LOOP(log)

/* sqrt: derivative 1 / (2 sqrt x). */
VALUE(sqrt) { return lane_sqrt(x); }
GRADIENT(sqrt) { return dy / (y + y); }
VALUE_LOOP(sqrt)
GRADIENT_LOOP(sqrt)

/* rsqrt: 1 / sqrt x, derivative -y^3 / 2. */
VALUE(rsqrt) { return constant(1) / lane_sqrt(x); }
GRADIENT(rsqrt) { return dy * (constant(-0.5) * y * (y * y)); }
VALUE_LOOP(rsqrt)
GRADIENT_LOOP(rsqrt)

/* reciprocal: 1 / x, derivative -1 / x^2. */
VALUE(reciprocal) { return constant(1) / x; }
GRADIENT(reciprocal) { return -dy * (y * y); }
VALUE_LOOP(reciprocal)
GRADIENT_LOOP(reciprocal)

VALUE(sin) { return lane_sin(x); }
GRADIENT(sin) { return dy * lane_cos(x); }
VALUE_LOOP(sin)
GRADIENT_LOOP(sin)

VALUE(cos) { return lane_cos(x); }
GRADIENT(cos) { return -dy * lane_sin(x); }
VALUE_LOOP(cos)
GRADIENT_LOOP(cos)

/* floor, ceil and round (half to even): derivative 0. */
VALUE(floor) { return lane_floor(x); }
GRADIENT(floor) { return constant(0); }
VALUE_LOOP(floor)
GRADIENT_LOOP(floor)

VALUE(ceil) { return lane_ceil(x); }
GRADIENT(ceil) { return constant(0); }
VALUE_LOOP(ceil)
GRADIENT_LOOP(ceil)

VALUE(round) { return lane_round(x); }
GRADIENT(round) { return constant(0); }
VALUE_LOOP(round)
GRADIENT_LOOP(round)

VALUE(neg) { return -x; }
GRADIENT(neg) { return -dy; }
VALUE_LOOP(neg)
GRADIENT_LOOP(neg)

/* sign: -1, 0 or 1; derivative 0. NaN has none: 0, as in PyTorch. */
VALUE(sign) {
    lanes below = choose(x < constant(0), constant(-1), constant(0));
    return choose(x > constant(0), constant(1), below);
}
GRADIENT(sign) { return constant(0); }
VALUE_LOOP(sign)
GRADIENT_LOOP(sign)

/* abs: derivative sign(x). */
VALUE(abs) { return lane_abs(x); }
GRADIENT(abs) {
    lanes below = choose(x < constant(0), -dy, constant(0));
    return choose(x > constant(0), dy, below);
}
VALUE_LOOP(abs)
GRADIENT_LOOP(abs)

/* square: x^2, derivative 2 x. */
VALUE(square) { return x * x; }
GRADIENT(square) { return dy * (x + x); }
VALUE_LOOP(square)
GRADIENT_LOOP(square)

/* clamp: min(max(x, p), q), where p and q may be infinite; NaN stays NaN. */
VALUE(clamp) {
    lanes raised = choose(x < p, p, x);
    return choose(raised > q, q, raised);
}
GRADIENT(clamp) {
    return choose(x >= p, choose(x <= q, dy, constant(0)), constant(0));
}
VALUE_LOOP(clamp)
GRADIENT_LOOP(clamp)

#else

/* Integers wrap around: the arithmetic is done in uint64_t. */
#define INTEGER_LOOP(name, value)                                                                \
    static void KERNEL_PASTE(name, integer)(int64_t n, const void *x_, int64_t x_stride,         \
                                            void *y_, int64_t y_stride, UNUSED double p,         \
                                            UNUSED double q) {                                   \
        const integer *x_at = x_;                                                                \
        integer *y_at = y_;                                                                      \
        for (int64_t i = 0; i < n; i++) {                                                        \
            const integer x = x_at[i * x_stride];                                                \
            y_at[i * y_stride] = (integer)(value);                                               \
        }                                                                                        \
    }

INTEGER_LOOP(neg, -(uint64_t)x)
INTEGER_LOOP(square, (uint64_t)x * (uint64_t)x)
#if LEAST < 0
INTEGER_LOOP(sign, (x > 0) - (x < 0))
INTEGER_LOOP(abs, x < 0 ? -(uint64_t)x : (uint64_t)x)
#else
INTEGER_LOOP(sign, x > 0)
INTEGER_LOOP(abs, x)
#endif

/* The bounds are brought into the type's range once: a bound of 2.5 allows 3 and more. */
static void KERNEL_PASTE(clamp, integer)(int64_t n, const void *x_, int64_t x_stride, void *y_,
                                         int64_t y_stride, double p, double q) {
    const integer *x = x_;
    integer *y = y_;
    const integer low = p <= (double)LEAST ? LEAST : p >= (double)MOST ? MOST : (integer)ceil(p);
    const integer high = q <= (double)LEAST ? LEAST : q >= (double)MOST ? MOST : (integer)floor(q);
    for (int64_t i = 0; i < n; i++) {
        integer raised = x[i * x_stride] < low ? low : x[i * x_stride];
        y[i * y_stride] = raised > high ? high : raised;
    }
}

#endif
