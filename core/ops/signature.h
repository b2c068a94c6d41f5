/* signature.h: the signatures of the table of ops, parsed once. */
#ifndef RESIN_OPS_SIGNATURE_H
#define RESIN_OPS_SIGNATURE_H

#include "core/ops/op.h"

enum { SIGNATURE_MAX_TENSORS = 12, SIGNATURE_TEXT = 512 };

typedef struct op_signature {
    int tensors, attributes, required_tensors;
    bool variadic;
    bool deferred[SIGNATURE_MAX_TENSORS]; /* may come without elements (tensor_compute) */
    resin_op_argument tensor[SIGNATURE_MAX_TENSORS];
    resin_op_argument attribute[RESIN_MAX_ATTRIBUTES];
    op_value fallback[RESIN_MAX_ATTRIBUTES];
    char text[SIGNATURE_TEXT]; /* what the names point into */
} op_signature;

/* The row's number by name, or -1. */
int signature_find(const char *name);
/* The parsed signature of row `index`. A row that does not parse has no arguments; the tests look
 * for that (signature_valid). */
const op_signature *signature_of(int index);
bool signature_valid(int index);
/* The attributes of a call: defaults, overwritten by what is given. */
resin_status signature_values(resin_context *context, int index, const resin_attribute *given,
                              int count, op_value value[RESIN_MAX_ATTRIBUTES]);

#endif
