/* conv_winograd.c: 3x3 convolution by Winograd's F(4x4, 3x3), 5x5 by F(2x2, 5x5): forward and
 * backward-data.
 *
 * An output is cut into tiles of 4x4. With d the 6x6 input pixels of a tile, w the weights of one
 * pair of channels,   y = A^T [ sum over channels (G w G^T) . (B^T d B) ] A   (Lavin and Gray,
 * 2016): at each of the 36 points of the transformed tile a matrix product over channels remains,
 * 36 multiplications for 16 outputs where the plain sum has 144. 5x5 has tiles of 2x2 and the same
 * B: 36 multiplications for 4 outputs instead of 100. Backward-data is the same with the weights
 * rotated and transposed and padding 2 - p (4 - p); backward-weights is in
 * conv_winograd_weights.c.
 *
 * The images pass in one of four ways (conv_winograd.h has the names), each group or bundle of
 * groups on its own:
 *   by blocks: a block of tiles is transformed, multiplied and transformed back by one worker, and
 *     its v and m stay in its second-level cache; u is made before, once for all, and stays in the
 *     processor's last cache;
 *   by slices, for few tiles, where u would be larger than the work: first all v, in slices of
 *     channels (of a single block by each worker for itself); then each piece makes u of one panel
 *     and one slice after the other and adds up m of many tiles. u never goes to memory;
 *   few tiles: conv_winograd_few.c; many tiles and channels: conv_winograd_many.c. */
#include "core/ops/conv_winograd.h"

#include "core/base/memory.h"
#include "core/base/threads.h"

#include <string.h>

enum {
    SLICE_TILES = 84,       /* tiles a piece takes when working by slices, about */
    TRANSFORM_TILES = 8,    /* tiles a piece transforms at least */
    LARGE_WEIGHTS = 3 << 18, /* floats of u that are worth making for many tiles only */
    HUGE_WEIGHTS = 3 << 20, /* and those that the last cache does not keep for blocks */
    SOME_FLOATS = 2 << 20,  /* of v, of the groups that are under way at a time */
    FEW_BLOCKS = 32,        /* as many are a multiple of EVEN_BLOCKS, for even work */
    EVEN_BLOCKS = 4,
    WATCHED_BLOCKS = 8,
    BUNDLE_CHANNELS = 64,   /* of a bundle of groups, about */
    BLOCK_PIECES = 64,      /* blocks come some at a time: one asks for the pixels of the next */
};

/* ---- By blocks ------------------------------------------------------------------------------- */

int64_t winograd_block_tiles(const conv_kernels *kernels) { return 2 * kernels->block_rows; }

static void block_weights_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const winograd *w = argument;
    int64_t slices = resin_piece_count(w->in_c, 16), panel = piece / slices, first, last;
    resin_piece_bounds(w->in_c, slices, piece % slices, &first, &last);
    winograd_transform_weights(w, panel, first, last - first,
                               w->u + panel * w->u_size + first * winograd_panel_width(w, panel),
                               winograd_u_plane(w));
}

resin_status winograd_make_u(resin_context *context, winograd *w) {
    int64_t panels = w->groups * w->panels;
    w->u_size = WINOGRAD_POINTS * winograd_u_plane(w);
    RESIN_TRY(conv_reserve(context, panels, w->u_size, &w->u));
    resin_parallel(context, panels * resin_piece_count(w->in_c, 16), block_weights_piece, w);
    return RESIN_OK;
}

/* The row of pixels that a band begins with, counted through all images of that height; with
 * winograd.cuts = 1 those of bands side by side follow one another. */
static int64_t first_row(const winograd *w, int64_t band, int64_t height) {
    return band / w->tiles_h * height + w->outputs * (band % w->tiles_h);
}

/* Some channels of rows of pixels of one image after the other: from the first row of tiles of bands
 * [first, last) to the first of those behind. */
static void ask(winograd_ahead *ahead, const winograd *w, const float *image, int64_t height,
                int64_t width, int64_t step, int64_t channels, int64_t first, int64_t last) {
    if (w->cuts > 1 || first >= last) return;
    int64_t begin = first_row(w, first, height), end = first_row(w, last, height);
    int64_t pixels = (end - begin) * width, lines = conv_divide_up(channels, WINOGRAD_LINE);
    begin *= width * step;
    if (channels == step) { /* without gaps */
        pixels = pixels * step / WINOGRAD_LINE;
        step = WINOGRAD_LINE;
        lines = 1;
    }
    ahead->rows[ahead->count++] =
        (struct winograd_rows){image + begin, pixels, step, lines};
}

void winograd_ask_source(winograd_ahead *ahead, const winograd *w, int64_t bundle, int64_t first,
                         int64_t last) {
    const conv_source *source = &w->source;
    int64_t group, group_last;
    winograd_bundle_bounds(w, bundle, &group, &group_last);
    int64_t channel = group * w->in_c, channels = group_last * w->in_c - channel;
    ask(ahead, w, source->image.pixels + channel, source->height, source->width, source->channels,
        channels, first, last);
    if (source->norm)
        ask(ahead, w, source->norm->x + channel, source->height, source->width, source->channels,
            channels, first, last);
}

void winograd_ask_result(winograd_ahead *ahead, const winograd *w, int64_t bundle, int64_t first,
                         int64_t last) {
    int64_t group, group_last;
    winograd_bundle_bounds(w, bundle, &group, &group_last);
    int64_t channel = group * w->out_c, channels = group_last * w->out_c - channel;
    ask(ahead, w, w->result + channel, w->tiled_h, w->tiled_w, w->result_c, channels, first, last);
    const float *read = w->call->epilogue ? w->call->epilogue->shortcut : NULL;
    if (w->watch && w->watch->reads) read = w->watch->reads;
    if (read)
        ask(ahead, w, read + channel, w->tiled_h, w->tiled_w, w->result_c, channels, first, last);
}

resin_status winograd_begin_watch(winograd *w, int64_t pieces) {
    if (w->cuts > 1 || w->bundles > 1) w->watch = NULL;
    return w->watch ? w->watch->begin(w->watch, w->result, w->result_c, pieces) : RESIN_OK;
}

void winograd_show(const winograd *w, int64_t piece, int64_t first, int64_t last, int worker) {
    if (!w->watch) return;
    int64_t begin = first_row(w, first, w->tiled_h), end = first_row(w, last, w->tiled_h);
    w->watch->pixels(w->watch, piece, begin * w->tiled_w, (end - begin) * w->tiled_w, worker);
}

void winograd_multiply(const winograd *w, int64_t first, int64_t last, int64_t panel,
                       const float *v, float *m, const winograd_ahead *ahead) {
    int64_t count = winograd_band_tile(w, last) - winograd_band_tile(w, first);
    int64_t row = w->slice_width, plane = w->block_tiles * row + WINOGRAD_LINE;
    int64_t width = winograd_panel_width(w, panel);
    int64_t m_plane = w->block_tiles * width + WINOGRAD_LINE;
    const float *u = w->u + panel * w->u_size;
    v += winograd_group_channel(w, panel);
    int64_t u_plane = winograd_u_plane(w);
    for (int point = 0; point < WINOGRAD_POINTS; point++) {
        if (ahead) winograd_fetch(ahead, point);
        w->kernels->product(count, (int)width, w->in_c, v + point * plane, row, false,
                            u + point * u_plane, width, m + point * m_plane, width, false);
    }
}

/* A block of a bundle; blocks are counted through all bundles. */
static void run_block(const winograd *w, int64_t block, bool go_on, int worker) {
    int64_t first, last, next, next_last, group, group_last, row = w->slice_width;
    int64_t bundle = block / w->blocks;
    resin_piece_bounds(w->bands, w->blocks, block % w->blocks, &first, &last);
    winograd_bundle_bounds(w, bundle, &group, &group_last);
    winograd_ahead ahead = {.count = 0};
    winograd_ask_result(&ahead, w, bundle, first, last);
    if (go_on) {
        resin_piece_bounds(w->bands, w->blocks, (block + 1) % w->blocks, &next, &next_last);
        winograd_ask_source(&ahead, w, (block + 1) / w->blocks, next, next_last);
    }
    float *v = w->v + worker * w->v_size, *m = w->m + worker * w->m_size;
    winograd_transform_source(w, first, last, group * w->in_c, (group_last - group) * w->in_c, v,
                              row, w->block_tiles * row + WINOGRAD_LINE, worker);
    for (int64_t panel = group * w->panels; panel < group_last * w->panels; panel++) {
        int64_t width = winograd_panel_width(w, panel);
        winograd_multiply(w, first, last, panel, v, m,
                          panel == group * w->panels ? &ahead : NULL);
        winograd_transform_result(w, first, last, panel, m, width,
                                  w->block_tiles * width + WINOGRAD_LINE);
    }
}

static void block_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t first, last;
    int64_t blocks = w->bundles * w->blocks;
    resin_piece_bounds(blocks, conv_min(blocks, BLOCK_PIECES), piece, &first, &last);
    for (int64_t block = first; block < last; block++) {
        int64_t band, end;
        run_block(w, block, block + 1 < last, worker);
        resin_piece_bounds(w->bands, w->blocks, block, &band, &end);
        winograd_show(w, piece, band, end, worker);
    }
}

static resin_status run_blocks(resin_context *context, winograd *w) {
    const conv_kernels *kernels = w->kernels;
    int workers = resin_workers(context);
    winograd_cut(w, winograd_block_tiles(kernels));
    if (w->bundles * w->blocks < FEW_BLOCKS)
        w->blocks = conv_min(conv_round_up(w->blocks, EVEN_BLOCKS), w->bands);
    winograd_slice(w, true);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + WINOGRAD_LINE);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * kernels->block_columns + WINOGRAD_LINE);
    RESIN_TRY(conv_reserve(context, workers, w->v_size, &w->v));
    RESIN_TRY(conv_reserve(context, workers, w->m_size, &w->m));
    RESIN_TRY(winograd_reserve_strips(context, w));
    RESIN_TRY(winograd_make_u(context, w));
    /* A result of few blocks stays in a cache anyhow; summing it in a pass of its own keeps
     * checkpoints of small images equal bit for bit. */
    if (w->tiles * w->bundles < WATCHED_BLOCKS * winograd_block_tiles(kernels)) w->watch = NULL;
    RESIN_TRY(winograd_begin_watch(w, conv_min(w->blocks, BLOCK_PIECES)));
    resin_parallel(context, conv_min(w->bundles * w->blocks, BLOCK_PIECES), block_piece, w);
    return RESIN_OK;
}

/* ---- By slices. v has a part for each slice and each block of tiles. -------------------------- */

float *winograd_slice_v(const winograd *w, int64_t slice, int64_t block) {
    return w->v + (slice * w->blocks + block) * w->v_size;
}

/* Pieces that the transform of one block is cut into. */
static int64_t block_groups(const winograd *w) {
    return resin_piece_count(w->block_tiles / w->band_tiles,
                             conv_divide_up(TRANSFORM_TILES, w->band_tiles));
}

static void slice_source_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t groups = block_groups(w), group = piece % groups, block = piece / groups % w->blocks;
    int64_t slice = piece / groups / w->blocks, row = w->slice_width;
    int64_t channel, channel_last, first, last, from, to;
    winograd_slice_bounds(w, w->first_group * w->slices + slice, &channel, &channel_last);
    resin_piece_bounds(w->bands, w->blocks, block, &first, &last);
    resin_piece_bounds(last - first, groups, group, &from, &to);
    int64_t before = winograd_band_tile(w, first + from) - winograd_band_tile(w, first);
    winograd_transform_source(w, first + from, first + to, channel, channel_last - channel,
                              winograd_slice_v(w, slice, block) + before * row, row,
                              w->block_tiles * row + WINOGRAD_LINE, worker);
}

resin_status winograd_reserve_v(resin_context *context, winograd *w) {
    RESIN_TRY(conv_reserve(context, w->some_groups * w->slices * w->blocks, w->v_size, &w->v));
    return winograd_reserve_strips(context, w);
}

void winograd_make_v(resin_context *context, const winograd *w, int64_t groups) {
    resin_parallel(context, groups * w->slices * w->blocks * block_groups(w), slice_source_piece,
                   (void *)w);
}

resin_status winograd_reserve_own_v(resin_context *context, winograd *w) {
    int workers = resin_workers(context);
    RESIN_TRY(conv_reserve(context, workers, w->slices * w->v_size, &w->v));
    RESIN_TRY(resin_allocate(context, (size_t)(workers * WINOGRAD_LINE) * sizeof *w->made,
                             (void **)&w->made));
    for (int worker = 0; worker < workers; worker++) w->made[worker * WINOGRAD_LINE] = -1;
    return winograd_reserve_strips(context, w);
}

const float *winograd_own_v(const winograd *w, int64_t group, int worker) {
    float *v = w->v + worker * w->slices * w->v_size;
    int64_t *made = w->made + worker * WINOGRAD_LINE, row = w->slice_width;
    for (int64_t slice = 0; slice < w->slices && *made != group; slice++) {
        int64_t first, last;
        winograd_slice_bounds(w, group * w->slices + slice, &first, &last);
        winograd_transform_source(w, 0, w->bands, first, last - first, v + slice * w->v_size, row,
                                  w->block_tiles * row + WINOGRAD_LINE, worker);
    }
    *made = group;
    return v;
}

/* Asks for weights, a part of the rows of all taps at each point. In line, as winograd_fetch. */
static inline __attribute__((always_inline)) void fetch_weights(const winograd_part *part,
                                                                int64_t taps, int point) {
    int64_t rows = taps * part->rows, last = rows * (point + 1) / WINOGRAD_POINTS;
    for (int64_t i = rows * point / WINOGRAD_POINTS; i < last; i++) {
        const float *row = part->from + i / part->rows * part->tap_step +
                           i % part->rows * part->row_step;
        for (int64_t line = 0; line < part->floats; line += WINOGRAD_LINE)
            __builtin_prefetch(row + line, 0, 2);
    }
}

/* The weights that a worker transforms after those of a piece and a slice. */
static winograd_part next_weights(const winograd *w, int64_t piece, int64_t slice) {
    int64_t channel, channel_last;
    if (++slice == w->slices) {
        slice = 0;
        piece = conv_min(piece + 1, w->some_groups * w->panels * w->blocks - 1);
    }
    int64_t panel = w->first_group * w->panels + piece / w->blocks;
    resin_piece_bounds(w->in_c, w->slices, slice, &channel, &channel_last);
    return winograd_weights_part(w, conv_min(panel, w->groups * w->panels - 1), channel,
                                 channel_last - channel);
}

static void slice_product_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t panel = piece / w->blocks, block = piece % w->blocks, first, last;
    int64_t first_slice = panel / w->panels * w->slices; /* of what is under way */
    panel += w->first_group * w->panels;
    resin_piece_bounds(w->bands, w->blocks, block, &first, &last);
    int64_t count = winograd_band_tile(w, last) - winograd_band_tile(w, first);
    int64_t width = winograd_panel_width(w, panel);
    int64_t v_plane = w->block_tiles * w->slice_width + WINOGRAD_LINE;
    int64_t u_plane = w->slice_width * width + WINOGRAD_LINE;
    int64_t m_plane = w->block_tiles * width + WINOGRAD_LINE;
    float *u = w->u + worker * w->u_size, *m = w->m + worker * w->m_size;
    const float *own = w->made ? winograd_own_v(w, panel / w->panels, worker) : NULL;
    for (int64_t slice = 0; slice < w->slices; slice++) {
        int64_t channel, channel_last;
        resin_piece_bounds(w->in_c, w->slices, slice, &channel, &channel_last);
        winograd_transform_weights(w, panel, channel, channel_last - channel, u, u_plane);
        const float *v = own ? own + slice * w->v_size
                             : winograd_slice_v(w, first_slice + slice, block);
        const winograd_part next = next_weights(w, piece, slice);
        for (int point = 0; point < WINOGRAD_POINTS; point++) {
            fetch_weights(&next, w->taps * w->taps, point);
            w->kernels->product(count, (int)width, channel_last - channel, v + point * v_plane,
                                w->slice_width, false, u + point * u_plane, width,
                                m + point * m_plane, width, slice > 0);
        }
    }
    winograd_transform_result(w, first, last, panel, m, width, m_plane);
}

static resin_status run_slices(resin_context *context, winograd *w) {
    const conv_kernels *kernels = w->kernels;
    int workers = resin_workers(context);
    winograd_cut(w, SLICE_TILES);
    winograd_slice(w, false);
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + WINOGRAD_LINE);
    w->u_size = WINOGRAD_POINTS * (w->slice_width * kernels->block_columns + WINOGRAD_LINE);
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * kernels->block_columns + WINOGRAD_LINE);
    bool own = w->blocks == 1;
    int64_t some = conv_max(SOME_FLOATS / (w->slices * w->blocks * w->v_size), 1);
    w->some_groups = own ? w->groups : conv_min(some, w->groups);
    RESIN_TRY(own ? winograd_reserve_own_v(context, w) : winograd_reserve_v(context, w));
    RESIN_TRY(conv_reserve(context, workers, w->u_size, &w->u));
    RESIN_TRY(conv_reserve(context, workers, w->m_size, &w->m));
    for (; w->first_group < w->groups; w->first_group += w->some_groups) {
        int64_t groups = conv_min(w->groups - w->first_group, w->some_groups);
        if (!own) winograd_make_v(context, w, groups);
        resin_parallel(context, groups * w->panels * w->blocks, slice_product_piece, w);
    }
    return RESIN_OK;
}

/* ---- The three passes ------------------------------------------------------------------------ */

/* Groups that are read together, whose channels have to be whole vectors. */
static int64_t bundle_of(const winograd *w) {
    int64_t vector = w->kernels->vector, larger = conv_max(w->in_c, w->out_c);
    if (w->in_c % vector != 0 || w->out_c % vector != 0) return 1;
    return conv_min(conv_max(BUNDLE_CHANNELS / larger, 1), w->groups);
}

winograd winograd_describe(const conv_call *call) {
    const conv_shape *s = &call->shape;
    winograd w = {.call = call, .kernels = call->kernels, .result = call->result, .add = call->add,
                  .watch = call->watch, .weights = call->weights, .prepared = call->prepared,
                  .bias = call->bias, .taps = (int)s->kernel_h,
                  .outputs = winograd_outputs(s->kernel_h)};
    conv_source x = {call->kernels, call->x, NULL, s->in_h, s->in_w, s->in_c};
    conv_source dy = {call->kernels, {.pixels = call->dy}, call->norm, s->out_h, s->out_w,
                      s->out_c};
    if (call->pass == CONV_BACKWARD_DATA) {
        w.source = dy;
        w.tiled_h = s->in_h, w.tiled_w = s->in_w, w.result_c = s->in_c;
        w.pad_top = w.taps - 1 - s->pad_top, w.pad_left = w.taps - 1 - s->pad_left;
        w.rotated = true;
        w.bias = NULL;
    } else {
        w.source = x;
        w.gradient = dy;
        w.tiled_h = s->out_h, w.tiled_w = s->out_w, w.result_c = s->out_c;
        w.pad_top = s->pad_top, w.pad_left = s->pad_left;
    }
    w.groups = s->groups;
    w.in_c = w.source.channels / s->groups;
    w.out_c = w.result_c / s->groups;
    w.panel_columns = call->kernels->block_columns;
    w.bundle = bundle_of(&w);
    w.bundles = conv_divide_up(w.groups, w.bundle);
    w.tiles_h = conv_divide_up(w.tiled_h, w.outputs);
    w.tiles_w = conv_divide_up(w.tiled_w, w.outputs);
    w.tiles = s->batch * w.tiles_h * w.tiles_w;
    w.panels = conv_divide_up(w.out_c, w.panel_columns);
    return w;
}

/* How the images pass. */
typedef enum winograd_way { BY_BLOCKS, BY_SLICES, FEW, MANY } winograd_way;

static winograd_way choose_way(const winograd *w) {
    if (w->taps == 3 && w->tiles <= WINOGRAD_FEW_TILES && w->out_c >= w->kernels->few_columns)
        return FEW;
    bool few = w->tiles < SLICE_TILES;
    int64_t u = WINOGRAD_POINTS * w->in_c * w->out_c;
    if (winograd_is_many(w)) return u > HUGE_WEIGHTS ? MANY : BY_BLOCKS;
    return few || u > LARGE_WEIGHTS ? BY_SLICES : BY_BLOCKS;
}

static resin_status run(resin_context *context, winograd *w, conv_pass pass) {
    if (pass == CONV_BACKWARD_WEIGHTS) return winograd_run_weights(context, w);
    switch (choose_way(w)) {
    case FEW: return winograd_run_few(context, w);
    case MANY: return winograd_run_many(context, w);
    case BY_SLICES: return run_slices(context, w);
    default: return run_blocks(context, w);
    }
}

/* ---- Weights that are kept ------------------------------------------------------------------- */

/* By blocks and slices they lie by panels, channels and taps. (u itself is four times as large, and
 * to read that from memory takes longer than to make it.) */
int64_t conv_winograd_prepared(const conv_call *call) {
    winograd w = winograd_describe(call);
    switch (choose_way(&w)) {
    case FEW: return winograd_few_floats(&w);
    case MANY: return 0;
    default: return w.groups * w.panels * w.in_c * w.taps * w.taps * w.panel_columns;
    }
}

typedef struct arrange_job {
    const winograd *w;
    float *to;
} arrange_job;

static void arrange_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const arrange_job *job = argument;
    const winograd *w = job->w;
    int64_t panel = piece / w->in_c, channel = piece % w->in_c, width = w->panel_columns;
    const winograd_part part = winograd_weights_part(w, panel, channel, 1);
    for (int64_t tap = 0; tap < w->taps * w->taps; tap++) {
        float *to = job->to + (piece * w->taps * w->taps + tap) * width;
        memcpy(to, part.from + tap * part.tap_step, (size_t)part.floats * sizeof *to);
        memset(to + part.floats, 0, (size_t)(width - part.floats) * sizeof *to);
    }
}

void conv_winograd_prepare(resin_context *context, const conv_call *call, float *to) {
    winograd w = winograd_describe(call);
    arrange_job job = {&w, to};
    if (choose_way(&w) == FEW) winograd_few_prepare(context, &w, to);
    else resin_parallel(context, w.groups * w.panels * w.in_c, arrange_piece, &job);
}

void winograd_release(resin_context *context, winograd *w) {
    resin_deallocate(context, w->u);
    resin_deallocate(context, w->v);
    resin_deallocate(context, w->m);
    resin_deallocate(context, w->strips);
    resin_deallocate(context, w->made);
}

resin_status conv_winograd_run(resin_context *context, const conv_call *call) {
    winograd w = winograd_describe(call);
    resin_status status = run(context, &w, call->pass);
    winograd_release(context, &w);
    return status;
}
