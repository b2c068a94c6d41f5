/* conv_strip.h: the images that a convolution reads, strip by strip. */
#ifndef RESIN_OPS_CONV_STRIP_H
#define RESIN_OPS_CONV_STRIP_H

#include "core/kernels/conv_kernels.h"
#include "core/ops/conv.h"

/* Images of one size, and how their pixels are read. */
typedef struct conv_source {
    const conv_kernels *kernels;
    conv_image image;
    const conv_norm *norm; /* not NULL: the image is a gradient that comes through it */
    int64_t height, width, channels;
} conv_source;

/* A rectangle of one image and some of its channels; it may reach beyond the image, where pixels
 * are zero. */
typedef struct conv_strip {
    int64_t image, top, left, rows, columns;
    int64_t channel, channels;
    int64_t pixel_step; /* floats from one pixel of the copy to the next, at least `channels`: what
                           lies between is zero */
} conv_strip;

/* Cuts a row of tiles into bands of at most so many tiles, as even as can be: how many there are, and
 * the tiles of one, at most. */
void conv_cut_row(int64_t tiles, int64_t most, int64_t *bands, int64_t *band_tiles);

/* Copies a strip: rows * columns * pixel_step floats. */
void conv_copy_strip(const conv_source *source, const conv_strip *strip, float *to);

#endif
