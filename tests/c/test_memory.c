/* test_memory.c: the arena, and what happens when memory is out: every allocation of a training
 * step is made to fail, one after the other. */
#include "core/base/memory.h"
#include "core/tensor/tensor.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* Under AddressSanitizer, too, memory that is out is an answer. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

static int make_context(void **state) {
    *state = resin_context_new();
    return *state ? 0 : -1;
}

static int drop_context(void **state) {
    size_t held = resin_memory(*state).held;
    resin_context_release(*state);
    return held == 0 ? 0 : -1;
}

/* ---- The arena ------------------------------------------------------------------------------- */

static void blocks_are_large_enough(void **state) {
    static const size_t around[] = {0, 1, 255, 256, 257, 511, 512, 4096, 65537, 1 << 20, 5 << 20};
    for (int i = 0; i < COUNT(around); i++) {
        for (size_t size = around[i] ? around[i] - 1 : 0; size <= around[i] + 1; size++) {
            void *block;
            size_t before = resin_memory(*state).held;
            assert_int_equal(resin_allocate(*state, size, &block), RESIN_OK);
            assert_int_equal((uintptr_t)block % 64, 0);
            memset(block, 0xa5, size);
            size_t taken = resin_memory(*state).held - before;
            assert_true(taken >= size);
            if (size > 256) assert_true(taken <= size + size / 8 + 64);
            resin_deallocate(*state, block);
        }
    }
}

static void freed_blocks_are_used_again(void **state) {
    void *block[20];
    size_t allocations = 0;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < COUNT(block); i++)
            assert_int_equal(resin_allocate(*state, (size_t)1000 * (size_t)i, &block[i]), RESIN_OK);
        if (round == 0) allocations = resin_memory(*state).system_allocations;
        for (int i = COUNT(block) - 1; i >= 0; i--) resin_deallocate(*state, block[i]);
    }
    resin_memory_info info = resin_memory(*state);
    assert_int_equal(info.system_allocations, allocations);
    assert_int_equal(info.held, 0);
    assert_true(info.cached >= 190000);
    assert_true(info.peak >= 190000);
    resin_memory_trim(*state);
    assert_int_equal(resin_memory(*state).cached, 0);
    resin_memory_reset_peak(*state);
    assert_int_equal(resin_memory(*state).peak, 0);
}

static void too_much_is_refused(void **state) {
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 64, SIZE_MAX / 2, (size_t)1 << 60};
    for (int i = 0; i < COUNT(sizes); i++) {
        void *block = &block;
        assert_int_equal(resin_allocate(*state, sizes[i], &block), RESIN_ERROR_MEMORY);
        assert_null(block);
        assert_non_null(strstr(resin_error_message(*state), "out of memory"));
    }
    assert_int_equal(resin_memory(*state).held, 0);
}

/* What eight blocks leave serves one as large as all, and the other way round. */
static void large_blocks_are_cut_and_joined(void **state) {
    enum { PARTS = 8 };
    const size_t part = 1 << 20;
    void *block[PARTS], *whole;
    for (int i = 0; i < PARTS; i++)
        assert_int_equal(resin_allocate(*state, part, &block[i]), RESIN_OK);
    size_t allocations = resin_memory(*state).system_allocations;
    for (int i = 0; i < PARTS; i++) resin_deallocate(*state, block[i * 3 % PARTS]);
    assert_int_equal(resin_allocate(*state, PARTS * part, &whole), RESIN_OK);
    resin_deallocate(*state, whole);
    for (int i = 0; i < PARTS; i++)
        assert_int_equal(resin_allocate(*state, part, &block[i]), RESIN_OK);
    assert_int_equal(resin_memory(*state).system_allocations, allocations);
    assert_true(resin_memory(*state).cached < part);
    /* Half a megabyte more than what is left: only the rest comes from the system. */
    for (int i = 0; i < PARTS; i++) resin_deallocate(*state, block[i]);
    size_t cached = resin_memory(*state).cached;
    assert_int_equal(resin_allocate(*state, cached + part / 2, &whole), RESIN_OK);
    assert_int_equal(resin_memory(*state).cached, 0);
    resin_deallocate(*state, whole);
}

typedef struct used_block {
    uint32_t *words;
    size_t count;
    uint32_t mark;
} used_block;

static void check_words(const used_block *used) {
    for (size_t i = 0; i < used->count; i += 31)
        assert_int_equal(used->words[i], used->mark + (uint32_t)i);
}

/* Random sizes around the border between small and large: no two blocks share a byte, and trimming
 * in between takes nothing that is in use. */
static void blocks_do_not_overlap(void **state) {
    enum { MANY = 40, ROUNDS = 4000 };
    used_block used[MANY] = {{NULL, 0, 0}};
    uint32_t dice = 1;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        dice = dice * 1664525 + 1013904223;
        used_block *one = &used[(dice >> 8) % MANY];
        check_words(one);
        resin_deallocate(*state, one->words);
        *one = (used_block){.count = (dice >> 14) % 90000, .mark = dice};
        assert_int_equal(resin_allocate(*state, one->count * sizeof *one->words,
                                        (void **)&one->words), RESIN_OK);
        for (size_t i = 0; i < one->count; i += 31) one->words[i] = one->mark + (uint32_t)i;
        if (round % 500 == 499) resin_memory_trim(*state);
    }
    for (int i = 0; i < MANY; i++) {
        check_words(&used[i]);
        resin_deallocate(*state, used[i].words);
    }
    resin_memory_trim(*state);
    assert_int_equal(resin_memory(*state).cached, 0);
}

static void *release_tensor(void *tensor) {
    resin_release(tensor);
    return NULL;
}

static void another_thread_may_release(void **state) {
    enum { MANY = 64 };
    pthread_t thread[MANY];
    const int64_t shape[] = {1000};
    for (int i = 0; i < MANY; i++) {
        resin_tensor *t;
        assert_int_equal(resin_full(*state, RESIN_FLOAT32, 1, shape, 1, &t), RESIN_OK);
        assert_int_equal(pthread_create(&thread[i], NULL, release_tensor, t), 0);
    }
    for (int i = 0; i < MANY; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(resin_memory(*state).held, 0);
}

/* ---- A small network ------------------------------------------------------------------------- */

enum { WEIGHTS, GAMMA, BETA, SHORTCUT, DENSE, BIAS, PARAMETERS };
enum { MEAN = PARAMETERS, VARIANCE, IMAGES, LABELS, TENSORS };

typedef struct network {
    resin_context *context;
    resin_tensor *t[TENSORS];
} network;

static resin_tensor *uniform(resin_context *context, int rank, const int64_t *shape) {
    resin_tensor *t;
    assert_int_equal(resin_uniform(context, RESIN_FLOAT32, rank, shape, -1, 1, &t), RESIN_OK);
    return t;
}

static network new_network(resin_context *context) {
    network n = {.context = context};
    const int64_t weights[] = {3, 3, 4, 4}, one[] = {1, 1, 4, 4}, channels[] = {4};
    const int64_t dense[] = {4, 3}, classes[] = {3}, images[] = {2, 6, 6, 4}, labels[] = {2};
    resin_seed(context, 4);
    n.t[WEIGHTS] = uniform(context, 4, weights);
    n.t[GAMMA] = uniform(context, 1, channels);
    n.t[BETA] = uniform(context, 1, channels);
    n.t[SHORTCUT] = uniform(context, 4, one);
    n.t[DENSE] = uniform(context, 2, dense);
    n.t[BIAS] = uniform(context, 1, classes);
    n.t[IMAGES] = uniform(context, 4, images);
    assert_int_equal(resin_full(context, RESIN_FLOAT32, 1, channels, 0, &n.t[MEAN]), RESIN_OK);
    assert_int_equal(resin_full(context, RESIN_FLOAT32, 1, channels, 1, &n.t[VARIANCE]), RESIN_OK);
    assert_int_equal(resin_arange(context, RESIN_INT64, 0, 1, labels[0], &n.t[LABELS]), RESIN_OK);
    for (int i = 0; i < PARAMETERS; i++)
        assert_int_equal(resin_require_grad(n.t[i], true), RESIN_OK);
    return n;
}

static void free_network(network *n) {
    for (int i = 0; i < TENSORS; i++) resin_release(n->t[i]);
}

/* *x = op(*x, more ...); what *x was is given back. After a failure *x stays. */
static resin_status step(network *n, const char *op, resin_tensor **x, resin_tensor *const *more,
                         int count, const resin_attribute *attributes, int attribute_count) {
    resin_tensor *in[8] = {*x}, *out;
    for (int i = 0; i < count; i++) in[1 + i] = more[i];
    RESIN_TRY(resin_apply(n->context, op, in, 1 + count, attributes, attribute_count, &out));
    resin_release(*x);
    *x = out;
    return RESIN_OK;
}

static const resin_attribute same = {.name = "same", .kind = RESIN_VALUE_BOOL, .integer = 1};
static const resin_attribute training = {.name = "training", .kind = RESIN_VALUE_BOOL,
                                         .integer = 1};
static const resin_attribute rate = {.name = "rate", .kind = RESIN_VALUE_NUMBER, .number = 0.5};
static const resin_attribute kernel = {.name = "kernel", .kind = RESIN_VALUE_INT, .integer = 2};

/* conv, batch norm, + shortcut, relu, pool, dropout, dense, loss: *x from images to the loss. */
static resin_status forward(network *n, resin_tensor **x, resin_tensor **shortcut) {
    resin_tensor **t = n->t, *norm[] = {t[GAMMA], t[BETA], t[MEAN], t[VARIANCE]};
    resin_tensor *dense[] = {t[DENSE], t[BIAS]};
    const resin_attribute dropout[] = {rate, training};
    RESIN_TRY(step(n, "conv2d", shortcut, &t[SHORTCUT], 1, NULL, 0));
    RESIN_TRY(step(n, "conv2d", x, &t[WEIGHTS], 1, &same, 1));
    RESIN_TRY(step(n, "batch_norm", x, norm, 4, &training, 1));
    RESIN_TRY(step(n, "add", x, shortcut, 1, NULL, 0));
    RESIN_TRY(step(n, "relu", x, NULL, 0, NULL, 0));
    RESIN_TRY(step(n, "max_pool2d", x, NULL, 0, &kernel, 1));
    RESIN_TRY(step(n, "multiply", x, x, 1, NULL, 0));
    RESIN_TRY(step(n, "dropout", x, NULL, 0, dropout, 2));
    RESIN_TRY(step(n, "global_avg_pool", x, NULL, 0, NULL, 0));
    RESIN_TRY(step(n, "linear", x, dense, 2, NULL, 0));
    return step(n, "cross_entropy", x, &t[LABELS], 1, NULL, 0);
}

static resin_status forward_and_backward(network *n) {
    resin_tensor *x = resin_retain(n->t[IMAGES]), *shortcut = resin_retain(n->t[IMAGES]);
    resin_status status = forward(n, &x, &shortcut);
    if (status == RESIN_OK) status = resin_backward(x, NULL, false);
    resin_release(x);
    resin_release(shortcut);
    return status;
}

static void start_again(network *n) {
    for (int i = 0; i < PARAMETERS; i++) resin_clear_grad(n->t[i]);
    resin_seed(n->context, 8); /* for dropout */
}

/* The gradients as bytes; the caller frees them. */
static void *gradients(const network *n, size_t *size) {
    *size = 0;
    char *bytes = malloc(1 << 16);
    assert_non_null(bytes);
    for (int i = 0; i < PARAMETERS; i++) {
        resin_tensor *grad = resin_tensor_grad(n->t[i]);
        assert_non_null(grad);
        size_t count = (size_t)resin_tensor_count(grad) * sizeof(float);
        memcpy(bytes + *size, resin_tensor_data(grad), count);
        *size += count;
    }
    return bytes;
}

/* Lets allocation 0, 1, 2, ... of `task` fail until none is left to fail. Every failure must say
 * that memory is out and leave nothing behind; returns how many there were. */
static int fail_everywhere(network *n, resin_status (*task)(network *)) {
    start_again(n);
    size_t held = resin_memory(n->context).held;
    for (int allocation = 0; allocation < 100000; allocation++) {
        resin_arena_fail_after(n->context, allocation);
        resin_status status = task(n);
        resin_arena_fail_after(n->context, -1);
        if (status == RESIN_OK) return allocation;
        if (status != RESIN_ERROR_MEMORY)
            fail_msg("allocation %d: status %s (%s)", allocation, resin_status_name(status),
                     resin_error_message(n->context));
        start_again(n);
        if (resin_memory(n->context).held != held)
            fail_msg("allocation %d: %zu bytes held, %zu before", allocation,
                     resin_memory(n->context).held, held);
    }
    fail_msg("it never succeeded");
    return 0;
}

static void a_training_step_without_memory(void **state) {
    network n = new_network(*state);
    size_t size, again_size;
    start_again(&n);
    assert_int_equal(forward_and_backward(&n), RESIN_OK);
    void *expected = gradients(&n, &size);
    int failures = fail_everywhere(&n, forward_and_backward);
    assert_true(failures > 60);
    void *again = gradients(&n, &again_size);
    assert_int_equal(size, again_size);
    assert_memory_equal(again, expected, size);
    free(expected);
    free(again);
    free_network(&n);
}

/* The same with one flat buffer for the gradients. */
static void a_training_step_without_memory_into_buffers(void **state) {
    network n = new_network(*state);
    size_t size, again_size;
    for (int i = 0; i < PARAMETERS; i++) {
        resin_tensor *buffer;
        assert_int_equal(tensor_new_like(n.t[i], &buffer), RESIN_OK);
        assert_int_equal(resin_set_grad(n.t[i], buffer), RESIN_OK);
        resin_release(buffer);
    }
    start_again(&n);
    assert_int_equal(forward_and_backward(&n), RESIN_OK);
    void *expected = gradients(&n, &size);
    fail_everywhere(&n, forward_and_backward);
    void *again = gradients(&n, &again_size);
    assert_memory_equal(again, expected, size);
    free(expected);
    free(again);
    free_network(&n);
}

/* A gradient that is handed on without a copy, to a leaf that keeps it: the failure in between must
 * not leave the leaf with somebody else's tensor. */
static resin_status add_twice(network *n) {
    resin_tensor *in[] = {n->t[GAMMA], n->t[BETA]}, *sum, *grad;
    RESIN_TRY(resin_apply(n->context, "add", in, 2, NULL, 0, &sum));
    resin_status status = resin_full(n->context, RESIN_FLOAT32, 1, resin_tensor_shape(sum), 2,
                                     &grad);
    if (status == RESIN_OK) status = resin_backward(sum, grad, false);
    resin_release(sum);
    if (status == RESIN_ERROR_MEMORY) {
        /* Without clearing: what the leaves have must be theirs. */
        resin_tensor *both[] = {resin_tensor_grad(in[0]), resin_tensor_grad(in[1])};
        assert_true(!both[0] || both[0] != both[1]);
        assert_ptr_not_equal(in[0]->grad, grad ? grad : (void *)1);
        assert_ptr_not_equal(in[1]->grad, grad ? grad : (void *)1);
    }
    resin_release(grad);
    return status;
}

static void shared_gradients_without_memory(void **state) {
    network n = new_network(*state);
    assert_true(fail_everywhere(&n, add_twice) > 5);
    const float *gamma = resin_tensor_data(resin_tensor_grad(n.t[GAMMA]));
    const float *beta = resin_tensor_data(resin_tensor_grad(n.t[BETA]));
    assert_ptr_not_equal(gamma, beta);
    for (int i = 0; i < 4; i++) assert_true(gamma[i] == 2 && beta[i] == 2);
    free_network(&n);
}

/* A failure in the middle of backward leaves the graph as it was: it can be run again. */
static void backward_can_be_tried_again(void **state) {
    network n = new_network(*state);
    start_again(&n);
    assert_int_equal(forward_and_backward(&n), RESIN_OK);
    size_t size, again_size;
    void *expected = gradients(&n, &size);
    for (int allocation = 0;; allocation++) {
        start_again(&n);
        resin_tensor *x = resin_retain(n.t[IMAGES]), *shortcut = resin_retain(n.t[IMAGES]);
        assert_int_equal(forward(&n, &x, &shortcut), RESIN_OK);
        resin_arena_fail_after(*state, allocation);
        resin_status status = resin_backward(x, NULL, true);
        resin_arena_fail_after(*state, -1);
        bool failed = status != RESIN_OK;
        if (failed) {
            assert_int_equal(status, RESIN_ERROR_MEMORY);
            for (int i = 0; i < PARAMETERS; i++) resin_clear_grad(n.t[i]);
            assert_int_equal(resin_backward(x, NULL, true), RESIN_OK);
        }
        void *again = gradients(&n, &again_size);
        assert_memory_equal(again, expected, size);
        free(again);
        resin_release(x);
        resin_release(shortcut);
        if (!failed) break;
    }
    free(expected);
    free_network(&n);
}

/* A block that backward runs again: y = sin(x gamma), z = y beta. */
static resin_status run_block(void *user, resin_tensor *const *inputs, int count,
                              resin_tensor **outputs, int *output_count) {
    const network *n = user;
    resin_tensor *in[] = {inputs[0], n->t[GAMMA]}, *product;
    assert_int_equal(count, 1);
    RESIN_TRY(resin_apply(n->context, "multiply", in, 2, NULL, 0, &product));
    resin_status status = resin_apply(n->context, "sin", &product, 1, NULL, 0, &outputs[0]);
    resin_release(product);
    in[0] = outputs[0];
    in[1] = n->t[BETA];
    if (status == RESIN_OK)
        status = resin_apply(n->context, "multiply", in, 2, NULL, 0, &outputs[1]);
    if (status != RESIN_OK) {
        resin_release(outputs[0]);
        outputs[0] = NULL;
        return status;
    }
    *output_count = 2;
    return RESIN_OK;
}

static int blocks_released;
static void release_block(void *user) {
    (void)user;
    blocks_released++;
}

/* Through the block's results and its input, which has a gradient of its own. */
static resin_status backward_through_block(network *n) {
    const resin_block block = {run_block, release_block, n};
    resin_tensor *in[] = {n->t[IMAGES], n->t[BETA]}, *x, *y[RESIN_MAX_BLOCK_TENSORS], *loss;
    int count;
    RESIN_TRY(resin_apply(n->context, "multiply", in, 2, NULL, 0, &x));
    resin_status status = resin_checkpoint(n->context, &block, &x, 1, y, &count);
    if (status == RESIN_OK) {
        assert_int_equal(count, 2);
        resin_tensor *parts[] = {y[0], y[1], x};
        status = resin_apply(n->context, "concatenate", parts, 3, NULL, 0, &loss);
        if (status == RESIN_OK) status = step(n, "sum", &loss, NULL, 0, NULL, 0);
        if (status == RESIN_OK) status = resin_backward(loss, NULL, false);
        resin_release(loss);
        resin_release(y[0]);
        resin_release(y[1]);
    }
    resin_release(x);
    return status;
}

static void a_checkpoint_without_memory(void **state) {
    network n = new_network(*state);
    blocks_released = 0;
    int failures = fail_everywhere(&n, backward_through_block);
    assert_true(failures > 20);
    assert_in_range(blocks_released, failures - 10, failures + 1); /* unless x was not made */
    const float *gamma = resin_tensor_data(resin_tensor_grad(n.t[GAMMA]));
    assert_true(gamma[0] != 0);
    free_network(&n);
}

/* After the first steps a step takes nothing from the system and holds nothing more. */
static void steps_take_nothing_from_the_system(void **state) {
    network n = new_network(*state);
    resin_memory_info first = {0};
    for (int i = 0; i < 1000; i++) {
        start_again(&n);
        assert_int_equal(forward_and_backward(&n), RESIN_OK);
        if (i == 2) first = resin_memory(*state);
    }
    resin_memory_info last = resin_memory(*state);
    assert_int_equal(last.held, first.held);
    assert_int_equal(last.peak, first.peak);
    assert_int_equal(last.system_allocations, first.system_allocations);
    free_network(&n);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_context, drop_context)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(blocks_are_large_enough),
        TEST(freed_blocks_are_used_again),
        TEST(large_blocks_are_cut_and_joined),
        TEST(blocks_do_not_overlap),
        TEST(too_much_is_refused),
        TEST(another_thread_may_release),
        TEST(a_training_step_without_memory),
        TEST(a_training_step_without_memory_into_buffers),
        TEST(shared_gradients_without_memory),
        TEST(backward_can_be_tried_again),
        TEST(a_checkpoint_without_memory),
        TEST(steps_take_nothing_from_the_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
