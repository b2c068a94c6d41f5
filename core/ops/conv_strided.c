/* conv_strided.c: 3x3 convolution with stride 2 by Winograd's method (conv_strided.h): forward and
 * backward-data; backward-weights is in conv_strided_weights.c.
 *
 * u is made first, once for all, and stays in the processor's last cache. A worker takes a block of
 * tiles: their v, then point by point the products with all panels of u, so that of v only the
 * plane of a point has to stay in its second-level cache, then their results. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_strided.h"

enum {
    BLOCK_TILES = 28,     /* of a block, about */
    EVEN_BLOCKS = 4,      /* their number is a multiple of it */
    PIECES = 64,          /* of work, at most */
    WATCHED_TILES = 256,  /* a smaller result stays in a cache anyhow */
    DEEP = 256,           /* products of one sum, at most */
    WEIGHT_CHANNELS = 16, /* that are transformed at a time */
    LARGEST_PANEL = 32
};

/* ---- Weights --------------------------------------------------------------------------------- */

/* u of some rows of one panel: in the forward pass the input channels, in backward-data the output
 * channels, whose weights are turned round and transposed. */
static void weights_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const strided *s = argument;
    const conv_shape *shape = &s->call->shape;
    int64_t parts = conv_divide_up(s->source.channels, WEIGHT_CHANNELS), panel = piece / parts;
    int64_t row = piece % parts * WEIGHT_CHANNELS, column = panel * s->panel_columns;
    int64_t rows = conv_min(WEIGHT_CHANNELS, s->source.channels - row);
    int64_t width = strided_panel_width(s, panel), out_c = shape->out_c;
    float block[9][WEIGHT_CHANNELS][LARGEST_PANEL];
    const strided_steps steps = strided_point_steps(
        s->u_plane, s->back ? s->panels * s->u_panel : s->slice_width * width);
    const strided_step tap_row = {(s->back ? -6 : 6) * WEIGHT_CHANNELS * LARGEST_PANEL,
                                  (s->back ? -3 : 3) * WEIGHT_CHANNELS * LARGEST_PANEL};
    const strided_steps taps = {tap_row, {tap_row.next / 3, tap_row.other / 3}};
    for (int tap = 0; tap < 9; tap++) {
        const float *from = s->call->weights + tap * shape->in_c * out_c;
        from += s->back ? column * out_c + row : row * out_c + column;
        s->kernels->pack(rows, strided_panel_columns(s, panel), from, out_c, s->back,
                         block[tap][0], LARGEST_PANEL);
    }
    for (int64_t r = 0; r < rows; r++)
        s->kernels->strided_transform(STRIDED_WEIGHTS, width, block[s->back ? 8 : 0][r], &taps,
                                      s->u + panel * s->u_panel + (row + r) * width, &steps);
}

static resin_status make_u(resin_context *context, strided *s) {
    s->u_panel = s->phases * s->slice_width * s->panel_columns;
    s->u_plane = 4 / s->phases * s->panels * s->u_panel + STRIDED_PAD;
    RESIN_TRY(conv_reserve(context, STRIDED_PLANES, s->u_plane, &s->u));
    resin_parallel(context, s->panels * conv_divide_up(s->source.channels, WEIGHT_CHANNELS),
                   weights_piece, s);
    return RESIN_OK;
}

/* ---- Products -------------------------------------------------------------------------------- */

/* Short sums, added up, round less than a long one: none is of more than DEEP products. Forward:
 * the phases that are not zero at the point. */
static void multiply_phases(const strided *s, int point, int64_t panel, int64_t count,
                            const float *v, const float *u, float *m) {
    int rows = strided_phases(point / STRIDED_POINTS);
    int columns = strided_phases(point % STRIDED_POINTS);
    int64_t width = strided_panel_width(s, panel), step = s->slice_width;
    int64_t channels = s->source.channels, slice = channels;
    if (columns == 1) step *= 2;
    int together = rows * columns; /* phases */
    if (together * channels > DEEP) {
        together = columns;
        slice = DEEP / columns;
    }
    for (int phase = 0; phase < rows * columns; phase += together) {
        for (int64_t c = 0; c < channels; c += slice)
            s->kernels->product_segments(together, step, step * width, count, (int)width,
                                         conv_min(slice, channels - c), v + phase * step + c,
                                         s->v_row, false, u + (phase * step + c) * width, width, m,
                                         width, phase + c > 0, NULL);
    }
}

/* Backward-data: of one phase. */
static void multiply_back(const strided *s, int64_t panel, int64_t count, const float *v,
                          const float *u, float *m) {
    int64_t width = strided_panel_width(s, panel), channels = s->source.channels;
    for (int64_t c = 0; c < channels; c += DEEP)
        s->kernels->product(count, (int)width, conv_min(DEEP, channels - c), v + c, s->v_row,
                            false, u + c * width, width, m, width, c > 0);
}

/* All panels at a point. */
static void multiply(const strided *s, int point, int64_t count, const float *v, float *m) {
    const float *u = s->u + point * s->u_plane;
    v += point * s->v_plane;
    m += point * s->m_plane;
    for (int64_t phase = 0; phase < 4 / s->phases; phase++) {
        bool zero = phase / 2 >= strided_phases(point / STRIDED_POINTS) ||
                    phase % 2 >= strided_phases(point % STRIDED_POINTS);
        for (int64_t panel = 0; panel < s->panels; panel++, u += s->u_panel, m += s->m_size) {
            if (zero) continue;
            if (s->back) multiply_back(s, panel, count, v, u, m);
            else multiply_phases(s, point, panel, count, v, u, m);
        }
    }
}

static void show(const strided *s, int64_t piece, int64_t band, int worker) {
    if (!s->watch) return;
    int64_t begin = strided_rows_before(s, band), end = strided_rows_before(s, band + 1);
    s->watch->pixels(s->watch, piece, begin * s->result_w, (end - begin) * s->result_w, worker);
}

static void run_block(const strided *s, int64_t piece, int64_t block, int worker) {
    int64_t first, last;
    resin_piece_bounds(s->bands, s->blocks, block, &first, &last);
    int64_t begin = strided_band_tile(s, first), count = strided_band_tile(s, last) - begin;
    float *v = s->v + worker * s->v_size;
    float *m = s->m + worker * 4 / s->phases * s->panels * s->m_size;
    strided_transform_source(s, first, last, 0, v, worker);
    for (int point = 0; point < STRIDED_PLANES; point++) multiply(s, point, count, v, m);
    for (int64_t band = first; band < last; band++) {
        strided_transform_result(s, band, strided_band_tile(s, band) - begin, m);
        show(s, piece, band, worker);
    }
}

static void block_piece(void *argument, int64_t piece, int worker) {
    const strided *s = argument;
    int64_t block, last;
    resin_piece_bounds(s->blocks, conv_min(s->blocks, PIECES), piece, &block, &last);
    for (; block < last; block++) run_block(s, piece, block, worker);
}

static resin_status run_blocks(resin_context *context, strided *s) {
    int workers = resin_workers(context);
    int64_t blocks = conv_divide_up(s->tiles, BLOCK_TILES);
    strided_cut(s, BLOCK_TILES, conv_round_up(blocks, EVEN_BLOCKS), s->source.channels);
    int64_t pieces = conv_min(s->blocks, PIECES);
    RESIN_TRY(conv_reserve(context, workers, s->v_size, &s->v));
    RESIN_TRY(conv_reserve(context, workers * 4 / s->phases * s->panels, s->m_size, &s->m));
    RESIN_TRY(strided_reserve_strips(context, s));
    RESIN_TRY(make_u(context, s));
    if (s->cuts > 1 || s->tiles < WATCHED_TILES) s->watch = NULL;
    if (s->watch)
        RESIN_TRY(s->watch->begin(s->watch, s->call->result, s->out_c, pieces));
    resin_parallel(context, pieces, block_piece, s);
    return RESIN_OK;
}

resin_status conv_strided_run(resin_context *context, const conv_call *call) {
    strided s = strided_describe(call);
    resin_status status = call->pass == CONV_BACKWARD_WEIGHTS ? strided_run_weights(context, &s)
                                                              : run_blocks(context, &s);
    resin_deallocate(context, s.u);
    resin_deallocate(context, s.v);
    resin_deallocate(context, s.m);
    resin_deallocate(context, s.strips);
    return status;
}
