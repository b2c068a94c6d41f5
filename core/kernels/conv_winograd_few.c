/* conv_winograd_few.c: Winograd's product where there are few tiles and many channels, so that u
 * would be written and read again for a handful of multiplications. Here u = G w G^T is never
 * stored. Of the vectors a that G is multiplied with, two elements of G a at a time are made:
 *   1 and 2 are outer +- inner, where outer = first * a[0] + last * a[2], inner = middle * a[1];
 *   3 and 4 as well, with other factors;
 *   0 and 5 are a[0] / 4 and a[2].
 * G w of some channels is written ("half") and stays in the nearest cache; then two points at once
 * of a row of G w G^T are made in registers and multiplied at once with the v of all tiles. */
#include "core/kernels/conv_kernels.h"
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

/* Vectors of columns, and tiles whose sums at two points fit the registers beside the weights. With
 * two vectors an element of v that was loaded is used twice. */
#if VECTOR_FLOATS == 16
enum { VECTORS = 2, MOST_TILES = 6 };
#else
enum { VECTORS = 1, MOST_TILES = 5 };
#endif
enum { COLUMNS = VECTORS * VECTOR_FLOATS };

/* Floats of a row of a half. */
enum { HALF_ROW = WINOGRAD_FEW_CHANNELS * 3 * COLUMNS };

typedef struct pair_factors {
    float first, middle, last;
} pair_factors;

enum { PAIRS = 3, ENDS = 2 };
static const pair_factors factors_of[PAIRS] = {{-1.0f / 6, -1.0f / 6, -1.0f / 6},
                                               {1.0f / 24, 1.0f / 12, 1.0f / 6},
                                               {0.25f, 0, 1}};
static const int elements_of[PAIRS][2] = {{1, 2}, {3, 4}, {0, 5}};

/* Two elements of G a; with `ends` 0 and 5. */
static ALWAYS_INLINE void transform_pair(const bool ends, const vfloat factors[3], vfloat a_0,
                                         vfloat a_1, vfloat a_2, vfloat result[2]) {
    if (ends) {
        result[0] = factors[0] * a_0;
        result[1] = a_2;
    } else {
        vfloat outer = factors[0] * a_0 + factors[2] * a_2;
        result[0] = outer + factors[1] * a_1;
        result[1] = outer - factors[1] * a_1;
    }
}

static ALWAYS_INLINE void set_factors(int pair, vfloat factors[3]) {
    factors[0] = vset(factors_of[pair].first);
    factors[1] = vset(factors_of[pair].middle);
    factors[2] = vset(factors_of[pair].last);
}

/* ---- The first transform --------------------------------------------------------------------- */

/* Weights that lie as the first transform reads them. */
typedef struct plain_weights {
    const float *first;
    int64_t tap_step, row_step;
} plain_weights;

/* Copies weights that are rotated, or no whole vectors, to scratch. */
static plain_weights lay_weights(const winograd_few *call, float *copy) {
    if (!call->rotated && call->columns == COLUMNS)
        return (plain_weights){call->weights, call->tap_step, call->row_step};
    for (int tap = 0; tap < 9; tap++) {
        const float *from = call->weights + (call->rotated ? 8 - tap : tap) * call->tap_step;
        KERNEL(pack)(call->channels, call->columns, from, call->row_step, call->rotated,
                     copy + tap * WINOGRAD_FEW_CHANNELS * COLUMNS, COLUMNS);
    }
    return (plain_weights){copy, WINOGRAD_FEW_CHANNELS * COLUMNS, COLUMNS};
}

static void make_half(int64_t channels, const plain_weights *weights, float *half) {
    vfloat factors[PAIRS][3];
    for (int pair = 0; pair < PAIRS; pair++) set_factors(pair, factors[pair]);
    for (int64_t k = 0; k < channels; k++) {
        const float *row = weights->first + k * weights->row_step;
        UNROLL
        for (int x = 0; x < 3; x++) {
            UNROLL
            for (int j = 0; j < COLUMNS; j += VECTOR_FLOATS) {
                const float *w = row + x * weights->tap_step + j;
                vfloat a_0 = vload(w), a_1 = vload(w + 3 * weights->tap_step),
                       a_2 = vload(w + 6 * weights->tap_step), t[2];
                UNROLL
                for (int pair = 0; pair < PAIRS; pair++) {
                    float *to = half + 2 * pair * HALF_ROW + x * COLUMNS + j;
                    transform_pair(pair == ENDS, factors[pair], a_0, a_1, a_2, t);
                    vstore(to, t[0]);
                    vstore(to + HALF_ROW, t[1]);
                }
            }
        }
        half += 3 * COLUMNS;
    }
}

/* ---- The second transform and the product ---------------------------------------------------- */

/* Two points of one group of tiles. */
typedef struct pair_sums {
    int64_t channels;
    const float *half;
    const float *v[2];
    float *m[2];
    int64_t m_row;
    bool accumulate;
    const float *next; /* what is fetched: a line for each channel */
    int64_t next_step, next_mask;
} pair_sums;

static ALWAYS_INLINE void multiply_pair(const int tiles, const bool ends, int pair,
                                        const pair_sums *sums) {
    vfloat sum[MOST_TILES][2][VECTORS], factors[3];
    UNROLL
    for (int t = 0; t < tiles; t++) {
        UNROLL
        for (int j = 0; j < VECTORS; j++) sum[t][0][j] = sum[t][1][j] = (vfloat){0};
    }
    set_factors(pair, factors);
    const float *half = sums->half, *v_0 = sums->v[0], *v_1 = sums->v[1];
    for (int64_t k = 0; k < sums->channels; k++) {
        vfloat u[VECTORS][2];
        UNROLL
        for (int j = 0; j < VECTORS; j++) {
            const float *h = half + j * VECTOR_FLOATS;
            transform_pair(ends, factors, vload(h), ends ? (vfloat){0} : vload(h + COLUMNS),
                           vload(h + 2 * COLUMNS), u[j]);
        }
        half += 3 * COLUMNS;
        __builtin_prefetch(sums->next + (k & sums->next_mask) * sums->next_step, 0, 2);
        UNROLL
        for (int t = 0; t < tiles; t++) {
            vfloat element_0 = vset(v_0[t * WINOGRAD_ROW]), element_1 = vset(v_1[t * WINOGRAD_ROW]);
            UNROLL
            for (int j = 0; j < VECTORS; j++) {
                sum[t][0][j] += element_0 * u[j][0];
                sum[t][1][j] += element_1 * u[j][1];
            }
        }
        v_0++;
        v_1++;
    }
    float *m_0 = sums->m[0], *m_1 = sums->m[1];
    UNROLL
    for (int t = 0; t < tiles; t++) {
        UNROLL
        for (int j = 0; j < VECTORS; j++) {
            if (sums->accumulate) {
                sum[t][0][j] += vload(m_0 + j * VECTOR_FLOATS);
                sum[t][1][j] += vload(m_1 + j * VECTOR_FLOATS);
            }
            vstore(m_0 + j * VECTOR_FLOATS, sum[t][0][j]);
            vstore(m_1 + j * VECTOR_FLOATS, sum[t][1][j]);
        }
        m_0 += sums->m_row;
        m_1 += sums->m_row;
    }
}

#define TILES_CASE(n)                         \
    case n:                                   \
        multiply_pair(n, ends, pair, sums);   \
        break;

static ALWAYS_INLINE void multiply_tiles(int tiles, const bool ends, int pair,
                                         const pair_sums *sums) {
    switch (tiles) {
        TILES_CASE(1) TILES_CASE(2) TILES_CASE(3) TILES_CASE(4) TILES_CASE(5)
#if VECTOR_FLOATS == 16
        TILES_CASE(6)
#endif
    }
}

static void multiply_inner(int tiles, int pair, const pair_sums *sums) {
    multiply_tiles(tiles, false, pair, sums);
}
static void multiply_ends(int tiles, const pair_sums *sums) {
    multiply_tiles(tiles, true, ENDS, sums);
}

/* All tiles at two points. */
static void multiply_groups(const winograd_few *call, int pair, pair_sums *sums) {
    int64_t groups = (call->tiles + MOST_TILES - 1) / MOST_TILES;
    for (int64_t group = 0; group < groups; group++) {
        int count = (int)(call->tiles * (group + 1) / groups - call->tiles * group / groups);
        if (pair == ENDS) multiply_ends(count, sums);
        else multiply_inner(count, pair, sums);
        for (int i = 0; i < 2; i++) {
            sums->v[i] += count * WINOGRAD_ROW;
            sums->m[i] += count * call->m_row;
        }
    }
}

void KERNEL(winograd_few)(const winograd_few *call, float *scratch) {
    float *half = scratch + 9 * WINOGRAD_FEW_CHANNELS * COLUMNS;
    plain_weights weights = lay_weights(call, scratch);
    make_half(call->channels, &weights, half);
    /* Two parts for each tap: so many lines of its weights are fetched for each channel. */
    for (int part = 0; part < 6 * PAIRS; part++) {
        int i = part / PAIRS, pair = part % PAIRS, row = 6 * elements_of[i / 2][i % 2];
        int first = row + elements_of[pair][0], second = row + elements_of[pair][1];
        pair_sums sums = {
            .channels = call->channels, .half = half + i * HALF_ROW,
            .v = {call->v + first * call->v_plane, call->v + second * call->v_plane},
            .m = {call->m + first * call->m_plane, call->m + second * call->m_plane},
            .m_row = call->m_row, .accumulate = call->accumulate,
            .next = call->next + part / 2 * call->tap_step + part % 2 * WINOGRAD_LINE,
            .next_step = call->row_step,
            .next_mask = call->rotated ? COLUMNS - 1 : INT64_MAX};
        multiply_groups(call, pair, &sums);
    }
}
