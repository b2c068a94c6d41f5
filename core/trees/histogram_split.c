/* histogram_split.c: the best split of one feature from its histogram.
 *
 * The gain of a split is GL^2 / (HL + l2) + GR^2 / (HR + l2) - G^2 / (H + l2), sums of gradients
 * and second derivatives of both sides and of the node (Chen and Guestrin, "XGBoost", 2016,
 * equation 7, without its factor 1/2: with H = row count and l2 = 0 it is what the split takes from
 * the sum of squares). Missing values are tried on both sides. */
#include "core/trees/histogram.h"

#include <math.h>
#include <stdlib.h>

typedef struct side_sums {
    int64_t gradient, hessian, count;
} side_sums;

typedef struct search {
    const histogram_method *method;
    const resin_trees_settings *settings;
    const grow_node *node;
    const int64_t *bin; /* `words` words each */
    side_sums total;
    double hessian_unit, l2;
    int monotone;
    double best; /* in fixed-point units of the gradient, squared */
    side_sums best_left;
    int best_bin;
    bool best_missing_left;
} search;

static side_sums sums_of(const histogram_scale *scale, const int64_t *word) {
    int64_t count = word_count(scale, word[0]);
    return (side_sums){word_gradient(scale, word[0]), scale->words > 1 ? word[1] : count, count};
}

static side_sums plus(side_sums a, side_sums b) {
    return (side_sums){a.gradient + b.gradient, a.hessian + b.hessian, a.count + b.count};
}

static side_sums minus(side_sums a, side_sums b) {
    return (side_sums){a.gradient - b.gradient, a.hessian - b.hessian, a.count - b.count};
}

static double clamp(double value, double low, double high) {
    return value < low ? low : value > high ? high : value;
}

/* Value and score of one side, in real units, with the value held within the node's bounds:
 * 2 G w - (H + l2) w^2, which is G^2 / (H + l2) at the best w. */
static double side_value(const search *s, side_sums side) {
    double g = (double)side.gradient * s->method->scale.gradient_unit;
    double h = (double)side.hessian * s->hessian_unit + s->l2;
    return clamp(h > 0 ? g / h : 0, s->node->low, s->node->high);
}

static double side_score(const search *s, side_sums side, double value) {
    double g = (double)side.gradient * s->method->scale.gradient_unit;
    double h = (double)side.hessian * s->hessian_unit + s->l2;
    return 2 * g * value - h * value * value;
}

static double bounded_score(const search *s, side_sums left, side_sums right) {
    double low = side_value(s, left), high = side_value(s, right);
    if (s->monotone * (high - low) < 0) return -INFINITY;
    double unit = s->method->scale.gradient_unit;
    return (side_score(s, left, low) + side_score(s, right, high)) / (unit * unit);
}

/* Keeps the split if it is allowed and strictly better. */
static inline void try_split(search *s, side_sums left, int bin, bool missing_left, bool bounded) {
    side_sums right = minus(s->total, left);
    if (left.count < s->settings->min_leaf || right.count < s->settings->min_leaf) return;
    double left_h = (double)left.hessian * s->hessian_unit;
    double right_h = (double)right.hessian * s->hessian_unit;
    if (left_h < s->settings->min_leaf_hessian || right_h < s->settings->min_leaf_hessian) return;
    left_h += s->l2;
    right_h += s->l2;
    if (!(left_h > 0 && right_h > 0)) return;
    double score, divisor = 1;
    if (bounded) {
        score = bounded_score(s, left, right);
    } else {
        double left_g = (double)left.gradient, right_g = (double)right.gradient;
        score = left_g * left_g * right_h + right_g * right_g * left_h;
        divisor = left_h * right_h;
    }
    /* Most splits are not the best so far, and need no division. */
    if (!(score > s->best * divisor)) return;
    s->best = score / divisor;
    s->best_left = left;
    s->best_bin = bin;
    s->best_missing_left = missing_left;
}

/* All borders of a numeric feature. `bounded` and `missing` are constants at each call. */
static inline void search_borders(search *s, int bins, bool bounded, bool missing) {
    const histogram_scale *scale = &s->method->scale;
    side_sums absent = sums_of(scale, s->bin + MISSING_BIN * scale->words), left = {0, 0, 0};
    for (int b = 0; b < bins; b++) {
        const int64_t *word = s->bin + b * scale->words;
        if (word[0] == 0) continue; /* no row: the same split as before */
        left = plus(left, sums_of(scale, word));
        if (left.count == s->total.count) break;
        try_split(s, left, b, false, bounded);
        if (missing && left.count + absent.count < s->total.count)
            try_split(s, plus(left, absent), b, true, bounded);
    }
}

/* The same for one word a bin, no missing values and no bounds: words are added up as they are. */
static void search_counts(search *s, int bins) {
    const histogram_scale *scale = &s->method->scale;
    double least = fmax((double)s->settings->min_leaf, s->settings->min_leaf_hessian);
    double total_count = (double)s->total.count, total_gradient = (double)s->total.gradient;
    double l2 = s->l2, best = s->best;
    int64_t word = 0, best_word = 0;
    for (int b = 0; b < bins; b++) {
        if (s->bin[b] == 0) continue;
        word += s->bin[b];
        double left_h = (double)word_count(scale, word), right_h = total_count - left_h;
        if (left_h < least) continue;
        if (right_h < least || right_h == 0) break;
        double left_g = (double)word_gradient(scale, word), right_g = total_gradient - left_g;
        left_h += l2;
        right_h += l2;
        double score = left_g * left_g * right_h + right_g * right_g * left_h;
        double divisor = left_h * right_h;
        if (!(score > best * divisor)) continue;
        best = score / divisor;
        best_word = word;
        s->best_bin = b;
    }
    s->best = best;
    s->best_left = sums_of(scale, &best_word);
}

/* ---- Categories ----------------------------------------------------------------------------- */

typedef struct category {
    side_sums sums;
    double value;
    int bin;
} category;

static int compare_categories(const void *a, const void *b) {
    const category *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    return x->bin - y->bin;
}

/* In the order of their values the best division in two is a border (Fisher, "On grouping for
 * maximum homogeneity", 1958). Missing values are a category of their own here. */
static void search_categories(search *s, tree_split *split) {
    const histogram_scale *scale = &s->method->scale;
    category list[BIN_COUNT];
    int count = 0;
    for (int b = 0; b < BIN_COUNT; b++) {
        side_sums sums = sums_of(scale, s->bin + b * scale->words);
        if (sums.count == 0) continue;
        list[count++] = (category){sums, side_value(s, sums), b};
    }
    qsort(list, (size_t)count, sizeof *list, compare_categories);
    side_sums left = {0, 0, 0};
    for (int i = 0; i + 1 < count; i++) {
        left = plus(left, list[i].sums);
        try_split(s, left, i, false, false);
    }
    split->categorical = true;
    split->constant = count < 2;
    split->missing_left = s->best_left.count >= s->total.count - s->best_left.count;
    for (int i = 0; i < count; i++) {
        bool left_side = i <= s->best_bin;
        if (list[i].bin == MISSING_BIN) split->missing_left = left_side;
        else if (left_side) set_add(&split->set, (unsigned)list[i].bin);
    }
}

/* ---- One feature ---------------------------------------------------------------------------- */

static void search_numeric(search *s, int bins, bool missing, tree_split *split) {
    bool bounded = s->settings->monotone != NULL;
    if (bounded) search_borders(s, bins, true, missing);
    else if (missing) search_borders(s, bins, false, true);
    else if (s->method->scale.words > 1) search_borders(s, bins, false, false);
    else search_counts(s, bins);
    /* Where nothing was missing, new missing values follow the larger side. */
    split->missing_left = missing ? s->best_missing_left
                                  : s->best_left.count >= s->total.count - s->best_left.count;
    split->bin = (int16_t)s->best_bin;
}

tree_split histogram_split(const histogram_method *m, const grow_node *node, int64_t feature) {
    const histogram_scale *scale = &m->scale;
    const resin_trees_settings *settings = m->growth->settings;
    const feature_bins *bins = &m->table->bins[feature];
    search s = {.method = m,
                .settings = settings,
                .node = node,
                .bin = node->histogram + feature * BIN_COUNT * scale->words,
                .total = {node->gradient, node->hessian, node->last - node->first},
                .hessian_unit = scale->hessian_unit,
                .l2 = settings->l2,
                .monotone = settings->monotone ? settings->monotone[feature] : 0,
                .best = -INFINITY};
    tree_split split = {.improvement = -INFINITY, .feature = (int32_t)feature};
    if (settings->categorical && settings->categorical[feature]) {
        search_categories(&s, &split);
    } else {
        bool missing = s.bin[MISSING_BIN * scale->words] != 0;
        split.constant = bins->count < 2 && !missing;
        search_numeric(&s, bins->count, missing, &split);
        split.threshold = bins->border[s.best_bin];
    }
    if (s.best == -INFINITY) return split;
    double unit = scale->gradient_unit, all = s.best * unit * unit;
    double gain = all - side_score(&s, s.total, side_value(&s, s.total));
    if (gain > settings->min_gain && gain > 1e-12 * all) split.improvement = gain;
    split.left_count = s.best_left.count;
    split.left_gradient = s.best_left.gradient;
    split.left_hessian = s.best_left.hessian;
    split.low_value = side_value(&s, s.best_left);
    split.high_value = side_value(&s, minus(s.total, s.best_left));
    return split;
}

double histogram_value(const histogram_method *m, const grow_node *node) {
    search s = {.method = m, .node = node, .hessian_unit = m->scale.hessian_unit,
                .l2 = m->growth->settings->l2};
    return side_value(&s, (side_sums){node->gradient, node->hessian, node->last - node->first});
}
