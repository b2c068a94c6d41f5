/* test_optim.c: flat parameters and optimizers: rules of PyTorch 1.13 and Keras 2.11 against the
 * same formulas written for one number, tied and frozen parameters, clipping, state, threads. */
#include "core/tensor/tensor.h"
#include "tests/c/tensors.h"

static resin_context *context;

static int start(void **state) {
    (void)state;
    context = resin_context_new();
    return context == NULL;
}

static int finish(void **state) {
    (void)state;
    size_t held = resin_memory(context).held;
    if (held) print_error("%zu bytes are still held\n", held);
    resin_context_release(context);
    return held != 0;
}

static resin_parameters *parameters_of(op_inputs tensors) {
    resin_parameters *parameters;
    int count = 0;
    while (count < 8 && tensors.tensor[count]) count++;
    must(context, resin_parameters_new(context, tensors.tensor, count, &parameters));
    return parameters;
}

static resin_optimizer *optimizer_of(resin_parameters *parameters, const char *name,
                                     op_options options) {
    resin_optimizer *optimizer;
    must(context, resin_optimizer_new(parameters, name, options.attribute, options.count,
                                      &optimizer));
    return optimizer;
}

/* Leaves the gradient slope * w in every given parameter: of the loss slope / 2 sum w^2. */
static void give_gradient(op_inputs parameters, double slope) {
    for (int i = 0; i < 8 && parameters.tensor[i]; i++) {
        resin_tensor *w = parameters.tensor[i], *zero, *loss, *seed;
        must(context, resin_full(context, resin_tensor_dtype(w), resin_tensor_rank(w),
                                 resin_tensor_shape(w), 0, &zero));
        loss = run_op(context, "mse_loss", INPUTS(w, zero),
                      OPTIONS(set_string("reduction", "sum")));
        must(context, resin_full(context, resin_tensor_dtype(w), 0, NULL, slope / 2, &seed));
        must(context, resin_backward(loss, seed, false));
        release_all(INPUTS(zero, loss, seed));
    }
}

/* ---- Rules ----------------------------------------------------------------------------------- */

enum { STEPS = 5 };
static const double slopes[STEPS] = {1, -0.5, 2, 0.25, 1.5};

/* One number under a rule: state[0 .. 2], the gradient g, the step t = 1, 2, ... */
typedef double (*rule)(double w, double g, double *state, int t);

static double sgd_pytorch(double w, double g, double *v, int t) {
    g += 0.1 * w;
    v[0] = t == 1 ? g : 0.9 * v[0] + (1 - 0.3) * g;
    return w - 0.05 * v[0];
}
static double nesterov_pytorch(double w, double g, double *v, int t) {
    (void)t;
    v[0] = 0.9 * v[0] + g;
    return w - 0.05 * (g + 0.9 * v[0]);
}
static double sgd_keras(double w, double g, double *v, int t) {
    (void)t;
    w -= w * 0.1 * 0.05;
    v[0] = 0.9 * v[0] - 0.05 * g;
    return w + v[0];
}
static double nesterov_keras(double w, double g, double *v, int t) {
    (void)t;
    v[0] = 0.9 * v[0] - 0.05 * g;
    return w + 0.9 * v[0] - 0.05 * g;
}
static double adam_step(double w, double g, double *s, int t, bool keras) {
    s[0] = 0.9 * s[0] + 0.1 * g;
    s[1] = 0.999 * s[1] + 0.001 * g * g;
    double first = 1 - pow(0.9, t), second = sqrt(1 - pow(0.999, t));
    if (keras) return w - 0.05 * second / first * s[0] / (sqrt(s[1]) + 0.1);
    return w - 0.05 / first * s[0] / (sqrt(s[1]) / second + 0.1);
}
static double adam_pytorch(double w, double g, double *s, int t) {
    return adam_step(w, g + 0.1 * w, s, t, false);
}
static double adam_keras(double w, double g, double *s, int t) {
    return adam_step(w, g, s, t, true);
}
static double adamw_pytorch(double w, double g, double *s, int t) {
    return adam_step(w * (1 - 0.05 * 0.1), g, s, t, false);
}
static double rmsprop_pytorch(double w, double g, double *s, int t) {
    (void)t;
    s[0] = 0.8 * s[0] + 0.2 * g * g;
    s[1] = 0.8 * s[1] + 0.2 * g;
    s[2] = 0.9 * s[2] + g / (sqrt(s[0] - s[1] * s[1]) + 0.1);
    return w - 0.05 * s[2];
}
static double rmsprop_keras(double w, double g, double *s, int t) {
    (void)t;
    s[0] = 0.8 * s[0] + 0.2 * g * g;
    s[1] = 0.8 * s[1] + 0.2 * g;
    s[2] = 0.9 * s[2] + 0.05 * g / sqrt(s[0] - s[1] * s[1] + 0.1);
    return w - s[2];
}
static double rmsprop_plain(double w, double g, double *s, int t) {
    (void)t;
    s[0] = 0.8 * s[0] + 0.2 * g * g;
    return w - 0.05 * g / (sqrt(s[0]) + 0.1);
}

static void one_rule(resin_dtype dtype, const char *name, op_options options, rule expected,
                     double tolerance) {
    enum { COUNT = 37 };
    resin_tensor *w = leaf(context, dtype, SHAPE(COUNT), NULL);
    double value[COUNT], memory[COUNT][3] = {{0}};
    for (int i = 0; i < COUNT; i++) value[i] = at(w, i);
    resin_parameters *parameters = parameters_of(INPUTS(w));
    options.attribute[options.count++] = set_number("learning_rate", 0.05);
    resin_optimizer *optimizer = optimizer_of(parameters, name, options);
    for (int t = 1; t <= STEPS; t++) {
        resin_parameters_clear_grads(parameters);
        give_gradient(INPUTS(w), slopes[t - 1]);
        must(context, resin_optimizer_step(optimizer));
        for (int i = 0; i < COUNT; i++) {
            value[i] = expected(value[i], slopes[t - 1] * value[i], memory[i], t);
            assert_close(at(w, i), value[i], tolerance);
        }
    }
    resin_optimizer_release(optimizer);
    resin_parameters_release(parameters);
    resin_release(w);
}

static void rules(void **state) {
    const resin_attribute pytorch = set_string("rule", "pytorch"),
                          keras = set_string("rule", "keras"),
                          momentum = set_number("momentum", 0.9),
                          decay = set_number("weight_decay", 0.1),
                          nesterov = set_bool("nesterov", true),
                          dampening = set_number("dampening", 0.3),
                          epsilon = set_number("epsilon", 0.1), alpha = set_number("alpha", 0.8),
                          centered = set_bool("centered", true);
    (void)state;
    for (int i = 0; i < 2; i++) {
        resin_dtype dtype = i ? RESIN_FLOAT64 : RESIN_FLOAT32;
        double tolerance = i ? 1e-14 : 2e-6;
        one_rule(dtype, "sgd", OPTIONS(pytorch, momentum, decay, dampening), sgd_pytorch,
                 tolerance);
        one_rule(dtype, "sgd", OPTIONS(pytorch, momentum, nesterov), nesterov_pytorch, tolerance);
        one_rule(dtype, "sgd", OPTIONS(keras, momentum, decay), sgd_keras, tolerance);
        one_rule(dtype, "sgd", OPTIONS(momentum, nesterov), nesterov_keras, tolerance);
        one_rule(dtype, "adam", OPTIONS(pytorch, decay, epsilon), adam_pytorch, tolerance);
        one_rule(dtype, "adam", OPTIONS(epsilon), adam_keras, tolerance);
        one_rule(dtype, "adamw", OPTIONS(pytorch, decay, epsilon), adamw_pytorch, tolerance);
        one_rule(dtype, "rmsprop", OPTIONS(pytorch, alpha, epsilon), rmsprop_plain, tolerance);
        one_rule(dtype, "rmsprop", OPTIONS(pytorch, alpha, epsilon, centered, momentum),
                 rmsprop_pytorch, tolerance);
        one_rule(dtype, "rmsprop", OPTIONS(keras, alpha, epsilon, centered, momentum),
                 rmsprop_keras, tolerance);
    }
}

/* ---- Parameters ------------------------------------------------------------------------------ */

static void tensors_become_views(void **state) {
    (void)state;
    resin_tensor *a = leaf(context, RESIN_FLOAT32, SHAPE(2, 3), (double[]){1, 2, 3, 4, 5, 6});
    resin_tensor *b = leaf(context, RESIN_FLOAT32, SHAPE(1), (double[]){7});
    resin_tensor *c = tensor_of(context, RESIN_FLOAT32, SHAPE(2), (double[]){8, 9});
    resin_tensor *list[] = {a, b, a, c};
    resin_parameters *p;
    resin_segment segment;
    must(context, resin_parameters_new(context, list, 4, &p));
    assert_int_equal(resin_parameters_count(p), 3);
    assert_int_equal(resin_parameters_find(p, c), 2);
    assert_int_equal(resin_parameters_find(p, resin_parameters_flat(p)), -1);
    assert_ptr_equal(resin_parameters_tensor(p, 0), a);
    must(context, resin_parameters_segment(p, 2, &segment));
    assert_true(segment.frozen && segment.length == 2);
    assert_true(at(resin_parameters_flat(p), segment.offset) == 8 && at(a, 5) == 6);
    must(context, resin_fill(resin_parameters_flat(p), 3));
    assert_true(at(a, 0) == 3 && at(b, 0) == 3 && at(c, 1) == 3);
    give_gradient(INPUTS(a), 2);
    assert_true(at(resin_parameters_flat_grad(p), 5) == 6);
    assert_null(resin_tensor_grad(b));
    resin_parameters_clear_grads(p);
    assert_null(resin_tensor_grad(a));
    give_gradient(INPUTS(a), 1);
    assert_true(grad_at(a, 0) == 3); /* stored, not added to the old one */
    resin_parameters_release(p);
    assert_true(at(b, 0) == 3); /* the tensors live on */
    release_all(INPUTS(a, b, c));
}

/* A skipped segment keeps its weights, state and count; a tied one gets its gradients' sum. */
static void skipped_and_tied(void **state) {
    (void)state;
    resin_tensor *a = leaf(context, RESIN_FLOAT64, SHAPE(2), (double[]){1, 2});
    resin_tensor *b = leaf(context, RESIN_FLOAT64, SHAPE(2), (double[]){3, 4});
    resin_parameters *p = parameters_of(INPUTS(a, b, a));
    resin_optimizer *o = optimizer_of(p, "sgd", OPTIONS(set_number("learning_rate", 0.1),
                                                        set_number("momentum", 0.5)));
    give_gradient(INPUTS(a, b), 1);
    must(context, resin_optimizer_step(o));
    assert_close(at(b, 1), 3.6, 1e-15);
    resin_parameters_clear_grads(p);
    give_gradient(INPUTS(a, a), 1);
    assert_close(grad_at(a, 0), 1.8, 1e-15);
    must(context, resin_optimizer_step(o));
    assert_close(at(a, 0), 0.9 + 0.5 * -0.1 - 0.1 * 1.8, 1e-15);
    assert_close(at(b, 1), 3.6, 1e-15);
    assert_int_equal(resin_optimizer_steps(o, 0), 2);
    assert_int_equal(resin_optimizer_steps(o, 1), 1);
    assert_int_equal(resin_optimizer_steps(o, -1), 2);
    resin_optimizer_release(o);
    resin_parameters_release(p);
    release_all(INPUTS(a, b));
}

static void set_frozen(resin_parameters *p, int index, bool frozen) {
    resin_segment segment;
    must(context, resin_parameters_segment(p, index, &segment));
    segment.frozen = frozen;
    must(context, resin_parameters_set_segment(p, index, &segment));
}

/* Frozen from the start there is no state; thawed, it begins, and the others' state stays. */
static void frozen(void **state) {
    (void)state;
    resin_tensor *a = leaf(context, RESIN_FLOAT64, SHAPE(2), (double[]){1, 2});
    resin_tensor *b = leaf(context, RESIN_FLOAT64, SHAPE(2), (double[]){3, 4}), *m;
    resin_parameters *p = parameters_of(INPUTS(a, b));
    set_frozen(p, 0, true);
    assert_false(resin_requires_grad(a));
    resin_optimizer *o = optimizer_of(p, "sgd", OPTIONS(set_number("learning_rate", 0.1),
                                                        set_number("momentum", 0.5)));
    give_gradient(INPUTS(b), 1);
    must(context, resin_optimizer_step(o));
    assert_true(at(a, 0) == 1);
    must(context, resin_optimizer_state(o, "momentum", 0, &m));
    assert_null(m);
    set_frozen(p, 0, false);
    resin_parameters_clear_grads(p);
    give_gradient(INPUTS(a), 1);
    must(context, resin_optimizer_step(o));
    assert_close(at(a, 1), 1.8, 1e-15);
    must(context, resin_optimizer_state(o, "momentum", 1, &m));
    assert_close(at(m, 1), -0.4, 1e-15);
    assert_string_equal(resin_optimizer_state_name(o, 0), "momentum");
    assert_null(resin_optimizer_state_name(o, 1));
    resin_release(m);
    resin_optimizer_release(o);
    resin_parameters_release(p);
    release_all(INPUTS(a, b));
}

static void segments_have_their_own_settings(void **state) {
    (void)state;
    resin_tensor *a = leaf(context, RESIN_FLOAT64, SHAPE(2), (double[]){1, -2});
    resin_tensor *b = leaf(context, RESIN_FLOAT64, SHAPE(1), (double[]){3});
    resin_parameters *p = parameters_of(INPUTS(a, b));
    resin_segment segment;
    double penalty;
    must(context, resin_parameters_segment(p, 0, &segment));
    segment.rate_scale = 2;
    segment.decay = 0;
    segment.l1 = 0.25;
    segment.l2 = 0.5;
    must(context, resin_parameters_set_segment(p, 0, &segment));
    must(context, resin_parameters_penalty(p, &penalty));
    assert_close(penalty, 0.25 * 3 + 0.5 * 5, 1e-15);
    resin_optimizer *o = optimizer_of(p, "sgd", OPTIONS(set_number("learning_rate", 0.1),
                                                        set_number("weight_decay", 0.5),
                                                        set_string("rule", "pytorch")));
    give_gradient(INPUTS(a, b), 1);
    must(context, resin_optimizer_step(o));
    assert_close(at(a, 0), 1 - 0.2 * (1 + 2 * 0.5 * 1 + 0.25), 1e-15);
    assert_close(at(a, 1), -2 - 0.2 * (-2 + 2 * 0.5 * -2 - 0.25), 1e-15);
    assert_close(at(b, 0), 3 - 0.1 * (3 + 0.5 * 3), 1e-15);
    segment.l1 = -1;
    assert_int_equal(resin_parameters_set_segment(p, 0, &segment), RESIN_ERROR_ARGUMENT);
    assert_int_equal(resin_parameters_set_segment(p, 2, &segment), RESIN_ERROR_ARGUMENT);
    resin_optimizer_release(o);
    resin_parameters_release(p);
    release_all(INPUTS(a, b));
}

static void clipping_and_nan(void **state) {
    (void)state;
    resin_tensor *a = leaf(context, RESIN_FLOAT32, SHAPE(2), (double[]){3, 0});
    resin_tensor *b = leaf(context, RESIN_FLOAT32, SHAPE(1), (double[]){4});
    resin_parameters *p = parameters_of(INPUTS(a, b));
    double norm;
    int index;
    give_gradient(INPUTS(a, b), 1);
    must(context, resin_parameters_clip_norm(p, 10, &norm));
    assert_true(norm == 5 && grad_at(b, 0) == 4);
    must(context, resin_parameters_clip_norm(p, 2.5, &norm));
    assert_true(norm == 5);
    assert_close(grad_at(b, 0), 2, 1e-6);
    must(context, resin_parameters_check_finite(p, &index));
    assert_int_equal(index, -1);
    resin_optimizer *o = optimizer_of(p, "sgd", OPTIONS(set_number("learning_rate", 1),
                                                        set_number("clip_norm", 1.25)));
    must(context, resin_optimizer_step(o));
    assert_close(at(b, 0), 3, 1e-6);
    ((float *)resin_tensor_data(resin_tensor_grad(b)))[0] = NAN;
    must(context, resin_parameters_check_finite(p, &index));
    assert_int_equal(index, 1);
    assert_int_equal(resin_optimizer_step(o), RESIN_ERROR_ARGUMENT);
    assert_close(at(b, 0), 3, 1e-6); /* nothing was changed */
    resin_optimizer_release(o);
    resin_parameters_release(p);
    release_all(INPUTS(a, b));
}

/* A gradient set from elsewhere counts; a parameter that moved on to others is refused. */
static void strangers(void **state) {
    (void)state;
    resin_tensor *a = leaf(context, RESIN_FLOAT64, SHAPE(2), (double[]){1, 2});
    resin_parameters *p = parameters_of(INPUTS(a));
    resin_optimizer *o = optimizer_of(p, "sgd", OPTIONS(set_number("learning_rate", 1)));
    must(context, resin_set_grad(a, NULL));
    give_gradient(INPUTS(a), 0.5);
    must(context, resin_optimizer_step(o));
    assert_close(at(a, 1), 1, 1e-15);
    resin_parameters *other = parameters_of(INPUTS(a));
    assert_int_equal(resin_optimizer_step(o), RESIN_ERROR_GRAPH);
    resin_optimizer_release(o);
    resin_parameters_release(other);
    resin_parameters_release(p);
    resin_release(a);
}

/* A graph recorded before the step must not be walked after it. */
static void a_step_is_a_change_in_place(void **state) {
    (void)state;
    resin_tensor *a = leaf(context, RESIN_FLOAT32, SHAPE(1, 1, 1, 1), NULL);
    resin_tensor *x = leaf(context, RESIN_FLOAT32, SHAPE(1, 1, 1, 1), NULL);
    resin_parameters *p = parameters_of(INPUTS(a));
    resin_optimizer *o = optimizer_of(p, "sgd", NO_OPTIONS);
    resin_tensor *y = run_op(context, "conv2d", INPUTS(x, a), NO_OPTIONS);
    give_gradient(INPUTS(a), 1);
    must(context, resin_optimizer_step(o));
    assert_int_equal(resin_backward(y, NULL, false), RESIN_ERROR_GRAPH);
    resin_optimizer_release(o);
    resin_parameters_release(p);
    release_all(INPUTS(a, x, y));
}

/* Stopped and gone on from its checkpoint, training gives the same bits. */
static void goes_on_from_a_checkpoint(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    resin_tensor *a = leaf(context, RESIN_FLOAT32, SHAPE(COUNT), NULL), *b, *from, *to;
    must(context, resin_empty(context, RESIN_FLOAT32, 1, (int64_t[]){COUNT}, &b));
    must(context, resin_require_grad(b, true));
    resin_parameters *pa = parameters_of(INPUTS(a)), *pb = parameters_of(INPUTS(b));
    resin_optimizer *oa = optimizer_of(pa, "adam", NO_OPTIONS);
    resin_optimizer *ob = optimizer_of(pb, "adam", NO_OPTIONS);
    for (int t = 0; t < 6; t++) {
        if (t == 3) {
            must(context, resin_copy(resin_parameters_flat(pb), resin_parameters_flat(pa)));
            const char *name;
            for (int i = 0; (name = resin_optimizer_state_name(oa, i)) != NULL; i++) {
                must(context, resin_optimizer_state(oa, name, 0, &from));
                must(context, resin_optimizer_state(ob, name, 0, &to));
                must(context, resin_copy(to, from));
                release_all(INPUTS(from, to));
            }
            must(context, resin_optimizer_set_steps(ob, -1, resin_optimizer_steps(oa, -1)));
            must(context, resin_optimizer_set_steps(ob, 0, resin_optimizer_steps(oa, 0)));
        }
        resin_parameters_clear_grads(pa);
        give_gradient(INPUTS(a), 1);
        must(context, resin_optimizer_step(oa));
        if (t < 3) continue;
        resin_parameters_clear_grads(pb);
        give_gradient(INPUTS(b), 1);
        must(context, resin_optimizer_step(ob));
    }
    assert_memory_equal(resin_tensor_data(a), resin_tensor_data(b), COUNT * sizeof(float));
    resin_optimizer_release(oa);
    resin_optimizer_release(ob);
    resin_parameters_release(pa);
    resin_parameters_release(pb);
    release_all(INPUTS(a, b));
}

static void the_same_at_any_threads(void **state) {
    (void)state;
    enum { COUNT = 100003 };
    static double values[COUNT];
    static float first[COUNT];
    for (int i = 0; i < COUNT; i++) values[i] = test_random();
    for (int threads = 1; threads <= 4; threads++) {
        must(context, resin_set_threads(context, threads));
        resin_tensor *a = leaf(context, RESIN_FLOAT32, SHAPE(COUNT), values);
        resin_tensor *b = leaf(context, RESIN_FLOAT32, SHAPE(3), values);
        resin_parameters *p = parameters_of(INPUTS(b, a));
        resin_optimizer *o = optimizer_of(p, "rmsprop", OPTIONS(set_number("clip_norm", 0.1)));
        for (int t = 0; t < 3; t++) {
            resin_parameters_clear_grads(p);
            give_gradient(INPUTS(a, b), slopes[t]);
            must(context, resin_optimizer_step(o));
        }
        if (threads == 1) memcpy(first, resin_tensor_data(a), sizeof first);
        assert_memory_equal(first, resin_tensor_data(a), sizeof first);
        resin_optimizer_release(o);
        resin_parameters_release(p);
        release_all(INPUTS(a, b));
    }
}

static void refuses(resin_parameters *p, const char *name, op_options options, const char *text) {
    resin_optimizer *o;
    assert_int_equal(resin_optimizer_new(p, name, options.attribute, options.count, &o),
                     RESIN_ERROR_ARGUMENT);
    assert_null(o);
    assert_non_null(strstr(resin_error_message(context), text));
}

static void errors(void **state) {
    (void)state;
    resin_tensor *a = leaf(context, RESIN_FLOAT32, SHAPE(2), NULL), *m;
    resin_tensor *wide = leaf(context, RESIN_FLOAT64, SHAPE(2), NULL);
    resin_tensor *made = run_op(context, "l1_loss", INPUTS(a, a), NO_OPTIONS);
    resin_tensor *mixed[] = {a, wide}, *results[] = {made};
    resin_parameters *p;
    assert_int_equal(resin_parameters_new(context, mixed, 2, &p), RESIN_ERROR_ARGUMENT);
    assert_int_equal(resin_parameters_new(context, results, 1, &p), RESIN_ERROR_GRAPH);
    assert_int_equal(resin_parameters_new(context, NULL, 0, &p), RESIN_ERROR_ARGUMENT);
    assert_null(p);
    p = parameters_of(INPUTS(a));
    refuses(p, "lion", NO_OPTIONS, "\"lion\"");
    refuses(p, "sgd", OPTIONS(set_number("beta1", 0.5)), "beta1");
    refuses(p, "sgd", OPTIONS(set_number("momentum", -1)), "momentum");
    refuses(p, "sgd", OPTIONS(set_bool("nesterov", true)), "nesterov");
    refuses(p, "sgd", OPTIONS(set_string("rule", "caffe")), "rule");
    refuses(p, "adam", OPTIONS(set_number("beta1", 1)), "beta1");
    refuses(p, "adam", OPTIONS(set_string("epsilon", "small")), "epsilon");
    resin_optimizer *o = optimizer_of(p, "adam", NO_OPTIONS);
    assert_int_equal(resin_optimizer_state(o, "w", 0, &m), RESIN_ERROR_ARGUMENT);
    assert_int_equal(resin_optimizer_state(o, "m", 1, &m), RESIN_ERROR_ARGUMENT);
    assert_int_equal(resin_optimizer_set_rate(o, NAN), RESIN_ERROR_ARGUMENT);
    must(context, resin_optimizer_set_rate(o, 0.5));
    assert_true(resin_optimizer_rate(o) == 0.5);
    must(context, resin_optimizer_step(o)); /* nothing has a gradient: nothing happens */
    resin_optimizer_release(o);
    resin_parameters_release(p);
    release_all(INPUTS(a, wide, made));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, finish)
    const struct CMUnitTest tests[] = {
        TEST(rules), TEST(tensors_become_views), TEST(skipped_and_tied), TEST(frozen),
        TEST(segments_have_their_own_settings), TEST(clipping_and_nan), TEST(strangers),
        TEST(a_step_is_a_change_in_place), TEST(goes_on_from_a_checkpoint),
        TEST(the_same_at_any_threads), TEST(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
