/* conv_grouped.c: grouped convolution with few channels in a group. A vector holds the channels of
 * several whole groups; the c-th channel of each group, repeated for the outputs of its group, is a
 * shuffle of a pixel. A row of the kernel is multiplied three taps at a time, so that a pixel is
 * loaded and shuffled once for three multiply-adds. */
#include "core/kernels/conv_kernels.h"
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

/* Pixels of the result at once, where there are registers for them. */
enum { LARGEST_BLOCK = 14, BLOCK_PIXELS = VECTOR_FLOATS == 16 ? LARGEST_BLOCK : 8 };

typedef int32_t vindex __attribute__((vector_size(VECTOR_FLOATS * 4)));
typedef int32_t vindex_unaligned
    __attribute__((vector_size(VECTOR_FLOATS * 4), aligned(4), may_alias));

/* A shuffle by an index that is no constant is not among the vector extensions of every compiler.
 * Vectors of four have none that is one instruction: there, pixels come with their channels spread
 * out. */
#if VECTOR_FLOATS == 16
#include <immintrin.h>
enum { SHUFFLES = 1 };
static ALWAYS_INLINE vfloat shuffle(vfloat x, vindex index) {
    return (vfloat)_mm512_permutexvar_ps((__m512i)index, (__m512)x);
}
#elif VECTOR_FLOATS == 8
#include <immintrin.h>
enum { SHUFFLES = 1 };
static ALWAYS_INLINE vfloat shuffle(vfloat x, vindex index) {
    return (vfloat)_mm256_permutevar8x32_ps((__m256)x, (__m256i)index);
}
#else
enum { SHUFFLES = 0 };
static ALWAYS_INLINE vfloat shuffle(vfloat x, vindex index) {
    (void)index;
    return x;
}
#endif

static ALWAYS_INLINE vfloat load_pixel(const float *x, const grouped_lanes lanes, vindex index) {
    if (lanes == GROUPED_REPEATED) return vset(*x);
    return lanes == GROUPED_SHUFFLED ? shuffle(vload(x), index) : vload(x);
}

/* The lanes of one channel, where pixels are to be shuffled. */
static ALWAYS_INLINE vindex load_index(const grouped_shape *shape, int64_t channel,
                                       const grouped_lanes lanes) {
    if (lanes != GROUPED_SHUFFLED) return (vindex){0};
    return *(const vindex_unaligned *)(shape->index + channel * VECTOR_FLOATS);
}

static __attribute__((noinline)) void copy_lanes(int pixels, int lanes, const float *from,
                                                 const grouped_rows *r, float *to) {
    for (int j = 0; j < pixels; j++, to += r->result_step, from += VECTOR_FLOATS) {
        for (int l = 0; l < lanes; l++) to[l] = r->add ? to[l] + from[l] : from[l];
    }
}

/* sum[j] += x[j * step + t] * weights[t] for `taps` neighbouring taps of a row. */
static ALWAYS_INLINE void add_taps(const int taps, const int pixels, const int step,
                                   const grouped_lanes kind, const float *x, vindex index,
                                   const float *weights, vfloat *sum) {
    vfloat weight[3];
    UNROLL
    for (int t = 0; t < taps; t++) weight[t] = vload(weights + t * VECTOR_FLOATS);
    UNROLL
    for (int i = 0; i < (pixels - 1) * step + taps; i++) {
        vfloat value = load_pixel(x + i * VECTOR_FLOATS, kind, index);
        UNROLL
        for (int t = 0; t < taps; t++) {
            int j = i - t;
            if (j >= 0 && j % step == 0 && j / step < pixels) sum[j / step] += value * weight[t];
        }
    }
}

static ALWAYS_INLINE int taps_at_once(const int step, int64_t left) {
    if (step > 0 && left >= 3) return 3;
    return step == 1 && left == 2 ? 2 : 1;
}

/* So many pixels of a row, for steps 1 and 2, and, taps one by one, for any (0). */
static ALWAYS_INLINE void multiply_pixels(const int pixels, const int step,
                                          const grouped_lanes kind, const grouped_shape *shape,
                                          const float *const *strip, int64_t place,
                                          const float *weights, const grouped_rows *r,
                                          float *result) {
    vfloat sum[LARGEST_BLOCK], start = vload(weights);
    int64_t column = shape->step * VECTOR_FLOATS;
    weights += VECTOR_FLOATS;
    UNROLL
    for (int j = 0; j < pixels; j++) sum[j] = start;
    for (int64_t row = 0; row < shape->taps_h; row++) {
        for (int64_t c = 0; c < shape->channels; c++) {
            const float *x = strip[row * shape->tap_rows] + place + c * shape->plane;
            vindex index = load_index(shape, c, kind);
            for (int64_t left = shape->taps_w, taps; left > 0; left -= taps) {
                taps = taps_at_once(step, left);
                if (taps == 3) {
                    add_taps(3, pixels, step, kind, x, index, weights, sum);
                } else if (taps == 2) {
                    add_taps(2, pixels, step, kind, x, index, weights, sum);
                } else {
                    vfloat weight = vload(weights);
                    UNROLL
                    for (int j = 0; j < pixels; j++) {
                        sum[j] += load_pixel(x + j * column, kind, index) * weight;
                    }
                }
                x += taps * VECTOR_FLOATS;
                weights += taps * VECTOR_FLOATS;
            }
        }
    }
    float copy[LARGEST_BLOCK * VECTOR_FLOATS];
    bool direct = r->lanes == VECTOR_FLOATS && !r->add;
    float *to = direct ? result : copy;
    int64_t to_step = direct ? r->result_step : VECTOR_FLOATS;
    UNROLL
    for (int j = 0; j < pixels; j++) vstore(to + j * to_step, sum[j]);
    if (!direct) copy_lanes(pixels, r->lanes, copy, r, result);
}

/* Pixels [first, last) of the next row of the result, where they have gaps: nothing else foresees
 * them. In line, since a compiler takes a function that only does this for one without effect. */
static ALWAYS_INLINE void fetch_next(const grouped_rows *r, int64_t i, int64_t first,
                                     int64_t last) {
    const float *result = r->result + (i + 1) * r->result_row;
    for (int64_t j = first; r->gaps && j < last; j++) {
        __builtin_prefetch(result + j * r->result_step, 1, 2);
    }
}

#define PIXEL_CASE(n)                                                                            \
    case n:                                                                                      \
        multiply_pixels(n, step, kind, shape, strip, place, weights, r, result);                 \
        break;

#define SMALL_CASES                                                                       \
    PIXEL_CASE(1) PIXEL_CASE(2) PIXEL_CASE(3) PIXEL_CASE(4) PIXEL_CASE(5) PIXEL_CASE(6)   \
    PIXEL_CASE(7) PIXEL_CASE(8)

static ALWAYS_INLINE void multiply_row(const int step, const grouped_lanes kind,
                                       const grouped_shape *shape, const grouped_rows *r,
                                       const float *weights, int64_t i) {
    const float *const *strip = r->strip + i * r->row_step;
    /* Dealt out evenly, as in product.c. Steps beyond 2 are rare, and depthwise convolution waits
     * for memory: neither is worth more code. */
    const int64_t block = step == 0 ? 2 : kind == GROUPED_PLAIN ? 8 : BLOCK_PIXELS;
    int64_t blocks = (r->count + block - 1) / block, first = 0;
    for (; blocks > 0; blocks--) {
        int pixels = (int)((r->count - first + blocks - 1) / blocks);
        int64_t place = r->place + first * shape->step * VECTOR_FLOATS;
        float *result = r->result + i * r->result_row + first * r->result_step;
        fetch_next(r, i, first, first + pixels);
        if (block == 2) {
            switch (pixels) { PIXEL_CASE(1) PIXEL_CASE(2) }
        } else if (block == 8) {
            switch (pixels) { SMALL_CASES }
        } else {
            switch (pixels) {
                SMALL_CASES PIXEL_CASE(9) PIXEL_CASE(10) PIXEL_CASE(11) PIXEL_CASE(12)
                PIXEL_CASE(13) PIXEL_CASE(14)
            }
        }
        first += pixels;
    }
}

static ALWAYS_INLINE void multiply_rows(const grouped_lanes kind, const grouped_shape *shape,
                                        const grouped_rows *r, const float *weights) {
    for (int64_t i = 0; i < r->rows; i++) {
        if (shape->step == 1) {
            multiply_row(1, kind, shape, r, weights, i);
        } else if (shape->step == 2) {
            multiply_row(2, kind, shape, r, weights, i);
        } else {
            multiply_row(0, kind, shape, r, weights, i);
        }
    }
}

void KERNEL(grouped_rows)(const grouped_shape *shape, const grouped_rows *rows,
                          const float *weights) {
    if (SHUFFLES && shape->lanes == GROUPED_SHUFFLED) {
        multiply_rows(GROUPED_SHUFFLED, shape, rows, weights);
    } else if (shape->lanes == GROUPED_REPEATED) {
        multiply_rows(GROUPED_REPEATED, shape, rows, weights);
    } else {
        multiply_rows(GROUPED_PLAIN, shape, rows, weights);
    }
}

/* ---- Backward-weights ------------------------------------------------------------------------ */

/* Sums of neighbouring taps and channels for some rows of the kernel. */
typedef struct tap_sums {
    vfloat sum[3][3][4]; /* rows, taps, channels */
    vindex index[4];
} tap_sums;

/* One pixel of the strip for the taps [first, last), whose pixels of dy lie before `gradient`. */
static ALWAYS_INLINE void add_pixel(const int rows, const int first, const int last,
                                    const int channels, tap_sums *s, int64_t plane,
                                    const grouped_lanes kind, const float *const *x,
                                    int64_t place, const float *gradient) {
    vfloat factor[3];
    UNROLL
    for (int t = first; t < last; t++) factor[t] = vload(gradient - t * VECTOR_FLOATS);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int c = 0; c < channels; c++) {
            vfloat value = load_pixel(x[r] + place + c * plane, kind, s->index[c]);
            UNROLL
            for (int t = first; t < last; t++) s->sum[r][t][c] += value * factor[t];
        }
    }
}

/* A row of pixels, three taps, step 1: each pixel of the strip is loaded once for all taps. Those
 * of the ends belong to some taps only. */
static ALWAYS_INLINE void slide_taps(const int rows, const int channels, tap_sums *s, int64_t plane,
                                     const grouped_lanes kind, const float *const *x,
                                     const float *gradient, int64_t count) {
    add_pixel(rows, 0, 1, channels, s, plane, kind, x, 0, gradient);
    add_pixel(rows, 0, 2, channels, s, plane, kind, x, VECTOR_FLOATS, gradient + VECTOR_FLOATS);
    int64_t place = 2 * VECTOR_FLOATS, end = count * VECTOR_FLOATS;
    for (; place < end; place += VECTOR_FLOATS) {
        add_pixel(rows, 0, 3, channels, s, plane, kind, x, place, gradient + place);
    }
    add_pixel(rows, 1, 3, channels, s, plane, kind, x, end, gradient + end);
    add_pixel(rows, 2, 3, channels, s, plane, kind, x, end + VECTOR_FLOATS,
              gradient + end + VECTOR_FLOATS);
}

/* The same for any taps and steps, each pixel of the strip where it is needed. */
static ALWAYS_INLINE void visit_taps(const int rows, const int taps, const int channels,
                                     tap_sums *s, int64_t plane, const grouped_lanes kind,
                                     const float *const *x, const float *gradient, int64_t count,
                                     int64_t step) {
    for (int64_t j = 0; j < count; j++) {
        vfloat factor = vload(gradient + j * VECTOR_FLOATS);
        UNROLL
        for (int r = 0; r < rows; r++) {
            UNROLL
            for (int t = 0; t < taps; t++) {
                const float *pixel = x[r] + (j * step + t) * VECTOR_FLOATS;
                UNROLL
                for (int c = 0; c < channels; c++) {
                    s->sum[r][t][c] += load_pixel(pixel + c * plane, kind, s->index[c]) * factor;
                }
            }
        }
    }
}

/* Adds the products of all pixels to the sums of some rows of the kernel, taps and channels. */
static ALWAYS_INLINE void sum_products(const int rows, const int taps, const int channels,
                                       const grouped_lanes kind, const grouped_shape *shape,
                                       const grouped_pixels *pixels, int64_t row, int64_t place,
                                       int64_t channel, float *sums, int64_t row_step,
                                       int64_t channel_step) {
    tap_sums s;
    UNROLL
    for (int c = 0; c < channels; c++) s.index[c] = load_index(shape, channel + c, kind);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int t = 0; t < taps; t++) {
            UNROLL
            for (int c = 0; c < channels; c++) {
                s.sum[r][t][c] = vload(sums + r * row_step + c * channel_step + t * VECTOR_FLOATS);
            }
        }
    }
    bool slides = kind == GROUPED_SHUFFLED && taps == 3 && shape->step == 1 && pixels->count > 2;
    for (int64_t i = 0; i < pixels->rows; i++) {
        const float *gradient = pixels->gradient + i * pixels->gradient_row, *x[3];
        UNROLL
        for (int r = 0; r < rows; r++) {
            x[r] = pixels->strip[i * pixels->row_step + (row + r) * shape->tap_rows] + place;
        }
        if (slides) {
            slide_taps(rows, channels, &s, shape->plane, kind, x, gradient, pixels->count);
        } else {
            visit_taps(rows, taps, channels, &s, shape->plane, kind, x, gradient, pixels->count,
                       shape->step);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int t = 0; t < taps; t++) {
            UNROLL
            for (int c = 0; c < channels; c++) {
                vstore(sums + r * row_step + c * channel_step + t * VECTOR_FLOATS, s.sum[r][t][c]);
            }
        }
    }
}

/* Enough sums at once to keep the units busy, no more than there are registers. */
#if VECTOR_FLOATS == 16
enum { BLOCK_CHANNELS = 4, BLOCK_ROWS_OF_TWO = 3 };
#else
enum { BLOCK_CHANNELS = 2, BLOCK_ROWS_OF_TWO = 1 };
#endif

static ALWAYS_INLINE void sum_taps(const int rows, const int channels, const grouped_lanes kind,
                                   const grouped_shape *shape, const grouped_pixels *pixels,
                                   int64_t row, int64_t channel, float *sums) {
    int64_t channel_step = shape->taps_w * VECTOR_FLOATS, row_step = shape->channels * channel_step;
    int64_t tap = 0, place = pixels->place + channel * shape->plane;
    sums += row * row_step + channel * channel_step;
    for (; tap + 3 <= shape->taps_w; tap += 3) {
        sum_products(rows, 3, channels, kind, shape, pixels, row, place + tap * VECTOR_FLOATS,
                     channel, sums + tap * VECTOR_FLOATS, row_step, channel_step);
    }
    for (; tap < shape->taps_w; tap++) {
        sum_products(rows, 1, channels, kind, shape, pixels, row, place + tap * VECTOR_FLOATS,
                     channel, sums + tap * VECTOR_FLOATS, row_step, channel_step);
    }
}

static ALWAYS_INLINE void sum_rows(const int rows_at_once, const int channels,
                                   const grouped_lanes kind, const grouped_shape *shape,
                                   const grouped_pixels *pixels, int64_t channel, float *sums) {
    int64_t row = 0;
    for (; rows_at_once > 1 && row + rows_at_once <= shape->taps_h; row += rows_at_once) {
        sum_taps(rows_at_once, channels, kind, shape, pixels, row, channel, sums);
    }
    for (; row < shape->taps_h; row++) {
        sum_taps(1, channels, kind, shape, pixels, row, channel, sums);
    }
}

static ALWAYS_INLINE void sum_channels(const grouped_lanes kind, const grouped_shape *shape,
                                       const grouped_pixels *pixels, float *sums) {
    /* Where lanes can be shuffled, plain pixels are those of groups of one channel. */
    const bool one_channel = SHUFFLES && kind == GROUPED_PLAIN;
    int64_t channel = 0;
    for (; !one_channel && BLOCK_CHANNELS == 4 && channel + 4 <= shape->channels; channel += 4) {
        sum_rows(1, 4, kind, shape, pixels, channel, sums);
    }
    for (; !one_channel && channel + 2 <= shape->channels; channel += 2) {
        sum_rows(BLOCK_ROWS_OF_TWO, 2, kind, shape, pixels, channel, sums);
    }
    for (; channel < shape->channels; channel++) {
        sum_rows(3, 1, kind, shape, pixels, channel, sums);
    }
}

void KERNEL(grouped_gradient)(const grouped_shape *shape, const grouped_pixels *pixels,
                              float *sums) {
    if (SHUFFLES && shape->lanes == GROUPED_SHUFFLED) {
        sum_channels(GROUPED_SHUFFLED, shape, pixels, sums);
    } else if (shape->lanes == GROUPED_REPEATED) {
        sum_channels(GROUPED_REPEATED, shape, pixels, sums);
    } else {
        sum_channels(GROUPED_PLAIN, shape, pixels, sums);
    }
}

static void copy_some(int lanes, const float *x, const float *scale, const float *shift,
                      float *to) {
    float copy[VECTOR_FLOATS] = {0};
    for (int l = 0; l < lanes; l++) {
        float z = scale ? x[l] * scale[l] + shift[l] : x[l];
        copy[l] = scale && z < 0 ? 0 : z;
    }
    vstore(to, vload(copy));
}

/* Some vectors of each pixel; their scales stay in registers. `ahead` is fetched. */
static ALWAYS_INLINE void copy_columns(const int vectors, const bool scaled, int64_t pixels,
                                       int lanes, const float *x, int64_t x_step,
                                       const float *scale, const float *shift, float *to,
                                       int64_t plane, int64_t ahead) {
    vfloat factor[4], offset[4];
    UNROLL
    for (int i = 0; i < vectors; i++) {
        if (scaled) factor[i] = vload(scale + i * lanes);
        if (scaled) offset[i] = vload(shift + i * lanes);
    }
    for (int64_t p = 0; p < pixels; p++, x += x_step, to += VECTOR_FLOATS) {
        UNROLL
        for (int i = 0; i < vectors; i++) {
            vfloat value = vload(x + i * lanes);
            __builtin_prefetch(x + i * lanes + ahead);
            if (scaled) {
                value = value * factor[i] + offset[i];
                value = zero_where(value < (vfloat){0}, value);
            }
            vstore(to + i * plane, value);
        }
    }
}

void KERNEL(grouped_copy)(int64_t pixels, int64_t channels, int lanes, const float *x,
                          int64_t x_step, const float *scale, const float *shift, float *to,
                          int64_t plane) {
    /* Floats fetched ahead: as many as are on their way from memory at a time. */
    enum { AHEAD = 1024 };
    const int64_t ahead = (AHEAD + channels - 1) / channels * x_step;
    /* Whole vectors are read where that many floats of each pixel are left. */
    int64_t c = 0;
    for (; c + 3 * lanes + VECTOR_FLOATS <= channels; c += 4 * lanes, to += 4 * plane) {
        if (scale) {
            copy_columns(4, true, pixels, lanes, x + c, x_step, scale + c, shift + c, to, plane,
                         ahead);
        } else {
            copy_columns(4, false, pixels, lanes, x + c, x_step, NULL, NULL, to, plane, ahead);
        }
    }
    for (; c + VECTOR_FLOATS <= channels; c += lanes, to += plane) {
        if (scale) {
            copy_columns(1, true, pixels, lanes, x + c, x_step, scale + c, shift + c, to, plane,
                         ahead);
        } else {
            copy_columns(1, false, pixels, lanes, x + c, x_step, NULL, NULL, to, plane, ahead);
        }
    }
    for (; c < channels; c += lanes, to += plane) {
        for (int64_t i = 0; i < pixels; i++) {
            copy_some((int)(channels - c < lanes ? channels - c : lanes), x + i * x_step + c,
                      scale ? scale + c : NULL, scale ? shift + c : NULL, to + i * VECTOR_FLOATS);
        }
    }
}

void KERNEL(grouped_spread)(int64_t pixels, int lanes, int64_t group_in, int64_t group_out,
                            const float *x, int64_t x_step, const float *scale,
                            const float *shift, float *to, int64_t plane) {
    int64_t channel[VECTOR_FLOATS];
    for (int l = 0; l < VECTOR_FLOATS; l++) {
        channel[l] = (l < lanes ? l : 0) / group_out * group_in;
    }
    for (int64_t i = 0; i < pixels; i++) {
        for (int64_t c = 0; c < group_in; c++) {
            for (int l = 0; l < VECTOR_FLOATS; l++) {
                int64_t k = channel[l] + c;
                float z = scale ? x[k] * scale[k] + shift[k] : x[k];
                to[c * plane + l] = scale && z < 0 ? 0 : z;
            }
        }
        x += x_step;
        to += VECTOR_FLOATS;
    }
}
