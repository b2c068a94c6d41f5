/* rows.h: walking over strided operands in parallel, a row at a time. */
#ifndef RESIN_OPS_ROWS_H
#define RESIN_OPS_ROWS_H

#include "core/tensor/tensor.h"

/* `n` neighbours of each operand, which begin `offset` elements after its first one and are
 * it->inner_stride apart. */
typedef void (*row_body)(void *argument, const tensor_iterator *it, int64_t n,
                         const int64_t offset[ITERATE_MAX]);

/* Elements that are worth a thread. */
enum { ROWS_GRAIN = 1 << 14 };

/* Calls body for every row, on the context's threads. Long rows are cut, so that a call never has
 * more than some ROWS_GRAIN elements; every cut depends on the shape only. */
void rows_parallel(resin_context *context, const tensor_iterator *it, row_body body,
                   void *argument);

#endif
