/* product_few.c: products of which one side has only a few rows: a large matrix that is read or
 * written once, as it lies, at the speed of memory (core/kernels/product_few.c).
 *
 *   few rows of a, b as it lies:    cut along the depth, so that a piece reads whole rows of b that
 *                                   lie side by side; partial sums are added in order
 *   few rows of a, b transposed:    cut by the columns of c, which are rows of b as it lies
 *   little depth:                   cut by the rows of c */
#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/conv_call.h"
#include "core/ops/product_call.h"

#include <string.h>

enum {
    LARGE = 64 << 10,        /* floats of the large matrix, at least */
    WIDE = 64,               /* floats of its rows, at least */
    SUMS_FLOATS = 8 << 10,   /* of a piece's sums: they stay in the first-level cache */
    PIECES = 32,
    PART_DEPTH = 32,         /* of a partial sum, at least */
    SMALL_SUM = 64 << 10,    /* floats that one thread adds */
    SUM_COLUMNS = 1024,
    PIECE_ROWS = 16,
    PAST_FLOATS = 4 << 20    /* of a result that no cache keeps until it is read */
};

typedef struct few {
    const product_call *call;
    int64_t pieces, column_groups, parts;
    float *partial;
} few;

static int64_t a_row(const product_call *call) { return call->transpose_a ? 1 : call->lda; }
static int64_t a_column(const product_call *call) { return call->transpose_a ? call->lda : 1; }

/* ---- Few rows -------------------------------------------------------------------------------- */

static void rows_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const few *f = argument;
    const product_call *call = f->call;
    int64_t part = piece / f->column_groups, first, last, column, column_last;
    resin_piece_bounds(call->k, f->parts, part, &first, &last);
    resin_piece_bounds(call->n, f->column_groups, piece % f->column_groups, &column, &column_last);
    float *c = f->partial + part * call->m * call->n + column;
    for (int64_t i = 0; i < call->m; i++) {
        memset(c + i * call->n, 0, (size_t)(column_last - column) * sizeof(float));
    }
    call->kernels->few_rows((int)call->m, column_last - column, last - first,
                            call->a + first * a_column(call), a_row(call), a_column(call),
                            call->b + first * call->ldb + column, call->ldb, c, call->n);
}

static void add_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const few *f = argument;
    const product_call *call = f->call;
    int64_t groups = conv_divide_up(call->n, SUM_COLUMNS), row = piece / groups, first, last;
    resin_piece_bounds(call->n, groups, piece % groups, &first, &last);
    call->kernels->column_sums(f->parts, last - first, f->partial + row * call->n + first,
                               call->m * call->n, call->c + row * call->ldc + first,
                               call->accumulate);
}

static resin_status run_rows(resin_context *context, few *f) {
    const product_call *call = f->call;
    f->column_groups = conv_divide_up(call->n, SUMS_FLOATS / call->m);
    f->parts = conv_min(conv_divide_up(PIECES, f->column_groups), call->k / PART_DEPTH);
    f->parts = conv_max(f->parts, 1);
    RESIN_TRY(conv_reserve(context, f->parts, call->m * call->n, &f->partial));
    resin_parallel(context, f->parts * f->column_groups, rows_piece, f);
    int64_t sums = call->m * conv_divide_up(call->n, SUM_COLUMNS);
    if (f->parts * call->m * call->n < SMALL_SUM) {
        for (int64_t piece = 0; piece < sums; piece++) add_piece(f, piece, 0);
    } else {
        resin_parallel(context, sums, add_piece, f);
    }
    resin_deallocate(context, f->partial);
    return RESIN_OK;
}

/* ---- Few rows, b transposed ------------------------------------------------------------------ */

static void dots_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const few *f = argument;
    const product_call *call = f->call;
    int64_t first, last;
    resin_piece_bounds(call->n, f->pieces, piece, &first, &last);
    call->kernels->few_dots((int)call->m, last - first, call->k, call->a, call->lda,
                            call->b + first * call->ldb, call->ldb, call->c + first, call->ldc,
                            call->accumulate);
}

/* ---- Little depth ---------------------------------------------------------------------------- */

static void outer_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const few *f = argument;
    const product_call *call = f->call;
    int64_t first, last;
    resin_piece_bounds(call->m, f->pieces, piece, &first, &last);
    call->kernels->few_outer((int)call->k, last - first, call->n, call->a + first * a_row(call),
                             a_row(call), a_column(call), call->b, call->ldb,
                             call->c + first * call->ldc, call->ldc, call->accumulate,
                             call->m * call->n >= PAST_FLOATS);
}

/* ---- The choice ------------------------------------------------------------------------------ */

typedef enum few_kind { FEW_NOT, FEW_ROWS, FEW_DOTS, FEW_OUTER } few_kind;

static few_kind kind_of(const product_call *call) {
    bool large = call->k * call->n >= LARGE;
    if (call->batch != 1) return FEW_NOT;
    if (call->k <= PRODUCT_FEW && !call->transpose_b && call->n >= WIDE &&
        call->m * call->n >= LARGE)
        return FEW_OUTER;
    if (call->m > PRODUCT_FEW || !large) return FEW_NOT;
    if (!call->transpose_b) return call->n >= WIDE ? FEW_ROWS : FEW_NOT;
    return !call->transpose_a && call->k >= WIDE ? FEW_DOTS : FEW_NOT;
}

bool product_few_fits(const product_call *call) { return kind_of(call) != FEW_NOT; }

resin_status product_few_run(resin_context *context, const product_call *call) {
    few_kind kind = kind_of(call);
    few f = {.call = call};
    if (kind == FEW_ROWS) return run_rows(context, &f);
    f.pieces = resin_piece_count(kind == FEW_DOTS ? call->n : call->m, PIECE_ROWS);
    resin_parallel(context, f.pieces, kind == FEW_DOTS ? dots_piece : outer_piece, &f);
    return RESIN_OK;
}
