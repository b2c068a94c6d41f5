/* losses.c: losses of a prediction x against a target t of the same shape, element by element, and
 * what all losses share. Computed in double, whatever the tensors hold.
 *
 * Losses of classes are in label_losses.c. */
#include "core/ops/loss.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/ops/families.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- Reduction ------------------------------------------------------------------------------- */

resin_status loss_read_reduction(const op_call *call, loss_reduction *reduction) {
    static const char *const name[] = {"mean", "sum", "none"};
    const char *given = op_string(call, "reduction");
    for (int i = LOSS_MEAN; i <= LOSS_NONE; i++) {
        if (strcmp(given, name[i]) != 0) continue;
        *reduction = (loss_reduction)i;
        return RESIN_OK;
    }
    return op_fail(call, RESIN_ERROR_ARGUMENT,
                   "reduction must be \"mean\", \"sum\" or \"none\", got \"%s\"", given);
}

resin_status loss_reduce(op_call *call, loss_reduction reduction, resin_dtype dtype,
                         const double *losses, double count, int rank, const int64_t *shape) {
    int64_t rows = 1;
    double sum = 0;
    for (int i = 0; i < rank; i++) rows *= shape[i];
    RESIN_TRY(tensor_new(call->context, dtype, reduction == LOSS_NONE ? rank : 0, shape,
                         &call->out));
    for (int64_t row = 0; row < rows; row++) {
        if (reduction == LOSS_NONE) loss_set(call->out, row, losses[row]);
        sum += losses[row];
    }
    if (reduction != LOSS_NONE) loss_set(call->out, 0, reduction == LOSS_MEAN ? sum / count : sum);
    return RESIN_OK;
}

/* ---- One element ----------------------------------------------------------------------------- */

/* A loss and its derivatives by the prediction x and by the target t; p is the op's number. */
typedef struct pair_loss {
    const char *name;
    double (*value)(double x, double t, double p);
    double (*slope_x)(double x, double t, double p);
    double (*slope_t)(double x, double t, double p);
} pair_loss;

static double square_value(double x, double t, double p) { (void)p; return (x - t) * (x - t); }
static double square_slope_x(double x, double t, double p) { (void)p; return 2 * (x - t); }
static double square_slope_t(double x, double t, double p) { (void)p; return 2 * (t - x); }

static double absolute_value(double x, double t, double p) { (void)p; return fabs(x - t); }
static double absolute_slope_x(double x, double t, double p) {
    (void)p;
    return x > t ? 1 : x < t ? -1 : x == t ? 0 : x - t; /* the last: NaN */
}
static double absolute_slope_t(double x, double t, double p) { return absolute_slope_x(t, x, p); }

/* d^2 / 2 up to |d| = p, then p (|d| - p / 2). */
static double huber_value(double x, double t, double p) {
    double d = fabs(x - t);
    return d <= p ? 0.5 * d * d : p * (d - 0.5 * p);
}
static double huber_slope_x(double x, double t, double p) {
    double d = x - t;
    return d > p ? p : d < -p ? -p : d;
}
static double huber_slope_t(double x, double t, double p) { return huber_slope_x(t, x, p); }

/* -(t ln x + (1 - t) ln(1 - x)), the logarithms not below -100 (as PyTorch). */
static double clamped_log(double x) {
    double value = log(x);
    return value < -100 ? -100 : value;
}
static double entropy_value(double x, double t, double p) {
    (void)p;
    return (t - 1) * clamped_log(1 - x) - t * clamped_log(x);
}
static double entropy_slope_x(double x, double t, double p) {
    double spread = (1 - x) * x;
    (void)p;
    return (x - t) / (spread < 1e-12 ? 1e-12 : spread);
}
static double entropy_slope_t(double x, double t, double p) {
    (void)t, (void)p;
    return clamped_log(1 - x) - clamped_log(x);
}

/* The same of x = sigmoid(z): max(z, 0) - z t + ln(1 + e^-|z|). */
static double logits_value(double z, double t, double p) {
    (void)p;
    return (z > 0 ? z : z == z ? 0 : z) - z * t + log1p(exp(-fabs(z)));
}
static double logits_slope_x(double z, double t, double p) {
    double e = exp(-fabs(z));
    (void)p;
    return (z >= 0 ? 1 / (1 + e) : e / (1 + e)) - t;
}
static double logits_slope_t(double z, double t, double p) { (void)t, (void)p; return -z; }

static const pair_loss pair_losses[] = {
    {"mse_loss", square_value, square_slope_x, square_slope_t},
    {"l1_loss", absolute_value, absolute_slope_x, absolute_slope_t},
    {"huber_loss", huber_value, huber_slope_x, huber_slope_t},
    {"binary_cross_entropy", entropy_value, entropy_slope_x, entropy_slope_t},
    {"binary_cross_entropy_with_logits", logits_value, logits_slope_x, logits_slope_t},
};

/* The row is there: table.c names pair_loss_forward for these ops only. */
static const pair_loss *find_loss(const op_call *call) {
    const pair_loss *loss = pair_losses;
    while (strcmp(loss->name, call->op->name) != 0) loss++;
    return loss;
}

static double parameter(const op_call *call, const pair_loss *loss) {
    return loss->value == huber_value ? op_number(call, "delta") : 0;
}

/* ---- All elements ---------------------------------------------------------------------------- */

typedef struct pair_job {
    const pair_loss *loss;
    double p, count;
    const resin_tensor *x, *t, *dy;
    loss_reduction reduction;
    double *losses;        /* forward: by element */
    resin_tensor *dx, *dt; /* backward: NULL where not wanted */
    int64_t elements, pieces;
} pair_job;

static void pair_forward_piece(void *argument, int64_t piece, int worker) {
    const pair_job *job = argument;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->elements, job->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++)
        job->losses[i] = job->loss->value(loss_get(job->x, i), loss_get(job->t, i), job->p);
}

static void pair_backward_piece(void *argument, int64_t piece, int worker) {
    const pair_job *job = argument;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(job->elements, job->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++) {
        double x = loss_get(job->x, i), t = loss_get(job->t, i);
        double weight = loss_weight(job->reduction, job->dy, job->count, i);
        if (job->dx) loss_set(job->dx, i, weight * job->loss->slope_x(x, t, job->p));
        if (job->dt) loss_set(job->dt, i, weight * job->loss->slope_t(x, t, job->p));
    }
}

static resin_status check_pair(const op_call *call, const pair_loss *loss) {
    const resin_tensor *x = call->in[0], *t = call->in[1];
    char x_text[SHAPE_TEXT], t_text[SHAPE_TEXT];
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(op_check_float(call, 1));
    if (!tensor_same_shape(x, t))
        return op_fail(call, RESIN_ERROR_SHAPE, "x %s and target %s differ",
                       shape_format(x->rank, x->shape, x_text),
                       shape_format(t->rank, t->shape, t_text));
    if (loss->value == huber_value && !(op_number(call, "delta") > 0))
        return op_fail(call, RESIN_ERROR_ARGUMENT, "delta must be positive, got %g",
                       op_number(call, "delta"));
    return RESIN_OK;
}

static resin_status check_probabilities(const op_call *call, const resin_tensor *x,
                                        int64_t elements) {
    for (int64_t i = 0; i < elements; i++) {
        double value = loss_get(x, i);
        if (!(value >= 0 && value <= 1))
            return op_fail(call, RESIN_ERROR_ARGUMENT,
                           "x must hold probabilities 0 .. 1, got %g (for scores before a sigmoid "
                           "there is binary_cross_entropy_with_logits)", value);
    }
    return RESIN_OK;
}

static resin_status pair_forward(op_call *call, pair_job *job) {
    void *losses;
    if (job->loss->value == entropy_value)
        RESIN_TRY(check_probabilities(call, job->x, job->elements));
    RESIN_TRY(resin_allocate(call->context, (size_t)job->elements * sizeof(double), &losses));
    job->losses = losses;
    if (job->elements > 0) resin_parallel(call->context, job->pieces, pair_forward_piece, job);
    resin_status status = loss_reduce(call, job->reduction, job->x->dtype, losses,
                                      (double)job->elements, job->x->rank, job->x->shape);
    resin_deallocate(call->context, losses);
    return status;
}

resin_status pair_loss_forward(op_call *call) {
    resin_tensor *x, *t;
    pair_job job = {.loss = find_loss(call)};
    RESIN_TRY(check_pair(call, job.loss));
    RESIN_TRY(loss_read_reduction(call, &job.reduction));
    RESIN_TRY(tensor_contiguous(call->in[0], &x));
    resin_status status = tensor_contiguous(call->in[1], &t);
    if (status == RESIN_OK) {
        job.p = parameter(call, job.loss);
        job.x = x;
        job.t = t;
        job.elements = resin_tensor_count(x);
        job.pieces = resin_piece_count(job.elements, 16384);
        status = pair_forward(call, &job);
        op_save(call, 0, x);
        op_save(call, 1, t);
        resin_release(t);
    }
    resin_release(x);
    return status;
}

resin_status pair_loss_backward(op_call *call) {
    pair_job job = {.loss = find_loss(call), .x = call->saved[0], .t = call->saved[1]};
    resin_tensor *dy;
    job.p = parameter(call, job.loss);
    job.elements = resin_tensor_count(job.x);
    job.count = (double)job.elements;
    job.pieces = resin_piece_count(job.elements, 16384);
    RESIN_TRY(loss_read_reduction(call, &job.reduction));
    if (call->wants_grad[0]) RESIN_TRY(op_input_grad(call, 0, &job.dx));
    if (call->wants_grad[1]) RESIN_TRY(op_input_grad(call, 1, &job.dt));
    RESIN_TRY(op_out_grad_contiguous(call, &dy));
    job.dy = dy;
    if (job.elements > 0) resin_parallel(call->context, job.pieces, pair_backward_piece, &job);
    resin_release(dy);
    return RESIN_OK;
}
