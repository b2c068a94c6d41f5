/* product_few.c: matrix products of which one side has only a few rows (a dense layer on a few
 * samples): the large matrix is read, or written, once as it lies, and that is what takes the time.
 * What is read next is fetched meanwhile: a block of some rows ahead. */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

enum {
    DEEP = 8, /* rows of b that are read together, */
    TALL = 4  /* and of a transposed one, with as many of a: 16 sums */
};

/* The last columns of a row may be less than a vector; the lanes that are left over are 0. */
static __attribute__((noinline)) vfloat load_some(const float *from, int64_t count) {
    vfloat v = {0};
    memcpy(&v, from, (size_t)count * sizeof(float));
    return v;
}
static __attribute__((noinline)) void store_some(float *to, int64_t count, vfloat v) {
    memcpy(to, &v, (size_t)count * sizeof(float));
}
static ALWAYS_INLINE vfloat load(const float *from, int64_t count) {
    return count >= VECTOR_FLOATS ? vload(from) : load_some(from, count);
}
static ALWAYS_INLINE void store(float *to, int64_t count, vfloat v) {
    if (count >= VECTOR_FLOATS) vstore(to, v);
    else store_some(to, count, v);
}

/* ---- c += a b -------------------------------------------------------------------------------- */

/* Whole vectors; `depth` is a constant at every call. */
static ALWAYS_INLINE void add_products(const int depth, int rows, int64_t columns,
                                       const float (*a)[PRODUCT_FEW], const float *b,
                                       int64_t b_step, float *c, int64_t c_step) {
    for (int64_t j = 0; j + VECTOR_FLOATS <= columns; j += VECTOR_FLOATS) {
        vfloat v[DEEP];
        UNROLL
        for (int k = 0; k < depth; k++) {
            v[k] = vload(b + k * b_step + j);
            __builtin_prefetch(b + (k + depth) * b_step + j, 0, 2);
        }
        for (int i = 0; i < rows; i++) {
            float *to = c + i * c_step + j;
            vfloat sum = vload(to);
            UNROLL
            for (int k = 0; k < depth; k++) sum += a[k][i] * v[k];
            vstore(to, sum);
        }
    }
}

static __attribute__((noinline)) void add_deep(int rows, int64_t columns,
                                               const float (*a)[PRODUCT_FEW], const float *b,
                                               int64_t b_step, float *c, int64_t c_step) {
    add_products(DEEP, rows, columns, a, b, b_step, c, c_step);
}

static __attribute__((noinline)) void add_one(int rows, int64_t columns,
                                              const float (*a)[PRODUCT_FEW], const float *b,
                                              float *c, int64_t c_step) {
    add_products(1, rows, columns, a, b, 0, c, c_step);
}

/* The last columns, less than a vector. */
static __attribute__((noinline)) void add_rest(int depth, int rows, int64_t columns,
                                               const float (*a)[PRODUCT_FEW], const float *b,
                                               int64_t b_step, float *c, int64_t c_step) {
    for (int i = 0; i < rows; i++, c += c_step) {
        vfloat sum = load_some(c, columns);
        for (int k = 0; k < depth; k++) sum += a[k][i] * load_some(b + k * b_step, columns);
        store_some(c, columns, sum);
    }
}

/* The elements of some columns of a, in rows. */
static __attribute__((noinline)) void copy_elements(int64_t count, int rows, const float *a,
                                                    int64_t a_row, int64_t a_column,
                                                    float (*to)[PRODUCT_FEW]) {
    for (int64_t k = 0; k < count; k++) {
        for (int i = 0; i < rows; i++) to[k][i] = a[i * a_row + k * a_column];
    }
}

void KERNEL(few_rows)(int rows, int64_t columns, int64_t depth, const float *a, int64_t a_row,
                      int64_t a_column, const float *b, int64_t b_step, float *c, int64_t c_step) {
    float block[DEEP][PRODUCT_FEW];
    int64_t rest = columns % VECTOR_FLOATS, last = columns - rest;
    for (int64_t k = 0; k < depth;) {
        int deep = depth - k < DEEP ? 1 : DEEP;
        const float *from = b + k * b_step;
        copy_elements(deep, rows, a + k * a_column, a_row, a_column, block);
        if (deep == DEEP) add_deep(rows, columns, block, from, b_step, c, c_step);
        else add_one(rows, columns, block, from, c, c_step);
        if (rest) add_rest(deep, rows, rest, block, from + last, b_step, c + last, c_step);
        k += deep;
    }
}

/* ---- c = a b^T ------------------------------------------------------------------------------- */

/* Each sum's lanes and the products that are less than a vector: `depth` of them. */
static __attribute__((noinline)) void finish_dots(int rows, int tall, const float *sums,
                                                  int64_t depth, const float *a, int64_t a_step,
                                                  const float *b, int64_t b_step, float *c,
                                                  int64_t c_step, bool accumulate) {
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < tall; j++, sums += VECTOR_FLOATS) {
            vfloat v = vload(sums);
            float sum = accumulate ? c[i * c_step + j] : 0;
            if (depth > 0) v += load_some(a + i * a_step, depth) * load_some(b + j * b_step, depth);
            for (int l = 0; l < VECTOR_FLOATS; l++) sum += v[l];
            c[i * c_step + j] = sum;
        }
    }
}

/* Some rows of a, `rows` and `tall` constants at every call, with some of b. */
static ALWAYS_INLINE void dot_products(const int rows, const int tall, int64_t depth,
                                       const float *a, int64_t a_step, const float *b,
                                       int64_t b_step, float *c, int64_t c_step, bool accumulate) {
    vfloat sum[TALL][TALL];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < tall; j++) sum[i][j] = (vfloat){0};
    }
    int64_t k = 0;
    for (; k + VECTOR_FLOATS <= depth; k += VECTOR_FLOATS) {
        vfloat v[TALL];
        UNROLL
        for (int j = 0; j < tall; j++) {
            v[j] = vload(b + j * b_step + k);
            __builtin_prefetch(b + (j + tall) * b_step + k, 0, 2);
        }
        UNROLL
        for (int i = 0; i < rows; i++) {
            vfloat x = vload(a + i * a_step + k);
            UNROLL
            for (int j = 0; j < tall; j++) sum[i][j] += x * v[j];
        }
    }
    float sums[TALL * TALL * VECTOR_FLOATS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < tall; j++) vstore(sums + (i * tall + j) * VECTOR_FLOATS, sum[i][j]);
    }
    finish_dots(rows, tall, sums, depth - k, a + k, a_step, b + k, b_step, c, c_step, accumulate);
}

void KERNEL(few_dots)(int rows, int64_t columns, int64_t depth, const float *a, int64_t a_step,
                      const float *b, int64_t b_step, float *c, int64_t c_step, bool accumulate) {
    int64_t j = 0;
    for (; j + TALL <= columns; j += TALL) {
        int i = 0;
        for (; i + TALL <= rows; i += TALL) {
            dot_products(TALL, TALL, depth, a + i * a_step, a_step, b + j * b_step, b_step,
                         c + i * c_step + j, c_step, accumulate);
        }
        for (; i < rows; i++) {
            dot_products(1, TALL, depth, a + i * a_step, a_step, b + j * b_step, b_step,
                         c + i * c_step + j, c_step, accumulate);
        }
    }
    for (; j < columns; j++) {
        for (int i = 0; i < rows; i++) {
            dot_products(1, 1, depth, a + i * a_step, a_step, b + j * b_step, b_step,
                         c + i * c_step + j, c_step, accumulate);
        }
    }
}

/* ---- c = or += a b of little depth ----------------------------------------------------------- */

/* A store that does not first read the line, and leaves the cache alone. */
static ALWAYS_INLINE void store_past(float *to, vfloat v) {
#if VECTOR_FLOATS == 16
    _mm512_stream_ps(to, (__m512)v);
#elif VECTOR_FLOATS == 8
    _mm256_stream_ps(to, (__m256)v);
#elif defined(__SSE2__)
    _mm_stream_ps(to, (__m128)v);
#else
    vstore(to, v);
#endif
}

void KERNEL(few_outer)(int depth, int64_t rows, int64_t columns, const float *a, int64_t a_row,
                       int64_t a_column, const float *b, int64_t b_step, float *c, int64_t c_step,
                       bool accumulate, bool past) {
    float element[1][PRODUCT_FEW];
    bool aligned = (uintptr_t)c % sizeof(vfloat) == 0 && c_step % VECTOR_FLOATS == 0;
    past = past && aligned && !accumulate;
    for (int64_t i = 0; i < rows; i++, c += c_step) {
        copy_elements(1, depth, a + i * a_row, a_column, 0, element);
        for (int64_t j = 0; j < columns; j += VECTOR_FLOATS) {
            const float *from = b + j;
            vfloat sum = accumulate ? load(c + j, columns - j) : (vfloat){0};
            for (int k = 0; k < depth; k++, from += b_step) {
                sum += element[0][k] * load(from, columns - j);
            }
            if (past && j + VECTOR_FLOATS <= columns) store_past(c + j, sum);
            else store(c + j, columns - j, sum);
        }
    }
#if defined(__SSE2__)
    if (past) _mm_sfence();
#endif
}
