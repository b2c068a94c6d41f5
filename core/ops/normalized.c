/* normalized.c: see normalized.h. */
#include "core/ops/normalized.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"

#include <string.h>

typedef struct normalized_recipe {
    tensor_recipe recipe;
    resin_tensor *x, *shortcut; /* the latter as it is, or NULL */
    uint64_t shortcut_version;
    int64_t rows, channels;
    bool relu;
    float *scale, *shift; /* behind the struct, */
    float *one, *zero;    /* and these, for a shortcut as it is */
} normalized_recipe;

typedef struct normalize_job {
    const normalized_recipe *recipe;
    conv_sum sum;
    float *y;
    int64_t pieces;
} normalize_job;

static resin_status compute(const tensor_recipe *recipe, void *data);

static const normalized_recipe *recipe_of(const resin_tensor *y) {
    const tensor_recipe *recipe = y->storage->recipe;
    bool is = recipe && recipe->compute == compute;
    return is ? (const normalized_recipe *)recipe : NULL;
}

static void normalize_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const normalize_job *job = argument;
    const normalized_recipe *r = job->recipe;
    int64_t first, last, place;
    resin_piece_bounds(r->rows, job->pieces, piece, &first, &last);
    place = first * r->channels;
    const float *x = (const float *)tensor_data(r->x) + place, *shortcut = job->sum.shortcut;
    if (shortcut && job->sum.scale != r->one) {
        resin_kernels()->conv.normalize_sum(last - first, r->channels, x, r->scale, r->shift,
                                            shortcut + place, job->sum.scale, job->sum.shift,
                                            job->y + place);
    } else {
        resin_kernels()->norm.of[RESIN_FLOAT32].apply(
            last - first, r->channels, x, r->scale, r->shift, shortcut ? shortcut + place : NULL,
            r->relu ? NORM_RELU : NORM_LINEAR, job->y + place);
    }
}

/* The shortcut as it lies, or what it is made of. */
static conv_sum sum_of(const normalized_recipe *r) {
    if (!r->shortcut) return (conv_sum){.shortcut = NULL};
    const normalized_recipe *made_of = recipe_of(r->shortcut);
    return (conv_sum){.shortcut = tensor_data(made_of ? made_of->x : r->shortcut),
                      .scale = made_of ? made_of->scale : r->one,
                      .shift = made_of ? made_of->shift : r->zero};
}

static bool shortcut_changed(const normalized_recipe *r) {
    return r->shortcut && r->shortcut->storage->version != r->shortcut_version;
}

static resin_status compute(const tensor_recipe *recipe, void *data) {
    const normalized_recipe *r = (const normalized_recipe *)recipe;
    if (shortcut_changed(r))
        return resin_fail(r->x->context, RESIN_ERROR_GRAPH,
                          "conv_bn_act: the shortcut of a deferred result was changed in place "
                          "before the result was read");
    normalize_job job = {.recipe = r, .y = data, .sum = sum_of(r)};
    job.pieces = resin_piece_count(r->rows, 4 * norm_block_rows(r->channels));
    resin_parallel(r->x->context, job.pieces, normalize_piece, &job);
    return RESIN_OK;
}

static void release(resin_context *context, tensor_recipe *recipe) {
    resin_release(((normalized_recipe *)recipe)->x);
    resin_release(((normalized_recipe *)recipe)->shortcut);
    resin_deallocate(context, recipe);
}

/* A shortcut that need not be computed is linear and has none itself, and the kernel that scales it
 * takes whole vectors. */
static resin_status hold_shortcut(normalized_recipe *r, resin_tensor *shortcut) {
    if (!shortcut) return RESIN_OK;
    const normalized_recipe *made_of = recipe_of(shortcut);
    bool read = made_of && !made_of->relu && r->channels % resin_kernels()->conv.vector == 0 &&
                tensor_same_shape(shortcut, made_of->x) && resin_tensor_contiguous(shortcut);
    if (!read) RESIN_TRY(tensor_compute(shortcut));
    RESIN_TRY(tensor_contiguous(shortcut, &r->shortcut));
    r->shortcut_version = r->shortcut->storage->version;
    return RESIN_OK;
}

resin_status normalized_new(resin_tensor *x, const float *scale, const float *shift, bool relu,
                            resin_tensor *shortcut, resin_tensor **y) {
    int64_t channels = x->shape[x->rank - 1];
    size_t vector = (size_t)channels * sizeof(float);
    void *memory;
    size_t vectors = shortcut ? 4 : 2;
    RESIN_TRY(resin_allocate(x->context, sizeof(normalized_recipe) + vectors * vector, &memory));
    normalized_recipe *r = memory;
    *r = (normalized_recipe){.recipe = {compute, release}, .channels = channels, .relu = relu,
                             .rows = channels ? resin_tensor_count(x) / channels : 0};
    r->scale = (float *)(r + 1);
    r->shift = r->scale + channels;
    memcpy(r->scale, scale, vector);
    memcpy(r->shift, shift, vector);
    r->one = r->shift + channels;
    r->zero = r->one + channels;
    for (int64_t c = 0; shortcut && c < channels; c++) r->one[c] = 1, r->zero[c] = 0;
    r->x = resin_retain(x);
    resin_status status = hold_shortcut(r, shortcut);
    if (status == RESIN_OK)
        status = tensor_new_deferred(x->context, RESIN_FLOAT32, x->rank, x->shape, &r->recipe, y);
    if (status != RESIN_OK) release(x->context, &r->recipe);
    return status;
}

bool normalized_read(const resin_tensor *y, normalized_parts *parts) {
    return normalized_read_sum(y, parts) && !parts->sum.shortcut;
}

bool normalized_read_sum(const resin_tensor *y, normalized_parts *parts) {
    const normalized_recipe *r = recipe_of(y);
    if (!r || !r->relu || shortcut_changed(r)) return false;
    if (!tensor_same_shape(y, r->x) || !resin_tensor_contiguous(y)) return false;
    *parts = (normalized_parts){tensor_data(r->x), r->scale, r->shift, sum_of(r)};
    return true;
}
