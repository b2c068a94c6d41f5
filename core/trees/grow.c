/* grow.c: the order in which nodes are split, and the finished tree. */
#include "core/trees/grow.h"

#include "core/base/random.h"

#include <math.h>

resin_status growth_prepare(tree_growth *g) {
    int64_t batch = GROW_CANDIDATES / g->features;
    g->batch = batch < 1 ? 1 : batch > GROW_BATCH ? GROW_BATCH : (int)batch;
    RESIN_TRY(scratch_take(g->scratch, 2 * g->batch * g->features, sizeof *g->candidate,
                           &g->candidate));
    RESIN_TRY(scratch_take(g->scratch, g->features, sizeof *g->feature_order, &g->feature_order));
    g->capacity = 0;
    return RESIN_OK;
}

/* Room for `more` nodes. Old arrays stay with the scratch until the end: their sizes double. */
static resin_status reserve_nodes(tree_growth *g, int32_t more) {
    if (g->count + more <= g->capacity) return RESIN_OK;
    grow_node *node;
    int32_t *queue, capacity = g->capacity < 64 ? 64 : g->capacity;
    while (capacity < g->count + more) {
        if (capacity > INT32_MAX / 2)
            return resin_fail(g->context, RESIN_ERROR_MEMORY, "trees: a tree of 2^30 nodes");
        capacity *= 2;
    }
    RESIN_TRY(scratch_take(g->scratch, capacity, sizeof *node, &node));
    RESIN_TRY(scratch_take(g->scratch, capacity, sizeof *queue, &queue));
    if (g->count) memcpy(node, g->node, (size_t)g->count * sizeof *node);
    if (g->queued) memcpy(queue, g->queue, (size_t)g->queued * sizeof *queue);
    g->node = node;
    g->queue = queue;
    g->capacity = capacity;
    return RESIN_OK;
}

bool growth_may_split(const tree_growth *g, const grow_node *node) {
    const resin_trees_settings *s = g->settings;
    int64_t count = node->last - node->first;
    return (s->max_depth == 0 || node->depth < s->max_depth) && count >= s->min_split &&
           count >= 2 * s->min_leaf && count >= 2;
}

/* ---- The best feature ----------------------------------------------------------------------- */

/* The features in an order drawn for (seed, tree, node): Fisher and Yates' shuffle. */
static void draw_features(tree_growth *g, int32_t node) {
    int32_t *order = g->feature_order;
    for (int32_t f = 0; f < g->features; f++) order[f] = f;
    for (int32_t f = (int32_t)g->features - 1; f > 0; f--) {
        uint32_t word[4];
        resin_philox(g->settings->seed, g->number + 1, (uint64_t)node << 32 | (uint32_t)f, word);
        uint64_t high = ((uint64_t)word[0] * (uint64_t)(f + 1)) >> 32;
        int32_t other = order[high];
        order[high] = order[f];
        order[f] = other;
    }
}

/* Forgets the candidates of features that were not drawn. As in scikit-learn constant features do
 * not count, and drawing goes on until one feature can split the node. */
static void keep_drawn(tree_growth *g, int32_t node, tree_split *candidates) {
    int64_t drawn = 0;
    bool found = false;
    draw_features(g, node);
    for (int64_t i = 0; i < g->features; i++) {
        tree_split *c = &candidates[g->feature_order[i]];
        if (drawn >= g->settings->max_features && found) {
            c->improvement = -INFINITY;
            continue;
        }
        if (c->constant) continue;
        drawn++;
        found |= c->improvement > -INFINITY;
    }
}

bool growth_choose(tree_growth *g, int32_t node, tree_split *candidates) {
    int64_t drawn = g->settings->max_features;
    if (drawn > 0 && drawn < g->features) keep_drawn(g, node, candidates);
    const tree_split *best = NULL;
    for (int64_t f = 0; f < g->features; f++)
        if (candidates[f].improvement > (best ? best->improvement : -INFINITY))
            best = &candidates[f];
    if (best) g->node[node].split = *best;
    return best != NULL;
}

/* ---- Order ---------------------------------------------------------------------------------- */

/* The better of two leaves is split first, of equals the older one. */
static bool comes_before(const tree_growth *g, int32_t a, int32_t b) {
    double x = g->node[a].priority, y = g->node[b].priority;
    return x > y || (x == y && a < b);
}

static void heap_push(tree_growth *g, int32_t node) {
    int32_t at = g->queued++;
    for (; at > 0 && comes_before(g, node, g->queue[(at - 1) / 2]); at = (at - 1) / 2)
        g->queue[at] = g->queue[(at - 1) / 2];
    g->queue[at] = node;
}

static int32_t heap_pop(tree_growth *g) {
    int32_t top = g->queue[0], last = g->queue[--g->queued], at = 0;
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= g->queued) break;
        if (child + 1 < g->queued && comes_before(g, g->queue[child + 1], g->queue[child]))
            child++;
        if (!comes_before(g, g->queue[child], last)) break;
        g->queue[at] = g->queue[child];
        at = child;
    }
    g->queue[at] = last;
    return top;
}

static void make_children(tree_growth *g, int32_t parent) {
    int64_t border = g->node[parent].first + g->node[parent].split.left_count;
    for (int side = 0; side < 2; side++) {
        grow_node *p = &g->node[parent];
        g->node[g->count] = (grow_node){.first = side ? border : p->first,
                                        .last = side ? p->last : border,
                                        .left = -1,
                                        .right = -1,
                                        .depth = p->depth + 1,
                                        .low = p->low,
                                        .high = p->high};
        if (side) p->right = g->count++;
        else p->left = g->count++;
    }
}

static resin_status expand(tree_growth *g, const int32_t *nodes, int count) {
    for (int i = 0; i < count; i++) make_children(g, nodes[i]);
    return g->expand(g, nodes, count);
}

/* All nodes of a level, in batches. The queue is one list: levels follow each other. */
static resin_status grow_by_level(tree_growth *g) {
    int32_t done = 0;
    if (g->node[0].can_split) g->queue[g->queued++] = 0;
    while (done < g->queued) {
        int32_t batch[GROW_BATCH];
        int count = g->queued - done < g->batch ? g->queued - done : g->batch;
        memcpy(batch, g->queue + done, (size_t)count * sizeof *batch);
        done += count;
        RESIN_TRY(reserve_nodes(g, 2 * count));
        int32_t first = g->count;
        RESIN_TRY(expand(g, batch, count));
        for (int32_t child = first; child < g->count; child++)
            if (g->node[child].can_split) g->queue[g->queued++] = child;
    }
    return RESIN_OK;
}

static resin_status grow_best_first(tree_growth *g) {
    int64_t leaves = 1;
    if (g->node[0].can_split) heap_push(g, 0);
    while (g->queued > 0 && leaves < g->settings->max_leaves) {
        int32_t node = heap_pop(g);
        RESIN_TRY(reserve_nodes(g, 2));
        RESIN_TRY(expand(g, &node, 1));
        leaves++;
        for (int32_t child = g->count - 2; child < g->count; child++)
            if (g->node[child].can_split) heap_push(g, child);
    }
    return RESIN_OK;
}

resin_status growth_run(tree_growth *g) {
    g->count = 0;
    g->queued = 0;
    RESIN_TRY(reserve_nodes(g, 1));
    g->node[0] = (grow_node){.last = g->row_count, .left = -1, .right = -1, .low = -INFINITY,
                             .high = INFINITY};
    g->count = 1;
    RESIN_TRY(g->start(g));
    return g->settings->max_leaves > 0 ? grow_best_first(g) : grow_by_level(g);
}

/* ---- The finished tree ---------------------------------------------------------------------- */

static tree_node finished(const grow_node *from, int32_t set) {
    bool leaf = from->left < 0;
    return (tree_node){.threshold = leaf ? 0 : from->split.threshold,
                       .value = from->value,
                       .gain = leaf ? 0 : from->gain,
                       .impurity = from->impurity,
                       .weight = from->weight,
                       .samples = from->last - from->first,
                       .feature = leaf ? -1 : from->split.feature,
                       .left = -1,
                       .right = -1,
                       .set = set,
                       .missing_left = !leaf && from->split.missing_left};
}

resin_status growth_append(const tree_growth *g, resin_trees *trees) {
    RESIN_TRY(trees_reserve(trees, g->count, g->count));
    tree_node *to = trees->node + trees->nodes;
    /* The queue is free by now: nodes to visit, and beside it where their parents stand. */
    int32_t *stack = g->queue, top = 0, written = 0;
    stack[top++] = 0;
    int32_t *place = NULL;
    scratch_list own = {.context = g->context};
    RESIN_TRY(scratch_take(&own, g->count, sizeof *place, &place));
    while (top > 0) {
        int32_t node = stack[--top];
        const grow_node *from = &g->node[node];
        bool has_set = from->left >= 0 && from->split.categorical;
        if (has_set) trees->set[trees->sets] = from->split.set;
        to[written] = finished(from, has_set ? (int32_t)trees->sets++ : -1);
        place[node] = written++;
        if (from->left < 0) continue;
        stack[top++] = from->right;
        stack[top++] = from->left;
    }
    for (int32_t node = 0; node < g->count; node++) {
        if (g->node[node].left < 0) continue;
        to[place[node]].left = place[g->node[node].left];
        to[place[node]].right = place[g->node[node].right];
    }
    scratch_free(&own);
    trees->nodes += g->count;
    trees->tree_first[++trees->trees] = trees->nodes;
    return RESIN_OK;
}
