/* conv_normalize.c: batch normalization and its gradient for a convolution that applies them to the
 * pixels it reads. The same arithmetic as in norm_loops.h. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

typedef int32_t vmask __attribute__((vector_size(VECTOR_FLOATS * 4)));

static inline vfloat zero_where(vmask mask, vfloat x) { return (vfloat)((vmask)x & ~mask); }

/* NaN is not below zero and stays. */
void KERNEL(normalize)(int64_t pixels, int64_t channels, const float *x, int64_t x_step,
                       const float *scale, const float *shift, float *to, int64_t to_step) {
    int64_t vectors = channels - channels % VECTOR_FLOATS, ahead = floats_ahead(x_step);
    for (int64_t p = 0; p < pixels; p++) {
        for (int64_t c = 0; c < vectors; c += VECTOR_FLOATS) {
            vfloat z = vload(x + c) * vload(scale + c) + vload(shift + c);
            __builtin_prefetch(x + c + ahead);
            vstore(to + c, zero_where(z < (vfloat){0}, z));
        }
        for (int64_t c = vectors; c < channels; c++) {
            float z = x[c] * scale[c] + shift[c];
            to[c] = z < 0 ? 0 : z;
        }
        for (int64_t c = channels; c < to_step; c++) to[c] = 0;
        x += x_step;
        to += to_step;
    }
}

void KERNEL(norm_gradient)(int64_t pixels, int64_t channels, const float *dy, const float *x,
                           int64_t x_step, const conv_norm *norm, int64_t first, float *to,
                           int64_t to_step) {
    int64_t vectors = channels - channels % VECTOR_FLOATS, ahead = floats_ahead(x_step);
    const float *mean = norm->mean + first, *a = norm->a + first, *b = norm->b + first;
    const float *c = norm->c + first, *scale = norm->scale ? norm->scale + first : NULL;
    const float *shift = norm->scale ? norm->shift + first : NULL;
    for (int64_t p = 0; p < pixels; p++) {
        for (int64_t k = 0; k < vectors; k += VECTOR_FLOATS) {
            vfloat v = vload(x + k), g = vload(dy + k);
            __builtin_prefetch(x + k + ahead);
            __builtin_prefetch(dy + k + ahead);
            if (scale) g = zero_where(v * vload(scale + k) + vload(shift + k) <= (vfloat){0}, g);
            vstore(to + k, vload(a + k) * g + vload(b + k) * (v - vload(mean + k)) + vload(c + k));
        }
        for (int64_t k = vectors; k < channels; k++) {
            float g = scale && x[k] * scale[k] + shift[k] <= 0 ? 0 : dy[k];
            to[k] = a[k] * g + b[k] * (x[k] - mean[k]) + c[k];
        }
        for (int64_t k = channels; k < to_step; k++) to[k] = 0;
        x += x_step;
        dy += x_step;
        to += to_step;
    }
}
