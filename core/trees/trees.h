/* trees.h: sums of regression trees: the internal side of the model. */
#ifndef RESIN_TREES_TREES_H
#define RESIN_TREES_TREES_H

#include "core/base/context.h"
#include "core/base/threads.h"
#include "core/tensor/tensor.h"

#include <string.h>

/* Categories that go left, one bit each. */
typedef struct tree_set {
    uint64_t bits[4];
} tree_set;

static inline bool set_has(const tree_set *set, unsigned category) {
    return set->bits[category >> 6] >> (category & 63) & 1;
}
static inline void set_add(tree_set *set, unsigned category) {
    set->bits[category >> 6] |= (uint64_t)1 << (category & 63);
}

/* The largest code of a category; the last bin belongs to missing values. */
enum { MAX_CATEGORY = 254, MISSING_BIN = 255, BIN_COUNT = 256 };

typedef struct tree_node {
    double threshold, value, gain, impurity, weight;
    int64_t samples;
    int32_t feature;     /* -1: a leaf */
    int32_t left, right; /* from the tree's first node; greater than the node's own position */
    int32_t set;         /* categories: number in the model's sets; -1: none */
    bool missing_left;
} tree_node;

/* A node as prediction reads it: siblings stand side by side, and a leaf leads to itself. */
typedef struct packed_node {
    float threshold;  /* rounded down, which is the same for float32 inputs */
    uint32_t feature; /* with PACKED_ bits */
    int32_t left;     /* in the model; right = left + 1 */
    int32_t set;
} packed_node;
#define PACKED_MISSING_RIGHT 0x80000000u
#define PACKED_SET 0x40000000u
#define PACKED_FEATURE 0x3fffffffu

typedef struct packed_trees {
    packed_node *node;
    double *value;   /* by node, times the learning rate */
    int32_t *root;   /* by tree */
    int32_t *depth;  /* by tree */
} packed_trees;

struct resin_trees {
    resin_context *context; /* held */
    resin_trees_loss loss;
    int64_t features, classes;
    int64_t outputs; /* trees of a stage */
    double learning_rate;
    int64_t trees, tree_capacity;
    int64_t *tree_first; /* trees + 1 */
    int64_t nodes, node_capacity;
    tree_node *node;
    int64_t sets, set_capacity;
    tree_set *set;
    double *initial;                      /* outputs */
    double *train_loss, *validation_loss; /* by stage, or NULL */
    packed_trees packed;
};

resin_status trees_new(resin_context *context, resin_trees_loss loss, int64_t features,
                       int64_t classes, double learning_rate, resin_trees **out);
/* Room for one tree of `nodes` nodes and `sets` sets more. */
resin_status trees_reserve(resin_trees *trees, int64_t nodes, int64_t sets);
/* An array of `count` items that keeps its first `used` ones. */
resin_status trees_grow_array(resin_context *context, void *array, int64_t used, int64_t count,
                              size_t item);
/* Makes the form that prediction reads, of all trees. */
resin_status trees_pack(resin_trees *trees);

/* The leaf of one tree that a row of float32 features falls into. */
static inline const tree_node *tree_leaf(const tree_node *tree, const tree_set *sets,
                                         const float *row) {
    const tree_node *node = tree;
    while (node->feature >= 0) {
        float x = row[node->feature];
        bool left;
        if (node->set >= 0)
            left = x >= 0 && x <= MAX_CATEGORY && x == (float)(int)x
                       ? set_has(&sets[node->set], (unsigned)x)
                       : node->missing_left;
        else
            left = x != x ? node->missing_left : x <= node->threshold;
        node = tree + (left ? node->left : node->right);
    }
    return node;
}

/* `x` as contiguous float32 (rows, features); a new reference. An error names `what`. */
resin_status trees_table(resin_context *context, const char *what, resin_tensor *x,
                         resin_tensor **out);

/* resin_parallel for work of about `steps` elementary steps: too little of it is not worth waking
 * other threads, and runs in the caller. */
void trees_parallel(resin_context *context, int64_t pieces, int64_t steps, resin_piece body,
                    void *argument);

/* Scratch of one fit: blocks that are freed together. */
typedef struct scratch_list {
    resin_context *context;
    struct scratch_block *first;
} scratch_list;
/* `out` is the address of a pointer. */
resin_status scratch_take(scratch_list *scratch, int64_t count, size_t item, void *out);
void scratch_free(scratch_list *scratch);

#endif
