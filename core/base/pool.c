/* pool.c: see pool.h. The threads of a pool sleep on a condition; between the jobs of a training step,
 * which follow one another within microseconds, they look for the next job for a while before. */
#include "core/base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_WORKERS = 64, LOOKS_BETWEEN_CLOCK = 32 };
/* Longer than the pauses between jobs of a step, shorter than a time slice of the system. */
static const long look_nanoseconds = 50000;

typedef struct pool_job {
    resin_piece body;
    void *argument;
    int64_t pieces;
    int workers; /* threads with a number below take part */
} pool_job;

struct resin_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t thread[MAX_WORKERS];
    int threads;  /* started, numbered 1 .. threads; 0 is the caller */
    int sleeping; /* threads that wait for `work` */
    bool stop;

    pool_job job;
    bool open;               /* threads may still join the job */
    atomic_uint number;      /* of the job; what threads look at */
    atomic_int inside;       /* threads that have joined and not left; changed under the lock */
    atomic_int_fast64_t next; /* the first piece that nobody has claimed */
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
    while (atomic_load(&pool->inside) > 0) pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

/* ---- Jobs ----------------------------------------------------------------------------------- */

static void run_pieces(resin_pool *pool, const pool_job *job, int worker) {
    int64_t piece;
    while ((piece = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed)) < job->pieces)
        job->body(job->argument, piece, worker);
}

/* Joins the job that is open, if this thread may; false when the pool stops. */
static bool join_job(resin_pool *pool, int worker, unsigned *seen, pool_job *job, bool *joined) {
    pthread_mutex_lock(&pool->lock);
    while (!pool->stop && atomic_load(&pool->number) == *seen) {
        pool->sleeping++;
        pthread_cond_wait(&pool->work, &pool->lock);
        pool->sleeping--;
    }
    *seen = atomic_load(&pool->number);
    *job = pool->job;
    *joined = pool->open && worker < job->workers && !pool->stop;
    if (*joined) atomic_fetch_add(&pool->inside, 1);
    bool stop = pool->stop;
    pthread_mutex_unlock(&pool->lock);
    return !stop;
}

static void leave_job(resin_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    if (atomic_fetch_sub_explicit(&pool->inside, 1, memory_order_acq_rel) == 1)
        pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
}

typedef struct thread_start {
    resin_pool *pool;
    int worker;
    unsigned seen;
} thread_start;

static void *thread_main(void *argument) {
    thread_start start = *(thread_start *)argument;
    free(argument);
    bool joined;
    pool_job job;
    do {
        look_for_job(start.pool, start.seen);
        if (!join_job(start.pool, start.worker, &start.seen, &job, &joined)) return NULL;
        if (!joined) continue;
        run_pieces(start.pool, &job, start.worker);
        leave_job(start.pool);
    } while (true);
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
    pthread_mutex_lock(&pool->lock);
    pool->job = (pool_job){body, argument, pieces, workers};
    pool->open = true;
    atomic_store(&pool->next, 0);
    atomic_fetch_add_explicit(&pool->number, 1, memory_order_release);
    if (pool->sleeping > 0) pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);

    const pool_job job = {body, argument, pieces, workers};
    run_pieces(pool, &job, 0);

    /* Every piece is claimed: who has not joined by now need not. */
    pthread_mutex_lock(&pool->lock);
    pool->open = false;
    pthread_mutex_unlock(&pool->lock);
    wait_for_threads(pool);
}

/* ---- Lifetime ------------------------------------------------------------------------------- */

resin_pool *resin_pool_new(void) {
    resin_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    return pool;
}

void resin_pool_free(resin_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->threads; i++) pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void resin_pool_abandon(resin_pool *pool) { free(pool); }
