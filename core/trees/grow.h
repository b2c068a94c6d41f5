/* grow.h: how one tree grows, whatever the method: which nodes are split next, and the best split
 * of a node out of those of its features. The method (exact.c, histogram.c) finds the splits of
 * single features and divides the rows. */
#ifndef RESIN_TREES_GROW_H
#define RESIN_TREES_GROW_H

#include "core/trees/trees.h"

/* The best split of one node by one feature. */
typedef struct tree_split {
    double improvement; /* what features are compared by; -INFINITY: there is no split */
    double threshold;
    double low_value, high_value; /* histogram: the values of both sides */
    int64_t left_count;           /* rows */
    int64_t left_gradient, left_hessian; /* histogram: sums in fixed point */
    tree_set set;
    int32_t feature;
    int16_t bin;
    bool categorical, missing_left;
    bool constant; /* all values are equal: such a feature does not count as drawn */
} tree_split;

/* Exact method: what the rows of a node add up to. */
typedef struct node_sums {
    double weight, value, impurity;
} node_sums;

typedef struct grow_node {
    int64_t first, last;  /* rows[first .. last - 1] of the growth */
    int32_t left, right;  /* -1: a leaf */
    int32_t depth;
    bool can_split;       /* may be split, and `split` is how */
    double weight, value, impurity;
    double gain;          /* of `split`: how much it takes from the loss */
    double priority;      /* of `split`, where the best leaf is split next */
    tree_split split;
    node_sums side[2]; /* exact: of the two sides of `split` */
    /* histogram */
    int64_t gradient, hessian; /* sums in fixed point */
    double low, high;          /* bounds of the value that monotone features ask for */
    int64_t *histogram;
} grow_node;

typedef struct tree_growth {
    scratch_list *scratch;
    resin_context *context;
    const resin_trees_settings *settings;
    int64_t features;
    uint64_t number; /* of the tree: what is drawn depends on (seed, number, node) */
    uint32_t *rows;  /* those of a node stand together */
    int64_t row_count;
    int32_t count, capacity;
    grow_node *node;
    int batch;             /* nodes that are split at once, at most */
    tree_split *candidate; /* (2 * batch, features) */
    int32_t *feature_order;
    int32_t *queue; /* nodes to split: level by level, or as a heap */
    int32_t queued;
    void *method;
    /* Node 0: its sums, whether it can be split and how. */
    resin_status (*start)(struct tree_growth *growth);
    /* Splits nodes; their children are there, empty but for depth, rows and bounds. */
    resin_status (*expand)(struct tree_growth *growth, const int32_t *nodes, int count);
} tree_growth;

/* The most nodes that are split at once, and how many candidates of one side may be held. */
enum { GROW_BATCH = 128, GROW_CANDIDATES = 1 << 16 };

/* Takes what a growth needs for trees of any size over `row_count` rows. */
resin_status growth_prepare(tree_growth *growth);
/* Grows node[0 .. count - 1] over rows[0 .. row_count - 1]. */
resin_status growth_run(tree_growth *growth);
/* Whether depth and row count let a node be split. */
bool growth_may_split(const tree_growth *growth, const grow_node *node);
/* The best of a node's `features` candidates into node->split; ties go to the lowest feature.
 * False if there is none. */
bool growth_choose(tree_growth *growth, int32_t node, tree_split *candidates);
/* Appends the tree to the model: nodes before their children, left branches first. */
resin_status growth_append(const tree_growth *growth, resin_trees *trees);

/* The candidates of child `side` (0: left) of the batch's node `position`. */
static inline tree_split *growth_candidates(const tree_growth *growth, int position, int side) {
    return growth->candidate + (2 * position + side) * growth->features;
}

#endif
