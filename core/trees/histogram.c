/* histogram.c: growing a tree over a binned table: histograms of nodes, and the rows divided.
 *
 * Of two siblings only the smaller one's histogram is built; the larger one's is the parent's less
 * it, in place. Work is cut into blocks of rows; each block has sums of its own, which are added up
 * feature by feature just before the feature is searched. Features are taken in groups whose sums
 * fit the first-level cache. */
#include "core/trees/histogram.h"

#include "core/base/threads.h"

#include <math.h>

enum {
    BLOCK_ROWS = 8192,  /* at least so many rows in a block */
    GROUP_WORDS = 5120, /* words of sums of a group of features: 40 KB */
    AHEAD = 16          /* rows whose bins are asked for beforehand */
};

/* ---- Histograms at rest --------------------------------------------------------------------- */

static int64_t histogram_words(const histogram_method *m) {
    return m->table->features * BIN_COUNT * m->scale.words;
}

static void give_back(histogram_method *m, int64_t **sums) {
    if (*sums) m->free_sums[m->free_count++] = *sums;
    *sums = NULL;
}

static resin_status reserve_histograms(histogram_method *m) {
    int64_t **every, capacity = m->capacity ? 2 * m->capacity : 64;
    if (m->made < m->capacity) return RESIN_OK;
    RESIN_TRY(scratch_take(m->growth->scratch, capacity, sizeof *every, &every));
    if (m->made) memcpy(every, m->every_sums, (size_t)m->made * sizeof *every);
    m->every_sums = every;
    /* Asked for when none is at rest: nothing to copy. */
    RESIN_TRY(scratch_take(m->growth->scratch, capacity, sizeof *m->free_sums, &m->free_sums));
    m->capacity = capacity;
    return RESIN_OK;
}

static resin_status take_histogram(histogram_method *m, int64_t **sums) {
    if (m->free_count > 0) {
        *sums = m->free_sums[--m->free_count];
        return RESIN_OK;
    }
    RESIN_TRY(reserve_histograms(m));
    RESIN_TRY(scratch_take(m->growth->scratch, histogram_words(m), sizeof **sums, sums));
    m->every_sums[m->made++] = *sums;
    return RESIN_OK;
}

/* Also those of leaves that the last tree might still have split. */
static void take_all_back(histogram_method *m) {
    if (m->made) memcpy(m->free_sums, m->every_sums, (size_t)m->made * sizeof *m->free_sums);
    m->free_count = m->made;
}

/* ---- Gradients in fixed point --------------------------------------------------------------- */

static double row_gradient(const histogram_method *m, uint32_t row) {
    return m->weight ? m->weight[row] * m->target[row] : m->target[row];
}

static double row_hessian(const histogram_method *m, uint32_t row) {
    double h = m->hessian ? m->hessian[row] : 1;
    return m->weight ? m->weight[row] * h : h;
}

static void find_largest(void *argument, int64_t piece, int worker) {
    histogram_method *m = argument;
    int64_t first, last;
    double gradient = 0, hessian = 0;
    (void)worker;
    resin_piece_bounds(m->growth->row_count, m->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++) {
        uint32_t row = m->growth->rows[i];
        double g = fabs(row_gradient(m, row));
        if (g > gradient) gradient = g;
        if (m->scale.words < 2) continue;
        double h = row_hessian(m, row);
        if (h > hessian) hessian = h;
    }
    m->largest[2 * piece] = gradient;
    m->largest[2 * piece + 1] = hessian;
}

static void convert(void *argument, int64_t piece, int worker) {
    histogram_method *m = argument;
    int64_t first, last;
    double gradient_factor = 1 / m->scale.gradient_unit, hessian_factor = 1 / m->scale.hessian_unit;
    (void)worker;
    resin_piece_bounds(m->growth->row_count, m->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++) {
        uint32_t row = m->growth->rows[i];
        m->fixed_gradient[row] = (int32_t)rint(row_gradient(m, row) * gradient_factor);
        if (m->scale.words > 1)
            m->fixed_hessian[row] = (int32_t)rint(row_hessian(m, row) * hessian_factor);
    }
}

/* A power of two, such that `largest` has 30 bits and the sum over all rows has `bits`. */
static double unit_for(double largest, int bits, int count_bits) {
    int exponent;
    if (!(largest > 0)) return 1;
    frexp(largest, &exponent); /* largest < 2^exponent */
    int digits = bits - count_bits < 30 ? bits - count_bits : 30;
    return ldexp(1, exponent - digits);
}

static resin_status to_fixed_point(histogram_method *m) {
    tree_growth *g = m->growth;
    double gradient = 0, hessian = 0;
    m->scale.words = m->hessian || m->weight ? 2 : 1;
    m->scale.count_bits = 1;
    while ((int64_t)1 << m->scale.count_bits <= g->row_count) m->scale.count_bits++;
    m->pieces = resin_piece_count(g->row_count, BLOCK_ROWS);
    trees_parallel(g->context, m->pieces, g->row_count, find_largest, m);
    for (int64_t i = 0; i < m->pieces; i++) {
        gradient = fmax(gradient, m->largest[2 * i]);
        hessian = fmax(hessian, m->largest[2 * i + 1]);
    }
    if (!isfinite(gradient) || !isfinite(hessian))
        return resin_fail(g->context, RESIN_ERROR_ARGUMENT, "trees: a gradient is not finite");
    m->scale.gradient_unit = unit_for(gradient, 62 - m->scale.count_bits, m->scale.count_bits);
    m->scale.hessian_unit = m->scale.words > 1 ? unit_for(hessian, 62, m->scale.count_bits) : 1;
    trees_parallel(g->context, m->pieces, g->row_count, convert, m);
    return RESIN_OK;
}

/* ---- Building ------------------------------------------------------------------------------- */

/* sums[feature][bin] += (gradient, 1) for the rows of a block. `bins` is the first feature's. */
static void add_rows(int64_t *sums, const uint8_t *bins, int64_t stride, int64_t features,
                     const build_block *block, const int32_t *gradient, int64_t factor) {
    int64_t prefetched = block->count - AHEAD;
    for (int64_t i = 0; i < block->count; i++) {
        uint32_t row = block->rows[i];
        if (i < prefetched) __builtin_prefetch(bins + block->rows[i + AHEAD] * stride);
        const uint8_t *bin = bins + row * stride;
        int64_t word = gradient[row] * factor + 1, *to = sums, f = 0;
        for (; f + 4 <= features; f += 4, to += 4 * BIN_COUNT) {
            to[bin[f]] += word;
            to[BIN_COUNT + bin[f + 1]] += word;
            to[2 * BIN_COUNT + bin[f + 2]] += word;
            to[3 * BIN_COUNT + bin[f + 3]] += word;
        }
        for (; f < features; f++, to += BIN_COUNT) to[bin[f]] += word;
    }
}

/* The same with second derivatives beside them. */
static void add_rows_wide(int64_t *sums, const uint8_t *bins, int64_t stride, int64_t features,
                          const build_block *block, const int32_t *gradient,
                          const int32_t *hessian, int64_t factor) {
    for (int64_t i = 0; i < block->count; i++) {
        uint32_t row = block->rows[i];
        const uint8_t *bin = bins + row * stride;
        int64_t word = gradient[row] * factor + 1, second = hessian[row], *to = sums;
        for (int64_t f = 0; f < features; f++, to += 2 * BIN_COUNT) {
            to[2 * bin[f]] += word;
            to[2 * bin[f] + 1] += second;
        }
    }
}

static int64_t feature_groups(const histogram_method *m) {
    int64_t most = GROUP_WORDS / (BIN_COUNT * m->scale.words);
    return (m->table->features + most - 1) / most;
}

static void build_piece(void *argument, int64_t piece, int worker) {
    const histogram_method *m = argument;
    const binned_table *t = m->table;
    int64_t groups = feature_groups(m), first, last, words = BIN_COUNT * m->scale.words;
    const build_block *block = &m->block[piece / groups];
    (void)worker;
    resin_piece_bounds(t->features, groups, piece % groups, &first, &last);
    int64_t *sums = block->sums + first * words, factor = (int64_t)1 << m->scale.count_bits;
    memset(sums, 0, (size_t)((last - first) * words) * sizeof *sums);
    if (m->scale.words > 1)
        add_rows_wide(sums, t->by_row + first, t->features, last - first, block, m->fixed_gradient,
                      m->fixed_hessian, factor);
    else
        add_rows(sums, t->by_row + first, t->features, last - first, block, m->fixed_gradient,
                 factor);
}

static void build_sums(histogram_method *m) {
    int64_t rows = 0;
    for (int b = 0; b < m->blocks; b++) rows += m->block[b].count;
    trees_parallel(m->growth->context, m->blocks * feature_groups(m), rows * m->table->features,
                   build_piece, m);
}

/* Rows in a block, so that all nodes of a batch together have at most `blocks` more blocks than
 * nodes. */
static int64_t block_rows(const histogram_method *m, int64_t blocks) {
    int64_t rows = (m->growth->row_count + blocks - 1) / blocks;
    return rows > BLOCK_ROWS ? rows : BLOCK_ROWS;
}

/* Many features are work for many threads by themselves, and their sums are large. */
static int64_t build_blocks(const histogram_method *m) {
    int64_t blocks = MAX_BLOCKS / feature_groups(m);
    return blocks > 1 ? blocks : 1;
}

/* The blocks of a node's rows; the first one's sums are the node's. */
static resin_status add_blocks(histogram_method *m, const grow_node *node, int64_t *sums) {
    int64_t count = node->last - node->first;
    int64_t pieces = resin_piece_count(count, block_rows(m, build_blocks(m)));
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t first, last;
        build_block *block = &m->block[m->blocks++];
        resin_piece_bounds(count, pieces, piece, &first, &last);
        *block = (build_block){m->growth->rows + node->first + first, last - first, sums};
        if (piece > 0) RESIN_TRY(take_histogram(m, &block->sums));
    }
    return RESIN_OK;
}

/* Adds the sums of a pair's blocks up, for one feature. */
static void add_up(const histogram_method *m, const build_pair *pair, int64_t feature) {
    int64_t words = BIN_COUNT * m->scale.words;
    int64_t *sums = m->block[pair->first_block].sums + feature * words;
    for (int b = pair->first_block + 1; b < pair->last_block; b++) {
        const int64_t *more = m->block[b].sums + feature * words;
        for (int64_t i = 0; i < words; i++) sums[i] += more[i];
    }
}

static void search_piece(void *argument, int64_t piece, int worker) {
    const histogram_method *m = argument;
    const tree_growth *g = m->growth;
    const build_pair *pair = &m->pair[piece / g->features];
    int64_t feature = piece % g->features, words = BIN_COUNT * m->scale.words;
    const grow_node *parent = &g->node[m->batch[pair->position]];
    (void)worker;
    add_up(m, pair, feature);
    const int64_t *small = g->node[pair->small].histogram + feature * words;
    int64_t *large = g->node[pair->large].histogram + feature * words;
    for (int64_t i = 0; i < words; i++) large[i] -= small[i];
    for (int side = 0; side < 2; side++) {
        const grow_node *child = &g->node[side ? parent->right : parent->left];
        tree_split *candidates = growth_candidates(g, pair->position, side);
        if (child->can_split) candidates[feature] = histogram_split(m, child, feature);
    }
}

static void finish_child(histogram_method *m, int32_t index, tree_split *candidates) {
    tree_growth *g = m->growth;
    if (g->node[index].can_split) g->node[index].can_split = growth_choose(g, index, candidates);
    grow_node *node = &g->node[index];
    if (node->can_split) node->gain = node->priority = node->split.improvement;
    else give_back(m, &node->histogram);
}

static resin_status build_children(histogram_method *m) {
    tree_growth *g = m->growth;
    for (int i = 0; i < m->pairs; i++) {
        build_pair *pair = &m->pair[i];
        grow_node *parent = &g->node[m->batch[pair->position]];
        RESIN_TRY(take_histogram(m, &pair->sums));
        pair->first_block = m->blocks;
        RESIN_TRY(add_blocks(m, &g->node[pair->small], pair->sums));
        pair->last_block = m->blocks;
        g->node[pair->small].histogram = pair->sums;
        g->node[pair->large].histogram = parent->histogram;
        parent->histogram = NULL;
    }
    build_sums(m);
    trees_parallel(g->context, m->pairs * g->features, m->pairs * histogram_words(m), search_piece,
                   m);
    for (int i = 0; i < m->pairs; i++) {
        const build_pair *pair = &m->pair[i];
        for (int b = pair->first_block + 1; b < pair->last_block; b++)
            give_back(m, &m->block[b].sums);
        for (int side = 0; side < 2; side++) {
            const grow_node *parent = &g->node[m->batch[pair->position]];
            finish_child(m, side ? parent->right : parent->left,
                         growth_candidates(g, pair->position, side));
        }
    }
    return RESIN_OK;
}

/* ---- Dividing rows -------------------------------------------------------------------------- */

/* Where each bin of the node's feature goes. */
static void fill_sides(const tree_split *split, uint8_t goes_left[BIN_COUNT]) {
    for (int b = 0; b < MISSING_BIN; b++)
        goes_left[b] = split->categorical ? set_has(&split->set, (unsigned)b) : b <= split->bin;
    goes_left[MISSING_BIN] = split->missing_left;
}

static void divide_piece(void *argument, int64_t piece, int worker) {
    histogram_method *m = argument;
    const tree_growth *g = m->growth;
    divide_block *part = &m->part[piece];
    const grow_node *node = &g->node[m->batch[part->position]];
    const uint8_t *column = m->table->by_feature + node->split.feature * m->table->rows;
    const uint8_t *goes_left = m->goes_left[part->position];
    uint32_t *left = m->divided[0] + part->first, *right = m->divided[1] + part->first;
    int64_t left_count = 0, right_count = 0;
    (void)worker;
    for (int64_t i = part->first; i < part->last; i++) {
        uint32_t row = g->rows[i];
        bool side = goes_left[column[row]];
        left[left_count] = row;
        right[right_count] = row;
        left_count += side;
        right_count += !side;
    }
    part->left_count = left_count;
}

static void move_piece(void *argument, int64_t piece, int worker) {
    histogram_method *m = argument;
    const divide_block *part = &m->part[piece];
    int64_t right_count = part->last - part->first - part->left_count;
    (void)worker;
    memcpy(m->growth->rows + part->left_place, m->divided[0] + part->first,
           (size_t)part->left_count * sizeof(uint32_t));
    memcpy(m->growth->rows + part->right_place, m->divided[1] + part->first,
           (size_t)right_count * sizeof(uint32_t));
}

static void divide_rows(histogram_method *m, int count) {
    tree_growth *g = m->growth;
    int64_t all_rows = 0;
    m->parts = 0;
    for (int i = 0; i < count; i++) {
        const grow_node *node = &g->node[m->batch[i]];
        int64_t rows = node->last - node->first;
        int64_t pieces = resin_piece_count(rows, block_rows(m, MAX_BLOCKS));
        all_rows += rows;
        fill_sides(&node->split, m->goes_left[i]);
        for (int64_t piece = 0; piece < pieces; piece++) {
            divide_block *part = &m->part[m->parts++];
            part->position = i;
            resin_piece_bounds(rows, pieces, piece, &part->first, &part->last);
            part->first += node->first;
            part->last += node->first;
        }
    }
    trees_parallel(g->context, m->parts, all_rows, divide_piece, m);
    int64_t left = 0, right = 0;
    for (int p = 0; p < m->parts; p++) {
        divide_block *part = &m->part[p];
        const grow_node *node = &g->node[m->batch[part->position]];
        if (p == 0 || m->part[p - 1].position != part->position) {
            left = node->first;
            right = node->first + node->split.left_count;
        }
        part->left_place = left;
        part->right_place = right;
        left += part->left_count;
        right += part->last - part->first - part->left_count;
    }
    trees_parallel(g->context, m->parts, all_rows / 4, move_piece, m);
}

/* ---- Growing -------------------------------------------------------------------------------- */

static void set_sums(const histogram_method *m, grow_node *node, int64_t gradient,
                     int64_t hessian) {
    node->gradient = gradient;
    node->hessian = hessian;
    node->weight = (double)hessian * m->scale.hessian_unit;
    node->value = histogram_value(m, node);
    node->can_split = growth_may_split(m->growth, node);
}

/* What a split by a monotone feature leaves to both sides: the middle of their values. */
static void set_bounds(const tree_growth *g, const grow_node *parent) {
    const resin_trees_settings *s = g->settings;
    int direction = s->monotone ? s->monotone[parent->split.feature] : 0;
    double middle = (parent->split.low_value + parent->split.high_value) / 2;
    grow_node *left = &g->node[parent->left], *right = &g->node[parent->right];
    if (direction > 0) left->high = right->low = middle;
    if (direction < 0) left->low = right->high = middle;
}

static resin_status histogram_expand(tree_growth *g, const int32_t *nodes, int count) {
    histogram_method *m = g->method;
    m->batch = nodes;
    m->pairs = m->blocks = 0;
    for (int i = 0; i < count; i++) {
        grow_node *node = &g->node[nodes[i]];
        grow_node *left = &g->node[node->left], *right = &g->node[node->right];
        const tree_split *split = &node->split;
        set_bounds(g, node);
        set_sums(m, left, split->left_gradient, split->left_hessian);
        set_sums(m, right, node->gradient - split->left_gradient,
                 node->hessian - split->left_hessian);
        if (!left->can_split && !right->can_split) {
            give_back(m, &node->histogram);
            continue;
        }
        bool left_small = left->last - left->first <= right->last - right->first;
        m->pair[m->pairs++] = (build_pair){.position = i,
                                           .small = left_small ? node->left : node->right,
                                           .large = left_small ? node->right : node->left};
    }
    divide_rows(m, count);
    return m->pairs > 0 ? build_children(m) : RESIN_OK;
}

static void search_root(void *argument, int64_t feature, int worker) {
    const histogram_method *m = argument;
    (void)worker;
    build_pair all = {.last_block = m->blocks};
    add_up(m, &all, feature);
    m->growth->candidate[feature] = histogram_split(m, &m->growth->node[0], feature);
}

static resin_status histogram_start(tree_growth *g) {
    histogram_method *m = g->method;
    grow_node *root = &g->node[0];
    m->blocks = 0;
    take_all_back(m);
    RESIN_TRY(to_fixed_point(m));
    int64_t gradient = 0, hessian = 0;
    for (int64_t i = 0; i < g->row_count; i++) {
        gradient += m->fixed_gradient[g->rows[i]];
        hessian += m->scale.words > 1 ? m->fixed_hessian[g->rows[i]] : 1;
    }
    set_sums(m, root, gradient, hessian);
    if (!root->can_split) return RESIN_OK;
    RESIN_TRY(take_histogram(m, &root->histogram));
    RESIN_TRY(add_blocks(m, root, root->histogram));
    build_sums(m);
    trees_parallel(g->context, g->features, m->blocks * histogram_words(m), search_root, m);
    for (int b = 1; b < m->blocks; b++) give_back(m, &m->block[b].sums);
    finish_child(m, 0, g->candidate);
    return RESIN_OK;
}

resin_status histogram_prepare(histogram_method *m, tree_growth *g, const binned_table *table) {
    scratch_list *scratch = g->scratch;
    m->growth = g;
    m->table = table;
    RESIN_TRY(scratch_take(scratch, table->rows, sizeof *m->fixed_gradient, &m->fixed_gradient));
    RESIN_TRY(scratch_take(scratch, table->rows, sizeof *m->fixed_hessian, &m->fixed_hessian));
    for (int side = 0; side < 2; side++)
        RESIN_TRY(scratch_take(scratch, table->rows, sizeof(uint32_t), &m->divided[side]));
    RESIN_TRY(scratch_take(scratch, GROW_BATCH, sizeof *m->goes_left, &m->goes_left));
    RESIN_TRY(scratch_take(scratch, 2 * 256, sizeof *m->largest, &m->largest));
    g->method = m;
    g->start = histogram_start;
    g->expand = histogram_expand;
    return RESIN_OK;
}
