/* conv_phases.c: the transforms of Winograd's F(4x4, 4x4), with the points 0, 1, -1, 2, -2, 1/2 and
 * infinity (Lavin and Gray, 2016; the matrices by Cook and Toom's construction, as in Blahut, Fast
 * Algorithms for Signal Processing, 2010, chapter 5): seven values of a source and four of the
 * weights make seven products, from which four values of the result follow.
 *
 * But for the weights each function is one direction of a transform, for vectors of channels. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"
#include "core/kernels/winograd_points.h"

enum { POINTS = PHASES_POINTS, OUTPUTS = PHASES_OUTPUTS };

/* B^T d. With M(x) = x (x^2 - 1) (x^2 - 4), the row of a point p but 1/2 and infinity has the
 * coefficients of M(x) / (x - p) times x - 1/2; that of 1/2 those of M; and that of infinity those
 * of M(x) (x - 1/2). */
static ALWAYS_INLINE void transform_source(const vfloat d[POINTS], vfloat t[POINTS]) {
    vfloat e[POINTS - 1];
    UNROLL
    for (int i = 0; i + 1 < POINTS; i++) e[i] = d[i + 1] - 0.5f * d[i];
    vfloat six[6];
    six_points_of_source(e, six);
    UNROLL
    for (int i = 0; i < 5; i++) t[i] = six[i];
    t[5] = 4.0f * d[1] + (d[5] - 5.0f * d[3]);
    t[6] = six[5];
}

/* A^T m */
static ALWAYS_INLINE void transform_result(const vfloat m[POINTS], vfloat y[OUTPUTS]) {
    vfloat sum = m[1] + m[2], difference = m[1] - m[2];
    vfloat sum_2 = m[3] + m[4], difference_2 = m[3] - m[4];
    y[0] = m[0] + sum + (sum_2 + m[5]);
    y[1] = difference + 2.0f * difference_2 + 0.5f * m[5];
    y[2] = sum + 4.0f * sum_2 + 0.25f * m[5];
    y[3] = difference + 8.0f * difference_2 + (0.125f * m[5] + m[6]);
}

/* A y */
static ALWAYS_INLINE void transform_gradient(const vfloat y[OUTPUTS], vfloat m[POINTS]) {
    six_points_of_gradient(y, m);
    m[5] = y[0] + 0.5f * y[1] + (0.25f * y[2] + 0.125f * y[3]);
    m[6] = y[3];
}

/* G: the row of a point p is 1, p, p^2, p^3 divided by the product of its distances from the other
 * points. */
static const float weights_matrix[POINTS][OUTPUTS] = {
    {-1.0f / 2, 0, 0, 0},
    {-1.0f / 3, -1.0f / 3, -1.0f / 3, -1.0f / 3},
    {1.0f / 9, -1.0f / 9, 1.0f / 9, -1.0f / 9},
    {1.0f / 36, 1.0f / 18, 1.0f / 9, 2.0f / 9},
    {-1.0f / 60, 1.0f / 30, -1.0f / 15, 2.0f / 15},
    {32.0f / 45, 16.0f / 45, 8.0f / 45, 4.0f / 45},
    {0, 0, 0, 1}};

typedef void transform(const vfloat *from, vfloat *to);

/* One transform of some vectors of each item. */
static ALWAYS_INLINE void transform_items(const int values, const int results, transform *function,
                                          int64_t items, int64_t channels, const float *from,
                                          phases_steps from_steps, float *to,
                                          phases_steps to_steps) {
    for (int64_t i = 0; i < items; i++) {
        for (int64_t c = 0; c < channels; c += VECTOR_FLOATS) {
            vfloat value[POINTS], result[POINTS];
            UNROLL
            for (int p = 0; p < values; p++) value[p] = vload(from + c + p * from_steps.value);
            function(value, result);
            UNROLL
            for (int p = 0; p < results; p++) vstore(to + c + p * to_steps.value, result[p]);
        }
        from += from_steps.item;
        to += to_steps.item;
    }
}

void KERNEL(phases_source)(int64_t items, int64_t channels, const float *from,
                           phases_steps from_steps, float *to, phases_steps to_steps) {
    transform_items(POINTS, POINTS, transform_source, items, channels, from, from_steps, to,
                    to_steps);
}

void KERNEL(phases_gradient)(int64_t items, int64_t channels, const float *from,
                             phases_steps from_steps, float *to, phases_steps to_steps) {
    transform_items(OUTPUTS, POINTS, transform_gradient, items, channels, from, from_steps, to,
                    to_steps);
}

/* ---- Products, of some tiles at a time ------------------------------------------------------- */

enum { TILES = PHASES_TILES };

/* The sums of some tiles at one point. The number of vectors is a constant at every call, so that
 * the sums stay in registers. Rows of v are addressed three to a pointer, as in product.c. */
static ALWAYS_INLINE void multiply_tiles(const int vectors, int64_t lanes, const float *v,
                                         int64_t depth, const float *u,
                                         vfloat sum[TILES][2]) {
    const float *rows[(TILES + 2) / 3];
    UNROLL
    for (int t = 0; t < TILES; t++) {
        UNROLL
        for (int j = 0; j < vectors; j++) sum[t][j] = (vfloat){0};
    }
    UNROLL
    for (int t = 0; t < (TILES + 2) / 3; t++) rows[t] = v + 3 * t * depth;
    for (int64_t k = 0; k < lanes; k++) {
        vfloat weights[2];
        UNROLL
        for (int j = 0; j < vectors; j++) weights[j] = vload(u + j * VECTOR_FLOATS);
        u += vectors * VECTOR_FLOATS;
        UNROLL
        for (int t = 0; t < TILES; t++) {
            vfloat element = vset(rows[t / 3][t % 3 * depth]);
            UNROLL
            for (int j = 0; j < vectors; j++) sum[t][j] += element * weights[j];
        }
        UNROLL
        for (int t = 0; t < (TILES + 2) / 3; t++) rows[t]++;
    }
}

static ALWAYS_INLINE void multiply_row(const int vectors, int64_t lanes, const float *v,
                                       phases_steps v_steps, const float *u, float *half) {
    const int width = vectors * VECTOR_FLOATS, plane = TILES * width;
    float m[POINTS * TILES * 2 * VECTOR_FLOATS];
    for (int p = 0; p < POINTS; p++) {
        vfloat sum[TILES][2];
        multiply_tiles(vectors, lanes, v + p * v_steps.value, v_steps.item, u + p * lanes * width,
                       sum);
        UNROLL
        for (int t = 0; t < TILES; t++) {
            UNROLL
            for (int j = 0; j < vectors; j++)
                vstore(m + p * plane + t * width + j * VECTOR_FLOATS, sum[t][j]);
        }
    }
    transform_items(POINTS, OUTPUTS, transform_result, 1, plane, m, (phases_steps){plane, 0},
                    half, (phases_steps){plane, 0});
}

void KERNEL(phases_row)(int columns, int64_t lanes, const float *v, phases_steps v_steps,
                        const float *u, float *half) {
    if (columns == VECTOR_FLOATS) multiply_row(1, lanes, v, v_steps, u, half);
    else multiply_row(2, lanes, v, v_steps, u, half);
}

/* ---- The last transform of the result, and what becomes of it -------------------------------- */

/* A vector of channels of one column of a tile: what is added and multiplied, and where it goes. */
typedef struct column {
    vfloat bias, scale, shift, floor;
    const float *shortcut;
    int64_t shortcut_row;
    float *to;
    int64_t row;
} column;

static ALWAYS_INLINE void finish_column(const float *from, int64_t step, int rows,
                                        const column *c) {
    vfloat value[POINTS], y[OUTPUTS];
    UNROLL
    for (int p = 0; p < POINTS; p++) value[p] = vload(from + p * step);
    transform_result(value, y);
    UNROLL
    for (int r = 0; r < OUTPUTS; r++) {
        if (r >= rows) return;
        vfloat finished = (y[r] + c->bias) * c->scale + c->shift;
        if (c->shortcut) finished += vload(c->shortcut + r * c->shortcut_row);
        vstore(c->to + r * c->row, not_below(c->floor, finished));
    }
}

/* Fewer channels than a vector: computed beside the result. */
static void finish_rest(int channels, const float *from, int64_t step, int rows, column c) {
    float result[OUTPUTS][VECTOR_FLOATS], shortcut[OUTPUTS][VECTOR_FLOATS] = {{0}};
    size_t size = (size_t)channels * sizeof(float);
    column beside = c;
    for (int r = 0; c.shortcut && r < rows; r++)
        memcpy(shortcut[r], c.shortcut + r * c.shortcut_row, size);
    beside.shortcut = shortcut[0];
    beside.to = result[0];
    beside.shortcut_row = beside.row = VECTOR_FLOATS;
    finish_column(from, step, rows, &beside);
    for (int r = 0; r < rows; r++) memcpy(c.to + r * c.row, result[r], size);
}

static ALWAYS_INLINE vfloat load_some(const float *from, int64_t first, int count,
                                      vfloat otherwise) {
    if (!from) return otherwise;
    if (count == VECTOR_FLOATS) return vload(from + first);
    memcpy(&otherwise, from + first, (size_t)count * sizeof(float));
    return otherwise;
}

void KERNEL(phases_finish)(int64_t channels, const float *from, phases_steps from_steps,
                           const float *bias, const conv_epilogue *epilogue, float *to,
                           int64_t row_step, int64_t pixel_step, int rows, int columns) {
    static const conv_epilogue none;
    const conv_epilogue *e = epilogue ? epilogue : &none;
    for (int64_t c = 0; c < channels; c += VECTOR_FLOATS) {
        int count = channels - c < VECTOR_FLOATS ? (int)(channels - c) : VECTOR_FLOATS;
        column here = {.bias = load_some(bias, c, count, (vfloat){0}),
                       .scale = load_some(e->scale, c, count, vset(1)),
                       .shift = load_some(e->shift, c, count, (vfloat){0}),
                       .floor = vset(e->relu ? 0 : -__builtin_inff()),
                       .row = row_step, .shortcut_row = row_step};
        for (int x = 0; x < columns; x++) {
            const float *value = from + c + x * from_steps.item;
            here.to = to + c + x * pixel_step;
            here.shortcut = e->shortcut ? e->shortcut + c + x * pixel_step : NULL;
            if (count < VECTOR_FLOATS) finish_rest(count, value, from_steps.value, rows, here);
            else finish_column(value, from_steps.value, rows, &here);
        }
    }
}

/* ---- Weights: seldom, so that short loops with the matrix do --------------------------------- */

/* to = L from L^T with `results` x `values` elements of L, of one vector. */
static ALWAYS_INLINE void transform_both_ways(const int values, const int results,
                                              const float *matrix, int64_t row, int64_t column_step,
                                              const float *from, int64_t from_step, float *to,
                                              int64_t to_step) {
    vfloat half[POINTS][POINTS];
    for (int r = 0; r < results; r++) {
        for (int x = 0; x < values; x++) {
            vfloat sum = {0};
            for (int y = 0; y < values; y++) {
                vfloat value = vload(from + (y * values + x) * from_step);
                sum += matrix[r * row + y * column_step] * value;
            }
            half[r][x] = sum;
        }
    }
    for (int r = 0; r < results; r++) {
        for (int s = 0; s < results; s++) {
            vfloat sum = {0};
            for (int x = 0; x < values; x++)
                sum += matrix[s * row + x * column_step] * half[r][x];
            vstore(to + (r * results + s) * to_step, sum);
        }
    }
}

void KERNEL(phases_weights)(int64_t channels, const float *w, int64_t tap_step, float *u,
                            int64_t plane) {
    for (int64_t c = 0; c < channels; c += VECTOR_FLOATS)
        transform_both_ways(OUTPUTS, POINTS, weights_matrix[0], OUTPUTS, 1, w + c, tap_step, u + c,
                            plane);
}

void KERNEL(phases_weights_gradient)(int64_t channels, const float *du, int64_t plane, float *dw,
                                     int64_t tap_step) {
    for (int64_t c = 0; c < channels; c += VECTOR_FLOATS)
        transform_both_ways(POINTS, OUTPUTS, weights_matrix[0], 1, OUTPUTS, du + c, plane, dw + c,
                            tap_step);
}
