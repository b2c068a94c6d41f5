/* norm.c: batch normalization's loops (norm_kernels.h), for float and double. */
#include "core/kernels/norm_kernels.h"

#define REAL_BITS 32
#include "core/kernels/norm_loops.h"
#undef REAL_BITS
#define REAL_BITS 64
#include "core/kernels/norm_loops.h"

extern const norm_kernels KERNEL(norm);

const norm_kernels KERNEL(norm) = {
    .of = {
        {block_statistics_float, merge_statistics_float, apply_float, gradient_sums_float,
         add_sums_float, gradient_float, channel_sums_float},
        {block_statistics_double, merge_statistics_double, apply_double, gradient_sums_double,
         add_sums_double, gradient_double, channel_sums_double},
    },
};
