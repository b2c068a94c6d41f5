/* measure.c: how fast this machine multiplies and adds, reads and writes memory, and passes a line
 * of the cache from thread to thread, right now, on the context's threads. */
#include "core/base/profile.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* Short pieces, so that a thread that is held up takes fewer of them. */
enum { PIECES_PER_THREAD = 32, RUNS = 8 };

/* The shortest of `runs` runs of `pieces` pieces. */
static double shortest_run(resin_context *context, resin_piece body, void *argument, int64_t pieces,
                           int runs) {
    double shortest = 0;
    for (int run = 0; run < runs; run++) {
        double start = resin_seconds();
        resin_parallel(context, pieces, body, argument);
        double taken = resin_seconds() - start;
        if (run == 0 || taken < shortest) shortest = taken;
    }
    return shortest;
}

/* ---- Arithmetic ------------------------------------------------------------------------------ */

typedef struct peak_job {
    const peak_kernels *kernels;
    int64_t rounds;
    float result[PIECES_PER_THREAD * 64];
} peak_job;

static void peak_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    peak_job *job = argument;
    job->result[piece] = job->kernels->multiply_add(job->rounds);
}

double resin_measure_peak(resin_context *context) {
    peak_job job = {.kernels = &resin_kernels()->peak, .rounds = 1024};
    /* Pieces of 1 to 2 ms, so that a run takes about 50 ms. */
    while (shortest_run(context, peak_piece, &job, 1, 1) < 1e-3 && job.rounds < INT64_MAX / 4)
        job.rounds *= 2;
    int64_t pieces = (int64_t)PIECES_PER_THREAD * resin_workers(context);
    double taken = shortest_run(context, peak_piece, &job, pieces, RUNS);
    double operations = 2.0 * PEAK_SUMS * job.kernels->width * (double)job.rounds * (double)pieces;
    return operations / taken * 1e-9;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

enum { PIECE_FLOATS = 1 << 16, MEGABYTE = 1 << 20 };

typedef struct memory_job {
    const peak_kernels *kernels;
    float *from, *to;
    float factor;
    float result[1024]; /* by piece: 256 MB in pieces of 256 kB */
} memory_job;

static void read_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    memory_job *job = argument;
    job->result[piece] = job->kernels->read(PIECE_FLOATS, job->from + piece * PIECE_FLOATS);
}

static void copy_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const memory_job *job = argument;
    job->kernels->copy(PIECE_FLOATS, job->factor, job->from + piece * PIECE_FLOATS,
                       job->to + piece * PIECE_FLOATS);
}

/* Also brings the pages into being, by the threads that will use them. */
static void fill_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const memory_job *job = argument;
    for (int64_t i = piece * PIECE_FLOATS; i < (piece + 1) * PIECE_FLOATS; i++)
        job->from[i] = job->to[i] = 1;
}

/* Much more than what the caches hold; a virtual machine may report those of its whole host. */
static int64_t memory_pieces(void) {
    long cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    int64_t megabytes = (cache > 0 ? 4 * (int64_t)cache : 0) / MEGABYTE;
    megabytes = megabytes < 64 ? 64 : megabytes > 256 ? 256 : megabytes;
    return megabytes * MEGABYTE / (PIECE_FLOATS * (int64_t)sizeof(float));
}

resin_status resin_measure_bandwidth(resin_context *context, resin_bandwidth *bandwidth) {
    memory_job job = {.kernels = &resin_kernels()->peak, .factor = 1};
    int64_t pieces = memory_pieces();
    size_t bytes = (size_t)pieces * PIECE_FLOATS * sizeof(float);
    /* Not from the arena, which would keep it. */
    void *memory;
    if (posix_memalign(&memory, 4096, 2 * bytes) != 0)
        return resin_fail(context, RESIN_ERROR_MEMORY,
                          "memory_bandwidth: out of memory for two buffers of %zu MB",
                          bytes / MEGABYTE);
    job.from = memory;
    job.to = job.from + pieces * PIECE_FLOATS;
    resin_parallel(context, pieces, fill_piece, &job);
    bandwidth->read = 1e-9 * (double)bytes /
                      shortest_run(context, read_piece, &job, pieces, RUNS);
    bandwidth->copy = 2e-9 * (double)bytes /
                      shortest_run(context, copy_piece, &job, pieces, RUNS);
    free(memory);
    return RESIN_OK;
}

/* ---- From thread to thread ------------------------------------------------------------------- */

enum { ROUNDS = 2000, LINE_BYTES = 64 };
static const double give_up = 5e-3; /* seconds without an answer: the other thread did not come */

/* Even numbers are the first piece's turn, odd ones the second's. */
typedef struct handover_job {
    alignas(LINE_BYTES) atomic_int turn;
    alignas(LINE_BYTES) double taken;
} handover_job;

static bool wait_for_turn(handover_job *job, int turn) {
    enum { LOOKS = 10000 };
    double start = resin_seconds();
    do {
        for (int i = 0; i < LOOKS; i++)
            if (atomic_load_explicit(&job->turn, memory_order_acquire) == turn) return true;
    } while (resin_seconds() - start < give_up);
    return false;
}

static void handover_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    handover_job *job = argument;
    double start = 0;
    for (int round = 0; round < ROUNDS; round++) {
        if (!wait_for_turn(job, 2 * round + (int)piece)) return;
        if (round == 1) start = resin_seconds(); /* both are there */
        atomic_store_explicit(&job->turn, 2 * round + (int)piece + 1, memory_order_release);
    }
    if (piece == 1) job->taken = (resin_seconds() - start) / (ROUNDS - 1);
}

double resin_measure_handover(resin_context *context) {
    double shortest = 0;
    for (int run = 0; run < RUNS && resin_workers(context) > 1; run++) {
        handover_job job = {0};
        resin_parallel(context, 2, handover_piece, &job);
        if (job.taken > 0 && (shortest == 0 || job.taken < shortest)) shortest = job.taken;
    }
    return shortest;
}
