/* conv_strided_tiles.c: tiles, bands and strips of strided convolutions by Winograd's method, and
 * its transforms of parts of images (conv_strided.h). */
#include "core/base/threads.h"
#include "core/ops/conv_strided.h"

enum { STRIP_FLOATS = 40 << 10 }; /* of a strip, where a vector's channels allow */

/* ---- Geometry -------------------------------------------------------------------------------- */

/* One direction: the padding in front, and pixels of the image and of the result. */
static void describe_axis(bool back, int64_t pad, int64_t result, int64_t *source, int64_t *begin,
                          int64_t *tiles) {
    *begin = back && pad % 2 == 0 ? -1 : 0;
    *source = back ? (pad + 1) / 2 - 1 : -pad;
    *tiles = conv_divide_up(result - *begin, back ? 8 : 4);
}

strided strided_describe(const conv_call *call) {
    const conv_shape *c = &call->shape;
    strided s = {.call = call, .kernels = call->kernels, .watch = call->watch,
                 .back = call->pass == CONV_BACKWARD_DATA};
    if (s.back) {
        s.source = (conv_source){call->kernels, {.pixels = call->dy}, call->norm, c->out_h,
                                 c->out_w, c->out_c};
        s.result_h = c->in_h, s.result_w = c->in_w, s.out_c = c->in_c;
        s.tile = 8, s.source_step = 4, s.reach = 5, s.phases = 1;
    } else {
        s.source = (conv_source){call->kernels, call->x, NULL, c->in_h, c->in_w, c->in_c};
        s.result_h = c->out_h, s.result_w = c->out_w, s.out_c = c->out_c;
        s.tile = 4, s.source_step = 8, s.reach = 9, s.phases = 4;
    }
    describe_axis(s.back, c->pad_top, s.result_h, &s.source_top, &s.top, &s.tiles_h);
    describe_axis(s.back, c->pad_left, s.result_w, &s.source_left, &s.left, &s.tiles_w);
    s.tiles = c->batch * s.tiles_h * s.tiles_w;
    s.panel_columns = call->kernels->block_columns;
    s.panels = conv_divide_up(s.out_c, s.panel_columns);
    return s;
}

void strided_cut(strided *s, int64_t band_tiles, int64_t blocks, int64_t slice) {
    int64_t channels = s->source.channels;
    conv_cut_row(s->tiles_w, band_tiles, &s->cuts, &s->band_tiles);
    s->bands = s->tiles / s->tiles_w * s->cuts;
    s->blocks = conv_min(blocks, s->bands);
    s->block_tiles = conv_divide_up(s->bands, s->blocks) * s->band_tiles;
    s->slices = conv_divide_up(channels, slice);
    s->slice_width = conv_round_up(conv_divide_up(channels, s->slices), s->kernels->vector);
    s->slices = conv_divide_up(channels, s->slice_width);
    s->v_row = s->phases * s->slice_width;
    if (s->v_row % 1024 == 0) s->v_row += STRIDED_PAD; /* else rows meet in the cache */
    s->v_plane = s->block_tiles * s->v_row + STRIDED_PAD;
    s->v_size = STRIDED_PLANES * s->v_plane;
    s->m_plane = s->block_tiles * s->panel_columns + STRIDED_PAD;
    s->m_size = STRIDED_PLANES * s->m_plane;
}

int64_t strided_panel_columns(const strided *s, int64_t panel) {
    return conv_min(s->out_c - panel * s->panel_columns, s->panel_columns);
}

int64_t strided_panel_width(const strided *s, int64_t panel) {
    return conv_round_up(strided_panel_columns(s, panel), s->kernels->vector);
}

int64_t strided_band_tile(const strided *s, int64_t band) {
    return band / s->cuts * s->tiles_w + band % s->cuts * s->band_tiles;
}

/* The tiles of a band: their image and row, and the first of them in it. */
typedef struct band_run {
    int64_t image, row, tile, tiles;
} band_run;

static band_run run_of_band(const strided *s, int64_t band) {
    int64_t row = band / s->cuts, tile = band % s->cuts * s->band_tiles;
    return (band_run){row / s->tiles_h, row % s->tiles_h, tile,
                      conv_min(s->band_tiles, s->tiles_w - tile)};
}

int64_t strided_rows_before(const strided *s, int64_t band) {
    int64_t row = band / s->cuts, within = row % s->tiles_h * s->tile + s->top;
    return row / s->tiles_h * s->result_h + conv_max(within, 0);
}

/* Channels of a strip of so many pixels: whole units, of those that there are. */
static int64_t strip_channels(int64_t pixels, int64_t unit, int64_t channels) {
    return conv_min(conv_max(STRIP_FLOATS / pixels / unit, 1) * unit,
                    conv_round_up(channels, unit));
}

static int64_t source_columns(const strided *s, int64_t tiles) {
    return (tiles - 1) * s->source_step + s->reach;
}

static int64_t source_channels(const strided *s) {
    return strip_channels(s->reach * source_columns(s, s->band_tiles), s->kernels->vector,
                          s->slice_width);
}

static int64_t gradient_channels(const strided *s) {
    return strip_channels(16 * s->band_tiles, s->panel_columns, s->out_c);
}

resin_status strided_reserve_strips(resin_context *context, strided *s) {
    s->strip_size = conv_max(s->reach * source_columns(s, s->band_tiles) * source_channels(s),
                             16 * s->band_tiles * gradient_channels(s));
    return conv_reserve(context, resin_workers(context), s->strip_size, &s->strips);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

strided_steps strided_point_steps(int64_t point_step, int64_t phase_step) {
    return (strided_steps){{STRIDED_POINTS * point_step, 2 * phase_step},
                           {point_step, phase_step}};
}

/* Of pixels of a strip. */
static strided_steps pixel_steps(bool by_phases, int64_t row_step, int64_t column_step) {
    int factor = by_phases ? 2 : 1;
    return (strided_steps){{factor * row_step, row_step}, {factor * column_step, column_step}};
}

/* ---- Transforms ------------------------------------------------------------------------------ */

static void transform_slice(const strided *s, const band_run *run, int64_t slice, float *v,
                            float *pixels) {
    const strided_steps v_steps = strided_point_steps(s->v_plane, s->slice_width);
    int64_t begin = slice * s->slice_width, most = source_channels(s);
    int64_t end = conv_min(begin + s->slice_width, s->source.channels);
    for (int64_t channel = begin; channel < end; channel += most) {
        int64_t channels = conv_min(most, end - channel);
        const conv_strip strip = {
            .image = run->image, .top = s->source_top + run->row * s->source_step,
            .left = s->source_left + run->tile * s->source_step, .rows = s->reach,
            .columns = source_columns(s, run->tiles), .channel = channel, .channels = channels,
            .pixel_step = conv_round_up(channels, s->kernels->vector)};
        int64_t line = strip.columns * strip.pixel_step;
        const strided_steps steps = pixel_steps(!s->back, line, strip.pixel_step);
        conv_copy_strip(&s->source, &strip, pixels);
        for (int64_t t = 0; t < run->tiles; t++)
            s->kernels->strided_transform(s->back ? STRIDED_PLAIN_PIXELS : STRIDED_PIXELS,
                                          strip.pixel_step,
                                          pixels + t * s->source_step * strip.pixel_step, &steps,
                                          v + t * s->v_row + channel - begin, &v_steps);
    }
}

void strided_transform_source(const strided *s, int64_t first, int64_t last, int64_t slice,
                              float *v, int worker) {
    for (int64_t band = first; band < last; band++) {
        const band_run run = run_of_band(s, band);
        transform_slice(s, &run, slice, v, s->strips + worker * s->strip_size);
        v += run.tiles * s->v_row;
    }
}

/* The panels of one strip. */
static void transform_panels(const strided *s, const band_run *run, int64_t panel,
                             const conv_strip *strip, const float *pixels, float *m,
                             int64_t tile) {
    const strided_steps m_steps = strided_point_steps(s->m_plane, 0);
    const strided_steps steps =
        pixel_steps(false, strip->columns * strip->pixel_step, strip->pixel_step);
    for (int64_t c = 0; c < strip->channels; c += s->panel_columns, panel++) {
        int64_t width = strided_panel_width(s, panel);
        for (int64_t t = 0; t < run->tiles; t++)
            s->kernels->strided_transform(STRIDED_GRADIENT, width,
                                          pixels + 4 * t * strip->pixel_step + c, &steps,
                                          m + panel * s->m_size + (tile + t) * width, &m_steps);
    }
}

void strided_transform_gradient(const strided *s, int64_t first, int64_t last, float *m,
                                int worker) {
    const conv_shape *shape = &s->call->shape;
    const conv_source dy = {s->kernels, {.pixels = s->call->dy}, s->call->norm, shape->out_h,
                            shape->out_w, shape->out_c};
    float *pixels = s->strips + worker * s->strip_size;
    int64_t tile = 0, most = gradient_channels(s);
    for (int64_t band = first; band < last; band++) {
        const band_run run = run_of_band(s, band);
        for (int64_t channel = 0; channel < s->out_c; channel += most) {
            int64_t channels = conv_min(most, s->out_c - channel);
            const conv_strip strip = {.image = run.image, .top = 4 * run.row, .left = 4 * run.tile,
                                      .rows = 4, .columns = 4 * run.tiles, .channel = channel,
                                      .channels = channels,
                                      .pixel_step = conv_round_up(channels, s->kernels->vector)};
            conv_copy_strip(&dy, &strip, pixels);
            transform_panels(s, &run, channel / s->panel_columns, &strip, pixels, m, tile);
        }
        tile += run.tiles;
    }
}

/* The pixels of a tile that begins at `begin` which are inside, in one direction. */
static int64_t pixels_inside(const strided *s, int64_t begin, int64_t size, int *first,
                             int *count) {
    *first = begin < 0 ? (int)-begin : 0;
    *count = (int)conv_min(s->tile, size - begin) - *first;
    return begin + *first;
}

/* A tile: of all panels. Those of the tile that comes next are asked for, and what is read with
 * them. */
static void transform_tile(const strided *s, const float *m, int64_t tile, int64_t next,
                           strided_result *result) {
    const strided_steps steps = strided_point_steps(s->m_plane, s->panels * s->m_size);
    const float *bias = s->back ? NULL : s->call->bias;
    const float *reads = s->watch ? s->watch->reads : NULL;
    float *to = result->to;
    for (int64_t panel = 0; panel < s->panels; panel++, m += s->m_size) {
        int64_t channel = panel * s->panel_columns, channels = strided_panel_columns(s, panel);
        result->bias = bias ? bias + channel : NULL;
        result->to = to + channel;
        result->next[0] = result->to + next;
        result->next[1] = reads ? reads + (result->next[0] - s->call->result) : NULL;
        s->kernels->strided_result(s->back ? STRIDED_RESULTS : STRIDED_PLAIN_RESULTS, channels,
                                   m + tile * strided_panel_width(s, panel), &steps, result);
        for (int y = 0; s->call->epilogue && y < result->rows; y++)
            conv_finish(s->call, result->to + y * result->row_step, result->columns, channel,
                        channels);
    }
}

void strided_transform_result(const strided *s, int64_t band, int64_t tile, const float *m) {
    const band_run run = run_of_band(s, band);
    strided_result result = {.row_step = s->result_w * s->out_c, .pixel_step = s->out_c,
                             .add = s->call->add};
    int64_t row = pixels_inside(s, s->top + run.row * s->tile, s->result_h, &result.row,
                                &result.rows);
    float *line = s->call->result + (run.image * s->result_h + row) * result.row_step;
    for (int64_t t = 0; t < run.tiles; t++) {
        int64_t column = pixels_inside(s, s->left + (run.tile + t) * s->tile, s->result_w,
                                       &result.column, &result.columns);
        result.to = line + column * s->out_c;
        transform_tile(s, m, tile + t,
                       s->tile * (t + 1 < run.tiles ? s->out_c : result.row_step - t * s->out_c),
                       &result);
    }
}
