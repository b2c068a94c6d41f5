/* tensor.c: storage, tensors and their lifetime. */
#include "core/tensor/tensor.h"

#include "core/base/memory.h"

#include <string.h>

/* ---- Storage -------------------------------------------------------------------------------- */

static resin_status storage_new(resin_context *context, size_t bytes, tensor_recipe *recipe,
                                resin_storage **out) {
    void *memory;
    RESIN_TRY(resin_allocate(context, sizeof(resin_storage), &memory));
    resin_storage *storage = memory;
    *storage = (resin_storage){.version = ++context->last_version, .bytes = bytes,
                               .recipe = recipe, .owned = true};
    atomic_init(&storage->references, 1);
    resin_status status = RESIN_OK;
    if (!recipe) status = resin_allocate(context, bytes, &storage->data);
    if (status != RESIN_OK) {
        resin_deallocate(context, storage);
        return status;
    }
    *out = storage;
    return RESIN_OK;
}

static void storage_release(resin_context *context, resin_storage *storage) {
    if (atomic_fetch_sub_explicit(&storage->references, 1, memory_order_acq_rel) != 1) return;
    if (storage->recipe) storage->recipe->release(context, storage->recipe);
    if (storage->owned)
        resin_deallocate(context, storage->data);
    else if (storage->free_function)
        storage->free_function(storage->user);
    resin_deallocate(context, storage);
}

/* ---- Tensors -------------------------------------------------------------------------------- */

/* A tensor without storage; its shape must have been checked. */
static resin_status tensor_frame(resin_context *context, resin_dtype dtype, int rank,
                                 const int64_t *shape, resin_tensor **out) {
    void *memory;
    RESIN_TRY(resin_allocate(context, sizeof(resin_tensor), &memory));
    resin_tensor *tensor = memory;
    *tensor = (resin_tensor){.dtype = dtype, .rank = rank};
    atomic_init(&tensor->references, 1);
    if (rank > 0) memcpy(tensor->shape, shape, (size_t)rank * sizeof *shape);
    shape_strides(rank, tensor->shape, tensor->stride);
    tensor->context = resin_context_retain(context);
    *out = tensor;
    return RESIN_OK;
}

resin_status tensor_new_deferred(resin_context *context, resin_dtype dtype, int rank,
                                 const int64_t *shape, tensor_recipe *recipe, resin_tensor **out) {
    int64_t count;
    *out = NULL;
    RESIN_TRY(shape_count(context, "tensor", rank, shape, &count));
    size_t bytes;
    if (!resin_size_multiply((size_t)count, resin_dtype_size(dtype), &bytes))
        return resin_fail(context, RESIN_ERROR_SHAPE, "tensor: too many elements");
    resin_storage *storage;
    RESIN_TRY(storage_new(context, bytes, recipe, &storage));
    resin_status status = tensor_frame(context, dtype, rank, shape, out);
    if (status != RESIN_OK) {
        storage->recipe = NULL; /* the caller's still */
        storage_release(context, storage);
        return status;
    }
    (*out)->storage = storage;
    return RESIN_OK;
}

resin_status tensor_new(resin_context *context, resin_dtype dtype, int rank, const int64_t *shape,
                        resin_tensor **out) {
    return tensor_new_deferred(context, dtype, rank, shape, NULL, out);
}

void tensor_give_elements(const resin_tensor *tensor, void *data) {
    resin_storage *storage = tensor->storage;
    tensor_recipe *recipe = storage->recipe;
    storage->data = data;
    storage->recipe = NULL;
    recipe->release(tensor->context, recipe);
}

resin_status tensor_compute(const resin_tensor *tensor) {
    resin_storage *storage = tensor->storage;
    tensor_recipe *recipe = storage->recipe;
    if (!recipe) return RESIN_OK;
    void *data;
    RESIN_TRY(resin_allocate(tensor->context, storage->bytes, &data));
    resin_status status = recipe->compute(recipe, data);
    if (status == RESIN_OK) tensor_give_elements(tensor, data);
    else resin_deallocate(tensor->context, data);
    return status;
}

resin_status tensor_new_like(const resin_tensor *model, resin_tensor **out) {
    return tensor_new(model->context, model->dtype, model->rank, model->shape, out);
}

resin_status tensor_view(resin_tensor *base, int rank, const int64_t *shape, const int64_t *stride,
                         int64_t offset, resin_tensor **out) {
    *out = NULL;
    RESIN_TRY(tensor_frame(base->context, base->dtype, rank, shape, out));
    if (rank > 0) memcpy((*out)->stride, stride, (size_t)rank * sizeof *stride);
    (*out)->offset = offset;
    (*out)->storage = base->storage;
    atomic_fetch_add_explicit(&base->storage->references, 1, memory_order_relaxed);
    return RESIN_OK;
}

resin_status resin_empty(resin_context *context, resin_dtype dtype, int rank, const int64_t *shape,
                         resin_tensor **out) {
    return tensor_new(context, dtype, rank, shape, out);
}

resin_status resin_from_buffer(resin_context *context, void *data, resin_dtype dtype, int rank,
                               const int64_t *shape, void (*free_function)(void *user), void *user,
                               resin_tensor **out) {
    *out = NULL;
    int64_t count;
    RESIN_TRY(shape_count(context, "from_buffer", rank, shape, &count));
    size_t bytes, size = resin_dtype_size(dtype);
    if (!resin_size_multiply((size_t)count, size, &bytes))
        return resin_fail(context, RESIN_ERROR_SHAPE, "from_buffer: too many elements");
    if ((!data && count > 0) || (uintptr_t)data % size != 0)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "from_buffer: expected memory aligned to %zu bytes, got %p", size, data);
    void *memory;
    RESIN_TRY(resin_allocate(context, sizeof(resin_storage), &memory));
    resin_storage *storage = memory;
    *storage = (resin_storage){.version = ++context->last_version, .data = data, .bytes = bytes};
    atomic_init(&storage->references, 1);
    resin_status status = tensor_frame(context, dtype, rank, shape, out);
    if (status != RESIN_OK) {
        resin_deallocate(context, storage);
        return status;
    }
    /* From here on the buffer is ours to give back. */
    storage->free_function = free_function;
    storage->user = user;
    (*out)->storage = storage;
    return RESIN_OK;
}

resin_tensor *resin_retain(resin_tensor *tensor) {
    atomic_fetch_add_explicit(&tensor->references, 1, memory_order_relaxed);
    return tensor;
}

void resin_release(resin_tensor *tensor) {
    if (!tensor) return;
    if (atomic_fetch_sub_explicit(&tensor->references, 1, memory_order_acq_rel) != 1) return;
    resin_context *context = tensor->context;
    if (tensor->grad) resin_release(tensor->grad); /* a gradient has none of its own */
    if (tensor->origin) tensor->origin->release(context, tensor->origin);
    if (tensor->storage) storage_release(context, tensor->storage);
    resin_deallocate(context, tensor);
    resin_context_release(context);
}

resin_context *resin_tensor_context(const resin_tensor *tensor) { return tensor->context; }
resin_dtype resin_tensor_dtype(const resin_tensor *tensor) { return tensor->dtype; }
int resin_tensor_rank(const resin_tensor *tensor) { return tensor->rank; }
const int64_t *resin_tensor_shape(const resin_tensor *tensor) { return tensor->shape; }
const int64_t *resin_tensor_strides(const resin_tensor *tensor) { return tensor->stride; }
void *resin_tensor_data(const resin_tensor *tensor) {
    return tensor_compute(tensor) == RESIN_OK ? tensor_data(tensor) : NULL;
}
void resin_tensor_touch(resin_tensor *tensor) {
    tensor->storage->version = ++tensor->context->last_version;
}

int64_t resin_tensor_count(const resin_tensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) count *= tensor->shape[i];
    return count;
}

bool resin_tensor_contiguous(const resin_tensor *tensor) {
    int64_t step = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->shape[i] == 0) return true;
        if (tensor->shape[i] != 1 && tensor->stride[i] != step) return false;
        step *= tensor->shape[i];
    }
    return true;
}

bool tensor_same_shape(const resin_tensor *a, const resin_tensor *b) {
    return a->rank == b->rank &&
           memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0;
}

bool tensor_unshared(const resin_tensor *t) {
    return atomic_load(&t->references) == 1 && atomic_load(&t->storage->references) == 1 &&
           t->storage->owned;
}

resin_status tensor_contiguous(resin_tensor *tensor, resin_tensor **out) {
    if (resin_tensor_contiguous(tensor)) {
        *out = resin_retain(tensor);
        return RESIN_OK;
    }
    RESIN_TRY(tensor_new_like(tensor, out));
    resin_status status = tensor_copy_elements(*out, tensor);
    if (status != RESIN_OK) {
        resin_release(*out);
        *out = NULL;
    }
    return status;
}
