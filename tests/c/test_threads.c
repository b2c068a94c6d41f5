/* test_threads.c: pieces of jobs on a context's threads (core/base/pool.c): each runs once, before
 * the job ends, on a worker of its own, however fast jobs follow one another and however long the
 * threads have slept. `make build/tests/test_threads SANITIZE=thread BUILD=DIR` looks for races. */
#include "core/base/threads.h"
#include "tests/c/tensors.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { MOST_PIECES = 40, MOST_THREADS = 7 };

typedef struct counted_job {
    int64_t runs[MOST_PIECES];          /* of each piece; not atomic: a race is an error */
    atomic_int busy[MOST_THREADS];      /* workers */
    int workers;
    atomic_bool wrong;
} counted_job;

static void counted_piece(void *argument, int64_t piece, int worker) {
    counted_job *job = argument;
    if (worker < 0 || worker >= job->workers) {
        atomic_store(&job->wrong, true);
        return;
    }
    if (atomic_fetch_add(&job->busy[worker], 1) != 0) atomic_store(&job->wrong, true);
    job->runs[piece]++;
    atomic_fetch_sub(&job->busy[worker], 1);
}

/* Whether a job ran as it should. Without assertions, which only the test's own thread may make. */
static bool runs(resin_context *context, counted_job *job, int64_t pieces) {
    memset(job->runs, 0, sizeof job->runs);
    job->workers = resin_workers(context);
    resin_parallel(context, pieces, counted_piece, job);
    bool right = !atomic_load(&job->wrong);
    for (int64_t i = 0; i < MOST_PIECES; i++) right = right && job->runs[i] == (i < pieces);
    return right;
}

static void pause_nanoseconds(long nanoseconds) {
    const struct timespec pause = {0, nanoseconds};
    nanosleep(&pause, NULL);
}

/* Jobs of all sizes one right after the other, with and without time to fall asleep between. */
static bool all_run(int jobs) {
    static const int threads[] = {1, 2, 3, MOST_THREADS, 2};
    resin_context *context = resin_context_new();
    counted_job job = {.workers = 0};
    bool right = context != NULL;
    for (size_t t = 0; right && t < sizeof threads / sizeof *threads; t++) {
        right = resin_set_threads(context, threads[t]) == RESIN_OK;
        for (int i = 0; right && i < jobs; i++) {
            right = runs(context, &job, i % (MOST_PIECES + 1));
            if (i % 50 == 0) pause_nanoseconds(i % 100 == 0 ? 200000 : 60000);
        }
    }
    resin_context_release(context);
    return right;
}

static void test_jobs(void **state) {
    (void)state;
    assert_true(all_run(2000));
}

static void *run_jobs(void *argument) {
    *(bool *)argument = all_run(300);
    return NULL;
}

/* Contexts of several threads of a host, more than there are processors. */
static void test_contexts(void **state) {
    (void)state;
    pthread_t host[4];
    bool right[4] = {false};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&host[i], NULL, run_jobs, &right[i]), 0);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_join(host[i], NULL), 0);
    for (int i = 0; i < 4; i++) assert_true(right[i]);
}

/* Pools that end while their threads look for a job, sleep, or have just been started. */
static void test_ends(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        resin_context *context = resin_context_new();
        counted_job job = {.workers = 0};
        assert_non_null(context);
        assert_int_equal(resin_set_threads(context, 1 + i % MOST_THREADS), RESIN_OK);
        if (i % 3 != 0) assert_true(runs(context, &job, MOST_PIECES));
        if (i % 2 == 0) pause_nanoseconds(100000);
        resin_context_release(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_jobs), cmocka_unit_test(test_contexts),
                                       cmocka_unit_test(test_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
