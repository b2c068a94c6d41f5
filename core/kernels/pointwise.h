/* pointwise.h: elementwise functions of one and two arguments: value and derivative side by side
 * (activations.c, elementary.c, arithmetic.c), as loops over contiguous or strided rows.
 *
 * A kernel is found by its op's name (pointwise_find); parameters p and q are the op's first two
 * number attributes. dtypes: float32 and float64 for all, the integer types for arithmetic. */
#ifndef RESIN_KERNELS_POINTWISE_H
#define RESIN_KERNELS_POINTWISE_H

#include "core/resin.h"

/* y[i] = f(x[i]) over n elements; strides in elements. */
typedef void (*unary_loop)(int64_t n, const void *x, int64_t x_stride, void *y, int64_t y_stride,
                           double p, double q);
/* dx[i] = dy[i] * f'(x[i]), from x and y = f(x), all contiguous (those not needed are NULL). */
typedef void (*unary_gradient_loop)(int64_t n, const void *x, const void *y, const void *dy,
                                    void *dx, double p, double q);
/* c[i] = f(a[i], b[i]); comparisons write uint8. */
typedef void (*binary_loop)(int64_t n, const void *a, int64_t a_stride, const void *b,
                            int64_t b_stride, void *c, int64_t c_stride);

typedef struct unary_kernel {
    const char *name;
    bool needs_x, needs_y; /* which of them the gradient reads, so what forward must save */
    unary_loop forward[RESIN_DTYPE_COUNT]; /* by dtype; NULL where there is none */
    unary_gradient_loop gradient[RESIN_DTYPE_COUNT];
} unary_kernel;

typedef struct binary_kernel {
    const char *name;
    bool compares; /* the result is uint8 */
    binary_loop forward[RESIN_DTYPE_COUNT];
    /* d f / d a times dc, and d f / d b times dc: from a, b (broadcast by strides) and dc. */
    void (*gradient_a[RESIN_DTYPE_COUNT])(int64_t n, const void *a, int64_t a_stride, const void *b,
                                          int64_t b_stride, const void *dc, int64_t dc_stride,
                                          void *da);
    void (*gradient_b[RESIN_DTYPE_COUNT])(int64_t n, const void *a, int64_t a_stride, const void *b,
                                          int64_t b_stride, const void *dc, int64_t dc_stride,
                                          void *db);
} binary_kernel;

typedef struct pointwise_kernels {
    const unary_kernel *activations; int activation_count;
    const unary_kernel *elementary; int elementary_count;
    const binary_kernel *arithmetic; int arithmetic_count;
    void (*add_into)(int64_t n, const float *x, float *sum); /* sum += x */
} pointwise_kernels;

#endif
