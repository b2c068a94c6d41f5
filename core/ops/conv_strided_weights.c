/* conv_strided_weights.c: backward-weights of strided convolutions by Winograd's method
 * (conv_strided.h). A piece takes a slice of the channels of x, so small that their u, all sums of
 * a piece, stays in the processor's last cache, and a chunk of the tiles: block by block it makes v
 * of the slice and m, and adds to u point by point. What a worker writes nobody else reads but for
 * the sums of chunks, which are added in order: lines of another's cache come slower. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_strided.h"

enum {
    SLICE_FLOATS = 3 << 18, /* of u of a slice, where a vector of channels allows */
    CHUNK_TILES = 256,      /* a chunk has at least */
    MAXIMUM_CHUNKS = 8,
    BLOCK_TILES = 64,      /* of a block, about */
    FETCH_STEP = 4          /* floats: eight blocks of rows of a product fetch a panel */
};

static int64_t u_size(const strided *s) { return STRIDED_PLANES * s->u_plane; }

/* Adds the products of some tiles at a point to u, or begins it with them. */
static void add_products(const strided *s, int point, int64_t channels, int64_t tiles,
                         const float *v, const float *m, float *u, bool begin) {
    int rows = strided_phases(point / STRIDED_POINTS);
    int columns = strided_phases(point % STRIDED_POINTS);
    /* Whole slices of phases side by side are one. */
    int together = channels < s->slice_width || columns == 1 ? 1 : rows * columns;
    for (int64_t panel = 0; panel < s->panels; panel++, m += s->m_size, u += s->u_panel) {
        int64_t width = strided_panel_width(s, panel);
        const conv_fetch fetch = {{v, m + s->m_size, v}, {0, FETCH_STEP, 0},
                                  {0, tiles * FETCH_STEP, 0}};
        for (int phase = 0; phase < 4; phase += together) {
            if (phase / 2 >= rows || phase % 2 >= columns) continue;
            s->kernels->product_fetch(1, 0, 0, together * channels, (int)width, tiles,
                                      v + phase * s->slice_width, s->v_row, true, m, width,
                                      u + phase * s->slice_width * width, width, !begin, &fetch,
                                      NULL);
        }
    }
}

/* dweights of some channels of a slice from its u. */
static void finish(const strided *s, int64_t slice, int64_t first, int64_t last, const float *u) {
    int64_t out_c = s->out_c, tap = s->source.channels * out_c;
    strided_result result = {.row_step = 3 * tap, .pixel_step = tap, .rows = 3, .columns = 3};
    for (int64_t panel = 0; panel < s->panels; panel++, u += s->u_panel) {
        int64_t width = strided_panel_width(s, panel);
        const strided_steps steps = strided_point_steps(s->u_plane, s->slice_width * width);
        for (int64_t c = first; c < last; c++) {
            result.to = s->call->result + (slice * s->slice_width + c) * out_c +
                        panel * s->panel_columns;
            s->kernels->strided_result(STRIDED_SUMS, strided_panel_columns(s, panel),
                                       u + c * width, &steps, &result);
        }
    }
}

static int64_t slice_channels(const strided *s, int64_t slice) {
    return conv_min(s->source.channels - slice * s->slice_width, s->slice_width);
}

static void sum_piece(void *argument, int64_t piece, int worker) {
    const strided *s = argument;
    int64_t slice = piece % s->slices, chunk = piece / s->slices, first, last;
    resin_piece_bounds(s->bands, s->chunks, chunk, &first, &last);
    float *v = s->v + worker * s->v_size, *m = s->m + worker * s->panels * s->m_size;
    float *u = s->u + (s->chunks > 1 ? piece : worker) * u_size(s);
    int64_t step = s->block_tiles / s->band_tiles;
    for (int64_t band = first; band < last; band += step) {
        int64_t end = conv_min(band + step, last);
        int64_t tiles = strided_band_tile(s, end) - strided_band_tile(s, band);
        strided_transform_source(s, band, end, slice, v, worker);
        strided_transform_gradient(s, band, end, m, worker);
        for (int point = 0; point < STRIDED_PLANES; point++)
            add_products(s, point, slice_channels(s, slice), tiles, v + point * s->v_plane,
                         m + point * s->m_plane, u + point * s->u_plane, band == first);
    }
    if (s->chunks == 1) finish(s, slice, 0, slice_channels(s, slice), u);
}

/* Adds up a phase of u, of all chunks, where it is not zero. */
static void add_chunks(const strided *s, int64_t phase, int64_t first, int64_t last, float *u) {
    for (int point = 0; point < STRIDED_PLANES; point++) {
        if (phase / 2 >= strided_phases(point / STRIDED_POINTS)) continue;
        if (phase % 2 >= strided_phases(point % STRIDED_POINTS)) continue;
        for (int64_t panel = 0; panel < s->panels; panel++) {
            int64_t width = strided_panel_width(s, panel);
            float *part = u + point * s->u_plane + panel * s->u_panel +
                          (phase * s->slice_width + first) * width;
            s->kernels->column_sums(s->chunks, (last - first) * width, part,
                                    s->slices * u_size(s), part, false);
        }
    }
}

enum { FINISH_CHANNELS = 4 };

static void finish_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const strided *s = argument;
    int64_t parts = conv_divide_up(s->slice_width, FINISH_CHANNELS), slice = piece / parts;
    int64_t first = piece % parts * FINISH_CHANNELS;
    int64_t last = conv_min(first + FINISH_CHANNELS, slice_channels(s, slice));
    if (first >= last) return;
    float *u = s->u + slice * u_size(s);
    for (int64_t phase = 0; phase < 4; phase++) add_chunks(s, phase, first, last, u);
    finish(s, slice, first, last, u);
}

resin_status strided_run_weights(resin_context *context, strided *s) {
    int workers = resin_workers(context);
    int64_t vector = s->kernels->vector;
    int64_t channel = STRIDED_LINE * STRIDED_LINE * conv_round_up(s->out_c, vector);
    int64_t slice = conv_max(SLICE_FLOATS / channel / vector, 1) * vector;
    s->chunks = conv_min(conv_max(s->tiles / CHUNK_TILES, 1), MAXIMUM_CHUNKS);
    s->chunks += s->chunks > 1 ? s->chunks % 2 : 0; /* for even work */
    strided_cut(s, BLOCK_TILES, s->chunks * conv_divide_up(s->tiles, s->chunks * BLOCK_TILES),
                slice);
    s->u_panel = 4 * s->slice_width * s->panel_columns;
    s->u_plane = s->panels * s->u_panel + STRIDED_PAD;
    RESIN_TRY(conv_reserve(context, workers, s->v_size, &s->v));
    RESIN_TRY(conv_reserve(context, workers * s->panels, s->m_size, &s->m));
    RESIN_TRY(conv_reserve(context, s->chunks > 1 ? s->chunks * s->slices : workers, u_size(s),
                           &s->u));
    RESIN_TRY(strided_reserve_strips(context, s));
    resin_parallel(context, s->chunks * s->slices, sum_piece, s);
    if (s->chunks > 1)
        resin_parallel(context,
                       s->slices * conv_divide_up(s->slice_width, FINISH_CHANNELS),
                       finish_piece, s);
    return RESIN_OK;
}
