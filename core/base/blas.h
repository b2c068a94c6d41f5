/* blas.h: OpenBLAS, loaded at first need and tamed (single-threaded on blocks cut by shape, the
 * host's settings left alone). Without it the products are plain loops. */
#ifndef RESIN_BASE_BLAS_H
#define RESIN_BASE_BLAS_H

#include "core/base/context.h"

/* c (m x n) = a (m x k) * b (k x n), or added to c; row-major with leading dimensions. Transposed
 * operands are stored as (k x m) and (n x k). */
resin_status blas_dgemm(resin_context *context, bool transpose_a, bool transpose_b, int64_t m,
                        int64_t n, int64_t k, const double *a, int64_t lda, const double *b,
                        int64_t ldb, double *c, int64_t ldc, bool accumulate);
/* The same in float32, to measure the engine's own product against. */
resin_status blas_sgemm(resin_context *context, bool transpose_a, bool transpose_b, int64_t m,
                        int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                        int64_t ldb, float *c, int64_t ldc, bool accumulate);

/* "OpenBLAS 0.3.21 ... (path)", or "none". */
const char *blas_description(void);

#endif
