/* lanes.h: how the elementwise functions are written once for float32 and float64.
 *
 * A file of functions (activations.c, elementary.c) includes itself twice: with `real` = float and
 * `lanes` = vfloat, a vector of VECTOR_FLOATS numbers, and with real = lanes = double. A function
 * is written for `lanes`, without branches: choose(condition, a, b) takes the place of `?:`, and
 * both sides are computed, so a side that overflows where it is not chosen does no harm. */
#ifndef RESIN_KERNELS_LANES_H
#define RESIN_KERNELS_LANES_H

#include "core/kernels/pointwise.h"
#include "core/kernels/vector_math.h"

#define NAME(name) KERNEL_PASTE(name, real)
#define UNUSED __attribute__((unused))

/* The function of x with the parameters p and q, and the gradient dy * f'(x) from x, y = f(x) and
 * dy: heads of functions, so that each stands as one line of maths. A gradient reads x or y only
 * if its row of the table says so. */
#define VALUE(name) static inline lanes NAME(name)(UNUSED lanes x, UNUSED lanes p, UNUSED lanes q)
#define GRADIENT(name)                                                                     \
    static inline lanes KERNEL_PASTE(NAME(name), gradient)(UNUSED lanes x, UNUSED lanes y, \
                                                           UNUSED lanes dy, UNUSED lanes p, \
                                                           UNUSED lanes q)

/* The same for vectors and for single numbers. */
static inline vfloat constant_float(double c) { return vset((float)c); }
static inline double constant_double(double c) { return c; }
#define constant(c) NAME(constant)(c)

static inline double choose_number(int condition, double a, double b) { return condition ? a : b; }
#define choose(condition, a, b) \
    _Generic((a), vfloat: vselect, double: choose_number)(condition, a, b)

static inline double sigmoid_number(double x) {
    double e = exp(-fabs(x));
    return (x < 0 ? e : 1) / (1 + e);
}
static inline double normal_number(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }
#define lane_exp(x) _Generic((x), vfloat: vexp, double: exp)(x)
#define lane_expm1(x) _Generic((x), vfloat: vexpm1, double: expm1)(x)
#define lane_log(x) _Generic((x), vfloat: vlog, double: log)(x)
#define lane_log1p(x) _Generic((x), vfloat: vlog1p, double: log1p)(x)
#define lane_tanh(x) _Generic((x), vfloat: vtanh, double: tanh)(x)
#define lane_normal(x) _Generic((x), vfloat: vnormal, double: normal_number)(x)
#define lane_abs(x) _Generic((x), vfloat: vabs, double: fabs)(x)
#define lane_sigmoid(x) _Generic((x), vfloat: vsigmoid, double: sigmoid_number)(x)

/* Infinities become the largest number, for products in which the other factor is 0 there. */
static inline vfloat finite_float(vfloat x) { return vclamp(x, -0x1.fffffep127f, 0x1.fffffep127f); }
static inline double finite_double(double x) {
    const double largest = 0x1.fffffffffffffp1023;
    return x < -largest ? -largest : x > largest ? largest : x;
}
#define lane_finite(x) NAME(finite)(x)

/* ---- Rows of numbers ------------------------------------------------------------------------ */

/* Up to VECTOR_FLOATS numbers to and from memory; the lanes that are left over hold 1, where no
 * function is slow or raises anything. */
static UNUSED __attribute__((noinline)) vfloat load_some(const float *x, int64_t stride,
                                                         int64_t count) {
    vfloat v = vset(1);
    for (int64_t i = 0; i < count; i++) v[i] = x[i * stride];
    return v;
}
static UNUSED __attribute__((noinline)) void store_some(float *y, int64_t stride, int64_t count,
                                                        vfloat v) {
    for (int64_t i = 0; i < count; i++) y[i * stride] = v[i];
}

#define INLINE static inline __attribute__((always_inline))

INLINE void value_loop_float(vfloat (*f)(vfloat, vfloat, vfloat), int64_t n, const float *x,
                             int64_t x_stride, float *y, int64_t y_stride, double p, double q) {
    const vfloat vp = vset((float)p), vq = vset((float)q);
    const bool dense = x_stride == 1 && y_stride == 1;
    for (int64_t i = 0; i < n; i += VECTOR_FLOATS) {
        int64_t count = n - i < VECTOR_FLOATS ? n - i : VECTOR_FLOATS;
        bool whole = dense && count == VECTOR_FLOATS;
        vfloat v = whole ? vload(x + i) : load_some(x + i * x_stride, x_stride, count);
        v = f(v, vp, vq);
        if (whole) vstore(y + i, v);
        else store_some(y + i * y_stride, y_stride, count, v);
    }
}
INLINE void value_loop_double(double (*f)(double, double, double), int64_t n, const double *x,
                              int64_t x_stride, double *y, int64_t y_stride, double p, double q) {
    for (int64_t i = 0; i < n; i++) y[i * y_stride] = f(x[i * x_stride], p, q);
}

/* x or y may be NULL. */
INLINE void gradient_loop_float(vfloat (*f)(vfloat, vfloat, vfloat, vfloat, vfloat), int64_t n,
                                const float *x, const float *y, const float *dy, float *dx,
                                double p, double q) {
    const vfloat vp = vset((float)p), vq = vset((float)q);
    if (!x) x = dy;
    if (!y) y = dy;
    int64_t i = 0;
    for (; i + VECTOR_FLOATS <= n; i += VECTOR_FLOATS)
        vstore(dx + i, f(vload(x + i), vload(y + i), vload(dy + i), vp, vq));
    if (i == n) return;
    vfloat last = f(load_some(x + i, 1, n - i), load_some(y + i, 1, n - i),
                    load_some(dy + i, 1, n - i), vp, vq);
    store_some(dx + i, 1, n - i, last);
}
INLINE void gradient_loop_double(double (*f)(double, double, double, double, double), int64_t n,
                                 const double *x, const double *y, const double *dy, double *dx,
                                 double p, double q) {
    for (int64_t i = 0; i < n; i++) dx[i] = f(x ? x[i] : 0, y ? y[i] : 0, dy[i], p, q);
}

/* The loops over a function written with VALUE, and over one written with GRADIENT. */
#define VALUE_LOOP(name)                                                                         \
    static void KERNEL_PASTE(NAME(name), loop)(int64_t n, const void *x, int64_t x_stride,       \
                                               void *y, int64_t y_stride, double p, double q) {  \
        NAME(value_loop)(NAME(name), n, x, x_stride, y, y_stride, p, q);                         \
    }
#define GRADIENT_LOOP(name)                                                                      \
    static void KERNEL_PASTE(NAME(name), gradient_loop)(int64_t n, const void *x, const void *y, \
                                                        const void *dy, void *dx, double p,      \
                                                        double q) {                              \
        NAME(gradient_loop)(KERNEL_PASTE(NAME(name), gradient), n, x, y, dy, dx, p, q);          \
    }

/* One entry of a table of functions; `reads_` says what the gradient reads. */
enum { READS_NOTHING = 0, READS_X = 1, READS_Y = 2 };
#define UNARY_ROW(name_, reads_)                                                       \
    {                                                                                  \
        .name = #name_, .needs_x = (reads_) & READS_X, .needs_y = (reads_) & READS_Y,  \
        .forward = {name_##_float_loop, name_##_double_loop},                          \
        .gradient = {name_##_float_gradient_loop, name_##_double_gradient_loop},       \
    }

#endif
