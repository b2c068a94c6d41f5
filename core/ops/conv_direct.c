/* conv_direct.c: convolution that reads the image where it lies, without copying patches: the
 * pixels that one row of a kernel covers lie side by side, so that kernel_w x channels is the depth
 * of a matrix product whose rows are the pixels of an output row, stride x channels apart; the rows
 * of the kernel are its segments.
 *
 * A piece works on a strip: the source rows that some rows of the result need, with the padding
 * around them (and only the channels of its group). Without padding and groups the image itself is
 * the strip. Needs dilation_w = 1.
 *
 * Where such rows are short, or a kernel is a single pixel, the pixels of all rows are one matrix
 * (conv_rows.h). */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_grid.h"
#include "core/ops/conv_rows.h"
#include "core/ops/conv_strip.h"

#include <string.h>

enum {
    STRIP_FLOATS = 32 << 10, /* of a strip, where its rows allow: it stays in the cache */
    WEIGHT_STRIP_FLOATS = 192 << 10, /* the most for dweights, whose sums should be deep: */
    WEIGHT_PIXELS = 112,
    ENOUGH_STRIPS = 8,
    ENOUGH_PIECES = 32,
    COPIED = 5, /* multiply-adds of a panel's column that a float of a strip should be good for */
    WEIGHT_PIECES = 64,
    PANEL_GROUP = 4,          /* panels of dweights that a piece sums, at most */
    PARTIAL_FLOATS = 4 << 20, /* partial sums of dweights altogether, at most */
    MAXIMUM_PARTS = 64
};

typedef struct direct {
    conv_grid grid;
    bool in_place;
    int64_t channels;     /* of a pixel of a strip */
    int64_t width;        /* pixels of a row of a strip */
    int64_t images;
    int64_t rows, blocks; /* rows of the result for one strip, and how often that is in an image */
    int64_t panel_groups;
    int64_t strip_size;
    float *strips;

    /* Backward-weights. */
    int64_t parts, partial_size, gradient_size;
    float *partial, *gradients;
} direct;

static int64_t strip_rows(const direct *d, int64_t rows) {
    return (rows - 1) * d->grid.h.step + (d->grid.h.taps - 1) * d->grid.h.tap_step + 1;
}

/* The strip of result rows [row, row_last) of an image. */
static const float *make_strip(const direct *d, int64_t image, int64_t group, int64_t row,
                               int64_t row_last, int worker) {
    const conv_grid *g = &d->grid;
    int64_t top = g->h.first + row * g->h.step, left = g->w.first;
    if (d->in_place) {
        return g->source + ((image * g->h.source + top) * g->w.source + left) * g->source_c;
    }
    const conv_norm *norm = g->call->pass == CONV_BACKWARD_DATA ? g->call->norm : NULL;
    const conv_source source = {g->call->kernels, g->image,    norm,
                                g->h.source,      g->w.source, g->source_c};
    const conv_strip strip = {.image = image, .top = top, .left = left,
                              .rows = strip_rows(d, row_last - row), .columns = d->width,
                              .channel = group * g->group_in, .channels = d->channels,
                              .pixel_step = d->channels};
    float *copy = d->strips + worker * d->strip_size;
    conv_copy_strip(&source, &strip, copy);
    return copy;
}

/* Sums of the result rows [row, row_last) of an image and one panel. */
static void multiply_panel(const direct *d, const float *strip, int64_t image, int64_t group,
                           int64_t panel, int64_t row, int64_t row_last) {
    const conv_grid *g = &d->grid;
    const conv_kernels *kernels = g->call->kernels;
    int64_t columns = conv_panel_columns(g, panel), line = d->width * d->channels;
    int64_t width = conv_round_up(columns, kernels->vector), depth = g->w.taps * g->group_in;
    int64_t channel = group * g->group_out + panel * kernels->block_columns;
    int64_t result_step = g->w.spread * g->result_c;
    const float *bias = g->call->bias, *b = conv_panel(g, group, panel);
    for (int64_t i = row; i < row_last; i++) {
        float *result = conv_result_pixel(g, (image * g->h.count + i) * g->w.count) + channel;
        conv_epilogue epilogue;
        bool finish = conv_epilogue_at(g->call, result, channel, &epilogue);
        if (bias) {
            for (int64_t j = 0; j < g->w.count; j++) {
                memcpy(result + j * result_step, bias + channel, (size_t)columns * sizeof(float));
            }
        }
        kernels->product_segments(g->h.taps, g->h.tap_step * line, depth * width, g->w.count,
                                  (int)columns, depth, strip + (i - row) * g->h.step * line,
                                  g->w.step * d->channels, false, b, width, result, result_step,
                                  bias != NULL || g->call->add,
                                  finish ? &epilogue : NULL);
    }
}

static void grid_piece(void *argument, int64_t piece, int worker) {
    const direct *d = argument;
    const conv_grid *g = &d->grid;
    int64_t panel_group = piece % d->panel_groups, rest = piece / d->panel_groups;
    int64_t block = rest % d->blocks, image = rest / d->blocks % d->images;
    int64_t group = rest / d->blocks / d->images, row, row_last, panel, panel_last;
    resin_piece_bounds(g->h.count, d->blocks, block, &row, &row_last);
    resin_piece_bounds(g->panels, d->panel_groups, panel_group, &panel, &panel_last);
    const float *strip = make_strip(d, image, group, row, row_last, worker);
    for (; panel < panel_last; panel++) {
        multiply_panel(d, strip, image, group, panel, row, row_last);
    }
}

static bool axis_inside(const conv_axis *axis) {
    return axis->first >= 0 && axis->first + (axis->count - 1) * axis->step +
                                       (axis->taps - 1) * axis->tap_step < axis->source;
}

/* Rows of the result whose strip has at most so many floats, at least one. */
static int64_t rows_within(const direct *d, int64_t floats) {
    return 1 + conv_max(floats / (d->width * d->channels) - strip_rows(d, 1), 0) / d->grid.h.step;
}

/* How an image is cut into strips. Where a kernel is one row high and rows of all images are evenly
 * spaced, they are one tall image. */
static void cut(direct *d) {
    conv_grid *g = &d->grid;
    d->channels = g->group_in;
    d->in_place = g->call->shape.groups == 1 && !g->image.scale &&
                  !(g->call->norm && g->call->pass == CONV_BACKWARD_DATA) && axis_inside(&g->h) &&
                  axis_inside(&g->w);
    d->images = g->call->shape.batch;
    if (d->in_place && g->h.taps == 1 && g->h.first == 0 && g->h.spread == 1 &&
        g->h.source == g->h.count * g->h.step) {
        g->h.source *= d->images;
        g->h.count *= d->images;
        d->images = 1;
    }
    d->width = d->in_place ? g->w.source : (g->w.count - 1) * g->w.step + g->w.taps;
    d->rows = rows_within(d, STRIP_FLOATS);
    if (g->call->pass == CONV_BACKWARD_WEIGHTS) {
        d->rows = conv_max(d->rows, conv_min(rows_within(d, WEIGHT_STRIP_FLOATS),
                                             conv_divide_up(WEIGHT_PIXELS, g->w.count)));
    } else {
        int64_t strips = conv_divide_up(ENOUGH_STRIPS, d->images * g->call->shape.groups);
        d->rows = conv_min(d->rows, conv_divide_up(g->h.count, strips));
    }
    d->blocks = conv_divide_up(g->h.count, conv_min(d->rows, g->h.count));
    d->rows = conv_divide_up(g->h.count, d->blocks);
    d->strip_size = d->in_place ? 0 : strip_rows(d, d->rows) * d->width * d->channels;
}

/* A strip is a piece. Where there are few, it is one for each of some groups of panels, unless they
 * are so small that copying the strip for each takes too long. Returns the number of pieces. */
static int64_t cut_panels(direct *d) {
    const conv_grid *g = &d->grid;
    int64_t strips = d->blocks * d->images * g->call->shape.groups;
    int64_t least = conv_divide_up(COPIED * d->strip_size, d->rows * g->w.count * g->depth);
    int64_t most = conv_max(g->panels / conv_max(least, 1), 1);
    d->panel_groups = conv_min(conv_divide_up(ENOUGH_PIECES, strips), most);
    return strips * d->panel_groups;
}

static resin_status run_grid(resin_context *context, direct *d) {
    conv_grid *g = &d->grid;
    if (g->depth == 0 || g->pixels == 0) {
        if (!g->call->add) conv_zero_grid(context, g);
        return RESIN_OK;
    }
    if (conv_rows_fit(g)) return conv_rows_run(context, g);
    cut(d);
    int64_t pieces = cut_panels(d);
    RESIN_TRY(conv_pack_weights(context, g));
    RESIN_TRY(conv_reserve(context, resin_workers(context), d->strip_size, &d->strips));
    resin_parallel(context, pieces, grid_piece, d);
    return RESIN_OK;
}

static void release(resin_context *context, direct *d) {
    resin_deallocate(context, d->grid.weights);
    resin_deallocate(context, d->strips);
    resin_deallocate(context, d->partial);
    resin_deallocate(context, d->gradients);
}

static resin_status run_backward_data(resin_context *context, const conv_call *call) {
    const conv_shape *s = &call->shape;
    for (int64_t rest_h = 0; rest_h < s->stride_h; rest_h++) {
        for (int64_t rest_w = 0; rest_w < s->stride_w; rest_w++) {
            direct d = {.grid = conv_backward_data_grid(call, rest_h, rest_w)};
            resin_status status = run_grid(context, &d);
            release(context, &d);
            RESIN_TRY(status);
        }
    }
    return RESIN_OK;
}

/* Backward-weights: a piece sums a group of panels over one part of the strips; parts are added in
 * order. The columns of a strip below one kernel row are rows of dweights, its pixels and rows the
 * depth. */

static void add_strip(const direct *d, const float *strip, int64_t image, int64_t group,
                      int64_t panel, int64_t row, int64_t row_last, float *gradient,
                      float *dweights, bool accumulate) {
    const conv_grid *g = &d->grid;
    const conv_kernels *kernels = g->call->kernels;
    int64_t out_c = g->call->shape.out_c, line = d->width * d->channels;
    int64_t columns = conv_panel_columns(g, panel), width = conv_round_up(columns, kernels->vector);
    int64_t channel = group * g->group_out + panel * kernels->block_columns;
    const conv_source dy = {kernels, {.pixels = g->call->dy}, g->call->norm, g->h.count, g->w.count,
                            out_c};
    const conv_strip part = {.image = image, .top = row, .rows = row_last - row,
                             .columns = g->w.count, .channel = channel, .channels = columns,
                             .pixel_step = width};
    conv_copy_strip(&dy, &part, gradient);
    for (int64_t tap = 0; tap < g->h.taps; tap++) {
        kernels->product_segments(
            row_last - row, g->h.step * line, g->w.count * width, g->w.taps * g->group_in,
            (int)columns, g->w.count, strip + tap * g->h.tap_step * line, g->w.step * d->channels,
            true, gradient, width, dweights + tap * g->w.taps * g->group_in * out_c + channel,
            out_c, accumulate, NULL);
    }
}

static void weights_piece(void *argument, int64_t piece, int worker) {
    const direct *d = argument;
    const conv_grid *g = &d->grid;
    int64_t panel_group = piece % d->panel_groups, rest = piece / d->panel_groups;
    int64_t part = rest % d->parts, group = rest / d->parts, first, last, panel, panel_last;
    resin_piece_bounds(d->blocks * d->images, d->parts, part, &first, &last);
    resin_piece_bounds(g->panels, d->panel_groups, panel_group, &panel, &panel_last);
    float *dweights = d->parts > 1 ? d->partial + part * d->partial_size : g->result;
    for (int64_t i = first; i < last; i++) {
        int64_t image = i / d->blocks, row, row_last;
        resin_piece_bounds(g->h.count, d->blocks, i % d->blocks, &row, &row_last);
        const float *strip = make_strip(d, image, group, row, row_last, worker);
        for (int64_t k = panel; k < panel_last; k++) {
            add_strip(d, strip, image, group, k, row, row_last,
                      d->gradients + worker * d->gradient_size, dweights, i > first);
        }
    }
}

static resin_status run_weights(resin_context *context, direct *d) {
    const conv_grid *g = &d->grid;
    const conv_shape *s = &g->call->shape;
    int workers = resin_workers(context);
    if (conv_rows_fit(g)) return conv_rows_weights_run(context, g);
    cut(d);
    d->panel_groups = conv_divide_up(g->panels, PANEL_GROUP);
    d->partial_size = g->depth * s->out_c;
    d->parts = conv_min(conv_divide_up(WEIGHT_PIECES, d->panel_groups * s->groups), MAXIMUM_PARTS);
    d->parts = conv_min(d->parts, conv_min(d->blocks * d->images,
                                           conv_max(PARTIAL_FLOATS / d->partial_size, 1)));
    d->gradient_size = d->rows * g->w.count * g->call->kernels->block_columns;
    RESIN_TRY(conv_reserve(context, workers, d->strip_size, &d->strips));
    RESIN_TRY(conv_reserve(context, workers, d->gradient_size, &d->gradients));
    if (d->parts > 1) RESIN_TRY(conv_reserve(context, d->parts, d->partial_size, &d->partial));
    resin_parallel(context, d->panel_groups * d->parts * s->groups, weights_piece, d);
    if (d->parts > 1) {
        conv_add_parts(context, g->call->kernels, d->partial, d->parts, d->partial_size,
                       g->result);
    }
    return RESIN_OK;
}

int64_t conv_direct_prepared(const conv_call *call) {
    conv_grid grid = conv_forward_grid(call);
    return conv_packed_floats(&grid);
}

void conv_direct_prepare(resin_context *context, const conv_call *call, float *to) {
    conv_grid grid = conv_forward_grid(call);
    conv_pack_all(context, &grid, to);
}

resin_status conv_direct_run(resin_context *context, const conv_call *call) {
    if (call->pass == CONV_BACKWARD_DATA) return run_backward_data(context, call);
    direct d = {.grid = conv_forward_grid(call)};
    resin_status status = call->pass == CONV_FORWARD ? run_grid(context, &d)
                                                     : run_weights(context, &d);
    release(context, &d);
    return status;
}
