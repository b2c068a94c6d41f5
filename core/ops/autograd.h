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
    int pending;  /* during backward: edges to it of nodes that have not run */
    op_call call; /* op, attributes and saved tensors; its `in` is NULL */
    op_edge *edge;
    resin_dtype dtype; /* of the output */
    int rank;
    int64_t shape[RESIN_MAX_RANK];
    resin_tensor *grad;      /* during backward: gradient of the output so far */
    struct checkpoint *checkpoint; /* the block that the node stands for, see checkpoint.h */
    struct graph_node *next; /* in the list of nodes to free */
} graph_node;

/* Makes the node of a call that forward has computed, and gives it to call->out. */
resin_status graph_record(op_call *call);

/* For nodes that come from no call: a node without edges; an edge to what made a tensor, or to a
 * node; the node of a tensor that has none (takes over the reference). */
resin_status graph_node_new(resin_context *context, const op_row *op, int inputs, graph_node **out);
void graph_link_input(graph_node *node, int index, resin_tensor *input);
void graph_link_node(graph_node *node, int index, graph_node *before);
void graph_set_origin(resin_tensor *tensor, graph_node *node);
void graph_node_release(resin_context *context, graph_node *node);

/* Backward inside of a running one: from `tensors` with their gradients (NULL: none) through nodes
 * that are not older than `oldest`; those before them, which must be among those still to run, get
 * what flows there. Takes over the references in both lists. */
resin_status graph_backward_from(resin_context *context, resin_tensor **tensors,
                                 resin_tensor **grads, int count, uint64_t oldest);

#endif
