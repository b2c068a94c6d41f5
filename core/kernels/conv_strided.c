/* conv_strided.c: the transforms of Winograd's F(4x4, 2x2) for 3x3 convolutions with stride 2, by
 * the phases of the image (core/ops/conv_strided.h). The points are 0, 1, -1, 2 and infinity (Lavin
 * and Gray, 2016; the matrices by Cook and Toom's construction, as in Blahut, Fast Algorithms for
 * Signal Processing, 2010, chapter 5).
 *
 * In one direction there are two phases: that with two taps and five points, and that with one tap,
 * whose value at infinity is zero. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

enum { V = VECTOR_FLOATS, LINE = STRIDED_LINE };

/* ---- Transforms in one direction, of one phase, for some channels ---------------------------- */

/* B^T d: the row of a point p has the coefficients of M(x) / (x - p), where M(x) =
 * x (x^2 - 1) (x - 2), and that of infinity those of M. */
static ALWAYS_INLINE void transform_source(const bool whole, int64_t channels, const float *d,
                                           int64_t step, float *t, int64_t to_step) {
    for (int64_t c = 0; c < channels; c += V, d += V, t += V) {
        vfloat d_1 = vload(d + step), d_2 = vload(d + 2 * step), e = vload(d + 3 * step) - d_1;
        vstore(t, 2.0f * (vload(d) - d_2) + e);
        vstore(t + to_step, e - (d_1 + d_2));
        vstore(t + 2 * to_step, 3.0f * (d_1 - d_2) + e);
        vstore(t + 3 * to_step, e);
        if (whole) vstore(t + 4 * to_step, (vload(d + 4 * step) - d_2) - 2.0f * e);
    }
}

/* A^T m */
static ALWAYS_INLINE void transform_result(const bool whole, int64_t channels, const float *m,
                                           int64_t step, float *y, int64_t to_step) {
    for (int64_t c = 0; c < channels; c += V, m += V, y += V) {
        vfloat m_1 = vload(m + step), m_2 = vload(m + 2 * step), m_3 = vload(m + 3 * step);
        vfloat sum = m_1 + m_2, difference = m_1 - m_2, last = difference + 8.0f * m_3;
        vstore(y, vload(m) + sum + m_3);
        vstore(y + to_step, difference + 2.0f * m_3);
        vstore(y + 2 * to_step, sum + 4.0f * m_3);
        vstore(y + 3 * to_step, whole ? last + vload(m + 4 * step) : last);
    }
}

/* A y */
static ALWAYS_INLINE void transform_gradient(int64_t channels, const float *y, int64_t step,
                                             float *m, int64_t to_step) {
    for (int64_t c = 0; c < channels; c += V, y += V, m += V) {
        vfloat y_0 = vload(y), y_1 = vload(y + step), y_2 = vload(y + 2 * step);
        vfloat y_3 = vload(y + 3 * step), even = y_0 + y_2, odd = y_1 + y_3;
        vstore(m, y_0);
        vstore(m + to_step, even + odd);
        vstore(m + 2 * to_step, even - odd);
        vstore(m + 3 * to_step, (y_0 + 4.0f * y_2) + 2.0f * (y_1 + 4.0f * y_3));
        vstore(m + 4 * to_step, y_3);
    }
}

/* G w: the row of a point p is 1, p divided by the product of its distances from the others. */
static ALWAYS_INLINE void transform_weights(const bool whole, int64_t channels, const float *w,
                                            int64_t step, float *u, int64_t to_step) {
    for (int64_t c = 0; c < channels; c += V, w += V, u += V) {
        vfloat first = vload(w), second = whole ? vload(w + step) : (vfloat){0};
        vstore(u, 0.5f * first);
        vstore(u + to_step, -0.5f * (first + second));
        vstore(u + 2 * to_step, (1.0f / 6) * (second - first));
        vstore(u + 3 * to_step, (1.0f / 6) * first + (1.0f / 3) * second);
        if (whole) vstore(u + 4 * to_step, second);
    }
}

/* G^T u */
static ALWAYS_INLINE void transform_sums(const bool whole, int64_t channels, const float *u,
                                         int64_t step, float *w, int64_t to_step) {
    for (int64_t c = 0; c < channels; c += V, u += V, w += V) {
        vfloat u_1 = vload(u + step), u_2 = vload(u + 2 * step), u_3 = vload(u + 3 * step);
        vstore(w, 0.5f * (vload(u) - u_1) + (1.0f / 6) * (u_3 - u_2));
        if (whole)
            vstore(w + to_step, (vload(u + 4 * step) - 0.5f * u_1) +
                                    ((1.0f / 6) * u_2 + (1.0f / 3) * u_3));
    }
}

/* ---- And in two ------------------------------------------------------------------------------ */

/* How many values and results there are of the phase with two taps, and of the other; the result
 * that stands in front is of which. */
typedef struct kind {
    enum { SOURCE, RESULT, GRADIENT, WEIGHTS, SUMS } line;
    int values, results, other_values, other_results;
    bool other_first;
} kind;

static const kind kinds[] = {
    [STRIDED_PIXELS] = {SOURCE, 5, 5, 4, 4, false},
    [STRIDED_PLAIN_PIXELS] = {SOURCE, 5, 5, 0, 0, false},
    [STRIDED_GRADIENT] = {GRADIENT, 4, 5, 0, 0, false},
    [STRIDED_WEIGHTS] = {WEIGHTS, 2, 5, 1, 4, false},
    [STRIDED_RESULTS] = {RESULT, 5, 4, 4, 4, true},
    [STRIDED_PLAIN_RESULTS] = {RESULT, 5, 4, 0, 0, false},
    [STRIDED_SUMS] = {SUMS, 5, 2, 4, 1, false},
};

static __attribute__((noinline)) void two_taps(const kind *k, int64_t channels, const float *from,
                                               int64_t step, float *to, int64_t to_step) {
    switch (k->line) {
    case SOURCE: transform_source(true, channels, from, step, to, to_step); break;
    case RESULT: transform_result(true, channels, from, step, to, to_step); break;
    case GRADIENT: transform_gradient(channels, from, step, to, to_step); break;
    case WEIGHTS: transform_weights(true, channels, from, step, to, to_step); break;
    case SUMS: transform_sums(true, channels, from, step, to, to_step); break;
    }
}

static __attribute__((noinline)) void one_tap(const kind *k, int64_t channels, const float *from,
                                              int64_t step, float *to, int64_t to_step) {
    switch (k->line) {
    case SOURCE: transform_source(false, channels, from, step, to, to_step); break;
    case RESULT: transform_result(false, channels, from, step, to, to_step); break;
    case WEIGHTS: transform_weights(false, channels, from, step, to, to_step); break;
    default: transform_sums(false, channels, from, step, to, to_step); break;
    }
}

static void transform_line(const kind *k, int64_t channels, const float *from, strided_step step,
                           float *to, strided_step to_step) {
    two_taps(k, channels, from, step.next, to, to_step.next);
    if (k->other_values)
        one_tap(k, channels, from + step.other, step.next, to + to_step.other, to_step.next);
}

/* Channels at a time: what lies between the directions stays in the first-level cache. */
enum { SOME = 4 * V, ROW = LINE * SOME };

static __attribute__((noinline)) void transform(const kind *k, int64_t channels,
                                                const float *from, const strided_steps *steps,
                                                float *to, const strided_steps *to_steps) {
    float half[LINE * ROW];
    for (int x = 0; x < k->values + k->other_values; x++) {
        const float *column = x < k->values
                                  ? from + x * steps->column.next
                                  : from + steps->column.other +
                                        (x - k->values) * steps->column.next;
        transform_line(k, channels, column, steps->row, half + x * SOME,
                       (strided_step){ROW, k->results * ROW});
    }
    for (int y = 0; y < k->results + k->other_results; y++) {
        float *row = y < k->results ? to + y * to_steps->row.next
                                    : to + to_steps->row.other +
                                          (y - k->results) * to_steps->row.next;
        transform_line(k, channels, half + y * ROW, (strided_step){SOME, k->values * SOME}, row,
                       to_steps->column);
    }
}

static int64_t some_channels(int64_t channels) { return channels < SOME ? channels : SOME; }

void KERNEL(strided_transform)(strided_kind name, int64_t channels, const float *from,
                               const strided_steps *steps, float *to,
                               const strided_steps *to_steps) {
    for (int64_t c = 0; c < channels; c += SOME)
        transform(&kinds[name], some_channels(channels - c), from + c, steps, to + c, to_steps);
}

/* Results of the phases in turn, where neighbours are a step apart. */
static strided_step in_turn(const kind *k, int64_t step) {
    if (!k->other_results) return (strided_step){step, 0};
    return (strided_step){2 * step, k->other_first ? -step : step};
}

static void transform_back(const kind *k, int64_t channels, const float *from,
                           const strided_steps *steps, float *to, int64_t row_step,
                           int64_t pixel_step) {
    const strided_steps to_steps = {in_turn(k, row_step), in_turn(k, pixel_step)};
    if (k->other_first) to += row_step + pixel_step;
    transform(k, channels, from, steps, to, &to_steps);
}

/* One result, of a number of channels that may not be whole vectors. */
static __attribute__((noinline)) void write_beside(int64_t channels, const float *from,
                                                   const float *bias, bool add, float *to) {
    for (int64_t c = 0; c < channels; c++)
        to[c] = from[c] + (bias ? bias[c] : 0) + (add ? to[c] : 0);
}

/* A part of a tile that was computed beside the result. */
static void write_tile(const float *tile, int64_t first, int64_t channels,
                       const strided_result *result) {
    const float *from = tile + (8 * result->row + result->column) * SOME;
    bool vectors = channels % V == 0 && !result->bias;
    for (int y = 0; y < result->rows; y++) {
        for (int x = 0; x < result->columns; x++) {
            const float *value = from + (8 * y + x) * SOME;
            float *to = result->to + y * result->row_step + x * result->pixel_step + first;
            if (!vectors) {
                write_beside(channels, value, result->bias ? result->bias + first : NULL,
                             result->add, to);
                continue;
            }
            for (int64_t c = 0; c < channels; c += V)
                vstore(to + c, result->add ? vload(to + c) + vload(value + c) : vload(value + c));
        }
    }
}

/* Asks for what is written next. In line, since a compiler takes a function that only does this for
 * one without effect. */
static ALWAYS_INLINE void fetch_results(int results, int64_t channels, const float *from,
                                        const strided_result *result) {
    for (int i = 0; i < results; i++) {
        for (int j = 0; j < results; j++) {
            for (int64_t c = 0; c < channels; c += 16)
                __builtin_prefetch(from + i * result->row_step + j * result->pixel_step + c);
        }
    }
}

void KERNEL(strided_result)(strided_kind name, int64_t channels, const float *from,
                            const strided_steps *steps, const strided_result *result) {
    const kind *k = &kinds[name];
    int results = k->results + k->other_results;
    bool whole = result->rows == results && result->columns == results;
    for (int i = 0; i < 2; i++)
        if (result->next[i]) fetch_results(results, channels, result->next[i], result);
    for (int64_t c = 0; c < channels; c += SOME) {
        float tile[64 * SOME];
        int64_t some = some_channels(channels - c);
        if (some % V == 0 && !result->bias && !result->add && whole) {
            transform_back(k, some, from + c, steps, result->to + c, result->row_step,
                           result->pixel_step);
            continue;
        }
        transform_back(k, some, from + c, steps, tile, 8 * SOME, SOME);
        write_tile(tile, c, some, result);
    }
}
