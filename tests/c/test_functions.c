/* test_functions.c: the vectorized float32 functions of every instruction set against the float64
 * ones, which are libm's: values and gradients over a sample of all floats (denormals, infinities
 * and NaN among them), rows of every length, and strided rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs those above. */
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/kernels/kernels.h"

/* Every so manieth float is tried; 1 tries all of them (minutes for each function). */
#ifndef TEST_EVERY
#define TEST_EVERY 10007
#endif

enum { BLOCK = 1 << 12 };
static const char *const sets[] = {"v4", "v3", "v2", "generic"};

typedef struct function_case {
    const char *name;
    double p, q;
    /* Bounds in units in the last place of the greater of the exact result and a scale: sums and
     * products of numbers that nearly cancel are exact only to the scale of those numbers. */
    double value_bound, value_scale, gradient_bound, gradient_scale;
} function_case;

static const function_case cases[] = {
    {"relu", 0, 0, 0, 0, 0, 0},
    {"leaky_relu", 0.25, 0, 0.5, 0, 0, 0},
    {"relu6", 0, 0, 0, 0, 0, 0},
    {"elu", 1, 0, 1, 0, 1, 0},
    {"selu", 0, 0, 2, 0, 2, 0},
    {"gelu", 0, 0, 5, 1e-35, 2, 1},
    {"gelu_tanh", 0, 0, 2, 1, 3, 1},
    {"silu", 0, 0, 3.5, 1e-35, 3, 1},
    {"sigmoid", 0, 0, 2.5, 0, 1, 1},
    {"tanh", 0, 0, 2, 0, 1.5, 1},
    {"softplus", 1, 20, 2.5, 0, 2.5, 0},
    {"hard_sigmoid", 0, 0, 2, 0, 1, 0},
    {"hard_swish", 0, 0, 3, 0, 3, 1},
    {"exp", 0, 0, 2, 0, 2, 0},
    {"log", 0, 0, 2, 0, 1, 0},
    {"sqrt", 0, 0, 0.5, 0, 2, 0},
    {"rsqrt", 0, 0, 1.5, 0, 6, 0},
    {"reciprocal", 0, 0, 0.5, 0, 3, 0},
    {"floor", 0, 0, 0, 0, 0, 0},
    {"ceil", 0, 0, 0, 0, 0, 0},
    {"round", 0, 0, 0, 0, 0, 0},
    {"neg", 0, 0, 0, 0, 0, 0},
    {"sign", 0, 0, 0, 0, 0, 0},
    {"abs", 0, 0, 0, 0, 0, 0},
    {"square", 0, 0, 0.5, 0, 0.5, 0},
    {"clamp", -1.5, 2.5, 0, 0, 0, 0},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static const unary_kernel *find(const pointwise_kernels *kernels, const char *name) {
    for (const unary_kernel *k = kernels->activations; k->name; k++)
        if (strcmp(k->name, name) == 0) return k;
    for (const unary_kernel *k = kernels->elementary; k->name; k++)
        if (strcmp(k->name, name) == 0) return k;
    fail_msg("there is no function %s", name);
    return NULL;
}

/* How far `y` is from `exact`, in units in the last place of a float as large as the greater of
 * |exact| and `scale`. */
static double distance(float y, double exact, double scale) {
    const float nearest = (float)exact;
    if (isnan(exact)) return isnan(y) ? 0 : (double)INFINITY;
    if (isinf(nearest) || isinf(y)) {
        /* The last float before infinity and infinity are neighbours. */
        if (y == nearest) return 0;
        return fabs(exact) > 0x1.fffffcp127 && fabs((double)y) > 0x1.fffffcp127 ? 1
                                                                               : (double)INFINITY;
    }
    const double size = fabs(exact) > scale ? fabs(exact) : scale;
    const int exponent = size > 0x1p-126 ? ilogb(size) : -126;
    return fabs((double)y - exact) / ldexp(1, exponent - 23);
}

typedef struct block {
    float x[BLOCK], y[BLOCK], dy[BLOCK], dx[BLOCK];
    double exact_x[BLOCK], exact_y[BLOCK], exact_dy[BLOCK], exact_dx[BLOCK];
} block;

typedef struct worst {
    double error;
    float x, y;
    double exact;
} worst;

static void keep_worst(worst *w, double error, float x, float y, double exact) {
    if (error > w->error) *w = (worst){error, x, y, exact};
}

static void measure(const function_case *c, const unary_kernel *kernel, block *b, int64_t n,
                    worst *value, worst *gradient) {
    for (int64_t i = 0; i < n; i++) {
        b->exact_x[i] = (double)b->x[i];
        b->exact_dy[i] = b->dy[i] = 1;
    }
    kernel->forward[RESIN_FLOAT32](n, b->x, 1, b->y, 1, c->p, c->q);
    kernel->forward[RESIN_FLOAT64](n, b->exact_x, 1, b->exact_y, 1, c->p, c->q);
    kernel->gradient[RESIN_FLOAT32](n, b->x, b->y, b->dy, b->dx, c->p, c->q);
    kernel->gradient[RESIN_FLOAT64](n, b->exact_x, b->exact_y, b->exact_dy, b->exact_dx, c->p,
                                    c->q);
    for (int64_t i = 0; i < n; i++) {
        keep_worst(value, distance(b->y[i], b->exact_y[i], c->value_scale), b->x[i], b->y[i],
                   b->exact_y[i]);
        keep_worst(gradient, distance(b->dx[i], b->exact_dx[i], c->gradient_scale), b->x[i],
                   b->dx[i], b->exact_dx[i]);
    }
}

static void measure_all_floats(const function_case *c, const unary_kernel *kernel, worst *value,
                               worst *gradient) {
    block *b = malloc(sizeof *b);
    assert_non_null(b);
    int64_t n = 0;
    for (uint64_t bits = 0; bits < 1ull << 32; bits += TEST_EVERY) {
        const uint32_t word = (uint32_t)bits;
        memcpy(&b->x[n++], &word, sizeof word);
        if (n < BLOCK) continue;
        measure(c, kernel, b, n, value, gradient);
        n = 0;
    }
    const float special[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 400, -400, 0x1p-149f, -0x1p-149f,
                             0x1p-126f, 0x1.fffffep127f, -0x1.fffffep127f, 88.72284f, -103.9721f,
                             -87.33655f, 1, -1, 3, -3, 6, 20};
    for (size_t i = 0; i < sizeof special / sizeof special[0] && n < BLOCK; i++)
        b->x[n++] = special[i];
    measure(c, kernel, b, n, value, gradient);
    free(b);
}

static void test_accuracy(void **state) {
    (void)state;
    for (size_t s = 0; s < sizeof sets / sizeof sets[0]; s++) {
        const resin_kernel_table *table = resin_kernels_of(sets[s]);
        for (int i = 0; table && i < CASES; i++) {
            worst value = {0}, gradient = {0};
            measure_all_floats(&cases[i], find(&table->pointwise, cases[i].name), &value,
                               &gradient);
            if (getenv("RESIN_TEST_REPORT"))
                print_message("%-8s %-12s %8.3g at %-14.9g %8.3g at %.9g\n", sets[s],
                              cases[i].name, value.error, (double)value.x, gradient.error,
                              (double)gradient.x);
            if (value.error > cases[i].value_bound)
                fail_msg("%s: %s(%.9g) = %.9g, exactly %.9g: %g units in the last place", sets[s],
                         cases[i].name, (double)value.x, (double)value.y, value.exact,
                         value.error);
            if (gradient.error > cases[i].gradient_bound)
                fail_msg("%s: %s'(%.9g) = %.9g, exactly %.9g: %g units in the last place", sets[s],
                         cases[i].name, (double)gradient.x, (double)gradient.y, gradient.exact,
                         gradient.error);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_accuracy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
