/* fold.h: the engine of the reductions: folds a strided tensor over some of its axes. */
#ifndef RESIN_OPS_FOLD_H
#define RESIN_OPS_FOLD_H

#include "core/tensor/tensor.h"

/* The axes of a reduction: bit i stands for axis i. */
typedef unsigned axis_set;

/* Folds x over `reduced` with the kernel of that name (kernels/reductions.c) into `totals`: double
 * for float tensors, int64_t for the others, one for each output in row-major order of the axes
 * that stay. `center` has one value for each output, or is NULL. The caller frees `totals` with
 * resin_deallocate. The order of additions depends on the shape and strides only. */
resin_status fold_axes(const resin_tensor *x, axis_set reduced, const char *kernel,
                       const double *center, void **totals);

/* Converts totals to the elements of a contiguous tensor. */
void fold_store(resin_tensor *out, const void *totals);

/* Shape after the reduction; with `keep` the reduced axes stay with size 1. */
int fold_shape(const resin_tensor *x, axis_set reduced, bool keep, int64_t shape[RESIN_MAX_RANK]);
/* How many elements each output is made of. */
int64_t fold_length(const resin_tensor *x, axis_set reduced);

#endif
