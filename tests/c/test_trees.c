/* test_trees.c: trees and boosting in the core: splits against a search of all of them, sums in
 * fixed point, memory that runs out, statuses. What scikit-learn gives, and odd tables, are in
 * tests/lua/boost_spec.lua. */
#include "core/base/memory.h"
#include "core/trees/sorted.h"
#include "core/trees/trees.h"
#include "tests/c/tensors.h"

static resin_context *context;

static int start(void **state) {
    (void)state;
    context = resin_context_new();
    return context == NULL;
}

static int finish(void **state) {
    (void)state;
    size_t held = resin_memory(context).held;
    if (held) print_error("%zu bytes are still held\n", held);
    resin_context_release(context);
    return held != 0;
}

/* ---- Tables ---------------------------------------------------------------------------------- */

enum { ROWS = 200, FEATURES = 3 };

typedef struct sample {
    resin_tensor *x, *y, *weights;
} sample;

static sample make_sample(void) {
    sample s = {tensor_of(context, RESIN_FLOAT32, SHAPE(ROWS, FEATURES), NULL),
                tensor_of(context, RESIN_FLOAT64, SHAPE(ROWS), NULL),
                tensor_of(context, RESIN_FLOAT64, SHAPE(ROWS), NULL)};
    double *y = resin_tensor_data(s.y), *weight = resin_tensor_data(s.weights);
    for (int row = 0; row < ROWS; row++) {
        double a = at(s.x, row * FEATURES), b = at(s.x, row * FEATURES + 1);
        y[row] = a * a + (b > 0.2 ? b : -1) + 0.1 * y[row];
        weight[row] = 1.25 + weight[row];
    }
    return s;
}

static void release_sample(sample s) {
    release_all(INPUTS(s.x, s.y, s.weights));
}

static resin_trees *fit(sample s, const resin_trees_settings *settings) {
    resin_trees *trees;
    must(context, resin_trees_fit(context, s.x, s.y, s.weights, settings, &trees));
    return trees;
}

static resin_trees_settings one_tree(bool histogram, int64_t depth) {
    resin_trees_settings s;
    resin_trees_defaults(&s);
    s.stages = 1;
    s.learning_rate = 1;
    s.zero_start = true;
    s.friedman = false;
    s.histogram = histogram;
    s.max_depth = depth;
    return s;
}

/* ---- Sorting --------------------------------------------------------------------------------- */

static void sorting(void **state) {
    enum { COUNT = 3000 };
    static sorted_entry entry[COUNT], spare[COUNT];
    (void)state;
    for (int i = 0; i < COUNT; i++) {
        float value = (float)(test_random() * (i % 3 ? 1 : 1e30));
        if (i % 50 == 0) value = i % 100 ? 0.0f : -0.0f;
        if (i % 97 == 0) value = i % 2 ? INFINITY : -INFINITY;
        entry[i] = (sorted_entry){value, (uint32_t)i};
    }
    sort_entries(entry, spare, COUNT);
    for (int i = 1; i < COUNT; i++) {
        assert_true(entry[i - 1].value <= entry[i].value);
        if (entry[i - 1].value == entry[i].value) assert_true(entry[i - 1].row < entry[i].row);
    }
    sort_entries(entry, spare, 0);
}

/* ---- The best split -------------------------------------------------------------------------- */

/* The weighted sum of squared deviations of the rows on one side of x[feature] <= threshold. */
static double deviation(sample s, int feature, float threshold, bool left) {
    double weight = 0, sum = 0, squares = 0;
    for (int row = 0; row < ROWS; row++) {
        bool is_left = ((float *)resin_tensor_data(s.x))[row * FEATURES + feature] <= threshold;
        if (is_left != left) continue;
        double w = at(s.weights, row), y = at(s.y, row);
        weight += w;
        sum += w * y;
        squares += w * y * y;
    }
    return weight > 0 ? squares - sum * sum / weight : 0;
}

/* No threshold of any feature takes more from the sum of squares than the root's. */
static void best_split(void **state) {
    (void)state;
    sample s = make_sample();
    double all = deviation(s, 0, INFINITY, true), best = 0;
    for (int feature = 0; feature < FEATURES; feature++)
        for (int row = 0; row < ROWS; row++) {
            float x = ((float *)resin_tensor_data(s.x))[row * FEATURES + feature];
            double gain = all - deviation(s, feature, x, true) - deviation(s, feature, x, false);
            if (gain > best) best = gain;
        }
    for (int histogram = 0; histogram < 2; histogram++) {
        resin_trees_settings settings = one_tree(histogram, 1);
        resin_trees *trees = fit(s, &settings);
        const tree_node *root = trees->node;
        assert_int_equal(trees->nodes, 3);
        assert_close(root->gain, best, 1e-6 * best);
        double left = deviation(s, root->feature, (float)root->threshold, true);
        double right = deviation(s, root->feature, (float)root->threshold, false);
        assert_close(all - left - right, best, 1e-9 * best);
        assert_int_equal(root[1].samples + root[2].samples, ROWS);
        resin_trees_release(trees);
    }
    release_sample(s);
}

/* Every row reaches the leaf whose value it is given, one by one and in groups. */
static void prediction(void **state) {
    (void)state;
    sample s = make_sample();
    for (int histogram = 0; histogram < 2; histogram++) {
        resin_trees_settings settings = one_tree(histogram, 0);
        settings.stages = 7;
        resin_trees *trees = fit(s, &settings);
        resin_tensor *scores;
        must(context, resin_trees_start(trees, ROWS, &scores));
        must(context, resin_trees_add(trees, s.x, 0, 7, scores));
        for (int row = 0; row < ROWS; row++) {
            const float *x = (float *)resin_tensor_data(s.x) + row * FEATURES;
            double sum = 0;
            for (int tree = 0; tree < 7; tree++)
                sum += tree_leaf(trees->node + trees->tree_first[tree], trees->set, x)->value;
            assert_true(at(scores, row) == sum);
        }
        resin_release(scores);
        resin_trees_release(trees);
    }
    release_sample(s);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* The first, second, third ... allocation fails until the whole passes. */
static void memory_runs_out(void **state) {
    (void)state;
    sample s = make_sample();
    for (int histogram = 0; histogram < 2; histogram++) {
        resin_trees_settings settings;
        resin_trees_defaults(&settings);
        settings.histogram = histogram;
        settings.stages = 3;
        settings.max_depth = 7;
        settings.subsample = 0.8;
        settings.patience = 2;
        resin_status status = RESIN_ERROR_MEMORY;
        size_t held = resin_memory(context).held;
        for (long allowed = 0; status != RESIN_OK; allowed++) {
            resin_trees *trees = NULL;
            resin_arena_fail_after(context, allowed);
            status = resin_trees_fit(context, s.x, s.y, s.weights, &settings, &trees);
            resin_arena_fail_after(context, -1);
            if (status == RESIN_OK) {
                assert_true(allowed > 10);
                resin_trees_release(trees);
            } else {
                assert_int_equal(status, RESIN_ERROR_MEMORY);
                assert_null(trees);
            }
            assert_int_equal(resin_memory(context).held, held);
        }
    }
    release_sample(s);
}

/* ---- Statuses -------------------------------------------------------------------------------- */

static void refused(sample s, resin_trees_settings settings, resin_status expected,
                    const char *text) {
    resin_trees *trees = NULL;
    assert_int_equal(resin_trees_fit(context, s.x, s.y, NULL, &settings, &trees), expected);
    assert_null(trees);
    assert_non_null(strstr(resin_error_message(context), text));
}

static void statuses(void **state) {
    (void)state;
    sample s = make_sample();
    resin_trees_settings settings = one_tree(false, 1);
    settings.stages = 0;
    refused(s, settings, RESIN_ERROR_ARGUMENT, "n_estimators");
    settings = one_tree(false, 1);
    settings.learning_rate = NAN;
    refused(s, settings, RESIN_ERROR_ARGUMENT, "learning_rate");
    settings = one_tree(false, 1);
    settings.monotone = (int8_t[]){1, 0, 0};
    refused(s, settings, RESIN_ERROR_ARGUMENT, "need the method");
    settings.histogram = true;
    settings.categorical = (bool[]){true, false, false};
    refused(s, settings, RESIN_ERROR_ARGUMENT, "monotone feature");
    settings.monotone = NULL;
    refused(s, settings, RESIN_ERROR_ARGUMENT, "categorical");
    settings = one_tree(false, 1);
    refused((sample){s.y, s.y, NULL}, settings, RESIN_ERROR_SHAPE, "(rows, features)");
    refused((sample){s.x, s.x, NULL}, settings, RESIN_ERROR_SHAPE, "target");
    resin_trees *trees = fit(s, &settings);
    resin_tensor *scores;
    must(context, resin_trees_start(trees, ROWS, &scores));
    assert_int_equal(resin_trees_add(trees, s.x, 0, 2, scores), RESIN_ERROR_ARGUMENT);
    assert_int_equal(resin_trees_add(trees, s.y, 0, 1, scores), RESIN_ERROR_SHAPE);
    assert_int_equal(resin_trees_add(trees, s.x, 0, 1, s.y), RESIN_ERROR_SHAPE);
    assert_null(resin_trees_tensor_name(RESIN_TREES_TENSORS));
    resin_release(scores);
    resin_trees_release(trees);
    release_sample(s);
}

/* A million-fold range of weights and targets: fixed point keeps what a float would. */
static void large_and_small(void **state) {
    (void)state;
    sample s = make_sample();
    double *y = resin_tensor_data(s.y);
    for (int row = 0; row < ROWS; row++)
        y[row] = (row % 2 ? 1e6 : 1) * (1 + at(s.x, row * FEATURES));
    resin_trees_settings settings = one_tree(true, 0);
    resin_trees *binned = fit(s, &settings);
    settings.histogram = false;
    resin_trees *exact = fit(s, &settings);
    resin_tensor *scores[2];
    for (int i = 0; i < 2; i++) {
        must(context, resin_trees_start(exact, ROWS, &scores[i]));
        must(context, resin_trees_add(i ? binned : exact, s.x, 0, 1, scores[i]));
    }
    for (int row = 0; row < ROWS; row++) {
        assert_close(at(scores[0], row), y[row], 1e-9 * y[row]);
        assert_close(at(scores[1], row), y[row], 0.1);
    }
    release_all(INPUTS(scores[0], scores[1]));
    resin_trees_release(exact);
    resin_trees_release(binned);
    release_sample(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sorting, start, finish),
        cmocka_unit_test_setup_teardown(best_split, start, finish),
        cmocka_unit_test_setup_teardown(prediction, start, finish),
        cmocka_unit_test_setup_teardown(memory_runs_out, start, finish),
        cmocka_unit_test_setup_teardown(statuses, start, finish),
        cmocka_unit_test_setup_teardown(large_and_small, start, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
