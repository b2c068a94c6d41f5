/* pool_kernels.h: inner loops of pooling, over all channels.
 * The same loops exist for float and double; arrays given as void pointers have that type.
 *
 * A maximum over a window is taken in two steps, so that every pixel is read once although windows
 * overlap: of the window's pixels in each row of the image, then of these over the rows. Of equal
 * values the first wins, as in PyTorch; a NaN counts as the largest, the last of several wins. */
#ifndef RESIN_KERNELS_POOL_KERNELS_H
#define RESIN_KERNELS_POOL_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* A row of the image and the windows along it. */
typedef struct pool_row {
    int64_t channels, pixels, windows;
    int64_t kernel, stride, before; /* pixels of a window, between two, and of padding in front */
} pool_row;

/* Where maxima lie in their windows, row * the kernel's width + column: bytes where a window has up
 * to 256 pixels, else int32. NULL: not wanted. */
typedef struct pool_positions {
    uint8_t *narrow;
    int32_t *wide;
} pool_positions;

/* The part of a window that lies inside the image: x + i * row_step + j * channels. */
typedef struct pool_window {
    int64_t rows, columns, row_step;
} pool_window;

/* Rows of the image, reduced, of which the largest is taken by element. To the positions of row i
 * add[i] is added. */
typedef struct pool_three {
    const void *best[3];
    pool_positions positions[3];
    int32_t add[3];
} pool_three;

/* Rows of windows that cover a row of the image: dy and positions of the first, where the row's
 * number is `at`; in each that follows it is `stride` less. */
typedef struct pool_cover {
    int64_t rows, at, stride;
    const void *dy;
    pool_positions positions;
} pool_cover;

typedef struct pool_loops {
    /* best = largest value of each window's pixels in one row, with its column in `columns`. Where
     * scale is not NULL a pixel counts as x * scale + shift by channel. */
    void (*max_in_row)(const pool_row *row, const void *x, const void *scale, const void *shift,
                       void *best, pool_positions columns);
    /* y = largest of three, with its position; relu: not below 0. */
    void (*max_of_three)(int64_t count, const pool_three *three, bool relu, void *y,
                         pool_positions positions);
    /* dx, a row of the image, = sum of dy over the windows whose maximum it was. */
    void (*max_gradient)(const pool_row *row, const pool_cover *cover, void *dx);
    /* y = factor * sum, summed by rows of the window. */
    void (*sum_window)(int64_t channels, const void *x, const pool_window *window, double factor,
                       void *y);
    /* dx = (or, unless `first`, +=) factor * dy. */
    void (*add_scaled)(int64_t channels, const void *dy, double factor, bool first, void *dx);
} pool_loops;

typedef struct pool_kernels {
    pool_loops of[2]; /* RESIN_FLOAT32, RESIN_FLOAT64 */
} pool_kernels;

#endif
