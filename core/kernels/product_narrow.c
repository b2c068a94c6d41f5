/* product_narrow.c: products of matrices one vector wide and deep, of which Winograd's method on few
 * channels is made: too short for the loop of product.c, and all of b, or of c, fits the registers
 * that are left beside it. Only where there are 32 registers. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

#if VECTOR_FLOATS == 16

enum { ROWS = 8 }; /* as many sums as multiply-adds are under way */

static ALWAYS_INLINE void multiply_rows(const int rows, const float *a,
                                        const vfloat b[VECTOR_FLOATS], float *c) {
    vfloat sum[ROWS];
    UNROLL
    for (int k = 0; k < VECTOR_FLOATS; k++) {
        UNROLL
        for (int i = 0; i < rows; i++) {
            vfloat element = vset(a[i * VECTOR_FLOATS + k]);
            sum[i] = k ? sum[i] + element * b[k] : element * b[k];
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) vstore(c + i * VECTOR_FLOATS, sum[i]);
}

void KERNEL(product_narrow)(int64_t rows, const float *a, const float *b, float *c) {
    vfloat b_rows[VECTOR_FLOATS];
    UNROLL
    for (int k = 0; k < VECTOR_FLOATS; k++) b_rows[k] = vload(b + k * VECTOR_FLOATS);
    for (; rows >= ROWS; rows -= ROWS) {
        multiply_rows(ROWS, a, b_rows, c);
        a += ROWS * VECTOR_FLOATS;
        c += ROWS * VECTOR_FLOATS;
    }
    for (; rows > 0; rows--) {
        multiply_rows(1, a, b_rows, c);
        a += VECTOR_FLOATS;
        c += VECTOR_FLOATS;
    }
}

void KERNEL(product_narrow_columns)(int64_t depth, const float *a, const float *b, float *c,
                                    bool accumulate) {
    vfloat sum[VECTOR_FLOATS];
    UNROLL
    for (int i = 0; i < VECTOR_FLOATS; i++)
        sum[i] = accumulate ? vload(c + i * VECTOR_FLOATS) : (vfloat){0};
    for (int64_t k = 0; k < depth; k++) {
        vfloat row = vload(b);
        UNROLL
        for (int i = 0; i < VECTOR_FLOATS; i++) sum[i] += vset(a[i]) * row;
        a += VECTOR_FLOATS;
        b += VECTOR_FLOATS;
    }
    UNROLL
    for (int i = 0; i < VECTOR_FLOATS; i++) vstore(c + i * VECTOR_FLOATS, sum[i]);
}

#endif
