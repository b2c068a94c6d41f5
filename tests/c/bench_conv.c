/* bench_conv.c: for developers: effective GFLOP/s of the convolution by shape, pass and method.
 *   bench_conv [part of a shape's name [method [threads [step]]]]     e.g. bench_conv resnet18
 * Without a method (or with "chosen"), the one that is chosen. With one thread, time is the
 * processor's, so that other programs disturb it less. The best of several runs counts. With
 * "step", as in a step of training: nothing is left in the caches, x is normalized on the way, dy
 * comes through a batch norm and dx is added, where the method does that; with "cold" only the
 * first. */
#include "core/kernels/kernels.h"
#include "core/ops/conv_call.h"
#include "core/ops/product.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct bench_shape {
    const char *name;
    int64_t batch, size, in_c, out_c, kernel, stride, groups;
} bench_shape;

static const bench_shape shapes[] = {
    {"small-16", 4, 32, 16, 16, 3, 1, 1},
    {"resnet20-stem", 128, 32, 3, 16, 3, 1, 1},    {"resnet20-16", 128, 32, 16, 16, 3, 1, 1},
    {"resnet20-down32", 128, 32, 16, 32, 3, 2, 1}, {"resnet20-32", 128, 16, 32, 32, 3, 1, 1},
    {"resnet20-down64", 128, 16, 32, 64, 3, 2, 1}, {"resnet20-64", 128, 8, 64, 64, 3, 1, 1},
    {"cifar14-down128", 64, 32, 64, 128, 3, 2, 1},  {"cifar14-down256", 64, 16, 128, 256, 3, 2, 1},
    {"resnet18-stem", 16, 224, 3, 64, 7, 2, 1},    {"resnet18-64", 16, 56, 64, 64, 3, 1, 1},
    {"resnet18-down128", 16, 56, 64, 128, 3, 2, 1}, {"resnet18-short128", 16, 56, 64, 128, 1, 2, 1},
    {"resnet18-128", 16, 28, 128, 128, 3, 1, 1},   {"resnet18-down256", 16, 28, 128, 256, 3, 2, 1},
    {"resnet18-256", 16, 14, 256, 256, 3, 1, 1},   {"resnet18-down512", 16, 14, 256, 512, 3, 2, 1},
    {"resnet18-512", 16, 7, 512, 512, 3, 1, 1},    {"one-64", 1, 56, 64, 64, 3, 1, 1},
    {"one-128", 1, 28, 128, 128, 3, 1, 1},         {"one-256", 1, 14, 256, 256, 3, 1, 1},
    {"one-512", 1, 7, 512, 512, 3, 1, 1},
    {"tutorial-128", 2, 56, 128, 128, 3, 1, 1},    {"tutorial-256", 2, 56, 256, 256, 3, 1, 1},
    {"tutorial-512", 2, 56, 512, 512, 3, 1, 1},
    {"resnet50-64-64", 8, 56, 64, 64, 1, 1, 1},    {"resnet50-64-256", 8, 56, 64, 256, 1, 1, 1},
    {"resnet50-256-64", 8, 56, 256, 64, 1, 1, 1},  {"resnet50-256-128", 8, 56, 256, 128, 1, 1, 1},
    {"resnet50-3x3-128", 8, 56, 128, 128, 3, 2, 1}, {"resnet50-short512", 8, 56, 256, 512, 1, 2, 1},
    {"resnet50-128-512", 8, 28, 128, 512, 1, 1, 1}, {"resnet50-512-128", 8, 28, 512, 128, 1, 1, 1},
    {"resnet50-512-256", 8, 28, 512, 256, 1, 1, 1}, {"resnet50-3x3-256", 8, 28, 256, 256, 3, 2, 1},
    {"resnet50-short1024", 8, 28, 512, 1024, 1, 2, 1},
    {"resnet50-256-1024", 8, 14, 256, 1024, 1, 1, 1},
    {"resnet50-1024-256", 8, 14, 1024, 256, 1, 1, 1},
    {"resnet50-1024-512", 8, 14, 1024, 512, 1, 1, 1},
    {"resnet50-3x3-512", 8, 14, 512, 512, 3, 2, 1},
    {"resnet50-short2048", 8, 14, 1024, 2048, 1, 2, 1},
    {"resnet50-512-2048", 8, 7, 512, 2048, 1, 1, 1}, {"resnet50-2048-512", 8, 7, 2048, 512, 1, 1, 1},
    {"resnext50-128-256", 8, 56, 128, 256, 1, 1, 1}, {"resnext50-512-512", 8, 28, 512, 512, 1, 1, 1},
    {"resnext50-1024-1024", 8, 14, 1024, 1024, 1, 1, 1},
    {"resnext50-2048-2048", 8, 7, 2048, 2048, 1, 1, 1},
    {"one-256-64", 1, 56, 256, 64, 1, 1, 1},       {"one-512-128", 1, 28, 512, 128, 1, 1, 1},
    {"one-256-1024", 1, 14, 256, 1024, 1, 1, 1},   {"one-1024-256", 1, 14, 1024, 256, 1, 1, 1},
    {"one-3x3-128", 1, 56, 128, 128, 3, 2, 1},     {"one-3x3-512", 1, 14, 512, 512, 3, 2, 1},
    {"one-short2048", 1, 14, 1024, 2048, 1, 2, 1}, {"one-512-2048", 1, 7, 512, 2048, 1, 1, 1},
    {"one-2048-512", 1, 7, 2048, 512, 1, 1, 1},
    {"vgg-first", 4, 224, 3, 64, 3, 1, 1},         {"vgg-second", 4, 224, 64, 64, 3, 1, 1},
    {"vgg-128", 4, 112, 128, 128, 3, 1, 1},        {"vgg-256", 4, 56, 256, 256, 3, 1, 1},
    {"vgg-512", 4, 28, 512, 512, 3, 1, 1},         {"vgg-last", 4, 14, 512, 512, 3, 1, 1},
    {"resnext-4", 8, 56, 128, 128, 3, 1, 32},
    {"resnext-8", 8, 28, 256, 256, 3, 1, 32},      {"resnext-8-down", 8, 56, 256, 256, 3, 2, 32},
    {"resnext-16", 8, 14, 512, 512, 3, 1, 32},     {"resnext-32", 8, 7, 1024, 1024, 3, 1, 32},
    {"resnext-16-down", 8, 28, 512, 512, 3, 2, 32}, {"resnext-32-down", 8, 14, 1024, 1024, 3, 2, 32},
    {"resnext29-64", 8, 32, 512, 512, 3, 1, 8},    {"resnext29-128", 8, 16, 1024, 1024, 3, 1, 8},
    {"resnext29-256", 8, 8, 2048, 2048, 3, 1, 8},
    {"depthwise", 8, 56, 128, 128, 3, 1, 128},     {"depthwise-down", 8, 56, 128, 128, 3, 2, 128},
    {"depthwise-5", 8, 28, 256, 256, 5, 1, 256},   {"depthwise-14", 8, 14, 512, 512, 3, 1, 512},
};

static clockid_t used_clock = CLOCK_MONOTONIC;
static bool cold, normalized;

static double seconds(void) {
    struct timespec now;
    clock_gettime(used_clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static float *new_floats(int64_t count) {
    /* As tensors are, a line of the cache at a time. */
    float *floats = aligned_alloc(64, ((size_t)count * sizeof(float) + 63) / 64 * 64);
    if (!floats) exit(1);
    for (int64_t i = 0; i < count; i++) floats[i] = (float)(i * 2654435761u % 1000) / 1000 - 0.5f;
    return floats;
}

/* Reads and writes more than the caches hold. */
static void forget(void) {
    enum { FLOATS = 24 << 20 };
    static float *other;
    static volatile float sum;
    if (!other) other = new_floats(FLOATS);
    for (int64_t i = 0; i < FLOATS; i += 16) sum += other[i];
}

/* The best seconds of some runs within about a second. */
static double best_seconds(resin_context *context, const conv_call *call, conv_method method) {
    double best = 1e9, start = seconds();
    for (int run = 0; run < 5 || (run < 60 && seconds() - start < 0.7); run++) {
        if (cold) forget();
        double before = seconds();
        if (conv_run(context, call, method) != RESIN_OK) return 0;
        double taken = seconds() - before;
        if (taken < best) best = taken;
    }
    return best;
}

static void measure(resin_context *context, const bench_shape *b, const char *method_name) {
    int64_t pad = b->kernel / 2, out = (b->size + 2 * pad - b->kernel) / b->stride + 1;
    conv_shape s = {b->batch, b->size, b->size, b->in_c, out, out, b->out_c, b->kernel, b->kernel,
                    b->stride, b->stride, pad, pad, pad, pad, 1, 1, b->groups};
    int64_t pixels_in = b->batch * b->size * b->size, pixels_out = b->batch * out * out;
    int64_t weights = b->kernel * b->kernel * b->in_c / b->groups * b->out_c;
    float *x = new_floats(pixels_in * b->in_c), *dx = new_floats(pixels_in * b->in_c);
    float *y = new_floats(pixels_out * b->out_c), *dy = new_floats(pixels_out * b->out_c);
    float *w = new_floats(weights), *dw = new_floats(weights);
    float *z = normalized ? new_floats(pixels_out * b->out_c) : NULL;
    float *factors = new_floats(6 * (b->in_c + b->out_c));
    float *results[] = {y, dx, dw};
    printf("%-18s", b->name);
    for (conv_pass pass = CONV_FORWARD; pass <= CONV_BACKWARD_WEIGHTS; pass++) {
        conv_method method = conv_choose(&s, pass, false);
        for (int i = 0; method_name && i < CONV_METHOD_COUNT; i++) {
            if (strcmp(conv_method_name(i), method_name) == 0) method = i;
        }
        if (!conv_method_fits(&s, pass, method)) continue;
        conv_call call = {.kernels = &resin_kernels()->conv, .shape = s, .pass = pass,
                          .x = {.pixels = x}, .dy = dy, .weights = w, .result = results[pass]};
        int64_t c = b->out_c;
        const conv_norm norm = {z, factors, factors + c, factors + 2 * c, factors + 3 * c,
                                factors + 4 * c, factors + 5 * c};
        if (normalized && conv_method_normalizes(method)) {
            call.x = (conv_image){x, factors, factors + b->in_c};
        }
        if (normalized && conv_method_reads_norm(method)) call.norm = &norm;
        call.add = normalized && pass == CONV_BACKWARD_DATA && conv_method_adds(method);
        double taken = best_seconds(context, &call, method);
        printf("  %-8s %7.3f ms %6.0f", conv_method_name(method), 1e3 * taken,
               2e-9 * (double)pixels_out * (double)weights / taken);
    }
    printf("\n");
    fflush(stdout);
    free(x), free(dx), free(y), free(dy), free(w), free(dw), free(z), free(factors);
}

static void measure_product(resin_context *context, int64_t m, int64_t n, int64_t k) {
    float *a = new_floats(m * k), *b = new_floats(k * n), *c = new_floats(m * n);
    printf("product %7d x %5d x %5d", (int)m, (int)n, (int)k);
    for (int bits = 0; bits < 3; bits++) {
        double best = 1e9, start = seconds();
        for (int run = 0; run < 3 || (run < 60 && seconds() - start < 0.7); run++) {
            double before = seconds();
            if (product_f32(context, bits == 1, bits == 2, m, n, k, a, bits == 1 ? m : k, b,
                            bits == 2 ? k : n, c, n, false) != RESIN_OK) exit(1);
            if (seconds() - before < best) best = seconds() - before;
        }
        printf("  %s %6.0f", bits == 0 ? "a b" : bits == 1 ? "aT b" : "a bT",
               2e-9 * (double)m * (double)n * (double)k / best);
    }
    printf("\n");
    free(a), free(b), free(c);
}

int main(int arguments, char **argument) {
    resin_context *context = resin_context_new();
    if (!context) return 1;
    if (arguments > 3) {
        if (resin_set_threads(context, atoi(argument[3])) != RESIN_OK) return 1;
        if (resin_threads(context) == 1) used_clock = CLOCK_PROCESS_CPUTIME_ID;
    }
    normalized = arguments > 4 && strcmp(argument[4], "step") == 0;
    cold = normalized || (arguments > 4 && strcmp(argument[4], "cold") == 0);
    printf("kernels %s; effective GFLOP/s of forward, backward-data, backward-weights\n",
           resin_kernels()->isa);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (arguments < 2 || strstr(shapes[i].name, argument[1])) {
            measure(context, &shapes[i], arguments > 2 ? argument[2] : NULL);
        }
    }
    if (arguments < 2 || strcmp(argument[1], "") == 0 || strcmp(argument[1], "product") == 0) {
        measure_product(context, 2048, 2048, 2048);
        measure_product(context, 131072, 16, 144);
        measure_product(context, 1000, 1000, 1000);
        measure_product(context, 128, 10, 64);
        measure_product(context, 16, 1000, 512);
        measure_product(context, 4, 4096, 25088);
        measure_product(context, 512, 1000, 16);
        measure_product(context, 64, 64, 50176);
    }
    resin_context_release(context);
    return 0;
}
