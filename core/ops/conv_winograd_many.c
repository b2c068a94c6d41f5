/* conv_winograd_many.c: forward and backward-data by Winograd's method for many channels and tiles.
 * After all v, some panels at a time: their u, which the processor's last cache holds; then for each
 * point and block of tiles the product over all input channels, where both matrices stay in a
 * worker's second-level cache and the sums in registers; then their outputs, while the next u is
 * made. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_winograd.h"

enum {
    MANY_TILES = 98,           /* of a block, about */
    ENOUGH_TILES = 196,        /* for u to be worth writing */
    STAGE_FLOATS = 5 << 20,    /* of u that is under way at a time, at most */
    WEIGHT_CHANNELS = 16,      /* that a piece transforms at least */
    OUTPUT_TILES = 8           /* and of which it makes the outputs */
};

typedef struct many {
    winograd *w;
    int64_t stage, stages; /* the panels whose u is under way, and how many such parts there are */
} many;

static void stage_bounds(const many *run, int64_t stage, int64_t *first, int64_t *last) {
    resin_piece_bounds(run->w->panels, run->stages, stage, first, last);
}

static void transform_u(const many *run, int64_t piece) {
    const winograd *w = run->w;
    int64_t parts = resin_piece_count(w->in_c, WEIGHT_CHANNELS), part = piece % parts;
    int64_t first, last, channel, channel_last;
    stage_bounds(run, run->stage, &first, &last);
    resin_piece_bounds(w->in_c, parts, part, &channel, &channel_last);
    int64_t panel = first + piece / parts;
    winograd_transform_weights(w, panel, channel, channel_last - channel,
                               w->u + piece / parts * w->u_size +
                                   channel * winograd_panel_width(w, panel),
                               winograd_u_plane(w));
}

static float *panel_m(const winograd *w, int64_t panel, int64_t block) {
    return w->m + (panel * w->blocks + block) * w->m_size;
}

static int64_t output_parts(const winograd *w) {
    return resin_piece_count(w->block_tiles / w->band_tiles,
                             conv_divide_up(OUTPUT_TILES, w->band_tiles));
}

/* The outputs of the stage before. */
static void transform_m(const many *run, int64_t piece) {
    const winograd *w = run->w;
    int64_t parts = output_parts(w), block = piece / parts % w->blocks;
    int64_t panel = piece / parts / w->blocks;
    int64_t first, last, begin, end, from, to;
    stage_bounds(run, run->stage - 1, &first, &last);
    resin_piece_bounds(w->bands, w->blocks, block, &begin, &end);
    resin_piece_bounds(end - begin, parts, piece % parts, &from, &to);
    int64_t before = winograd_band_tile(w, begin + from) - winograd_band_tile(w, begin);
    int64_t width = winograd_panel_width(w, first + panel);
    winograd_transform_result(w, begin + from, begin + to, first + panel,
                              panel_m(w, panel, block) + before * width, width,
                              w->block_tiles * width + WINOGRAD_LINE);
}

static int64_t u_pieces(const many *run) {
    int64_t first, last;
    if (run->stage == run->stages) return 0;
    stage_bounds(run, run->stage, &first, &last);
    return (last - first) * resin_piece_count(run->w->in_c, WEIGHT_CHANNELS);
}

static int64_t m_pieces(const many *run) {
    int64_t first, last;
    if (run->stage == 0) return 0;
    stage_bounds(run, run->stage - 1, &first, &last);
    return (last - first) * run->w->blocks * output_parts(run->w);
}

static void transform_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const many *run = argument;
    int64_t outputs = m_pieces(run);
    if (piece < outputs) transform_m(run, piece);
    else transform_u(run, piece - outputs);
}

/* Asks for a part of the rows of v that another block has at a point. */
static inline __attribute__((always_inline)) void ask(const winograd *w, int64_t point,
                                                      int64_t block, int64_t part,
                                                      int64_t parts) {
    int64_t lines = w->block_tiles * w->slice_width / WINOGRAD_LINE;
    int64_t plane = w->block_tiles * w->slice_width + WINOGRAD_LINE;
    for (int64_t slice = 0; slice < w->slices; slice++) {
        const float *v = winograd_slice_v(w, slice, block) + point * plane;
        for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; line++)
            __builtin_prefetch(v + line * WINOGRAD_LINE, 0, 2);
    }
}

static void product_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const many *run = argument;
    const winograd *w = run->w;
    int64_t point = piece / w->blocks, block = piece % w->blocks, first, last, begin, end;
    int64_t next = (piece + 1) % (WINOGRAD_POINTS * w->blocks);
    stage_bounds(run, run->stage, &first, &last);
    resin_piece_bounds(w->bands, w->blocks, block, &begin, &end);
    int64_t tiles = winograd_band_tile(w, end) - winograd_band_tile(w, begin);
    int64_t parts = conv_divide_up(tiles, w->kernels->block_rows);
    int64_t row = w->slice_width, plane = w->block_tiles * row + WINOGRAD_LINE;
    for (int64_t panel = first; panel < last; panel++) {
        int64_t width = winograd_panel_width(w, panel);
        const float *u = w->u + (panel - first) * w->u_size + point * winograd_u_plane(w);
        for (int64_t part = 0; part < parts; part++) {
            int64_t from = tiles * part / parts, to = tiles * (part + 1) / parts;
            float *m = panel_m(w, panel - first, block) + from * width +
                       point * (w->block_tiles * width + WINOGRAD_LINE);
            const float *v = winograd_slice_v(w, 0, block) + point * plane + from * row;
            ask(w, next / w->blocks, next % w->blocks, (panel - first) * parts + part,
                (last - first) * parts);
            if (w->in_c == w->slices * row) {
                w->kernels->product_segments(w->slices, w->blocks * w->v_size, row * width,
                                             to - from, (int)width, row, v, row, false, u, width,
                                             m, width, false, NULL);
                continue;
            }
            for (int64_t slice = 0; slice < w->slices; slice++) {
                int64_t channel, channel_last;
                resin_piece_bounds(w->in_c, w->slices, slice, &channel, &channel_last);
                w->kernels->product(to - from, (int)width, channel_last - channel,
                                    v + slice * w->blocks * w->v_size, row, false,
                                    u + channel * width, width, m, width, slice > 0);
            }
        }
    }
}

bool winograd_is_many(const winograd *w) {
    return w->groups == 1 && w->tiles >= ENOUGH_TILES;
}

resin_status winograd_run_many(resin_context *context, winograd *w) {
    many run = {.w = w};
    winograd_cut(w, MANY_TILES);
    winograd_slice(w, false);
    w->some_groups = 1;
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + WINOGRAD_LINE);
    w->u_size = WINOGRAD_POINTS * winograd_u_plane(w);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * w->panel_columns + WINOGRAD_LINE);
    int64_t panels = conv_min(conv_max(STAGE_FLOATS / w->u_size, 1), conv_divide_up(w->panels, 2));
    run.stages = conv_divide_up(w->panels, panels);
    RESIN_TRY(winograd_reserve_v(context, w));
    RESIN_TRY(conv_reserve(context, panels, w->u_size, &w->u));
    RESIN_TRY(conv_reserve(context, panels * w->blocks, w->m_size, &w->m));
    winograd_make_v(context, w, 1);
    for (; run.stage <= run.stages; run.stage++) {
        resin_parallel(context, m_pieces(&run) + u_pieces(&run), transform_piece, &run);
        if (run.stage < run.stages)
            resin_parallel(context, WINOGRAD_POINTS * w->blocks, product_piece, &run);
    }
    return RESIN_OK;
}
