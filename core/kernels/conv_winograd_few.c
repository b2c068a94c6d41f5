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

/* Two points of some tiles. */
typedef struct pair_sums {
    int64_t channels;
    const float *row; /* of G w */
    const float *v[2];
    float *m[2];
    float factor[2];
    bool accumulate;
    const float *next; /* what is fetched: a line for each channel */
    int64_t next_step;
} pair_sums;

static ALWAYS_INLINE void write_sum(const pair_sums *sums, int point, int64_t m_row,
                                    const vfloat sum[VECTORS]) {
    vfloat factor = vset(sums->factor[point]);
    float *m = sums->m[point] + m_row;
    UNROLL
    for (int j = 0; j < VECTORS; j++) {
        vfloat before = sums->accumulate ? vload(m + j * VECTOR_FLOATS) : (vfloat){0};
        vstore(m + j * VECTOR_FLOATS, sum[j] * factor + before);
    }
}

/* The sums of `tiles` tiles at the first point and of the first `both` of them at the second, too:
 * constants at every call, so that the sums stay in registers. */
static ALWAYS_INLINE void multiply_pair(const int tiles, const int both, const point_pair pair,
                                        const pair_sums *sums, const int64_t *v_row,
                                        const int64_t *m_row) {
    vfloat sum[2][6][VECTORS];
    UNROLL
    for (int t = 0; t < tiles; t++) {
        UNROLL
        for (int j = 0; j < VECTORS; j++) sum[0][t][j] = sum[1][t][j] = (vfloat){0};
    }
    const float *row = sums->row, *v_0 = sums->v[0], *v_1 = sums->v[1], *next = sums->next;
    for (int64_t k = 0; k < sums->channels; k++) {
        vfloat u[VECTORS][2];
        UNROLL
        for (int j = 0; j < VECTORS; j++) {
            const float *w = row + j * VECTOR_FLOATS;
            evaluate(pair, vload(w), pair == ENDS ? (vfloat){0} : vload(w + TAP),
                     both ? vload(w + 2 * TAP) : (vfloat){0}, u[j]);
        }
        row += COLUMNS;
        __builtin_prefetch(next);
        next += sums->next_step;
        UNROLL
        for (int t = 0; t < tiles; t++) {
            vfloat element = vset(v_0[v_row[t]]);
            UNROLL
            for (int j = 0; j < VECTORS; j++) sum[0][t][j] += element * u[j][0];
            if (t >= both) continue;
            element = vset(v_1[v_row[t]]);
            UNROLL
            for (int j = 0; j < VECTORS; j++) sum[1][t][j] += element * u[j][1];
        }
        v_0++;
        v_1++;
    }
    UNROLL
    for (int t = 0; t < tiles; t++) {
        write_sum(sums, 0, m_row[t], sum[0][t]);
        if (t < both) write_sum(sums, 1, m_row[t], sum[1][t]);
        /* The next channels, if they are of the same slice. */
        __builtin_prefetch(v_0 + v_row[t]);
        __builtin_prefetch(v_1 + v_row[t]);
    }
}

/* One compiled loop for each number of tiles, of which none, half or all (`halves`) are wanted at
 * both points. */
static ALWAYS_INLINE void multiply_some(int tiles, const int halves, const point_pair pair,
                                        const pair_sums *sums, const int64_t *v_row,
                                        const int64_t *m_row) {
#if VECTOR_FLOATS == 16
    if (tiles == 6) {
        multiply_pair(6, 3 * halves, pair, sums, v_row, m_row);
        return;
    }
#endif
    if (tiles == 4) multiply_pair(4, 2 * halves, pair, sums, v_row, m_row);
    else multiply_pair(2, halves, pair, sums, v_row, m_row);
}

static void multiply_ends(int tiles, int wide, const pair_sums *sums, const int64_t *v_row,
                          const int64_t *m_row) {
    if (wide <= 0) multiply_some(tiles, 0, ENDS, sums, v_row, m_row);
    else if (2 * wide <= tiles) multiply_some(tiles, 1, ENDS, sums, v_row, m_row);
    else multiply_some(tiles, 2, ENDS, sums, v_row, m_row);
}
static void multiply_ones(int tiles, const pair_sums *sums, const int64_t *v_row,
                          const int64_t *m_row) {
    multiply_some(tiles, 2, ONES, sums, v_row, m_row);
}
static void multiply_twos(int tiles, const pair_sums *sums, const int64_t *v_row,
                          const int64_t *m_row) {
    multiply_some(tiles, 2, TWOS, sums, v_row, m_row);
}

/* How many tiles are taken next: 6, 4 or 2, of which the last may be one too many. */
static int next_tiles(int left) {
    if (VECTORS == 2 && (left > 8 || left == 5 || left == 6)) return 6;
    return left > 2 ? 4 : 2;
}

static void multiply_list(const winograd_list *list, point_pair pair, const pair_sums *sums) {
    int count;
    for (int first = 0; first < list->tiles; first += count) {
        const int64_t *v_row = list->v + first, *m_row = list->m + first;
        count = next_tiles(list->tiles - first);
        if (pair == ENDS) multiply_ends(count, list->wide - first, sums, v_row, m_row);
        else if (pair == ONES) multiply_ones(count, sums, v_row, m_row);
        else multiply_twos(count, sums, v_row, m_row);
    }
}

/* Lets a part of 6 * PAIRS fetch its share of what is wanted next, so much for each channel. Laid
 * weights are fetched in the order in which they lie, for then the processor fetches more of them by
 * itself; of others each part takes a line of each row of half a tap. */
static void fetch_share(const winograd_few *call, int part, pair_sums *sums) {
    if (call->laid) {
        sums->next_step = COLUMNS / 2;
        sums->next = call->next + part * WINOGRAD_FEW_CHANNELS * sums->next_step;
        return;
    }
    int64_t half = call->rotated ? COLUMNS / 2 * call->row_step : WINOGRAD_LINE;
    sums->next_step = call->row_step;
    sums->next = call->next + part / 2 * call->tap_step + part % 2 * half;
}

/* The points of one row of G w G^T, of which there are `before` others. */
static void multiply_row(const winograd_few *call, int point, const float *row, int before) {
    for (int pair = 0; pair < PAIRS; pair++) {
        pair_sums sums = {.channels = call->channels, .row = row,
                          .accumulate = call->accumulate};
        fetch_share(call, PAIRS * before + pair, &sums);
        for (int i = 0; i < 2; i++) {
            int other = points_of[pair][i], place = 6 * point + other;
            sums.v[i] = call->v + place * call->v_plane;
            sums.m[i] = call->m + place * call->m_plane;
            sums.factor[i] = factor_of[point] * factor_of[other];
        }
        multiply_list(point == LAST ? call->high : call->all, pair, &sums);
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
