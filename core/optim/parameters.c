/* parameters.c: parameters and their gradients in one flat buffer each. */
#include "core/optim/parameters.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"

#include <math.h>
#include <string.h>

enum {
    ALIGNMENT = 16,      /* elements: a segment starts on a cache line */
    RUN_ELEMENTS = 16384 /* the longest run; a piece has about twice as many */
};

static resin_status allocate_array(resin_context *context, size_t count, size_t size, void *out) {
    size_t bytes;
    void *block;
    if (!resin_size_multiply(count, size, &bytes))
        return resin_fail(context, RESIN_ERROR_MEMORY, "parameters: too many tensors");
    RESIN_TRY(resin_allocate(context, bytes, &block));
    memset(block, 0, bytes);
    memcpy(out, &block, sizeof block);
    return RESIN_OK;
}

/* ---- Building -------------------------------------------------------------------------------- */

static resin_status check_tensor(resin_context *context, const resin_tensor *tensor, int number,
                                 resin_dtype dtype) {
    if (!tensor || tensor->context != context)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "parameters: tensor %d is missing or belongs to another context", number);
    if (!tensor_is_float(tensor) || tensor->dtype != dtype)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "parameters: expected all float32 or all float64, but tensor %d is %s "
                          "and the first %s", number, resin_dtype_name(tensor->dtype),
                          resin_dtype_name(dtype));
    if (tensor->origin)
        return resin_fail(context, RESIN_ERROR_GRAPH,
                          "parameters: tensor %d is the result of an op, not a leaf", number);
    if (!resin_tensor_contiguous(tensor))
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "parameters: tensor %d is not contiguous", number);
    return RESIN_OK;
}

int resin_parameters_find(const resin_parameters *parameters, const resin_tensor *tensor) {
    for (int i = 0; i < parameters->count; i++)
        if (parameters->tensor[i] == tensor) return i;
    return -1;
}

/* The tensors without repetitions, and where each will lie. */
static resin_status lay_out(resin_parameters *p, resin_tensor *const *tensors, int count,
                            int64_t *total) {
    *total = 0;
    for (int i = 0; i < count; i++) {
        RESIN_TRY(check_tensor(p->context, tensors[i], i, p->dtype));
        if (resin_parameters_find(p, tensors[i]) >= 0) continue;
        int64_t length = resin_tensor_count(tensors[i]);
        p->tensor[p->count] = resin_retain(tensors[i]);
        p->segment[p->count] = (resin_segment){.offset = *total, .length = length, .rate_scale = 1,
                                               .decay = 1, .frozen = !tensors[i]->requires_grad};
        p->count++;
        if (__builtin_add_overflow(*total, length, total) || *total > INT64_MAX - ALIGNMENT)
            return resin_fail(p->context, RESIN_ERROR_MEMORY, "parameters: too many elements");
        *total = (*total + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    return RESIN_OK;
}

static resin_status cut_runs(resin_parameters *p) {
    size_t runs = 0;
    for (int i = 0; i < p->count; i++)
        runs += (size_t)((p->segment[i].length + RUN_ELEMENTS - 1) / RUN_ELEMENTS);
    RESIN_TRY(allocate_array(p->context, runs, sizeof *p->run, &p->run));
    RESIN_TRY(allocate_array(p->context, runs + 1, sizeof *p->piece_first, &p->piece_first));
    int64_t gathered = 0;
    for (int i = 0; i < p->count; i++)
        for (int64_t at = 0; at < p->segment[i].length; at += RUN_ELEMENTS) {
            int64_t rest = p->segment[i].length - at;
            int64_t length = rest < RUN_ELEMENTS ? rest : RUN_ELEMENTS;
            if (gathered == 0) p->piece_first[p->pieces++] = p->runs;
            p->run[p->runs++] = (parameter_run){i, p->segment[i].offset + at, length};
            gathered += length;
            if (gathered >= 2 * RUN_ELEMENTS) gathered = 0;
        }
    p->piece_first[p->pieces] = p->runs;
    return RESIN_OK;
}

/* Views of both buffers for every segment, with the values copied; nothing is changed yet. */
static resin_status make_views(resin_parameters *p, resin_tensor **value) {
    for (int i = 0; i < p->count; i++) {
        const resin_tensor *tensor = p->tensor[i];
        int64_t stride[RESIN_MAX_RANK], offset = p->segment[i].offset;
        shape_strides(tensor->rank, tensor->shape, stride);
        RESIN_TRY(tensor_view(p->flat, tensor->rank, tensor->shape, stride, offset, &value[i]));
        RESIN_TRY(tensor_view(p->flat_grad, tensor->rank, tensor->shape, stride, offset,
                              &p->grad[i]));
        RESIN_TRY(tensor_copy_elements(value[i], tensor));
    }
    return RESIN_OK;
}

/* The parameter takes the view's storage, the view the parameter's old one. */
static void take_storage(resin_tensor *tensor, resin_tensor *view) {
    resin_storage *storage = tensor->storage;
    int64_t offset = tensor->offset;
    tensor->storage = view->storage;
    tensor->offset = view->offset;
    memcpy(tensor->stride, view->stride, sizeof tensor->stride);
    view->storage = storage;
    view->offset = offset;
}

static resin_status install(resin_parameters *p, resin_tensor **value) {
    RESIN_TRY(make_views(p, value));
    for (int i = 0; i < p->count; i++) {
        take_storage(p->tensor[i], value[i]);
        RESIN_TRY(resin_set_grad(p->tensor[i], p->grad[i]));
    }
    return RESIN_OK;
}

static resin_status build(resin_parameters *p, resin_tensor *const *tensors, int count) {
    int64_t total;
    resin_tensor **value;
    size_t n = (size_t)count;
    RESIN_TRY(allocate_array(p->context, n, sizeof *p->tensor, &p->tensor));
    RESIN_TRY(allocate_array(p->context, n, sizeof *p->grad, &p->grad));
    RESIN_TRY(allocate_array(p->context, n, sizeof *p->segment, &p->segment));
    RESIN_TRY(allocate_array(p->context, n, sizeof *p->active, &p->active));
    RESIN_TRY(lay_out(p, tensors, count, &total));
    RESIN_TRY(cut_runs(p));
    RESIN_TRY(resin_full(p->context, p->dtype, 1, &total, 0, &p->flat));
    RESIN_TRY(resin_full(p->context, p->dtype, 1, &total, 0, &p->flat_grad));
    RESIN_TRY(allocate_array(p->context, n, sizeof *value, &value));
    resin_status status = install(p, value);
    for (int i = 0; i < p->count; i++) resin_release(value[i]);
    resin_deallocate(p->context, value);
    /* The parameters' old blocks would stay in the arena, as much as all weights, and fit nothing. */
    resin_memory_trim(p->context);
    return status;
}

resin_status resin_parameters_new(resin_context *context, resin_tensor *const *tensors, int count,
                                  resin_parameters **out) {
    resin_parameters *p;
    *out = NULL;
    if (count < 1)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "parameters: expected at least one tensor");
    RESIN_TRY(allocate_array(context, 1, sizeof *p, &p));
    atomic_init(&p->references, 1);
    p->context = resin_context_retain(context);
    p->dtype = tensors[0] ? tensors[0]->dtype : RESIN_FLOAT32;
    resin_status status = build(p, tensors, count);
    if (status == RESIN_OK) *out = p;
    else resin_parameters_release(p);
    return status;
}

resin_parameters *resin_parameters_retain(resin_parameters *parameters) {
    atomic_fetch_add_explicit(&parameters->references, 1, memory_order_relaxed);
    return parameters;
}

void resin_parameters_release(resin_parameters *p) {
    if (!p || atomic_fetch_sub_explicit(&p->references, 1, memory_order_acq_rel) != 1) return;
    resin_context *context = p->context;
    for (int i = 0; i < p->count; i++) {
        resin_release(p->tensor[i]);
        resin_release(p->grad[i]);
    }
    resin_release(p->flat);
    resin_release(p->flat_grad);
    resin_deallocate(context, p->tensor);
    resin_deallocate(context, p->grad);
    resin_deallocate(context, p->segment);
    resin_deallocate(context, p->active);
    resin_deallocate(context, p->run);
    resin_deallocate(context, p->piece_first);
    resin_deallocate(context, p);
    resin_context_release(context);
}

/* ---- Segments -------------------------------------------------------------------------------- */

int resin_parameters_count(const resin_parameters *p) { return p->count; }
resin_tensor *resin_parameters_flat(const resin_parameters *p) { return p->flat; }
resin_tensor *resin_parameters_flat_grad(const resin_parameters *p) { return p->flat_grad; }

static resin_status check_index(const resin_parameters *p, int index) {
    if (index >= 0 && index < p->count) return RESIN_OK;
    return resin_fail(p->context, RESIN_ERROR_ARGUMENT, "parameters: there is no segment %d of %d",
                      index, p->count);
}

resin_tensor *resin_parameters_tensor(const resin_parameters *p, int index) {
    return index >= 0 && index < p->count ? p->tensor[index] : NULL;
}

resin_status resin_parameters_segment(const resin_parameters *p, int index,
                                      resin_segment *segment) {
    RESIN_TRY(check_index(p, index));
    *segment = p->segment[index];
    return RESIN_OK;
}

resin_status resin_parameters_set_segment(resin_parameters *p, int index,
                                          const resin_segment *segment) {
    RESIN_TRY(check_index(p, index));
    const double numbers[] = {segment->rate_scale, segment->decay, segment->l1, segment->l2};
    for (int i = 0; i < 4; i++)
        if (!(numbers[i] >= 0) || !isfinite(numbers[i]))
            return resin_fail(p->context, RESIN_ERROR_ARGUMENT,
                              "parameters: rate_scale, decay, l1 and l2 must not be negative, "
                              "got %g", numbers[i]);
    RESIN_TRY(resin_require_grad(p->tensor[index], !segment->frozen));
    if (segment->frozen) resin_clear_grad(p->tensor[index]);
    int64_t offset = p->segment[index].offset, length = p->segment[index].length;
    p->segment[index] = *segment;
    p->segment[index].offset = offset;
    p->segment[index].length = length;
    return RESIN_OK;
}

/* ---- Gradients ------------------------------------------------------------------------------- */

void resin_parameters_clear_grads(resin_parameters *p) {
    for (int i = 0; i < p->count; i++) resin_clear_grad(p->tensor[i]);
}

/* A gradient that somebody set from elsewhere moves into the flat buffer. */
static resin_status bring_home(resin_parameters *p, int index) {
    resin_tensor *tensor = p->tensor[index];
    bool is_set = tensor->grad_is_set;
    if (tensor->grad == p->grad[index]) return RESIN_OK;
    if (is_set) RESIN_TRY(tensor_copy_elements(p->grad[index], tensor->grad));
    RESIN_TRY(resin_set_grad(tensor, p->grad[index]));
    tensor->grad_is_set = is_set;
    return RESIN_OK;
}

resin_status parameters_prepare(resin_parameters *p) {
    for (int i = 0; i < p->count; i++) {
        const resin_tensor *tensor = p->tensor[i];
        if (tensor->storage != p->flat->storage || tensor->offset != p->segment[i].offset)
            return resin_fail(p->context, RESIN_ERROR_GRAPH,
                              "parameters: tensor %d has been given to other parameters since", i);
        RESIN_TRY(bring_home(p, i));
        p->active[i] = tensor->grad_is_set && !p->segment[i].frozen;
    }
    return RESIN_OK;
}

typedef struct sweep {
    resin_parameters *parameters;
    parameters_body body;
    void *argument;
} sweep;

static void sweep_piece(void *argument, int64_t piece, int worker) {
    const sweep *s = argument;
    const resin_parameters *p = s->parameters;
    (void)worker;
    for (int64_t run = p->piece_first[piece]; run < p->piece_first[piece + 1]; run++)
        if (p->active[p->run[run].segment]) s->body(s->argument, run);
}

void parameters_sweep(resin_parameters *p, parameters_body body, void *argument) {
    sweep s = {p, body, argument};
    if (p->pieces > 0) resin_parallel(p->context, p->pieces, sweep_piece, &s);
}

typedef struct gradient_sweep {
    const resin_parameters *parameters;
    const optimizer_loops *loops;
    double *result; /* by run */
    double factor;
} gradient_sweep;

static resin_status sweep_gradients(resin_parameters *p, parameters_body body,
                                    gradient_sweep *given) {
    given->parameters = p;
    given->loops = &resin_kernels()->optimizer.of[p->dtype];
    RESIN_TRY(allocate_array(p->context, (size_t)p->runs + 1, sizeof(double), &given->result));
    parameters_sweep(p, body, given);
    return RESIN_OK;
}

static void *run_gradient(const gradient_sweep *s, int64_t run) {
    return parameters_at(s->parameters, s->parameters->flat_grad, s->parameters->run[run].first);
}

static void sum_run(void *argument, int64_t run) {
    const gradient_sweep *s = argument;
    s->result[run] = s->loops->sum_squares(s->parameters->run[run].length, run_gradient(s, run));
}

static void finite_run(void *argument, int64_t run) {
    const gradient_sweep *s = argument;
    s->result[run] = !s->loops->finite(s->parameters->run[run].length, run_gradient(s, run));
}

static void scale_run(void *argument, int64_t run) {
    const gradient_sweep *s = argument;
    s->loops->scale(s->parameters->run[run].length, run_gradient(s, run), s->factor);
}

resin_status parameters_norm(resin_parameters *p, double *norm) {
    gradient_sweep s;
    double sum = 0;
    RESIN_TRY(sweep_gradients(p, sum_run, &s));
    for (int64_t run = 0; run < p->runs; run++) sum += s.result[run];
    resin_deallocate(p->context, s.result);
    *norm = sqrt(sum);
    return RESIN_OK;
}

resin_status resin_parameters_clip_norm(resin_parameters *p, double max_norm, double *norm) {
    double found;
    if (!(max_norm > 0))
        return resin_fail(p->context, RESIN_ERROR_ARGUMENT,
                          "clip_norm: the norm must be positive, got %g", max_norm);
    RESIN_TRY(parameters_prepare(p));
    RESIN_TRY(parameters_norm(p, &found));
    if (norm) *norm = found;
    double factor = max_norm / (found + 1e-6);
    if (!isfinite(found) || factor >= 1) return RESIN_OK;
    gradient_sweep s = {.parameters = p, .loops = &resin_kernels()->optimizer.of[p->dtype],
                        .factor = factor};
    parameters_sweep(p, scale_run, &s);
    resin_tensor_touch(p->flat_grad);
    return RESIN_OK;
}

resin_status resin_parameters_check_finite(resin_parameters *p, int *index) {
    gradient_sweep s;
    RESIN_TRY(parameters_prepare(p));
    RESIN_TRY(sweep_gradients(p, finite_run, &s));
    *index = -1;
    for (int64_t run = p->runs - 1; run >= 0; run--)
        if (s.result[run] != 0) *index = p->run[run].segment;
    resin_deallocate(p->context, s.result);
    return RESIN_OK;
}

/* ---- Penalties ------------------------------------------------------------------------------- */

static double element(const resin_parameters *p, int64_t at) {
    const void *flat = tensor_data(p->flat);
    return p->dtype == RESIN_FLOAT64 ? ((const double *)flat)[at]
                                     : (double)((const float *)flat)[at];
}

static void penalty_run(void *argument, int64_t number) {
    const gradient_sweep *s = argument;
    const resin_parameters *p = s->parameters;
    const parameter_run *run = &p->run[number];
    const resin_segment *segment = &p->segment[run->segment];
    double squares = s->loops->sum_squares(run->length, parameters_at(p, p->flat, run->first));
    s->result[number] = segment->l2 * squares;
    for (int64_t i = run->first; segment->l1 > 0 && i < run->first + run->length; i++)
        s->result[number] += segment->l1 * fabs(element(p, i));
}

resin_status resin_parameters_penalty(resin_parameters *p, double *penalty) {
    gradient_sweep s;
    for (int i = 0; i < p->count; i++)
        p->active[i] = p->segment[i].l1 > 0 || p->segment[i].l2 > 0;
    RESIN_TRY(sweep_gradients(p, penalty_run, &s));
    *penalty = 0;
    for (int64_t run = 0; run < p->runs; run++) *penalty += s.result[run];
    resin_deallocate(p->context, s.result);
    return RESIN_OK;
}
