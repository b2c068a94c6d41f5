/* safetensors.c: reading safetensors files. Eight bytes, little-endian, say how long the header
 * is; the header is a JSON object {name: {"dtype", "shape", "data_offsets": [begin, end]}},
 * where "__metadata__" holds strings; the rest is the buffer that the offsets count in.
 *
 * A file is trusted in nothing: the header is bounded (100 MB, and the file's size), sizes are
 * multiplied with checks, every tensor's offsets must be as far apart as its shape and dtype
 * say, and the tensors must cover the buffer from first byte to last without holes and overlaps.
 * Names are unique. All of this is checked on opening, before any tensor is made. */
#include "core/base/memory.h"
#include "core/io/json.h"
#include "core/io/stored.h"
#include "core/tensor/tensor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100 * 1000 * 1000, PREFIX = 8 };

typedef struct entry {
    const char *name;
    const struct dtype_row *dtype;
    int rank;
    int64_t shape[RESIN_MAX_RANK], begin, end; /* of its bytes in the buffer */
} entry;

typedef struct metadata { const char *key, *value; } metadata;

struct resin_safetensors {
    resin_context *context; /* held */
    resin_reader reader;
    char *path, *header;    /* the names and strings below live in the header's text */
    uint64_t file_size, buffer_start, buffer_size;
    int64_t count, room;
    entry *entries; /* in the order of their bytes */
    entry **by_name;
    int64_t metadata_count, metadata_room;
    metadata *metadata; /* by key */
};

/* The dtypes of the format; those without a stored type are listed, but cannot be loaded. */
static const struct dtype_row {
    const char *name;
    int64_t size;
    stored_type type; /* STORED_TYPE_COUNT: cannot be loaded */
} dtypes[] = {
    {"F32", 4, STORED_F32},   {"F64", 8, STORED_F64}, {"F16", 2, STORED_F16},
    {"BF16", 2, STORED_BF16}, {"I8", 1, STORED_I8},   {"I16", 2, STORED_I16},
    {"I32", 4, STORED_I32},   {"I64", 8, STORED_I64}, {"U8", 1, STORED_U8},
    {"U16", 2, STORED_U16},   {"U32", 4, STORED_U32}, {"U64", 8, STORED_U64},
    {"BOOL", 1, STORED_BOOL}, {"F8_E4M3", 1, STORED_TYPE_COUNT},
    {"F8_E5M2", 1, STORED_TYPE_COUNT}, {"C64", 8, STORED_TYPE_COUNT},
};

static resin_status fail_file(resin_safetensors *file, const char *problem, const char *name) {
    return resin_fail(file->context, RESIN_ERROR_FILE, "%s: %s%s%.200s%s",
                      resin_path_shown(file->path), problem, name ? " '" : "", name ? name : "",
                      name ? "'" : "");
}

static resin_status fail_json(resin_safetensors *file, const json_reader *json) {
    return resin_fail(file->context, RESIN_ERROR_FILE,
                      "%s: the header is malformed at byte %td: %s",
                      resin_path_shown(file->path), json->at - json->text, json->problem);
}

/* Makes room for one more item in an array that doubles. */
static resin_status grow(resin_context *context, void **items, size_t size, int64_t count,
                         int64_t *room) {
    if (count < *room) return RESIN_OK;
    int64_t more = *room ? 2 * *room : 16;
    void *block;
    RESIN_TRY(resin_allocate(context, (size_t)more * size, &block));
    if (count > 0) memcpy(block, *items, (size_t)count * size);
    resin_deallocate(context, *items);
    *items = block;
    *room = more;
    return RESIN_OK;
}

/* ---- The header ------------------------------------------------------------------------------ */

static resin_status parse_metadata(resin_safetensors *file, json_reader *json) {
    bool first = true;
    while (json_more(json, '{', '}', &first)) {
        char *key, *value;
        if (!json_string(json, &key) || !json_expect(json, ':') || !json_string(json, &value))
            return fail_json(file, json);
        void *items = file->metadata;
        RESIN_TRY(grow(file->context, &items, sizeof *file->metadata, file->metadata_count,
                       &file->metadata_room));
        file->metadata = items;
        file->metadata[file->metadata_count++] = (metadata){key, value};
    }
    return json->problem ? fail_json(file, json) : RESIN_OK;
}

static resin_status parse_dtype(resin_safetensors *file, json_reader *json, entry *tensor) {
    char *name;
    if (!json_string(json, &name)) return fail_json(file, json);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(name, dtypes[i].name) == 0) {
            tensor->dtype = &dtypes[i];
            return RESIN_OK;
        }
    return resin_fail(file->context, RESIN_ERROR_FILE,
                      "%s: tensor '%.200s' has the unknown dtype '%.40s'",
                      resin_path_shown(file->path), tensor->name, name);
}

/* An array of integers, at most `most` of them. */
static resin_status parse_counts(resin_safetensors *file, json_reader *json, const entry *tensor,
                                 int most, int64_t *values, int *count) {
    bool first = true;
    *count = 0;
    while (json_more(json, '[', ']', &first)) {
        if (*count == most)
            return resin_fail(file->context, RESIN_ERROR_FILE,
                              "%s: tensor '%.200s' has a shape of more than %d axes, or "
                              "too many offsets",
                              resin_path_shown(file->path), tensor->name, RESIN_MAX_RANK);
        if (!json_count(json, &values[(*count)++])) return fail_json(file, json);
    }
    return json->problem ? fail_json(file, json) : RESIN_OK;
}

/* The offsets must be as far apart as dtype and shape say, and inside of the buffer. */
static resin_status check_entry(resin_safetensors *file, const entry *tensor) {
    int64_t size = tensor->dtype->size;
    for (int axis = 0; axis < tensor->rank; axis++)
        if (__builtin_mul_overflow(size, tensor->shape[axis], &size))
            return fail_file(file, "the shape is too large for 64 bits of tensor", tensor->name);
    if (tensor->begin > tensor->end || (uint64_t)tensor->end > file->buffer_size)
        return fail_file(file, "the file is truncated, or wrong are the offsets of tensor",
                         tensor->name);
    if (tensor->end - tensor->begin != size)
        return fail_file(file, "offsets and shape do not fit together of tensor", tensor->name);
    return RESIN_OK;
}

static resin_status parse_entry(resin_safetensors *file, json_reader *json, entry *tensor) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
    int seen = 0, offsets = 0;
    int64_t bounds[2];
    bool first = true;
    while (json_more(json, '{', '}', &first)) {
        char *key;
        if (!json_string(json, &key) || !json_expect(json, ':')) return fail_json(file, json);
        int which = strcmp(key, "dtype") == 0 ? DTYPE : strcmp(key, "shape") == 0 ? SHAPE
                  : strcmp(key, "data_offsets") == 0 ? OFFSETS : 0;
        if (seen & which) return fail_file(file, "a key is repeated in tensor", tensor->name);
        seen |= which;
        if (which == DTYPE)
            RESIN_TRY(parse_dtype(file, json, tensor));
        else if (which == SHAPE)
            RESIN_TRY(parse_counts(file, json, tensor, RESIN_MAX_RANK, tensor->shape,
                                   &tensor->rank));
        else if (which == OFFSETS)
            RESIN_TRY(parse_counts(file, json, tensor, 2, bounds, &offsets));
        else if (!json_skip_value(json))
            return fail_json(file, json);
    }
    if (json->problem) return fail_json(file, json);
    if (seen != ALL || offsets != 2)
        return fail_file(file, "dtype, shape or data_offsets are missing in tensor", tensor->name);
    tensor->begin = bounds[0];
    tensor->end = bounds[1];
    return check_entry(file, tensor);
}

static resin_status parse_header(resin_safetensors *file, size_t length) {
    json_reader json = json_start(file->header, length);
    bool first = true, metadata_seen = false;
    while (json_more(&json, '{', '}', &first)) {
        char *name;
        if (!json_string(&json, &name) || !json_expect(&json, ':')) return fail_json(file, &json);
        if (strcmp(name, "__metadata__") == 0) {
            if (metadata_seen) return fail_file(file, "the header has twice the name", name);
            metadata_seen = true;
            RESIN_TRY(parse_metadata(file, &json));
            continue;
        }
        void *items = file->entries;
        RESIN_TRY(grow(file->context, &items, sizeof *file->entries, file->count, &file->room));
        file->entries = items;
        entry *tensor = &file->entries[file->count];
        *tensor = (entry){.name = name};
        RESIN_TRY(parse_entry(file, &json, tensor));
        file->count++;
    }
    return json_finish(&json) ? RESIN_OK : fail_json(file, &json);
}

/* ---- The whole file -------------------------------------------------------------------------- */

static int compare_bytes(const void *left, const void *right) {
    const entry *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end) return a->end < b->end ? -1 : 1;
    return a->name < b->name ? -1 : 1; /* empty tensors: as in the header */
}

static int compare_names(const void *left, const void *right) {
    return strcmp((*(entry *const *)left)->name, (*(entry *const *)right)->name);
}

static int compare_keys(const void *left, const void *right) {
    return strcmp(((const metadata *)left)->key, ((const metadata *)right)->key);
}

/* Sorts the entries by their bytes, which must follow one another, and by name, which must
 * differ. */
static resin_status check_layout(resin_safetensors *file) {
    void *block;
    RESIN_TRY(resin_allocate(file->context, ((size_t)file->count + 1) * sizeof(entry *), &block));
    file->by_name = block;
    int64_t covered = 0;
    if (file->count > 0) qsort(file->entries, (size_t)file->count, sizeof(entry), compare_bytes);
    for (int64_t i = 0; i < file->count; i++) {
        if (file->entries[i].begin != covered)
            return fail_file(file, file->entries[i].begin > covered
                                       ? "bytes that belong to no tensor lie before tensor"
                                       : "its bytes overlap another's in tensor",
                             file->entries[i].name);
        covered = file->entries[i].end;
        file->by_name[i] = &file->entries[i];
    }
    if ((uint64_t)covered != file->buffer_size)
        return fail_file(file, "bytes that belong to no tensor follow at the end", NULL);
    if (file->count > 0) qsort(file->by_name, (size_t)file->count, sizeof(entry *), compare_names);
    for (int64_t i = 1; i < file->count; i++)
        if (strcmp(file->by_name[i - 1]->name, file->by_name[i]->name) == 0)
            return fail_file(file, "the header has twice the name", file->by_name[i]->name);
    return RESIN_OK;
}

static resin_status check_metadata(resin_safetensors *file) {
    size_t count = (size_t)file->metadata_count;
    if (count > 0) qsort(file->metadata, count, sizeof(metadata), compare_keys);
    for (size_t i = 1; i < count; i++)
        if (strcmp(file->metadata[i - 1].key, file->metadata[i].key) == 0)
            return fail_file(file, "the metadata have twice the key", file->metadata[i].key);
    return RESIN_OK;
}

static resin_status read_header(resin_safetensors *file) {
    uint8_t prefix[PREFIX];
    uint64_t length = 0;
    file->file_size = file->reader.left;
    RESIN_TRY(resin_reader_read(&file->reader, "the length of the header", prefix, PREFIX));
    for (int i = PREFIX - 1; i >= 0; i--) length = length << 8 | prefix[i];
    if (length > MAX_HEADER || length > file->reader.left)
        return resin_fail(file->context, RESIN_ERROR_FILE,
                          "%s: is no safetensors file, or truncated: its header would have %" PRIu64
                          " bytes; %s", resin_path_shown(file->path), length,
                          length > MAX_HEADER ? "at most 100,000,000 are allowed"
                                              : "the file is shorter");
    file->buffer_start = PREFIX + length;
    file->buffer_size = file->file_size - file->buffer_start;
    void *block;
    RESIN_TRY(resin_allocate(file->context, (size_t)length + 1, &block));
    file->header = block;
    RESIN_TRY(resin_reader_read(&file->reader, "the header", file->header, (size_t)length));
    if (length == 0 || file->header[0] != '{')
        return fail_file(file, "is no safetensors file: its header does not start with {", NULL);
    RESIN_TRY(parse_header(file, (size_t)length));
    RESIN_TRY(check_metadata(file));
    return check_layout(file);
}

static resin_status open_file(resin_safetensors *file, const char *path) {
    size_t size = strlen(path) + 1;
    void *block;
    RESIN_TRY(resin_allocate(file->context, size, &block));
    file->path = memcpy(block, path, size);
    RESIN_TRY(resin_reader_open(file->context, file->path, false, &file->reader));
    return read_header(file);
}

resin_status resin_safetensors_open(resin_context *context, const char *path,
                                    resin_safetensors **out) {
    void *block;
    RESIN_TRY(resin_allocate(context, sizeof(resin_safetensors), &block));
    resin_safetensors *file = block;
    *file = (resin_safetensors){.context = resin_context_retain(context)};
    resin_status status = open_file(file, path);
    if (status == RESIN_OK)
        *out = file;
    else
        resin_safetensors_close(file);
    return status;
}

void resin_safetensors_close(resin_safetensors *file) {
    if (!file) return;
    resin_context *context = file->context;
    resin_reader_close(&file->reader);
    resin_deallocate(context, file->path);
    resin_deallocate(context, file->header);
    resin_deallocate(context, file->entries);
    resin_deallocate(context, file->by_name);
    resin_deallocate(context, file->metadata);
    resin_deallocate(context, file);
    resin_context_release(context);
}

/* ---- What is in it --------------------------------------------------------------------------- */

int64_t resin_safetensors_count(const resin_safetensors *file) { return file->count; }

resin_safetensors_info resin_safetensors_describe(const resin_safetensors *file, int64_t index) {
    if (index < 0 || index >= file->count) return (resin_safetensors_info){0};
    const entry *tensor = &file->entries[index];
    bool loadable = tensor->dtype->type != STORED_TYPE_COUNT;
    return (resin_safetensors_info){
        .name = tensor->name,
        .stored_dtype = tensor->dtype->name,
        .dtype = loadable ? stored_dtype(tensor->dtype->type) : RESIN_DTYPE_COUNT,
        .rank = tensor->rank,
        .shape = tensor->shape,
    };
}

int64_t resin_safetensors_find(const resin_safetensors *file, const char *name) {
    int64_t low = 0, high = file->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(name, file->by_name[middle]->name);
        if (order == 0) return file->by_name[middle] - file->entries;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}

int64_t resin_safetensors_metadata_count(const resin_safetensors *file) {
    return file->metadata_count;
}

const char *resin_safetensors_metadata_at(const resin_safetensors *file, int64_t index,
                                          const char **value) {
    if (index < 0 || index >= file->metadata_count) return NULL;
    *value = file->metadata[index].value;
    return file->metadata[index].key;
}

const char *resin_safetensors_metadata(const resin_safetensors *file, const char *key) {
    for (int64_t i = 0; i < file->metadata_count; i++)
        if (strcmp(file->metadata[i].key, key) == 0) return file->metadata[i].value;
    return NULL;
}

/* ---- Loading --------------------------------------------------------------------------------- */

/* Checks the index and the dtype, and goes to the first byte of the tensor. */
static resin_status go_to(resin_safetensors *file, int64_t index, const entry **tensor) {
    if (index < 0 || index >= file->count)
        return resin_fail(file->context, RESIN_ERROR_ARGUMENT,
                          "%s: there is no tensor number %" PRId64 "; the file has %" PRId64,
                          resin_path_shown(file->path), index, file->count);
    *tensor = &file->entries[index];
    if ((*tensor)->dtype->type == STORED_TYPE_COUNT)
        return resin_fail(file->context, RESIN_ERROR_FILE,
                          "%s: tensor '%.200s' has the dtype %s, which cannot be loaded",
                          resin_path_shown(file->path), (*tensor)->name, (*tensor)->dtype->name);
    return resin_reader_seek(&file->reader, file->buffer_start + (uint64_t)(*tensor)->begin,
                             file->file_size);
}

resin_status resin_safetensors_load(resin_safetensors *file, int64_t index, resin_tensor **out) {
    const entry *tensor;
    RESIN_TRY(go_to(file, index, &tensor));
    return stored_read_tensor(&file->reader, tensor->dtype->type, false, tensor->rank,
                              tensor->shape, out);
}

/* By way of a new tensor: `destination` has another dtype, or is not contiguous. Weights are loaded
 * outside of any graph. */
static resin_status load_and_copy(resin_safetensors *file, int64_t index,
                                  resin_tensor *destination) {
    resin_tensor *loaded;
    RESIN_TRY(resin_safetensors_load(file, index, &loaded));
    bool recording = resin_set_recording(file->context, false);
    resin_status status = resin_copy(destination, loaded);
    resin_set_recording(file->context, recording);
    resin_release(loaded);
    return status;
}

resin_status resin_safetensors_load_into(resin_safetensors *file, int64_t index,
                                         resin_tensor *destination) {
    const entry *tensor;
    RESIN_TRY(go_to(file, index, &tensor));
    int rank = resin_tensor_rank(destination);
    const int64_t *shape = resin_tensor_shape(destination);
    if (rank != tensor->rank || memcmp(shape, tensor->shape, (size_t)rank * sizeof *shape) != 0) {
        char expected[SHAPE_TEXT], got[SHAPE_TEXT];
        return resin_fail(file->context, RESIN_ERROR_SHAPE,
                          "%s: tensor '%.200s' has the shape %s in the file, expected %s",
                          resin_path_shown(file->path), tensor->name,
                          shape_format(tensor->rank, tensor->shape, got),
                          shape_format(rank, shape, expected));
    }
    if (resin_tensor_dtype(destination) != stored_dtype(tensor->dtype->type) ||
        !resin_tensor_contiguous(destination))
        return load_and_copy(file, index, destination);
    resin_tensor_touch(destination);
    return stored_read(&file->reader, tensor->dtype->type, false, resin_tensor_count(destination),
                       resin_tensor_data(destination));
}
