/* conv.h: convolution on raw float32 arrays, NHWC images and HWIO weights: the methods behind the
 * conv2d op, and the choice between them (conv_method.c).
 *
 * With groups g, weights have shape (kernel_h, kernel_w, in_c / g, out_c), and output channel k
 * belongs to group k / (out_c / g). Padding may differ on each side. */
#ifndef RESIN_OPS_CONV_H
#define RESIN_OPS_CONV_H

#include "core/base/context.h"
#include "core/kernels/conv_kernels.h"

typedef struct conv_shape {
    int64_t batch, in_h, in_w, in_c;
    int64_t out_h, out_w, out_c;
    int64_t kernel_h, kernel_w;
    int64_t stride_h, stride_w;
    int64_t pad_top, pad_left, pad_bottom, pad_right;
    int64_t dilation_h, dilation_w;
    int64_t groups;
} conv_shape;

/* What is added to an image x that comes through a batch normalization, before relu: by channel
 * shortcut * scale + shift. All pixels lie as those of x; the sum is written to `to`. */
typedef struct conv_sum {
    const float *shortcut; /* NULL: there is no such thing */
    const float *scale, *shift;
    float *to;
} conv_sum;

/* The image x as a pass reads it: the pixels as they lie or, where scale is not NULL,
 * relu(pixel * scale + shift) by channel, as if that had been computed before. A sum,
 * which conv_reads_sum must allow, is only in forward passes. */
typedef struct conv_image {
    const float *pixels, *scale, *shift;
    conv_sum sum;
} conv_image;

/* Who is shown a result while it still lies in the cache: `begin` before, with the result and how
 * many pieces there are; then `pixels`, runs of pixels of all images, those of a piece one after the
 * other, which it may change. Only some methods do; without them `begin` is never called. */
typedef struct conv_watch {
    resin_status (*begin)(struct conv_watch *watch, float *result, int64_t channels,
                          int64_t pieces);
    void (*pixels)(const struct conv_watch *watch, int64_t piece, int64_t first, int64_t count,
                   int worker);
    const float *reads; /* not NULL: an image like the result that `pixels` reads, too */
} conv_watch;

typedef enum conv_pass { CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHTS } conv_pass;

typedef enum conv_method {
    CONV_REFERENCE, /* naive loops: the oracle, and float64 */
    CONV_WINOGRAD,  /* F(4x4, 3x3) */
    CONV_DIRECT,    /* register-blocked, reads the image where it lies */
    CONV_PRODUCT,   /* patches packed for a matrix product; 1x1 without a copy */
    CONV_GROUPED,
    CONV_PHASES,    /* F(4x4, 4x4) of the phases of a strided convolution from few channels */
    CONV_STRIDED,   /* F(4x4, 2x2) of the phases of a 3x3 convolution with stride 2 */
    CONV_METHOD_COUNT
} conv_method;

const char *conv_method_name(conv_method method);
const char *conv_pass_name(conv_pass pass); /* "forward", "data", "weights" */

/* The choice: counts flops and bytes of each method that can do the shape. `exact` excludes
 * Winograd's. */
conv_method conv_choose(const conv_shape *shape, conv_pass pass, bool exact);

/* The three passes, with the method chosen (or given, for tests). They take scratch from the
 * arena before any parallel region. Every output element is written (nothing is added to).
 *   forward:          y[n,h,w,k] = bias[k] + sum over kernel and channels of x * weights; bias may
 *                     be NULL; then the epilogue, if there is one (conv_kernels.h)
 *   backward_data:    dx from dy and weights
 *   backward_weights: dweights from x and dy; dbias (NULL: not wanted) = sum of dy */
resin_status conv_forward(resin_context *context, const conv_shape *shape, conv_method method,
                          conv_image x, const float *weights, const float *bias, float *y);
/* What a forward pass may have besides, each or NULL; all are without extras. */
typedef struct conv_extras {
    const float *prepared; /* the weights as conv_prepare has left them */
    const conv_epilogue *epilogue;
    conv_watch *watch; /* of y */
} conv_extras;
resin_status conv_forward_with(resin_context *context, const conv_shape *shape, conv_method method,
                               conv_image x, const float *weights, const float *bias,
                               const conv_extras *extras, float *y);
/* Whether that can read an image with a sum. */
bool conv_reads_sum(const conv_shape *shape, conv_method method);
resin_status conv_backward_data(resin_context *context, const conv_shape *shape, conv_method method,
                                const float *dy, const float *weights, float *dx);
resin_status conv_backward_weights(resin_context *context, const conv_shape *shape,
                                   conv_method method, conv_image x, const float *dy,
                                   float *dweights, float *dbias);

/* Where the same weights serve many forward passes of one shape, they are best arranged once as the
 * method reads them: how many floats that takes (0: they are good as they lie), and doing it. */
int64_t conv_prepared(const conv_shape *shape, conv_method method);
void conv_prepare(resin_context *context, const conv_shape *shape, conv_method method,
                  const float *weights, float *to);

/* Both backward passes together, each by the method that is chosen for it. */
typedef struct conv_gradients {
    conv_image x;
    const float *weights, *dy;
    const conv_norm *norm; /* not NULL: dy comes through this batch normalization before it counts,
                              which conv_reads_norm must allow */
    float *dx, *dweights;  /* NULL: not wanted */
    bool add_dx;           /* dx is added to what is there, which conv_adds must allow */
    conv_watch *watch;     /* of dx, or NULL */
} conv_gradients;
bool conv_reads_norm(const conv_shape *shape, bool dx, bool dweights, bool exact);
bool conv_adds(const conv_shape *shape, bool exact);
resin_status conv_backward(resin_context *context, const conv_shape *shape,
                           const conv_gradients *gradients, bool exact);

/* The same by naive loops in float64 (conv_reference.c has both types). */
resin_status conv_forward_f64(resin_context *context, const conv_shape *shape, const double *x,
                              const double *weights, const double *bias, double *y);
resin_status conv_backward_data_f64(resin_context *context, const conv_shape *shape,
                                    const double *dy, const double *weights, double *dx);
resin_status conv_backward_weights_f64(resin_context *context, const conv_shape *shape,
                                       const double *x, const double *dy, double *dweights,
                                       double *dbias);

#endif
