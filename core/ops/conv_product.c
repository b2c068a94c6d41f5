/* conv_product.c: convolution as matrix products, for any kernel, stride, padding, dilation and
 * groups. A block of output pixels has its patches copied into a matrix that fits the second-level
 * cache; the matrix of all patches never exists. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_grid.h"
#include "core/ops/conv_scatter.h"

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
    FAR_ROWS = 512, /* floats apart at which rows share few places of a cache: better copied */
    LINE = 16
};

typedef struct patches {
    conv_grid grid;
    int64_t row;   /* floats from one patch to the next */
    bool in_place; /* patches are the source's pixels: 1x1, nothing to copy */
    int64_t block_pixels, blocks, panel_groups;
    float *patches, *sums;
    int64_t patches_size, sums_size;

    /* Backward-weights. */
    int64_t row_blocks, column_blocks, parts;
    int64_t partial_size;
    float *partial;
} patches;

/* Columns [from, to) of the patch of one pixel: column = (tap a, tap b, channel). */
static void copy_patch(const patches *p, int64_t pixel, int64_t channel, int64_t from, int64_t to,
                       float *patch) {
    const conv_grid *grid = &p->grid;
    int64_t j = pixel % grid->w.count, i = pixel / grid->w.count % grid->h.count;
    int64_t image = pixel / (grid->w.count * grid->h.count), channels = grid->group_in;
    int64_t top = grid->h.first + i * grid->h.step, left = grid->w.first + j * grid->w.step;
    bool runs = grid->w.tap_step == 1 && channels == grid->source_c && left >= 0 &&
                left + grid->w.taps <= grid->w.source;
    int64_t run = runs ? grid->w.taps * channels : channels; /* columns that lie in one piece */
    for (int64_t column = from; column < to;) {
        int64_t start = column / run * run, end = conv_min(start + run, to);
        int64_t tap = start / channels;
        int64_t y = top + tap / grid->w.taps * grid->h.tap_step;
        int64_t x = left + tap % grid->w.taps * grid->w.tap_step;
        size_t size = (size_t)(end - column) * sizeof(float);
        if (y >= 0 && y < grid->h.source && x >= 0 && x < grid->w.source) {
            int64_t place = (image * grid->h.source + y) * grid->w.source + x;
            memcpy(patch + (column - from),
                   grid->source + place * grid->source_c + channel + (column - start), size);
        } else {
            memset(patch + (column - from), 0, size);
        }
        column = end;
    }
}

/* Forward and backward-data. */

/* Sums of a block of pixels and one panel, where they belong or, if the grid's pixels do not lie
 * next to each other, beside. */
static void multiply_panel(const patches *p, const float *rows, int64_t group, int64_t panel,
                           int64_t pixel, int64_t count, float *sums) {
    const conv_grid *grid = &p->grid;
    const conv_kernels *kernels = grid->call->kernels;
    int64_t columns = conv_panel_columns(grid, panel);
    int64_t width = conv_round_up(columns, kernels->vector);
    int64_t channel = group * grid->group_out + panel * kernels->block_columns;
    bool dense = grid->h.spread == 1 && grid->w.spread == 1;
    float *to = dense ? grid->result + pixel * grid->result_c + channel : sums;
    int64_t to_step = dense ? grid->result_c : width;
    const float *bias = grid->call->bias, *b = conv_panel(grid, group, panel);
    if (bias) {
        for (int64_t i = 0; i < count; i++) {
            memcpy(to + i * to_step, bias + channel, (size_t)columns * sizeof(float));
        }
    }
    for (int64_t depth = 0; depth < grid->depth; depth += CHUNK_DEPTH) {
        kernels->product(count, (int)(dense ? columns : width),
                         conv_min(CHUNK_DEPTH, grid->depth - depth), rows + depth, p->row, false,
                         b + depth * width, width, to, to_step, bias || depth > 0);
    }
    conv_finish(grid->call, to, count, channel, columns);
    for (int64_t i = 0; !dense && i < count; i++) {
        memcpy(conv_result_pixel(grid, pixel + i) + channel, sums + i * width,
               (size_t)columns * sizeof(float));
    }
}

static void grid_piece(void *argument, int64_t piece, int worker) {
    const patches *p = argument;
    const conv_grid *grid = &p->grid;
    int64_t panel_group = piece % p->panel_groups, rest = piece / p->panel_groups;
    int64_t group = rest / p->blocks, pixel, pixel_last, panel, panel_last;
    resin_piece_bounds(grid->pixels, p->blocks, rest % p->blocks, &pixel, &pixel_last);
    resin_piece_bounds(grid->panels, p->panel_groups, panel_group, &panel, &panel_last);
    const float *rows = grid->source + pixel * grid->source_c;
    if (!p->in_place) {
        float *copies = p->patches + worker * p->patches_size;
        for (int64_t i = pixel; i < pixel_last; i++) {
            copy_patch(p, i, group * grid->group_in, 0, grid->depth, copies + (i - pixel) * p->row);
        }
        rows = copies;
    }
    for (; panel < panel_last; panel++) {
        multiply_panel(p, rows, group, panel, pixel, pixel_last - pixel,
                       p->sums + worker * p->sums_size);
    }
}

static resin_status run_grid(resin_context *context, patches *p) {
    conv_grid *grid = &p->grid;
    const conv_kernels *kernels = grid->call->kernels;
    int64_t groups = grid->call->shape.groups;
    int workers = resin_workers(context);
    if (grid->depth == 0 || grid->pixels == 0) {
        conv_zero_grid(context, grid);
        return RESIN_OK;
    }
    p->in_place = grid->h.taps == 1 && grid->w.taps == 1 && grid->depth == grid->source_c &&
                  grid->h.step == 1 && grid->w.step == 1 &&
                  grid->h.first == 0 && grid->w.first == 0 && grid->h.count == grid->h.source &&
                  grid->w.count == grid->w.source && grid->depth % FAR_ROWS != 0;
    p->row = p->in_place ? grid->source_c : conv_round_up(grid->depth, LINE) + LINE;
    int64_t most = conv_min(conv_max(PATCH_FLOATS / p->row / kernels->block_rows, 1), 16);
    p->blocks = conv_divide_up(grid->pixels, most * kernels->block_rows);
    p->block_pixels = conv_divide_up(grid->pixels, p->blocks);
    p->panel_groups = conv_min(grid->panels, conv_divide_up(ENOUGH_PIECES, p->blocks * groups));
    p->patches_size = p->block_pixels * p->row;
    p->sums_size = p->block_pixels * kernels->block_columns;
    RESIN_TRY(conv_pack_weights(context, grid));
    if (!p->in_place) RESIN_TRY(conv_reserve(context, workers, p->patches_size, &p->patches));
    RESIN_TRY(conv_reserve(context, workers, p->sums_size, &p->sums));
    resin_parallel(context, groups * p->blocks * p->panel_groups, grid_piece, p);
    return RESIN_OK;
}

static void release(resin_context *context, patches *p) {
    resin_deallocate(context, p->patches);
    resin_deallocate(context, p->grid.weights);
    resin_deallocate(context, p->sums);
    resin_deallocate(context, p->partial);
}

static resin_status run_backward_data(resin_context *context, const conv_call *call) {
    const conv_shape *s = &call->shape;
    for (int64_t rest_h = 0; rest_h < s->stride_h; rest_h++) {
        for (int64_t rest_w = 0; rest_w < s->stride_w; rest_w++) {
            patches p = {.grid = conv_backward_data_grid(call, rest_h, rest_w)};
            resin_status status = run_grid(context, &p);
            release(context, &p);
            RESIN_TRY(status);
        }
    }
    return RESIN_OK;
}

/* Backward-weights: dw (depth x out_c) = patches^T dy. A piece sums a block of rows and columns
 * over one part of the pixels; parts, where there is more than one, are added in order. */

static void weight_sum_piece(void *argument, int64_t piece, int worker) {
    const patches *p = argument;
    const conv_grid *grid = &p->grid;
    const conv_kernels *kernels = grid->call->kernels;
    int64_t out_c = grid->call->shape.out_c;
    int64_t row_block = piece % p->row_blocks, rest = piece / p->row_blocks;
    int64_t column_block = rest % p->column_blocks, part = rest / p->column_blocks % p->parts;
    int64_t group = rest / p->column_blocks / p->parts;
    int64_t row, row_last, pixel, pixel_last;
    resin_piece_bounds(grid->depth, p->row_blocks, row_block, &row, &row_last);
    resin_piece_bounds(grid->pixels, p->parts, part, &pixel, &pixel_last);
    int64_t column = column_block * WEIGHT_COLUMNS, first_pixel = pixel;
    int64_t column_last = conv_min(column + WEIGHT_COLUMNS, grid->group_out);
    float *dweights = p->parts > 1 ? p->partial + part * p->partial_size : grid->result;
    float *rows = p->patches + worker * p->patches_size;
    float *gradient = p->sums + worker * p->sums_size;
    for (; pixel < pixel_last; pixel += WEIGHT_PIXELS) {
        int64_t count = conv_min(WEIGHT_PIXELS, pixel_last - pixel);
        for (int64_t i = 0; i < count; i++) {
            copy_patch(p, pixel + i, group * grid->group_in, row, row_last, rows + i * p->row);
        }
        for (int64_t k = column; k < column_last; k += kernels->block_columns) {
            int64_t columns = conv_min(kernels->block_columns, column_last - k);
            int64_t width = conv_round_up(columns, kernels->vector);
            int64_t channel = group * grid->group_out + k;
            kernels->pack(count, columns, grid->call->dy + pixel * out_c + channel, out_c, false,
                          gradient, width);
            kernels->product(row_last - row, (int)columns, count, rows, p->row, true, gradient,
                             width, dweights + row * out_c + channel, out_c, pixel > first_pixel);
        }
    }
}

static void add_parts_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const patches *p = argument;
    const conv_grid *grid = &p->grid;
    int64_t first, last;
    resin_piece_bounds(p->partial_size, p->blocks, piece, &first, &last);
    grid->call->kernels->column_sums(p->parts, last - first, p->partial + first, p->partial_size,
                                  grid->result + first, false);
}

static resin_status run_weights(resin_context *context, patches *p) {
    const conv_grid *grid = &p->grid;
    const conv_kernels *kernels = grid->call->kernels;
    const conv_shape *s = &grid->call->shape;
    int workers = resin_workers(context);
    p->row_blocks = conv_divide_up(grid->depth, WEIGHT_ROWS);
    p->row = conv_round_up(conv_divide_up(grid->depth, p->row_blocks), LINE) + LINE;
    p->column_blocks = conv_divide_up(grid->group_out, WEIGHT_COLUMNS);
    int64_t pieces = s->groups * p->row_blocks * p->column_blocks;
    p->parts = conv_min(conv_min(conv_divide_up(ENOUGH_PIECES, pieces), MAXIMUM_PARTS),
                        conv_max(grid->pixels / PART_PIXELS, 1));
    p->partial_size = grid->depth * s->out_c;
    p->patches_size = WEIGHT_PIXELS * p->row;
    p->sums_size = WEIGHT_PIXELS * kernels->block_columns;
    RESIN_TRY(conv_reserve(context, workers, p->patches_size, &p->patches));
    RESIN_TRY(conv_reserve(context, workers, p->sums_size, &p->sums));
    if (p->parts > 1) RESIN_TRY(conv_reserve(context, p->parts, p->partial_size, &p->partial));
    resin_parallel(context, pieces * p->parts, weight_sum_piece, p);
    if (p->parts > 1) {
        p->blocks = resin_piece_count(p->partial_size, 4096);
        resin_parallel(context, p->blocks, add_parts_piece, p);
    }
    return RESIN_OK;
}

resin_status conv_product_run(resin_context *context, const conv_call *call) {
    if (conv_scatter_fits(&call->shape, call->pass)) return conv_scatter_run(context, call);
    if (call->pass == CONV_BACKWARD_DATA) return run_backward_data(context, call);
    patches p = {.grid = conv_forward_grid(call)};
    resin_status status = call->pass == CONV_FORWARD ? run_grid(context, &p)
                                                     : run_weights(context, &p);
    release(context, &p);
    return status;
}
