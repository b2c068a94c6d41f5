/* norm_kernels.h: inner loops of batch normalization over `rows` rows of `channels` channels
 * (NHWC: a row is one pixel of one image), with the shortcut's addition and the activation in the
 * same pass. */
#ifndef RESIN_KERNELS_NORM_KERNELS_H
#define RESIN_KERNELS_NORM_KERNELS_H

#include <stdint.h>

typedef enum norm_activation { NORM_LINEAR, NORM_RELU } norm_activation;

typedef struct norm_kernels {
    /* Mean and sum of squared deviations (M2) of each channel over a block of rows. */
    void (*block_statistics)(int64_t rows, int64_t channels, const float *x, float *mean,
                             float *m2);
    /* y = activation(x * scale + shift + shortcut); shortcut may be NULL. */
    void (*apply)(int64_t rows, int64_t channels, const float *x, const float *scale,
                  const float *shift, const float *shortcut, norm_activation activation, float *y);
    /* Over a block of rows: with g = dy where y > 0 (NORM_RELU) or dy: sum_g = sum of g, sum_gx =
     * sum of g * (x - mean). */
    void (*gradient_sums)(int64_t rows, int64_t channels, const float *x, const float *mean,
                          const float *y, const float *dy, norm_activation activation,
                          float *sum_g, float *sum_gx);
    /* dx = a * g + b * x + c by channel; dshortcut = g where not NULL. */
    void (*gradient)(int64_t rows, int64_t channels, const float *x, const float *y,
                     const float *dy, const float *a, const float *b, const float *c,
                     norm_activation activation, float *dx, float *dshortcut);
} norm_kernels;

#endif
