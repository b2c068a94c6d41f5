/* test_plan.c: plans: the layout of memory, the same bits as the ops called one by one, no
 * allocation in a run, and what cannot be recorded. */
#include "core/base/memory.h"
#include "core/base/memory_plan.h"
#include "tests/c/tensors.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static int make_context(void **state) {
    *state = resin_context_new();
    return *state ? 0 : -1;
}

static int drop_context(void **state) {
    size_t held = resin_memory(*state).held;
    resin_context_release(*state);
    return held == 0 ? 0 : -1;
}

/* ---- Layout ---------------------------------------------------------------------------------- */

/* Takes and gives back blocks of random sizes, up to 12 at a time. */
static void random_requests(resin_context *context, int count) {
    void *block[12] = {NULL};
    for (int i = 0; i < count; i++) {
        const int64_t place = test_integer(0, COUNT(block) - 1);
        resin_deallocate(context, block[place]);
        const size_t size = (size_t)test_integer(0, 1 << test_integer(1, 20));
        must(context, resin_allocate(context, size, &block[place]));
        memset(block[place], 0x5a, size);
    }
    for (int i = 0; i < COUNT(block); i++) resin_deallocate(context, block[i]);
}

/* The most that lives at one time: no layout takes less. */
static size_t least_memory(const memory_plan *plan) {
    size_t most = 0;
    for (int64_t i = 0; i < plan->count; i++) {
        size_t sum = 0;
        for (int64_t j = 0; j < plan->count; j++) {
            const memory_request *other = &plan->request[j];
            if (other->born <= plan->request[i].born && plan->request[i].born < other->died)
                sum += other->size;
        }
        if (sum > most) most = sum;
    }
    return most;
}

static void what_lives_together_lies_apart(void **state) {
    memory_plan plan = {0};
    for (int round = 0; round < 20; round++) {
        memory_plan_trace(*state, &plan);
        random_requests(*state, 150);
        memory_plan_stop(*state);
        assert_int_equal(plan.count, 150);
        must(*state, memory_plan_lay_out(*state, &plan));
        for (int64_t i = 0; i < plan.count; i++) {
            const memory_request *a = &plan.request[i];
            assert_int_equal(a->offset % 64, 0);
            assert_true(a->offset + a->size <= plan.bytes);
            for (int64_t j = 0; j < i; j++) {
                const memory_request *b = &plan.request[j];
                const bool together = a->born < b->died && b->born < a->died;
                const bool overlap = a->offset < b->offset + b->size &&
                                     b->offset < a->offset + a->size;
                assert_false(together && overlap);
            }
        }
        const size_t least = least_memory(&plan);
        assert_true(plan.bytes >= least);
        assert_true(plan.bytes <= least + least / 4);
    }
    memory_plan_free(*state, &plan);
}

static void a_replay_gives_the_same_places(void **state) {
    memory_plan plan = {0};
    void *block, *again, *other;
    memory_plan_trace(*state, &plan);
    must(*state, resin_allocate(*state, 1000, &block));
    resin_deallocate(*state, block);
    memory_plan_stop(*state);
    must(*state, memory_plan_take_block(*state, &plan));
    const size_t held = resin_memory(*state).held;
    memory_plan_replay(*state, &plan);
    must(*state, resin_allocate(*state, 1000, &block));
    memset(block, 1, 1000);
    assert_int_equal((uintptr_t)block % 64, 0);
    assert_int_equal(resin_allocate(*state, 1000, &other), RESIN_ERROR_SYSTEM); /* one too many */
    memory_plan_replay(*state, &plan);
    assert_int_equal(resin_allocate(*state, 2000, &other), RESIN_ERROR_SYSTEM);
    assert_non_null(strstr(resin_error_message(*state), "planned"));
    must(*state, resin_allocate(*state, 1000, &again));
    memory_plan_stop(*state);
    assert_ptr_equal(block, again);
    resin_deallocate(*state, again); /* after the replay, too, it is no block of the arena */
    assert_int_equal(resin_memory(*state).held, held);
    memory_plan_free(*state, &plan);
}

/* ---- A network ------------------------------------------------------------------------------- */

enum { WEIGHTS, GAMMA, BETA, MEAN, VARIANCE, WIDE, DENSE, BIAS, TENSORS };

typedef struct network {
    resin_context *context;
    resin_tensor *t[TENSORS];
} network;

static const test_shape image_shape = {4, {2, 9, 10, 4}};

static network new_network(resin_context *context) {
    network n = {.context = context};
    n.t[WEIGHTS] = leaf(context, RESIN_FLOAT32, SHAPE(3, 3, 4, 8), NULL);
    n.t[GAMMA] = leaf(context, RESIN_FLOAT32, SHAPE(8), NULL);
    n.t[BETA] = leaf(context, RESIN_FLOAT32, SHAPE(8), NULL);
    n.t[MEAN] = tensor_of(context, RESIN_FLOAT32, SHAPE(8), NULL);
    const int64_t channels = 8;
    must(context, resin_full(context, RESIN_FLOAT32, 1, &channels, 1.5, &n.t[VARIANCE]));
    n.t[WIDE] = leaf(context, RESIN_FLOAT32, SHAPE(3, 3, 8, 8), NULL);
    n.t[DENSE] = leaf(context, RESIN_FLOAT32, SHAPE(16, 5), NULL);
    n.t[BIAS] = leaf(context, RESIN_FLOAT32, SHAPE(5), NULL);
    return n;
}

static void free_network(network *n) {
    for (int i = 0; i < TENSORS; i++) resin_release(n->t[i]);
}

/* *x = op(*x, more ...), and what *x was is given back, also after a failure. */
static resin_status step(network *n, const char *op, resin_tensor **x, op_inputs more,
                         op_options options) {
    op_inputs in = {{*x}};
    for (int i = 0; i < 7; i++) in.tensor[1 + i] = more.tensor[i];
    resin_tensor *before = *x;
    *x = NULL;
    resin_status status = try_op(n->context, op, in, options, x);
    resin_release(before);
    return status;
}

#define TRY(call)                                     \
    do {                                              \
        resin_status status_ = (call);                \
        if (status_ != RESIN_OK) return status_;      \
    } while (0)

/* Unit with shortcut, branches joined, views of views: (2, 9, 10, 4) to (2, 5). */
static resin_status compute(network *n, resin_tensor **x) {
    resin_tensor **t = n->t, *pooled = NULL;
    const op_options same = OPTIONS(set_bool("same", true));
    const op_options relu = OPTIONS(set_bool("same", true), set_string("activation", "relu"));
    const int64_t whole[] = {2, -1, 8};
    TRY(step(n, "conv_bn_act", x,
             INPUTS(t[WEIGHTS], NULL, t[GAMMA], t[BETA], t[MEAN], t[VARIANCE]), relu));
    resin_tensor *shortcut = resin_retain(*x);
    resin_status status = step(n, "conv2d", x, INPUTS(t[WIDE]), same);
    if (status == RESIN_OK) status = step(n, "add", x, INPUTS(shortcut), NO_OPTIONS);
    if (status == RESIN_OK)
        status = try_op(n->context, "global_max_pool", INPUTS(shortcut), NO_OPTIONS, &pooled);
    resin_release(shortcut);
    const op_options shape = OPTIONS(set_ints("shape", 3, whole));
    const op_options axes = OPTIONS(set_ints("axes", 1, (int64_t[]){1}));
    if (status == RESIN_OK) status = step(n, "reshape", x, INPUTS(NULL), shape);
    if (status == RESIN_OK) status = step(n, "mean", x, INPUTS(NULL), axes);
    const op_options last = OPTIONS(set_int("axis", -1));
    if (status == RESIN_OK) status = step(n, "concatenate", x, INPUTS(pooled), last);
    resin_release(pooled);
    if (status == RESIN_OK)
        status = step(n, "linear", x, INPUTS(t[DENSE], t[BIAS]), NO_OPTIONS);
    return status;
}

static resin_status record(network *n, resin_tensor *image, resin_plan **plan) {
    *plan = NULL;
    TRY(resin_plan_begin(n->context, &image, 1));
    resin_tensor *x = resin_retain(image);
    resin_status status = compute(n, &x);
    if (status == RESIN_OK)
        status = resin_plan_end(n->context, &x, 1, plan);
    else
        resin_plan_cancel(n->context);
    resin_release(x);
    return status;
}

static resin_plan *must_record(network *n) {
    resin_plan *plan;
    resin_tensor *image = tensor_of(n->context, RESIN_FLOAT32, image_shape, NULL);
    must(n->context, record(n, image, &plan));
    resin_release(image);
    return plan;
}

/* The plan's output for an image is that of the ops. */
static void assert_same_bits(network *n, resin_plan *plan) {
    resin_tensor *image = tensor_of(n->context, RESIN_FLOAT32, image_shape, NULL);
    const void *elements = resin_tensor_data(image);
    must(n->context, resin_plan_run(plan, &elements));
    const bool before = resin_set_recording(n->context, false);
    must(n->context, compute(n, &image));
    resin_set_recording(n->context, before);
    const resin_plan_value output = resin_plan_output(plan, 0);
    assert_int_equal(output.rank, 2);
    assert_memory_equal(output.shape, resin_tensor_shape(image), 2 * sizeof(int64_t));
    assert_memory_equal(output.data, resin_tensor_data(image), 10 * sizeof(float));
    resin_release(image);
}

static void runs_give_the_bits_of_the_ops(void **state) {
    network n = new_network(*state);
    resin_plan *plan = must_record(&n);
    assert_true(resin_recording(*state));
    assert_int_equal(resin_plan_inputs(plan), 1);
    assert_int_equal(resin_plan_outputs(plan), 1);
    assert_int_equal(resin_plan_input(plan, 0).rank, 4);
    assert_int_equal(resin_plan_input(plan, 0).dtype, RESIN_FLOAT32);
    assert_null(resin_plan_output(plan, 0).data);
    for (int i = 0; i < 5; i++) assert_same_bits(&n, plan);
    resin_plan_release(plan);
    free_network(&n);
}

static void other_threads_and_methods_lay_it_out_anew(void **state) {
    network n = new_network(*state);
    resin_plan *plan = must_record(&n);
    static const int threads[] = {1, 4, 2, 7, 1};
    for (int i = 0; i < COUNT(threads); i++) {
        must(*state, resin_set_threads(*state, threads[i]));
        assert_same_bits(&n, plan);
        must(*state, resin_set_conv_method(*state, i % 2 ? "direct" : "auto"));
        assert_same_bits(&n, plan);
    }
    resin_plan_release(plan);
    free_network(&n);
}

static void a_run_allocates_nothing(void **state) {
    network n = new_network(*state);
    const resin_memory_info before = resin_memory(*state);
    resin_plan *plan = must_record(&n);
    resin_tensor *image = tensor_of(*state, RESIN_FLOAT32, image_shape, NULL);
    const void *elements = resin_tensor_data(image);
    const resin_memory_info first = resin_memory(*state);
    const size_t own = resin_plan_memory(plan) + resin_plan_kept_memory(plan);
    assert_true(resin_plan_memory(plan) > 0 && resin_plan_kept_memory(plan) > 0);
    assert_true(first.held > before.held + own);
    resin_memory_reset_peak(*state);
    resin_arena_fail_after(*state, 0); /* whoever asks for memory now gets none */
    for (int i = 0; i < 10; i++) must(*state, resin_plan_run(plan, &elements));
    resin_arena_fail_after(*state, -1);
    const resin_memory_info last = resin_memory(*state);
    assert_int_equal(last.held, first.held);
    assert_int_equal(last.peak, first.held);
    assert_int_equal(last.cached, first.cached);
    assert_int_equal(last.system_allocations, first.system_allocations);
    resin_plan_release(plan);
    resin_release(image);
    free_network(&n);
}

/* Between two runs they get another buffer and are changed there, so often that counting changes
 * alone would come to the number of before. */
static void weights_that_move_and_change_are_seen(void **state) {
    for (int changes = 1; changes < 8; changes++) {
        network n = new_network(*state);
        const bool before = resin_set_recording(*state, false);
        for (int i = 0; i < 4; i++) must(*state, resin_fill(n.t[WEIGHTS], 0.5));
        resin_plan *plan = must_record(&n);
        assert_same_bits(&n, plan);
        resin_tensor *trained[] = {n.t[WEIGHTS], n.t[WIDE], n.t[DENSE]};
        resin_parameters *parameters;
        must(*state, resin_parameters_new(*state, trained, COUNT(trained), &parameters));
        for (int i = 0; i < changes; i++) must(*state, resin_fill(n.t[WEIGHTS], 0.25 + i));
        assert_same_bits(&n, plan);
        resin_set_recording(*state, before);
        resin_parameters_release(parameters);
        resin_plan_release(plan);
        free_network(&n);
    }
}

static void weights_are_not_copied(void **state) {
    network n = new_network(*state);
    resin_plan *plan = must_record(&n);
    const bool before = resin_set_recording(*state, false);
    for (int i = 0; i < TENSORS; i++) {
        must(*state, resin_fill(n.t[i], 0.25 + i));
        assert_same_bits(&n, plan);
    }
    resin_set_recording(*state, before);
    resin_tensor *trained[] = {n.t[WEIGHTS], n.t[WIDE], n.t[DENSE]};
    resin_parameters *parameters; /* moves the weights into a buffer of its own */
    must(*state, resin_parameters_new(*state, trained, COUNT(trained), &parameters));
    assert_same_bits(&n, plan);
    resin_parameters_release(parameters);
    resin_plan_release(plan);
    free_network(&n);
}

static void a_plan_outlives_all_else(void **state) {
    (void)state;
    resin_context *context = resin_context_new();
    assert_non_null(context);
    network n = new_network(context);
    resin_plan *plan = must_record(&n);
    resin_tensor *image = tensor_of(context, RESIN_FLOAT32, image_shape, NULL);
    free_network(&n);
    resin_context_release(context);
    const void *elements = resin_tensor_data(image);
    assert_ptr_equal(resin_plan_context(plan), context);
    must(context, resin_plan_run(resin_plan_retain(plan), &elements));
    resin_plan_release(plan);
    assert_non_null(resin_plan_output(plan, 0).data);
    resin_plan_release(plan);
    resin_plan_release(NULL);
    resin_release(image);
}

static void recording_without_memory(void **state) {
    network n = new_network(*state);
    resin_tensor *image = tensor_of(*state, RESIN_FLOAT32, image_shape, NULL);
    const size_t held = resin_memory(*state).held;
    resin_plan *plan = NULL;
    int failures = 0;
    for (resin_status status = RESIN_ERROR_MEMORY; status != RESIN_OK; failures++) {
        resin_arena_fail_after(*state, failures);
        status = record(&n, image, &plan);
        resin_arena_fail_after(*state, -1);
        assert_true(status == RESIN_OK || status == RESIN_ERROR_MEMORY);
        if (status != RESIN_OK) assert_int_equal(resin_memory(*state).held, held);
        assert_true(resin_recording(*state));
    }
    assert_true(failures > 60);
    assert_same_bits(&n, plan);

    /* A layout for other threads that fails is tried again by the next run. */
    const void *elements = resin_tensor_data(image);
    must(*state, resin_set_threads(*state, 5));
    resin_arena_fail_after(*state, 3);
    assert_int_equal(resin_plan_run(plan, &elements), RESIN_ERROR_MEMORY);
    resin_arena_fail_after(*state, -1);
    assert_null(resin_plan_output(plan, 0).data);
    assert_same_bits(&n, plan);
    resin_plan_release(plan);
    resin_release(image);
    free_network(&n);
}

/* ---- Values ---------------------------------------------------------------------------------- */

static void outputs_may_be_anything(void **state) {
    static const double numbers[] = {1, 2, 3, 4, 5, 6};
    resin_tensor *x = tensor_of(*state, RESIN_FLOAT32, SHAPE(2, 3), numbers);
    resin_tensor *constant = tensor_of(*state, RESIN_INT64, SHAPE(2, 3), numbers);
    resin_plan *plan;
    must(*state, resin_plan_begin(*state, &x, 1));
    resin_tensor *turned = run_op(*state, "transpose", INPUTS(x), NO_OPTIONS);
    resin_tensor *twice = run_op(*state, "add", INPUTS(x, x), NO_OPTIONS), *part, *same;
    const int64_t one = 1, three = 3;
    part = run_op(*state, "slice", INPUTS(twice), OPTIONS(set_ints("start", 1, &one),
                                                          set_ints("stop", 1, (int64_t[]){2})));
    must(*state, resin_detach(part, &same));
    resin_tensor *unused = run_op(*state, "exp", INPUTS(twice), NO_OPTIONS);
    resin_tensor *outputs[] = {turned, x, constant, same, twice, same, part};
    must(*state, resin_plan_end(*state, outputs, COUNT(outputs), &plan));
    resin_release(turned);
    resin_release(twice);
    resin_release(part);
    resin_release(same);
    resin_release(unused);
    resin_release(x);
    assert_int_equal(resin_plan_outputs(plan), COUNT(outputs));

    const float given[] = {10, 20, 30, 40, 50, 60};
    static const float transposed[] = {10, 40, 20, 50, 30, 60};
    static const float doubled[] = {20, 40, 60, 80, 100, 120};
    const void *elements = given;
    for (int i = 0; i < 2; i++) must(*state, resin_plan_run(plan, &elements));
    assert_memory_equal(resin_plan_output(plan, 0).data, transposed, sizeof transposed);
    assert_int_equal(resin_plan_output(plan, 0).shape[0], three);
    assert_memory_equal(resin_plan_output(plan, 1).data, given, sizeof given);
    assert_int_equal(resin_plan_output(plan, 2).dtype, RESIN_INT64);
    assert_ptr_equal(resin_plan_output(plan, 2).data, resin_tensor_data(constant));
    assert_memory_equal(resin_plan_output(plan, 3).data, doubled + 3, 3 * sizeof(float));
    assert_memory_equal(resin_plan_output(plan, 4).data, doubled, sizeof doubled);
    assert_memory_equal(resin_plan_output(plan, 6).data, doubled + 3, 3 * sizeof(float));
    resin_release(constant);
    resin_plan_release(plan);
}

static void many_inputs_and_none(void **state) {
    enum { MANY = 40 };
    resin_tensor *in[MANY], *sum;
    resin_plan *plan;
    float number[MANY];
    const void *elements[MANY];
    for (int i = 0; i < MANY; i++) in[i] = tensor_of(*state, RESIN_FLOAT32, SHAPE(1), NULL);
    must(*state, resin_plan_begin(*state, in, MANY));
    must(*state, resin_apply(*state, "concatenate", in, MANY, NULL, 0, &sum));
    must(*state, resin_plan_end(*state, &sum, 1, &plan));
    for (int i = 0; i < MANY; i++) {
        number[i] = (float)i;
        elements[i] = &number[i];
        resin_release(in[i]);
    }
    resin_release(sum);
    must(*state, resin_plan_run(plan, elements));
    assert_memory_equal(resin_plan_output(plan, 0).data, number, sizeof number);
    resin_plan_release(plan);

    resin_tensor *constant = tensor_of(*state, RESIN_FLOAT32, SHAPE(1), NULL);
    must(*state, resin_plan_begin(*state, NULL, 0));
    sum = run_op(*state, "add", INPUTS(constant, constant), NO_OPTIONS);
    must(*state, resin_plan_end(*state, &sum, 1, &plan));
    resin_release(sum);
    must(*state, resin_fill(constant, 4));
    must(*state, resin_plan_run(plan, NULL));
    assert_true(*(const float *)resin_plan_output(plan, 0).data == 8);
    resin_release(constant);
    resin_plan_release(plan);
}

/* An op that fails in a run leaves a plan that goes on. */
static void a_run_may_fail(void **state) {
    static const double first[] = {0, 1};
    resin_tensor *x = tensor_of(*state, RESIN_FLOAT32, SHAPE(3, 2), NULL);
    resin_tensor *index = tensor_of(*state, RESIN_INT64, SHAPE(2), first);
    resin_plan *plan;
    must(*state, resin_plan_begin(*state, &index, 1));
    resin_tensor *y = run_op(*state, "take", INPUTS(x, index), OPTIONS(set_int("axis", 0)));
    must(*state, resin_plan_end(*state, &y, 1, &plan));
    const int64_t wrong[] = {0, 7}, right[] = {2, 1};
    const void *elements = wrong;
    assert_int_equal(resin_plan_run(plan, &elements), RESIN_ERROR_ARGUMENT);
    assert_non_null(strstr(resin_error_message(*state), "take"));
    assert_null(resin_plan_output(plan, 0).data);
    elements = right;
    must(*state, resin_plan_run(plan, &elements));
    assert_memory_equal(resin_plan_output(plan, 0).data, (float *)resin_tensor_data(x) + 4,
                        2 * sizeof(float));
    resin_release(x);
    resin_release(y);
    resin_release(index);
    resin_plan_release(plan);
}

/* ---- What cannot be recorded ----------------------------------------------------------------- */

static void assert_refused(resin_context *context, resin_status status, const char *text) {
    assert_int_not_equal(status, RESIN_OK);
    assert_int_not_equal(status, RESIN_ERROR_MEMORY);
    if (!strstr(resin_error_message(context), text))
        fail_msg("no \"%s\" in: %s", text, resin_error_message(context));
}

static void what_cannot_be_repeated_is_refused(void **state) {
    resin_context *context = *state;
    network n = new_network(context);
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 4, 4, 8), NULL), *y = NULL;
    resin_tensor *free_one = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 4, 4, 8), NULL);
    resin_plan *plan;
    must(context, resin_plan_begin(context, &x, 1));
    const op_options drop = OPTIONS(set_bool("training", true), set_number("rate", 0.5));
    assert_refused(context, try_op(context, "dropout", INPUTS(x), drop, &y), "dropout: it draws");
    assert_null(y);
    const op_inputs norm = INPUTS(x, n.t[GAMMA], n.t[BETA], n.t[MEAN], n.t[VARIANCE]);
    assert_refused(context, try_op(context, "batch_norm", norm,
                                   OPTIONS(set_bool("training", true)), &y),
                   "batch_norm: it changes");
    resin_set_recording(context, true);
    assert_refused(context, try_op(context, "batch_norm", norm, NO_OPTIONS, &y), "gradients");
    resin_set_recording(context, false);
    y = run_op(context, "batch_norm", norm, NO_OPTIONS);
    resin_tensor *planned[] = {x, y, n.t[MEAN]}; /* input, result, constant */
    for (int i = 0; i < COUNT(planned); i++) {
        assert_refused(context, resin_fill(planned[i], 1), "in place");
        assert_refused(context, resin_copy(planned[i], free_one), "in place");
        assert_refused(context, resin_copy(free_one, planned[i]), "in place");
    }
    must(context, resin_fill(free_one, 1));
    must(context, resin_plan_end(context, &y, 1, &plan));
    must(context, resin_fill(n.t[MEAN], 1)); /* now it is free again */
    must(context, resin_copy(free_one, y));
    resin_release(x);
    resin_release(y);
    resin_release(free_one);
    resin_plan_release(plan);
    free_network(&n);
}

static void wrong_calls_are_refused(void **state) {
    resin_context *context = *state;
    resin_tensor *x = tensor_of(context, RESIN_FLOAT32, SHAPE(2, 3), NULL);
    resin_tensor *turned = run_op(context, "transpose", INPUTS(x), NO_OPTIONS), *y;
    resin_tensor *twice[] = {x, x}, *none = NULL;
    resin_plan *plan = NULL, *other;
    resin_plan_cancel(context);
    assert_refused(context, resin_plan_end(context, &x, 1, &plan), "none is being recorded");
    assert_refused(context, resin_plan_begin(context, &turned, 1), "contiguous");
    assert_refused(context, resin_plan_begin(context, &none, 1), "input 0");
    assert_refused(context, resin_plan_begin(context, twice, 2), "twice");
    assert_refused(context, resin_plan_begin(context, NULL, -1), "-1 inputs");
    must(context, resin_plan_begin(context, &x, 1));
    assert_refused(context, resin_plan_begin(context, &x, 1), "another");
    assert_refused(context, resin_plan_end(context, NULL, 0, &plan), "expected an output");
    assert_null(plan);
    must(context, resin_plan_begin(context, &x, 1));
    assert_refused(context, resin_plan_end(context, &none, 1, &plan), "output 0");
    must(context, resin_plan_begin(context, &x, 1));
    y = run_op(context, "exp", INPUTS(x), NO_OPTIONS);
    must(context, resin_plan_end(context, &y, 1, &plan));

    const char *data = resin_tensor_data(x);
    const void *elements = NULL;
    assert_refused(context, resin_plan_run(plan, &elements), "input 0");
    elements = data + 1;
    assert_refused(context, resin_plan_run(plan, &elements), "aligned");
    elements = data;
    must(context, resin_plan_begin(context, &x, 1));
    assert_refused(context, resin_plan_run(plan, &elements), "another one is recorded");
    must(context, resin_plan_end(context, &x, 1, &other));
    must(context, resin_plan_run(plan, &elements));
    must(context, resin_plan_run(other, &elements)); /* each has its own block */
    assert_memory_equal(resin_plan_output(plan, 0).data, resin_tensor_data(y), 6 * sizeof(float));
    resin_release(x);
    resin_release(y);
    resin_release(turned);
    resin_plan_release(plan);
    resin_plan_release(other);
}

/* ---- Profiles -------------------------------------------------------------------------------- */

static void a_profile_has_the_marks_of_the_recording(void **state) {
    resin_tensor *x = tensor_of(*state, RESIN_FLOAT32, SHAPE(2, 3), NULL);
    const resin_profile_event *event;
    resin_plan *plan;
    int64_t lost;
    must(*state, resin_plan_begin(*state, &x, 1));
    resin_profile_mark(*state, 5);
    resin_tensor *y = run_op(*state, "exp", INPUTS(x), NO_OPTIONS);
    resin_profile_mark(*state, 6);
    resin_tensor *z = run_op(*state, "log", INPUTS(y), NO_OPTIONS);
    must(*state, resin_plan_end(*state, &z, 1, &plan));
    resin_profile_mark(*state, 9);
    const void *elements = resin_tensor_data(x);
    must(*state, resin_profile_start(*state, 100));
    resin_profile_mark(*state, 9);
    must(*state, resin_plan_run(plan, &elements));
    resin_profile_stop(*state);
    assert_int_equal(resin_profile_mark(*state, 0), 9);
    assert_int_equal(resin_profile_events(*state, &event, &lost), 2);
    assert_string_equal(event[0].name, "exp");
    assert_int_equal(event[0].mark, 5);
    assert_true(event[0].bytes_read == 24 && event[0].bytes_written == 24);
    assert_string_equal(event[1].name, "log");
    assert_int_equal(event[1].mark, 6);
    resin_release(x);
    resin_release(y);
    resin_release(z);
    resin_plan_release(plan);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_context, drop_context)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_lives_together_lies_apart),
        TEST(a_replay_gives_the_same_places),
        TEST(runs_give_the_bits_of_the_ops),
        TEST(other_threads_and_methods_lay_it_out_anew),
        TEST(a_run_allocates_nothing),
        TEST(weights_are_not_copied),
        TEST(weights_that_move_and_change_are_seen),
        TEST(a_plan_outlives_all_else),
        TEST(recording_without_memory),
        TEST(outputs_may_be_anything),
        TEST(many_inputs_and_none),
        TEST(a_run_may_fail),
        TEST(what_cannot_be_repeated_is_refused),
        TEST(wrong_calls_are_refused),
        TEST(a_profile_has_the_marks_of_the_recording),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
