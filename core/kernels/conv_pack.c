/* conv_pack.c: copies into panels, sums of columns, and the table of convolution kernels. */
#include "core/kernels/conv_kernels.h"
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"
#include "core/kernels/product_block.h"

static void pack_rows(int64_t rows, int64_t columns, const float *from, int64_t from_step,
                      float *to, int64_t width) {
    for (int64_t i = 0; i < rows; i++) {
        int64_t j = 0;
        for (; j + VECTOR_FLOATS <= columns; j += VECTOR_FLOATS) vstore(to + j, vload(from + j));
        if (j < width) {
            vstore(to + j, (vfloat){0});
            for (int64_t k = j; k < columns; k++) to[k] = from[k];
            for (j += VECTOR_FLOATS; j < width; j += VECTOR_FLOATS) vstore(to + j, (vfloat){0});
        }
        from += from_step;
        to += width;
    }
}

/* Transposes by squares of 16, so that what is read and written stays in the first-level cache. */
static void pack_transposed(int64_t rows, int64_t columns, const float *from, int64_t from_step,
                            float *to, int64_t width) {
    enum { SQUARE = 16 };
    for (int64_t i = 0; i < rows; i += SQUARE) {
        int64_t i_end = rows - i < SQUARE ? rows : i + SQUARE;
        for (int64_t j = 0; j < columns; j += SQUARE) {
            int64_t j_end = columns - j < SQUARE ? columns : j + SQUARE;
            for (int64_t k = i; k < i_end; k++) {
                for (int64_t l = j; l < j_end; l++) to[k * width + l] = from[l * from_step + k];
            }
        }
        for (int64_t k = i; k < i_end; k++) {
            for (int64_t l = columns; l < width; l++) to[k * width + l] = 0;
        }
    }
}

void KERNEL(pack)(int64_t rows, int64_t columns, const float *from, int64_t from_step,
                  bool transposed, float *to, int64_t width) {
    if (transposed) {
        pack_transposed(rows, columns, from, from_step, to, width);
    } else {
        pack_rows(rows, columns, from, from_step, to, width);
    }
}

void KERNEL(column_sums)(int64_t rows, int64_t columns, const float *a, int64_t a_step, float *sums,
                         bool accumulate) {
    int64_t j = 0;
    for (; j + VECTOR_FLOATS <= columns; j += VECTOR_FLOATS) {
        vfloat even = accumulate ? vload(sums + j) : (vfloat){0}, odd = {0};
        int64_t i = 0;
        for (; i + 2 <= rows; i += 2) {
            even += vload(a + i * a_step + j);
            odd += vload(a + (i + 1) * a_step + j);
        }
        if (i < rows) even += vload(a + i * a_step + j);
        vstore(sums + j, even + odd);
    }
    for (; j < columns; j++) {
        float sum = accumulate ? sums[j] : 0;
        for (int64_t i = 0; i < rows; i++) sum += a[i * a_step + j];
        sums[j] = sum;
    }
}

extern const conv_kernels KERNEL(conv);
const conv_kernels KERNEL(conv) = {
    .vector = VECTOR_FLOATS,
    .block_rows = BLOCK_ROWS,
    .block_columns = BLOCK_COLUMNS,
    .product = KERNEL(product_panel),
    .product_segments = KERNEL(product_segments),
    .pack = KERNEL(pack),
    .column_sums = KERNEL(column_sums),
    .winograd_input = KERNEL(winograd_input),
    .winograd_output = KERNEL(winograd_output),
    .winograd_gradient = KERNEL(winograd_gradient),
    .winograd_weights = KERNEL(winograd_weights),
    .winograd_weights_gradient = KERNEL(winograd_weights_gradient),
    .grouped_spread = KERNEL(grouped_spread),
    .grouped_product = KERNEL(grouped_product),
};
