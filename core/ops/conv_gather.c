/* conv_gather.c: gathers the pixels of a grid as rows (conv_rows.h). */
#include "core/ops/conv_rows.h"

#include <string.h>

enum { LINE = 16, FAR_ROWS = 256 };

int64_t conv_row_floats(int64_t channels) {
    int64_t row = conv_round_up(channels, LINE);
    return row % FAR_ROWS == 0 ? row + LINE : row;
}

bool conv_same_pixels(const conv_grid *grid) {
    const conv_axis *h = &grid->h, *w = &grid->w;
    return h->taps == 1 && w->taps == 1 && h->step == 1 && w->step == 1 && h->first == 0 &&
           w->first == 0 && h->count == h->source && w->count == w->source;
}

void conv_gather_pixels(const conv_kernels *kernels, conv_image image, const conv_norm *norm,
                        int64_t count, int64_t channel, int64_t channels, const float *from,
                        int64_t step, float *to, int64_t to_step) {
    if (norm) {
        kernels->norm_gradient(count, channels, from, norm->x + (from - image.pixels), step, norm,
                               channel, to, to_step);
    } else if (image.scale) {
        kernels->normalize(count, channels, from, step, image.scale + channel,
                           image.shift + channel, to, to_step);
    } else {
        kernels->pack(count, channels, from, step, false, to, to_step);
    }
}

static void clear_rows(int64_t count, float *to, int64_t floats) {
    memset(to, 0, (size_t)(count * floats) * sizeof(float));
}

/* One tap of pixels of one row of the grid, from its pixel j on. */
static void gather_tap(const conv_grid *grid, const conv_norm *norm, int64_t image, int64_t i,
                       int64_t j, int64_t count, int64_t tap, const conv_depth *depth, float *to) {
    const conv_axis *h = &grid->h, *w = &grid->w;
    int64_t row = conv_row_floats(depth->channels);
    int64_t y = h->first + i * h->step + tap / w->taps * h->tap_step;
    int64_t x = w->first + j * w->step + tap % w->taps * w->tap_step;
    int64_t before = conv_min(conv_divide_up(conv_max(-x, 0), w->step), count);
    int64_t end = conv_min(conv_divide_up(conv_max(w->source - x, 0), w->step), count);
    if (y < 0 || y >= h->source || end <= before) {
        clear_rows(count, to, row);
        return;
    }
    int64_t pixel = (image * h->source + y) * w->source + x + before * w->step;
    const float *from = grid->source + pixel * grid->source_step + depth->channel;
    clear_rows(before, to, row);
    conv_gather_pixels(grid->call->kernels, grid->image, norm, end - before, depth->channel,
                       depth->channels, from, w->step * grid->source_step, to + before * row, row);
    clear_rows(count - end, to + end * row, row);
}

void conv_gather_rows(const conv_grid *grid, const conv_norm *norm, int64_t pixel, int64_t count,
                      conv_depth depth, float *to, int64_t plane) {
    int64_t row = conv_row_floats(depth.channels);
    if (conv_same_pixels(grid)) {
        conv_gather_pixels(grid->call->kernels, grid->image, norm, count, depth.channel,
                           depth.channels, grid->source + pixel * grid->source_step + depth.channel,
                           grid->source_step, to, row);
        return;
    }
    for (int64_t last = pixel + count; pixel < last;) {
        int64_t j = pixel % grid->w.count, i = pixel / grid->w.count % grid->h.count;
        int64_t image = pixel / grid->w.count / grid->h.count;
        int64_t run = conv_min(grid->w.count - j, last - pixel);
        for (int64_t tap = 0; tap < depth.taps; tap++) {
            gather_tap(grid, norm, image, i, j, run, depth.tap + tap, &depth, to + tap * plane);
        }
        to += run * row;
        pixel += run;
    }
}
