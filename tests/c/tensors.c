/* tensors.c: see tensors.h. */
#include "tests/c/tensors.h"

#include <stdio.h>

void must_at(resin_context *context, resin_status status, const char *file, int line) {
    if (status == RESIN_OK) return;
    print_error("%s: %s\n", resin_status_name(status), resin_error_message(context));
    _fail(file, line);
}

static uint64_t random_state = 20170412;

double test_random(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 40) / (1 << 23) - 1;
}

int64_t test_integer(int64_t low, int64_t high) {
    return low + (int64_t)((test_random() + 1) / 2 * (double)(high - low + 1));
}

static void set_at(resin_tensor *tensor, int64_t i, double value) {
    void *data = resin_tensor_data(tensor);
    switch (resin_tensor_dtype(tensor)) {
    case RESIN_FLOAT32: ((float *)data)[i] = (float)value; break;
    case RESIN_FLOAT64: ((double *)data)[i] = value; break;
    case RESIN_INT32: ((int32_t *)data)[i] = (int32_t)value; break;
    case RESIN_INT64: ((int64_t *)data)[i] = (int64_t)value; break;
    default: ((uint8_t *)data)[i] = (uint8_t)value; break;
    }
}

resin_tensor *tensor_of(resin_context *context, resin_dtype dtype, test_shape size,
                        const double *values) {
    resin_tensor *tensor;
    must(context, resin_empty(context, dtype, size.rank, size.size, &tensor));
    int64_t count = resin_tensor_count(tensor);
    for (int64_t i = 0; i < count; i++) set_at(tensor, i, values ? values[i] : test_random());
    return tensor;
}

resin_tensor *leaf(resin_context *context, resin_dtype dtype, test_shape size,
                   const double *values) {
    resin_tensor *tensor = tensor_of(context, dtype, size, values);
    must(context, resin_require_grad(tensor, true));
    return tensor;
}

double at(const resin_tensor *tensor, int64_t i) {
    const void *data = resin_tensor_data(tensor);
    assert_true(resin_tensor_contiguous(tensor));
    assert_in_range(i, 0, resin_tensor_count(tensor) - 1);
    switch (resin_tensor_dtype(tensor)) {
    case RESIN_FLOAT32: return (double)((const float *)data)[i];
    case RESIN_FLOAT64: return ((const double *)data)[i];
    case RESIN_INT32: return ((const int32_t *)data)[i];
    case RESIN_INT64: return (double)((const int64_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

double grad_at(const resin_tensor *tensor, int64_t i) {
    resin_tensor *grad = resin_tensor_grad(tensor);
    assert_non_null(grad);
    return at(grad, i);
}

resin_attribute set_int(const char *name, int64_t value) {
    return (resin_attribute){.name = name, .kind = RESIN_VALUE_INT, .integer = value};
}
resin_attribute set_bool(const char *name, bool value) {
    return (resin_attribute){.name = name, .kind = RESIN_VALUE_BOOL, .integer = value};
}
resin_attribute set_number(const char *name, double value) {
    return (resin_attribute){.name = name, .kind = RESIN_VALUE_NUMBER, .number = value};
}
resin_attribute set_string(const char *name, const char *value) {
    return (resin_attribute){.name = name, .kind = RESIN_VALUE_STRING, .string = value};
}
resin_attribute set_ints(const char *name, int count, const int64_t *values) {
    resin_attribute attribute = {.name = name, .kind = RESIN_VALUE_INTS, .count = count};
    memcpy(attribute.ints, values, (size_t)count * sizeof *values);
    return attribute;
}

resin_status try_op(resin_context *context, const char *op, op_inputs inputs, op_options options,
                    resin_tensor **out) {
    int count = 8;
    while (count > 0 && !inputs.tensor[count - 1]) count--;
    return resin_apply(context, op, inputs.tensor, count, options.attribute, options.count, out);
}

resin_tensor *run_op(resin_context *context, const char *op, op_inputs inputs,
                     op_options options) {
    resin_tensor *out;
    must(context, try_op(context, op, inputs, options, &out));
    return out;
}

void fails_with(resin_context *context, resin_status status, const char *op, op_inputs inputs,
                op_options options, ...) {
    resin_tensor *out;
    va_list texts;
    assert_int_equal(try_op(context, op, inputs, options, &out), status);
    assert_null(out);
    va_start(texts, options);
    for (const char *text; (text = va_arg(texts, const char *)) != NULL;)
        if (!strstr(resin_error_message(context), text))
            fail_msg("\"%s\" is not in \"%s\"", text, resin_error_message(context));
    va_end(texts);
}

void assert_close(double found, double expected, double tolerance) {
    double scale = fabs(expected) > 1 ? fabs(expected) : 1;
    if (!(fabs(found - expected) <= tolerance * scale))
        fail_msg("found %.17g, expected %.17g, tolerance %g", found, expected, tolerance);
}

void release_all(op_inputs tensors) {
    for (int i = 0; i < 8; i++) resin_release(tensors.tensor[i]);
}
