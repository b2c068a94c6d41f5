/* peak.c: multiply-adds in registers alone, and memory alone.
 *
 * A multiply-add takes 4 or 5 cycles and two are started each cycle, so at least 10 sums are needed
 * to keep both units busy; 12 and their two operands fit the 16 registers of the smaller sets. */
#include "core/kernels/kernel.h"
#include "core/kernels/peak.h"

static float sum_of_lanes(vfloat v) {
    float sum = 0;
    for (int i = 0; i < VECTOR_FLOATS; i++) sum += v[i];
    return sum;
}

static float multiply_add(int64_t rounds) {
    vfloat factor = vset(0.9999f), term = vset(0.0001f), sum[PEAK_SUMS];
#pragma GCC unroll 12
    for (int i = 0; i < PEAK_SUMS; i++) sum[i] = vset((float)i);
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_SUMS; i++) sum[i] = sum[i] * factor + term;
    }
    vfloat total = vset(0);
    for (int i = 0; i < PEAK_SUMS; i++) total += sum[i];
    return sum_of_lanes(total);
}

static float read(int64_t count, const float *from) {
    enum { SUMS = PEAK_STEP / VECTOR_FLOATS };
    vfloat sum[SUMS], total = vset(0);
    for (int i = 0; i < SUMS; i++) sum[i] = vset(0);
    for (int64_t at = 0; at < count; at += PEAK_STEP) {
        UNROLL
        for (int i = 0; i < SUMS; i++) sum[i] += vload(from + at + i * VECTOR_FLOATS);
    }
    for (int i = 0; i < SUMS; i++) total += sum[i];
    return sum_of_lanes(total);
}

static void copy(int64_t count, float factor, const float *from, float *to) {
    const vfloat factors = vset(factor);
    for (int64_t at = 0; at < count; at += VECTOR_FLOATS)
        vstore(to + at, factors * vload(from + at));
}

extern const peak_kernels KERNEL(peak);
const peak_kernels KERNEL(peak) = {
    .width = VECTOR_FLOATS, .multiply_add = multiply_add, .read = read, .copy = copy};
