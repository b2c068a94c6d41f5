/* product.h: the matrix product on raw float32 arrays. */
#ifndef RESIN_OPS_PRODUCT_H
#define RESIN_OPS_PRODUCT_H

#include "core/base/context.h"

/* c (m x n) = or += op(a) (m x k) op(b) (k x n), row-major; op transposes where asked to. Rows of
 * the arrays as they lie in memory are lda, ldb, ldc floats apart. */
resin_status product_f32(resin_context *context, bool transpose_a, bool transpose_b, int64_t m,
                         int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                         int64_t ldb, float *c, int64_t ldc, bool accumulate);

/* The same for `batch` matrices, each array's next one a step further; a step of 0 repeats it (not
 * for c). */
resin_status product_batched_f32(resin_context *context, int64_t batch, bool transpose_a,
                                 bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                                 int64_t lda, int64_t step_a, const float *b, int64_t ldb,
                                 int64_t step_b, float *c, int64_t ldc, int64_t step_c,
                                 bool accumulate);

#endif
