/* batch_norm.c: batch normalization over the last axis (see batch_norm.h).
 *
 * Statistics are summed over blocks of rows by mean and M2 and merged in a fixed order, pieces of
 * the rows in parallel, so they neither cancel (as E[x^2] - E[x]^2 does) nor depend on threads.
 * Backward, with g the gradient before the activation, n rows and d = x - mean:
 *
 *   dbeta = sum g,  dgamma = sum(g d) / deviation
 *   dx = gamma / deviation (g - sum g / n - d sum(g d) / (n deviation^2))    in training
 *   dx = gamma / deviation g                                                 in inference */
#include "core/ops/batch_norm.h"

#include "core/base/memory.h"
#include "core/base/threads.h"
#include "core/kernels/kernels.h"
#include "core/ops/families.h"
#include "core/ops/normalized.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { GAMMA, BETA, MEAN, VARIANCE, SHORTCUT = BATCH_NORM_SHORTCUT };
enum { STATISTICS = 4 };

/* ---- Reading a call -------------------------------------------------------------------------- */

resin_status batch_norm_start(op_call *call, int first, resin_dtype dtype, int rank,
                              const int64_t *shape, batch_norm *norm) {
    const char *activation = op_string(call, "activation");
    *norm = (batch_norm){.call = call, .first = first, .dtype = dtype, .rows = 1,
                         .training = op_bool(call, "training"),
                         .loops = &resin_kernels()->norm.of[dtype]};
    if (rank < 1)
        return op_fail(call, RESIN_ERROR_SHAPE, "expected at least one axis, got a scalar");
    for (int i = 0; i < rank - 1; i++) norm->rows *= shape[i];
    norm->channels = shape[rank - 1];
    if (strcmp(activation, "relu") == 0) norm->activation = NORM_RELU;
    else if (strcmp(activation, "linear") != 0)
        return op_fail(call, RESIN_ERROR_ARGUMENT,
                       "activation must be \"linear\" or \"relu\", got \"%s\"", activation);
    return RESIN_OK;
}

static resin_tensor *input(const batch_norm *norm, int which) {
    return norm->call->in[norm->first + which];
}

static bool wants(const batch_norm *norm, int which) {
    return norm->call->wants_grad[norm->first + which];
}

static resin_status check_vector(const batch_norm *norm, int which, const char *name, int rank,
                                 const int64_t *shape) {
    const resin_tensor *vector = input(norm, which);
    char vector_text[SHAPE_TEXT], text[SHAPE_TEXT];
    if (!vector) return RESIN_OK;
    if (vector->rank != 1 || vector->shape[0] != norm->channels)
        return op_fail(norm->call, RESIN_ERROR_SHAPE,
                       "%s %s does not fit x %s: expected (%" PRId64 ")", name,
                       shape_format(vector->rank, vector->shape, vector_text),
                       shape_format(rank, shape, text), norm->channels);
    if (vector->dtype != norm->dtype)
        return op_fail(norm->call, RESIN_ERROR_ARGUMENT, "%s is %s, but x is %s", name,
                       resin_dtype_name(vector->dtype), resin_dtype_name(norm->dtype));
    return RESIN_OK;
}

static resin_status check_shortcut(const batch_norm *norm, int rank, const int64_t *shape) {
    const resin_tensor *shortcut = input(norm, SHORTCUT);
    char shortcut_text[SHAPE_TEXT], text[SHAPE_TEXT];
    if (!shortcut) return RESIN_OK;
    if (shortcut->rank != rank ||
        memcmp(shortcut->shape, shape, (size_t)rank * sizeof *shape) != 0)
        return op_fail(norm->call, RESIN_ERROR_SHAPE, "shortcut %s differs from %s",
                       shape_format(shortcut->rank, shortcut->shape, shortcut_text),
                       shape_format(rank, shape, text));
    if (shortcut->dtype != norm->dtype)
        return op_fail(norm->call, RESIN_ERROR_ARGUMENT, "shortcut is %s, but x is %s",
                       resin_dtype_name(shortcut->dtype), resin_dtype_name(norm->dtype));
    return RESIN_OK;
}

resin_status batch_norm_check(const batch_norm *norm, int rank, const int64_t *shape) {
    static const char *const name[] = {"gamma", "beta", "mean", "variance"};
    char text[SHAPE_TEXT];
    for (int which = GAMMA; which <= VARIANCE; which++)
        RESIN_TRY(check_vector(norm, which, name[which], rank, shape));
    RESIN_TRY(check_shortcut(norm, rank, shape));
    if (wants(norm, MEAN) || wants(norm, VARIANCE))
        return op_fail(norm->call, RESIN_ERROR_ARGUMENT,
                       "the running mean and variance have no gradient");
    if (!(op_number(norm->call, "epsilon") >= 0))
        return op_fail(norm->call, RESIN_ERROR_ARGUMENT, "epsilon must not be negative, got %g",
                       op_number(norm->call, "epsilon"));
    if (norm->training && norm->rows < 2)
        return op_fail(norm->call, RESIN_ERROR_SHAPE,
                       "training needs more than one value per channel, got %s",
                       shape_format(rank, shape, text));
    return RESIN_OK;
}

/* ---- Vectors of channels --------------------------------------------------------------------- */

static double vector_get(const resin_tensor *vector, int64_t c) {
    int64_t at = c * vector->stride[0];
    return vector->dtype == RESIN_FLOAT64 ? ((const double *)tensor_data(vector))[at]
                                          : (double)((const float *)tensor_data(vector))[at];
}

static void vector_set(resin_tensor *vector, int64_t c, double value) {
    int64_t at = c * vector->stride[0];
    if (vector->dtype == RESIN_FLOAT64) ((double *)tensor_data(vector))[at] = value;
    else ((float *)tensor_data(vector))[at] = (float)value;
}

static void real_set(const batch_norm *norm, void *values, int64_t c, double value) {
    if (norm->dtype == RESIN_FLOAT64) ((double *)values)[c] = value;
    else ((float *)values)[c] = (float)value;
}

/* ---- A pass over the rows, in pieces --------------------------------------------------------- */

static int64_t piece_count(const batch_norm *norm) {
    return resin_piece_count(norm->rows, 4 * norm_block_rows(norm->channels));
}

static const char *row_of(const batch_norm *norm, const char *base, int64_t row) {
    if (!base) return NULL;
    return base + (size_t)(row * norm->channels) * resin_dtype_size(norm->dtype);
}

static char *row_to(const batch_norm *norm, char *base, int64_t row) {
    return (char *)row_of(norm, base, row);
}

/* Memory for the sums and counts of all pieces, the workers' scratch, and `vectors` rows of
 * channels; sums and counts are 0. */
static resin_status pass_allocate(norm_pass *pass, int64_t pieces, int vectors, void **block,
                                  char **vector) {
    const batch_norm *norm = pass->norm;
    resin_context *context = norm->call->context;
    size_t row = (size_t)norm->channels * sizeof(double);
    size_t workers = (size_t)resin_workers(context), lines;
    size_t counts = (size_t)pieces * sizeof(double);
    pass->pieces = pieces;
    lines = 2 * (size_t)pieces + 1 + 3 * workers + (size_t)vectors;
    RESIN_TRY(resin_allocate(context, lines * row + counts, block));
    pass->sums = *block;
    memset(pass->sums, 0, (2 * (size_t)pieces + 1) * row);
    pass->scratch = (char *)*block + (2 * (size_t)pieces + 1) * row;
    *vector = pass->scratch + 3 * workers * row;
    pass->counts = (double *)(*vector + (size_t)vectors * row);
    memset(pass->counts, 0, counts);
    return RESIN_OK;
}

/* ---- Statistics ------------------------------------------------------------------------------ */

/* Merges rows [first, last) into a piece's mean and M2. */
static void add_statistics(const norm_pass *pass, int64_t piece, int64_t first, int64_t last,
                           int worker) {
    const batch_norm *norm = pass->norm;
    int64_t channels = norm->channels, block = norm_block_rows(channels);
    double *mean = pass->sums + 2 * piece * channels, *m2 = mean + channels;
    char *center = pass->scratch + 3 * (size_t)(worker * channels) * sizeof(double);
    char *rest = center + (size_t)channels * sizeof(double);
    char *block_m2 = rest + (size_t)channels * sizeof(double);
    for (int64_t row = first; row < last; row += block) {
        int64_t rows = last - row < block ? last - row : block;
        norm->loops->block_statistics(rows, channels, row_of(norm, pass->x, row), center, rest,
                                      block_m2);
        norm->loops->merge_statistics(channels, pass->counts[piece], mean, m2, (double)rows,
                                      center, rest, block_m2);
        pass->counts[piece] += (double)rows;
    }
}

static void statistics_piece(void *argument, int64_t piece, int worker) {
    const norm_pass *pass = argument;
    int64_t first, last;
    resin_piece_bounds(pass->norm->rows, pass->pieces, piece, &first, &last);
    add_statistics(pass, piece, first, last, worker);
}

/* Mean and M2 of every channel of x: the first piece's sums, with the others merged in order. */
static void merge_pieces(const norm_pass *pass) {
    const norm_loops *merge = &resin_kernels()->norm.of[RESIN_FLOAT64];
    int64_t channels = pass->norm->channels;
    const double *zeros = pass->sums + 2 * pass->pieces * channels;
    double count = pass->counts[0];
    for (int64_t piece = 1; piece < pass->pieces; piece++) {
        const double *mean = pass->sums + 2 * piece * channels;
        merge->merge_statistics(channels, count, pass->sums, pass->sums + channels,
                                pass->counts[piece], mean, zeros, mean + channels);
        count += pass->counts[piece];
    }
}

static resin_status begin_statistics(conv_watch *watch, float *result, int64_t channels,
                                     int64_t pieces) {
    norm_watch *w = (norm_watch *)watch;
    char *unused;
    w->norm.channels = channels;
    w->pass = (norm_pass){.norm = &w->norm, .x = (const char *)result};
    return pass_allocate(&w->pass, pieces, 0, &w->block, &unused);
}

static void watch_statistics(const conv_watch *watch, int64_t piece, int64_t first, int64_t count,
                             int worker) {
    add_statistics(&((const norm_watch *)watch)->pass, piece, first, first + count, worker);
}

norm_watch batch_norm_watch_statistics(op_call *call) {
    return (norm_watch){.watch = {.begin = begin_statistics, .pixels = watch_statistics},
                        .norm = {.call = call, .dtype = RESIN_FLOAT32,
                                 .loops = &resin_kernels()->norm.of[RESIN_FLOAT32]}};
}

/* running = (1 - momentum) running + momentum new */
static void update_running(const batch_norm *norm, const double *mean, const double *m2) {
    double momentum = op_number(norm->call, "momentum");
    double count = (double)norm->rows - (op_bool(norm->call, "unbiased") ? 1 : 0);
    resin_tensor *running_mean = input(norm, MEAN), *running_variance = input(norm, VARIANCE);
    for (int64_t c = 0; c < norm->channels; c++) {
        vector_set(running_mean, c,
                   (1 - momentum) * vector_get(running_mean, c) + momentum * mean[c]);
        vector_set(running_variance, c, (1 - momentum) * vector_get(running_variance, c) +
                                            momentum * (m2[c] / count));
    }
    resin_tensor_touch(running_mean);
    resin_tensor_touch(running_variance);
}

/* statistics: float64 (STATISTICS, channels): mean, 1 / deviation, gamma, beta. */
static resin_status batch_norm_statistics(const batch_norm *norm, const resin_tensor *x,
                                          const norm_watch *watch, resin_tensor *statistics) {
    double *mean = tensor_data(statistics), *inverse = mean + norm->channels;
    double *scale = inverse + norm->channels, *shift = scale + norm->channels;
    double epsilon = op_number(norm->call, "epsilon");
    const resin_tensor *gamma = input(norm, GAMMA), *beta = input(norm, BETA);
    if (norm->training) {
        norm_pass pass = {.norm = norm, .x = tensor_data(x)};
        void *block = NULL;
        char *unused;
        if (watch && watch->pass.pieces > 0) {
            pass = watch->pass;
        } else {
            RESIN_TRY(pass_allocate(&pass, piece_count(norm), 0, &block, &unused));
            resin_parallel(norm->call->context, pass.pieces, statistics_piece, &pass);
        }
        merge_pieces(&pass);
        if (!norm->call->context->replaying)
            update_running(norm, pass.sums, pass.sums + norm->channels);
        for (int64_t c = 0; c < norm->channels; c++) {
            mean[c] = pass.sums[c];
            inverse[c] = pass.sums[norm->channels + c] / (double)norm->rows;
        }
        resin_deallocate(norm->call->context, block);
    } else {
        for (int64_t c = 0; c < norm->channels; c++) {
            mean[c] = vector_get(input(norm, MEAN), c);
            inverse[c] = vector_get(input(norm, VARIANCE), c);
        }
    }
    for (int64_t c = 0; c < norm->channels; c++) {
        inverse[c] = 1 / sqrt(inverse[c] + epsilon);
        scale[c] = gamma ? vector_get(gamma, c) : 1;
        shift[c] = beta ? vector_get(beta, c) : 0;
    }
    return RESIN_OK;
}

/* ---- Forward --------------------------------------------------------------------------------- */

static void apply_piece(void *argument, int64_t piece, int worker) {
    const norm_pass *pass = argument;
    const batch_norm *norm = pass->norm;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(norm->rows, pass->pieces, piece, &first, &last);
    norm->loops->apply(last - first, norm->channels, row_of(norm, pass->x, first), pass->a, pass->b,
                       row_of(norm, pass->shortcut, first), norm->activation,
                       row_to(norm, pass->out, first));
}

/* activation(x scale + shift + shortcut) is the output; of the element type. */
static void scale_and_shift(const batch_norm *norm, const resin_tensor *statistics, void *scale,
                            void *shift) {
    const double *mean = tensor_data(statistics), *inverse = mean + norm->channels;
    const double *gamma = inverse + norm->channels, *beta = gamma + norm->channels;
    for (int64_t c = 0; c < norm->channels; c++) {
        double factor = gamma[c] * inverse[c];
        real_set(norm, scale, c, factor);
        real_set(norm, shift, c, beta[c] - mean[c] * factor);
    }
}

static void normalize(const batch_norm *norm, const void *scale, const void *shift,
                      const resin_tensor *x, const resin_tensor *shortcut, resin_tensor *y) {
    norm_pass pass = {.norm = norm, .x = tensor_data(x), .out = tensor_data(y), .a = scale,
                      .b = shift, .shortcut = shortcut ? tensor_data(shortcut) : NULL,
                      .pieces = piece_count(norm)};
    resin_parallel(norm->call->context, pass.pieces, apply_piece, &pass);
}

static resin_status make_output(const batch_norm *norm, const resin_tensor *statistics,
                                resin_tensor *x, norm_output output, char *scale, char *shift) {
    op_call *call = norm->call;
    scale_and_shift(norm, statistics, scale, shift);
    bool relu = norm->activation == NORM_RELU;
    if (output == NORM_DEFERRED && norm->dtype == RESIN_FLOAT32 && (relu || !input(norm, SHORTCUT)))
        return normalized_new(x, (const float *)scale, (const float *)shift, relu,
                              input(norm, SHORTCUT), &call->out);
    if (output == NORM_IN_PLACE) call->out = resin_retain(x);
    else RESIN_TRY(tensor_new_like(x, &call->out));
    resin_tensor *shortcut = NULL;
    if (input(norm, SHORTCUT)) {
        RESIN_TRY(tensor_compute(input(norm, SHORTCUT)));
        RESIN_TRY(tensor_contiguous(input(norm, SHORTCUT), &shortcut));
    }
    normalize(norm, scale, shift, x, shortcut, call->out);
    resin_release(shortcut);
    return RESIN_OK;
}

static resin_status compute(const batch_norm *norm, resin_tensor *x, norm_output output,
                            const norm_watch *watch, resin_tensor *statistics) {
    size_t row = (size_t)norm->channels * sizeof(double);
    void *block;
    RESIN_TRY(batch_norm_statistics(norm, x, watch, statistics));
    RESIN_TRY(resin_allocate(norm->call->context, 2 * row, &block));
    resin_status status =
        make_output(norm, statistics, x, output, block, (char *)block + row);
    resin_deallocate(norm->call->context, block);
    return status;
}

/* A vector by channel as an array: where it lies, or copied; NULL where there is none. */
static const float *vector_array(const batch_norm *norm, const resin_tensor *vector, float *copy) {
    if (!vector) return NULL;
    if (vector->stride[0] == 1 || norm->channels == 1) return tensor_data(vector);
    for (int64_t c = 0; c < norm->channels; c++) copy[c] = (float)vector_get(vector, c);
    return copy;
}

resin_status batch_norm_fold(const batch_norm *norm, int bias, int slot, conv_epilogue *epilogue,
                             void **block) {
    const int inputs[] = {norm->first + MEAN, norm->first + VARIANCE, norm->first + GAMMA,
                          norm->first + BETA, bias};
    enum { VECTORS = sizeof inputs / sizeof *inputs };
    const float *arrays[VECTORS];
    op_call *call = norm->call;
    const size_t row = (size_t)norm->channels, size = (VECTORS + 2) * row * sizeof(float);
    const bool keeps = op_keeps(call, inputs, VECTORS);
    bool made = false;
    RESIN_TRY(keeps ? op_keep(call, slot, inputs, VECTORS, size, block, &made)
                    : resin_allocate(call->context, size, block));
    float *scale = *block, *shift = scale + row;
    for (size_t i = 0; i < VECTORS && !made; i++)
        arrays[i] = vector_array(norm, call->in[inputs[i]], shift + (1 + i) * row);
    if (!made)
        resin_kernels()->conv.fold_norm(norm->channels, arrays[0], arrays[1], arrays[2], arrays[3],
                                        arrays[4], op_number(call, "epsilon"), scale, shift);
    if (keeps) *block = NULL;
    *epilogue = (conv_epilogue){.scale = scale, .shift = shift,
                                .relu = norm->activation == NORM_RELU};
    return RESIN_OK;
}

/* Without a shortcut backward finds what relu let through from x, else from the output. */
resin_status batch_norm_run(const batch_norm *norm, resin_tensor *x, norm_output output,
                            norm_watch *watch) {
    op_call *call = norm->call;
    resin_tensor *statistics;
    const int64_t shape[2] = {STATISTICS, norm->channels};
    RESIN_TRY(tensor_new(call->context, RESIN_FLOAT64, 2, shape, &statistics));
    resin_status status = compute(norm, x, output, watch, statistics);
    if (status == RESIN_OK) {
        op_save(call, BATCH_NORM_X, x);
        op_save(call, BATCH_NORM_STATISTICS, statistics);
        if (norm->activation == NORM_RELU && input(norm, SHORTCUT))
            op_save(call, BATCH_NORM_Y, call->out);
    }
    resin_release(statistics);
    return status;
}

/* ---- Backward -------------------------------------------------------------------------------- */

static norm_gate gate_at(const norm_pass *pass, int64_t row) {
    return (norm_gate){pass->norm->activation, row_of(pass->norm, pass->y, row), pass->scale,
                       pass->shift};
}

/* Adds the sums over rows [first, last) to a piece's. */
static void add_sums(const norm_pass *pass, int64_t piece, int64_t first, int64_t last,
                     int worker) {
    const batch_norm *norm = pass->norm;
    int64_t channels = norm->channels, block = norm_block_rows(channels);
    double *sum_g = pass->sums + 2 * piece * channels, *sum_gx = sum_g + channels;
    char *block_g = pass->scratch + 3 * (size_t)(worker * channels) * sizeof(double);
    char *block_gx = block_g + (size_t)channels * sizeof(double);
    for (int64_t row = first; row < last; row += block) {
        int64_t rows = last - row < block ? last - row : block;
        norm_gate gate = gate_at(pass, row);
        norm->loops->gradient_sums(rows, channels, row_of(norm, pass->x, row), pass->mean, &gate,
                                   row_of(norm, pass->dy, row), row_to(norm, pass->g, row),
                                   block_g, block_gx);
        norm->loops->add_sums(channels, block_g, sum_g);
        norm->loops->add_sums(channels, block_gx, sum_gx);
    }
}

static void sums_piece(void *argument, int64_t piece, int worker) {
    const norm_pass *pass = argument;
    int64_t first, last;
    resin_piece_bounds(pass->norm->rows, pass->pieces, piece, &first, &last);
    add_sums(pass, piece, first, last, worker);
}

/* Sums of g and of g (x - mean), in the first piece's place. */
static void add_pieces(const norm_pass *pass) {
    const norm_loops *add = &resin_kernels()->norm.of[RESIN_FLOAT64];
    int64_t channels = pass->norm->channels;
    for (int64_t piece = 1; piece < pass->pieces; piece++)
        add->add_sums(2 * channels, pass->sums + 2 * piece * channels, pass->sums);
}

static void gradient_piece(void *argument, int64_t piece, int worker) {
    const norm_pass *pass = argument;
    const batch_norm *norm = pass->norm;
    int64_t first, last;
    (void)worker;
    resin_piece_bounds(norm->rows, pass->pieces, piece, &first, &last);
    norm_gate gate = gate_at(pass, first);
    norm->loops->gradient(last - first, norm->channels, row_of(norm, pass->x, first), pass->mean,
                          &gate, row_of(norm, pass->dy, first), pass->a, pass->b, pass->c,
                          row_to(norm, pass->out, first));
}

static resin_status parameter_gradients(const batch_norm *norm, const double *sums) {
    const double *inverse = (const double *)tensor_data(norm->call->saved[BATCH_NORM_STATISTICS]) +
                            norm->channels;
    resin_tensor *grad;
    if (wants(norm, GAMMA)) {
        RESIN_TRY(op_input_grad(norm->call, norm->first + GAMMA, &grad));
        for (int64_t c = 0; c < norm->channels; c++)
            vector_set(grad, c, sums[norm->channels + c] * inverse[c]);
    }
    if (wants(norm, BETA)) {
        RESIN_TRY(op_input_grad(norm->call, norm->first + BETA, &grad));
        for (int64_t c = 0; c < norm->channels; c++) vector_set(grad, c, sums[c]);
    }
    return RESIN_OK;
}

/* dx = a g + b (x - mean) + c; the kernel's mean is rounded to the element type, c makes up for
 * it. */
static void gradient_factors(const norm_pass *pass, const double *mean, void *a, void *b,
                             void *c_) {
    const batch_norm *norm = pass->norm;
    const double *inverse = mean + norm->channels, *gamma = inverse + norm->channels;
    double count = (double)norm->rows;
    for (int64_t c = 0; c < norm->channels; c++) {
        double factor = gamma[c] * inverse[c], slope = 0, shift = 0;
        if (norm->training) {
            double rounded = norm->dtype == RESIN_FLOAT64 ? mean[c] : (double)(float)mean[c];
            double sum_gx = pass->sums[norm->channels + c];
            slope = -factor * inverse[c] * inverse[c] * sum_gx / count;
            shift = -factor * pass->sums[c] / count + slope * (rounded - mean[c]);
        }
        real_set(norm, a, c, factor);
        real_set(norm, b, c, slope);
        real_set(norm, c_, c, shift);
    }
}

/* The sums were taken with the rounded mean: sum g (x - mean) = sum g (x - rounded) +
 * (rounded - mean) sum g. */
static void correct_sums(const norm_pass *pass, const double *mean) {
    int64_t channels = pass->norm->channels;
    if (pass->norm->dtype == RESIN_FLOAT64) return;
    for (int64_t c = 0; c < channels; c++)
        pass->sums[channels + c] += ((double)(float)mean[c] - mean[c]) * pass->sums[c];
}

/* Where g, the gradient before the activation, goes as the shortcut's gradient: into dy itself if
 * nobody else holds that. NULL: it is not wanted, or it is dy. */
static resin_status shortcut_gradient(const batch_norm *norm, resin_tensor *dy, bool own,
                                      resin_tensor **g) {
    op_call *call = norm->call;
    *g = NULL;
    if (call->inputs <= norm->first + SHORTCUT || !wants(norm, SHORTCUT)) return RESIN_OK;
    if (norm->activation == NORM_RELU && !own)
        return op_input_grad(call, norm->first + SHORTCUT, g);
    op_give_grad(call, norm->first + SHORTCUT, dy);
    if (norm->activation == NORM_RELU) *g = dy;
    return RESIN_OK;
}

/* The vectors by channel that the passes read, as slices of `vector`. */
static void set_vectors(norm_pass *pass, char *vector) {
    const batch_norm *norm = pass->norm;
    const resin_tensor *statistics = norm->call->saved[BATCH_NORM_STATISTICS];
    const double *mean = tensor_data(statistics);
    size_t row = (size_t)norm->channels * sizeof(double);
    for (int64_t k = 0; k < norm->channels; k++) real_set(norm, vector, k, mean[k]);
    pass->mean = vector;
    pass->a = vector + row;
    pass->b = vector + 2 * row;
    pass->c = vector + 3 * row;
    pass->scale = vector + 4 * row;
    pass->shift = vector + 5 * row;
    scale_and_shift(norm, statistics, vector + 4 * row, vector + 5 * row);
}

/* With the sums `found`, if they have been taken. */
static resin_status run_sums(norm_pass *pass, double *found, char *vector) {
    const batch_norm *norm = pass->norm;
    const double *mean = tensor_data(norm->call->saved[BATCH_NORM_STATISTICS]);
    size_t row = (size_t)norm->channels * sizeof(double);
    set_vectors(pass, vector);
    if (found) pass->sums = found;
    if (norm->training || wants(norm, GAMMA) || wants(norm, BETA) || pass->g) {
        if (!found) {
            resin_parallel(norm->call->context, pass->pieces, sums_piece, pass);
            add_pieces(pass);
        }
        correct_sums(pass, mean);
        RESIN_TRY(parameter_gradients(norm, pass->sums));
    }
    gradient_factors(pass, mean, vector + row, vector + 2 * row, vector + 3 * row);
    return RESIN_OK;
}

static resin_status begin_sums(conv_watch *watch, float *result, int64_t channels,
                               int64_t pieces) {
    norm_watch *w = (norm_watch *)watch;
    const op_call *before = w->norm.call;
    (void)channels;
    char *vector;
    w->pass = (norm_pass){.norm = &w->norm, .x = tensor_data(before->saved[BATCH_NORM_X]),
                          .dy = (const char *)result};
    if (before->saved[BATCH_NORM_Y]) {
        w->pass.y = tensor_data(before->saved[BATCH_NORM_Y]);
        w->pass.g = (char *)result;
    }
    RESIN_TRY(pass_allocate(&w->pass, pieces, 6, &w->block, &vector));
    set_vectors(&w->pass, vector);
    return RESIN_OK;
}

static void watch_sums(const conv_watch *watch, int64_t piece, int64_t first, int64_t count,
                       int worker) {
    add_sums(&((const norm_watch *)watch)->pass, piece, first, first + count, worker);
}

bool batch_norm_watch_gradient(op_call *before, int first, norm_watch *watch) {
    const resin_tensor *x = before->saved[BATCH_NORM_X], *y = before->saved[BATCH_NORM_Y];
    *watch = (norm_watch){.watch = {.begin = begin_sums, .pixels = watch_sums}};
    if (x->dtype != RESIN_FLOAT32 || (y && !resin_tensor_contiguous(y)) ||
        (y && tensor_compute(y) != RESIN_OK) ||
        batch_norm_start(before, first, x->dtype, x->rank, x->shape, &watch->norm) != RESIN_OK)
        return false;
    if (y) watch->watch.reads = tensor_data(x); /* else the convolution reads it itself */
    return true;
}

void batch_norm_finish_gradient(op_call *before, norm_watch *watch) {
    if (watch->pass.pieces == 0) return;
    add_pieces(&watch->pass);
    before->found = watch->block; /* which the sums begin */
}

static conv_norm reading_of(const norm_pass *pass) {
    bool gate = pass->norm->activation == NORM_RELU && !pass->g;
    return (conv_norm){(const float *)pass->x, pass->mean, pass->a, pass->b, pass->c,
                       gate ? pass->scale : NULL, gate ? pass->shift : NULL};
}

resin_status batch_norm_begin_backward(const batch_norm *norm, batch_norm_return *backward) {
    op_call *call = norm->call;
    resin_tensor *g;
    void *block = NULL;
    char *vector;
    *backward = (batch_norm_return){0};
    bool own = tensor_unshared(call->out_grad) && resin_tensor_contiguous(call->out_grad);
    if (call->saved[BATCH_NORM_Y]) RESIN_TRY(tensor_compute(call->saved[BATCH_NORM_Y]));
    RESIN_TRY(op_out_grad_contiguous(call, &backward->dy));
    norm_pass pass = {.norm = norm, .x = tensor_data(call->saved[BATCH_NORM_X]),
                      .dy = tensor_data(backward->dy)};
    if (call->saved[BATCH_NORM_Y]) pass.y = tensor_data(call->saved[BATCH_NORM_Y]);
    resin_status status = shortcut_gradient(norm, backward->dy, own, &g);
    if (status == RESIN_OK) status = pass_allocate(&pass, piece_count(norm), 6, &block, &vector);
    backward->block = block;
    if (status != RESIN_OK) return status;
    pass.g = g ? tensor_data(g) : NULL;
    /* Whoever took the sums has written g over the gradient. */
    RESIN_TRY(run_sums(&pass, !g || g == backward->dy ? call->found : NULL, vector));
    if (g) { /* from here on it stands for dy */
        resin_retain(g);
        resin_release(backward->dy);
        backward->dy = g;
    }
    backward->norm = reading_of(&pass);
    backward->by_output = pass.y && !g;
    return RESIN_OK;
}

void batch_norm_end_backward(const batch_norm *norm, batch_norm_return *backward) {
    resin_release(backward->dy);
    resin_deallocate(norm->call->context, backward->block);
}

void batch_norm_write_gradient(const batch_norm *norm, const batch_norm_return *backward,
                               resin_tensor *dx) {
    const conv_norm *reading = &backward->norm;
    const resin_tensor *y = norm->call->saved[BATCH_NORM_Y];
    batch_norm ungated = *norm;
    if (!reading->scale && !backward->by_output) ungated.activation = NORM_LINEAR;
    norm_pass pass = {.norm = &ungated, .x = (const char *)reading->x,
                      .y = backward->by_output ? tensor_data(y) : NULL,
                      .dy = tensor_data(backward->dy), .out = tensor_data(dx),
                      .mean = reading->mean, .a = reading->a, .b = reading->b, .c = reading->c,
                      .scale = reading->scale, .shift = reading->shift,
                      .pieces = piece_count(norm)};
    resin_parallel(norm->call->context, pass.pieces, gradient_piece, &pass);
}

/* ---- The op ---------------------------------------------------------------------------------- */

resin_status batch_norm_forward(op_call *call) {
    batch_norm norm;
    resin_tensor *x = call->in[0];
    RESIN_TRY(op_check_float(call, 0));
    RESIN_TRY(batch_norm_start(call, 1, x->dtype, x->rank, x->shape, &norm));
    RESIN_TRY(batch_norm_check(&norm, x->rank, x->shape));
    RESIN_TRY(tensor_contiguous(x, &x));
    resin_status status = batch_norm_run(&norm, x, NORM_NEW, NULL);
    resin_release(x);
    return status;
}

resin_status batch_norm_backward(op_call *call) {
    batch_norm norm;
    resin_tensor *dx = NULL;
    int rank;
    const int64_t *shape = op_input_shape(call, 0, &rank);
    RESIN_TRY(batch_norm_start(call, 1, call->out_grad->dtype, rank, shape, &norm));
    batch_norm_return backward;
    resin_status status = batch_norm_begin_backward(&norm, &backward);
    if (status == RESIN_OK && call->wants_grad[0]) {
        status = op_input_grad(call, 0, &dx);
        if (status == RESIN_OK) batch_norm_write_gradient(&norm, &backward, dx);
    }
    batch_norm_end_backward(&norm, &backward);
    return status;
}
