/* rows.c: walking over strided operands in parallel, a row at a time. */
#include "core/ops/rows.h"

#include "core/base/threads.h"

typedef struct rows_job {
    const tensor_iterator *it;
    row_body body;
    void *argument;
    int64_t cuts;   /* pieces of one row */
    int64_t pieces; /* of all rows, if they are not cut */
} rows_job;

/* The position after `index`: its last axis advances, full axes start over. */
static void advance(const tensor_iterator *it, int64_t index[RESIN_MAX_RANK],
                    int64_t offset[ITERATE_MAX]) {
    for (int axis = it->rank - 1; axis >= 0; axis--) {
        index[axis]++;
        for (int o = 0; o < it->operands; o++) offset[o] += it->stride[o][axis];
        if (index[axis] < it->shape[axis]) return;
        for (int o = 0; o < it->operands; o++)
            offset[o] -= it->stride[o][axis] * it->shape[axis];
        index[axis] = 0;
    }
}

static void whole_rows(void *argument, int64_t piece, int worker) {
    const rows_job *job = argument;
    const tensor_iterator *it = job->it;
    int64_t first, last, rest, index[RESIN_MAX_RANK], offset[ITERATE_MAX];
    (void)worker;
    resin_piece_bounds(it->outer, job->pieces, piece, &first, &last);
    iterator_offsets(it, first, offset);
    rest = first;
    for (int axis = it->rank - 1; axis >= 0; axis--) {
        index[axis] = rest % it->shape[axis];
        rest /= it->shape[axis];
    }
    for (int64_t position = first; position < last; position++) {
        job->body(job->argument, it, it->inner, offset);
        advance(it, index, offset);
    }
}

static void cut_row(void *argument, int64_t piece, int worker) {
    const rows_job *job = argument;
    const tensor_iterator *it = job->it;
    int64_t first, last, offset[ITERATE_MAX];
    (void)worker;
    resin_piece_bounds(it->inner, job->cuts, piece % job->cuts, &first, &last);
    iterator_offsets(it, piece / job->cuts, offset);
    for (int o = 0; o < it->operands; o++) offset[o] += first * it->inner_stride[o];
    job->body(job->argument, it, last - first, offset);
}

void rows_parallel(resin_context *context, const tensor_iterator *it, row_body body,
                   void *argument) {
    if (it->outer == 0 || it->inner == 0) return;
    rows_job job = {.it = it, .body = body, .argument = argument};
    job.cuts = resin_piece_count(it->inner, ROWS_GRAIN);
    if (job.cuts > 1) {
        resin_parallel(context, it->outer * job.cuts, cut_row, &job);
        return;
    }
    int64_t rows = ROWS_GRAIN / it->inner;
    job.pieces = resin_piece_count(it->outer, rows > 0 ? rows : 1);
    resin_parallel(context, job.pieces, whole_rows, &job);
}
