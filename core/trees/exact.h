/* exact.h: trees for which every value is a possible threshold, with scikit-learn's results. */
#ifndef RESIN_TREES_EXACT_H
#define RESIN_TREES_EXACT_H

#include "core/trees/grow.h"
#include "core/trees/sorted.h"

typedef struct exact_method {
    tree_growth *growth;
    int64_t rows;           /* of the table */
    int64_t kept;           /* rows in the sorted columns */
    sorted_entry *sorted;   /* (features, kept) */
    sorted_entry *entry;    /* (features, row_count): of the tree, those of a node together */
    sorted_entry *spare;    /* (workers, kept) */
    uint8_t *goes_left;     /* by row of the table */
    const uint8_t *in_bag;  /* by row: whether the tree sees it; NULL: all */
    const double *target;   /* by row */
    const double *weight;   /* by row, or NULL */
    const int32_t *batch;   /* nodes being split, while a region runs */
    int batch_count;
} exact_method;

/* Sorts the columns of `x` (rows, features): of the rows kept[0 .. kept_count - 1], ascending. */
resin_status exact_prepare(exact_method *method, tree_growth *growth, const float *x, int64_t rows,
                           const uint32_t *kept, int64_t kept_count);

#endif
