/* conv_scatter.c: backward-data into few channels, the image of a first layer. A sum of dx
 * would fill only a few lanes of a vector, so here the lanes are kernel_h x kernel_w x channels:
 * the product of dy's pixels and the weights gives what each pixel adds to the patch of the image
 * that it saw, and the patches are added where they lie. A piece owns some rows of dx, and computes
 * the patches of all rows of dy that reach them. Needs one group and dilation_w = 1. */
#include "core/ops/conv_scatter.h"

#include "core/base/memory.h"
#include "core/base/threads.h"

#include <string.h>

enum {
    FEW_CHANNELS = 8,
    ENOUGH_PIECES = 64,
    BLOCK_KERNELS = 4, /* rows of a piece, in kernels: those at its ends are computed twice */
    PATCH_PIXELS = 112 /* multiplied together */
};

typedef struct scatter {
    const conv_call *call;
    int64_t columns, panels; /* of the weights: kernel_h x kernel_w x channels */
    int64_t run;             /* columns of one row of the kernel */
    int64_t patch;           /* floats from one patch to the next */
    int64_t line;            /* floats of a row of dx with padding around */
    int64_t rows, blocks;    /* rows of dx of a piece, and how often that is in an image */
    int64_t patches_size, image_size;
    float *weights, *scratch;
} scatter;

bool conv_scatter_fits(const conv_shape *s, conv_pass pass) {
    return pass == CONV_BACKWARD_DATA && s->groups == 1 && s->dilation_w == 1 &&
           s->in_c <= FEW_CHANNELS && s->kernel_h * s->kernel_w > 1;
}

static int64_t panel_columns(const scatter *p, int64_t panel) {
    int64_t width = p->call->kernels->block_columns;
    return conv_min(width, p->columns - panel * width);
}

/* The weights (columns x out_c) as panels of their transpose. */
static void weights_piece(void *argument, int64_t panel, int worker) {
    (void)worker;
    const scatter *p = argument;
    const conv_kernels *kernels = p->call->kernels;
    int64_t out_c = p->call->shape.out_c, columns = panel_columns(p, panel);
    int64_t first = panel * kernels->block_columns;
    kernels->pack(out_c, columns, p->call->weights + first * out_c, out_c, true,
                  p->weights + first * out_c, conv_round_up(columns, kernels->vector));
}

/* The patches of `count` pixels of dy. */
static void multiply_pixels(const scatter *p, const float *dy, int64_t count, float *patches) {
    const conv_kernels *kernels = p->call->kernels;
    int64_t out_c = p->call->shape.out_c;
    for (int64_t panel = 0; panel < p->panels; panel++) {
        int64_t first = panel * kernels->block_columns;
        int64_t width = conv_round_up(panel_columns(p, panel), kernels->vector);
        kernels->product(count, (int)width, out_c, dy, out_c, false, p->weights + first * out_c,
                         width, patches + first, p->patch, false);
    }
}

/* Adds row i of dy to rows [first, last) of dx, which lie in `rows` with padding around. */
static void add_row(const scatter *p, int64_t image, int64_t i, int64_t first, int64_t last,
                    float *patches, float *rows) {
    const conv_shape *s = &p->call->shape;
    int64_t top = i * s->stride_h - s->pad_top, dilation = s->dilation_h;
    /* The rows of the kernel that fall inside. */
    int64_t tap = top >= first ? 0 : conv_divide_up(first - top, dilation);
    int64_t tap_last = conv_min(s->kernel_h, conv_divide_up(last - top, dilation));
    if (tap >= tap_last) return;
    const float *dy = p->call->dy + (image * s->out_h + i) * s->out_w * s->out_c;
    float *to = rows + (top + tap * dilation - first) * p->line;
    for (int64_t j = 0; j < s->out_w; j += PATCH_PIXELS) {
        int64_t count = conv_min(PATCH_PIXELS, s->out_w - j);
        multiply_pixels(p, dy + j * s->out_c, count, patches);
        p->call->kernels->add_patches(count, tap_last - tap, p->run, patches + tap * p->run,
                                      p->patch, to + j * s->stride_w * s->in_c, dilation * p->line,
                                      s->stride_w * s->in_c);
    }
}

static void scatter_piece(void *argument, int64_t piece, int worker) {
    const scatter *p = argument;
    const conv_shape *s = &p->call->shape;
    int64_t image = piece / p->blocks, first, last;
    resin_piece_bounds(s->in_h, p->blocks, piece % p->blocks, &first, &last);
    float *patches = p->scratch + worker * (p->patches_size + p->image_size);
    float *rows = patches + p->patches_size;
    memset(rows, 0, (size_t)p->image_size * sizeof(float));
    int64_t reach = (s->kernel_h - 1) * s->dilation_h;
    int64_t i = conv_max(first + s->pad_top - reach, 0) / s->stride_h;
    int64_t i_last = conv_min((last - 1 + s->pad_top) / s->stride_h + 1, s->out_h);
    for (; i < i_last; i++) add_row(p, image, i, first, last, patches, rows);
    for (int64_t y = first; y < last; y++) {
        memcpy(p->call->result + (image * s->in_h + y) * s->in_w * s->in_c,
               rows + (y - first) * p->line + s->pad_left * s->in_c,
               (size_t)(s->in_w * s->in_c) * sizeof(float));
    }
}

resin_status conv_scatter_run(resin_context *context, const conv_call *call) {
    const conv_shape *s = &call->shape;
    int64_t vector = call->kernels->vector;
    scatter p = {.call = call, .run = s->kernel_w * s->in_c};
    p.columns = s->kernel_h * p.run;
    p.panels = conv_divide_up(p.columns, call->kernels->block_columns);
    p.patch = conv_round_up(p.columns, vector) + vector; /* read by whole vectors */
    /* What no pixel of dy reaches stays zero. */
    int64_t width = conv_max((s->out_w - 1) * s->stride_w + s->kernel_w, s->pad_left + s->in_w);
    p.line = conv_round_up(width * s->in_c, vector) + vector;
    p.blocks = conv_min(conv_divide_up(ENOUGH_PIECES, s->batch),
                        conv_max(s->in_h / (BLOCK_KERNELS * s->kernel_h), 1));
    p.rows = conv_divide_up(s->in_h, p.blocks);
    p.patches_size = conv_min(PATCH_PIXELS, s->out_w) * p.patch;
    p.image_size = p.rows * p.line;
    resin_status status = conv_reserve(context, conv_round_up(p.columns, vector), s->out_c,
                                       &p.weights);
    if (status == RESIN_OK) {
        status = conv_reserve(context, resin_workers(context), p.patches_size + p.image_size,
                              &p.scratch);
    }
    if (status == RESIN_OK) {
        resin_parallel(context, p.panels, weights_piece, &p);
        resin_parallel(context, s->batch * p.blocks, scatter_piece, &p);
    }
    resin_deallocate(context, p.weights);
    resin_deallocate(context, p.scratch);
    return status;
}
