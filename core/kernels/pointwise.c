/* pointwise.c: the elementwise functions, folds and softmax of one instruction set, gathered for
 * the table of kernels. */
#include "core/kernels/kernel.h"
#include "core/kernels/pointwise.h"

extern const unary_kernel KERNEL(activations)[];
extern const unary_kernel KERNEL(elementary)[];
extern const binary_kernel KERNEL(arithmetic)[];
extern const choose_loop KERNEL(choose)[RESIN_DTYPE_COUNT];
extern const reduction_kernel KERNEL(reductions)[];
extern const position_loop KERNEL(largest)[RESIN_DTYPE_COUNT];
extern const position_loop KERNEL(smallest)[RESIN_DTYPE_COUNT];
extern const softmax_kernels KERNEL(softmax);
extern const pointwise_kernels KERNEL(pointwise);

void KERNEL(reduce_run)(const reduction_kernel *kernel, resin_dtype dtype, int64_t n,
                        const void *x, int64_t stride, void *accumulator, const double *center);
void KERNEL(reduce_columns)(const reduction_kernel *kernel, resin_dtype dtype, int64_t n,
                            const void *x, int64_t stride, void *accumulator,
                            const double *center);

static void add_into(int64_t n, const float *x, float *sum) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) sum[i] += x[i];
}

const pointwise_kernels KERNEL(pointwise) = {
    .activations = KERNEL(activations),
    .elementary = KERNEL(elementary),
    .arithmetic = KERNEL(arithmetic),
    .choose = KERNEL(choose),
    .reductions = KERNEL(reductions),
    .reduce_run = KERNEL(reduce_run),
    .reduce_columns = KERNEL(reduce_columns),
    .largest = KERNEL(largest),
    .smallest = KERNEL(smallest),
    .softmax = &KERNEL(softmax),
    .add_into = add_into,
};
