/* predict.c: sums of trees on new rows.
 *
 * Rows go through a tree in groups, each step taken by the whole group, so that the processor works
 * on many rows while it waits for memory. A leaf leads to itself: every row takes as many steps as
 * the tree is deep, without a branch. Blocks of rows stay in the cache while all trees pass. */
#include "core/base/threads.h"
#include "core/kernels/kernel.h"
#include "core/trees/trees.h"

#include <math.h>

enum { GROUP = 16, BLOCK_ROWS = 256 };

/* ---- The packed form ------------------------------------------------------------------------ */

static float round_down(double threshold) {
    float rounded = (float)threshold;
    return (double)rounded > threshold ? nextafterf(rounded, -INFINITY) : rounded;
}

/* Nodes of one tree level by level; `order` is the queue of their positions in the tree. */
static void pack_tree(resin_trees *trees, int64_t tree, int32_t *order, int32_t *level) {
    const tree_node *node = trees->node + trees->tree_first[tree];
    int32_t first = (int32_t)trees->tree_first[tree], count = 1;
    packed_trees *packed = &trees->packed;
    packed->root[tree] = first;
    packed->depth[tree] = 0;
    order[0] = 0;
    level[0] = 0;
    for (int32_t i = 0; i < count; i++) {
        const tree_node *from = &node[order[i]];
        packed_node *to = &packed->node[first + i];
        packed->value[first + i] = trees->learning_rate * from->value;
        if (level[i] > packed->depth[tree]) packed->depth[tree] = level[i];
        if (from->feature < 0) {
            *to = (packed_node){INFINITY, 0, first + i, -1};
            continue;
        }
        *to = (packed_node){round_down(from->threshold), (uint32_t)from->feature, first + count,
                            from->set};
        if (!from->missing_left) to->feature |= PACKED_MISSING_RIGHT;
        if (from->set >= 0) to->feature |= PACKED_SET;
        order[count] = from->left;
        order[count + 1] = from->right;
        level[count] = level[count + 1] = level[i] + 1;
        count += 2;
    }
}

resin_status trees_pack(resin_trees *trees) {
    resin_context *context = trees->context;
    packed_trees *packed = &trees->packed;
    int64_t longest = 1;
    for (int64_t tree = 0; tree < trees->trees; tree++) {
        int64_t length = trees->tree_first[tree + 1] - trees->tree_first[tree];
        if (length > longest) longest = length;
    }
    RESIN_TRY(trees_grow_array(context, &packed->node, 0, trees->nodes + 1, sizeof(packed_node)));
    RESIN_TRY(trees_grow_array(context, &packed->value, 0, trees->nodes + 1, sizeof(double)));
    RESIN_TRY(trees_grow_array(context, &packed->root, 0, trees->trees + 1, sizeof(int32_t)));
    RESIN_TRY(trees_grow_array(context, &packed->depth, 0, trees->trees + 1, sizeof(int32_t)));
    scratch_list scratch = {.context = context};
    int32_t *order, *level;
    resin_status status = scratch_take(&scratch, longest + 1, sizeof *order, &order);
    if (status == RESIN_OK) status = scratch_take(&scratch, longest + 1, sizeof *level, &level);
    if (status == RESIN_OK)
        for (int64_t tree = 0; tree < trees->trees; tree++) pack_tree(trees, tree, order, level);
    scratch_free(&scratch);
    return status;
}

/* ---- Walking -------------------------------------------------------------------------------- */

static inline int32_t step_numeric(const packed_node *node, float x) {
    int right = (x > node->threshold) | ((x != x) & (int)(node->feature >> 31));
    return node->left + right;
}

/* A leaf has no set and compares with infinity: its only way out would be a missing value, which it
 * sends left, to itself. */
static int32_t step_any(const resin_trees *trees, const packed_node *node, float x) {
    if (!(node->feature & PACKED_SET)) return step_numeric(node, x);
    bool known = x >= 0 && x <= MAX_CATEGORY && x == (float)(int)x;
    bool right = known ? !set_has(&trees->set[node->set], (unsigned)x)
                       : (node->feature & PACKED_MISSING_RIGHT) != 0;
    return node->left + right;
}

typedef struct addition {
    const resin_trees *trees;
    const float *x;
    int64_t rows, first, last; /* trees */
    double *scores;
} addition;

/* GROUP rows through one tree. */
static inline void walk_group(const packed_node *nodes, int32_t root, int32_t depth,
                              const float *x, int64_t features, int32_t at[GROUP]) {
    for (int r = 0; r < GROUP; r++) at[r] = root;
    for (int32_t level = 0; level < depth; level++) {
        UNROLL
        for (int r = 0; r < GROUP; r++) {
            const packed_node *node = &nodes[at[r]];
            at[r] = step_numeric(node, x[r * features + (node->feature & PACKED_FEATURE)]);
        }
    }
}

static int32_t walk_row(const resin_trees *trees, int32_t at, int32_t depth, const float *x) {
    for (int32_t level = 0; level < depth; level++) {
        const packed_node *node = &trees->packed.node[at];
        int32_t next = step_any(trees, node, x[node->feature & PACKED_FEATURE]);
        if (next == at) break;
        at = next;
    }
    return at;
}

static void add_tree(const addition *a, int64_t tree, int64_t first, int64_t last) {
    const resin_trees *trees = a->trees;
    const packed_trees *packed = &trees->packed;
    int64_t features = trees->features, outputs = trees->outputs;
    double *scores = a->scores + tree % outputs;
    int32_t root = packed->root[tree], depth = packed->depth[tree], at[GROUP];
    int64_t row = first;
    if (trees->sets == 0)
        for (; row + GROUP <= last; row += GROUP) {
            walk_group(packed->node, root, depth, a->x + row * features, features, at);
            for (int r = 0; r < GROUP; r++)
                scores[(row + r) * outputs] += packed->value[at[r]];
        }
    for (; row < last; row++)
        scores[row * outputs] += packed->value[walk_row(trees, root, depth, a->x + row * features)];
}

static void add_block(void *argument, int64_t piece, int worker) {
    const addition *a = argument;
    int64_t first = piece * BLOCK_ROWS, last = first + BLOCK_ROWS;
    (void)worker;
    if (last > a->rows) last = a->rows;
    for (int64_t tree = a->first; tree < a->last; tree++) add_tree(a, tree, first, last);
}

/* ---- Public --------------------------------------------------------------------------------- */

resin_status trees_table(resin_context *context, const char *what, resin_tensor *x,
                         resin_tensor **out) {
    char text[SHAPE_TEXT];
    if (x->rank != 2)
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "%s: expected a table of shape (rows, features), got %s", what,
                          shape_format(x->rank, x->shape, text));
    if (x->dtype == RESIN_FLOAT32) return tensor_contiguous(x, out);
    RESIN_TRY(tensor_new(context, RESIN_FLOAT32, 2, x->shape, out));
    resin_status status = tensor_copy_elements(*out, x);
    if (status != RESIN_OK) {
        resin_release(*out);
        *out = NULL;
    }
    return status;
}

resin_status resin_trees_start(const resin_trees *trees, int64_t rows, resin_tensor **scores) {
    int64_t shape[2] = {rows, trees->outputs};
    RESIN_TRY(tensor_new(trees->context, RESIN_FLOAT64, 2, shape, scores));
    double *score = tensor_data(*scores);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < trees->outputs; k++)
            score[i * trees->outputs + k] = trees->initial[k];
    return RESIN_OK;
}

static resin_status check_addition(const resin_trees *trees, const resin_tensor *x, int64_t first,
                                   int64_t last, const resin_tensor *scores) {
    resin_context *context = trees->context;
    char shape[2][SHAPE_TEXT];
    int64_t stages = trees->trees / trees->outputs;
    if (x->rank != 2 || x->shape[1] != trees->features)
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "trees: expected rows of %lld features, got a table of shape %s",
                          (long long)trees->features, shape_format(x->rank, x->shape, shape[0]));
    if (scores->rank != 2 || scores->shape[0] != x->shape[0] ||
        scores->shape[1] != trees->outputs || scores->dtype != RESIN_FLOAT64 ||
        !resin_tensor_contiguous(scores))
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "trees: the scores of a table %s are float64 (rows, %lld), got %s %s",
                          shape_format(x->rank, x->shape, shape[0]), (long long)trees->outputs,
                          resin_dtype_name(scores->dtype),
                          shape_format(scores->rank, scores->shape, shape[1]));
    if (first < 0 || last < first || last > stages)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "trees: expected stages within 0 to %lld, got %lld to %lld",
                          (long long)stages, (long long)first, (long long)last);
    return RESIN_OK;
}

resin_status resin_trees_add(const resin_trees *trees, resin_tensor *x, int64_t first,
                             int64_t last, resin_tensor *scores) {
    resin_tensor *table;
    RESIN_TRY(check_addition(trees, x, first, last, scores));
    RESIN_TRY(trees_table(trees->context, "trees", x, &table));
    addition a = {.trees = trees,
                  .x = tensor_data(table),
                  .rows = table->shape[0],
                  .first = first * trees->outputs,
                  .last = last * trees->outputs,
                  .scores = tensor_data(scores)};
    trees_parallel(trees->context, (a.rows + BLOCK_ROWS - 1) / BLOCK_ROWS,
                   a.rows * (a.last - a.first), add_block, &a);
    resin_tensor_touch(scores);
    resin_release(table);
    return RESIN_OK;
}
