/* peak.h: what the processor can do at most, to measure everything else against. */
#ifndef RESIN_KERNELS_PEAK_H
#define RESIN_KERNELS_PEAK_H

#include <stdint.h>

enum { PEAK_SUMS = 12, PEAK_STEP = 64 };

typedef struct peak_kernels {
    int width; /* floats in a vector */
    /* `rounds` rounds of PEAK_SUMS multiply-adds of whole vectors that do not wait for each other
     * and touch no memory. Returns a number made of all of them, so that none is left out. */
    float (*multiply_add)(int64_t rounds);
    /* The sum of `count` floats, a multiple of PEAK_STEP: reads and nothing else to speak of. */
    float (*read)(int64_t count, const float *from);
    /* to = factor from. */
    void (*copy)(int64_t count, float factor, const float *from, float *to);
} peak_kernels;

#endif
