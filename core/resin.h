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
/* 1 <= threads <= 64, else RESIN_ERROR_ARGUMENT. The host's own threads and
 * OpenMP settings are not touched. */
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
/* The first element. Writing through it is the caller's affair: call resin_tensor_touch after.
 * NULL if the elements of a deferred result could not be computed for want of memory. */
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

/* A function of tensors. run stores new references to its results in `outputs`, which has room for
 * RESIN_MAX_BLOCK_TENSORS, and their number; after a failure nothing. release, which may be NULL, is
 * called when nobody will run it again. */
enum { RESIN_MAX_BLOCK_TENSORS = 32 };
typedef struct resin_block {
    resin_status (*run)(void *user, resin_tensor *const *inputs, int input_count,
                        resin_tensor **outputs, int *output_count);
    void (*release)(void *user);
    void *user;
} resin_block;
/* Runs a block for backward without keeping what is computed inside: backward runs it again, with
 * the random numbers of the first time, and without moving running statistics a second time. The
 * gradients are those without a checkpoint, but for rounding where a large convolution or pooling
 * would sum a batch norm's gradient across the block's border. The block must do the same both
 * times; what it uses of a graph must be among its inputs. Takes the block over, also when it
 * fails. */
RESIN_API resin_status resin_checkpoint(resin_context *context, const resin_block *block,
                                        resin_tensor *const *inputs, int input_count,
                                        resin_tensor **outputs, int *output_count);

/* Whether ops are recorded; returns what was set before. */
RESIN_API bool resin_set_recording(resin_context *context, bool recording);
RESIN_API bool resin_recording(const resin_context *context);

/* How conv2d is computed: "auto" (the fastest by shape) or "direct" (no Winograd, no Strassen: exact
 * to rounding). Against float64, standard normal pixels and weights of variance 1 / (taps x
 * channels), 3x3 with stride 1 or 2 and 5x5, from 16 to 512 channels and up to 56x56 pixels, and 7x7
 * with stride 2 from 1 to 16: Winograd's largest error is 9e-5 and its root mean square 5e-6 (up to
 * 64 channels 3e-5 and 2e-6), those of the direct sum 2e-5 and 2e-6 (6e-6 and 7e-7). Strassen's
 * product, of 1x1 beside a batch normalization in training only, from 256 to 2048 channels: 1e-5 and
 * 9e-7. See core/ops/conv_method.c and conv_strassen.c. */
RESIN_API resin_status resin_set_conv_method(resin_context *context, const char *method);
RESIN_API const char *resin_conv_method(const resin_context *context);

/* ---- Plans ---------------------------------------------------------------------------------- */

/* A computation recorded once, to be run again and again on inputs of the same shapes: the ops as
 * they were called, without the code around them, in one block of memory that is laid out
 * beforehand. A run allocates nothing, cannot run out of memory, and gives the same bits as the ops
 * called one by one.
 *
 *   resin_plan_begin(context, &image, 1);   from here on resin_apply also records
 *   ... resin_apply ... resin_apply ...
 *   resin_plan_end(context, &scores, 1, &plan);
 *
 *   const void *pixels = ...;
 *   resin_plan_run(plan, &pixels);
 *   const float *result = resin_plan_output(plan, 0).data;
 *
 * What the ops read and none of them made is a constant. It is held, not copied: weights that are
 * changed in place later (resin_copy, resin_safetensors_load_into, an optimizer; after writing to
 * resin_tensor_data call resin_tensor_touch) count in the next run. A convolution's weights are kept
 * a second time, arranged as its kernel reads them, and arranged anew when they have changed. What
 * the code between the ops does is done once: a branch that looks at an element takes the same way
 * in every run, and a tensor made there (resin_full, resin_normal) is a constant.
 *
 * It is an error, of the op or of resin_plan_end, to record an op that draws random numbers or
 * changes its inputs (dropout, batch norm in training), a gradient, or a change in place of a
 * tensor that takes part. A plan is run by one thread at a time, as everything in its context is;
 * the run itself uses the context's threads. */
typedef struct resin_plan resin_plan;

/* Begins to record. The inputs are examples: contiguous, of the shapes and dtypes that all runs
 * have; where the code looks at elements, theirs count. No gradients are recorded until the end. */
RESIN_API resin_status resin_plan_begin(resin_context *context, resin_tensor *const *inputs,
                                        int count);
/* Ends the recording, with a plan or with an error. Runs the plan once to see what memory it wants,
 * and gives what the arena has cached back to the system. */
RESIN_API resin_status resin_plan_end(resin_context *context, resin_tensor *const *outputs,
                                      int count, resin_plan **plan);
/* Ends it without a plan, as after an error; does nothing if none is recorded. */
RESIN_API void resin_plan_cancel(resin_context *context);

RESIN_API resin_plan *resin_plan_retain(resin_plan *plan);
RESIN_API void resin_plan_release(resin_plan *plan); /* NULL is allowed */
RESIN_API resin_context *resin_plan_context(const resin_plan *plan);

/* Computes the outputs. inputs[i]: the elements of input i, row-major, aligned to the dtype's size;
 * read where they are. The first run after resin_set_threads or resin_set_conv_method lays the
 * memory out anew, and may allocate. */
RESIN_API resin_status resin_plan_run(resin_plan *plan, const void *const *inputs);

/* Inputs and outputs are numbered as they were given. */
typedef struct resin_plan_value {
    resin_dtype dtype;
    int rank;
    const int64_t *shape; /* the plan's */
    const void *data; /* of an output: row-major, until the next run; NULL if there was none. Of an
                         input NULL */
} resin_plan_value;
RESIN_API int resin_plan_inputs(const resin_plan *plan);
RESIN_API int resin_plan_outputs(const resin_plan *plan);
RESIN_API resin_plan_value resin_plan_input(const resin_plan *plan, int index);
RESIN_API resin_plan_value resin_plan_output(const resin_plan *plan, int index);
/* Bytes of the block: all results and scratch, without inputs and constants. */
RESIN_API size_t resin_plan_memory(const resin_plan *plan);
/* Bytes of the constants that the plan keeps a second time, arranged as the ops read them. */
RESIN_API size_t resin_plan_kept_memory(const resin_plan *plan);

/* ---- Measuring ------------------------------------------------------------------------------ */

/* The multiply-adds that the context's threads do at most right now, in GFLOP/s (two operations
 * each): what a measured speed is to be compared with. Takes about half a second. */
RESIN_API double resin_measure_peak(resin_context *context);

/* How fast the context's threads read memory, and how fast they copy it (y = factor x; bytes read
 * and bytes written together), in GB/s (10^9 bytes). Two buffers of four times the last cache, 64
 * to 256 MB each, are taken from the system meanwhile. Takes about half a second. */
typedef struct resin_bandwidth { double read, copy; } resin_bandwidth;
RESIN_API resin_status resin_measure_bandwidth(resin_context *context, resin_bandwidth *bandwidth);

/* How long a line of the cache takes from one of the context's threads to another and back, in
 * seconds: about 0.1 us between processors with a common cache, several times that where they share
 * none, and then all that one thread makes and another reads takes longer. A virtual machine's may
 * change from one to the other while it runs. 0 with one thread, and where a second one does not
 * come. Takes some milliseconds. */
RESIN_API double resin_measure_handover(resin_context *context);

/* A profile: what the ops did and how long it took, as a list of events in the order in which they
 * ended. Off at first, and then it costs one test of a flag. An event with a `method` is a part of
 * the next one without: a convolution or a product inside of the op that stands behind it. */
typedef struct resin_profile_event {
    const char *name;   /* of the op; of a part "conv2d" or "product" */
    const char *pass;   /* of the op "forward" or "backward"; of a convolution "forward", "data",
                           "weights", or "backward" for these two in one; of a product NULL */
    const char *method; /* how a part was computed; NULL: an op */
    int64_t mark;       /* what resin_profile_mark had set when the op ran forward */
    double seconds;
    double multiply_adds; /* of a part, counted directly whatever the method */
    double bytes_read, bytes_written; /* of an op: its tensors, each once */
} resin_profile_event;

/* Starts a profile; what an older one holds is forgotten. Events beyond `capacity` are counted, not
 * kept. */
RESIN_API resin_status resin_profile_start(resin_context *context, int64_t capacity);
/* The events are there until the next profile starts. */
RESIN_API void resin_profile_stop(resin_context *context);
/* A number for the events to come, as that of a layer; returns the one before. 0 at first. */
RESIN_API int64_t resin_profile_mark(resin_context *context, int64_t mark);
/* Returns how many events were kept; `lost`: how many were not. */
RESIN_API int64_t resin_profile_events(const resin_context *context,
                                       const resin_profile_event **events, int64_t *lost);

/* ---- Files and data ------------------------------------------------------------------------- */

/* Readers check a file against its own header before memory is asked for. A file that is missing,
 * truncated, damaged or foreign is RESIN_ERROR_FILE with a message that names it; nothing in a file
 * is ever run. Labels count from 0. Paths are the system's, as fopen takes them. */

/* An IDX file (MNIST and its kin), plain or gzipped, of any rank from 1: unsigned bytes give uint8,
 * signed bytes, shorts and ints int32, floats and doubles float32 and float64. Gzipped files need
 * an engine that was built with zlib. */
RESIN_API resin_status resin_idx_read(resin_context *context, const char *path, resin_tensor **out);

/* The binary version of CIFAR-10 in a folder (or in its folder cifar-10-batches-bin):
 * data_batch_1.bin to data_batch_5.bin, or test_batch.bin with `test`. images: uint8
 * (count, 32, 32, 3); labels: int64 (count), 0 to 9. */
RESIN_API resin_status resin_cifar10_read(resin_context *context, const char *folder, bool test,
                                          resin_tensor **images, resin_tensor **labels);
/* CIFAR-100: train.bin or test.bin in the folder or in its folder cifar-100-binary; the labels are
 * the 100 classes, with `superclass` the 20. */
RESIN_API resin_status resin_cifar100_read(resin_context *context, const char *folder, bool test,
                                           bool superclass, resin_tensor **images,
                                           resin_tensor **labels);

/* numpy's .npy files, versions 1 to 3, either byte order, either order of axes. f2 gives float32;
 * i1, i2 and u2 int32; u4 int64; u8 int64 where the values fit; b1 uint8. Arrays of objects are
 * refused. Written: version 1, row-major, little-endian; any strides. The file appears under its
 * name when it is complete (a temporary name in the same folder before). */
RESIN_API resin_status resin_npy_read(resin_context *context, const char *path, resin_tensor **out);
RESIN_API resin_status resin_npy_write(resin_context *context, const char *path,
                                       const resin_tensor *tensor);

/* A safetensors file, opened and checked as a whole: header of at most 100 MB, no holes, no
 * overlaps, no name twice, every offset inside of the file. Loading reads one tensor at a time. The
 * handle holds the context; it is closed with resin_safetensors_close (NULL is allowed). */
typedef struct resin_safetensors resin_safetensors;
RESIN_API resin_status resin_safetensors_open(resin_context *context, const char *path,
                                              resin_safetensors **out);
RESIN_API void resin_safetensors_close(resin_safetensors *file);

/* Tensors are numbered from 0 in the order of their bytes. Strings and shapes belong to the file's
 * handle. Outside of 0 .. count - 1 the name is NULL. */
typedef struct resin_safetensors_info {
    const char *name;
    const char *stored_dtype; /* in the file: "F32", "BF16", ... */
    resin_dtype dtype; /* when loaded; RESIN_DTYPE_COUNT: cannot be loaded (F8_E4M3, C64, ...) */
    int rank;
    const int64_t *shape;
} resin_safetensors_info;
RESIN_API int64_t resin_safetensors_count(const resin_safetensors *file);
RESIN_API resin_safetensors_info resin_safetensors_describe(const resin_safetensors *file,
                                                            int64_t index);
/* The number of the tensor with a name, or -1. */
RESIN_API int64_t resin_safetensors_find(const resin_safetensors *file, const char *name);
/* A new tensor. F32, F64, I32, I64 and U8 as they are; F16 and BF16 become float32; I8, I16 and U16
 * int32; U32 int64; U64 int64, an error if a value does not fit; BOOL uint8 with 0 and 1. */
RESIN_API resin_status resin_safetensors_load(resin_safetensors *file, int64_t index,
                                              resin_tensor **out);
/* Into a tensor of the same shape (else RESIN_ERROR_SHAPE), converted to its dtype; a change in
 * place that no graph records. If reading fails, the contents are undefined. */
RESIN_API resin_status resin_safetensors_load_into(resin_safetensors *file, int64_t index,
                                                   resin_tensor *destination);
/* The strings of "__metadata__": by key (NULL if there is none), or number `index` in the order of
 * their keys: the key, and the value through `value` (NULL beyond the last). */
RESIN_API const char *resin_safetensors_metadata(const resin_safetensors *file, const char *key);
RESIN_API int64_t resin_safetensors_metadata_count(const resin_safetensors *file);
RESIN_API const char *resin_safetensors_metadata_at(const resin_safetensors *file, int64_t index,
                                                    const char **value);
/* Writes `count` tensors (of any strides) under their names, and metadata_count strings, these in
 * the order of their keys. Names and strings are UTF-8; a name or key given twice, or the name
 * "__metadata__", is RESIN_ERROR_ARGUMENT. Atomic: under `path` is either the old file or the
 * complete new one, and a failure leaves no other file. */
RESIN_API resin_status resin_safetensors_write(resin_context *context, const char *path,
                                               const char *const *names,
                                               resin_tensor *const *tensors, int64_t count,
                                               const char *const *metadata_keys,
                                               const char *const *metadata_values,
                                               int64_t metadata_count);

/* The embedded set of images, drawn from formulas: uint8 (count, 32, 32, 3), labels int64 (count),
 * image i has the class i mod 10. Image i depends on (seed, test, i) only: a larger count continues
 * a smaller one, and training and test images are different draws. */
RESIN_API resin_status resin_synthetic_images(resin_context *context, uint64_t seed, bool test,
                                              int64_t count, resin_tensor **images,
                                              resin_tensor **labels);
/* "disk", "square", ... for 0 to 9, else NULL. */
RESIN_API const char *resin_synthetic_class_name(int label);
/* Noise with random labels: shape is (count, height, width, channels). */
RESIN_API resin_status resin_random_images(resin_context *context, uint64_t seed,
                                           const int64_t shape[4], int64_t classes,
                                           resin_tensor **images, resin_tensor **labels);

enum { RESIN_MAX_CHANNELS = 4, RESIN_MAX_PAD = 4096 };

/* How images become a batch. A byte becomes (byte / 255 - mean) / deviation, by channel. With `pad`,
 * the normalized image is padded with that many zeros on each side (that is: with the mean colour,
 * as in He et al. 2015, section 4.2) and a window of the original size is taken at random; with
 * `flip`, one image in two is mirrored left to right; with `cutout`, a square of that many pixels a
 * side around a random pixel is set to zero (DeVries and Taylor 2017). Which window and square, and
 * whether mirrored, depends on (seed, epoch, record) only. */
typedef struct resin_batch_settings {
    int pad;
    bool flip;
    float mean[RESIN_MAX_CHANNELS], deviation[RESIN_MAX_CHANNELS];
    uint64_t seed, epoch;
    int cutout;
} resin_batch_settings;

/* The images with the numbers records[0 .. count - 1] (from 0; each may come several times) of
 * `images`, uint8 (all, height, width, channels), contiguous, at most RESIN_MAX_CHANNELS channels.
 * out: float32 (count, height, width, channels). */
RESIN_API resin_status resin_image_batch(resin_context *context, const resin_tensor *images,
                                         const int64_t *records, int64_t count,
                                         const resin_batch_settings *settings, resin_tensor **out);
/* Their labels: int64 (all) to int64 (count). */
RESIN_API resin_status resin_label_batch(resin_context *context, const resin_tensor *labels,
                                         const int64_t *records, int64_t count, resin_tensor **out);
/* The records of an epoch, int64 (count): 0 to count - 1 in order, or with `shuffle` in an order
 * that depends on (seed, epoch, count) only. The context's random state is not used. */
RESIN_API resin_status resin_epoch_order(resin_context *context, int64_t count, bool shuffle,
                                         uint64_t seed, uint64_t epoch, resin_tensor **out);
/* Mean and deviation (of the population) of each channel of uint8 images, on the scale 0 to 1. */
RESIN_API resin_status resin_image_statistics(resin_context *context, const resin_tensor *images,
                                              double mean[RESIN_MAX_CHANNELS],
                                              double deviation[RESIN_MAX_CHANNELS]);

/* The picture in a JPEG or PNG file (told by its first bytes): uint8 (height, width, 3), the pixels
 * of PIL's Image.open(path).convert("RGB"). Grey is repeated, palettes are looked up, transparency
 * is left out, of 16 bits the high byte is taken (but grey ones of 16 bits are cut at 255, as PIL
 * does), CMYK is converted without a profile; an EXIF orientation is not applied. RESIN_ERROR_FILE
 * where the engine was built without the format's library, and for more than 178,956,970 pixels. */
RESIN_API resin_status resin_image_read(resin_context *context, const char *path,
                                        resin_tensor **out);
/* Whether the engine was built with the library for "jpeg" or "png". */
RESIN_API bool resin_image_format(const char *name);

enum { RESIN_MAX_SIDE = 1 << 20 };

/* Images here are uint8 (height, width, 3), contiguous. Bilinear with antialiasing, the same bytes
 * as PIL's Image.resize(BILINEAR). */
RESIN_API resin_status resin_image_resize(resin_context *context, const resin_tensor *image,
                                          int64_t height, int64_t width, resin_tensor **out);
/* Resized so that the shorter side has `shorter` pixels (0: as it is), then height x width pixels
 * from the centre, zeros where it has less: torchvision's Resize(shorter) and CenterCrop. */
RESIN_API resin_status resin_image_fit(resin_context *context, const resin_tensor *image,
                                       int64_t shorter, int64_t height, int64_t width,
                                       resin_tensor **out);

/* The names in a folder, uint8 of rank 1: strings that end with a zero byte, in the order of their
 * bytes, those of folders with a '/' at the end. Names that begin with a dot are left out. */
RESIN_API resin_status resin_folder_list(resin_context *context, const char *path,
                                         resin_tensor **out);

/* How pictures of any size become images of height x width: resin_image_fit with `shorter`, or with
 * `random` a rectangle of a random part of the picture's area (area[0] to area[1], at most 1) and a
 * random ratio of width to height (ratio[0] to ratio[1]), resized: torchvision's RandomResizedCrop,
 * with draws of the engine's own. */
typedef struct resin_picture_settings {
    int64_t height, width, shorter;
    bool random;
    double area[2], ratio[2];
} resin_picture_settings;

/* Batches made in the background by threads of the loader's own, which see raw buffers and no
 * tensors: at most `ahead` batches wait in a ring, so a slow trainer is never run over. Order and
 * pixels are those of resin_epoch_order, resin_image_batch and resin_label_batch, whatever the
 * number of workers; 0 workers: each batch is made when it is asked for (so it is in the child after
 * a fork). The loader holds images and labels, which must not change while it lives, and goes on
 * into the next epoch while the caller does something else. */
typedef struct resin_loader_settings {
    resin_batch_settings batch; /* batch.epoch is the first epoch */
    int64_t batch_size;         /* the last batch of an epoch has what is left */
    bool shuffle, drop_last;    /* drop_last: no batch with less than batch_size */
    int64_t step;               /* the first epoch starts at this batch, from 0 */
    int64_t epochs;             /* how many to make; 0: no end */
    int workers;                /* 0 to 64 */
    int ahead;                  /* 1 to 64 */
} resin_loader_settings;

typedef struct resin_loader resin_loader;
RESIN_API resin_status resin_loader_new(resin_context *context, resin_tensor *images,
                                        resin_tensor *labels,
                                        const resin_loader_settings *settings, resin_loader **out);
/* The same for pictures in files: path i belongs to label i. Each is read when it is needed, so the
 * memory is that of the batches in the ring and of one picture for each worker. A file that cannot
 * be read is the error of resin_loader_next where its batch would come. */
RESIN_API resin_status resin_picture_loader_new(resin_context *context, const char *const *paths,
                                                resin_tensor *labels,
                                                const resin_picture_settings *pictures,
                                                const resin_loader_settings *settings,
                                                resin_loader **out);
/* The next batch, two new tensors; both NULL at the end of each epoch, and always after the last.
 * When memory is out nothing is lost: the call can be made again. */
RESIN_API resin_status resin_loader_next(resin_loader *loader, resin_tensor **images,
                                         resin_tensor **labels);
/* What the next call gives: epoch, and batch from 0 (resin_loader_batches: the end of the epoch).
 * A loader started there goes on with the same bits. */
RESIN_API void resin_loader_position(const resin_loader *loader, uint64_t *epoch, int64_t *step);
RESIN_API int64_t resin_loader_batches(const resin_loader *loader); /* of a whole epoch */
/* Seconds that resin_loader_next took, all together: what the trainer waited for data. */
RESIN_API double resin_loader_waited(const resin_loader *loader);
/* Stops the workers, at any moment, and frees what is left. Batches handed out stay valid. NULL is
 * allowed. */
RESIN_API void resin_loader_close(resin_loader *loader);

/* An image, uint8 (height, width, channels), contiguous, as the bytes of a PNG file (uint8 of rank
 * 1): grey, grey with alpha, RGB or RGBA by its 1 to 4 channels. Compressed where the engine was
 * built with zlib. */
RESIN_API resin_status resin_png_encode(resin_context *context, const resin_tensor *image,
                                        resin_tensor **file);

/* ---- Parameters and optimizers -------------------------------------------------------------- */

/* The parameters of a model in one flat buffer and their gradients in another, so that an optimizer
 * goes over them in one sweep. Each tensor is a segment; between segments lie up to 15 zeros. */
typedef struct resin_parameters resin_parameters;

typedef struct resin_segment {
    int64_t offset, length; /* where it lies in the flat buffers, in elements; cannot be set */
    double rate_scale;      /* multiplies the learning rate; 1 at first */
    double decay;           /* multiplies the optimizer's weight_decay; 1 at first */
    double l1, l2;          /* as if l1 sum |w| + l2 sum w^2 were added to the loss; 0 at first */
    bool frozen;            /* not trained: no gradient is computed, no state is kept */
} resin_segment;

/* Takes leaves, contiguous, all float32 or all float64. The tensors become views of the flat buffer
 * (the same objects, with their values), and their gradients views of the flat gradient. A tensor
 * given twice (tied) is one segment; one that requires no gradient is frozen. A tensor belongs to
 * the last parameters it was given to. */
RESIN_API resin_status resin_parameters_new(resin_context *context, resin_tensor *const *tensors,
                                            int count, resin_parameters **out);
RESIN_API resin_parameters *resin_parameters_retain(resin_parameters *parameters);
RESIN_API void resin_parameters_release(resin_parameters *parameters); /* NULL is allowed */

/* Segments, in the order in which their tensors were given first. */
RESIN_API int resin_parameters_count(const resin_parameters *parameters);
RESIN_API int resin_parameters_find(const resin_parameters *parameters,
                                    const resin_tensor *tensor); /* -1: not there */
RESIN_API resin_tensor *resin_parameters_tensor(const resin_parameters *parameters,
                                                int index); /* borrowed */
RESIN_API resin_status resin_parameters_segment(const resin_parameters *parameters, int index,
                                                resin_segment *segment);
RESIN_API resin_status resin_parameters_set_segment(resin_parameters *parameters, int index,
                                                    const resin_segment *segment);
/* The flat buffers, of one shape; borrowed. */
RESIN_API resin_tensor *resin_parameters_flat(const resin_parameters *parameters);
RESIN_API resin_tensor *resin_parameters_flat_grad(const resin_parameters *parameters);

/* Forgets the gradients: nothing is written, the next backward's first write stores. */
RESIN_API void resin_parameters_clear_grads(resin_parameters *parameters);
/* The L2 norm of all gradients together, in double; if it is greater than max_norm, the gradients
 * are multiplied by max_norm / (norm + 1e-6) (PyTorch's clip_grad_norm_). If it is not finite they
 * stay as they are. `norm` may be NULL. */
RESIN_API resin_status resin_parameters_clip_norm(resin_parameters *parameters, double max_norm,
                                                  double *norm);
/* The first segment whose gradient holds a NaN or an infinity, or -1. */
RESIN_API resin_status resin_parameters_check_finite(resin_parameters *parameters, int *index);
/* The penalties of the segments' l1 and l2, to be added to a loss that is shown. */
RESIN_API resin_status resin_parameters_penalty(resin_parameters *parameters, double *penalty);

/* An optimizer over parameters (held): "sgd", "adam", "adamw" or "rmsprop". Options:
 *   learning_rate, weight_decay, clip_norm (0: none), and rule: "keras" (the default) or "pytorch"
 *   sgd      momentum, nesterov, dampening (PyTorch)
 *   adam(w)  beta1, beta2, epsilon
 *   rmsprop  alpha, momentum, centered, epsilon
 * The rule says whose formulas and whose defaults (see core/optim/optimizer.c). A segment that got
 * no gradient since they were cleared is skipped. */
typedef struct resin_optimizer resin_optimizer;
RESIN_API resin_status resin_optimizer_new(resin_parameters *parameters, const char *name,
                                           const resin_attribute *options, int count,
                                           resin_optimizer **out);
RESIN_API void resin_optimizer_release(resin_optimizer *optimizer); /* NULL is allowed */
RESIN_API resin_status resin_optimizer_step(resin_optimizer *optimizer);
RESIN_API double resin_optimizer_rate(const resin_optimizer *optimizer);
RESIN_API resin_status resin_optimizer_set_rate(resin_optimizer *optimizer, double rate);

/* What a checkpoint needs. The names of the state's buffers ("momentum", "m", "v", "square",
 * "mean"): number 0, 1, ..., NULL behind the last. */
RESIN_API const char *resin_optimizer_state_name(const resin_optimizer *optimizer, int number);
/* One segment's part of it, a view to read or write; NULL for a segment that was always frozen. A
 * view is good until a frozen segment is trained again. */
RESIN_API resin_status resin_optimizer_state(resin_optimizer *optimizer, const char *name,
                                             int segment, resin_tensor **out);
/* Steps taken: of one segment (PyTorch counts those), or with -1 of the optimizer (Keras). */
RESIN_API int64_t resin_optimizer_steps(const resin_optimizer *optimizer, int segment);
RESIN_API resin_status resin_optimizer_set_steps(resin_optimizer *optimizer, int segment,
                                                 int64_t steps);

/* ---- Trees and boosting --------------------------------------------------------------------- */

/* A sum of regression trees, grown one after the other on what the sum still gets wrong (Friedman,
 * "Greedy function approximation: a gradient boosting machine", 2001). One tree alone is a sum of
 * one. Tables are tensors (rows, features); inputs are compared as float32, sums are float64. The
 * result is the same at any number of threads. */
typedef struct resin_trees resin_trees;

typedef enum resin_trees_loss {
    RESIN_TREES_SQUARED,  /* (y - f)^2 */
    RESIN_TREES_ABSOLUTE, /* |y - f| */
    RESIN_TREES_HUBER,    /* squared up to the quantile `alpha` of |y - f|, absolute beyond */
    RESIN_TREES_QUANTILE, /* the quantile `alpha` */
    RESIN_TREES_LOG       /* log loss of classes 0 .. classes - 1; two classes: one score */
} resin_trees_loss;

typedef struct resin_trees_settings {
    resin_trees_loss loss;
    int64_t classes; /* of the log loss, at least 2 */
    double alpha;
    int64_t stages; /* trees, or with three and more classes: groups of one tree for each class */
    double learning_rate;
    double subsample; /* the part of the rows, drawn for each stage, that a tree sees */
    bool zero_start;  /* the sum starts from 0, not from the best constant */
    int64_t max_depth;    /* 0: no limit */
    int64_t max_leaves;   /* 0: no limit; else the best leaf of all is split next */
    int64_t min_split, min_leaf; /* rows of a node that is split, and of a leaf */
    int64_t max_features; /* features drawn at each node; 0: all */
    uint64_t seed;
    /* A part of the rows (`validation`, 0 to 1) is kept apart, and growing ends when its loss has
     * not fallen by more than `tolerance` for `patience` stages; patience 0: never. */
    double validation, tolerance;
    int64_t patience;

    bool histogram; /* method: false: exact, every value is a possible threshold, scikit-learn's
                       results; true: values fall into at most `bins` bins, NaN is a missing value */
    /* exact */
    bool friedman; /* improvement as Friedman's criterion has it, else decrease of variance */
    double min_impurity_decrease;
    /* histogram */
    int64_t bins;          /* 2 to 255 */
    double l2;             /* added to the sum of second derivatives */
    double min_gain;       /* a split must gain more */
    double min_leaf_hessian; /* least sum of second derivatives (or weights) of a leaf */
    const int8_t *monotone;  /* by feature: 1 rising, -1 falling, 0 free; NULL: all free. With
                                the squared and the log loss */
    const bool *categorical; /* by feature: values are categories 0 .. 254; NULL: none */
} resin_trees_settings;

/* scikit-learn's defaults of gradient boosting: 100 trees of depth 3, learning rate 0.1. */
RESIN_API void resin_trees_defaults(resin_trees_settings *settings);

/* x: (rows, features), y: (rows), weights: (rows) of at least 0, or NULL. A row of weight 0 is left
 * out. If resin_cancel is called, growing ends after the stage. */
RESIN_API resin_status resin_trees_fit(resin_context *context, resin_tensor *x, resin_tensor *y,
                                       resin_tensor *weights, const resin_trees_settings *settings,
                                       resin_trees **out);
RESIN_API void resin_trees_release(resin_trees *trees); /* NULL is allowed */

typedef struct resin_trees_info {
    resin_trees_loss loss;
    int64_t features, classes, outputs; /* outputs: scores of a row */
    int64_t stages, nodes;
    double learning_rate;
    const double *initial;         /* by output: what the sum starts from */
    const double *train_loss;      /* by stage; NULL when loaded from a file */
    const double *validation_loss; /* by stage; NULL without a validation part */
} resin_trees_info;
RESIN_API resin_trees_info resin_trees_describe(const resin_trees *trees);

/* Scores, float64 (rows, outputs). `scores` are the sums of the stages before `first` (or what they
 * start from) and get those of the stages first .. last - 1. */
RESIN_API resin_status resin_trees_start(const resin_trees *trees, int64_t rows,
                                         resin_tensor **scores);
RESIN_API resin_status resin_trees_add(const resin_trees *trees, resin_tensor *x, int64_t first,
                                       int64_t last, resin_tensor *scores);
/* How much of the loss each feature took away, adding up to 1 (or all 0): float64 (features). */
RESIN_API resin_status resin_trees_importances(const resin_trees *trees, resin_tensor **out);

/* The model as tensors, number 0 .. RESIN_TREES_TENSORS - 1, each with its name:
 *   tree_first      int64 (trees + 1): the first node of each tree; nodes of a tree follow each
 *                   other, a node before its children, the left branch before the right one
 *   feature         int32: what is compared; -1: a leaf
 *   left, right     int32: the children, counted from the tree's first node
 *   threshold       float64: rows with x <= threshold go left
 *   value           float64: the node's value (before the learning rate)
 *   gain            float64: how much the split takes from the loss
 *   impurity        float64: mean squared deviation (exact method)
 *   weight, samples float64, int64: of the rows that reached it
 *   missing_left    uint8: where missing values go
 *   set             int32: the categories that go left: number in `sets`; -1: none
 *   sets            int64 (count, 4): 256 bits
 *   initial         float64 (outputs)
 * What is read back is checked, so that no file can lead outside of a tree. */
enum { RESIN_TREES_TENSORS = 14 };
RESIN_API const char *resin_trees_tensor_name(int number);
RESIN_API resin_status resin_trees_export(const resin_trees *trees, int number,
                                          resin_tensor **out);
RESIN_API resin_status resin_trees_import(resin_context *context,
                                          resin_tensor *const tensors[RESIN_TREES_TENSORS],
                                          resin_trees_loss loss, int64_t features, int64_t classes,
                                          double learning_rate, resin_trees **out);

#ifdef __cplusplus
}
#endif
#endif
