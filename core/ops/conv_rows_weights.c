/* conv_rows_weights.c: backward-weights of direct convolution where pixels are rows of a matrix
 * (conv_rows.h).
 *
 * dweights is cut into tiles of rows (taps and channels of x) and columns (channels of dy), and the
 * pixels into parts. A piece sums one tile over one part, some pixels at a time: their rows of x
 * and of dy are gathered once for the whole tile and stay in the second-level cache, as the tile
 * does, and what the next pixels read is fetched meanwhile. Parts are added in order. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_rows.h"

#include <string.h>

enum {
    LINE = 16, /* floats of a cache line */
    TILE_ROWS = 256,
    TILE_FLOATS = 128 << 10,
    TILE_COLUMNS = 256,      /* at least, if there are as many, */
    MOST_COLUMNS = 1024,     /* and at most */
    STRIP_FLOATS = 128 << 10, /* of the rows of x and dy that a piece gathers at a time */
    MOST_PIXELS = 256,
    FEWEST_PIXELS = 64,
    ENOUGH_PIECES = 64,
    PART_PIXELS = 1536 /* of a part, at least: adding a part takes as long as some hundred pixels,
                          and its first ones come from far */
};

typedef struct weights_job {
    conv_grid grid;
    bool in_place;          /* rows of x are its pixels as they lie, */
    bool gradient_in_place; /* and those of dy */
    int64_t dy_step;
    int64_t tile_taps, tile_channels, tile_panels;
    int64_t channel_tiles, tap_tiles, column_tiles, parts, pixels;
    int64_t rows_plane, rows_size, gradient_row, gradient_size;
    int64_t partial_size;
    float *rows, *gradient, *partial;
} weights_job;

typedef struct weights_tile {
    conv_depth depth;
    int64_t column, columns;
    float *rows, *gradient, *dweights;
    int64_t blocks; /* of the products of some pixels */
    conv_fetch fetch;
    int64_t fetches[FETCHES]; /* blocks that have something to fetch */
} weights_tile;

/* Fetches a part of the rows of the next pixels: whole rows in line, spread over all blocks of
 * these pixels' products; otherwise a column of lines with each block, until all are under way. */
static void fetch_rows(weights_tile *t, int i, const float *next, int64_t row, int64_t floats,
                       int64_t pixels) {
    t->fetch.at[i] = next;
    if (floats == row) {
        t->fetch.step[i] = conv_divide_up(row, t->blocks);
        t->fetch.jump[i] = pixels * t->fetch.step[i];
        t->fetches[i] = t->blocks;
    } else {
        t->fetch.step[i] = row;
        t->fetch.jump[i] = LINE;
        t->fetches[i] = conv_divide_up(floats, LINE);
    }
}

static void fetch_next(const weights_job *d, weights_tile *t, int64_t pixel, int64_t count) {
    const conv_grid *g = &d->grid;
    int64_t next = conv_min(pixel + count, g->pixels);
    const float *x = g->source + next * g->source_step + t->depth.channel;
    int64_t dy = next * d->dy_step + t->column;
    t->fetch = (conv_fetch){{t->rows, t->rows, t->rows}, {0}, {0}};
    if (conv_same_pixels(g)) fetch_rows(t, 0, x, g->source_step, t->depth.channels, count);
    fetch_rows(t, 1, g->call->dy + dy, d->dy_step, t->columns, count);
    if (g->call->norm) fetch_rows(t, 2, g->call->norm->x + dy, d->dy_step, t->columns, count);
}

/* After so many blocks. */
static void fetch_on(weights_tile *t, int64_t blocks) {
    conv_fetch_on(&t->fetch, blocks);
    for (int i = 0; i < FETCHES; i++) {
        t->fetches[i] -= blocks;
        if (t->fetches[i] <= 0) t->fetch.step[i] = t->fetch.jump[i] = 0;
    }
}

/* Adds some pixels to a tile. */
static void add_pixels(const weights_job *d, weights_tile *t, int64_t pixel, int64_t count,
                       bool accumulate) {
    const conv_grid *g = &d->grid;
    const conv_kernels *kernels = g->call->kernels;
    int64_t out_c = g->call->shape.out_c;
    const float *a = g->source + pixel * g->source_step + t->depth.channel;
    const float *b = g->call->dy + pixel * d->dy_step + t->column;
    int64_t b_step = d->gradient_in_place ? d->dy_step : d->gradient_row;
    int64_t a_step = d->in_place ? g->source_step : conv_row_floats(t->depth.channels);
    if (!d->in_place) {
        conv_gather_rows(g, NULL, pixel, count, t->depth, t->rows, d->rows_plane);
        a = t->rows;
    }
    if (!d->gradient_in_place) {
        conv_gather_pixels(kernels, (conv_image){.pixels = g->call->dy}, g->call->norm, count,
                           t->column, t->columns, b, d->dy_step, t->gradient, d->gradient_row);
        b = t->gradient;
    }
    fetch_next(d, t, pixel, count);
    for (int64_t j = 0; j < t->columns; j += kernels->block_columns) {
        for (int64_t tap = 0; tap < t->depth.taps; tap++) {
            int64_t row = (t->depth.tap + tap) * g->group_in + t->depth.channel;
            kernels->product_fetch(1, 0, 0, t->depth.channels,
                                   (int)conv_min(kernels->block_columns, t->columns - j), count,
                                   a + tap * d->rows_plane, a_step, true, b + j, b_step,
                                   t->dweights + row * out_c + t->column + j,
                                   out_c, accumulate, &t->fetch, NULL);
            fetch_on(t, conv_divide_up(t->depth.channels, kernels->block_rows));
        }
    }
}

static void tile_piece(void *argument, int64_t piece, int worker) {
    const weights_job *d = argument;
    const conv_grid *g = &d->grid;
    int64_t column_tile = piece % d->column_tiles, rest = piece / d->column_tiles;
    int64_t channel_tile = rest % d->channel_tiles;
    int64_t tap_tile = rest / d->channel_tiles % d->tap_tiles;
    int64_t part = rest / d->channel_tiles / d->tap_tiles, first, last;
    const conv_kernels *kernels = g->call->kernels;
    int64_t width = d->tile_panels * kernels->block_columns;
    weights_tile t = {.rows = d->rows + worker * d->rows_size,
                      .gradient = d->gradient + worker * d->gradient_size,
                      .dweights = d->parts > 1 ? d->partial + part * d->partial_size : g->result,
                      .column = column_tile * width,
                      .depth = {.tap = tap_tile * d->tile_taps,
                                .channel = channel_tile * d->tile_channels}};
    t.columns = conv_min(width, g->group_out - t.column);
    t.depth.taps = conv_min(d->tile_taps, g->h.taps * g->w.taps - t.depth.tap);
    t.depth.channels = conv_min(d->tile_channels, g->group_in - t.depth.channel);
    t.blocks = conv_divide_up(t.depth.channels, kernels->block_rows) * t.depth.taps *
               conv_divide_up(t.columns, kernels->block_columns);
    resin_piece_bounds(g->pixels, d->parts, part, &first, &last);
    int64_t steps = conv_divide_up(last - first, d->pixels), pixel, pixel_last;
    for (int64_t i = 0; i < steps; i++) {
        resin_piece_bounds(last - first, steps, i, &pixel, &pixel_last);
        add_pixels(d, &t, first + pixel, pixel_last - pixel, i > 0);
    }
}

static void cut(weights_job *d) {
    const conv_grid *g = &d->grid;
    int64_t width = g->call->kernels->block_columns, taps = g->h.taps * g->w.taps;
    d->channel_tiles = conv_divide_up(g->group_in, TILE_ROWS);
    d->tile_channels = conv_divide_up(g->group_in, d->channel_tiles);
    if (d->channel_tiles > 1) d->tile_channels = conv_round_up(d->tile_channels, 16);
    d->channel_tiles = conv_divide_up(g->group_in, d->tile_channels);
    d->tap_tiles = conv_divide_up(taps, conv_max(TILE_ROWS / d->tile_channels, 1));
    d->tile_taps = conv_divide_up(taps, d->tap_tiles);
    d->tap_tiles = conv_divide_up(taps, d->tile_taps);
    int64_t rows = d->tile_taps * d->tile_channels;
    int64_t columns = conv_min(conv_max(TILE_FLOATS / rows, TILE_COLUMNS), MOST_COLUMNS);
    d->column_tiles = conv_divide_up(g->panels, conv_max(columns / width, 1));
    d->tile_panels = conv_divide_up(g->panels, d->column_tiles);
    d->column_tiles = conv_divide_up(g->panels, d->tile_panels);
    columns = conv_min(d->tile_panels * width, g->group_out);
    d->pixels = conv_min(conv_max(STRIP_FLOATS / (rows + columns), FEWEST_PIXELS), MOST_PIXELS);
    int64_t tiles = d->channel_tiles * d->tap_tiles * d->column_tiles;
    d->parts = conv_max(conv_min(conv_divide_up(ENOUGH_PIECES, tiles), g->pixels / PART_PIXELS), 1);
    d->dy_step = g->call->dy_step ? g->call->dy_step : g->call->shape.out_c;
    d->in_place = conv_same_pixels(g) && !g->image.scale && g->source_step % 256 != 0;
    d->gradient_in_place = g->call->dy_step && !g->call->norm;
    d->rows_plane = d->pixels * conv_row_floats(d->tile_channels);
    d->rows_size = d->in_place ? 0 : d->tile_taps * d->rows_plane;
    d->gradient_row = conv_row_floats(columns);
    d->gradient_size = d->gradient_in_place ? 0 : d->pixels * d->gradient_row;
    d->partial_size = g->depth * g->group_out;
}

static resin_status run(resin_context *context, weights_job *d) {
    int64_t workers = resin_workers(context);
    RESIN_TRY(conv_reserve(context, workers, d->rows_size, &d->rows));
    RESIN_TRY(conv_reserve(context, workers, d->gradient_size, &d->gradient));
    if (d->parts > 1) RESIN_TRY(conv_reserve(context, d->parts, d->partial_size, &d->partial));
    int64_t tiles = d->tap_tiles * d->channel_tiles * d->column_tiles;
    resin_parallel(context, d->parts * tiles, tile_piece, d);
    if (d->parts > 1) {
        conv_add_parts(context, d->grid.call->kernels, d->partial, d->parts, d->partial_size,
                       d->grid.result);
    }
    return RESIN_OK;
}

resin_status conv_rows_weights_run(resin_context *context, const conv_grid *grid) {
    weights_job d = {.grid = *grid};
    cut(&d);
    resin_status status = run(context, &d);
    resin_deallocate(context, d.rows);
    resin_deallocate(context, d.gradient);
    resin_deallocate(context, d.partial);
    return status;
}
