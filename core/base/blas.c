/* blas.c: OpenBLAS through dlopen. What it must be kept from (measured on Debian 12): choosing slow
 * kernels for a processor it does not know, changing the number of OpenMP threads of the host, and
 * splitting a product differently at another number of threads. */
#include "core/base/blas.h"

#include "core/base/threads.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cblas.h's values; the header itself is not needed to build. */
enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };
enum { PARALLEL_PTHREADS = 1, PARALLEL_OPENMP = 2 };
enum { ROWS_PER_PIECE = 128 };

typedef void (*dgemm_function)(int order, int ta, int tb, int m, int n, int k, double alpha,
                               const double *a, int lda, const double *b, int ldb, double beta,
                               double *c, int ldc);
typedef void (*sgemm_function)(int order, int ta, int tb, int m, int n, int k, float alpha,
                               const float *a, int lda, const float *b, int ldb, float beta,
                               float *c, int ldc);

static struct blas_library {
    dgemm_function dgemm;
    sgemm_function sgemm;
    bool parallel_calls; /* may be called from several threads at once */
    /* Of the OpenMP that the OpenMP build of the library brings; NULL otherwise. */
    int (*omp_get_threads)(void);
    void (*omp_set_threads)(int threads);
    char description[256];
} blas;
static pthread_once_t blas_once = PTHREAD_ONCE_INIT;

/* The OpenMP build first, which Debian keeps beside the pthread build under one soname. */
#ifndef RESIN_OPENBLAS_PATHS
#define RESIN_OPENBLAS_PATHS ""
#endif
static const char *const blas_names = RESIN_OPENBLAS_PATHS ":libopenblas.so.0:libopenblas.so";

/* The core type that OpenBLAS should take this processor for, or NULL to let it decide. */
static const char *core_type(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return "SkylakeX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
#endif
    return NULL;
}

static void *open_first(void) {
    char names[1024], *rest = names;
    snprintf(names, sizeof names, "%s", blas_names);
    for (char *name; (name = strsep(&rest, ":")) != NULL;) {
        if (!*name) continue;
        void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (library) return library;
    }
    return NULL;
}

static void load_library(void) {
    snprintf(blas.description, sizeof blas.description, "none");
    /* Read once, by the library's constructor; so it is set around the load only. */
    const char *type = getenv("OPENBLAS_CORETYPE") ? NULL : core_type();
    if (type) setenv("OPENBLAS_CORETYPE", type, 1);
    void *library = open_first();
    if (type) unsetenv("OPENBLAS_CORETYPE");
    if (!library) return;
    void *dgemm = dlsym(library, "cblas_dgemm"), *sgemm = dlsym(library, "cblas_sgemm");
    if (!dgemm || !sgemm) return;
    memcpy(&blas.dgemm, &dgemm, sizeof dgemm);
    memcpy(&blas.sgemm, &sgemm, sizeof sgemm);

    int (*get_parallel)(void) = NULL;
    char *(*get_config)(void) = NULL;
    void (*set_threads)(int) = NULL;
    void *symbol = dlsym(library, "openblas_get_parallel");
    memcpy(&get_parallel, &symbol, sizeof symbol);
    symbol = dlsym(library, "openblas_get_config");
    memcpy(&get_config, &symbol, sizeof symbol);
    symbol = dlsym(library, "openblas_set_num_threads");
    memcpy(&set_threads, &symbol, sizeof symbol);
    int parallel = get_parallel ? get_parallel() : PARALLEL_PTHREADS;
    if (parallel == PARALLEL_OPENMP) {
        symbol = dlsym(library, "omp_get_max_threads"); /* found in what the library links */
        memcpy(&blas.omp_get_threads, &symbol, sizeof symbol);
        symbol = dlsym(library, "omp_set_num_threads");
        memcpy(&blas.omp_set_threads, &symbol, sizeof symbol);
    }
    blas.parallel_calls = blas.omp_get_threads && blas.omp_set_threads;
    /* The OpenMP build asks OpenMP at each call instead, see library_rows. */
    if (!blas.parallel_calls && set_threads) set_threads(1);
    snprintf(blas.description, sizeof blas.description, "%s", get_config ? get_config() : "?");
}

const char *blas_description(void) {
    pthread_once(&blas_once, load_library);
    return blas.description;
}

typedef struct product {
    bool is_double, transpose_a, transpose_b, accumulate;
    int64_t m, n, k, lda, ldb, ldc;
    const void *a, *b;
    void *c;
} product;

/* Rows first .. last - 1 of the product by OpenBLAS. */
static void library_rows(const product *p, int64_t first, int64_t last) {
    int ta = p->transpose_a ? TRANSPOSE : NO_TRANSPOSE;
    int tb = p->transpose_b ? TRANSPOSE : NO_TRANSPOSE;
    int rows = (int)(last - first), n = (int)p->n, k = (int)p->k;
    int lda = (int)p->lda, ldb = (int)p->ldb, ldc = (int)p->ldc;
    int64_t skip = p->transpose_a ? first : first * p->lda;
    /* The OpenMP build takes OpenMP's thread count of the caller, which is put back afterwards. */
    int before = blas.omp_get_threads ? blas.omp_get_threads() : 1;
    if (blas.omp_set_threads) blas.omp_set_threads(1);
    if (p->is_double)
        blas.dgemm(ROW_MAJOR, ta, tb, rows, n, k, 1.0, (const double *)p->a + skip, lda,
                   (const double *)p->b, ldb, p->accumulate, (double *)p->c + first * p->ldc, ldc);
    else
        blas.sgemm(ROW_MAJOR, ta, tb, rows, n, k, 1.0f, (const float *)p->a + skip, lda,
                   (const float *)p->b, ldb, p->accumulate, (float *)p->c + first * p->ldc, ldc);
    if (blas.omp_set_threads) blas.omp_set_threads(before);
}

#define PLAIN_ROWS(type)                                                                       \
    static void plain_rows_##type(const product *p, int64_t first, int64_t last) {             \
        const type *a = p->a, *b = p->b;                                                       \
        for (int64_t i = first; i < last; i++) {                                               \
            type *c = (type *)p->c + i * p->ldc;                                               \
            for (int64_t j = 0; j < p->n; j++) {                                               \
                type sum = p->accumulate ? c[j] : 0;                                           \
                for (int64_t l = 0; l < p->k; l++)                                             \
                    sum += a[p->transpose_a ? l * p->lda + i : i * p->lda + l] *               \
                           b[p->transpose_b ? j * p->ldb + l : l * p->ldb + j];                \
                c[j] = sum;                                                                    \
            }                                                                                  \
        }                                                                                      \
    }
PLAIN_ROWS(double)
PLAIN_ROWS(float)

static void rows_piece(void *argument, int64_t piece, int worker) {
    const product *p = argument;
    (void)worker;
    int64_t pieces = (p->m + ROWS_PER_PIECE - 1) / ROWS_PER_PIECE, first, last;
    resin_piece_bounds(p->m, pieces, piece, &first, &last);
    if (blas.dgemm)
        library_rows(p, first, last);
    else if (p->is_double)
        plain_rows_double(p, first, last);
    else
        plain_rows_float(p, first, last);
}

static resin_status product_run(resin_context *context, const product *p) {
    pthread_once(&blas_once, load_library);
    if (p->m == 0 || p->n == 0) return RESIN_OK;
    if (p->m > INT32_MAX || p->n > INT32_MAX || p->k > INT32_MAX || p->lda > INT32_MAX ||
        p->ldb > INT32_MAX || p->ldc > INT32_MAX)
        return resin_fail(context, RESIN_ERROR_SHAPE, "product: a size of %lld x %lld x %lld is "
                          "beyond OpenBLAS", (long long)p->m, (long long)p->n, (long long)p->k);
    int64_t pieces = (p->m + ROWS_PER_PIECE - 1) / ROWS_PER_PIECE;
    if (!blas.dgemm || blas.parallel_calls) {
        resin_parallel(context, pieces, rows_piece, (void *)p);
    } else {
        for (int64_t piece = 0; piece < pieces; piece++) rows_piece((void *)p, piece, 0);
    }
    return RESIN_OK;
}

resin_status blas_dgemm(resin_context *context, bool transpose_a, bool transpose_b, int64_t m,
                        int64_t n, int64_t k, const double *a, int64_t lda, const double *b,
                        int64_t ldb, double *c, int64_t ldc, bool accumulate) {
    product p = {true, transpose_a, transpose_b, accumulate, m, n, k, lda, ldb, ldc, a, b, c};
    return product_run(context, &p);
}

resin_status blas_sgemm(resin_context *context, bool transpose_a, bool transpose_b, int64_t m,
                        int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                        int64_t ldb, float *c, int64_t ldc, bool accumulate) {
    product p = {false, transpose_a, transpose_b, accumulate, m, n, k, lda, ldb, ldc, a, b, c};
    return product_run(context, &p);
}
