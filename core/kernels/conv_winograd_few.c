/* conv_winograd_few.c: Winograd's product where there are few tiles and many channels, so that u
 * would be written and read again for a handful of multiplications. Here u = G w G^T is never
 * stored.
 *
 * A row of G evaluates a polynomial with the coefficients a at a point, times a factor:
 *   points 0 and infinity:  a[0], a[2];   1 and -1:  (a[0] + a[2]) +- a[1];
 *   2 and -2:  (a[0] + 4 a[2]) +- 2 a[1]
 * (Lavin and Gray, 2016, section 4.3). The factors wait until the sums over channels are done, so
 * that hardly anything but additions is left, for which processors have units of their own. Points
 * go in such pairs: the two rows of G w that belong to a pair are made of some channels and stay in
 * the nearest cache; then two points of a row of G w G^T at a time are made in registers and
 * multiplied at once with the v of all tiles. */
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

/* Floats of a tap of the weights. */
enum { TAP = WINOGRAD_FEW_CHANNELS * COLUMNS };

typedef enum point_pair { ENDS, ONES, TWOS, PAIRS } point_pair;
static const int points_of[PAIRS][2] = {{0, 5}, {1, 2}, {3, 4}};
static const float factor_of[6] = {0.25f, -1.0f / 6, -1.0f / 6, 1.0f / 24, 1.0f / 24, 1};

/* The values at a pair of points, without factors. */
static ALWAYS_INLINE void evaluate(const point_pair pair, vfloat a_0, vfloat a_1, vfloat a_2,
                                   vfloat value[2]) {
    if (pair == ENDS) {
        value[0] = a_0;
        value[1] = a_2;
        return;
    }
    vfloat outer = pair == ONES ? a_0 + a_2 : a_0 + 4.0f * a_2;
    vfloat inner = pair == ONES ? a_1 : a_1 + a_1;
    value[0] = outer + inner;
    value[1] = outer - inner;
}

/* ---- The first transform --------------------------------------------------------------------- */

/* The weights as they are read here: taps, channels, columns. */
static const float *lay_weights(const winograd_few *call, float *copy) {
    if (call->laid) return call->weights;
    for (int tap = 0; tap < 9; tap++) {
        const float *from = call->weights + (call->rotated ? 8 - tap : tap) * call->tap_step;
        KERNEL(pack)(call->channels, call->columns, from, call->row_step, call->rotated,
                     copy + tap * TAP, COLUMNS);
    }
    return copy;
}

/* Two rows of G w: three taps each. */
static ALWAYS_INLINE void evaluate_rows(const point_pair pair, int64_t channels,
                                        const float *weights, float *rows) {
    for (int x = 0; x < 3; x++) {
        const float *w = weights + x * TAP;
        float *to = rows + x * TAP;
        for (int64_t j = 0; j < channels * COLUMNS; j += VECTOR_FLOATS) {
            vfloat value[2];
            evaluate(pair, vload(w + j), vload(w + j + 3 * TAP), vload(w + j + 6 * TAP), value);
            vstore(to + j, value[0]);
            vstore(to + j + 3 * TAP, value[1]);
        }
    }
}

/* ---- The second transform and the product ---------------------------------------------------- */

/* Two points of one group of tiles. */
typedef struct pair_sums {
    int64_t channels;
    const float *row; /* of G w */
    const float *v[2];
    float *m[2];
    float factor[2];
    int64_t m_row;
    bool accumulate;
    const float *next; /* what is fetched: a line for each channel */
    int64_t next_step;
} pair_sums;

static ALWAYS_INLINE void multiply_pair(const int tiles, const point_pair pair,
                                        const pair_sums *sums) {
    vfloat sum[MOST_TILES][2][VECTORS];
    UNROLL
    for (int t = 0; t < tiles; t++) {
        UNROLL
        for (int j = 0; j < VECTORS; j++) sum[t][0][j] = sum[t][1][j] = (vfloat){0};
    }
    const float *row = sums->row, *v_0 = sums->v[0], *v_1 = sums->v[1], *next = sums->next;
    for (int64_t k = 0; k < sums->channels; k++) {
        vfloat u[VECTORS][2];
        UNROLL
        for (int j = 0; j < VECTORS; j++) {
            const float *w = row + j * VECTOR_FLOATS;
            evaluate(pair, vload(w), pair == ENDS ? (vfloat){0} : vload(w + TAP),
                     vload(w + 2 * TAP), u[j]);
        }
        row += COLUMNS;
        __builtin_prefetch(next, 0, 2);
        next += sums->next_step;
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
    vfloat factor_0 = vset(sums->factor[0]), factor_1 = vset(sums->factor[1]);
    float *m_0 = sums->m[0], *m_1 = sums->m[1];
    UNROLL
    for (int t = 0; t < tiles; t++) {
        UNROLL
        for (int j = 0; j < VECTORS; j++) {
            vfloat before_0 = {0}, before_1 = {0};
            if (sums->accumulate) {
                before_0 = vload(m_0 + j * VECTOR_FLOATS);
                before_1 = vload(m_1 + j * VECTOR_FLOATS);
            }
            vstore(m_0 + j * VECTOR_FLOATS, sum[t][0][j] * factor_0 + before_0);
            vstore(m_1 + j * VECTOR_FLOATS, sum[t][1][j] * factor_1 + before_1);
        }
        m_0 += sums->m_row;
        m_1 += sums->m_row;
    }
}

#define TILES_CASE(n)                   \
    case n:                             \
        multiply_pair(n, pair, sums);   \
        break;

static ALWAYS_INLINE void multiply_tiles(int tiles, const point_pair pair, const pair_sums *sums) {
    switch (tiles) {
        TILES_CASE(1) TILES_CASE(2) TILES_CASE(3) TILES_CASE(4) TILES_CASE(5)
#if VECTOR_FLOATS == 16
        TILES_CASE(6)
#endif
    }
}

static void multiply_ends(int tiles, const pair_sums *sums) { multiply_tiles(tiles, ENDS, sums); }
static void multiply_ones(int tiles, const pair_sums *sums) { multiply_tiles(tiles, ONES, sums); }
static void multiply_twos(int tiles, const pair_sums *sums) { multiply_tiles(tiles, TWOS, sums); }

/* All tiles at two points. */
static void multiply_groups(const winograd_few *call, point_pair pair, pair_sums *sums) {
    int64_t groups = (call->tiles + MOST_TILES - 1) / MOST_TILES;
    for (int64_t group = 0; group < groups; group++) {
        int count = (int)(call->tiles * (group + 1) / groups - call->tiles * group / groups);
        if (pair == ENDS) multiply_ends(count, sums);
        else if (pair == ONES) multiply_ones(count, sums);
        else multiply_twos(count, sums);
        for (int i = 0; i < 2; i++) {
            sums->v[i] += count * WINOGRAD_ROW;
            sums->m[i] += count * call->m_row;
        }
    }
}

/* The points of one row of G w G^T, of which there are `before` others. */
static void multiply_row(const winograd_few *call, int point, const float *row, int before) {
    for (int pair = 0; pair < PAIRS; pair++) {
        /* Two parts for each tap: so many lines of its weights are fetched for each channel. */
        int part = PAIRS * before + pair;
        int64_t half = call->rotated ? COLUMNS / 2 * call->row_step : WINOGRAD_LINE;
        pair_sums sums = {.channels = call->channels, .row = row, .m_row = call->m_row,
                          .accumulate = call->accumulate,
                          .next = call->next + part / 2 * call->tap_step + part % 2 * half,
                          .next_step = call->row_step};
        for (int i = 0; i < 2; i++) {
            int other = points_of[pair][i], place = 6 * point + other;
            sums.v[i] = call->v + place * call->v_plane;
            sums.m[i] = call->m + place * call->m_plane;
            sums.factor[i] = factor_of[point] * factor_of[other];
        }
        multiply_groups(call, pair, &sums);
    }
}

void KERNEL(winograd_few)(const winograd_few *call, float *scratch) {
    const float *weights = lay_weights(call, scratch), *row[2] = {weights, weights + 6 * TAP};
    float *made = scratch + 9 * TAP;
    for (int pair = 0; pair < PAIRS; pair++) {
        if (pair == ONES) evaluate_rows(ONES, call->channels, weights, made);
        if (pair == TWOS) evaluate_rows(TWOS, call->channels, weights, made);
        if (pair != ENDS) row[0] = made, row[1] = made + 3 * TAP;
        for (int i = 0; i < 2; i++) multiply_row(call, points_of[pair][i], row[i], 2 * pair + i);
    }
}
