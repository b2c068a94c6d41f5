/* histogram.h: trees over binned tables: sums of gradients by bin, and the best split of a feature
 * from them.
 *
 * Sums are whole numbers in fixed point, so that their order does not matter: the same histogram
 * comes out at any number of threads, and the difference of two histograms is exact. A bin is one
 * 64-bit word, the sum of (gradient << count_bits) + 1 over its rows, or two, the second the sum of
 * second derivatives where these are not all 1. Adding up and subtracting words adds and subtracts
 * both parts at once. */
#ifndef RESIN_TREES_HISTOGRAM_H
#define RESIN_TREES_HISTOGRAM_H

#include "core/trees/bins.h"
#include "core/trees/grow.h"

typedef struct histogram_scale {
    int count_bits;               /* 2^count_bits is more than all rows */
    int words;                    /* of a bin: 1 or 2 */
    double gradient_unit, hessian_unit; /* what 1 means in a sum */
} histogram_scale;

static inline int64_t word_count(const histogram_scale *scale, int64_t word) {
    return word & (((int64_t)1 << scale->count_bits) - 1);
}
/* The shift keeps the sign (gcc's and clang's rule) and rounds down, which takes off the count. */
static inline int64_t word_gradient(const histogram_scale *scale, int64_t word) {
    return word >> scale->count_bits;
}

/* A part of the rows of one node, whose sums go into `sums`. */
typedef struct build_block {
    const uint32_t *rows;
    int64_t count;
    int64_t *sums;
} build_block;

/* A node to be split whose children may be split in turn. */
typedef struct build_pair {
    int position; /* in the batch */
    int32_t small, large;
    int64_t *sums;         /* of the smaller child; the larger one takes over the parent's */
    int first_block, last_block;
} build_pair;

/* A part of the rows of one node, divided by its split. */
typedef struct divide_block {
    int position;
    int64_t first, last, left_count;
    int64_t left_place, right_place; /* where its parts come to stand */
} divide_block;

enum { MAX_BLOCKS = 64, BATCH_BLOCKS = MAX_BLOCKS + 2 * GROW_BATCH };

typedef struct histogram_method {
    tree_growth *growth;
    const binned_table *table;
    histogram_scale scale;
    const double *target, *hessian, *weight; /* by row; the last two may be NULL */
    int32_t *fixed_gradient, *fixed_hessian; /* by row */
    uint32_t *divided[2];                    /* (row_count): left and right parts of blocks */
    uint8_t (*goes_left)[BIN_COUNT];         /* by position in the batch */
    double *largest;                         /* by piece, while gradients are converted */
    int64_t pieces;
    int64_t **every_sums, **free_sums; /* all histograms, and those at rest */
    int64_t made, free_count, capacity;
    const int32_t *batch;
    build_block block[BATCH_BLOCKS];
    int blocks;
    build_pair pair[GROW_BATCH];
    int pairs;
    divide_block part[BATCH_BLOCKS];
    int parts;
} histogram_method;

/* `rows`: of the table. */
resin_status histogram_prepare(histogram_method *method, tree_growth *growth,
                               const binned_table *table);

/* The best split of a node by one feature, from its sums of that feature. */
tree_split histogram_split(const histogram_method *method, const grow_node *node, int64_t feature);
/* The value that sums ask for, within the node's bounds. */
double histogram_value(const histogram_method *method, const grow_node *node);

#endif
