/* grad_sum.c: sums of gradients: one added to another, and one summed over the axes along which its
 * tensor was broadcast. */
#include "core/ops/grad_sum.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"

#include <string.h>

/* ---- One added to another -------------------------------------------------------------------- */

typedef struct add_job {
    tensor_iterator it;
    resin_tensor *sum;
    const resin_tensor *addend;
    int64_t count, pieces;
    bool dense;
} add_job;

static void add_dense(const add_job *job, int64_t piece) {
    int64_t first, last;
    resin_piece_bounds(job->count, job->pieces, piece, &first, &last);
    if (job->sum->dtype == RESIN_FLOAT32) {
        resin_kernels()->pointwise.add_into(last - first,
                                            (const float *)tensor_data(job->addend) + first,
                                            (float *)tensor_data(job->sum) + first);
    } else {
        double *sum = tensor_data(job->sum);
        const double *x = tensor_data(job->addend);
        for (int64_t i = first; i < last; i++) sum[i] += x[i];
    }
}

static void add_strided(const add_job *job, int64_t piece) {
    const tensor_iterator *it = &job->it;
    int64_t first, last;
    resin_piece_bounds(it->outer, job->pieces, piece, &first, &last);
    for (int64_t position = first; position < last; position++) {
        int64_t offset[ITERATE_MAX];
        iterator_offsets(it, position, offset);
        int64_t s = it->inner_stride[0], x_stride = it->inner_stride[1];
        if (job->sum->dtype == RESIN_FLOAT32) {
            float *sum = (float *)tensor_data(job->sum) + offset[0];
            const float *x = (const float *)tensor_data(job->addend) + offset[1];
            for (int64_t i = 0; i < it->inner; i++) sum[i * s] += x[i * x_stride];
        } else {
            double *sum = (double *)tensor_data(job->sum) + offset[0];
            const double *x = (const double *)tensor_data(job->addend) + offset[1];
            for (int64_t i = 0; i < it->inner; i++) sum[i * s] += x[i * x_stride];
        }
    }
}

static void add_piece(void *argument, int64_t piece, int worker) {
    const add_job *job = argument;
    (void)worker;
    if (job->dense)
        add_dense(job, piece);
    else
        add_strided(job, piece);
}

void grad_add(resin_tensor *sum, const resin_tensor *addend) {
    add_job job = {.sum = sum, .addend = addend, .count = resin_tensor_count(sum)};
    job.dense = resin_tensor_contiguous(sum) && resin_tensor_contiguous(addend);
    const resin_tensor *operands[] = {sum, addend};
    iterator_start(&job.it, sum->rank, sum->shape, 2, operands);
    job.pieces = resin_piece_count(job.count, 1 << 15);
    if (!job.dense && job.pieces > job.it.outer) job.pieces = job.it.outer;
    if (job.count > 0) resin_parallel(sum->context, job.pieces, add_piece, &job);
}

/* ---- Summed over broadcast axes --------------------------------------------------------------- */

enum { SUM_ROWS = 512 };

typedef struct row_sum_job {
    const resin_tensor *from;
    double *partial; /* by block of rows */
    int64_t rows, columns;
} row_sum_job;

static void row_sum_piece(void *argument, int64_t piece, int worker) {
    const row_sum_job *job = argument;
    (void)worker;
    double *sum = job->partial + piece * job->columns;
    int64_t last = (piece + 1) * SUM_ROWS < job->rows ? (piece + 1) * SUM_ROWS : job->rows;
    memset(sum, 0, (size_t)job->columns * sizeof *sum);
    for (int64_t row = piece * SUM_ROWS; row < last; row++) {
        int64_t offset = row * job->columns;
        if (job->from->dtype == RESIN_FLOAT32) {
            const float *x = (const float *)tensor_data(job->from) + offset;
            for (int64_t i = 0; i < job->columns; i++) sum[i] += x[i];
        } else {
            const double *x = (const double *)tensor_data(job->from) + offset;
            for (int64_t i = 0; i < job->columns; i++) sum[i] += x[i];
        }
    }
}

static void store_sums(resin_tensor *to, const double *sum, int64_t count) {
    if (to->dtype == RESIN_FLOAT32)
        for (int64_t i = 0; i < count; i++) ((float *)tensor_data(to))[i] = (float)sum[i];
    else
        memcpy(tensor_data(to), sum, (size_t)count * sizeof *sum);
}

/* Sums a contiguous tensor over its leading axes: the gradient of a bias. Blocks of rows are summed
 * in parallel and then in order. */
static resin_status sum_rows(const resin_tensor *from, resin_tensor *to) {
    row_sum_job job = {.from = from, .columns = resin_tensor_count(to)};
    job.rows = job.columns ? resin_tensor_count(from) / job.columns : 0;
    int64_t blocks = (job.rows + SUM_ROWS - 1) / SUM_ROWS;
    void *memory;
    RESIN_TRY(resin_allocate(from->context, (size_t)((blocks + 1) * job.columns) * sizeof(double),
                             &memory));
    job.partial = memory;
    resin_parallel(from->context, blocks, row_sum_piece, &job);
    double *sum = job.partial + blocks * job.columns;
    memset(sum, 0, (size_t)job.columns * sizeof *sum);
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t i = 0; i < job.columns; i++) sum[i] += job.partial[block * job.columns + i];
    store_sums(to, sum, job.columns);
    resin_deallocate(from->context, memory);
    return RESIN_OK;
}

/* Sums over any broadcast axes, one element after the other. */
static resin_status sum_strided(const resin_tensor *from, resin_tensor *to) {
    int64_t count = resin_tensor_count(to);
    void *memory;
    RESIN_TRY(resin_allocate(from->context, (size_t)count * sizeof(double), &memory));
    double *sum = memset(memory, 0, (size_t)count * sizeof *sum);
    tensor_iterator it;
    const resin_tensor *operands[] = {from, to};
    iterator_start(&it, from->rank, from->shape, 2, operands);
    for (int64_t position = 0; position < it.outer; position++) {
        int64_t offset[ITERATE_MAX], s = it.inner_stride[0], t = it.inner_stride[1];
        iterator_offsets(&it, position, offset);
        const float *x = (const float *)tensor_data(from) + offset[0];
        const double *y = (const double *)tensor_data(from) + offset[0];
        if (from->dtype == RESIN_FLOAT32)
            for (int64_t i = 0; i < it.inner; i++) sum[offset[1] + i * t] += x[i * s];
        else
            for (int64_t i = 0; i < it.inner; i++) sum[offset[1] + i * t] += y[i * s];
    }
    store_sums(to, sum, count);
    resin_deallocate(from->context, memory);
    return RESIN_OK;
}

/* Whether `grad` has the input's axes behind others that were added by broadcasting. */
static bool only_leading(const resin_tensor *grad, const resin_tensor *to) {
    int rank = to->rank, first = 0;
    while (first < rank && to->shape[first] == 1) first++; /* leading ones are summed as well */
    for (int i = first; i < rank; i++)
        if (grad->shape[grad->rank - rank + i] != to->shape[i]) return false;
    return resin_tensor_contiguous(grad);
}

resin_status grad_sum_to(const resin_tensor *grad, resin_tensor *to) {
    return only_leading(grad, to) ? sum_rows(grad, to) : sum_strided(grad, to);
}
