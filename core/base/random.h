/* random.h: counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel
 * random numbers: as easy as 1, 2, 3", SC 2011). The n-th number of a stream is a function of
 * (seed, stream, n) only, so threads and order do not matter. */
#ifndef RESIN_BASE_RANDOM_H
#define RESIN_BASE_RANDOM_H

#include "core/base/context.h"

/* Four random words of counter (high, low) under a key. */
void resin_philox(uint64_t key, uint64_t counter_high, uint64_t counter_low, uint32_t out[4]);

/* The stream number for the next random tensor of this context. */
uint64_t resin_random_next_stream(resin_context *context);

/* [0, 1) with 24 or 53 bits. */
static inline float resin_unit_float(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; }
static inline double resin_unit_double(uint32_t high, uint32_t low) {
    return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53;
}

#endif
