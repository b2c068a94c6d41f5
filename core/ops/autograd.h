/* autograd.h: the graph of recorded ops.
 *
 * Each recorded op is a node that holds what its backward reads (saved tensors, attributes) and an
 * edge for each input: to the node that made it, or to the leaf that wants a gradient. Nodes are
 * numbered as they are made, so descending numbers are a topological order. */
#ifndef RESIN_OPS_AUTOGRAD_H
#define RESIN_OPS_AUTOGRAD_H

#include "core/ops/op.h"

typedef struct op_edge {
    struct graph_node *node; /* held; NULL for leaves and constants */
    resin_tensor *leaf;      /* held; the leaf that gets the gradient */
    resin_dtype dtype;
    int rank;
    int64_t shape[RESIN_MAX_RANK];
} op_edge;

typedef struct graph_node {
    tensor_origin origin; /* first, so that a tensor's origin is its node */
    atomic_int references;
    uint64_t sequence;
    bool freed;   /* backward has run and released what was saved */
    bool reached; /* during backward: already in the list of nodes to run */
    op_call call; /* op, attributes and saved tensors; its `in` is NULL */
    op_edge *edge;
    resin_dtype dtype; /* of the output */
    int rank;
    int64_t shape[RESIN_MAX_RANK];
    resin_tensor *grad;      /* during backward: gradient of the output so far */
    struct graph_node *next; /* in the list of nodes to free */
} graph_node;

/* Makes the node of a call that forward has computed, and gives it to call->out. */
resin_status graph_record(op_call *call);

#endif
