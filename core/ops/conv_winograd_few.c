/* conv_winograd_few.c: forward and backward-data by Winograd's method for few tiles, as the late
 * layers have at a small batch: most of the time goes by with the weights. Each worker makes all v for
 * itself; each piece sums some vectors of output channels over all input channels; the weights are
 * read once for a block of tiles, asked for ahead, and u is made in registers
 * (core/kernels/conv_winograd_few.c). */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_winograd.h"

/* The channels that the kernel takes at a time; those of a slice are cut from its beginning. */
typedef struct few_chunk {
    int64_t slice, place, first, count; /* `first` is channel `place` of the slice */
} few_chunk;

static int64_t slice_chunks(const winograd *w) {
    return conv_divide_up(conv_divide_up(w->in_c, w->slices), WINOGRAD_FEW_CHANNELS);
}

static few_chunk find_chunk(const winograd *w, int64_t chunk) {
    int64_t first, last, chunks = slice_chunks(w), slice = chunk / chunks;
    resin_piece_bounds(w->in_c, w->slices, slice, &first, &last);
    int64_t place = conv_min(chunk % chunks * WINOGRAD_FEW_CHANNELS, last - first);
    return (few_chunk){slice, place, first + place,
                       conv_min(last - first - place, WINOGRAD_FEW_CHANNELS)};
}

/* Prepared weights lie by panels and chunks as the kernel reads them. */
static int64_t chunk_floats(const winograd *w) {
    return 9 * WINOGRAD_FEW_CHANNELS * w->panel_columns;
}

/* The weights of a panel and chunk. */
static const float *chunk_weights(const winograd *w, int64_t panel, int64_t chunk) {
    if (!w->prepared) return winograd_weights_part(w, panel, find_chunk(w, chunk).first, 1).from;
    return w->prepared + (panel * w->slices * slice_chunks(w) + chunk) * chunk_floats(w);
}

/* The tiles of all images, but for those that the last `without` rows of tiles consist of. */
static winograd_list list_tiles(const winograd *w, int64_t without) {
    winograd_list list = {.tiles = 0};
    for (int narrow = 0; narrow < 2; narrow++) {
        for (int64_t tile = 0; tile < w->tiles; tile++) {
            int64_t row = tile / w->tiles_w % w->tiles_h, column = tile % w->tiles_w;
            if (narrow != (column >= w->tiles_w - w->narrow_w)) continue;
            if (row >= w->tiles_h - without) continue;
            list.v[list.tiles] = tile * WINOGRAD_ROW;
            list.m[list.tiles++] = tile * w->panel_columns;
        }
        if (!narrow) list.wide = list.tiles;
    }
    list.v[list.tiles] = 0;
    list.m[list.tiles] = w->tiles * w->panel_columns;
    return list;
}

static void few_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    winograd_list lists[2];
    int64_t panel = piece, panels = w->groups * w->panels, group = panel / w->panels;
    int64_t chunks = w->slices * slice_chunks(w);
    lists[0] = list_tiles(w, 0);
    lists[1] = list_tiles(w, w->narrow_h);
    float *scratch = w->u + worker * w->u_size, *m = w->m + worker * w->m_size;
    const float *v = winograd_own_v(w, group, worker);
    const winograd_part part = winograd_weights_part(w, panel, 0, w->in_c);
    bool laid = w->prepared != NULL;
    winograd_few call = {
        .all = &lists[0], .high = &lists[1], .columns = winograd_panel_columns(w, panel),
        .tap_step = laid ? chunk_floats(w) / 9 : part.tap_step,
        .row_step = laid ? w->panel_columns : part.row_step, .rotated = w->rotated, .laid = laid,
        .v_plane = w->block_tiles * WINOGRAD_ROW + WINOGRAD_LINE,
        .m = m, .m_plane = (w->tiles + 1) * w->panel_columns + WINOGRAD_LINE};
    for (int64_t i = 0; i < chunks; i++) {
        few_chunk chunk = find_chunk(w, i);
        if (chunk.count == 0) continue;
        call.channels = chunk.count;
        call.v = v + chunk.slice * w->v_size + chunk.place;
        call.weights = chunk_weights(w, panel, i);
        call.next = i + 1 < chunks ? chunk_weights(w, panel, i + 1)
                                   : chunk_weights(w, conv_min(panel + 1, panels - 1), 0);
        call.accumulate = i > 0;
        call.last = chunk.first + chunk.count == w->in_c;
        w->kernels->winograd_few(&call, scratch);
    }
    winograd_transform_result(w, 0, w->bands, panel, m, w->panel_columns, call.m_plane);
}

/* Where tiles of four outputs would reach beyond the image, some at the end take three, which
 * spares each of them a point: 14 = 4 + 4 + 3 + 3. */
static int64_t narrow_tiles(int64_t outputs, int64_t tiles) {
    return conv_min(4 * tiles - outputs, tiles);
}

static void cut_for_few(winograd *w) {
    w->narrow_h = narrow_tiles(w->tiled_h, w->tiles_h);
    w->narrow_w = narrow_tiles(w->tiled_w, w->tiles_w);
    w->panel_columns = w->kernels->few_columns;
    w->panels = conv_divide_up(w->out_c, w->panel_columns);
    winograd_cut(w, w->tiles); /* one block */
    winograd_slice(w, false);
    w->slice_width = WINOGRAD_ROW;
}

typedef struct prepare_job {
    const winograd *w;
    float *to;
} prepare_job;

static void prepare_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const prepare_job *job = argument;
    const winograd *w = job->w;
    int64_t chunks = w->slices * slice_chunks(w), panel = piece / chunks;
    few_chunk chunk = find_chunk(w, piece % chunks);
    const winograd_part part = winograd_weights_part(w, panel, chunk.first, chunk.count);
    float *to = job->to + piece * chunk_floats(w);
    for (int64_t tap = 0; tap < 9; tap++) {
        w->kernels->pack(chunk.count, part.floats, part.from + tap * part.tap_step, part.row_step,
                         false, to + tap * (chunk_floats(w) / 9), w->panel_columns);
    }
}

int64_t winograd_few_floats(winograd *w) {
    cut_for_few(w);
    return w->groups * w->panels * w->slices * slice_chunks(w) * chunk_floats(w);
}

void winograd_few_prepare(resin_context *context, winograd *w, float *to) {
    prepare_job job = {w, to};
    cut_for_few(w);
    resin_parallel(context, w->groups * w->panels * w->slices * slice_chunks(w), prepare_piece,
                   &job);
}

resin_status winograd_run_few(resin_context *context, winograd *w) {
    int workers = resin_workers(context);
    cut_for_few(w);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + WINOGRAD_LINE);
    w->u_size = WINOGRAD_FEW_SCRATCH * w->panel_columns;
    w->m_size = WINOGRAD_POINTS * ((w->tiles + 1) * w->panel_columns + WINOGRAD_LINE);
    RESIN_TRY(winograd_reserve_own_v(context, w));
    RESIN_TRY(conv_reserve(context, workers, w->u_size, &w->u));
    RESIN_TRY(conv_reserve(context, workers, w->m_size, &w->m));
    resin_parallel(context, w->groups * w->panels, few_piece, w);
    return RESIN_OK;
}
