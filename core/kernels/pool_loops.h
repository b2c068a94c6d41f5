/* pool_loops.h: the loops of pool.c, for float and double (see real.h). */
#include "core/kernels/real.h"

typedef uint8_t REAL_NAME(narrow) __attribute__((vector_size(VECTOR_REALS)));
typedef int32_t REAL_NAME(wide) __attribute__((vector_size(4 * VECTOR_REALS)));

/* Positions of one vector of channels. */
static ALWAYS_INLINE void REAL_NAME(store_positions)(vmask position, uint8_t *narrow, int32_t *wide) {
    if (narrow) {
        REAL_NAME(narrow) v = __builtin_convertvector(position, REAL_NAME(narrow));
        memcpy(narrow, &v, sizeof v);
    } else if (wide) {
        REAL_NAME(wide) v = __builtin_convertvector(position, REAL_NAME(wide));
        memcpy(wide, &v, sizeof v);
    }
}

static ALWAYS_INLINE vmask REAL_NAME(load_positions)(const uint8_t *narrow, const int32_t *wide) {
    if (narrow) {
        REAL_NAME(narrow) v;
        memcpy(&v, narrow, sizeof v);
        return __builtin_convertvector(v, vmask);
    }
    REAL_NAME(wide) v;
    memcpy(&v, wide, sizeof v);
    return __builtin_convertvector(v, vmask);
}

static void REAL_NAME(max_channel)(int64_t channels, const real *x, const pool_window *window,
                                   real *y, uint8_t *narrow, int32_t *wide) {
    real best = *x;
    int32_t best_position = window->first;
    for (int64_t i = 0; i < window->rows; i++)
        for (int64_t j = 0; j < window->columns; j++) {
            real v = x[i * window->row_step + j * channels];
            if (!(v > best || v != v)) continue;
            best = v;
            best_position = window->first + (int32_t)(i * window->kernel_width + j);
        }
    *y = best;
    if (narrow) *narrow = (uint8_t)best_position;
    if (wide) *wide = best_position;
}

static void REAL_NAME(max_window)(int64_t channels, const void *x_, const pool_window *window,
                                  void *y_, uint8_t *narrow, int32_t *wide) {
    const real *x = x_;
    real *y = y_;
    int64_t c = 0;
    for (; c + VECTOR_REALS <= channels; c += VECTOR_REALS) {
        vreal best = REAL_NAME(real_load)(x + c);
        vmask best_position = (vmask){0} + window->first;
        for (int64_t i = 0; i < window->rows; i++)
            for (int64_t j = 0; j < window->columns; j++) {
                vreal v = REAL_NAME(real_load)(x + i * window->row_step + j * channels + c);
                vmask position = (vmask){0} + window->first +
                                 (int32_t)(i * window->kernel_width + j);
                vmask better = (v > best) | (v != v);
                best = REAL_NAME(real_select)(better, best, v);
                best_position = (best_position & ~better) | (position & better);
            }
        REAL_NAME(real_store)(y + c, best);
        REAL_NAME(store_positions)(best_position, narrow ? narrow + c : NULL,
                                   wide ? wide + c : NULL);
    }
    for (; c < channels; c++)
        REAL_NAME(max_channel)(channels, x + c, window, y + c, narrow ? narrow + c : NULL,
                               wide ? wide + c : NULL);
}

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

static void REAL_NAME(max_gradient)(int64_t channels, const void *dy_, const uint8_t *narrow,
                                    const int32_t *wide, int32_t position, bool first, void *dx_) {
    const real *dy = dy_;
    real *dx = dx_;
    int64_t c = 0;
    for (; c + VECTOR_REALS <= channels; c += VECTOR_REALS) {
        vmask here = REAL_NAME(load_positions)(narrow ? narrow + c : NULL,
                                               narrow ? NULL : wide + c) == position;
        vreal share = REAL_NAME(real_select)(here, (vreal){0}, REAL_NAME(real_load)(dy + c));
        REAL_NAME(real_store)(dx + c, first ? share : REAL_NAME(real_load)(dx + c) + share);
    }
    for (; c < channels; c++) {
        real share = (narrow ? narrow[c] : wide[c]) == position ? dy[c] : 0;
        dx[c] = first ? share : dx[c] + share;
    }
}

static void REAL_NAME(add_scaled)(int64_t channels, const void *dy_, double factor_, bool first,
                                  void *dx_) {
    const real *dy = dy_, factor = (real)factor_;
    real *dx = dx_;
    if (first) {
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) dx[c] = factor * dy[c];
    } else {
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) dx[c] += factor * dy[c];
    }
}
