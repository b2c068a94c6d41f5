/* conv_grouped.c: convolution with few channels in a group (ResNeXt, depthwise). A vector of output
 * channels spans several groups; the rows of the source that some rows of the result need are
 * spread (grouped_spread) into a strip with padding around, and multiplied lane by lane: the pixels
 * of a row below one kernel row lie side by side, as in conv_direct.c. Needs dilation_w = 1. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_grid.h"

#include <string.h>

enum {
    STRIP_FLOATS = 64 << 10, /* of a strip, where its rows allow: it stays in the cache */
    ENOUGH_PIECES = 64,
    MAXIMUM_PARTS = 64
};

typedef struct grouped {
    conv_grid grid;
    int64_t vectors;      /* vectors of channels of the result */
    int64_t width;        /* pixels of a row of a strip */
    int64_t line;         /* floats of it */
    int64_t rows, blocks; /* rows of the result for one strip, and how often that is in an image */
    int64_t strip_size, gradient_size;
    float *strips, *weights, *gradients;
    int64_t parts, partial_size; /* backward-weights */
    float *partial;
} grouped;

static int lanes_of(const grouped *d, int64_t vector) {
    int64_t width = d->grid.call->kernels->vector;
    return (int)conv_min(width, d->grid.result_c - vector * width);
}

static int64_t strip_rows(const grouped *d, int64_t rows) {
    return (rows - 1) * d->grid.h.step + (d->grid.h.taps - 1) * d->grid.h.tap_step + 1;
}

/* The strip of the channels of one vector for result rows [row, row_last) of an image. */
static const float *make_strip(const grouped *d, int64_t image, int64_t vector, int64_t row,
                               int64_t row_last, int worker) {
    const conv_grid *g = &d->grid;
    const conv_kernels *kernels = g->call->kernels;
    int64_t top = g->h.first + row * g->h.step, left = g->w.first;
    int64_t pixel = g->group_in * kernels->vector, rows = strip_rows(d, row_last - row);
    int64_t first = conv_min(conv_max(left, 0), g->w.source);
    int64_t before = conv_min(first - left, d->width);
    int64_t inside = conv_min(conv_max(conv_min(left + d->width, g->w.source) - first, 0),
                              d->width - before);
    float *strip = d->strips + worker * d->strip_size;
    for (int64_t i = 0; i < rows; i++) {
        float *to = strip + i * d->line;
        int64_t y = top + i;
        if (y < 0 || y >= g->h.source) {
            memset(to, 0, (size_t)d->line * sizeof(float));
            continue;
        }
        const float *from =
            g->source + ((image * g->h.source + y) * g->w.source + first) * g->source_c;
        memset(to, 0, (size_t)(before * pixel) * sizeof(float));
        kernels->grouped_spread(inside, from, g->source_c, vector * kernels->vector,
                                lanes_of(d, vector), g->group_in, g->group_out,
                                to + before * pixel);
        memset(to + (before + inside) * pixel, 0,
               (size_t)((d->width - before - inside) * pixel) * sizeof(float));
    }
    return strip;
}

static void cut(grouped *d) {
    const conv_grid *g = &d->grid;
    int64_t vector = g->call->kernels->vector;
    d->vectors = conv_divide_up(g->result_c, vector);
    d->width = (g->w.count - 1) * g->w.step + g->w.taps;
    d->line = d->width * g->group_in * vector;
    d->rows = 1 + conv_max(STRIP_FLOATS / d->line - strip_rows(d, 1), 0) / g->h.step;
    d->blocks = conv_divide_up(g->h.count, conv_min(d->rows, g->h.count));
    d->rows = conv_divide_up(g->h.count, d->blocks);
    d->strip_size = strip_rows(d, d->rows) * d->line;
}

/* Forward and backward-data. */

/* Weights as the product reads them: by vectors, taps, channels of a group, lanes. */
static void weights_piece(void *argument, int64_t vector, int worker) {
    (void)worker;
    const grouped *d = argument;
    const conv_grid *g = &d->grid;
    const conv_shape *s = &g->call->shape;
    int64_t lanes = g->call->kernels->vector, first = vector * lanes;
    int64_t in_c = s->in_c / s->groups, taps = g->h.taps * g->w.taps;
    float *to = d->weights + vector * g->depth * lanes;
    for (int64_t i = 0; i < taps * g->group_in; i++) {
        int64_t tap = i / g->group_in, c = i % g->group_in;
        int64_t y = g->h.kernel_first + tap / g->w.taps * g->h.kernel_step;
        int64_t x = g->w.kernel_first + tap % g->w.taps * g->w.kernel_step;
        const float *from = g->call->weights + (y * s->kernel_w + x) * in_c * s->out_c;
        for (int64_t l = 0; l < lanes; l++) {
            int64_t channel = first + l, group = channel / g->group_out;
            float weight = 0;
            if (channel < g->result_c) {
                weight = g->call->pass == CONV_FORWARD
                             ? from[c * s->out_c + channel]
                             : from[channel % g->group_out * s->out_c + group * g->group_in + c];
            }
            to[i * lanes + l] = weight;
        }
    }
}

static void grid_piece(void *argument, int64_t piece, int worker) {
    const grouped *d = argument;
    const conv_grid *g = &d->grid;
    const conv_kernels *kernels = g->call->kernels;
    int64_t vector = piece % d->vectors, block = piece / d->vectors % d->blocks;
    int64_t image = piece / d->vectors / d->blocks, row, row_last;
    int64_t channel = vector * kernels->vector, depth = g->w.taps * g->group_in;
    int64_t result_step = g->w.spread * g->result_c;
    int lanes = lanes_of(d, vector);
    const float *bias = g->call->bias, *weights = d->weights + channel * g->depth;
    resin_piece_bounds(g->h.count, d->blocks, block, &row, &row_last);
    const float *strip = make_strip(d, image, vector, row, row_last, worker);
    for (int64_t i = row; i < row_last; i++) {
        float *result = conv_result_pixel(g, (image * g->h.count + i) * g->w.count) + channel;
        for (int64_t j = 0; bias && j < g->w.count; j++) {
            memcpy(result + j * result_step, bias + channel, (size_t)lanes * sizeof(float));
        }
        kernels->grouped_product(g->h.taps, g->h.tap_step * d->line, depth * kernels->vector,
                                 g->w.count, lanes, depth, strip + (i - row) * g->h.step * d->line,
                                 g->w.step * g->group_in * kernels->vector, kernels->vector,
                                 weights, kernels->vector, result, result_step, bias != NULL);
    }
}

static resin_status run_grid(resin_context *context, grouped *d) {
    conv_grid *g = &d->grid;
    if (g->depth == 0 || g->pixels == 0) {
        conv_zero_grid(context, g);
        return RESIN_OK;
    }
    cut(d);
    RESIN_TRY(conv_reserve(context, d->vectors * g->call->kernels->vector, g->depth, &d->weights));
    RESIN_TRY(conv_reserve(context, resin_workers(context), d->strip_size, &d->strips));
    resin_parallel(context, d->vectors, weights_piece, d);
    resin_parallel(context, d->vectors * d->blocks * g->call->shape.batch, grid_piece, d);
    return RESIN_OK;
}

static void release(resin_context *context, grouped *d) {
    resin_deallocate(context, d->strips);
    resin_deallocate(context, d->weights);
    resin_deallocate(context, d->gradients);
    resin_deallocate(context, d->partial);
}

static resin_status run_backward_data(resin_context *context, const conv_call *call) {
    const conv_shape *s = &call->shape;
    for (int64_t rest_h = 0; rest_h < s->stride_h; rest_h++) {
        for (int64_t rest_w = 0; rest_w < s->stride_w; rest_w++) {
            grouped d = {.grid = conv_backward_data_grid(call, rest_h, rest_w)};
            resin_status status = run_grid(context, &d);
            release(context, &d);
            RESIN_TRY(status);
        }
    }
    return RESIN_OK;
}

/* Backward-weights: a piece sums one vector of channels over one part of the strips; parts are
 * added in order. */

static void add_strip(const grouped *d, const float *strip, int64_t image, int64_t vector,
                      int64_t row, int64_t row_last, float *gradient, float *dweights,
                      bool accumulate) {
    const conv_grid *g = &d->grid;
    const conv_kernels *kernels = g->call->kernels;
    int64_t out_c = g->result_c, depth = g->w.taps * g->group_in;
    int64_t channel = vector * kernels->vector;
    int lanes = lanes_of(d, vector);
    kernels->pack((row_last - row) * g->w.count, lanes,
                  g->call->dy + (image * g->h.count + row) * g->w.count * out_c + channel, out_c,
                  false, gradient, kernels->vector);
    for (int64_t tap = 0; tap < g->h.taps; tap++) {
        kernels->grouped_product(row_last - row, g->h.step * d->line,
                                 g->w.count * kernels->vector, depth, lanes, g->w.count,
                                 strip + tap * g->h.tap_step * d->line, kernels->vector,
                                 g->w.step * g->group_in * kernels->vector, gradient,
                                 kernels->vector, dweights + tap * depth * out_c + channel, out_c,
                                 accumulate);
    }
}

static void sum_piece(void *argument, int64_t piece, int worker) {
    const grouped *d = argument;
    const conv_grid *g = &d->grid;
    int64_t vector = piece % d->vectors, part = piece / d->vectors, first, last;
    resin_piece_bounds(d->blocks * g->call->shape.batch, d->parts, part, &first, &last);
    float *dweights = d->parts > 1 ? d->partial + part * d->partial_size : g->result;
    for (int64_t i = first; i < last; i++) {
        int64_t image = i / d->blocks, row, row_last;
        resin_piece_bounds(g->h.count, d->blocks, i % d->blocks, &row, &row_last);
        const float *strip = make_strip(d, image, vector, row, row_last, worker);
        add_strip(d, strip, image, vector, row, row_last, d->gradients + worker * d->gradient_size,
                  dweights, i > first);
    }
}

static resin_status run_weights(resin_context *context, grouped *d) {
    const conv_grid *g = &d->grid;
    const conv_kernels *kernels = g->call->kernels;
    int workers = resin_workers(context);
    cut(d);
    d->parts = conv_min(conv_divide_up(ENOUGH_PIECES, d->vectors), MAXIMUM_PARTS);
    d->parts = conv_min(d->parts, d->blocks * g->call->shape.batch);
    d->partial_size = g->depth * g->result_c;
    d->gradient_size = d->rows * g->w.count * kernels->vector;
    RESIN_TRY(conv_reserve(context, workers, d->strip_size, &d->strips));
    RESIN_TRY(conv_reserve(context, workers, d->gradient_size, &d->gradients));
    if (d->parts > 1) RESIN_TRY(conv_reserve(context, d->parts, d->partial_size, &d->partial));
    resin_parallel(context, d->vectors * d->parts, sum_piece, d);
    if (d->parts > 1) {
        kernels->column_sums(d->parts, d->partial_size, d->partial, d->partial_size, g->result,
                             false);
    }
    return RESIN_OK;
}

resin_status conv_grouped_run(resin_context *context, const conv_call *call) {
    if (call->pass == CONV_BACKWARD_DATA) return run_backward_data(context, call);
    grouped d = {.grid = conv_forward_grid(call)};
    resin_status status = call->pass == CONV_FORWARD ? run_grid(context, &d)
                                                     : run_weights(context, &d);
    release(context, &d);
    return status;
}
