/* op_profile.h: what a profile (core/base/profile.h) holds of the calls of ops. */
#ifndef RESIN_OPS_OP_PROFILE_H
#define RESIN_OPS_OP_PROFILE_H

#include "core/ops/op.h"

/* Behind forward: seconds since `begun` (profile_begin), inputs and result. */
void op_profile_forward(const op_call *call, double begun);

/* A backward that is being timed: backward hands gradients on, so they are counted before and timed
 * after. */
typedef struct op_backward_profile {
    double begun, bytes_read, bytes_written;
    int64_t mark; /* of before */
} op_backward_profile;

void op_profile_backward_begin(const op_call *call, op_backward_profile *profile);
void op_profile_backward_count(const op_call *call, op_backward_profile *profile);
void op_profile_backward_end(const op_call *call, const op_backward_profile *profile);

#endif
