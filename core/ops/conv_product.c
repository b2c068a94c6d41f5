/* conv_product.c: convolution as matrix products, for any kernel, stride, padding, dilation and
 * groups. A block of output pixels has its patches copied into a matrix that fits the second-level
 * cache; the matrix of all patches never exists.
 *
 * A pass is described by one or more grids. The pixel (i, j) of a grid reads, for taps a and b, the
 * source pixel (first + i * step + a * tap_step, likewise b) and writes the result's pixel
 * (i * spread + place). Forward is one grid. Backward-data with stride s is s x s of them: the
 * pixels h = i * s + r of dx are reached by the taps t with (r + pad - t * dilation) divisible by s,
 * from dy's row (h + pad - t * dilation) / s: a gather, so that no sum is shared by workers. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_call.h"

#include <string.h>

enum {
    PATCH_FLOATS = 96 << 10,  /* of a block of patches: it stays in the second-level cache */
    CHUNK_DEPTH = 384,        /* depth of one product: its part of a panel in the first-level one */
    ENOUGH_PIECES = 64,
    WEIGHT_ROWS = 256,        /* rows and columns of dweights that a piece sums */
    WEIGHT_COLUMNS = 128,
    WEIGHT_PIXELS = 128,      /* pixels it takes at a time */
    PART_PIXELS = 1024,       /* pixels of a partial sum, at least */
    MAXIMUM_PARTS = 64,
    LINE = 16
};

/* One direction of a grid. */
typedef struct axis {
    int64_t count;                    /* pixels */
    int64_t source, step, first;      /* size of the source; see above */
    int64_t taps, tap_step;
    int64_t tap_first, tap_stride;    /* the taps' places in the kernel */
    int64_t spread, place;
} axis;

typedef struct grid {
    const conv_call *call;
    axis h, w;
    const float *source;
    float *result;
    int64_t source_c, result_c;       /* channels of the images, and of one group of them */
    int64_t group_in, group_out;
    int64_t result_h, result_w;
    int64_t pixels, depth;            /* of all images; taps x group_in */
    int64_t row;                      /* floats from one patch to the next */
    bool in_place;                    /* patches are the source's pixels: 1x1, nothing to copy */
    int64_t panels, block_pixels, blocks, panel_groups;
    float *patches, *weights, *sums;
    int64_t patches_size, sums_size;

    /* Backward-weights. */
    int64_t row_blocks, column_blocks, parts;
    int64_t partial_size;
    float *partial;
} grid;

static int64_t greatest_common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static axis forward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                         int64_t dilation) {
    return (axis){.count = out, .source = in, .step = stride, .first = -pad, .taps = kernel,
                  .tap_step = dilation, .tap_first = 0, .tap_stride = 1, .spread = 1, .place = 0};
}

/* The pixels of dx that leave the rest r; taps is 0 where none reaches them. */
static axis backward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                          int64_t dilation, int64_t rest) {
    axis a = {.count = in > rest ? (in - rest + stride - 1) / stride : 0, .source = out, .step = 1,
              .spread = stride, .place = rest};
    a.tap_stride = stride / greatest_common_divisor(dilation, stride);
    while (a.tap_first < kernel && (rest + pad - a.tap_first * dilation) % stride != 0) {
        a.tap_first++;
    }
    if (a.tap_first >= kernel) return a;
    a.taps = (kernel - a.tap_first + a.tap_stride - 1) / a.tap_stride;
    a.first = (rest + pad - a.tap_first * dilation) / stride;
    a.tap_step = -(dilation * a.tap_stride / stride);
    return a;
}

/* Columns [from, to) of the patch of one pixel: column = (tap a, tap b, channel). */
static void copy_patch(const grid *g, int64_t pixel, int64_t channel, int64_t from, int64_t to,
                       float *patch) {
    int64_t j = pixel % g->w.count, i = pixel / g->w.count % g->h.count;
    int64_t image = pixel / (g->w.count * g->h.count), channels = g->group_in;
    int64_t top = g->h.first + i * g->h.step, left = g->w.first + j * g->w.step;
    bool runs = g->w.tap_step == 1 && channels == g->source_c && left >= 0 &&
                left + g->w.taps <= g->w.source;
    int64_t run = runs ? g->w.taps * channels : channels; /* columns that lie in one piece */
    for (int64_t column = from; column < to;) {
        int64_t start = column / run * run, end = conv_min(start + run, to);
        int64_t tap = start / channels;
        int64_t y = top + tap / g->w.taps * g->h.tap_step;
        int64_t x = left + tap % g->w.taps * g->w.tap_step;
        size_t size = (size_t)(end - column) * sizeof(float);
        if (y >= 0 && y < g->h.source && x >= 0 && x < g->w.source) {
            const float *place = g->source + ((image * g->h.source + y) * g->w.source + x) *
                                                 g->source_c + channel + (column - start);
            memcpy(patch + (column - from), place, size);
        } else {
            memset(patch + (column - from), 0, size);
        }
        column = end;
    }
}

/* Forward and backward-data. */

static int64_t panel_columns(const grid *g, int64_t panel) {
    int64_t width = g->call->kernels->block_columns;
    return conv_min(width, g->group_out - panel * width);
}

static float *packed_panel(const grid *g, int64_t group, int64_t panel) {
    return g->weights +
           (group * g->panels + panel) * g->call->kernels->block_columns * g->depth;
}

/* Packs the weights of one tap and one panel of a group. */
static void weights_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const grid *g = argument;
    const conv_kernels *kernels = g->call->kernels;
    const conv_shape *s = &g->call->shape;
    int64_t taps = g->h.taps * g->w.taps, tap = piece % taps, panel = piece / taps % g->panels;
    int64_t group = piece / taps / g->panels, first = panel * kernels->block_columns;
    int64_t columns = panel_columns(g, panel), width = conv_round_up(columns, kernels->vector);
    int64_t y = g->h.tap_first + tap / g->w.taps * g->h.tap_stride;
    int64_t x = g->w.tap_first + tap % g->w.taps * g->w.tap_stride;
    int64_t in_c = s->in_c / s->groups, out_c = s->out_c / s->groups;
    const float *from = g->call->weights + (y * s->kernel_w + x) * in_c * s->out_c + group * out_c;
    bool transposed = g->call->pass == CONV_BACKWARD_DATA;
    from += transposed ? first * s->out_c : first;
    kernels->pack(g->group_in, columns, from, s->out_c, transposed,
                  packed_panel(g, group, panel) + tap * g->group_in * width, width);
}

static float *result_pixel(const grid *g, int64_t pixel) {
    int64_t j = pixel % g->w.count, i = pixel / g->w.count % g->h.count;
    int64_t image = pixel / (g->w.count * g->h.count);
    int64_t y = i * g->h.spread + g->h.place, x = j * g->w.spread + g->w.place;
    return g->result + ((image * g->result_h + y) * g->result_w + x) * g->result_c;
}

/* Sums of a block of pixels and one panel, where they belong or, if the grid's pixels do not lie
 * next to each other, beside. */
static void multiply_panel(const grid *g, const float *patches, int64_t group, int64_t panel,
                           int64_t pixel, int64_t count, float *sums) {
    const conv_kernels *kernels = g->call->kernels;
    int64_t columns = panel_columns(g, panel), width = conv_round_up(columns, kernels->vector);
    int64_t channel = group * g->group_out + panel * kernels->block_columns;
    bool dense = g->h.spread == 1 && g->w.spread == 1;
    float *to = dense ? g->result + pixel * g->result_c + channel : sums;
    int64_t to_step = dense ? g->result_c : width;
    const float *bias = g->call->bias, *b = packed_panel(g, group, panel);
    if (bias) {
        for (int64_t i = 0; i < count; i++) {
            memcpy(to + i * to_step, bias + channel, (size_t)columns * sizeof(float));
        }
    }
    for (int64_t depth = 0; depth < g->depth; depth += CHUNK_DEPTH) {
        kernels->product(count, (int)(dense ? columns : width),
                         conv_min(CHUNK_DEPTH, g->depth - depth), patches + depth, g->row, false,
                         b + depth * width, width, to, to_step, bias || depth > 0);
    }
    for (int64_t i = 0; !dense && i < count; i++) {
        memcpy(result_pixel(g, pixel + i) + channel, sums + i * width,
               (size_t)columns * sizeof(float));
    }
}

static void grid_piece(void *argument, int64_t piece, int worker) {
    const grid *g = argument;
    int64_t panel_group = piece % g->panel_groups, rest = piece / g->panel_groups;
    int64_t group = rest / g->blocks, pixel, pixel_last, panel, panel_last;
    resin_piece_bounds(g->pixels, g->blocks, rest % g->blocks, &pixel, &pixel_last);
    resin_piece_bounds(g->panels, g->panel_groups, panel_group, &panel, &panel_last);
    const float *patches = g->source + pixel * g->source_c;
    if (!g->in_place) {
        float *copies = g->patches + worker * g->patches_size;
        for (int64_t i = pixel; i < pixel_last; i++) {
            copy_patch(g, i, group * g->group_in, 0, g->depth, copies + (i - pixel) * g->row);
        }
        patches = copies;
    }
    for (; panel < panel_last; panel++) {
        multiply_panel(g, patches, group, panel, pixel, pixel_last - pixel,
                       g->sums + worker * g->sums_size);
    }
}

/* Pixels that no tap reaches. */
static void zero_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const grid *g = argument;
    int64_t first, last;
    resin_piece_bounds(g->pixels, g->blocks, piece, &first, &last);
    for (; first < last; first++) {
        memset(result_pixel(g, first), 0, (size_t)g->result_c * sizeof(float));
    }
}

static resin_status run_grid(resin_context *context, grid *g) {
    const conv_kernels *kernels = g->call->kernels;
    int64_t groups = g->call->shape.groups;
    int workers = resin_workers(context);
    g->depth = g->h.taps * g->w.taps * g->group_in;
    g->pixels = g->call->shape.batch * g->h.count * g->w.count;
    if (g->pixels == 0) return RESIN_OK;
    if (g->depth == 0) {
        g->blocks = resin_piece_count(g->pixels, 64);
        resin_parallel(context, g->blocks, zero_piece, g);
        return RESIN_OK;
    }
    g->in_place = g->depth == g->source_c && g->h.step == 1 && g->w.step == 1 && g->h.first == 0 &&
                  g->w.first == 0 && g->h.count == g->h.source && g->w.count == g->w.source &&
                  g->depth % 512 != 0;
    g->row = g->in_place ? g->source_c : conv_round_up(g->depth, LINE) + LINE;
    int64_t most = conv_min(conv_max(PATCH_FLOATS / g->row / kernels->block_rows, 1), 16);
    g->blocks = conv_divide_up(g->pixels, most * kernels->block_rows);
    g->block_pixels = conv_divide_up(g->pixels, g->blocks);
    g->panels = conv_divide_up(g->group_out, kernels->block_columns);
    g->panel_groups = conv_min(g->panels, conv_divide_up(ENOUGH_PIECES, g->blocks * groups));
    g->patches_size = g->block_pixels * g->row;
    g->sums_size = g->block_pixels * kernels->block_columns;
    RESIN_TRY(conv_reserve(context, groups * g->panels, kernels->block_columns * g->depth,
                           &g->weights));
    if (!g->in_place) RESIN_TRY(conv_reserve(context, workers, g->patches_size, &g->patches));
    RESIN_TRY(conv_reserve(context, workers, g->sums_size, &g->sums));
    resin_parallel(context, groups * g->panels * g->h.taps * g->w.taps, weights_piece, g);
    resin_parallel(context, groups * g->blocks * g->panel_groups, grid_piece, g);
    return RESIN_OK;
}

static void release(resin_context *context, grid *g) {
    resin_deallocate(context, g->patches);
    resin_deallocate(context, g->weights);
    resin_deallocate(context, g->sums);
    resin_deallocate(context, g->partial);
}

static grid forward_grid(const conv_call *call) {
    const conv_shape *s = &call->shape;
    return (grid){.call = call, .source = call->x, .result = call->result, .source_c = s->in_c,
                  .result_c = s->out_c, .group_in = s->in_c / s->groups,
                  .group_out = s->out_c / s->groups, .result_h = s->out_h, .result_w = s->out_w,
                  .h = forward_axis(s->in_h, s->out_h, s->kernel_h, s->stride_h, s->pad_top,
                                    s->dilation_h),
                  .w = forward_axis(s->in_w, s->out_w, s->kernel_w, s->stride_w, s->pad_left,
                                    s->dilation_w)};
}

static resin_status run_backward_data(resin_context *context, const conv_call *call) {
    const conv_shape *s = &call->shape;
    for (int64_t rest_h = 0; rest_h < s->stride_h; rest_h++) {
        for (int64_t rest_w = 0; rest_w < s->stride_w; rest_w++) {
            grid g = {.call = call, .source = call->dy, .result = call->result,
                      .source_c = s->out_c, .result_c = s->in_c, .group_in = s->out_c / s->groups,
                      .group_out = s->in_c / s->groups, .result_h = s->in_h, .result_w = s->in_w};
            g.h = backward_axis(s->in_h, s->out_h, s->kernel_h, s->stride_h, s->pad_top,
                                s->dilation_h, rest_h);
            g.w = backward_axis(s->in_w, s->out_w, s->kernel_w, s->stride_w, s->pad_left,
                                s->dilation_w, rest_w);
            resin_status status = run_grid(context, &g);
            release(context, &g);
            RESIN_TRY(status);
        }
    }
    return RESIN_OK;
}

/* Backward-weights: dw (depth x out_c) = patches^T dy. A piece sums a block of rows and columns over
 * one part of the pixels; parts, where there is more than one, are added in order. */

static void weight_sum_piece(void *argument, int64_t piece, int worker) {
    const grid *g = argument;
    const conv_kernels *kernels = g->call->kernels;
    int64_t out_c = g->call->shape.out_c;
    int64_t row_block = piece % g->row_blocks, rest = piece / g->row_blocks;
    int64_t column_block = rest % g->column_blocks, part = rest / g->column_blocks % g->parts;
    int64_t group = rest / g->column_blocks / g->parts;
    int64_t row, row_last, pixel, pixel_last;
    resin_piece_bounds(g->depth, g->row_blocks, row_block, &row, &row_last);
    resin_piece_bounds(g->pixels, g->parts, part, &pixel, &pixel_last);
    int64_t column = column_block * WEIGHT_COLUMNS, first_pixel = pixel;
    int64_t column_last = conv_min(column + WEIGHT_COLUMNS, g->group_out);
    float *dweights = g->parts > 1 ? g->partial + part * g->partial_size : g->result;
    float *patches = g->patches + worker * g->patches_size;
    float *gradient = g->sums + worker * g->sums_size;
    for (; pixel < pixel_last; pixel += WEIGHT_PIXELS) {
        int64_t count = conv_min(WEIGHT_PIXELS, pixel_last - pixel);
        for (int64_t i = 0; i < count; i++) {
            copy_patch(g, pixel + i, group * g->group_in, row, row_last, patches + i * g->row);
        }
        for (int64_t k = column; k < column_last; k += kernels->block_columns) {
            int64_t columns = conv_min(kernels->block_columns, column_last - k);
            int64_t width = conv_round_up(columns, kernels->vector);
            int64_t channel = group * g->group_out + k;
            kernels->pack(count, columns, g->call->dy + pixel * out_c + channel, out_c, false,
                          gradient, width);
            kernels->product(row_last - row, (int)columns, count, patches, g->row, true, gradient,
                             width, dweights + row * out_c + channel, out_c, pixel > first_pixel);
        }
    }
}

static void add_parts_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const grid *g = argument;
    int64_t first, last;
    resin_piece_bounds(g->partial_size, g->blocks, piece, &first, &last);
    g->call->kernels->column_sums(g->parts, last - first, g->partial + first, g->partial_size,
                                  g->result + first, false);
}

static resin_status run_weights(resin_context *context, grid *g) {
    const conv_kernels *kernels = g->call->kernels;
    const conv_shape *s = &g->call->shape;
    int workers = resin_workers(context);
    g->depth = g->h.taps * g->w.taps * g->group_in;
    g->pixels = s->batch * g->h.count * g->w.count;
    g->row_blocks = conv_divide_up(g->depth, WEIGHT_ROWS);
    g->row = conv_round_up(conv_divide_up(g->depth, g->row_blocks), LINE) + LINE;
    g->column_blocks = conv_divide_up(g->group_out, WEIGHT_COLUMNS);
    int64_t pieces = s->groups * g->row_blocks * g->column_blocks;
    g->parts = conv_min(conv_min(conv_divide_up(ENOUGH_PIECES, pieces), MAXIMUM_PARTS),
                        conv_max(g->pixels / PART_PIXELS, 1));
    g->partial_size = g->depth * s->out_c;
    g->patches_size = WEIGHT_PIXELS * g->row;
    g->sums_size = WEIGHT_PIXELS * kernels->block_columns;
    RESIN_TRY(conv_reserve(context, workers, g->patches_size, &g->patches));
    RESIN_TRY(conv_reserve(context, workers, g->sums_size, &g->sums));
    if (g->parts > 1) RESIN_TRY(conv_reserve(context, g->parts, g->partial_size, &g->partial));
    resin_parallel(context, pieces * g->parts, weight_sum_piece, g);
    if (g->parts > 1) {
        g->blocks = resin_piece_count(g->partial_size, 4096);
        resin_parallel(context, g->blocks, add_parts_piece, g);
    }
    return RESIN_OK;
}

resin_status conv_product_run(resin_context *context, const conv_call *call) {
    if (call->pass == CONV_BACKWARD_DATA) return run_backward_data(context, call);
    grid g = forward_grid(call);
    resin_status status = call->pass == CONV_FORWARD ? run_grid(context, &g)
                                                     : run_weights(context, &g);
    release(context, &g);
    return status;
}
