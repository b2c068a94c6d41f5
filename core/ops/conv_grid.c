/* conv_grid.c: the grids of a convolution's passes, and their weights in panels. */
#include "core/ops/conv_grid.h"

#include "core/base/threads.h"

#include <string.h>

static int64_t greatest_common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static conv_axis forward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                              int64_t dilation) {
    return (conv_axis){.count = out, .source = in, .step = stride, .first = -pad, .taps = kernel,
                       .tap_step = dilation, .kernel_first = 0, .kernel_step = 1, .spread = 1};
}

/* The pixels of dx that leave the rest r. */
static conv_axis backward_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
                               int64_t dilation, int64_t rest) {
    conv_axis a = {.count = in > rest ? (in - rest + stride - 1) / stride : 0, .source = out,
                   .step = 1, .spread = stride, .place = rest};
    int64_t between = stride / greatest_common_divisor(dilation, stride), lowest = 0;
    while (lowest < kernel && (rest + pad - lowest * dilation) % stride != 0) lowest++;
    if (lowest >= kernel) return a;
    a.taps = (kernel - lowest + between - 1) / between;
    a.kernel_first = lowest + (a.taps - 1) * between; /* the highest reads the lowest pixel of dy */
    a.kernel_step = -between;
    a.first = (rest + pad - a.kernel_first * dilation) / stride;
    a.tap_step = dilation * between / stride;
    return a;
}

static conv_grid finish(conv_grid g) {
    g.pixels = g.call->shape.batch * g.h.count * g.w.count;
    g.depth = g.h.taps * g.w.taps * g.group_in;
    g.panels = conv_divide_up(g.group_out, g.call->kernels->block_columns);
    return g;
}

conv_grid conv_forward_grid(const conv_call *call) {
    const conv_shape *s = &call->shape;
    return finish((conv_grid){
        .call = call, .image = call->x, .source = call->x.pixels, .result = call->result,
        .source_c = s->in_c, .source_step = s->in_c,
        .result_c = s->out_c, .group_in = s->in_c / s->groups, .group_out = s->out_c / s->groups,
        .result_h = s->out_h, .result_w = s->out_w,
        .h = forward_axis(s->in_h, s->out_h, s->kernel_h, s->stride_h, s->pad_top, s->dilation_h),
        .w = forward_axis(s->in_w, s->out_w, s->kernel_w, s->stride_w, s->pad_left,
                          s->dilation_w)});
}

conv_grid conv_backward_data_grid(const conv_call *call, int64_t rest_h, int64_t rest_w) {
    const conv_shape *s = &call->shape;
    return finish((conv_grid){
        .call = call, .image = {.pixels = call->dy}, .source = call->dy, .result = call->result,
        .source_c = s->out_c, .source_step = call->dy_step ? call->dy_step : s->out_c,
        .result_c = s->in_c, .group_in = s->out_c / s->groups, .group_out = s->in_c / s->groups,
        .result_h = s->in_h, .result_w = s->in_w,
        .h = backward_axis(s->in_h, s->out_h, s->kernel_h, s->stride_h, s->pad_top, s->dilation_h,
                           rest_h),
        .w = backward_axis(s->in_w, s->out_w, s->kernel_w, s->stride_w, s->pad_left, s->dilation_w,
                           rest_w)});
}

int64_t conv_panel_columns(const conv_grid *grid, int64_t panel) {
    int64_t width = grid->call->kernels->block_columns;
    return conv_min(width, grid->group_out - panel * width);
}

/* Floats before a panel, counted through all groups. */
static int64_t panel_place(const conv_grid *grid, int64_t panel) {
    return panel * grid->call->kernels->block_columns * grid->depth;
}

const float *conv_panel(const conv_grid *grid, int64_t group, int64_t panel) {
    return grid->packed + panel_place(grid, group * grid->panels + panel);
}

const float *conv_weights_place(const conv_grid *g, int64_t group, int64_t panel, int64_t tap,
                                int64_t channel) {
    const conv_shape *s = &g->call->shape;
    int64_t first = panel * g->call->kernels->block_columns;
    int64_t y = g->h.kernel_first + tap / g->w.taps * g->h.kernel_step;
    int64_t x = g->w.kernel_first + tap % g->w.taps * g->w.kernel_step;
    int64_t in_c = s->in_c / s->groups, out_c = s->out_c / s->groups;
    const float *from = g->call->weights + (y * s->kernel_w + x) * in_c * s->out_c + group * out_c;
    return from + (g->call->pass == CONV_BACKWARD_DATA ? first * s->out_c + channel
                                                       : first + channel * s->out_c);
}

void conv_pack_panel(const conv_grid *g, int64_t group, int64_t panel, int64_t tap, int64_t channel,
                     int64_t channels, float *to) {
    const conv_kernels *kernels = g->call->kernels;
    int64_t columns = conv_panel_columns(g, panel);
    kernels->pack(channels, columns, conv_weights_place(g, group, panel, tap, channel),
                  g->call->shape.out_c, g->call->pass == CONV_BACKWARD_DATA, to,
                  conv_round_up(columns, kernels->vector));
}

typedef struct pack_job {
    const conv_grid *grid;
    float *to;
} pack_job;

/* Packs the weights of one tap and one panel of a group. */
static void weights_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const pack_job *job = argument;
    const conv_grid *g = job->grid;
    int64_t taps = g->h.taps * g->w.taps, tap = piece % taps, panel = piece / taps;
    int64_t group = panel / g->panels;
    int64_t width = conv_round_up(conv_panel_columns(g, panel % g->panels),
                                  g->call->kernels->vector);
    conv_pack_panel(g, group, panel % g->panels, tap, 0, g->group_in,
                    job->to + panel_place(g, panel) + tap * g->group_in * width);
}

int64_t conv_packed_floats(const conv_grid *grid) {
    return panel_place(grid, grid->call->shape.groups * grid->panels);
}

void conv_pack_all(resin_context *context, const conv_grid *grid, float *to) {
    pack_job job = {grid, to};
    int64_t panels = grid->call->shape.groups * grid->panels;
    resin_parallel(context, panels * grid->h.taps * grid->w.taps, weights_piece, &job);
}

resin_status conv_pack_weights(resin_context *context, conv_grid *grid) {
    grid->packed = grid->call->prepared;
    if (grid->packed) return RESIN_OK;
    RESIN_TRY(conv_reserve(context, grid->call->shape.groups * grid->panels,
                           grid->call->kernels->block_columns * grid->depth, &grid->weights));
    conv_pack_all(context, grid, grid->weights);
    grid->packed = grid->weights;
    return RESIN_OK;
}

float *conv_result_pixel(const conv_grid *grid, int64_t pixel) {
    int64_t j = pixel % grid->w.count, i = pixel / grid->w.count % grid->h.count;
    int64_t image = pixel / (grid->w.count * grid->h.count);
    int64_t y = i * grid->h.spread + grid->h.place, x = j * grid->w.spread + grid->w.place;
    return grid->result + ((image * grid->result_h + y) * grid->result_w + x) * grid->result_c;
}

static void zero_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const conv_grid *g = argument;
    int64_t first, last;
    resin_piece_bounds(g->pixels, resin_piece_count(g->pixels, 64), piece, &first, &last);
    for (; first < last; first++) {
        memset(conv_result_pixel(g, first), 0, (size_t)g->result_c * sizeof(float));
    }
}

void conv_zero_grid(resin_context *context, conv_grid *grid) {
    if (grid->pixels == 0) return;
    resin_parallel(context, resin_piece_count(grid->pixels, 64), zero_piece, grid);
}
