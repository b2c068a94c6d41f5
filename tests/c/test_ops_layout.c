/* test_ops_layout.c: products, layout, joining, indexing and dropout against plain loops; and the
 * same bits at any number of threads for all families. */
#include "tests/c/laid.h"

#include <stdio.h>

/* ---- Products ------------------------------------------------------------------------------- */

/* The element of a batched matrix at (batch position of `whole`, row, column); vectors are rows (a)
 * or columns (b). */
static double entry(const resin_tensor *t, const int64_t *batch, int batch_rank, bool is_a,
                    int64_t row, int64_t column) {
    const int rank = resin_tensor_rank(t);
    int64_t position[RESIN_MAX_RANK];
    double value;
    if (rank == 1) {
        position[0] = is_a ? column : row;
    } else {
        for (int i = 0; i < rank - 2; i++)
            position[i] = resin_tensor_shape(t)[i] == 1 ? 0 : batch[batch_rank - (rank - 2) + i];
        position[rank - 2] = row;
        position[rank - 1] = column;
    }
    must(resin_tensor_context(t), resin_get(t, position, &value));
    return value;
}

static void check_product(const resin_tensor *a, const resin_tensor *b, const resin_tensor *y) {
    const bool a_vector = resin_tensor_rank(a) == 1, b_vector = resin_tensor_rank(b) == 1;
    const int batch_rank = resin_tensor_rank(y) - !a_vector - !b_vector;
    const int64_t k = resin_tensor_shape(a)[resin_tensor_rank(a) - 1];
    const double eps = resin_tensor_dtype(y) == RESIN_FLOAT32 ? 0x1p-24 : 0x1p-53;
    for (int64_t i = 0; i < count_of(y); i++) {
        int64_t position[RESIN_MAX_RANK];
        position_of(y, i, position);
        const int64_t row = a_vector ? 0 : position[batch_rank];
        const int64_t column = b_vector ? 0 : position[batch_rank + !a_vector];
        double sum = 0, sizes = 0;
        for (int64_t j = 0; j < k; j++) {
            const double term = entry(a, position, batch_rank, true, row, j) *
                                entry(b, position, batch_rank, false, j, column);
            sum += term;
            sizes += fabs(term);
        }
        if (!(fabs(get(y, i) - sum) <= (double)(k + 1) * eps * sizes + 1e-300))
            fail_msg("found %.9g, expected %.9g", get(y, i), sum);
    }
}

static void test_matmul(void **state) {
    resin_context *context = *state;
    for (int round = 0; round < 200; round++) {
        const resin_dtype dtype = round % 3 == 2 ? RESIN_FLOAT64 : RESIN_FLOAT32;
        const int64_t m = test_integer(1, 9), n = test_integer(1, 9);
        const int64_t k = round % 40 == 7 ? 300 : test_integer(1, 9);
        test_shape batch = random_shape(0, 3, 3), a_shape = batch, b_shape = batch;
        for (int i = 0; i < batch.rank; i++) {
            if (test_integer(0, 2) == 0) a_shape.size[i] = 1;
            else if (test_integer(0, 2) == 0) b_shape.size[i] = 1;
        }
        if (test_integer(0, 3) == 0) b_shape.rank = 0;
        a_shape.size[a_shape.rank++] = m;
        a_shape.size[a_shape.rank++] = k;
        b_shape.size[b_shape.rank++] = k;
        b_shape.size[b_shape.rank++] = n;
        if (round % 11 == 3) a_shape = SHAPE(k);
        if (round % 7 == 3) b_shape = SHAPE(k);
        resin_tensor *a = laid(context, dtype, a_shape, (int)test_integer(0, 2));
        resin_tensor *b = laid(context, dtype, b_shape, (int)test_integer(0, 2));
        resin_tensor *turned = NULL;
        if (a_shape.rank >= 2 && round % 5 == 0) { /* a view whose last two axes are swapped */
            test_shape swapped = a_shape;
            swapped.size[a_shape.rank - 2] = k;
            swapped.size[a_shape.rank - 1] = m;
            resin_release(a);
            turned = drawn(context, dtype, swapped);
            a = run_op(context, "swap_axes", INPUTS(turned), NO_OPTIONS);
        }
        resin_tensor *y = run_op(context, "matmul", INPUTS(a, b), NO_OPTIONS);
        check_product(a, b, y);
        release_all(INPUTS(a, b, y));
        resin_release(turned);
    }
}

static void test_linear(void **state) {
    resin_context *context = *state;
    for (int round = 0; round < 30; round++) {
        const resin_dtype dtype = round % 2 ? RESIN_FLOAT64 : RESIN_FLOAT32;
        test_shape shape = random_shape(1, 4, 5);
        const int64_t in = shape.size[shape.rank - 1], out = test_integer(1, 20);
        resin_tensor *x = laid(context, dtype, shape, round % 3);
        resin_tensor *weights = laid(context, dtype, SHAPE(in, out), round / 3 % 3);
        resin_tensor *bias = laid(context, dtype, SHAPE(out), round / 9 % 3);
        resin_tensor *y = run_op(context, "linear", INPUTS(x, weights, bias), NO_OPTIONS);
        resin_tensor *product = run_op(context, "matmul", INPUTS(x, weights), NO_OPTIONS);
        resin_tensor *expected = run_op(context, "add", INPUTS(product, bias), NO_OPTIONS);
        assert_shape(y, shape_of(expected));
        for (int64_t i = 0; i < count_of(y); i++)
            assert_close(get(y, i), get(expected, i), 1e-6);
        release_all(INPUTS(x, weights, bias, y, product, expected));
    }
}

static void test_product_errors(void **state) {
    resin_context *context = *state;
    resin_tensor *a = drawn(context, RESIN_FLOAT32, SHAPE(2, 5, 7));
    resin_tensor *b = drawn(context, RESIN_FLOAT32, SHAPE(6, 3));
    resin_tensor *c = drawn(context, RESIN_FLOAT32, SHAPE(3, 7, 4));
    resin_tensor *d = drawn(context, RESIN_FLOAT64, SHAPE(7, 4));
    resin_tensor *scalar = drawn(context, RESIN_FLOAT32, (test_shape){0});
    resin_tensor *empty, *none;
    const int64_t shape[2] = {7, 0}, inner[2] = {0, 4};
    fails_with(context, RESIN_ERROR_SHAPE, "matmul", INPUTS(a, b), NO_OPTIONS, "(2, 5, 7)",
               "(6, 3)", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "matmul", INPUTS(a, c), NO_OPTIONS, "(2, 5, 7)",
               "(3, 7, 4)", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "matmul", INPUTS(a, d), NO_OPTIONS, "float32",
               "float64", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "matmul", INPUTS(a, scalar), NO_OPTIONS, "()", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "linear", INPUTS(a, b), NO_OPTIONS, "linear",
               "(2, 5, 7)", "(6, 3)", NULL);
    must(context, resin_empty(context, RESIN_FLOAT32, 2, shape, &empty));
    must(context, resin_empty(context, RESIN_FLOAT32, 2, inner, &none));
    resin_tensor *y = run_op(context, "matmul", INPUTS(a, empty), NO_OPTIONS);
    assert_int_equal(count_of(y), 0);
    resin_tensor *turned = run_op(context, "transpose", INPUTS(empty), NO_OPTIONS);
    resin_tensor *zero = run_op(context, "matmul", INPUTS(empty, none), NO_OPTIONS);
    assert_shape(zero, SHAPE(7, 4));
    for (int i = 0; i < 28; i++) assert_true(at(zero, i) == 0);
    release_all(INPUTS(a, b, c, d, scalar, empty, none, y));
    release_all(INPUTS(turned, zero));
}

/* ---- Layout --------------------------------------------------------------------------------- */

/* Reshaping keeps the elements in their order, whatever the strides and the groups of axes. */
static void test_reshape(void **state) {
    resin_context *context = *state;
    const test_shape shapes[] = {SHAPE(2, 3, 4, 5), SHAPE(6, 20), SHAPE(120), SHAPE(2, 12, 5),
                                 SHAPE(1, 24, 1, 5), SHAPE(5, 4, 3, 2), SHAPE(8, 15),
                                 SHAPE(2, 3, 2, 2, 5, 1)};
    for (int from = 0; from < 8; from++) {
        for (int to = 0; to < 8; to++) {
            for (int how = 0; how < 3; how++) {
                resin_tensor *x = laid(context, RESIN_INT32, shapes[from], how);
                test_shape open = shapes[to];
                const int axis = (from + how) % open.rank;
                open.size[axis] = -1;
                resin_tensor *y = run_op(context, "reshape", INPUTS(x),
                                         OPTIONS(set_ints("shape", open.rank, open.size)));
                assert_shape(y, shapes[to]);
                for (int64_t i = 0; i < 120; i++) assert_true(get(x, i) == get(y, i));
                if (how == 0) assert_ptr_equal(resin_tensor_data(x), resin_tensor_data(y));
                release_all(INPUTS(x, y));
            }
        }
    }
    resin_tensor *x = drawn(context, RESIN_INT32, SHAPE(2, 3, 4));
    const int64_t wrong[2] = {5, -1}, two[2] = {-1, -1};
    fails_with(context, RESIN_ERROR_SHAPE, "reshape", INPUTS(x),
               OPTIONS(set_ints("shape", 2, wrong)), "(2, 3, 4)", "(5, -1)", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "reshape", INPUTS(x),
               OPTIONS(set_ints("shape", 2, two)), "(-1, -1)", NULL);
    resin_release(x);
}

static void test_slice(void **state) {
    resin_context *context = *state;
    for (int round = 0; round < 100; round++) {
        test_shape shape = random_shape(1, 4, 7);
        resin_tensor *x = laid(context, (resin_dtype)test_integer(0, 4), shape, round % 3);
        int64_t start[RESIN_MAX_RANK], stop[RESIN_MAX_RANK], step[RESIN_MAX_RANK];
        const int axes = (int)test_integer(1, shape.rank);
        test_shape expected = shape;
        for (int i = 0; i < axes; i++) {
            const int64_t size = shape.size[i];
            const int64_t a = test_integer(0, size), b = test_integer(0, size);
            const bool back = test_integer(0, 1);
            step[i] = (back ? -1 : 1) * test_integer(1, 3);
            start[i] = back ? (a > b ? a : b) - 1 : a < b ? a : b;
            stop[i] = back ? (a > b ? b : a) - 1 : a < b ? b : a;
            expected.size[i] = 0;
            for (int64_t p = start[i]; back ? p > stop[i] : p < stop[i]; p += step[i])
                expected.size[i]++;
        }
        resin_tensor *y = run_op(context, "slice", INPUTS(x),
                                 OPTIONS(set_ints("start", axes, start),
                                         set_ints("stop", axes, stop),
                                         set_ints("step", axes, step)));
        assert_shape(y, expected);
        for (int64_t i = 0; i < count_of(y); i++) {
            int64_t position[RESIN_MAX_RANK];
            double value;
            position_of(y, i, position);
            for (int axis = 0; axis < axes; axis++)
                position[axis] = start[axis] + position[axis] * step[axis];
            must(context, resin_get(x, position, &value));
            assert_true(value == get(y, i));
        }
        release_all(INPUTS(x, y));
    }
    resin_tensor *x = drawn(context, RESIN_FLOAT32, SHAPE(5));
    const int64_t zero = 0, five = 5, six = 6, minus = -2;
    fails_with(context, RESIN_ERROR_ARGUMENT, "slice", INPUTS(x),
               OPTIONS(set_ints("start", 1, &zero), set_ints("stop", 1, &six)), "(5)", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "slice", INPUTS(x),
               OPTIONS(set_ints("start", 1, &five), set_ints("stop", 1, &zero),
                       set_ints("step", 1, &minus)), "(5)", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "slice", INPUTS(x),
               OPTIONS(set_ints("start", 1, &zero), set_ints("stop", 1, &five),
                       set_ints("step", 1, &zero)), "step", NULL);
    resin_release(x);
}

static void test_views_share_their_elements(void **state) {
    resin_context *context = *state;
    resin_tensor *x = drawn(context, RESIN_FLOAT32, SHAPE(2, 1, 3));
    const int64_t wide[] = {4, 2, 5, 3};
    resin_tensor *views[] = {
        run_op(context, "transpose", INPUTS(x), NO_OPTIONS),
        run_op(context, "swap_axes", INPUTS(x), NO_OPTIONS),
        run_op(context, "squeeze", INPUTS(x), NO_OPTIONS),
        run_op(context, "expand_dims", INPUTS(x), OPTIONS(set_int("axis", 1))),
        run_op(context, "flatten", INPUTS(x), OPTIONS(set_int("first", 1))),
        run_op(context, "broadcast_to", INPUTS(x), OPTIONS(set_ints("shape", 4, wide))),
        run_op(context, "select", INPUTS(x), OPTIONS(set_int("axis", 0), set_int("index", 0))),
        run_op(context, "contiguous", INPUTS(x), NO_OPTIONS),
    };
    const test_shape expected[] = {SHAPE(3, 1, 2), SHAPE(2, 3, 1), SHAPE(2, 3), SHAPE(2, 1, 1, 3),
                                   SHAPE(2, 3),    SHAPE(4, 2, 5, 3), SHAPE(1, 3), SHAPE(2, 1, 3)};
    for (int i = 0; i < 8; i++) {
        assert_shape(views[i], expected[i]);
        assert_ptr_equal(resin_tensor_data(views[i]), resin_tensor_data(x));
        assert_ptr_not_equal(views[i], x);
        resin_release(views[i]);
    }
    resin_release(x);
}

static void test_join(void **state) {
    resin_context *context = *state;
    for (int round = 0; round < 60; round++) {
        const resin_dtype dtype = (resin_dtype)test_integer(0, 4);
        test_shape shape = random_shape(1, 4, 4);
        const int64_t axis = test_integer(0, shape.rank - 1);
        resin_tensor *parts[3];
        for (int p = 0; p < 3; p++) {
            test_shape own = shape;
            if (round % 2) own.size[axis] = test_integer(0, 4) ? test_integer(1, 4) : 1;
            parts[p] = laid(context, dtype, own, (int)test_integer(0, 2));
        }
        resin_tensor *y = run_op(context, "concatenate", INPUTS(parts[0], parts[1], parts[2]),
                                 OPTIONS(set_int("axis", axis)));
        for (int64_t i = 0; i < count_of(y); i++) {
            int64_t position[RESIN_MAX_RANK];
            double value;
            int p = 0;
            position_of(y, i, position);
            while (position[axis] >= resin_tensor_shape(parts[p])[axis])
                position[axis] -= resin_tensor_shape(parts[p++])[axis];
            must(context, resin_get(parts[p], position, &value));
            assert_true(value == get(y, i));
        }
        if (round % 2 == 0) {
            resin_tensor *s = run_op(context, "stack", INPUTS(parts[0], parts[1], parts[2]),
                                     OPTIONS(set_int("axis", -1)));
            assert_int_equal(resin_tensor_rank(s), shape.rank + 1);
            for (int64_t i = 0; i < count_of(s); i++)
                assert_true(get(s, i) == get(parts[i % 3], i / 3));
            resin_release(s);
        }
        release_all(INPUTS(parts[0], parts[1], parts[2], y));
    }
    resin_tensor *a = drawn(context, RESIN_FLOAT32, SHAPE(2, 3));
    resin_tensor *b = drawn(context, RESIN_FLOAT32, SHAPE(2, 4));
    fails_with(context, RESIN_ERROR_SHAPE, "concatenate", INPUTS(a, b), NO_OPTIONS, "(2, 3)",
               "(2, 4)", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "stack", INPUTS(a, b), NO_OPTIONS, "(2, 3)", "(2, 4)",
               NULL);
    release_all(INPUTS(a, b));
}

static void test_pad_tile_flip(void **state) {
    resin_context *context = *state;
    for (int round = 0; round < 40; round++) {
        test_shape shape = random_shape(1, 3, 4);
        resin_tensor *x = laid(context, (resin_dtype)test_integer(0, 4), shape, round % 3);
        int64_t before[RESIN_MAX_RANK], after[RESIN_MAX_RANK], repeats[RESIN_MAX_RANK];
        for (int i = 0; i < shape.rank; i++) {
            before[i] = test_integer(0, 2);
            after[i] = test_integer(0, 2);
            repeats[i] = test_integer(1, 3);
        }
        resin_tensor *padded = run_op(context, "pad", INPUTS(x),
                                      OPTIONS(set_ints("before", shape.rank, before),
                                              set_ints("after", shape.rank, after),
                                              set_number("value", 7)));
        resin_tensor *tiled = run_op(context, "tile", INPUTS(x),
                                     OPTIONS(set_ints("repeats", shape.rank, repeats)));
        resin_tensor *flipped = run_op(context, "flip", INPUTS(x), NO_OPTIONS);
        int64_t position[RESIN_MAX_RANK];
        double value;
        for (int64_t i = 0; i < count_of(padded); i++) {
            bool inside = true;
            position_of(padded, i, position);
            for (int axis = 0; axis < shape.rank; axis++) {
                position[axis] -= before[axis];
                inside &= position[axis] >= 0 && position[axis] < shape.size[axis];
            }
            value = 7;
            if (inside) must(context, resin_get(x, position, &value));
            assert_true(get(padded, i) == value);
        }
        for (int64_t i = 0; i < count_of(tiled); i++) {
            position_of(tiled, i, position);
            for (int axis = 0; axis < shape.rank; axis++) position[axis] %= shape.size[axis];
            must(context, resin_get(x, position, &value));
            assert_true(get(tiled, i) == value);
        }
        for (int64_t i = 0; i < count_of(x); i++)
            assert_true(get(flipped, i) == get(x, count_of(x) - 1 - i));
        release_all(INPUTS(x, padded, tiled, flipped));
    }
}

static resin_tensor *cast_to(resin_context *context, resin_tensor *x, const char *dtype) {
    return run_op(context, "cast", INPUTS(x), OPTIONS(set_string("dtype", dtype)));
}

static void test_cast(void **state) {
    resin_context *context = *state;
    const double values[] = {-1.75, 0, 2.5, 200.25};
    resin_tensor *x = tensor_of(context, RESIN_FLOAT64, SHAPE(4), values);
    resin_tensor *single = cast_to(context, x, "float32"), *whole = cast_to(context, x, "int32");
    for (int i = 0; i < 4; i++)
        assert_true(at(single, i) == values[i] && at(whole, i) == trunc(values[i]));
    fails_with(context, RESIN_ERROR_ARGUMENT, "cast", INPUTS(x),
               OPTIONS(set_string("dtype", "half")), "half", NULL);
    release_all(INPUTS(x, single, whole));

    /* Gradients flow between the float types and end at integers. */
    x = leaf(context, RESIN_FLOAT32, SHAPE(3), NULL);
    resin_tensor *wide = cast_to(context, x, "float64"), *cut = cast_to(context, x, "int64");
    resin_tensor *sum = run_op(context, "sum", INPUTS(wide), NO_OPTIONS);
    assert_false(resin_requires_grad(cut));
    must(context, resin_backward(sum, NULL, false));
    for (int i = 0; i < 3; i++) assert_true(grad_at(x, i) == 1);
    release_all(INPUTS(x, wide, cut, sum));
}

/* ---- Indexing ------------------------------------------------------------------------------- */

static resin_tensor *positions(resin_context *context, resin_dtype dtype, test_shape shape,
                               int64_t base, int64_t size) {
    resin_tensor *t = drawn(context, dtype, shape);
    int64_t position[RESIN_MAX_RANK];
    for (int64_t i = 0; i < count_of(t); i++) {
        position_of(t, i, position);
        must(context, resin_set(t, position, (double)test_integer(base, base + size - 1)));
    }
    return t;
}

static void test_take_and_gather(void **state) {
    resin_context *context = *state;
    const resin_dtype kinds[] = {RESIN_INT64, RESIN_INT32, RESIN_UINT8};
    for (int round = 0; round < 80; round++) {
        const int64_t base = test_integer(0, 1);
        test_shape shape = random_shape(1, 4, 5), index_shape = shape;
        const int64_t axis = test_integer(0, shape.rank - 1);
        resin_tensor *x = laid(context, (resin_dtype)test_integer(0, 4), shape, round % 3);
        const op_options options = OPTIONS(set_int("axis", axis), set_int("base", base));
        int64_t position[RESIN_MAX_RANK], place[RESIN_MAX_RANK];
        double value;

        index_shape.size[axis] = test_integer(1, 6);
        resin_tensor *where = positions(context, kinds[round % 3], index_shape, base,
                                        shape.size[axis]);
        resin_tensor *y = run_op(context, "gather", INPUTS(x, where), options);
        assert_shape(y, index_shape);
        for (int64_t i = 0; i < count_of(y); i++) {
            position_of(y, i, position);
            position[axis] = (int64_t)get(where, i) - base;
            must(context, resin_get(x, position, &value));
            assert_true(get(y, i) == value);
        }
        release_all(INPUTS(where, y));

        test_shape list = random_shape(0, 2, 4);
        where = positions(context, kinds[round % 3], list, base, shape.size[axis]);
        y = run_op(context, "take", INPUTS(x, where), options);
        assert_int_equal(resin_tensor_rank(y), shape.rank - 1 + list.rank);
        for (int64_t i = 0; i < count_of(y); i++) {
            position_of(y, i, position);
            int64_t number = 0;
            for (int j = 0; j < list.rank; j++)
                number = number * list.size[j] + position[axis + j];
            for (int j = 0; j < shape.rank; j++)
                if (j != axis) place[j] = position[j < axis ? j : j + list.rank - 1];
            place[axis] = (int64_t)get(where, number) - base;
            must(context, resin_get(x, place, &value));
            assert_true(get(y, i) == value);
        }
        release_all(INPUTS(x, where, y));
    }
}

static void test_positions_outside(void **state) {
    resin_context *context = *state;
    const double labels[] = {1, 2, 0, 3}, high[] = {1, 4};
    resin_tensor *t = tensor_of(context, RESIN_INT64, SHAPE(4), labels);
    resin_tensor *h = tensor_of(context, RESIN_INT64, SHAPE(2), high);
    resin_tensor *x = drawn(context, RESIN_FLOAT32, SHAPE(4, 2));
    fails_with(context, RESIN_ERROR_ARGUMENT, "one_hot", INPUTS(t),
               OPTIONS(set_int("classes", 3), set_int("base", 1)), "label number 3 is 0", "1 to 3",
               "base = 0", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "take", INPUTS(x, h), NO_OPTIONS,
               "position number 1 is 4", "0 to 3", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "take", INPUTS(x, x), NO_OPTIONS, "float32", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "gather", INPUTS(x, h), OPTIONS(set_int("axis", 0)),
               "(2)", "(4, 2)", NULL);
    resin_tensor *hot = run_op(context, "one_hot", INPUTS(t),
                               OPTIONS(set_int("classes", 4), set_string("dtype", "uint8")));
    assert_int_equal(resin_tensor_dtype(hot), RESIN_UINT8);
    for (int i = 0; i < 16; i++) assert_true(at(hot, i) == (labels[i / 4] == i % 4));
    release_all(INPUTS(t, h, x, hot));
}

/* ---- Dropout -------------------------------------------------------------------------------- */

static void test_dropout(void **state) {
    resin_context *context = *state;
    const double rates[] = {0.1, 0.5, 0.9};
    for (int r = 0; r < 3; r++) {
        const int64_t n = 200003;
        resin_tensor *x;
        must(context, resin_full(context, RESIN_FLOAT32, 1, &n, 1, &x));
        must(context, resin_require_grad(x, true));
        resin_seed(context, 5);
        const op_options options = OPTIONS(set_number("rate", rates[r]));
        resin_tensor *y = run_op(context, "dropout", INPUTS(x), options);
        resin_tensor *other = run_op(context, "dropout", INPUTS(x), options);
        resin_tensor *sum = run_op(context, "sum", INPUTS(y), NO_OPTIONS);
        resin_seed(context, 99); /* backward must not depend on the state of now */
        must(context, resin_backward(sum, NULL, false));
        double kept_count = 0, differing = 0;
        for (int64_t i = 0; i < n; i++) {
            assert_true(at(y, i) == 0 || at(y, i) == (double)(float)(1 / (1 - rates[r])));
            assert_true(at(y, i) == grad_at(x, i));
            kept_count += at(y, i) != 0;
            differing += at(y, i) != at(other, i);
        }
        const double deviation = sqrt(rates[r] * (1 - rates[r]) / (double)n);
        assert_true(fabs(kept_count / (double)n - (1 - rates[r])) < 5 * deviation);
        assert_true(differing > 0);
        release_all(INPUTS(x, y, other, sum));
    }
    resin_tensor *x = drawn(context, RESIN_FLOAT32, SHAPE(3));
    resin_tensor *none = run_op(context, "dropout", INPUTS(x),
                                OPTIONS(set_bool("training", false)));
    resin_tensor *all = run_op(context, "dropout", INPUTS(x), OPTIONS(set_number("rate", 1)));
    for (int i = 0; i < 3; i++) assert_true(at(none, i) == at(x, i) && at(all, i) == 0);
    fails_with(context, RESIN_ERROR_ARGUMENT, "dropout", INPUTS(x),
               OPTIONS(set_number("rate", 1.5)), "1.5", NULL);
    release_all(INPUTS(x, none, all));
}

/* ---- Threads -------------------------------------------------------------------------------- */

typedef struct thread_case {
    const char *op;
    int inputs;
    test_shape shape[3];
    int64_t axis;     /* -1: none */
    const char *axes; /* the attribute's name */
} thread_case;

static const thread_case thread_cases[] = {
    {"multiply", 2, {{2, {300, 501}}, {1, {501}}}, -1, NULL},
    {"gelu", 1, {{2, {300, 501}}}, -1, NULL},
    {"sum", 1, {{2, {300, 501}}}, -1, NULL},
    {"sum", 1, {{2, {300, 501}}}, 0, "axes"},
    {"variance", 1, {{3, {30, 51, 70}}}, 1, "axes"},
    {"max", 1, {{2, {300, 501}}}, 1, "axes"},
    {"logsumexp", 1, {{2, {300, 501}}}, 0, "axes"},
    {"softmax", 1, {{2, {300, 501}}}, -1, NULL},
    {"matmul", 2, {{2, {300, 101}}, {2, {101, 200}}}, -1, NULL},
    {"matmul", 2, {{3, {9, 50, 31}}, {3, {9, 31, 40}}}, -1, NULL},
    {"linear", 3, {{3, {9, 50, 31}}, {2, {31, 40}}, {1, {40}}}, -1, NULL},
    {"dropout", 1, {{2, {300, 501}}}, -1, NULL},
};

/* Result and gradients of one case; out has room for four. */
static void run_case(resin_context *context, const thread_case *c, resin_tensor **in,
                     resin_tensor **out) {
    op_inputs inputs = {{in[0], in[1], in[2]}};
    op_options options = NO_OPTIONS;
    if (c->axis >= 0) options = OPTIONS(set_ints(c->axes, 1, &c->axis));
    resin_seed(context, 3);
    resin_tensor *y = run_op(context, c->op, inputs, options);
    resin_tensor *square = run_op(context, "multiply", INPUTS(y, y), NO_OPTIONS);
    resin_tensor *sum = run_op(context, "sum", INPUTS(square), NO_OPTIONS);
    must(context, resin_backward(sum, NULL, false));
    out[0] = run_op(context, "contiguous", INPUTS(y), NO_OPTIONS);
    for (int i = 0; i < c->inputs; i++) {
        out[i + 1] = resin_retain(resin_tensor_grad(in[i]));
        resin_clear_grad(in[i]);
    }
    release_all(INPUTS(y, square, sum));
}

static void test_threads_do_not_matter(void **state) {
    resin_context *context = *state;
    const int threads[] = {1, 2, 7}, before = resin_threads(context);
    for (size_t n = 0; n < sizeof thread_cases / sizeof thread_cases[0]; n++) {
        const thread_case *c = &thread_cases[n];
        resin_tensor *in[3] = {NULL}, *first[4] = {NULL};
        for (int i = 0; i < c->inputs; i++) in[i] = leaf(context, RESIN_FLOAT32, c->shape[i], NULL);
        for (int t = 0; t < 3; t++) {
            resin_tensor *out[4] = {NULL};
            must(context, resin_set_threads(context, threads[t]));
            run_case(context, c, in, t == 0 ? first : out);
            for (int i = 0; t > 0 && i <= c->inputs; i++) {
                same_bits(first[i], out[i]);
                resin_release(out[i]);
            }
        }
        for (int i = 0; i < 4; i++) resin_release(first[i]);
        release_all(INPUTS(in[0], in[1], in[2]));
    }
    must(context, resin_set_threads(context, before));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_product_errors),
        cmocka_unit_test(test_reshape),
        cmocka_unit_test(test_slice),
        cmocka_unit_test(test_views_share_their_elements),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_pad_tile_flip),
        cmocka_unit_test(test_cast),
        cmocka_unit_test(test_take_and_gather),
        cmocka_unit_test(test_positions_outside),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, laid_context, laid_release);
}
