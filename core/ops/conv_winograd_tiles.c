/* conv_winograd_tiles.c: tiles, bands and strips of Winograd's method, and its transforms of parts
 * of images and weights (conv_winograd.h). */
#include "core/base/threads.h"
#include "core/ops/conv_winograd.h"

enum { STRIP_FLOATS = 40 << 10 }; /* of a strip, where one band allows: it stays in the cache */

/* ---- Geometry -------------------------------------------------------------------------------- */

int64_t winograd_panel_first(const winograd *w, int64_t panel) {
    return panel / w->panels * w->out_c + panel % w->panels * w->panel_columns;
}

int64_t winograd_panel_columns(const winograd *w, int64_t panel) {
    return conv_min(w->out_c - panel % w->panels * w->panel_columns, w->panel_columns);
}

int64_t winograd_panel_width(const winograd *w, int64_t panel) {
    return conv_round_up(winograd_panel_columns(w, panel), w->kernels->vector);
}

int64_t winograd_u_plane(const winograd *w) {
    return w->in_c * winograd_panel_width(w, 0) + WINOGRAD_LINE;
}

int64_t winograd_band_tile(const winograd *w, int64_t band) {
    return band / w->cuts * w->tiles_w + band % w->cuts * w->band_tiles;
}

void winograd_cut(winograd *w, int64_t tiles) {
    conv_cut_row(w->tiles_w, tiles, &w->cuts, &w->band_tiles);
    w->bands = w->tiles / w->tiles_w * w->cuts;
    int64_t bands = conv_max((tiles + w->band_tiles / 2) / w->band_tiles, 1);
    w->blocks = conv_divide_up(w->bands, bands);
    w->block_tiles = conv_divide_up(w->bands, w->blocks) * w->band_tiles;
}

void winograd_slice(winograd *w, bool whole) {
    w->slices = whole ? 1 : conv_divide_up(w->in_c, WINOGRAD_SLICE_CHANNELS);
    int64_t channels = whole ? w->bundle * w->in_c : conv_divide_up(w->in_c, w->slices);
    w->slice_width = conv_round_up(channels, w->kernels->vector);
}

void winograd_slice_bounds(const winograd *w, int64_t slice, int64_t *first, int64_t *last) {
    int64_t group = slice / w->slices;
    resin_piece_bounds(w->in_c, w->slices, slice % w->slices, first, last);
    *first += group * w->in_c;
    *last += group * w->in_c;
}

int64_t winograd_group_channel(const winograd *w, int64_t panel) {
    return panel / w->panels % w->bundle * w->in_c;
}

void winograd_bundle_bounds(const winograd *w, int64_t bundle, int64_t *first, int64_t *last) {
    *first = bundle * w->bundle;
    *last = conv_min(*first + w->bundle, w->groups);
}

resin_status winograd_reserve_strips(resin_context *context, winograd *w) {
    int64_t channels = conv_max(w->slice_width, w->kernels->block_columns);
    int64_t line = (w->outputs * w->band_tiles + w->taps - 1) * channels;
    int64_t bands = (STRIP_FLOATS / line - (w->taps - 1)) / w->outputs;
    w->strip_bands = w->cuts > 1 ? 1 : conv_max(bands, 1);
    w->strip_bands = conv_min(w->strip_bands, w->tiles_h);
    w->strip_size = (w->outputs * w->strip_bands + w->taps - 1) * line;
    return conv_reserve(context, resin_workers(context), w->strip_size, &w->strips);
}

/* The first pixel of a tile in a row or column of so many. */
static int64_t tile_begin(const winograd *w, int64_t tile, int64_t tiles, int64_t narrow) {
    return w->outputs * tile - conv_max(tile - (tiles - narrow), 0);
}

/* Some bands, one below the other, that a strip holds at once. */
typedef struct band_run {
    int64_t bands, tiles; /* tiles of each */
    int64_t image, row, top, left; /* row of tiles */
} band_run;

static band_run run_of_bands(const winograd *w, int64_t band, int64_t last) {
    int64_t row = band / w->cuts, cut = band % w->cuts, tile_row = row % w->tiles_h;
    band_run run = {.image = row / w->tiles_h, .row = tile_row,
                    .top = tile_begin(w, tile_row, w->tiles_h, w->narrow_h),
                    .left = w->outputs * cut * w->band_tiles,
                    .tiles = conv_min(w->band_tiles, w->tiles_w - cut * w->band_tiles)};
    run.bands = w->cuts > 1 ? 1 : conv_min(conv_min(last - band, w->tiles_h - tile_row),
                                           w->strip_bands);
    return run;
}

/* ---- Transforms ------------------------------------------------------------------------------ */

/* Copies the source pixels of a run of bands. */
static conv_strip copy_source(const winograd *w, const band_run *run, int64_t channel,
                              int64_t channels, float *pixels) {
    int64_t last = tile_begin(w, run->row + run->bands - 1, w->tiles_h, w->narrow_h);
    const conv_strip strip = {.image = run->image, .top = run->top - w->pad_top,
                              .left = run->left - w->pad_left, .rows = last - run->top + 6,
                              .columns = w->outputs * run->tiles -
                                         conv_max(w->narrow_w - 1, 0) + w->taps - 1,
                              .channel = channel,
                              .channels = channels,
                              .pixel_step = conv_round_up(channels, w->kernels->vector)};
    conv_copy_strip(&w->source, &strip, pixels);
    return strip;
}

void winograd_transform_source(const winograd *w, int64_t first, int64_t last, int64_t channel,
                               int64_t channels, float *v, int64_t row, int64_t plane,
                               int worker) {
    float *pixels = w->strips + worker * w->strip_size;
    for (int64_t band = first; band < last;) {
        band_run run = run_of_bands(w, band, last);
        conv_strip strip = copy_source(w, &run, channel, channels, pixels);
        int64_t line = strip.columns * strip.pixel_step, wide = run.tiles - w->narrow_w;
        for (int64_t i = 0; i < run.bands; i++, v += run.tiles * row) {
            int64_t top = tile_begin(w, run.row + i, w->tiles_h, w->narrow_h);
            const float *band_pixels = pixels + (top - run.top) * line;
            w->kernels->winograd_input(w->taps, wide, strip.pixel_step, band_pixels, line,
                                       strip.pixel_step, v, row, plane);
            for (int64_t t = wide; t < run.tiles; t++) {
                int64_t left = tile_begin(w, t, w->tiles_w, w->narrow_w);
                w->kernels->winograd_input(w->taps, 1, strip.pixel_step,
                                           band_pixels + left * strip.pixel_step, line,
                                           strip.pixel_step, v + t * row, row, plane);
            }
        }
        band += run.bands;
    }
}

void winograd_transform_both(const winograd *w, int64_t first, int64_t last, int64_t bundle,
                             int64_t inset_h, int64_t inset_w, float *v, float *m, int worker) {
    float *pixels = w->strips + worker * w->strip_size;
    int64_t row = w->slice_width, plane = w->block_tiles * row + WINOGRAD_LINE;
    int64_t columns = w->kernels->block_columns, panels = conv_divide_up(w->in_c, columns);
    int64_t group, group_last, tile = 0;
    winograd_bundle_bounds(w, bundle, &group, &group_last);
    int64_t channel = group * w->in_c, channels = (group_last - group) * w->in_c;
    for (int64_t band = first; band < last;) {
        band_run run = run_of_bands(w, band, last);
        conv_strip strip = copy_source(w, &run, channel, channels, pixels);
        int64_t line = strip.columns * strip.pixel_step;
        for (int64_t i = 0; i < run.bands; i++, tile += run.tiles) {
            const float *corner = pixels + w->outputs * i * line;
            w->kernels->winograd_input(w->taps, run.tiles, strip.pixel_step, corner, line,
                                       strip.pixel_step, v + tile * row, row, plane);
            corner += inset_h * line + inset_w * strip.pixel_step;
            for (int64_t p = 0; p < (group_last - group) * panels; p++) {
                int64_t c = p % panels * columns, width = conv_min(w->in_c - c, columns);
                width = conv_round_up(width, w->kernels->vector);
                w->kernels->winograd_gradient(
                    w->taps, run.tiles, width, corner + p / panels * w->in_c + c, line,
                    strip.pixel_step, m + p * w->m_size + tile * width, width,
                    w->block_tiles * width + WINOGRAD_LINE);
            }
        }
        band += run.bands;
    }
}

void winograd_transform_gradient(const winograd *w, int64_t first, int64_t last, int64_t panel,
                                 float *m, int64_t row, int64_t plane, int worker) {
    float *pixels = w->strips + worker * w->strip_size;
    conv_strip strip = {.channel = winograd_panel_first(w, panel),
                        .channels = winograd_panel_columns(w, panel),
                        .pixel_step = winograd_panel_width(w, panel)};
    for (int64_t band = first; band < last;) {
        band_run run = run_of_bands(w, band, last);
        strip.image = run.image;
        strip.top = run.top;
        strip.left = run.left;
        strip.rows = w->outputs * run.bands;
        strip.columns = w->outputs * run.tiles;
        int64_t line = strip.columns * strip.pixel_step;
        conv_copy_strip(&w->gradient, &strip, pixels);
        for (int64_t i = 0; i < run.bands; i++) {
            w->kernels->winograd_gradient(w->taps, run.tiles, strip.pixel_step,
                                          pixels + w->outputs * i * line, line, strip.pixel_step,
                                          m, row, plane);
            m += run.tiles * row;
        }
        band += run.bands;
    }
}

void winograd_transform_result(const winograd *w, int64_t first, int64_t last, int64_t panel,
                               const float *m, int64_t row, int64_t plane) {
    int64_t channel = winograd_panel_first(w, panel), columns = winograd_panel_columns(w, panel);
    int64_t step = w->result_c, line = w->tiled_w * step;
    const float *bias = w->bias ? w->bias + channel : NULL;
    for (int64_t band = first; band < last; band++) {
        band_run run = run_of_bands(w, band, band + 1);
        int64_t wide = run.tiles - w->narrow_w, left = run.left;
        bool high = run.row < w->tiles_h - w->narrow_h;
        int inside = (int)conv_min(w->tiled_h - run.top, high ? w->outputs : w->outputs - 1);
        float *to = w->result + (run.image * w->tiled_h + run.top) * line + run.left * step +
                    channel;
        for (int64_t t = 0; t < run.tiles; t++) {
            int pixels = (int)conv_min(w->tiled_w - left, t < wide ? w->outputs : w->outputs - 1);
            conv_epilogue here;
            bool finished = conv_epilogue_at(w->call, to, channel, &here);
            w->kernels->winograd_output(w->taps, columns, m, plane, bias, to, line, step, inside,
                                        pixels, w->add, finished ? &here : NULL);
            m += row;
            left += pixels;
            to += pixels * step;
        }
    }
}

/* ---- Weights --------------------------------------------------------------------------------- */

winograd_part winograd_weights_part(const winograd *w, int64_t panel, int64_t channel,
                                    int64_t channels) {
    int64_t first = winograd_panel_first(w, panel), group = panel / w->panels;
    int64_t row_step = w->groups * (w->rotated ? w->in_c : w->out_c);
    int64_t tap_step = row_step * (w->rotated ? w->out_c : w->in_c);
    int64_t columns = winograd_panel_columns(w, panel), width = w->panel_columns;
    int64_t all = w->taps * w->taps;
    if (w->prepared)
        return (winograd_part){w->prepared + (panel * w->in_c + channel) * all * width, width,
                               all * width, channels, columns};
    if (!w->rotated)
        return (winograd_part){w->weights + channel * row_step + first, tap_step, row_step,
                               channels, columns};
    return (winograd_part){
        w->weights + (first - group * w->out_c) * row_step + group * w->in_c + channel, tap_step,
        row_step, columns, channels};
}

void winograd_transform_weights(const winograd *w, int64_t panel, int64_t channel,
                                int64_t channels, float *u, int64_t plane) {
    winograd_part part = winograd_weights_part(w, panel, channel, channels);
    w->kernels->winograd_weights(w->taps, channels, winograd_panel_columns(w, panel), part.from,
                                 part.tap_step, part.row_step, w->rotated, u, plane,
                                 winograd_panel_width(w, panel));
}

void winograd_weights_result(const winograd *w, int64_t panel, int64_t channel, int64_t channels,
                             const float *du, int64_t plane) {
    w->kernels->winograd_weights_gradient(
        w->taps, channels, winograd_panel_columns(w, panel), du, plane,
        winograd_panel_width(w, panel),
        w->result + channel * w->result_c + winograd_panel_first(w, panel), w->in_c * w->result_c,
        w->result_c);
}
