/* pool.c: pooling's loops (pool_kernels.h), for float and double. */
#include "core/kernels/pool_kernels.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define REAL_BITS 32
#include "core/kernels/pool_loops.h"
#undef REAL_BITS
#define REAL_BITS 64
#include "core/kernels/pool_loops.h"

extern const pool_kernels KERNEL(pool);

const pool_kernels KERNEL(pool) = {
    .of = {
        {max_in_row_float, max_of_three_float, max_gradient_float, sum_window_float,
         add_scaled_float},
        {max_in_row_double, max_of_three_double, max_gradient_double, sum_window_double,
         add_scaled_double},
    },
};
