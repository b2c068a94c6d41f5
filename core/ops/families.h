/* families.h: the forward and backward functions of every family of ops, for the table. */
#ifndef RESIN_OPS_FAMILIES_H
#define RESIN_OPS_FAMILIES_H

#include "core/ops/op.h"

/* pointwise.c */
resin_status unary_forward(op_call *call);
resin_status unary_backward(op_call *call);
resin_status binary_forward(op_call *call);
resin_status binary_backward(op_call *call);
resin_status where_forward(op_call *call);
resin_status where_backward(op_call *call);

/* reduce.c */
resin_status sum_forward(op_call *call);
resin_status sum_backward(op_call *call);
resin_status mean_forward(op_call *call);
resin_status mean_backward(op_call *call);
resin_status variance_forward(op_call *call);
resin_status variance_backward(op_call *call);
resin_status norm_forward(op_call *call);
resin_status norm_backward(op_call *call);
resin_status prod_forward(op_call *call);
resin_status prod_backward(op_call *call);
resin_status max_forward(op_call *call);
resin_status min_forward(op_call *call);
resin_status extreme_backward(op_call *call);
resin_status argmax_forward(op_call *call);
resin_status argmin_forward(op_call *call);

/* softmax.c */
resin_status softmax_forward(op_call *call);
resin_status softmax_backward(op_call *call);
resin_status log_softmax_forward(op_call *call);
resin_status log_softmax_backward(op_call *call);
resin_status logsumexp_forward(op_call *call);
resin_status logsumexp_backward(op_call *call);

/* matmul.c */
resin_status matmul_forward(op_call *call);
resin_status matmul_backward(op_call *call);
resin_status linear_forward(op_call *call);
resin_status linear_backward(op_call *call);

/* view.c */
resin_status reshape_forward(op_call *call);
resin_status reshape_backward(op_call *call);
resin_status transpose_forward(op_call *call);
resin_status transpose_backward(op_call *call);
resin_status swap_axes_forward(op_call *call);
resin_status swap_axes_backward(op_call *call);
resin_status slice_forward(op_call *call);
resin_status slice_backward(op_call *call);
resin_status select_forward(op_call *call);
resin_status select_backward(op_call *call);
resin_status squeeze_forward(op_call *call);
resin_status squeeze_backward(op_call *call);
resin_status expand_dims_forward(op_call *call);
resin_status expand_dims_backward(op_call *call);
resin_status broadcast_to_forward(op_call *call);
resin_status broadcast_to_backward(op_call *call);
resin_status contiguous_forward(op_call *call);
resin_status contiguous_backward(op_call *call);
resin_status cast_forward(op_call *call);
resin_status cast_backward(op_call *call);
resin_status flatten_forward(op_call *call);
resin_status flip_forward(op_call *call);
resin_status flip_backward(op_call *call);

/* join.c */
resin_status concatenate_forward(op_call *call);
resin_status concatenate_backward(op_call *call);
resin_status stack_forward(op_call *call);
resin_status stack_backward(op_call *call);
resin_status pad_forward(op_call *call);
resin_status pad_backward(op_call *call);
resin_status tile_forward(op_call *call);
resin_status tile_backward(op_call *call);

/* index.c */
resin_status gather_forward(op_call *call);
resin_status gather_backward(op_call *call);
resin_status take_forward(op_call *call);
resin_status take_backward(op_call *call);
resin_status one_hot_forward(op_call *call);

/* dropout.c */
resin_status dropout_forward(op_call *call);
resin_status dropout_backward(op_call *call);

/* conv2d.c, conv2d_transpose.c */
resin_status conv2d_forward(op_call *call);
resin_status conv2d_backward(op_call *call);
resin_status conv2d_transpose_forward(op_call *call);
resin_status conv2d_transpose_backward(op_call *call);

/* pool.c */
resin_status max_pool2d_forward(op_call *call);
resin_status max_pool2d_backward(op_call *call);
resin_status avg_pool2d_forward(op_call *call);
resin_status avg_pool2d_backward(op_call *call);
resin_status global_avg_pool_forward(op_call *call);
resin_status global_avg_pool_backward(op_call *call);
resin_status global_max_pool_forward(op_call *call);
resin_status global_max_pool_backward(op_call *call);

/* batch_norm.c, conv_bn_act.c */
resin_status batch_norm_forward(op_call *call);
resin_status batch_norm_backward(op_call *call);
resin_status conv_bn_act_forward(op_call *call);
resin_status conv_bn_act_backward(op_call *call);

/* losses.c, label_losses.c */
resin_status pair_loss_forward(op_call *call);
resin_status pair_loss_backward(op_call *call);
resin_status cross_entropy_forward(op_call *call);
resin_status cross_entropy_backward(op_call *call);
resin_status nll_loss_forward(op_call *call);
resin_status nll_loss_backward(op_call *call);

#endif
