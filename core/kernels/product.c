/* product.c: the matrix product of one panel, the inner loop of the convolutions and of the packed
 * product.
 *
 * Block of the register file: BLOCK_ROWS x 2 vectors of sums, 2 vectors of b and one broadcast
 * element of a: 31 of the 32 registers of AVX-512, 15 of 16 elsewhere. */
#include "core/kernels/kernel.h"
#include "core/kernels/conv_names.h"
#include "core/kernels/product_block.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* c (rows x vectors) = or += a * b over `depth`. The number of rows and vectors, and whether a lies
 * by rows or by columns, are constants at every call, so that the sums stay in registers. Rows of a
 * are addressed three to a pointer (p, p + step, p + 2 step), which the processor does in the
 * load; a pointer for each row would not fit the integer registers. */
static ALWAYS_INLINE void multiply_block(const int rows, const int vectors, const bool a_by_columns,
                                         int64_t depth, const float *a, int64_t a_step,
                                         const float *b, int64_t b_step, float *c, int64_t c_step,
                                         bool accumulate) {
    vfloat sum[BLOCK_ROWS][2];
    const float *a_rows[(BLOCK_ROWS + 2) / 3];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) sum[i][j] = (vfloat){0};
    }
#pragma GCC unroll 16
    for (int i = 0; i < (rows + 2) / 3; i++) a_rows[i] = a + 3 * i * a_step;
    for (int64_t k = 0; k < depth; k++) {
        vfloat b_vector[2];
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) b_vector[j] = vload(b + j * VECTOR_FLOATS);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            vfloat element = vset(a_by_columns ? a[i] : a_rows[i / 3][(i % 3) * a_step]);
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[i][j] += element * b_vector[j];
        }
        b += b_step;
        a += a_step;
#pragma GCC unroll 16
        for (int i = 0; i < (rows + 2) / 3; i++) a_rows[i]++;
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) {
            if (accumulate) sum[i][j] += vload(c + j * VECTOR_FLOATS);
            vstore(c + j * VECTOR_FLOATS, sum[i][j]);
        }
        c += c_step;
    }
}

/* One compiled loop for each number of rows. */
#define ROW_CASE(n)                                                                       \
    case n:                                                                               \
        multiply_block(n, vectors, a_by_columns, depth, a, a_step, b, b_step, c, c_step,  \
                       accumulate);                                                       \
        break;

static ALWAYS_INLINE void multiply_rows(int rows, const int vectors, const bool a_by_columns,
                                        int64_t depth, const float *a, int64_t a_step,
                                        const float *b, int64_t b_step, float *c, int64_t c_step,
                                        bool accumulate) {
    switch (rows) {
        ROW_CASE(1) ROW_CASE(2) ROW_CASE(3) ROW_CASE(4) ROW_CASE(5) ROW_CASE(6)
#if BLOCK_ROWS > 6
        ROW_CASE(7) ROW_CASE(8) ROW_CASE(9) ROW_CASE(10) ROW_CASE(11) ROW_CASE(12) ROW_CASE(13)
        ROW_CASE(14)
#endif
    }
}

typedef void multiply_function(int rows, int64_t depth, const float *a, int64_t a_step,
                               const float *b, int64_t b_step, float *c, int64_t c_step,
                               bool accumulate);

static void rows_wide(int rows, int64_t depth, const float *a, int64_t a_step, const float *b,
                      int64_t b_step, float *c, int64_t c_step, bool accumulate) {
    multiply_rows(rows, 2, false, depth, a, a_step, b, b_step, c, c_step, accumulate);
}
static void rows_narrow(int rows, int64_t depth, const float *a, int64_t a_step, const float *b,
                        int64_t b_step, float *c, int64_t c_step, bool accumulate) {
    multiply_rows(rows, 1, false, depth, a, a_step, b, b_step, c, c_step, accumulate);
}
static void columns_wide(int rows, int64_t depth, const float *a, int64_t a_step, const float *b,
                         int64_t b_step, float *c, int64_t c_step, bool accumulate) {
    multiply_rows(rows, 2, true, depth, a, a_step, b, b_step, c, c_step, accumulate);
}
static void columns_narrow(int rows, int64_t depth, const float *a, int64_t a_step, const float *b,
                           int64_t b_step, float *c, int64_t c_step, bool accumulate) {
    multiply_rows(rows, 1, true, depth, a, a_step, b, b_step, c, c_step, accumulate);
}

/* A panel narrower than its vectors is computed beside c, and the columns that exist are copied. */
static void multiply_part(multiply_function *multiply, int rows, int columns, int64_t depth,
                          const float *a, int64_t a_step, const float *b, int64_t b_step, float *c,
                          int64_t c_step, bool accumulate) {
    float whole[BLOCK_ROWS * BLOCK_COLUMNS];
    multiply(rows, depth, a, a_step, b, b_step, whole, BLOCK_COLUMNS, false);
    for (int i = 0; i < rows; i++) {
        const float *from = whole + i * BLOCK_COLUMNS;
        float *to = c + i * c_step;
        if (accumulate) {
            for (int j = 0; j < columns; j++) to[j] += from[j];
        } else {
            for (int j = 0; j < columns; j++) to[j] = from[j];
        }
    }
}

/* Rows are dealt out evenly: 16 rows are 8 + 8, since 14 + 2 would waste the second block. */
void KERNEL(product_panel)(int64_t rows, int columns, int64_t depth, const float *a,
                           int64_t a_step, bool a_by_columns, const float *b, int64_t b_step,
                           float *c, int64_t c_step, bool accumulate) {
    bool wide = columns > VECTOR_FLOATS;
    bool part = columns != VECTOR_FLOATS && columns != BLOCK_COLUMNS;
    multiply_function *multiply = a_by_columns ? (wide ? columns_wide : columns_narrow)
                                               : (wide ? rows_wide : rows_narrow);
    int64_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (; blocks > 0; blocks--) {
        int count = (int)((rows + blocks - 1) / blocks);
        if (part) {
            multiply_part(multiply, count, columns, depth, a, a_step, b, b_step, c, c_step,
                          accumulate);
        } else {
            multiply(count, depth, a, a_step, b, b_step, c, c_step, accumulate);
        }
        a += a_by_columns ? count : count * a_step;
        c += count * c_step;
        rows -= count;
    }
}
