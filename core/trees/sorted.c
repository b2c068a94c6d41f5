/* sorted.c: columns in the order of their values. */
#include "core/trees/sorted.h"

#include <string.h>

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, PASSES = 3 };

/* A number whose order as an unsigned integer is that of the float. */
static inline uint32_t key_of(float value) {
    uint32_t bits;
    value += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &value, sizeof bits);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

static inline uint32_t digit_of(float value, int pass) {
    return key_of(value) >> (pass * DIGIT_BITS) & (DIGITS - 1);
}

void sort_entries(sorted_entry *entries, sorted_entry *spare, int64_t count) {
    uint32_t start[PASSES][DIGITS];
    memset(start, 0, sizeof start);
    for (int64_t i = 0; i < count; i++)
        for (int pass = 0; pass < PASSES; pass++) start[pass][digit_of(entries[i].value, pass)]++;
    for (int pass = 0; pass < PASSES; pass++) {
        uint32_t sum = 0;
        for (int digit = 0; digit < DIGITS; digit++) {
            uint32_t here = start[pass][digit];
            start[pass][digit] = sum;
            sum += here;
        }
        for (int64_t i = 0; i < count; i++)
            spare[start[pass][digit_of(entries[i].value, pass)]++] = entries[i];
        sorted_entry *other = entries;
        entries = spare;
        spare = other;
    }
    /* After an odd number of passes the result stands in the caller's spare array. */
    memcpy(spare, entries, (size_t)count * sizeof *entries);
}
