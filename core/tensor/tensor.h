/* tensor.h: storage, shapes and views: the internal side of tensors.
 *
 * A tensor is a strided view of a reference-counted storage. Views share the storage and its
 * version, which every change in place raises, and which no other storage of the context ever has:
 * where a tensor's version is the same as before, so are its elements. */
#ifndef RESIN_TENSOR_TENSOR_H
#define RESIN_TENSOR_TENSOR_H

#include "core/base/context.h"

/* How elements come about that nobody has needed yet. */
typedef struct tensor_recipe {
    resin_status (*compute)(const struct tensor_recipe *recipe, void *data);
    void (*release)(resin_context *context, struct tensor_recipe *recipe);
} tensor_recipe;

typedef struct resin_storage {
    atomic_int references;
    uint64_t version;
    void *data;
    tensor_recipe *recipe; /* not NULL: there are no data yet (tensor_compute) */
    size_t bytes;
    void (*free_function)(void *user); /* of a host's buffer; NULL if `owned` */
    void *user;
    bool owned; /* data come from the arena */
} resin_storage;

/* What made a tensor, as far as tensors must know it: the head of a node of the graph
 * (core/ops/autograd.h). */
typedef struct tensor_origin {
    void (*release)(resin_context *context, struct tensor_origin *origin);
} tensor_origin;

struct resin_tensor {
    atomic_int references;
    resin_context *context; /* held */
    resin_storage *storage;
    int64_t offset; /* of the first element, in elements */
    resin_dtype dtype;
    int rank;
    int64_t shape[RESIN_MAX_RANK];
    int64_t stride[RESIN_MAX_RANK]; /* in elements; 0 along a broadcast axis */

    bool requires_grad;      /* a leaf that wants its gradient */
    bool grad_is_set;        /* `grad` holds a gradient (else the next backward stores there) */
    bool grad_is_given;      /* `grad` is a buffer of resin_set_grad and stays when cleared */
    resin_tensor *grad;      /* of a leaf */
    tensor_origin *origin;   /* the recorded op that made it, or NULL; held */

    uint32_t plan_serial; /* the recording of a plan that knows the tensor (core/ops/plan.h), */
    int32_t plan_value;   /* and as which value */
};

/* ---- Making tensors ------------------------------------------------------------------------- */

/* Uninitialized, contiguous. */
resin_status tensor_new(resin_context *context, resin_dtype dtype, int rank, const int64_t *shape,
                        resin_tensor **out);
resin_status tensor_new_like(const resin_tensor *model, resin_tensor **out);
/* Contiguous, with elements that tensor_compute makes; takes the recipe over where it succeeds.
 * Whoever calls tensor_data must know that they are there: resin_apply sees to it for the inputs of
 * ops, but for those that read recipes themselves. */
resin_status tensor_new_deferred(resin_context *context, resin_dtype dtype, int rank,
                                 const int64_t *shape, tensor_recipe *recipe, resin_tensor **out);
/* Makes the elements, if they do not exist yet. */
resin_status tensor_compute(const resin_tensor *tensor);
/* Gives a deferred tensor its elements, which somebody has made on the way: memory of the context,
 * taken over. */
void tensor_give_elements(const resin_tensor *tensor, void *data);
/* A view of the same storage; `offset` is absolute, in elements. The graph is not touched. */
resin_status tensor_view(resin_tensor *base, int rank, const int64_t *shape, const int64_t *stride,
                         int64_t offset, resin_tensor **out);
/* `tensor` itself (retained) if it is contiguous, else a contiguous copy. Not recorded. */
resin_status tensor_contiguous(resin_tensor *tensor, resin_tensor **out);
/* Copies elements, converting dtypes; shapes must be equal (or broadcast to the destination). */
resin_status tensor_copy_elements(resin_tensor *destination, const resin_tensor *source);

/* ---- Looking at them ------------------------------------------------------------------------ */

static inline void *tensor_data(const resin_tensor *t) {
    return (char *)t->storage->data + (size_t)t->offset * resin_dtype_size(t->dtype);
}
static inline bool tensor_is_float(const resin_tensor *t) {
    return t->dtype == RESIN_FLOAT32 || t->dtype == RESIN_FLOAT64;
}
/* Whether the plan that is recorded now reads or makes it. */
static inline bool tensor_is_planned(const resin_tensor *t) {
    return t->context->plan && t->plan_serial == t->context->plan_serial;
}
bool tensor_same_shape(const resin_tensor *a, const resin_tensor *b);
/* Whether the tensor holds the only reference to its storage, so that it may be reused in place. */
bool tensor_unshared(const resin_tensor *t);

/* ---- Shapes --------------------------------------------------------------------------------- */

/* The number of elements, or an error that names `what` when it is negative or overflows. */
resin_status shape_count(resin_context *context, const char *what, int rank, const int64_t *shape,
                         int64_t *count);
void shape_strides(int rank, const int64_t *shape, int64_t *stride); /* row-major */
/* "(2, 3, 4)" into text; returns text. SHAPE_TEXT bytes are always enough. */
enum { SHAPE_TEXT = 192 };
const char *shape_format(int rank, const int64_t *shape, char text[SHAPE_TEXT]);
/* The common shape of two by broadcasting, or an error that names `op` and both shapes. */
resin_status shape_broadcast(resin_context *context, const char *op, const resin_tensor *a,
                             const resin_tensor *b, int *rank, int64_t *shape);
/* An axis given as -rank .. rank - 1 to 0 .. rank - 1, or an error that names `op`. */
resin_status shape_axis(resin_context *context, const char *op, int rank, int64_t given, int *axis);

/* ---- Iterating ------------------------------------------------------------------------------ */

/* Steps through up to 4 operands of one (broadcast) shape, with neighbouring axes merged: the inner
 * loop runs over `inner` elements with strides inner_stride[operand], the outer positions are
 * numbered 0 .. outer - 1. Strides are in elements. */
enum { ITERATE_MAX = 4 };
typedef struct tensor_iterator {
    int operands, rank; /* rank of the outer axes */
    int64_t inner, outer;
    int64_t inner_stride[ITERATE_MAX];
    int64_t shape[RESIN_MAX_RANK];
    int64_t stride[ITERATE_MAX][RESIN_MAX_RANK];
} tensor_iterator;

/* Operands are broadcast to `shape` (their axes are aligned at the end). */
void iterator_start(tensor_iterator *it, int rank, const int64_t *shape, int operands,
                    const resin_tensor *const *tensors);
/* Offsets (elements, from each operand's first element) of outer position `position`. */
void iterator_offsets(const tensor_iterator *it, int64_t position, int64_t offset[ITERATE_MAX]);

#endif
