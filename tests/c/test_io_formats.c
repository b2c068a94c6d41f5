/* test_io_formats.c: the readers of IDX, CIFAR and npy files. */
#include "tests/c/io_files.h"

#include "core/tensor/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef RESIN_HAVE_ZLIB
#include <zlib.h>
#endif

static double value_at(resin_tensor *tensor, int64_t index) {
    int64_t position[RESIN_MAX_RANK] = {0};
    for (int axis = resin_tensor_rank(tensor) - 1; axis >= 0; axis--) {
        position[axis] = index % resin_tensor_shape(tensor)[axis];
        index /= resin_tensor_shape(tensor)[axis];
    }
    double value = 0;
    assert_int_equal(resin_get(tensor, position, &value), RESIN_OK);
    return value;
}

/* ---- IDX ------------------------------------------------------------------------------------- */

static resin_status idx_reader(resin_context *context, const char *path) {
    resin_tensor *tensor = NULL;
    resin_status status = resin_idx_read(context, path, &tensor);
    resin_release(tensor);
    return status;
}

static void idx_types(void **state) {
    io_state *test = *state;
    static const struct {
        uint8_t file[16];
        size_t size;
        resin_dtype dtype;
        double first, last;
    } rows[] = {
        {{0, 0, 8, 1, 0, 0, 0, 2, 1, 255}, 10, RESIN_UINT8, 1, 255},
        {{0, 0, 9, 1, 0, 0, 0, 2, 1, 255}, 10, RESIN_INT32, 1, -1},
        {{0, 0, 11, 1, 0, 0, 0, 2, 1, 2, 255, 254}, 12, RESIN_INT32, 258, -2},
        {{0, 0, 12, 1, 0, 0, 0, 1, 255, 255, 255, 0}, 12, RESIN_INT32, -256, -256},
        {{0, 0, 13, 1, 0, 0, 0, 1, 0x3f, 0x80, 0, 0}, 12, RESIN_FLOAT32, 1, 1},
        {{0, 0, 14, 1, 0, 0, 0, 1, 0xc0, 0, 0, 0, 0, 0, 0, 0}, 16, RESIN_FLOAT64, -2, -2},
    };
    const char *path = io_path(test, "numbers");
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        resin_tensor *tensor;
        io_write(path, rows[row].file, rows[row].size);
        assert_int_equal(resin_idx_read(test->context, path, &tensor), RESIN_OK);
        assert_int_equal(resin_tensor_dtype(tensor), rows[row].dtype);
        assert_true(value_at(tensor, 0) == rows[row].first);
        assert_true(value_at(tensor, resin_tensor_count(tensor) - 1) == rows[row].last);
        resin_release(tensor);
    }
}

static const uint8_t idx_images[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0,
                                     1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6};

static void idx_refused(void **state) {
    io_state *test = *state;
    static const struct {
        uint8_t file[16];
        size_t size;
        const char *words;
    } rows[] = {
        {{0, 0, 8, 0}, 4, "0 axes"},
        {{0, 0, 8, 9}, 4, "9 axes"},
        {{0, 0, 7, 1, 0, 0, 0, 1, 1}, 9, "is no IDX file"},
        {{1, 0, 8, 1, 0, 0, 0, 1, 1}, 9, "is no IDX file"},
        {{0, 0, 8, 1, 0, 0, 0, 1, 1, 2}, 10, "follow after"},
        {{0, 0, 8, 1, 255, 255, 255, 255, 1}, 9, "shape (4294967295), but the data are too short"},
        {{0, 0, 14, 2, 255, 255, 255, 255, 255, 255, 255, 255}, 12, "too short"},
        {{0, 0, 14, 3, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0}, 16, "shape"},
    };
    const char *path = io_path(test, "numbers");
    resin_tensor *tensor;
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        io_write(path, rows[row].file, rows[row].size);
        io_expect_error(test, resin_idx_read(test->context, path, &tensor), RESIN_ERROR_FILE,
                        rows[row].words);
    }
    assert_true(resin_memory(test->context).peak < 1 << 20);
    assert_int_equal(mkfifo(io_path(test, "pipe"), 0600), 0);
    io_expect_error(test, resin_idx_read(test->context, io_path(test, "pipe"), &tensor),
                    RESIN_ERROR_FILE, "is not a file");
    io_write(path, idx_images, sizeof idx_images);
    io_damage(test, path, idx_reader);
    io_expect_error(test, resin_idx_read(test->context, io_path(test, "none"), &tensor),
                    RESIN_ERROR_FILE, "cannot open");
}

#ifdef RESIN_HAVE_ZLIB

static void write_gzip(const char *path, const void *bytes, size_t size) {
    gzFile file = gzopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, bytes, (unsigned)size), size);
    assert_int_equal(gzclose(file), Z_OK);
}

static void idx_gzipped(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "images.gz");
    write_gzip(path, idx_images, sizeof idx_images);
    resin_tensor *tensor;
    assert_int_equal(resin_idx_read(test->context, path, &tensor), RESIN_OK);
    assert_int_equal(resin_tensor_rank(tensor), 3);
    for (int i = 0; i < 6; i++) assert_true(value_at(tensor, i) == i + 1);
    resin_release(tensor);
    /* Cut anywhere, the last bytes (checksum and length) included; and with any byte changed. */
    size_t size;
    char *bytes = io_read(path, &size);
    for (size_t shorter = 0; shorter < size; shorter++) {
        io_write(path, bytes, shorter);
        assert_int_equal(idx_reader(test->context, path), RESIN_ERROR_FILE);
    }
    for (size_t at = 0; at < size; at++) {
        bytes[at] = (char)~bytes[at];
        io_write(path, bytes, size);
        resin_status status = idx_reader(test->context, path);
        assert_true(status == RESIN_OK || status == RESIN_ERROR_FILE);
        bytes[at] = (char)~bytes[at];
    }
    free(bytes);
    /* The header's length is bounded by what so few bytes can hold. */
    static const uint8_t forged[] = {0, 0, 8, 1, 127, 255, 255, 255, 1};
    write_gzip(path, forged, sizeof forged);
    io_expect_error(test, resin_idx_read(test->context, path, &tensor), RESIN_ERROR_FILE,
                    "too short");
    static const uint8_t longer[] = {0, 0, 8, 1, 0, 0, 0, 1, 1, 2};
    write_gzip(path, longer, sizeof longer);
    io_expect_error(test, resin_idx_read(test->context, path, &tensor), RESIN_ERROR_FILE,
                    "follow after");
    assert_true(resin_memory(test->context).peak < 1 << 20);
}

static void fashion_mnist(void **state) {
    io_state *test = *state;
    if (!io_shared("fashion-mnist/t10k-images-idx3-ubyte.gz")) {
        print_message("Fashion-MNIST: no shared data, skipped\n");
        skip();
    }
    resin_tensor *images, *labels;
    assert_int_equal(resin_idx_read(test->context,
                                    io_shared("fashion-mnist/t10k-images-idx3-ubyte.gz"), &images),
                     RESIN_OK);
    assert_int_equal(resin_idx_read(test->context,
                                    io_shared("fashion-mnist/t10k-labels-idx1-ubyte.gz"), &labels),
                     RESIN_OK);
    assert_int_equal(resin_tensor_shape(images)[0], 10000);
    assert_int_equal(resin_tensor_shape(images)[1], 28);
    int counts[10] = {0};
    for (int i = 0; i < 10000; i++) counts[((uint8_t *)resin_tensor_data(labels))[i]]++;
    for (int k = 0; k < 10; k++) assert_int_equal(counts[k], 1000);
    resin_release(images);
    resin_release(labels);
}

#else

static void idx_gzipped(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "images.gz");
    io_write(path, "\x1f\x8b\x08", 3);
    resin_tensor *tensor;
    io_expect_error(test, resin_idx_read(test->context, path, &tensor), RESIN_ERROR_FILE,
                    "zlib1g-dev");
}

static void fashion_mnist(void **state) {
    (void)state;
    print_message("Fashion-MNIST: built without zlib, skipped\n");
    skip();
}

#endif

/* ---- CIFAR ----------------------------------------------------------------------------------- */

enum { CIFAR_PIXELS = 3072, CIFAR10_RECORD = CIFAR_PIXELS + 1, CIFAR100_RECORD = CIFAR_PIXELS + 2 };

/* `count` records whose pixels are plane * 75 + pixel % 97, labels first, first + 1, ... */
static void write_cifar(const char *path, int count, int first, bool superclass) {
    size_t record = superclass ? CIFAR100_RECORD : CIFAR10_RECORD;
    uint8_t *bytes = malloc((size_t)count * record), *at = bytes;
    for (int i = 0; i < count; i++) {
        if (superclass) *at++ = (uint8_t)((first + i) / 5);
        *at++ = (uint8_t)(first + i);
        for (int k = 0; k < CIFAR_PIXELS; k++) *at++ = (uint8_t)(k / 1024 * 75 + k % 1024 % 97);
    }
    io_write(path, bytes, (size_t)count * record);
    free(bytes);
}

static void write_train_files(const io_state *test) {
    for (int batch = 1; batch <= 5; batch++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", batch);
        write_cifar(io_path(test, name), 2, 2 * batch - 2, false);
    }
}

static void cifar10(void **state) {
    io_state *test = *state;
    resin_tensor *images, *labels;
    write_train_files(test);
    assert_int_equal(resin_cifar10_read(test->context, test->folder, false, &images, &labels),
                     RESIN_OK);
    assert_int_equal(resin_tensor_rank(images), 4);
    assert_int_equal(resin_tensor_shape(images)[0], 10);
    for (int i = 0; i < 10; i++) assert_true(value_at(labels, i) == i);
    const uint8_t *pixel = resin_tensor_data(images);
    for (int i = 0; i < 10; i++)
        for (int k = 0; k < 1024; k++)
            for (int channel = 0; channel < 3; channel++)
                assert_int_equal(*pixel++, channel * 75 + k % 97);
    resin_release(images);
    resin_release(labels);
    io_expect_error(test, resin_cifar10_read(test->context, test->folder, true, &images, &labels),
                    RESIN_ERROR_FILE, "cifar10: test_batch.bin is missing in ");
    assert_non_null(strstr(resin_error_message(test->context), "`make cifar10`"));
    write_cifar(io_path(test, "test_batch.bin"), 3, 7, false);
    assert_int_equal(resin_cifar10_read(test->context, test->folder, true, &images, &labels),
                     RESIN_OK);
    assert_int_equal(resin_tensor_shape(images)[0], 3);
    resin_release(images);
    resin_release(labels);
}

static void cifar10_subfolder(void **state) {
    io_state *test = *state;
    resin_tensor *images, *labels;
    const char *folder = io_path(test, "cifar-10-batches-bin");
    assert_int_equal(mkdir(folder, 0700), 0);
    write_cifar(io_path(test, "cifar-10-batches-bin/test_batch.bin"), 1, 0, false);
    assert_int_equal(resin_cifar10_read(test->context, test->folder, true, &images, &labels),
                     RESIN_OK);
    resin_release(images);
    resin_release(labels);
    remove(io_path(test, "cifar-10-batches-bin/test_batch.bin"));
    rmdir(folder);
}

static void cifar100(void **state) {
    io_state *test = *state;
    resin_tensor *images, *labels;
    write_cifar(io_path(test, "train.bin"), 4, 96, true);
    for (int superclass = 0; superclass < 2; superclass++) {
        assert_int_equal(resin_cifar100_read(test->context, test->folder, false, superclass == 1,
                                             &images, &labels),
                         RESIN_OK);
        for (int i = 0; i < 4; i++) assert_true(value_at(labels, i) == (superclass ? 19 : 96 + i));
        resin_release(images);
        resin_release(labels);
    }
    write_cifar(io_path(test, "test.bin"), 1, 100, true);
    io_expect_error(test,
                    resin_cifar100_read(test->context, test->folder, true, false, &images, &labels),
                    RESIN_ERROR_FILE, "superclasses");
}

static void cifar_damaged(void **state) {
    io_state *test = *state;
    resin_tensor *images, *labels;
    const char *path = io_path(test, "test_batch.bin");
    write_cifar(path, 2, 0, false);
    size_t size;
    char *bytes = io_read(path, &size);
    for (size_t shorter = 0; shorter < size; shorter++) {
        if (shorter == CIFAR10_RECORD) continue; /* one record less is another good file */
        io_write(path, bytes, shorter);
        io_expect_error(test,
                        resin_cifar10_read(test->context, test->folder, true, &images, &labels),
                        RESIN_ERROR_FILE, "is it truncated");
    }
    free(bytes);
    write_cifar(path, 3, 8, false);
    io_expect_error(test, resin_cifar10_read(test->context, test->folder, true, &images, &labels),
                    RESIN_ERROR_FILE,
                    "record 2 (counted from 0) has the label 10; cifar10 has the "
                    "labels 0 to 9");
    io_expect_error(
        test, resin_cifar10_read(test->context, io_path(test, "none"), true, &images, &labels),
        RESIN_ERROR_FILE, "is missing in");
}

/* ---- npy ------------------------------------------------------------------------------------- */

static resin_status npy_reader(resin_context *context, const char *path) {
    resin_tensor *tensor = NULL;
    resin_status status = resin_npy_read(context, path, &tensor);
    resin_release(tensor);
    return status;
}

/* A file of one version of the format with bytes after its dictionary. */
static resin_status read_npy(const io_state *test, int version, const char *dictionary,
                             const void *data, size_t size, resin_tensor **tensor) {
    uint8_t file[1024] = "\x93NUMPY";
    size_t length = strlen(dictionary), at = 6;
    file[at++] = (uint8_t)version;
    file[at++] = 0;
    for (int i = 0; i < (version == 1 ? 2 : 4); i++) file[at++] = (uint8_t)(length >> 8 * i);
    memcpy(file + at, dictionary, length);
    memcpy(file + at + length, data, size);
    const char *path = io_path(test, "array.npy");
    io_write(path, file, at + length + size);
    return resin_npy_read(test->context, path, tensor);
}

static void npy_round_trip(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "array.npy");
    for (int dtype = 0; dtype < RESIN_DTYPE_COUNT; dtype++)
        for (int rank = 0; rank <= 4; rank++) {
            resin_tensor *base, *turned, *loaded;
            int64_t shape[4] = {2, 3, 1, 4}, stride[4], reversed[4];
            assert_int_equal(resin_empty(test->context, (resin_dtype)dtype, rank, shape, &base),
                             RESIN_OK);
            int64_t count = resin_tensor_count(base);
            memset(resin_tensor_data(base), 0,
                   (size_t)count * resin_dtype_size((resin_dtype)dtype));
            for (int i = 0; i < rank; i++) {
                reversed[i] = shape[rank - 1 - i];
                stride[i] = resin_tensor_strides(base)[rank - 1 - i];
            }
            assert_int_equal(tensor_view(base, rank, reversed, stride, 0, &turned), RESIN_OK);
            for (int64_t i = 0; i < count; i++) {
                int64_t position[4] = {0}, rest = i;
                for (int axis = rank - 1; axis >= 0; rest /= reversed[axis--])
                    position[axis] = rest % reversed[axis];
                assert_int_equal(resin_set(turned, position, (double)i), RESIN_OK);
            }
            assert_int_equal(resin_npy_write(test->context, path, turned), RESIN_OK);
            assert_int_equal(resin_npy_read(test->context, path, &loaded), RESIN_OK);
            assert_int_equal(resin_tensor_dtype(loaded), dtype);
            assert_int_equal(resin_tensor_rank(loaded), rank);
            for (int64_t i = 0; i < count; i++) assert_true(value_at(loaded, i) == (double)i);
            resin_release(base);
            resin_release(turned);
            resin_release(loaded);
        }
    assert_int_equal(io_file_count(test), 1);
}

static void npy_types(void **state) {
    io_state *test = *state;
    static const struct {
        const char *descr;
        resin_dtype dtype;
        size_t size;
        uint8_t bytes[8];
        double value;
    } rows[] = {
        {"<f2", RESIN_FLOAT32, 2, {0x00, 0x3e}, 1.5},
        {">f2", RESIN_FLOAT32, 2, {0x3e, 0x00}, 1.5},
        {"<f4", RESIN_FLOAT32, 4, {0, 0, 0xc0, 0x3f}, 1.5},
        {">f8", RESIN_FLOAT64, 8, {0x3f, 0xf8}, 1.5},
        {"|i1", RESIN_INT32, 1, {0xff}, -1},
        {"<i2", RESIN_INT32, 2, {0xfe, 0xff}, -2},
        {">u2", RESIN_INT32, 2, {0xff, 0xfe}, 65534},
        {">i4", RESIN_INT32, 4, {0, 0, 1, 0}, 256},
        {"<i8", RESIN_INT64, 8, {5}, 5},
        {"<u4", RESIN_INT64, 4, {0, 0, 0, 0x80}, 0x1p31},
        {"|u1", RESIN_UINT8, 1, {200}, 200},
        {"|b1", RESIN_UINT8, 1, {1}, 1},
        {"<u8", RESIN_INT64, 8, {0, 1}, 256},
    };
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++)
        for (int version = 1; version <= 3; version++) {
            char dictionary[128];
            snprintf(dictionary, sizeof dictionary,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (), }  \n", rows[row].descr);
            resin_tensor *tensor;
            assert_int_equal(
                read_npy(test, version, dictionary, rows[row].bytes, rows[row].size, &tensor),
                RESIN_OK);
            assert_int_equal(resin_tensor_dtype(tensor), rows[row].dtype);
            assert_true(value_at(tensor, 0) == rows[row].value);
            resin_release(tensor);
        }
}

static void npy_column_order(void **state) {
    io_state *test = *state;
    uint8_t bytes[24];
    for (int i = 0; i < 2; i++) /* element (i, j, k) holds 100 i + 10 j + k */
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 4; k++) bytes[i + 2 * j + 6 * k] = (uint8_t)(100 * i + 10 * j + k);
    resin_tensor *tensor;
    assert_int_equal(read_npy(test, 1,
                              "{'shape': (2, 3, 4), 'fortran_order': True, 'descr': '|u1'}", bytes,
                              sizeof bytes, &tensor),
                     RESIN_OK);
    for (int64_t i = 0; i < 2; i++)
        for (int64_t j = 0; j < 3; j++)
            for (int64_t k = 0; k < 4; k++)
                assert_true(value_at(tensor, 12 * i + 4 * j + k) == (double)(100 * i + 10 * j + k));
    resin_release(tensor);
}

static void npy_refused(void **state) {
    io_state *test = *state;
    static const struct {
        const char *dictionary, *words;
    } rows[] = {
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "Python objects"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "records"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "type '<c8'"},
        {"{'descr': '', 'fortran_order': False, 'shape': (1,), }", "type ''"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }", "neither True nor False"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1), }", "malformed 'shape'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "malformed 'shape'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,,), }", "malformed 'shape'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1 2), }", "malformed 'shape'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 1, }", "malformed 'shape'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "more than 8"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,), }", "64 bits"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }",
         "too short"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }", "too short"},
        {"{'descr': '<f4', 'fortran_order': False, }", "lacks"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
         "repeated key"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}", "unknown"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x", "goes on"},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': (1,), }", "malformed"},
        {"__import__('os')", "is no dictionary"},
        {"", "is no dictionary"},
    };
    resin_tensor *tensor;
    uint8_t four[5] = {0};
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++)
        io_expect_error(test, read_npy(test, 1, rows[row].dictionary, four, 4, &tensor),
                        RESIN_ERROR_FILE, rows[row].words);
    static const char good[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";
    io_expect_error(test, read_npy(test, 1, good, four, 3, &tensor), RESIN_ERROR_FILE, "too short");
    io_expect_error(test, read_npy(test, 1, good, four, 5, &tensor), RESIN_ERROR_FILE,
                    "follow after");
    io_expect_error(test, read_npy(test, 4, good, four, 4, &tensor), RESIN_ERROR_FILE,
                    "version 4.0");
    const char *path = io_path(test, "array.npy");
    io_write(path, "PK\3\4........", 12);
    io_expect_error(test, resin_npy_read(test->context, path, &tensor), RESIN_ERROR_FILE, ".npz");
    io_write(path, "\x93NUMPY\2\0\xff\xff\xff\x7f{}", 14);
    io_expect_error(test, resin_npy_read(test->context, path, &tensor), RESIN_ERROR_FILE,
                    "announces 2147483647 bytes");
    assert_true(resin_memory(test->context).peak < 1 << 20);
    resin_tensor *small;
    assert_int_equal(resin_arange(test->context, RESIN_INT32, 0, 1, 3, &small), RESIN_OK);
    assert_int_equal(resin_npy_write(test->context, path, small), RESIN_OK);
    resin_release(small);
    io_damage(test, path, npy_reader);
}

/* Written by numpy; the last five elements are known. */
static void npy_from_numpy(void **state) {
    io_state *test = *state;
    static const struct {
        const char *name;
        resin_dtype dtype;
        int64_t count;
        double last[5];
    } rows[] = {
        {"npy/npyjs-10-float32.npy", RESIN_FLOAT32, 10, {86, 103, 118, 62, 49}},
        {"npy/npyjs-10-float64.npy", RESIN_FLOAT64, 10, {130, 98, 134, 105, 206}},
        {"npy/npyjs-10-int16.npy", RESIN_INT32, 10, {197, 176, 34, 115, 154}},
        {"npy/npyjs-10-int64.npy", RESIN_INT64, 10, {231, 43, 30, 103, 112}},
        {"npy/npyjs-10-int8.npy", RESIN_INT32, 10, {-83, -59, 87, 25, -96}},
        {"npy/npyjs-4x4x4x4x4-float32.npy", RESIN_FLOAT32, 1024, {81, 138, 98, 211, 99}},
    };
    resin_tensor *tensor;
    if (!io_shared(rows[0].name)) {
        print_message("npy files of numpy: no shared data, skipped\n");
        skip();
    }
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        assert_int_equal(resin_npy_read(test->context, io_shared(rows[row].name), &tensor),
                         RESIN_OK);
        assert_int_equal(resin_tensor_dtype(tensor), rows[row].dtype);
        assert_int_equal(resin_tensor_count(tensor), rows[row].count);
        for (int i = 0; i < 5; i++)
            assert_true(value_at(tensor, rows[row].count - 5 + i) == rows[row].last[i]);
        resin_release(tensor);
    }
    io_expect_error(test,
                    resin_npy_read(test->context, io_shared("npy/numpy-py3-objarr.npy"), &tensor),
                    RESIN_ERROR_FILE, "pickles are not loaded");
    io_expect_error(test,
                    resin_npy_read(test->context, io_shared("npy/numpy-py3-objarr.npz"), &tensor),
                    RESIN_ERROR_FILE, "unzipped");
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static resin_status cifar_reader(resin_context *context, const char *folder) {
    resin_tensor *images = NULL, *labels = NULL;
    resin_status status = resin_cifar10_read(context, folder, false, &images, &labels);
    resin_release(images);
    resin_release(labels);
    return status;
}

static void out_of_memory(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "numbers");
    io_write(path, idx_images, sizeof idx_images);
    io_starve(test, path, idx_reader);
    resin_tensor *tensor;
    static const char columns[] = "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }";
    assert_int_equal(read_npy(test, 1, columns, "\0\0\0", 4, &tensor), RESIN_OK);
    resin_release(tensor);
    io_starve(test, io_path(test, "array.npy"), npy_reader);
    write_train_files(test);
    io_starve(test, test->folder, cifar_reader);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, io_setup, io_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(idx_types),      TEST(idx_refused),       TEST(idx_gzipped),      TEST(fashion_mnist),
        TEST(cifar10),        TEST(cifar10_subfolder), TEST(cifar100),         TEST(cifar_damaged),
        TEST(npy_round_trip), TEST(npy_types),         TEST(npy_column_order), TEST(npy_refused),
        TEST(npy_from_numpy), TEST(out_of_memory),
    };
    return cmocka_run_group_tests_name("formats", tests, NULL, NULL);
}
