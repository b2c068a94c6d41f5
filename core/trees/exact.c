/* exact.c: greedy trees on sorted columns.
 *
 * The columns are sorted once in a fit. Each tree takes a copy and keeps it divided by node: a
 * split divides every column's part of the node in two, both still sorted, so that each level reads
 * each column once from front to back.
 *
 * What is compared, and in which form, follows scikit-learn 1.2 (tree/_splitter.pyx,
 * tree/_criterion.pyx): values within 1e-7 count as equal; thresholds lie midway in double, or at
 * the lower value where that would not lie below the upper one; a split must be strictly better
 * than those before; nodes of no impurity are not split. Of equally good features the lowest wins,
 * where scikit-learn's choice is random. */
#include "core/trees/exact.h"

#include "core/base/threads.h"

#include <float.h>
#include <math.h>

static const float equal_within = 1e-7f;

/* ---- Sorting -------------------------------------------------------------------------------- */

typedef struct sorting {
    exact_method *method;
    const float *x;
    const uint32_t *kept;
} sorting;

static void sort_column(void *argument, int64_t feature, int worker) {
    const sorting *s = argument;
    exact_method *m = s->method;
    int64_t count = m->kept, features = m->growth->features;
    sorted_entry *column = m->sorted + feature * count;
    for (int64_t i = 0; i < count; i++) {
        uint32_t row = s->kept[i];
        column[i] = (sorted_entry){s->x[row * features + feature], row};
    }
    sort_entries(column, m->spare + worker * count, count);
}

/* ---- Sums of a node ------------------------------------------------------------------------- */

static node_sums sum_entries(const exact_method *m, const sorted_entry *entry, int64_t count) {
    double weight = 0, sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) {
        double y = m->target[entry[i].row], w = m->weight ? m->weight[entry[i].row] : 1;
        weight += w;
        sum += w * y;
        squares += w * y * y;
    }
    double mean = sum / weight;
    return (node_sums){weight, mean, squares / weight - mean * mean};
}

static void set_sums(const tree_growth *g, grow_node *node, node_sums sums) {
    node->weight = sums.weight;
    node->value = sums.value;
    node->impurity = sums.impurity;
    node->can_split = growth_may_split(g, node) && node->impurity > DBL_EPSILON;
}

/* How much the split takes from the sum of squares, and how urgent it is: the improvement of
 * scikit-learn's two criteria, of which only one counts the node's part of all rows. */
static void judge_split(const tree_growth *g, grow_node *node) {
    const node_sums *left = &node->side[0], *right = &node->side[1];
    node->gain = node->weight * node->impurity - left->weight * left->impurity -
                 right->weight * right->impurity;
    if (g->settings->friedman) {
        double difference = right->weight * (left->value * left->weight) -
                            left->weight * (right->value * right->weight);
        node->priority = difference * difference / (left->weight * right->weight * node->weight);
    } else {
        node->priority = node->weight / g->node[0].weight *
                         (node->impurity - right->weight / node->weight * right->impurity -
                          left->weight / node->weight * left->impurity);
    }
    if (node->priority + DBL_EPSILON < g->settings->min_impurity_decrease) node->can_split = false;
}

/* ---- The best threshold of one feature ------------------------------------------------------ */

typedef struct scan {
    const sorted_entry *entry;
    int64_t count, min_leaf;
    const double *target, *weight;
    double total, total_weight;
} scan;

static inline double improvement_of(double left, double left_weight, double right,
                                    double right_weight, bool friedman) {
    if (!friedman) return left * left / left_weight + right * right / right_weight;
    double difference = right_weight * left - left_weight * right;
    return difference * difference / (left_weight * right_weight);
}

/* `friedman` and `weighted` are constants at each call. */
static inline tree_split scan_entries(const scan *s, bool friedman, bool weighted) {
    tree_split best = {.improvement = -INFINITY};
    double sum = 0, weight = 0;
    for (int64_t i = 0; i + 1 < s->count; i++) {
        uint32_t row = s->entry[i].row;
        if (weighted) {
            sum += s->weight[row] * s->target[row];
            weight += s->weight[row];
        } else {
            sum += s->target[row];
        }
        float value = s->entry[i].value, next = s->entry[i + 1].value;
        if (next <= value + equal_within) continue;
        if (i + 1 < s->min_leaf || s->count - i - 1 < s->min_leaf) continue;
        double left_weight = weighted ? weight : (double)(i + 1);
        double improvement = improvement_of(sum, left_weight, s->total - sum,
                                            s->total_weight - left_weight, friedman);
        if (improvement > best.improvement) {
            best.improvement = improvement;
            best.left_count = i + 1;
        }
    }
    return best;
}

static tree_split best_threshold(const exact_method *m, const grow_node *node, int64_t feature) {
    const tree_growth *g = m->growth;
    scan s = {.entry = m->entry + feature * g->row_count + node->first,
              .count = node->last - node->first,
              .min_leaf = g->settings->min_leaf,
              .target = m->target,
              .weight = m->weight,
              .total = node->value * node->weight,
              .total_weight = node->weight};
    bool friedman = g->settings->friedman;
    tree_split split = {.improvement = -INFINITY, .constant = true};
    if (s.entry[s.count - 1].value > s.entry[0].value + equal_within)
        split = m->weight ? friedman ? scan_entries(&s, true, true) : scan_entries(&s, false, true)
                : friedman ? scan_entries(&s, true, false) : scan_entries(&s, false, false);
    split.feature = (int32_t)feature;
    if (split.improvement == -INFINITY) return split;
    float lower = s.entry[split.left_count - 1].value, upper = s.entry[split.left_count].value;
    split.threshold = (double)lower / 2 + (double)upper / 2;
    if (split.threshold == (double)upper) split.threshold = lower;
    return split;
}

/* ---- A batch of splits ---------------------------------------------------------------------- */

static void divide_column(const exact_method *m, sorted_entry *entry, int64_t count,
                          sorted_entry *spare) {
    int64_t left = 0, right = 0;
    for (int64_t i = 0; i < count; i++) {
        sorted_entry here = entry[i];
        bool goes_left = m->goes_left[here.row];
        entry[left] = here;
        spare[right] = here;
        left += goes_left;
        right += !goes_left;
    }
    memcpy(entry + left, spare, (size_t)right * sizeof *spare);
}

static void divide_rows(const exact_method *m, uint32_t *rows, int64_t count, uint32_t *spare) {
    int64_t left = 0, right = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t row = rows[i];
        bool goes_left = m->goes_left[row];
        rows[left] = row;
        spare[right] = row;
        left += goes_left;
        right += !goes_left;
    }
    memcpy(rows + left, spare, (size_t)right * sizeof *spare);
}

/* Piece `features` divides the list of rows, the others a column each, and look for the children's
 * best thresholds in it. */
static void divide_and_scan(void *argument, int64_t feature, int worker) {
    exact_method *m = argument;
    tree_growth *g = m->growth;
    sorted_entry *spare = m->spare + worker * m->kept;
    for (int i = 0; i < m->batch_count; i++) {
        const grow_node *node = &g->node[m->batch[i]];
        const grow_node *child[2] = {&g->node[node->left], &g->node[node->right]};
        int64_t count = node->last - node->first;
        if (feature == g->features) {
            divide_rows(m, g->rows + node->first, count, (uint32_t *)spare);
            continue;
        }
        if (!child[0]->can_split && !child[1]->can_split) continue;
        if (feature != node->split.feature)
            divide_column(m, m->entry + feature * g->row_count + node->first, count, spare);
        for (int side = 0; side < 2; side++)
            if (child[side]->can_split)
                growth_candidates(g, i, side)[feature] = best_threshold(m, child[side], feature);
    }
}

/* Marks where the rows of a node that is to be split will go, and sums both sides. The marks stay
 * until then: a row stands in one leaf at a time. */
static void mark_sides(const exact_method *m, grow_node *node) {
    const tree_growth *g = m->growth;
    if (!node->can_split) return;
    const sorted_entry *entry = m->entry + node->split.feature * g->row_count + node->first;
    int64_t count = node->last - node->first, left = node->split.left_count;
    for (int64_t i = 0; i < count; i++) m->goes_left[entry[i].row] = i < left;
    node->side[0] = sum_entries(m, entry, left);
    node->side[1] = sum_entries(m, entry + left, count - left);
    judge_split(g, node);
}

static void mark_child(void *argument, int64_t piece, int worker) {
    exact_method *m = argument;
    const grow_node *parent = &m->growth->node[m->batch[piece / 2]];
    (void)worker;
    mark_sides(m, &m->growth->node[piece % 2 ? parent->right : parent->left]);
}

static resin_status exact_expand(tree_growth *g, const int32_t *nodes, int count) {
    exact_method *m = g->method;
    bool any_scan = false;
    int64_t rows = 0;
    for (int i = 0; i < count; i++) {
        const grow_node *node = &g->node[nodes[i]];
        rows += node->last - node->first;
        grow_node *left = &g->node[node->left], *right = &g->node[node->right];
        set_sums(g, left, node->side[0]);
        set_sums(g, right, node->side[1]);
        any_scan |= left->can_split || right->can_split;
    }
    m->batch = nodes;
    m->batch_count = count;
    if (!any_scan) {
        divide_and_scan(m, g->features, 0);
        return RESIN_OK;
    }
    trees_parallel(g->context, g->features + 1, rows * g->features, divide_and_scan, m);
    for (int i = 0; i < count; i++)
        for (int side = 0; side < 2; side++) {
            int32_t child = side ? g->node[nodes[i]].right : g->node[nodes[i]].left;
            if (g->node[child].can_split)
                g->node[child].can_split = growth_choose(g, child, growth_candidates(g, i, side));
        }
    trees_parallel(g->context, 2 * count, rows, mark_child, m);
    return RESIN_OK;
}

/* ---- The root ------------------------------------------------------------------------------- */

/* The tree's copy of a column: of all rows, or of those in the bag; and its best threshold. */
static void copy_and_scan(void *argument, int64_t feature, int worker) {
    exact_method *m = argument;
    tree_growth *g = m->growth;
    (void)worker;
    const sorted_entry *from = m->sorted + feature * m->kept;
    sorted_entry *to = m->entry + feature * g->row_count;
    if (m->in_bag) {
        int64_t count = 0;
        for (int64_t i = 0; i < m->kept; i++)
            if (m->in_bag[from[i].row]) to[count++] = from[i];
    } else {
        memcpy(to, from, (size_t)m->kept * sizeof *to);
    }
    if (g->node[0].can_split) g->candidate[feature] = best_threshold(m, &g->node[0], feature);
}

static resin_status exact_start(tree_growth *g) {
    exact_method *m = g->method;
    grow_node *root = &g->node[0];
    sorted_entry *entry = m->spare; /* the list of rows, to be summed like a column */
    for (int64_t i = 0; i < g->row_count; i++) entry[i] = (sorted_entry){0, g->rows[i]};
    set_sums(g, root, sum_entries(m, entry, g->row_count));
    trees_parallel(g->context, g->features, g->row_count * g->features, copy_and_scan, m);
    if (root->can_split) root->can_split = growth_choose(g, 0, g->candidate);
    mark_sides(m, root);
    return RESIN_OK;
}

resin_status exact_prepare(exact_method *m, tree_growth *g, const float *x, int64_t rows,
                           const uint32_t *kept, int64_t kept_count) {
    int64_t entries, spare;
    if (__builtin_mul_overflow(g->features, kept_count, &entries) ||
        __builtin_mul_overflow(resin_workers(g->context), kept_count, &spare))
        return resin_fail(g->context, RESIN_ERROR_MEMORY, "trees: the table is too large");
    m->growth = g;
    m->rows = rows;
    m->kept = kept_count;
    RESIN_TRY(scratch_take(g->scratch, entries, sizeof *m->sorted, &m->sorted));
    RESIN_TRY(scratch_take(g->scratch, entries, sizeof *m->entry, &m->entry));
    RESIN_TRY(scratch_take(g->scratch, spare, sizeof *m->spare, &m->spare));
    RESIN_TRY(scratch_take(g->scratch, rows, 1, &m->goes_left));
    sorting s = {m, x, kept};
    resin_parallel(g->context, g->features, sort_column, &s);
    g->method = m;
    g->start = exact_start;
    g->expand = exact_expand;
    return RESIN_OK;
}
