/* test_tensor.c: contexts, tensors, views and random numbers through the public header, and what of
 * core/tensor the ops rely on. */
#include "core/base/memory.h"
#include "core/base/random.h"
#include "core/base/threads.h"
#include "core/tensor/tensor.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Every test gives everything back. */
static int drop_context(void **state) {
    size_t held = resin_memory(*state).held;
    resin_context_release(*state);
    return held == 0 ? 0 : -1;
}

static void expect(resin_context *context, resin_status got, resin_status wanted,
                   const char *part) {
    if (got != wanted)
        fail_msg("status %s (%s), expected %s", resin_status_name(got),
                 resin_error_message(context), resin_status_name(wanted));
    if (part && !strstr(resin_error_message(context), part))
        fail_msg("\"%s\" does not contain \"%s\"", resin_error_message(context), part);
}

static double at(resin_tensor *t, int64_t i, int64_t j) {
    int64_t position[2] = {i, j};
    double value;
    assert_int_equal(resin_get(t, position, &value), RESIN_OK);
    return value;
}

/* 0, 1, 2, ... in the given shape. */
static resin_tensor *counting(resin_context *context, resin_dtype dtype, int rank,
                              const int64_t *shape) {
    resin_tensor *t;
    assert_int_equal(resin_empty(context, dtype, rank, shape, &t), RESIN_OK);
    resin_tensor *flat;
    int64_t count = resin_tensor_count(t);
    assert_int_equal(resin_arange(context, dtype, 0, 1, count, &flat), RESIN_OK);
    memcpy(resin_tensor_data(t), resin_tensor_data(flat),
           (size_t)count * resin_dtype_size(dtype));
    resin_release(flat);
    return t;
}

/* ---- Creation -------------------------------------------------------------------------------- */

static void creates_every_dtype(void **state) {
    for (int d = 0; d < RESIN_DTYPE_COUNT; d++) {
        resin_tensor *t;
        resin_dtype found;
        const int64_t shape[] = {2, 3};
        assert_true(resin_dtype_from_name(resin_dtype_name(d), &found));
        assert_int_equal(found, d);
        assert_int_equal(resin_full(*state, d, 2, shape, 7, &t), RESIN_OK);
        assert_int_equal(resin_tensor_count(t), 6);
        assert_true(resin_tensor_contiguous(t));
        assert_int_equal((uintptr_t)resin_tensor_data(t) % 64, 0);
        assert_true(at(t, 1, 2) == 7);
        resin_release(t);
    }
    resin_dtype none;
    assert_false(resin_dtype_from_name("float16", &none));
}

static void refuses_shapes_that_overflow(void **state) {
    const int64_t huge[] = {INT64_MAX / 2, 3}, zero_then_huge[] = {0, INT64_MAX, INT64_MAX};
    const int64_t negative[] = {2, -1}, square[] = {(int64_t)1 << 31, (int64_t)1 << 31};
    resin_tensor *t = (resin_tensor *)1;
    expect(*state, resin_empty(*state, RESIN_UINT8, 2, huge, &t), RESIN_ERROR_SHAPE, "too large");
    assert_null(t);
    expect(*state, resin_empty(*state, RESIN_UINT8, 3, zero_then_huge, &t), RESIN_ERROR_SHAPE,
           NULL);
    expect(*state, resin_empty(*state, RESIN_FLOAT32, 2, negative, &t), RESIN_ERROR_SHAPE,
           "(2, -1)");
    expect(*state, resin_empty(*state, RESIN_FLOAT64, 2, square, &t), RESIN_ERROR_SHAPE, NULL);
    expect(*state, resin_empty(*state, RESIN_FLOAT64, 9, square, &t), RESIN_ERROR_SHAPE, "8 axes");
    expect(*state, resin_empty(*state, RESIN_FLOAT64, -1, square, &t), RESIN_ERROR_SHAPE, NULL);
    /* A shape that fits, but no memory does. */
    const int64_t wide[] = {(int64_t)1 << 55};
    expect(*state, resin_empty(*state, RESIN_FLOAT64, 1, wide, &t), RESIN_ERROR_MEMORY, NULL);
    assert_null(t);
}

static void knows_values_that_a_dtype_lacks(void **state) {
    resin_tensor *t;
    const int64_t shape[] = {1}, position[] = {0}, outside[] = {1};
    expect(*state, resin_full(*state, RESIN_UINT8, 1, shape, 256, &t), RESIN_ERROR_ARGUMENT,
           "uint8");
    expect(*state, resin_full(*state, RESIN_INT32, 1, shape, 0.5, &t), RESIN_ERROR_ARGUMENT, NULL);
    expect(*state, resin_full(*state, RESIN_INT64, 1, shape, NAN, &t), RESIN_ERROR_ARGUMENT, NULL);
    assert_int_equal(resin_full(*state, RESIN_INT64, 1, shape, 1, &t), RESIN_OK);
    int64_t big = ((int64_t)1 << 62) + 1, value;
    assert_int_equal(resin_set_int64(t, position, big), RESIN_OK);
    assert_int_equal(resin_get_int64(t, position, &value), RESIN_OK);
    assert_true(value == big);
    expect(*state, resin_set(t, outside, 1), RESIN_ERROR_ARGUMENT, "outside of shape (1)");
    resin_release(t);
}

static void scalars_and_empty_tensors(void **state) {
    resin_tensor *scalar, *empty, *copy;
    const int64_t shape[] = {3, 0, 2};
    assert_int_equal(resin_full(*state, RESIN_FLOAT64, 0, NULL, 2.5, &scalar), RESIN_OK);
    assert_int_equal(resin_tensor_count(scalar), 1);
    double value;
    assert_int_equal(resin_get(scalar, NULL, &value), RESIN_OK);
    assert_true(value == 2.5);
    assert_int_equal(resin_full(*state, RESIN_FLOAT64, 3, shape, 1, &empty), RESIN_OK);
    assert_int_equal(resin_tensor_count(empty), 0);
    assert_true(resin_tensor_contiguous(empty));
    assert_int_equal(resin_copy(empty, scalar), RESIN_OK);
    assert_int_equal(tensor_contiguous(empty, &copy), RESIN_OK);
    resin_release(copy);
    resin_release(scalar);
    resin_release(empty);
}

/* ---- Foreign memory -------------------------------------------------------------------------- */

static int given_back;
static void give_back(void *user) { given_back += *(int *)user; }

static void lies_over_a_host_buffer(void **state) {
    double data[6] = {0, 1, 2, 3, 4, 5};
    int user = 1;
    const int64_t shape[] = {2, 3}, all[] = {6}, step[] = {1};
    resin_tensor *t, *view;
    given_back = 0;
    assert_int_equal(resin_from_buffer(*state, data, RESIN_FLOAT64, 2, shape, give_back, &user, &t),
                     RESIN_OK);
    assert_ptr_equal(resin_tensor_data(t), data);
    assert_true(at(t, 1, 2) == 5);
    assert_int_equal(tensor_view(t, 1, all, step, 0, &view), RESIN_OK);
    resin_release(t);
    assert_int_equal(given_back, 0);
    assert_int_equal(resin_fill(view, 9), RESIN_OK);
    assert_true(data[4] == 9);
    resin_release(view);
    assert_int_equal(given_back, 1);

    expect(*state, resin_from_buffer(*state, (char *)data + 4, RESIN_FLOAT64, 1, step, give_back,
                                     &user, &t), RESIN_ERROR_ARGUMENT, "aligned");
    expect(*state, resin_from_buffer(*state, NULL, RESIN_FLOAT64, 1, step, give_back, &user, &t),
           RESIN_ERROR_ARGUMENT, NULL);
    assert_int_equal(given_back, 1); /* what was refused stays the caller's */
}

/* ---- Views and copies ------------------------------------------------------------------------ */

static void views_share_memory_and_version(void **state) {
    const int64_t shape[] = {3, 4}, turned[] = {4, 3}, turned_stride[] = {1, 4};
    resin_tensor *t = counting(*state, RESIN_FLOAT32, 2, shape), *view, *dense;
    assert_int_equal(tensor_view(t, 2, turned, turned_stride, 0, &view), RESIN_OK);
    assert_false(resin_tensor_contiguous(view));
    assert_true(at(view, 3, 1) == 7);
    int64_t position[] = {3, 1};
    uint64_t before = t->storage->version;
    assert_int_equal(resin_set(view, position, 70), RESIN_OK);
    assert_true(at(t, 1, 3) == 70);
    assert_true(t->storage->version > before);
    assert_int_equal(tensor_contiguous(view, &dense), RESIN_OK);
    assert_ptr_not_equal(resin_tensor_data(dense), resin_tensor_data(t));
    for (int64_t i = 0; i < 4; i++)
        for (int64_t j = 0; j < 3; j++) assert_true(at(dense, i, j) == at(t, j, i));
    resin_release(dense);
    resin_release(t);
    assert_true(at(view, 0, 2) == 8); /* the view keeps the storage */
    resin_release(view);
}

static void copies_broadcast_and_convert(void **state) {
    const int64_t shape[] = {2, 3}, row[] = {3}, column[] = {2, 1}, wrong[] = {2};
    resin_tensor *to, *from, *tall, *bad;
    assert_int_equal(resin_full(*state, RESIN_FLOAT32, 2, shape, -1, &to), RESIN_OK);
    from = counting(*state, RESIN_INT64, 1, row);
    tall = counting(*state, RESIN_UINT8, 2, column);
    assert_int_equal(resin_copy(to, from), RESIN_OK);
    assert_true(at(to, 0, 2) == 2 && at(to, 1, 0) == 0 && at(to, 1, 2) == 2);
    assert_int_equal(resin_copy(to, tall), RESIN_OK);
    assert_true(at(to, 0, 2) == 0 && at(to, 1, 0) == 1);
    assert_int_equal(resin_full(*state, RESIN_FLOAT32, 1, wrong, 0, &bad), RESIN_OK);
    expect(*state, resin_copy(to, bad), RESIN_ERROR_SHAPE, "(2)");
    expect(*state, resin_copy(bad, to), RESIN_ERROR_SHAPE, "(2, 3)");
    resin_release(bad);
    resin_release(tall);
    resin_release(from);
    resin_release(to);
}

static void converts_what_does_not_fit_to_zero(void **state) {
    const double given[] = {NAN, INFINITY, -INFINITY, 1e300, -1.9, 2.9, 255.9, 256, -1};
    const double as_int32[] = {0, 0, 0, 0, -1, 2, 255, 256, -1};
    const double as_uint8[] = {0, 0, 0, 0, 0, 2, 255, 0, 0};
    const int64_t shape[] = {COUNT(given)};
    resin_tensor *from, *to;
    assert_int_equal(resin_from_buffer(*state, (void *)given, RESIN_FLOAT64, 1, shape, NULL, NULL,
                                       &from), RESIN_OK);
    for (int d = RESIN_INT32; d < RESIN_DTYPE_COUNT; d++) {
        assert_int_equal(resin_empty(*state, d, 1, shape, &to), RESIN_OK);
        assert_int_equal(resin_copy(to, from), RESIN_OK);
        for (int64_t i = 0; i < shape[0]; i++) {
            double value;
            assert_int_equal(resin_get(to, &i, &value), RESIN_OK);
            assert_true(value == (d == RESIN_UINT8 ? as_uint8[i] : as_int32[i]));
        }
        resin_release(to);
    }
    resin_release(from);
}

static void copies_between_overlapping_views(void **state) {
    const int64_t shape[] = {5}, part[] = {4}, step[] = {1}, back[] = {-1};
    resin_tensor *t = counting(*state, RESIN_FLOAT64, 1, shape), *front, *end, *turned;
    assert_int_equal(tensor_view(t, 1, part, step, 0, &front), RESIN_OK);
    assert_int_equal(tensor_view(t, 1, part, step, 1, &end), RESIN_OK);
    assert_int_equal(resin_copy(end, front), RESIN_OK); /* 0 0 1 2 3 */
    const double moved[] = {0, 0, 1, 2, 3}, flipped[] = {3, 2, 1, 0, 0};
    assert_memory_equal(resin_tensor_data(t), moved, sizeof moved);
    assert_int_equal(tensor_view(t, 1, shape, back, 4, &turned), RESIN_OK);
    assert_int_equal(resin_copy(t, turned), RESIN_OK);
    assert_memory_equal(resin_tensor_data(t), flipped, sizeof flipped);
    resin_release(turned);
    resin_release(end);
    resin_release(front);
    resin_release(t);
}

/* Copies of odd shapes between random strides, against element by element. */
static void copies_any_strides(void **state) {
    srand(1);
    for (int round = 0; round < 200; round++) {
        int64_t shape[4], larger[4], stride[4];
        int rank = rand() % 5;
        for (int i = 0; i < rank; i++) {
            shape[i] = 1 + rand() % 4;
            larger[i] = 2 * shape[i];
        }
        resin_tensor *base = counting(*state, RESIN_INT32, rank, larger), *view, *copy;
        int64_t offset = 0;
        for (int i = 0; i < rank; i++) {
            int kind = rand() % 4; /* dense, every second, backward, repeated */
            int64_t own = base->stride[i];
            stride[i] = kind == 0 ? own : kind == 1 ? 2 * own : kind == 2 ? -own : 0;
            if (kind == 2) offset += own * (shape[i] - 1);
        }
        assert_int_equal(tensor_view(base, rank, shape, stride, offset, &view), RESIN_OK);
        assert_int_equal(resin_empty(*state, RESIN_FLOAT64, rank, shape, &copy), RESIN_OK);
        assert_int_equal(resin_copy(copy, view), RESIN_OK);
        for (int64_t i = 0; i < resin_tensor_count(copy); i++) {
            int64_t place = offset, rest = i;
            for (int a = rank - 1; a >= 0; a--) {
                place += rest % shape[a] * stride[a];
                rest /= shape[a];
            }
            assert_true(((double *)resin_tensor_data(copy))[i] == (double)place);
        }
        resin_release(copy);
        resin_release(view);
        resin_release(base);
    }
}

/* ---- Random numbers -------------------------------------------------------------------------- */

/* The vectors that come with the authors' Random123 (kat_vectors, philox4x32 10). */
static void philox_gives_the_known_answers(void **state) {
    (void)state;
    static const struct { uint64_t key, high, low; uint32_t out[4]; } known[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < COUNT(known); i++) {
        uint32_t out[4];
        resin_philox(known[i].key, known[i].high, known[i].low, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

/* Mean, deviation and range of many numbers; 5 deviations of the mean are allowed. */
static void random_numbers_have_their_moments(void **state) {
    const int64_t shape[] = {200000};
    for (int d = RESIN_FLOAT32; d <= RESIN_FLOAT64; d++) {
        for (int normal = 0; normal < 2; normal++) {
            resin_tensor *t;
            resin_seed(*state, 3);
            resin_status status = normal ? resin_normal(*state, d, 1, shape, 1, 2, &t)
                                         : resin_uniform(*state, d, 1, shape, -1, 3, &t);
            assert_int_equal(status, RESIN_OK);
            double sum = 0, squares = 0, deviation = normal ? 2 : 4 / sqrt(12);
            for (int64_t i = 0; i < shape[0]; i++) {
                double value;
                assert_int_equal(resin_get(t, &i, &value), RESIN_OK);
                if (!normal) assert_true(value >= -1 && value < 3);
                sum += value;
                squares += (value - 1) * (value - 1);
            }
            double count = (double)shape[0];
            assert_true(fabs(sum / count - 1) < 5 * deviation / sqrt(count));
            assert_true(fabs(sqrt(squares / count) - deviation) < 5 * deviation / sqrt(count));
            resin_release(t);
        }
    }
}

static void random_numbers_do_not_depend_on_threads(void **state) {
    static const int threads[] = {1, 2, 7};
    const int64_t shape[] = {30001};
    resin_tensor *first = NULL, *t;
    for (int i = 0; i < COUNT(threads); i++) {
        assert_int_equal(resin_set_threads(*state, threads[i]), RESIN_OK);
        resin_seed(*state, 5);
        assert_int_equal(resin_normal(*state, RESIN_FLOAT32, 1, shape, 0, 1, &t), RESIN_OK);
        if (!first) {
            first = t;
            continue;
        }
        assert_memory_equal(resin_tensor_data(t), resin_tensor_data(first), 30001 * sizeof(float));
        resin_release(t);
    }
    resin_release(first);
}

static void each_draw_takes_the_next_stream(void **state) {
    const int64_t shape[] = {4};
    resin_tensor *a, *b, *again;
    resin_seed(*state, 9);
    assert_int_equal(resin_uniform(*state, RESIN_FLOAT64, 1, shape, 0, 1, &a), RESIN_OK);
    resin_random_state between = resin_random_get(*state);
    assert_int_equal(between.seed, 9);
    assert_int_equal(between.stream, 1);
    assert_int_equal(resin_uniform(*state, RESIN_FLOAT64, 1, shape, 0, 1, &b), RESIN_OK);
    assert_memory_not_equal(resin_tensor_data(a), resin_tensor_data(b), 4 * sizeof(double));
    resin_random_set(*state, between);
    assert_int_equal(resin_uniform(*state, RESIN_FLOAT64, 1, shape, 0, 1, &again), RESIN_OK);
    assert_memory_equal(resin_tensor_data(again), resin_tensor_data(b), 4 * sizeof(double));
    resin_release(a);
    resin_release(b);
    resin_release(again);
}

static void permutations_hold_every_number(void **state) {
    resin_tensor *t;
    bool seen[1000] = {false};
    int moved = 0;
    assert_int_equal(resin_permutation(*state, COUNT(seen), &t), RESIN_OK);
    const int64_t *order = resin_tensor_data(t);
    for (int i = 0; i < COUNT(seen); i++) {
        assert_in_range(order[i], 0, COUNT(seen) - 1);
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
        moved += order[i] != i;
    }
    assert_true(moved > 900);
    resin_release(t);
}

/* ---- Contexts -------------------------------------------------------------------------------- */

static void tensors_outlive_their_context(void **state) {
    (void)state;
    resin_context *context = resin_context_new();
    const int64_t shape[] = {100};
    resin_tensor *t;
    assert_int_equal(resin_full(context, RESIN_FLOAT32, 1, shape, 3, &t), RESIN_OK);
    resin_context_release(context);
    assert_int_equal(resin_fill(t, 4), RESIN_OK);
    resin_release(t);
}

static void settings_are_checked(void **state) {
    expect(*state, resin_set_threads(*state, 0), RESIN_ERROR_ARGUMENT, "1 to 64");
    expect(*state, resin_set_threads(*state, 65), RESIN_ERROR_ARGUMENT, NULL);
    expect(*state, resin_set_conv_method(*state, "fast"), RESIN_ERROR_ARGUMENT, "\"fast\"");
    assert_string_equal(resin_conv_method(*state), "auto");
    assert_false(resin_cancelled(*state, false));
    resin_cancel(*state);
    assert_true(resin_cancelled(*state, true));
    assert_false(resin_cancelled(*state, false));
}

static void *use_own_context(void *argument) {
    resin_context *context = resin_context_new();
    const int64_t shape[] = {50000};
    resin_tensor *t, *copy;
    bool right = true;
    resin_seed(context, 1);
    for (int i = 0; right && i < 50; i++) {
        right = resin_uniform(context, RESIN_FLOAT32, 1, shape, 0, 1, &t) == RESIN_OK &&
                resin_empty(context, RESIN_FLOAT64, 1, shape, &copy) == RESIN_OK &&
                resin_copy(copy, t) == RESIN_OK;
        if (right) *(double *)argument += ((double *)resin_tensor_data(copy))[i];
        resin_release(t);
        resin_release(copy);
    }
    resin_context_release(context);
    return right ? argument : NULL;
}

static void contexts_live_side_by_side(void **state) {
    (void)state;
    pthread_t thread[4];
    double sum[4] = {0};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, use_own_context, &sum[i]), 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        assert_int_equal(pthread_join(thread[i], &result), 0);
        assert_non_null(result);
        assert_true(sum[i] == sum[0]);
    }
}

/* The threads of the pool do not exist in a child: it works alone, and gives the same bits. */
static void works_after_fork(void **state) {
    const int64_t shape[] = {200000};
    resin_tensor *before, *after;
    assert_int_equal(resin_set_threads(*state, 4), RESIN_OK);
    resin_seed(*state, 2);
    assert_int_equal(resin_normal(*state, RESIN_FLOAT32, 1, shape, 0, 1, &before), RESIN_OK);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        resin_seed(*state, 2);
        bool same = resin_workers(*state) == 1 &&
                    resin_normal(*state, RESIN_FLOAT32, 1, shape, 0, 1, &after) == RESIN_OK &&
                    memcmp(resin_tensor_data(before), resin_tensor_data(after),
                           200000 * sizeof(float)) == 0;
        _exit(same ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    resin_release(before);
}

/* ---- Cutting work ---------------------------------------------------------------------------- */

static void pieces_cover_everything_once(void **state) {
    (void)state;
    for (int64_t count = 1; count < 3000; count += 7) {
        int64_t pieces = resin_piece_count(count, 10), next = 0;
        assert_in_range(pieces, 1, 256);
        for (int64_t piece = 0; piece < pieces; piece++) {
            int64_t first, last;
            resin_piece_bounds(count, pieces, piece, &first, &last);
            assert_int_equal(first, next);
            assert_true(last > first);
            next = last;
        }
        assert_int_equal(next, count);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_context, drop_context)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(creates_every_dtype),
        TEST(refuses_shapes_that_overflow),
        TEST(knows_values_that_a_dtype_lacks),
        TEST(scalars_and_empty_tensors),
        TEST(lies_over_a_host_buffer),
        TEST(views_share_memory_and_version),
        TEST(copies_broadcast_and_convert),
        TEST(converts_what_does_not_fit_to_zero),
        TEST(copies_between_overlapping_views),
        TEST(copies_any_strides),
        TEST(philox_gives_the_known_answers),
        TEST(random_numbers_have_their_moments),
        TEST(random_numbers_do_not_depend_on_threads),
        TEST(each_draw_takes_the_next_stream),
        TEST(permutations_hold_every_number),
        TEST(tensors_outlive_their_context),
        TEST(settings_are_checked),
        TEST(contexts_live_side_by_side),
        TEST(works_after_fork),
        TEST(pieces_cover_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
