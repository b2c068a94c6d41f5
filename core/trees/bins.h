/* bins.h: columns cut into bins of one byte. */
#ifndef RESIN_TREES_BINS_H
#define RESIN_TREES_BINS_H

#include "core/trees/trees.h"

/* Bin b of a feature holds the values with border[b - 1] < x <= border[b]; borders beyond the last
 * bin are infinite. Categories are their own bins. NaN has the bin MISSING_BIN. */
typedef struct feature_bins {
    int count;
    float border[BIN_COUNT];
} feature_bins;

typedef struct binned_table {
    int64_t rows, features;
    feature_bins *bins;   /* by feature */
    uint8_t *by_row;      /* (rows, features): for histograms */
    uint8_t *by_feature;  /* (features, rows): for dividing rows */
} binned_table;

/* Borders come from the rows kept[0 .. count - 1] (from an even choice of them where there are
 * many), bins are given to all rows. */
resin_status bins_make(scratch_list *scratch, const resin_trees_settings *settings, const float *x,
                       int64_t rows, int64_t features, const uint32_t *kept, int64_t count,
                       binned_table *out);

#endif
