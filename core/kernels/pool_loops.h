/* pool_loops.h: the loops of pool.c, for float and double (see real.h). */
#include "core/kernels/real.h"

/* ---- Positions ------------------------------------------------------------------------------ */

#ifndef RESIN_KERNELS_POOL_POSITIONS
#define RESIN_KERNELS_POOL_POSITIONS
/* For few channels and very large windows: small code. */
#define RARELY __attribute__((noinline, cold))

static ALWAYS_INLINE int32_t position_at(pool_positions p, int64_t element) {
    return p.narrow ? p.narrow[element] : p.wide[element];
}

static ALWAYS_INLINE void set_position(pool_positions p, int64_t element, int32_t position) {
    if (p.narrow) p.narrow[element] = (uint8_t)position;
    else if (p.wide) p.wide[element] = position;
}
#endif

/* Vectors of them: narrow ones, the others are rare. Compilers make of the conversion, written as
 * such, a move for each number. */
static ALWAYS_INLINE vmask REAL_NAME(load_positions)(const uint8_t *p) {
#if defined(__AVX512F__) && REAL_BITS == 32
    return (vmask)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
#elif defined(__AVX512F__)
    return (vmask)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)p));
#elif defined(__AVX2__) && REAL_BITS == 32
    return (vmask)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
#elif defined(__SSE2__) && REAL_BITS == 32
    int32_t four;
    memcpy(&four, p, sizeof four);
    __m128i words = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), _mm_setzero_si128());
    return (vmask)_mm_unpacklo_epi16(words, _mm_setzero_si128());
#else
    vmask v;
    for (int i = 0; i < VECTOR_REALS; i++) v[i] = p[i];
    return v;
#endif
}

static ALWAYS_INLINE void REAL_NAME(store_positions)(uint8_t *p, vmask v) {
#if defined(__AVX512F__) && REAL_BITS == 32
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX512F__)
    _mm_storel_epi64((__m128i *)p, _mm512_cvtepi64_epi8((__m512i)v));
#elif defined(__AVX2__) && REAL_BITS == 32
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)v),
                                     _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
#elif defined(__SSE2__) && REAL_BITS == 32
    __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
    int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(p, &four, sizeof four);
#else
    for (int i = 0; i < VECTOR_REALS; i++) p[i] = (uint8_t)v[i];
#endif
}

/* ---- Maxima ---------------------------------------------------------------------------------

 * A rest narrower than a vector is taken by a last vector that overlaps its neighbour. Where there
 * is none, and for wide positions, numbers are taken one by one. */

/* v where it is larger than the best or NaN. */
static ALWAYS_INLINE vreal REAL_NAME(larger)(vreal best, vreal v) {
#if defined(__AVX512F__) && REAL_BITS == 32
    /* Of two of which one is NaN the instruction gives the second. */
    __mmask16 number = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_ORD_Q);
    return (vreal)_mm512_mask_max_ps((__m512)v, number, (__m512)v, (__m512)best);
#else
    return REAL_NAME(real_select)((v > best) | (v != v), best, v);
#endif
}

/* The same, and which it is. */
static ALWAYS_INLINE void REAL_NAME(take_larger)(vreal *best, vmask *at, vreal v, vmask position) {
    vmask better = (v > *best) | (v != v);
    *best = REAL_NAME(real_select)(better, *best, v);
    *at = (*at & ~better) | (position & better);
}

/* The `count` pixels of a window in one row, which begin with its column `first`. */
static ALWAYS_INLINE void REAL_NAME(max_of_pixels)(int64_t channels, int64_t count, int64_t first,
                                                   const real *x, const real *scale,
                                                   const real *shift, real *best,
                                                   uint8_t *columns, const bool positions) {
    for (int64_t c = 0; c < channels; c += VECTOR_REALS) {
        if (c + VECTOR_REALS > channels) c = channels - VECTOR_REALS;
        vreal largest = {0};
        vmask column = (vmask){0} + (int32_t)first;
        for (int64_t j = 0; j < count; j++) {
            const real *pixel = x + j * channels + c;
            vreal v = REAL_NAME(real_load)(pixel);
            __builtin_prefetch(pixel + PREFETCH_AHEAD);
            if (scale) v = v * REAL_NAME(real_load)(scale + c) + REAL_NAME(real_load)(shift + c);
            if (j == 0) largest = v;
            else if (!positions) largest = REAL_NAME(larger)(largest, v);
            else
                REAL_NAME(take_larger)(&largest, &column, v,
                                       (vmask){0} + (int32_t)(first + j));
        }
        REAL_NAME(real_store)(best + c, largest);
        if (positions) REAL_NAME(store_positions)(columns + c, column);
    }
}

static RARELY void REAL_NAME(max_of_few)(int64_t channels, int64_t count, int64_t first,
                                         const real *x, const real *scale, const real *shift,
                                         real *best, pool_positions columns, int64_t to) {
    for (int64_t c = 0; c < channels; c++) {
        int64_t column = first;
        real largest = 0;
        for (int64_t j = 0; j < count; j++) {
            real v = x[j * channels + c];
            if (scale) v = v * scale[c] + shift[c];
            if (j > 0 && !(v > largest || v != v)) continue;
            largest = v;
            column = first + j;
        }
        best[to + c] = largest;
        set_position(columns, to + c, (int32_t)column);
    }
}

/* Into elements from `to` on. */
static __attribute__((noinline)) void REAL_NAME(max_of_any)(int64_t channels, int64_t count,
                                                            int64_t first, const real *x,
                                                            const real *scale, const real *shift,
                                                            real *best, pool_positions columns,
                                                            int64_t to) {
    if (channels >= VECTOR_REALS && !columns.wide)
        REAL_NAME(max_of_pixels)(channels, count, first, x, scale, shift, best + to,
                                 columns.narrow ? columns.narrow + to : NULL,
                                 columns.narrow != NULL);
    else
        REAL_NAME(max_of_few)(channels, count, first, x, scale, shift, best, columns, to);
}

/* `whole`: how many pixels the windows have for which this is compiled, 0: for none. */
static ALWAYS_INLINE void REAL_NAME(max_along)(const pool_row *row, const real *x,
                                               const real *scale, const real *shift, real *best,
                                               pool_positions columns, const int whole,
                                               const bool positions) {
    for (int64_t j = 0; j < row->windows; j++) {
        int64_t start = j * row->stride - row->before, from = start < 0 ? 0 : start;
        int64_t end = start + row->kernel < row->pixels ? start + row->kernel : row->pixels;
        const real *pixels = x + from * row->channels;
        int64_t to = j * row->channels;
        if (whole && end - from == whole)
            REAL_NAME(max_of_pixels)(row->channels, whole, 0, pixels, scale, shift, best + to,
                                     positions ? columns.narrow + to : NULL, positions);
        else
            REAL_NAME(max_of_any)(row->channels, end - from, from - start, pixels, scale, shift,
                                  best, columns, to);
    }
}

static void REAL_NAME(max_in_row)(const pool_row *row, const void *x, const void *scale,
                                  const void *shift, void *best, pool_positions columns) {
#if REAL_BITS == 32 && VECTOR_FLOATS > 8
    if (row->kernel == 3 && row->channels >= VECTOR_FLOATS && !columns.wide) {
        if (columns.narrow && scale)
            return max_along_float(row, x, scale, shift, best, columns, 3, true);
        if (columns.narrow) return max_along_float(row, x, NULL, NULL, best, columns, 3, true);
        if (!scale) return max_along_float(row, x, NULL, NULL, best, columns, 3, false);
    }
#endif
    REAL_NAME(max_along)(row, x, scale, shift, best, columns, 0, false);
}

static ALWAYS_INLINE void REAL_NAME(max_of_vectors)(int64_t count, const pool_three *three,
                                                    bool relu, real *y, uint8_t *positions) {
    const real *const best[3] = {three->best[0], three->best[1], three->best[2]};
    for (int64_t e = 0; e < count; e += VECTOR_REALS) {
        if (e + VECTOR_REALS > count) e = count - VECTOR_REALS;
        vreal largest = {0};
        vmask position = {0};
        for (int i = 0; i < 3; i++) {
            vreal v = REAL_NAME(real_load)(best[i] + e);
            vmask here = {0};
            if (positions)
                here = REAL_NAME(load_positions)(three->positions[i].narrow + e) + three->add[i];
            if (i == 0) largest = v, position = here;
            else if (!positions) largest = REAL_NAME(larger)(largest, v);
            else REAL_NAME(take_larger)(&largest, &position, v, here);
        }
        /* NaN is not below zero and stays. */
        if (relu) largest = REAL_NAME(real_select)(largest < (vreal){0}, largest, (vreal){0});
        __builtin_prefetch(y + e + PREFETCH_AHEAD, 1);
        REAL_NAME(real_store)(y + e, largest);
        if (positions) REAL_NAME(store_positions)(positions + e, position);
    }
}

static RARELY void REAL_NAME(max_of_numbers)(int64_t count, const pool_three *three, bool relu,
                                             real *y, pool_positions positions) {
    for (int64_t e = 0; e < count; e++) {
        int row = 0;
        real largest = 0;
        for (int i = 0; i < 3; i++) {
            real v = ((const real *)three->best[i])[e];
            if (i > 0 && !(v > largest || v != v)) continue;
            largest = v;
            row = i;
        }
        if (positions.narrow || positions.wide)
            set_position(positions, e, position_at(three->positions[row], e) + three->add[row]);
        y[e] = relu && largest < 0 ? 0 : largest;
    }
}

static void REAL_NAME(max_of_three)(int64_t count, const pool_three *three, bool relu, void *y,
                                    pool_positions positions) {
    if (count < VECTOR_REALS || positions.wide)
        REAL_NAME(max_of_numbers)(count, three, relu, y, positions);
    else if (positions.narrow)
        REAL_NAME(max_of_vectors)(count, three, relu, y, positions.narrow);
    else
        REAL_NAME(max_of_vectors)(count, three, relu, y, NULL);
}

/* ---- Gradients of maxima --------------------------------------------------------------------- */

/* The windows that cover a pixel, rows x windows of them. In the first, which begins at an element
 * of dy and of positions, the pixel's position is `place`, in the others so many steps less. */
typedef struct REAL_NAME(covering) {
    int64_t channels, rows, windows, line; /* elements from row to row */
    const real *dy;
    pool_positions positions;
    int64_t first;
    int32_t place, row_step, window_step;
} REAL_NAME(covering);

/* dy where the pixel was the maximum. */
static ALWAYS_INLINE vreal REAL_NAME(share)(const real *dy, const uint8_t *position,
                                            int32_t place) {
    vmask here = REAL_NAME(load_positions)(position) == place;
    return REAL_NAME(real_select)(here, (vreal){0}, REAL_NAME(real_load)(dy));
}

/* Up to two rows of two: what is missing is never the place. */
static ALWAYS_INLINE void REAL_NAME(gather_four)(REAL_NAME(covering) from, real *dx) {
    const int64_t right = from.windows > 1 ? from.channels : 0;
    const int64_t below = from.rows > 1 ? from.line : 0;
    const int32_t a = from.place, b = from.windows > 1 ? a - from.window_step : -1;
    const int32_t c = from.rows > 1 ? a - from.row_step : -1;
    const int32_t d = from.rows > 1 && from.windows > 1 ? c - from.window_step : -1;
    const real *dy = from.dy + from.first;
    const uint8_t *position = from.positions.narrow + from.first;
    for (int64_t k = 0; k < from.channels; k += VECTOR_REALS) {
        if (k + VECTOR_REALS > from.channels) k = from.channels - VECTOR_REALS;
        vreal sum = REAL_NAME(share)(dy + k, position + k, a);
        sum += REAL_NAME(share)(dy + right + k, position + right + k, b);
        sum += REAL_NAME(share)(dy + below + k, position + below + k, c);
        sum += REAL_NAME(share)(dy + below + right + k, position + below + right + k, d);
        __builtin_prefetch(dy + below + k + PREFETCH_AHEAD);
        __builtin_prefetch(dx + k + PREFETCH_AHEAD, 1);
        REAL_NAME(real_store)(dx + k, sum);
    }
}

static __attribute__((noinline)) void REAL_NAME(gather)(const REAL_NAME(covering) *from, real *dx) {
    for (int64_t c = 0; c < from->channels; c += VECTOR_REALS) {
        if (c + VECTOR_REALS > from->channels) c = from->channels - VECTOR_REALS;
        vreal sum = {0};
        for (int32_t i = 0; i < from->rows; i++)
            for (int32_t j = 0; j < from->windows; j++) {
                int64_t e = from->first + i * from->line + j * from->channels + c;
                sum += REAL_NAME(share)(from->dy + e, from->positions.narrow + e,
                                        from->place - i * from->row_step - j * from->window_step);
            }
        REAL_NAME(real_store)(dx + c, sum);
    }
}

static RARELY void REAL_NAME(gather_few)(const REAL_NAME(covering) *from, real *dx) {
    for (int64_t c = 0; c < from->channels; c++) {
        real sum = 0;
        for (int32_t i = 0; i < from->rows; i++)
            for (int32_t j = 0; j < from->windows; j++) {
                int64_t e = from->first + i * from->line + j * from->channels + c;
                if (position_at(from->positions, e) ==
                    from->place - i * from->row_step - j * from->window_step)
                    sum += from->dy[e];
            }
        dx[c] = sum;
    }
}

static void REAL_NAME(max_gradient)(const pool_row *row_, const pool_cover *cover, void *dx_) {
    const pool_row row = *row_;
    real *dx = dx_;
    int64_t first = 0, last = 0; /* the windows first .. last - 1 cover the pixel */
    REAL_NAME(covering) from = {
        .channels = row.channels, .rows = cover->rows, .line = row.windows * row.channels,
        .dy = cover->dy, .positions = cover->positions,
        .row_step = (int32_t)(cover->stride * row.kernel), .window_step = (int32_t)row.stride};
    const bool few = row.channels < VECTOR_REALS || !from.positions.narrow;
    const bool up_to_two = REAL_BITS == 32 && (from.rows == 1 || from.rows == 2);
    for (int64_t p = 0; p < row.pixels; p++, dx += row.channels) {
        int64_t column = p + row.before;
        while (first < row.windows && column - first * row.stride >= row.kernel) first++;
        while (last < row.windows && last * row.stride <= column) last++;
        from.windows = last - first;
        from.first = first * row.channels;
        from.place = (int32_t)(cover->at * row.kernel + column - first * row.stride);
        if (few) REAL_NAME(gather_few)(&from, dx);
        else if (up_to_two && (from.windows == 1 || from.windows == 2))
            REAL_NAME(gather_four)(from, dx);
        else REAL_NAME(gather)(&from, dx);
    }
}

/* ---- Means ----------------------------------------------------------------------------------- */

static void REAL_NAME(sum_window)(int64_t channels, const void *x_, const pool_window *window,
                                  double factor, void *y_) {
    const real *x = x_;
    real *y = y_;
    int64_t c = 0;
    for (; c + VECTOR_REALS <= channels; c += VECTOR_REALS) {
        vreal sum = {0};
        for (int64_t i = 0; i < window->rows; i++) {
            vreal row = {0};
            for (int64_t j = 0; j < window->columns; j++)
                row += REAL_NAME(real_load)(x + i * window->row_step + j * channels + c);
            sum += row;
        }
        REAL_NAME(real_store)(y + c, sum * (real)factor);
    }
    for (; c < channels; c++) {
        real sum = 0;
        for (int64_t i = 0; i < window->rows; i++) {
            real row = 0;
            for (int64_t j = 0; j < window->columns; j++)
                row += x[i * window->row_step + j * channels + c];
            sum += row;
        }
        y[c] = sum * (real)factor;
    }
}

static RARELY void REAL_NAME(add_rest)(int64_t channels, const real *dy, real factor, bool first,
                                       real *dx) {
    for (int64_t c = 0; c < channels; c++) dx[c] = first ? factor * dy[c] : dx[c] + factor * dy[c];
}

static void REAL_NAME(add_scaled)(int64_t channels, const void *dy_, double factor_, bool first,
                                  void *dx_) {
    const real *dy = dy_, factor = (real)factor_;
    real *dx = dx_;
    int64_t c = 0;
    for (; c + VECTOR_REALS <= channels; c += VECTOR_REALS) {
        vreal share = factor * REAL_NAME(real_load)(dy + c);
        REAL_NAME(real_store)(dx + c, first ? share : REAL_NAME(real_load)(dx + c) + share);
    }
    REAL_NAME(add_rest)(channels - c, dy + c, factor, first, dx + c);
}
