/* product.c: the packed matrix product.
 *
 * b is packed into panels as wide as the register block (unless there is one block of rows only).
 * A piece takes a block of rows and a group of panels; it goes through the depth in chunks, so that
 * a chunk of a panel stays in the first-level cache and the block of a in the second, where it is
 * copied if its rows lie far apart (rows a power of two apart would share few places of a cache).
 * A small result of a deep product is cut along the depth into partial results, added in order. */
#include "core/ops/product.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/conv_call.h"
#include "core/ops/product_call.h"

#include <string.h>

enum {
    ROW_BLOCKS = 8,       /* register blocks of rows in a piece, at most */
    CHUNK_DEPTH = 320,
    FAR_ROWS = 256,       /* floats between rows of a from which they are copied */
    ENOUGH_PIECES = 64,
    PART_DEPTH = 1024,    /* depth of a partial result, at least */
    MAXIMUM_PARTS = 32,
    LINE = 16
};

typedef struct product_plan {
    const product_call *call;
    bool pack_b, pack_a;
    int64_t panels, packed_size;          /* panels of one matrix, floats of them packed */
    int64_t row_blocks, panel_groups;     /* how the result is cut */
    int64_t parts;                        /* how the depth is cut */
    int64_t block_rows, chunk_size;
    float *packed_b, *chunks, *partial;
} product_plan;

static int64_t panel_columns(const product_plan *plan, int64_t panel) {
    int64_t width = plan->call->kernels->block_columns;
    return conv_min(width, plan->call->n - panel * width);
}

static const float *matrix_b(const product_plan *plan, int64_t matrix) {
    return plan->call->b + matrix * plan->call->step_b;
}

/* Where a panel of b is packed; panels that are whole vectors wide can be read as they lie. */
static float *packed_panel(const product_plan *plan, int64_t matrix, int64_t panel) {
    const product_call *call = plan->call;
    if (!plan->pack_b) return plan->packed_b + matrix * plan->packed_size;
    return plan->packed_b + matrix * plan->packed_size +
           panel * call->kernels->block_columns * call->k;
}

static bool is_packed(const product_plan *plan, int64_t panel) {
    return plan->pack_b || panel_columns(plan, panel) % plan->call->kernels->vector != 0;
}

static int64_t depth_pieces(const product_call *call) { return conv_divide_up(call->k, 256); }

static void pack_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const product_plan *plan = argument;
    const product_call *call = plan->call;
    int64_t pieces = depth_pieces(call), first, last;
    int64_t panel = piece / pieces % plan->panels, matrix = piece / pieces / plan->panels;
    if (!is_packed(plan, panel)) return;
    resin_piece_bounds(call->k, pieces, piece % pieces, &first, &last);
    int64_t columns = panel_columns(plan, panel);
    int64_t width = conv_round_up(columns, call->kernels->vector);
    int64_t column = panel * call->kernels->block_columns;
    const float *from = matrix_b(plan, matrix) + (call->transpose_b ? column * call->ldb + first
                                                                    : first * call->ldb + column);
    call->kernels->pack(last - first, columns, from, call->ldb, call->transpose_b,
                        packed_panel(plan, matrix, panel) + first * width, width);
}

/* One chunk of the depth of one block of rows, times a group of panels. */
static void multiply_chunk(const product_plan *plan, int64_t matrix, const float *a, int64_t a_step,
                           int64_t rows, int64_t depth_first, int64_t depth, int64_t panel,
                           int64_t panel_last, float *c, int64_t ldc, bool accumulate) {
    const product_call *call = plan->call;
    for (; panel < panel_last; panel++) {
        int64_t columns = panel_columns(plan, panel), b_step = call->ldb;
        const float *b;
        if (is_packed(plan, panel)) {
            b_step = conv_round_up(columns, call->kernels->vector);
            b = packed_panel(plan, matrix, panel);
        } else {
            b = matrix_b(plan, matrix) + panel * call->kernels->block_columns;
        }
        call->kernels->product(rows, (int)columns, depth, a, a_step, call->transpose_a,
                               b + depth_first * b_step, b_step,
                               c + panel * call->kernels->block_columns, ldc, accumulate);
    }
}

static void multiply_piece(void *argument, int64_t piece, int worker) {
    const product_plan *plan = argument;
    const product_call *call = plan->call;
    int64_t group = piece % plan->panel_groups, rest = piece / plan->panel_groups;
    int64_t block = rest % plan->row_blocks, part = rest / plan->row_blocks % plan->parts;
    int64_t matrix = rest / plan->row_blocks / plan->parts;
    int64_t row, row_last, panel, panel_last, first, last;
    resin_piece_bounds(call->m, plan->row_blocks, block, &row, &row_last);
    resin_piece_bounds(plan->panels, plan->panel_groups, group, &panel, &panel_last);
    resin_piece_bounds(call->k, plan->parts, part, &first, &last);

    bool accumulate = call->accumulate;
    int64_t ldc = call->ldc, rows = row_last - row;
    float *c = call->c + matrix * call->step_c + row * ldc;
    if (plan->parts > 1) {
        ldc = call->n;
        c = plan->partial + ((matrix * plan->parts + part) * call->m + row) * ldc;
        accumulate = false;
    }
    float *copy = plan->chunks + worker * plan->chunk_size;
    for (int64_t depth = first; depth < last; depth += CHUNK_DEPTH) {
        int64_t some = conv_min(CHUNK_DEPTH, last - depth), a_step = call->lda;
        const float *a = call->a + matrix * call->step_a +
                         (call->transpose_a ? depth * call->lda + row : row * call->lda + depth);
        if (plan->pack_a) {
            int64_t columns = call->transpose_a ? rows : some;
            a_step = conv_round_up(columns, LINE) + LINE;
            call->kernels->pack(call->transpose_a ? some : rows, columns, a, call->lda, false, copy,
                                a_step);
            a = copy;
        }
        multiply_chunk(plan, matrix, a, a_step, rows, depth, some, panel, panel_last, c, ldc,
                       accumulate || depth > first);
    }
}

static void add_parts_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const product_plan *plan = argument;
    const product_call *call = plan->call;
    int64_t matrix = piece / call->m, row = piece % call->m;
    call->kernels->column_sums(plan->parts, call->n,
                               plan->partial + (matrix * plan->parts * call->m + row) * call->n,
                               call->m * call->n, call->c + matrix * call->step_c + row * call->ldc,
                               call->accumulate);
}

static void cut(product_plan *plan) {
    const product_call *call = plan->call;
    const conv_kernels *kernels = call->kernels;
    plan->panels = conv_divide_up(call->n, kernels->block_columns);
    plan->row_blocks = conv_divide_up(call->m, ROW_BLOCKS * kernels->block_rows);
    plan->block_rows = conv_divide_up(call->m, plan->row_blocks);
    int64_t pieces = call->batch * plan->row_blocks;
    plan->panel_groups = conv_min(plan->panels, conv_divide_up(ENOUGH_PIECES, pieces));
    pieces *= plan->panel_groups;
    plan->parts = 1;
    if (pieces < ENOUGH_PIECES / 4 && call->k >= 4 * PART_DEPTH) {
        plan->parts = conv_min(call->k / PART_DEPTH, MAXIMUM_PARTS);
    }
    plan->pack_b = call->transpose_b || call->m > kernels->block_rows;
    plan->packed_size = call->k * (plan->pack_b ? plan->panels * kernels->block_columns
                                                : kernels->block_columns);
    plan->pack_a = call->lda >= FAR_ROWS && plan->panels >= 4;
    plan->chunk_size = conv_max(CHUNK_DEPTH * (conv_round_up(plan->block_rows, LINE) + LINE),
                                plan->block_rows * (CHUNK_DEPTH + 2 * LINE));
}

static resin_status run(resin_context *context, product_plan *plan) {
    const product_call *call = plan->call;
    int64_t packed = call->batch;
    bool any_packed = plan->pack_b || is_packed(plan, plan->panels - 1);
    if (any_packed) RESIN_TRY(conv_reserve(context, packed, plan->packed_size, &plan->packed_b));
    RESIN_TRY(conv_reserve(context, resin_workers(context), plan->chunk_size, &plan->chunks));
    if (plan->parts > 1) {
        RESIN_TRY(conv_reserve(context, call->batch * plan->parts, call->m * call->n,
                               &plan->partial));
    }
    if (any_packed) {
        resin_parallel(context, packed * plan->panels * depth_pieces(call), pack_piece, plan);
    }
    int64_t pieces = call->batch * plan->parts * plan->row_blocks * plan->panel_groups;
    resin_parallel(context, pieces, multiply_piece, plan);
    if (plan->parts > 1) resin_parallel(context, call->batch * call->m, add_parts_piece, plan);
    return RESIN_OK;
}

resin_status product_run(resin_context *context, const product_call *call) {
    if (call->batch <= 0 || call->m <= 0 || call->n <= 0) return RESIN_OK;
    if (call->k <= 0) {
        for (int64_t i = 0; !call->accumulate && i < call->batch * call->m; i++) {
            memset(call->c + i / call->m * call->step_c + i % call->m * call->ldc, 0,
                   (size_t)call->n * sizeof(float));
        }
        return RESIN_OK;
    }
    product_plan plan = {.call = call};
    cut(&plan);
    resin_status status = run(context, &plan);
    resin_deallocate(context, plan.packed_b);
    resin_deallocate(context, plan.chunks);
    resin_deallocate(context, plan.partial);
    return status;
}

resin_status product_batched_f32(resin_context *context, int64_t batch, bool transpose_a,
                                 bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                                 int64_t lda, int64_t step_a, const float *b, int64_t ldb,
                                 int64_t step_b, float *c, int64_t ldc, int64_t step_c,
                                 bool accumulate) {
    const product_call call = {
        .kernels = &resin_kernels()->conv, .batch = batch, .transpose_a = transpose_a,
        .transpose_b = transpose_b, .m = m, .n = n, .k = k, .a = a, .b = b, .c = c, .lda = lda,
        .ldb = ldb, .ldc = ldc, .step_a = step_a, .step_b = step_b, .step_c = step_c,
        .accumulate = accumulate};
    return product_run(context, &call);
}

resin_status product_f32(resin_context *context, bool transpose_a, bool transpose_b, int64_t m,
                         int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                         int64_t ldb, float *c, int64_t ldc, bool accumulate) {
    return product_batched_f32(context, 1, transpose_a, transpose_b, m, n, k, a, lda, 0, b, ldb, 0,
                               c, ldc, 0, accumulate);
}
