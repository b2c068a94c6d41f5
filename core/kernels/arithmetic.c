/* arithmetic.c: functions of two arguments, each with its two derivatives below it: arithmetic,
 * minimum and maximum, powers, comparisons; and the choice by a condition. The file includes itself
 * once for each dtype, with `number` as its type; the loops are plain, the compiler makes vectors
 * of them.
 *
 * At ties minimum and maximum give each argument half of the gradient, as in PyTorch. */
#include "core/kernels/kernel.h"
#include "core/kernels/pointwise.h"

#ifndef number

#include <math.h>

#define INLINE static inline __attribute__((always_inline))
#define NAME(name) KERNEL_PASTE(name, number)
/* What stands before a loop: whether its rounds become vectors (an operand is either the result
 * itself or does not touch it) or call libm one after the other. */
#define INDEPENDENT _Pragma("omp simd")
#define ONE_BY_ONE
enum { PIECE = 256 };

typedef void (*dense_loop)(int64_t n, const void *a, const void *b, void *c);
typedef void (*dense_gradient_loop)(int64_t n, const void *a, const void *b, const void *dc,
                                    void *gradient);

/* Integers wrap around, which only unsigned ones may. */
#define number float
#define wrapping float
#define FLOATING 1
#define IS_NAN(x) ((x) != (x))
#include "core/kernels/arithmetic.c"
#undef number
#undef wrapping
#define number double
#define wrapping double
#include "core/kernels/arithmetic.c"
#undef number
#undef wrapping
#undef FLOATING
#undef IS_NAN
#define FLOATING 0
#define IS_NAN(x) 0
#define number int32_t
#define wrapping uint32_t
#include "core/kernels/arithmetic.c"
#undef number
#undef wrapping
#define number int64_t
#define wrapping uint64_t
#include "core/kernels/arithmetic.c"
#undef number
#undef wrapping
#define number uint8_t
#define wrapping uint32_t
#include "core/kernels/arithmetic.c"
#undef number
#undef wrapping

#define FLOATS(name) {name##_float, name##_double}
#define ALL_DTYPES(name) \
    {name##_float, name##_double, name##_int32_t, name##_int64_t, name##_uint8_t}
#define GRADIENTS(name) \
    .gradient_a = FLOATS(name##_gradient_a_loop), .gradient_b = FLOATS(name##_gradient_b_loop)
#define COMPARISON(name_) {.name = #name_, .compares = true, .forward = ALL_DTYPES(name_##_loop)}

extern const binary_kernel KERNEL(arithmetic)[];
extern const choose_loop KERNEL(choose)[RESIN_DTYPE_COUNT];

const binary_kernel KERNEL(arithmetic)[] = {
    {.name = "add", .forward = ALL_DTYPES(add_loop)},
    {.name = "subtract",
     .forward = ALL_DTYPES(subtract_loop),
     .gradient_b = FLOATS(subtract_gradient_b_loop)},
    {.name = "multiply",
     .gradient_a_reads_b = true,
     .gradient_b_reads_a = true,
     .forward = ALL_DTYPES(multiply_loop),
     GRADIENTS(multiply)},
    {.name = "divide",
     .gradient_a_reads_b = true,
     .gradient_b_reads_a = true,
     .gradient_b_reads_b = true,
     .forward = FLOATS(divide_loop),
     GRADIENTS(divide)},
    {.name = "pow",
     .gradient_a_reads_a = true,
     .gradient_a_reads_b = true,
     .gradient_b_reads_a = true,
     .gradient_b_reads_b = true,
     .forward = FLOATS(pow_loop),
     GRADIENTS(pow)},
    {.name = "minimum",
     .gradient_a_reads_a = true,
     .gradient_a_reads_b = true,
     .gradient_b_reads_a = true,
     .gradient_b_reads_b = true,
     .forward = ALL_DTYPES(minimum_loop),
     GRADIENTS(minimum)},
    {.name = "maximum",
     .gradient_a_reads_a = true,
     .gradient_a_reads_b = true,
     .gradient_b_reads_a = true,
     .gradient_b_reads_b = true,
     .forward = ALL_DTYPES(maximum_loop),
     GRADIENTS(maximum)},
    COMPARISON(equal),
    COMPARISON(not_equal),
    COMPARISON(less),
    COMPARISON(less_equal),
    COMPARISON(greater),
    COMPARISON(greater_equal),
    {.name = NULL},
};

const choose_loop KERNEL(choose)[RESIN_DTYPE_COUNT] = ALL_DTYPES(choose_loop);

#else

static const number *NAME(pack)(number *packed, const number *x, int64_t stride, int64_t first,
                                int64_t count) {
    if (stride == 1) return x + first;
    if (stride == 0 && first > 0) return packed; /* filled by the first piece */
    for (int64_t i = 0; i < count; i++) packed[i] = x[(first + i) * stride];
    return packed;
}

/* Brings operands of any strides together, PIECE numbers at a time, and calls a loop over dense
 * ones; `size` is that of a result. */
static void NAME(drive)(dense_loop dense, size_t size, int64_t n, const number *a,
                        int64_t a_stride, const number *b, int64_t b_stride, char *c,
                        int64_t c_stride) {
    if (a_stride == 1 && b_stride == 1 && c_stride == 1) {
        dense(n, a, b, c);
        return;
    }
    number a_packed[PIECE], b_packed[PIECE], results[PIECE];
    for (int64_t first = 0; first < n; first += PIECE) {
        const int64_t count = n - first < PIECE ? n - first : PIECE;
        const number *a_here = NAME(pack)(a_packed, a, a_stride, first, count);
        const number *b_here = NAME(pack)(b_packed, b, b_stride, first, count);
        if (c_stride == 1) {
            dense(count, a_here, b_here, c + (size_t)first * size);
            continue;
        }
        dense(count, a_here, b_here, results);
        for (int64_t i = 0; i < count; i++)
            memcpy(c + (first + i) * c_stride * (int64_t)size, (char *)results + (size_t)i * size,
                   size);
    }
}

/* c[i] = f(a[i], b[i]); `result` is the type of c. */
#define VALUE_LOOP(name, result, hint)                                                          \
    static void NAME(name##_dense)(int64_t n, const void *a_, const void *b_, void *c_) {       \
        const number *a = a_, *b = b_;                                                          \
        result *c = c_;                                                                         \
        hint                                                                                    \
        for (int64_t i = 0; i < n; i++) c[i] = NAME(name)(a[i], b[i]);                          \
    }                                                                                           \
    static void NAME(name##_loop)(int64_t n, const void *a, int64_t a_stride, const void *b,    \
                                  int64_t b_stride, void *c, int64_t c_stride) {                \
        NAME(drive)(NAME(name##_dense), sizeof(result), n, a, a_stride, b, b_stride, c,         \
                    c_stride);                                                                  \
    }

INLINE number NAME(add)(number a, number b) { return (number)((wrapping)a + (wrapping)b); }
VALUE_LOOP(add, number, INDEPENDENT)

INLINE number NAME(subtract)(number a, number b) { return (number)((wrapping)a - (wrapping)b); }
VALUE_LOOP(subtract, number, INDEPENDENT)

INLINE number NAME(multiply)(number a, number b) { return (number)((wrapping)a * (wrapping)b); }
VALUE_LOOP(multiply, number, INDEPENDENT)

/* NaN if one of them is NaN. */
INLINE number NAME(minimum)(number a, number b) { return ((a < b) | IS_NAN(a)) ? a : b; }
VALUE_LOOP(minimum, number, INDEPENDENT)

INLINE number NAME(maximum)(number a, number b) { return ((a > b) | IS_NAN(a)) ? a : b; }
VALUE_LOOP(maximum, number, INDEPENDENT)

/* Comparisons with NaN are false, except not_equal. */
INLINE uint8_t NAME(equal)(number a, number b) { return a == b; }
INLINE uint8_t NAME(not_equal)(number a, number b) { return a != b; }
INLINE uint8_t NAME(less)(number a, number b) { return a < b; }
INLINE uint8_t NAME(less_equal)(number a, number b) { return a <= b; }
INLINE uint8_t NAME(greater)(number a, number b) { return a > b; }
INLINE uint8_t NAME(greater_equal)(number a, number b) { return a >= b; }
VALUE_LOOP(equal, uint8_t, INDEPENDENT)
VALUE_LOOP(not_equal, uint8_t, INDEPENDENT)
VALUE_LOOP(less, uint8_t, INDEPENDENT)
VALUE_LOOP(less_equal, uint8_t, INDEPENDENT)
VALUE_LOOP(greater, uint8_t, INDEPENDENT)
VALUE_LOOP(greater_equal, uint8_t, INDEPENDENT)

/* where: c = a where the condition is not 0, else b. */
static void NAME(choose_loop)(int64_t n, const void *condition_, int64_t condition_stride,
                              const void *a_, int64_t a_stride, const void *b_, int64_t b_stride,
                              void *c_, int64_t c_stride) {
    const uint8_t *condition = condition_;
    const number *a = a_, *b = b_;
    number *c = c_;
    for (int64_t i = 0; i < n; i++)
        c[i * c_stride] = condition[i * condition_stride] ? a[i * a_stride] : b[i * b_stride];
}

#if FLOATING

/* The same for gradients, with the third operand dc; one that is not read is NULL. */
static void NAME(drive_gradient)(dense_gradient_loop dense, int64_t n, const number *a,
                                 int64_t a_stride, const number *b, int64_t b_stride,
                                 const number *dc, int64_t dc_stride, number *gradient) {
    number a_packed[PIECE], b_packed[PIECE], dc_packed[PIECE];
    for (int64_t first = 0; first < n; first += PIECE) {
        const int64_t count = n - first < PIECE ? n - first : PIECE;
        const number *dc_here = NAME(pack)(dc_packed, dc, dc_stride, first, count);
        const number *a_here = a ? NAME(pack)(a_packed, a, a_stride, first, count) : dc_here;
        const number *b_here = b ? NAME(pack)(b_packed, b, b_stride, first, count) : dc_here;
        dense(count, a_here, b_here, dc_here, gradient + first);
    }
}

/* da[i] or db[i] = gradient(a[i], b[i], dc[i]). */
#define GRADIENT_LOOP(name, hint)                                                               \
    static void NAME(name##_dense)(int64_t n, const void *a_, const void *b_, const void *dc_,  \
                                   void *gradient_) {                                           \
        const number *a = a_, *b = b_, *dc = dc_;                                               \
        number *gradient = gradient_;                                                           \
        hint                                                                                    \
        for (int64_t i = 0; i < n; i++) gradient[i] = NAME(name)(a[i], b[i], dc[i]);            \
    }                                                                                           \
    static void NAME(name##_loop)(int64_t n, const void *a, int64_t a_stride, const void *b,    \
                                  int64_t b_stride, const void *dc, int64_t dc_stride,          \
                                  void *gradient) {                                             \
        NAME(drive_gradient)(NAME(name##_dense), n, a, a_stride, b, b_stride, dc, dc_stride,    \
                             gradient);                                                         \
    }
/* The head of a gradient; those that need only some of the three leave the others alone. */
#define GRADIENT(name)                                                             \
    INLINE number NAME(name)(__attribute__((unused)) number a,                     \
                             __attribute__((unused)) number b, number dc)

/* subtract: a's gradient is dc itself, as are both of add. */
GRADIENT(subtract_gradient_b) { return -dc; }
GRADIENT_LOOP(subtract_gradient_b, INDEPENDENT)

GRADIENT(multiply_gradient_a) { return dc * b; }
GRADIENT(multiply_gradient_b) { return dc * a; }
GRADIENT_LOOP(multiply_gradient_a, INDEPENDENT)
GRADIENT_LOOP(multiply_gradient_b, INDEPENDENT)

/* divide: a / b. */
INLINE number NAME(divide)(number a, number b) { return a / b; }
GRADIENT(divide_gradient_a) { return dc / b; }
GRADIENT(divide_gradient_b) { return -dc * (a / b / b); }
VALUE_LOOP(divide, number, INDEPENDENT)
GRADIENT_LOOP(divide_gradient_a, INDEPENDENT)
GRADIENT_LOOP(divide_gradient_b, INDEPENDENT)

/* pow: a^b. By a it is b a^(b - 1), and 0 where b = 0; by b it is a^b ln a, and 0 where a = 0 and
 * b >= 0, whatever the other factors are. */
#ifndef POWERS
#define POWERS
INLINE float power_float(float a, float b) { return b == 2 ? a * a : powf(a, b); }
INLINE double power_double(double a, double b) { return b == 2 ? a * a : pow(a, b); }
INLINE float logarithm_float(float a) { return logf(a); }
INLINE double logarithm_double(double a) { return log(a); }
#endif
INLINE number NAME(pow)(number a, number b) { return NAME(power)(a, b); }
GRADIENT(pow_gradient_a) {
    if (b == 0) return 0;
    return dc * (b * (b == 2 ? a : NAME(power)(a, b - 1)));
}
GRADIENT(pow_gradient_b) {
    if (a == 0 && b >= 0) return 0;
    return dc * (NAME(power)(a, b) * NAME(logarithm)(a));
}
VALUE_LOOP(pow, number, ONE_BY_ONE)
GRADIENT_LOOP(pow_gradient_a, ONE_BY_ONE)
GRADIENT_LOOP(pow_gradient_b, ONE_BY_ONE)

/* minimum and maximum: to the smaller or greater one, half to each at a tie. */
GRADIENT(minimum_gradient_a) { return a < b ? dc : a == b ? dc / 2 : 0; }
GRADIENT(minimum_gradient_b) { return b < a ? dc : a == b ? dc / 2 : 0; }
GRADIENT(maximum_gradient_a) { return a > b ? dc : a == b ? dc / 2 : 0; }
GRADIENT(maximum_gradient_b) { return b > a ? dc : a == b ? dc / 2 : 0; }
GRADIENT_LOOP(minimum_gradient_a, INDEPENDENT)
GRADIENT_LOOP(minimum_gradient_b, INDEPENDENT)
GRADIENT_LOOP(maximum_gradient_a, INDEPENDENT)
GRADIENT_LOOP(maximum_gradient_b, INDEPENDENT)

#undef GRADIENT_LOOP
#undef GRADIENT
#endif
#undef VALUE_LOOP

#endif
