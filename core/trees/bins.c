/* bins.c: where the borders of bins lie, and which bin a value has. */
#include "core/trees/bins.h"

#include "core/base/threads.h"
#include "core/trees/sorted.h"

#include <math.h>

enum {
    SAMPLE_ROWS = 262144, /* at most so many values decide on the borders of a feature */
    ROW_BLOCK = 4096
};

typedef struct binning {
    const resin_trees_settings *settings;
    const float *x;
    const uint32_t *kept;
    int64_t count, sampled;
    sorted_entry *entry; /* (workers, 2, sampled) */
    binned_table *table;
} binning;

static bool is_categorical(const binning *b, int64_t feature) {
    return b->settings->categorical && b->settings->categorical[feature];
}

/* Midway, rounded down; the lower value where the sum would be infinite or reach the upper one. */
static float border_between(float lower, float upper) {
    double middle = (double)lower / 2 + (double)upper / 2;
    float border = (float)middle;
    if ((double)border > middle) border = nextafterf(border, -INFINITY);
    return isfinite(middle) && border < upper ? border : lower;
}

/* Cuts sorted values: between all distinct ones if they are few enough, else after each further
 * part 1 / bins of the values, never between equal ones. */
static void cut(feature_bins *bins, const sorted_entry *entry, int64_t count, int64_t most) {
    int64_t distinct = count > 0, next_part = 1;
    for (int64_t i = 1; i < count; i++) distinct += entry[i].value != entry[i - 1].value;
    int borders = 0;
    for (int64_t i = 0; i + 1 < count && borders < most - 1; i++) {
        if (entry[i].value == entry[i + 1].value) continue;
        if (distinct > most && (i + 1) * most < next_part * count) continue;
        bins->border[borders++] = border_between(entry[i].value, entry[i + 1].value);
        next_part = (i + 1) * most / count + 1;
    }
    bins->count = borders + 1;
    for (int b = borders; b < BIN_COUNT; b++) bins->border[b] = INFINITY;
}

static void cut_feature(void *argument, int64_t feature, int worker) {
    binning *b = argument;
    feature_bins *bins = &b->table->bins[feature];
    sorted_entry *entry = b->entry + 2 * worker * b->sampled;
    int64_t features = b->table->features, count = 0;
    if (is_categorical(b, feature)) {
        bins->count = MAX_CATEGORY + 1;
        return;
    }
    for (int64_t i = 0; i < b->sampled; i++) {
        int64_t from = b->sampled == b->count ? i : i * b->count / b->sampled;
        float value = b->x[b->kept[from] * features + feature];
        if (value == value) entry[count++] = (sorted_entry){value, 0};
    }
    sort_entries(entry, entry + b->sampled, count);
    cut(bins, entry, count, b->settings->bins);
}

/* The number of borders below x: eight halvings without a branch. */
static inline uint8_t bin_of(const float *border, float x) {
    int at = 0;
    for (int step = BIN_COUNT / 2; step > 0; step /= 2) at += border[at + step - 1] < x ? step : 0;
    return (uint8_t)(x != x ? MISSING_BIN : at);
}

static inline bool is_category(float x) {
    return x != x || (x >= 0 && x <= MAX_CATEGORY && x == (float)(int)x);
}

static void bin_block(void *argument, int64_t piece, int worker) {
    const binning *b = argument;
    const binned_table *t = b->table;
    int64_t first = piece * ROW_BLOCK, last = first + ROW_BLOCK;
    (void)worker;
    if (last > t->rows) last = t->rows;
    for (int64_t f = 0; f < t->features; f++) {
        const float *border = t->bins[f].border;
        uint8_t *column = t->by_feature + f * t->rows;
        bool categorical = is_categorical(b, f);
        for (int64_t row = first; row < last; row++) {
            float x = b->x[row * t->features + f];
            uint8_t bin = MISSING_BIN;
            if (!categorical) bin = bin_of(border, x);
            else if (x == x && is_category(x)) bin = (uint8_t)x;
            column[row] = bin;
            t->by_row[row * t->features + f] = bin;
        }
    }
}

/* Every category that is there must be a number from 0 to MAX_CATEGORY. */
static resin_status check_categories(resin_context *context, const binning *b) {
    int64_t features = b->table->features;
    for (int64_t f = 0; f < features; f++) {
        if (!is_categorical(b, f)) continue;
        for (int64_t i = 0; i < b->count; i++) {
            float x = b->x[b->kept[i] * features + f];
            if (!is_category(x))
                return resin_fail(context, RESIN_ERROR_ARGUMENT,
                                  "boost: feature %lld of %lld is categorical: expected whole "
                                  "numbers from 0 to %d, got %g in row %lld", (long long)f + 1,
                                  (long long)features, MAX_CATEGORY, (double)x,
                                  (long long)b->kept[i] + 1);
        }
    }
    return RESIN_OK;
}

resin_status bins_make(scratch_list *scratch, const resin_trees_settings *settings, const float *x,
                       int64_t rows, int64_t features, const uint32_t *kept, int64_t count,
                       binned_table *out) {
    resin_context *context = scratch->context;
    scratch_list own = {.context = context};
    int64_t cells, sampled = count < SAMPLE_ROWS ? count : SAMPLE_ROWS;
    if (__builtin_mul_overflow(rows, features, &cells))
        return resin_fail(context, RESIN_ERROR_MEMORY, "trees: the table is too large");
    *out = (binned_table){.rows = rows, .features = features};
    RESIN_TRY(scratch_take(scratch, features, sizeof *out->bins, &out->bins));
    RESIN_TRY(scratch_take(scratch, cells, 1, &out->by_row));
    RESIN_TRY(scratch_take(scratch, cells, 1, &out->by_feature));
    binning b = {.settings = settings, .x = x, .kept = kept, .count = count, .sampled = sampled,
                 .table = out};
    RESIN_TRY(check_categories(context, &b));
    resin_status status = scratch_take(&own, 2 * resin_workers(context) * sampled,
                                       sizeof *b.entry, &b.entry);
    if (status == RESIN_OK) {
        resin_parallel(context, features, cut_feature, &b);
        resin_parallel(context, (rows + ROW_BLOCK - 1) / ROW_BLOCK, bin_block, &b);
    }
    scratch_free(&own);
    return status;
}
