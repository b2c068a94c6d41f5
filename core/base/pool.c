/* pool.c: see pool.h. The threads of a pool sleep on a condition; between the jobs of a training
 * step, which follow one another within microseconds, they look for the next job for a while before.
 * Only who sleeps or wakes a sleeper takes the lock: a thread that leaves one job must not hold up
 * the next.
 *
 * Each worker has a share of a job's pieces, neighbours that it claims in their order, so that what
 * lies in its processor's caches serves its next piece, and the pieces at the same place of the
 * next job: between processors that share no cache every line costs. Whoever is through with its
 * own share claims from the others'.
 *
 * A job is open from when it is told until its pieces are all claimed. A thread first counts itself
 * inside, then looks whether a job is open, and only then reads it; the caller first closes the
 * job, then waits until nobody is inside. So no thread reads a job while the next one is written.
 * (All of these are in one order for everybody: the default of atomic operations.) */
#include "core/base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_WORKERS = 64, LOOKS_BETWEEN_CLOCK = 32, LINE = 64 };
/* Longer than the pauses between jobs of a step, shorter than a time slice of the system. */
static const long look_nanoseconds = 50000;

typedef struct pool_job {
    resin_piece body;
    void *argument;
    int64_t pieces;
    int workers; /* threads with a number below take part, each with a share */
} pool_job;

/* The first piece of a share that nobody has claimed. */
typedef struct pool_share {
    alignas(LINE) atomic_int_fast64_t next;
} pool_share;

struct resin_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t thread[MAX_WORKERS];
    int threads;                /* started, numbered 1 .. threads; 0 is the caller */
    atomic_int sleeping;        /* threads that wait for `work` */
    atomic_bool caller_sleeps;  /* the caller waits for `done` */
    atomic_bool stop;

    pool_job job;
    atomic_bool open;
    /* What threads look at, what the caller looks at, and what they claim: each on a cache line of
     * its own. */
    alignas(LINE) atomic_uint number; /* of jobs that were told */
    alignas(LINE) atomic_int inside;
    pool_share share[MAX_WORKERS];
};

/* ---- Waiting -------------------------------------------------------------------------------- */

static long long now_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Looks for a job other than `seen` for a while; whether there is one. */
static bool look_for_job(resin_pool *pool, unsigned seen) {
    long long end = now_nanoseconds() + look_nanoseconds;
    do {
        for (int i = 0; i < LOOKS_BETWEEN_CLOCK; i++) {
            if (atomic_load_explicit(&pool->number, memory_order_acquire) != seen) return true;
            relax();
        }
    } while (now_nanoseconds() < end);
    return false;
}

/* Waits until nobody is inside the job. */
static void wait_for_threads(resin_pool *pool) {
    long long end = now_nanoseconds() + look_nanoseconds;
    do {
        for (int i = 0; i < LOOKS_BETWEEN_CLOCK; i++) {
            if (atomic_load_explicit(&pool->inside, memory_order_acquire) == 0) return;
            relax();
        }
    } while (now_nanoseconds() < end);
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->inside) > 0) pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

/* Sleeps until there is a job other than `seen`. */
static void sleep_until_job(resin_pool *pool, unsigned seen) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleeping, 1);
    while (atomic_load(&pool->number) == seen) pthread_cond_wait(&pool->work, &pool->lock);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void wake(resin_pool *pool, pthread_cond_t *condition) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(condition);
    pthread_mutex_unlock(&pool->lock);
}

/* Tells the threads that there is something new. */
static void tell(resin_pool *pool) {
    atomic_fetch_add(&pool->number, 1);
    if (atomic_load(&pool->sleeping) > 0) wake(pool, &pool->work);
}

/* ---- Jobs ----------------------------------------------------------------------------------- */

static void offer_share(resin_pool *pool, const pool_job *job, int share) {
    int64_t first, last;
    resin_piece_bounds(job->pieces, job->workers, share, &first, &last);
    atomic_store_explicit(&pool->share[share].next, first, memory_order_relaxed);
}

static void run_share(resin_pool *pool, const pool_job *job, int share, int worker) {
    int64_t piece, first, last;
    resin_piece_bounds(job->pieces, job->workers, share, &first, &last);
    atomic_int_fast64_t *next = &pool->share[share].next;
    while ((piece = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < last)
        job->body(job->argument, piece, worker);
}

static void run_pieces(resin_pool *pool, const pool_job *job, int worker) {
    for (int i = 0; i < job->workers; i++)
        run_share(pool, job, (worker + i) % job->workers, worker);
}

static void leave_job(resin_pool *pool) {
    if (atomic_fetch_sub(&pool->inside, 1) == 1 && atomic_load(&pool->caller_sleeps))
        wake(pool, &pool->done);
}

/* Joins the job that is open, if there still is one and this thread may. */
static bool join_job(resin_pool *pool, int worker, pool_job *job) {
    atomic_fetch_add(&pool->inside, 1);
    if (atomic_load(&pool->open)) {
        *job = pool->job;
        if (worker < job->workers) return true;
    }
    leave_job(pool);
    return false;
}

typedef struct thread_start {
    resin_pool *pool;
    int worker;
    unsigned seen;
} thread_start;

static void *thread_main(void *argument) {
    thread_start start = *(thread_start *)argument;
    free(argument);
    pool_job job;
    while (true) {
        if (!look_for_job(start.pool, start.seen)) sleep_until_job(start.pool, start.seen);
        start.seen = atomic_load(&start.pool->number);
        if (atomic_load(&start.pool->stop)) return NULL;
        if (!join_job(start.pool, start.worker, &job)) continue;
        run_pieces(start.pool, &job, start.worker);
        leave_job(start.pool);
    }
}

/* Starts threads up to `workers`; where the system has no more, those there are do the work. Signals
 * are the host's affair: its own threads handle them. */
static void start_threads(resin_pool *pool, int workers) {
    sigset_t all, before;
    if (pool->threads >= workers - 1) return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->threads < workers - 1) {
        thread_start *start = malloc(sizeof *start);
        if (!start) break;
        *start = (thread_start){pool, pool->threads + 1, atomic_load(&pool->number)};
        if (pthread_create(&pool->thread[pool->threads], NULL, thread_main, start) != 0) {
            free(start);
            break;
        }
        pool->threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void resin_pool_run(resin_pool *pool, int workers, int64_t pieces, resin_piece body,
                    void *argument) {
    if (workers > MAX_WORKERS) workers = MAX_WORKERS;
    start_threads(pool, workers);
    const pool_job job = {body, argument, pieces, workers};
    pool->job = job;
    for (int i = 0; i < workers; i++) offer_share(pool, &job, i);
    atomic_store(&pool->open, true);
    tell(pool);
    run_pieces(pool, &job, 0);
    /* Every piece is claimed: who has not joined by now need not. */
    atomic_store(&pool->open, false);
    wait_for_threads(pool);
}

/* ---- Lifetime ------------------------------------------------------------------------------- */

resin_pool *resin_pool_new(void) {
    resin_pool *pool = aligned_alloc(alignof(resin_pool), sizeof *pool);
    if (!pool) return NULL;
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    return pool;
}

void resin_pool_free(resin_pool *pool) {
    atomic_store(&pool->stop, true);
    tell(pool);
    for (int i = 0; i < pool->threads; i++) pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void resin_pool_abandon(resin_pool *pool) { free(pool); }
