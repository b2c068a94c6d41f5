/* normalized.c: see normalized.h. */
#include "core/ops/normalized.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"

#include <string.h>

typedef struct normalized_recipe {
    tensor_recipe recipe;
    resin_tensor *x;
    int64_t rows, channels;
    float *scale, *shift; /* behind the struct */
} normalized_recipe;

typedef struct normalize_job {
    const normalized_recipe *recipe;
    float *y;
    int64_t pieces;
} normalize_job;

static void normalize_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const normalize_job *job = argument;
    const normalized_recipe *r = job->recipe;
    int64_t first, last;
    resin_piece_bounds(r->rows, job->pieces, piece, &first, &last);
    resin_kernels()->norm.of[RESIN_FLOAT32].apply(
        last - first, r->channels, (const float *)tensor_data(r->x) + first * r->channels, r->scale,
        r->shift, NULL, NORM_RELU, job->y + first * r->channels);
}

static resin_status compute(const tensor_recipe *recipe, void *data) {
    normalize_job job = {.recipe = (const normalized_recipe *)recipe, .y = data};
    job.pieces = resin_piece_count(job.recipe->rows, 4 * norm_block_rows(job.recipe->channels));
    resin_parallel(job.recipe->x->context, job.pieces, normalize_piece, &job);
    return RESIN_OK;
}

static void release(resin_context *context, tensor_recipe *recipe) {
    resin_release(((normalized_recipe *)recipe)->x);
    resin_deallocate(context, recipe);
}

resin_status normalized_new(resin_tensor *x, const float *scale, const float *shift,
                            resin_tensor **y) {
    int64_t channels = x->shape[x->rank - 1];
    size_t vector = (size_t)channels * sizeof(float);
    void *memory;
    RESIN_TRY(resin_allocate(x->context, sizeof(normalized_recipe) + 2 * vector, &memory));
    normalized_recipe *r = memory;
    *r = (normalized_recipe){.recipe = {compute, release}, .channels = channels,
                             .rows = channels ? resin_tensor_count(x) / channels : 0};
    r->scale = (float *)(r + 1);
    r->shift = r->scale + channels;
    memcpy(r->scale, scale, vector);
    memcpy(r->shift, shift, vector);
    r->x = resin_retain(x);
    resin_status status =
        tensor_new_deferred(x->context, RESIN_FLOAT32, x->rank, x->shape, &r->recipe, y);
    if (status != RESIN_OK) release(x->context, &r->recipe);
    return status;
}

bool normalized_read(const resin_tensor *y, normalized_parts *parts) {
    const tensor_recipe *recipe = y->storage->recipe;
    if (!recipe || recipe->compute != compute) return false;
    const normalized_recipe *r = (const normalized_recipe *)recipe;
    if (!tensor_same_shape(y, r->x) || !resin_tensor_contiguous(y)) return false;
    *parts = (normalized_parts){tensor_data(r->x), r->scale, r->shift};
    return true;
}
