/* resin.h: the engine's public interface, and its manual.
 *
 * A context (resin_context) holds everything an engine instance owns: memory, threads, random state,
 * the last error. It is used by one thread at a time; several contexts live side by side. Nothing
 * here aborts, exits or asserts on input: a function that can fail returns a resin_status, and the
 * message stays in the context until the next failure (resin_error_message).
 *
 * Conventions. Images are NHWC, convolution weights HWIO, both row-major. Positions and axes count
 * from 0 here (from 1 in Lua); negative axes count from the end. A function that gives a tensor out
 * gives the caller one reference, to be returned with resin_release. `const int64_t *shape` has
 * `rank` entries, rank 0 is a scalar.
 */
#ifndef RESIN_H
#define RESIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) && defined(RESIN_BUILD)
#define RESIN_API __attribute__((visibility("default")))
#else
#define RESIN_API
#endif

#define RESIN_VERSION "0.1.0"
/* Raised when a public struct or the meaning of a function changes. */
#define RESIN_ABI_VERSION 1

enum { RESIN_MAX_RANK = 8 };

typedef struct resin_context resin_context;
typedef struct resin_tensor resin_tensor;

/* ---- Errors --------------------------------------------------------------------------------- */

typedef enum resin_status {
    RESIN_OK = 0,
    RESIN_ERROR_ARGUMENT,  /* a value, dtype, name or option that is not allowed */
    RESIN_ERROR_SHAPE,     /* shapes that do not fit; the message names both */
    RESIN_ERROR_GRAPH,     /* use of a freed graph, or a saved tensor changed in place */
    RESIN_ERROR_MEMORY,    /* memory is out; the caller may free some and try again */
    RESIN_ERROR_FILE,      /* a file that is missing, truncated or not what it says */
    RESIN_ERROR_CANCELLED, /* resin_cancel was called */
    RESIN_ERROR_SYSTEM     /* a library or a system call failed */
} resin_status;

RESIN_API const char *resin_status_name(resin_status status);
/* The message of the last failure in this context; "" if there was none. Never NULL. */
RESIN_API const char *resin_error_message(const resin_context *context);

/* ---- Context -------------------------------------------------------------------------------- */

/* A new engine instance, or NULL if memory is out. Threads: as many as the process may use (CPU
 * affinity and the container's CPU quota), at most 64. */
RESIN_API resin_context *resin_context_new(void);
/* Gives the caller's reference back; tensors hold the context too, so the order does not matter. */
RESIN_API void resin_context_release(resin_context *context);

RESIN_API int resin_threads(const resin_context *context);
/* 1 <= threads <= 64, else RESIN_ERROR_ARGUMENT. The host's own OpenMP settings stay as they are. */
RESIN_API resin_status resin_set_threads(resin_context *context, int threads);

/* Asks training loops to stop after the step they are in: sets a flag that they poll. The one
 * function that may be called from another thread or a signal handler. */
RESIN_API void resin_cancel(resin_context *context);
/* Whether resin_cancel was called; with `clear`, forgets it. */
RESIN_API bool resin_cancelled(resin_context *context, bool clear);

/* The instruction set whose kernels run: "v4", "v3", "v2" or "generic". RESIN_ISA in the
 * environment chooses a lower one. */
RESIN_API const char *resin_instruction_set(void);

typedef struct resin_memory_info {
    size_t held;   /* bytes of tensors alive */
    size_t peak;   /* the most that `held` has been */
    size_t cached; /* bytes kept for reuse */
    size_t system_allocations; /* how often memory was taken from the system */
} resin_memory_info;

RESIN_API resin_memory_info resin_memory(const resin_context *context);
/* Gives cached memory back to the system. */
RESIN_API void resin_memory_trim(resin_context *context);
/* Starts a new measurement of the peak. */
RESIN_API void resin_memory_reset_peak(resin_context *context);

/* ---- Random numbers ------------------------------------------------------------------------- */

/* The whole random state: Philox4x32-10 keyed by `seed`; each draw of a tensor takes the next
 * `stream`, so the numbers do not depend on threads. */
typedef struct resin_random_state { uint64_t seed, stream; } resin_random_state;

RESIN_API void resin_seed(resin_context *context, uint64_t seed);
RESIN_API resin_random_state resin_random_get(const resin_context *context);
RESIN_API void resin_random_set(resin_context *context, resin_random_state state);

/* ---- Tensors -------------------------------------------------------------------------------- */

typedef enum resin_dtype {
    RESIN_FLOAT32, RESIN_FLOAT64, RESIN_INT32, RESIN_INT64, RESIN_UINT8, RESIN_DTYPE_COUNT
} resin_dtype;

RESIN_API const char *resin_dtype_name(resin_dtype dtype);
RESIN_API size_t resin_dtype_size(resin_dtype dtype);
/* By name ("float32"); false if there is no such dtype. */
RESIN_API bool resin_dtype_from_name(const char *name, resin_dtype *dtype);

/* Uninitialized. */
RESIN_API resin_status resin_empty(resin_context *context, resin_dtype dtype, int rank,
                                   const int64_t *shape, resin_tensor **out);
RESIN_API resin_status resin_full(resin_context *context, resin_dtype dtype, int rank,
                                  const int64_t *shape, double value, resin_tensor **out);
/* first, first + step, ... (count values). */
RESIN_API resin_status resin_arange(resin_context *context, resin_dtype dtype, double first,
                                    double step, int64_t count, resin_tensor **out);
/* Uniform in [low, high), or normal with mean and deviation; float32 and float64. */
RESIN_API resin_status resin_uniform(resin_context *context, resin_dtype dtype, int rank,
                                     const int64_t *shape, double low, double high,
                                     resin_tensor **out);
RESIN_API resin_status resin_normal(resin_context *context, resin_dtype dtype, int rank,
                                    const int64_t *shape, double mean, double deviation,
                                    resin_tensor **out);
/* A random order of 0 .. count - 1 (int64). */
RESIN_API resin_status resin_permutation(resin_context *context, int64_t count, resin_tensor **out);

/* A tensor over the caller's memory, nothing copied: row-major, aligned to the dtype's size, valid
 * until `free_function(user)` is called, when the last view is gone (it may be NULL). */
RESIN_API resin_status resin_from_buffer(resin_context *context, void *data, resin_dtype dtype,
                                         int rank, const int64_t *shape,
                                         void (*free_function)(void *user), void *user,
                                         resin_tensor **out);

RESIN_API resin_tensor *resin_retain(resin_tensor *tensor);
RESIN_API void resin_release(resin_tensor *tensor); /* NULL is allowed */

RESIN_API resin_context *resin_tensor_context(const resin_tensor *tensor);
RESIN_API resin_dtype resin_tensor_dtype(const resin_tensor *tensor);
RESIN_API int resin_tensor_rank(const resin_tensor *tensor);
RESIN_API const int64_t *resin_tensor_shape(const resin_tensor *tensor);
RESIN_API const int64_t *resin_tensor_strides(const resin_tensor *tensor); /* in elements */
RESIN_API int64_t resin_tensor_count(const resin_tensor *tensor);          /* elements */
RESIN_API bool resin_tensor_contiguous(const resin_tensor *tensor);
/* The first element. Writing through it is the caller's affair: call resin_tensor_touch after. */
RESIN_API void *resin_tensor_data(const resin_tensor *tensor);
/* Says that the data were changed in place, so that backward can refuse stale saved tensors. */
RESIN_API void resin_tensor_touch(resin_tensor *tensor);

/* One element by position (rank entries), as a double; int64 beyond 2^53 through the int64 pair. */
RESIN_API resin_status resin_get(const resin_tensor *tensor, const int64_t *position, double *value);
RESIN_API resin_status resin_set(resin_tensor *tensor, const int64_t *position, double value);
RESIN_API resin_status resin_get_int64(const resin_tensor *tensor, const int64_t *position,
                                       int64_t *value);
RESIN_API resin_status resin_set_int64(resin_tensor *tensor, const int64_t *position, int64_t value);

/* In place: destination = source, broadcast and converted. Counts as a change of the destination;
 * an error if the destination takes part in a graph and gradients are recorded. */
RESIN_API resin_status resin_copy(resin_tensor *destination, resin_tensor *source);
RESIN_API resin_status resin_fill(resin_tensor *destination, double value);

/* ---- Ops ------------------------------------------------------------------------------------ */

/* Every op of the table (core/ops/table.c) is called through resin_apply. An attribute that is not
 * given has the default of the op's signature; a wrong name or kind is an error. */
typedef enum resin_value_kind {
    RESIN_VALUE_NUMBER, RESIN_VALUE_INT, RESIN_VALUE_BOOL, RESIN_VALUE_INTS, RESIN_VALUE_STRING
} resin_value_kind;

enum { RESIN_MAX_INTS = 8, RESIN_MAX_STRING = 32, RESIN_MAX_ATTRIBUTES = 12 };

typedef struct resin_attribute {
    const char *name;
    resin_value_kind kind;
    double number;
    int64_t integer; /* RESIN_VALUE_INT and RESIN_VALUE_BOOL */
    int count;       /* RESIN_VALUE_INTS */
    int64_t ints[RESIN_MAX_INTS];
    const char *string;
} resin_attribute;

/* inputs: `count` tensors in the signature's order; NULL for an optional one that is left out. */
RESIN_API resin_status resin_apply(resin_context *context, const char *op,
                                   resin_tensor *const *inputs, int count,
                                   const resin_attribute *attributes, int attribute_count,
                                   resin_tensor **out);

/* Row `index` of the table of ops, for bindings, documentation and tests. */
typedef struct resin_op_argument {
    const char *name;
    const char *kind;        /* "tensor" or an attribute's: number, int, bool, string, ints, axis,
                                axes, base; the last three are what Lua counts from 1 */
    const char *fallback;    /* an attribute's default as text, "required" if there is none */
    bool optional, variadic; /* of tensors */
} resin_op_argument;
typedef struct resin_op_info {
    const char *name, *signature, *doc;
    const char *check; /* cases of the gradient check (see core/ops/op.h); NULL: no gradient */
    int tensor_count, attribute_count;
    const resin_op_argument *tensor, *attribute;
} resin_op_info;
RESIN_API int resin_op_count(void);
RESIN_API resin_op_info resin_op_describe(int index);

/* ---- Gradients ------------------------------------------------------------------------------ */

/* A leaf whose gradient backward leaves in resin_tensor_grad. float32 and float64 only. */
RESIN_API resin_status resin_require_grad(resin_tensor *tensor, bool required);
RESIN_API bool resin_requires_grad(const resin_tensor *tensor); /* leaf or result of a graph */
/* Borrowed, NULL before the first backward. */
RESIN_API resin_tensor *resin_tensor_grad(const resin_tensor *tensor);
/* Forgets the gradient (NULL), or sets the tensor that the next backward writes to: its first write
 * stores, later ones add. Same shape and dtype, contiguous. */
RESIN_API void resin_clear_grad(resin_tensor *tensor);
RESIN_API resin_status resin_set_grad(resin_tensor *tensor, resin_tensor *grad);
/* The same data outside of the graph. */
RESIN_API resin_status resin_detach(resin_tensor *tensor, resin_tensor **out);
/* Gradients of a scalar (grad = NULL: 1) or of any tensor with a given grad of its shape. Added to
 * what the leaves hold. Frees the graph unless keep_graph. */
RESIN_API resin_status resin_backward(resin_tensor *tensor, resin_tensor *grad, bool keep_graph);
/* Whether ops are recorded; returns what was set before. */
RESIN_API bool resin_set_recording(resin_context *context, bool recording);
RESIN_API bool resin_recording(const resin_context *context);

/* How conv2d is computed: "auto" (the fastest by shape) or "direct" (no Winograd: exact to
 * rounding). See core/ops/conv_method.c. */
RESIN_API resin_status resin_set_conv_method(resin_context *context, const char *method);
RESIN_API const char *resin_conv_method(const resin_context *context);

/* ---- Measuring ------------------------------------------------------------------------------ */

/* The multiply-adds that the context's threads do at most right now, in GFLOP/s (two operations
 * each): what a measured speed is to be compared with. Takes about half a second. */
RESIN_API double resin_measure_peak(resin_context *context);

#ifdef __cplusplus
}
#endif
#endif
