/* op.h: what an op is: the contract between the table of ops (table.c), the ops' own files, and the
 * machinery that calls and differentiates them (apply.c, autograd.c).
 *
 * An op is one row of the table:
 *   name       in C resin_apply(context, "elu", ...), in Lua resin.elu(x, ...) and x:elu(...)
 *   signature  tensors, then attributes after a semicolon, e.g.
 *                "x, weights, bias?; stride: ints = 1, padding: ints = 0, groups: int = 1"
 *              A tensor with `?` may be left out; `xs*` takes any number of tensors (at least one).
 *              With `~` (behind those) forward takes one whose elements do not exist yet
 *              (tensor_compute).
 *              Kinds of attributes: number, int, bool, string, ints (up to 8 integers; a default of
 *              "none" is the empty list), and those that Lua counts from 1: axis (an int), axes (an
 *              ints; "none" = all axes), base (an int: what positions in integer tensors count
 *              from; 0 in C, 1 in Lua). A default `required` must be given.
 *   doc        one line of maths
 *   forward    checks dtypes and shapes, makes call->out and computes it
 *   backward   NULL where there is no gradient
 *   check      the gradient check's cases as Lua tables, separated by commas; each names the
 *              tensors' shapes and the attributes: "{x = {2, 3}, alpha = 0.5}". A tensor may be
 *              {shape = {2, 3}, low = 0.1, high = 2}  values drawn from [low, high), default normal
 *              {shape = {4}, integers = 5}            int64 labels 1 .. 5, no gradient wanted
 *              {shape = {3}, constant = true}         float, but no gradient wanted
 *              {shape = {4}, mask = true}             uint8, 0 or 1, no gradient wanted
 *              "distinct = true" keeps the values apart (for maxima); numbers as dimension names
 *              "n", "h", "w", "c" in a shape are drawn at random, the same within a case.
 *              NULL: no gradient to check.
 *
 * forward and backward run on whole tensors outside of any graph: nothing they call is recorded.
 * Backward sees only what forward saved. */
#ifndef RESIN_OPS_OP_H
#define RESIN_OPS_OP_H

#include "core/tensor/tensor.h"

enum { OP_MAX_SAVED = 6, OP_SAVED_NUMBERS = 16, OP_MAX_KEPT = 2 };

typedef struct op_value {
    double number;
    int64_t integer; /* int, bool, axis, base */
    int count;       /* ints, axes */
    int64_t ints[RESIN_MAX_INTS];
    char string[RESIN_MAX_STRING];
} op_value;

/* What a call that a plan repeats keeps from run to run (op_keep). */
typedef struct op_kept {
    struct {
        void *block; /* NULL: nothing yet; the plan releases it */
        size_t size;
        uint64_t versions; /* of what it was made of */
    } slot[OP_MAX_KEPT];
    uint32_t constants; /* bit i: input i is the same tensor in all runs */
} op_kept;

typedef struct op_call {
    resin_context *context;
    const struct op_row *op;
    const struct op_signature *signature;

    int inputs;
    resin_tensor **in; /* forward only: borrowed, NULL where an optional one was left out */
    op_value value[RESIN_MAX_ATTRIBUTES];
    resin_tensor *out; /* forward makes it */
    bool recording;    /* forward: a graph node will be made, so what backward needs must be saved;
                          false in inference: ops may skip work that only backward needs */
    op_kept *kept;     /* forward in a run of a plan; else NULL */
    bool *wants_grad;  /* by input: whether its gradient is wanted (both passes) */

    /* What forward leaves for backward. */
    resin_tensor *saved[OP_MAX_SAVED];
    uint64_t saved_version[OP_MAX_SAVED];
    int64_t saved_number[OP_SAVED_NUMBERS]; /* geometry, e.g. a conv_shape */
    int64_t mark; /* of the profile, when forward ran (resin_profile_mark) */

    /* Backward: the gradient of `out` (same shape and dtype, any strides), and where the inputs'
     * gradients go: see op_input_grad. */
    resin_tensor *out_grad;
    void *found; /* what the op that finished out_grad found out on the way; memory of the context */
    resin_tensor **in_grad;
    const struct op_edge *edge; /* shapes and dtypes of the inputs, for op_input_grad */
} op_call;

typedef struct op_row {
    const char *name, *signature, *doc;
    resin_status (*forward)(op_call *call);
    resin_status (*backward)(op_call *call);
    const char *check;
} op_row;

extern const op_row op_table[];
extern const int op_table_count;

/* ---- Attributes by name (the name must stand in the signature) ------------------------------- */

const op_value *op_attribute(const op_call *call, const char *name);
static inline double op_number(const op_call *call, const char *name) {
    return op_attribute(call, name)->number;
}
static inline int64_t op_int(const op_call *call, const char *name) {
    return op_attribute(call, name)->integer;
}
static inline bool op_bool(const op_call *call, const char *name) {
    return op_attribute(call, name)->integer != 0;
}
static inline const char *op_string(const op_call *call, const char *name) {
    return op_attribute(call, name)->string;
}

/* ---- Forward -------------------------------------------------------------------------------- */

/* Keeps a tensor for backward in slot `slot` (retained; its version is checked in backward). Does
 * nothing when no graph is recorded. An input or `call->out` may be saved, too. */
void op_save(op_call *call, int slot, resin_tensor *tensor);

/* Whether what is made of these inputs alone (numbers, some perhaps left out) can be kept from run to
 * run: in a plan, if no other op makes one of them. */
bool op_keeps(const op_call *call, const int *inputs, int count);
/* The block, of always the same size, that the call keeps in slot `slot` for what is made of these
 * inputs; *made tells that this has been done and that none was changed in place since. */
resin_status op_keep(op_call *call, int slot, const int *inputs, int count, size_t size,
                     void **block, bool *made);

/* Errors with the op's name in front: op_fail(call, RESIN_ERROR_SHAPE, "expected ..., got %s"). */
resin_status op_fail(const op_call *call, resin_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Input `index` is float32 or float64, and all float inputs have the first one's dtype. */
resin_status op_check_float(const op_call *call, int index);
/* Input `index` has exactly this rank. */
resin_status op_check_rank(const op_call *call, int index, int rank);

/* ---- Backward ------------------------------------------------------------------------------- */

/* The tensor that the gradient of input `index` is to be written to, every element of it:
 * contiguous, of the input's shape and dtype. Call only if call->wants_grad[index]. It is either
 * new or the leaf's own gradient buffer. */
resin_status op_input_grad(op_call *call, int index, resin_tensor **grad);
/* The gradient of input `index` as far as other ops have made it, to be added to in place of
 * op_input_grad: contiguous and nobody else's; NULL where there is none. */
resin_tensor *op_begun_grad(const op_call *call, int index);
/* The call that made input `index`, if all of its output's gradient but this op's part is there:
 * added to op_begun_grad, if there is one, the part makes it whole. Else NULL. */
op_call *op_finished_before(const op_call *call, int index);
/* Gives an existing tensor (of the input's shape and dtype, any strides; retained here) as the
 * gradient of input `index`, without a copy. */
void op_give_grad(op_call *call, int index, resin_tensor *grad);
/* Gives `grad` summed over the axes along which the input was broadcast to grad's shape. */
resin_status op_give_grad_broadcast(op_call *call, int index, resin_tensor *grad);
/* Shape of input `index` as it was in forward. */
const int64_t *op_input_shape(const op_call *call, int index, int *rank);

/* out_grad as a contiguous tensor; the caller releases it. */
resin_status op_out_grad_contiguous(op_call *call, resin_tensor **grad);

#endif
