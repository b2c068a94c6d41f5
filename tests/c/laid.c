/* laid.c: see laid.h. */
#include "tests/c/laid.h"

int laid_context(void **state) {
    *state = resin_context_new();
    return *state ? 0 : -1;
}

int laid_release(void **state) {
    resin_context_release(*state);
    return 0;
}

int64_t count_of(const resin_tensor *t) { return resin_tensor_count(t); }

/* Position number `i` in row-major order. */
void position_of(const resin_tensor *t, int64_t i, int64_t position[RESIN_MAX_RANK]) {
    for (int axis = resin_tensor_rank(t) - 1; axis >= 0; axis--) {
        position[axis] = i % resin_tensor_shape(t)[axis];
        i /= resin_tensor_shape(t)[axis];
    }
}

double get(const resin_tensor *t, int64_t i) {
    int64_t position[RESIN_MAX_RANK];
    double value;
    position_of(t, i, position);
    must(resin_tensor_context(t), resin_get(t, position, &value));
    return value;
}

int64_t get_int64(const resin_tensor *t, int64_t i) {
    int64_t position[RESIN_MAX_RANK], value;
    position_of(t, i, position);
    must(resin_tensor_context(t), resin_get_int64(t, position, &value));
    return value;
}

/* Values that every dtype holds; for the floats not only integers. */
resin_tensor *drawn(resin_context *context, resin_dtype dtype, test_shape size) {
    resin_tensor *t;
    must(context, resin_empty(context, dtype, size.rank, size.size, &t));
    int64_t position[RESIN_MAX_RANK];
    for (int64_t i = 0; i < count_of(t); i++) {
        position_of(t, i, position);
        const bool is_float = dtype == RESIN_FLOAT32 || dtype == RESIN_FLOAT64;
        const double value = is_float ? (double)(float)(test_random() * 4)
                                      : (double)test_integer(dtype == RESIN_UINT8 ? 0 : -9, 9);
        must(context, resin_set(t, position, value));
    }
    return t;
}

/* A tensor of this shape: dense (0), with its axes reversed in memory (1), or every second element
 * of a larger one, backward along every other axis (2). */
resin_tensor *laid(resin_context *context, resin_dtype dtype, test_shape size, int how) {
    test_shape base = size;
    if (how == 0 || size.rank == 0) return drawn(context, dtype, size);
    if (how == 1) {
        for (int i = 0; i < size.rank; i++) base.size[i] = size.size[size.rank - 1 - i];
        resin_tensor *t = drawn(context, dtype, base);
        resin_tensor *view = run_op(context, "transpose", INPUTS(t), NO_OPTIONS);
        resin_release(t);
        return view;
    }
    int64_t start[RESIN_MAX_RANK], stop[RESIN_MAX_RANK], step[RESIN_MAX_RANK];
    for (int i = 0; i < size.rank; i++) {
        base.size[i] = 2 * size.size[i] + 1;
        start[i] = i % 2 ? 2 * size.size[i] - 1 : 1;
        stop[i] = i % 2 ? -1 : 2 * size.size[i] + 1;
        step[i] = i % 2 ? -2 : 2;
    }
    resin_tensor *t = drawn(context, dtype, base);
    resin_tensor *view = run_op(context, "slice", INPUTS(t),
                                OPTIONS(set_ints("start", size.rank, start),
                                        set_ints("stop", size.rank, stop),
                                        set_ints("step", size.rank, step)));
    resin_release(t);
    return view;
}

test_shape random_shape(int64_t least_rank, int64_t greatest_rank, int64_t greatest_size) {
    test_shape shape = {.rank = (int)test_integer(least_rank, greatest_rank)};
    for (int i = 0; i < shape.rank; i++) shape.size[i] = test_integer(1, greatest_size);
    return shape;
}

void assert_shape(const resin_tensor *t, test_shape expected) {
    assert_int_equal(resin_tensor_rank(t), expected.rank);
    for (int i = 0; i < expected.rank; i++)
        assert_int_equal(resin_tensor_shape(t)[i], expected.size[i]);
}

test_shape shape_of(const resin_tensor *t) {
    test_shape shape = {.rank = resin_tensor_rank(t)};
    for (int i = 0; i < shape.rank; i++) shape.size[i] = resin_tensor_shape(t)[i];
    return shape;
}

void same_bits(const resin_tensor *a, const resin_tensor *b) {
    assert_int_equal(count_of(a), count_of(b));
    assert_true(resin_tensor_contiguous(a) && resin_tensor_contiguous(b));
    assert_memory_equal(resin_tensor_data(a), resin_tensor_data(b),
                        (size_t)count_of(a) * resin_dtype_size(resin_tensor_dtype(a)));
}
