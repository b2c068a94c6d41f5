/* conv_rows_sweep.c: both backward passes of a 1x1 convolution with stride 1 in one sweep over the
 * pixels: the gradient that comes through a batch normalization is read from memory once, and so is
 * x. Some pixels of both are gathered into the second-level cache; the gradient is multiplied by the
 * weights, which gives dx, which is shown while it lies there, and with x. For dweights small enough
 * to be summed by parts of the pixels, which are added in order. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_rows.h"

enum {
    WEIGHTS_FLOATS = 128 << 10, /* at most */
    PARTS = 16,
    PART_PIXELS = 392, /* at least */
    BLOCK_PIXELS = 112,
    BLOCK_FLOATS = 128 << 10, /* of the gradient and x: half the second-level cache */
    FAR_ROWS = 1024 /* floats apart at which rows share few places of a cache: better copied */
};

typedef struct rows_sweep {
    conv_grid grid; /* of backward-data */
    const conv_call *data, *weights;
    int64_t block_pixels;
    bool in_place; /* rows of x are its pixels as they lie */
    int64_t gradient_row, x_row;
    int64_t rows_size, weights_size;
    float *rows, *partial; /* the gradient's rows and those of x, of each worker; dweights by parts */
} rows_sweep;

/* Some pixels of a part. */
typedef struct sweep_block {
    int64_t pixel, count;
    float *gradient;
    float *dweights;
} sweep_block;

bool conv_rows_sweeps(const conv_call *call) {
    const conv_shape *s = &call->shape;
    return call->norm && s->groups == 1 && s->kernel_h == 1 && s->kernel_w == 1 &&
           s->stride_h == 1 && s->stride_w == 1 && s->in_h == s->out_h && s->in_w == s->out_w &&
           s->in_c * s->out_c <= WEIGHTS_FLOATS &&
           s->batch * s->out_h * s->out_w >= PARTS * PART_PIXELS;
}

/* Lets a fetch read pixels of some channels, from `from` on, within so many steps. */
static void fetch_pixels(conv_fetch *fetch, int i, const float *from, int64_t floats,
                         int64_t steps) {
    fetch->at[i] = from;
    fetch->step[i] = conv_divide_up(floats, steps);
}

static int64_t product_steps(const rows_sweep *d, int64_t rows, int64_t columns, int64_t depth) {
    const conv_kernels *kernels = d->data->kernels;
    return conv_divide_up(columns, kernels->block_columns) *
           conv_divide_up(rows, kernels->block_rows) * depth;
}

/* dx, while x is fetched, which is read behind, and what else is read with dx. */
static void multiply_by_weights(const rows_sweep *d, const sweep_block *b) {
    const conv_call *call = d->data;
    const conv_kernels *kernels = call->kernels;
    int64_t in_c = call->shape.in_c, out_c = call->shape.out_c;
    int64_t steps = product_steps(d, b->count, in_c, out_c);
    float *dx = call->result + b->pixel * in_c;
    conv_fetch fetch = {{dx, dx, dx}, {0}, {0}};
    fetch_pixels(&fetch, 0, d->weights->x.pixels + b->pixel * in_c, b->count * in_c, steps);
    if (call->watch && call->watch->reads)
        fetch_pixels(&fetch, 2, call->watch->reads + b->pixel * in_c, b->count * in_c, steps);
    conv_fetch_in_line(&fetch, out_c);
    for (int64_t panel = 0; panel < d->grid.panels; panel++) {
        int64_t columns = conv_panel_columns(&d->grid, panel);
        kernels->product_fetch(1, 0, 0, b->count, (int)columns, out_c, b->gradient,
                               d->gradient_row, false, conv_panel(&d->grid, 0, panel),
                               conv_round_up(columns, kernels->vector),
                               dx + panel * kernels->block_columns, in_c, call->add, &fetch, NULL);
        conv_fetch_on(&fetch, conv_divide_up(b->count, kernels->block_rows));
    }
}

/* Adds to dweights, while the gradient of the next pixels is fetched, and dx, which is written, and
 * perhaps added to, sooner than it could come from far. */
static void multiply_with_x(const rows_sweep *d, const sweep_block *b, const float *x,
                            bool accumulate) {
    const conv_call *call = d->data;
    const conv_kernels *kernels = call->kernels;
    int64_t in_c = call->shape.in_c, out_c = call->shape.out_c;
    int64_t next = conv_min(b->pixel + b->count, d->grid.pixels);
    conv_fetch fetch = {{x, x, x}, {0}, {0}};
    int64_t steps = product_steps(d, in_c, out_c, b->count);
    fetch_pixels(&fetch, 0, call->dy + next * out_c, b->count * out_c, steps);
    fetch_pixels(&fetch, 1, call->norm->x + next * out_c, b->count * out_c, steps);
    fetch_pixels(&fetch, 2, call->result + next * in_c, b->count * in_c, steps);
    conv_fetch_in_line(&fetch, b->count);
    for (int64_t j = 0; j < out_c; j += kernels->block_columns) {
        kernels->product_fetch(1, 0, 0, in_c, (int)conv_min(kernels->block_columns, out_c - j),
                               b->count, x, d->x_row, true, b->gradient + j, d->gradient_row,
                               b->dweights + j, out_c, accumulate, &fetch, NULL);
        conv_fetch_on(&fetch, conv_divide_up(in_c, kernels->block_rows));
    }
}

static void gather_gradient(const rows_sweep *d, const sweep_block *b) {
    const conv_call *call = d->data;
    int64_t out_c = call->shape.out_c;
    conv_gather_pixels(call->kernels, (conv_image){.pixels = call->dy}, call->norm, b->count, 0,
                       out_c, call->dy + b->pixel * out_c, out_c, b->gradient, d->gradient_row);
}

/* The rows of x: where they lie, or gathered. */
static const float *rows_of_x(const rows_sweep *d, const sweep_block *b) {
    const conv_call *call = d->weights;
    int64_t in_c = call->shape.in_c;
    const float *x = call->x.pixels + b->pixel * in_c;
    if (d->in_place) return x;
    float *rows = b->gradient + d->block_pixels * d->gradient_row;
    conv_gather_pixels(call->kernels, call->x, NULL, b->count, 0, in_c, x, in_c, rows, d->x_row);
    return rows;
}

static void sweep_piece(void *argument, int64_t part, int worker) {
    const rows_sweep *d = argument;
    conv_watch *watch = d->data->watch;
    int64_t first, last;
    resin_piece_bounds(d->grid.pixels, PARTS, part, &first, &last);
    sweep_block b = {.gradient = d->rows + worker * d->rows_size,
                     .dweights = d->partial + part * d->weights_size};
    for (b.pixel = first; b.pixel < last; b.pixel += b.count) {
        b.count = conv_min(d->block_pixels, last - b.pixel);
        gather_gradient(d, &b);
        multiply_by_weights(d, &b);
        if (watch) watch->pixels(watch, part, b.pixel, b.count, worker);
        multiply_with_x(d, &b, rows_of_x(d, &b), b.pixel > first);
    }
}

/* Blocks of whole register blocks, about as many pixels in each. */
static void cut(rows_sweep *d) {
    const conv_shape *s = &d->data->shape;
    int64_t rows = d->data->kernels->block_rows;
    int64_t most = conv_min(BLOCK_PIXELS, BLOCK_FLOATS / (s->in_c + s->out_c));
    int64_t part = conv_divide_up(d->grid.pixels, PARTS);
    int64_t blocks = conv_divide_up(part, conv_max(most / rows, 1) * rows);
    d->block_pixels = conv_round_up(conv_divide_up(part, blocks), rows);
    d->in_place = !d->weights->x.scale && s->in_c % FAR_ROWS != 0;
    d->gradient_row = conv_row_floats(s->out_c);
    d->x_row = d->in_place ? s->in_c : conv_row_floats(s->in_c);
    d->rows_size = d->block_pixels * (d->gradient_row + (d->in_place ? 0 : d->x_row));
    d->weights_size = s->in_c * s->out_c;
}

static resin_status run(resin_context *context, rows_sweep *d) {
    conv_watch *watch = d->data->watch;
    RESIN_TRY(conv_pack_weights(context, &d->grid));
    RESIN_TRY(conv_reserve(context, resin_workers(context), d->rows_size, &d->rows));
    RESIN_TRY(conv_reserve(context, PARTS, d->weights_size, &d->partial));
    if (watch) RESIN_TRY(watch->begin(watch, d->data->result, d->data->shape.in_c, PARTS));
    resin_parallel(context, PARTS, sweep_piece, d);
    conv_add_parts(context, d->data->kernels, d->partial, PARTS, d->weights_size,
                   d->weights->result);
    return RESIN_OK;
}

resin_status conv_rows_run_sweep(resin_context *context, const conv_call *data,
                                 const conv_call *weights) {
    rows_sweep d = {.grid = conv_backward_data_grid(data, 0, 0), .data = data, .weights = weights};
    cut(&d);
    resin_status status = run(context, &d);
    resin_deallocate(context, d.grid.weights);
    resin_deallocate(context, d.rows);
    resin_deallocate(context, d.partial);
    return status;
}
