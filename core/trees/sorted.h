/* sorted.h: columns in the order of their values. */
#ifndef RESIN_TREES_SORTED_H
#define RESIN_TREES_SORTED_H

#include <stdint.h>

typedef struct sorted_entry {
    float value;
    uint32_t row;
} sorted_entry;

/* By value (no NaN), equal values by their place; -0 and 0 are equal. `spare` has the same length.
 * Radix sort, three passes. */
void sort_entries(sorted_entry *entries, sorted_entry *spare, int64_t count);

#endif
