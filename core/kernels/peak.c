/* peak.c: multiply-adds in registers alone.
 *
 * A multiply-add takes 4 or 5 cycles and two are started each cycle, so at least 10 sums are needed
 * to keep both units busy; 12 and their two operands fit the 16 registers of the smaller sets. */
#include "core/kernels/kernel.h"
#include "core/kernels/peak.h"

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
    float result = 0;
    for (int i = 0; i < VECTOR_FLOATS; i++) result += total[i];
    return result;
}

extern const peak_kernels KERNEL(peak);
const peak_kernels KERNEL(peak) = {.width = VECTOR_FLOATS, .multiply_add = multiply_add};
