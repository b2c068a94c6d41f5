/* measure.c: how fast this machine multiplies and adds right now, on the context's threads. */
#include "core/base/threads.h"
#include "core/kernels/kernels.h"

#include <time.h>

/* Short pieces, so that a thread that is held up takes fewer of them. */
enum { PIECES_PER_THREAD = 32, RUNS = 8 };

typedef struct measurement {
    const peak_kernels *kernels;
    int64_t rounds;
    float result[PIECES_PER_THREAD * 64];
} measurement;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void measure_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    measurement *m = argument;
    m->result[piece] = m->kernels->multiply_add(m->rounds);
}

/* The shortest of `runs` runs of `pieces` pieces. */
static double shortest_run(resin_context *context, measurement *m, int64_t pieces, int runs) {
    double shortest = 0;
    for (int run = 0; run < runs; run++) {
        double start = seconds();
        resin_parallel(context, pieces, measure_piece, m);
        double taken = seconds() - start;
        if (run == 0 || taken < shortest) shortest = taken;
    }
    return shortest;
}

double resin_measure_peak(resin_context *context) {
    measurement m = {.kernels = &resin_kernels()->peak, .rounds = 1024};
    /* Pieces of 1 to 2 ms, so that a run takes about 50 ms. */
    while (shortest_run(context, &m, 1, 1) < 1e-3 && m.rounds < INT64_MAX / 4) m.rounds *= 2;
    int64_t pieces = (int64_t)PIECES_PER_THREAD * resin_workers(context);
    double taken = shortest_run(context, &m, pieces, RUNS);
    double operations = 2.0 * PEAK_SUMS * m.kernels->width * (double)m.rounds * (double)pieces;
    return operations / taken * 1e-9;
}
