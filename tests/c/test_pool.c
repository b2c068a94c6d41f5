/* test_pool.c: maxima over windows: as ops and as kernels of every instruction set, against naive
 * loops, with ties, NaN, infinities, windows that stand out, and few channels. (Means, errors and
 * cases by hand are in test_layers.c, gradients by differences in tests/lua/gradient_spec.lua.) */
#include "core/kernels/kernels.h"
#include "core/tensor/tensor.h"
#include "tests/c/tensors.h"

static resin_context *context;

static int start(void **state) {
    (void)state;
    context = resin_context_new();
    return context == NULL;
}

/* Every test gives back all memory. */
static int finish(void **state) {
    (void)state;
    size_t held = resin_memory(context).held;
    if (held) print_error("%zu bytes are still held\n", held);
    resin_context_release(context);
    return held != 0;
}

/* ---- Numbers --------------------------------------------------------------------------------- */

static void *new_memory(int64_t count, size_t size) {
    void *memory = calloc((size_t)count + 1, size);
    assert_non_null(memory);
    return memory;
}

/* Many are equal; some are no numbers. */
static double value(void) {
    int64_t kind = test_integer(0, 59);
    if (kind == 0) return NAN;
    if (kind < 3) return kind == 1 ? INFINITY : -INFINITY;
    return (double)test_integer(-6, 6) / 2;
}

/* NaN only where NaN is expected. */
static void assert_same(double found, double expected) {
    if (isnan(expected)) assert_true(isnan(found));
    else assert_true(found == expected);
}

/* What comes later wins if it is larger or NaN. */
static bool wins(double later, double best) { return later > best || isnan(later); }

/* ---- Ops ------------------------------------------------------------------------------------- */

typedef struct windows {
    int64_t n, h, w, c, out_h, out_w;
    int64_t kernel[2], stride[2], pad[4]; /* top, bottom, left, right */
    bool ceil;
} windows;

/* Where the largest of window i lies, an element of x. */
static int64_t largest(const windows *g, const double *x, int64_t i) {
    int64_t c = i % g->c, column = i / g->c % g->out_w, row = i / g->c / g->out_w % g->out_h;
    int64_t image = i / g->c / g->out_w / g->out_h, best = -1;
    for (int64_t j = 0; j < g->kernel[0] * g->kernel[1]; j++) {
        int64_t y = row * g->stride[0] - g->pad[0] + j / g->kernel[1];
        int64_t z = column * g->stride[1] - g->pad[2] + j % g->kernel[1];
        if (y < 0 || y >= g->h || z < 0 || z >= g->w) continue;
        int64_t from = ((image * g->h + y) * g->w + z) * g->c + c;
        if (best < 0 || wins(x[from], x[best])) best = from;
    }
    return best;
}

static windows random_windows(void) {
    windows g = {.n = test_integer(1, 3), .c = test_integer(1, 70), .ceil = test_integer(0, 1)};
    for (int i = 0; i < 2; i++) {
        g.kernel[i] = test_integer(1, 4);
        g.stride[i] = test_integer(1, 5);
        g.pad[2 * i] = test_integer(0, g.kernel[i] - 1);
        g.pad[2 * i + 1] = test_integer(0, g.kernel[i] - 1);
    }
    g.h = g.kernel[0] + test_integer(0, 9);
    g.w = g.kernel[1] + test_integer(0, 9);
    return g;
}

static resin_tensor *pooled(const windows *g, resin_tensor *x) {
    return run_op(context, "max_pool2d", INPUTS(x),
                  OPTIONS(set_ints("kernel", 2, g->kernel), set_ints("stride", 2, g->stride),
                          set_ints("padding", 4, g->pad), set_bool("ceil", g->ceil)));
}

/* At several numbers of threads; without a graph, too, where no positions are kept. */
static void one_max_pool(windows g, resin_dtype dtype) {
    int64_t count = g.n * g.h * g.w * g.c;
    double *values = new_memory(count, sizeof *values), *expected = NULL;
    for (int64_t i = 0; i < count; i++) values[i] = value();
    resin_tensor *x = leaf(context, dtype, SHAPE(g.n, g.h, g.w, g.c), values), *dy = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        must(context, resin_set_threads(context, threads));
        resin_clear_grad(x);
        resin_tensor *y = pooled(&g, x);
        g.out_h = resin_tensor_shape(y)[1];
        g.out_w = resin_tensor_shape(y)[2];
        if (!dy) {
            dy = tensor_of(context, dtype, SHAPE(g.n, g.out_h, g.out_w, g.c), NULL);
            expected = new_memory(count, sizeof *expected);
        }
        for (int64_t i = 0; i < resin_tensor_count(y); i++) {
            int64_t from = largest(&g, values, i);
            assert_same(at(y, i), values[from]);
            if (threads == 1) expected[from] += at(dy, i);
        }
        must(context, resin_backward(y, dy, false));
        for (int64_t i = 0; i < count; i++) assert_close(grad_at(x, i), expected[i], 1e-6);
        resin_set_recording(context, false);
        resin_tensor *alone = pooled(&g, x);
        resin_set_recording(context, true);
        for (int64_t i = 0; i < resin_tensor_count(y); i++) assert_same(at(alone, i), at(y, i));
        release_all(INPUTS(y, alone));
    }
    free(values);
    free(expected);
    release_all(INPUTS(x, dy));
}

static void max_pools(void **state) {
    (void)state;
    for (int i = 0; i < 120; i++)
        one_max_pool(random_windows(), i % 4 == 3 ? RESIN_FLOAT64 : RESIN_FLOAT32);
    /* As in residual networks; without padding; more positions than a byte counts. */
    for (int64_t c = 1; c <= 66; c += 5) {
        one_max_pool((windows){.n = 2, .h = 13, .w = 12, .c = c, .kernel = {3, 3},
                               .stride = {2, 2}, .pad = {1, 1, 1, 1}}, RESIN_FLOAT32);
        one_max_pool((windows){.n = 1, .h = 8, .w = 11, .c = c, .kernel = {3, 3},
                               .stride = {1, 1}}, RESIN_FLOAT32);
    }
    one_max_pool((windows){.n = 1, .h = 21, .w = 18, .c = 20, .kernel = {17, 16}, .stride = {2, 3},
                           .pad = {8, 5, 3, 15}}, RESIN_FLOAT32);
    one_max_pool((windows){.n = 1, .h = 90, .w = 4, .c = 19, .kernel = {86, 3}, .stride = {1, 1},
                           .pad = {3, 0, 1, 1}}, RESIN_FLOAT32);
}

/* A view with gaps gives what its copy gives; no images give none. */
static void max_pool_of_views(void **state) {
    (void)state;
    const int64_t size[4] = {2, 5, 6, 17}, stride[4] = {6 * 5 * 40, 40, 5 * 40, 2};
    resin_tensor *wide = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 6, 5, 40), NULL), *view, *copy;
    must(context, tensor_view(wide, 4, size, stride, 1, &view));
    must(context, tensor_contiguous(view, &copy));
    const windows g = {.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}};
    resin_tensor *a = pooled(&g, view), *b = pooled(&g, copy);
    for (int64_t i = 0; i < resin_tensor_count(a); i++) assert_true(at(a, i) == at(b, i));
    release_all(INPUTS(wide, view, copy, a, b));

    resin_tensor *none = leaf(context, RESIN_FLOAT32, SHAPE(0, 5, 6, 4), NULL);
    resin_tensor *y = pooled(&g, none);
    assert_int_equal(resin_tensor_count(y), 0);
    must(context, resin_backward(y, y, false));
    release_all(INPUTS(none, y));
}

/* ---- Kernels --------------------------------------------------------------------------------- */

static double get(resin_dtype dtype, const void *values, int64_t i) {
    return dtype == RESIN_FLOAT64 ? ((const double *)values)[i]
                                  : (double)((const float *)values)[i];
}

static void *new_reals(resin_dtype dtype, int64_t count, bool finite) {
    void *memory = new_memory(count, resin_dtype_size(dtype));
    for (int64_t i = 0; i < count; i++) {
        double x = value();
        if (finite && !isfinite(x)) x = 1;
        if (dtype == RESIN_FLOAT64) ((double *)memory)[i] = x;
        else ((float *)memory)[i] = (float)x;
    }
    return memory;
}

static pool_positions new_positions(int64_t count, int kind) {
    return (pool_positions){kind == 1 ? new_memory(count, sizeof(uint8_t)) : NULL,
                            kind == 2 ? new_memory(count, sizeof(int32_t)) : NULL};
}

static int64_t position(pool_positions p, int64_t i) { return p.narrow ? p.narrow[i] : p.wide[i]; }

static void set(pool_positions p, int64_t i, int64_t to) {
    if (p.narrow) p.narrow[i] = (uint8_t)to;
    if (p.wide) p.wide[i] = (int32_t)to;
}

static void free_positions(pool_positions p) {
    free(p.narrow);
    free(p.wide);
}

static pool_row random_row(void) {
    pool_row row = {.channels = test_integer(1, 70), .kernel = test_integer(1, 4),
                    .stride = test_integer(1, 4)};
    if (test_integer(0, 1)) row.kernel = 3, row.stride = 2;
    row.before = test_integer(0, row.kernel - 1);
    row.pixels = row.kernel + test_integer(0, 7);
    row.windows = (row.pixels + 2 * row.before - row.kernel) / row.stride + 1;
    return row;
}

/* `kind` of positions: none, narrow, wide. */
static void check_max_in_row(const pool_loops *loops, resin_dtype dtype, int kind, bool normalize) {
    const pool_row row = random_row();
    int64_t count = row.windows * row.channels;
    void *x = new_reals(dtype, row.pixels * row.channels, false);
    void *scale = new_reals(dtype, row.channels, true);
    void *shift = new_reals(dtype, row.channels, true);
    void *best = new_reals(dtype, count, false);
    pool_positions columns = new_positions(count, kind);
    loops->max_in_row(&row, x, normalize ? scale : NULL, normalize ? shift : NULL, best, columns);
    for (int64_t i = 0; i < count; i++) {
        int64_t c = i % row.channels, first = i / row.channels * row.stride - row.before, from = -1;
        double expected = 0;
        for (int64_t j = 0; j < row.kernel; j++) {
            if (first + j < 0 || first + j >= row.pixels) continue;
            double v = get(dtype, x, (first + j) * row.channels + c);
            if (normalize) v = v * get(dtype, scale, c) + get(dtype, shift, c);
            if (from >= 0 && !wins(v, expected)) continue;
            expected = v;
            from = j;
        }
        assert_same(get(dtype, best, i), expected);
        if (kind) assert_int_equal(position(columns, i), from);
    }
    free(x), free(scale), free(shift), free(best);
    free_positions(columns);
}

static void check_max_of_three(const pool_loops *loops, resin_dtype dtype, int kind, bool relu) {
    int64_t count = test_integer(1, 70);
    void *best[3], *y = new_reals(dtype, count, false);
    pool_positions positions = new_positions(count, kind);
    pool_three three = {{NULL}, {{NULL, NULL}}, {0, 7, 90}};
    for (int i = 0; i < 3; i++) {
        three.best[i] = best[i] = new_reals(dtype, count, false);
        three.positions[i] = new_positions(count, kind);
        for (int64_t e = 0; e < count; e++) set(three.positions[i], e, test_integer(0, 100));
    }
    loops->max_of_three(count, &three, relu, y, positions);
    for (int64_t e = 0; e < count; e++) {
        int from = 0;
        for (int i = 1; i < 3; i++)
            if (wins(get(dtype, best[i], e), get(dtype, best[from], e))) from = i;
        double expected = get(dtype, best[from], e);
        assert_same(get(dtype, y, e), relu && expected < 0 ? 0 : expected);
        if (kind)
            assert_int_equal(position(positions, e),
                             position(three.positions[from], e) + three.add[from]);
    }
    for (int i = 0; i < 3; i++) {
        free(best[i]);
        free_positions(three.positions[i]);
    }
    free(y);
    free_positions(positions);
}

static void check_max_gradient(const pool_loops *loops, resin_dtype dtype, int kind) {
    const pool_row row = random_row();
    int64_t height = test_integer(1, 4); /* of a window */
    pool_cover cover = {.rows = test_integer(0, 3), .stride = test_integer(1, 2)};
    cover.at = (cover.rows ? cover.rows - 1 : 0) * cover.stride + test_integer(0, height - 1);
    int64_t count = cover.rows * row.windows * row.channels;
    int64_t places = (cover.at + 1) * row.kernel;
    void *dy = new_reals(dtype, count, true);
    void *dx = new_reals(dtype, row.pixels * row.channels, true);
    pool_positions positions = new_positions(count, kind);
    for (int64_t i = 0; i < count; i++) set(positions, i, test_integer(0, places - 1));
    cover.dy = dy;
    cover.positions = positions;
    loops->max_gradient(&row, &cover, dx);
    for (int64_t i = 0; i < row.pixels * row.channels; i++) {
        int64_t c = i % row.channels, pixel = i / row.channels;
        double expected = 0;
        for (int64_t j = 0; j < cover.rows * row.windows; j++) {
            int64_t column = pixel - (j % row.windows * row.stride - row.before);
            int64_t at_row = cover.at - j / row.windows * cover.stride;
            if (column < 0 || column >= row.kernel) continue;
            if (position(positions, j * row.channels + c) == at_row * row.kernel + column)
                expected += get(dtype, dy, j * row.channels + c);
        }
        assert_true(get(dtype, dx, i) == expected);
    }
    free(dy), free(dx);
    free_positions(positions);
}

static void kernels_of_all_sets(void **state) {
    static const char *const sets[] = {"v4", "v3", "v2", "generic"};
    (void)state;
    for (int set_number = 0; set_number < 4; set_number++) {
        const resin_kernel_table *table = resin_kernels_of(sets[set_number]);
        if (!table) continue;
        for (int i = 0; i < 600; i++) {
            resin_dtype dtype = i % 4 == 3 ? RESIN_FLOAT64 : RESIN_FLOAT32;
            const pool_loops *loops = &table->pool.of[dtype];
            check_max_in_row(loops, dtype, i % 3, test_integer(0, 1));
            check_max_of_three(loops, dtype, i % 3, test_integer(0, 1));
            check_max_gradient(loops, dtype, 1 + i % 2);
        }
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, finish)
    const struct CMUnitTest tests[] = {
        TEST(max_pools), TEST(max_pool_of_views), TEST(kernels_of_all_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
