/* reductions.c: folds of many numbers into one: sums, products, extremes, and where the extremes
 * lie.
 *
 * The elements are widened to the type of the accumulators first, PIECE at a time: float32 to
 * double, so that a sum is rounded once, at the end; the integers to int64_t. So there are two
 * versions of each fold, and one conversion for each dtype. The file includes itself for the two
 * types of accumulators (`total`) and then for the five of elements (`number`). */
#include "core/kernels/kernel.h"
#include "core/kernels/pointwise.h"

#if !defined(total) && !defined(number)

#include <math.h>

#define UNUSED __attribute__((unused))
#define INLINE static inline __attribute__((always_inline))
/* Stands before a loop whose rounds do not depend on each other. */
#define INDEPENDENT _Pragma("omp simd")
enum { PARTS = REDUCTION_PARTS, PIECE = 256 };

#define total double
#define wrapping double
#define FLOATING 1
#define IS_NAN(x) ((x) != (x))
#define LEAST (-INFINITY)
#define MOST INFINITY
#define FOR_TOTAL(name) name##_float
#include "core/kernels/reductions.c"
#undef total
#undef wrapping
#undef FLOATING
#undef IS_NAN
#undef LEAST
#undef MOST
#undef FOR_TOTAL
/* Integers wrap around, which only unsigned ones may. */
#define total int64_t
#define wrapping uint64_t
#define FLOATING 0
#define IS_NAN(x) 0
#define LEAST INT64_MIN
#define MOST INT64_MAX
#define FOR_TOTAL(name) name##_integer
#include "core/kernels/reductions.c"
#undef total
#undef FOR_TOTAL

#define NAME(name) KERNEL_PASTE(name, number)
#define wide int64_t
#define number int32_t
#include "core/kernels/reductions.c"
#undef number
#define number int64_t
#include "core/kernels/reductions.c"
#undef number
#define number uint8_t
#include "core/kernels/reductions.c"
#undef number
#undef wide
#undef IS_NAN
#define IS_NAN(x) ((x) != (x))
#define wide double
#define number float
#include "core/kernels/reductions.c"
#undef number
#define number double
#include "core/kernels/reductions.c"
#undef number

#define ALL_DTYPES(name) \
    {name##_float, name##_double, name##_int32_t, name##_int64_t, name##_uint8_t}

typedef void (*widen_loop)(int64_t n, const void *x, int64_t stride, void *y);
static const widen_loop widen_to_total[RESIN_DTYPE_COUNT] = ALL_DTYPES(widen);
static const int64_t number_size[RESIN_DTYPE_COUNT] = {4, 8, 4, 8, 1};

static bool is_float(resin_dtype dtype) {
    return dtype == RESIN_FLOAT32 || dtype == RESIN_FLOAT64;
}

void KERNEL(reduce_run)(const reduction_kernel *kernel, resin_dtype dtype, int64_t n,
                        const void *x, int64_t stride, void *accumulator, const double *center);
void KERNEL(reduce_columns)(const reduction_kernel *kernel, resin_dtype dtype, int64_t n,
                            const void *x, int64_t stride, void *accumulator,
                            const double *center);

void KERNEL(reduce_run)(const reduction_kernel *kernel, resin_dtype dtype, int64_t n,
                        const void *x, int64_t stride, void *accumulator, const double *center) {
    double part[PARTS], piece[PIECE];
    int64_t part_integer[PARTS], piece_integer[PIECE];
    for (int i = 0; i < PARTS; i++) {
        part[i] = kernel->first_float;
        part_integer[i] = kernel->first_integer;
    }
    for (int64_t first = 0; first < n; first += PIECE) {
        const int64_t count = n - first < PIECE ? n - first : PIECE;
        const char *at = (const char *)x + first * stride * number_size[dtype];
        if (is_float(dtype)) {
            widen_to_total[dtype](count, at, stride, piece);
            kernel->run_float(count, piece, part, center ? *center : 0);
        } else {
            widen_to_total[dtype](count, at, stride, piece_integer);
            kernel->run_integer(count, piece_integer, part_integer);
        }
    }
    for (int i = 0; i < PARTS && i < n; i++) {
        if (is_float(dtype)) kernel->combine_float(1, part + i, accumulator);
        else kernel->combine_integer(1, part_integer + i, accumulator);
    }
}

void KERNEL(reduce_columns)(const reduction_kernel *kernel, resin_dtype dtype, int64_t n,
                            const void *x, int64_t stride, void *accumulator,
                            const double *center) {
    double piece[PIECE];
    int64_t piece_integer[PIECE];
    for (int64_t first = 0; first < n; first += PIECE) {
        const int64_t count = n - first < PIECE ? n - first : PIECE;
        const char *at = (const char *)x + first * stride * number_size[dtype];
        if (is_float(dtype)) {
            widen_to_total[dtype](count, at, stride, piece);
            kernel->columns_float(count, piece, (double *)accumulator + first,
                                  center ? center + first : piece);
        } else {
            widen_to_total[dtype](count, at, stride, piece_integer);
            kernel->columns_integer(count, piece_integer, (int64_t *)accumulator + first);
        }
    }
}

#define FLOATS_ROW(name_, combination, first)                                   \
    .name = #name_, .first_float = first, .columns_float = name_##_columns_float, \
    .run_float = name_##_run_float, .combine_float = combination##_combine_float
#define INTEGERS_ROW(name_, first)                                                  \
    .first_integer = first, .columns_integer = name_##_columns_integer,             \
    .run_integer = name_##_run_integer, .combine_integer = name_##_combine_integer

extern const reduction_kernel KERNEL(reductions)[];
extern const position_loop KERNEL(largest)[RESIN_DTYPE_COUNT];
extern const position_loop KERNEL(smallest)[RESIN_DTYPE_COUNT];

const reduction_kernel KERNEL(reductions)[] = {
    {FLOATS_ROW(sum, sum, 0), INTEGERS_ROW(sum, 0)},
    {FLOATS_ROW(product, product, 1), INTEGERS_ROW(product, 1)},
    {FLOATS_ROW(maximum, maximum, -INFINITY), INTEGERS_ROW(maximum, INT64_MIN)},
    {FLOATS_ROW(minimum, minimum, INFINITY), INTEGERS_ROW(minimum, INT64_MAX)},
    {FLOATS_ROW(square_deviations, sum, 0)},
    {FLOATS_ROW(sum_sizes, sum, 0)},
    {FLOATS_ROW(sum_squares, sum, 0)},
    {FLOATS_ROW(maximum_size, maximum, 0)},
    {.name = NULL},
};
const position_loop KERNEL(largest)[RESIN_DTYPE_COUNT] = ALL_DTYPES(largest);
const position_loop KERNEL(smallest)[RESIN_DTYPE_COUNT] = ALL_DTYPES(smallest);

#elif defined(total)

/* A fold takes the accumulator t and an element x and gives the new accumulator. NaN stays in the
 * extremes: no comparison with it is true, and IS_NAN lets it in. */
#if FLOATING
#define CENTERED , const double *center
#define ONE_CENTER , double center
#define FOLD(name) INLINE total FOR_TOTAL(name)(total t, total x, UNUSED double center)
#define APPLY(name, t, x, center) FOR_TOTAL(name)(t, x, center)
#else
#define CENTERED
#define ONE_CENTER
#define FOLD(name) INLINE total FOR_TOTAL(name)(total t, total x)
#define APPLY(name, t, x, center) FOR_TOTAL(name)(t, x)
#endif

#define FOLD_LOOPS(name)                                                                      \
    static void FOR_TOTAL(name##_columns)(int64_t n, const total *x, total *accumulator       \
                                          CENTERED) {                                         \
        INDEPENDENT                                                                           \
        for (int64_t i = 0; i < n; i++)                                                       \
            accumulator[i] = APPLY(name, accumulator[i], x[i], center[i]);                    \
    }                                                                                         \
    static void FOR_TOTAL(name##_run)(int64_t n, const total *x, total *part ONE_CENTER) {    \
        int64_t i = 0;                                                                        \
        for (; i + PARTS <= n; i += PARTS) {                                                  \
            INDEPENDENT                                                                       \
            for (int j = 0; j < PARTS; j++) part[j] = APPLY(name, part[j], x[i + j], center); \
        }                                                                                     \
        for (int j = 0; i + j < n; j++) part[j] = APPLY(name, part[j], x[i + j], center);     \
    }
#define COMBINE(name)                                                                          \
    static void FOR_TOTAL(name##_combine)(int64_t n, const total *part, total *accumulator) {  \
        for (int64_t i = 0; i < n; i++)                                                        \
            accumulator[i] = APPLY(name, accumulator[i], part[i], 0);                          \
    }

FOLD(sum) { return (total)((wrapping)t + (wrapping)x); }
FOLD(product) { return (total)((wrapping)t * (wrapping)x); }
FOLD(maximum) { return ((x > t) | IS_NAN(x)) ? x : t; }
FOLD(minimum) { return ((x < t) | IS_NAN(x)) ? x : t; }
FOLD_LOOPS(sum)
FOLD_LOOPS(product)
FOLD_LOOPS(maximum)
FOLD_LOOPS(minimum)
COMBINE(sum)
COMBINE(product)
COMBINE(maximum)
COMBINE(minimum)

#if FLOATING
FOLD(square_deviations) { return t + (x - center) * (x - center); }
FOLD(sum_sizes) { return t + fabs(x); }
FOLD(sum_squares) { return t + x * x; }
FOLD(maximum_size) { return ((fabs(x) > t) | IS_NAN(x)) ? fabs(x) : t; }
FOLD_LOOPS(square_deviations)
FOLD_LOOPS(sum_sizes)
FOLD_LOOPS(sum_squares)
FOLD_LOOPS(maximum_size)
#endif

#undef CENTERED
#undef ONE_CENTER
#undef FOLD
#undef APPLY
#undef FOLD_LOOPS
#undef COMBINE

#else

static void NAME(widen)(int64_t n, const void *x_, int64_t stride, void *y_) {
    const number *x = x_;
    wide *y = y_;
    if (stride == 1) {
        INDEPENDENT
        for (int64_t i = 0; i < n; i++) y[i] = (wide)x[i];
    } else {
        for (int64_t i = 0; i < n; i++) y[i] = (wide)x[i * stride];
    }
}

static int64_t NAME(largest)(int64_t n, const void *x_, int64_t stride) {
    const number *x = x_;
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (IS_NAN(x[i * stride])) return i;
        if (x[i * stride] > x[best * stride]) best = i;
    }
    return best;
}

static int64_t NAME(smallest)(int64_t n, const void *x_, int64_t stride) {
    const number *x = x_;
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (IS_NAN(x[i * stride])) return i;
        if (x[i * stride] < x[best * stride]) best = i;
    }
    return best;
}

#endif
