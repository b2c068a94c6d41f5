/* conv_winograd_both.c: both backward passes of Winograd's method in one sweep: the gradient dy, or
 * what a batch normalization makes of it, is read (and made) once for dx and for dweights, and never
 * goes to memory. For images whose size the convolution keeps, so that the tiles of dx lie where
 * those of dy do, and for dweights small enough to be summed by chunks. */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_winograd.h"

enum { ENOUGH_BLOCKS = 32 };

typedef struct winograd_both {
    winograd data, weights; /* data.source is dy, weights.source x */
    float *gradients;       /* m of dy, of all panels; for each worker */
    int64_t gradients_size;
} winograd_both;

bool conv_winograd_joins(const conv_shape *s, const conv_kernels *kernels) {
    int64_t outputs = winograd_outputs(s->kernel_h), tiles_w = conv_divide_up(s->out_w, outputs);
    int64_t tiles = s->batch * conv_divide_up(s->out_h, outputs) * tiles_w;
    return s->in_h == s->out_h && s->in_w == s->out_w &&
           winograd_takes_chunks(s->in_c / s->groups, s->out_c / s->groups) &&
           tiles >= ENOUGH_BLOCKS * winograd_block_tiles(kernels);
}

static void both_piece(void *argument, int64_t piece, int worker) {
    const winograd_both *both = argument;
    const winograd *data = &both->data, *weights = &both->weights;
    int64_t first, last, group, group_last, step = data->block_tiles / data->band_tiles;
    int64_t chunk = piece % weights->chunks, row = weights->slice_width;
    int64_t bundle = piece / weights->chunks;
    resin_piece_bounds(data->bands, weights->chunks, chunk, &first, &last);
    winograd_bundle_bounds(data, bundle, &group, &group_last);
    int64_t channel = group * weights->in_c, channels = (group_last - group) * weights->in_c;
    int64_t first_panel = group * weights->panels, last_panel = group_last * weights->panels;
    float *v = data->v + worker * data->v_size, *m = data->m + worker * data->m_size;
    float *gradients = both->gradients + worker * both->gradients_size;
    for (int64_t band = first; band < last; band += step) {
        int64_t end = conv_min(band + step, last);
        int64_t count = winograd_band_tile(data, end) - winograd_band_tile(data, band);
        winograd_ahead ahead = {.count = 0}, next = {.count = 0};
        winograd_ask_result(&ahead, data, bundle, band, end);
        winograd_ask_source(&ahead, weights, bundle, band, end);
        winograd_ask_source(&next, data, bundle, end, conv_min(end + step, last));
        winograd_transform_both(data, band, end, bundle, data->pad_top, data->pad_left, v,
                                gradients, worker);
        for (int64_t panel = group * data->panels; panel < group_last * data->panels; panel++) {
            int64_t width = winograd_panel_width(data, panel);
            winograd_multiply(data, band, end, panel, v, m,
                              panel == group * data->panels ? &ahead : NULL);
            winograd_transform_result(data, band, end, panel, m, width,
                                      data->block_tiles * width + WINOGRAD_LINE);
        }
        winograd_show(data, chunk, band, end, worker);
        winograd_transform_source(weights, band, end, channel, channels, v, row,
                                  weights->block_tiles * row + WINOGRAD_LINE, worker);
        for (int64_t panel = first_panel; panel < last_panel; panel++) {
            winograd_add_to_chunk(weights, chunk, panel, count, v,
                                  gradients + (panel - first_panel) * data->m_size, band == first,
                                  panel == first_panel ? &next : NULL);
        }
    }
}

static resin_status run(resin_context *context, winograd_both *both) {
    winograd *data = &both->data, *weights = &both->weights;
    const conv_kernels *kernels = data->kernels;
    int workers = resin_workers(context);
    winograd_cut(data, winograd_block_tiles(kernels));
    winograd_cut(weights, winograd_block_tiles(kernels));
    winograd_slice(data, true);
    winograd_slice(weights, true);
    /* Scratch serves both, one after the other. */
    winograd *wider = data->slice_width > weights->slice_width ? data : weights;
    data->v_size = WINOGRAD_POINTS * (data->block_tiles * wider->slice_width + WINOGRAD_LINE);
    data->m_size = WINOGRAD_POINTS * (data->block_tiles * kernels->block_columns + WINOGRAD_LINE);
    both->gradients_size = weights->bundle * weights->panels * data->m_size;
    winograd *other = wider == data ? weights : data;
    RESIN_TRY(winograd_reserve_strips(context, wider));
    other->strips = wider->strips;
    other->strip_size = wider->strip_size;
    other->strip_bands = wider->strip_bands;
    RESIN_TRY(conv_reserve(context, workers, data->v_size, &data->v));
    RESIN_TRY(conv_reserve(context, workers, data->m_size, &data->m));
    RESIN_TRY(conv_reserve(context, workers, both->gradients_size, &both->gradients));
    RESIN_TRY(winograd_reserve_chunks(context, weights));
    RESIN_TRY(winograd_make_u(context, data));
    RESIN_TRY(winograd_begin_watch(data, weights->chunks));
    resin_parallel(context, weights->bundles * weights->chunks, both_piece, both);
    winograd_finish_chunks(context, weights);
    return RESIN_OK;
}

resin_status conv_winograd_run_both(resin_context *context, const conv_call *data,
                                    const conv_call *weights) {
    winograd_both both = {.data = winograd_describe(data), .weights = winograd_describe(weights)};
    resin_status status = run(context, &both);
    if (both.data.strips) both.weights.strips = NULL; /* the same */
    winograd_release(context, &both.data);
    winograd_release(context, &both.weights);
    resin_deallocate(context, both.gradients);
    return status;
}
