/* pointwise.h: elementwise functions of one and two arguments: value and derivative side by side
 * (activations.c, elementary.c, arithmetic.c), as loops over contiguous or strided rows.
 *
 * A kernel is found by its op's name; parameters p and q are the op's first two
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
    /* Which operands the gradients read, so what forward must save; the others are NULL there. */
    bool gradient_a_reads_a, gradient_a_reads_b, gradient_b_reads_a, gradient_b_reads_b;
    binary_loop forward[RESIN_DTYPE_COUNT];
    /* d f / d a times dc, and d f / d b times dc: from a, b (broadcast by strides) and dc; da and
     * db are contiguous. NULL: the gradient is dc itself (or there is none, for comparisons). */
    void (*gradient_a[RESIN_DTYPE_COUNT])(int64_t n, const void *a, int64_t a_stride, const void *b,
                                          int64_t b_stride, const void *dc, int64_t dc_stride,
                                          void *da);
    void (*gradient_b[RESIN_DTYPE_COUNT])(int64_t n, const void *a, int64_t a_stride, const void *b,
                                          int64_t b_stride, const void *dc, int64_t dc_stride,
                                          void *db);
} binary_kernel;

/* c[i] = condition[i] ? a[i] : b[i]; the condition is uint8. */
typedef void (*choose_loop)(int64_t n, const void *condition, int64_t condition_stride,
                            const void *a, int64_t a_stride, const void *b, int64_t b_stride,
                            void *c, int64_t c_stride);

/* Folds (reductions.c). Accumulators are double for the float types and int64_t for the integers,
 * to which the elements are widened first: a float32 sum is rounded once, at the end. */
enum { REDUCTION_PARTS = 16 };
typedef struct reduction_kernel {
    const char *name;
    double first_float; /* what an accumulator starts from */
    int64_t first_integer;
    /* accumulator[j] = fold(accumulator[j], x[j]). `center` is what the sum of squared deviations
     * subtracts, by column; others do not read it. */
    void (*columns_float)(int64_t n, const double *x, double *accumulator, const double *center);
    void (*columns_integer)(int64_t n, const int64_t *x, int64_t *accumulator);
    /* Folds a run into interleaved parts: x[i] into part[i % REDUCTION_PARTS]. */
    void (*run_float)(int64_t n, const double *x, double *part, double center);
    void (*run_integer)(int64_t n, const int64_t *x, int64_t *part);
    /* accumulator[j] = accumulator[j] combined with part[j]. */
    void (*combine_float)(int64_t n, const double *part, double *accumulator);
    void (*combine_integer)(int64_t n, const int64_t *part, int64_t *accumulator);
} reduction_kernel;

/* Folds n elements of any dtype and stride: into one accumulator, in an order that depends on n
 * only, or into one accumulator each. `center` may be NULL. */
typedef void (*reduce_loop)(const reduction_kernel *kernel, resin_dtype dtype, int64_t n,
                            const void *x, int64_t stride, void *accumulator,
                            const double *center);

/* Where the extreme value of n elements lies: the first of equals, or the first NaN. */
typedef int64_t (*position_loop)(int64_t n, const void *x, int64_t stride);

/* One row of softmax and its relatives; [0] is float32, [1] float64; all contiguous. */
typedef struct softmax_kernels {
    void (*softmax[2])(int64_t n, const void *x, void *y);
    void (*softmax_gradient[2])(int64_t n, const void *y, const void *dy, void *dx);
    void (*log_softmax[2])(int64_t n, const void *x, void *y);
    void (*log_softmax_gradient[2])(int64_t n, const void *y, const void *dy, void *dx);
    double (*log_sum_exp[2])(int64_t n, const void *x);
} softmax_kernels;

/* The tables end with a row whose name is NULL; arrays are indexed by dtype. */
typedef struct pointwise_kernels {
    const unary_kernel *activations, *elementary;
    const binary_kernel *arithmetic;
    const choose_loop *choose;
    const reduction_kernel *reductions;
    reduce_loop reduce_run, reduce_columns;
    const position_loop *largest, *smallest;
    const softmax_kernels *softmax;
    void (*add_into)(int64_t n, const float *x, float *sum); /* sum += x */
} pointwise_kernels;

#endif
