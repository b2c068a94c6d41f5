/* optimizer.c: optimizers over flat parameters, one fused sweep a step.
 *
 * g is the gradient, scaled by clipping, plus the segment's penalties 2 l2 w + l1 sign(w); lr is
 * the learning rate times the segment's rate_scale, wd the weight decay times its decay, t the step
 * (of the segment in PyTorch, of the optimizer in Keras).
 *
 *   sgd      PyTorch  v = m v + (1 - dampening) g (the first time v = g);
 *                     w -= lr (nesterov ? g + m v : v)
 *            Keras    v = m v - lr g;  w += nesterov ? m v - lr g : v
 *   adam     m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *            PyTorch  w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)
 *            Keras    w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon)
 *   rmsprop  s = a s + (1 - a) g^2;  centered: mean = a mean + (1 - a) g, s - mean^2 in place of s
 *            PyTorch  d = g / (sqrt(s) + epsilon);  u = m u + d;  w -= lr u
 *            Keras    d = lr g / sqrt(s + epsilon); u = m u + d;  w -= u
 *
 * Weight decay is wd w added to g in PyTorch's sgd, adam and rmsprop, and w *= 1 - lr wd before the
 * step in adamw and wherever the rule is Keras' (its optimizers since 2.11).
 * Sources: torch/optim of PyTorch 1.13; keras/optimizers of Keras 2.11. */
#include "core/optim/parameters.h"

#include "core/base/memory.h"
#include "core/kernels/kernels.h"

#include <math.h>
#include <string.h>

typedef enum optimizer_kind { SGD, ADAM, ADAMW, RMSPROP, KIND_COUNT } optimizer_kind;

enum { STATE_MAX = 3 }; /* in the order of the kernel's arguments */

static const char *const kind_name[KIND_COUNT] = {"sgd", "adam", "adamw", "rmsprop"};
static const char *const state_name[KIND_COUNT][STATE_MAX] = {
    [SGD] = {"momentum"},
    [ADAM] = {"m", "v"},
    [ADAMW] = {"m", "v"},
    [RMSPROP] = {"square", "momentum", "mean"},
};

typedef enum option_number {
    LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM, MOMENTUM, DAMPENING, NESTEROV, BETA1, BETA2, EPSILON,
    ALPHA, CENTERED, OPTION_COUNT
} option_number;

struct resin_optimizer {
    resin_parameters *parameters; /* held */
    optimizer_kind kind;
    bool keras;
    double option[OPTION_COUNT];
    const optimizer_loops *loops;
    bool has_state[STATE_MAX];
    resin_tensor *state[STATE_MAX]; /* flat, without the segments that were always frozen */
    int64_t state_length;
    int64_t *state_offset; /* by segment, -1: none */
    int64_t steps, *segment_steps;
    optimizer_step *plan; /* by segment, for the step that runs */
};

/* ---- Options --------------------------------------------------------------------------------- */

typedef struct option_row {
    const char *name;
    bool is_bool;
    bool below_one; /* 0 <= value < 1, else 0 <= value */
    unsigned kinds; /* bits of the optimizers that have it */
} option_row;

#define OF(kind) (1u << (kind))
#define OF_ALL (OF(SGD) | OF(ADAM) | OF(ADAMW) | OF(RMSPROP))
#define OF_ADAMS (OF(ADAM) | OF(ADAMW))

static const option_row option_rows[OPTION_COUNT] = {
    [LEARNING_RATE] = {"learning_rate", false, false, OF_ALL},
    [WEIGHT_DECAY] = {"weight_decay", false, false, OF_ALL},
    [CLIP_NORM] = {"clip_norm", false, false, OF_ALL},
    [MOMENTUM] = {"momentum", false, false, OF(SGD) | OF(RMSPROP)},
    [DAMPENING] = {"dampening", false, false, OF(SGD)},
    [NESTEROV] = {"nesterov", true, false, OF(SGD)},
    [BETA1] = {"beta1", false, true, OF_ADAMS},
    [BETA2] = {"beta2", false, true, OF_ADAMS},
    [EPSILON] = {"epsilon", false, false, OF_ADAMS | OF(RMSPROP)},
    [ALPHA] = {"alpha", false, true, OF(RMSPROP)},
    [CENTERED] = {"centered", true, false, OF(RMSPROP)},
};

static void set_defaults(resin_optimizer *o) {
    static const double rate[2][KIND_COUNT] = {{0.01, 1e-3, 1e-3, 1e-2}, {0.01, 1e-3, 1e-3, 1e-3}};
    o->option[LEARNING_RATE] = rate[o->keras][o->kind];
    o->option[WEIGHT_DECAY] = o->kind != ADAMW ? 0 : o->keras ? 0.004 : 0.01;
    o->option[BETA1] = 0.9;
    o->option[BETA2] = 0.999;
    o->option[EPSILON] = o->keras ? 1e-7 : 1e-8;
    o->option[ALPHA] = o->keras ? 0.9 : 0.99;
}

static resin_status read_option(resin_optimizer *o, const resin_attribute *given) {
    resin_context *context = o->parameters->context;
    const char *optimizer = kind_name[o->kind];
    int number = 0;
    while (number < OPTION_COUNT && strcmp(option_rows[number].name, given->name) != 0) number++;
    if (number == OPTION_COUNT || !(option_rows[number].kinds & OF(o->kind)))
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "%s: there is no option \"%s\"", optimizer,
                          given->name);
    const option_row *row = &option_rows[number];
    bool numeric = given->kind == RESIN_VALUE_NUMBER || given->kind == RESIN_VALUE_INT;
    if (row->is_bool ? given->kind != RESIN_VALUE_BOOL : !numeric)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "%s: %s must be a %s", optimizer,
                          given->name, row->is_bool ? "bool" : "number");
    double value = given->kind == RESIN_VALUE_NUMBER ? given->number : (double)given->integer;
    if (!(value >= 0) || !isfinite(value) || (row->below_one && value >= 1))
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "%s: %s must be at least 0%s, got %g",
                          optimizer, given->name, row->below_one ? " and below 1" : "", value);
    o->option[number] = value;
    return RESIN_OK;
}

static resin_status read_rule(resin_optimizer *o, const resin_attribute *options, int count) {
    o->keras = true;
    for (int i = 0; i < count; i++) {
        if (strcmp(options[i].name, "rule") != 0) continue;
        const char *rule = options[i].kind == RESIN_VALUE_STRING ? options[i].string : "";
        if (strcmp(rule, "keras") != 0 && strcmp(rule, "pytorch") != 0)
            return resin_fail(o->parameters->context, RESIN_ERROR_ARGUMENT,
                              "%s: rule must be \"keras\" or \"pytorch\"", kind_name[o->kind]);
        o->keras = strcmp(rule, "keras") == 0;
    }
    return RESIN_OK;
}

static resin_status read_options(resin_optimizer *o, const resin_attribute *options, int count) {
    RESIN_TRY(read_rule(o, options, count));
    set_defaults(o);
    for (int i = 0; i < count; i++)
        if (strcmp(options[i].name, "rule") != 0) RESIN_TRY(read_option(o, &options[i]));
    if (o->option[DAMPENING] != 0 && o->keras)
        return resin_fail(o->parameters->context, RESIN_ERROR_ARGUMENT,
                          "sgd: Keras' rule has no dampening; use rule = \"pytorch\"");
    if (o->option[NESTEROV] != 0 && (o->option[MOMENTUM] == 0 || o->option[DAMPENING] != 0))
        return resin_fail(o->parameters->context, RESIN_ERROR_ARGUMENT,
                          "sgd: nesterov needs momentum, and no dampening");
    return RESIN_OK;
}

/* ---- State ----------------------------------------------------------------------------------- */

/* The state's buffers grow by the segments that are trained for the first time. */
static bool lay_out_state(resin_optimizer *o, int64_t *offset) {
    bool grown = false;
    for (int i = 0; i < o->parameters->count; i++) {
        offset[i] = o->state_offset[i];
        if (offset[i] >= 0 || o->parameters->segment[i].frozen) continue;
        offset[i] = o->state_length;
        o->state_length += (o->parameters->segment[i].length + 15) / 16 * 16;
        grown = true;
    }
    return grown;
}

static resin_status grow_buffer(const resin_optimizer *o, resin_tensor *old, resin_tensor **out) {
    resin_context *context = o->parameters->context;
    RESIN_TRY(resin_full(context, o->parameters->dtype, 1, &o->state_length, 0, out));
    if (old)
        memcpy(tensor_data(*out), tensor_data(old),
               (size_t)resin_tensor_count(old) * resin_dtype_size(old->dtype));
    return RESIN_OK;
}

static resin_status grow_state(resin_optimizer *o) {
    resin_tensor *grown[STATE_MAX] = {NULL};
    resin_status status = RESIN_OK;
    for (int i = 0; i < STATE_MAX && status == RESIN_OK; i++)
        if (o->has_state[i]) status = grow_buffer(o, o->state[i], &grown[i]);
    for (int i = 0; i < STATE_MAX; i++) {
        resin_tensor *unused = status == RESIN_OK ? o->state[i] : grown[i];
        if (status == RESIN_OK) o->state[i] = grown[i];
        resin_release(unused);
    }
    return status;
}

static resin_status reserve_state(resin_optimizer *o) {
    resin_context *context = o->parameters->context;
    int64_t length = o->state_length;
    size_t bytes = (size_t)o->parameters->count * sizeof *o->state_offset;
    void *offset;
    RESIN_TRY(resin_allocate(context, bytes, &offset));
    resin_status status = lay_out_state(o, offset) ? grow_state(o) : RESIN_OK;
    if (status == RESIN_OK) memcpy(o->state_offset, offset, bytes);
    else o->state_length = length;
    resin_deallocate(context, offset);
    return status;
}

static void *state_at(const resin_optimizer *o, int which, const parameter_run *run) {
    if (!o->has_state[which]) return NULL;
    int64_t inside = run->first - o->parameters->segment[run->segment].offset;
    return parameters_at(o->parameters, o->state[which], o->state_offset[run->segment] + inside);
}

/* ---- Making one ------------------------------------------------------------------------------ */

static resin_status allocate_arrays(resin_optimizer *o) {
    resin_context *context = o->parameters->context;
    size_t count = (size_t)o->parameters->count;
    void *block;
    RESIN_TRY(resin_allocate(context, count * sizeof *o->plan, &block));
    o->plan = block;
    RESIN_TRY(resin_allocate(context, count * sizeof *o->state_offset, &block));
    o->state_offset = block;
    RESIN_TRY(resin_allocate(context, count * sizeof *o->segment_steps, &block));
    o->segment_steps = block;
    for (size_t i = 0; i < count; i++) {
        o->state_offset[i] = -1;
        o->segment_steps[i] = 0;
    }
    return RESIN_OK;
}

static resin_status optimizer_start(resin_optimizer *o, const resin_attribute *options,
                                    int count) {
    RESIN_TRY(read_options(o, options, count));
    bool adam = o->kind == ADAM || o->kind == ADAMW, momentum = o->option[MOMENTUM] > 0;
    o->has_state[0] = o->kind != SGD || momentum;
    o->has_state[1] = adam || (o->kind == RMSPROP && momentum);
    o->has_state[2] = o->option[CENTERED] != 0;
    RESIN_TRY(allocate_arrays(o));
    return reserve_state(o);
}

resin_status resin_optimizer_new(resin_parameters *parameters, const char *name,
                                 const resin_attribute *options, int count,
                                 resin_optimizer **out) {
    void *block;
    int kind = 0;
    *out = NULL;
    while (kind < KIND_COUNT && strcmp(kind_name[kind], name) != 0) kind++;
    if (kind == KIND_COUNT)
        return resin_fail(parameters->context, RESIN_ERROR_ARGUMENT,
                          "there is no optimizer \"%s\"; there are sgd, adam, adamw, rmsprop",
                          name);
    RESIN_TRY(resin_allocate(parameters->context, sizeof(resin_optimizer), &block));
    resin_optimizer *o = block;
    memset(o, 0, sizeof *o);
    o->parameters = resin_parameters_retain(parameters);
    o->kind = (optimizer_kind)kind;
    o->loops = &resin_kernels()->optimizer.of[parameters->dtype];
    resin_status status = optimizer_start(o, options, count);
    if (status == RESIN_OK) *out = o;
    else resin_optimizer_release(o);
    return status;
}

void resin_optimizer_release(resin_optimizer *o) {
    if (!o) return;
    resin_parameters *parameters = o->parameters;
    for (int i = 0; i < STATE_MAX; i++) resin_release(o->state[i]);
    resin_deallocate(parameters->context, o->plan);
    resin_deallocate(parameters->context, o->state_offset);
    resin_deallocate(parameters->context, o->segment_steps);
    resin_deallocate(parameters->context, o);
    resin_parameters_release(parameters);
}

/* ---- A step ---------------------------------------------------------------------------------- */

static void plan_adam(const resin_optimizer *o, int64_t steps, optimizer_step *step) {
    double first = 1 - pow(o->option[BETA1], (double)steps);
    double second = sqrt(1 - pow(o->option[BETA2], (double)steps));
    step->rate *= o->keras ? second / first : 1 / first;
    step->root_scale = o->keras ? 1 : 1 / second;
}

static optimizer_step plan_segment(const resin_optimizer *o, int index, double scale) {
    const resin_segment *segment = &o->parameters->segment[index];
    double rate = o->option[LEARNING_RATE] * segment->rate_scale;
    double decay = o->option[WEIGHT_DECAY] * segment->decay;
    bool decoupled = o->keras || o->kind == ADAMW;
    optimizer_step step = {
        .scale = scale, .decay = 2 * segment->l2 + (decoupled ? 0 : decay), .l1 = segment->l1,
        .shrink = decoupled ? 1 - rate * decay : 1, .rate = rate,
        .momentum = o->option[MOMENTUM], .dampening = o->option[DAMPENING],
        .nesterov = o->option[NESTEROV] != 0, .keras = o->keras,
        .first = o->segment_steps[index] == 0, .beta1 = o->option[BETA1],
        .beta2 = o->option[BETA2], .epsilon = o->option[EPSILON],
        .outer = o->keras ? 0 : o->option[EPSILON], .inner = o->keras ? o->option[EPSILON] : 0,
        .alpha = o->option[ALPHA],
    };
    if (o->kind == ADAM || o->kind == ADAMW)
        plan_adam(o, (o->keras ? o->steps : o->segment_steps[index]) + 1, &step);
    return step;
}

static void step_run(void *argument, int64_t number) {
    const resin_optimizer *o = argument;
    const parameter_run *run = &o->parameters->run[number];
    const optimizer_step *step = &o->plan[run->segment];
    void *w = parameters_at(o->parameters, o->parameters->flat, run->first);
    void *gradient = parameters_at(o->parameters, o->parameters->flat_grad, run->first);
    void *first = state_at(o, 0, run), *second = state_at(o, 1, run), *third = state_at(o, 2, run);
    if (o->kind == SGD)
        o->loops->sgd(run->length, w, gradient, first, step);
    else if (o->kind == RMSPROP)
        o->loops->rmsprop(run->length, w, gradient, first, second, third, step);
    else
        o->loops->adam(run->length, w, gradient, first, second, step);
}

/* What clipping multiplies the gradients by: in Keras max / max(norm, max) (TensorFlow's
 * clip_by_global_norm), in PyTorch max / (norm + 1e-6), at most 1. */
static resin_status clipping(const resin_optimizer *o, double *scale) {
    double norm, largest = o->option[CLIP_NORM];
    *scale = 1;
    if (largest == 0) return RESIN_OK;
    RESIN_TRY(parameters_norm(o->parameters, &norm));
    if (!isfinite(norm))
        return resin_fail(o->parameters->context, RESIN_ERROR_ARGUMENT,
                          "%s: the gradients' norm is not finite, so they cannot be clipped",
                          kind_name[o->kind]);
    double factor = o->keras ? largest / norm : largest / (norm + 1e-6);
    if (factor < 1) *scale = factor;
    return RESIN_OK;
}

resin_status resin_optimizer_step(resin_optimizer *o) {
    resin_parameters *p = o->parameters;
    double scale;
    RESIN_TRY(parameters_prepare(p));
    RESIN_TRY(reserve_state(o));
    RESIN_TRY(clipping(o, &scale));
    for (int i = 0; i < p->count; i++)
        if (p->active[i]) o->plan[i] = plan_segment(o, i, scale);
    parameters_sweep(p, step_run, o);
    resin_tensor_touch(p->flat);
    o->steps++;
    for (int i = 0; i < p->count; i++) o->segment_steps[i] += p->active[i];
    return RESIN_OK;
}

double resin_optimizer_rate(const resin_optimizer *o) { return o->option[LEARNING_RATE]; }

resin_status resin_optimizer_set_rate(resin_optimizer *o, double rate) {
    if (!(rate >= 0) || !isfinite(rate))
        return resin_fail(o->parameters->context, RESIN_ERROR_ARGUMENT,
                          "%s: learning_rate must be at least 0, got %g", kind_name[o->kind], rate);
    o->option[LEARNING_RATE] = rate;
    return RESIN_OK;
}

/* ---- For checkpoints ------------------------------------------------------------------------- */

const char *resin_optimizer_state_name(const resin_optimizer *o, int number) {
    for (int i = 0; i < STATE_MAX; i++)
        if (o->has_state[i] && number-- == 0) return state_name[o->kind][i];
    return NULL;
}

static resin_status check_segment(const resin_optimizer *o, int segment, int lowest) {
    if (segment >= lowest && segment < o->parameters->count) return RESIN_OK;
    return resin_fail(o->parameters->context, RESIN_ERROR_ARGUMENT,
                      "%s: there is no segment %d of %d", kind_name[o->kind], segment,
                      o->parameters->count);
}

resin_status resin_optimizer_state(resin_optimizer *o, const char *name, int segment,
                                   resin_tensor **out) {
    *out = NULL;
    RESIN_TRY(check_segment(o, segment, 0));
    RESIN_TRY(reserve_state(o));
    for (int i = 0; i < STATE_MAX; i++) {
        if (!o->has_state[i] || strcmp(state_name[o->kind][i], name) != 0) continue;
        if (o->state_offset[segment] < 0) return RESIN_OK;
        const resin_tensor *tensor = o->parameters->tensor[segment];
        int64_t stride[RESIN_MAX_RANK];
        shape_strides(tensor->rank, tensor->shape, stride);
        return tensor_view(o->state[i], tensor->rank, tensor->shape, stride,
                           o->state_offset[segment], out);
    }
    return resin_fail(o->parameters->context, RESIN_ERROR_ARGUMENT, "%s: there is no state \"%s\"",
                      kind_name[o->kind], name);
}

int64_t resin_optimizer_steps(const resin_optimizer *o, int segment) {
    return segment >= 0 && segment < o->parameters->count ? o->segment_steps[segment] : o->steps;
}

resin_status resin_optimizer_set_steps(resin_optimizer *o, int segment, int64_t steps) {
    RESIN_TRY(check_segment(o, segment, -1));
    if (steps < 0)
        return resin_fail(o->parameters->context, RESIN_ERROR_ARGUMENT,
                          "%s: steps must not be negative", kind_name[o->kind]);
    if (segment < 0) o->steps = steps;
    else o->segment_steps[segment] = steps;
    return RESIN_OK;
}
