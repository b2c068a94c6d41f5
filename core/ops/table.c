/* table.c: the table of ops. A row gives an op its C function (resin_apply), its Lua function and
 * method, its gradient, its line in the documentation (`lua5.4 scripts/ops.lua`) and its gradient
 * check. The columns are described in op.h. */
#include "core/ops/families.h"
#include "core/ops/op.h"

const op_row op_table[] = {
    /* ---- Arithmetic and comparisons (pointwise.c, kernels/arithmetic.c) ---- */

    /* ---- Elementary functions (pointwise.c, kernels/elementary.c) ---- */

    /* ---- Activations (pointwise.c, kernels/activations.c; softmax.c) ---- */

    /* ---- Reductions (reduce.c) ---- */

    /* ---- Products (matmul.c) ---- */

    /* ---- Layout: views, joining, indexing (view.c, join.c, index.c) ---- */

    /* ---- Convolution and pooling (conv2d.c, pool.c) ---- */

    /* ---- Normalization and dropout (batch_norm.c, conv_bn_act.c, dropout.c) ---- */

    /* ---- Losses (losses.c) ---- */
};

const int op_table_count = sizeof op_table / sizeof op_table[0];
