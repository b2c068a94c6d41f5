/* model.c: the fitted model: its memory, its tensors, what features are worth. */
#include "core/base/memory.h"
#include "core/trees/trees.h"

#include <math.h>

/* ---- Scratch -------------------------------------------------------------------------------- */

typedef struct scratch_block {
    struct scratch_block *next;
    char padding[64 - sizeof(struct scratch_block *)]; /* what follows stays aligned */
} scratch_block;

resin_status scratch_take(scratch_list *scratch, int64_t count, size_t item, void *out) {
    size_t bytes;
    void *taken;
    if (count < 0 || !resin_size_multiply((size_t)count, item, &bytes) ||
        !resin_size_add(bytes, sizeof(scratch_block), &bytes))
        return resin_fail(scratch->context, RESIN_ERROR_MEMORY, "trees: the table is too large");
    RESIN_TRY(resin_allocate(scratch->context, bytes, &taken));
    scratch_block *block = taken;
    block->next = scratch->first;
    scratch->first = block;
    void *data = block + 1;
    memcpy(out, &data, sizeof data);
    return RESIN_OK;
}

void scratch_free(scratch_list *scratch) {
    for (scratch_block *block = scratch->first, *next; block; block = next) {
        next = block->next;
        resin_deallocate(scratch->context, block);
    }
    scratch->first = NULL;
}

void trees_parallel(resin_context *context, int64_t pieces, int64_t steps, resin_piece body,
                    void *argument) {
    enum { WORTH_WAKING = 20000 };
    if (steps >= WORTH_WAKING) {
        resin_parallel(context, pieces, body, argument);
        return;
    }
    for (int64_t piece = 0; piece < pieces; piece++) body(argument, piece, 0);
}

/* ---- Life ----------------------------------------------------------------------------------- */

resin_status trees_grow_array(resin_context *context, void *array, int64_t used, int64_t count,
                              size_t item) {
    void *old, *new_array;
    size_t bytes;
    if (!resin_size_multiply((size_t)count, item, &bytes))
        return resin_fail(context, RESIN_ERROR_MEMORY, "trees: too many nodes");
    RESIN_TRY(resin_allocate(context, bytes, &new_array));
    memcpy(&old, array, sizeof old);
    if (used) memcpy(new_array, old, (size_t)used * item);
    resin_deallocate(context, old);
    memcpy(array, &new_array, sizeof new_array);
    return RESIN_OK;
}

resin_status trees_new(resin_context *context, resin_trees_loss loss, int64_t features,
                       int64_t classes, double learning_rate, resin_trees **out) {
    void *block;
    RESIN_TRY(resin_allocate(context, sizeof **out, &block));
    resin_trees *trees = block;
    *trees = (resin_trees){.context = resin_context_retain(context),
                           .loss = loss,
                           .features = features,
                           .classes = loss == RESIN_TREES_LOG ? classes : 0,
                           .outputs = loss == RESIN_TREES_LOG && classes > 2 ? classes : 1,
                           .learning_rate = learning_rate};
    resin_status status = trees_grow_array(context, &trees->tree_first, 0, 1, sizeof(int64_t));
    if (status == RESIN_OK)
        status = trees_grow_array(context, &trees->initial, 0, trees->outputs, sizeof(double));
    if (status != RESIN_OK) {
        resin_trees_release(trees);
        return status;
    }
    trees->tree_first[0] = 0;
    memset(trees->initial, 0, (size_t)trees->outputs * sizeof(double));
    *out = trees;
    return RESIN_OK;
}

void resin_trees_release(resin_trees *trees) {
    if (!trees) return;
    resin_context *context = trees->context;
    void *blocks[] = {trees->tree_first,      trees->node,         trees->set,
                      trees->initial,         trees->train_loss,   trees->validation_loss,
                      trees->packed.node,     trees->packed.value, trees->packed.root,
                      trees->packed.depth,    trees};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        resin_deallocate(context, blocks[i]);
    resin_context_release(context);
}

static int64_t enough(int64_t capacity, int64_t wanted) {
    int64_t doubled = capacity < INT64_MAX / 2 ? 2 * capacity : capacity;
    return doubled > wanted ? doubled : wanted;
}

resin_status trees_reserve(resin_trees *trees, int64_t nodes, int64_t sets) {
    resin_context *context = trees->context;
    if (trees->nodes + nodes > INT32_MAX)
        return resin_fail(context, RESIN_ERROR_MEMORY, "trees: more than 2^31 nodes");
    if (trees->trees + 1 > trees->tree_capacity) {
        int64_t capacity = enough(trees->tree_capacity, trees->trees + 16);
        RESIN_TRY(trees_grow_array(context, &trees->tree_first, trees->trees + 1, capacity + 1,
                                   sizeof(int64_t)));
        trees->tree_capacity = capacity;
    }
    if (trees->nodes + nodes > trees->node_capacity) {
        int64_t capacity = enough(trees->node_capacity, trees->nodes + nodes);
        RESIN_TRY(trees_grow_array(context, &trees->node, trees->nodes, capacity,
                                   sizeof(tree_node)));
        trees->node_capacity = capacity;
    }
    if (trees->sets + sets > trees->set_capacity) {
        int64_t capacity = enough(trees->set_capacity, trees->sets + sets);
        RESIN_TRY(trees_grow_array(context, &trees->set, trees->sets, capacity, sizeof(tree_set)));
        trees->set_capacity = capacity;
    }
    return RESIN_OK;
}

resin_trees_info resin_trees_describe(const resin_trees *trees) {
    return (resin_trees_info){
        .loss = trees->loss,
        .features = trees->features,
        .classes = trees->classes,
        .outputs = trees->outputs,
        .stages = trees->trees / trees->outputs,
        .nodes = trees->nodes,
        .learning_rate = trees->learning_rate,
        .initial = trees->initial,
        .train_loss = trees->train_loss,
        .validation_loss = trees->validation_loss,
    };
}

/* ---- Importances ---------------------------------------------------------------------------- */

/* As scikit-learn: each tree's gains by the weight of its root, then the mean of the trees that
 * have a split, then divided by their sum. */
resin_status resin_trees_importances(const resin_trees *trees, resin_tensor **out) {
    RESIN_TRY(resin_full(trees->context, RESIN_FLOAT64, 1, &trees->features, 0, out));
    double *importance = tensor_data(*out), total = 0;
    for (int64_t tree = 0; tree < trees->trees; tree++) {
        const tree_node *root = trees->node + trees->tree_first[tree];
        const tree_node *end = trees->node + trees->tree_first[tree + 1];
        for (const tree_node *node = root; node < end; node++)
            if (node->feature >= 0 && root->weight > 0)
                importance[node->feature] += node->gain / root->weight;
    }
    for (int64_t f = 0; f < trees->features; f++) total += importance[f];
    if (total > 0)
        for (int64_t f = 0; f < trees->features; f++) importance[f] /= total;
    return RESIN_OK;
}

/* ---- As tensors ----------------------------------------------------------------------------- */

enum field {
    FIELD_TREE_FIRST, FIELD_FEATURE, FIELD_LEFT, FIELD_RIGHT, FIELD_THRESHOLD, FIELD_VALUE,
    FIELD_GAIN, FIELD_IMPURITY, FIELD_WEIGHT, FIELD_SAMPLES, FIELD_MISSING_LEFT, FIELD_SET,
    FIELD_SETS, FIELD_INITIAL
};

typedef struct field_row {
    const char *name;
    resin_dtype dtype;
    size_t offset; /* in tree_node, for the fields of nodes */
} field_row;

static const field_row fields[RESIN_TREES_TENSORS] = {
    {"tree_first", RESIN_INT64, 0},
    {"feature", RESIN_INT32, offsetof(tree_node, feature)},
    {"left", RESIN_INT32, offsetof(tree_node, left)},
    {"right", RESIN_INT32, offsetof(tree_node, right)},
    {"threshold", RESIN_FLOAT64, offsetof(tree_node, threshold)},
    {"value", RESIN_FLOAT64, offsetof(tree_node, value)},
    {"gain", RESIN_FLOAT64, offsetof(tree_node, gain)},
    {"impurity", RESIN_FLOAT64, offsetof(tree_node, impurity)},
    {"weight", RESIN_FLOAT64, offsetof(tree_node, weight)},
    {"samples", RESIN_INT64, offsetof(tree_node, samples)},
    {"missing_left", RESIN_UINT8, offsetof(tree_node, missing_left)},
    {"set", RESIN_INT32, offsetof(tree_node, set)},
    {"sets", RESIN_INT64, 0},
    {"initial", RESIN_FLOAT64, 0},
};

static bool is_node_field(int number) {
    return number != FIELD_TREE_FIRST && number != FIELD_SETS && number != FIELD_INITIAL;
}

const char *resin_trees_tensor_name(int number) {
    return number >= 0 && number < RESIN_TREES_TENSORS ? fields[number].name : NULL;
}

resin_status resin_trees_export(const resin_trees *trees, int number, resin_tensor **out) {
    resin_context *context = trees->context;
    if (number < 0 || number >= RESIN_TREES_TENSORS)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "trees: expected a tensor from 0 to %d, "
                          "got %d", RESIN_TREES_TENSORS - 1, number);
    const field_row *row = &fields[number];
    int64_t shape[2] = {trees->nodes, 4};
    if (number == FIELD_TREE_FIRST) shape[0] = trees->trees + 1;
    if (number == FIELD_SETS) shape[0] = trees->sets;
    if (number == FIELD_INITIAL) shape[0] = trees->outputs;
    RESIN_TRY(tensor_new(context, row->dtype, number == FIELD_SETS ? 2 : 1, shape, out));
    char *to = tensor_data(*out);
    size_t size = resin_dtype_size(row->dtype);
    if (is_node_field(number)) {
        for (int64_t i = 0; i < trees->nodes; i++)
            memcpy(to + (size_t)i * size, (const char *)&trees->node[i] + row->offset, size);
        return RESIN_OK;
    }
    const void *from = number == FIELD_TREE_FIRST ? (const void *)trees->tree_first
                       : number == FIELD_SETS     ? (const void *)trees->set
                                                  : (const void *)trees->initial;
    size_t bytes = (size_t)resin_tensor_count(*out) * size;
    if (bytes) memcpy(to, from, bytes);
    return RESIN_OK;
}

/* Dtypes, ranks and lengths; the numbers inside come later. */
static resin_status check_tensors(resin_context *context, resin_tensor *const *tensors,
                                  int64_t outputs) {
    for (int i = 0; i < RESIN_TREES_TENSORS; i++) {
        const resin_tensor *t = tensors[i];
        if (!t)
            return resin_fail(context, RESIN_ERROR_ARGUMENT, "trees: there is no tensor '%s'",
                              fields[i].name);
        int rank = i == FIELD_SETS ? 2 : 1;
        if (t->dtype != fields[i].dtype || t->rank != rank || !resin_tensor_contiguous(t))
            return resin_fail(context, RESIN_ERROR_SHAPE,
                              "trees: expected '%s' as %s of rank %d, got %s of rank %d",
                              fields[i].name, resin_dtype_name(fields[i].dtype), rank,
                              resin_dtype_name(t->dtype), t->rank);
        int64_t nodes = tensors[FIELD_FEATURE]->shape[0];
        if (is_node_field(i) && t->shape[0] != nodes)
            return resin_fail(context, RESIN_ERROR_SHAPE,
                              "trees: '%s' has %lld entries, 'feature' has %lld", fields[i].name,
                              (long long)t->shape[0], (long long)nodes);
    }
    if (tensors[FIELD_SETS]->shape[1] != 4 || tensors[FIELD_INITIAL]->shape[0] != outputs ||
        tensors[FIELD_TREE_FIRST]->shape[0] < 1)
        return resin_fail(context, RESIN_ERROR_SHAPE, "trees: 'sets', 'initial' or 'tree_first' "
                          "does not fit the number of classes");
    return RESIN_OK;
}

static bool node_is_sound(const resin_trees *trees, int64_t position, int64_t length,
                          const tree_node *node) {
    if (node->feature == -1) return true;
    return node->feature >= 0 && node->feature < trees->features && node->left > position &&
           node->left < length && node->right > position && node->right < length &&
           node->left != node->right && node->set >= -1 && node->set < trees->sets &&
           node->threshold == node->threshold;
}

/* Every node but the root has one parent, before it; `has_parent` is by node, cleared. */
static bool tree_is_sound(const resin_trees *trees, int64_t first, int64_t length,
                          uint8_t *has_parent) {
    int64_t children = 0;
    for (int64_t i = 0; i < length; i++) {
        const tree_node *node = &trees->node[first + i];
        if (!node_is_sound(trees, i, length, node)) return false;
        if (node->feature < 0) continue;
        if (has_parent[first + node->left]++ || has_parent[first + node->right]++) return false;
        children += 2;
    }
    return children == length - 1;
}

static bool model_is_sound(const resin_trees *trees, uint8_t *has_parent) {
    memset(has_parent, 0, (size_t)trees->nodes);
    if (trees->tree_first[0] != 0 || trees->tree_first[trees->trees] != trees->nodes) return false;
    for (int64_t tree = 0; tree < trees->trees; tree++) {
        int64_t first = trees->tree_first[tree], length = trees->tree_first[tree + 1] - first;
        if (length < 1 || first < 0 || length > trees->nodes - first) return false;
        if (!tree_is_sound(trees, first, length, has_parent)) return false;
    }
    return true;
}

static resin_status read_model(resin_trees *trees, resin_tensor *const *tensors) {
    trees->trees = tensors[FIELD_TREE_FIRST]->shape[0] - 1;
    trees->nodes = tensors[FIELD_FEATURE]->shape[0];
    trees->sets = tensors[FIELD_SETS]->shape[0];
    resin_context *context = trees->context;
    if (trees->nodes > INT32_MAX || trees->trees % trees->outputs != 0)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "trees: %lld trees do not make whole "
                          "stages of %lld", (long long)trees->trees, (long long)trees->outputs);
    RESIN_TRY(trees_grow_array(context, &trees->tree_first, 0, trees->trees + 1, sizeof(int64_t)));
    RESIN_TRY(trees_grow_array(context, &trees->node, 0, trees->nodes, sizeof(tree_node)));
    RESIN_TRY(trees_grow_array(context, &trees->set, 0, trees->sets, sizeof(tree_set)));
    memcpy(trees->tree_first, tensor_data(tensors[FIELD_TREE_FIRST]),
           (size_t)(trees->trees + 1) * sizeof(int64_t));
    if (trees->sets)
        memcpy(trees->set, tensor_data(tensors[FIELD_SETS]),
               (size_t)trees->sets * sizeof(tree_set));
    memcpy(trees->initial, tensor_data(tensors[FIELD_INITIAL]),
           (size_t)trees->outputs * sizeof(double));
    for (int field = 0; field < RESIN_TREES_TENSORS; field++) {
        if (!is_node_field(field)) continue;
        size_t size = resin_dtype_size(fields[field].dtype);
        const char *from = tensor_data(tensors[field]);
        for (int64_t i = 0; i < trees->nodes; i++) {
            char *to = (char *)&trees->node[i] + fields[field].offset;
            if (field == FIELD_MISSING_LEFT)
                trees->node[i].missing_left = from[i] != 0;
            else
                memcpy(to, from + (size_t)i * size, size);
        }
    }
    scratch_list scratch = {.context = context};
    uint8_t *has_parent;
    RESIN_TRY(scratch_take(&scratch, trees->nodes + 1, 1, &has_parent));
    bool sound = model_is_sound(trees, has_parent);
    scratch_free(&scratch);
    if (!sound)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "trees: a node leads outside of its tree, or compares no feature");
    return trees_pack(trees);
}

resin_status resin_trees_import(resin_context *context,
                                resin_tensor *const tensors[RESIN_TREES_TENSORS],
                                resin_trees_loss loss, int64_t features, int64_t classes,
                                double learning_rate, resin_trees **out) {
    if (loss < RESIN_TREES_SQUARED || loss > RESIN_TREES_LOG || features < 1 ||
        features > (int64_t)PACKED_FEATURE || (loss == RESIN_TREES_LOG && classes < 2) ||
        !isfinite(learning_rate))
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "trees: a loss, feature count or learning rate that is none");
    resin_trees *trees;
    RESIN_TRY(trees_new(context, loss, features, classes, learning_rate, &trees));
    resin_status status = check_tensors(context, tensors, trees->outputs);
    if (status == RESIN_OK) status = read_model(trees, tensors);
    if (status != RESIN_OK) {
        resin_trees_release(trees);
        return status;
    }
    *out = trees;
    return RESIN_OK;
}
