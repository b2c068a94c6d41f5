/* access.c: reading, writing and copying elements. */
#include "core/base/threads.h"
#include "core/tensor/tensor.h"

#include <string.h>

/* ---- One element ---------------------------------------------------------------------------- */

static resin_status element_offset(const resin_tensor *t, const int64_t *position,
                                   int64_t *offset) {
    *offset = 0;
    RESIN_TRY(tensor_compute(t));
    for (int i = 0; i < t->rank; i++) {
        if (position[i] < 0 || position[i] >= t->shape[i]) {
            char text[SHAPE_TEXT];
            return resin_fail(t->context, RESIN_ERROR_ARGUMENT,
                              "position %lld on axis %d is outside of shape %s",
                              (long long)position[i], i, shape_format(t->rank, t->shape, text));
        }
        *offset += position[i] * t->stride[i];
    }
    return RESIN_OK;
}

resin_status resin_get(const resin_tensor *tensor, const int64_t *position, double *value) {
    int64_t i;
    RESIN_TRY(element_offset(tensor, position, &i));
    const void *data = tensor_data(tensor);
    switch (tensor->dtype) {
    case RESIN_FLOAT32: *value = ((const float *)data)[i]; break;
    case RESIN_FLOAT64: *value = ((const double *)data)[i]; break;
    case RESIN_INT32: *value = ((const int32_t *)data)[i]; break;
    case RESIN_INT64: *value = (double)((const int64_t *)data)[i]; break;
    default: *value = ((const uint8_t *)data)[i]; break;
    }
    return RESIN_OK;
}

resin_status resin_get_int64(const resin_tensor *tensor, const int64_t *position, int64_t *value) {
    if (tensor->dtype == RESIN_INT64) {
        int64_t i;
        RESIN_TRY(element_offset(tensor, position, &i));
        *value = ((const int64_t *)tensor_data(tensor))[i];
        return RESIN_OK;
    }
    double number;
    RESIN_TRY(resin_get(tensor, position, &number));
    *value = (int64_t)number;
    return RESIN_OK;
}

/* Whether `value` is an integer that the dtype holds (every double for the float types). */
static resin_status check_value(const resin_tensor *t, double value) {
    double low, high;
    switch (t->dtype) {
    case RESIN_INT32: low = INT32_MIN; high = INT32_MAX; break;
    case RESIN_INT64: low = -0x1p63; high = 0x1.fffffffffffffp62; break;
    case RESIN_UINT8: low = 0; high = UINT8_MAX; break;
    default: return RESIN_OK;
    }
    if (value >= low && value <= high && value == (double)(int64_t)value) return RESIN_OK;
    return resin_fail(t->context, RESIN_ERROR_ARGUMENT, "%g is no value of dtype %s", value,
                      resin_dtype_name(t->dtype));
}

static void store(resin_tensor *t, int64_t i, double value) {
    void *data = tensor_data(t);
    switch (t->dtype) {
    case RESIN_FLOAT32: ((float *)data)[i] = (float)value; break;
    case RESIN_FLOAT64: ((double *)data)[i] = value; break;
    case RESIN_INT32: ((int32_t *)data)[i] = (int32_t)value; break;
    case RESIN_INT64: ((int64_t *)data)[i] = (int64_t)value; break;
    default: ((uint8_t *)data)[i] = (uint8_t)value; break;
    }
}

/* A leaf or a result of a graph must not be written while ops are recorded. (When they are not, what
 * backward reads is still guarded by its version.) */
static resin_status check_writable(const resin_tensor *t) {
    if (tensor_is_planned(t))
        return resin_fail(t->context, RESIN_ERROR_GRAPH,
                          "a tensor of a plan cannot be changed in place while it is recorded");
    if ((t->origin || t->requires_grad) && t->context->recording)
        return resin_fail(t->context, RESIN_ERROR_GRAPH,
                          "a tensor of a graph cannot be changed in place while gradients are "
                          "recorded; use no_grad or detach");
    return RESIN_OK;
}

resin_status resin_set(resin_tensor *tensor, const int64_t *position, double value) {
    int64_t i;
    RESIN_TRY(check_writable(tensor));
    RESIN_TRY(element_offset(tensor, position, &i));
    RESIN_TRY(check_value(tensor, value));
    store(tensor, i, value);
    resin_tensor_touch(tensor);
    return RESIN_OK;
}

resin_status resin_set_int64(resin_tensor *tensor, const int64_t *position, int64_t value) {
    if (tensor->dtype != RESIN_INT64) return resin_set(tensor, position, (double)value);
    int64_t i;
    RESIN_TRY(check_writable(tensor));
    RESIN_TRY(element_offset(tensor, position, &i));
    ((int64_t *)tensor_data(tensor))[i] = value;
    resin_tensor_touch(tensor);
    return RESIN_OK;
}

/* ---- Many elements -------------------------------------------------------------------------- */

typedef void (*copy_loop)(int64_t n, const void *from, int64_t from_stride, void *to,
                          int64_t to_stride);

/* One loop for each pair of dtypes. Conversion to integers cuts the fraction off; what does not fit
 * (NaN too) gives 0 instead of undefined behaviour. */
#define COPY_LOOP(from_type, to_type, convert)                                                 \
    static void copy_##from_type##_##to_type(int64_t n, const void *from, int64_t from_stride, \
                                             void *to, int64_t to_stride) {                    \
        const from_type *source = from;                                                        \
        to_type *target = to;                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                      \
            from_type x = source[i * from_stride];                                             \
            target[i * to_stride] = convert;                                                   \
        }                                                                                      \
    }
#define FITS(x, low, high) ((x) > (low) && (x) < (high))
#define COPY_FROM_FLOAT(type)                                                \
    COPY_LOOP(type, float, (float)x)                                         \
    COPY_LOOP(type, double, (double)x)                                       \
    COPY_LOOP(type, int32_t, FITS(x, -2147483649.0, 2147483648.0) ? (int32_t)x : 0) \
    COPY_LOOP(type, int64_t, FITS(x, -0x1.0000000000001p63, 0x1p63) ? (int64_t)x : 0) \
    COPY_LOOP(type, uint8_t, FITS(x, -1.0, 256.0) ? (uint8_t)x : 0)
#define COPY_FROM_INTEGER(type)            \
    COPY_LOOP(type, float, (float)x)       \
    COPY_LOOP(type, double, (double)x)     \
    COPY_LOOP(type, int32_t, (int32_t)x)   \
    COPY_LOOP(type, int64_t, (int64_t)x)   \
    COPY_LOOP(type, uint8_t, (uint8_t)x)
COPY_FROM_FLOAT(float)
COPY_FROM_FLOAT(double)
COPY_FROM_INTEGER(int32_t)
COPY_FROM_INTEGER(int64_t)
COPY_FROM_INTEGER(uint8_t)

#define COPY_ROW(type)                                                                         \
    {copy_##type##_float, copy_##type##_double, copy_##type##_int32_t, copy_##type##_int64_t, \
     copy_##type##_uint8_t}
static const copy_loop copy_loops[RESIN_DTYPE_COUNT][RESIN_DTYPE_COUNT] = {
    COPY_ROW(float), COPY_ROW(double), COPY_ROW(int32_t), COPY_ROW(int64_t), COPY_ROW(uint8_t)};

typedef struct copy_job {
    tensor_iterator it;
    copy_loop loop; /* NULL: same dtype and dense rows, plain memory copy */
    char *to;
    const char *from;
    size_t to_size, from_size;
    int64_t pieces;
} copy_job;

/* Pieces cut the outer positions, or one long row. */
static void copy_piece(void *argument, int64_t piece, int worker) {
    const copy_job *job = argument;
    const tensor_iterator *it = &job->it;
    (void)worker;
    int64_t first, last, begin = 0, end = it->inner;
    if (it->outer == 1) {
        resin_piece_bounds(it->inner, job->pieces, piece, &begin, &end);
        first = 0;
        last = 1;
    } else {
        resin_piece_bounds(it->outer, job->pieces, piece, &first, &last);
    }
    for (int64_t position = first; position < last; position++) {
        int64_t offset[ITERATE_MAX];
        iterator_offsets(it, position, offset);
        char *to = job->to + (size_t)(offset[0] + begin * it->inner_stride[0]) * job->to_size;
        const char *from =
            job->from + (offset[1] + begin * it->inner_stride[1]) * (int64_t)job->from_size;
        if (job->loop)
            job->loop(end - begin, from, it->inner_stride[1], to, it->inner_stride[0]);
        else
            memcpy(to, from, (size_t)(end - begin) * job->to_size);
    }
}

static resin_status copy_broadcast(resin_tensor *destination, const resin_tensor *source) {
    bool fits = source->rank <= destination->rank;
    for (int i = 1; fits && i <= source->rank; i++) {
        int64_t size = source->shape[source->rank - i];
        fits = size == 1 || size == destination->shape[destination->rank - i];
    }
    if (!fits) {
        char a[SHAPE_TEXT], b[SHAPE_TEXT];
        return resin_fail(destination->context, RESIN_ERROR_SHAPE,
                          "copy: shape %s cannot be broadcast to %s",
                          shape_format(source->rank, source->shape, a),
                          shape_format(destination->rank, destination->shape, b));
    }
    return RESIN_OK;
}

resin_status tensor_copy_elements(resin_tensor *destination, const resin_tensor *source) {
    RESIN_TRY(copy_broadcast(destination, source));
    RESIN_TRY(tensor_compute(destination));
    RESIN_TRY(tensor_compute(source));
    copy_job job = {.to = tensor_data(destination), .from = tensor_data(source),
                    .to_size = resin_dtype_size(destination->dtype),
                    .from_size = resin_dtype_size(source->dtype)};
    const resin_tensor *operands[] = {destination, source};
    iterator_start(&job.it, destination->rank, destination->shape, 2, operands);
    if (job.it.outer == 0) return RESIN_OK;
    bool plain = destination->dtype == source->dtype && job.it.inner_stride[0] == 1 &&
                 job.it.inner_stride[1] == 1;
    job.loop = plain ? NULL : copy_loops[source->dtype][destination->dtype];
    int64_t count = job.it.inner * job.it.outer, cut = job.it.outer == 1 ? count : job.it.outer;
    job.pieces = resin_piece_count(count, 1 << 15);
    if (job.pieces > cut) job.pieces = cut;
    resin_parallel(destination->context, job.pieces, copy_piece, &job);
    return RESIN_OK;
}

/* Whether the two may share bytes, so that a copy between them needs an intermediate one. */
static bool may_overlap(const resin_tensor *a, const resin_tensor *b) {
    return a->storage == b->storage && (a->offset != b->offset || a->rank != b->rank ||
                                        memcmp(a->stride, b->stride, sizeof a->stride) != 0);
}

resin_status resin_copy(resin_tensor *destination, resin_tensor *source) {
    RESIN_TRY(check_writable(destination));
    if (tensor_is_planned(source))
        return resin_fail(source->context, RESIN_ERROR_GRAPH,
                          "a tensor of a plan cannot be copied in place while it is recorded");
    resin_tensor *from = resin_retain(source);
    resin_status status = RESIN_OK;
    if (may_overlap(destination, source)) {
        resin_release(from);
        status = tensor_new_like(source, &from);
        if (status == RESIN_OK) status = tensor_copy_elements(from, source);
    }
    if (status == RESIN_OK) status = tensor_copy_elements(destination, from);
    if (status == RESIN_OK) resin_tensor_touch(destination);
    resin_release(from);
    return status;
}

resin_status resin_fill(resin_tensor *destination, double value) {
    RESIN_TRY(check_writable(destination));
    RESIN_TRY(check_value(destination, value));
    union { float f; double d; int32_t i; int64_t l; uint8_t b; } memory;
    resin_storage storage = {.data = &memory};
    resin_tensor scalar = {.context = destination->context, .storage = &storage,
                           .dtype = destination->dtype};
    store(&scalar, 0, value);
    RESIN_TRY(tensor_copy_elements(destination, &scalar));
    resin_tensor_touch(destination);
    return RESIN_OK;
}
