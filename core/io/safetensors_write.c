/* safetensors_write.c: writing safetensors files (see safetensors.c for the format). The header
 * is filled with spaces to a multiple of 8 bytes, and tensors of wider numbers come first, so
 * that every tensor is aligned to its dtype in a mapped file. */
#include "core/base/memory.h"
#include "core/io/json.h"
#include "core/io/stored.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100 * 1000 * 1000, PREFIX = 8 };

typedef struct metadata { const char *key, *value; } metadata;

/* What is to be written. */
typedef struct content {
    resin_context *context;
    const char *path;
    int64_t count;
    const char *const *names;
    resin_tensor *const *tensors;
    int64_t *order; /* of the tensors in the file */
    int64_t metadata_count;
    metadata *metadata; /* by key, so that the same contents give the same bytes */
} content;

/* A text that is measured first (out NULL) and written in a second pass. */
typedef struct text {
    char *out;
    size_t length;
} text;

static void put(text *to, const char *string) {
    size_t length = strlen(string);
    if (to->out) memcpy(to->out + to->length, string, length);
    to->length += length;
}

static void put_quoted(text *to, const char *string) {
    to->length += json_quote(string, to->out ? to->out + to->length : NULL);
}

static void put_number(text *to, int64_t number) {
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRId64, number);
    put(to, digits);
}

static const char *dtype_name(resin_dtype dtype) {
    switch (dtype) {
    case RESIN_FLOAT64: return "F64";
    case RESIN_INT32: return "I32";
    case RESIN_INT64: return "I64";
    case RESIN_UINT8: return "U8";
    default: return "F32";
    }
}

static int64_t byte_count(const resin_tensor *tensor) {
    return resin_tensor_count(tensor) * (int64_t)resin_dtype_size(resin_tensor_dtype(tensor));
}

/* ---- The header ------------------------------------------------------------------------------ */

static void put_metadata(const content *what, text *to) {
    put(to, "\"__metadata__\":{");
    for (int64_t i = 0; i < what->metadata_count; i++) {
        if (i > 0) put(to, ",");
        put_quoted(to, what->metadata[i].key);
        put(to, ":");
        put_quoted(to, what->metadata[i].value);
    }
    put(to, what->count > 0 ? "}," : "}");
}

static void put_tensor(const char *name, const resin_tensor *tensor, int64_t begin, text *to) {
    put_quoted(to, name);
    put(to, ":{\"dtype\":\"");
    put(to, dtype_name(resin_tensor_dtype(tensor)));
    put(to, "\",\"shape\":[");
    for (int axis = 0; axis < resin_tensor_rank(tensor); axis++) {
        if (axis > 0) put(to, ",");
        put_number(to, resin_tensor_shape(tensor)[axis]);
    }
    put(to, "],\"data_offsets\":[");
    put_number(to, begin);
    put(to, ",");
    put_number(to, begin + byte_count(tensor));
    put(to, "]}");
}

static void put_header(const content *what, text *to) {
    int64_t begin = 0;
    put(to, "{");
    if (what->metadata_count > 0) put_metadata(what, to);
    for (int64_t i = 0; i < what->count; i++) {
        int64_t which = what->order[i];
        if (i > 0) put(to, ",");
        put_tensor(what->names[which], what->tensors[which], begin, to);
        begin += byte_count(what->tensors[which]);
    }
    put(to, "}");
    while (to->length % 8 != 0) put(to, " ");
}

static resin_status write_header(resin_writer *writer, const content *what) {
    text measured = {0};
    put_header(what, &measured);
    if (measured.length > MAX_HEADER)
        return resin_fail(what->context, RESIN_ERROR_ARGUMENT,
                          "%s: names and metadata make a header of %zu bytes; safetensors allows "
                          "100,000,000", resin_path_shown(what->path), measured.length);
    void *block;
    RESIN_TRY(resin_allocate(what->context, PREFIX + measured.length, &block));
    text header = {.out = (char *)block + PREFIX};
    put_header(what, &header);
    for (int i = 0; i < PREFIX; i++)
        ((uint8_t *)block)[i] = (uint8_t)((uint64_t)measured.length >> 8 * i);
    resin_status status = resin_writer_write(writer, block, PREFIX + measured.length);
    resin_deallocate(what->context, block);
    return status;
}

/* ---- Checks and order ------------------------------------------------------------------------ */

static bool is_utf8(const char *string) {
    return string && json_valid_utf8(string, strlen(string));
}

static int compare_keys(const void *left, const void *right) {
    return strcmp(((const metadata *)left)->key, ((const metadata *)right)->key);
}

static resin_status collect_metadata(const content *what, const char *const *keys,
                                     const char *const *values) {
    for (int64_t i = 0; i < what->metadata_count; i++) {
        if (!is_utf8(keys[i]) || !is_utf8(values[i]))
            return resin_fail(what->context, RESIN_ERROR_ARGUMENT,
                              "%s: metadata string %" PRId64 ", key or value, is not UTF-8",
                              resin_path_shown(what->path), i);
        what->metadata[i] = (metadata){keys[i], values[i]};
    }
    qsort(what->metadata, (size_t)what->metadata_count, sizeof(metadata), compare_keys);
    for (int64_t i = 1; i < what->metadata_count; i++)
        if (strcmp(what->metadata[i - 1].key, what->metadata[i].key) == 0)
            return resin_fail(what->context, RESIN_ERROR_ARGUMENT,
                              "%s: metadata key '%.200s' is given twice",
                              resin_path_shown(what->path), what->metadata[i].key);
    return RESIN_OK;
}

static int compare_strings(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* `sorted` has room for the names. */
static resin_status check_names(const content *what, const char **sorted) {
    for (int64_t i = 0; i < what->count; i++) {
        if (!is_utf8(what->names[i]) || strcmp(what->names[i], "__metadata__") == 0)
            return resin_fail(what->context, RESIN_ERROR_ARGUMENT,
                              "%s: the name of tensor %" PRId64 " is %s",
                              resin_path_shown(what->path), i,
                              is_utf8(what->names[i]) ? "__metadata__" : "not UTF-8");
        sorted[i] = what->names[i];
    }
    qsort(sorted, (size_t)what->count, sizeof *sorted, compare_strings);
    for (int64_t i = 1; i < what->count; i++)
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            return resin_fail(what->context, RESIN_ERROR_ARGUMENT,
                              "%s: tensor name '%.200s' is given twice",
                              resin_path_shown(what->path), sorted[i]);
    return RESIN_OK;
}

/* Wider numbers first, in the given order otherwise. */
static void choose_order(const content *what) {
    int64_t placed = 0;
    for (size_t size = 8; size > 0; size /= 2)
        for (int64_t i = 0; i < what->count; i++)
            if (resin_dtype_size(resin_tensor_dtype(what->tensors[i])) == size)
                what->order[placed++] = i;
}

static resin_status write_file(const content *what) {
    resin_writer writer;
    RESIN_TRY(resin_writer_open(what->context, what->path, &writer));
    resin_status status = write_header(&writer, what);
    for (int64_t i = 0; i < what->count && status == RESIN_OK; i++)
        status = stored_write_tensor(&writer, what->tensors[what->order[i]]);
    return resin_writer_close(&writer, status);
}

resin_status resin_safetensors_write(resin_context *context, const char *path,
                                     const char *const *names, resin_tensor *const *tensors,
                                     int64_t count, const char *const *metadata_keys,
                                     const char *const *metadata_values, int64_t metadata_count) {
    if (count < 0 || metadata_count < 0)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "%s: a negative count",
                          resin_path_shown(path));
    content what = {.context = context, .path = path, .count = count, .names = names,
                    .tensors = tensors, .metadata_count = metadata_count};
    /* One block for the strings, the order and the names to be sorted. */
    void *block;
    size_t metadata_bytes = (size_t)metadata_count * sizeof(metadata);
    size_t order_bytes = (size_t)count * sizeof(int64_t);
    RESIN_TRY(resin_allocate(context, metadata_bytes + order_bytes +
                                          (size_t)count * sizeof(char *), &block));
    what.metadata = block;
    what.order = (void *)((char *)block + metadata_bytes);
    resin_status status = collect_metadata(&what, metadata_keys, metadata_values);
    if (status == RESIN_OK)
        status = check_names(&what, (void *)((char *)block + metadata_bytes + order_bytes));
    if (status == RESIN_OK) {
        choose_order(&what);
        status = write_file(&what);
    }
    resin_deallocate(context, block);
    return status;
}
