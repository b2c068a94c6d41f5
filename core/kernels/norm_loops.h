/* norm_loops.h: the loops of norm.c, for float and double (see real.h).
 *
 * Sums go down columns of some vectors of channels with the sums in registers. A column of one or
 * two vectors takes several rows at once, so that additions do not wait for each other: width
 * vectors times lanes rows is always four sums. A rest of channels narrower than a vector is taken
 * by a last vector that overlaps its neighbour: it computes the same sums again. */
#include "core/kernels/real.h"

/* ---- Statistics ----------------------------------------------------------------------------- */

static ALWAYS_INLINE void REAL_NAME(statistics_column)(int64_t rows, int64_t channels, const real *x,
                                                real *mean, real *off, real *m2, int width,
                                                int lanes) {
    vreal sum[4] = {{0}}, square[4] = {{0}}, rest[4] = {{0}}, center[4];
    int64_t paired = rows - rows % lanes;
    real inverse = (real)1 / (real)rows;
    for (int64_t r = 0; r < paired; r += lanes)
        for (int i = 0; i < 4; i++) {
            const real *at = x + (r + i / width) * channels + i % width * VECTOR_REALS;
            __builtin_prefetch(at + PREFETCH_AHEAD);
            sum[i] += REAL_NAME(real_load)(at);
        }
    for (int64_t r = paired; r < rows; r++)
        for (int i = 0; i < width; i++)
            sum[i] += REAL_NAME(real_load)(x + r * channels + i * VECTOR_REALS);
    for (int i = width; i < 4; i++) sum[i % width] += sum[i];
    for (int i = 0; i < width; i++) center[i] = sum[i] * inverse;
    for (int64_t r = 0; r < paired; r += lanes)
        for (int i = 0; i < 4; i++) {
            vreal d = REAL_NAME(real_load)(x + (r + i / width) * channels +
                                           i % width * VECTOR_REALS) - center[i % width];
            square[i] += d * d;
            rest[i] += d;
        }
    for (int64_t r = paired; r < rows; r++)
        for (int i = 0; i < width; i++) {
            vreal d = REAL_NAME(real_load)(x + r * channels + i * VECTOR_REALS) - center[i];
            square[i] += d * d;
            rest[i] += d;
        }
    for (int i = width; i < 4; i++) {
        square[i % width] += square[i];
        rest[i % width] += rest[i];
    }
    /* What the first pass's rounding left in the deviations corrects both results. */
    for (int i = 0; i < width; i++) {
        vreal correction = rest[i] * inverse;
        REAL_NAME(real_store)(mean + i * VECTOR_REALS, center[i]);
        REAL_NAME(real_store)(off + i * VECTOR_REALS, correction);
        REAL_NAME(real_store)(m2 + i * VECTOR_REALS, square[i] - rest[i] * correction);
    }
}

static void REAL_NAME(statistics_channel)(int64_t rows, int64_t channels, const real *x,
                                          real *mean, real *off, real *m2) {
    real sum = 0, square = 0, rest = 0, inverse = (real)1 / (real)rows;
    for (int64_t r = 0; r < rows; r++) sum += x[r * channels];
    real center = sum * inverse;
    for (int64_t r = 0; r < rows; r++) {
        real d = x[r * channels] - center;
        square += d * d;
        rest += d;
    }
    *mean = center;
    *off = rest * inverse;
    *m2 = square - rest * *off;
}

static void REAL_NAME(block_statistics)(int64_t rows, int64_t channels, const void *x_,
                                        void *center_, void *rest_, void *m2_) {
    const real *x = x_;
    real *mean = center_, *off = rest_, *m2 = m2_;
    int64_t c = 0;
    for (; c + 4 * VECTOR_REALS <= channels; c += 4 * VECTOR_REALS)
        REAL_NAME(statistics_column)(rows, channels, x + c, mean + c, off + c, m2 + c, 4, 1);
    if (c + 2 * VECTOR_REALS <= channels) {
        REAL_NAME(statistics_column)(rows, channels, x + c, mean + c, off + c, m2 + c, 2, 2);
        c += 2 * VECTOR_REALS;
    }
    while (channels >= VECTOR_REALS && c < channels) {
        if (c + VECTOR_REALS > channels) c = channels - VECTOR_REALS;
        REAL_NAME(statistics_column)(rows, channels, x + c, mean + c, off + c, m2 + c, 1, 4);
        c += VECTOR_REALS;
    }
    for (; c < channels; c++)
        REAL_NAME(statistics_channel)(rows, channels, x + c, mean + c, off + c, m2 + c);
}

static void REAL_NAME(merge_statistics)(int64_t channels, double count, double *mean, double *m2,
                                        double block_count, const void *center_,
                                        const void *rest_, const void *block_m2_) {
    const real *center = center_, *rest = rest_, *block_m2 = block_m2_;
    double share = block_count / (count + block_count), weight = count * share;
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        double delta = (double)center[c] - mean[c] + (double)rest[c];
        mean[c] += delta * share;
        m2[c] += (double)block_m2[c] + delta * delta * weight;
    }
}

/* ---- Forward -------------------------------------------------------------------------------- */

static ALWAYS_INLINE vreal REAL_NAME(activate)(vreal z, bool relu) {
    /* NaN is not below zero and stays. */
    return relu ? REAL_NAME(real_select)(z < (vreal){0}, z, (vreal){0}) : z;
}

static ALWAYS_INLINE void REAL_NAME(apply_rows)(int64_t rows, int64_t channels, const real *x,
                                         const real *scale, const real *shift,
                                         const real *shortcut, bool relu, real *y) {
    int64_t vectors = channels - channels % VECTOR_REALS;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < vectors; c += VECTOR_REALS) {
            vreal z = REAL_NAME(real_load)(x + c) * REAL_NAME(real_load)(scale + c) +
                      REAL_NAME(real_load)(shift + c);
            __builtin_prefetch(x + c + PREFETCH_AHEAD);
            __builtin_prefetch(y + c + PREFETCH_AHEAD, 1);
            if (shortcut) __builtin_prefetch(shortcut + c + PREFETCH_AHEAD);
            if (shortcut) z += REAL_NAME(real_load)(shortcut + c);
            REAL_NAME(real_store)(y + c, REAL_NAME(activate)(z, relu));
        }
        for (int64_t c = vectors; c < channels; c++) {
            real z = x[c] * scale[c] + shift[c];
            if (shortcut) z += shortcut[c];
            y[c] = relu && z < 0 ? 0 : z;
        }
        x += channels;
        y += channels;
        if (shortcut) shortcut += channels;
    }
}

static void REAL_NAME(apply)(int64_t rows, int64_t channels, const void *x, const void *scale,
                             const void *shift, const void *shortcut,
                             norm_activation activation, void *y) {
    if (shortcut && activation == NORM_RELU)
        REAL_NAME(apply_rows)(rows, channels, x, scale, shift, shortcut, true, y);
    else if (shortcut)
        REAL_NAME(apply_rows)(rows, channels, x, scale, shift, shortcut, false, y);
    else if (activation == NORM_RELU)
        REAL_NAME(apply_rows)(rows, channels, x, scale, shift, NULL, true, y);
    else
        REAL_NAME(apply_rows)(rows, channels, x, scale, shift, NULL, false, y);
}

/* ---- Backward -------------------------------------------------------------------------------

 * Loops are compiled for each kind of gate: open, by the output, by the input. */
#ifndef RESIN_KERNELS_NORM_GATES
#define RESIN_KERNELS_NORM_GATES
enum { GATE_OPEN, GATE_BY_OUTPUT, GATE_BY_INPUT };

static int gate_kind(const norm_gate *gate) {
    if (gate->activation == NORM_LINEAR) return GATE_OPEN;
    return gate->y ? GATE_BY_OUTPUT : GATE_BY_INPUT;
}
#endif

/* The gradient before the activation; `output` is y, or what x makes of it. */
static ALWAYS_INLINE vreal REAL_NAME(gated)(vreal dy, vreal output, const int kind) {
    return kind == GATE_OPEN ? dy
                             : REAL_NAME(real_select)(output <= (vreal){0}, dy, (vreal){0});
}

static ALWAYS_INLINE vreal REAL_NAME(output_vector)(vreal x, const real *y, vreal scale, vreal shift,
                                             const int kind) {
    if (kind == GATE_BY_OUTPUT) return REAL_NAME(real_load)(y);
    return x * scale + shift; /* not used where the gate is open */
}

static ALWAYS_INLINE real REAL_NAME(gated_one)(real dy, real x, const norm_gate *gate, int64_t at,
                                        int64_t channel, const int kind) {
    if (kind == GATE_OPEN) return dy;
    real output = kind == GATE_BY_OUTPUT
                      ? ((const real *)gate->y)[at]
                      : x * ((const real *)gate->scale)[channel] +
                            ((const real *)gate->shift)[channel];
    return output <= 0 ? 0 : dy;
}

/* `column` is the first channel. */
static ALWAYS_INLINE void REAL_NAME(sums_column)(int64_t rows, int64_t channels, int64_t column,
                                          const real *x, const real *mean, const norm_gate *gate,
                                          const real *dy, real *g_out, real *sum_g,
                                          real *sum_gx, const int kind, const int width,
                                          const int lanes) {
    vreal sum[4] = {{0}}, product[4] = {{0}}, center[4] = {{0}}, scale[4] = {{0}},
          shift[4] = {{0}};
    const real *y = kind == GATE_BY_OUTPUT ? gate->y : dy;
    int64_t paired = rows - rows % lanes;
    for (int i = 0; i < width; i++) {
        int64_t channel = column + i * VECTOR_REALS;
        center[i] = REAL_NAME(real_load)(mean + channel);
        if (kind != GATE_BY_INPUT) continue;
        scale[i] = REAL_NAME(real_load)((const real *)gate->scale + channel);
        shift[i] = REAL_NAME(real_load)((const real *)gate->shift + channel);
    }
    for (int64_t r = 0; r < paired; r += lanes)
        for (int i = 0; i < 4; i++) {
            int64_t at = (r + i / width) * channels + column + i % width * VECTOR_REALS;
            vreal v = REAL_NAME(real_load)(x + at);
            __builtin_prefetch(x + at + PREFETCH_AHEAD);
            __builtin_prefetch(dy + at + PREFETCH_AHEAD);
            if (kind == GATE_BY_OUTPUT) __builtin_prefetch(y + at + PREFETCH_AHEAD);
            vreal g = REAL_NAME(gated)(
                REAL_NAME(real_load)(dy + at),
                REAL_NAME(output_vector)(v, y + at, scale[i % width], shift[i % width], kind),
                kind);
            if (g_out) REAL_NAME(real_store)(g_out + at, g);
            sum[i] += g;
            product[i] += g * (v - center[i % width]);
        }
    for (int64_t r = paired; r < rows; r++)
        for (int i = 0; i < width; i++) {
            int64_t at = r * channels + column + i * VECTOR_REALS;
            vreal v = REAL_NAME(real_load)(x + at);
            vreal g = REAL_NAME(gated)(
                REAL_NAME(real_load)(dy + at),
                REAL_NAME(output_vector)(v, y + at, scale[i], shift[i], kind), kind);
            if (g_out) REAL_NAME(real_store)(g_out + at, g);
            sum[i] += g;
            product[i] += g * (v - center[i]);
        }
    for (int i = width; i < 4; i++) {
        sum[i % width] += sum[i];
        product[i % width] += product[i];
    }
    for (int i = 0; i < width; i++) {
        REAL_NAME(real_store)(sum_g + column + i * VECTOR_REALS, sum[i]);
        REAL_NAME(real_store)(sum_gx + column + i * VECTOR_REALS, product[i]);
    }
}

static ALWAYS_INLINE void REAL_NAME(sums)(int64_t rows, int64_t channels, const real *x,
                                   const real *mean, const norm_gate *gate, const real *dy,
                                   real *g_out, real *sum_g, real *sum_gx, const int kind) {
    int64_t c = 0;
    for (; c + 4 * VECTOR_REALS <= channels; c += 4 * VECTOR_REALS)
        REAL_NAME(sums_column)(rows, channels, c, x, mean, gate, dy, g_out, sum_g, sum_gx,
                               kind, 4, 1);
    if (c + 2 * VECTOR_REALS <= channels) {
        REAL_NAME(sums_column)(rows, channels, c, x, mean, gate, dy, g_out, sum_g, sum_gx,
                               kind, 2, 2);
        c += 2 * VECTOR_REALS;
    }
    while (channels >= VECTOR_REALS && c < channels) {
        if (c + VECTOR_REALS > channels) c = channels - VECTOR_REALS;
        REAL_NAME(sums_column)(rows, channels, c, x, mean, gate, dy, g_out, sum_g, sum_gx,
                               kind, 1, 4);
        c += VECTOR_REALS;
    }
    for (; c < channels; c++) {
        sum_g[c] = sum_gx[c] = 0;
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = r * channels + c;
            real g = REAL_NAME(gated_one)(dy[at], x[at], gate, at, c, kind);
            if (g_out) g_out[at] = g;
            sum_g[c] += g;
            sum_gx[c] += g * (x[at] - mean[c]);
        }
    }
}

static void REAL_NAME(gradient_sums)(int64_t rows, int64_t channels, const void *x,
                                     const void *mean, const norm_gate *gate, const void *dy,
                                     void *g, void *sum_g, void *sum_gx) {
    switch (gate_kind(gate)) {
    case GATE_OPEN:
        REAL_NAME(sums)(rows, channels, x, mean, gate, dy, g, sum_g, sum_gx, GATE_OPEN);
        break;
    case GATE_BY_OUTPUT:
        REAL_NAME(sums)(rows, channels, x, mean, gate, dy, g, sum_g, sum_gx, GATE_BY_OUTPUT);
        break;
    default:
        REAL_NAME(sums)(rows, channels, x, mean, gate, dy, g, sum_g, sum_gx, GATE_BY_INPUT);
    }
}

static void REAL_NAME(add_sums)(int64_t channels, const void *block_, double *total) {
    const real *block = block_;
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) total[c] += (double)block[c];
}

static ALWAYS_INLINE void REAL_NAME(gradient_rows)(int64_t rows, int64_t channels, const real *x,
                                            const real *mean, const norm_gate *gate,
                                            const real *dy, const real *a, const real *b,
                                            const real *c, real *dx, const int kind) {
    const real *y = kind == GATE_BY_OUTPUT ? gate->y : dy;
    const real *scale = kind == GATE_BY_INPUT ? gate->scale : a; /* a: read, not used */
    const real *shift = kind == GATE_BY_INPUT ? gate->shift : a;
    int64_t vectors = channels - channels % VECTOR_REALS;
    for (int64_t r = 0; r < rows; r++) {
        int64_t row = r * channels;
        for (int64_t k = 0; k < vectors; k += VECTOR_REALS) {
            vreal v = REAL_NAME(real_load)(x + row + k);
            vreal g = REAL_NAME(gated)(
                REAL_NAME(real_load)(dy + row + k),
                REAL_NAME(output_vector)(v, y + row + k, REAL_NAME(real_load)(scale + k),
                                         REAL_NAME(real_load)(shift + k), kind),
                kind);
            vreal d = v - REAL_NAME(real_load)(mean + k);
            REAL_NAME(real_store)(dx + row + k, REAL_NAME(real_load)(a + k) * g +
                                                    REAL_NAME(real_load)(b + k) * d +
                                                    REAL_NAME(real_load)(c + k));
        }
        for (int64_t k = vectors; k < channels; k++) {
            real g = REAL_NAME(gated_one)(dy[row + k], x[row + k], gate, row + k, k, kind);
            dx[row + k] = a[k] * g + b[k] * (x[row + k] - mean[k]) + c[k];
        }
    }
}

static void REAL_NAME(gradient)(int64_t rows, int64_t channels, const void *x, const void *mean,
                                const norm_gate *gate, const void *dy, const void *a,
                                const void *b, const void *c, void *dx) {
    switch (gate_kind(gate)) {
    case GATE_OPEN:
        REAL_NAME(gradient_rows)(rows, channels, x, mean, gate, dy, a, b, c, dx, GATE_OPEN);
        break;
    case GATE_BY_OUTPUT:
        REAL_NAME(gradient_rows)(rows, channels, x, mean, gate, dy, a, b, c, dx, GATE_BY_OUTPUT);
        break;
    default:
        REAL_NAME(gradient_rows)(rows, channels, x, mean, gate, dy, a, b, c, dx, GATE_BY_INPUT);
    }
}

static void REAL_NAME(channel_sums)(int64_t rows, int64_t channels, const void *x_, void *sum_) {
    const real *x = x_;
    real *sum = sum_;
    for (int64_t c = 0; c < channels; c++) sum[c] = 0;
    for (int64_t r = 0; r < rows; r++) {
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) sum[c] += x[r * channels + c];
    }
}
