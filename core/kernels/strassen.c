/* strassen.c: sums of quarters, and Strassen's seven products of them (conv_strassen.c has the
 * formulas). */
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"
#include "core/kernels/product_block.h"

void KERNEL(strassen_sums)(int64_t rows, int64_t columns, float sign, const float *const x[4],
                           int64_t x_step, float *to, int64_t to_step, int64_t plane) {
    const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j += VECTOR_FLOATS) {
            int64_t at = i * x_step + j;
            vfloat first = vload(x0 + at) * sign, third = vload(x2 + at) * sign;
            vfloat sum = third + vload(x3 + at), second = vload(x1 + at);
            float *sums = to + i * to_step + j;
            vstore(sums, sum - first);
            vstore(sums + plane, sum);
            vstore(sums + 2 * plane, second - (sum - first));
            vstore(sums + 3 * plane, first - third);
        }
    }
}

/* Adds what was kept of the products and writes a row of each quarter. */
static void write_row(const strassen_block *block, const float *kept, int row) {
    enum { BLOCK = BLOCK_ROWS * BLOCK_COLUMNS };
    for (int j = 0; j < BLOCK_COLUMNS; j += VECTOR_FLOATS) {
        const float *from = kept + row * BLOCK_COLUMNS + j;
        vfloat sum[4] = {vload(from) + vload(from + 6 * BLOCK),
                         vload(from + BLOCK) + vload(from + 5 * BLOCK), vload(from + 3 * BLOCK),
                         vload(from + 2 * BLOCK) + vload(from + 4 * BLOCK)};
        UNROLL
        for (int i = 0; i < 4; i++) {
            float *to = block->c[i] + row * block->c_step + j;
            __builtin_prefetch(to + 5 * block->c_step, 1);
            vstore(to, block->accumulate ? vload(to) + sum[i] : sum[i]);
        }
    }
}

static ALWAYS_INLINE void fetch_rows(const strassen_block *block, int quarter) {
    const float *c = block->c[quarter];
    for (int i = 0; i < BLOCK_ROWS; i++, c += block->c_step) {
        __builtin_prefetch(c);
        __builtin_prefetch(c + VECTOR_FLOATS);
    }
}

/* The loop of product.c's multiply_block. The first four products are added up in registers, and so
 * are the next two. */
void KERNEL(strassen_block)(const strassen_block *block) {
    float kept[STRASSEN_PRODUCTS * BLOCK_ROWS * BLOCK_COLUMNS], *keep = kept;
    const float *b = block->b, *fetch_a = block->fetch.at[0], *fetch_b = block->fetch.at[1];
    const float *fetch_c = block->fetch.at[2];
    vfloat sum[BLOCK_ROWS][2] = {{{0}}};
    for (int product = 0; product < STRASSEN_PRODUCTS; product++) {
        const float *a_rows[(BLOCK_ROWS + 2) / 3];
        int64_t a_step = block->a_step[product];
        UNROLL
        for (int i = 0; i < (BLOCK_ROWS + 2) / 3; i++)
            a_rows[i] = block->a[product] + 3 * i * a_step;
        if (product < 4) fetch_rows(block, product);
        if (product > 3 && product % 2 == 0) {
            UNROLL
            for (int i = 0; i < BLOCK_ROWS; i++) sum[i][0] = sum[i][1] = (vfloat){0};
        }
        for (int64_t k = 0; k < block->depth; k++) {
            vfloat left = vload(b), right = vload(b + VECTOR_FLOATS);
            __builtin_prefetch(fetch_a, 0, 2);
            __builtin_prefetch(fetch_b, 0, 2);
            __builtin_prefetch(fetch_c, 0, 2);
            fetch_a += block->fetch.step[0];
            fetch_b += block->fetch.step[1];
            fetch_c += block->fetch.step[2];
            UNROLL
            for (int i = 0; i < BLOCK_ROWS; i++) {
                vfloat element = vset(a_rows[i / 3][(i % 3) * a_step]);
                sum[i][0] += element * left;
                sum[i][1] += element * right;
            }
            b += BLOCK_COLUMNS;
            UNROLL
            for (int i = 0; i < (BLOCK_ROWS + 2) / 3; i++) a_rows[i]++;
        }
        UNROLL
        for (int i = 0; i < BLOCK_ROWS; i++, keep += BLOCK_COLUMNS) {
            vstore(keep, sum[i][0]);
            vstore(keep + VECTOR_FLOATS, sum[i][1]);
        }
    }
    for (int i = 0; i < BLOCK_ROWS; i++) write_row(block, kept, i);
}
