/* real.h: the element type of a loop file that is written once and compiled for float and double.
 *
 * A kernel file defines REAL_BITS as 32, includes its loops, and does so again with 64. Inside,
 * `real` is the element type, `vreal` a vector of VECTOR_REALS of them, `vmask` what comparing two
 * vectors gives, and REAL_NAME(f) is f_float or f_double. No include guard, for that reason. */
#include "core/kernels/kernel.h"

#undef real
#undef vreal
#undef vreal_unaligned
#undef vmask
#undef VECTOR_REALS
#undef REAL_NAME
#undef real_sqrt

#if REAL_BITS == 32
#define real float
#define vreal vfloat
#define vreal_unaligned vfloat_unaligned
#define vmask vmask_float
#define VECTOR_REALS VECTOR_FLOATS
#define REAL_NAME(name) name##_float
#define real_sqrt sqrtf
#else
#define real double
#define vreal vdouble
#define vreal_unaligned vdouble_unaligned
#define vmask vmask_double
#define VECTOR_REALS (VECTOR_FLOATS / 2)
#define REAL_NAME(name) name##_double
#define real_sqrt sqrt
#endif

#ifndef RESIN_KERNELS_REAL_H
#define RESIN_KERNELS_REAL_H

#include <math.h>


typedef double vdouble __attribute__((vector_size(VECTOR_FLOATS * 4)));
typedef double vdouble_unaligned
    __attribute__((vector_size(VECTOR_FLOATS * 4), aligned(8), may_alias));
typedef int32_t vmask_float __attribute__((vector_size(VECTOR_FLOATS * 4)));
typedef int64_t vmask_double __attribute__((vector_size(VECTOR_FLOATS * 4)));

#endif

static ALWAYS_INLINE vreal REAL_NAME(real_load)(const real *p) {
    return *(const vreal_unaligned *)p;
}
static ALWAYS_INLINE void REAL_NAME(real_store)(real *p, vreal v) { *(vreal_unaligned *)p = v; }
/* b where the mask is set, else a. */
static ALWAYS_INLINE vreal REAL_NAME(real_select)(vmask mask, vreal a, vreal b) {
    return (vreal)(((vmask)a & ~mask) | ((vmask)b & mask));
}
