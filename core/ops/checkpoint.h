/* checkpoint.h: blocks whose inside is computed again in backward, so that it need not be kept.
 *
 * Forward runs the block without recording. In the graph stand one node for the block (its edges
 * lead to what made the inputs) and one for each output, which leaves its gradient with the block.
 * Backward of the block's node runs the block once more, now recording, on the same inputs: what is
 * recorded hangs on the same nodes as the first time, so that backward through it does what it
 * would have done without a checkpoint, in the same order. */
#ifndef RESIN_OPS_CHECKPOINT_H
#define RESIN_OPS_CHECKPOINT_H

#include "core/ops/autograd.h"

typedef struct checkpoint checkpoint;

/* Runs the block again and backward through it, if gradients have come. */
resin_status checkpoint_backward(checkpoint *c, int64_t mark);
/* Drops the gradients of a backward that failed. */
void checkpoint_forget(checkpoint *c);
void checkpoint_free(checkpoint *c);

#endif
