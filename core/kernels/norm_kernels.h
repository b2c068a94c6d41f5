/* norm_kernels.h: inner loops of batch normalization over `rows` rows of `channels` channels
 * (NHWC: a row is one pixel of one image), with the shortcut's addition and the activation in the
 * same pass.
 *
 * The same loops exist for float and double; arrays given as void pointers have that type. Where
 * sums over many rows are taken the caller cuts them into blocks of norm_block_rows rows, which
 * are summed in the element type, and adds the blocks up in double. */
#ifndef RESIN_KERNELS_NORM_KERNELS_H
#define RESIN_KERNELS_NORM_KERNELS_H

#include <stdint.h>

typedef enum norm_activation { NORM_LINEAR, NORM_RELU } norm_activation;

/* A block is read twice, so it should stay in the first-level cache: 32 KB of floats. */
static inline int64_t norm_block_rows(int64_t channels) {
    int64_t rows = 8192 / (channels > 0 ? channels : 1);
    return rows < 32 ? 32 : rows;
}

/* What the activation lets through on the way back: everything (NORM_LINEAR), or what was not <= 0
 * on the way forward (NORM_RELU): the output y, or, where y is NULL, x * scale + shift. */
typedef struct norm_gate {
    norm_activation activation;
    const void *y, *scale, *shift;
} norm_gate;

typedef struct norm_loops {
    /* Mean and sum of squared deviations (M2) of each channel over a block of rows. The mean is
     * center + rest: in one number it would lose what deviations far smaller than it need. */
    void (*block_statistics)(int64_t rows, int64_t channels, const void *x, void *center,
                             void *rest, void *m2);
    /* (count, mean, m2) of everything before and of one block become those of both together
     * (Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample
     * variances", 1979). count may be 0. */
    void (*merge_statistics)(int64_t channels, double count, double *mean, double *m2,
                             double block_count, const void *center, const void *rest,
                             const void *block_m2);
    /* y = activation(x * scale + shift + shortcut); shortcut may be NULL, y may be x. */
    void (*apply)(int64_t rows, int64_t channels, const void *x, const void *scale,
                  const void *shift, const void *shortcut, norm_activation activation, void *y);
    /* Over a block of rows, with g = dy behind the gate: sum_g = sum of g, sum_gx = sum of
     * g * (x - mean). g itself is written where it is not NULL; it may be dy. */
    void (*gradient_sums)(int64_t rows, int64_t channels, const void *x, const void *mean,
                          const norm_gate *gate, const void *dy, void *g, void *sum_g,
                          void *sum_gx);
    /* total += block. */
    void (*add_sums)(int64_t channels, const void *block, double *total);
    /* dx = a * g + b * (x - mean) + c by channel. */
    void (*gradient)(int64_t rows, int64_t channels, const void *x, const void *mean,
                     const norm_gate *gate, const void *dy, const void *a, const void *b,
                     const void *c, void *dx);
    /* sum = sum of x over a block of rows. */
    void (*channel_sums)(int64_t rows, int64_t channels, const void *x, void *sum);
} norm_loops;

typedef struct norm_kernels {
    norm_loops of[2]; /* RESIN_FLOAT32, RESIN_FLOAT64 */
} norm_kernels;

#endif
