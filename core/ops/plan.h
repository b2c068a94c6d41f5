/* plan.h: what apply.c and the tensors tell a plan that is recorded (plan.c). */
#ifndef RESIN_OPS_PLAN_H
#define RESIN_OPS_PLAN_H

#include "core/ops/op.h"

/* What an op must leave as it is, looked at before and after: an op that draws random numbers or
 * changes its inputs cannot be run again. */
typedef struct plan_state {
    uint64_t versions, stream;
} plan_state;
plan_state plan_look(const op_call *call);

/* Adds a call that forward has computed to the plan that is recorded. */
resin_status plan_record(op_call *call, plan_state before);

#endif
