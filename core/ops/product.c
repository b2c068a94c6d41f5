/* product.c: the packed matrix product.
 *
 * The result is cut into blocks of rows and groups of panels, a panel being as wide as the register
 * block; a piece goes through their depth in chunks. A chunk of its rows of a and one of its panels
 * of b stay in the second-level cache, the panel that is being read in the first. Both are copied
 * where rows lie far apart, since rows a power of two apart share few places of a cache, and a page
 * for each row would not fit the table of pages: beforehand, in the order in which they are read,
 * where several pieces read them, otherwise by the piece that does. For the same reason sums of
 * several chunks are kept in a tile and written once. A small result of a deep product is cut along
 * the depth into partial results, which are added in order. */
#include "core/ops/product.h"

#include "core/base/memory.h"
#include "core/base/profile.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/conv_call.h"
#include "core/ops/product_call.h"

#include <string.h>

enum {
    CHUNK_DEPTH = 256,      /* a panel of it takes two thirds of the first-level cache */
    BLOCK_FLOATS = 56 << 10, /* of a chunk of a block of rows */
    GROUP_FLOATS = 96 << 10, /* and of a group of panels */
    STREAM_DEPTH = 8,       /* of a chunk, where b is read once: rows of it read together, */
    STREAM_COLUMNS = 4096,  /* and how far */
    STREAM_PIECES = 8,
    FAR = 256,              /* floats between rows from which they are copied */
    ENOUGH_PIECES = 64,
    MATRIX_PIECES = 256,    /* into which a batch of small matrices is cut, at most */
    PART_DEPTH = 1024,      /* depth of a partial result, at least */
    MAXIMUM_PARTS = 32,
    LINE = 16
};

typedef enum packing { IN_PLACE, BY_PIECE, BEFOREHAND } packing;

typedef struct product_plan {
    const product_call *call;
    packing pack_b;                   /* of whole panels; one that is not whole is always packed */
    packing pack_a;
    int64_t a_step;                   /* of its copies */
    bool ahead;                       /* a or b comes from far */
    int64_t panels, width;            /* of one matrix, columns with the last panel in vectors */
    int64_t chunks, chunk_depth;      /* how the depth is cut */
    int64_t row_blocks, panel_groups; /* how the result is cut */
    int64_t parts;                    /* partial results, of some chunks each */
    int64_t matrix_groups;            /* how the batch is cut */
    int64_t block_size, panel_size, tile_size;   /* floats of a worker's copies */
    float *packed_a, *packed_b, *copies, *partial;
} product_plan;

/* What a piece multiplies. */
typedef struct product_part {
    int64_t matrix, block, row, row_last, panel, panel_last, chunk, chunk_last;
    float *c;
    int64_t ldc;
    bool accumulate;
    float *a_copy, *b_copy, *tile;
} product_part;

static int64_t copies_size(const product_plan *plan) {
    return plan->block_size + plan->panel_size + plan->tile_size;
}

static int64_t panel_columns(const product_plan *plan, int64_t panel) {
    int64_t width = plan->call->kernels->block_columns;
    return conv_min(width, plan->call->n - panel * width);
}

static int64_t panel_width(const product_plan *plan, int64_t panel) {
    return conv_round_up(panel_columns(plan, panel), plan->call->kernels->vector);
}

static packing panel_packing(const product_plan *plan, int64_t panel) {
    bool whole = panel_columns(plan, panel) % plan->call->kernels->vector == 0;
    return plan->pack_b == IN_PLACE && !whole ? BY_PIECE : plan->pack_b;
}

static const float *panel_of(const product_plan *plan, int64_t matrix, int64_t depth,
                             int64_t panel) {
    const product_call *call = plan->call;
    int64_t column = panel * call->kernels->block_columns;
    return call->b + matrix * call->step_b +
           (call->transpose_b ? column * call->ldb + depth : depth * call->ldb + column);
}

static void pack_panel(const product_plan *plan, int64_t matrix, int64_t first, int64_t last,
                       int64_t panel, float *to) {
    const product_call *call = plan->call;
    call->kernels->pack(last - first, panel_columns(plan, panel),
                        panel_of(plan, matrix, first, panel), call->ldb, call->transpose_b, to,
                        panel_width(plan, panel));
}

/* Where a chunk of a panel is packed beforehand: groups of panels, chunks, panels. */
static float *packed_place(const product_plan *plan, const product_part *part, int64_t first,
                           int64_t last, int64_t panel) {
    int64_t columns = plan->call->kernels->block_columns;
    int64_t width = conv_min(part->panel_last * columns, plan->width) - part->panel * columns;
    return plan->packed_b + (part->matrix * plan->width + part->panel * columns) * plan->call->k +
           first * width + (panel - part->panel) * columns * (last - first);
}

/* A few rows of all its panels at a time, so that b is read row by row. */
static void pack_b_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const product_plan *plan = argument;
    const product_call *call = plan->call;
    int64_t chunk = piece % plan->chunks, group = piece / plan->chunks % plan->panel_groups;
    product_part part = {.matrix = piece / plan->chunks / plan->panel_groups};
    int64_t first, last;
    resin_piece_bounds(call->k, plan->chunks, chunk, &first, &last);
    resin_piece_bounds(plan->panels, plan->panel_groups, group, &part.panel, &part.panel_last);
    for (int64_t row = first; row < last; row += LINE) {
        int64_t row_last = conv_min(row + LINE, last);
        for (int64_t panel = part.panel; panel < part.panel_last; panel++) {
            pack_panel(plan, part.matrix, row, row_last, panel,
                       packed_place(plan, &part, first, last, panel) +
                           (row - first) * panel_width(plan, panel));
        }
    }
}

static const float *block_of(const product_plan *plan, int64_t matrix, int64_t row,
                             int64_t depth) {
    const product_call *call = plan->call;
    return call->a + matrix * call->step_a +
           (call->transpose_a ? depth * call->lda + row : row * call->lda + depth);
}

/* Copies a chunk of a block of rows, in the order it has. */
static void pack_block(const product_plan *plan, int64_t matrix, int64_t row, int64_t row_last,
                       int64_t first, int64_t last, float *to) {
    const product_call *call = plan->call;
    int64_t rows = row_last - row, depth = last - first;
    call->kernels->pack(call->transpose_a ? depth : rows, call->transpose_a ? rows : depth,
                        block_of(plan, matrix, row, first), call->lda, false, to, plan->a_step);
}

/* Where it is packed beforehand: blocks of rows, chunks. */
static float *block_place(const product_plan *plan, int64_t matrix, int64_t block, int64_t row,
                          int64_t row_last, int64_t chunk, int64_t first) {
    const product_call *call = plan->call;
    int64_t line = (matrix * plan->row_blocks + block) * call->k + first;
    if (!call->transpose_a) {
        line = (matrix * call->m + row) * plan->chunks + chunk * (row_last - row);
    }
    return plan->packed_a + line * plan->a_step;
}

static void pack_a_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const product_plan *plan = argument;
    int64_t chunk = piece % plan->chunks, block = piece / plan->chunks % plan->row_blocks;
    int64_t matrix = piece / plan->chunks / plan->row_blocks, first, last, row, row_last;
    resin_piece_bounds(plan->call->k, plan->chunks, chunk, &first, &last);
    resin_piece_bounds(plan->call->m, plan->row_blocks, block, &row, &row_last);
    pack_block(plan, matrix, row, row_last, first, last,
               block_place(plan, matrix, block, row, row_last, chunk, first));
}

/* One chunk of the depth of a block of rows, as it lies or copied. */
static const float *find_block(const product_plan *plan, const product_part *part, int64_t chunk,
                               int64_t first, int64_t last) {
    switch (plan->pack_a) {
    case BEFOREHAND:
        return block_place(plan, part->matrix, part->block, part->row, part->row_last, chunk,
                           first);
    case BY_PIECE:
        pack_block(plan, part->matrix, part->row, part->row_last, first, last, part->a_copy);
        return part->a_copy;
    default: return block_of(plan, part->matrix, part->row, first);
    }
}

/* And of a panel. */
static const float *find_panel(const product_plan *plan, const product_part *part, int64_t first,
                               int64_t last, int64_t panel, int64_t *step) {
    *step = panel_width(plan, panel);
    switch (panel_packing(plan, panel)) {
    case BEFOREHAND: return packed_place(plan, part, first, last, panel);
    case BY_PIECE:
        pack_panel(plan, part->matrix, first, last, panel, part->b_copy);
        return part->b_copy;
    default:
        *step = plan->call->ldb;
        return panel_of(plan, part->matrix, first, panel);
    }
}

static void multiply_chunk(const product_plan *plan, const product_part *part, int64_t chunk,
                           bool accumulate) {
    const product_call *call = plan->call;
    const conv_kernels *kernels = call->kernels;
    int64_t rows = part->row_last - part->row, width = kernels->block_columns, first, last, b_step;
    int64_t a_step = plan->pack_a == IN_PLACE ? call->lda : plan->a_step;
    int64_t c_step = plan->tile_size > 0 ? width : part->ldc;
    resin_piece_bounds(call->k, plan->chunks, chunk, &first, &last);
    const float *a = find_block(plan, part, chunk, first, last);
    for (int64_t panel = part->panel; panel < part->panel_last; panel++) {
        const float *b = find_panel(plan, part, first, last, panel, &b_step);
        float *c = plan->tile_size > 0 ? part->tile + (panel - part->panel) * rows * width
                                       : part->c + panel * width;
        (plan->ahead ? kernels->product_ahead : kernels->product)(
            rows, (int)panel_columns(plan, panel), last - first, a, a_step, call->transpose_a, b,
            b_step, c, c_step, accumulate);
    }
}

/* Brings the sums of a piece to where they belong. */
static void write_tile(const product_plan *plan, const product_part *part) {
    const conv_kernels *kernels = plan->call->kernels;
    const float *from = part->tile;
    for (int64_t panel = part->panel; panel < part->panel_last; panel++) {
        float *to = part->c + panel * kernels->block_columns;
        for (int64_t row = part->row; row < part->row_last; row++) {
            kernels->column_sums(1, panel_columns(plan, panel), from, kernels->block_columns, to,
                                 part->accumulate);
            from += kernels->block_columns;
            to += part->ldc;
        }
    }
}

static void multiply_part(const product_plan *plan, const product_part *part) {
    bool add = part->accumulate && plan->tile_size == 0;
    for (int64_t chunk = part->chunk; chunk < part->chunk_last; chunk++) {
        multiply_chunk(plan, part, chunk, add || chunk > part->chunk);
    }
    if (plan->tile_size > 0) write_tile(plan, part);
}

static void multiply_piece(void *argument, int64_t piece, int worker) {
    const product_plan *plan = argument;
    const product_call *call = plan->call;
    int64_t group = piece % plan->panel_groups, rest = piece / plan->panel_groups;
    int64_t depth_part = rest / plan->row_blocks % plan->parts, matrix, matrix_last;
    product_part part = {.ldc = call->ldc, .accumulate = call->accumulate,
                         .block = rest % plan->row_blocks};
    part.a_copy = plan->copies + worker * copies_size(plan);
    part.b_copy = part.a_copy + plan->block_size;
    part.tile = part.b_copy + plan->panel_size;
    resin_piece_bounds(call->batch, plan->matrix_groups, rest / plan->row_blocks / plan->parts,
                       &matrix, &matrix_last);
    resin_piece_bounds(call->m, plan->row_blocks, part.block, &part.row, &part.row_last);
    resin_piece_bounds(plan->panels, plan->panel_groups, group, &part.panel, &part.panel_last);
    resin_piece_bounds(plan->chunks, plan->parts, depth_part, &part.chunk, &part.chunk_last);
    for (; matrix < matrix_last; matrix++) {
        part.matrix = matrix;
        part.c = call->c + matrix * call->step_c + part.row * call->ldc;
        if (plan->parts > 1) {
            int64_t row = (matrix * plan->parts + depth_part) * call->m + part.row;
            part.ldc = call->n;
            part.c = plan->partial + row * call->n;
            part.accumulate = false;
        }
        multiply_part(plan, &part);
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

/* Whether each element of b is read once, as it lies: then it comes from memory, and whole rows of
 * it are read, a few at a time. */
static bool streams(const product_call *call) {
    return call->m <= call->kernels->block_rows && !call->transpose_b && call->ldb >= FAR;
}

/* How many pieces there are, and of what size. */
static void cut(product_plan *plan) {
    const product_call *call = plan->call;
    const conv_kernels *kernels = call->kernels;
    bool stream = streams(call);
    plan->panels = conv_divide_up(call->n, kernels->block_columns);
    plan->width = conv_round_up(call->n, kernels->vector);
    plan->chunks = conv_divide_up(call->k, stream ? STREAM_DEPTH : CHUNK_DEPTH);
    plan->chunk_depth = conv_divide_up(call->k, plan->chunks);
    int64_t rows = BLOCK_FLOATS / conv_max(plan->chunk_depth, LINE) / kernels->block_rows;
    plan->row_blocks = conv_divide_up(call->m, conv_max(rows, 1) * kernels->block_rows);
    int64_t pieces = call->batch * plan->row_blocks;
    int64_t columns = stream ? STREAM_COLUMNS : GROUP_FLOATS / plan->chunk_depth;
    bool deep = call->k >= 4 * PART_DEPTH;
    int64_t enough = !stream ? ENOUGH_PIECES : deep ? 1 : STREAM_PIECES;
    plan->panel_groups = conv_max(conv_divide_up(call->n, conv_max(columns, 1)),
                                  conv_divide_up(enough, pieces));
    plan->panel_groups = conv_min(plan->panel_groups, plan->panels);
    pieces *= plan->panel_groups;
    plan->parts = deep && pieces < ENOUGH_PIECES / 4
                      ? conv_min(call->k / PART_DEPTH, MAXIMUM_PARTS)
                      : 1;
    plan->matrix_groups = plan->row_blocks * plan->panel_groups * plan->parts > 1
                              ? call->batch
                              : conv_min(call->batch, MATRIX_PIECES);
}

/* What is copied, and where sums are kept. */
static void choose_copies(product_plan *plan) {
    const product_call *call = plan->call;
    const conv_kernels *kernels = call->kernels;
    int64_t rows = conv_divide_up(call->m, plan->row_blocks);
    bool one_block = call->m <= kernels->block_rows;
    if (call->transpose_b || (!one_block && call->ldb >= FAR)) {
        plan->pack_b = plan->row_blocks > 1 ? BEFOREHAND : BY_PIECE;
    }
    plan->ahead = plan->pack_b == BEFOREHAND || (plan->panels == 1 && plan->row_blocks > 1);
    if (call->lda >= FAR && !streams(call) && (call->transpose_a || plan->panels >= 4)) {
        plan->pack_a = plan->panel_groups > 1 ? BEFOREHAND : BY_PIECE;
        plan->a_step = conv_round_up(call->transpose_a ? rows : plan->chunk_depth, LINE) + LINE;
        plan->block_size = plan->a_step * (call->transpose_a ? plan->chunk_depth : rows);
    }
    plan->panel_size = plan->chunk_depth * kernels->block_columns;
    if (plan->chunks / plan->parts > 2 && !one_block && call->ldc >= FAR) {
        plan->tile_size = rows * conv_divide_up(plan->panels, plan->panel_groups) *
                          kernels->block_columns;
    }
}

static resin_status run(resin_context *context, product_plan *plan) {
    const product_call *call = plan->call;
    int64_t batch = call->batch, panel_groups = plan->panel_groups;
    if (plan->pack_a == BEFOREHAND) {
        int64_t lines = call->transpose_a ? plan->row_blocks * call->k : plan->chunks * call->m;
        RESIN_TRY(conv_reserve(context, batch * lines, plan->a_step, &plan->packed_a));
    }
    if (plan->pack_b == BEFOREHAND) {
        RESIN_TRY(conv_reserve(context, batch * call->k, plan->width, &plan->packed_b));
    }
    RESIN_TRY(conv_reserve(context, resin_workers(context), copies_size(plan), &plan->copies));
    if (plan->parts > 1) {
        RESIN_TRY(conv_reserve(context, batch * plan->parts, call->m * call->n, &plan->partial));
    }
    if (plan->pack_a == BEFOREHAND) {
        resin_parallel(context, batch * plan->chunks * plan->row_blocks, pack_a_piece, plan);
    }
    if (plan->pack_b == BEFOREHAND) {
        resin_parallel(context, batch * plan->chunks * panel_groups, pack_b_piece, plan);
    }
    resin_parallel(context, plan->matrix_groups * plan->parts * plan->row_blocks * panel_groups,
                   multiply_piece, plan);
    if (plan->parts > 1) resin_parallel(context, batch * call->m, add_parts_piece, plan);
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
    bool few = product_few_fits(call);
    product_plan plan = {.call = call};
    double begun = profile_begin(context);
    if (!few) {
        cut(&plan);
        choose_copies(&plan);
    }
    resin_status status = few ? product_few_run(context, call) : run(context, &plan);
    profile_end(context, begun,
                (resin_profile_event){.name = "product", .method = few ? "few rows" : "packed",
                                      .multiply_adds = (double)call->batch * (double)call->m *
                                                       (double)call->n * (double)call->k});
    resin_deallocate(context, plan.packed_a);
    resin_deallocate(context, plan.packed_b);
    resin_deallocate(context, plan.copies);
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
