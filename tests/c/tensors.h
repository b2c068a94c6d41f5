/* tensors.h: what tests of ops share: tensors from lists of numbers, and calls of ops that must
 * succeed. */
#ifndef RESIN_TESTS_TENSORS_H
#define RESIN_TESTS_TENSORS_H

#include "core/resin.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Fails the test with the context's message unless the call succeeded. */
void must_at(resin_context *context, resin_status status, const char *file, int line);
#define must(context, call) must_at(context, call, __FILE__, __LINE__)

/* Numbers in [-1, 1) that are the same in every run. */
double test_random(void);
int64_t test_integer(int64_t low, int64_t high);

typedef struct test_shape {
    int rank;
    int64_t size[RESIN_MAX_RANK];
} test_shape;
#define SHAPE(...) \
    ((test_shape){(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}})

/* values may be NULL: random ones. Float tensors from `leaf` want a gradient. */
resin_tensor *tensor_of(resin_context *context, resin_dtype dtype, test_shape size,
                        const double *values);
resin_tensor *leaf(resin_context *context, resin_dtype dtype, test_shape size,
                   const double *values);
/* Element i of a contiguous tensor, in row-major order. */
double at(const resin_tensor *tensor, int64_t i);
/* The gradient's element i; the test fails if there is none. */
double grad_at(const resin_tensor *tensor, int64_t i);

resin_attribute set_int(const char *name, int64_t value);
resin_attribute set_bool(const char *name, bool value);
resin_attribute set_number(const char *name, double value);
resin_attribute set_string(const char *name, const char *value);
resin_attribute set_ints(const char *name, int count, const int64_t *values);

/* An op on up to 8 tensors (the list ends with the last that is not NULL). */
typedef struct op_inputs {
    resin_tensor *tensor[8];
} op_inputs;
typedef struct op_options {
    int count;
    resin_attribute attribute[RESIN_MAX_ATTRIBUTES];
} op_options;
#define INPUTS(...) ((op_inputs){{__VA_ARGS__}})
#define OPTIONS(...)                                                                            \
    ((op_options){(int)(sizeof((resin_attribute[]){__VA_ARGS__}) / sizeof(resin_attribute)), \
                  {__VA_ARGS__}})
#define NO_OPTIONS ((op_options){0})
resin_status try_op(resin_context *context, const char *op, op_inputs inputs, op_options options,
                    resin_tensor **out);
resin_tensor *run_op(resin_context *context, const char *op, op_inputs inputs, op_options options);
/* The op must fail with this status and a message that contains every text (up to NULL). */
void fails_with(resin_context *context, resin_status status, const char *op, op_inputs inputs,
                op_options options, ...);

void assert_close(double found, double expected, double tolerance);
void release_all(op_inputs tensors);

#endif
