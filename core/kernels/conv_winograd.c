/* conv_winograd.c: the transforms of Winograd's F(4x4, 3x3) and F(2x2, 5x5), vectorized over
 * channels. Matrices A, B, G for the points 0, 1, -1, 2, -2, infinity: Lavin and Gray, "Fast
 * Algorithms for Convolutional Neural Networks", 2016, section 4.3. Both read tiles of 6x6 pixels
 * and have the same B; with more taps G has more columns, and A fewer: the powers of each point. */
#include "core/kernels/conv_names.h"
#include "core/kernels/conv_kernels.h"
#include "core/kernels/kernel.h"
#include "core/kernels/winograd_points.h"

/* The one-dimensional transforms that are not in winograd_points.h. */

enum { OUTPUTS = 4, TAPS = 5 }; /* in one direction, at most */

/* A^T m */
static ALWAYS_INLINE void transform_output(const int taps, const vfloat m[6], vfloat y[OUTPUTS]) {
    vfloat sum = m[1] + m[2], difference = m[1] - m[2];
    vfloat sum_2 = m[3] + m[4], difference_2 = m[3] - m[4];
    y[0] = m[0] + sum + sum_2;
    y[1] = difference + 2.0f * difference_2;
    if (taps == 5) {
        y[1] += m[5];
        return;
    }
    y[2] = sum + 4.0f * sum_2;
    y[3] = difference + 8.0f * difference_2 + m[5];
}

/* A y */
static ALWAYS_INLINE void transform_gradient(const int taps, const vfloat y[OUTPUTS], vfloat m[6]) {
    if (taps == 3) {
        six_points_of_gradient(y, m);
        return;
    }
    m[0] = y[0];
    m[1] = y[0] + y[1];
    m[2] = y[0] - y[1];
    m[3] = y[0] + 2.0f * y[1];
    m[4] = y[0] - 2.0f * y[1];
    m[5] = y[1];
}

/* G w */
static ALWAYS_INLINE void transform_weights(const int taps, const vfloat w[TAPS], vfloat u[6]) {
    vfloat even = w[0] + w[2], odd = w[1];
    vfloat even_2 = w[0] * (1.0f / 24) + w[2] * (1.0f / 6), odd_2 = w[1] * (1.0f / 12);
    if (taps == 5) {
        even += w[4];
        odd += w[3];
        even_2 += w[4] * (2.0f / 3);
        odd_2 += w[3] * (1.0f / 3);
    }
    even *= -1.0f / 6;
    odd *= -1.0f / 6;
    u[0] = w[0] * 0.25f;
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = even_2 + odd_2;
    u[4] = even_2 - odd_2;
    u[5] = w[taps - 1];
}

/* G^T u */
static ALWAYS_INLINE void transform_weights_gradient(const int taps, const vfloat u[6],
                                                     vfloat w[TAPS]) {
    vfloat sum = (u[1] + u[2]) * (-1.0f / 6), sum_2 = u[3] + u[4];
    vfloat difference = (u[2] - u[1]) * (1.0f / 6), difference_2 = u[3] - u[4];
    w[0] = u[0] * 0.25f + sum + sum_2 * (1.0f / 24);
    w[1] = difference + difference_2 * (1.0f / 12);
    w[2] = sum + sum_2 * (1.0f / 6);
    if (taps == 5) {
        w[3] = difference + difference_2 * (1.0f / 3);
        w[4] = sum + sum_2 * (2.0f / 3);
    }
    w[taps - 1] += u[5];
}

/* The two-dimensional transforms: columns into `half`, then rows of it into stores. */

static ALWAYS_INLINE float *input_row(const vfloat half[6], float *v, int64_t plane) {
    vfloat t[6];
    six_points_of_source(half, t);
    UNROLL
    for (int x = 0; x < 6; x++) {
        vstore(v, t[x]);
        v += plane;
    }
    return v;
}

/* Row by row or pair of rows, as B^T makes them, with the pixels read anew: all of `half` would not
 * fit the registers. A function of its own, as those below. */
static __attribute__((noinline)) void input_vector(const float *pixels, int64_t row_step,
                                                   int64_t pixel_step, float *v, int64_t plane) {
    const float *row[6];
    UNROLL
    for (int y = 0; y < 6; y++) row[y] = pixels + y * row_step;
    vfloat half[2][6];
    UNROLL
    for (int x = 0; x < 6; x++) {
        int64_t at = x * pixel_step;
        half[0][x] = 4.0f * vload(row[0] + at) + (vload(row[4] + at) - 5.0f * vload(row[2] + at));
    }
    v = input_row(half[0], v, plane);
    UNROLL
    for (int x = 0; x < 6; x++) {
        int64_t at = x * pixel_step;
        vfloat even = vload(row[4] + at) - 4.0f * vload(row[2] + at);
        vfloat odd = vload(row[3] + at) - 4.0f * vload(row[1] + at);
        half[0][x] = even + odd;
        half[1][x] = even - odd;
    }
    v = input_row(half[0], v, plane);
    v = input_row(half[1], v, plane);
    UNROLL
    for (int x = 0; x < 6; x++) {
        int64_t at = x * pixel_step;
        vfloat even = vload(row[4] + at) - vload(row[2] + at);
        vfloat odd = vload(row[3] + at) - vload(row[1] + at);
        half[0][x] = even + 2.0f * odd;
        half[1][x] = even - 2.0f * odd;
    }
    v = input_row(half[0], v, plane);
    v = input_row(half[1], v, plane);
    UNROLL
    for (int x = 0; x < 6; x++) {
        int64_t at = x * pixel_step;
        half[0][x] = 4.0f * vload(row[1] + at) + (vload(row[5] + at) - 5.0f * vload(row[3] + at));
    }
    input_row(half[0], v, plane);
}

/* What is written to a pixel of the result: the value alone, the sum with what is there, or an
 * epilogue of the value. */
typedef enum output_kind { OUTPUT_VALUE, OUTPUT_SUM, OUTPUT_FINISHED } output_kind;

/* A vector of channels of a tile. Without a shortcut each pixel adds the same zeros. */
static ALWAYS_INLINE void output_vector(const int taps, const output_kind kind, const float *m,
                                        int64_t plane, vfloat bias, float *pixels, int64_t row_step,
                                        int64_t pixel_step, const conv_epilogue *epilogue,
                                        int64_t channel) {
    static const float zeros[VECTOR_FLOATS];
    const int outputs = winograd_outputs(taps);
    vfloat half[OUTPUTS][6];
    int64_t line = 6 * plane; /* three lines to a pointer: the processor multiplies in the load */
    const float *upper = m, *lower = m + 3 * line;
    UNROLL
    for (int x = 0; x < 6; x++) {
        vfloat d[6], t[OUTPUTS];
        UNROLL
        for (int y = 0; y < 3; y++) {
            d[y] = vload(upper + y * line);
            d[y + 3] = vload(lower + y * line);
        }
        upper += plane;
        lower += plane;
        transform_output(taps, d, t);
        UNROLL
        for (int y = 0; y < outputs; y++) half[y][x] = t[y];
    }
    vfloat scale = {0}, shift = {0}, floor = {0};
    const float *add = zeros;
    int64_t add_row = 0, add_pixel = 0;
    if (kind == OUTPUT_FINISHED) {
        scale = vload(epilogue->scale + channel);
        shift = vload(epilogue->shift + channel);
        floor = vset(epilogue->relu ? 0 : -__builtin_inff());
        if (epilogue->shortcut) {
            add = epilogue->shortcut + channel;
            add_row = row_step;
            add_pixel = pixel_step;
        }
    }
    UNROLL
    for (int y = 0; y < outputs; y++) {
        vfloat t[OUTPUTS];
        transform_output(taps, half[y], t);
        UNROLL
        for (int x = 0; x < outputs; x++) {
            float *to = pixels + y * row_step + x * pixel_step;
            vfloat value = t[x] + bias;
            if (kind == OUTPUT_SUM) value = vload(to) + t[x];
            if (kind == OUTPUT_FINISHED)
                value = not_below(floor, value * scale + shift + vload(add + x * add_pixel));
            vstore(to, value);
        }
        add += add_row;
    }
}

static ALWAYS_INLINE void gradient_vector(const int taps, const float *pixels, int64_t row_step,
                                          int64_t pixel_step, float *m, int64_t plane) {
    const int outputs = winograd_outputs(taps);
    vfloat half[6][OUTPUTS];
    UNROLL
    for (int x = 0; x < outputs; x++) {
        vfloat d[OUTPUTS], t[6];
        UNROLL
        for (int y = 0; y < outputs; y++) d[y] = vload(pixels + y * row_step + x * pixel_step);
        transform_gradient(taps, d, t);
        UNROLL
        for (int y = 0; y < 6; y++) half[y][x] = t[y];
    }
    UNROLL
    for (int y = 0; y < 6; y++) {
        vfloat t[6];
        transform_gradient(taps, half[y], t);
        UNROLL
        for (int x = 0; x < 6; x++) {
            vstore(m, t[x]);
            m += plane;
        }
    }
}

static ALWAYS_INLINE void weights_vector(const int taps, const float *w, int64_t tap_step, float *u,
                                         int64_t plane) {
    vfloat half[6][TAPS];
    UNROLL
    for (int x = 0; x < taps; x++) {
        vfloat d[TAPS], t[6];
        UNROLL
        for (int y = 0; y < taps; y++) d[y] = vload(w + (y * taps + x) * tap_step);
        transform_weights(taps, d, t);
        UNROLL
        for (int y = 0; y < 6; y++) half[y][x] = t[y];
    }
    UNROLL
    for (int y = 0; y < 6; y++) {
        vfloat t[6];
        transform_weights(taps, half[y], t);
        UNROLL
        for (int x = 0; x < 6; x++) {
            vstore(u, t[x]);
            u += plane;
        }
    }
}

static ALWAYS_INLINE void weights_gradient_vector(const int taps, const float *du, int64_t plane,
                                                  float *dw, int64_t tap_step) {
    vfloat half[TAPS][6];
    UNROLL
    for (int x = 0; x < 6; x++) {
        vfloat d[6], t[TAPS];
        UNROLL
        for (int y = 0; y < 6; y++) d[y] = vload(du + (y * 6 + x) * plane);
        transform_weights_gradient(taps, d, t);
        UNROLL
        for (int y = 0; y < taps; y++) half[y][x] = t[y];
    }
    UNROLL
    for (int y = 0; y < taps; y++) {
        vfloat t[TAPS];
        transform_weights_gradient(taps, half[y], t);
        UNROLL
        for (int x = 0; x < taps; x++) vstore(dw + (y * taps + x) * tap_step, t[x]);
    }
}

/* One compiled function for each number of taps. */
static __attribute__((noinline)) void weights_of_3(const float *w, int64_t tap_step, float *u,
                                                   int64_t plane) {
    weights_vector(3, w, tap_step, u, plane);
}
static __attribute__((noinline)) void weights_of_5(const float *w, int64_t tap_step, float *u,
                                                   int64_t plane) {
    weights_vector(5, w, tap_step, u, plane);
}
static __attribute__((noinline)) void weights_gradient_of_3(const float *du, int64_t plane,
                                                            float *dw, int64_t tap_step) {
    weights_gradient_vector(3, du, plane, dw, tap_step);
}
static __attribute__((noinline)) void weights_gradient_of_5(const float *du, int64_t plane,
                                                            float *dw, int64_t tap_step) {
    weights_gradient_vector(5, du, plane, dw, tap_step);
}

void KERNEL(winograd_input)(int taps, int64_t tiles, int64_t channels, const float *pixels,
                            int64_t row_step, int64_t pixel_step, float *v, int64_t v_step,
                            int64_t plane) {
    for (int64_t t = 0; t < tiles; t++) {
        for (int64_t c = 0; c < channels; c += VECTOR_FLOATS) {
            input_vector(pixels + c, row_step, pixel_step, v + c, plane);
        }
        pixels += winograd_outputs(taps) * pixel_step;
        v += v_step;
    }
}

static ALWAYS_INLINE void gradient_tiles(const int taps, int64_t tiles, int64_t channels,
                                         const float *pixels, int64_t row_step,
                                         int64_t pixel_step, float *m, int64_t m_step,
                                         int64_t plane) {
    for (int64_t t = 0; t < tiles; t++) {
        for (int64_t c = 0; c < channels; c += VECTOR_FLOATS) {
            gradient_vector(taps, pixels + c, row_step, pixel_step, m + c, plane);
        }
        pixels += winograd_outputs(taps) * pixel_step;
        m += m_step;
    }
}

void KERNEL(winograd_gradient)(int taps, int64_t tiles, int64_t channels, const float *pixels,
                               int64_t row_step, int64_t pixel_step, float *m, int64_t m_step,
                               int64_t plane) {
    if (taps == 3)
        gradient_tiles(3, tiles, channels, pixels, row_step, pixel_step, m, m_step, plane);
    else
        gradient_tiles(5, tiles, channels, pixels, row_step, pixel_step, m, m_step, plane);
}

/* Functions of their own, so that what the others need is not made ready for every tile. */
typedef void output_function(const float *m, int64_t plane, vfloat bias, float *pixels,
                             int64_t row_step, int64_t pixel_step, const conv_epilogue *epilogue,
                             int64_t channel);

#define OUTPUT_FUNCTION(name, taps, kind)                                                       \
    static void name(const float *m, int64_t plane, vfloat bias, float *pixels,                 \
                     int64_t row_step, int64_t pixel_step, const conv_epilogue *epilogue,       \
                     int64_t channel) {                                                         \
        output_vector(taps, kind, m, plane, bias, pixels, row_step, pixel_step, epilogue,       \
                      channel);                                                                 \
    }
OUTPUT_FUNCTION(value_of_3, 3, OUTPUT_VALUE)
OUTPUT_FUNCTION(sum_of_3, 3, OUTPUT_SUM)
OUTPUT_FUNCTION(finished_of_3, 3, OUTPUT_FINISHED)
OUTPUT_FUNCTION(value_of_5, 5, OUTPUT_VALUE)
OUTPUT_FUNCTION(sum_of_5, 5, OUTPUT_SUM)
OUTPUT_FUNCTION(finished_of_5, 5, OUTPUT_FINISHED)

static output_function *choose_output(int taps, output_kind kind) {
    static output_function *const functions[2][3] = {{value_of_3, sum_of_3, finished_of_3},
                                                     {value_of_5, sum_of_5, finished_of_5}};
    return functions[taps == 5][kind];
}

/* A tile that reaches beyond the image, and a rest of channels narrower than a vector, are computed
 * beside the image. */
static __attribute__((noinline)) void output_beside(
    int taps, int64_t channels, const float *m, int64_t plane, const float *bias, float *pixels,
    int64_t row_step, int64_t pixel_step, int rows, int columns, bool add,
    const conv_epilogue *epilogue, int64_t channel) {
    float tile[OUTPUTS][OUTPUTS][VECTOR_FLOATS];
    vfloat first = {0};
    if (bias) memcpy(&first, bias, (size_t)channels * sizeof(float));
    choose_output(taps, OUTPUT_VALUE)(m, plane, first, tile[0][0], OUTPUTS * VECTOR_FLOATS,
                                      VECTOR_FLOATS, NULL, 0);
    for (int y = 0; y < rows; y++) {
        float *row = pixels + y * row_step;
        if (epilogue) {
            conv_epilogue here = {epilogue->scale + channel, epilogue->shift + channel, NULL,
                                  epilogue->relu};
            if (epilogue->shortcut) here.shortcut = epilogue->shortcut + channel + y * row_step;
            KERNEL(finish)(columns, channels, tile[y][0], VECTOR_FLOATS, &here, row, pixel_step);
            continue;
        }
        for (int x = 0; x < columns; x++) {
            float *to = row + x * pixel_step;
            for (int64_t c = 0; c < channels; c++) to[c] = tile[y][x][c] + (add ? to[c] : 0);
        }
    }
}

void KERNEL(winograd_output)(int taps, int64_t channels, const float *m, int64_t plane,
                             const float *bias, float *pixels, int64_t row_step,
                             int64_t pixel_step, int rows, int columns, bool add,
                             const conv_epilogue *epilogue) {
    output_function *output = choose_output(taps, epilogue ? OUTPUT_FINISHED
                                                  : add    ? OUTPUT_SUM
                                                           : OUTPUT_VALUE);
    bool whole = rows == winograd_outputs(taps) && columns == winograd_outputs(taps);
    for (int64_t c = 0; c < channels; c += VECTOR_FLOATS) {
        if (channels - c < VECTOR_FLOATS || !whole) {
            int64_t some = channels - c < VECTOR_FLOATS ? channels - c : VECTOR_FLOATS;
            output_beside(taps, some, m + c, plane, bias ? bias + c : NULL, pixels + c, row_step,
                          pixel_step, rows, columns, add, epilogue, c);
            continue;
        }
        output(m + c, plane, bias ? vload(bias + c) : (vfloat){0}, pixels + c, row_step, pixel_step,
               epilogue, c);
    }
}

void KERNEL(winograd_weights)(int taps, int64_t rows, int64_t columns, const float *w,
                              int64_t tap_step, int64_t row_step, bool rotated, float *u,
                              int64_t plane, int64_t width) {
    float block[TAPS * TAPS][VECTOR_FLOATS][VECTOR_FLOATS]; /* tap, row, column */
    void (*transform)(const float *, int64_t, float *, int64_t) =
        taps == 3 ? weights_of_3 : weights_of_5;
    const int all = taps * taps;
    for (int64_t j = 0; j < columns; j += VECTOR_FLOATS) {
        int64_t some_columns = columns - j < VECTOR_FLOATS ? columns - j : VECTOR_FLOATS;
        for (int64_t i = 0; i < rows; i += VECTOR_FLOATS) {
            int64_t some_rows = rows - i < VECTOR_FLOATS ? rows - i : VECTOR_FLOATS;
            float *to = u + i * width + j;
            if (!rotated && some_columns == VECTOR_FLOATS) {
                for (int64_t r = 0; r < some_rows; r++) {
                    transform(w + (i + r) * row_step + j, tap_step, to + r * width, plane);
                }
                continue;
            }
            for (int tap = 0; tap < all; tap++) {
                const float *from = rotated ? w + (all - 1 - tap) * tap_step + j * row_step + i
                                            : w + tap * tap_step + i * row_step + j;
                KERNEL(pack)(some_rows, some_columns, from, row_step, rotated, block[tap][0],
                             VECTOR_FLOATS);
            }
            for (int64_t r = 0; r < some_rows; r++) {
                transform(block[0][r], VECTOR_FLOATS * VECTOR_FLOATS, to + r * width, plane);
            }
        }
    }
}

void KERNEL(winograd_weights_gradient)(int taps, int64_t rows, int64_t columns, const float *du,
                                       int64_t plane, int64_t width, float *dw, int64_t tap_step,
                                       int64_t row_step) {
    void (*transform)(const float *, int64_t, float *, int64_t) =
        taps == 3 ? weights_gradient_of_3 : weights_gradient_of_5;
    for (int64_t i = 0; i < rows; i++) {
        int64_t j = 0;
        for (; j + VECTOR_FLOATS <= columns; j += VECTOR_FLOATS) {
            transform(du + i * width + j, plane, dw + i * row_step + j, tap_step);
        }
        if (j == columns) continue;
        float copies[TAPS * TAPS][VECTOR_FLOATS];
        transform(du + i * width + j, plane, copies[0], VECTOR_FLOATS);
        for (int tap = 0; tap < taps * taps; tap++) {
            for (int64_t k = j; k < columns; k++) {
                dw[tap * tap_step + i * row_step + k] = copies[tap][k - j];
            }
        }
    }
}
