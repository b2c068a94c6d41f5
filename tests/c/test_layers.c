/* test_layers.c: convolution, pooling, batch normalization and losses as ops: against plain loops,
 * against numbers computed with PyTorch 1.13, and their errors. (How convolutions are computed is
 * tested in test_conv.c, gradients by differences in tests/lua/gradient_spec.lua.) */
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

/* ---- Convolution ----------------------------------------------------------------------------- */

typedef struct geometry {
    int64_t n, h, w, c, out_h, out_w, k, kernel_h, kernel_w;
    int64_t stride[2], pad[4], dilation[2], groups;
} geometry;

/* y += x weights, dx += dy weights, dweights += x dy over all products of a convolution, as far as
 * they are given; x and y are a convolution's image and result. */
typedef struct products {
    double *x, *weights, *y, *dx, *dweights, *dy;
} products;

static void all_products(const geometry *g, products p) {
    int64_t group_c = g->c / g->groups, group_k = g->k / g->groups;
    for (int64_t i = 0; i < g->n * g->out_h * g->out_w * g->k; i++) {
        int64_t k = i % g->k, column = i / g->k % g->out_w, row = i / g->k / g->out_w % g->out_h;
        int64_t image = i / g->k / g->out_w / g->out_h;
        for (int64_t j = 0; j < g->kernel_h * g->kernel_w * group_c; j++) {
            int64_t c = j % group_c, v = j / group_c % g->kernel_w, u = j / group_c / g->kernel_w;
            int64_t h = row * g->stride[0] - g->pad[0] + u * g->dilation[0];
            int64_t w = column * g->stride[1] - g->pad[2] + v * g->dilation[1];
            if (h < 0 || h >= g->h || w < 0 || w >= g->w) continue;
            int64_t from = ((image * g->h + h) * g->w + w) * g->c + k / group_k * group_c + c;
            int64_t weight = j * g->k + k;
            if (p.y) p.y[i] += p.x[from] * p.weights[weight];
            if (p.dx) p.dx[from] += p.dy[i] * p.weights[weight];
            if (p.dweights) p.dweights[weight] += p.x[from] * p.dy[i];
        }
    }
}

static geometry random_geometry(bool same) {
    geometry g = {.n = test_integer(1, 2), .groups = test_integer(1, 3)};
    g.c = g.groups * test_integer(1, 3);
    g.k = g.groups * test_integer(1, 4);
    g.kernel_h = test_integer(1, 4);
    g.kernel_w = test_integer(1, 4);
    for (int i = 0; i < 2; i++) {
        int64_t kernel = i ? g.kernel_w : g.kernel_h, *out = i ? &g.out_w : &g.out_h;
        g.stride[i] = test_integer(1, 3);
        g.dilation[i] = test_integer(1, 2);
        int64_t extent = (kernel - 1) * g.dilation[i] + 1;
        int64_t in = (same ? 1 : extent) + test_integer(0, 7), all = in;
        g.pad[2 * i] = test_integer(0, 2);
        g.pad[2 * i + 1] = test_integer(0, 2);
        if (same) { /* the rule in SAME's own words */
            int64_t wanted = (in + g.stride[i] - 1) / g.stride[i];
            int64_t total = (wanted - 1) * g.stride[i] + extent - in;
            g.pad[2 * i] = total > 0 ? total / 2 : 0;
            g.pad[2 * i + 1] = total > 0 ? (total + 1) / 2 : 0;
        }
        all += g.pad[2 * i] + g.pad[2 * i + 1];
        *out = (all - extent) / g.stride[i] + 1;
        *(i ? &g.w : &g.h) = in;
    }
    return g;
}

static double *numbers(int64_t count, bool random) {
    double *values = malloc((size_t)count * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < count; i++) values[i] = random ? (double)(float)test_random() : 0;
    return values;
}

static void assert_all(const resin_tensor *found, const double *expected, double tolerance) {
    for (int64_t i = 0; i < resin_tensor_count(found); i++)
        assert_close(at(found, i), expected[i], tolerance);
}

static void one_convolution(resin_dtype dtype, bool same, double tolerance) {
    geometry g = random_geometry(same);
    test_shape image = SHAPE(g.n, g.h, g.w, g.c), result = SHAPE(g.n, g.out_h, g.out_w, g.k);
    test_shape kernel = SHAPE(g.kernel_h, g.kernel_w, g.c / g.groups, g.k);
    int64_t image_count = g.n * g.h * g.w * g.c, result_count = g.n * g.out_h * g.out_w * g.k;
    int64_t kernel_count = g.kernel_h * g.kernel_w * (g.c / g.groups) * g.k;
    products p = {numbers(image_count, true), numbers(kernel_count, true),
                  numbers(result_count, false), numbers(image_count, false),
                  numbers(kernel_count, false), numbers(result_count, true)};
    resin_tensor *x = leaf(context, dtype, image, p.x);
    resin_tensor *weights = leaf(context, dtype, kernel, p.weights);
    resin_tensor *bias = leaf(context, dtype, SHAPE(g.k), NULL);
    resin_tensor *dy = tensor_of(context, dtype, result, p.dy);
    for (int64_t i = 0; i < result_count; i++) p.y[i] = at(bias, i % g.k);
    all_products(&g, p);
    resin_tensor *y = run_op(context, "conv2d", INPUTS(x, weights, bias),
                             OPTIONS(set_ints("stride", 2, g.stride), set_bool("same", same),
                                     set_ints("padding", 4, g.pad), set_int("groups", g.groups),
                                     set_ints("dilation", 2, g.dilation)));
    assert_memory_equal(resin_tensor_shape(y), result.size, 4 * sizeof(int64_t));
    assert_all(y, p.y, tolerance);
    must(context, resin_backward(y, dy, false));
    assert_all(resin_tensor_grad(x), p.dx, tolerance);
    assert_all(resin_tensor_grad(weights), p.dweights, tolerance);
    for (int64_t k = 0; k < g.k; k++) {
        double sum = 0;
        for (int64_t i = k; i < result_count; i += g.k) sum += p.dy[i];
        assert_close(grad_at(bias, k), sum, tolerance);
    }
    release_all(INPUTS(x, weights, bias, dy, y));
    free(p.x), free(p.weights), free(p.y), free(p.dx), free(p.dweights), free(p.dy);
}

static void convolutions(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        one_convolution(RESIN_FLOAT64, i % 2, 1e-12);
        one_convolution(RESIN_FLOAT32, i % 2, 1e-5);
    }
}

/* The transposed convolution is the convolution's gradient: y = dx of a convolution for dy = x. */
static void one_transposed(resin_dtype dtype, double tolerance) {
    geometry g = random_geometry(false);
    /* The largest image that gives this result: what the stride leaves over is output_padding. */
    int64_t more[2];
    for (int i = 0; i < 2; i++) {
        int64_t kernel = i ? g.kernel_w : g.kernel_h, out = i ? g.out_w : g.out_h;
        int64_t least = (out - 1) * g.stride[i] + (kernel - 1) * g.dilation[i] + 1 -
                        g.pad[2 * i] - g.pad[2 * i + 1];
        more[i] = (i ? g.w : g.h) - least;
    }
    int64_t x_count = g.n * g.out_h * g.out_w * g.k, y_count = g.n * g.h * g.w * g.c;
    int64_t kernel_count = g.kernel_h * g.kernel_w * (g.c / g.groups) * g.k;
    /* In terms of the convolution x is its dy, and the gradient of y its image. */
    products p = {numbers(y_count, true), numbers(kernel_count, true), numbers(x_count, false),
                  numbers(y_count, false), numbers(kernel_count, false), numbers(x_count, true)};
    resin_tensor *x = leaf(context, dtype, SHAPE(g.n, g.out_h, g.out_w, g.k), p.dy);
    resin_tensor *weights = leaf(context, dtype,
                                 SHAPE(g.kernel_h, g.kernel_w, g.c / g.groups, g.k), p.weights);
    resin_tensor *bias = leaf(context, dtype, SHAPE(g.c), NULL);
    resin_tensor *dy = tensor_of(context, dtype, SHAPE(g.n, g.h, g.w, g.c), p.x);
    for (int64_t i = 0; i < y_count; i++) p.dx[i] = at(bias, i % g.c);
    all_products(&g, p);
    resin_tensor *y = run_op(context, "conv2d_transpose", INPUTS(x, weights, bias),
                             OPTIONS(set_ints("stride", 2, g.stride),
                                     set_ints("padding", 4, g.pad), set_int("groups", g.groups),
                                     set_ints("dilation", 2, g.dilation),
                                     set_ints("output_padding", 2, more)));
    assert_all(y, p.dx, tolerance);
    must(context, resin_backward(y, dy, false));
    assert_all(resin_tensor_grad(x), p.y, tolerance);
    assert_all(resin_tensor_grad(weights), p.dweights, tolerance);
    for (int64_t c = 0; c < g.c; c++) {
        double sum = 0;
        for (int64_t i = c; i < y_count; i += g.c) sum += p.x[i];
        assert_close(grad_at(bias, c), sum, tolerance);
    }
    release_all(INPUTS(x, weights, bias, dy, y));
    free(p.x), free(p.weights), free(p.y), free(p.dx), free(p.dweights), free(p.dy);
}

static void transposed_convolutions(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        one_transposed(RESIN_FLOAT64, 1e-12);
        one_transposed(RESIN_FLOAT32, 1e-5);
    }
}

/* A view with gaps gives what its copy gives; without images there is an empty result. */
static void convolution_of_views(void **state) {
    (void)state;
    resin_tensor *wide = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 6, 5, 8), NULL), *view, *copy;
    const int64_t size[4] = {2, 5, 6, 4}, stride[4] = {240, 8, 40, 2};
    must(context, tensor_view(wide, 4, size, stride, 1, &view));
    must(context, tensor_contiguous(view, &copy));
    resin_tensor *weights = leaf(context, RESIN_FLOAT32, SHAPE(3, 3, 4, 5), NULL);
    resin_tensor *a = run_op(context, "conv2d", INPUTS(view, weights), NO_OPTIONS);
    resin_tensor *b = run_op(context, "conv2d", INPUTS(copy, weights), NO_OPTIONS);
    for (int64_t i = 0; i < resin_tensor_count(a); i++) assert_true(at(a, i) == at(b, i));
    release_all(INPUTS(wide, view, copy, a, b));

    resin_tensor *none = leaf(context, RESIN_FLOAT32, SHAPE(0, 5, 6, 4), NULL);
    resin_tensor *y = run_op(context, "conv2d", INPUTS(none, weights), NO_OPTIONS);
    assert_int_equal(resin_tensor_count(y), 0);
    must(context, resin_backward(y, y, false));
    assert_true(grad_at(weights, 7) == 0);
    release_all(INPUTS(none, y, weights));
}

static void convolution_errors(void **state) {
    (void)state;
    const resin_status bad_shape = RESIN_ERROR_SHAPE, bad = RESIN_ERROR_ARGUMENT;
    const int64_t three[3] = {1, 1, 1};
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 4, 4, 6), NULL);
    resin_tensor *w = tensor_of(context, RESIN_FLOAT32, SHAPE(3, 3, 5, 8), NULL);
    resin_tensor *fit = tensor_of(context, RESIN_FLOAT32, SHAPE(5, 3, 6, 8), NULL);
    resin_tensor *flat = tensor_of(context, RESIN_FLOAT32, SHAPE(4, 4, 6), NULL);
    resin_tensor *bias = tensor_of(context, RESIN_FLOAT32, SHAPE(7), NULL);
    resin_tensor *wide = tensor_of(context, RESIN_FLOAT64, SHAPE(3, 3, 6, 8), NULL);
    resin_tensor *whole = tensor_of(context, RESIN_INT32, SHAPE(2, 4, 4, 6), NULL);
    fails_with(context, bad_shape, "conv2d", INPUTS(x, w), NO_OPTIONS, "conv2d", "(2, 4, 4, 6)",
               "(3, 3, 5, 8)", NULL);
    fails_with(context, bad_shape, "conv2d", INPUTS(x, fit), NO_OPTIONS, "height 5", NULL);
    fails_with(context, bad_shape, "conv2d", INPUTS(x, fit, bias),
               OPTIONS(set_bool("same", true)), "bias (7)", "(5, 3, 6, 8)", NULL);
    fails_with(context, bad_shape, "conv2d", INPUTS(flat, fit), NO_OPTIONS, "(4, 4, 6)", NULL);
    fails_with(context, bad, "conv2d", INPUTS(x, wide), NO_OPTIONS, "float64", "float32", NULL);
    fails_with(context, bad, "conv2d", INPUTS(whole, wide), NO_OPTIONS, "int32", NULL);
    fails_with(context, bad, "conv2d", INPUTS(x, fit), OPTIONS(set_ints("padding", 3, three)),
               "padding takes", NULL);
    fails_with(context, bad, "conv2d", INPUTS(x, fit), OPTIONS(set_int("stride", 0)), "stride",
               NULL);
    fails_with(context, bad, "conv2d", INPUTS(x, fit), OPTIONS(set_int("padding", -1)), "padding",
               NULL);
    fails_with(context, bad, "conv2d", INPUTS(x, fit),
               OPTIONS(set_int("padding", INT64_C(1) << 62)), "padding", NULL);
    fails_with(context, bad_shape, "conv2d", INPUTS(x, fit), OPTIONS(set_int("groups", 4)),
               "groups = 4", NULL);
    fails_with(context, bad_shape, "conv2d_transpose", INPUTS(x, w), NO_OPTIONS, "(3, 3, 5, 8)",
               NULL);
    release_all(INPUTS(x, w, fit, flat, bias, wide, whole));
}

/* ---- Pooling --------------------------------------------------------------------------------- */

static void pooling_by_hand(void **state) {
    (void)state;
    const double values[] = {1, 5, 5, 2, /**/ 0, NAN, 5, 1, /**/ -3, -1, -2, 8};
    const int64_t sides[4] = {1, 0, 0, 1};
    resin_tensor *x = leaf(context, RESIN_FLOAT32, SHAPE(1, 3, 4, 1), values);
    /* A NaN wins; of equal values the first gets the gradient; -inf alone is no special case. */
    resin_tensor *y = run_op(context, "max_pool2d", INPUTS(x),
                             OPTIONS(set_int("kernel", 2), set_ints("padding", 4, sides)));
    assert_memory_equal(resin_tensor_shape(y), ((int64_t[]){1, 2, 2, 1}), 4 * sizeof(int64_t));
    assert_true(at(y, 0) == 5 && at(y, 1) == 5 && isnan(at(y, 2)) && at(y, 3) == 8);
    const double ones[] = {1, 2, 4, 8};
    resin_tensor *dy = tensor_of(context, RESIN_FLOAT32, SHAPE(1, 2, 2, 1), ones);
    must(context, resin_backward(y, dy, false));
    const double expected[] = {0, 1, 2, 0, 0, 4, 0, 0, 0, 0, 0, 8};
    assert_all(resin_tensor_grad(x), expected, 0);
    release_all(INPUTS(x, y, dy));
}

/* Means with padding: counted (PyTorch), not counted, and same (Keras). ceil: the last window of
 * five pixels by three, two apart, padded by one in front, ends behind the padding. */
static void means_by_hand(void **state) {
    (void)state;
    const double values[] = {6, 12, 18, 24, 30, 36};
    const int64_t kernel[2] = {1, 3}, stride[2] = {1, 2}, sides[4] = {0, 0, 1, 0};
    resin_tensor *x = tensor_of(context, RESIN_FLOAT64, SHAPE(1, 1, 6, 1), values);
    resin_attribute common[] = {set_ints("kernel", 2, kernel), set_ints("stride", 2, stride),
                                set_ints("padding", 4, sides), set_bool("ceil", true)};
    resin_tensor *counted = run_op(context, "avg_pool2d", INPUTS(x),
                                   OPTIONS(common[0], common[1], common[2], common[3]));
    assert_int_equal(resin_tensor_count(counted), 3);
    assert_all(counted, ((double[]){6, 18, 30}), 1e-12);
    resin_tensor *uncounted = run_op(context, "avg_pool2d", INPUTS(x),
                                     OPTIONS(common[0], common[1], common[2], common[3],
                                             set_bool("count_padding", false)));
    assert_all(uncounted, ((double[]){9, 18, 30}), 1e-12);
    resin_tensor *same = run_op(context, "avg_pool2d", INPUTS(x),
                                OPTIONS(common[0], common[1], set_bool("same", true)));
    assert_all(same, ((double[]){12, 24, 33}), 1e-12); /* the odd pixel of padding is behind */
    release_all(INPUTS(x, counted, uncounted, same));
}

/* Against plain loops: channels of every width, windows of odd sizes, more than 256 positions. */
static void one_pooling(resin_dtype dtype, int64_t kernel, int64_t stride, int64_t pad) {
    int64_t n = 2, h = kernel + 4, w = kernel + 2, c = test_integer(1, 40);
    int64_t out_h = (h + 2 * pad - kernel) / stride + 1;
    int64_t out_w = (w + 2 * pad - kernel) / stride + 1;
    resin_tensor *x = leaf(context, dtype, SHAPE(n, h, w, c), NULL);
    resin_attribute size = set_int("kernel", kernel), step = set_int("stride", stride),
                    padding = set_int("padding", pad);
    resin_tensor *largest = run_op(context, "max_pool2d", INPUTS(x), OPTIONS(size, step, padding));
    resin_tensor *mean = run_op(context, "avg_pool2d", INPUTS(x), OPTIONS(size, step, padding));
    double *expected = numbers(n * h * w * c, false);
    for (int64_t i = 0; i < n * out_h * out_w * c; i++) {
        int64_t k = i % c, column = i / c % out_w, row = i / c / out_w % out_h;
        int64_t image = i / c / out_w / out_h, place = -1;
        double best = -INFINITY, sum = 0;
        for (int64_t j = 0; j < kernel * kernel; j++) {
            int64_t y = row * stride - pad + j / kernel, z = column * stride - pad + j % kernel;
            if (y < 0 || y >= h || z < 0 || z >= w) continue;
            int64_t from = ((image * h + y) * w + z) * c + k;
            sum += at(x, from);
            if (at(x, from) > best) {
                best = at(x, from);
                place = from;
            }
        }
        assert_true(at(largest, i) == best);
        assert_close(at(mean, i), sum / (double)(kernel * kernel), 1e-6);
        expected[place] += 1;
    }
    resin_tensor *dy;
    must(context, resin_full(context, dtype, 4, resin_tensor_shape(largest), 1, &dy));
    must(context, resin_backward(largest, dy, false));
    assert_all(resin_tensor_grad(x), expected, 0);
    free(expected);
    release_all(INPUTS(x, largest, mean, dy));
}

static void poolings(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++)
        one_pooling(i % 2 ? RESIN_FLOAT64 : RESIN_FLOAT32, 1 + i % 4, 1 + i % 3, i % 4 / 2);
    one_pooling(RESIN_FLOAT32, 17, 2, 8);
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 20, 20, 3), NULL);
    resin_tensor *mean = run_op(context, "global_avg_pool", INPUTS(x), NO_OPTIONS);
    resin_tensor *largest = run_op(context, "global_max_pool", INPUTS(x), NO_OPTIONS);
    assert_memory_equal(resin_tensor_shape(mean), ((int64_t[]){2, 3}), 2 * sizeof(int64_t));
    for (int64_t i = 0; i < 6; i++) {
        double sum = 0, best = -2;
        for (int64_t j = 0; j < 400; j++) {
            double value = at(x, i / 3 * 1200 + j * 3 + i % 3);
            sum += value;
            if (value > best) best = value;
        }
        assert_close(at(mean, i), sum / 400, 1e-6);
        assert_true(at(largest, i) == best);
    }
    release_all(INPUTS(x, mean, largest));
}

static void pooling_errors(void **state) {
    (void)state;
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 4, 4, 6), NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "max_pool2d", INPUTS(x), NO_OPTIONS, "kernel", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "max_pool2d", INPUTS(x),
               OPTIONS(set_int("kernel", 5)), "height 5", NULL);
    fails_with(context, RESIN_ERROR_ARGUMENT, "avg_pool2d", INPUTS(x),
               OPTIONS(set_int("kernel", 2), set_int("padding", 2)), "padding 2", NULL);
    resin_release(x);
}

/* ---- Batch normalization --------------------------------------------------------------------- */

static resin_attribute training(void) { return set_bool("training", true); }
static resin_attribute relu(void) { return set_string("activation", "relu"); }

/* Numbers from PyTorch 1.13: relu(batch_norm(x, momentum 0.3) + shortcut). */
static void batch_norm_as_pytorch(void **state) {
    (void)state;
    const resin_dtype dtype = RESIN_FLOAT64;
    resin_tensor *x = leaf(context, dtype, SHAPE(3, 2), (double[]){1, 2, 3, 5, 8, -4});
    resin_tensor *gamma = leaf(context, dtype, SHAPE(2), (double[]){2, -1});
    resin_tensor *beta = leaf(context, dtype, SHAPE(2), (double[]){.5, 1.5});
    resin_tensor *mean = tensor_of(context, dtype, SHAPE(2), (double[]){.25, -.5});
    resin_tensor *variance = tensor_of(context, dtype, SHAPE(2), (double[]){1, 2});
    resin_tensor *shortcut = leaf(context, dtype, SHAPE(3, 2), (double[]){.5, -2, 1, .25, -3, 1});
    resin_tensor *dy = tensor_of(context, dtype, SHAPE(3, 2), (double[]){1, -2, .5, 3, -1, .25});
    resin_tensor *y = run_op(context, "batch_norm",
                             INPUTS(x, gamma, beta, mean, variance, shortcut),
                             OPTIONS(training(), relu(), set_number("momentum", 0.3)));
    must(context, resin_backward(y, dy, false));
    assert_all(y, ((double[]){0, 0, 0.8206341714549537, 0.6809554141518721, 0.21746331418018539,
                              3.83630573231016}), 1e-14);
    assert_all(mean, ((double[]){1.375, -0.05}), 1e-14);
    assert_all(variance, ((double[]){4.6, 7.7}), 1e-14);
    assert_all(resin_tensor_grad(x),
               ((double[]){-0.2395195966376622, 0.35793898657873713, 0.33532814078719647,
                           -0.23862621907275117, -0.09580854414953434, -0.11931276750598609}),
               1e-14);
    assert_all(resin_tensor_grad(gamma), ((double[]){-1.5285731142263543, 2.873057324466844}),
               1e-14);
    assert_all(resin_tensor_grad(beta), ((double[]){-.5, 3.25}), 1e-14);
    assert_all(resin_tensor_grad(shortcut), ((double[]){0, 0, .5, 3, -1, .25}), 1e-14);
    release_all(INPUTS(x, gamma, beta, mean, variance, shortcut, dy, y));
}

/* Values around 10^4 with a deviation of 10^-2: E[x^2] - E[x]^2 in float32 would give anything. */
static void statistics_do_not_cancel(void **state) {
    (void)state;
    enum { ROWS = 20000, CHANNELS = 5 };
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(ROWS, CHANNELS), NULL);
    resin_tensor *mean = tensor_of(context, RESIN_FLOAT32, SHAPE(CHANNELS), NULL);
    resin_tensor *variance = tensor_of(context, RESIN_FLOAT32, SHAPE(CHANNELS), NULL);
    float *values = resin_tensor_data(x);
    for (int64_t i = 0; i < ROWS * CHANNELS; i++) values[i] = 1e4f + values[i] * 0.01f;
    resin_tensor *y = run_op(context, "batch_norm", INPUTS(x, NULL, NULL, mean, variance),
                             OPTIONS(training(), set_number("momentum", 1)));
    for (int64_t c = 0; c < CHANNELS; c++) {
        double sum = 0, squares = 0;
        for (int64_t r = 0; r < ROWS; r++) sum += (double)values[r * CHANNELS + c];
        for (int64_t r = 0; r < ROWS; r++) {
            double d = (double)values[r * CHANNELS + c] - sum / ROWS;
            squares += d * d;
        }
        assert_close(at(mean, c), sum / ROWS, 1e-7);
        assert_true(fabs(at(variance, c) / (squares / (ROWS - 1)) - 1) < 1e-5);
    }
    release_all(INPUTS(x, mean, variance, y));
}

/* Every instruction set, any number of channels: the kernels against loops in double. */
static void one_kernel_shape(const norm_loops *loops, int64_t rows, int64_t channels) {
    size_t count = (size_t)(rows * channels);
    float *x = malloc(count * sizeof *x), *y = malloc(count * sizeof *y);
    float *dy = malloc(count * sizeof *dy), *by_channel = malloc((size_t)channels * 6 * sizeof *x);
    for (size_t i = 0; i < count; i++) {
        x[i] = (float)(3 + test_random());
        y[i] = (float)test_random();
        dy[i] = (float)test_random();
    }
    float *mean = by_channel, *m2 = mean + channels, *sum_g = m2 + channels;
    float *sum_gx = sum_g + channels, *sum = sum_gx + channels, *rest = sum + channels;
    loops->block_statistics(rows, channels, x, mean, rest, m2);
    const norm_gate gate = {.activation = NORM_RELU, .y = y};
    loops->gradient_sums(rows, channels, x, mean, &gate, dy, dy, sum_g, sum_gx);
    loops->channel_sums(rows, channels, x, sum);
    for (int64_t c = 0; c < channels; c++) {
        double total = 0, squares = 0, g = 0, gx = 0;
        for (int64_t r = 0; r < rows; r++) total += (double)x[r * channels + c];
        for (int64_t r = 0; r < rows; r++) {
            double d = (double)x[r * channels + c] - total / (double)rows;
            double taken = y[r * channels + c] > 0 ? (double)dy[r * channels + c] : 0;
            squares += d * d;
            g += taken;
            gx += taken * d;
        }
        assert_close((double)mean[c] + (double)rest[c], total / (double)rows, 1e-7);
        assert_close((double)m2[c], squares, 1e-5);
        assert_close((double)sum[c], total, 1e-5);
        assert_close((double)sum_g[c], g, 1e-5);
        assert_close((double)sum_gx[c], gx, 1e-5);
    }
    free(x), free(y), free(dy), free(by_channel);
}

static void kernels_of_all_sets(void **state) {
    static const char *const sets[] = {"v4", "v3", "v2", "generic"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        const resin_kernel_table *table = resin_kernels_of(sets[i]);
        if (!table) continue;
        for (int64_t channels = 1; channels <= 150; channels += 1 + channels / 20)
            for (int64_t rows = 1; rows <= 9; rows += 2)
                one_kernel_shape(&table->norm.of[RESIN_FLOAT32], rows, channels);
    }
}

/* The bits of output, gradients and running statistics do not depend on threads. */
static void batch_norm_is_the_same_at_any_threads(void **state) {
    (void)state;
    enum { COUNT = 3 * 41 * 37 * 24 };
    static float first[COUNT];
    resin_tensor *x = leaf(context, RESIN_FLOAT32, SHAPE(3, 41, 37, 24), NULL);
    resin_tensor *gamma = leaf(context, RESIN_FLOAT32, SHAPE(24), NULL);
    float scale[24], mean_bits[24];
    for (int threads = 1; threads <= 4; threads++) {
        resin_tensor *mean = tensor_of(context, RESIN_FLOAT32, SHAPE(24), (double[24]){0});
        resin_tensor *variance = tensor_of(context, RESIN_FLOAT32, SHAPE(24), (double[24]){0});
        must(context, resin_set_threads(context, threads));
        resin_clear_grad(x);
        resin_clear_grad(gamma);
        resin_tensor *y = run_op(context, "batch_norm", INPUTS(x, gamma, NULL, mean, variance),
                                 OPTIONS(training(), relu()));
        must(context, resin_backward(y, y, false));
        if (threads == 1) {
            memcpy(first, resin_tensor_data(resin_tensor_grad(x)), sizeof first);
            memcpy(scale, resin_tensor_data(resin_tensor_grad(gamma)), sizeof scale);
            memcpy(mean_bits, resin_tensor_data(mean), sizeof mean_bits);
        }
        assert_memory_equal(first, resin_tensor_data(resin_tensor_grad(x)), sizeof first);
        assert_memory_equal(scale, resin_tensor_data(resin_tensor_grad(gamma)), sizeof scale);
        assert_memory_equal(mean_bits, resin_tensor_data(mean), sizeof mean_bits);
        release_all(INPUTS(mean, variance, y));
    }
    release_all(INPUTS(x, gamma));
}

static void batch_norm_errors(void **state) {
    (void)state;
    const resin_status bad_shape = RESIN_ERROR_SHAPE, bad = RESIN_ERROR_ARGUMENT;
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(1, 3), NULL);
    resin_tensor *v = tensor_of(context, RESIN_FLOAT32, SHAPE(3), NULL);
    resin_tensor *wanted = leaf(context, RESIN_FLOAT32, SHAPE(3), NULL);
    resin_tensor *four = tensor_of(context, RESIN_FLOAT32, SHAPE(4), NULL);
    resin_tensor *wide = tensor_of(context, RESIN_FLOAT64, SHAPE(3), NULL);
    fails_with(context, bad_shape, "batch_norm", INPUTS(x, NULL, NULL, v, v),
               OPTIONS(training()), "more than one value per channel", "(1, 3)", NULL);
    fails_with(context, bad_shape, "batch_norm", INPUTS(x, four, NULL, v, v), NO_OPTIONS,
               "gamma (4)", "(1, 3)", NULL);
    fails_with(context, bad, "batch_norm", INPUTS(x, NULL, wide, v, v), NO_OPTIONS, "beta",
               "float64", NULL);
    fails_with(context, bad_shape, "batch_norm", INPUTS(x, NULL, NULL, v, v, v), NO_OPTIONS,
               "shortcut (3)", NULL);
    fails_with(context, bad, "batch_norm", INPUTS(x, NULL, NULL, wanted, v), NO_OPTIONS,
               "no gradient", NULL);
    fails_with(context, bad, "batch_norm", INPUTS(x, NULL, NULL, v, v),
               OPTIONS(set_string("activation", "elu")), "\"elu\"", NULL);
    release_all(INPUTS(x, v, wanted, four, wide));
}

/* One node or three ops: the same bits forward, and gradients that agree. */
static void fused_as_unfused(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        bool train = i & 1, with_shortcut = i & 2, record = i & 4;
        op_options conv = OPTIONS(set_bool("same", true));
        op_options norm = OPTIONS(set_bool("training", train), relu());
        op_options both = OPTIONS(set_bool("same", true), set_bool("training", train), relu());
        resin_tensor *tensor[8] = {
            leaf(context, RESIN_FLOAT32, SHAPE(2, 7, 6, 5), NULL),
            leaf(context, RESIN_FLOAT32, SHAPE(3, 3, 5, 19), NULL), NULL,
            leaf(context, RESIN_FLOAT32, SHAPE(19), NULL),
            leaf(context, RESIN_FLOAT32, SHAPE(19), NULL),
            tensor_of(context, RESIN_FLOAT32, SHAPE(19), NULL),
            tensor_of(context, RESIN_FLOAT32, SHAPE(19), NULL),
            with_shortcut ? leaf(context, RESIN_FLOAT32, SHAPE(2, 7, 6, 19), NULL) : NULL,
        };
        must(context, resin_fill(tensor[6], 0.7));
        must(context, resin_fill(tensor[5], 0.1));
        resin_set_recording(context, record);
        op_inputs all;
        memcpy(all.tensor, tensor, sizeof tensor);
        resin_tensor *one = run_op(context, "conv_bn_act", all, both);
        float grad[7 * 6 * 5 * 2];
        if (record) {
            must(context, resin_backward(one, one, false));
            memcpy(grad, resin_tensor_data(resin_tensor_grad(tensor[0])), sizeof grad);
            resin_clear_grad(tensor[0]);
        }
        must(context, resin_fill(tensor[6], 0.7));
        must(context, resin_fill(tensor[5], 0.1));
        resin_tensor *z = run_op(context, "conv2d", INPUTS(tensor[0], tensor[1]), conv);
        resin_tensor *y = run_op(context, "batch_norm", INPUTS(z, tensor[3], tensor[4], tensor[5],
                                                               tensor[6], tensor[7]), norm);
        assert_memory_equal(resin_tensor_data(one), resin_tensor_data(y),
                            (size_t)resin_tensor_count(y) * sizeof(float));
        if (record) {
            must(context, resin_backward(y, y, false));
            assert_memory_equal(grad, resin_tensor_data(resin_tensor_grad(tensor[0])), sizeof grad);
        }
        resin_set_recording(context, true);
        release_all(all);
        release_all(INPUTS(one, z, y));
    }
}

/* ---- Losses ---------------------------------------------------------------------------------- */

static void cross_entropy_as_pytorch(void **state) {
    (void)state;
    resin_tensor *x = leaf(context, RESIN_FLOAT64, SHAPE(2, 3), (double[]){1, 2, 3, .5, -1, 2});
    resin_tensor *labels = tensor_of(context, RESIN_INT32, SHAPE(2), (double[]){3, 1});
    resin_tensor *loss = run_op(context, "cross_entropy", INPUTS(x, labels),
                                OPTIONS(set_int("base", 1), set_number("label_smoothing", 0.1)));
    must(context, resin_backward(loss, NULL, false));
    assert_close(at(loss, 0), 1.124458630550769, 1e-14);
    assert_all(resin_tensor_grad(x),
               ((double[]){0.02834861991852355, 0.10569756886073216, -0.13404618877925578,
                           -0.3790214705966483, 0.0028896199686770582, 0.3761318506279713}), 1e-14);
    release_all(INPUTS(x, labels, loss));
}

/* Logits of +-400 (and beyond what float32's exponential holds), masked ones, ignored labels. */
static void cross_entropy_at_the_edges(void **state) {
    (void)state;
    resin_tensor *x = leaf(context, RESIN_FLOAT32, SHAPE(3, 3),
                           (double[]){400, -400, 0, -400, 400, -INFINITY, 3e38, -3e38, 0});
    resin_tensor *labels = tensor_of(context, RESIN_INT64, SHAPE(3), (double[]){1, 1, 9});
    resin_tensor *losses = run_op(context, "cross_entropy", INPUTS(x, labels),
                                  OPTIONS(set_ints("ignore", 1, (int64_t[]){9}),
                                          set_string("reduction", "none")));
    assert_all(losses, ((double[]){800, 0, 0}), 1e-7);
    resin_tensor *mean = run_op(context, "cross_entropy", INPUTS(x, labels),
                                OPTIONS(set_ints("ignore", 1, (int64_t[]){9})));
    assert_close(at(mean, 0), 400, 1e-7);
    must(context, resin_backward(mean, NULL, false));
    assert_all(resin_tensor_grad(x), ((double[]){.5, -.5, 0, 0, 0, 0, 0, 0, 0}), 1e-7);
    release_all(INPUTS(x, labels, losses, mean));
}

static void label_errors(void **state) {
    (void)state;
    const resin_status bad = RESIN_ERROR_ARGUMENT;
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 3, 4), NULL);
    resin_tensor *high = tensor_of(context, RESIN_INT32, SHAPE(2, 3), (double[]){0, 1, 2, 3, 4, 0});
    resin_tensor *zero = tensor_of(context, RESIN_UINT8, SHAPE(2, 3), (double[]){1, 1, 0, 1, 1, 1});
    resin_tensor *flat = tensor_of(context, RESIN_INT32, SHAPE(6), (double[6]){0});
    resin_tensor *soft = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 3), NULL);
    fails_with(context, bad, "cross_entropy", INPUTS(x, high), NO_OPTIONS, "position (1, 1)",
               "is 4", "0 .. 3", NULL);
    fails_with(context, bad, "cross_entropy", INPUTS(x, zero), OPTIONS(set_int("base", 1)),
               "position (1, 3)", "is 0", "1 .. 4", "base = 0", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "cross_entropy", INPUTS(x, flat), NO_OPTIONS, "(6)",
               "(2, 3, 4)", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "cross_entropy", INPUTS(x, soft), NO_OPTIONS, "float32",
               "(2, 3)", NULL);
    fails_with(context, bad, "cross_entropy", INPUTS(x, high),
               OPTIONS(set_string("reduction", "median")), "\"median\"", NULL);
    fails_with(context, RESIN_ERROR_SHAPE, "mse_loss", INPUTS(x, soft), NO_OPTIONS, "(2, 3, 4)",
               "(2, 3)", NULL);
    fails_with(context, bad, "binary_cross_entropy", INPUTS(soft, soft), NO_OPTIONS, "0 .. 1",
               NULL);
    release_all(INPUTS(x, high, zero, flat, soft));
}

static double loss_of(const char *op, double x, double target, double *slope) {
    resin_tensor *a = leaf(context, RESIN_FLOAT64, SHAPE(1), &x);
    resin_tensor *t = tensor_of(context, RESIN_FLOAT64, SHAPE(1), &target);
    resin_tensor *loss = run_op(context, op, INPUTS(a, t), NO_OPTIONS);
    must(context, resin_backward(loss, NULL, false));
    double value = at(loss, 0);
    *slope = grad_at(a, 0);
    release_all(INPUTS(a, t, loss));
    return value;
}

static void pair_losses_by_hand(void **state) {
    static const struct { const char *op; double x, t, value, slope; } cases[] = {
        {"mse_loss", 3, 1, 4, 4},
        {"l1_loss", 1, 3, 2, -1},
        {"l1_loss", 2, 2, 0, 0},
        {"huber_loss", 1.5, 1, 0.125, 0.5},
        {"huber_loss", -4, 1, 4.5, -1},
        {"binary_cross_entropy", 0.25, 1, 1.3862943611198906, -4},
        {"binary_cross_entropy", 0, 1, 100, -1e12},
        {"binary_cross_entropy_with_logits", 0, 1, 0.6931471805599453, -0.5},
        {"binary_cross_entropy_with_logits", 1000, 0, 1000, 1},
        {"binary_cross_entropy_with_logits", -1000, 0, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double slope;
        assert_close(loss_of(cases[i].op, cases[i].x, cases[i].t, &slope), cases[i].value, 1e-14);
        assert_close(slope, cases[i].slope, 1e-14);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, finish)
    const struct CMUnitTest tests[] = {
        TEST(convolutions), TEST(transposed_convolutions), TEST(convolution_of_views),
        TEST(convolution_errors), TEST(pooling_by_hand), TEST(means_by_hand), TEST(poolings),
        TEST(pooling_errors), TEST(batch_norm_as_pytorch), TEST(statistics_do_not_cancel),
        TEST(kernels_of_all_sets), TEST(batch_norm_is_the_same_at_any_threads),
        TEST(batch_norm_errors), TEST(fused_as_unfused), TEST(cross_entropy_as_pytorch),
        TEST(cross_entropy_at_the_edges), TEST(label_errors), TEST(pair_losses_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
