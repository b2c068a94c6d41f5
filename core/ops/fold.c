/* fold.c: the engine of the reductions: folds a strided tensor over some of its axes.
 *
 * The axes fall into those that stay (kept) and those that are reduced; neighbours that lie
 * regularly in memory are merged. Two ways, by what lies densest: if that is a reduced axis, each
 * output is folded from runs; if it is a kept one, whole rows are folded into a row of outputs
 * (columns). Either way the reduced positions are cut into chunks whose size depends on the shape
 * only, chunks are folded in parallel, and their totals are combined in order. */
#include "core/ops/fold.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 14, COLUMNS = 512, LEAST_ROWS = 32 };

/* Some axes of x: merged, row-major among themselves. */
typedef struct axis_list {
    int rank;
    int64_t shape[RESIN_MAX_RANK], stride[RESIN_MAX_RANK];
    int64_t outer; /* positions of all axes but the last */
    int64_t inner, inner_stride;
} axis_list;

typedef struct fold_job {
    const resin_tensor *x;
    const char *data;
    int64_t size; /* of an element */
    const reduction_kernel *kernel;
    const double *center;
    axis_list kept, reduced;
    int64_t outputs;
    int64_t rows, rows_per_chunk, chunks; /* reduced positions but for the run within each */
    int64_t blocks;                       /* of columns */
    int64_t pieces, tasks;
    char *partial; /* totals of chunk c begin at c * outputs */
} fold_job;

static axis_list list_axes(const resin_tensor *x, axis_set chosen) {
    axis_list list = {.rank = 0};
    for (int i = 0; i < x->rank; i++) {
        if (!(chosen >> i & 1) || x->shape[i] == 1) continue;
        int last = list.rank - 1;
        if (last >= 0 && list.stride[last] == x->stride[i] * x->shape[i]) {
            list.shape[last] *= x->shape[i];
            list.stride[last] = x->stride[i];
            continue;
        }
        list.shape[list.rank] = x->shape[i];
        list.stride[list.rank++] = x->stride[i];
    }
    if (list.rank == 0) {
        list.rank = 1;
        list.shape[0] = 1;
        list.stride[0] = 0;
    }
    list.inner = list.shape[list.rank - 1];
    list.inner_stride = list.stride[list.rank - 1];
    list.outer = 1;
    for (int i = 0; i < list.rank - 1; i++) list.outer *= list.shape[i];
    return list;
}

/* Offset of an outer position. */
static int64_t list_offset(const axis_list *list, int64_t position) {
    int64_t offset = 0;
    for (int i = list->rank - 2; i >= 0; i--) {
        offset += position % list->shape[i] * list->stride[i];
        position /= list->shape[i];
    }
    return offset;
}

static bool is_float(const fold_job *job) { return tensor_is_float(job->x); }

static void start_totals(const fold_job *job, void *totals, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (is_float(job)) ((double *)totals)[i] = job->kernel->first_float;
        else ((int64_t *)totals)[i] = job->kernel->first_integer;
    }
}

static void chunk_rows(const fold_job *job, int64_t chunk, int64_t *first, int64_t *last) {
    *first = chunk * job->rows_per_chunk;
    *last = *first + job->rows_per_chunk < job->rows ? *first + job->rows_per_chunk : job->rows;
}

/* ---- Each output from runs ------------------------------------------------------------------ */

/* One output, one chunk of its positions. If the reduced axes are one, the run itself is cut. */
static void fold_runs(const fold_job *job, int64_t output, int64_t chunk) {
    const reduce_loop run = resin_kernels()->pointwise.reduce_run;
    const axis_list *reduced = &job->reduced;
    const double *center = job->center ? job->center + output : NULL;
    const int64_t kept_offset = list_offset(&job->kept, output / job->kept.inner) +
                                output % job->kept.inner * job->kept.inner_stride;
    char *total = job->partial + (chunk * job->outputs + output) * 8;
    int64_t first, last;
    start_totals(job, total, 1);
    chunk_rows(job, chunk, &first, &last);
    if (reduced->outer == 1) {
        const int64_t offset = kept_offset + first * reduced->inner_stride;
        run(job->kernel, job->x->dtype, last - first, job->data + offset * job->size,
            reduced->inner_stride, total, center);
        return;
    }
    for (int64_t row = first; row < last; row++) {
        const int64_t offset = kept_offset + list_offset(reduced, row);
        run(job->kernel, job->x->dtype, reduced->inner, job->data + offset * job->size,
            reduced->inner_stride, total, center);
    }
}

static void runs_piece(void *argument, int64_t piece, int worker) {
    const fold_job *job = argument;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->tasks, job->pieces, piece, &first, &last);
    for (int64_t task = first; task < last; task++)
        fold_runs(job, task / job->chunks, task % job->chunks);
}

static void plan_runs(fold_job *job) {
    const axis_list *reduced = &job->reduced;
    bool cut_run = reduced->outer == 1;
    job->rows = cut_run ? reduced->inner : reduced->outer;
    job->rows_per_chunk = cut_run ? CHUNK : CHUNK / reduced->inner + 1;
    job->chunks = (job->rows + job->rows_per_chunk - 1) / job->rows_per_chunk;
    job->tasks = job->outputs * job->chunks;
    int64_t elements = job->outputs * reduced->outer * reduced->inner;
    job->pieces = resin_piece_count(elements, CHUNK);
    if (job->pieces > job->tasks) job->pieces = job->tasks;
}

/* ---- Rows of outputs ------------------------------------------------------------------------ */

/* Some columns of one outer kept position, one chunk of reduced positions. */
static void columns_piece(void *argument, int64_t piece, int worker) {
    const fold_job *job = argument;
    const reduce_loop columns = resin_kernels()->pointwise.reduce_columns;
    const axis_list *kept = &job->kept, *reduced = &job->reduced;
    (void)worker;
    const int64_t chunk = piece % job->chunks, place = piece / job->chunks;
    const int64_t column = place % job->blocks * COLUMNS, outer = place / job->blocks;
    const int64_t count = kept->inner - column < COLUMNS ? kept->inner - column : COLUMNS;
    const int64_t output = outer * kept->inner + column;
    const int64_t base = list_offset(kept, outer) + column * kept->inner_stride;
    char *totals = job->partial + (chunk * job->outputs + output) * 8;
    int64_t first, last;
    start_totals(job, totals, count);
    chunk_rows(job, chunk, &first, &last);
    for (int64_t row = first; row < last; row++) {
        const int64_t offset = base + list_offset(reduced, row / reduced->inner) +
                               row % reduced->inner * reduced->inner_stride;
        columns(job->kernel, job->x->dtype, count, job->data + offset * job->size,
                kept->inner_stride, totals, job->center ? job->center + output : NULL);
    }
}

static void plan_columns(fold_job *job) {
    const int64_t width = job->kept.inner < COLUMNS ? job->kept.inner : COLUMNS;
    job->rows = job->reduced.outer * job->reduced.inner;
    job->rows_per_chunk = CHUNK / width > LEAST_ROWS ? CHUNK / width : LEAST_ROWS;
    job->chunks = (job->rows + job->rows_per_chunk - 1) / job->rows_per_chunk;
    job->blocks = (job->kept.inner + COLUMNS - 1) / COLUMNS;
    job->pieces = job->kept.outer * job->blocks * job->chunks;
}

/* ---- Both ----------------------------------------------------------------------------------- */

/* Small work stays in the caller. */
static void in_one_piece(void *argument, int64_t piece, int worker) {
    fold_job *job = argument;
    (void)piece;
    for (int64_t i = 0; i < job->pieces; i++) columns_piece(job, i, worker);
}

static void combine_chunks(const fold_job *job) {
    for (int64_t chunk = 1; chunk < job->chunks; chunk++) {
        const char *part = job->partial + chunk * job->outputs * 8;
        if (is_float(job))
            job->kernel->combine_float(job->outputs, (const double *)part,
                                       (double *)job->partial);
        else
            job->kernel->combine_integer(job->outputs, (const int64_t *)part,
                                         (int64_t *)job->partial);
    }
}

static const reduction_kernel *find_kernel(const char *name) {
    const reduction_kernel *kernel = resin_kernels()->pointwise.reductions;
    while (kernel->name && strcmp(kernel->name, name) != 0) kernel++;
    return kernel->name ? kernel : NULL;
}

static resin_status new_totals(fold_job *job) {
    size_t bytes;
    if (!resin_size_multiply((size_t)job->chunks * 8, (size_t)job->outputs, &bytes))
        return resin_fail(job->x->context, RESIN_ERROR_SHAPE, "too many outputs");
    void *memory;
    RESIN_TRY(resin_allocate(job->x->context, bytes, &memory));
    job->partial = memory;
    return RESIN_OK;
}

int64_t fold_length(const resin_tensor *x, axis_set reduced) {
    int64_t length = 1;
    for (int i = 0; i < x->rank; i++)
        if (reduced >> i & 1) length *= x->shape[i];
    return length;
}

int fold_shape(const resin_tensor *x, axis_set reduced, bool keep, int64_t shape[RESIN_MAX_RANK]) {
    int rank = 0;
    for (int i = 0; i < x->rank; i++) {
        if (!(reduced >> i & 1)) shape[rank++] = x->shape[i];
        else if (keep) shape[rank++] = 1;
    }
    return rank;
}

resin_status fold_axes(const resin_tensor *x, axis_set reduced, const char *kernel,
                       const double *center, void **totals) {
    fold_job job = {.x = x, .data = tensor_data(x), .size = (int64_t)resin_dtype_size(x->dtype),
                    .kernel = find_kernel(kernel), .center = center,
                    .kept = list_axes(x, ~reduced), .reduced = list_axes(x, reduced)};
    if (!job.kernel || (!tensor_is_float(x) && !job.kernel->run_integer))
        return resin_fail(x->context, RESIN_ERROR_ARGUMENT, "%s is not defined for %s", kernel,
                          resin_dtype_name(x->dtype));
    job.outputs = job.kept.outer * job.kept.inner;
    const bool empty = fold_length(x, reduced) == 0 || job.outputs == 0;
    const bool by_columns = job.kept.inner > 1 && !empty &&
                            llabs(job.kept.inner_stride) < llabs(job.reduced.inner_stride);
    if (empty) job.chunks = 1;
    else if (by_columns) plan_columns(&job);
    else plan_runs(&job);
    RESIN_TRY(new_totals(&job));
    *totals = job.partial;
    if (empty) {
        start_totals(&job, job.partial, job.outputs);
        return RESIN_OK;
    }
    if (!by_columns) resin_parallel(x->context, job.pieces, runs_piece, &job);
    else if (job.outputs * job.rows < CHUNK) resin_parallel(x->context, 1, in_one_piece, &job);
    else resin_parallel(x->context, job.pieces, columns_piece, &job);
    combine_chunks(&job);
    return RESIN_OK;
}

void fold_store(resin_tensor *out, const void *totals) {
    const int64_t count = resin_tensor_count(out);
    void *data = tensor_data(out);
    for (int64_t i = 0; i < count; i++) {
        switch (out->dtype) {
        case RESIN_FLOAT32: ((float *)data)[i] = (float)((const double *)totals)[i]; break;
        case RESIN_FLOAT64: ((double *)data)[i] = ((const double *)totals)[i]; break;
        case RESIN_INT32: ((int32_t *)data)[i] = (int32_t)((const int64_t *)totals)[i]; break;
        case RESIN_INT64: ((int64_t *)data)[i] = ((const int64_t *)totals)[i]; break;
        default: ((uint8_t *)data)[i] = (uint8_t)((const int64_t *)totals)[i]; break;
        }
    }
}
