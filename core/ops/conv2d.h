/* conv2d.h: what the ops built on convolution share: conv2d, conv2d_transpose, conv_bn_act. */
#ifndef RESIN_OPS_CONV2D_H
#define RESIN_OPS_CONV2D_H

#include "core/ops/conv.h"
#include "core/ops/op.h"

/* Inputs 0 to 2 of such an op are x, weights and bias. */
enum { CONV2D_X, CONV2D_WEIGHTS, CONV2D_BIAS };

/* Slots of op_call.kept: the prepared weights; an op's own begin at CONV2D_SLOTS. */
enum { CONV2D_KEPT, CONV2D_SLOTS };

/* ---- A whole convolution on tensors ---------------------------------------------------------- */

/* Checks the call's x, weights and bias, and makes y, a new tensor; compute computes it. x and
 * weights are saved in slots `slot` and `slot + 1`, each only if the other's gradient is wanted.
 * Where there is an epilogue (float32 only), the bias is part of it. `watch`, where it is not NULL,
 * may be shown y. */
resin_status conv2d_begin(op_call *call, conv_shape *shape, resin_tensor **y);
resin_status conv2d_compute(op_call *call, int slot, const conv_shape *shape,
                            const conv_epilogue *epilogue, conv_watch *watch, resin_tensor *y);
/* The gradients of x, weights and bias, as far as they are wanted, from the contiguous dy; with
 * `norm`, which conv2d_reads_norm must allow, from what that makes of dy. `watch`, where it is not
 * NULL, may be shown the whole gradient of x. */
resin_status conv2d_run_backward(op_call *call, int slot, const resin_tensor *dy,
                                 const conv_norm *norm, conv_watch *watch);
bool conv2d_reads_norm(const op_call *call);

/* ---- Its parts, on contiguous tensors of either float type ----------------------------------- */

/* x may be deferred (normalized.h) where a pass reads it. Extras (or NULL) are for float32.
 * x and weights have rank 4, bias (if given) rank 1, all of one float type. */
resin_status conv2d_check_inputs(const op_call *call);
/* bias, if given, has out_c values. */
resin_status conv2d_check_bias(const op_call *call, int64_t out_c);
resin_status conv2d_forward_pass(resin_context *context, const conv_shape *shape,
                                 const resin_tensor *x, const resin_tensor *weights,
                                 const resin_tensor *bias, const conv_extras *extras,
                                 resin_tensor *y);
resin_status conv2d_data_pass(resin_context *context, const conv_shape *shape,
                              const resin_tensor *dy, const resin_tensor *weights,
                              resin_tensor *dx);
resin_status conv2d_weights_pass(resin_context *context, const conv_shape *shape,
                                 const resin_tensor *x, const resin_tensor *dy,
                                 resin_tensor *dweights);
/* dbias = sum of dy over all pixels. */
resin_status conv2d_bias_pass(resin_context *context, const resin_tensor *dy, resin_tensor *dbias);

#endif
