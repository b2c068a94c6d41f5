/* conv_winograd_few.c: Winograd's product where there are few tiles and many channels, so that u
 * would be written and read again for a handful of multiplications. Here u = G w G^T is never
 * stored.
 *
 * A row of G evaluates a polynomial with the coefficients a at a point, times a factor:
 *   points 0 and infinity:  a[0], a[2];   1 and -1:  (a[0] + a[2]) +- a[1];
 *   2 and -2:  (a[0] + 4 a[2]) +- 2 a[1]
 * (Lavin and Gray, 2016, section 4.3). The factors wait until all sums over channels are done, so
 * that only additions are left, for which processors have units of their own. Points go in such
 * pairs: the two rows of G w that belong to a pair are made of some channels and stay in a near
 * cache; then three points of a row of G w G^T at a time, one of the ends and a pair, are made in
 * registers and multiplied at once with the v of some tiles. */
#include "core/kernels/conv_kernels.h"
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

/* Vectors of columns: with two, an element of v that was loaded is used twice. */
#if VECTOR_FLOATS == 16
enum { VECTORS = 2 };
#else
enum { VECTORS = 1 };
#endif
enum { COLUMNS = VECTORS * VECTOR_FLOATS };

/* Floats of a tap of the weights. */
enum { TAP = WINOGRAD_FEW_CHANNELS * COLUMNS };

typedef enum point_pair { ENDS, ONES, TWOS, PAIRS } point_pair;
enum { LAST = 5 };
static const int points_of[PAIRS][2] = {{0, LAST}, {1, 2}, {3, 4}};
static const float factor_of[6] = {0.25f, -1.0f / 6, -1.0f / 6, 1.0f / 24, 1.0f / 24, 1};

/* The values at the pair ONES or TWOS, without factors. */
static ALWAYS_INLINE void evaluate(const point_pair pair, vfloat a_0, vfloat a_1, vfloat a_2,
                                   vfloat value[2]) {
    if (pair == TWOS) {
        a_1 += a_1;
        a_2 += a_2;
        a_2 += a_2;
    }
    vfloat outer = a_0 + a_2;
    value[0] = outer + a_1;
    value[1] = outer - a_1;
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

/* Three points of some tiles: one of the ends and a pair. */
enum { POINTS = 3, BLOCK_TILES = 4 };
typedef struct point_sums {
    int64_t channels;
    const float *row; /* of G w */
    const float *v[POINTS];
    float *m[POINTS]; /* = the sums and what there was before */
    const float *before[POINTS];
    const float *next; /* what is fetched: two lines for each channel */
    int64_t next_step;
} point_sums;

/* The sums of `tiles` tiles at the pair of points and of the first `ends` of them at the end:
 * constants at every call, so that the sums stay in registers. The end is infinity beside the pair
 * TWOS, and 0 beside ONES. */
static ALWAYS_INLINE void multiply_points(const int tiles, const int ends, const point_pair pair,
                                          const point_sums *sums, const int64_t *v_row,
                                          const int64_t *m_row) {
    vfloat sum[POINTS][BLOCK_TILES][VECTORS];
    const float *row = sums->row, *v[POINTS], *next = sums->next;
    UNROLL
    for (int i = 0; i < POINTS; i++) {
        v[i] = sums->v[i];
        UNROLL
        for (int t = 0; t < tiles; t++) {
            UNROLL
            for (int j = 0; j < VECTORS; j++) sum[i][t][j] = (vfloat){0};
        }
    }
    for (int64_t k = 0; k < sums->channels; k++) {
        vfloat u[POINTS][VECTORS];
        UNROLL
        for (int j = 0; j < VECTORS; j++) {
            const float *w = row + j * VECTOR_FLOATS;
            vfloat a_0 = vload(w), a_2 = vload(w + 2 * TAP), value[2];
            evaluate(pair, a_0, vload(w + TAP), a_2, value);
            u[0][j] = pair == ONES ? a_0 : a_2;
            u[1][j] = value[0];
            u[2][j] = value[1];
        }
        row += COLUMNS;
        __builtin_prefetch(next);
        __builtin_prefetch(next + WINOGRAD_LINE);
        next += sums->next_step;
        UNROLL
        for (int t = 0; t < tiles; t++) {
            UNROLL
            for (int i = t < ends ? 0 : 1; i < POINTS; i++) {
                vfloat element = vset(v[i][v_row[t]]);
                UNROLL
                for (int j = 0; j < VECTORS; j++) sum[i][t][j] += element * u[i][j];
            }
        }
        UNROLL
        for (int i = 0; i < POINTS; i++) v[i]++;
    }
    /* All addresses before the first store, which could change them for all that C knows. */
    const float *before[POINTS] = {sums->before[0], sums->before[1], sums->before[2]};
    float *m[POINTS] = {sums->m[0], sums->m[1], sums->m[2]};
    int64_t at[BLOCK_TILES];
    UNROLL
    for (int t = 0; t < tiles; t++) at[t] = m_row[t];
    UNROLL
    for (int i = 0; i < POINTS; i++) {
        UNROLL
        for (int t = 0; t < tiles; t++) {
            if (i == 0 && t >= ends) continue;
            UNROLL
            for (int j = 0; j < COLUMNS; j += VECTOR_FLOATS) {
                vfloat old = vload(before[i] + at[t] + j);
                vstore(m[i] + at[t] + j, old + sum[i][t][j / VECTOR_FLOATS]);
            }
        }
    }
}

static void multiply_ones(int tiles, const point_sums *sums, const int64_t *v_row,
                          const int64_t *m_row) {
    if (tiles > 2) multiply_points(4, 4, ONES, sums, v_row, m_row);
    else multiply_points(2, 2, ONES, sums, v_row, m_row);
}

/* One compiled loop for each number of tiles, of which none, half or all are wanted at the end. */
static ALWAYS_INLINE void multiply_some(const int tiles, int wide, const point_sums *sums,
                                        const int64_t *v_row, const int64_t *m_row) {
    if (wide <= 0) multiply_points(tiles, 0, TWOS, sums, v_row, m_row);
    else if (2 * wide <= tiles) multiply_points(tiles, tiles / 2, TWOS, sums, v_row, m_row);
    else multiply_points(tiles, tiles, TWOS, sums, v_row, m_row);
}
static void multiply_twos(int tiles, int wide, const point_sums *sums, const int64_t *v_row,
                          const int64_t *m_row) {
    if (tiles > 2) multiply_some(4, wide, sums, v_row, m_row);
    else multiply_some(2, wide, sums, v_row, m_row);
}

/* Four or two tiles at a time, of which the last may be one too many. */
static ALWAYS_INLINE void multiply_list(const winograd_list *list, const point_pair pair,
                                        const point_sums *sums) {
    for (int first = 0; first < list->tiles; first += BLOCK_TILES) {
        const int64_t *v_row = list->v + first, *m_row = list->m + first;
        if (pair == ONES) multiply_ones(list->tiles - first, sums, v_row, m_row);
        else multiply_twos(list->tiles - first, list->wide - first, sums, v_row, m_row);
    }
}

/* The three points of a row of G w G^T that are multiplied at a time. What comes next is fetched by
 * rows of one tap in each of 12 such parts, some taps twice. */
static ALWAYS_INLINE void multiply_part(const winograd_few *call, int point, const point_pair pair,
                                        int part, point_sums *sums) {
    static const float zeros[(WINOGRAD_FEW_TILES + 1) * COLUMNS];
    static const int points[PAIRS][POINTS] = {[ONES] = {0, 1, 2}, [TWOS] = {LAST, 3, 4}};
    for (int i = 0; i < POINTS; i++) {
        int place = 6 * point + points[pair][i];
        sums->v[i] = call->v + place * call->v_plane;
        sums->m[i] = call->m + place * call->m_plane;
        sums->before[i] = call->accumulate ? sums->m[i] : zeros;
    }
    sums->next = call->next + part * 9 / 12 * call->tap_step;
    multiply_list(point == LAST ? call->high : call->all, pair, sums);
}

/* The factors that evaluation has left out. */
static void scale_result(const winograd_few *call) {
    int64_t floats = call->all->tiles * COLUMNS;
    for (int place = 0; place < WINOGRAD_POINTS; place++) {
        float *m = call->m + place * call->m_plane;
        vfloat factor = vset(factor_of[place / 6] * factor_of[place % 6]);
        for (int64_t i = 0; i < floats; i += VECTOR_FLOATS) vstore(m + i, vload(m + i) * factor);
    }
}

void KERNEL(winograd_few)(const winograd_few *call, float *scratch) {
    const float *weights = lay_weights(call, scratch), *row[2] = {weights, weights + 6 * TAP};
    float *made = scratch + 9 * TAP;
    point_sums sums = {.channels = call->channels, .next_step = call->row_step};
    for (int pair = 0; pair < PAIRS; pair++) {
        if (pair == ONES) evaluate_rows(ONES, call->channels, weights, made);
        if (pair == TWOS) evaluate_rows(TWOS, call->channels, weights, made);
        if (pair != ENDS) row[0] = made, row[1] = made + 3 * TAP;
        for (int i = 0; i < 2; i++) {
            sums.row = row[i];
            multiply_part(call, points_of[pair][i], ONES, 4 * pair + 2 * i, &sums);
            multiply_part(call, points_of[pair][i], TWOS, 4 * pair + 2 * i + 1, &sums);
        }
    }
    if (call->last) scale_result(call);
}
