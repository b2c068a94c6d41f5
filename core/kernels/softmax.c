/* softmax.c: one row of softmax, log-softmax and log-sum-exp, with the gradients. The greatest
 * element is subtracted first, so that no power overflows; sums are kept in double between blocks.
 * Written once for float32 (vectors) and float64 by including itself, as lanes.h tells. */
#include "core/kernels/lanes.h"

#ifndef real

/* WIDTH numbers make one `lanes`. */
static inline vfloat load_float(const float *x) { return vload(x); }
static inline void store_float(float *x, vfloat v) { vstore(x, v); }
static inline double load_double(const double *x) { return *x; }
static inline void store_double(double *x, double v) { *x = v; }

static inline float horizontal_maximum_float(vfloat v) {
    float greatest = v[0];
    for (int i = 1; i < VECTOR_FLOATS; i++)
        if (v[i] > greatest || v[i] != v[i]) greatest = v[i];
    return greatest;
}
static inline double horizontal_maximum_double(double v) { return v; }
static inline double horizontal_sum_float(vfloat v) {
    double sum = 0;
    for (int i = 0; i < VECTOR_FLOATS; i++) sum += (double)v[i];
    return sum;
}
static inline double horizontal_sum_double(double v) { return v; }
/* The end of a row: the lanes beyond it hold `filling`. */
static inline vfloat load_end_float(const float *x, int64_t count, double filling) {
    vfloat v = vset((float)filling);
    for (int64_t i = 0; i < count; i++) v[i] = x[i];
    return v;
}
static inline double load_end_double(const double *x, int64_t count, double filling) {
    return count > 0 ? *x : filling;
}
static inline void store_end_float(float *x, int64_t count, vfloat v) {
    store_some(x, 1, count, v);
}
static inline void store_end_double(double *x, int64_t count, double v) {
    if (count > 0) *x = v;
}

#define real float
#define lanes vfloat
#define WIDTH VECTOR_FLOATS
#include "core/kernels/softmax.c"
#undef real
#undef lanes
#undef WIDTH
#define real double
#define lanes double
#define WIDTH 1
#include "core/kernels/softmax.c"
#undef real
#undef lanes
#undef WIDTH

extern const softmax_kernels KERNEL(softmax);
const softmax_kernels KERNEL(softmax) = {
    .softmax = {softmax_float, softmax_double},
    .softmax_gradient = {softmax_gradient_float, softmax_gradient_double},
    .log_softmax = {log_softmax_float, log_softmax_double},
    .log_softmax_gradient = {log_softmax_gradient_float, log_softmax_gradient_double},
    .log_sum_exp = {log_sum_exp_float, log_sum_exp_double},
};

#else

/* Vectors that are summed in their own precision before the sum goes to a double. */
#ifndef BLOCK
#define BLOCK 64
#endif

/* The greatest element of a row, NaN if there is one. */
static real NAME(greatest)(int64_t n, const real *x) {
    lanes greatest = constant(-INFINITY);
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        lanes v = NAME(load)(x + i);
        greatest = choose(v <= greatest, greatest, choose(greatest == greatest, v, greatest));
    }
    lanes v = NAME(load_end)(x + i, n - i, -INFINITY);
    greatest = choose(v <= greatest, greatest, choose(greatest == greatest, v, greatest));
    return NAME(horizontal_maximum)(greatest);
}

/* The sum of e^(x - shift) over a row; the powers go to y unless it is NULL. */
static double NAME(sum_of_powers)(int64_t n, const real *x, real shift, real *y) {
    double sum = 0;
    int64_t i = 0;
    while (i + WIDTH <= n) {
        lanes block = constant(0);
        for (int count = 0; count < BLOCK && i + WIDTH <= n; count++, i += WIDTH) {
            lanes power = lane_exp(NAME(load)(x + i) - constant(shift));
            if (y) NAME(store)(y + i, power);
            block += power;
        }
        sum += NAME(horizontal_sum)(block);
    }
    if (i == n) return sum;
    lanes power = lane_exp(NAME(load_end)(x + i, n - i, -INFINITY) - constant(shift));
    if (y) NAME(store_end)(y + i, n - i, power);
    return sum + NAME(horizontal_sum)(power);
}

/* softmax: y = e^(x - m) / sum of e^(x - m), m the greatest x. */
static void NAME(softmax)(int64_t n, const void *x_, void *y_) {
    real *y = y_;
    double sum = NAME(sum_of_powers)(n, x_, NAME(greatest)(n, x_), y);
    const real factor = (real)(1 / sum);
    for (int64_t i = 0; i < n; i++) y[i] *= factor;
}

/* dx = y (dy - sum of y dy). */
static void NAME(softmax_gradient)(int64_t n, const void *y_, const void *dy_, void *dx_) {
    const real *y = y_, *dy = dy_;
    real *dx = dx_;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)y[i] * (double)dy[i];
    const real common = (real)sum;
    for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - common);
}

/* log_softmax: y = x - m - ln(sum of e^(x - m)). */
static void NAME(log_softmax)(int64_t n, const void *x_, void *y_) {
    const real *x = x_;
    real *y = y_;
    const real greatest = NAME(greatest)(n, x);
    const real logarithm = (real)log(NAME(sum_of_powers)(n, x, greatest, NULL));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] - greatest - logarithm;
}

/* dx = dy - e^y sum of dy. */
static void NAME(log_softmax_gradient)(int64_t n, const void *y_, const void *dy_, void *dx_) {
    const real *y = y_, *dy = dy_;
    real *dx = dx_;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)dy[i];
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        lanes power = lane_exp(NAME(load)(y + i));
        NAME(store)(dx + i, NAME(load)(dy + i) - power * constant(sum));
    }
    if (i == n) return;
    lanes power = lane_exp(NAME(load_end)(y + i, n - i, 0));
    NAME(store_end)(dx + i, n - i, NAME(load_end)(dy + i, n - i, 0) - power * constant(sum));
}

/* ln(sum of e^x); an infinite greatest element is the answer itself. */
static double NAME(log_sum_exp)(int64_t n, const void *x) {
    const real greatest = NAME(greatest)(n, x);
    if (greatest - greatest != 0) return (double)greatest;
    return (double)greatest + log(NAME(sum_of_powers)(n, x, greatest, NULL));
}

#endif
