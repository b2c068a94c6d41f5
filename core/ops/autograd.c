/* autograd.c: recording and running the graph backward. Both the walk and the release of nodes are
 * loops, so that a graph may be as long as memory allows. */
#include "core/ops/autograd.h"

#include "core/base/memory.h"
#include "core/ops/checkpoint.h"
#include "core/ops/grad_sum.h"
#include "core/ops/op_profile.h"

#include <stdlib.h>
#include <string.h>

/* ---- Nodes ---------------------------------------------------------------------------------- */

static graph_node *node_of(const resin_tensor *tensor) { return (graph_node *)tensor->origin; }

static void node_release(resin_context *context, graph_node *node);

static void origin_release(resin_context *context, tensor_origin *origin) {
    node_release(context, (graph_node *)origin);
}

/* What a node holds for backward; the edges hold the nodes before it. */
static void node_empty(resin_context *context, graph_node *node) {
    for (int i = 0; i < OP_MAX_SAVED; i++) {
        resin_release(node->call.saved[i]);
        node->call.saved[i] = NULL;
    }
    for (int i = 0; i < node->call.inputs; i++) {
        resin_release(node->edge[i].leaf);
        node->edge[i].leaf = NULL;
        if (node->edge[i].node) node_release(context, node->edge[i].node);
        node->edge[i].node = NULL;
    }
    if (node->checkpoint) checkpoint_free(node->checkpoint);
    node->checkpoint = NULL;
    node->freed = true;
}

/* Gives a reference back; nodes that die are freed in a loop, however long their chain. */
static void node_release(resin_context *context, graph_node *node) {
    if (atomic_fetch_sub_explicit(&node->references, 1, memory_order_acq_rel) != 1) return;
    node->next = context->dead_nodes;
    context->dead_nodes = node;
    if (context->freeing_nodes) return; /* the loop below, further up the stack, takes it */
    context->freeing_nodes = true;
    while (context->dead_nodes) {
        graph_node *dead = context->dead_nodes;
        context->dead_nodes = dead->next;
        node_empty(context, dead);
        resin_release(dead->grad);
        resin_deallocate(context, dead);
    }
    context->freeing_nodes = false;
}

/* One block of memory: the node, its edges, wants_grad and in_grad. */
static resin_status node_new(resin_context *context, int inputs, graph_node **out) {
    size_t edges = (size_t)inputs * sizeof(op_edge), grads = (size_t)inputs * sizeof(resin_tensor *);
    void *memory;
    RESIN_TRY(resin_allocate(context, sizeof(graph_node) + edges + grads + (size_t)inputs, &memory));
    graph_node *node = memory;
    memset(node, 0, sizeof *node + edges + grads + (size_t)inputs);
    node->origin.release = origin_release;
    atomic_init(&node->references, 1);
    node->sequence = context->node_sequence++;
    node->edge = (op_edge *)(node + 1);
    node->call.in_grad = (resin_tensor **)((char *)node->edge + edges);
    node->call.wants_grad = (bool *)((char *)node->call.in_grad + grads);
    node->call.context = context;
    node->call.inputs = inputs;
    node->call.edge = node->edge;
    *out = node;
    return RESIN_OK;
}

/* A saved output must not hold its own node. */
static resin_status detach_saved_output(op_call *call) {
    for (int i = 0; i < OP_MAX_SAVED; i++) {
        if (call->saved[i] != call->out) continue;
        resin_tensor *view;
        RESIN_TRY(tensor_view(call->out, call->out->rank, call->out->shape, call->out->stride,
                              call->out->offset, &view));
        resin_release(call->saved[i]);
        call->saved[i] = view;
    }
    return RESIN_OK;
}

static void edge_fill(op_edge *edge, resin_tensor *input, bool wants_grad) {
    if (!input) return;
    edge->dtype = input->dtype;
    edge->rank = input->rank;
    memcpy(edge->shape, input->shape, sizeof edge->shape);
    if (!wants_grad) return;
    if (input->origin) {
        atomic_fetch_add_explicit(&node_of(input)->references, 1, memory_order_relaxed);
        edge->node = node_of(input);
    } else {
        edge->leaf = resin_retain(input);
    }
}

resin_status graph_record(op_call *call) {
    RESIN_TRY(detach_saved_output(call));
    graph_node *node;
    RESIN_TRY(node_new(call->context, call->inputs, &node));
    resin_tensor **in_grad = node->call.in_grad;
    bool *wants_grad = node->call.wants_grad;
    for (int i = 0; i < call->inputs; i++) {
        edge_fill(&node->edge[i], call->in[i], call->wants_grad[i]);
        wants_grad[i] = call->wants_grad[i];
    }
    node->call = *call; /* the saved tensors are the node's from here on */
    node->call.in = NULL;
    node->call.out = NULL;
    node->call.in_grad = in_grad;
    node->call.wants_grad = wants_grad;
    node->call.edge = node->edge;
    node->dtype = call->out->dtype;
    node->rank = call->out->rank;
    memcpy(node->shape, call->out->shape, sizeof node->shape);
    graph_set_origin(call->out, node);
    return RESIN_OK;
}

resin_status graph_node_new(resin_context *context, const op_row *op, int inputs,
                            graph_node **out) {
    RESIN_TRY(node_new(context, inputs, out));
    (*out)->call.op = op;
    return RESIN_OK;
}

void graph_link_input(graph_node *node, int index, resin_tensor *input) {
    edge_fill(&node->edge[index], input, tensor_is_float(input) && resin_requires_grad(input));
}

void graph_link_node(graph_node *node, int index, graph_node *before) {
    atomic_fetch_add_explicit(&before->references, 1, memory_order_relaxed);
    node->edge[index].node = before;
}

void graph_set_origin(resin_tensor *tensor, graph_node *node) { tensor->origin = &node->origin; }

void graph_node_release(resin_context *context, graph_node *node) { node_release(context, node); }

/* ---- Leaves --------------------------------------------------------------------------------- */

resin_status resin_require_grad(resin_tensor *tensor, bool required) {
    if (required && !tensor_is_float(tensor))
        return resin_fail(tensor->context, RESIN_ERROR_ARGUMENT,
                          "require_grad: expected float32 or float64, got %s",
                          resin_dtype_name(tensor->dtype));
    if (tensor->origin)
        return resin_fail(tensor->context, RESIN_ERROR_GRAPH, "require_grad: the tensor is the "
                          "result of a graph; only leaves can be changed (use detach)");
    tensor->requires_grad = required;
    return RESIN_OK;
}

bool resin_requires_grad(const resin_tensor *tensor) {
    return tensor->requires_grad || tensor->origin;
}

resin_tensor *resin_tensor_grad(const resin_tensor *tensor) {
    return tensor->grad_is_set ? tensor->grad : NULL;
}

void resin_clear_grad(resin_tensor *tensor) {
    tensor->grad_is_set = false;
    if (tensor->grad_is_given) return; /* the next backward writes there */
    resin_release(tensor->grad);
    tensor->grad = NULL;
}

resin_status resin_set_grad(resin_tensor *tensor, resin_tensor *grad) {
    if (grad && (!tensor_same_shape(tensor, grad) || grad->dtype != tensor->dtype ||
                 !resin_tensor_contiguous(grad))) {
        char a[SHAPE_TEXT], b[SHAPE_TEXT];
        return resin_fail(tensor->context, RESIN_ERROR_SHAPE,
                          "set_grad: expected a contiguous %s of shape %s, got %s of shape %s",
                          resin_dtype_name(tensor->dtype),
                          shape_format(tensor->rank, tensor->shape, a),
                          resin_dtype_name(grad->dtype),
                          shape_format(grad->rank, grad->shape, b));
    }
    if (grad) RESIN_TRY(tensor_compute(grad));
    if (grad) resin_retain(grad);
    resin_release(tensor->grad);
    tensor->grad = grad;
    tensor->grad_is_set = false;
    tensor->grad_is_given = grad != NULL;
    return RESIN_OK;
}

resin_status resin_detach(resin_tensor *tensor, resin_tensor **out) {
    RESIN_TRY(tensor_view(tensor, tensor->rank, tensor->shape, tensor->stride, tensor->offset,
                          out));
    (*out)->plan_serial = tensor->plan_serial; /* for a plan it is the same value */
    (*out)->plan_value = tensor->plan_value;
    return RESIN_OK;
}

/* ---- Accumulation --------------------------------------------------------------------------- */

/* A contiguous tensor that nobody else holds, with the values of `tensor`. Takes over the caller's
 * reference. */
static resin_status make_own(resin_tensor **tensor) {
    if (tensor_unshared(*tensor) && resin_tensor_contiguous(*tensor)) return RESIN_OK;
    resin_tensor *copy;
    RESIN_TRY(tensor_new_like(*tensor, &copy));
    resin_status status = tensor_copy_elements(copy, *tensor);
    resin_release(*tensor);
    *tensor = copy;
    return status;
}

/* *sum += grad, or *sum = grad if there is none; takes over the reference to grad. */
static resin_status accumulate(resin_tensor **sum, resin_tensor *grad) {
    if (!*sum) {
        *sum = grad;
        return RESIN_OK;
    }
    resin_status status = make_own(sum);
    if (status == RESIN_OK) grad_add(*sum, grad);
    resin_release(grad);
    return status;
}

/* The leaf's first gradient is stored, later ones are added; takes over the reference to grad. */
static resin_status accumulate_leaf(resin_tensor *leaf, resin_tensor *grad) {
    resin_status status = RESIN_OK;
    if (grad == leaf->grad && !leaf->grad_is_set) { /* backward wrote it in place */
        resin_release(grad);
    } else if (leaf->grad_is_set) {
        grad_add(leaf->grad, grad);
        resin_release(grad);
    } else if (leaf->grad) {
        status = tensor_copy_elements(leaf->grad, grad);
        resin_release(grad);
    } else {
        status = make_own(&grad);
        if (status == RESIN_OK)
            leaf->grad = grad;
        else
            resin_release(grad); /* it may be somebody else's: the leaf must not write to it later */
    }
    if (status != RESIN_OK) return status;
    leaf->grad_is_set = true;
    resin_tensor_touch(leaf->grad);
    return RESIN_OK;
}

/* ---- What backward functions use ------------------------------------------------------------ */

const int64_t *op_input_shape(const op_call *call, int index, int *rank) {
    *rank = call->edge[index].rank;
    return call->edge[index].shape;
}

resin_status op_input_grad(op_call *call, int index, resin_tensor **grad) {
    const op_edge *edge = &call->edge[index];
    resin_tensor *buffer = edge->leaf && !edge->leaf->grad_is_set ? edge->leaf->grad : NULL;
    for (int i = 0; buffer && i < call->inputs; i++)
        if (call->in_grad[i] == buffer) buffer = NULL; /* the same leaf is another input as well */
    if (buffer)
        call->in_grad[index] = resin_retain(buffer);
    else
        RESIN_TRY(tensor_new(call->context, edge->dtype, edge->rank, edge->shape,
                             &call->in_grad[index]));
    *grad = call->in_grad[index];
    return RESIN_OK;
}

resin_tensor *op_begun_grad(const op_call *call, int index) {
    const graph_node *node = call->edge[index].node;
    resin_tensor *grad = node ? node->grad : NULL;
    bool fits = grad && tensor_unshared(grad) && resin_tensor_contiguous(grad);
    return fits ? grad : NULL;
}

op_call *op_finished_before(const op_call *call, int index) {
    graph_node *node = call->edge[index].node;
    bool last = node && node->pending == 1 && (!node->grad || op_begun_grad(call, index));
    return last ? &node->call : NULL;
}

void op_give_grad(op_call *call, int index, resin_tensor *grad) {
    if (call->wants_grad[index]) call->in_grad[index] = resin_retain(grad);
}

resin_status op_out_grad_contiguous(op_call *call, resin_tensor **grad) {
    return tensor_contiguous(call->out_grad, grad);
}

resin_status op_give_grad_broadcast(op_call *call, int index, resin_tensor *grad) {
    if (!call->wants_grad[index]) return RESIN_OK;
    const op_edge *edge = &call->edge[index];
    if (grad->rank == edge->rank &&
        memcmp(grad->shape, edge->shape, (size_t)edge->rank * sizeof edge->shape[0]) == 0) {
        op_give_grad(call, index, grad);
        return RESIN_OK;
    }
    resin_tensor *to;
    RESIN_TRY(op_input_grad(call, index, &to));
    return grad_sum_to(grad, to);
}

/* ---- Backward ------------------------------------------------------------------------------- */

typedef struct node_list {
    graph_node **node; /* held */
    int64_t count, capacity;
} node_list;

static resin_status list_push(resin_context *context, node_list *list, graph_node *node) {
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 64;
        void *memory;
        RESIN_TRY(resin_allocate(context, (size_t)capacity * sizeof *list->node, &memory));
        if (list->count) memcpy(memory, list->node, (size_t)list->count * sizeof *list->node);
        resin_deallocate(context, list->node);
        list->node = memory;
        list->capacity = capacity;
    }
    atomic_fetch_add_explicit(&node->references, 1, memory_order_relaxed);
    node->reached = true;
    node->pending = 0;
    list->node[list->count++] = node;
    return RESIN_OK;
}

static int newest_first(const void *a, const void *b) {
    const graph_node *x = *(graph_node *const *)a, *y = *(graph_node *const *)b;
    return x->sequence < y->sequence ? 1 : x->sequence > y->sequence ? -1 : 0;
}

static resin_status foreign_node(resin_context *context, const graph_node *node) {
    return resin_fail(context, RESIN_ERROR_GRAPH,
                      "backward of checkpoint: the block uses the result of an op %s that is not "
                      "among its inputs", node->call.op->name);
}

/* Adds every node that those of the list depend on and that is not older than `oldest`, and puts
 * the newest first. Older ones must be among those that a backward around this one will run. */
static resin_status collect(resin_context *context, node_list *list, uint64_t oldest) {
    for (int64_t i = 0; i < list->count; i++) {
        graph_node *node = list->node[i];
        if (node->freed)
            return resin_fail(context, RESIN_ERROR_GRAPH,
                              "backward: the graph was already freed (at op %s); keep it with "
                              "keep_graph, or compute the result again", node->call.op->name);
        for (int e = 0; e < node->call.inputs; e++) {
            graph_node *before = node->edge[e].node;
            if (!before) continue;
            if (!before->reached) {
                if (before->sequence < oldest) return foreign_node(context, before);
                RESIN_TRY(list_push(context, list, before));
            }
            before->pending++;
        }
    }
    qsort(list->node, (size_t)list->count, sizeof *list->node, newest_first);
    return RESIN_OK;
}

static resin_status check_versions(const op_call *call) {
    for (int i = 0; i < OP_MAX_SAVED; i++)
        if (call->saved[i] && call->saved[i]->storage->version != call->saved_version[i])
            return resin_fail(call->context, RESIN_ERROR_GRAPH,
                              "backward of %s: a tensor that it saved was changed in place since",
                              call->op->name);
    return RESIN_OK;
}

/* Hands the gradients of a node's inputs on. Those that lie in their leaf's buffer come first: a
 * later one for the same leaf is then added. */
static resin_status deliver(op_call *call, bool in_place) {
    for (int i = 0; i < call->inputs; i++) {
        resin_tensor *grad = call->in_grad[i];
        const op_edge *edge = &call->edge[i];
        if (!grad || (edge->leaf && grad == edge->leaf->grad) != in_place) continue;
        call->in_grad[i] = NULL;
        resin_status status = RESIN_OK;
        if (edge->leaf)
            status = accumulate_leaf(edge->leaf, grad);
        else if (edge->node)
            status = accumulate(&edge->node->grad, grad);
        else
            resin_release(grad);
        RESIN_TRY(status);
    }
    return RESIN_OK;
}

static resin_status run_node(graph_node *node) {
    op_call *call = &node->call;
    if (node->checkpoint) return checkpoint_backward(node->checkpoint, call->mark);
    if (!node->grad) return RESIN_OK; /* nothing flowed here */
    RESIN_TRY(check_versions(call));
    call->out_grad = node->grad;
    node->grad = NULL;
    op_backward_profile profile;
    op_profile_backward_begin(call, &profile);
    resin_status status = call->op->backward(call);
    op_profile_backward_count(call, &profile);
    resin_release(call->out_grad);
    call->out_grad = NULL;
    if (status == RESIN_OK) status = deliver(call, true);
    if (status == RESIN_OK) status = deliver(call, false);
    for (int i = 0; i < call->inputs; i++) {
        resin_release(call->in_grad[i]);
        call->in_grad[i] = NULL;
    }
    op_profile_backward_end(call, &profile);
    return status;
}

static resin_status first_grad(resin_tensor *tensor, resin_tensor *grad, resin_tensor **out) {
    char a[SHAPE_TEXT], b[SHAPE_TEXT];
    if (!grad) {
        if (resin_tensor_count(tensor) != 1)
            return resin_fail(tensor->context, RESIN_ERROR_SHAPE,
                              "backward: a gradient must be given for a result of shape %s",
                              shape_format(tensor->rank, tensor->shape, a));
        return resin_full(tensor->context, tensor->dtype, tensor->rank, tensor->shape, 1.0, out);
    }
    if (!tensor_same_shape(tensor, grad) || tensor->dtype != grad->dtype)
        return resin_fail(tensor->context, RESIN_ERROR_SHAPE,
                          "backward: expected a gradient %s of shape %s, got %s of shape %s",
                          resin_dtype_name(tensor->dtype),
                          shape_format(tensor->rank, tensor->shape, a),
                          resin_dtype_name(grad->dtype),
                          shape_format(grad->rank, grad->shape, b));
    RESIN_TRY(tensor_compute(grad));
    *out = resin_retain(grad);
    return RESIN_OK;
}

/* Runs the nodes of a list that collect has made with `status`, and gives the list back. */
static resin_status run_list(resin_context *context, node_list *list, resin_status status,
                             bool keep_graph) {
    for (int64_t i = 0; i < list->count; i++) {
        graph_node *node = list->node[i];
        if (status == RESIN_OK) status = run_node(node);
        bool done = status == RESIN_OK && !keep_graph;
        for (int e = 0; e < node->call.inputs; e++)
            if (node->edge[e].node) node->edge[e].node->pending--;
        node->reached = false;
        resin_deallocate(context, node->call.found);
        node->call.found = NULL;
        resin_release(node->grad);
        node->grad = NULL;
        if (node->checkpoint) checkpoint_forget(node->checkpoint);
        if (done) node_empty(context, node);
        node_release(context, node);
    }
    resin_deallocate(context, list->node);
    return status;
}

static resin_status run_graph(resin_context *context, graph_node *root, resin_tensor *grad,
                              bool keep_graph) {
    node_list list = {0};
    resin_status status = list_push(context, &list, root);
    if (status == RESIN_OK) status = collect(context, &list, 0);
    if (status == RESIN_OK) status = accumulate(&root->grad, resin_retain(grad));
    return run_list(context, &list, status, keep_graph);
}

/* Gives a gradient (taken over) to what made the tensor. */
static resin_status begin_at(resin_context *context, resin_tensor *tensor, resin_tensor *grad,
                             uint64_t oldest, node_list *list) {
    graph_node *node = node_of(tensor);
    resin_status status = RESIN_OK;
    if (!node && tensor->requires_grad) return accumulate_leaf(tensor, grad);
    if (node && !node->reached)
        status = node->sequence < oldest ? foreign_node(context, node)
                                         : list_push(context, list, node);
    if (node && status == RESIN_OK) return accumulate(&node->grad, grad);
    resin_release(grad);
    return status;
}

resin_status graph_backward_from(resin_context *context, resin_tensor **tensors,
                                 resin_tensor **grads, int count, uint64_t oldest) {
    node_list list = {0};
    resin_status status = RESIN_OK;
    for (int i = 0; i < count; i++) {
        resin_tensor *grad = grads[i];
        grads[i] = NULL;
        if (grad && status == RESIN_OK)
            status = begin_at(context, tensors[i], grad, oldest, &list);
        else
            resin_release(grad);
        resin_release(tensors[i]);
        tensors[i] = NULL;
    }
    if (status == RESIN_OK) status = collect(context, &list, oldest);
    return run_list(context, &list, status, false);
}

resin_status resin_backward(resin_tensor *tensor, resin_tensor *grad, bool keep_graph) {
    resin_context *context = tensor->context;
    if (!resin_requires_grad(tensor))
        return resin_fail(context, RESIN_ERROR_GRAPH, "backward: the tensor is no result of a "
                          "graph: nothing it was made of requires a gradient");
    resin_tensor *first;
    RESIN_TRY(first_grad(tensor, grad, &first));
    if (!tensor->origin) return accumulate_leaf(tensor, first);
    resin_status status = run_graph(context, node_of(tensor), first, keep_graph);
    resin_release(first);
    return status;
}
