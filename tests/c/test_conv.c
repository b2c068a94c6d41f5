/* test_conv.c: every method and pass of convolution, with the kernels of every instruction set that
 * this processor has, against plain loops in float64.
 *
 * Tolerance. A sum of k products of float32 numbers, in any order, is off by at most
 * k * eps * sum |x_i w_i| (Higham, Accuracy and Stability of Numerical Algorithms, 3.1; eps = 2^-24
 * for one rounding, and k + 1 with the bias). Values here lie in [-1, 1), so sum |x_i w_i| <= k:
 * that bound would be k (k + 1) eps; rounding errors of either sign mostly cancel, and 4 (k + 1)
 * eps is allowed. Winograd's transforms enlarge what is rounded in between: the row sums of |A^T|,
 * |G| and |B^T| are at most 18, 1 and 10 (7, 1.3 and 10 with 5x5 taps; for the phases of a strided
 * convolution 19, 1.4 and 15 with 7x7 taps, 11, 1 and 6 with 3x3), used in two directions. Its
 * measured errors are about ten times those of the plain sum, and WINOGRAD_FACTOR times as much is
 * allowed. */
#include "core/kernels/kernels.h"
#include "core/ops/conv_call.h"
#include "core/ops/product_call.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WINOGRAD_FACTOR = 32 };

static const char *const sets[] = {"v4", "v3", "v2", "generic"};
enum { SETS = 4 };

static uint64_t random_state = 1;

static double next_random(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 40) / (1 << 24);
}
static int64_t random_integer(int64_t low, int64_t high) {
    return low + (int64_t)(next_random() * (double)(high - low + 1));
}

/* An array in both types with the same values. GUARD floats behind it must stay as they are. */
enum { GUARD = 64 };
typedef struct array {
    int64_t count;
    float *single;
    double *exact;
} array;

static array new_array(int64_t count) {
    array a = {count, malloc((size_t)(count + GUARD) * sizeof(float)),
               malloc((size_t)(count + 1) * sizeof(double))};
    assert_non_null(a.single);
    assert_non_null(a.exact);
    for (int64_t i = 0; i < count + GUARD; i++) {
        a.single[i] = (float)(2 * next_random() - 1);
        if (i < count) a.exact[i] = a.single[i];
    }
    return a;
}
static void free_array(array *a) {
    free(a->single);
    free(a->exact);
}

/* Every other problem normalizes its x while it is read: x.exact holds what comes out. Some have an
 * epilogue behind the forward pass. */
typedef struct problem {
    conv_shape shape;
    array x, weights, bias, dy, y, dx, dweights, scale, shift;
    bool normalized;
    array factor, offset, shortcut;
    bool finished, adds_shortcut, relu;
} problem;

static problem new_problem(conv_shape s) {
    s.out_h = (s.in_h + s.pad_top + s.pad_bottom - s.dilation_h * (s.kernel_h - 1) - 1) /
                  s.stride_h + 1;
    s.out_w = (s.in_w + s.pad_left + s.pad_right - s.dilation_w * (s.kernel_w - 1) - 1) /
                  s.stride_w + 1;
    int64_t in = s.batch * s.in_h * s.in_w * s.in_c, out = s.batch * s.out_h * s.out_w * s.out_c;
    int64_t weights = s.kernel_h * s.kernel_w * (s.in_c / s.groups) * s.out_c;
    problem p = {s, new_array(in), new_array(weights), new_array(s.out_c), new_array(out),
                 new_array(out), new_array(in), new_array(weights), new_array(s.in_c),
                 new_array(s.in_c), random_integer(0, 1) == 1,
                 new_array(s.out_c), new_array(s.out_c), new_array(out),
                 random_integer(0, 1) == 1, random_integer(0, 1) == 1, random_integer(0, 2) > 0};
    if (!p.normalized) return p;
    for (int64_t c = 0; c < s.in_c; c++) { /* results lie in [-1, 1), too */
        p.scale.single[c] *= 0.5f;
        p.shift.single[c] *= 0.5f;
    }
    for (int64_t i = 0; i < in; i++) {
        float scale = p.scale.single[i % s.in_c], shift = p.shift.single[i % s.in_c];
        p.x.exact[i] = fmax(fmaf(p.x.single[i], scale, shift), 0);
    }
    return p;
}
static conv_image image_of(const problem *p) {
    if (!p->normalized) return (conv_image){.pixels = p->x.single};
    return (conv_image){.pixels = p->x.single, .scale = p->scale.single, .shift = p->shift.single};
}
static void free_problem(problem *p) {
    array *arrays[] = {&p->x, &p->weights, &p->bias, &p->dy, &p->y, &p->dx, &p->dweights,
                       &p->scale, &p->shift, &p->factor, &p->offset, &p->shortcut};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free_array(arrays[i]);
}

static bool possible(const conv_shape *s) {
    return s->in_h + s->pad_top + s->pad_bottom > s->dilation_h * (s->kernel_h - 1) &&
           s->in_w + s->pad_left + s->pad_right > s->dilation_w * (s->kernel_w - 1);
}

static array *result_of(problem *p, conv_pass pass) {
    return pass == CONV_FORWARD ? &p->y : pass == CONV_BACKWARD_DATA ? &p->dx : &p->dweights;
}

static conv_epilogue epilogue_of(const problem *p) {
    return (conv_epilogue){p->factor.single, p->offset.single,
                           p->adds_shortcut ? p->shortcut.single : NULL, p->relu};
}

static void finish_exact(problem *p) {
    int64_t channels = p->shape.out_c;
    for (int64_t i = 0; p->finished && i < p->y.count; i++) {
        double z = p->y.exact[i] * p->factor.exact[i % channels] + p->offset.exact[i % channels];
        if (p->adds_shortcut) z += p->shortcut.exact[i];
        p->y.exact[i] = p->relu && z < 0 ? 0 : z;
    }
}

static void run_exact(resin_context *context, problem *p, conv_pass pass) {
    if (pass == CONV_FORWARD) {
        conv_forward_f64(context, &p->shape, p->x.exact, p->weights.exact, p->bias.exact,
                         p->y.exact);
        finish_exact(p);
    } else if (pass == CONV_BACKWARD_DATA) {
        conv_backward_data_f64(context, &p->shape, p->dy.exact, p->weights.exact, p->dx.exact);
    } else {
        conv_backward_weights_f64(context, &p->shape, p->x.exact, p->dy.exact, p->dweights.exact,
                                  NULL);
    }
}

/* The same call with its weights prepared, and the others out of reach, gives the same bits. */
static void run_prepared(resin_context *context, conv_call call, conv_method method,
                         array *result) {
    int64_t floats = conv_call_prepared(&call, method);
    if (floats == 0) return;
    size_t size = (size_t)result->count * sizeof(float);
    float *prepared = malloc((size_t)floats * sizeof *prepared), *before = malloc(size);
    assert_true(prepared && before);
    memcpy(before, result->single, size);
    conv_call_prepare(context, &call, method, prepared);
    call.weights = NULL;
    call.prepared = prepared;
    for (int64_t i = 0; i < result->count; i++) result->single[i] = NAN;
    assert_int_equal(conv_run(context, &call, method), RESIN_OK);
    assert_memory_equal(before, result->single, size);
    free(prepared);
    free(before);
}

static void run_fast(resin_context *context, problem *p, conv_pass pass, conv_method method,
                     const conv_kernels *kernels) {
    conv_epilogue epilogue = epilogue_of(p);
    conv_call call = {.kernels = kernels, .shape = p->shape, .pass = pass, .x = image_of(p),
                      .dy = p->dy.single, .weights = p->weights.single,
                      .bias = pass == CONV_FORWARD ? p->bias.single : NULL,
                      .epilogue = pass == CONV_FORWARD && p->finished ? &epilogue : NULL,
                      .result = result_of(p, pass)->single};
    array *result = result_of(p, pass);
    float guard[GUARD];
    memcpy(guard, result->single + result->count, sizeof guard);
    for (int64_t i = 0; i < result->count; i++) result->single[i] = NAN;
    assert_int_equal(conv_run(context, &call, method), RESIN_OK);
    if (pass == CONV_FORWARD) run_prepared(context, call, method, result);
    assert_memory_equal(guard, result->single + result->count, sizeof guard);
}

/* The number of products in a sum of this pass. */
static double terms(const conv_shape *s, conv_pass pass) {
    double taps = (double)(s->kernel_h * s->kernel_w);
    if (pass == CONV_FORWARD) return 3 + taps * (double)(s->in_c / s->groups); /* epilogue */
    if (pass == CONV_BACKWARD_DATA) return taps * (double)(s->out_c / s->groups);
    return (double)(s->batch * s->out_h * s->out_w);
}

static double largest_error(const array *a) {
    double largest = 0;
    for (int64_t i = 0; i < a->count; i++) {
        double error = fabs(a->single[i] - a->exact[i]);
        if (!(error <= largest)) largest = error;
    }
    return largest;
}

static double worst_share[CONV_METHOD_COUNT][3];

static void check_problem(resin_context *context, conv_shape shape, bool large) {
    problem p = new_problem(shape);
    for (conv_pass pass = CONV_FORWARD; pass <= CONV_BACKWARD_WEIGHTS; pass++) {
        run_exact(context, &p, pass);
        for (conv_method method = 0; method < CONV_METHOD_COUNT; method++) {
            if (!conv_method_fits(&p.shape, pass, method)) continue;
            double allowed = 4 * (terms(&p.shape, pass) + 1) * FLT_EPSILON / 2;
            if (!conv_method_is_exact(method)) allowed *= WINOGRAD_FACTOR;
            for (int set = 0; set < SETS; set++) {
                const resin_kernel_table *kernels = resin_kernels_of(sets[set]);
                if (!kernels || (method == CONV_REFERENCE && (large || set < SETS - 1))) continue;
                run_fast(context, &p, pass, method, &kernels->conv);
                double error = largest_error(result_of(&p, pass));
                if (error / allowed > worst_share[method][pass]) {
                    worst_share[method][pass] = error / allowed;
                }
                if (error <= allowed) continue;
                const conv_shape *s = &p.shape;
                fail_msg("%s %s pass %d: error %g > %g: batch %d, in %dx%dx%d, out %dx%dx%d, "
                         "kernel %dx%d, stride %dx%d, pad %d %d %d %d, dilation %dx%d, groups %d",
                         conv_method_name(method), sets[set], (int)pass, error, allowed,
                         (int)s->batch, (int)s->in_h, (int)s->in_w, (int)s->in_c, (int)s->out_h,
                         (int)s->out_w, (int)s->out_c, (int)s->kernel_h, (int)s->kernel_w,
                         (int)s->stride_h, (int)s->stride_w, (int)s->pad_top, (int)s->pad_left,
                         (int)s->pad_bottom, (int)s->pad_right, (int)s->dilation_h,
                         (int)s->dilation_w, (int)s->groups);
            }
        }
    }
    free_problem(&p);
}

static const int64_t channel_counts[] = {1, 3, 5, 16, 17, 31, 33, 64};

static int64_t random_channels(void) { return channel_counts[random_integer(0, 7)]; }

/* 3x3 and 5x5 with stride 1, as Winograd's method takes them. */
static void test_square_shapes(void **state) {
    resin_context *context = *state;
    for (int i = 0; i < 180; i++) {
        int64_t kernel = i % 3 == 2 ? 5 : 3;
        conv_shape s = {.batch = random_integer(1, 3), .in_h = random_integer(1, 13),
                        .in_w = random_integer(1, 13), .in_c = random_channels(),
                        .out_c = random_channels(), .kernel_h = kernel, .kernel_w = kernel,
                        .stride_h = 1, .stride_w = 1, .pad_top = random_integer(0, 3),
                        .pad_left = random_integer(0, 3), .pad_bottom = random_integer(0, 3),
                        .pad_right = random_integer(0, 3), .dilation_h = 1, .dilation_w = 1,
                        .groups = 1};
        if (possible(&s)) check_problem(context, s, false);
    }
}

static void test_any_shapes(void **state) {
    resin_context *context = *state;
    for (int i = 0; i < 200; i++) {
        conv_shape s = {.batch = random_integer(1, 3), .in_h = random_integer(1, 13),
                        .in_w = random_integer(1, 13), .in_c = random_channels(),
                        .out_c = random_channels(), .kernel_h = random_integer(1, 5),
                        .kernel_w = random_integer(1, 5), .stride_h = random_integer(1, 3),
                        .stride_w = random_integer(1, 3), .pad_top = random_integer(0, 3),
                        .pad_left = random_integer(0, 3), .pad_bottom = random_integer(0, 3),
                        .pad_right = random_integer(0, 3), .dilation_h = random_integer(1, 3),
                        .dilation_w = random_integer(1, 3), .groups = 1};
        if (possible(&s)) check_problem(context, s, false);
    }
}

static void test_common_shapes(void **state) {
    resin_context *context = *state;
    static const int64_t kernels[][3] = {{1, 1, 0}, {1, 2, 0}, {3, 2, 1}, {7, 2, 3}, {3, 1, 1}};
    for (int i = 0; i < 60; i++) {
        const int64_t *k = kernels[i % 5];
        int64_t size = random_integer(1, 40);
        conv_shape s = {.batch = random_integer(1, 3), .in_h = size, .in_w = size,
                        .in_c = random_channels(), .out_c = random_channels(), .kernel_h = k[0],
                        .kernel_w = k[0], .stride_h = k[1], .stride_w = k[1], .pad_top = k[2],
                        .pad_left = k[2], .pad_bottom = k[2], .pad_right = k[2], .dilation_h = 1,
                        .dilation_w = 1, .groups = 1};
        if (possible(&s)) check_problem(context, s, false);
    }
}

/* Large kernels with stride 2 from few channels, as in the first layer of residual networks. The
 * last of the shapes is that of make_golden.py. */
static void test_first_layers(void **state) {
    resin_context *context = *state;
    static const conv_shape by_phases[] = {
        {1, 224, 224, 3, 112, 112, 64, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1},
        {1, 8, 56, 3, 4, 28, 8, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(conv_choose(&by_phases[i], CONV_FORWARD, false), CONV_PHASES);
        assert_int_equal(conv_choose(&by_phases[i], CONV_BACKWARD_WEIGHTS, false), CONV_PHASES);
        assert_int_equal(conv_choose(&by_phases[i], CONV_FORWARD, true), CONV_DIRECT);
    }
    static const int64_t channels[] = {1, 2, 3, 4, 5, 16};
    for (int i = 0; i < 60; i++) {
        conv_shape s = {.batch = random_integer(1, 3), .in_h = random_integer(1, 50),
                        .in_w = random_integer(1, 70), .in_c = channels[i % 6],
                        .out_c = random_channels(), .kernel_h = random_integer(7, 8),
                        .kernel_w = random_integer(7, 8), .stride_h = 2, .stride_w = 2,
                        .pad_top = random_integer(0, 4), .pad_left = random_integer(0, 4),
                        .pad_bottom = random_integer(0, 4), .pad_right = random_integer(0, 4),
                        .dilation_h = 1, .dilation_w = 1, .groups = 1};
        if (possible(&s)) check_problem(context, s, false);
    }
}

/* 3x3 with stride 2, by phases too: any paddings, images smaller than a tile. */
static void test_strided_shapes(void **state) {
    static const conv_shape large[] = {
        {64, 32, 32, 64, 16, 16, 128, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1},
        {1, 56, 56, 64, 28, 28, 128, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1}};
    for (conv_pass pass = CONV_FORWARD; pass <= CONV_BACKWARD_WEIGHTS; pass++) {
        assert_int_equal(conv_choose(&large[0], pass, false), CONV_STRIDED);
        assert_int_equal(conv_choose(&large[0], pass, true), CONV_DIRECT);
        assert_int_equal(conv_choose(&large[1], pass, false), CONV_DIRECT);
    }
    for (int i = 0; i < 40; i++) {
        conv_shape s = {.batch = random_integer(1, 3), .in_h = random_integer(1, 35),
                        .in_w = random_integer(1, 20), .in_c = random_channels(),
                        .out_c = random_channels(), .kernel_h = 3, .kernel_w = 3, .stride_h = 2,
                        .stride_w = 2, .pad_top = random_integer(0, 3),
                        .pad_left = random_integer(0, 3), .pad_bottom = random_integer(0, 3),
                        .pad_right = random_integer(0, 3), .dilation_h = 1, .dilation_w = 1,
                        .groups = 1};
        if (possible(&s)) check_problem(*state, s, false);
    }
}

static void test_groups(void **state) {
    resin_context *context = *state;
    static const int64_t sizes[] = {1, 2, 3, 4, 8, 12, 16, 17, 32};
    for (int i = 0; i < 150; i++) {
        int64_t groups = random_integer(2, 9), in = sizes[random_integer(0, 8)];
        int64_t out = random_integer(0, 2) ? in : sizes[random_integer(0, 8)];
        int64_t kernel = random_integer(0, 2) ? 3 : random_integer(1, 4);
        conv_shape s = {.batch = random_integer(1, 2), .in_h = random_integer(1, 11),
                        .in_w = random_integer(1, 11), .in_c = groups * in, .out_c = groups * out,
                        .kernel_h = kernel, .kernel_w = kernel, .stride_h = random_integer(1, 2),
                        .stride_w = random_integer(1, 2), .pad_top = random_integer(0, 2),
                        .pad_left = random_integer(0, 2), .pad_bottom = random_integer(0, 2),
                        .pad_right = random_integer(0, 2), .dilation_h = random_integer(1, 2),
                        .dilation_w = random_integer(1, 2), .groups = groups};
        if (possible(&s)) check_problem(context, s, false);
    }
}

/* Large enough that every way of cutting the work is taken: blocks, slices, chunks, superblocks. */
static const conv_shape large_shapes[] = {
    {16, 30, 31, 17, 0, 0, 33, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {40, 17, 18, 5, 0, 0, 48, 3, 3, 1, 1, 2, 0, 0, 2, 1, 1, 1},
    {2, 40, 40, 17, 0, 0, 33, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {4, 33, 30, 64, 0, 0, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {8, 31, 31, 256, 0, 0, 33, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {66, 1, 9, 330, 0, 0, 270, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {98, 5, 2, 256, 0, 0, 352, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {2, 14, 14, 160, 0, 0, 200, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {3, 7, 7, 512, 0, 0, 130, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {9, 13, 14, 160, 0, 0, 150, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {2, 64, 64, 3, 0, 0, 64, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1},
    {3, 75, 330, 3, 0, 0, 70, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1},
    {1, 40, 90, 4, 0, 0, 530, 8, 7, 2, 2, 3, 2, 4, 3, 1, 1, 1},
    {2, 28, 28, 128, 0, 0, 160, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1},
    {1, 57, 56, 20, 0, 0, 300, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1},
    {3, 28, 28, 200, 0, 0, 64, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    {2, 28, 28, 64, 0, 0, 260, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1},
    {2, 28, 28, 128, 0, 0, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 32},
    {4, 28, 28, 64, 0, 0, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 64},
    {3, 40, 31, 3, 0, 0, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    /* Pixels as rows of a matrix: many and few, apart and far, chunks of taps and of channels. */
    {3, 33, 38, 136, 0, 0, 130, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1},
    {5, 9, 11, 272, 0, 0, 70, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1},
    {1, 14, 14, 1024, 0, 0, 40, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    {2, 17, 16, 1200, 0, 0, 33, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    {1, 7, 7, 96, 0, 0, 1100, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    {3, 31, 33, 37, 0, 0, 300, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1},
    {2, 15, 16, 270, 0, 0, 600, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    {1, 41, 43, 140, 0, 0, 1024, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    {7, 31, 29, 70, 0, 0, 41, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    {2, 79, 41, 256, 0, 0, 34, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    {3, 14, 14, 640, 0, 0, 256, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1}, /* by seven products */
    {3, 28, 28, 256, 0, 0, 256, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1},
    /* By phases: chunks and blocks, slices, vectors and panels that are not full, tiles that are
     * not, each parity of the padding, rows cut into bands. */
    {33, 31, 29, 36, 0, 0, 40, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1},
    {60, 17, 18, 33, 0, 0, 64, 3, 3, 2, 2, 0, 2, 1, 0, 1, 1, 1},
    {2, 32, 33, 72, 0, 0, 300, 3, 3, 2, 2, 1, 0, 0, 1, 1, 1, 1},
    {2, 33, 700, 18, 0, 0, 48, 3, 3, 2, 2, 2, 1, 0, 1, 1, 1, 1},
    /* Groups: several groups of vectors, steps, vectors that are not full, more outputs. */
    {2, 30, 29, 96, 0, 0, 96, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 24},
    {2, 20, 17, 160, 0, 0, 160, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 20},
    {2, 15, 16, 144, 0, 0, 144, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 9},
    {2, 19, 21, 70, 0, 0, 70, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 70},
    {2, 13, 12, 36, 0, 0, 72, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 12},
    {2, 23, 22, 24, 0, 0, 24, 3, 3, 3, 3, 1, 0, 1, 2, 1, 1, 6},
    /* Groups by Winograd's method: bundles, one group at a time, sets of groups by slices and by
     * superblocks; small images, of which many tiles take little time. */
    {225, 7, 7, 80, 0, 0, 80, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 5},
    {1, 8, 7, 300, 0, 0, 132, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 3},
    {1, 15, 13, 200, 0, 0, 70, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {1, 14, 14, 96, 0, 0, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {4, 7, 7, 40, 0, 0, 48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {2, 10, 5, 70, 0, 0, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {1, 9, 13, 45, 0, 0, 100, 3, 3, 1, 1, 0, 2, 1, 1, 1, 1, 1},
    {2, 30, 29, 51, 0, 0, 54, 3, 3, 1, 1, 1, 0, 1, 2, 1, 1, 3},
    {20, 5, 5, 736, 0, 0, 736, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 46},
    {9, 5, 5, 4096, 0, 0, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4},
    /* 5x5: blocks and chunks, slices and superblocks, few tiles, many channels, groups. */
    {8, 30, 31, 17, 0, 0, 33, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 1},
    {4, 33, 30, 64, 0, 0, 40, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 1},
    {1, 15, 14, 160, 0, 0, 200, 5, 5, 1, 1, 2, 1, 2, 3, 1, 1, 1},
    {1, 7, 9, 96, 0, 0, 130, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 1},
    {98, 3, 2, 256, 0, 0, 344, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 1},
    {2, 21, 19, 96, 0, 0, 96, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 3},
};
enum { LARGE_SHAPES = sizeof large_shapes / sizeof *large_shapes };

static void test_large_shapes(void **state) {
    for (int i = 0; i < LARGE_SHAPES; i++) check_problem(*state, large_shapes[i], true);
}

/* The same bits with 1, 2 and 7 threads. */
static void test_threads(void **state) {
    resin_context *context = *state;
    for (int i = 0; i < LARGE_SHAPES; i++) {
        problem p = new_problem(large_shapes[i]);
        for (conv_pass pass = CONV_FORWARD; pass <= CONV_BACKWARD_WEIGHTS; pass++) {
            for (conv_method method = 0; method < CONV_METHOD_COUNT; method++) {
                if (!conv_method_fits(&p.shape, pass, method) || method == CONV_REFERENCE) continue;
                array *result = result_of(&p, pass);
                size_t size = (size_t)result->count * sizeof(float);
                float *first = malloc(size);
                assert_non_null(first);
                static const int counts[] = {1, 2, 7};
                for (int t = 0; t < 3; t++) {
                    assert_int_equal(resin_set_threads(context, counts[t]), RESIN_OK);
                    run_fast(context, &p, pass, method, &resin_kernels()->conv);
                    if (t == 0) memcpy(first, result->single, size);
                    assert_memory_equal(first, result->single, size);
                }
                free(first);
            }
        }
        free_problem(&p);
    }
    assert_int_equal(resin_set_threads(context, 1), RESIN_OK);
}

/* The public passes choose a method that fits, and dbias is the sum of dy. */
static void test_public_passes(void **state) {
    resin_context *context = *state;
    for (int i = 0; i < LARGE_SHAPES; i++) {
        problem p = new_problem(large_shapes[i]);
        const conv_shape *s = &p.shape;
        conv_epilogue epilogue = epilogue_of(&p);
        run_exact(context, &p, CONV_FORWARD);
        conv_method method = conv_choose(s, CONV_FORWARD, true);
        assert_true(conv_method_is_exact(method));
        assert_true(conv_method_fits(s, CONV_FORWARD, method));
        conv_extras extras = {.epilogue = p.finished ? &epilogue : NULL};
        assert_int_equal(conv_forward_with(context, s, method, image_of(&p), p.weights.single,
                                           p.bias.single, &extras, p.y.single), RESIN_OK);
        assert_true(largest_error(&p.y) <= 4 * (terms(s, CONV_FORWARD) + 1) * FLT_EPSILON / 2);
        method = conv_choose(s, CONV_BACKWARD_WEIGHTS, false);
        assert_true(conv_method_fits(s, CONV_BACKWARD_WEIGHTS, method));
        conv_backward_weights_f64(context, s, p.x.exact, p.dy.exact, p.dweights.exact,
                                  p.bias.exact);
        assert_int_equal(conv_backward_weights(context, s, method, image_of(&p), p.dy.single,
                                               p.dweights.single, p.bias.single), RESIN_OK);
        assert_true(largest_error(&p.bias) <=
                    4 * (terms(s, CONV_BACKWARD_WEIGHTS) + 1) * FLT_EPSILON / 2);
        free_problem(&p);
    }
}

/* A forward pass whose image comes about on the way, with the kernels of each instruction set that
 * can do that; with 1 and 3 threads the same bits. Returns how many can. */
static int check_sum(resin_context *context, conv_shape shape) {
    problem p = new_problem(shape);
    int64_t channels = p.shape.in_c;
    array shortcut = new_array(p.x.count), made = new_array(p.x.count);
    array scale = new_array(channels), shift = new_array(channels);
    conv_image image = {p.x.single, p.scale.single, p.shift.single,
                        {shortcut.single, scale.single, shift.single, made.single}};
    for (int64_t i = 0; i < p.x.count; i++) {
        int64_t c = i % channels;
        double add = shortcut.exact[i] * scale.exact[c] + shift.exact[c];
        double z = (double)p.x.single[i] * p.scale.single[c] + p.shift.single[c] + add;
        p.x.exact[i] = made.exact[i] = z < 0 ? 0 : z;
    }
    p.finished = false;
    run_exact(context, &p, CONV_FORWARD);
    size_t size = (size_t)p.y.count * sizeof(float);
    float *first = malloc(size);
    assert_non_null(first);
    int sets_done = 0;
    for (int set = 0; set < SETS; set++) {
        const resin_kernel_table *kernels = resin_kernels_of(sets[set]);
        if (!kernels) continue;
        conv_call call = {.kernels = &kernels->conv, .shape = p.shape, .pass = CONV_FORWARD,
                          .x = image, .weights = p.weights.single, .bias = p.bias.single,
                          .result = p.y.single};
        if (!conv_rows_reads_sum(&call)) continue;
        sets_done++;
        for (int threads = 1; threads <= 3; threads += 2) {
            for (int64_t i = 0; i < made.count; i++) made.single[i] = NAN;
            assert_int_equal(resin_set_threads(context, threads), RESIN_OK);
            assert_int_equal(conv_run(context, &call, CONV_DIRECT), RESIN_OK);
            if (threads == 1) memcpy(first, p.y.single, size);
            assert_memory_equal(first, p.y.single, size);
        }
        assert_true(largest_error(&made) <= 8 * FLT_EPSILON);
        /* Pixels lie below 4 here, and come with some roundings of their own. */
        assert_true(largest_error(&p.y) <=
                    4 * 4 * (terms(&p.shape, CONV_FORWARD) + 5) * FLT_EPSILON / 2);
    }
    assert_int_equal(resin_set_threads(context, 1), RESIN_OK);
    free(first);
    array *arrays[] = {&shortcut, &made, &scale, &shift};
    for (int i = 0; i < 4; i++) free_array(arrays[i]);
    free_problem(&p);
    return sets_done;
}

static void test_sum(void **state) {
    static const conv_shape also[] = {
        {5, 13, 11, 48, 0, 0, 17, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
        {1, 57, 31, 80, 0, 0, 70, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
        {3, 27, 29, 512, 0, 0, 64, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
        {3, 27, 29, 20, 0, 0, 40, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    };
    int done = 0;
    for (size_t i = 0; i < sizeof also / sizeof *also; i++) {
        assert_true(check_sum(*state, also[i]) > 0);
    }
    for (int i = 0; i < LARGE_SHAPES; i++) {
        if (large_shapes[i].kernel_h == 1) done += check_sum(*state, large_shapes[i]);
    }
    assert_true(done > 0);
}

/* Who is shown a result: copies it, counts the pixels of each piece, and sees whether they come in
 * order. */
enum { MOST_SHOWN = 1024 };
typedef struct shown_pixels {
    conv_watch watch;
    const float *result;
    float *copy; /* as large, or NULL */
    int64_t channels, pieces, first[MOST_SHOWN], count[MOST_SHOWN];
    bool in_order;
} shown_pixels;

static resin_status begin_shown(conv_watch *watch, float *result, int64_t channels,
                                int64_t pieces) {
    shown_pixels *shown = (shown_pixels *)watch;
    *shown = (shown_pixels){.watch = *watch, .result = result, .copy = shown->copy,
                            .channels = channels, .pieces = pieces, .in_order = true};
    return pieces <= MOST_SHOWN ? RESIN_OK : RESIN_ERROR_ARGUMENT;
}

static void show_pixels(const conv_watch *watch, int64_t piece, int64_t first, int64_t count,
                        int worker) {
    shown_pixels *shown = (shown_pixels *)watch;
    (void)worker;
    if (shown->count[piece] == 0) shown->first[piece] = first;
    else if (first != shown->first[piece] + shown->count[piece]) shown->in_order = false;
    shown->count[piece] += count;
    first *= shown->channels;
    memcpy(shown->copy + first, shown->result + first,
           (size_t)(count * shown->channels) * sizeof(float));
}

/* Whether each pixel was shown once, as it is now; or none. */
static bool all_shown(const shown_pixels *shown, const array *result) {
    int64_t seen = 0;
    for (int64_t i = 0; i < shown->pieces; i++) seen += shown->count[i] * shown->channels;
    return shown->pieces == 0 ||
           (shown->in_order && seen == result->count && shown->result == result->single &&
            memcmp(shown->copy, result->single, (size_t)result->count * sizeof(float)) == 0);
}

/* Forward passes that show their result: how many methods did. */
static int run_shown(resin_context *context, problem *p, shown_pixels *shown, int *grouped) {
    int showed = 0;
    for (conv_method method = 0; method < CONV_METHOD_COUNT; method++) {
        if (!conv_method_fits(&p->shape, CONV_FORWARD, method)) continue;
        const conv_call call = {.kernels = &resin_kernels()->conv, .shape = p->shape,
                                .pass = CONV_FORWARD, .x = image_of(p),
                                .weights = p->weights.single, .result = p->y.single,
                                .watch = &shown->watch};
        shown->pieces = 0;
        assert_int_equal(conv_run(context, &call, method), RESIN_OK);
        assert_true(all_shown(shown, &p->y));
        showed += shown->pieces > 0;
        *grouped += method == CONV_GROUPED && shown->pieces > 0;
    }
    return showed;
}

static void test_shown(void **state) {
    int showed[2] = {0, 0}, grouped = 0; /* without and with several taps */
    for (int i = 0; i < LARGE_SHAPES; i++) {
        problem p = new_problem(large_shapes[i]);
        shown_pixels shown = {.watch = {begin_shown, show_pixels, NULL}};
        shown.copy = malloc((size_t)(p.y.count + 1) * sizeof *shown.copy);
        assert_non_null(shown.copy);
        for (int threads = 1; threads <= 3; threads += 2) {
            assert_int_equal(resin_set_threads(*state, threads), RESIN_OK);
            showed[p.shape.kernel_h > 1] += run_shown(*state, &p, &shown, &grouped);
        }
        free(shown.copy);
        free_problem(&p);
    }
    assert_int_equal(resin_set_threads(*state, 1), RESIN_OK);
    assert_true(showed[0] > 0 && showed[1] > 0 && grouped > 0);
}

/* Whether a pass's errors are those of plain sums, and whether it multiplied by Strassen's method:
 * then plain sums, which are to be had, have other bits. */
static bool check_seven(resin_context *context, problem *p, const conv_call *call) {
    array *result = result_of(p, call->pass);
    size_t size = (size_t)result->count * sizeof(float);
    float *plain = malloc(size);
    assert_non_null(plain);
    for (int seven = 0; seven < 2; seven++) {
        assert_int_equal(resin_set_conv_method(context, seven ? "auto" : "direct"), RESIN_OK);
        for (int64_t i = 0; i < result->count; i++) result->single[i] = NAN;
        assert_int_equal(conv_run(context, call, CONV_DIRECT), RESIN_OK);
        assert_true(largest_error(result) <=
                    4 * (terms(&p->shape, call->pass) + 1) * FLT_EPSILON / 2);
        if (!seven) memcpy(plain, result->single, size);
    }
    bool other = memcmp(plain, result->single, size) != 0;
    free(plain);
    return other;
}

/* Blocks of pixels by Strassen's method: one chunk and several, pixels in place and gathered, a
 * block that is not full; and shapes that do not fit, with the kernels of each instruction set. */
static void test_seven_products(void **state) {
    static const conv_shape shapes[] = {
        {3, 14, 14, 320, 0, 0, 256, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
        {3, 28, 28, 256, 0, 0, 320, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1},
        {3, 14, 14, 1024, 0, 0, 256, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
        {3, 14, 14, 256, 0, 0, 768, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
        {1, 25, 25, 256, 0, 0, 256, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
        {3, 14, 14, 256, 0, 0, 240, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
        {3, 14, 14, 280, 0, 0, 256, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1},
    };
    enum { FIT = 4 };
    for (int i = 0; i < (int)(sizeof shapes / sizeof *shapes); i++) {
        problem p = new_problem(shapes[i]);
        p.finished = false;
        for (int64_t c = 0; c < p.bias.count; c++) p.bias.exact[c] = 0;
        run_exact(*state, &p, CONV_FORWARD);
        run_exact(*state, &p, CONV_BACKWARD_DATA);
        shown_pixels shown = {.watch = {begin_shown, show_pixels, NULL}};
        shown.copy = malloc((size_t)p.y.count * sizeof *shown.copy);
        assert_non_null(shown.copy);
        for (int set = 0; set < SETS; set++) {
            const resin_kernel_table *kernels = resin_kernels_of(sets[set]);
            if (!kernels) continue;
            conv_call call = {.kernels = &kernels->conv, .shape = p.shape, .pass = CONV_FORWARD,
                              .x = image_of(&p), .weights = p.weights.single,
                              .result = p.y.single, .watch = &shown.watch};
            shown.pieces = 0;
            assert_int_equal(check_seven(*state, &p, &call), i < FIT);
            assert_true(all_shown(&shown, &p.y));
            call = (conv_call){.kernels = &kernels->conv, .shape = p.shape,
                               .pass = CONV_BACKWARD_DATA, .dy = p.dy.single,
                               .dy_step = p.shape.out_c, .weights = p.weights.single,
                               .result = p.dx.single};
            assert_int_equal(check_seven(*state, &p, &call), i < FIT);
        }
        free(shown.copy);
        free_problem(&p);
    }
}

/* With 1 and 3 threads: the same bits, and each pixel shown once, if any are. */
static void run_joint(resin_context *context, problem *p, const conv_gradients *g,
                      shown_pixels *shown) {
    size_t size[] = {(size_t)p->dx.count * sizeof(float), (size_t)p->dweights.count * sizeof(float)};
    float *begun = malloc(size[0] + 1), *dx = malloc(size[0] + 1), *dweights = malloc(size[1] + 1);
    assert_non_null(begun);
    assert_non_null(dx);
    assert_non_null(dweights);
    memcpy(begun, p->dx.single, size[0]);
    for (int threads = 1; threads <= 3; threads += 2) {
        memcpy(p->dx.single, begun, size[0]);
        assert_int_equal(resin_set_threads(context, threads), RESIN_OK);
        assert_int_equal(conv_backward(context, &p->shape, g, false), RESIN_OK);
        assert_true(all_shown(shown, &p->dx));
        if (threads == 1) {
            memcpy(dx, p->dx.single, size[0]);
            memcpy(dweights, p->dweights.single, size[1]);
        }
        assert_memory_equal(dx, p->dx.single, size[0]);
        assert_memory_equal(dweights, p->dweights.single, size[1]);
    }
    assert_int_equal(resin_set_threads(context, 1), RESIN_OK);
    free(begun);
    free(dx);
    free(dweights);
}

/* Both backward passes together, through a batch normalization, dx added to what is there: against
 * dy made before by plain loops. */
static void check_joint(resin_context *context, conv_shape shape, bool gated, bool add) {
    problem p = new_problem(shape);
    array z = new_array(p.y.count);
    array factors[6];
    for (int i = 0; i < 6; i++) factors[i] = new_array(p.shape.out_c);
    conv_norm norm = {.x = z.single, .mean = factors[0].single, .a = factors[1].single,
                      .b = factors[2].single, .c = factors[3].single};
    if (gated) norm.scale = factors[4].single, norm.shift = factors[5].single;
    bool through = conv_reads_norm(&p.shape, true, true, false);
    for (int64_t i = 0; through && i < z.count; i++) {
        int64_t c = i % p.shape.out_c;
        float scale = gated ? norm.scale[c] : 0, shift = gated ? norm.shift[c] : 1;
        double g = fmaf(z.single[i], scale, shift) <= 0 ? 0 : p.dy.exact[i];
        p.dy.exact[i] = factors[1].exact[c] * g +
                        factors[2].exact[c] * (z.exact[i] - factors[0].exact[c]) +
                        factors[3].exact[c];
    }
    double *begun = malloc((size_t)(p.dx.count + 1) * sizeof *begun);
    assert_non_null(begun);
    for (int64_t i = 0; i < p.dx.count; i++) begun[i] = add ? p.dx.single[i] : 0;
    run_exact(context, &p, CONV_BACKWARD_DATA);
    run_exact(context, &p, CONV_BACKWARD_WEIGHTS);
    for (int64_t i = 0; i < p.dx.count; i++) p.dx.exact[i] += begun[i];
    free(begun);
    shown_pixels shown = {.watch = {begin_shown, show_pixels, NULL}};
    shown.copy = malloc((size_t)(p.dx.count + 1) * sizeof *shown.copy);
    assert_non_null(shown.copy);
    conv_gradients g = {.x = image_of(&p), .weights = p.weights.single, .dy = p.dy.single,
                        .norm = through ? &norm : NULL, .dx = p.dx.single,
                        .dweights = p.dweights.single, .add_dx = add, .watch = &shown.watch};
    if (conv_adds(&p.shape, false)) {
        run_joint(context, &p, &g, &shown);
        /* |dy| is below 4 here, and made with some roundings of its own. */
        double factor = 4 * 4 * WINOGRAD_FACTOR * FLT_EPSILON / 2;
        assert_true(largest_error(&p.dx) <= factor * (terms(&p.shape, CONV_BACKWARD_DATA) + 1));
        assert_true(largest_error(&p.dweights) <=
                    factor * (terms(&p.shape, CONV_BACKWARD_WEIGHTS) + 1));
    }
    free(shown.copy);
    for (int i = 0; i < 6; i++) free_array(&factors[i]);
    free_array(&z);
    free_problem(&p);
}

static void test_joint_backward(void **state) {
    int joined[2] = {0, 0}; /* without and with groups */
    int rows = 0, sweeps = 0; /* with a gradient that is made once, and read once */
    int strided = 0;
    for (int i = 0; i < LARGE_SHAPES; i++) {
        problem p = new_problem(large_shapes[i]);
        joined[p.shape.groups > 1] +=
            conv_winograd_joins(&p.shape, &resin_kernels()->conv) &&
            conv_choose(&p.shape, CONV_BACKWARD_DATA, false) == CONV_WINOGRAD &&
            conv_choose(&p.shape, CONV_BACKWARD_WEIGHTS, false) == CONV_WINOGRAD;
        strided += conv_choose(&p.shape, CONV_BACKWARD_DATA, false) == CONV_STRIDED &&
                   conv_choose(&p.shape, CONV_BACKWARD_WEIGHTS, false) == CONV_STRIDED;
        conv_norm norm = {.x = p.y.single};
        conv_call call = {.shape = p.shape, .norm = &norm};
        rows += conv_rows_joins(&call);
        sweeps += conv_rows_sweeps(&call);
        free_problem(&p);
        for (int kind = 0; kind < 4; kind++)
            check_joint(*state, large_shapes[i], kind & 1, kind & 2);
    }
    assert_true(joined[0] > 0 && joined[1] > 0 && rows > sweeps && sweeps > 0 && strided > 0);
}

/* A batch of nothing: dweights are zeros, and nothing is divided by it. */
static void test_empty_batch(void **state) {
    check_problem(*state, (conv_shape){0, 9, 9, 4, 0, 0, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
                  false);
    check_problem(*state, (conv_shape){0, 9, 9, 4, 0, 0, 8, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 2},
                  false);
}

static void test_method_that_does_not_fit(void **state) {
    resin_context *context = *state;
    problem p = new_problem((conv_shape){1, 9, 9, 4, 0, 0, 4, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1});
    assert_int_equal(conv_forward(context, &p.shape, CONV_WINOGRAD, image_of(&p), p.weights.single,
                                  NULL, p.y.single), RESIN_ERROR_ARGUMENT);
    free_problem(&p);
}

/* One product with each set of kernels and several numbers of threads. */
static void check_product(resin_context *context, product_call call) {
    int64_t a_rows = call.transpose_a ? call.k : call.m;
    int64_t a_columns = call.transpose_a ? call.m : call.k;
    int64_t b_rows = call.transpose_b ? call.n : call.k;
    int64_t b_columns = call.transpose_b ? call.k : call.n;
    call.lda = a_columns + random_integer(0, 3);
    call.ldb = b_columns + random_integer(0, 3);
    call.ldc = call.n + random_integer(0, 3);
    call.step_a = a_rows * call.lda + random_integer(0, 5);
    call.step_b = b_rows * call.ldb;
    call.step_c = call.m * call.ldc;
    array a = new_array(call.batch * call.step_a), b = new_array(call.batch * call.step_b);
    array c = new_array(call.batch * call.step_c);
    float *before = malloc((size_t)(c.count + 1) * sizeof(float));
    float *first = malloc((size_t)(c.count + 1) * sizeof(float));
    assert_non_null(before);
    assert_non_null(first);
    memcpy(before, c.single, (size_t)c.count * sizeof(float));
    for (int64_t i = 0; i < call.batch; i++) {
        for (int64_t row = 0; row < call.m; row++) {
            for (int64_t column = 0; column < call.n; column++) {
                double *sum = c.exact + i * call.step_c + row * call.ldc + column;
                if (!call.accumulate) *sum = 0;
                for (int64_t k = 0; k < call.k; k++) {
                    double left = a.exact[i * call.step_a +
                                          (call.transpose_a ? k * call.lda + row
                                                            : row * call.lda + k)];
                    double right = b.exact[i * call.step_b +
                                           (call.transpose_b ? column * call.ldb + k
                                                             : k * call.ldb + column)];
                    *sum += left * right;
                }
            }
        }
    }
    call.a = a.single, call.b = b.single, call.c = c.single;
    for (int set = 0; set < SETS; set++) {
        const resin_kernel_table *kernels = resin_kernels_of(sets[set]);
        if (!kernels) continue;
        call.kernels = &kernels->conv;
        for (int threads = 1; threads <= (kernels == resin_kernels() ? 3 : 1); threads += 2) {
            memcpy(c.single, before, (size_t)c.count * sizeof(float));
            assert_int_equal(resin_set_threads(context, threads), RESIN_OK);
            assert_int_equal(product_run(context, &call), RESIN_OK);
            if (threads == 1) memcpy(first, c.single, (size_t)c.count * sizeof(float));
            assert_memory_equal(first, c.single, (size_t)c.count * sizeof(float));
        }
        if (largest_error(&c) > 4 * (double)(call.k + 2) * FLT_EPSILON / 2) {
            fail_msg("product %s %d x %d x %d, transposed %d %d: error %g", sets[set], (int)call.m,
                     (int)call.n, (int)call.k, call.transpose_a, call.transpose_b,
                     largest_error(&c));
        }
    }
    assert_int_equal(resin_set_threads(context, 1), RESIN_OK);
    free(before);
    free(first);
    free_array(&a);
    free_array(&b);
    free_array(&c);
}

static void test_product(void **state) {
    static const int64_t sizes[][3] = {{1, 1, 1},     {3, 5, 7},     {14, 32, 9},   {15, 33, 64},
                                       {100, 16, 27}, {130, 70, 330}, {1, 1000, 50},
                                       {300, 200, 700},
                                       {40, 50, 9000}, {500, 3, 20},  {13, 64, 2},   {5, 6, 0},
                                       {4, 300, 70},  {3, 1100, 4200}, {250, 290, 800},
                                       {1, 1003, 130}, {4, 200, 517}, {7, 517, 205}, {8, 70, 2000},
                                       {2000, 101, 4}, {1100, 4096, 1}, {900, 256, 8}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int bits = 0; bits < 16; bits++) {
            check_product(*state, (product_call){.batch = bits & 8 ? 3 : 1, .transpose_a = bits & 1,
                                                 .transpose_b = bits & 2, .accumulate = bits & 4,
                                                 .m = sizes[i][0], .n = sizes[i][1],
                                                 .k = sizes[i][2]});
        }
    }
}

/* Many small matrices, several to a piece. */
static void test_product_batch(void **state) {
    for (int bits = 0; bits < 8; bits++) {
        check_product(*state, (product_call){.batch = 700, .transpose_a = bits & 1,
                                             .transpose_b = bits & 2, .accumulate = bits & 4,
                                             .m = 5, .n = 19, .k = 7});
    }
}

static int set_up(void **state) {
    resin_context *context = resin_context_new();
    if (!context || resin_set_threads(context, 1) != RESIN_OK) return 1;
    *state = context;
    return 0;
}

static int tear_down(void **state) {
    for (int method = 0; method < CONV_METHOD_COUNT; method++) {
        print_message("%s: largest error as a share of what is allowed: %.2f %.2f %.2f\n",
                      conv_method_name(method), worst_share[method][0], worst_share[method][1],
                      worst_share[method][2]);
    }
    resin_context_release(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_square_shapes),  cmocka_unit_test(test_any_shapes),
        cmocka_unit_test(test_common_shapes),  cmocka_unit_test(test_first_layers),
        cmocka_unit_test(test_strided_shapes), cmocka_unit_test(test_groups),
        cmocka_unit_test(test_large_shapes),   cmocka_unit_test(test_threads),
        cmocka_unit_test(test_public_passes),  cmocka_unit_test(test_shown),
        cmocka_unit_test(test_sum),            cmocka_unit_test(test_seven_products),
        cmocka_unit_test(test_joint_backward),
        cmocka_unit_test(test_empty_batch),    cmocka_unit_test(test_product),
        cmocka_unit_test(test_product_batch),
        cmocka_unit_test(test_method_that_does_not_fit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
