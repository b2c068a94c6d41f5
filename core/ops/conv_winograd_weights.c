/* conv_winograd_weights.c: backward-weights by Winograd's method:
 * dw = G^T [ sum over tiles (B^T d B) . (A dy A^T) ] G, the adjoint of the forward pass.
 * m is kept by panels: m_size floats each. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_winograd.h"

enum {
    LARGE_SUMS = 1 << 18,        /* floats of du above which it is not summed by chunks */
    MAXIMUM_CHUNKS = 16,
    CHUNK_TILES = 112,           /* tiles a chunk has at least */
    SUPERBLOCK_FLOATS = 5 << 20, /* v and m of the tiles that are under way at a time */
    TRANSFORM_TILES = 8          /* tiles a piece transforms at least */
};

/* ---- By chunks ------------------------------------------------------------------------------- */

bool winograd_takes_chunks(int64_t in_c, int64_t out_c) {
    return WINOGRAD_POINTS * in_c * out_c <= LARGE_SUMS;
}

static float *chunk_du(const winograd *w, int64_t chunk, int64_t panel) {
    return w->u + chunk * w->u_size + panel * WINOGRAD_POINTS * winograd_u_plane(w);
}

resin_status winograd_reserve_chunks(resin_context *context, winograd *w) {
    w->chunks = conv_min(resin_piece_count(w->bands, conv_divide_up(CHUNK_TILES, w->band_tiles)),
                         conv_divide_up(MAXIMUM_CHUNKS, w->bundles));
    w->u_size = w->groups * w->panels * WINOGRAD_POINTS * winograd_u_plane(w);
    return conv_reserve(context, w->chunks, w->u_size, &w->u);
}

void winograd_add_to_chunk(const winograd *w, int64_t chunk, int64_t panel, int64_t count,
                           const float *v, const float *m, bool begin,
                           const winograd_ahead *ahead) {
    int64_t row = w->slice_width, plane = w->block_tiles * row + WINOGRAD_LINE;
    int64_t width = winograd_panel_width(w, panel);
    int64_t m_plane = w->block_tiles * width + WINOGRAD_LINE;
    float *du = chunk_du(w, chunk, panel);
    v += winograd_group_channel(w, panel);
    for (int point = 0; point < WINOGRAD_POINTS; point++) {
        if (ahead) winograd_fetch(ahead, point);
        w->kernels->product(w->in_c, (int)width, count, v + point * plane, row, true,
                            m + point * m_plane, width, du + point * winograd_u_plane(w), width,
                            !begin);
    }
}

static void chunk_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t row = w->slice_width, plane = w->block_tiles * row + WINOGRAD_LINE;
    int64_t chunk = piece % w->chunks, first, last, group, group_last;
    resin_piece_bounds(w->bands, w->chunks, chunk, &first, &last);
    winograd_bundle_bounds(w, piece / w->chunks, &group, &group_last);
    float *v = w->v + worker * w->v_size, *m = w->m + worker * w->m_size;
    int64_t step = w->block_tiles / w->band_tiles;
    for (int64_t band = first; band < last; band += step) {
        int64_t end = conv_min(band + step, last);
        int64_t count = winograd_band_tile(w, end) - winograd_band_tile(w, band);
        winograd_transform_source(w, band, end, group * w->in_c, (group_last - group) * w->in_c, v,
                                  row, plane, worker);
        for (int64_t panel = group * w->panels; panel < group_last * w->panels; panel++) {
            int64_t width = winograd_panel_width(w, panel);
            winograd_transform_gradient(w, band, end, panel, m, width,
                                        w->block_tiles * width + WINOGRAD_LINE, worker);
            winograd_add_to_chunk(w, chunk, panel, count, v, m, band == first, NULL);
        }
    }
}

static void chunk_sum_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const winograd *w = argument;
    int64_t slices = resin_piece_count(w->in_c, 8), panel = piece / slices, first, last;
    int64_t width = winograd_panel_width(w, panel);
    resin_piece_bounds(w->in_c, slices, piece % slices, &first, &last);
    float *du = chunk_du(w, 0, panel) + first * width;
    for (int point = 0; point < WINOGRAD_POINTS; point++) {
        float *part = du + point * winograd_u_plane(w);
        w->kernels->column_sums(w->chunks, (last - first) * width, part, w->u_size, part, false);
    }
    winograd_weights_result(w, panel, first, last - first, du, winograd_u_plane(w));
}

void winograd_finish_chunks(resin_context *context, winograd *w) {
    resin_parallel(context, w->groups * w->panels * resin_piece_count(w->in_c, 8),
                   chunk_sum_piece, w);
}

static resin_status run_chunks(resin_context *context, winograd *w) {
    const conv_kernels *kernels = w->kernels;
    int workers = resin_workers(context);
    winograd_cut(w, winograd_block_tiles(kernels));
    winograd_slice(w, true);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + WINOGRAD_LINE);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * kernels->block_columns + WINOGRAD_LINE);
    RESIN_TRY(winograd_reserve_chunks(context, w));
    RESIN_TRY(conv_reserve(context, workers, w->v_size, &w->v));
    RESIN_TRY(conv_reserve(context, workers, w->m_size, &w->m));
    RESIN_TRY(winograd_reserve_strips(context, w));
    resin_parallel(context, w->bundles * w->chunks, chunk_piece, w);
    winograd_finish_chunks(context, w);
    return RESIN_OK;
}

/* ---- By superblocks: v and m of as many groups and tiles as the cache of the processor holds are
 * made first, then each piece sums one slice of channels and one panel over all of them. --------- */

static int64_t transform_groups(const winograd *w) {
    return resin_piece_count(w->some_bands, conv_divide_up(TRANSFORM_TILES, w->band_tiles));
}

static int64_t tiles_between(const winograd *w, int64_t first, int64_t last) {
    return winograd_band_tile(w, last) - winograd_band_tile(w, first);
}

static void superblock_transform_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t slices = w->some_groups * w->slices, parts = slices + w->some_groups * w->panels;
    int64_t part = piece % parts, first, last;
    resin_piece_bounds(w->some_bands, transform_groups(w), piece / parts, &first, &last);
    first += w->first_band;
    last += w->first_band;
    int64_t before = tiles_between(w, w->first_band, first);
    if (part < slices) {
        int64_t channel, channel_last, row = w->slice_width;
        winograd_slice_bounds(w, w->first_group * w->slices + part, &channel, &channel_last);
        winograd_transform_source(w, first, last, channel, channel_last - channel,
                                  w->v + part * w->v_size + before * row, row,
                                  w->block_tiles * row + WINOGRAD_LINE, worker);
    } else {
        int64_t panel = w->first_group * w->panels + part - slices;
        int64_t width = winograd_panel_width(w, panel);
        winograd_transform_gradient(w, first, last, panel,
                                    w->m + (part - slices) * w->m_size + before * width, width,
                                    w->block_tiles * width + WINOGRAD_LINE, worker);
    }
}

static void superblock_product_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t some_panel = piece / w->slices, slice = piece % w->slices, channel, channel_last;
    int64_t group = some_panel / w->panels, panel = w->first_group * w->panels + some_panel;
    resin_piece_bounds(w->in_c, w->slices, slice, &channel, &channel_last);
    int64_t channels = channel_last - channel, width = winograd_panel_width(w, panel);
    int64_t tiles = tiles_between(w, w->first_band, w->first_band + w->some_bands);
    const float *v = w->v + (group * w->slices + slice) * w->v_size;
    const float *m = w->m + some_panel * w->m_size;
    float *du = w->u + (w->some_bands == w->bands ? worker : piece) * w->u_size;
    int64_t v_plane = w->block_tiles * w->slice_width + WINOGRAD_LINE;
    int64_t m_plane = w->block_tiles * width + WINOGRAD_LINE;
    int64_t du_plane = w->slice_width * width + WINOGRAD_LINE;
    for (int point = 0; point < WINOGRAD_POINTS; point++) {
        w->kernels->product(channels, (int)width, tiles, v + point * v_plane, w->slice_width, true,
                            m + point * m_plane, width, du + point * du_plane, width,
                            w->first_band > 0);
    }
    if (w->last) winograd_weights_result(w, panel, channel, channels, du, du_plane);
}

/* All superblocks of the groups that are under way. */
static void run_some_groups(resin_context *context, winograd *w) {
    for (int64_t block = 0; block < w->blocks; block++) {
        int64_t last;
        resin_piece_bounds(w->bands, w->blocks, block, &w->first_band, &last);
        w->some_bands = last - w->first_band;
        w->last = block == w->blocks - 1;
        resin_parallel(context, transform_groups(w) * w->some_groups * (w->slices + w->panels),
                       superblock_transform_piece, w);
        resin_parallel(context, w->some_groups * w->slices * w->panels, superblock_product_piece,
                       w);
    }
}

static resin_status run_superblocks(resin_context *context, winograd *w) {
    const conv_kernels *kernels = w->kernels;
    winograd_slice(w, false);
    int64_t columns = w->slices * w->slice_width + w->panels * kernels->block_columns;
    int64_t most = conv_max(SUPERBLOCK_FLOATS / (WINOGRAD_POINTS * columns), TRANSFORM_TILES);
    winograd_cut(w, winograd_block_tiles(kernels));
    w->blocks = conv_divide_up(w->bands, conv_max(most / w->band_tiles, 1));
    w->block_tiles = conv_divide_up(w->bands, w->blocks) * w->band_tiles;
    int64_t groups = w->blocks > 1 ? 1 : conv_min(conv_max(most / w->tiles, 1), w->groups);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + WINOGRAD_LINE);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * kernels->block_columns + WINOGRAD_LINE);
    w->u_size = WINOGRAD_POINTS * (w->slice_width * kernels->block_columns + WINOGRAD_LINE);
    RESIN_TRY(conv_reserve(context, groups * w->slices, w->v_size, &w->v));
    RESIN_TRY(conv_reserve(context, groups * w->panels, w->m_size, &w->m));
    RESIN_TRY(conv_reserve(context,
                           w->blocks == 1 ? resin_workers(context) : w->slices * w->panels,
                           w->u_size, &w->u));
    RESIN_TRY(winograd_reserve_strips(context, w));
    for (; w->first_group < w->groups; w->first_group += groups) {
        w->some_groups = conv_min(w->groups - w->first_group, groups);
        run_some_groups(context, w);
    }
    return RESIN_OK;
}

resin_status winograd_run_weights(resin_context *context, winograd *w) {
    return winograd_takes_chunks(w->in_c, w->out_c) ? run_chunks(context, w)
                                                    : run_superblocks(context, w);
}
