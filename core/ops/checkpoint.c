/* checkpoint.c: see checkpoint.h. */
#include "core/ops/checkpoint.h"

#include "core/base/memory.h"
#include "core/base/profile.h"

#include <string.h>

struct checkpoint {
    resin_context *context;
    resin_block block;
    resin_random_state random; /* when forward ran */
    int inputs;
    resin_tensor *input[RESIN_MAX_BLOCK_TENSORS];
    uint64_t version[RESIN_MAX_BLOCK_TENSORS];
    resin_tensor *grad[RESIN_MAX_BLOCK_TENSORS]; /* of the outputs, during backward */
};

/* ---- The block ------------------------------------------------------------------------------- */

static void release_list(resin_tensor **tensors, int count) {
    for (int i = 0; i < count; i++) {
        resin_release(tensors[i]);
        tensors[i] = NULL;
    }
}

void checkpoint_forget(checkpoint *c) { release_list(c->grad, RESIN_MAX_BLOCK_TENSORS); }

void checkpoint_free(checkpoint *c) {
    checkpoint_forget(c);
    release_list(c->input, c->inputs);
    if (c->block.release) c->block.release(c->block.user);
    resin_deallocate(c->context, c);
}

static resin_status checkpoint_new(resin_context *context, const resin_block *block,
                                   resin_tensor *const *inputs, int count, checkpoint **out) {
    void *memory;
    if (count < 1 || count > RESIN_MAX_BLOCK_TENSORS)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "checkpoint: expected 1 to %d inputs, got %d", RESIN_MAX_BLOCK_TENSORS,
                          count);
    for (int i = 0; i < count; i++)
        if (!inputs[i] || inputs[i]->context != context)
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "checkpoint: input %d is missing or belongs to another context", i);
    RESIN_TRY(resin_allocate(context, sizeof **out, &memory));
    checkpoint *c = memory;
    memset(c, 0, sizeof *c);
    c->context = context;
    c->block = *block;
    c->random = context->random;
    c->inputs = count;
    for (int i = 0; i < count; i++) {
        c->input[i] = resin_retain(inputs[i]);
        c->version[i] = inputs[i]->storage->version;
    }
    *out = c;
    return RESIN_OK;
}

static resin_status check_results(const checkpoint *c, resin_tensor *const *outputs, int count) {
    if (count < 0 || count > RESIN_MAX_BLOCK_TENSORS) {
        return resin_fail(c->context, RESIN_ERROR_ARGUMENT,
                          "checkpoint: expected at most %d results of the block, got %d",
                          RESIN_MAX_BLOCK_TENSORS, count);
    }
    for (int i = 0; i < count; i++) {
        if (outputs[i]) continue;
        return resin_fail(c->context, RESIN_ERROR_ARGUMENT,
                          "checkpoint: the block gave %d results, but number %d is NULL", count,
                          i + 1);
    }
    return RESIN_OK;
}

static resin_status run_block(checkpoint *c, resin_tensor **outputs, int *count) {
    *count = 0;
    memset(outputs, 0, RESIN_MAX_BLOCK_TENSORS * sizeof *outputs);
    (void)resin_fail(c->context, RESIN_OK, "checkpoint: the block failed"); /* if it says no more */
    resin_status status = c->block.run(c->block.user, c->input, c->inputs, outputs, count);
    if (status == RESIN_OK) status = check_results(c, outputs, *count);
    if (status != RESIN_OK) {
        release_list(outputs, RESIN_MAX_BLOCK_TENSORS);
        *count = 0;
    }
    return status;
}

/* ---- Forward --------------------------------------------------------------------------------- */

/* Runs the block without recording; *wanted: whether something in it would have been recorded. A
 * block inside of another one that runs like that is a part of it. */
static resin_status run_first(checkpoint *c, resin_tensor **outputs, int *count, bool *wanted) {
    resin_context *context = c->context;
    bool probing = context->probing, noticed = context->noticed;
    context->probing = true;
    context->noticed = false;
    resin_status status = run_block(c, outputs, count);
    *wanted = context->noticed && !probing;
    context->probing = probing;
    context->noticed |= noticed;
    return status;
}

/* An output's node leaves its gradient with the block's, which its edge leads to. */
static resin_status output_backward(op_call *call) {
    checkpoint *c = call->edge[0].node->checkpoint;
    c->grad[call->saved_number[0]] = resin_retain(call->out_grad);
    return RESIN_OK;
}

static const op_row block_row = {.name = "checkpoint"};
static const op_row output_row = {.name = "checkpoint", .backward = output_backward};

/* Replaces an output by a view that the graph has made. One that the block only hands through, or
 * that has no gradient, stays. */
static resin_status record_output(checkpoint *c, graph_node *block, int index,
                                  resin_tensor **output) {
    resin_tensor *view;
    graph_node *node;
    if (!tensor_is_float(*output) || resin_requires_grad(*output)) return RESIN_OK;
    RESIN_TRY(resin_detach(*output, &view));
    resin_status status = graph_node_new(c->context, &output_row, 1, &node);
    if (status != RESIN_OK) {
        resin_release(view);
        return status;
    }
    node->call.saved_number[0] = index;
    graph_link_node(node, 0, block);
    graph_set_origin(view, node);
    resin_release(*output);
    *output = view;
    return RESIN_OK;
}

/* Makes the block's node, which has the checkpoint from here on. */
static resin_status record(checkpoint *c, resin_tensor **outputs, int count) {
    graph_node *block;
    resin_status status = graph_node_new(c->context, &block_row, c->inputs, &block);
    if (status != RESIN_OK) {
        checkpoint_free(c);
        return status;
    }
    block->checkpoint = c;
    block->call.mark = c->context->profile.mark;
    for (int i = 0; i < c->inputs; i++) graph_link_input(block, i, c->input[i]);
    for (int i = 0; i < count && status == RESIN_OK; i++)
        status = record_output(c, block, i, &outputs[i]);
    graph_node_release(c->context, block);
    return status;
}

resin_status resin_checkpoint(resin_context *context, const resin_block *block,
                              resin_tensor *const *inputs, int count, resin_tensor **outputs,
                              int *output_count) {
    checkpoint *c = NULL;
    bool wanted = false;
    *output_count = 0;
    resin_status status = checkpoint_new(context, block, inputs, count, &c);
    if (status != RESIN_OK) {
        if (block->release) block->release(block->user);
        return status;
    }
    status = run_first(c, outputs, output_count, &wanted);
    if (status == RESIN_OK && wanted) status = record(c, outputs, *output_count);
    else checkpoint_free(c);
    if (status != RESIN_OK) {
        release_list(outputs, *output_count);
        *output_count = 0;
    }
    return status;
}

/* ---- Backward -------------------------------------------------------------------------------- */

/* As forward ran, but recorded: the same random numbers; running statistics stay. */
static resin_status run_again(checkpoint *c, resin_tensor **outputs, int *count) {
    resin_context *context = c->context;
    resin_random_state random = context->random;
    bool recording = context->recording, probing = context->probing;
    bool replaying = context->replaying;
    context->random = c->random;
    context->recording = context->replaying = true;
    context->probing = false;
    resin_status status = run_block(c, outputs, count);
    context->random = random;
    context->recording = recording;
    context->probing = probing;
    context->replaying = replaying;
    return status;
}

static resin_status check_inputs(const checkpoint *c) {
    for (int i = 0; i < c->inputs; i++)
        if (c->input[i]->storage->version != c->version[i])
            return resin_fail(c->context, RESIN_ERROR_GRAPH,
                              "backward of checkpoint: input %d was changed in place since", i);
    return RESIN_OK;
}

/* What the block gave must fit the gradients. */
static resin_status check_outputs(const checkpoint *c, resin_tensor *const *outputs) {
    for (int i = 0; i < RESIN_MAX_BLOCK_TENSORS; i++) {
        const resin_tensor *grad = c->grad[i];
        if (!grad) continue;
        if (!outputs[i] || !tensor_same_shape(outputs[i], grad) || outputs[i]->dtype != grad->dtype)
            return resin_fail(c->context, RESIN_ERROR_GRAPH,
                              "backward of checkpoint: the block gave another output %d than in "
                              "forward", i);
    }
    return RESIN_OK;
}

resin_status checkpoint_backward(checkpoint *c, int64_t mark) {
    resin_tensor *outputs[RESIN_MAX_BLOCK_TENSORS];
    bool has_grad = false;
    int count;
    for (int i = 0; i < RESIN_MAX_BLOCK_TENSORS; i++) has_grad |= c->grad[i] != NULL;
    if (!has_grad) return RESIN_OK;
    RESIN_TRY(check_inputs(c));
    uint64_t oldest = c->context->node_sequence;
    int64_t mark_before = resin_profile_mark(c->context, mark);
    resin_status status = run_again(c, outputs, &count);
    if (status == RESIN_OK) status = check_outputs(c, outputs);
    if (status == RESIN_OK)
        status = graph_backward_from(c->context, outputs, c->grad, count, oldest);
    release_list(outputs, RESIN_MAX_BLOCK_TENSORS);
    resin_profile_mark(c->context, mark_before);
    return status;
}
