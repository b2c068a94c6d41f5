/* conv_phases.c: convolution with a large kernel and stride 2 from few channels, as the first layer
 * of residual networks has (7x7, three channels), by Winograd's method.
 *
 * Row 2 i' + r of the image, r = 0 or 1, meets only rows 2 a + r of the kernel. So the image falls
 * into 2 x 2 phases of half the height and width, each with weights of its own of at most 4 x 4
 * taps, and the phases' channels side by side (lanes here) make it a plain 4 x 4 convolution, whose
 * kernel is zero where the original has no such tap. That is done by F(4x4, 4x4): tiles of 7 x 7
 * pixels of the phases give 4 x 4 of the result with 49 products for each lane, 196 for a channel
 * of the image, where the plain sum has 784 (7x7). The transforms are in
 * core/kernels/conv_phases.c; names are those of conv_winograd.h.
 *
 * A row of tiles is cut into bands; a worker copies the phases of some bands one below the other, a
 * strip. Of a band it makes v: first in the direction of columns, then of rows. The products of a
 * few tiles with a panel of the weights, at one row of points after the other, and their transform
 * in the direction of rows stay in the first-level cache; that of columns writes the result. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_call.h"
#include "core/ops/conv_strip.h"

#include <string.h>

enum {
    POINTS = PHASES_POINTS,
    OUTPUTS = PHASES_OUTPUTS,
    TAPS = 4,                  /* of the kernel of phases */
    LINE = 16,                 /* floats of a cache line: planes begin on different ones */
    BAND_TILES = 64,
    GRADIENT_FLOATS = 128 << 10, /* of a band of dy, at most */
    STRIP_BANDS = 2,
    STRIP_PIECES = 64,         /* strips come some at a time */
    WATCHED_STRIPS = 8,        /* as for conv_winograd.c's WATCHED_BLOCKS */
    MAXIMUM_PARTS = 16,        /* sums of dweights */
    PARTIAL_FLOATS = 4 << 20   /* all of them together, at most */
};

typedef struct phases {
    const conv_call *call;
    const conv_kernels *kernels;
    conv_watch *watch;
    int64_t channels, lanes, depth; /* of the image; of phases; and in whole vectors */
    int64_t columns, panels;        /* columns of a panel of output channels, at most */
    int64_t width;                  /* of all panels, in whole vectors */
    int64_t tiles_h, tiles_w;       /* of an image */
    int64_t cuts, band_tiles;       /* bands of a row of tiles, and tiles of one, at most */
    int64_t image_strips, strips;   /* strips below each other in an image; and of all images */
    int64_t row_plane, v_plane, m_plane;
    int64_t scratch_size, parts, du_size;
    const float *u;
    float *made_u, *scratch, *du;
} phases;

static int64_t panel_channels(const phases *p, int64_t panel) {
    return conv_min(p->call->shape.out_c - panel * p->columns, p->columns);
}

/* In whole vectors. */
static int64_t panel_width(const phases *p, int64_t panel) {
    return conv_round_up(panel_channels(p, panel), p->kernels->vector);
}

/* Of u or du: lanes x the panel's width at each point, panel by panel. */
static int64_t panel_place(const phases *p, int64_t panel) {
    return POINTS * POINTS * p->lanes * p->columns * panel;
}
static int64_t all_points(const phases *p) { return POINTS * POINTS * p->lanes * p->width; }

static phases describe(const conv_call *call) {
    const conv_shape *s = &call->shape;
    int64_t vector = call->kernels->vector;
    phases p = {.call = call, .kernels = call->kernels, .watch = call->watch, .channels = s->in_c};
    p.lanes = 4 * s->in_c;
    p.depth = conv_round_up(p.lanes, vector);
    p.columns = call->kernels->block_columns;
    p.panels = conv_divide_up(s->out_c, p.columns);
    p.width = conv_round_up(s->out_c, vector);
    p.tiles_h = conv_divide_up(s->out_h, OUTPUTS);
    p.tiles_w = conv_divide_up(s->out_w, OUTPUTS);
    int64_t most = BAND_TILES;
    if (call->pass == CONV_BACKWARD_WEIGHTS)
        most = conv_min(most, conv_max(GRADIENT_FLOATS / (OUTPUTS * OUTPUTS * p.width), 1));
    conv_cut_row(p.tiles_w, most, &p.cuts, &p.band_tiles);
    p.image_strips = conv_divide_up(p.tiles_h, STRIP_BANDS);
    p.strips = s->batch * p.image_strips * p.cuts;
    p.row_plane = (OUTPUTS * p.band_tiles + TAPS - 1) * p.depth + LINE;
    p.v_plane = conv_round_up(p.band_tiles, p.kernels->phases_tiles) * p.depth + LINE;
    p.m_plane = p.band_tiles * p.columns + LINE;
    return p;
}

/* ---- Strips ---------------------------------------------------------------------------------- */

/* Some bands, one below the other. */
typedef struct band_run {
    int64_t image, row, bands; /* rows of tiles */
    int64_t tile, tiles;       /* of each */
} band_run;

static band_run run_of_strip(const phases *p, int64_t strip) {
    int64_t cut = strip % p->cuts, rest = strip / p->cuts, last;
    band_run run = {.image = rest / p->image_strips, .tile = cut * p->band_tiles};
    resin_piece_bounds(p->tiles_h, p->image_strips, rest % p->image_strips, &run.row, &last);
    run.bands = last - run.row;
    run.tiles = conv_min(p->band_tiles, p->tiles_w - run.tile);
    return run;
}

static int64_t strip_columns(const band_run *run) { return OUTPUTS * run->tiles + TAPS - 1; }

static int64_t strip_floats(const phases *p) {
    return (OUTPUTS * STRIP_BANDS + TAPS - 1) * (OUTPUTS * p->band_tiles + TAPS - 1) * p->depth;
}

/* Pixels x and x + 1 of a row of the image, or what of them is inside. */
static void copy_pair_at_edge(const phases *p, const float *row, int64_t x, float *to) {
    size_t size = (size_t)p->channels * sizeof(float);
    for (int64_t i = x; i < x + 2; i++, to += p->channels) {
        if (i >= 0 && i < p->call->shape.in_w) memcpy(to, row + i * p->channels, size);
        else memset(to, 0, size);
    }
}

/* Pairs of pixels side by side. Where the number of channels is a constant, copying is a move or
 * two. */
static inline __attribute__((always_inline)) void copy_pairs(int64_t count, int64_t channels,
                                                             const float *from, float *to,
                                                             int64_t step) {
    for (int64_t i = 0; i < count; i++, from += 2 * channels, to += step)
        memcpy(to, from, 2 * (size_t)channels * sizeof(float));
}

/* One row of the image to one row of each pixel of the strip. */
static void copy_row(const phases *p, const float *row, int64_t left, int64_t columns, float *to) {
    int64_t first = conv_min(conv_max(1 - left, 0) / 2, columns), step = p->depth;
    int64_t last = conv_min((p->call->shape.in_w - left) / 2, columns);
    for (int64_t j = 0; j < first; j++) copy_pair_at_edge(p, row, left + 2 * j, to + j * step);
    if (last > first) {
        const float *from = row + (left + 2 * first) * p->channels;
        float *inside = to + first * step;
        switch (p->channels) {
        case 1: copy_pairs(last - first, 1, from, inside, step); break;
        case 3: copy_pairs(last - first, 3, from, inside, step); break;
        case 4: copy_pairs(last - first, 4, from, inside, step); break;
        default: copy_pairs(last - first, p->channels, from, inside, step);
        }
    }
    for (int64_t j = conv_max(first, last); j < columns; j++)
        copy_pair_at_edge(p, row, left + 2 * j, to + j * step);
}

/* Zeros for a row beyond the image. */
static void clear_row(const phases *p, int64_t columns, float *to) {
    for (int64_t j = 0; j < columns; j++)
        memset(to + j * p->depth, 0, 2 * (size_t)p->channels * sizeof(float));
}

/* Copies the phases of the image that a run needs: of each pixel of the strip the lanes of the
 * upper row, then those of the lower. */
static void copy_phases(const phases *p, const band_run *run, float *to) {
    const conv_shape *s = &p->call->shape;
    int64_t columns = strip_columns(run), row_floats = s->in_w * s->in_c;
    int64_t top = 2 * OUTPUTS * run->row - s->pad_top;
    int64_t left = 2 * OUTPUTS * run->tile - s->pad_left;
    const float *image = p->call->x.pixels + run->image * s->in_h * row_floats;
    for (int64_t y = top; y < top + 2 * (OUTPUTS * run->bands + TAPS - 1); y++) {
        bool lower = (y - top) % 2 != 0;
        float *lanes = to + (lower ? 2 * p->channels : 0);
        if (y >= 0 && y < s->in_h) copy_row(p, image + y * row_floats, left, columns, lanes);
        else clear_row(p, columns, lanes);
        if (lower) to += columns * p->depth;
    }
}

/* All rows of points of a band of a strip, not yet transformed in the other direction. */
static void transform_columns(const phases *p, const band_run *run, int64_t band,
                              const float *strip, float *rows) {
    int64_t columns = strip_columns(run), line = columns * p->depth;
    p->kernels->phases_source(columns, p->depth, strip + band * OUTPUTS * line,
                              (phases_steps){line, p->depth}, rows,
                              (phases_steps){p->row_plane, p->depth});
}

/* v of one row of points. */
static void transform_row(const phases *p, int64_t tiles, int64_t point, const float *rows,
                          float *v) {
    p->kernels->phases_source(tiles, p->depth, rows + point * p->row_plane,
                              (phases_steps){p->depth, OUTPUTS * p->depth}, v,
                              (phases_steps){p->v_plane, p->depth});
}

/* ---- Weights --------------------------------------------------------------------------------- */

/* The place in the weights of an element of the 4 x 4 taps of a lane, without the output channel;
 * -1 where the kernel has no such tap. */
static int64_t tap_place(const phases *p, int64_t lane, int64_t tap) {
    const conv_shape *s = &p->call->shape;
    int64_t phase = lane / s->in_c, channel = lane % s->in_c;
    int64_t a = tap / TAPS * 2 + phase / 2, b = tap % TAPS * 2 + phase % 2;
    if (a >= s->kernel_h || b >= s->kernel_w) return -1;
    return ((a * s->kernel_w + b) * s->in_c + channel) * s->out_c;
}

typedef struct weights_job {
    const phases *p;
    const float *from;
    float *to;
} weights_job;

enum { LARGEST_PANEL = 32 };

static void weights_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const weights_job *job = argument;
    const phases *p = job->p;
    int64_t panel = piece / p->lanes, lane = piece % p->lanes, first = panel * p->columns;
    int64_t width = panel_width(p, panel);
    size_t size = (size_t)panel_channels(p, panel) * sizeof(float);
    float taps[TAPS * TAPS][LARGEST_PANEL] = {{0}};
    for (int64_t tap = 0; tap < TAPS * TAPS; tap++) {
        int64_t place = tap_place(p, lane, tap);
        if (place >= 0) memcpy(taps[tap], job->from + place + first, size);
    }
    p->kernels->phases_weights(width, taps[0], LARGEST_PANEL,
                               job->to + panel_place(p, panel) + lane * width, p->lanes * width);
}

static void make_u(resin_context *context, const phases *p, float *to) {
    weights_job job = {p, p->call->weights, to};
    resin_parallel(context, p->panels * p->lanes, weights_piece, &job);
}

/* The other way round: dweights of du. */
static void gradient_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const weights_job *job = argument;
    const phases *p = job->p;
    int64_t panel = piece / p->lanes, lane = piece % p->lanes, first = panel * p->columns;
    int64_t width = panel_width(p, panel);
    size_t size = (size_t)panel_channels(p, panel) * sizeof(float);
    float taps[TAPS * TAPS][LARGEST_PANEL];
    p->kernels->phases_weights_gradient(width, job->from + panel_place(p, panel) + lane * width,
                                        p->lanes * width, taps[0], LARGEST_PANEL);
    for (int64_t tap = 0; tap < TAPS * TAPS; tap++) {
        int64_t place = tap_place(p, lane, tap);
        if (place >= 0) memcpy(job->to + place + first, taps[tap], size);
    }
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* One worker's scratch. */
typedef struct places {
    float *strip, *rows, *v, *m, *half, *gradient, *gradient_rows;
} places;

/* The place in the result of a tile of a band, first channel. */
static float *tile_place(const phases *p, const band_run *run, int64_t band, int64_t tile) {
    const conv_shape *s = &p->call->shape;
    int64_t row = OUTPUTS * (run->row + band), column = OUTPUTS * (run->tile + tile);
    return p->call->result + ((run->image * s->out_h + row) * s->out_w + column) * s->out_c;
}

/* How many pixels of a tile are inside the result. */
static int tile_rows(const phases *p, const band_run *run, int64_t band) {
    return (int)conv_min(OUTPUTS, p->call->shape.out_h - OUTPUTS * (run->row + band));
}
static int tile_columns(const phases *p, const band_run *run, int64_t tile) {
    return (int)conv_min(OUTPUTS, p->call->shape.out_w - OUTPUTS * (run->tile + tile));
}

/* Asks for some channels of the pixels of a tile that will be written. In line, since a compiler
 * takes a function that only does this for one without effect. */
static inline __attribute__((always_inline)) void fetch_tile(const phases *p, const float *to,
                                                             int64_t width, int rows,
                                                             int columns) {
    int64_t pixel = p->call->shape.out_c, row = p->call->shape.out_w * pixel;
    for (int y = 0; y < rows; y++) {
        for (int x = 0; x < columns; x++) {
            for (int64_t c = 0; c < width; c += LINE)
                __builtin_prefetch(to + y * row + x * pixel + c, 1);
        }
    }
}

/* The products of some tiles and one panel, and their part of the result. The tiles are asked for
 * one by one on the way: there are at most as many as rows of points. */
static void forward_tiles(const phases *p, const band_run *run, int64_t band, int64_t tile,
                          int64_t panel, const places *at) {
    const conv_shape *s = &p->call->shape;
    int64_t width = panel_width(p, panel), channel = panel * p->columns;
    int64_t channels = panel_channels(p, panel);
    int64_t value = p->kernels->phases_tiles * width, plane = OUTPUTS * value;
    int64_t last = conv_min(tile + p->kernels->phases_tiles, run->tiles);
    const float *u = p->u + panel_place(p, panel), *bias = p->call->bias;
    int rows = tile_rows(p, run, band);
    for (int64_t i = 0; i < POINTS; i++) {
        if (tile + i < last)
            fetch_tile(p, tile_place(p, run, band, tile + i) + channel, channels, rows,
                       tile_columns(p, run, tile + i));
        p->kernels->phases_row((int)width, p->lanes,
                               at->v + i * POINTS * p->v_plane + tile * p->depth,
                               (phases_steps){p->v_plane, p->depth},
                               u + i * POINTS * p->lanes * width, at->half + i * plane);
    }
    for (int64_t t = tile; t < last; t++) {
        float *to = tile_place(p, run, band, t) + channel;
        conv_epilogue epilogue;
        bool finish = conv_epilogue_at(p->call, to, channel, &epilogue);
        p->kernels->phases_finish(channels, at->half + (t - tile) * width,
                                  (phases_steps){plane, value}, bias ? bias + channel : NULL,
                                  finish ? &epilogue : NULL, to, s->out_w * s->out_c, s->out_c,
                                  rows, tile_columns(p, run, t));
    }
}

/* Behind the last tiles v has room for as many as are multiplied at a time; what stands there is of
 * no use, and nobody reads what becomes of it. */
static void forward_band(const phases *p, const band_run *run, int64_t band, const places *at) {
    transform_columns(p, run, band, at->strip, at->rows);
    for (int64_t i = 0; i < POINTS; i++)
        transform_row(p, run->tiles, i, at->rows, at->v + i * POINTS * p->v_plane);
    for (int64_t panel = 0; panel < p->panels; panel++) {
        for (int64_t tile = 0; tile < run->tiles; tile += p->kernels->phases_tiles)
            forward_tiles(p, run, band, tile, panel, at);
    }
}

static places worker_places(const phases *p, int worker) {
    places at = {.strip = p->scratch + worker * p->scratch_size};
    at.rows = at.strip + conv_round_up(strip_floats(p), LINE);
    at.v = at.rows + POINTS * p->row_plane;
    at.half = at.v + POINTS * POINTS * p->v_plane; /* forward */
    at.m = at.v + POINTS * p->v_plane;             /* backward-weights, and what follows */
    at.gradient = at.m + POINTS * p->m_plane;
    at.gradient_rows = at.gradient + OUTPUTS * OUTPUTS * p->band_tiles * p->width;
    return at;
}

static void show(const phases *p, int64_t piece, const band_run *run, int worker) {
    const conv_shape *s = &p->call->shape;
    int64_t row = OUTPUTS * run->row, last = conv_min(row + OUTPUTS * run->bands, s->out_h);
    p->watch->pixels(p->watch, piece, (run->image * s->out_h + row) * s->out_w,
                     (last - row) * s->out_w, worker);
}

static void forward_piece(void *argument, int64_t piece, int worker) {
    const phases *p = argument;
    const places at = worker_places(p, worker);
    int64_t first, last;
    resin_piece_bounds(p->strips, conv_min(p->strips, STRIP_PIECES), piece, &first, &last);
    for (int64_t strip = first; strip < last; strip++) {
        band_run run = run_of_strip(p, strip);
        copy_phases(p, &run, at.strip);
        for (int64_t band = 0; band < run.bands; band++) forward_band(p, &run, band, &at);
        if (p->watch) show(p, piece, &run, worker);
    }
}

/* For strips, rows, and so many floats from v on. */
static resin_status reserve_scratch(resin_context *context, phases *p, int64_t from_v) {
    p->scratch_size = conv_round_up(strip_floats(p), LINE) + POINTS * p->row_plane + from_v;
    return conv_reserve(context, resin_workers(context), p->scratch_size, &p->scratch);
}

static resin_status run_forward(resin_context *context, phases *p) {
    int64_t pieces = conv_min(p->strips, STRIP_PIECES);
    int64_t half = POINTS * OUTPUTS * p->kernels->phases_tiles * p->columns;
    RESIN_TRY(reserve_scratch(context, p, POINTS * POINTS * p->v_plane + half));
    p->u = p->call->prepared;
    if (!p->u) {
        RESIN_TRY(conv_reserve(context, 1, all_points(p), &p->made_u));
        make_u(context, p, p->made_u);
        p->u = p->made_u;
    }
    if (p->cuts > 1 || p->strips < WATCHED_STRIPS) p->watch = NULL; /* cut, it is no whole rows */
    if (p->watch)
        RESIN_TRY(p->watch->begin(p->watch, p->call->result, p->call->shape.out_c, pieces));
    resin_parallel(context, pieces, forward_piece, p);
    return RESIN_OK;
}

/* ---- Backward-weights: strips in some parts, each with sums of its own, added in order ------- */

static void weights_band(const phases *p, const band_run *run, int64_t band, const places *at,
                         float *du, bool begin) {
    const conv_shape *s = &p->call->shape;
    const conv_source dy = {p->kernels, {.pixels = p->call->dy}, p->call->norm, s->out_h, s->out_w,
                            s->out_c};
    const conv_strip part = {.image = run->image, .top = OUTPUTS * (run->row + band),
                             .left = OUTPUTS * run->tile, .rows = OUTPUTS,
                             .columns = OUTPUTS * run->tiles, .channels = s->out_c,
                             .pixel_step = p->width};
    int64_t line = part.columns * p->width, plane = line + LINE;
    conv_copy_strip(&dy, &part, at->gradient);
    p->kernels->phases_gradient(part.columns, p->width, at->gradient,
                                (phases_steps){line, p->width}, at->gradient_rows,
                                (phases_steps){plane, p->width});
    transform_columns(p, run, band, at->strip, at->rows);
    for (int64_t i = 0; i < POINTS; i++) {
        transform_row(p, run->tiles, i, at->rows, at->v);
        for (int64_t panel = 0; panel < p->panels; panel++) {
            int64_t width = panel_width(p, panel);
            p->kernels->phases_gradient(run->tiles, width,
                                        at->gradient_rows + i * plane + panel * p->columns,
                                        (phases_steps){p->width, OUTPUTS * p->width}, at->m,
                                        (phases_steps){p->m_plane, width});
            float *to = du + panel_place(p, panel) + i * POINTS * p->lanes * width;
            for (int64_t x = 0; x < POINTS; x++)
                p->kernels->product(p->lanes, (int)width, run->tiles, at->v + x * p->v_plane,
                                    p->depth, true, at->m + x * p->m_plane, width,
                                    to + x * p->lanes * width, width, !begin);
        }
    }
}

static void part_piece(void *argument, int64_t part, int worker) {
    const phases *p = argument;
    const places at = worker_places(p, worker);
    int64_t first, last;
    resin_piece_bounds(p->strips, p->parts, part, &first, &last);
    for (int64_t strip = first; strip < last; strip++) {
        band_run run = run_of_strip(p, strip);
        copy_phases(p, &run, at.strip);
        for (int64_t band = 0; band < run.bands; band++)
            weights_band(p, &run, band, &at, p->du + part * p->du_size,
                         strip == first && band == 0);
    }
}

static resin_status run_weights(resin_context *context, phases *p) {
    p->du_size = all_points(p);
    p->parts = conv_min(conv_min(MAXIMUM_PARTS, conv_max(PARTIAL_FLOATS / p->du_size, 1)),
                        p->strips);
    int64_t gradient = OUTPUTS * p->band_tiles * p->width;
    RESIN_TRY(reserve_scratch(context, p, (OUTPUTS + POINTS) * gradient +
                                              POINTS * (LINE + p->v_plane + p->m_plane)));
    RESIN_TRY(conv_reserve(context, p->parts + 1, p->du_size, &p->du));
    resin_parallel(context, p->parts, part_piece, p);
    float *sum = p->du + p->parts * p->du_size;
    conv_add_parts(context, p->kernels, p->du, p->parts, p->du_size, sum);
    weights_job job = {p, sum, p->call->result};
    resin_parallel(context, p->panels * p->lanes, gradient_piece, &job);
    return RESIN_OK;
}

/* ---- The method ------------------------------------------------------------------------------ */

int64_t conv_phases_prepared(const conv_call *call) {
    phases p = describe(call);
    return all_points(&p);
}

void conv_phases_prepare(resin_context *context, const conv_call *call, float *to) {
    phases p = describe(call);
    make_u(context, &p, to);
}

resin_status conv_phases_run(resin_context *context, const conv_call *call) {
    phases p = describe(call);
    resin_status status = call->pass == CONV_FORWARD ? run_forward(context, &p)
                                                     : run_weights(context, &p);
    resin_deallocate(context, p.scratch);
    resin_deallocate(context, p.made_u);
    resin_deallocate(context, p.du);
    return status;
}
