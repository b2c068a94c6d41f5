/* conv_call.h: what the methods of convolution share: one call's arguments, the list of methods'
 * functions, scratch. */
#ifndef RESIN_OPS_CONV_CALL_H
#define RESIN_OPS_CONV_CALL_H

#include "core/kernels/conv_kernels.h"
#include "core/ops/conv.h"

/* One pass of one convolution. `x`, `dy`, `weights` and `bias` are set where the pass reads them;
 * `result` is y, dx or dweights. */
typedef struct conv_call {
    const conv_kernels *kernels;
    conv_shape shape;
    conv_pass pass;
    conv_image x;
    const float *dy, *weights, *bias;
    const float *prepared; /* forward: the weights as conv_call_prepare has left them, or NULL */
    const conv_norm *norm; /* dy comes through a batch normalization (only where the method reads
                              gradients through one) */
    const conv_epilogue *epilogue; /* of a forward pass, or NULL */
    int64_t dy_step; /* floats from a pixel of dy to the next, where they are more than its channels
                        (only where pixels are rows, conv_rows.h); else 0 */
    float *result;
    conv_watch *watch;     /* of the result, forward or of backward-data; or NULL */
    bool add;              /* the result is added to what is there (only where the method adds) */
} conv_call;

/* Runs one call by one method that can do it: what conv_forward and its sisters do with the kernels
 * of this processor, and tests with those of each instruction set. */
resin_status conv_run(resin_context *context, const conv_call *call, conv_method method);

/* Weights arranged as a method reads them in a forward pass, for calls to come of the same shape:
 * how many floats (0: the method reads them as they lie), and arranging call->weights. */
int64_t conv_call_prepared(const conv_call *call, conv_method method);
void conv_call_prepare(resin_context *context, const conv_call *call, conv_method method,
                       float *to);

/* Whether a method does nothing but the sums, without transforms that enlarge rounding errors. */
bool conv_method_is_exact(conv_method method);

/* Whether a method can do a pass of a shape at all. */
bool conv_method_fits(const conv_shape *shape, conv_pass pass, conv_method method);

/* Whether a method normalizes x while it reads; for the others that is done before. */
bool conv_method_normalizes(conv_method method);

/* Whether a method reads dy through a batch normalization. */
bool conv_method_reads_norm(conv_method method);
/* Whether a method applies the epilogue to what it has just written; for the others that is done
 * behind. */
bool conv_method_finishes(conv_method method);
/* The call's epilogue for the pixels and channels of the result from y, a place of `channel`, on;
 * false if there is none. */
bool conv_epilogue_at(const conv_call *call, const float *y, int64_t channel, conv_epilogue *here);
/* Applies it, if there is one, to pixels side by side and some of their channels. */
void conv_finish(const conv_call *call, float *y, int64_t pixels, int64_t channel,
                 int64_t channels);
/* Whether a method adds to dx. */
bool conv_method_adds(conv_method method);
/* Whether the direct method can read an image with a sum. */
bool conv_rows_reads_sum(const conv_call *call);
/* Whether conv_winograd_run_both can do both backward passes of a shape as one. */
bool conv_winograd_joins(const conv_shape *shape, const conv_kernels *kernels);
resin_status conv_winograd_run_both(resin_context *context, const conv_call *data,
                                    const conv_call *weights);
/* Likewise conv_rows_run_both, with the direct method. */
bool conv_rows_joins(const conv_call *call);
resin_status conv_rows_run_both(resin_context *context, const conv_call *data,
                                const conv_call *weights);
/* Which of them are one sweep over the pixels. */
bool conv_rows_sweeps(const conv_call *call);
resin_status conv_rows_run_sweep(resin_context *context, const conv_call *data,
                                 const conv_call *weights);

/* Of the plain sum, in any of the passes. */
double conv_multiply_adds(const conv_shape *shape);

resin_status conv_reference_run(resin_context *context, const conv_call *call);
resin_status conv_winograd_run(resin_context *context, const conv_call *call);
resin_status conv_direct_run(resin_context *context, const conv_call *call);
int64_t conv_winograd_prepared(const conv_call *call);
void conv_winograd_prepare(resin_context *context, const conv_call *call, float *to);
int64_t conv_direct_prepared(const conv_call *call);
void conv_direct_prepare(resin_context *context, const conv_call *call, float *to);
resin_status conv_product_run(resin_context *context, const conv_call *call);
int64_t conv_phases_prepared(const conv_call *call);
void conv_phases_prepare(resin_context *context, const conv_call *call, float *to);
resin_status conv_phases_run(resin_context *context, const conv_call *call);
resin_status conv_strided_run(resin_context *context, const conv_call *call);
resin_status conv_grouped_run(resin_context *context, const conv_call *call);

/* Scratch of count x size floats from the arena, with overflow checked. */
resin_status conv_reserve(resin_context *context, int64_t count, int64_t size, float **block);

/* result = the sum of `parts` blocks of `size` floats, which lie one after the other, added in their
 * order. */
void conv_add_parts(resin_context *context, const conv_kernels *kernels, const float *partial,
                    int64_t parts, int64_t size, float *result);

static inline int64_t conv_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t conv_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t conv_divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t conv_round_up(int64_t a, int64_t b) { return conv_divide_up(a, b) * b; }

#endif
