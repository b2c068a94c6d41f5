/* pool.c: pooling's loops (pool_kernels.h), for float and double. */
#include "core/kernels/pool_kernels.h"

#define REAL_BITS 32
#include "core/kernels/pool_loops.h"
#undef REAL_BITS
#define REAL_BITS 64
#include "core/kernels/pool_loops.h"

extern const pool_kernels KERNEL(pool);

const pool_kernels KERNEL(pool) = {
    .of = {
        {max_window_float, sum_window_float, max_gradient_float, add_scaled_float},
        {max_window_double, sum_window_double, max_gradient_double, add_scaled_double},
    },
};
