/* product_call.h: the product with given kernels: for tests of each instruction set. */
#ifndef RESIN_OPS_PRODUCT_CALL_H
#define RESIN_OPS_PRODUCT_CALL_H

#include "core/kernels/conv_kernels.h"
#include "core/base/context.h"

typedef struct product_call {
    const conv_kernels *kernels;
    int64_t batch;
    bool transpose_a, transpose_b;
    int64_t m, n, k;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
    int64_t step_a, step_b, step_c; /* from one matrix of the batch to the next */
    bool accumulate;
} product_call;

/* Whether product_few.c does a product, and that. */
bool product_few_fits(const product_call *call);
resin_status product_few_run(resin_context *context, const product_call *call);

resin_status product_run(resin_context *context, const product_call *call);

#endif
