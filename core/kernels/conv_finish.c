/* conv_finish.c: what becomes of a convolution's result where it is written: batch normalization
 * with running statistics, a shortcut, relu. The same arithmetic as in norm_loops.h. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

#include <math.h>

/* NaN is not below zero and stays. */
/* Vectors of channels one after the other: the pixels are in the first-level cache, and scale and
 * shift stay in registers. */
static inline __attribute__((always_inline)) void finish_vectors(
    int64_t pixels, int64_t channels, const float *z, int64_t z_step, const conv_epilogue *e,
    const float *shortcut, float *y, int64_t y_step) {
    vint below = (vint){0} - (e->relu ? 1 : 0);
    for (int64_t c = 0; c + VECTOR_FLOATS <= channels; c += VECTOR_FLOATS) {
        vfloat scale = vload(e->scale + c), shift = vload(e->shift + c);
        for (int64_t p = 0; p < pixels; p++) {
            vfloat v = vload(z + c + p * z_step) * scale + shift;
            if (shortcut) v += vload(shortcut + c + p * y_step);
            vstore(y + c + p * y_step, zero_where((v < (vfloat){0}) & below, v));
        }
    }
}

/* The channels that are less than a vector. */
static void finish_rest(int64_t pixels, int channels, const float *z, int64_t z_step,
                        const conv_epilogue *e, int64_t first, float *y, int64_t y_step) {
    vfloat v = {0}, scale = {0}, shift = {0}, shortcut = {0};
    size_t size = (size_t)channels * sizeof(float);
    vint below = (vint){0} - (e->relu ? 1 : 0);
    memcpy(&scale, e->scale + first, size);
    memcpy(&shift, e->shift + first, size);
    for (int64_t p = 0; p < pixels; p++) {
        memcpy(&v, z + first + p * z_step, size);
        if (e->shortcut) memcpy(&shortcut, e->shortcut + first + p * y_step, size);
        vfloat sum = v * scale + shift + shortcut;
        sum = zero_where((sum < (vfloat){0}) & below, sum);
        memcpy(y + first + p * y_step, &sum, size);
    }
}

void KERNEL(finish)(int64_t pixels, int64_t channels, const float *z, int64_t z_step,
                    const conv_epilogue *e, float *y, int64_t y_step) {
    if (e->shortcut) finish_vectors(pixels, channels, z, z_step, e, e->shortcut, y, y_step);
    else finish_vectors(pixels, channels, z, z_step, e, NULL, y, y_step);
    int rest = (int)(channels % VECTOR_FLOATS);
    if (rest > 0) finish_rest(pixels, rest, z, z_step, e, channels - rest, y, y_step);
}

/* By blocks of constant length, so that each loop is some vectors; the last is filled up. */
enum { BLOCK = 8 };

static ALWAYS_INLINE void fold_block(const float *mean, const float *variance, const float *gamma,
                                     const float *beta, const float *bias, double epsilon,
                                     float *scale, float *shift) {
    double factor[BLOCK], offset[BLOCK], centre[BLOCK];
    for (int i = 0; i < BLOCK; i++) centre[i] = (double)mean[i];
    for (int i = 0; bias && i < BLOCK; i++) centre[i] -= (double)bias[i];
    for (int i = 0; i < BLOCK; i++) factor[i] = gamma ? (double)gamma[i] : 1;
    for (int i = 0; i < BLOCK; i++) offset[i] = beta ? (double)beta[i] : 0;
    for (int i = 0; i < BLOCK; i++) factor[i] /= sqrt((double)variance[i] + epsilon);
    for (int i = 0; i < BLOCK; i++) scale[i] = (float)factor[i];
    for (int i = 0; i < BLOCK; i++) shift[i] = (float)(offset[i] - centre[i] * factor[i]);
}

enum { MEAN, VARIANCE, GAMMA, BETA, BIAS, VECTORS };

static void fold_rest(const float *const vector[VECTORS], int64_t first, int count, double epsilon,
                      float *scale, float *shift) {
    float copy[VECTORS][BLOCK] = {{0}}, result[2][BLOCK];
    size_t size = (size_t)count * sizeof(float);
    for (int i = 0; i < VECTORS; i++) {
        if (vector[i]) memcpy(copy[i], vector[i] + first, size);
    }
    for (int i = count; i < BLOCK; i++) copy[VARIANCE][i] = 1;
    fold_block(copy[MEAN], copy[VARIANCE], vector[GAMMA] ? copy[GAMMA] : NULL, copy[BETA],
               copy[BIAS], epsilon, result[0], result[1]);
    memcpy(scale + first, result[0], size);
    memcpy(shift + first, result[1], size);
}

static ALWAYS_INLINE const float *block_at(const float *vector, int64_t first) {
    return vector ? vector + first : NULL;
}

void KERNEL(fold_norm)(int64_t channels, const float *mean, const float *variance,
                       const float *gamma, const float *beta, const float *bias, double epsilon,
                       float *scale, float *shift) {
    int64_t first = 0;
    for (; first + BLOCK <= channels; first += BLOCK) {
        fold_block(mean + first, variance + first, block_at(gamma, first), block_at(beta, first),
                   block_at(bias, first), epsilon, scale + first, shift + first);
    }
    const float *const vector[VECTORS] = {mean, variance, gamma, beta, bias};
    if (first < channels) {
        fold_rest(vector, first, (int)(channels - first), epsilon, scale, shift);
    }
}
