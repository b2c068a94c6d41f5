/* conv_strassen.h: the product of a block of pixels with the weights of a 1x1 convolution by seven
 * products of halves. */
#ifndef RESIN_OPS_CONV_STRASSEN_H
#define RESIN_OPS_CONV_STRASSEN_H

#include "core/ops/conv_grid.h"

/* Cuts a grid's depth into chunks, and those, the pixels of a block and the columns into halves. */
typedef struct conv_strassen {
    int64_t chunk, chunks; /* of the depth; no chunks: the product is not done so */
    int64_t pairs;         /* of panels, half the columns apart */
    int64_t pixels;        /* of a block: whole register blocks of both halves */
    int64_t scratch;       /* floats that a worker needs */
    float *weights;        /* packed */
} conv_strassen;

/* Whether and how a grid's blocks of about so many pixels are multiplied so, with `most` of the
 * depth in a chunk. The last block may be smaller, of whole register blocks, too. */
conv_strassen conv_strassen_cut(const resin_context *context, const conv_grid *grid, int64_t pixels,
                                int64_t most);

/* Allocates and packs `weights`, which the caller gives back to the arena. */
resin_status conv_strassen_pack(resin_context *context, const conv_grid *grid, conv_strassen *s);

/* Steps along the depth that the products of `count` pixels take, with all chunks. */
int64_t conv_strassen_steps(const conv_grid *grid, const conv_strassen *s, int64_t count);

/* c = or += a * weights: the chunk of `count` (even) rows of a. Fetches go on behind. */
void conv_strassen_multiply(const conv_grid *grid, const conv_strassen *s, int64_t chunk,
                            int64_t count, const float *a, int64_t a_step, float *c,
                            int64_t c_step, bool accumulate, conv_fetch *fetch, float *scratch);

#endif
