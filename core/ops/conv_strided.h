/* conv_strided.h: 3x3 convolution with stride 2 by Winograd's method: what its passes share.
 *
 * In one direction output i of such a convolution is
 *     w0 x[2 i] + w1 x[2 i + 1] + w2 x[2 i + 2]    (x with the padding):
 * the sum of two convolutions with stride 1, of the even pixels with two taps and of the odd ones
 * with one. These are the phases; in two directions there are four, and each is a convolution over
 * an image of half the size. All are done by F(4x4, 2x2), whose products of the phases are added
 * before the way back: with the names of conv_winograd.h, v = B^T d B and u = G w G^T of each
 * phase, m = the sum over phases and channels of v u at each of 5 x 5 points, y = A^T m A, 4 x 4 of
 * the result. A phase with one tap is zero at infinity, so that there are 9 x 9 pairs of a phase
 * and a point: 81 products for each pair of channels, where the plain sum has 144.
 *
 * Backward-weights is the adjoint: m = A dy A^T, u = the sum over tiles of v m, dw = G^T u G.
 * Backward-data: v of 5 x 5 pixels of dy, m of each phase of dx, 8 x 8 pixels of dx. A tile begins
 * at an odd row (counted with the padding), so that its pixels of the phase with one tap need the
 * first four of dy, as if x were dy and the tap the first of two.
 *
 * Phase 2 r + c is that of rows r and columns c, 0 with two taps and 1 with one. */
#ifndef RESIN_OPS_CONV_STRIDED_H
#define RESIN_OPS_CONV_STRIDED_H

#include "core/ops/conv_call.h"
#include "core/ops/conv_strip.h"

enum {
    STRIDED_PLANES = STRIDED_POINTS * STRIDED_POINTS, /* points in both directions */
    STRIDED_PAD = 16 /* floats of a cache line: planes begin on different ones */
};

typedef struct strided {
    const conv_call *call;
    const conv_kernels *kernels;
    bool back;                  /* backward-data */
    conv_source source;         /* the image whose v is made: dy in backward-data, else x */
    int64_t phases;             /* of v: 1 in backward-data, else 4 */
    int64_t out_c, panels, panel_columns; /* columns of a panel of m, at most */
    int64_t result_h, result_w; /* backward-weights: dy */
    int64_t tile;               /* pixels of the result that a tile has in each direction */
    int64_t top, left;          /* of the result, where its first tile begins: 0 or -1 */
    int64_t source_top, source_left, source_step, reach; /* of the source; from tile to tile; and
                                                            pixels of a tile */
    int64_t tiles_h, tiles_w, tiles;
    int64_t cuts, band_tiles, bands; /* bands of a row of tiles, and tiles of one, at most */
    int64_t blocks, block_tiles;     /* blocks of bands, and their tiles, at most */
    int64_t slices, slice_width;     /* slices of the channels of v, in whole vectors */
    int64_t v_row, v_plane, v_size;  /* from tile to tile, point to point; and of a slice */
    int64_t m_plane, m_size;         /* from point to point, panel to panel */
    int64_t u_panel, u_plane;        /* of u: from panel to panel, point to point */
    int64_t strip_size;
    int64_t chunks;                  /* of bands, in backward-weights */
    conv_watch *watch;
    float *u, *v, *m, *strips;
} strided;

strided strided_describe(const conv_call *call);
/* Cuts rows of tiles into bands, bands into `blocks` blocks or less, and the channels of v into
 * slices of so many, at most. */
void strided_cut(strided *s, int64_t band_tiles, int64_t blocks, int64_t slice);
/* Strips of all workers, for v and m. */
resin_status strided_reserve_strips(resin_context *context, strided *s);

int64_t strided_panel_columns(const strided *s, int64_t panel);
int64_t strided_panel_width(const strided *s, int64_t panel); /* in whole vectors */
/* The first tile of a band; that of `bands` is the number of tiles. */
int64_t strided_band_tile(const strided *s, int64_t band);
/* Phases of rows or columns at a point of one direction. */
static inline int strided_phases(int point) { return point < STRIDED_POINTS - 1 ? 2 : 1; }

/* Values of each phase and point. */
strided_steps strided_point_steps(int64_t point_step, int64_t phase_step);

/* v of bands [first, last) and one slice, and m of dy, with all panels. */
void strided_transform_source(const strided *s, int64_t first, int64_t last, int64_t slice,
                              float *v, int worker);
void strided_transform_gradient(const strided *s, int64_t first, int64_t last, float *m,
                                int worker);
/* The pixels of the result of a band from m, from tile `tile` of it on. */
void strided_transform_result(const strided *s, int64_t band, int64_t tile, const float *m);
/* Rows of the result that bands before this one have written, of all images. */
int64_t strided_rows_before(const strided *s, int64_t band);

resin_status strided_run_weights(resin_context *context, strided *s);

#endif
