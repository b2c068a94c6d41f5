/* pointwise.c: ops that work element by element: functions of one argument, of two with
 * broadcasting, comparisons, and the choice by a condition. The functions themselves and their
 * derivatives stand in core/kernels/activations.c, elementary.c and arithmetic.c. */
#include "core/kernels/kernels.h"
#include "core/ops/families.h"
#include "core/ops/rows.h"

#include <string.h>

static char *element(resin_tensor *t, int64_t offset) {
    return (char *)tensor_data(t) + offset * (int64_t)resin_dtype_size(t->dtype);
}

/* ---- Functions of one argument -------------------------------------------------------------- */

static const unary_kernel *find_in(const unary_kernel *table, const char *name) {
    while (table->name && strcmp(table->name, name) != 0) table++;
    return table->name ? table : NULL;
}

/* By the op's name; gelu has a second form, which its attribute `approximate` asks for. */
static resin_status unary_find(const op_call *call, const unary_kernel **kernel) {
    const pointwise_kernels *kernels = &resin_kernels()->pointwise;
    const char *name = call->op->name;
    if (strcmp(name, "gelu") == 0) {
        const char *form = op_string(call, "approximate");
        if (strcmp(form, "tanh") == 0) name = "gelu_tanh";
        else if (strcmp(form, "none") != 0)
            return op_fail(call, RESIN_ERROR_ARGUMENT,
                           "approximate must be \"none\" or \"tanh\", got \"%s\"", form);
    }
    *kernel = find_in(kernels->activations, name);
    if (!*kernel) *kernel = find_in(kernels->elementary, name);
    if (!*kernel) return op_fail(call, RESIN_ERROR_ARGUMENT, "there is no such function");
    return RESIN_OK;
}

typedef struct unary_job {
    unary_loop forward;
    unary_gradient_loop gradient;
    resin_tensor *x, *y, *dy, *dx; /* x and y of the gradient may be NULL */
    double p, q;
} unary_job;

static void unary_row(void *argument, const tensor_iterator *it, int64_t n,
                      const int64_t offset[ITERATE_MAX]) {
    const unary_job *job = argument;
    job->forward(n, element(job->x, offset[0]), it->inner_stride[0], element(job->y, offset[1]),
                 it->inner_stride[1], job->p, job->q);
}

resin_status unary_forward(op_call *call) {
    const unary_kernel *kernel;
    resin_tensor *x = call->in[0];
    RESIN_TRY(unary_find(call, &kernel));
    unary_job job = {.forward = kernel->forward[x->dtype], .x = x,
                     .p = call->value[0].number, .q = call->value[1].number};
    if (!job.forward)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "not defined for %s; cast it to float32",
                       resin_dtype_name(x->dtype));
    RESIN_TRY(tensor_new_like(x, &call->out));
    job.y = call->out;
    tensor_iterator it;
    const resin_tensor *operands[] = {x, job.y};
    iterator_start(&it, x->rank, x->shape, 2, operands);
    rows_parallel(call->context, &it, unary_row, &job);
    if (kernel->needs_x) op_save(call, 0, x);
    if (kernel->needs_y) op_save(call, 1, call->out);
    return RESIN_OK;
}

static void unary_gradient_row(void *argument, const tensor_iterator *it, int64_t n,
                               const int64_t offset[ITERATE_MAX]) {
    const unary_job *job = argument;
    (void)it;
    job->gradient(n, job->x ? element(job->x, offset[0]) : NULL,
                  job->y ? element(job->y, offset[0]) : NULL, element(job->dy, offset[0]),
                  element(job->dx, offset[0]), job->p, job->q);
}

/* All operands contiguous, so that one offset serves them all. */
static resin_status unary_gradient(op_call *call, unary_job *job) {
    RESIN_TRY(op_input_grad(call, 0, &job->dx));
    tensor_iterator it;
    const resin_tensor *operands[] = {job->dx};
    iterator_start(&it, job->dx->rank, job->dx->shape, 1, operands);
    rows_parallel(call->context, &it, unary_gradient_row, job);
    return RESIN_OK;
}

resin_status unary_backward(op_call *call) {
    const unary_kernel *kernel;
    RESIN_TRY(unary_find(call, &kernel));
    unary_job job = {.gradient = kernel->gradient[call->out_grad->dtype],
                     .p = call->value[0].number, .q = call->value[1].number};
    resin_status status = op_out_grad_contiguous(call, &job.dy);
    if (status == RESIN_OK && kernel->needs_x) status = tensor_contiguous(call->saved[0], &job.x);
    if (status == RESIN_OK && kernel->needs_y) status = tensor_contiguous(call->saved[1], &job.y);
    if (status == RESIN_OK) status = unary_gradient(call, &job);
    resin_release(job.x);
    resin_release(job.y);
    resin_release(job.dy);
    return status;
}

/* ---- Functions of two arguments ------------------------------------------------------------- */

static resin_status binary_find(const op_call *call, const binary_kernel **kernel) {
    *kernel = resin_kernels()->pointwise.arithmetic;
    while ((*kernel)->name && strcmp((*kernel)->name, call->op->name) != 0) (*kernel)++;
    if (!(*kernel)->name) return op_fail(call, RESIN_ERROR_ARGUMENT, "there is no such function");
    return RESIN_OK;
}

static resin_status same_dtypes(const op_call *call, int first, int second) {
    const resin_tensor *a = call->in[first], *b = call->in[second];
    if (a->dtype == b->dtype) return RESIN_OK;
    return op_fail(call, RESIN_ERROR_ARGUMENT,
                   "dtypes must agree, got %s and %s; cast one of them",
                   resin_dtype_name(a->dtype), resin_dtype_name(b->dtype));
}

typedef struct binary_job {
    const binary_kernel *kernel;
    resin_tensor *a, *b, *c, *gradient;
    bool second; /* the gradient of b */
} binary_job;

static void binary_row(void *argument, const tensor_iterator *it, int64_t n,
                       const int64_t offset[ITERATE_MAX]) {
    const binary_job *job = argument;
    job->kernel->forward[job->a->dtype](n, element(job->a, offset[0]), it->inner_stride[0],
                                        element(job->b, offset[1]), it->inner_stride[1],
                                        element(job->c, offset[2]), it->inner_stride[2]);
}

resin_status binary_forward(op_call *call) {
    binary_job job = {.a = call->in[0], .b = call->in[1]};
    RESIN_TRY(binary_find(call, &job.kernel));
    RESIN_TRY(same_dtypes(call, 0, 1));
    if (!job.kernel->forward[job.a->dtype])
        return op_fail(call, RESIN_ERROR_ARGUMENT, "not defined for %s; cast it to float32",
                       resin_dtype_name(job.a->dtype));
    int rank;
    int64_t shape[RESIN_MAX_RANK];
    RESIN_TRY(shape_broadcast(call->context, call->op->name, job.a, job.b, &rank, shape));
    resin_dtype result = job.kernel->compares ? RESIN_UINT8 : job.a->dtype;
    RESIN_TRY(tensor_new(call->context, result, rank, shape, &call->out));
    job.c = call->out;
    tensor_iterator it;
    const resin_tensor *operands[] = {job.a, job.b, job.c};
    iterator_start(&it, rank, shape, 3, operands);
    rows_parallel(call->context, &it, binary_row, &job);

    const binary_kernel *kernel = job.kernel;
    bool a_wanted = call->wants_grad[0], b_wanted = call->wants_grad[1];
    if ((a_wanted && kernel->gradient_a_reads_a) || (b_wanted && kernel->gradient_b_reads_a))
        op_save(call, 0, job.a);
    if ((a_wanted && kernel->gradient_a_reads_b) || (b_wanted && kernel->gradient_b_reads_b))
        op_save(call, 1, job.b);
    return RESIN_OK;
}

static void binary_gradient_row(void *argument, const tensor_iterator *it, int64_t n,
                                const int64_t offset[ITERATE_MAX]) {
    const binary_job *job = argument;
    resin_dtype dtype = job->c->dtype;
    (job->second ? job->kernel->gradient_b : job->kernel->gradient_a)[dtype](
        n, job->a ? element(job->a, offset[0]) : NULL, it->inner_stride[0],
        job->b ? element(job->b, offset[1]) : NULL, it->inner_stride[1],
        element(job->c, offset[2]), it->inner_stride[2], element(job->gradient, offset[3]));
}

/* The gradient of one input: in the shape of the result first, then summed to the input's. */
static resin_status binary_input_gradient(op_call *call, const binary_kernel *kernel,
                                          bool second) {
    resin_tensor *dc = call->out_grad;
    int index = second;
    if (!(second ? kernel->gradient_b : kernel->gradient_a)[dc->dtype])
        return op_give_grad_broadcast(call, index, dc);
    binary_job job = {.kernel = kernel, .c = dc, .second = second};
    if (second ? kernel->gradient_b_reads_a : kernel->gradient_a_reads_a) job.a = call->saved[0];
    if (second ? kernel->gradient_b_reads_b : kernel->gradient_a_reads_b) job.b = call->saved[1];

    int rank;
    const int64_t *shape = op_input_shape(call, index, &rank);
    bool broadcast = rank != dc->rank || memcmp(shape, dc->shape, (size_t)rank * sizeof *shape);
    if (broadcast) RESIN_TRY(tensor_new_like(dc, &job.gradient));
    else RESIN_TRY(op_input_grad(call, index, &job.gradient));

    tensor_iterator it;
    const resin_tensor *operands[] = {job.a ? job.a : dc, job.b ? job.b : dc, dc, job.gradient};
    iterator_start(&it, dc->rank, dc->shape, 4, operands);
    rows_parallel(call->context, &it, binary_gradient_row, &job);
    if (!broadcast) return RESIN_OK;
    resin_status status = op_give_grad_broadcast(call, index, job.gradient);
    resin_release(job.gradient);
    return status;
}

resin_status binary_backward(op_call *call) {
    const binary_kernel *kernel;
    RESIN_TRY(binary_find(call, &kernel));
    if (call->wants_grad[0]) RESIN_TRY(binary_input_gradient(call, kernel, false));
    if (call->wants_grad[1]) RESIN_TRY(binary_input_gradient(call, kernel, true));
    return RESIN_OK;
}

/* ---- where(condition, a, b) ----------------------------------------------------------------- */

typedef struct choose_job {
    resin_tensor *condition, *a, *b, *c;
} choose_job;

static void choose_row(void *argument, const tensor_iterator *it, int64_t n,
                       const int64_t offset[ITERATE_MAX]) {
    const choose_job *job = argument;
    resin_kernels()->pointwise.choose[job->c->dtype](
        n, element(job->condition, offset[0]), it->inner_stride[0], element(job->a, offset[1]),
        it->inner_stride[1], element(job->b, offset[2]), it->inner_stride[2],
        element(job->c, offset[3]), it->inner_stride[3]);
}

static void choose_elements(choose_job *job) {
    tensor_iterator it;
    const resin_tensor *operands[] = {job->condition, job->a, job->b, job->c};
    iterator_start(&it, job->c->rank, job->c->shape, 4, operands);
    rows_parallel(job->c->context, &it, choose_row, job);
}

resin_status where_forward(op_call *call) {
    choose_job job = {.condition = call->in[0], .a = call->in[1], .b = call->in[2]};
    if (job.condition->dtype != RESIN_UINT8)
        return op_fail(call, RESIN_ERROR_ARGUMENT, "the condition must be uint8, got %s",
                       resin_dtype_name(job.condition->dtype));
    RESIN_TRY(same_dtypes(call, 1, 2));
    /* The common shape of a and b, and of that with the condition's. */
    resin_tensor both = {.context = call->context};
    int rank;
    int64_t shape[RESIN_MAX_RANK];
    RESIN_TRY(shape_broadcast(call->context, "where", job.a, job.b, &both.rank, both.shape));
    RESIN_TRY(shape_broadcast(call->context, "where", job.condition, &both, &rank, shape));
    RESIN_TRY(tensor_new(call->context, job.a->dtype, rank, shape, &call->out));
    job.c = call->out;
    choose_elements(&job);
    op_save(call, 0, job.condition);
    return RESIN_OK;
}

/* dc where the condition chose the input, 0 elsewhere. */
static resin_status where_input_gradient(op_call *call, int index, resin_tensor *zero) {
    choose_job job = {.condition = call->saved[0], .a = index == 1 ? call->out_grad : zero,
                      .b = index == 1 ? zero : call->out_grad};
    RESIN_TRY(tensor_new_like(call->out_grad, &job.c));
    choose_elements(&job);
    resin_status status = op_give_grad_broadcast(call, index, job.c);
    resin_release(job.c);
    return status;
}

resin_status where_backward(op_call *call) {
    resin_tensor *zero;
    RESIN_TRY(resin_full(call->context, call->out_grad->dtype, 0, NULL, 0, &zero));
    resin_status status = RESIN_OK;
    for (int index = 1; index <= 2 && status == RESIN_OK; index++)
        if (call->wants_grad[index]) status = where_input_gradient(call, index, zero);
    resin_release(zero);
    return status;
}
