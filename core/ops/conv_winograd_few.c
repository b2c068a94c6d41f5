/* conv_winograd_few.c: forward and backward-data by Winograd's method for few tiles, as the late
 * layers have at a small batch: most of the time goes by with the weights. After all v, each piece
 * sums one vector of output channels over all input channels; the weights are read once for a block
 * of tiles, asked for ahead, and u is made in registers (core/kernels/conv_winograd_few.c). */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_winograd.h"

/* The weights of a panel and of its group's input channels from `channel` on. */
static const float *corner(const winograd *w, int64_t row_step, int64_t panel, int64_t channel) {
    int64_t first = winograd_panel_first(w, panel), group = panel / w->panels;
    if (!w->rotated) return w->weights + channel * row_step + first;
    return w->weights + (first - group * w->out_c) * row_step + group * w->in_c + channel;
}

static void few_piece(void *argument, int64_t piece, int worker) {
    const winograd *w = argument;
    int64_t panel = piece / w->blocks, block = piece % w->blocks, first, last;
    int64_t panels = w->groups * w->panels, group = panel / w->panels;
    resin_piece_bounds(w->bands, w->blocks, block, &first, &last);
    float *scratch = w->u + worker * w->u_size, *m = w->m + worker * w->m_size;
    int64_t row_step = w->groups * (w->rotated ? w->in_c : w->out_c);
    winograd_few call = {
        .tiles = winograd_band_tile(w, last) - winograd_band_tile(w, first),
        .columns = conv_min(w->out_c - panel % w->panels * w->panel_columns, w->panel_columns),
        .tap_step = row_step * (w->rotated ? w->out_c : w->in_c), .row_step = row_step,
        .rotated = w->rotated, .v_plane = w->block_tiles * WINOGRAD_ROW + WINOGRAD_LINE,
        .m = m, .m_row = w->panel_columns,
        .m_plane = w->block_tiles * w->panel_columns + WINOGRAD_LINE};
    for (int64_t slice = 0; slice < w->slices; slice++) {
        int64_t channel, end;
        resin_piece_bounds(w->in_c, w->slices, slice, &channel, &end);
        call.v = winograd_slice_v(w, group * w->slices + slice, block);
        for (; channel < end; channel += call.channels) {
            call.channels = conv_min(end - channel, WINOGRAD_FEW_CHANNELS);
            int64_t next = channel + call.channels;
            call.weights = corner(w, row_step, panel, channel);
            call.next = next < w->in_c
                            ? corner(w, row_step, panel, next)
                            : corner(w, row_step, conv_min(panel + w->workers, panels - 1), 0);
            call.accumulate = channel > 0;
            w->kernels->winograd_few(&call, scratch);
            call.v += call.channels;
        }
    }
    winograd_transform_result(w, first, last, panel, m, call.m_row, call.m_plane);
}

resin_status winograd_run_few(resin_context *context, winograd *w) {
    w->workers = resin_workers(context);
    w->panel_columns = w->kernels->few_columns;
    w->panels = conv_divide_up(w->out_c, w->panel_columns);
    winograd_cut(w, w->tiles);
    winograd_slice(w, false);
    w->slice_width = WINOGRAD_ROW;
    w->some_groups = w->groups;
    w->v_size = WINOGRAD_POINTS * (w->block_tiles * w->slice_width + WINOGRAD_LINE);
    w->u_size = WINOGRAD_FEW_SCRATCH * w->panel_columns;
    w->m_size = WINOGRAD_POINTS * (w->block_tiles * w->panel_columns + WINOGRAD_LINE);
    RESIN_TRY(winograd_reserve_v(context, w));
    RESIN_TRY(conv_reserve(context, w->workers, w->u_size, &w->u));
    RESIN_TRY(conv_reserve(context, w->workers, w->m_size, &w->m));
    winograd_make_v(context, w, w->groups);
    resin_parallel(context, w->groups * w->panels * w->blocks, few_piece, w);
    return RESIN_OK;
}
