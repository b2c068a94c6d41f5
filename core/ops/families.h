/* families.h: the forward and backward functions of every family of ops, for the table. */
#ifndef RESIN_OPS_FAMILIES_H
#define RESIN_OPS_FAMILIES_H

#include "core/ops/op.h"

/* pointwise.c */
resin_status unary_forward(op_call *call);
resin_status unary_backward(op_call *call);
resin_status binary_forward(op_call *call);
resin_status binary_backward(op_call *call);

#endif
