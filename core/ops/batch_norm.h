/* batch_norm.h: batch normalization, addition of a shortcut and activation in one pass: what
 * batch_norm and conv_bn_act share.
 *
 *   y = activation((x - mean) / sqrt(variance + epsilon) * gamma + beta + shortcut)
 *
 * In training, mean and variance are the batch's. Its sums, in both directions, are taken while a
 * convolution writes what is summed, where it can be watched, else in a pass of their own. */
#ifndef RESIN_OPS_BATCH_NORM_H
#define RESIN_OPS_BATCH_NORM_H

#include "core/kernels/conv_kernels.h"
#include "core/kernels/norm_kernels.h"
#include "core/ops/conv.h"
#include "core/ops/op.h"

/* The last of its inputs, counted from gamma. */
enum { BATCH_NORM_SHORTCUT = 4 };

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
/* A pass over the rows, in pieces. */
typedef struct norm_pass {
    const batch_norm *norm;
    const char *x, *y, *dy, *shortcut; /* NULL where there is none */
    char *out, *g;
    const void *mean, *a, *b, *c; /* by channel, of the element type */
    const void *scale, *shift;
    double *sums;                 /* by piece: two rows of channels, behind them one of zeros */
    double *counts;               /* by piece: rows */
    char *scratch;                /* by worker: three rows of channels, of the element type */
    int64_t pieces;
} norm_pass;

/* Takes the sums while a convolution writes; pieces = 0 where it did not. The block is the owner's. */
typedef struct norm_watch {
    conv_watch watch;
    batch_norm norm;
    norm_pass pass;
    void *block;
} norm_watch;
/* Of the statistics of what the call's convolution writes. */
norm_watch batch_norm_watch_statistics(op_call *call);
/* Of the sums over the gradient of the output of `before`, an op with these inputs; false if it has
 * none. Finish leaves them, if they were taken, in before->found. */
bool batch_norm_watch_gradient(op_call *before, int first, norm_watch *watch);
void batch_norm_finish_gradient(op_call *before, norm_watch *watch);
/* The same if `before` is a conv_bn_act (conv_bn_act.c); else false. */
bool conv_bn_act_watch_gradient(op_call *before, norm_watch *watch);

/* Normalizes the contiguous x into call->out: a new tensor, x itself, or one whose elements are not
 * computed yet (normalized.h; only for float32 and what is defined there, else as new).
 * Saves what backward needs. In training the running mean and variance are updated; with a watch
 * that has seen x, from its statistics. */
typedef enum norm_output { NORM_NEW, NORM_IN_PLACE, NORM_DEFERRED } norm_output;
resin_status batch_norm_run(const batch_norm *norm, resin_tensor *x, norm_output output,
                            norm_watch *watch);
/* Inference behind a convolution in float32: the running statistics, with the convolution's bias
 * (the number of that input, which may be left out), as its epilogue; `block`, or NULL where a plan
 * keeps it in slot `slot`, is given back when it has been used. */
resin_status batch_norm_fold(const batch_norm *norm, int bias, int slot, conv_epilogue *epilogue,
                             void **block);
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
