/* test_io_safetensors.c: what is written is read again; what is wrong is refused; nothing is
 * lost. */
#include "tests/c/io_files.h"

#include "core/base/memory.h"
#include "core/tensor/tensor.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* A file of a header and `size` bytes 0, 1, 2, ... */
static void write_raw(const char *path, const char *header, uint64_t length, size_t size) {
    size_t text = strlen(header);
    uint8_t *bytes = malloc(8 + text + size);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(length >> 8 * i);
    memcpy(bytes + 8, header, text);
    for (size_t i = 0; i < size; i++) bytes[8 + text + i] = (uint8_t)i;
    io_write(path, bytes, 8 + text + size);
    free(bytes);
}

static resin_status open_raw(const io_state *test, const char *header, size_t size) {
    const char *path = io_path(test, "raw.safetensors");
    write_raw(path, header, strlen(header), size);
    resin_safetensors *file = NULL;
    resin_status status = resin_safetensors_open(test->context, path, &file);
    resin_safetensors_close(file);
    return status;
}

static void expect_refused(const io_state *test, const char *header, size_t size,
                           const char *words) {
    io_expect_error(test, open_raw(test, header, size), RESIN_ERROR_FILE, words);
}

static void expect_accepted(const io_state *test, const char *header, size_t size) {
    if (open_raw(test, header, size) != RESIN_OK)
        fail_msg("%s: %s", header, resin_error_message(test->context));
}

/* One value of each dtype and more: a matrix seen from its side, a scalar, an empty one. */
enum { SAMPLES = 7 };
static const char *const sample_names[SAMPLES] = {"bytes",   "layer \"1\"/weights\\\n",
                                                  "doubles", "na\xc3\xafve \xf0\x9f\x98\x80",
                                                  "long",    "scalar",
                                                  "empty"};

static void make_samples(const io_state *test, resin_tensor *tensors[SAMPLES]) {
    resin_context *c = test->context;
    resin_tensor *matrix;
    assert_int_equal(resin_arange(c, RESIN_UINT8, 0, 1, 5, &tensors[0]), RESIN_OK);
    assert_int_equal(resin_empty(c, RESIN_FLOAT32, 2, (int64_t[]){3, 5}, &matrix), RESIN_OK);
    for (int i = 0; i < 15; i++) ((float *)resin_tensor_data(matrix))[i] = (float)i / 4.0f;
    assert_int_equal(tensor_view(matrix, 2, (int64_t[]){5, 3}, (int64_t[]){1, 5}, 0, &tensors[1]),
                     RESIN_OK);
    resin_release(matrix);
    assert_int_equal(resin_arange(c, RESIN_FLOAT64, -1, 0.125, 9, &tensors[2]), RESIN_OK);
    assert_int_equal(resin_arange(c, RESIN_INT32, -3, 1, 7, &tensors[3]), RESIN_OK);
    assert_int_equal(resin_full(c, RESIN_INT64, 1, (int64_t[]){2}, -1e15, &tensors[4]), RESIN_OK);
    assert_int_equal(resin_full(c, RESIN_FLOAT32, 0, NULL, 2.5, &tensors[5]), RESIN_OK);
    assert_int_equal(resin_empty(c, RESIN_INT64, 2, (int64_t[]){0, 4}, &tensors[6]), RESIN_OK);
}

static void release_samples(resin_tensor *tensors[SAMPLES]) {
    for (int i = 0; i < SAMPLES; i++) resin_release(tensors[i]);
}

static resin_status write_samples(const io_state *test, const char *path) {
    static const char *const keys[] = {"format", "note"}, *const values[] = {"resin",
                                                                             "a\t\"b\"\x01"};
    resin_tensor *tensors[SAMPLES];
    make_samples(test, tensors);
    resin_status status = resin_safetensors_write(test->context, path, sample_names, tensors,
                                                  SAMPLES, keys, values, 2);
    release_samples(tensors);
    return status;
}

static void assert_same(resin_tensor *a, resin_tensor *b) {
    assert_int_equal(resin_tensor_dtype(a), resin_tensor_dtype(b));
    assert_int_equal(resin_tensor_rank(a), resin_tensor_rank(b));
    int64_t position[RESIN_MAX_RANK] = {0}, count = resin_tensor_count(a);
    for (int axis = 0; axis < resin_tensor_rank(a); axis++)
        assert_int_equal(resin_tensor_shape(a)[axis], resin_tensor_shape(b)[axis]);
    for (int64_t i = 0; i < count; i++) {
        int64_t rest = i;
        for (int axis = resin_tensor_rank(a) - 1; axis >= 0; axis--) {
            position[axis] = rest % resin_tensor_shape(a)[axis];
            rest /= resin_tensor_shape(a)[axis];
        }
        double x, y;
        assert_int_equal(resin_get(a, position, &x), RESIN_OK);
        assert_int_equal(resin_get(b, position, &y), RESIN_OK);
        assert_true(x == y);
    }
}

/* ---- Writing and reading --------------------------------------------------------------------- */

static void round_trip(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "samples.safetensors");
    assert_int_equal(write_samples(test, path), RESIN_OK);
    assert_int_equal(io_file_count(test), 1);
    resin_tensor *tensors[SAMPLES], *loaded;
    make_samples(test, tensors);
    resin_safetensors *file;
    assert_int_equal(resin_safetensors_open(test->context, path, &file), RESIN_OK);
    assert_int_equal(resin_safetensors_count(file), SAMPLES);
    for (int i = 0; i < SAMPLES; i++) {
        int64_t index = resin_safetensors_find(file, sample_names[i]);
        resin_safetensors_info info = resin_safetensors_describe(file, index);
        assert_string_equal(info.name, sample_names[i]);
        assert_int_equal(info.dtype, resin_tensor_dtype(tensors[i]));
        assert_int_equal(resin_safetensors_load(file, index, &loaded), RESIN_OK);
        assert_same(loaded, tensors[i]);
        assert_int_equal(resin_fill(loaded, 9), RESIN_OK);
        assert_int_equal(resin_safetensors_load_into(file, index, loaded), RESIN_OK);
        assert_same(loaded, tensors[i]);
        resin_release(loaded);
    }
    assert_int_equal(resin_safetensors_find(file, "nobody"), -1);
    assert_null(resin_safetensors_describe(file, SAMPLES).name);
    assert_null(resin_safetensors_describe(file, -1).name);
    const char *value;
    assert_int_equal(resin_safetensors_metadata_count(file), 2);
    assert_string_equal(resin_safetensors_metadata(file, "note"), "a\t\"b\"\x01");
    assert_null(resin_safetensors_metadata(file, "nothing"));
    assert_string_equal(resin_safetensors_metadata_at(file, 0, &value), "format");
    assert_string_equal(value, "resin");
    assert_null(resin_safetensors_metadata_at(file, 2, &value));
    resin_safetensors_close(file);
    release_samples(tensors);
}

/* Every tensor of a file starts at a multiple of its dtype's size. */
static void aligned(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "samples.safetensors");
    assert_int_equal(write_samples(test, path), RESIN_OK);
    size_t size;
    char *bytes = io_read(path, &size);
    assert_int_equal((uint8_t)bytes[0] % 8, 0);
    assert_non_null(strstr(bytes + 8, "\"bytes\":{\"dtype\":\"U8\",\"shape\":[5],"));
    /* 8 byte numbers first: 9 doubles, 2 longs, 0 longs, then 15 + 7 + 1 of 4 bytes, then bytes. */
    assert_non_null(strstr(bytes + 8, "\"data_offsets\":[180,185]"));
    free(bytes);
}

static void nothing_to_write(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "empty.safetensors");
    assert_int_equal(resin_safetensors_write(test->context, path, NULL, NULL, 0, NULL, NULL, 0),
                     RESIN_OK);
    resin_safetensors *file;
    assert_int_equal(resin_safetensors_open(test->context, path, &file), RESIN_OK);
    assert_int_equal(resin_safetensors_count(file), 0);
    resin_safetensors_close(file);
}

static void load_into(void **state) {
    io_state *test = *state;
    resin_context *c = test->context;
    const char *path = io_path(test, "samples.safetensors");
    assert_int_equal(write_samples(test, path), RESIN_OK);
    resin_safetensors *file;
    assert_int_equal(resin_safetensors_open(c, path, &file), RESIN_OK);
    int64_t index = resin_safetensors_find(file, sample_names[1]);
    resin_tensor *wrong, *wide, *turned, *samples[SAMPLES];
    assert_int_equal(resin_full(c, RESIN_FLOAT32, 2, (int64_t[]){3, 5}, 7, &wrong), RESIN_OK);
    io_expect_error(test, resin_safetensors_load_into(file, index, wrong), RESIN_ERROR_SHAPE,
                    "has the shape (5, 3) in the file, expected (3, 5)");
    io_expect_error(test, resin_safetensors_load_into(file, SAMPLES, wrong), RESIN_ERROR_ARGUMENT,
                    "no tensor number 7");
    assert_int_equal(tensor_view(wrong, 2, (int64_t[]){5, 3}, (int64_t[]){1, 5}, 0, &turned),
                     RESIN_OK);
    assert_int_equal(resin_full(c, RESIN_FLOAT64, 2, (int64_t[]){5, 3}, 7, &wide), RESIN_OK);
    assert_int_equal(resin_safetensors_load_into(file, index, turned), RESIN_OK);
    assert_int_equal(resin_safetensors_load_into(file, index, wide), RESIN_OK);
    make_samples(test, samples);
    assert_same(turned, samples[1]);
    double value;
    assert_int_equal(resin_get(wide, (int64_t[]){4, 2}, &value), RESIN_OK);
    assert_true(value == 14 / 4.0);
    /* A parameter is loaded in place while gradients are recorded. */
    assert_int_equal(resin_require_grad(wide, true), RESIN_OK);
    assert_int_equal(resin_safetensors_load_into(file, index, wide), RESIN_OK);
    assert_true(resin_recording(c));
    release_samples(samples);
    resin_release(wrong);
    resin_release(turned);
    resin_release(wide);
    resin_safetensors_close(file);
}

/* The handle keeps its context alive. */
static void outlives_context(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "samples.safetensors");
    assert_int_equal(write_samples(test, path), RESIN_OK);
    resin_context *other = resin_context_new();
    resin_safetensors *file;
    assert_int_equal(resin_safetensors_open(other, path, &file), RESIN_OK);
    resin_context_release(other);
    resin_tensor *loaded;
    assert_int_equal(resin_safetensors_load(file, 0, &loaded), RESIN_OK);
    resin_safetensors_close(file);
    resin_release(loaded);
}

static void conversions(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "converted.safetensors");
    static const char header[] =
        "{\"h\":{\"dtype\":\"F16\",\"shape\":[8],\"data_offsets\":[0,16]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[16,20]},"
        "\"i\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[20,22]},"
        "\"s\":{\"dtype\":\"I16\",\"shape\":[1],\"data_offsets\":[22,24]},"
        "\"u\":{\"dtype\":\"U16\",\"shape\":[1],\"data_offsets\":[24,26]},"
        "\"t\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[26,28]},"
        "\"w\":{\"dtype\":\"U32\",\"shape\":[1],\"data_offsets\":[28,32]},"
        "\"x\":{\"dtype\":\"U64\",\"shape\":[1],\"data_offsets\":[32,40]},"
        "\"y\":{\"dtype\":\"U64\",\"shape\":[2],\"data_offsets\":[40,56]},"
        "\"z\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[56,57]}}";
    static const uint8_t data[57] = {
        0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b, 0x01, 0x00, 0x00, 0x80, 0x00, 0x7c, 0x00, 0x7e, 0xff,
        0x03, 0x80, 0x3f, 0x20, 0xc1, 0xff, 0x7f, 0x00, 0x80, 0xff, 0xff, 0x00, 0x02, 0xff, 0xff,
        0xff, 0xff, 1,    0,    0,    0,    0,    0,    0,    0x40, 1,    0,    0,    0,    0,
        0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0x80, 0};
    static const struct {
        const char *name;
        resin_dtype dtype;
        int count;
        double values[8];
    } rows[] = {
        {"h", RESIN_FLOAT32, 8, {1, -2, 65504, 0x1p-24, -0.0, INFINITY, NAN, 1023 * 0x1p-24}},
        {"b", RESIN_FLOAT32, 2, {1, -10}},
        {"i", RESIN_INT32, 2, {-1, 127}},
        {"s", RESIN_INT32, 1, {-32768}},
        {"u", RESIN_INT32, 1, {65535}},
        {"t", RESIN_UINT8, 2, {0, 1}},
        {"w", RESIN_INT64, 1, {4294967295.0}},
    };
    size_t length = sizeof header - 1;
    uint8_t bytes[8 + sizeof header - 1 + sizeof data] = {(uint8_t)length, (uint8_t)(length >> 8)};
    memcpy(bytes + 8, header, length);
    memcpy(bytes + 8 + length, data, sizeof data);
    io_write(path, bytes, sizeof bytes);
    resin_safetensors *file;
    resin_tensor *tensor = NULL;
    assert_int_equal(resin_safetensors_open(test->context, path, &file), RESIN_OK);
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        int64_t index = resin_safetensors_find(file, rows[row].name);
        assert_int_equal(resin_safetensors_load(file, index, &tensor), RESIN_OK);
        assert_int_equal(resin_tensor_dtype(tensor), rows[row].dtype);
        for (int64_t i = 0; i < rows[row].count; i++) {
            double value, expected = rows[row].values[i];
            assert_int_equal(resin_get(tensor, &i, &value), RESIN_OK);
            assert_true(value == expected || (isnan(value) && isnan(expected)));
            assert_int_equal(signbit(value), signbit(expected));
        }
        resin_release(tensor);
    }
    int64_t zero = 0, large;
    assert_int_equal(resin_safetensors_load(file, 7, &tensor), RESIN_OK);
    assert_int_equal(resin_get_int64(tensor, &zero, &large), RESIN_OK);
    assert_int_equal(large, INT64_C(0x4000000000000001));
    resin_release(tensor);
    io_expect_error(test, resin_safetensors_load(file, 8, &tensor), RESIN_ERROR_FILE,
                    "element 1 (an unsigned integer of 64 bits) does not fit int64");
    assert_int_equal(resin_safetensors_describe(file, 9).dtype, RESIN_DTYPE_COUNT);
    io_expect_error(test, resin_safetensors_load(file, 9, &tensor), RESIN_ERROR_FILE,
                    "tensor 'z' has the dtype F8_E4M3, which cannot be loaded");
    resin_safetensors_close(file);
}

/* ---- Refusing -------------------------------------------------------------------------------- */

#define TENSOR(name, dtype, shape, begin, end)                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],"                                 \
    "\"data_offsets\":[" #begin "," #end "]}"

static void layout(void **state) {
    io_state *test = *state;
    expect_accepted(test, "{}", 0);
    expect_accepted(test, "{}   \n", 0);
    expect_accepted(test, "{" TENSOR("b", "U8", "4", 4, 8) "," TENSOR("a", "F32", "", 0, 4) "}", 8);
    expect_accepted(test, "{" TENSOR("b", "U8", "0", 4, 4) "," TENSOR("a", "F32", "", 0, 4) "}", 4);
    expect_refused(test, "{}", 1, "belong to no tensor follow");
    expect_refused(test, "{" TENSOR("a", "U8", "4", 0, 4) "}", 5, "belong to no tensor follow");
    expect_refused(test, "{" TENSOR("a", "U8", "4", 1, 5) "}", 5, "lie before tensor 'a'");
    expect_refused(test, "{" TENSOR("a", "U8", "2", 0, 2) "," TENSOR("b", "U8", "2", 3, 5) "}", 5,
                   "lie before tensor 'b'");
    expect_refused(test, "{" TENSOR("a", "U8", "3", 0, 3) "," TENSOR("b", "U8", "3", 2, 5) "}", 5,
                   "overlap");
    expect_refused(test, "{" TENSOR("a", "U8", "4", 0, 4) "," TENSOR("b", "U8", "4", 0, 4) "}", 4,
                   "overlap");
    expect_refused(test, "{" TENSOR("a", "U8", "2", 0, 2) "," TENSOR("a", "U8", "2", 2, 4) "}", 4,
                   "twice the name 'a'");
    expect_refused(test,
                   "{" TENSOR("a", "U8", "2", 0, 2) "," TENSOR("\\u0061", "U8", "2", 2, 4) "}", 4,
                   "twice the name 'a'");
    expect_refused(test, "{" TENSOR("a", "U8", "4", 0, 5) "}", 4, "offsets of tensor 'a'");
    expect_refused(test, "{" TENSOR("a", "U8", "4", 4, 0) "}", 4, "offsets of tensor 'a'");
    expect_refused(test, "{" TENSOR("a", "U8", "5", 0, 4) "}", 4, "do not fit together");
    expect_refused(test, "{" TENSOR("a", "F32", "4", 0, 4) "}", 4, "do not fit together");
    expect_refused(test, "{" TENSOR("a", "F32", "4611686018427387904,4", 0, 4) "}", 4, "too large");
    expect_refused(test, "{" TENSOR("a", "U8", "9223372036854775807,9223372036854775807", 0, 4) "}",
                   4, "too large");
    expect_refused(test, "{" TENSOR("a", "U8", "9223372036854775808", 0, 4) "}", 4, "64 bits");
    expect_refused(test, "{" TENSOR("a", "U8", "1,1,1,1,1,1,1,1,4", 0, 4) "}", 4,
                   "more than 8 axes");
    expect_refused(test, "{" TENSOR("a", "U9", "4", 0, 4) "}", 4, "unknown dtype 'U9'");
}

static void malformed(void **state) {
    io_state *test = *state;
    static const struct {
        const char *header, *words;
    } rows[] = {
        {"", "does not start with {"},
        {" {}", "does not start with {"},
        {"[]", "does not start with {"},
        {"{", "expected"},
        {"{}}", "text after the end"},
        {"{} x", "text after the end"},
        {"{\"a\"}", "expected a colon"},
        {"{a:1}", "expected a string"},
        {"{\"a\":1}", "expected an object"},
        {"{\"a\":{}}", "are missing in tensor 'a'"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}", "are missing in tensor 'a'"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0]}}", "are missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0,0]}}", "too many offsets"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         "repeated"},
        {"{\"a\":{\"dtype\":8,\"shape\":[0],\"data_offsets\":[0,0]}}", "expected a string"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-0],\"data_offsets\":[0,0]}}", "non-negative"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0.0],\"data_offsets\":[0,0]}}", "whole number"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[00],\"data_offsets\":[0,0]}}", "leading zero"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0,],\"data_offsets\":[0,0]}}", "non-negative"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},}", "expected a string"},
        {"{\"__metadata__\":{\"a\":1}}", "expected a string"},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", "twice the key 'a'"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "twice the name '__metadata__'"},
        {"{\"__metadata__\":[]}", "expected an object"},
        {"{\"__metadata__\":{\"\\ud800\":\"1\"}}", "surrogate"},
        {"{\"__metadata__\":{\"\\ud800\\u0041\":\"1\"}}", "surrogate"},
        {"{\"__metadata__\":{\"\\udc00\":\"1\"}}", "surrogate"},
        {"{\"__metadata__\":{\"\\u0000\":\"1\"}}", "zero byte"},
        {"{\"__metadata__\":{\"\\u12g4\":\"1\"}}", "hexadecimal"},
        {"{\"__metadata__\":{\"\\x\":\"1\"}}", "unknown escape"},
        {"{\"__metadata__\":{\"\\u00", "cut off"},
        {"{\"__metadata__\":{\"\\", "cut off"},
        {"{\"__metadata__\":{\"\xff\":\"1\"}}", "not UTF-8"},
        {"{\"__metadata__\":{\"\xc0\x80\":\"1\"}}", "not UTF-8"},
        {"{\"__metadata__\":{\"\xed\xa0\x80\":\"1\"}}", "not UTF-8"},
        {"{\"__metadata__\":{\"\xf4\x90\x80\x80\":\"1\"}}", "not UTF-8"},
        {"{\"__metadata__\":{\"\xe2\x82", "not UTF-8"},
        {"{\"__metadata__\":{\"a\nb\":\"1\"}}", "control character"},
        {"{\"a\":{\"more\":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}", "nested too deeply"},
        {"{\"a\":{\"more\":nul}}", "expected a value"},
        {"{\"a\":{\"more\":01}}", "leading zero"},
        {"{\"a\":{\"more\":1.}}", "malformed number"},
        {"{\"a\":{\"more\":+1}}", "expected a value"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        expect_refused(test, rows[i].header, 0, rows[i].words);
    /* Keys that nobody knows are skipped, as other readers do, and escapes are decoded. */
    expect_accepted(test,
                    "{\"a\":{\"more\":[{\"x\":[1,-2.5e+3,true,null,\"\\u20ac\"]}],\"dtype\":\"U8\","
                    "\"shape\":[2],\"data_offsets\":[0,2]}}",
                    2);
    expect_accepted(test, "{\"__metadata__\":{\"\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\":\"\"}}", 0);
}

static void forged_lengths(void **state) {
    io_state *test = *state;
    static const uint64_t lengths[] = {3,          100,        100000000, 100000001,
                                       1ull << 32, 1ull << 62, INT64_MAX, UINT64_MAX};
    const char *path = io_path(test, "forged.safetensors");
    resin_safetensors *file = NULL;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        write_raw(path, "{}", lengths[i], 0);
        io_expect_error(test, resin_safetensors_open(test->context, path, &file), RESIN_ERROR_FILE,
                        lengths[i] > 100000000 ? "at most 100,000,000" : "the file is shorter");
    }
    /* A few bytes that announce gigabytes. */
    expect_refused(test, "{" TENSOR("a", "F32", "1000000000", 0, 4000000000) "}", 16, "truncated");
    assert_true(resin_memory(test->context).peak < 1 << 20);
    io_expect_error(test, resin_safetensors_open(test->context, test->folder, &file),
                    RESIN_ERROR_FILE, "is not a file");
    io_expect_error(test, resin_safetensors_open(test->context, io_path(test, "none"), &file),
                    RESIN_ERROR_FILE, "cannot open");
}

static resin_status read_everything(resin_context *context, const char *path) {
    resin_safetensors *file = NULL;
    resin_status status = resin_safetensors_open(context, path, &file);
    for (int64_t i = 0; status == RESIN_OK && i < resin_safetensors_count(file); i++) {
        resin_tensor *tensor = NULL;
        resin_safetensors_info info = resin_safetensors_describe(file, i);
        assert_int_equal(resin_safetensors_find(file, info.name), i);
        status = resin_safetensors_load(file, i, &tensor);
        resin_release(tensor);
    }
    resin_safetensors_close(file);
    return status;
}

static void damaged(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "samples.safetensors");
    assert_int_equal(write_samples(test, path), RESIN_OK);
    io_damage(test, path, read_everything);
}

/* A file that shrinks after it was opened. */
static void truncated_later(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "samples.safetensors");
    assert_int_equal(write_samples(test, path), RESIN_OK);
    size_t size;
    char *bytes = io_read(path, &size);
    resin_safetensors *file;
    resin_tensor *tensor = NULL;
    assert_int_equal(resin_safetensors_open(test->context, path, &file), RESIN_OK);
    io_write(path, bytes, size - 3);
    io_expect_error(test, resin_safetensors_load(file, SAMPLES - 1, &tensor), RESIN_ERROR_FILE,
                    "ends too early");
    resin_safetensors_close(file);
    free(bytes);
}

/* ---- Failing in the middle ------------------------------------------------------------------- */

static void refuse_to_write(void **state) {
    io_state *test = *state;
    resin_context *c = test->context;
    const char *path = io_path(test, "refused.safetensors");
    resin_tensor *one;
    assert_int_equal(resin_full(c, RESIN_FLOAT32, 0, NULL, 1, &one), RESIN_OK);
    resin_tensor *tensors[2] = {one, one};
    static const struct {
        const char *names[2], *keys[2], *values[2], *words;
    } rows[] = {
        {{"a", "a"}, {"k", "l"}, {"", ""}, "tensor name 'a' is given twice"},
        {{"a", "b"}, {"k", "k"}, {"", ""}, "metadata key 'k' is given twice"},
        {{"a", "__metadata__"}, {"k", "l"}, {"", ""}, "the name of tensor 1 is __metadata__"},
        {{"a", "\xff"}, {"k", "l"}, {"", ""}, "the name of tensor 1 is not UTF-8"},
        {{"a", "b"}, {"k", "l"}, {"", "\xff"}, "metadata string 1, key or value, is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        io_expect_error(test,
                        resin_safetensors_write(c, path, rows[i].names, tensors, 2, rows[i].keys,
                                                rows[i].values, 2),
                        RESIN_ERROR_ARGUMENT, rows[i].words);
    const char *name = "a";
    io_expect_error(
        test, resin_safetensors_write(c, io_path(test, "no/where"), &name, &one, 1, NULL, NULL, 0),
        RESIN_ERROR_FILE, "cannot write");
    io_expect_error(test, resin_safetensors_write(c, test->folder, &name, &one, 1, NULL, NULL, 0),
                    RESIN_ERROR_FILE, "is not a file");
    assert_int_equal(io_file_count(test), 0);
    resin_release(one);
}

/* The disk is full in the middle: the old file stays, the new one leaves nothing. */
static void disk_full(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "weights.safetensors"), *name = "large";
    assert_int_equal(write_samples(test, path), RESIN_OK);
    resin_tensor *large;
    assert_int_equal(resin_full(test->context, RESIN_FLOAT32, 1, (int64_t[]){1 << 16}, 1, &large),
                     RESIN_OK);
    struct rlimit kept, small;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    small = kept;
    small.rlim_cur = 65536;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    resin_status status =
        resin_safetensors_write(test->context, path, &name, &large, 1, NULL, NULL, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
    signal(SIGXFSZ, handler);
    io_expect_error(test, status, RESIN_ERROR_FILE, "cannot write");
    assert_int_equal(io_file_count(test), 1);
    assert_int_equal(read_everything(test->context, path), RESIN_OK);
    resin_release(large);
}

/* Memory runs out at the first, second, third ... allocation, until there is enough. */
static void out_of_memory(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "samples.safetensors");
    resin_status status = RESIN_ERROR_MEMORY;
    resin_tensor *tensors[SAMPLES];
    make_samples(test, tensors);
    for (long allowed = 0; status != RESIN_OK; allowed++) {
        assert_true(allowed < 100);
        resin_arena_fail_after(test->context, allowed);
        status = resin_safetensors_write(test->context, path, sample_names, tensors, SAMPLES, NULL,
                                         NULL, 0);
        resin_arena_fail_after(test->context, -1);
        assert_true(status == RESIN_OK || status == RESIN_ERROR_MEMORY);
        assert_int_equal(io_file_count(test), status == RESIN_OK ? 1 : 0);
    }
    release_samples(tensors);
    io_starve(test, path, read_everything);
}

/* ---- Files of others ------------------------------------------------------------------------- */

/* Written by programs in JavaScript and Rust: -3 to 2 in each dtype, unsigned ones modulo
 * 2^bits. */
static void from_others(void **state) {
    io_state *test = *state;
    static const struct {
        const char *name;
        resin_dtype dtype;
        double modulus;
    } rows[] = {
        {"B", RESIN_UINT8, 0x1p8}, {"H", RESIN_INT32, 0x1p16}, {"I", RESIN_INT64, 0x1p32},
        {"b", RESIN_INT32, 0},     {"d", RESIN_FLOAT64, 0},    {"e", RESIN_FLOAT32, 0},
        {"f", RESIN_FLOAT32, 0},   {"h", RESIN_INT32, 0},      {"i", RESIN_INT32, 0},
    };
    const char *path = io_shared("safetensors/hf-overall.safetensors");
    if (!path) {
        print_message("safetensors of other programs: no shared data, skipped\n");
        skip();
    }
    resin_safetensors *file;
    assert_int_equal(resin_safetensors_open(test->context, path, &file), RESIN_OK);
    assert_string_equal(resin_safetensors_metadata(file, "test"), "a");
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        resin_tensor *tensor;
        int64_t index = resin_safetensors_find(file, rows[row].name);
        assert_int_equal(resin_safetensors_load(file, index, &tensor), RESIN_OK);
        assert_int_equal(resin_tensor_dtype(tensor), rows[row].dtype);
        for (int64_t i = 0; i < 6; i++) {
            double value;
            assert_int_equal(resin_get(tensor, &i, &value), RESIN_OK);
            assert_true(value == (double)(i - 3) + (i < 3 ? rows[row].modulus : 0));
        }
        resin_release(tensor);
    }
    resin_safetensors_close(file);
    static const char *const others[] = {"batch_norm2d", "boolean", "conv2d", "linear_with_bias"};
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "safetensors/burn-%s.safetensors", others[i]);
        assert_int_equal(read_everything(test->context, io_shared(name)), RESIN_OK);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, io_setup, io_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(round_trip),       TEST(aligned),       TEST(nothing_to_write), TEST(load_into),
        TEST(outlives_context), TEST(conversions),   TEST(layout),           TEST(malformed),
        TEST(forged_lengths),   TEST(damaged),       TEST(truncated_later),  TEST(refuse_to_write),
        TEST(disk_full),        TEST(out_of_memory), TEST(from_others),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
