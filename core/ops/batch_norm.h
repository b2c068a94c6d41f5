/* batch_norm.h: batch normalization, addition of a shortcut and activation in one pass: what
 * batch_norm and conv_bn_act share.
 *
 *   y = activation((x - mean) / sqrt(variance + epsilon) * gamma + beta + shortcut)
 *
 * In training, mean and variance are the batch's. They come from batch_norm_statistics, so that a
 * convolution that gathers them while it writes can put its own in that place. */
#ifndef RESIN_OPS_BATCH_NORM_H
#define RESIN_OPS_BATCH_NORM_H

#include "core/kernels/conv_kernels.h"
#include "core/kernels/norm_kernels.h"
#include "core/ops/op.h"

typedef struct batch_norm {
    op_call *call;
    int first; /* input number of gamma; beta, mean, variance and shortcut follow */
    resin_dtype dtype;
    int64_t rows, channels;
    bool training;
    norm_activation activation;
    const norm_loops *loops;
} batch_norm;

/* Slots of op_call.saved that it uses; an op's own begin at BATCH_NORM_SLOTS. */
enum { BATCH_NORM_X, BATCH_NORM_STATISTICS, BATCH_NORM_Y, BATCH_NORM_SLOTS };

/* Reads the attributes for an x of that shape. */
resin_status batch_norm_start(op_call *call, int first, resin_dtype dtype, int rank,
                              const int64_t *shape, batch_norm *norm);
/* Checks the inputs (in forward) against the shape of x. */
resin_status batch_norm_check(const batch_norm *norm, int rank, const int64_t *shape);
/* Normalizes the contiguous x into call->out: a new tensor, x itself, or one whose elements are not
 * computed yet (normalized.h; only for float32 with relu and without a shortcut, else as new).
 * Saves what backward needs. In training the running mean and variance are updated. */
typedef enum norm_output { NORM_NEW, NORM_IN_PLACE, NORM_DEFERRED } norm_output;
resin_status batch_norm_run(const batch_norm *norm, resin_tensor *x, norm_output output);
/* Backward: begin gives the gradients of gamma, beta and shortcut and leaves what that of x is made
 * of; write makes it, or a convolution does while it reads dy (core/kernels/conv_kernels.h); end
 * follows in any case, after failure, too. */
typedef struct batch_norm_return {
    resin_tensor *dy; /* contiguous */
    conv_norm norm;   /* its arrays are of the element type */
    bool by_output;   /* the gate still needs the output: only `write` can do that */
    void *block;
} batch_norm_return;
resin_status batch_norm_begin_backward(const batch_norm *norm, batch_norm_return *backward);
void batch_norm_write_gradient(const batch_norm *norm, const batch_norm_return *backward,
                               resin_tensor *dx);
void batch_norm_end_backward(const batch_norm *norm, batch_norm_return *backward);

#endif
