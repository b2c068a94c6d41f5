/* conv_grid.h: passes of convolution as sums over a regular grid of pixels, which the methods that
 * work on a matrix product (conv_product.c, conv_direct.c) share.
 *
 * The pixel (i, j) of a grid reads, for taps a and b, the source pixel
 * (first + i * step + a * tap_step, likewise j and b) and writes the result's pixel
 * (i * spread + place, ...). Forward is one grid. Backward-data with stride s is s x s of them: the
 * pixels h = i * s + r of dx are reached by the taps t with (r + pad - t * dilation) divisible by
 * s, from dy's row (h + pad - t * dilation) / s: a gather, so that no sum is shared by workers.
 * Taps are counted so that tap_step is positive: pixels that are read together lie together. */
#ifndef RESIN_OPS_CONV_GRID_H
#define RESIN_OPS_CONV_GRID_H

#include "core/ops/conv_call.h"

/* One direction. */
typedef struct conv_axis {
    int64_t count;                  /* pixels of the grid */
    int64_t source;                 /* pixels of the source */
    int64_t step, first;            /* see above */
    int64_t taps, tap_step;         /* taps is 0 where no pixel of the source is read */
    int64_t kernel_first, kernel_step; /* the taps' places in the kernel */
    int64_t spread, place;
} conv_axis;

typedef struct conv_grid {
    const conv_call *call;
    conv_axis h, w;
    conv_image image;             /* the source, as it is to be read, */
    const float *source;          /* and its pixels as they lie */
    float *result;
    int64_t source_c, result_c;   /* channels of the images */
    int64_t source_step;          /* floats from one pixel of the source to the next */
    int64_t group_in, group_out;  /* of one group */
    int64_t result_h, result_w;
    int64_t pixels;               /* of the grid in all images */
    int64_t depth;                /* taps x group_in: products in a sum */
    int64_t panels;               /* of the weights of one group */
    const float *packed;          /* weights: groups, panels, taps, group_in, panel's width */
    float *weights;               /* scratch for them */
} conv_grid;

conv_grid conv_forward_grid(const conv_call *call);
conv_grid conv_backward_data_grid(const conv_call *call, int64_t rest_h, int64_t rest_w);

/* Floats of all packed weights, and packing them. */
int64_t conv_packed_floats(const conv_grid *grid);
void conv_pack_all(resin_context *context, const conv_grid *grid, float *to);
/* Sets grid->packed: what the call has prepared, or grid->weights, which the caller gives back to
 * the arena. */
resin_status conv_pack_weights(resin_context *context, conv_grid *grid);
int64_t conv_panel_columns(const conv_grid *grid, int64_t panel);
const float *conv_panel(const conv_grid *grid, int64_t group, int64_t panel);

/* The weights of a panel of a group, from some channel of some tap on, as they lie. */
const float *conv_weights_place(const conv_grid *grid, int64_t group, int64_t panel, int64_t tap,
                                int64_t channel);

/* Packs some channels of one tap and one panel of a group: rows of the panel's whole vectors. */
void conv_pack_panel(const conv_grid *grid, int64_t group, int64_t panel, int64_t tap,
                     int64_t channel, int64_t channels, float *to);

/* The result's pixel that a pixel of the grid writes. */
float *conv_result_pixel(const conv_grid *grid, int64_t pixel);

/* Writes zeros to the pixels of a grid without taps. */
void conv_zero_grid(resin_context *context, conv_grid *grid);

#endif
