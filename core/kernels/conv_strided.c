/* conv_strided.c: the transforms of Winograd's F(4x4, 2x2) for 3x3 convolutions with stride 2, by
 * the phases of the image (core/ops/conv_strided.h). The points are 0, 1, -1, 2 and infinity (Lavin
 * and Gray, 2016; the matrices by Cook and Toom's construction, as in Blahut, Fast Algorithms for
 * Signal Processing, 2010, chapter 5).
 *
 * In one direction there are two phases: that with two taps and five points, and that with one tap,
 * whose value at infinity is zero. All functions take vectors at places from `from` to places from
 * `to`, and `whole` says which phase is meant. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

enum { LINE = STRIDED_LINE, POINTS = STRIDED_POINTS };

/* ---- Transforms in one direction ------------------------------------------------------------- */

/* B^T d: the row of a point p has the coefficients of M(x) / (x - p), where M(x) =
 * x (x^2 - 1) (x - 2), and that of infinity those of M. */
static void transform_source(bool whole, const float *from, const int64_t *from_at, float *to,
                             const int64_t *to_at) {
    vfloat d[4];
    UNROLL
    for (int i = 0; i < 4; i++) d[i] = vload(from + from_at[i]);
    vfloat e = d[3] - d[1];
    vstore(to + to_at[0], 2.0f * (d[0] - d[2]) + e);
    vstore(to + to_at[1], e - (d[1] + d[2]));
    vstore(to + to_at[2], 3.0f * (d[1] - d[2]) + e);
    vstore(to + to_at[3], e);
    if (whole) vstore(to + to_at[4], (vload(from + from_at[4]) - d[2]) - 2.0f * e);
}

/* A^T m */
static void transform_result(bool whole, const float *from, const int64_t *from_at, float *to,
                             const int64_t *to_at) {
    vfloat m[POINTS];
    UNROLL
    for (int i = 0; i < 4; i++) m[i] = vload(from + from_at[i]);
    m[4] = whole ? vload(from + from_at[4]) : (vfloat){0};
    vfloat sum = m[1] + m[2], difference = m[1] - m[2];
    vstore(to + to_at[0], m[0] + sum + m[3]);
    vstore(to + to_at[1], difference + 2.0f * m[3]);
    vstore(to + to_at[2], sum + 4.0f * m[3]);
    vstore(to + to_at[3], difference + 8.0f * m[3] + m[4]);
}

/* A y */
static void transform_gradient(bool whole, const float *from, const int64_t *from_at, float *to,
                               const int64_t *to_at) {
    vfloat y[4];
    (void)whole;
    UNROLL
    for (int i = 0; i < 4; i++) y[i] = vload(from + from_at[i]);
    vfloat even = y[0] + y[2], odd = y[1] + y[3];
    vstore(to + to_at[0], y[0]);
    vstore(to + to_at[1], even + odd);
    vstore(to + to_at[2], even - odd);
    vstore(to + to_at[3], (y[0] + 4.0f * y[2]) + 2.0f * (y[1] + 4.0f * y[3]));
    vstore(to + to_at[4], y[3]);
}

/* G w: the row of a point p is 1, p divided by the product of its distances from the others. */
static void transform_weights(bool whole, const float *from, const int64_t *from_at, float *to,
                              const int64_t *to_at) {
    vfloat first = vload(from + from_at[0]);
    vfloat second = whole ? vload(from + from_at[1]) : (vfloat){0};
    vstore(to + to_at[0], 0.5f * first);
    vstore(to + to_at[1], -0.5f * (first + second));
    vstore(to + to_at[2], (1.0f / 6) * (second - first));
    vstore(to + to_at[3], (1.0f / 6) * first + (1.0f / 3) * second);
    if (whole) vstore(to + to_at[4], second);
}

/* G^T u */
static void transform_sums(bool whole, const float *from, const int64_t *from_at, float *to,
                           const int64_t *to_at) {
    vfloat u[4];
    UNROLL
    for (int i = 0; i < 4; i++) u[i] = vload(from + from_at[i]);
    vstore(to + to_at[0], 0.5f * (u[0] - u[1]) + (1.0f / 6) * (u[3] - u[2]));
    if (!whole) return;
    vfloat rest = (1.0f / 6) * u[2] + (1.0f / 3) * u[3];
    vstore(to + to_at[1], (vload(from + from_at[4]) - 0.5f * u[1]) + rest);
}

/* ---- And in two ------------------------------------------------------------------------------ */

/* How many values and results there are of the phase with two taps, and of the other. */
typedef struct kind {
    void (*phase)(bool whole, const float *from, const int64_t *from_at, float *to,
                  const int64_t *to_at);
    int values, other_values, results, other_results;
} kind;

static const kind kinds[] = {
    [STRIDED_PIXELS] = {transform_source, 5, 4, 5, 4},
    [STRIDED_PLAIN_PIXELS] = {transform_source, 5, 0, 5, 0},
    [STRIDED_GRADIENT] = {transform_gradient, 4, 0, 5, 0},
    [STRIDED_WEIGHTS] = {transform_weights, 2, 1, 5, 4},
    [STRIDED_RESULTS] = {transform_result, 5, 4, 4, 4},
    [STRIDED_PLAIN_RESULTS] = {transform_result, 5, 0, 4, 0},
    [STRIDED_SUMS] = {transform_sums, 5, 4, 2, 1},
};

static void transform_line(const kind *k, const float *from, const int64_t *from_at, float *to,
                           const int64_t *to_at) {
    k->phase(true, from, from_at, to, to_at);
    if (k->other_values > 0) k->phase(false, from, from_at + k->values, to, to_at + k->results);
}

enum { V = VECTOR_FLOATS, ROW = LINE * V };
static const strided_places beside = {{0, ROW, 2 * ROW, 3 * ROW, 4 * ROW, 5 * ROW, 6 * ROW,
                                       7 * ROW, 8 * ROW},
                                      {0, V, 2 * V, 3 * V, 4 * V, 5 * V, 6 * V, 7 * V, 8 * V}};

/* A vector of channels: columns into `half`, then rows of it. */
static void transform(const kind *k, const float *from, const strided_places *from_at, float *to,
                      const strided_places *to_at) {
    float half[LINE * ROW];
    for (int x = 0; x < k->values + k->other_values; x++)
        transform_line(k, from + from_at->column[x], from_at->row, half + x * V, beside.row);
    for (int y = 0; y < k->results + k->other_results; y++)
        transform_line(k, half + y * ROW, beside.column, to + to_at->row[y], to_at->column);
}

void KERNEL(strided_transform)(strided_kind name, int64_t channels, const float *from,
                               const strided_places *from_at, float *to,
                               const strided_places *to_at) {
    for (int64_t c = 0; c < channels; c += VECTOR_FLOATS)
        transform(&kinds[name], from + c, from_at, to + c, to_at);
}

/* Some channels of one result; a function of its own, or it would be compiled for every case. */
static __attribute__((noinline)) void write_result(vfloat value, float *to, int channels,
                                                   bool add) {
    vfloat old = {0};
    size_t size = (size_t)channels * sizeof(float);
    if (channels == V) {
        vstore(to, add ? value + vload(to) : value);
        return;
    }
    if (add) memcpy(&old, to, size);
    value += old;
    memcpy(to, &value, size);
}

void KERNEL(strided_result)(strided_kind name, int64_t channels, const float *from,
                            const strided_places *from_at, const float *bias, bool add, float *to,
                            const strided_places *to_at) {
    const kind *k = &kinds[name];
    int results = k->results + k->other_results;
    for (int64_t c = 0; c < channels; c += V) {
        float tile[LINE * ROW];
        int some = channels - c < V ? (int)(channels - c) : V;
        vfloat first = {0};
        transform(k, from + c, from_at, tile, &beside);
        if (bias) memcpy(&first, bias + c, (size_t)some * sizeof(float));
        for (int i = 0; i < results * results; i++) {
            int64_t row = to_at->row[i / results], column = to_at->column[i % results];
            if (row == STRIDED_NOWHERE || column == STRIDED_NOWHERE) continue;
            const float *value = tile + beside.row[i / results] + beside.column[i % results];
            write_result(vload(value) + first, to + (row + column + c), some, add);
        }
    }
}
