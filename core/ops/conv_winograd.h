/* conv_winograd.h: what the passes of Winograd's method share: the tiles of an image, and the
 * transforms of parts of an image, of the weights and of the result.
 *
 * Names: v = B^T d B of tiles x input channels, u = G w G^T of input x output channels, m = tiles x
 * output channels; each has 36 planes, one for each point of a transformed tile. Output channels go
 * in panels as wide as the register block of the product. Tiles are counted along the rows of tiles
 * of all images. A row of tiles is cut into bands of at most band_tiles; work is cut between bands,
 * and a worker copies the pixels of some bands into a strip (conv_strip.h) before it transforms
 * them.
 *
 * Each group of a grouped convolution is one of its own: tiles and bands are those of any group,
 * and panels and slices are counted through all groups. Small groups are taken some at a time, a
 * bundle, so that a pixel is not read in crumbs. */
#ifndef RESIN_OPS_CONV_WINOGRAD_H
#define RESIN_OPS_CONV_WINOGRAD_H

#include "core/ops/conv_call.h"
#include "core/ops/conv_strip.h"

/* Channels of a slice, at most. Planes are a line of the cache longer than their rows, so that they
 * start on different ones. */
enum { WINOGRAD_SLICE_CHANNELS = WINOGRAD_ROW };

typedef struct winograd {
    const conv_call *call;
    const conv_kernels *kernels;
    conv_source source;          /* the image whose v is made; in_c channels */
    conv_source gradient;        /* backward-weights: dy */
    float *result;               /* an image of tiled_h x tiled_w x out_c, or dweights */
    bool add;                    /* to the result */
    conv_watch *watch;           /* of the result, or NULL */
    const float *weights, *bias;
    bool rotated;                /* the weights of backward-data */
    int taps, outputs;           /* of the kernel and of a tile, in one direction */
    int64_t groups;
    int64_t in_c, out_c;         /* of a group */
    int64_t result_c;            /* of all */
    int64_t pad_top, pad_left;
    int64_t tiled_h, tiled_w, tiles_h, tiles_w, tiles; /* the image that is cut into tiles */
    int64_t narrow_h, narrow_w;     /* so many tiles at the end of a column or row have one less */
    int64_t panels, panel_columns;  /* of a group; columns of a panel, at most */
    int64_t bundle, bundles;        /* groups of a bundle, and how many bundles there are */

    int64_t cuts, band_tiles, bands;
    int64_t strip_bands;            /* bands of one strip, at most */
    int64_t slices, slice_width;    /* slices of a group's input channels, and the row of v */
    int64_t block_tiles, blocks;    /* blocks of bands: tiles at most, and how many */
    int64_t chunks;
    int64_t first_group, some_groups, first_band, some_bands; /* what is under way */
    bool last;

    const float *prepared;          /* weights as conv_winograd_prepare has left them; or NULL */
    float *u, *v, *m, *strips;
    int64_t *made; /* the group whose v each worker has made for itself, lines apart; or NULL */
    int64_t u_size, v_size, m_size, strip_size; /* floats of one worker's (slice's, panel's) part */
} winograd;

/* Geometry of panels. */
int64_t winograd_panel_first(const winograd *w, int64_t panel);
int64_t winograd_panel_columns(const winograd *w, int64_t panel);
/* The columns a panel takes in scratch: whole vectors. */
int64_t winograd_panel_width(const winograd *w, int64_t panel);
/* From point to point of a panel's u with all input channels. */
int64_t winograd_u_plane(const winograd *w);
/* The first tile of a band; that of `bands` is the number of tiles. */
int64_t winograd_band_tile(const winograd *w, int64_t band);

/* Cuts the rows of tiles into bands, and the bands into blocks of about so many tiles. */
void winograd_cut(winograd *w, int64_t tiles);
/* Cuts the input channels into slices; with `whole` all those of a bundle are one. */
void winograd_slice(winograd *w, bool whole);
/* The input channels of a slice. */
void winograd_slice_bounds(const winograd *w, int64_t slice, int64_t *first, int64_t *last);
/* The place of a panel's group in the v of its bundle. */
int64_t winograd_group_channel(const winograd *w, int64_t panel);
/* The groups of a bundle. */
void winograd_bundle_bounds(const winograd *w, int64_t bundle, int64_t *first, int64_t *last);
/* Strips for all workers; after winograd_cut and winograd_slice. */
resin_status winograd_reserve_strips(resin_context *context, winograd *w);

/* v of bands [first, last), channels [channel, channel + channels), a row for each tile. */
void winograd_transform_source(const winograd *w, int64_t first, int64_t last, int64_t channel,
                               int64_t channels, float *v, int64_t row, int64_t plane, int worker);
/* m = A dy A^T of bands [first, last) and one panel. */
void winograd_transform_gradient(const winograd *w, int64_t first, int64_t last, int64_t panel,
                                 float *m, int64_t row, int64_t plane, int worker);
/* Both of a bundle of the image w->source from one copy of its pixels: v, and m of every panel,
 * m_size apart, of the tiles that begin `inset` pixels inside of those of v. */
void winograd_transform_both(const winograd *w, int64_t first, int64_t last, int64_t bundle,
                             int64_t inset_h, int64_t inset_w, float *v, float *m, int worker);
/* The outputs of bands [first, last) and one panel from their m. */
void winograd_transform_result(const winograd *w, int64_t first, int64_t last, int64_t panel,
                               const float *m, int64_t row, int64_t plane);
/* Weights of one panel and some input channels of its group where they lie, prepared or not: for
 * each tap, rows of so many floats. */
typedef struct winograd_part {
    const float *from;
    int64_t tap_step, row_step, rows, floats;
} winograd_part;
winograd_part winograd_weights_part(const winograd *w, int64_t panel, int64_t channel,
                                    int64_t channels);
/* u of one panel and `channels` input channels of its group from `channel` on. */
void winograd_transform_weights(const winograd *w, int64_t panel, int64_t channel,
                                int64_t channels, float *u, int64_t plane);
/* dweights of one panel and some input channels of its group from their du. */
void winograd_weights_result(const winograd *w, int64_t panel, int64_t channel, int64_t channels,
                             const float *du, int64_t plane);

/* ---- The steps of the passes ----------------------------------------------------------------- */

/* Tiles that a worker takes at a time: v and m stay in its second-level cache. */
int64_t winograd_block_tiles(const conv_kernels *kernels);
winograd winograd_describe(const conv_call *call);

/* Forward and backward-data: u of all weights, reserved and made. */
resin_status winograd_make_u(resin_context *context, winograd *w);
/* What is asked for while a product runs, a part at each point: rows of images that are read or
 * written next. */
typedef struct winograd_ahead {
    struct winograd_rows {
        const float *from;
        int64_t pixels, step, lines; /* so many of the cache at each of some pixels, a step apart */
    } rows[4]; /* two of the result, two of a source */
    int count;
} winograd_ahead;
/* A bundle's channels of the pixels that the tiles of bands [first, last) begin with, where they are
 * whole rows. */
void winograd_ask_source(winograd_ahead *ahead, const winograd *w, int64_t bundle, int64_t first,
                         int64_t last);
void winograd_ask_result(winograd_ahead *ahead, const winograd *w, int64_t bundle, int64_t first,
                         int64_t last);
/* Asks for the part of a point. In line, since a compiler takes a function that only does this for
 * one without effect. */
static inline __attribute__((always_inline)) void winograd_fetch(const winograd_ahead *ahead,
                                                                 int point) {
    for (int i = 0; i < ahead->count; i++) {
        const struct winograd_rows *rows = &ahead->rows[i];
        int64_t last = rows->pixels * (point + 1) / WINOGRAD_POINTS;
        for (int64_t pixel = rows->pixels * point / WINOGRAD_POINTS; pixel < last; pixel++) {
            const float *from = rows->from + pixel * rows->step;
            for (int64_t line = 0; line < rows->lines; line++)
                __builtin_prefetch(from + line * WINOGRAD_LINE, 0, 2);
        }
    }
}

/* The m of bands [first, last) and one panel from the v of its bundle and that u. */
void winograd_multiply(const winograd *w, int64_t first, int64_t last, int64_t panel,
                       const float *v, float *m, const winograd_ahead *ahead);

/* Whoever watches is told how many pieces there are, or is forgotten where it cannot be shown whole
 * rows; and is shown the result of bands [first, last). */
resin_status winograd_begin_watch(winograd *w, int64_t pieces);
void winograd_show(const winograd *w, int64_t piece, int64_t first, int64_t last, int worker);

/* v by slices and blocks, v_size floats each, of the groups that are under way; reserve also makes
 * ready the strips. */
resin_status winograd_reserve_v(resin_context *context, winograd *w);
void winograd_make_v(resin_context *context, const winograd *w, int64_t groups);
float *winograd_slice_v(const winograd *w, int64_t slice, int64_t block);

/* Where all tiles are one block, each worker has a v of its own, of one group, slices v_size apart,
 * and makes it when it first asks for it: that takes less time than to get the half that another
 * worker has made out of that one's cache. */
resin_status winograd_reserve_own_v(resin_context *context, winograd *w);
const float *winograd_own_v(const winograd *w, int64_t group, int worker);

/* Many channels and tiles. */
bool winograd_is_many(const winograd *w);
resin_status winograd_run_many(resin_context *context, winograd *w);
/* Few tiles. */
resin_status winograd_run_few(resin_context *context, winograd *w);
/* Its weights in the order in which they are read: groups and panels, channels, taps, columns of
 * the panel. */
int64_t winograd_few_floats(winograd *w);
void winograd_few_prepare(resin_context *context, winograd *w, float *to);

/* Backward-weights by chunks of bands: each has a du of its own, small enough for the cache. */
bool winograd_takes_chunks(int64_t in_c, int64_t out_c);
resin_status winograd_reserve_chunks(resin_context *context, winograd *w);
/* Adds `count` tiles (v of a bundle, and m of one panel) to a chunk's du, or begins it with them. */
void winograd_add_to_chunk(const winograd *w, int64_t chunk, int64_t panel, int64_t count,
                           const float *v, const float *m, bool begin,
                           const winograd_ahead *ahead);
/* Adds the chunks in order and makes dweights of them. */
void winograd_finish_chunks(resin_context *context, winograd *w);

resin_status winograd_run_weights(resin_context *context, winograd *w);
void winograd_release(resin_context *context, winograd *w);

#endif
