/* optimizer.c: the optimizers' loops (optimizer_kernels.h), for float and double. */
#include "core/kernels/optimizer_kernels.h"

#define REAL_BITS 32
#include "core/kernels/optimizer_loops.h"
#undef REAL_BITS
#define REAL_BITS 64
#include "core/kernels/optimizer_loops.h"

extern const optimizer_kernels KERNEL(optimizer);

const optimizer_kernels KERNEL(optimizer) = {
    .of = {
        {sgd_float, adam_float, rmsprop_float, sum_squares_float, finite_float, scale_float},
        {sgd_double, adam_double, rmsprop_double, sum_squares_double, finite_double,
         scale_double},
    },
};
