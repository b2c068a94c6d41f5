/* conv_rows_both.c: both backward passes of a 1x1 convolution whose gradient comes through a batch
 * normalization. The passes gather it for each group of panels and each tile again; here it is made
 * once, as rows that both read where they lie. For results that the last cache holds; the others
 * are swept over (conv_rows_sweep.c). */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_rows.h"

enum {
    GATHER_PIXELS = 16,
    MOST_PIXELS = 8192,   /* few panels and tiles belong to more, */
    MOST_FLOATS = 4 << 20 /* and what is made then goes to memory */
};

typedef struct rows_both {
    const conv_call *call; /* with the gradient as it comes */
    int64_t pixels, row;
    float *rows;
} rows_both;

bool conv_rows_joins(const conv_call *call) {
    const conv_shape *s = &call->shape;
    int64_t pixels = s->batch * s->out_h * s->out_w;
    if (conv_rows_sweeps(call)) return true;
    return call->norm && s->groups == 1 && s->kernel_h == 1 && s->kernel_w == 1 &&
           pixels <= MOST_PIXELS && pixels * s->out_c <= MOST_FLOATS;
}

static void gather_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const rows_both *both = argument;
    const conv_call *call = both->call;
    int64_t first, last, channels = call->shape.out_c;
    resin_piece_bounds(both->pixels, conv_divide_up(both->pixels, GATHER_PIXELS), piece, &first,
                       &last);
    conv_gather_pixels(call->kernels, (conv_image){.pixels = call->dy}, call->norm, last - first, 0,
                       channels, call->dy + first * channels, channels,
                       both->rows + first * both->row, both->row);
}

resin_status conv_rows_run_both(resin_context *context, const conv_call *data,
                                const conv_call *weights) {
    if (conv_rows_sweeps(data)) return conv_rows_run_sweep(context, data, weights);
    const conv_shape *s = &data->shape;
    rows_both both = {.call = data, .pixels = s->batch * s->out_h * s->out_w,
                      .row = conv_row_floats(s->out_c)};
    RESIN_TRY(conv_reserve(context, both.pixels, both.row, &both.rows));
    resin_parallel(context, conv_divide_up(both.pixels, GATHER_PIXELS), gather_piece, &both);
    conv_call plain[] = {*weights, *data};
    resin_status status = RESIN_OK;
    for (int i = 0; i < 2 && status == RESIN_OK; i++) {
        plain[i].dy = both.rows;
        plain[i].dy_step = both.row;
        plain[i].norm = NULL;
        status = conv_direct_run(context, &plain[i]);
    }
    resin_deallocate(context, both.rows);
    return status;
}
