/* grad_sum.h: sums of gradients, outside of any graph. */
#ifndef RESIN_OPS_GRAD_SUM_H
#define RESIN_OPS_GRAD_SUM_H

#include "core/tensor/tensor.h"

/* sum += addend, of one shape and dtype (float32 or float64), any strides. */
void grad_add(resin_tensor *sum, const resin_tensor *addend);

/* to = grad summed over the axes along which `to` (contiguous, same dtype) is broadcast to grad's
 * shape. */
resin_status grad_sum_to(const resin_tensor *grad, resin_tensor *to);

#endif
