/* conv_pack.c: copies into panels, sums of columns, and the table of convolution kernels. */
#include "core/kernels/conv_kernels.h"
#include "core/kernels/conv_names.h"
#include "core/kernels/kernel.h"
#include "core/kernels/product_block.h"

/* Where a part of each row is read, the processor does not foresee what comes: so many rows. */
enum { ROWS_AHEAD = 16 };

static void pack_rows(int64_t rows, int64_t columns, const float *from, int64_t from_step,
                      float *to, int64_t width) {
    int64_t ahead = columns < from_step ? ROWS_AHEAD * from_step : floats_ahead(from_step);
    for (int64_t i = 0; i < rows; i++) {
        int64_t j = 0;
        for (; j + VECTOR_FLOATS <= columns; j += VECTOR_FLOATS) {
            __builtin_prefetch(from + j + ahead);
            vstore(to + j, vload(from + j));
        }
        if (j < width) {
            vstore(to + j, (vfloat){0});
            for (int64_t k = j; k < columns; k++) to[k] = from[k];
            for (j += VECTOR_FLOATS; j < width; j += VECTOR_FLOATS) vstore(to + j, (vfloat){0});
        }
        from += from_step;
        to += width;
    }
}

/* The first and the second halves of two vectors, their elements in turn. */
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t vindex __attribute__((vector_size(VECTOR_FLOATS * 4)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vindex){__VA_ARGS__})
#endif
static inline vfloat interleave_first(vfloat a, vfloat b) {
#if VECTOR_FLOATS == 16
    return SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif VECTOR_FLOATS == 8
    return SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return SHUFFLE(a, b, 0, 4, 1, 5);
#endif
}
static inline vfloat interleave_second(vfloat a, vfloat b) {
#if VECTOR_FLOATS == 16
    return SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif VECTOR_FLOATS == 8
    return SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return SHUFFLE(a, b, 2, 6, 3, 7);
#endif
}

/* A square as wide as a vector, in registers: after log2(width) rounds in which row i and row
 * i + width / 2 are interleaved, rows are columns (a perfect shuffle of the bits of the index).
 * So many rows at a time are more than the processor fetches ahead of itself. */
static inline void transpose_square(const float *from, int64_t from_step, float *to,
                                    int64_t width) {
    enum { HALF = VECTOR_FLOATS / 2, AHEAD = 64 };
    vfloat row[VECTOR_FLOATS], next[VECTOR_FLOATS];
    UNROLL
    for (int i = 0; i < VECTOR_FLOATS; i++) {
        row[i] = vload(from + i * from_step);
        __builtin_prefetch(from + i * from_step + AHEAD);
    }
    UNROLL
    for (int round = 1; round < VECTOR_FLOATS; round *= 2) {
        UNROLL
        for (int i = 0; i < HALF; i++) {
            next[2 * i] = interleave_first(row[i], row[i + HALF]);
            next[2 * i + 1] = interleave_second(row[i], row[i + HALF]);
        }
        UNROLL
        for (int i = 0; i < VECTOR_FLOATS; i++) row[i] = next[i];
    }
    UNROLL
    for (int i = 0; i < VECTOR_FLOATS; i++) vstore(to + i * width, row[i]);
}

/* By squares; what is left over at the ends goes one by one. */
static void pack_transposed(int64_t rows, int64_t columns, const float *from, int64_t from_step,
                            float *to, int64_t width) {
    for (int64_t i = 0; i < rows; i += VECTOR_FLOATS) {
        int64_t i_end = rows - i < VECTOR_FLOATS ? rows : i + VECTOR_FLOATS;
        for (int64_t j = 0; j < width; j += VECTOR_FLOATS) {
            if (i + VECTOR_FLOATS <= rows && j + VECTOR_FLOATS <= columns) {
                transpose_square(from + j * from_step + i, from_step, to + i * width + j, width);
                continue;
            }
            for (int64_t k = i; k < i_end; k++) {
                for (int64_t l = j; l < j + VECTOR_FLOATS; l++) {
                    to[k * width + l] = l < columns ? from[l * from_step + k] : 0;
                }
            }
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

typedef int32_t vlanes __attribute__((vector_size(VECTOR_FLOATS * 4)));

void KERNEL(add_patches)(int64_t pixels, int64_t runs, int64_t length, const float *from,
                         int64_t from_step, float *to, int64_t to_row, int64_t to_step) {
    int64_t whole = length - length % VECTOR_FLOATS;
    vlanes used;
    for (int l = 0; l < VECTOR_FLOATS; l++) used[l] = whole + l < length ? -1 : 0;
    /* Runs inside: neighbouring pixels add to the same floats, which takes a while to be seen. */
    for (int64_t i = 0; i < pixels; i++) {
        for (int64_t r = 0; r < runs; r++) {
            const float *patch = from + i * from_step + r * length;
            float *place = to + i * to_step + r * to_row;
            for (int64_t j = 0; j < whole; j += VECTOR_FLOATS) {
                vstore(place + j, vload(place + j) + vload(patch + j));
            }
            if (whole == length) continue;
            vlanes last = (vlanes)vload(patch + whole) & used;
            vstore(place + whole, vload(place + whole) + (vfloat)last);
        }
    }
}

extern const conv_kernels KERNEL(conv);
const conv_kernels KERNEL(conv) = {
    .vector = VECTOR_FLOATS,
    .block_rows = BLOCK_ROWS,
    .block_columns = BLOCK_COLUMNS,
    .product = KERNEL(product_panel),
    .product_ahead = KERNEL(product_ahead),
    .product_segments = KERNEL(product_segments),
    .product_fetch = KERNEL(product_fetch),
    .few_rows = KERNEL(few_rows),
    .few_dots = KERNEL(few_dots),
    .few_outer = KERNEL(few_outer),
    .pack = KERNEL(pack),
    .strassen_sums = KERNEL(strassen_sums),
    .strassen_block = KERNEL(strassen_block),
    .add_patches = KERNEL(add_patches),
    .normalize = KERNEL(normalize),
    .normalize_sum = KERNEL(normalize_sum),
    .finish = KERNEL(finish),
    .fold_norm = KERNEL(fold_norm),
    .norm_gradient = KERNEL(norm_gradient),
    .column_sums = KERNEL(column_sums),
    .winograd_input = KERNEL(winograd_input),
    .winograd_output = KERNEL(winograd_output),
    .winograd_gradient = KERNEL(winograd_gradient),
    .winograd_weights = KERNEL(winograd_weights),
    .few_columns = VECTOR_FLOATS == 16 ? 2 * VECTOR_FLOATS : VECTOR_FLOATS,
    .winograd_few = KERNEL(winograd_few),
    .winograd_weights_gradient = KERNEL(winograd_weights_gradient),
    .phases_source = KERNEL(phases_source),
    .phases_tiles = PHASES_TILES,
    .phases_row = KERNEL(phases_row),
    .phases_gradient = KERNEL(phases_gradient),
    .phases_finish = KERNEL(phases_finish),
    .phases_weights = KERNEL(phases_weights),
    .phases_weights_gradient = KERNEL(phases_weights_gradient),
    .strided_transform = KERNEL(strided_transform),
    .strided_result = KERNEL(strided_result),
    .grouped_shuffles = VECTOR_FLOATS > 4,
    .grouped_rows = KERNEL(grouped_rows),
    .grouped_gradient = KERNEL(grouped_gradient),
    .grouped_copy = KERNEL(grouped_copy),
    .grouped_spread = KERNEL(grouped_spread),
};
