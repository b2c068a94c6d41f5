/* label_losses.c: losses of classes: cross_entropy (softmax and loss as one) and nll_loss.
 *
 * With logits x of one row, targets t (of a label: a single 1) and smoothing s over C classes:
 *   t' = (1 - s) t + s / C,  loss = sum over c of t'_c (ln sum e^x - x_c),
 *   dx = (sum t') softmax(x) - t',  dt = (1 - s) (ln sum e^x - x_c)
 * nll_loss takes log-probabilities: loss = -x[label]. Computed in double. */
#include "core/ops/loss.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/families.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct class_job {
    loss_reduction reduction;
    int64_t rows, classes, pieces;
    double smoothing, count; /* count: rows that are not ignored */
    bool plain;              /* nll_loss: x are log-probabilities already */
    const resin_tensor *x;
    const resin_tensor *soft;  /* targets by class, or NULL: */
    const int64_t *label;      /* 0 .. classes - 1, -1: ignored */
    double *losses;            /* forward, by row */
    double *log_sums;          /* ln sum e^x, by row */
    const resin_tensor *dy;    /* backward */
    resin_tensor *dx, *dtarget; /* NULL where not wanted */
} class_job;

/* ---- Labels ---------------------------------------------------------------------------------- */

static int64_t integer_at(const resin_tensor *labels, int64_t i) {
    const void *data = tensor_data(labels);
    switch (labels->dtype) {
    case RESIN_INT32: return ((const int32_t *)data)[i];
    case RESIN_INT64: return ((const int64_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

static bool is_ignored(const op_call *call, int64_t label) {
    const op_value *ignored = op_attribute(call, "ignore");
    for (int i = 0; i < ignored->count; i++)
        if (ignored->ints[i] == label) return true;
    return false;
}

/* Positions are told as the caller counts: from `base`. */
static resin_status bad_label(const op_call *call, const resin_tensor *labels, int64_t row,
                              int64_t label, int64_t classes) {
    int64_t base = op_int(call, "base"), position[RESIN_MAX_RANK];
    char text[SHAPE_TEXT];
    for (int axis = labels->rank - 1; axis >= 0; axis--) {
        position[axis] = row % labels->shape[axis] + base;
        row /= labels->shape[axis];
    }
    const char *hint = label == 0 && base == 1
                           ? "; for labels that count from 0 give base = 0" : "";
    return op_fail(call, RESIN_ERROR_ARGUMENT,
                   "the label at position %s is %" PRId64 ", but for %" PRId64
                   " classes labels are %" PRId64 " .. %" PRId64 "%s",
                   shape_format(labels->rank, position, text), label, classes, base,
                   classes - 1 + base, hint);
}

/* Checked labels 0 .. classes - 1 as an int64 tensor of the labels' shape, -1 for ignored ones. */
static resin_status read_labels(const op_call *call, const resin_tensor *labels, int64_t classes,
                                resin_tensor *out, double *count) {
    int64_t base = op_int(call, "base"), rows = resin_tensor_count(labels);
    int64_t *read = tensor_data(out);
    *count = 0;
    for (int64_t row = 0; row < rows; row++) {
        int64_t label = integer_at(labels, row);
        read[row] = -1;
        if (is_ignored(call, label)) continue;
        if (label < base || label - base >= classes)
            return bad_label(call, labels, row, label, classes);
        read[row] = label - base;
        *count += 1;
    }
    return RESIN_OK;
}

static resin_status labels_do_not_fit(const op_call *call, bool soft_allowed) {
    const resin_tensor *x = call->in[0], *labels = call->in[1];
    char x_text[SHAPE_TEXT], text[SHAPE_TEXT], wanted[SHAPE_TEXT];
    return op_fail(call, RESIN_ERROR_SHAPE, "labels %s %s do not fit %s %s: expected integers %s%s",
                   resin_dtype_name(labels->dtype),
                   shape_format(labels->rank, labels->shape, text),
                   soft_allowed ? "logits" : "x", shape_format(x->rank, x->shape, x_text),
                   shape_format(x->rank - 1, x->shape, wanted),
                   soft_allowed ? " or probabilities of the same shape" : "");
}

static resin_status check_inputs(const op_call *call, bool soft_allowed, bool *soft) {
    const resin_tensor *x = call->in[0], *labels = call->in[1];
    RESIN_TRY(op_check_float(call, 0));
    if (x->rank < 1 || x->shape[x->rank - 1] < 1)
        return op_fail(call, RESIN_ERROR_SHAPE, "expected a last axis of classes");
    *soft = tensor_is_float(labels);
    if (*soft) {
        if (!soft_allowed || !tensor_same_shape(x, labels))
            return labels_do_not_fit(call, soft_allowed);
        return op_check_float(call, 1);
    }
    if (labels->rank != x->rank - 1 ||
        memcmp(labels->shape, x->shape, (size_t)labels->rank * sizeof x->shape[0]) != 0)
        return labels_do_not_fit(call, soft_allowed);
    return RESIN_OK;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static double target_of(const class_job *job, int64_t row, int64_t c) {
    double t = job->soft ? loss_get(job->soft, row * job->classes + c) : job->label[row] == c;
    return (1 - job->smoothing) * t + job->smoothing / (double)job->classes;
}

static double log_sum(const class_job *job, int64_t row) {
    int64_t first = row * job->classes;
    double largest = -INFINITY, sum = 0;
    for (int64_t c = 0; c < job->classes; c++) {
        double x = loss_get(job->x, first + c);
        if (x > largest || x != x) largest = x;
    }
    if (!isfinite(largest)) return largest; /* all -inf, or an inf or NaN among them */
    for (int64_t c = 0; c < job->classes; c++) sum += exp(loss_get(job->x, first + c) - largest);
    return largest + log(sum);
}

static double row_loss(const class_job *job, int64_t row) {
    double loss = 0;
    int64_t first = row * job->classes;
    if (!job->soft && job->label[row] < 0) return 0;
    if (!job->soft && job->smoothing == 0)
        return job->log_sums[row] - loss_get(job->x, first + job->label[row]);
    for (int64_t c = 0; c < job->classes; c++) {
        double t = target_of(job, row, c);
        if (t != 0) loss += t * (job->log_sums[row] - loss_get(job->x, first + c));
    }
    return loss;
}

static void forward_piece(void *argument, int64_t piece, int worker) {
    const class_job *job = argument;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->rows, job->pieces, piece, &first, &last);
    for (int64_t row = first; row < last; row++) {
        job->log_sums[row] = job->plain ? 0 : log_sum(job, row);
        job->losses[row] = row_loss(job, row);
    }
}

static void row_gradient(const class_job *job, int64_t row) {
    int64_t first = row * job->classes;
    bool ignored = !job->soft && job->label[row] < 0;
    double weight = ignored ? 0 : loss_weight(job->reduction, job->dy, job->count, row), sum = 0;
    for (int64_t c = 0; c < job->classes; c++) sum += target_of(job, row, c);
    for (int64_t c = 0; c < job->classes; c++) {
        double t = target_of(job, row, c), x = loss_get(job->x, first + c);
        double p = job->plain ? 0 : exp(x - job->log_sums[row]);
        if (job->dx) loss_set(job->dx, first + c, ignored ? 0 : weight * (sum * p - t));
        if (job->dtarget)
            loss_set(job->dtarget, first + c,
                     weight * (1 - job->smoothing) * (job->log_sums[row] - x));
    }
}

static void backward_piece(void *argument, int64_t piece, int worker) {
    const class_job *job = argument;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->rows, job->pieces, piece, &first, &last);
    for (int64_t row = first; row < last; row++) row_gradient(job, row);
}

static int64_t piece_count(const class_job *job) {
    return resin_piece_count(job->rows, 4096 / job->classes);
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* Contiguous inputs, checked labels and room for one number a row; made and released together. */
typedef struct class_inputs {
    resin_tensor *x, *target, *label, *log_sums;
    void *losses;
} class_inputs;

static resin_status prepare(op_call *call, class_job *job, bool soft, class_inputs *in) {
    const resin_tensor *given = call->in[1];
    RESIN_TRY(tensor_contiguous(call->in[0], &in->x));
    RESIN_TRY(tensor_contiguous(call->in[1], &in->target));
    job->x = in->x;
    job->classes = in->x->shape[in->x->rank - 1];
    job->rows = resin_tensor_count(in->x) / job->classes;
    job->count = (double)job->rows;
    if (soft) {
        job->soft = in->target;
    } else {
        RESIN_TRY(tensor_new(call->context, RESIN_INT64, given->rank, given->shape, &in->label));
        RESIN_TRY(read_labels(call, in->target, job->classes, in->label, &job->count));
        job->label = tensor_data(in->label);
    }
    RESIN_TRY(tensor_new(call->context, RESIN_FLOAT64, 1, &job->rows, &in->log_sums));
    job->log_sums = tensor_data(in->log_sums);
    RESIN_TRY(resin_allocate(call->context, (size_t)job->rows * sizeof(double), &in->losses));
    job->losses = in->losses;
    return RESIN_OK;
}

static resin_status compute(op_call *call, class_job *job, bool soft, class_inputs *in) {
    RESIN_TRY(prepare(call, job, soft, in));
    job->pieces = piece_count(job);
    if (job->rows > 0) resin_parallel(call->context, job->pieces, forward_piece, job);
    RESIN_TRY(loss_reduce(call, job->reduction, in->x->dtype, job->losses, job->count,
                          in->x->rank - 1, in->x->shape));
    op_save(call, 0, in->x);
    op_save(call, 1, in->log_sums);
    op_save(call, 2, soft ? in->target : in->label);
    call->saved_number[0] = (int64_t)job->count;
    return RESIN_OK;
}

static resin_status class_loss_forward(op_call *call, bool plain) {
    bool soft = false;
    class_inputs in = {0};
    class_job job = {.plain = plain, .smoothing = plain ? 0 : op_number(call, "label_smoothing")};
    RESIN_TRY(check_inputs(call, !plain, &soft));
    RESIN_TRY(loss_read_reduction(call, &job.reduction));
    if (!(job.smoothing >= 0 && job.smoothing <= 1))
        return op_fail(call, RESIN_ERROR_ARGUMENT, "label_smoothing must be 0 to 1, got %g",
                       job.smoothing);
    resin_status status = compute(call, &job, soft, &in);
    resin_release(in.x);
    resin_release(in.target);
    resin_release(in.label);
    resin_release(in.log_sums);
    resin_deallocate(call->context, in.losses);
    return status;
}

/* ---- Backward -------------------------------------------------------------------------------- */

static resin_status class_loss_backward(op_call *call, bool plain) {
    const resin_tensor *x = call->saved[0], *target = call->saved[2];
    class_job job = {.plain = plain, .smoothing = plain ? 0 : op_number(call, "label_smoothing"),
                     .x = x, .classes = x->shape[x->rank - 1],
                     .log_sums = tensor_data(call->saved[1]),
                     .count = (double)call->saved_number[0]};
    resin_tensor *dy;
    if (tensor_is_float(target)) job.soft = target;
    else job.label = tensor_data(target);
    job.rows = resin_tensor_count(x) / job.classes;
    job.pieces = piece_count(&job);
    RESIN_TRY(loss_read_reduction(call, &job.reduction));
    if (call->wants_grad[0]) RESIN_TRY(op_input_grad(call, 0, &job.dx));
    if (call->wants_grad[1]) RESIN_TRY(op_input_grad(call, 1, &job.dtarget));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    job.dy = dy;
    if (job.rows > 0) resin_parallel(call->context, job.pieces, backward_piece, &job);
    resin_release(dy);
    return RESIN_OK;
}

/* ---- The ops --------------------------------------------------------------------------------- */

resin_status cross_entropy_forward(op_call *call) { return class_loss_forward(call, false); }
resin_status cross_entropy_backward(op_call *call) { return class_loss_backward(call, false); }
resin_status nll_loss_forward(op_call *call) { return class_loss_forward(call, true); }
resin_status nll_loss_backward(op_call *call) { return class_loss_backward(call, true); }
