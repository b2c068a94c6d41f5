/* product.c: the matrix product of one panel, the inner loop of the convolutions and of the packed
 * product.
 *
 * Block of the register file: BLOCK_ROWS x 2 vectors of sums, 2 vectors of b and one broadcast
 * element of a: 31 of the 32 registers of AVX-512, 15 of 16 elsewhere. */
#include "core/kernels/kernel.h"
#include "core/kernels/conv_names.h"
#include "core/kernels/product_block.h"

/* Floats that product_ahead fetches for each step along the depth: a line of a, and of b so much
 * that eight blocks of rows fetch the whole panel behind theirs. */
enum { AHEAD_A = 16, AHEAD_B = BLOCK_COLUMNS / 8 };

/* What the blocks of one product have in common (conv_kernels.h names them). */
typedef struct product_shape {
    int64_t depth, segments;
    int64_t a_step, a_segment, b_step, b_segment, c_step;
    bool accumulate;
    const conv_epilogue *epilogue; /* or NULL; */
    const float *shortcut;         /* its shortcut for the block, or NULL */
    conv_fetch fetch;  /* what is fetched ahead */
    int64_t fetch_row; /* not 0: fetch.at[0] jumps so far for each row of a block instead */
} product_shape;

/* Loops that fetch ahead for at least so many rows of a whole panel apply the epilogue to the sums
 * in registers; the others to a copy of them: less code. */
enum { FINISHED_ROWS = VECTOR_FLOATS == 16 ? BLOCK_ROWS - 1 : BLOCK_ROWS + 1 };

/* Writes the sums of a wide block with the epilogue applied. Where there is no shortcut, each row
 * adds the same zeros. */
static ALWAYS_INLINE void finish_block(const int rows, const product_shape *shape,
                                       vfloat sum[BLOCK_ROWS][2], float *c) {
    static const float zeros[BLOCK_COLUMNS];
    const conv_epilogue *epilogue = shape->epilogue;
    vfloat floor = vset(epilogue->relu ? 0 : -__builtin_inff());
    int64_t step = shape->shortcut ? shape->c_step : 0;
    if (shape->accumulate) {
        UNROLL
        for (int i = 0; i < rows; i++) {
            sum[i][0] += vload(c + i * shape->c_step);
            sum[i][1] += vload(c + i * shape->c_step + VECTOR_FLOATS);
        }
    }
    UNROLL
    for (int j = 0; j < 2; j++) {
        vfloat scale = vload(epilogue->scale + j * VECTOR_FLOATS);
        vfloat shift = vload(epilogue->shift + j * VECTOR_FLOATS);
        const float *add = (shape->shortcut ? shape->shortcut : zeros) + j * VECTOR_FLOATS;
        float *to = c + j * VECTOR_FLOATS;
        UNROLL
        for (int i = 0; i < rows; i++) {
            vstore(to, not_below(floor, sum[i][j] * scale + shift + vload(add)));
            add += step;
            to += shape->c_step;
        }
    }
}

/* One block: rows x vectors of sums. The number of rows and vectors, and whether a lies by rows or
 * by columns, are constants at every call, so that the sums stay in registers. Rows of a are
 * addressed three to a pointer (p, p + step, p + 2 step), which the processor does in the load; a
 * pointer for each row would not fit the integer registers. */
static ALWAYS_INLINE void multiply_block(const int rows, const int vectors, const bool a_by_columns,
                                         const bool ahead, const product_shape *shape,
                                         const float *a, const float *b, float *c) {
    vfloat sum[BLOCK_ROWS][2];
    int64_t depth = shape->depth, a_step = shape->a_step, b_step = shape->b_step;
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) sum[i][j] = (vfloat){0};
    }
    const float *fetch_a = shape->fetch.at[0], *fetch_b = shape->fetch.at[1];
    const float *fetch_c = shape->fetch.at[2];
    UNROLL
    for (int i = 0; ahead && i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            __builtin_prefetch(c + i * shape->c_step + j * VECTOR_FLOATS);
        }
    }
    for (int64_t segment = 0; segment < shape->segments; segment++) {
        const float *column = a + segment * shape->a_segment, *b_row = b;
        const float *a_rows[(BLOCK_ROWS + 2) / 3];
        b_row += segment * shape->b_segment;
        UNROLL
        for (int i = 0; i < (rows + 2) / 3; i++) a_rows[i] = column + 3 * i * a_step;
        for (int64_t k = 0; k < depth; k++) {
            vfloat b_vector[2];
            UNROLL
            for (int j = 0; j < vectors; j++) b_vector[j] = vload(b_row + j * VECTOR_FLOATS);
            if (ahead) {
                __builtin_prefetch(fetch_a, 0, 2);
                __builtin_prefetch(fetch_b, 0, 2);
                __builtin_prefetch(fetch_c, 0, 2);
                fetch_a += shape->fetch.step[0];
                fetch_b += shape->fetch.step[1];
                fetch_c += shape->fetch.step[2];
            }
            UNROLL
            for (int i = 0; i < rows; i++) {
                vfloat element = vset(a_by_columns ? column[i] : a_rows[i / 3][(i % 3) * a_step]);
                UNROLL
                for (int j = 0; j < vectors; j++) sum[i][j] += element * b_vector[j];
            }
            b_row += b_step;
            column += a_step;
            UNROLL
            for (int i = 0; i < (rows + 2) / 3; i++) a_rows[i]++;
        }
    }
    if (rows >= FINISHED_ROWS && vectors == 2 && ahead && !a_by_columns && shape->epilogue) {
        finish_block(rows, shape, sum, c);
        return;
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            if (shape->accumulate) sum[i][j] += vload(c + j * VECTOR_FLOATS);
            vstore(c + j * VECTOR_FLOATS, sum[i][j]);
        }
        c += shape->c_step;
    }
}

/* Loops that fetch ahead are there for at least so many rows: more than a block has no fewer. */
enum { AHEAD_ROWS = BLOCK_ROWS / 2 };

/* One compiled loop for each number of rows. */
#define ROW_CASE(n)                                                          \
    case n:                                                                  \
        if (n >= AHEAD_ROWS || !ahead)                                       \
            multiply_block(n, vectors, a_by_columns, ahead, shape, a, b, c); \
        break;

static ALWAYS_INLINE void multiply_rows(int rows, const int vectors, const bool a_by_columns,
                                        const bool ahead, const product_shape *shape,
                                        const float *a, const float *b, float *c) {
    switch (rows) {
        ROW_CASE(1) ROW_CASE(2) ROW_CASE(3) ROW_CASE(4) ROW_CASE(5) ROW_CASE(6)
#if BLOCK_ROWS > 6
        ROW_CASE(7) ROW_CASE(8) ROW_CASE(9) ROW_CASE(10) ROW_CASE(11) ROW_CASE(12) ROW_CASE(13)
        ROW_CASE(14)
#endif
    }
}

typedef void multiply_function(int rows, const product_shape *shape, const float *a, const float *b,
                               float *c);

static void rows_wide(int rows, const product_shape *shape, const float *a, const float *b,
                      float *c) {
    multiply_rows(rows, 2, false, false, shape, a, b, c);
}
static void rows_narrow(int rows, const product_shape *shape, const float *a, const float *b,
                        float *c) {
    multiply_rows(rows, 1, false, false, shape, a, b, c);
}
static void columns_wide(int rows, const product_shape *shape, const float *a, const float *b,
                         float *c) {
    multiply_rows(rows, 2, true, false, shape, a, b, c);
}
static void columns_narrow(int rows, const product_shape *shape, const float *a, const float *b,
                           float *c) {
    multiply_rows(rows, 1, true, false, shape, a, b, c);
}
static void rows_ahead(int rows, const product_shape *shape, const float *a, const float *b,
                       float *c) {
    multiply_rows(rows, 2, false, true, shape, a, b, c);
}
static void rows_narrow_ahead(int rows, const product_shape *shape, const float *a, const float *b,
                              float *c) {
    multiply_rows(rows, 1, false, true, shape, a, b, c);
}
static void columns_ahead(int rows, const product_shape *shape, const float *a, const float *b,
                          float *c) {
    multiply_rows(rows, 2, true, true, shape, a, b, c);
}

/* A panel narrower than its vectors is computed beside c, and the columns that exist are copied; an
 * epilogue that is not applied in registers is applied on that way. */
static void multiply_beside(multiply_function *multiply, int rows, int columns,
                            const product_shape *shape, const float *a, const float *b, float *c) {
    float whole[BLOCK_ROWS * BLOCK_COLUMNS];
    product_shape beside = *shape;
    beside.c_step = BLOCK_COLUMNS;
    beside.accumulate = false;
    beside.epilogue = NULL;
    multiply(rows, &beside, a, b, whole);
    if (shape->accumulate) {
        for (int i = 0; i < rows; i++) {
            float *sums = whole + i * BLOCK_COLUMNS;
            for (int j = 0; j < columns; j++) sums[j] += c[i * shape->c_step + j];
        }
    }
    if (shape->epilogue) {
        conv_epilogue epilogue = *shape->epilogue;
        epilogue.shortcut = shape->shortcut;
        KERNEL(finish)(rows, columns, whole, BLOCK_COLUMNS, &epilogue, c, shape->c_step);
        return;
    }
    for (int i = 0; i < rows; i++) {
        const float *from = whole + i * BLOCK_COLUMNS;
        float *to = c + i * shape->c_step;
        for (int j = 0; j < columns; j++) to[j] = from[j];
    }
}

static multiply_function *choose_function(bool wide, bool a_by_columns, bool ahead) {
    if (ahead && !a_by_columns) return wide ? rows_ahead : rows_narrow_ahead;
    if (ahead && wide) return columns_ahead;
    if (a_by_columns) return wide ? columns_wide : columns_narrow;
    return wide ? rows_wide : rows_narrow;
}

/* The shortcut of the block that is multiplied next. */
static ALWAYS_INLINE void fetch_shortcut(const product_shape *shape, int rows, int columns) {
    for (int i = 0; i < rows; i++) {
        __builtin_prefetch(shape->shortcut + i * shape->c_step);
        __builtin_prefetch(shape->shortcut + i * shape->c_step + columns - 1);
    }
}

/* Rows are dealt out evenly: 16 rows are 8 + 8, since 14 + 2 would waste the second block. */
static void multiply_panel(int64_t rows, int columns, bool a_by_columns, bool ahead,
                           product_shape *shape, const float *a, const float *b, float *c) {
    bool part = columns != VECTOR_FLOATS && columns != BLOCK_COLUMNS;
    ahead = ahead && rows >= AHEAD_ROWS;
    multiply_function *multiply = choose_function(columns > VECTOR_FLOATS, a_by_columns, ahead);
    int64_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (; blocks > 0; blocks--) {
        int count = (int)((rows + blocks - 1) / blocks);
        if (shape->shortcut) fetch_shortcut(shape, count, columns);
        bool finished = ahead && count >= FINISHED_ROWS && !a_by_columns;
        if (part || (shape->epilogue && !(finished && columns == BLOCK_COLUMNS))) {
            multiply_beside(multiply, count, columns, shape, a, b, c);
        } else {
            multiply(count, shape, a, b, c);
        }
        if (shape->shortcut) shape->shortcut += count * shape->c_step;
        for (int i = 0; ahead && i < FETCHES; i++) {
            bool by_rows = i == 0 && shape->fetch_row;
            shape->fetch.at[i] += by_rows ? count * shape->fetch_row : shape->fetch.jump[i];
        }
        a += a_by_columns ? count : count * shape->a_step;
        c += count * shape->c_step;
        rows -= count;
    }
}

void KERNEL(product_panel)(int64_t rows, int columns, int64_t depth, const float *a,
                           int64_t a_step, bool a_by_columns, const float *b, int64_t b_step,
                           float *c, int64_t c_step, bool accumulate) {
#if VECTOR_FLOATS == 16
    if (columns == VECTOR_FLOATS && a_step == VECTOR_FLOATS && b_step == VECTOR_FLOATS &&
        c_step == VECTOR_FLOATS) {
        if (!a_by_columns && depth == VECTOR_FLOATS && !accumulate) {
            KERNEL(product_narrow)(rows, a, b, c);
            return;
        }
        if (a_by_columns && rows == VECTOR_FLOATS) {
            KERNEL(product_narrow_columns)(depth, a, b, c, accumulate);
            return;
        }
    }
#endif
    product_shape shape = {.depth = depth, .segments = 1, .a_step = a_step, .b_step = b_step,
                           .c_step = c_step, .accumulate = accumulate};
    multiply_panel(rows, columns, a_by_columns, false, &shape, a, b, c);
}

void KERNEL(product_ahead)(int64_t rows, int columns, int64_t depth, const float *a,
                           int64_t a_step, bool a_by_columns, const float *b, int64_t b_step,
                           float *c, int64_t c_step, bool accumulate) {
    product_shape shape = {.depth = depth, .segments = 1, .a_step = a_step, .b_step = b_step,
                           .c_step = c_step, .accumulate = accumulate};
    shape.fetch = (conv_fetch){{a + (a_by_columns ? depth : BLOCK_ROWS) * a_step,
                                b + depth * b_step, b}, {AHEAD_A, AHEAD_B, 0},
                               {depth * AHEAD_A, depth * AHEAD_B, 0}};
    if (!a_by_columns) shape.fetch_row = a_step;
    multiply_panel(rows, columns, a_by_columns, true, &shape, a, b, c);
}

void KERNEL(product_segments)(int64_t segments, int64_t a_segment, int64_t b_segment, int64_t rows,
                              int columns, int64_t depth, const float *a, int64_t a_step,
                              bool a_by_columns, const float *b, int64_t b_step, float *c,
                              int64_t c_step, bool accumulate, const conv_epilogue *epilogue) {
    product_shape shape = {.depth = depth, .segments = segments, .a_step = a_step,
                           .a_segment = a_segment, .b_step = b_step, .b_segment = b_segment,
                           .c_step = c_step, .accumulate = accumulate,
                           .epilogue = epilogue,
                           .shortcut = epilogue ? epilogue->shortcut : NULL};
    /* Only the loops that fetch ahead apply an epilogue in registers; here they fetch nothing. */
    if (epilogue) shape.fetch = (conv_fetch){{b, b, b}, {0}, {0}};
    multiply_panel(rows, columns, a_by_columns, epilogue != NULL, &shape, a, b, c);
}

void KERNEL(product_fetch)(int64_t segments, int64_t a_segment, int64_t b_segment, int64_t rows,
                           int columns, int64_t depth, const float *a, int64_t a_step,
                           bool a_by_columns, const float *b, int64_t b_step, float *c,
                           int64_t c_step, bool accumulate, const conv_fetch *fetch,
                           const conv_epilogue *epilogue) {
    product_shape shape = {.depth = depth, .segments = segments, .a_step = a_step,
                           .a_segment = a_segment, .b_step = b_step, .b_segment = b_segment,
                           .c_step = c_step, .accumulate = accumulate, .epilogue = epilogue,
                           .shortcut = epilogue ? epilogue->shortcut : NULL, .fetch = *fetch};
    multiply_panel(rows, columns, a_by_columns, true, &shape, a, b, c);
}
