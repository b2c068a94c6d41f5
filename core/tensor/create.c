/* create.c: tensors with given or random values. */
#include "core/base/random.h"
#include "core/base/threads.h"
#include "core/tensor/tensor.h"

#include <math.h>

/* ---- Given values --------------------------------------------------------------------------- */

resin_status resin_full(resin_context *context, resin_dtype dtype, int rank, const int64_t *shape,
                        double value, resin_tensor **out) {
    RESIN_TRY(tensor_new(context, dtype, rank, shape, out));
    resin_status status = resin_fill(*out, value);
    if (status != RESIN_OK) {
        resin_release(*out);
        *out = NULL;
    }
    return status;
}

resin_status resin_arange(resin_context *context, resin_dtype dtype, double first, double step,
                          int64_t count, resin_tensor **out) {
    RESIN_TRY(tensor_new(context, dtype, 1, &count, out));
    void *data = tensor_data(*out);
    for (int64_t i = 0; i < count; i++) {
        double value = first + (double)i * step;
        switch (dtype) {
        case RESIN_FLOAT32: ((float *)data)[i] = (float)value; break;
        case RESIN_FLOAT64: ((double *)data)[i] = value; break;
        case RESIN_INT32: ((int32_t *)data)[i] = (int32_t)value; break;
        case RESIN_INT64: ((int64_t *)data)[i] = (int64_t)value; break;
        default: ((uint8_t *)data)[i] = (uint8_t)value; break;
        }
    }
    return RESIN_OK;
}

/* ---- Random values -------------------------------------------------------------------------- */

typedef struct random_fill {
    void *data;
    int64_t count;
    bool is_double, normal;
    uint64_t seed, stream;
    double a, b; /* low and high, or mean and deviation */
} random_fill;

enum { RANDOM_GRAIN = 4096 }; /* a multiple of four, so that blocks of four words stay whole */

/* Two normal numbers from two uniform ones in (0, 1] and [0, 1) (Box and Muller 1958). */
static void box_muller(double u, double v, double *x, double *y) {
    double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586 * v;
    *x = radius * cos(angle);
    *y = radius * sin(angle);
}

/* Four float32 numbers from one block of four words. */
static void random_four(const random_fill *fill, int64_t block, double out[4]) {
    uint32_t word[4];
    resin_philox(fill->seed, fill->stream, (uint64_t)block, word);
    for (int i = 0; i < 4; i += 2) {
        float u = resin_unit_float(word[i]), v = resin_unit_float(word[i + 1]);
        out[i] = u;
        out[i + 1] = v;
        if (fill->normal) box_muller(1.0 - (double)u, v, &out[i], &out[i + 1]);
    }
}

/* Two float64 numbers from one block of four words. */
static void random_two(const random_fill *fill, int64_t block, double out[2]) {
    uint32_t word[4];
    resin_philox(fill->seed, fill->stream, (uint64_t)block, word);
    out[0] = resin_unit_double(word[0], word[1]);
    out[1] = resin_unit_double(word[2], word[3]);
    if (fill->normal) box_muller(1.0 - out[0], out[1], &out[0], &out[1]);
}

static double scaled(const random_fill *fill, double value) {
    return fill->normal ? fill->a + fill->b * value : fill->a + (fill->b - fill->a) * value;
}

/* A float32 below `high`, which rounding might reach. */
static float scaled_float(const random_fill *fill, double value) {
    float result = (float)scaled(fill, value);
    if (!fill->normal && result >= (float)fill->b && fill->a < fill->b)
        result = nextafterf((float)fill->b, (float)fill->a);
    return result;
}

static void random_piece(void *argument, int64_t piece, int worker) {
    const random_fill *fill = argument;
    (void)worker;
    int64_t first = piece * RANDOM_GRAIN, last = first + RANDOM_GRAIN;
    if (last > fill->count) last = fill->count;
    int width = fill->is_double ? 2 : 4;
    double value[4];
    for (int64_t i = first; i < last; i += width) {
        if (fill->is_double)
            random_two(fill, i / width, value);
        else
            random_four(fill, i / width, value);
        for (int j = 0; j < width && i + j < last; j++) {
            if (fill->is_double)
                ((double *)fill->data)[i + j] = scaled(fill, value[j]);
            else
                ((float *)fill->data)[i + j] = scaled_float(fill, value[j]);
        }
    }
}

static resin_status random_tensor(resin_context *context, const char *what, resin_dtype dtype,
                                  int rank, const int64_t *shape, bool normal, double a, double b,
                                  resin_tensor **out) {
    *out = NULL;
    if (dtype != RESIN_FLOAT32 && dtype != RESIN_FLOAT64)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "%s: expected float32 or float64, got %s", what, resin_dtype_name(dtype));
    RESIN_TRY(tensor_new(context, dtype, rank, shape, out));
    random_fill fill = {.data = tensor_data(*out), .count = resin_tensor_count(*out),
                        .is_double = dtype == RESIN_FLOAT64, .normal = normal,
                        .seed = context->random.seed,
                        .stream = resin_random_next_stream(context), .a = a, .b = b};
    resin_parallel(context, (fill.count + RANDOM_GRAIN - 1) / RANDOM_GRAIN, random_piece, &fill);
    return RESIN_OK;
}

resin_status resin_uniform(resin_context *context, resin_dtype dtype, int rank,
                           const int64_t *shape, double low, double high, resin_tensor **out) {
    return random_tensor(context, "uniform", dtype, rank, shape, false, low, high, out);
}

resin_status resin_normal(resin_context *context, resin_dtype dtype, int rank,
                          const int64_t *shape, double mean, double deviation,
                          resin_tensor **out) {
    return random_tensor(context, "normal", dtype, rank, shape, true, mean, deviation, out);
}

resin_status resin_permutation(resin_context *context, int64_t count, resin_tensor **out) {
    RESIN_TRY(resin_arange(context, RESIN_INT64, 0, 1, count, out));
    int64_t *order = tensor_data(*out);
    uint64_t stream = resin_random_next_stream(context);
    /* Fisher and Yates; the multiplication maps 64 random bits to 0 .. i without bias worth
     * mention (below 2^-32 for a billion entries). */
    for (int64_t i = count - 1; i > 0; i--) {
        uint32_t word[4];
        resin_philox(context->random.seed, stream, (uint64_t)i, word);
        uint64_t bits = (uint64_t)word[0] << 32 | word[1];
        int64_t j = (int64_t)((unsigned __int128)bits * (uint64_t)(i + 1) >> 64);
        int64_t swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
    return RESIN_OK;
}
