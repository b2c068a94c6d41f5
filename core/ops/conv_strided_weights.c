/* conv_strided_weights.c: backward-weights of strided convolutions by Winograd's method
 * (conv_strided.h). v and m of as many tiles as the cache of the processor holds are made first;
 * then each piece sums one slice of channels and one panel over all of them. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_strided.h"

enum {
    SLICE = 32,               /* channels of x that a piece sums */
    BAND_TILES = 64,
    BLOCK_FLOATS = 5 << 20,   /* v and m of the tiles that are under way at a time */
    TRANSFORM_TILES = 8       /* tiles a piece transforms at least */
};

static int64_t transform_pieces(const strided *s) {
    return resin_piece_count(s->some_bands, conv_divide_up(TRANSFORM_TILES, s->band_tiles));
}

/* First v of some bands, or m of them. */
static void transform_piece(void *argument, int64_t piece, int worker) {
    const strided *s = argument;
    int64_t first, last;
    resin_piece_bounds(s->some_bands, transform_pieces(s), piece / 2, &first, &last);
    int64_t begin = strided_band_tile(s, s->first_band);
    first += s->first_band, last += s->first_band;
    int64_t before = strided_band_tile(s, first) - begin;
    if (piece % 2 == 0)
        strided_transform_source(s, first, last, s->v + before * s->v_row, worker);
    else strided_transform_gradient(s, first, last, before, s->m, worker);
}

/* The sums of one panel and slice at a point. */
static void add_products(const strided *s, int point, int64_t channels, int64_t width,
                         const float *v, const float *m, float *u) {
    int64_t tiles = strided_band_tile(s, s->first_band + s->some_bands) -
                    strided_band_tile(s, s->first_band);
    int rows = strided_phases(point / STRIDED_POINTS);
    int columns = strided_phases(point % STRIDED_POINTS);
    /* Full slices of phases side by side are one. */
    int together = channels < s->slice_width ? 1 : columns > 1 ? rows * columns : 1;
    for (int phase = 0; phase < 4; phase += together) {
        if (phase / 2 >= rows || phase % 2 >= columns) continue;
        s->kernels->product(together * channels, (int)width, tiles, v + phase * s->slice_width,
                            s->v_row, true, m, width, u + phase * s->slice_width * width, width,
                            s->first_band > 0);
    }
}

static void product_piece(void *argument, int64_t piece, int worker) {
    const strided *s = argument;
    int64_t panel = piece / s->slices, slice = piece % s->slices;
    int64_t channel = slice * s->slice_width, width = strided_panel_width(s, panel);
    int64_t channels = conv_min(s->source.channels - channel, s->slice_width);
    int64_t out_c = s->out_c, tap = s->source.channels * out_c;
    float *u = s->u + (s->blocks == 1 ? worker : piece) * STRIDED_PLANES * s->u_plane;
    for (int point = 0; point < STRIDED_PLANES; point++)
        add_products(s, point, channels, width, s->v + slice * s->v_size + point * s->v_plane,
                     s->m + panel * s->m_size + point * s->m_plane, u + point * s->u_plane);
    if (s->first_band + s->some_bands < s->bands) return;
    const strided_places u_at = strided_point_places(s->u_plane, s->slice_width * width);
    const strided_places taps = strided_tap_places(3 * tap, tap, false);
    for (int64_t c = 0; c < channels; c++)
        s->kernels->strided_result(STRIDED_SUMS, strided_panel_columns(s, panel), u + c * width,
                                   &u_at, NULL, false,
                                   s->call->result + (channel + c) * out_c +
                                       panel * s->panel_columns,
                                   &taps);
}

resin_status strided_run_weights(resin_context *context, strided *s) {
    int64_t channels = s->source.channels;
    int64_t floats = s->tiles * (STRIDED_LINE * STRIDED_LINE * channels +
                                 STRIDED_PLANES * s->out_c);
    strided_cut(s, BAND_TILES, conv_divide_up(floats, BLOCK_FLOATS),
                conv_min(conv_round_up(channels, s->kernels->vector), SLICE));
    int64_t pieces = s->slices * s->panels;
    s->u_plane = 4 * s->slice_width * s->panel_columns + STRIDED_PAD;
    RESIN_TRY(conv_reserve(context, s->slices, s->v_size, &s->v));
    RESIN_TRY(conv_reserve(context, s->panels, s->m_size, &s->m));
    RESIN_TRY(conv_reserve(context, s->blocks == 1 ? resin_workers(context) : pieces,
                           STRIDED_PLANES * s->u_plane, &s->u));
    RESIN_TRY(strided_reserve_strips(context, s));
    for (int64_t block = 0; block < s->blocks; block++) {
        int64_t last;
        resin_piece_bounds(s->bands, s->blocks, block, &s->first_band, &last);
        s->some_bands = last - s->first_band;
        resin_parallel(context, 2 * transform_pieces(s), transform_piece, s);
        resin_parallel(context, pieces, product_piece, s);
    }
    return RESIN_OK;
}
