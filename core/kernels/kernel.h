/* kernel.h: included by every kernel file. A kernel file is compiled once per instruction set with
 * -DKERNEL_ISA=v4 (v3, v2, generic); KERNEL(name) gives its functions a name of that set, and the
 * table of kernels (kernels.h) is filled with them. Kernels are inner loops on raw pointers: no
 * tensors, no allocation, no failure, no threads.
 *
 * `vfloat` is a vector of VECTOR_FLOATS floats in the compiler's vector extension: 16 for v4, 8 for
 * v3, 4 otherwise (SSE and NEON). */
#ifndef RESIN_KERNELS_KERNEL_H
#define RESIN_KERNELS_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define KERNEL_PASTE_(a, b) a##_##b
#define KERNEL_PASTE(a, b) KERNEL_PASTE_(a, b)
#define KERNEL(name) KERNEL_PASTE(KERNEL_PASTE(resin_kernel, name), KERNEL_ISA)

#if defined(__AVX512F__)
#define VECTOR_FLOATS 16
#elif defined(__AVX2__)
#define VECTOR_FLOATS 8
#else
#define VECTOR_FLOATS 4
#endif

/* Before a loop of constant length: unrolls it whole, so that the arrays it indexes live in
 * registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 36")
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Floats ahead of which a loop over a large array asks for what it will read: the hardware alone
 * keeps too few lines under way (measured: the gradient of a batch norm takes half the time). */
enum { PREFETCH_AHEAD = 512 };
/* The same in whole rows, for a loop that reads a part of each. */
static inline int64_t floats_ahead(int64_t row) {
    return row > 0 ? (PREFETCH_AHEAD / row + 1) * row : PREFETCH_AHEAD;
}

typedef float vfloat __attribute__((vector_size(VECTOR_FLOATS * 4)));
/* The same at any address a float may have. */
typedef float vfloat_unaligned __attribute__((vector_size(VECTOR_FLOATS * 4), aligned(4), may_alias));

/* As wide: what comparing two gives, all bits of a lane or none. */
typedef int32_t vint __attribute__((vector_size(VECTOR_FLOATS * 4)));

static inline vfloat vload(const float *p) { return *(const vfloat_unaligned *)p; }
static inline void vstore(float *p, vfloat v) { *(vfloat_unaligned *)p = v; }
static inline vfloat vset(float x) { return x - (vfloat){0}; }
/* 0 where the mask says so; a comparison with NaN says no. */
static inline vfloat zero_where(vint mask, vfloat x) { return (vfloat)((vint)x & ~mask); }
/* The larger; NaN is not below the floor and stays. */
static inline vfloat not_below(vfloat floor, vfloat x) {
#if defined(__AVX512F__)
    return (vfloat)_mm512_max_ps((__m512)floor, (__m512)x);
#else
    vint below = x < floor;
    return (vfloat)(((vint)floor & below) | ((vint)x & ~below));
#endif
}

#endif
