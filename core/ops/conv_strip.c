/* conv_strip.c: copies of parts of an image with the padding around them, in the order in which the
 * image lies in memory, so that the processor foresees what is read next. */
#include "core/ops/conv_strip.h"

#include "core/ops/conv_call.h"

#include <string.h>

enum { LINE = 16 }; /* floats of a cache line */

static void clear(float *to, int64_t floats) { memset(to, 0, (size_t)floats * sizeof(float)); }

/* Pixels that lie side by side in the image. */
static void copy_pixels(const conv_source *source, const conv_strip *strip, int64_t pixel,
                        int64_t count, float *to) {
    const conv_image *image = &source->image;
    const float *from = image->pixels + pixel * source->channels + strip->channel;
    if (source->norm) {
        source->kernels->norm_gradient(count, strip->channels, from,
                                       source->norm->x + (from - image->pixels), source->channels,
                                       source->norm, strip->channel, to, strip->pixel_step);
        return;
    }
    if (image->scale) {
        source->kernels->normalize(count, strip->channels, from, source->channels,
                                   image->scale + strip->channel, image->shift + strip->channel,
                                   to, strip->pixel_step);
        return;
    }
    if (strip->channels == source->channels && strip->pixel_step == source->channels) {
        memcpy(to, from, (size_t)(count * source->channels) * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        memcpy(to, from, (size_t)strip->channels * sizeof(float));
        clear(to + strip->channels, strip->pixel_step - strip->channels);
        from += source->channels;
        to += strip->pixel_step;
    }
}

/* Asks for the next row while one is copied. In line, since a compiler takes a function that only
 * does this for one without effect. */
static inline __attribute__((always_inline)) void prefetch(const float *from, int64_t pixels,
                                                           int64_t step, int64_t channels) {
    if (channels == step) channels *= pixels, pixels = 1;
    for (int64_t i = 0; i < pixels; i++, from += step) {
        for (int64_t c = 0; c < channels; c += LINE) __builtin_prefetch(from + c);
    }
}

void conv_copy_strip(const conv_source *source, const conv_strip *strip, float *to) {
    int64_t line = strip->columns * strip->pixel_step;
    int64_t before = conv_min(conv_max(-strip->left, 0), strip->columns);
    int64_t end = conv_min(source->width - strip->left, strip->columns);
    int64_t inside = conv_max(end - before, 0), after = strip->columns - before - inside;
    for (int64_t i = 0; i < strip->rows; i++, to += line) {
        int64_t y = strip->top + i;
        if (y < 0 || y >= source->height || inside == 0) {
            clear(to, line);
            continue;
        }
        int64_t pixel = (strip->image * source->height + y) * source->width + strip->left + before;
        clear(to, before * strip->pixel_step);
        if (!source->norm && !source->image.scale)
            prefetch(source->image.pixels + (pixel + source->width) * source->channels +
                         strip->channel,
                     inside, source->channels, strip->channels);
        copy_pixels(source, strip, pixel, inside, to + before * strip->pixel_step);
        clear(to + (before + inside) * strip->pixel_step, after * strip->pixel_step);
    }
}

void conv_cut_row(int64_t tiles, int64_t most, int64_t *bands, int64_t *band_tiles) {
    *band_tiles = conv_divide_up(tiles, conv_divide_up(tiles, conv_max(most, 1)));
    *bands = conv_divide_up(tiles, *band_tiles);
}
