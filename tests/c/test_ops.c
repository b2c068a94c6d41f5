/* test_ops.c: elementwise ops, reductions and softmax against plain loops that read one element at
 * a time: all dtypes, broadcasting, strides of every kind, empty tensors, extremes and errors. */
#include "tests/c/laid.h"

#include <stdio.h>

/* ---- Elementwise ops ------------------------------------------------------------------------ */

typedef struct binary_case {
    const char *name;
    double (*f)(double a, double b);
    bool floats_only, compares;
} binary_case;

static double f_add(double a, double b) { return a + b; }
static double f_subtract(double a, double b) { return a - b; }
static double f_multiply(double a, double b) { return a * b; }
static double f_divide(double a, double b) { return a / b; }
static double f_minimum(double a, double b) { return a < b ? a : b; }
static double f_maximum(double a, double b) { return a > b ? a : b; }
static double f_equal(double a, double b) { return a == b; }
static double f_not_equal(double a, double b) { return a != b; }
static double f_less(double a, double b) { return a < b; }
static double f_less_equal(double a, double b) { return a <= b; }
static double f_greater(double a, double b) { return a > b; }
static double f_greater_equal(double a, double b) { return a >= b; }

static const binary_case binary_cases[] = {
    {"add", f_add, false, false},         {"subtract", f_subtract, false, false},
    {"multiply", f_multiply, false, false}, {"divide", f_divide, true, false},
    {"minimum", f_minimum, false, false}, {"maximum", f_maximum, false, false},
    {"equal", f_equal, false, true},      {"not_equal", f_not_equal, false, true},
    {"less", f_less, false, true},        {"less_equal", f_less_equal, false, true},
    {"greater", f_greater, false, true},  {"greater_equal", f_greater_equal, false, true},
};

/* The element of `t` that broadcasting puts at position `i` of `whole`. */
static double get_broadcast(const resin_tensor *t, const resin_tensor *whole, int64_t i) {
    int64_t position[RESIN_MAX_RANK], own[RESIN_MAX_RANK];
    double value;
    position_of(whole, i, position);
    const int before = resin_tensor_rank(whole) - resin_tensor_rank(t);
    for (int axis = 0; axis < resin_tensor_rank(t); axis++)
        own[axis] = resin_tensor_shape(t)[axis] == 1 ? 0 : position[before + axis];
    must(resin_tensor_context(t), resin_get(t, own, &value));
    return value;
}

/* What the dtype keeps of a result of integers. */
static double kept(resin_dtype dtype, double value) {
    if (dtype == RESIN_FLOAT32) return (double)(float)value;
    if (dtype == RESIN_UINT8) return (double)(uint8_t)(int64_t)value;
    return value;
}

static void test_binary(void **state) {
    resin_context *context = *state;
    for (int round = 0; round < 400; round++) {
        const binary_case *c = &binary_cases[round % 12];
        const resin_dtype dtype = (resin_dtype)test_integer(0, c->floats_only ? 1 : 4);
        test_shape shape = random_shape(0, 4, 6), shape_a = shape, shape_b = shape;
        if (round % 50 == 0) shape = shape_a = shape_b = SHAPE(3, 20000); /* several pieces */
        for (int i = 0; i < shape.rank; i++) {
            if (test_integer(0, 3) == 0) shape_a.size[i] = 1;
            else if (test_integer(0, 3) == 0) shape_b.size[i] = 1;
        }
        const int drop = shape.rank > 0 ? (int)test_integer(0, shape.rank) : 0;
        shape_b.rank -= drop;
        memmove(shape_b.size, shape_b.size + drop, sizeof(int64_t) * (size_t)shape_b.rank);
        resin_tensor *a = laid(context, dtype, shape_a, (int)test_integer(0, 2));
        resin_tensor *b = laid(context, dtype, shape_b, (int)test_integer(0, 2));
        resin_tensor *y = run_op(context, c->name, INPUTS(a, b), NO_OPTIONS);
        assert_int_equal(resin_tensor_dtype(y), c->compares ? RESIN_UINT8 : dtype);
        for (int64_t i = 0; i < count_of(y); i++) {
            const double expected = c->f(get_broadcast(a, y, i), get_broadcast(b, y, i));
            const double found = get(y, i);
            if (c->compares) assert_true(found == expected);
            else assert_true(found == kept(dtype, expected) || (isnan(found) && isnan(expected)));
        }
        release_all(INPUTS(a, b, y));
    }
}

static void test_comparisons_and_nan(void **state) {
    resin_context *context = *state;
    const double a_values[] = {(double)NAN, (double)NAN, 1, 1, (double)INFINITY};
    const double b_values[] = {(double)NAN, 1, (double)NAN, 1, (double)INFINITY};
    const struct { const char *op; double expected[5]; } cases[] = {
        {"equal", {0, 0, 0, 1, 1}}, {"not_equal", {1, 1, 1, 0, 0}},
        {"less", {0, 0, 0, 0, 0}}, {"less_equal", {0, 0, 0, 1, 1}},
        {"greater", {0, 0, 0, 0, 0}}, {"greater_equal", {0, 0, 0, 1, 1}},
        {"minimum", {(double)NAN, (double)NAN, (double)NAN, 1, (double)INFINITY}},
        {"maximum", {(double)NAN, (double)NAN, (double)NAN, 1, (double)INFINITY}},
    };
    for (int dtype = RESIN_FLOAT32; dtype <= RESIN_FLOAT64; dtype++) {
        resin_tensor *a = tensor_of(context, (resin_dtype)dtype, SHAPE(5), a_values);
        resin_tensor *b = tensor_of(context, (resin_dtype)dtype, SHAPE(5), b_values);
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            resin_tensor *y = run_op(context, cases[c].op, INPUTS(a, b), NO_OPTIONS);
            for (int i = 0; i < 5; i++) {
                const double expected = cases[c].expected[i];
                assert_true(isnan(expected) ? isnan(get(y, i)) : get(y, i) == expected);
            }
            resin_release(y);
        }
        release_all(INPUTS(a, b));
    }
}

static void test_ties_share_the_gradient(void **state) {
    resin_context *context = *state;
    const double a_values[] = {1, 2, 3}, b_values[] = {2, 2, 2};
    for (int largest = 0; largest <= 1; largest++) {
        resin_tensor *a = leaf(context, RESIN_FLOAT32, SHAPE(3), a_values);
        resin_tensor *b = leaf(context, RESIN_FLOAT32, SHAPE(3), b_values);
        resin_tensor *y = run_op(context, largest ? "maximum" : "minimum", INPUTS(a, b),
                                 NO_OPTIONS);
        resin_tensor *sum = run_op(context, "sum", INPUTS(y), NO_OPTIONS);
        must(context, resin_backward(sum, NULL, false));
        assert_true(grad_at(a, 0) == !largest && grad_at(b, 0) == largest);
        assert_true(grad_at(a, 1) == 0.5 && grad_at(b, 1) == 0.5);
        assert_true(grad_at(a, 2) == largest && grad_at(b, 2) == !largest);
        release_all(INPUTS(a, b, y, sum));
    }
    const double equal_values[] = {3, 1, 3, 3, 0, 0};
    resin_tensor *x = leaf(context, RESIN_FLOAT64, SHAPE(2, 3), equal_values);
    resin_tensor *y = run_op(context, "max", INPUTS(x), NO_OPTIONS);
    must(context, resin_backward(y, NULL, false));
    for (int i = 0; i < 6; i++)
        assert_close(grad_at(x, i), equal_values[i] == 3 ? 1.0 / 3 : 0, 1e-15);
    release_all(INPUTS(x, y));
}

/* a^b where its derivatives would be 0 * inf or log of a number that has none. */
static void test_pow_at_the_edges(void **state) {
    resin_context *context = *state;
    const double a_values[] = {0, 0, -2, -2, 0, 3}, b_values[] = {0, 2, 2, 3, 0.5, 2};
    const double y_expected[] = {1, 0, 4, -8, 0, 9};
    const double da_expected[] = {0, 0, -4, 12, (double)INFINITY, 6};
    const double db_expected[] = {0, 0, (double)NAN, (double)NAN, 0, 9.887510598};
    for (int dtype = RESIN_FLOAT32; dtype <= RESIN_FLOAT64; dtype++) {
        resin_tensor *a = leaf(context, (resin_dtype)dtype, SHAPE(6), a_values);
        resin_tensor *b = leaf(context, (resin_dtype)dtype, SHAPE(6), b_values);
        resin_tensor *y = run_op(context, "pow", INPUTS(a, b), NO_OPTIONS);
        resin_tensor *sum = run_op(context, "sum", INPUTS(y), NO_OPTIONS);
        must(context, resin_backward(sum, NULL, false));
        for (int i = 0; i < 6; i++) {
            assert_close(at(y, i), y_expected[i], 1e-6);
            if (isinf(da_expected[i])) assert_true(isinf(grad_at(a, i)));
            else assert_close(grad_at(a, i), da_expected[i], 1e-6);
            if (isnan(db_expected[i])) assert_true(isnan(grad_at(b, i)));
            else assert_close(grad_at(b, i), db_expected[i], 1e-5);
        }
        release_all(INPUTS(a, b, y, sum));
    }
}

static void test_integer_functions(void **state) {
    resin_context *context = *state;
    const double values[] = {-7, -1, 0, 2, 9};
    const struct { const char *op; double expected[5]; } cases[] = {
        {"abs", {7, 1, 0, 2, 9}}, {"neg", {7, 1, 0, -2, -9}}, {"sign", {-1, -1, 0, 1, 1}},
        {"square", {49, 1, 0, 4, 81}}};
    for (int dtype = RESIN_INT32; dtype <= RESIN_INT64; dtype++) {
        resin_tensor *x = tensor_of(context, (resin_dtype)dtype, SHAPE(5), values);
        for (size_t c = 0; c < 4; c++) {
            resin_tensor *y = run_op(context, cases[c].op, INPUTS(x), NO_OPTIONS);
            for (int i = 0; i < 5; i++) assert_true(get(y, i) == cases[c].expected[i]);
            resin_release(y);
        }
        resin_tensor *y = run_op(context, "clamp", INPUTS(x),
                                 OPTIONS(set_number("min", -1.5), set_number("max", 2.5)));
        const double expected[] = {-1, -1, 0, 2, 2};
        for (int i = 0; i < 5; i++) assert_true(get(y, i) == expected[i]);
        release_all(INPUTS(x, y));
    }
}

static void test_where(void **state) {
    resin_context *context = *state;
    for (int dtype = 0; dtype < RESIN_DTYPE_COUNT; dtype++) {
        resin_tensor *condition = drawn(context, RESIN_UINT8, SHAPE(4, 1, 3));
        resin_tensor *zero = drawn(context, RESIN_UINT8, (test_shape){0});
        must(context, resin_set(zero, NULL, 4));
        resin_tensor *mask = run_op(context, "less", INPUTS(condition, zero), NO_OPTIONS);
        resin_tensor *a = laid(context, (resin_dtype)dtype, SHAPE(5, 1), 1);
        resin_tensor *b = laid(context, (resin_dtype)dtype, SHAPE(4, 5, 3), 2);
        resin_tensor *y = run_op(context, "where", INPUTS(mask, a, b), NO_OPTIONS);
        assert_shape(y, SHAPE(4, 5, 3));
        for (int64_t i = 0; i < count_of(y); i++)
            assert_true(get(y, i) == (get_broadcast(mask, y, i) != 0 ? get_broadcast(a, y, i)
                                                                     : get_broadcast(b, y, i)));
        release_all(INPUTS(condition, zero, mask, a, b, y));
    }
}

static void test_elementwise_errors(void **state) {
    resin_context *context = *state;
    resin_tensor *a = drawn(context, RESIN_FLOAT32, SHAPE(2, 3));
    resin_tensor *b = drawn(context, RESIN_FLOAT32, SHAPE(4, 3));
    resin_tensor *c = drawn(context, RESIN_FLOAT64, SHAPE(2, 3));
    resin_tensor *d = drawn(context, RESIN_INT64, SHAPE(2, 3));
    fails_with(context, RESIN_ERROR_SHAPE, "add", INPUTS(a, b), NO_OPTIONS, "add", "(2, 3)",
               "(4, 3)", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "multiply", INPUTS(a, c), NO_OPTIONS, "multiply",
               "float32", "float64", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "divide", INPUTS(d, d), NO_OPTIONS, "divide",
               "int64", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "exp", INPUTS(d), NO_OPTIONS, "exp", "int64", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "where", INPUTS(a, a, a), NO_OPTIONS, "uint8",
               "float32", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "gelu", INPUTS(a),
               OPTIONS(set_string("approximate", "erf")), "gelu", "tanh", "erf", NULL);
    release_all(INPUTS(a, b, c, d));
}

/* ---- Reductions ----------------------------------------------------------------------------- */

enum fold_kind { SUM, MEAN, PROD, MAX, MIN, VARIANCE, NORM1, NORM2, NORM_INF, LOGSUMEXP };

/* One output from all elements of x whose kept positions are those of output `o`, in one pass or
 * two, in long double. */
static double fold_plainly(const resin_tensor *x, unsigned axes, int64_t o, enum fold_kind kind) {
    int64_t kept_shape[RESIN_MAX_RANK], wanted[RESIN_MAX_RANK], position[RESIN_MAX_RANK];
    int kept_rank = 0;
    for (int i = 0; i < resin_tensor_rank(x); i++)
        if (!(axes >> i & 1)) kept_shape[kept_rank++] = resin_tensor_shape(x)[i];
    for (int i = kept_rank - 1; i >= 0; i--) {
        wanted[i] = o % kept_shape[i];
        o /= kept_shape[i];
    }
    long double sum = 0, product = 1, sizes = 0, squares = 0, powers = 0;
    double greatest = -(double)INFINITY, least = (double)INFINITY, n = 0;
    double *values = malloc((size_t)count_of(x) * sizeof *values + 1);
    for (int64_t i = 0; i < count_of(x); i++) {
        position_of(x, i, position);
        bool mine = true;
        for (int axis = 0, own = 0; axis < resin_tensor_rank(x); axis++)
            if (!(axes >> axis & 1)) mine &= position[axis] == wanted[own++];
        if (!mine) continue;
        const double value = get(x, i);
        values[(int64_t)n++] = value;
        sum += (long double)value;
        product *= (long double)value;
        sizes += fabsl((long double)value);
        squares += (long double)value * (long double)value;
        powers += expl((long double)value);
        greatest = value > greatest ? value : greatest;
        least = value < least ? value : least;
    }
    long double deviations = 0;
    for (int64_t i = 0; i < (int64_t)n; i++) {
        const long double off = (long double)values[i] - sum / (long double)n;
        deviations += off * off;
    }
    free(values);
    switch (kind) {
    case SUM: return (double)sum;
    case MEAN: return (double)(sum / (long double)n);
    case PROD: return (double)product;
    case MAX: return greatest;
    case MIN: return least;
    case VARIANCE: return n > 1 ? (double)(deviations / ((long double)n - 1)) : (double)NAN;
    case NORM1: return (double)sizes;
    case NORM2: return (double)sqrtl(squares);
    case NORM_INF: return fabs(greatest) > fabs(least) ? fabs(greatest) : fabs(least);
    default: return (double)logl(powers);
    }
}

static const struct { const char *op; enum fold_kind kind; bool integers; double p; } folds[] = {
    {"sum", SUM, true, 0}, {"mean", MEAN, false, 0}, {"prod", PROD, true, 0},
    {"max", MAX, true, 0}, {"min", MIN, true, 0}, {"variance", VARIANCE, false, 0},
    {"norm", NORM1, false, 1}, {"norm", NORM2, false, 2}, {"norm", NORM_INF, false, HUGE_VAL},
    {"logsumexp", LOGSUMEXP, false, 0},
};
enum { FOLDS = sizeof folds / sizeof folds[0] };

static void check_fold(resin_context *context, const resin_tensor *x, int fold, unsigned axes,
                       bool keep) {
    int64_t list[RESIN_MAX_RANK];
    int count = 0;
    test_shape expected = {0};
    for (int i = 0; i < resin_tensor_rank(x); i++) {
        const bool reduced = axes >> i & 1;
        if (reduced) list[count++] = test_integer(0, 1) ? i : i - resin_tensor_rank(x);
        if (reduced && !keep) continue;
        expected.size[expected.rank++] = reduced ? 1 : resin_tensor_shape(x)[i];
    }
    op_options options = OPTIONS(set_ints("axes", count, list), set_bool("keep", keep),
                                 set_number("p", folds[fold].p));
    if (folds[fold].p == 0) options.count = 2;
    resin_tensor *in = resin_retain((resin_tensor *)(uintptr_t)x);
    resin_tensor *y = run_op(context, folds[fold].op, INPUTS(in), options);
    assert_shape(y, expected);
    const resin_dtype dtype = resin_tensor_dtype(x);
    const int64_t every = 1 + count_of(x) * count_of(y) / 2000000; /* of many outputs some */
    for (int64_t o = 0; o < count_of(y); o += every) {
        const double exact = fold_plainly(x, axes, o, folds[fold].kind), found = get(y, o);
        /* float32: rounded once, after sums in double. */
        const double tolerance = (dtype == RESIN_FLOAT32 ? 0x1p-23 : 1e-13) * (1 + fabs(exact));
        if (isnan(exact)) assert_true(isnan(found));
        else assert_close(found, exact, tolerance);
    }
    release_all(INPUTS(in, y));
}

static void test_reductions(void **state) {
    resin_context *context = *state;
    for (int round = 0; round < 600; round++) {
        const int fold = round % FOLDS;
        const resin_dtype dtype = (resin_dtype)test_integer(0, folds[fold].integers ? 4 : 1);
        test_shape shape = random_shape(1, 5, 5);
        resin_tensor *x = laid(context, dtype, shape, round / FOLDS % 3);
        const unsigned axes = (unsigned)test_integer(1, (1 << shape.rank) - 1);
        check_fold(context, x, fold, axes, test_integer(0, 1));
        resin_release(x);
    }
    /* Longer than a chunk: runs, columns, and columns of many blocks. */
    const test_shape large[] = {SHAPE(70001), SHAPE(3, 40001), SHAPE(3001, 7), SHAPE(90, 601),
                                SHAPE(17, 3, 700)};
    for (int l = 0; l < 5; l++) {
        for (int how = 0; how < 3; how++) {
            resin_tensor *x = laid(context, RESIN_FLOAT32, large[l], how);
            check_fold(context, x, 0, 1, false);
            if (large[l].rank == 1) check_fold(context, x, 5, 1, true);
            resin_release(x);
        }
    }
}

/* 0.1 in float32 ten million times: a running float32 sum is off in the second digit. */
static void test_long_sums(void **state) {
    resin_context *context = *state;
    const int64_t n = 10000000;
    resin_tensor *x;
    must(context, resin_full(context, RESIN_FLOAT32, 1, &n, 0.1, &x));
    resin_tensor *sum = run_op(context, "sum", INPUTS(x), NO_OPTIONS);
    resin_tensor *variance = run_op(context, "variance", INPUTS(x), NO_OPTIONS);
    assert_close(at(sum, 0), (double)0.1f * 1e7, 0.0625);
    assert_true(at(variance, 0) >= 0 && at(variance, 0) < 1e-15);
    release_all(INPUTS(x, sum, variance));
}

/* Deviations of 1 around 1e4: E[x^2] - E[x]^2 in float32 would give nonsense. */
static void test_variance_far_from_zero(void **state) {
    resin_context *context = *state;
    double values[1000];
    for (int i = 0; i < 1000; i++) values[i] = 1e4 + (i % 2 ? 1 : -1);
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(1000), values);
    resin_tensor *y = run_op(context, "variance", INPUTS(x), OPTIONS(set_bool("unbiased", false)));
    assert_close(at(y, 0), 1, 1e-6);
    release_all(INPUTS(x, y));
}

static void test_empty_and_nan(void **state) {
    resin_context *context = *state;
    const test_shape shape = {2, {0, 3}};
    const int64_t rows = 0, columns = 1;
    resin_tensor *x;
    must(context, resin_empty(context, RESIN_FLOAT32, 2, shape.size, &x));
    resin_tensor *sum = run_op(context, "sum", INPUTS(x), OPTIONS(set_ints("axes", 1, &rows)));
    resin_tensor *prod = run_op(context, "prod", INPUTS(x), NO_OPTIONS);
    resin_tensor *mean = run_op(context, "mean", INPUTS(x), OPTIONS(set_ints("axes", 1, &rows)));
    resin_tensor *none = run_op(context, "sum", INPUTS(x), OPTIONS(set_ints("axes", 1, &columns)));
    assert_shape(sum, SHAPE(3));
    for (int i = 0; i < 3; i++) assert_true(at(sum, i) == 0 && isnan(at(mean, i)));
    assert_true(at(prod, 0) == 1);
    assert_int_equal(count_of(none), 0);
    fails_with(context, RESIN_ERROR_SHAPE, "max", INPUTS(x), NO_OPTIONS, "max", "(0, 3)", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "argmax", INPUTS(x), NO_OPTIONS, "argmax", NULL);
    release_all(INPUTS(x, sum, prod, mean, none));

    double values[100];
    for (int place = 0; place < 100; place += 33) {
        for (int i = 0; i < 100; i++) values[i] = i == place ? (double)NAN : i;
        resin_tensor *y = tensor_of(context, RESIN_FLOAT32, SHAPE(100), values);
        resin_tensor *max = run_op(context, "max", INPUTS(y), NO_OPTIONS);
        resin_tensor *min = run_op(context, "min", INPUTS(y), NO_OPTIONS);
        resin_tensor *where = run_op(context, "argmax", INPUTS(y), NO_OPTIONS);
        assert_true(isnan(at(max, 0)) && isnan(at(min, 0)) && get(where, 0) == place);
        release_all(INPUTS(y, max, min, where));
    }
}

static void test_argmax(void **state) {
    resin_context *context = *state;
    for (int round = 0; round < 60; round++) {
        const bool least = round % 2;
        test_shape shape = random_shape(1, 4, 6);
        resin_tensor *x = laid(context, (resin_dtype)test_integer(0, 4), shape, round % 3);
        const int64_t axis = test_integer(0, shape.rank - 1);
        resin_tensor *y = run_op(context, least ? "argmin" : "argmax", INPUTS(x),
                                 OPTIONS(set_ints("axis", 1, &axis), set_int("base", 1)));
        resin_tensor *extreme = run_op(context, least ? "min" : "max", INPUTS(x),
                                       OPTIONS(set_ints("axes", 1, &axis)));
        assert_int_equal(resin_tensor_dtype(y), RESIN_INT64);
        for (int64_t o = 0; o < count_of(y); o++) {
            int64_t position[RESIN_MAX_RANK], place[RESIN_MAX_RANK];
            position_of(y, o, position);
            for (int i = 0, own = 0; i < shape.rank; i++)
                place[i] = i == axis ? get_int64(y, o) - 1 : position[own++];
            double found, earlier;
            must(context, resin_get(x, place, &found));
            assert_true(found == get(extreme, o));
            while (place[axis]-- > 0) { /* the first of equals */
                must(context, resin_get(x, place, &earlier));
                assert_true(earlier != found);
            }
        }
        resin_tensor *flat = run_op(context, least ? "argmin" : "argmax", INPUTS(x), NO_OPTIONS);
        resin_tensor *all = run_op(context, least ? "min" : "max", INPUTS(x), NO_OPTIONS);
        assert_true(get(x, get_int64(flat, 0)) == get(all, 0));
        release_all(INPUTS(x, y, extreme, flat, all));
    }
}

/* ---- Softmax -------------------------------------------------------------------------------- */

static void test_softmax(void **state) {
    resin_context *context = *state;
    const int64_t lengths[] = {1, 3, 15, 16, 17, 33, 1000, 2500};
    for (int round = 0; round < 32; round++) {
        const int64_t n = lengths[round % 8];
        const resin_dtype dtype = round / 8 % 2 ? RESIN_FLOAT64 : RESIN_FLOAT32;
        const bool first = round >= 16;
        resin_tensor *x = laid(context, dtype, first ? SHAPE(n, 3) : SHAPE(3, n), round % 3);
        const op_options axis = OPTIONS(set_int("axis", first ? 0 : -1));
        resin_tensor *y = run_op(context, "softmax", INPUTS(x), axis);
        resin_tensor *l = run_op(context, "log_softmax", INPUTS(x), axis);
        const double eps = dtype == RESIN_FLOAT32 ? 6e-7 : 1e-14;
        for (int64_t row = 0; row < 3; row++) {
            long double sum = 0;
            for (int64_t i = 0; i < n; i++) {
                const int64_t at_i = first ? i * 3 + row : row * n + i;
                sum += expl((long double)get(x, at_i));
            }
            for (int64_t i = 0; i < n; i++) {
                const int64_t at_i = first ? i * 3 + row : row * n + i;
                const long double exact = expl((long double)get(x, at_i)) / sum;
                assert_close(get(y, at_i), (double)exact, eps * (double)exact);
                assert_close(get(l, at_i), (double)logl(exact),
                             eps * (1 + fabs((double)logl(exact))));
            }
        }
        release_all(INPUTS(x, y, l));
    }
}

static void test_softmax_extremes(void **state) {
    resin_context *context = *state;
    const double inf = (double)INFINITY;
    const double values[] = {400, -400, 0, 1e30, -1e30, 0, -inf, 0, 0, -inf, -inf, -inf};
    const double expected[] = {1, 0, 0, 1, 0, 0, 0, 0.5, 0.5, NAN, NAN, NAN};
    const double sums[] = {400, 1e30, 0.6931471805599453, -inf};
    for (int dtype = RESIN_FLOAT32; dtype <= RESIN_FLOAT64; dtype++) {
        resin_tensor *x = tensor_of(context, (resin_dtype)dtype, SHAPE(4, 3), values);
        const int64_t axis = 1;
        resin_tensor *y = run_op(context, "softmax", INPUTS(x), NO_OPTIONS);
        resin_tensor *l = run_op(context, "log_softmax", INPUTS(x), NO_OPTIONS);
        resin_tensor *s = run_op(context, "logsumexp", INPUTS(x),
                                 OPTIONS(set_ints("axes", 1, &axis)));
        for (int i = 0; i < 12; i++) {
            if (isnan(expected[i])) assert_true(isnan(at(y, i)) && isnan(at(l, i)));
            else assert_close(at(y, i), expected[i], 1e-7);
        }
        assert_true(at(l, 0) == 0 && at(l, 1) == -800);
        for (int i = 0; i < 4; i++)
            if (isinf(sums[i])) assert_true(at(s, i) == sums[i]);
            else assert_close(at(s, i), sums[i], 1e-7 * fabs(sums[i]));
        release_all(INPUTS(x, y, l, s));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_comparisons_and_nan),
        cmocka_unit_test(test_ties_share_the_gradient),
        cmocka_unit_test(test_pow_at_the_edges),
        cmocka_unit_test(test_integer_functions),
        cmocka_unit_test(test_where),
        cmocka_unit_test(test_elementwise_errors),
        cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_long_sums),
        cmocka_unit_test(test_variance_far_from_zero),
        cmocka_unit_test(test_empty_and_nan),
        cmocka_unit_test(test_argmax),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_softmax_extremes),
    };
    return cmocka_run_group_tests(tests, laid_context, laid_release);
}
