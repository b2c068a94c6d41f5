/* pool_kernels.h: inner loops of pooling: one window, or one pixel's gradient, over all channels.
 * The same loops exist for float and double; arrays given as void pointers have that type. */
#ifndef RESIN_KERNELS_POOL_KERNELS_H
#define RESIN_KERNELS_POOL_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* The part of a window that lies inside the image: x + i * row_step + j * channels. */
typedef struct pool_window {
    int64_t rows, columns, row_step;
    int32_t first;        /* position in the whole window of the first pixel inside, */
    int32_t kernel_width; /* where positions are row * kernel_width + column */
} pool_window;

typedef struct pool_loops {
    /* y = largest value, with its position (the first of equal ones, as in PyTorch; a NaN counts as
     * the largest) in `narrow` or `wide`, whichever is not NULL. */
    void (*max_window)(int64_t channels, const void *x, const pool_window *window, void *y,
                       uint8_t *narrow, int32_t *wide);
    /* y = factor * sum, summed by rows of the window. */
    void (*sum_window)(int64_t channels, const void *x, const pool_window *window, double factor,
                       void *y);
    /* dx = (or, unless `first`, +=) dy where the window's maximum lies at `position`, else 0. */
    void (*max_gradient)(int64_t channels, const void *dy, const uint8_t *narrow,
                         const int32_t *wide, int32_t position, bool first, void *dx);
    /* dx = (or, unless `first`, +=) factor * dy. */
    void (*add_scaled)(int64_t channels, const void *dy, double factor, bool first, void *dx);
} pool_loops;

typedef struct pool_kernels {
    pool_loops of[2]; /* RESIN_FLOAT32, RESIN_FLOAT64 */
} pool_kernels;

#endif
