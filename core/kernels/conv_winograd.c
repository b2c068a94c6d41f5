/* conv_winograd.c: the transforms of Winograd's F(4x4, 3x3), vectorized over channels.
 * Matrices A, B, G for the points 0, 1, -1, 2, -2, infinity: Lavin and Gray, "Fast Algorithms for
 * Convolutional Neural Networks", 2016, section 4.3. */
#include "core/kernels/conv_names.h"
#include "core/kernels/conv_kernels.h"
#include "core/kernels/kernel.h"
#include "core/kernels/winograd_points.h"

/* The one-dimensional transforms that are not in winograd_points.h. */

/* A^T m */
static ALWAYS_INLINE void transform_output(const vfloat m[6], vfloat y[4]) {
    vfloat sum = m[1] + m[2], difference = m[1] - m[2];
    vfloat sum_2 = m[3] + m[4], difference_2 = m[3] - m[4];
    y[0] = m[0] + sum + sum_2;
    y[1] = difference + 2.0f * difference_2;
    y[2] = sum + 4.0f * sum_2;
    y[3] = difference + 8.0f * difference_2 + m[5];
}

/* G w */
static ALWAYS_INLINE void transform_weights(const vfloat w[3], vfloat u[6]) {
    vfloat outer = (w[0] + w[2]) * (-1.0f / 6), middle = w[1] * (-1.0f / 6);
    vfloat outer_2 = w[0] * (1.0f / 24) + w[2] * (1.0f / 6), middle_2 = w[1] * (1.0f / 12);
    u[0] = w[0] * 0.25f;
    u[1] = outer + middle;
    u[2] = outer - middle;
    u[3] = outer_2 + middle_2;
    u[4] = outer_2 - middle_2;
    u[5] = w[2];
}

/* G^T u */
static ALWAYS_INLINE void transform_weights_gradient(const vfloat u[6], vfloat w[3]) {
    vfloat sum = (u[1] + u[2]) * (-1.0f / 6), sum_2 = u[3] + u[4];
    w[0] = u[0] * 0.25f + sum + sum_2 * (1.0f / 24);
    w[1] = (u[2] - u[1]) * (1.0f / 6) + (u[3] - u[4]) * (1.0f / 12);
    w[2] = sum + sum_2 * (1.0f / 6) + u[5];
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
static ALWAYS_INLINE void output_vector(const output_kind kind, const float *m, int64_t plane,
                                        vfloat bias, float *pixels, int64_t row_step,
                                        int64_t pixel_step, const conv_epilogue *epilogue,
                                        int64_t channel) {
    static const float zeros[VECTOR_FLOATS];
    vfloat half[4][6];
    int64_t line = 6 * plane; /* three lines to a pointer: the processor multiplies in the load */
    const float *upper = m, *lower = m + 3 * line;
    UNROLL
    for (int x = 0; x < 6; x++) {
        vfloat d[6], t[4];
        UNROLL
        for (int y = 0; y < 3; y++) {
            d[y] = vload(upper + y * line);
            d[y + 3] = vload(lower + y * line);
        }
        upper += plane;
        lower += plane;
        transform_output(d, t);
        UNROLL
        for (int y = 0; y < 4; y++) half[y][x] = t[y];
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
    for (int y = 0; y < 4; y++) {
        vfloat t[4];
        transform_output(half[y], t);
        UNROLL
        for (int x = 0; x < 4; x++) {
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

static ALWAYS_INLINE void gradient_vector(const float *pixels, int64_t row_step,
                                          int64_t pixel_step, float *m, int64_t plane) {
    vfloat half[6][4];
    UNROLL
    for (int x = 0; x < 4; x++) {
        vfloat d[4], t[6];
        UNROLL
        for (int y = 0; y < 4; y++) d[y] = vload(pixels + y * row_step + x * pixel_step);
        six_points_of_gradient(d, t);
        UNROLL
        for (int y = 0; y < 6; y++) half[y][x] = t[y];
    }
    UNROLL
    for (int y = 0; y < 6; y++) {
        vfloat t[6];
        six_points_of_gradient(half[y], t);
        UNROLL
        for (int x = 0; x < 6; x++) {
            vstore(m, t[x]);
            m += plane;
        }
    }
}

static ALWAYS_INLINE void weights_vector(const float *w, int64_t tap_step, float *u,
                                         int64_t plane) {
    vfloat half[6][3];
    UNROLL
    for (int x = 0; x < 3; x++) {
        vfloat d[3], t[6];
        UNROLL
        for (int y = 0; y < 3; y++) d[y] = vload(w + (y * 3 + x) * tap_step);
        transform_weights(d, t);
        UNROLL
        for (int y = 0; y < 6; y++) half[y][x] = t[y];
    }
    UNROLL
    for (int y = 0; y < 6; y++) {
        vfloat t[6];
        transform_weights(half[y], t);
        UNROLL
        for (int x = 0; x < 6; x++) {
            vstore(u, t[x]);
            u += plane;
        }
    }
}

static ALWAYS_INLINE void weights_gradient_vector(const float *du, int64_t plane, float *dw,
                                                  int64_t tap_step) {
    vfloat half[3][6];
    UNROLL
    for (int x = 0; x < 6; x++) {
        vfloat d[6], t[3];
        UNROLL
        for (int y = 0; y < 6; y++) d[y] = vload(du + (y * 6 + x) * plane);
        transform_weights_gradient(d, t);
        UNROLL
        for (int y = 0; y < 3; y++) half[y][x] = t[y];
    }
    UNROLL
    for (int y = 0; y < 3; y++) {
        vfloat t[3];
        transform_weights_gradient(half[y], t);
        UNROLL
        for (int x = 0; x < 3; x++) vstore(dw + (y * 3 + x) * tap_step, t[x]);
    }
}

void KERNEL(winograd_input)(int64_t tiles, int64_t channels, const float *pixels, int64_t row_step,
                            int64_t pixel_step, float *v, int64_t v_step, int64_t plane) {
    for (int64_t t = 0; t < tiles; t++) {
        for (int64_t c = 0; c < channels; c += VECTOR_FLOATS) {
            input_vector(pixels + c, row_step, pixel_step, v + c, plane);
        }
        pixels += 4 * pixel_step;
        v += v_step;
    }
}

void KERNEL(winograd_gradient)(int64_t tiles, int64_t channels, const float *pixels,
                               int64_t row_step, int64_t pixel_step, float *m, int64_t m_step,
                               int64_t plane) {
    for (int64_t t = 0; t < tiles; t++) {
        for (int64_t c = 0; c < channels; c += VECTOR_FLOATS) {
            gradient_vector(pixels + c, row_step, pixel_step, m + c, plane);
        }
        pixels += 4 * pixel_step;
        m += m_step;
    }
}

/* A tile that reaches beyond the image, and a rest of channels narrower than a vector, are computed
 * beside the image. */
static __attribute__((noinline)) void output_beside(
    int64_t channels, const float *m, int64_t plane, const float *bias, float *pixels,
    int64_t row_step, int64_t pixel_step, int rows, int columns, bool add,
    const conv_epilogue *epilogue, int64_t channel) {
    float tile[WINOGRAD_OUTPUTS][VECTOR_FLOATS];
    vfloat first = {0};
    if (bias) memcpy(&first, bias, (size_t)channels * sizeof(float));
    output_vector(OUTPUT_VALUE, m, plane, first, tile[0], 4 * VECTOR_FLOATS, VECTOR_FLOATS, NULL,
                  0);
    for (int y = 0; y < rows; y++) {
        float *row = pixels + y * row_step;
        if (epilogue) {
            conv_epilogue here = {epilogue->scale + channel, epilogue->shift + channel, NULL,
                                  epilogue->relu};
            if (epilogue->shortcut) here.shortcut = epilogue->shortcut + channel + y * row_step;
            KERNEL(finish)(columns, channels, tile[4 * y], VECTOR_FLOATS, &here, row, pixel_step);
            continue;
        }
        for (int x = 0; x < columns; x++) {
            float *to = row + x * pixel_step;
            const float *from = tile[4 * y + x];
            for (int64_t c = 0; c < channels; c++) to[c] = from[c] + (add ? to[c] : 0);
        }
    }
}

/* Functions of their own, so that what the others need is not made ready for every tile. */
typedef void output_function(const float *m, int64_t plane, vfloat bias, float *pixels,
                             int64_t row_step, int64_t pixel_step, const conv_epilogue *epilogue,
                             int64_t channel);

static void output_whole(const float *m, int64_t plane, vfloat bias, float *pixels,
                         int64_t row_step, int64_t pixel_step, const conv_epilogue *epilogue,
                         int64_t channel) {
    output_vector(OUTPUT_VALUE, m, plane, bias, pixels, row_step, pixel_step, epilogue, channel);
}

static void add_whole(const float *m, int64_t plane, vfloat bias, float *pixels, int64_t row_step,
                      int64_t pixel_step, const conv_epilogue *epilogue, int64_t channel) {
    output_vector(OUTPUT_SUM, m, plane, bias, pixels, row_step, pixel_step, epilogue, channel);
}

static void finish_whole(const float *m, int64_t plane, vfloat bias, float *pixels,
                         int64_t row_step, int64_t pixel_step, const conv_epilogue *epilogue,
                         int64_t channel) {
    output_vector(OUTPUT_FINISHED, m, plane, bias, pixels, row_step, pixel_step, epilogue, channel);
}

void KERNEL(winograd_output)(int64_t channels, const float *m, int64_t plane, const float *bias,
                             float *pixels, int64_t row_step, int64_t pixel_step, int rows,
                             int columns, bool add, const conv_epilogue *epilogue) {
    output_function *output = epilogue ? finish_whole : add ? add_whole : output_whole;
    for (int64_t c = 0; c < channels; c += VECTOR_FLOATS) {
        if (channels - c < VECTOR_FLOATS || rows < 4 || columns < 4) {
            int64_t some = channels - c < VECTOR_FLOATS ? channels - c : VECTOR_FLOATS;
            output_beside(some, m + c, plane, bias ? bias + c : NULL, pixels + c, row_step,
                          pixel_step, rows, columns, add, epilogue, c);
            continue;
        }
        output(m + c, plane, bias ? vload(bias + c) : (vfloat){0}, pixels + c, row_step, pixel_step,
               epilogue, c);
    }
}

void KERNEL(winograd_weights)(int64_t rows, int64_t columns, const float *w, int64_t tap_step,
                              int64_t row_step, bool rotated, float *u, int64_t plane,
                              int64_t width) {
    float block[9][VECTOR_FLOATS][VECTOR_FLOATS]; /* tap, row, column */
    for (int64_t j = 0; j < columns; j += VECTOR_FLOATS) {
        int64_t some_columns = columns - j < VECTOR_FLOATS ? columns - j : VECTOR_FLOATS;
        for (int64_t i = 0; i < rows; i += VECTOR_FLOATS) {
            int64_t some_rows = rows - i < VECTOR_FLOATS ? rows - i : VECTOR_FLOATS;
            float *to = u + i * width + j;
            if (!rotated && some_columns == VECTOR_FLOATS) {
                for (int64_t r = 0; r < some_rows; r++) {
                    weights_vector(w + (i + r) * row_step + j, tap_step, to + r * width, plane);
                }
                continue;
            }
            for (int tap = 0; tap < 9; tap++) {
                const float *from = rotated ? w + (8 - tap) * tap_step + j * row_step + i
                                            : w + tap * tap_step + i * row_step + j;
                KERNEL(pack)(some_rows, some_columns, from, row_step, rotated, block[tap][0],
                             VECTOR_FLOATS);
            }
            for (int64_t r = 0; r < some_rows; r++) {
                weights_vector(block[0][r], VECTOR_FLOATS * VECTOR_FLOATS, to + r * width, plane);
            }
        }
    }
}

void KERNEL(winograd_weights_gradient)(int64_t rows, int64_t columns, const float *du,
                                       int64_t plane, int64_t width, float *dw, int64_t tap_step,
                                       int64_t row_step) {
    for (int64_t i = 0; i < rows; i++) {
        int64_t j = 0;
        for (; j + VECTOR_FLOATS <= columns; j += VECTOR_FLOATS) {
            weights_gradient_vector(du + i * width + j, plane, dw + i * row_step + j, tap_step);
        }
        if (j == columns) continue;
        float copies[9][VECTOR_FLOATS];
        weights_gradient_vector(du + i * width + j, plane, copies[0], VECTOR_FLOATS);
        for (int tap = 0; tap < 9; tap++) {
            for (int64_t k = j; k < columns; k++) {
                dw[tap * tap_step + i * row_step + k] = copies[tap][k - j];
            }
        }
    }
}
