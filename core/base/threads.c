/* threads.c: how work is handed out, and how many threads there may be. */
#include "core/base/threads.h"

#include "core/base/pool.h"

#include <sched.h>
#include <stdio.h>
#include <unistd.h>

int resin_workers(const resin_context *context) {
    /* Threads do not survive a fork. */
    return (int)getpid() == context->process ? context->threads : 1;
}

void resin_parallel(resin_context *context, int64_t pieces, resin_piece body, void *argument) {
    int workers = resin_workers(context);
    if (pieces < workers) workers = (int)pieces;
    if (workers <= 1) {
        for (int64_t piece = 0; piece < pieces; piece++) body(argument, piece, 0);
        return;
    }
    resin_pool_run(context->pool, workers, pieces, body, argument);
}

int64_t resin_piece_count(int64_t count, int64_t grain) {
    /* At most 256 pieces: four for each of 64 threads. */
    int64_t pieces = count / (grain > 0 ? grain : 1);
    return pieces < 1 ? 1 : pieces > 256 ? 256 : pieces;
}

void resin_piece_bounds(int64_t count, int64_t pieces, int64_t piece, int64_t *first,
                        int64_t *last) {
    int64_t base = count / pieces, rest = count % pieces;
    *first = piece * base + piece * rest / pieces;
    *last = (piece + 1) * base + (piece + 1) * rest / pieces;
}

/* Processors that the container's quota is worth (cgroup v2, then v1), or 0 if there is none. */
static int quota_processors(void) {
    long long quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (file) {
        if (fscanf(file, "%lld %lld", &quota, &period) != 2) quota = 0; /* "max": no limit */
        fclose(file);
    } else {
        file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r");
        if (file) {
            if (fscanf(file, "%lld", &quota) != 1) quota = 0;
            fclose(file);
        }
        file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r");
        if (file) {
            if (fscanf(file, "%lld", &period) != 1) period = 0;
            fclose(file);
        }
    }
    if (quota <= 0 || period <= 0) return 0;
    return (int)((quota + period - 1) / period);
}

int resin_available_processors(void) {
    int processors = (int)sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) processors = CPU_COUNT(&set);
#endif
    int quota = quota_processors();
    if (quota > 0 && quota < processors) processors = quota;
    return processors > 0 ? processors : 1;
}
