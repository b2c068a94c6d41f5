/* conv_normalize.c: batch normalization and its gradient for a convolution that applies them to the
 * pixels it reads. The same arithmetic as in norm_loops.h.
 *
 * Pixels are taken some vectors of channels at a time: what belongs to a channel stays in registers
 * then, where reading it for every pixel costs several times what the arithmetic does. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

enum { MOST = 4 }; /* vectors at a time */

/* What lies between the channels of a pixel and the next is zero. */
static void clear_rest(int64_t pixels, int64_t channels, float *to, int64_t to_step) {
    for (int64_t p = 0; p < pixels; p++, to += to_step)
        for (int64_t c = channels; c < to_step; c++) to[c] = 0;
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* NaN is not below zero and stays. */
static ALWAYS_INLINE void normalize_columns(const int vectors, int64_t pixels, const float *x,
                                            int64_t x_step, const float *scale,
                                            const float *shift, float *to, int64_t to_step) {
    int64_t ahead = floats_ahead(x_step);
    vfloat factor[MOST], offset[MOST];
    UNROLL
    for (int i = 0; i < vectors; i++) {
        factor[i] = vload(scale + i * VECTOR_FLOATS);
        offset[i] = vload(shift + i * VECTOR_FLOATS);
    }
    for (int64_t p = 0; p < pixels; p++) {
        UNROLL
        for (int i = 0; i < vectors; i++) {
            vfloat z = vload(x + i * VECTOR_FLOATS) * factor[i] + offset[i];
            __builtin_prefetch(x + ahead + i * VECTOR_FLOATS);
            vstore(to + i * VECTOR_FLOATS, zero_where(z < (vfloat){0}, z));
        }
        x += x_step;
        to += to_step;
    }
}

static void normalize_channel(int64_t pixels, const float *x, int64_t x_step, float scale,
                              float shift, float *to, int64_t to_step) {
    for (int64_t p = 0; p < pixels; p++) {
        float z = x[p * x_step] * scale + shift;
        to[p * to_step] = z < 0 ? 0 : z;
    }
}

void KERNEL(normalize)(int64_t pixels, int64_t channels, const float *x, int64_t x_step,
                       const float *scale, const float *shift, float *to, int64_t to_step) {
    int64_t c = 0;
    for (; c + MOST * VECTOR_FLOATS <= channels; c += MOST * VECTOR_FLOATS)
        normalize_columns(MOST, pixels, x + c, x_step, scale + c, shift + c, to + c, to_step);
    if (c + 2 * VECTOR_FLOATS <= channels) {
        normalize_columns(2, pixels, x + c, x_step, scale + c, shift + c, to + c, to_step);
        c += 2 * VECTOR_FLOATS;
    }
    if (c + VECTOR_FLOATS <= channels) {
        normalize_columns(1, pixels, x + c, x_step, scale + c, shift + c, to + c, to_step);
        c += VECTOR_FLOATS;
    }
    for (; c < channels; c++)
        normalize_channel(pixels, x + c, x_step, scale[c], shift[c], to + c, to_step);
    clear_rest(pixels, channels, to, to_step);
}

/* ---- Forward, with a shortcut ---------------------------------------------------------------- */

/* Some vectors of channels of some pixels; `by_channel`: scale, shift and those of the shortcut. */
static ALWAYS_INLINE void sum_columns(const int vectors, int64_t pixels, int64_t step,
                                      const float *x, const float *shortcut,
                                      const float *const by_channel[4], int64_t channel,
                                      float *to) {
    vfloat factor[4][2];
    int64_t ahead = floats_ahead(step);
    UNROLL
    for (int i = 0; i < vectors; i++) {
        UNROLL
        for (int k = 0; k < 4; k++)
            factor[k][i] = vload(by_channel[k] + channel + i * VECTOR_FLOATS);
    }
    for (int64_t p = 0; p < pixels; p++) {
        UNROLL
        for (int i = 0; i < vectors; i++) {
            vfloat z = vload(x + i * VECTOR_FLOATS) * factor[0][i] + factor[1][i];
            __builtin_prefetch(x + ahead + i * VECTOR_FLOATS);
            __builtin_prefetch(shortcut + ahead + i * VECTOR_FLOATS);
            z += vload(shortcut + i * VECTOR_FLOATS) * factor[2][i] + factor[3][i];
            vstore(to + i * VECTOR_FLOATS, zero_where(z < (vfloat){0}, z));
        }
        x += step;
        shortcut += step;
        to += step;
    }
}

/* Some pixels at a time, so that what is fetched ahead of them is still there. */
void KERNEL(normalize_sum)(int64_t pixels, int64_t channels, const float *x, const float *scale,
                           const float *shift, const float *shortcut, const float *sum_scale,
                           const float *sum_shift, float *to) {
    enum { AT_ONCE = 16 };
    const float *const by_channel[4] = {scale, shift, sum_scale, sum_shift};
    for (int64_t p = 0; p < pixels; p += AT_ONCE) {
        int64_t count = pixels - p < AT_ONCE ? pixels - p : AT_ONCE, at = p * channels, c = 0;
        for (; c + 2 * VECTOR_FLOATS <= channels; c += 2 * VECTOR_FLOATS)
            sum_columns(2, count, channels, x + at + c, shortcut + at + c, by_channel, c,
                        to + at + c);
        if (c < channels)
            sum_columns(1, count, channels, x + at + c, shortcut + at + c, by_channel, c,
                        to + at + c);
    }
}

/* ---- The gradient ---------------------------------------------------------------------------- */

/* Where the gate is closed, relu let nothing through; `k` is the first channel. */
static ALWAYS_INLINE void gradient_columns(const int vectors, const bool gate, int64_t pixels,
                                           const float *dy, const float *x, int64_t x_step,
                                           const conv_norm *norm, int64_t k, float *to,
                                           int64_t to_step) {
    int64_t ahead = floats_ahead(x_step);
    vfloat mean[MOST], a[MOST], b[MOST], c[MOST], scale[MOST], shift[MOST];
    UNROLL
    for (int i = 0; i < vectors; i++, k += VECTOR_FLOATS) {
        mean[i] = vload(norm->mean + k);
        a[i] = vload(norm->a + k);
        b[i] = vload(norm->b + k);
        c[i] = vload(norm->c + k);
        if (gate) scale[i] = vload(norm->scale + k);
        if (gate) shift[i] = vload(norm->shift + k);
    }
    for (int64_t p = 0; p < pixels; p++) {
        UNROLL
        for (int i = 0; i < vectors; i++) {
            vfloat v = vload(x + i * VECTOR_FLOATS), g = vload(dy + i * VECTOR_FLOATS);
            __builtin_prefetch(x + ahead + i * VECTOR_FLOATS);
            __builtin_prefetch(dy + ahead + i * VECTOR_FLOATS);
            if (gate) g = zero_where(v * scale[i] + shift[i] <= (vfloat){0}, g);
            vstore(to + i * VECTOR_FLOATS, a[i] * g + b[i] * (v - mean[i]) + c[i]);
        }
        x += x_step;
        dy += x_step;
        to += to_step;
    }
}

static void gradient_channel(int64_t pixels, const float *dy, const float *x, int64_t x_step,
                             const conv_norm *norm, int64_t k, float *to, int64_t to_step) {
    for (int64_t p = 0; p < pixels; p++) {
        float v = x[p * x_step];
        float g = norm->scale && v * norm->scale[k] + norm->shift[k] <= 0 ? 0 : dy[p * x_step];
        to[p * to_step] = norm->a[k] * g + norm->b[k] * (v - norm->mean[k]) + norm->c[k];
    }
}

static ALWAYS_INLINE void gradient_all(const bool gate, int64_t pixels, int64_t channels,
                                       const float *dy, const float *x, int64_t x_step,
                                       const conv_norm *norm, int64_t first, float *to,
                                       int64_t to_step) {
    int64_t k = 0;
    for (; k + MOST * VECTOR_FLOATS <= channels; k += MOST * VECTOR_FLOATS)
        gradient_columns(MOST, gate, pixels, dy + k, x + k, x_step, norm, first + k, to + k,
                         to_step);
    if (k + 2 * VECTOR_FLOATS <= channels) {
        gradient_columns(2, gate, pixels, dy + k, x + k, x_step, norm, first + k, to + k, to_step);
        k += 2 * VECTOR_FLOATS;
    }
    if (k + VECTOR_FLOATS <= channels) {
        gradient_columns(1, gate, pixels, dy + k, x + k, x_step, norm, first + k, to + k, to_step);
        k += VECTOR_FLOATS;
    }
    for (; k < channels; k++)
        gradient_channel(pixels, dy + k, x + k, x_step, norm, first + k, to + k, to_step);
}

void KERNEL(norm_gradient)(int64_t pixels, int64_t channels, const float *dy, const float *x,
                           int64_t x_step, const conv_norm *norm, int64_t first, float *to,
                           int64_t to_step) {
    if (norm->scale)
        gradient_all(true, pixels, channels, dy, x, x_step, norm, first, to, to_step);
    else
        gradient_all(false, pixels, channels, dy, x, x_step, norm, first, to, to_step);
    clear_rest(pixels, channels, to, to_step);
}
