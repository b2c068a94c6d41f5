/* test_autograd.c: the table of ops, calls of ops, and the graph: recording, backward, errors. */
#include "core/base/memory.h"
#include "core/ops/op.h"
#include "core/ops/signature.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static int make_context(void **state) {
    *state = resin_context_new();
    return *state ? 0 : -1;
}

static int drop_context(void **state) {
    size_t held = resin_memory(*state).held;
    resin_context_release(*state);
    return held == 0 ? 0 : -1;
}

static void expect(resin_context *context, resin_status got, resin_status wanted,
                   const char *part) {
    if (got != wanted)
        fail_msg("status %s (%s), expected %s", resin_status_name(got),
                 resin_error_message(context), resin_status_name(wanted));
    if (part && !strstr(resin_error_message(context), part))
        fail_msg("\"%s\" does not contain \"%s\"", resin_error_message(context), part);
}

/* ---- Short ways to call ops ------------------------------------------------------------------ */

static resin_tensor *apply(resin_context *context, const char *op, resin_tensor *a,
                           resin_tensor *b) {
    resin_tensor *in[] = {a, b}, *out;
    expect(context, resin_apply(context, op, in, b ? 2 : 1, NULL, 0, &out), RESIN_OK, NULL);
    return out;
}

/* The result, and the caller's references to the operands given back. */
static resin_tensor *chain(resin_context *context, const char *op, resin_tensor *a,
                           resin_tensor *b) {
    resin_tensor *out = apply(context, op, a, b);
    resin_release(a);
    resin_release(b);
    return out;
}

static resin_tensor *vector(resin_context *context, int count, const double *values) {
    int64_t shape = count;
    resin_tensor *t;
    expect(context, resin_empty(context, RESIN_FLOAT64, 1, &shape, &t), RESIN_OK, NULL);
    memcpy(resin_tensor_data(t), values, (size_t)count * sizeof *values);
    return t;
}

static resin_tensor *leaf(resin_context *context, int count, const double *values) {
    resin_tensor *t = vector(context, count, values);
    expect(context, resin_require_grad(t, true), RESIN_OK, NULL);
    return t;
}

static void backward(resin_tensor *t, resin_tensor *grad, bool keep) {
    expect(resin_tensor_context(t), resin_backward(t, grad, keep), RESIN_OK, NULL);
}

static void grad_is(const resin_tensor *t, int count, const double *expected) {
    resin_tensor *grad = resin_tensor_grad(t);
    assert_non_null(grad);
    assert_true(resin_tensor_contiguous(grad));
    const double *values = resin_tensor_data(grad);
    for (int i = 0; i < count; i++)
        if (values[i] != expected[i])
            fail_msg("entry %d of the gradient is %g, expected %g", i, values[i], expected[i]);
}

/* ---- The table ------------------------------------------------------------------------------- */

static void rows_are_complete(void **state) {
    (void)state;
    assert_true(op_table_count > 60);
    for (int i = 0; i < op_table_count; i++) {
        const op_row *row = &op_table[i];
        if (!row->name || !row->signature || !row->doc || !row->forward)
            fail_msg("row %d is not complete", i);
        if (!signature_valid(i)) fail_msg("%s: its signature does not parse", row->name);
        if (signature_find(row->name) != i) fail_msg("%s stands twice in the table", row->name);
        if (row->backward && !row->check) fail_msg("%s has a gradient but no check", row->name);
        if (!row->backward && row->check) fail_msg("%s has a check but no gradient", row->name);
    }
}

static void calls_are_checked(void **state) {
    const double values[] = {1, 2};
    resin_tensor *x = vector(*state, 2, values), *out = x;
    resin_tensor *in[] = {x, x, x}, *missing[] = {x, NULL};
    resin_attribute axis = {.name = "axis", .kind = RESIN_VALUE_INT, .integer = 5};
    resin_attribute wrong = {.name = "axes", .kind = RESIN_VALUE_STRING, .string = "all"};
    resin_attribute alpha = {.name = "alpha", .kind = RESIN_VALUE_NUMBER, .number = 1};
    expect(*state, resin_apply(*state, "no_such_op", in, 1, NULL, 0, &out), RESIN_ERROR_ARGUMENT,
           "no_such_op");
    assert_null(out);
    expect(*state, resin_apply(*state, "add", in, 1, NULL, 0, &out), RESIN_ERROR_ARGUMENT, "add");
    expect(*state, resin_apply(*state, "add", in, 3, NULL, 0, &out), RESIN_ERROR_ARGUMENT, "add");
    expect(*state, resin_apply(*state, "add", missing, 2, NULL, 0, &out), RESIN_ERROR_ARGUMENT,
           "missing");
    expect(*state, resin_apply(*state, "exp", in, 1, &alpha, 1, &out), RESIN_ERROR_ARGUMENT,
           "\"alpha\"");
    expect(*state, resin_apply(*state, "sum", in, 1, &wrong, 1, &out), RESIN_ERROR_ARGUMENT,
           "axes");
    expect(*state, resin_apply(*state, "softmax", in, 1, &axis, 1, &out), RESIN_ERROR_ARGUMENT,
           "axis 5");
    expect(*state, resin_apply(*state, "max_pool2d", in, 1, NULL, 0, &out), RESIN_ERROR_ARGUMENT,
           "kernel");

    resin_attribute long_list = {.name = "axes", .kind = RESIN_VALUE_INTS, .count = 100};
    expect(*state, resin_apply(*state, "sum", in, 1, &long_list, 1, &out), RESIN_ERROR_ARGUMENT,
           NULL);
    long_list.count = -1;
    expect(*state, resin_apply(*state, "sum", in, 1, &long_list, 1, &out), RESIN_ERROR_ARGUMENT,
           NULL);

    resin_context *other = resin_context_new();
    resin_tensor *foreign = vector(other, 2, values), *mixed[] = {x, foreign};
    expect(*state, resin_apply(*state, "add", mixed, 2, NULL, 0, &out), RESIN_ERROR_ARGUMENT,
           "context");
    resin_release(foreign);
    resin_context_release(other);
    resin_release(x);
}

/* ---- Gradients ------------------------------------------------------------------------------- */

static void the_same_leaf_twice(void **state) {
    const double values[] = {1, -2, 3}, twice[] = {2, -4, 6};
    resin_tensor *x = leaf(*state, 3, values), *y = apply(*state, "multiply", x, x);
    resin_tensor *sum = chain(*state, "sum", y, NULL);
    backward(sum, NULL, false);
    grad_is(x, 3, twice);
    resin_release(sum);
    resin_release(x);
}

/* x + x: the op hands the same tensor to both inputs. */
static void one_gradient_for_two_inputs(void **state) {
    const double values[] = {1, 2}, given[] = {10, 20}, doubled[] = {20, 40};
    resin_tensor *x = leaf(*state, 2, values), *y = apply(*state, "add", x, x);
    resin_tensor *grad = vector(*state, 2, given);
    backward(y, grad, false);
    grad_is(x, 2, doubled);
    assert_memory_equal(resin_tensor_data(grad), given, sizeof given); /* the caller's stays */
    assert_ptr_not_equal(resin_tensor_grad(x), grad);
    resin_release(grad);
    resin_release(y);
    resin_release(x);
}

/* a = 2x, y = a a + a (3x): dy/dx = 8x + 12x. */
static void diamonds(void **state) {
    const double values[] = {1, 2}, two[] = {2, 2}, three[] = {3, 3}, expected[] = {20, 40};
    resin_tensor *x = leaf(*state, 2, values), *c2 = vector(*state, 2, two);
    resin_tensor *c3 = vector(*state, 2, three);
    resin_tensor *a = apply(*state, "multiply", x, c2), *b = apply(*state, "multiply", x, c3);
    resin_tensor *square = apply(*state, "multiply", a, a);
    resin_tensor *product = chain(*state, "multiply", a, b);
    resin_tensor *y = chain(*state, "sum", chain(*state, "add", square, product), NULL);
    backward(y, NULL, false);
    grad_is(x, 2, expected);
    assert_null(resin_tensor_grad(c2));
    resin_release(y);
    resin_release(c3);
    resin_release(c2);
    resin_release(x);
}

static void gradients_add_up(void **state) {
    const double values[] = {1, 2}, once[] = {2, 4}, twice[] = {4, 8};
    resin_tensor *x = leaf(*state, 2, values);
    for (int round = 1; round <= 2; round++) {
        resin_tensor *y = chain(*state, "sum", apply(*state, "square", x, NULL), NULL);
        backward(y, NULL, false);
        grad_is(x, 2, round == 1 ? once : twice);
        resin_release(y);
    }
    resin_clear_grad(x);
    assert_null(resin_tensor_grad(x));
    resin_tensor *y = chain(*state, "sum", apply(*state, "square", x, NULL), NULL);
    backward(y, NULL, false);
    grad_is(x, 2, once);
    resin_release(y);
    resin_release(x);
}

static void gradients_go_to_given_buffers(void **state) {
    const double values[] = {1, 2}, garbage[] = {NAN, 1e300}, once[] = {2, 4}, twice[] = {4, 8};
    resin_tensor *x = leaf(*state, 2, values), *buffer = vector(*state, 2, garbage);
    expect(*state, resin_set_grad(x, buffer), RESIN_OK, NULL);
    assert_null(resin_tensor_grad(x)); /* nothing was written yet */
    for (int round = 1; round <= 3; round++) {
        if (round == 3) resin_clear_grad(x); /* the buffer stays; the next write stores */
        resin_tensor *y = chain(*state, "sum", apply(*state, "multiply", x, x), NULL);
        backward(y, NULL, false);
        assert_ptr_equal(resin_tensor_grad(x), buffer);
        grad_is(x, 2, round == 2 ? twice : once);
        resin_release(y);
    }
    const double three[] = {1, 2, 3};
    resin_tensor *wrong = vector(*state, 3, three);
    expect(*state, resin_set_grad(x, wrong), RESIN_ERROR_SHAPE, "(3)");
    assert_ptr_equal(resin_tensor_grad(x), buffer);
    resin_release(wrong);
    resin_release(buffer);
    resin_release(x);
}

static void backward_of_leaves_and_results(void **state) {
    const double values[] = {5}, one[] = {1}, two[] = {1, 2};
    resin_tensor *x = leaf(*state, 1, values), *constant = vector(*state, 1, one);
    backward(x, NULL, false);
    grad_is(x, 1, one);
    expect(*state, resin_backward(constant, NULL, false), RESIN_ERROR_GRAPH, "requires a gradient");
    resin_tensor *pair = leaf(*state, 2, two), *y = apply(*state, "exp", pair, NULL);
    expect(*state, resin_backward(y, NULL, false), RESIN_ERROR_SHAPE, "(2)");
    expect(*state, resin_backward(y, constant, false), RESIN_ERROR_SHAPE, "(1)");
    assert_null(resin_tensor_grad(pair));
    resin_release(y);
    resin_release(pair);
    resin_release(constant);
    resin_release(x);
}

static void only_floats_have_gradients(void **state) {
    resin_tensor *t;
    const int64_t shape[] = {2};
    expect(*state, resin_full(*state, RESIN_INT64, 1, shape, 0, &t), RESIN_OK, NULL);
    expect(*state, resin_require_grad(t, true), RESIN_ERROR_ARGUMENT, "int64");
    resin_release(t);
    const double values[] = {1};
    resin_tensor *x = leaf(*state, 1, values), *y = apply(*state, "exp", x, NULL);
    expect(*state, resin_require_grad(y, true), RESIN_ERROR_GRAPH, "leaves");
    resin_release(y);
    resin_release(x);
}

static void nothing_is_recorded_when_off(void **state) {
    const double values[] = {1, 2};
    resin_tensor *x = leaf(*state, 2, values);
    assert_true(resin_set_recording(*state, false));
    resin_tensor *y = apply(*state, "exp", x, NULL);
    assert_false(resin_requires_grad(y));
    assert_false(resin_set_recording(*state, true));
    resin_tensor *detached, *z = apply(*state, "exp", x, NULL);
    expect(*state, resin_detach(z, &detached), RESIN_OK, NULL);
    assert_true(resin_requires_grad(z));
    assert_false(resin_requires_grad(detached));
    assert_ptr_equal(resin_tensor_data(z), resin_tensor_data(detached));
    resin_release(detached);
    resin_release(z);
    resin_release(y);
    resin_release(x);
}

/* ---- Freed graphs and changes in place ------------------------------------------------------- */

static void a_graph_runs_once_unless_kept(void **state) {
    const double values[] = {1, 2}, once[] = {2, 4}, thrice[] = {6, 12};
    resin_tensor *x = leaf(*state, 2, values);
    resin_tensor *square = apply(*state, "square", x, NULL);
    resin_tensor *y = apply(*state, "sum", square, NULL);
    backward(y, NULL, true);
    grad_is(x, 2, once);
    backward(y, NULL, true);
    backward(y, NULL, false);
    grad_is(x, 2, thrice);
    expect(*state, resin_backward(y, NULL, false), RESIN_ERROR_GRAPH, "freed");
    grad_is(x, 2, thrice);
    /* A new op on a result whose graph is gone. */
    resin_tensor *later = apply(*state, "sum", square, NULL);
    expect(*state, resin_backward(later, NULL, false), RESIN_ERROR_GRAPH, "square");
    resin_release(later);
    resin_release(y);
    resin_release(square);
    resin_release(x);
}

static void changes_of_saved_tensors_are_found(void **state) {
    const double values[] = {1, 2}, one[] = {1, 1}, expected[] = {1, 1};
    resin_tensor *x = leaf(*state, 2, values), *c = vector(*state, 2, one);
    resin_tensor *y = chain(*state, "sum", apply(*state, "multiply", x, c), NULL);
    expect(*state, resin_fill(c, 3), RESIN_OK, NULL);
    expect(*state, resin_backward(y, NULL, false), RESIN_ERROR_GRAPH, "multiply");
    assert_null(resin_tensor_grad(x));
    resin_release(y);

    /* Through a view, too; but what backward does not read may change. */
    resin_tensor *view;
    expect(*state, resin_detach(c, &view), RESIN_OK, NULL);
    y = chain(*state, "sum", apply(*state, "multiply", x, c), NULL);
    expect(*state, resin_fill(view, 4), RESIN_OK, NULL);
    expect(*state, resin_backward(y, NULL, false), RESIN_ERROR_GRAPH, "changed in place");
    resin_release(y);
    y = chain(*state, "sum", apply(*state, "add", x, c), NULL);
    expect(*state, resin_fill(view, 5), RESIN_OK, NULL);
    backward(y, NULL, false);
    grad_is(x, 2, expected);
    resin_release(y);
    resin_release(view);
    resin_release(c);
    resin_release(x);
}

static void graphs_are_not_written(void **state) {
    const double values[] = {1, 2};
    const int64_t position[] = {0};
    resin_tensor *x = leaf(*state, 2, values), *y = apply(*state, "exp", x, NULL);
    expect(*state, resin_fill(x, 1), RESIN_ERROR_GRAPH, "in place");
    expect(*state, resin_fill(y, 1), RESIN_ERROR_GRAPH, "in place");
    expect(*state, resin_set(x, position, 1), RESIN_ERROR_GRAPH, NULL);
    expect(*state, resin_copy(x, y), RESIN_ERROR_GRAPH, NULL);
    resin_set_recording(*state, false);
    expect(*state, resin_fill(x, 1), RESIN_OK, NULL);
    expect(*state, resin_fill(y, 1), RESIN_OK, NULL); /* exp saved its result: */
    resin_set_recording(*state, true);
    resin_tensor *sum = apply(*state, "sum", y, NULL);
    expect(*state, resin_backward(sum, NULL, false), RESIN_ERROR_GRAPH, "exp");
    resin_release(sum);
    resin_release(y);
    resin_release(x);
}

/* ---- Long and wide graphs -------------------------------------------------------------------- */

enum { LONG = 200000 };

static resin_tensor *long_chain(resin_context *context, resin_tensor *x) {
    resin_tensor *y = resin_retain(x);
    for (int i = 0; i < LONG; i++) y = chain(context, "neg", y, NULL);
    return y;
}

static void long_graphs_run(void **state) {
    const double values[] = {1, 2}, given[] = {3, 4};
    resin_tensor *x = leaf(*state, 2, values), *grad = vector(*state, 2, given);
    resin_tensor *y = long_chain(*state, x);
    backward(y, grad, false);
    grad_is(x, 2, given); /* an even number of signs */
    resin_release(y);
    resin_release(grad);
    resin_release(x);
}

static void long_graphs_are_freed(void **state) {
    const double values[] = {1, 2};
    resin_tensor *x = leaf(*state, 2, values);
    size_t before = resin_memory(*state).held;
    resin_release(long_chain(*state, x)); /* never run */
    assert_int_equal(resin_memory(*state).held, before);
    resin_release(x);
}

/* Backward lets go of what it has passed: the peak stays near what forward held. */
static void activations_are_released_on_the_way(void **state) {
    enum { SIZE = 1 << 16, DEPTH = 40 };
    const int64_t shape[] = {SIZE};
    resin_tensor *x;
    expect(*state, resin_full(*state, RESIN_FLOAT32, 1, shape, 0.5, &x), RESIN_OK, NULL);
    expect(*state, resin_require_grad(x, true), RESIN_OK, NULL);
    resin_tensor *y = resin_retain(x);
    for (int i = 0; i < DEPTH; i++) y = chain(*state, "sin", y, NULL); /* saves its input */
    y = chain(*state, "sum", y, NULL);
    size_t held = resin_memory(*state).held;
    resin_memory_reset_peak(*state);
    backward(y, NULL, false);
    assert_true(resin_memory(*state).peak < held + 6 * SIZE * sizeof(float));
    assert_true(resin_memory(*state).held < 8 * SIZE * sizeof(float));
    resin_release(y);
    resin_release(x);
}

static void many_inputs(void **state) {
    enum { WIDE = 300 };
    resin_tensor *in[WIDE], *out;
    double value = 1, expected = 1;
    for (int i = 0; i < WIDE; i++) in[i] = i == 7 ? resin_retain(in[3]) : leaf(*state, 1, &value);
    expect(*state, resin_apply(*state, "concatenate", in, WIDE, NULL, 0, &out), RESIN_OK, NULL);
    assert_int_equal(resin_tensor_count(out), WIDE);
    resin_tensor *y = chain(*state, "sum", out, NULL);
    backward(y, NULL, false);
    for (int i = 0; i < WIDE; i++) {
        expected = i == 3 || i == 7 ? 2 : 1;
        grad_is(in[i], 1, &expected);
    }
    resin_release(y);
    for (int i = 0; i < WIDE; i++) resin_release(in[i]);
}

static void results_outlive_their_context(void **state) {
    (void)state;
    const double values[] = {1, 2}, expected[] = {2, 4};
    resin_context *context = resin_context_new();
    resin_tensor *x = leaf(context, 2, values);
    resin_tensor *y = chain(context, "sum", apply(context, "square", x, NULL), NULL);
    resin_context_release(context);
    backward(y, NULL, false);
    grad_is(x, 2, expected);
    resin_release(x);
    resin_release(y);
}

/* ---- After fork ------------------------------------------------------------------------------ */

static resin_tensor *draw(resin_context *context, resin_dtype dtype, int rank,
                          const int64_t *shape) {
    resin_tensor *t;
    expect(context, resin_normal(context, dtype, rank, shape, 0, 1, &t), RESIN_OK, NULL);
    return t;
}

/* A convolution's gradients and a product by OpenBLAS: three tensors. */
static void compute(resin_context *context, resin_tensor *out[3]) {
    const int64_t image[] = {4, 33, 31, 16}, kernel[] = {3, 3, 16, 16}, square[] = {301, 301};
    resin_seed(context, 6);
    resin_tensor *x = draw(context, RESIN_FLOAT32, 4, image);
    resin_tensor *weights = draw(context, RESIN_FLOAT32, 4, kernel);
    resin_tensor *a = draw(context, RESIN_FLOAT64, 2, square);
    expect(context, resin_require_grad(x, true), RESIN_OK, NULL);
    expect(context, resin_require_grad(weights, true), RESIN_OK, NULL);
    resin_tensor *y = apply(context, "conv2d", x, weights);
    y = chain(context, "sum", chain(context, "square", y, NULL), NULL);
    backward(y, NULL, false);
    out[0] = resin_retain(resin_tensor_grad(x));
    out[1] = resin_retain(resin_tensor_grad(weights));
    out[2] = apply(context, "matmul", a, a);
    resin_release(y);
    resin_release(x);
    resin_release(weights);
    resin_release(a);
}

static bool same_bits(resin_tensor *const *a, resin_tensor *const *b) {
    bool same = true;
    for (int i = 0; i < 3; i++) {
        size_t size = (size_t)resin_tensor_count(a[i]) * resin_dtype_size(resin_tensor_dtype(a[i]));
        same = same && memcmp(resin_tensor_data(a[i]), resin_tensor_data(b[i]), size) == 0;
    }
    return same;
}

/* The child has none of the pool's threads: it must neither wait for them nor compute otherwise. */
static void ops_work_after_fork(void **state) {
    resin_tensor *before[3], *after[3];
    expect(*state, resin_set_threads(*state, 4), RESIN_OK, NULL);
    compute(*state, before);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        compute(*state, after);
        _exit(same_bits(before, after) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    compute(*state, after); /* and the parent goes on */
    assert_true(same_bits(before, after));
    for (int i = 0; i < 3; i++) {
        resin_release(before[i]);
        resin_release(after[i]);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_context, drop_context)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(rows_are_complete),
        TEST(calls_are_checked),
        TEST(the_same_leaf_twice),
        TEST(one_gradient_for_two_inputs),
        TEST(diamonds),
        TEST(gradients_add_up),
        TEST(gradients_go_to_given_buffers),
        TEST(backward_of_leaves_and_results),
        TEST(only_floats_have_gradients),
        TEST(nothing_is_recorded_when_off),
        TEST(a_graph_runs_once_unless_kept),
        TEST(changes_of_saved_tensors_are_found),
        TEST(graphs_are_not_written),
        TEST(long_graphs_run),
        TEST(long_graphs_are_freed),
        TEST(activations_are_released_on_the_way),
        TEST(many_inputs),
        TEST(results_outlive_their_context),
        TEST(ops_work_after_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
