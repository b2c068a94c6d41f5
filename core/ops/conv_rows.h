/* conv_rows.h: the pixels of a grid as rows of a matrix, which direct convolution gathers where the
 * source's pixels as they lie are no good rows: they are to be normalized, or apart, or seen by
 * several taps. A tap is a plane of such rows, one for each pixel. */
#ifndef RESIN_OPS_CONV_ROWS_H
#define RESIN_OPS_CONV_ROWS_H

#include "core/ops/conv_grid.h"

/* Some taps of a grid and some channels of theirs. */
typedef struct conv_depth {
    int64_t tap, taps, channel, channels;
} conv_depth;

/* Floats from one gathered row to the next: lines of the cache, and not so many that rows share few
 * places of it. */
int64_t conv_row_floats(int64_t channels);

/* Whether the pixels of a grid are those of the source, in order. */
bool conv_same_pixels(const conv_grid *grid);

/* Gathers `count` pixels of a grid (of one group): planes of `plane` floats, rows of
 * conv_row_floats. `norm` (or NULL) is what the source comes through as a gradient. */
void conv_gather_rows(const conv_grid *grid, const conv_norm *norm, int64_t pixel, int64_t count,
                      conv_depth depth, float *to, int64_t plane);

/* Gathers pixels of one image row after another: `count` of them, step floats apart. */
void conv_gather_pixels(const conv_kernels *kernels, conv_image image, const conv_norm *norm,
                        int64_t count, int64_t channel, int64_t channels, const float *from,
                        int64_t step, float *to, int64_t to_step);

/* Lets fetches follow on from block to block, of so many steps each. */
static inline void conv_fetch_in_line(conv_fetch *fetch, int64_t steps) {
    for (int i = 0; i < FETCHES; i++) fetch->jump[i] = steps * fetch->step[i];
}

/* Moves fetches on behind so many blocks. */
static inline void conv_fetch_on(conv_fetch *fetch, int64_t blocks) {
    for (int i = 0; i < FETCHES; i++) fetch->at[i] += blocks * fetch->jump[i];
}

/* Whether forward and backward-data of a grid are done by gathered rows, and they themselves: with
 * scratch of their own. */
bool conv_rows_fit(const conv_grid *grid);
resin_status conv_rows_run(resin_context *context, const conv_grid *grid);

/* Likewise backward-weights. */
resin_status conv_rows_weights_run(resin_context *context, const conv_grid *grid);

#endif
