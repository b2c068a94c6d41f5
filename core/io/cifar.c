/* cifar.c: the binary version of CIFAR-10 and CIFAR-100. A file is a row of records: one label
 * byte (CIFAR-100: two, the superclass first) and 3072 bytes of pixels as planes of red, green
 * and blue. */
#include "core/base/memory.h"
#include "core/io/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXEL_BYTES = 3 * PLANE, MAX_LABELS = 2, MAX_FILES = 5 };

/* One of the two data sets. */
typedef struct cifar_kind {
    const char *name, *subfolder, *expected;
    int label_bytes;
    int classes[MAX_LABELS]; /* of each label byte */
    int train_files;
    const char *train[MAX_FILES], *test;
} cifar_kind;

static const cifar_kind cifar10 = {
    .name = "cifar10", .subfolder = "cifar-10-batches-bin",
    .expected = "data_batch_1.bin to data_batch_5.bin and test_batch.bin",
    .label_bytes = 1, .classes = {10}, .train_files = 5,
    .train = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
              "data_batch_5.bin"},
    .test = "test_batch.bin",
};
static const cifar_kind cifar100 = {
    .name = "cifar100", .subfolder = "cifar-100-binary", .expected = "train.bin and test.bin",
    .label_bytes = 2, .classes = {20, 100}, .train_files = 1, .train = {"train.bin"},
    .test = "test.bin",
};

/* A data set being read: where the next record goes, and which of its labels counts. */
typedef struct target {
    const cifar_kind *kind;
    int label_position;
    uint8_t *images;
    int64_t *labels;
    int64_t records;
} target;

static resin_status read_record(resin_reader *reader, int64_t record, target *to) {
    const cifar_kind *kind = to->kind;
    uint8_t labels[MAX_LABELS], planes[PIXEL_BYTES];
    RESIN_TRY(resin_reader_read(reader, "a record", labels, (size_t)kind->label_bytes));
    RESIN_TRY(resin_reader_read(reader, "a record", planes, sizeof planes));
    for (int i = 0; i < kind->label_bytes; i++)
        if (labels[i] >= kind->classes[i])
            return resin_fail(reader->context, RESIN_ERROR_FILE,
                              "%s: record %" PRId64 " (counted from 0) has the label %d; %s has "
                              "the labels 0 to %d%s", resin_path_shown(reader->path), record,
                              labels[i], kind->name, kind->classes[i] - 1,
                              kind->label_bytes == 2 && i == 0 ? " for superclasses" : "");
    uint8_t *image = to->images + (size_t)to->records * PIXEL_BYTES;
    for (int pixel = 0; pixel < PLANE; pixel++)
        for (int plane = 0; plane < 3; plane++)
            image[3 * pixel + plane] = planes[plane * PLANE + pixel];
    to->labels[to->records++] = labels[to->label_position];
    return RESIN_OK;
}

/* ---- Finding the files ----------------------------------------------------------------------- */

/* The files of one data set: "folder/name" or "folder/subfolder/name". */
typedef struct paths {
    int count;
    char *path[MAX_FILES];
    int64_t records[MAX_FILES];
} paths;

static void free_paths(resin_context *context, paths *files) {
    for (int i = 0; i < files->count; i++) resin_deallocate(context, files->path[i]);
}

static resin_status add_path(resin_context *context, const cifar_kind *kind, const char *folder,
                             const char *name, paths *files) {
    size_t room = strlen(folder) + strlen(kind->subfolder) + strlen(name) + 3;
    void *block;
    RESIN_TRY(resin_allocate(context, room, &block));
    char *path = block;
    files->path[files->count++] = path;
    snprintf(path, room, "%s/%s", folder, name);
    if (resin_file_exists(path)) return RESIN_OK;
    snprintf(path, room, "%s/%s/%s", folder, kind->subfolder, name);
    if (resin_file_exists(path)) return RESIN_OK;
    return resin_fail(context, RESIN_ERROR_FILE,
                      "%s: %s is missing in %s (and in its folder %s); expected %s, the binary "
                      "version; `make %s` fetches them", kind->name, name, resin_path_shown(folder),
                      kind->subfolder, kind->expected, kind->name);
}

/* How many records a file has, from its size. */
static resin_status count_records(resin_context *context, const cifar_kind *kind, const char *path,
                                  int64_t *records) {
    resin_reader reader;
    RESIN_TRY(resin_reader_open(context, path, false, &reader));
    uint64_t size = reader.left, record = (uint64_t)kind->label_bytes + PIXEL_BYTES;
    resin_reader_close(&reader);
    if (size == 0 || size % record != 0)
        return resin_fail(context, RESIN_ERROR_FILE,
                          "%s: has %" PRIu64 " bytes, which is %" PRIu64 " records of %" PRIu64
                          " bytes and %" PRIu64 " bytes more; is it truncated, or not the binary "
                          "version of %s?", resin_path_shown(path), size, size / record, record,
                          size % record, kind->name);
    *records = (int64_t)(size / record);
    return RESIN_OK;
}

static resin_status find_files(resin_context *context, const cifar_kind *kind, const char *folder,
                               bool test, paths *files) {
    int count = test ? 1 : kind->train_files;
    for (int i = 0; i < count; i++) {
        RESIN_TRY(add_path(context, kind, folder, test ? kind->test : kind->train[i], files));
        RESIN_TRY(count_records(context, kind, files->path[i], &files->records[i]));
    }
    return RESIN_OK;
}

/* ---- Reading them ---------------------------------------------------------------------------- */

static resin_status read_file(resin_context *context, const char *path, int64_t records,
                              target *to) {
    resin_reader reader;
    RESIN_TRY(resin_reader_open(context, path, false, &reader));
    resin_status status = RESIN_OK;
    for (int64_t record = 0; record < records && status == RESIN_OK; record++)
        status = read_record(&reader, record, to);
    resin_reader_close(&reader);
    return status;
}

static resin_status read_files(resin_context *context, const cifar_kind *kind, const paths *files,
                               bool superclass, resin_tensor **images, resin_tensor **labels) {
    int64_t count = 0;
    for (int i = 0; i < files->count; i++) count += files->records[i];
    resin_tensor *pixels = NULL, *classes = NULL;
    RESIN_TRY(resin_empty(context, RESIN_UINT8, 4, (int64_t[]){count, SIDE, SIDE, 3}, &pixels));
    resin_status status = resin_empty(context, RESIN_INT64, 1, &count, &classes);
    if (status == RESIN_OK) {
        target to = {.kind = kind,
                     .label_position = superclass ? 0 : kind->label_bytes - 1,
                     .images = resin_tensor_data(pixels),
                     .labels = resin_tensor_data(classes)};
        for (int i = 0; i < files->count && status == RESIN_OK; i++)
            status = read_file(context, files->path[i], files->records[i], &to);
    }
    if (status == RESIN_OK) {
        *images = pixels;
        *labels = classes;
    } else {
        resin_release(pixels);
        resin_release(classes);
    }
    return status;
}

static resin_status read_set(resin_context *context, const cifar_kind *kind, const char *folder,
                             bool test, bool superclass, resin_tensor **images,
                             resin_tensor **labels) {
    paths files = {0};
    resin_status status = find_files(context, kind, folder, test, &files);
    if (status == RESIN_OK)
        status = read_files(context, kind, &files, superclass, images, labels);
    free_paths(context, &files);
    return status;
}

resin_status resin_cifar10_read(resin_context *context, const char *folder, bool test,
                                resin_tensor **images, resin_tensor **labels) {
    return read_set(context, &cifar10, folder, test, false, images, labels);
}

resin_status resin_cifar100_read(resin_context *context, const char *folder, bool test,
                                 bool superclass, resin_tensor **images, resin_tensor **labels) {
    return read_set(context, &cifar100, folder, test, superclass, images, labels);
}
