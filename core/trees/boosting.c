/* boosting.c: the sum of trees grows: each stage fits trees to the negative gradient of the loss
 * where the sum stands, and adds them (Friedman 2001, algorithm 1). */
#include "core/base/random.h"
#include "core/base/threads.h"
#include "core/trees/exact.h"
#include "core/trees/histogram.h"
#include "core/trees/losses.h"

#include <math.h>

enum { ROW_GRAIN = 8192, MAX_HISTOGRAM_ROWS = 1 << 26 };

void resin_trees_defaults(resin_trees_settings *settings) {
    *settings = (resin_trees_settings){
        .loss = RESIN_TREES_SQUARED, .classes = 2,      .alpha = 0.9,
        .stages = 100,               .learning_rate = 0.1, .subsample = 1,
        .max_depth = 3,              .min_split = 2,    .min_leaf = 1,
        .validation = 0.1,           .tolerance = 1e-4, .friedman = true,
        .bins = 255,                 .l2 = 0,           .min_leaf_hessian = 1e-3,
    };
}

/* Everything of one fit. */
typedef struct boosting {
    resin_context *context;
    const resin_trees_settings *settings;
    scratch_list scratch;
    resin_tensor *table;
    int64_t rows, features;
    const float *x;
    double *y, *weight; /* weight: NULL if none were given */
    uint32_t *kept, *held_out; /* rows to learn from, ascending; of the validation part */
    int64_t kept_count, held_out_count;
    uint8_t *in_bag;           /* by row, with `subsample` */
    uint32_t *bag;             /* the bag's rows, ascending */
    boosting_data data;
    tree_growth growth;
    exact_method exact;
    histogram_method *histogram;
    binned_table binned;
    resin_trees *trees;
    int64_t stage;
} boosting;

/* ---- Checking ------------------------------------------------------------------------------- */

static resin_status check_numbers(resin_context *context, const resin_trees_settings *s) {
    const struct {
        const char *name;
        double value, low, high;
        bool open; /* low itself is not allowed */
    } number[] = {
        {"learning_rate", s->learning_rate, 0, HUGE_VAL, true},
        {"subsample", s->subsample, 0, 1, true},
        {"alpha", s->alpha, 0, 1, s->loss == RESIN_TREES_HUBER || s->loss == RESIN_TREES_QUANTILE},
        {"validation_fraction", s->validation, 0, 1, s->patience > 0},
        {"tolerance", s->tolerance, 0, HUGE_VAL, false},
        {"min_impurity_decrease", s->min_impurity_decrease, 0, HUGE_VAL, false},
        {"l2", s->l2, 0, HUGE_VAL, false},
        {"min_gain", s->min_gain, 0, HUGE_VAL, false},
        {"min_child_weight", s->min_leaf_hessian, 0, HUGE_VAL, false},
    };
    for (size_t i = 0; i < sizeof number / sizeof number[0]; i++) {
        double value = number[i].value;
        bool fits = value >= number[i].low && value <= number[i].high && isfinite(value) &&
                    !(number[i].open && value == number[i].low);
        if (!fits)
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "boost: expected %s %s %g and at most %g, got %g", number[i].name,
                              number[i].open ? "above" : "of at least", number[i].low,
                              number[i].high, value);
    }
    if (s->patience > 0 && s->validation >= 1)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "boost: expected validation_fraction below 1, got %g", s->validation);
    return RESIN_OK;
}

static resin_status check_counts(resin_context *context, const resin_trees_settings *s) {
    const struct {
        const char *name;
        int64_t value, low, high;
    } count[] = {
        {"n_estimators", s->stages, 1, INT32_MAX},
        {"max_depth", s->max_depth, 0, INT32_MAX},
        {"max_leaf_nodes", s->max_leaves, 0, INT32_MAX},
        {"min_samples_split", s->min_split, 2, INT64_MAX},
        {"min_samples_leaf", s->min_leaf, 1, INT64_MAX / 2},
        {"max_features", s->max_features, 0, INT32_MAX},
        {"n_iter_no_change", s->patience, 0, INT32_MAX},
        {"max_bins", s->bins, 2, MISSING_BIN},
        {"classes", s->loss == RESIN_TREES_LOG ? s->classes : 2, 2, 1 << 16},
    };
    for (size_t i = 0; i < sizeof count / sizeof count[0]; i++)
        if (count[i].value < count[i].low || count[i].value > count[i].high)
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "boost: expected %s of %lld to %lld, got %lld", count[i].name,
                              (long long)count[i].low, (long long)count[i].high,
                              (long long)count[i].value);
    if (s->max_leaves == 1)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "boost: expected max_leaf_nodes of at least 2 (or 0: no limit), got 1");
    return RESIN_OK;
}

static resin_status check_features(const boosting *b) {
    const resin_trees_settings *s = b->settings;
    for (int64_t f = 0; f < b->features; f++) {
        int direction = s->monotone ? s->monotone[f] : 0;
        if (direction < -1 || direction > 1 ||
            (direction != 0 && s->categorical && s->categorical[f]))
            return resin_fail(b->context, RESIN_ERROR_ARGUMENT,
                              "boost: a monotone feature is -1, 0 or 1, and not categorical; "
                              "feature %lld of %lld is neither", (long long)f + 1,
                              (long long)b->features);
    }
    if (s->monotone && s->loss != RESIN_TREES_SQUARED && s->loss != RESIN_TREES_LOG)
        return resin_fail(b->context, RESIN_ERROR_ARGUMENT, "boost: monotone features need the "
                          "loss squared_error or log_loss");
    if (!s->histogram && (s->monotone || s->categorical))
        return resin_fail(b->context, RESIN_ERROR_ARGUMENT, "boost: monotone and categorical "
                          "features need the method \"hist\"");
    return RESIN_OK;
}

static resin_status check_shapes(resin_context *context, const resin_tensor *x,
                                 const resin_tensor *y, const resin_tensor *weights) {
    char text[2][SHAPE_TEXT];
    if (x->rank != 2)
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "boost: expected a table of shape (rows, features), got %s",
                          shape_format(x->rank, x->shape, text[0]));
    if (x->shape[0] < 1 || x->shape[1] < 1)
        return resin_fail(context, RESIN_ERROR_SHAPE, "boost: the table %s is empty",
                          shape_format(x->rank, x->shape, text[0]));
    if (x->shape[0] > INT32_MAX || x->shape[1] > (int64_t)PACKED_FEATURE)
        return resin_fail(context, RESIN_ERROR_SHAPE, "boost: the table %s is too large",
                          shape_format(x->rank, x->shape, text[0]));
    const resin_tensor *by_row[] = {y, weights};
    for (int i = 0; i < 2; i++)
        if (by_row[i] && (by_row[i]->rank != 1 || by_row[i]->shape[0] != x->shape[0]))
            return resin_fail(context, RESIN_ERROR_SHAPE,
                              "boost: expected one %s for each row of the table %s, got %s",
                              i ? "weight" : "target",
                              shape_format(x->rank, x->shape, text[0]),
                              shape_format(by_row[i]->rank, by_row[i]->shape, text[1]));
    return RESIN_OK;
}

/* A tensor (rows) as doubles in scratch memory. */
static resin_status take_doubles(boosting *b, const resin_tensor *from, double **out) {
    resin_tensor *view;
    RESIN_TRY(scratch_take(&b->scratch, b->rows, sizeof **out, out));
    RESIN_TRY(resin_from_buffer(b->context, *out, RESIN_FLOAT64, 1, &b->rows, NULL, NULL, &view));
    resin_status status = tensor_copy_elements(view, from);
    resin_release(view);
    return status;
}

static resin_status check_targets(const boosting *b) {
    const resin_trees_settings *s = b->settings;
    for (int64_t row = 0; row < b->rows; row++) {
        double y = b->y[row];
        if (!isfinite(y))
            return resin_fail(b->context, RESIN_ERROR_ARGUMENT,
                              "boost: expected finite targets, got %g in row %lld of %lld", y,
                              (long long)row + 1, (long long)b->rows);
        if (s->loss == RESIN_TREES_LOG && !(y >= 0 && y < (double)s->classes && y == floor(y)))
            return resin_fail(b->context, RESIN_ERROR_ARGUMENT,
                              "boost: expected classes 0 to %lld, got %g in row %lld of %lld",
                              (long long)s->classes - 1, y, (long long)row + 1,
                              (long long)b->rows);
    }
    return RESIN_OK;
}

static resin_status check_weights(const boosting *b) {
    bool any = false;
    for (int64_t row = 0; b->weight && row < b->rows; row++) {
        if (!(b->weight[row] >= 0) || !isfinite(b->weight[row]))
            return resin_fail(b->context, RESIN_ERROR_ARGUMENT,
                              "boost: expected weights of at least 0, got %g in row %lld of %lld",
                              b->weight[row], (long long)row + 1, (long long)b->rows);
        any |= b->weight[row] > 0;
    }
    if (b->weight && !any)
        return resin_fail(b->context, RESIN_ERROR_ARGUMENT, "boost: all weights are 0");
    return RESIN_OK;
}

static resin_status check_table(const boosting *b) {
    if (b->settings->histogram) {
        if (b->rows > MAX_HISTOGRAM_ROWS)
            return resin_fail(b->context, RESIN_ERROR_SHAPE,
                              "boost: the method \"hist\" takes up to %d rows, got %lld",
                              MAX_HISTOGRAM_ROWS, (long long)b->rows);
        return RESIN_OK;
    }
    for (int64_t i = 0; i < b->rows * b->features; i++)
        if (!isfinite(b->x[i]))
            return resin_fail(b->context, RESIN_ERROR_ARGUMENT,
                              "boost: the exact method takes finite float32 values, got %g in row "
                              "%lld of %lld, feature %lld of %lld; the method \"hist\" learns "
                              "where missing values (NaN) go", (double)b->x[i],
                              (long long)(i / b->features) + 1, (long long)b->rows,
                              (long long)(i % b->features) + 1, (long long)b->features);
    return RESIN_OK;
}

/* ---- Rows ----------------------------------------------------------------------------------- */

/* Row `index` of those in an order that is drawn for (seed, purpose). */
static void shuffle(const boosting *b, uint64_t purpose, uint32_t *rows, int64_t count) {
    for (int64_t i = count - 1; i > 0; i--) {
        uint32_t word[4];
        resin_philox(b->settings->seed, purpose, (uint64_t)i, word);
        uint64_t other = ((uint64_t)word[0] * (uint64_t)(i + 1)) >> 32;
        uint32_t swap = rows[i];
        rows[i] = rows[other];
        rows[other] = swap;
    }
}

enum { PURPOSE_VALIDATION = 1 << 30, PURPOSE_BAG };

/* Rows of positive weight, less the validation part. */
static resin_status choose_rows(boosting *b) {
    const resin_trees_settings *s = b->settings;
    uint32_t *order;
    RESIN_TRY(scratch_take(&b->scratch, b->rows, sizeof *b->kept, &b->kept));
    RESIN_TRY(scratch_take(&b->scratch, b->rows, sizeof *b->held_out, &b->held_out));
    RESIN_TRY(scratch_take(&b->scratch, b->rows, sizeof *order, &order));
    RESIN_TRY(scratch_take(&b->scratch, b->rows, 1, &b->in_bag));
    int64_t count = 0;
    for (int64_t row = 0; row < b->rows; row++)
        if (!b->weight || b->weight[row] > 0) order[count++] = (uint32_t)row;
    int64_t apart = s->patience > 0 ? (int64_t)ceil(s->validation * (double)count) : 0;
    if (apart >= count)
        return resin_fail(b->context, RESIN_ERROR_ARGUMENT,
                          "boost: a validation part of %lld rows leaves none of %lld to learn from",
                          (long long)apart, (long long)count);
    if (apart > 0) shuffle(b, PURPOSE_VALIDATION, order, count);
    memset(b->in_bag, 0, (size_t)b->rows);
    for (int64_t i = apart; i < count; i++) b->in_bag[order[i]] = 1;
    for (int64_t row = 0; row < b->rows; row++) {
        if (b->in_bag[row]) b->kept[b->kept_count++] = (uint32_t)row;
        else if (!b->weight || b->weight[row] > 0)
            b->held_out[b->held_out_count++] = (uint32_t)row;
    }
    return RESIN_OK;
}

/* The rows that the trees of a stage see, into the growth's list. */
static void fill_bag(boosting *b) {
    tree_growth *g = &b->growth;
    int64_t size = (int64_t)(b->settings->subsample * (double)b->kept_count);
    if (size < 1) size = 1;
    if (size == b->kept_count) {
        g->row_count = size;
        return;
    }
    memcpy(b->bag, b->kept, (size_t)b->kept_count * sizeof *b->bag);
    shuffle(b, (uint64_t)PURPOSE_BAG << 32 | (uint64_t)b->stage, b->bag, b->kept_count);
    memset(b->in_bag, 0, (size_t)b->rows);
    for (int64_t i = 0; i < size; i++) b->in_bag[b->bag[i]] = 1;
    g->row_count = 0;
    for (int64_t i = 0; i < b->kept_count; i++)
        if (b->in_bag[b->kept[i]]) b->bag[g->row_count++] = b->kept[i];
}

/* ---- Preparing ------------------------------------------------------------------------------ */

static resin_status take_arrays(boosting *b) {
    boosting_data *d = &b->data;
    int64_t outputs = b->trees->outputs, cells;
    if (__builtin_mul_overflow(b->rows, outputs, &cells))
        return resin_fail(b->context, RESIN_ERROR_MEMORY, "boost: too many classes and rows");
    *d = (boosting_data){.context = b->context, .settings = b->settings, .rows = b->rows,
                         .outputs = outputs, .y = b->y, .weight = b->weight};
    RESIN_TRY(scratch_take(&b->scratch, cells, sizeof(double), &d->score));
    RESIN_TRY(scratch_take(&b->scratch, cells, sizeof(double), &d->target));
    if (b->settings->histogram && b->settings->loss == RESIN_TREES_LOG)
        RESIN_TRY(scratch_take(&b->scratch, cells, sizeof(double), &d->hessian));
    RESIN_TRY(scratch_take(&b->scratch, b->rows, sizeof *d->pair, &d->pair));
    RESIN_TRY(scratch_take(&b->scratch, b->rows, sizeof *b->bag, &b->bag));
    return scratch_take(&b->scratch, b->rows, sizeof *b->growth.rows, &b->growth.rows);
}

static resin_status prepare_method(boosting *b) {
    tree_growth *g = &b->growth;
    g->context = b->context;
    g->scratch = &b->scratch;
    g->settings = b->settings;
    g->features = b->features;
    RESIN_TRY(growth_prepare(g));
    if (!b->settings->histogram)
        return exact_prepare(&b->exact, g, b->x, b->rows, b->kept, b->kept_count);
    RESIN_TRY(scratch_take(&b->scratch, 1, sizeof *b->histogram, &b->histogram));
    memset(b->histogram, 0, sizeof *b->histogram);
    RESIN_TRY(bins_make(&b->scratch, b->settings, b->x, b->rows, b->features, b->kept,
                        b->kept_count, &b->binned));
    return histogram_prepare(b->histogram, g, &b->binned);
}

static resin_status prepare(boosting *b, resin_tensor *x, const resin_tensor *y,
                            const resin_tensor *weights) {
    const resin_trees_settings *s = b->settings;
    RESIN_TRY(check_numbers(b->context, s));
    RESIN_TRY(check_counts(b->context, s));
    RESIN_TRY(check_shapes(b->context, x, y, weights));
    b->rows = x->shape[0];
    b->features = x->shape[1];
    RESIN_TRY(check_features(b));
    RESIN_TRY(trees_table(b->context, "boost", x, &b->table));
    b->x = tensor_data(b->table);
    RESIN_TRY(take_doubles(b, y, &b->y));
    if (weights) RESIN_TRY(take_doubles(b, weights, &b->weight));
    RESIN_TRY(check_targets(b));
    RESIN_TRY(check_weights(b));
    RESIN_TRY(check_table(b));
    RESIN_TRY(choose_rows(b));
    RESIN_TRY(trees_new(b->context, s->loss, b->features, s->classes, s->learning_rate, &b->trees));
    RESIN_TRY(take_arrays(b));
    if (!s->zero_start) loss_start(&b->data, b->kept, b->kept_count, b->trees->initial);
    for (int64_t k = 0; k < b->data.outputs; k++)
        for (int64_t row = 0; row < b->rows; row++)
            b->data.score[k * b->rows + row] = b->trees->initial[k];
    return prepare_method(b);
}

/* ---- One tree ------------------------------------------------------------------------------- */

typedef struct leaf_work {
    boosting *b;
    int64_t output;
    const uint32_t *rows; /* to send through the tree */
    int64_t count, pieces;
} leaf_work;

static void renew_leaf(void *argument, int64_t index, int worker) {
    const leaf_work *work = argument;
    boosting *b = work->b;
    grow_node *node = &b->growth.node[index];
    (void)worker;
    if (node->left < 0)
        node->value = loss_leaf(&b->data, b->growth.rows, node->first, node->last - node->first,
                                work->output);
}

/* The method's own values are means of gradients, or Newton steps: right for the squared loss, and
 * with histograms for the log loss. */
static bool renews_leaves(const boosting *b) {
    resin_trees_loss loss = b->settings->loss;
    return loss != RESIN_TREES_SQUARED && !(loss == RESIN_TREES_LOG && b->settings->histogram);
}

/* A tree that saw all rows knows in which leaf each of them is. */
static void add_leaf(void *argument, int64_t index, int worker) {
    const leaf_work *work = argument;
    const boosting *b = work->b;
    const grow_node *node = &b->growth.node[index];
    (void)worker;
    if (node->left >= 0) return;
    double step = b->settings->learning_rate * node->value;
    double *score = b->data.score + work->output * b->rows;
    for (int64_t i = node->first; i < node->last; i++) score[b->growth.rows[i]] += step;
}

static void add_rows(void *argument, int64_t piece, int worker) {
    const leaf_work *work = argument;
    const boosting *b = work->b;
    const resin_trees *trees = b->trees;
    const tree_node *tree = trees->node + trees->tree_first[trees->trees - 1];
    double *score = b->data.score + work->output * b->rows;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(work->count, work->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++) {
        uint32_t row = work->rows[i];
        const tree_node *leaf = tree_leaf(tree, trees->set, b->x + row * b->features);
        score[row] += b->settings->learning_rate * leaf->value;
    }
}

static void send_rows(leaf_work *work, const uint32_t *rows, int64_t count) {
    work->rows = rows;
    work->count = count;
    work->pieces = resin_piece_count(count, ROW_GRAIN);
    if (count > 0) resin_parallel(work->b->context, work->pieces, add_rows, work);
}

static resin_status fit_tree(boosting *b, int64_t output) {
    tree_growth *g = &b->growth;
    const boosting_data *d = &b->data;
    bool whole = g->row_count == b->kept_count;
    memcpy(g->rows, whole ? b->kept : b->bag, (size_t)g->row_count * sizeof *g->rows);
    g->number = (uint64_t)b->trees->trees;
    if (b->settings->histogram) {
        b->histogram->target = d->target + output * b->rows;
        b->histogram->hessian = d->hessian ? d->hessian + output * b->rows : NULL;
        b->histogram->weight = b->weight;
    } else {
        b->exact.target = d->target + output * b->rows;
        b->exact.weight = b->weight;
        b->exact.in_bag = whole ? NULL : b->in_bag;
    }
    RESIN_TRY(growth_run(g));
    leaf_work work = {.b = b, .output = output};
    if (renews_leaves(b))
        trees_parallel(b->context, g->count, 10 * g->row_count, renew_leaf, &work);
    RESIN_TRY(growth_append(g, b->trees));
    if (whole) trees_parallel(b->context, g->count, g->row_count, add_leaf, &work);
    else send_rows(&work, b->kept, b->kept_count);
    send_rows(&work, b->held_out, b->held_out_count);
    return RESIN_OK;
}

/* ---- All stages ----------------------------------------------------------------------------- */

/* Whether the validation loss has not got better than any of the last `patience` ones that did
 * (scikit-learn's rule). */
static bool stopped_falling(const boosting *b, double *history, double loss) {
    int64_t patience = b->settings->patience;
    bool better = false;
    for (int64_t i = 0; i < patience; i++) better |= loss + b->settings->tolerance < history[i];
    if (better) history[b->stage % patience] = loss;
    return !better;
}

static resin_status run_stages(boosting *b) {
    const resin_trees_settings *s = b->settings;
    resin_trees *trees = b->trees;
    double *history;
    RESIN_TRY(trees_grow_array(b->context, &trees->train_loss, 0, s->stages, sizeof(double)));
    RESIN_TRY(scratch_take(&b->scratch, s->patience, sizeof *history, &history));
    for (int64_t i = 0; i < s->patience; i++) history[i] = INFINITY;
    if (b->held_out_count > 0)
        RESIN_TRY(trees_grow_array(b->context, &trees->validation_loss, 0, s->stages,
                                   sizeof(double)));
    for (b->stage = 0; b->stage < s->stages; b->stage++) {
        fill_bag(b);
        loss_gradient(&b->data, b->kept, b->kept_count);
        for (int64_t k = 0; k < trees->outputs; k++) RESIN_TRY(fit_tree(b, k));
        bool whole = b->growth.row_count == b->kept_count;
        trees->train_loss[b->stage] = loss_mean(&b->data, whole ? b->kept : b->bag,
                                                b->growth.row_count);
        if (b->held_out_count > 0) {
            double loss = loss_mean(&b->data, b->held_out, b->held_out_count);
            trees->validation_loss[b->stage] = loss;
            if (stopped_falling(b, history, loss)) break;
        }
        if (resin_cancelled(b->context, false)) break;
    }
    return trees_pack(trees);
}

resin_status resin_trees_fit(resin_context *context, resin_tensor *x, resin_tensor *y,
                             resin_tensor *weights, const resin_trees_settings *settings,
                             resin_trees **out) {
    boosting b = {.context = context, .settings = settings, .scratch = {.context = context}};
    resin_status status = prepare(&b, x, y, weights);
    if (status == RESIN_OK) status = run_stages(&b);
    scratch_free(&b.scratch);
    resin_release(b.table);
    if (status != RESIN_OK) {
        resin_trees_release(b.trees);
        return status;
    }
    *out = b.trees;
    return RESIN_OK;
}
