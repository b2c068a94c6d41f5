/* dropout.c: dropout (Srivastava et al., JMLR 15, 2014) with the factor in training: an element is
 * 0 with probability `rate`, else divided by 1 - rate.
 *
 * Which ones are kept is a function of (seed, stream, position), so backward draws the same numbers
 * again instead of keeping a mask, and any number of threads gives the same bits. */
#include "core/base/random.h"
#include "core/base/threads.h"
#include "core/ops/families.h"
#include "core/ops/rows.h"

typedef struct dropout_job {
    const void *x;
    void *y;
    bool is_float32;
    int64_t count, pieces;
    uint64_t seed, stream, threshold; /* kept: random word >= threshold */
    double factor;
} dropout_job;

/* Four elements share one draw, so pieces are cut between groups of four. */
static void dropout_group(const dropout_job *job, int64_t group) {
    uint32_t word[4];
    resin_philox(job->seed, job->stream, (uint64_t)group, word);
    for (int i = 0; i < 4 && group * 4 + i < job->count; i++) {
        const int64_t at = group * 4 + i;
        const bool kept = word[i] >= job->threshold;
        if (job->is_float32)
            ((float *)job->y)[at] = kept ? ((const float *)job->x)[at] * (float)job->factor : 0;
        else
            ((double *)job->y)[at] = kept ? ((const double *)job->x)[at] * job->factor : 0;
    }
}

static void dropout_piece(void *argument, int64_t piece, int worker) {
    const dropout_job *job = argument;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds((job->count + 3) / 4, job->pieces, piece, &first, &last);
    for (int64_t group = first; group < last; group++) dropout_group(job, group);
}

/* y = x where kept, times 1 / (1 - rate); both contiguous. */
static void drop(const op_call *call, const resin_tensor *x, resin_tensor *y) {
    const double rate = op_number(call, "rate");
    dropout_job job = {.x = tensor_data(x), .y = tensor_data(y), .count = resin_tensor_count(x),
                       .is_float32 = x->dtype == RESIN_FLOAT32,
                       .seed = (uint64_t)call->saved_number[0],
                       .stream = (uint64_t)call->saved_number[1],
                       .threshold = (uint64_t)(rate * 0x1p32),
                       .factor = rate < 1 ? 1 / (1 - rate) : 0};
    job.pieces = resin_piece_count((job.count + 3) / 4, ROWS_GRAIN / 16);
    if (job.count > 0) resin_parallel(call->context, job.pieces, dropout_piece, &job);
}

resin_status dropout_forward(op_call *call) {
    resin_tensor *x = call->in[0], *dense;
    const double rate = op_number(call, "rate");
    RESIN_TRY(op_check_float(call, 0));
    if (!(rate >= 0 && rate <= 1))
        return op_fail(call, RESIN_ERROR_ARGUMENT, "rate must lie between 0 and 1, got %g", rate);
    if (rate == 0 || !op_bool(call, "training"))
        return tensor_view(x, x->rank, x->shape, x->stride, x->offset, &call->out);
    call->saved_number[0] = (int64_t)resin_random_get(call->context).seed;
    call->saved_number[1] = (int64_t)resin_random_next_stream(call->context);
    RESIN_TRY(tensor_new_like(x, &call->out));
    RESIN_TRY(tensor_contiguous(x, &dense));
    drop(call, dense, call->out);
    resin_release(dense);
    return RESIN_OK;
}

resin_status dropout_backward(op_call *call) {
    resin_tensor *dx, *dy;
    if (op_number(call, "rate") == 0 || !op_bool(call, "training")) {
        op_give_grad(call, 0, call->out_grad);
        return RESIN_OK;
    }
    RESIN_TRY(op_input_grad(call, 0, &dx));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    drop(call, dy, dx);
    resin_release(dy);
    return RESIN_OK;
}
