/* test_profile.c: what a profile holds, and the measures of the machine. */
#include "tests/c/tensors.h"

static int64_t events(resin_context *context, const resin_profile_event **event) {
    int64_t lost, count = resin_profile_events(context, event, &lost);
    assert_int_equal(lost, 0);
    return count;
}

static void assert_event(const resin_profile_event *event, const char *name, const char *pass,
                         const char *method, int64_t mark) {
    assert_string_equal(event->name, name);
    assert_string_equal(event->pass, pass);
    if (method)
        assert_string_equal(event->method, method);
    else
        assert_null(event->method);
    assert_int_equal(event->mark, mark);
    assert_true(event->seconds > 0);
}

static void nothing_is_recorded_unless_asked(void **state) {
    const resin_profile_event *event;
    resin_tensor *x = tensor_of(*state, RESIN_FLOAT32, SHAPE(4), NULL);
    resin_tensor *y = run_op(*state, "relu", INPUTS(x), NO_OPTIONS);
    assert_int_equal(events(*state, &event), 0);
    must(*state, resin_profile_start(*state, 10));
    resin_profile_stop(*state);
    resin_release(y);
    y = run_op(*state, "relu", INPUTS(x), NO_OPTIONS);
    assert_int_equal(events(*state, &event), 0);
    release_all(INPUTS(x, y));
}

/* The parts of a convolution come before it; backward has the mark of forward. */
static void a_convolution_has_its_parts(void **state) {
    resin_context *context = *state;
    const resin_profile_event *event;
    resin_tensor *x = leaf(context, RESIN_FLOAT32, SHAPE(2, 5, 6, 3), NULL);
    resin_tensor *w = leaf(context, RESIN_FLOAT32, SHAPE(1, 1, 3, 4), NULL);
    must(context, resin_profile_start(context, 100));
    assert_int_equal(resin_profile_mark(context, 7), 0);
    resin_tensor *y = run_op(context, "conv2d", INPUTS(x, w), NO_OPTIONS);
    assert_int_equal(resin_profile_mark(context, 8), 7);
    resin_tensor *sum = run_op(context, "sum", INPUTS(y), NO_OPTIONS);
    must(context, resin_backward(sum, NULL, false));
    resin_profile_stop(context);
    assert_int_equal(events(context, &event), 7);
    assert_non_null(event[0].method);
    assert_event(&event[0], "conv2d", "forward", event[0].method, 7);
    assert_event(&event[1], "conv2d", "forward", NULL, 7);
    assert_event(&event[2], "sum", "forward", NULL, 8);
    assert_event(&event[3], "sum", "backward", NULL, 8);
    assert_event(&event[4], "conv2d", "weights", event[4].method, 7);
    assert_event(&event[5], "conv2d", "data", event[5].method, 7);
    assert_event(&event[6], "conv2d", "backward", NULL, 7);
    for (int i = 0; i < 7; i++) {
        bool is_part = i == 0 || i == 4 || i == 5;
        assert_close(event[i].multiply_adds, is_part ? 2 * 5 * 6 * 3 * 4 : 0, 0);
        if (is_part) assert_close(event[i].bytes_read + event[i].bytes_written, 0, 0);
    }
    assert_true(event[1].seconds >= event[0].seconds);
    assert_true(event[6].seconds >= event[4].seconds + event[5].seconds);
    const double pixels = 2 * 5 * 6, weights = 3 * 4;
    assert_close(event[1].bytes_read, 4 * (pixels * 3 + weights), 0);
    assert_close(event[1].bytes_written, 4 * pixels * 4, 0);
    /* The gradient that sum hands back is one number, broadcast. */
    assert_close(event[6].bytes_read, 4 * (1 + pixels * 3 + weights), 0);
    assert_close(event[6].bytes_written, 4 * (pixels * 3 + weights), 0);
    release_all(INPUTS(x, w, y, sum));
}

static void views_move_nothing(void **state) {
    const resin_profile_event *event;
    const int64_t shape[] = {6};
    resin_tensor *x = leaf(*state, RESIN_FLOAT32, SHAPE(2, 3), NULL);
    must(*state, resin_profile_start(*state, 10));
    resin_tensor *y = run_op(*state, "reshape", INPUTS(x), OPTIONS(set_ints("shape", 1, shape)));
    resin_profile_stop(*state);
    assert_int_equal(events(*state, &event), 1);
    assert_close(event[0].bytes_read + event[0].bytes_written, 0, 0);
    release_all(INPUTS(x, y));
}

static void what_does_not_fit_is_counted(void **state) {
    const resin_profile_event *event;
    int64_t lost;
    resin_tensor *x = tensor_of(*state, RESIN_FLOAT32, SHAPE(3), NULL);
    must(*state, resin_profile_start(*state, 2));
    for (int i = 0; i < 5; i++) resin_release(run_op(*state, "exp", INPUTS(x), NO_OPTIONS));
    resin_profile_stop(*state);
    assert_int_equal(resin_profile_events(*state, &event, &lost), 2);
    assert_int_equal(lost, 3);
    must(*state, resin_profile_start(*state, 2)); /* a new one begins empty */
    assert_int_equal(resin_profile_events(*state, &event, &lost), 0);
    assert_int_equal(lost, 0);
    resin_profile_stop(*state);
    assert_int_equal(resin_profile_start(*state, -1), RESIN_ERROR_ARGUMENT);
    assert_int_equal(resin_profile_start(*state, INT64_MAX), RESIN_ERROR_ARGUMENT);
    resin_release(x);
}

/* A failed op is no event. */
static void errors_are_not_recorded(void **state) {
    const resin_profile_event *event;
    resin_tensor *x = tensor_of(*state, RESIN_FLOAT32, SHAPE(2, 3), NULL), *y;
    must(*state, resin_profile_start(*state, 10));
    assert_int_equal(try_op(*state, "matmul", INPUTS(x, x), NO_OPTIONS, &y), RESIN_ERROR_SHAPE);
    resin_profile_stop(*state);
    assert_int_equal(events(*state, &event), 0);
    resin_release(x);
}

/* Any machine reads faster than 0.1 GB/s and no pair of threads faster than 10 TB/s. */
static void the_machine_is_measured(void **state) {
    resin_bandwidth bandwidth;
    must(*state, resin_set_threads(*state, 2));
    size_t held = resin_memory(*state).held;
    must(*state, resin_measure_bandwidth(*state, &bandwidth));
    assert_true(bandwidth.read > 0.1 && bandwidth.read < 1e4);
    assert_true(bandwidth.copy > 0.1 && bandwidth.copy < 1e4);
    assert_int_equal(resin_memory(*state).held, held);
    double peak = resin_measure_peak(*state);
    assert_true(peak > 0.1 && peak < 1e5);
    double handover = resin_measure_handover(*state);
    assert_true(handover >= 0 && handover < 1e-2); /* 0 where the system gave no second thread time */
    must(*state, resin_set_threads(*state, 1));
    assert_true(resin_measure_handover(*state) == 0);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_context, drop_context)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_recorded_unless_asked),
        TEST(a_convolution_has_its_parts),
        TEST(views_move_nothing),
        TEST(what_does_not_fit_is_counted),
        TEST(errors_are_not_recorded),
        TEST(the_machine_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
