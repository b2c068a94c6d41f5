/* loss.h: what the losses share: reading numbers of either float type, and the reduction. */
#ifndef RESIN_OPS_LOSS_H
#define RESIN_OPS_LOSS_H

#include "core/ops/op.h"

typedef enum loss_reduction { LOSS_MEAN, LOSS_SUM, LOSS_NONE } loss_reduction;

resin_status loss_read_reduction(const op_call *call, loss_reduction *reduction);

/* Makes call->out from one loss a row (or element): their mean or sum, a scalar, or all of them in
 * the given shape. The mean divides by `count`. Summed in order. */
resin_status loss_reduce(op_call *call, loss_reduction reduction, resin_dtype dtype,
                         const double *losses, double count, int rank, const int64_t *shape);

/* What multiplies the gradient of row `row`: dy is the contiguous gradient of call->out. */
static inline double loss_get(const resin_tensor *t, int64_t i) {
    return t->dtype == RESIN_FLOAT64 ? ((const double *)tensor_data(t))[i]
                                     : (double)((const float *)tensor_data(t))[i];
}
static inline void loss_set(resin_tensor *t, int64_t i, double value) {
    if (t->dtype == RESIN_FLOAT64) ((double *)tensor_data(t))[i] = value;
    else ((float *)tensor_data(t))[i] = (float)value;
}
static inline double loss_weight(loss_reduction reduction, const resin_tensor *dy, double count,
                                 int64_t row) {
    double weight = loss_get(dy, reduction == LOSS_NONE ? row : 0);
    return reduction == LOSS_MEAN ? weight / count : weight;
}

#endif
