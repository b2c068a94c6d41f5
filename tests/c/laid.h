/* laid.h: tensors that lie in memory in strange ways, and how tests read them: one element at a
 * time, by position. */
#ifndef RESIN_TESTS_LAID_H
#define RESIN_TESTS_LAID_H

#include "tests/c/tensors.h"

/* Setup and teardown of a group of tests: *state is a context. */
int laid_context(void **state);
int laid_release(void **state);

int64_t count_of(const resin_tensor *t);
/* Position number `i` in row-major order. */
void position_of(const resin_tensor *t, int64_t i, int64_t position[RESIN_MAX_RANK]);
double get(const resin_tensor *t, int64_t i);
int64_t get_int64(const resin_tensor *t, int64_t i);
test_shape shape_of(const resin_tensor *t);

/* Values that every dtype holds; for the floats not only integers. */
resin_tensor *drawn(resin_context *context, resin_dtype dtype, test_shape size);
/* The same, laid out dense (0), with the axes reversed in memory (1), or as every second element of
 * a larger tensor, backward along every other axis (2). */
resin_tensor *laid(resin_context *context, resin_dtype dtype, test_shape size, int how);
test_shape random_shape(int64_t least_rank, int64_t greatest_rank, int64_t greatest_size);

void assert_shape(const resin_tensor *t, test_shape expected);
void same_bits(const resin_tensor *a, const resin_tensor *b);

#endif
