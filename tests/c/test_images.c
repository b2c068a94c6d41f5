/* test_images.c: pictures in files: damaged and hostile ones, memory that runs out, and loaders that
 * read them in the background. That the pixels are right is shown by tests/lua/image_spec.lua. */
#include "core/base/memory.h"
#include "tests/c/io_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEST(function) cmocka_unit_test_setup_teardown(function, io_setup, io_teardown)
#define FIXTURES "tests/fixtures/images/"

static resin_status image_reader(resin_context *context, const char *path) {
    resin_tensor *image = NULL;
    resin_status status = resin_image_read(context, path, &image);
    resin_release(image);
    return status;
}

/* The tests of a format are left out where the engine was built without its library. */
static void need(const char *format) {
    if (resin_image_format(format)) return;
    print_message("built without the library for %s: skipped\n", format);
    skip();
}

/* ---- Files ----------------------------------------------------------------------------------- */

static const char *const pictures[] = {
    "colour.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg", "palette_clear.png", "grey16.png",
    "grey1.png", "interlaced.png", "colour16.png",
};
enum { PICTURES = sizeof pictures / sizeof pictures[0] };

static char *read_fixture(const char *name, size_t *size) {
    char path[256];
    snprintf(path, sizeof path, FIXTURES "%s", name);
    return io_read(path, size);
}

static void truncated(void **state) {
    io_state *test = *state;
    need("png");
    need("jpeg");
    const char *path = io_path(test, "cut.picture");
    for (int i = 0; i < PICTURES; i++) {
        size_t size;
        char *bytes = read_fixture(pictures[i], &size);
        /* Every fourth length, and each of the last ones. */
        for (size_t shorter = 0; shorter < size; shorter += shorter + 20 < size ? 4 : 1) {
            io_write(path, bytes, shorter);
            if (image_reader(test->context, path) != RESIN_ERROR_FILE)
                fail_msg("%s: no error when cut to %zu of %zu bytes", pictures[i], shorter, size);
            assert_non_null(strstr(resin_error_message(test->context), "cut.picture"));
        }
        io_write(path, bytes, size);
        assert_int_equal(image_reader(test->context, path), RESIN_OK);
        free(bytes);
    }
}

static void damaged(void **state) {
    io_state *test = *state;
    need("png");
    need("jpeg");
    const char *path = io_path(test, "damaged.picture");
    for (int i = 0; i < PICTURES; i++) {
        size_t size;
        char *bytes = read_fixture(pictures[i], &size);
        for (size_t at = 0; at < size; at += 3) {
            bytes[at] ^= (char)(1 << at % 8);
            io_write(path, bytes, size);
            resin_status status = image_reader(test->context, path);
            assert_true(status == RESIN_OK || status == RESIN_ERROR_FILE);
            bytes[at] ^= (char)(1 << at % 8);
        }
        free(bytes);
    }
    assert_int_equal(resin_memory(test->context).held, 0);
}

/* A header of a PNG file with other sizes, its checksum made true. */
static void write_png_header(const char *path, uint32_t width, uint32_t height) {
    uint8_t file[64] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R'};
    for (int i = 0; i < 4; i++) {
        file[16 + i] = (uint8_t)(width >> (24 - 8 * i));
        file[20 + i] = (uint8_t)(height >> (24 - 8 * i));
    }
    file[24] = 8;
    file[25] = 2;
    uint32_t sum = 0xffffffffu;
    for (int i = 12; i < 29; i++) {
        sum ^= file[i];
        for (int bit = 0; bit < 8; bit++) sum = sum & 1u ? 0xedb88320u ^ (sum >> 1) : sum >> 1;
    }
    for (int i = 0; i < 4; i++) file[29 + i] = (uint8_t)(~sum >> (24 - 8 * i));
    memcpy(file + 33, "\0\0\0\0IDAT", 8);
    io_write(path, file, sizeof file);
}

static void huge_png(void **state) {
    io_state *test = *state;
    need("png");
    const char *path = io_path(test, "bomb.png");
    static const uint32_t sizes[][2] = {{20000, 20000}, {900000, 900000}, {4000, 4000}};
    static const char *const words[] = {"at most 178956970", "at most 178956970", "truncated"};
    for (int i = 0; i < 3; i++) {
        write_png_header(path, sizes[i][0], sizes[i][1]);
        resin_memory_reset_peak(test->context);
        io_expect_error(test, image_reader(test->context, path), RESIN_ERROR_FILE, words[i]);
        io_expect_error(test, RESIN_ERROR_FILE, RESIN_ERROR_FILE, "bomb.png");
        assert_true(resin_memory(test->context).peak < 1 << 16);
    }
    write_png_header(path, 0xffffffffu, 3); /* libpng refuses it */
    io_expect_error(test, image_reader(test->context, path), RESIN_ERROR_FILE, "damaged PNG");
}

static void huge_jpeg(void **state) {
    io_state *test = *state;
    need("jpeg");
    static const struct { uint8_t size[4]; const char *words; } rows[] = {
        {{0xff, 0xdc, 0xff, 0xdc}, "at most 178956970"},
        {{0x10, 0, 0x10, 0}, "truncated"}, /* 4096 x 4096 */
        {{0, 0, 0, 8}, "damaged JPEG"},
    };
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        size_t size, at = 0;
        char *bytes = read_fixture("progressive.jpg", &size);
        while (memcmp(bytes + at, "\xff\xc2", 2) != 0) at++;
        memcpy(bytes + at + 5, rows[row].size, 4);
        io_write(io_path(test, "bomb.jpg"), bytes, size);
        free(bytes);
        io_expect_error(test, image_reader(test->context, io_path(test, "bomb.jpg")),
                        RESIN_ERROR_FILE, rows[row].words);
        io_expect_error(test, RESIN_ERROR_FILE, RESIN_ERROR_FILE, "bomb.jpg");
    }
}

/* Every scan of a progressive file goes over the whole picture: a small file that says the same
 * scan again and again must come to an end. */
static void many_scans(void **state) {
    io_state *test = *state;
    need("jpeg");
    size_t size, at = 0, length;
    char *bytes = read_fixture("progressive.jpg", &size);
    while (memcmp(bytes + at, "\xff\xda", 2) != 0) at++;
    for (length = 2; memcmp(bytes + at + length, "\xff\xc4", 2) != 0; length++) {}
    char *file = malloc(size + 1000 * length);
    memcpy(file, bytes, at);
    size_t end = at;
    for (int scan = 0; scan < 1000; scan++, end += length) memcpy(file + end, bytes + at, length);
    memcpy(file + end, bytes + at, size - at);
    io_write(io_path(test, "scans.jpg"), file, end + size - at);
    free(file);
    free(bytes);
    io_expect_error(test, image_reader(test->context, io_path(test, "scans.jpg")), RESIN_ERROR_FILE,
                    "scans");
}

static void not_a_picture(void **state) {
    io_state *test = *state;
    const char *path = io_path(test, "picture.jpg");
    io_expect_error(test, image_reader(test->context, path), RESIN_ERROR_FILE, "picture.jpg");
    io_write(path, "GIF89a", 6);
    io_expect_error(test, image_reader(test->context, path), RESIN_ERROR_FILE,
                    "neither a JPEG nor a PNG");
    io_expect_error(test, image_reader(test->context, test->folder), RESIN_ERROR_FILE,
                    "is not a file");
    io_write(path, "", 0);
    assert_int_equal(image_reader(test->context, path), RESIN_ERROR_FILE);
    const char *formats[] = {"jpeg", "png"};
    for (int i = 0; i < 2; i++) {
        if (resin_image_format(formats[i])) continue;
        const char *file = i == 0 ? FIXTURES "grey.jpg" : FIXTURES "grey.png";
        io_expect_error(test, image_reader(test->context, file), RESIN_ERROR_FILE, "build again");
    }
}

static void without_memory(void **state) {
    io_state *test = *state;
    need("png");
    need("jpeg");
    for (int i = 0; i < PICTURES; i++) {
        char path[256];
        snprintf(path, sizeof path, FIXTURES "%s", pictures[i]);
        io_starve(test, path, image_reader);
    }
}

/* ---- Sizes ----------------------------------------------------------------------------------- */

static resin_tensor *new_image(const io_state *test, int64_t height, int64_t width, double value) {
    resin_tensor *image;
    const int64_t shape[3] = {height, width, 3};
    assert_int_equal(resin_full(test->context, RESIN_UINT8, 3, shape, value, &image), RESIN_OK);
    return image;
}

/* Whatever the sizes, one colour stays one colour; around it the window has zeros. */
static void one_colour(void **state) {
    io_state *test = *state;
    static const int64_t sizes[][2] = {{1, 1}, {3, 200}, {50, 1}, {7, 9}, {300, 300}};
    for (int from = 0; from < 5; from++)
        for (int to = 0; to < 5; to++) {
            resin_tensor *image = new_image(test, sizes[from][0], sizes[from][1], 201), *out;
            assert_int_equal(resin_image_resize(test->context, image, sizes[to][0], sizes[to][1],
                                                &out), RESIN_OK);
            const uint8_t *pixel = resin_tensor_data(out);
            for (int64_t i = 0; i < resin_tensor_count(out); i++) assert_int_equal(pixel[i], 201);
            resin_release(out);
            resin_release(image);
        }
    resin_tensor *image = new_image(test, 4, 2, 9), *out;
    assert_int_equal(resin_image_fit(test->context, image, 0, 6, 3, &out), RESIN_OK);
    const uint8_t *pixel = resin_tensor_data(out);
    for (int64_t i = 0; i < 18; i++) {
        bool inside = i / 3 >= 1 && i / 3 < 5 && i % 3 < 2;
        assert_int_equal(pixel[3 * i], inside ? 9 : 0);
    }
    resin_release(out);
    resin_release(image);
}

static void wrong_sizes(void **state) {
    io_state *test = *state;
    resin_tensor *image = new_image(test, 4, 2, 9), *out = NULL;
    resin_context *context = test->context;
    io_expect_error(test, resin_image_resize(context, image, 0, 5, &out), RESIN_ERROR_ARGUMENT,
                    "1 to 1048576");
    io_expect_error(test, resin_image_resize(context, image, 5, INT64_MAX, &out),
                    RESIN_ERROR_ARGUMENT, "1 to 1048576");
    io_expect_error(test, resin_image_fit(context, image, -1, 5, 5, &out), RESIN_ERROR_ARGUMENT,
                    "shorter side");
    io_expect_error(test, resin_image_fit(context, image, INT64_MAX, 5, 5, &out),
                    RESIN_ERROR_ARGUMENT, "shorter side");
    resin_release(image);
    const int64_t shape[3] = {4, 2, 1};
    assert_int_equal(resin_full(context, RESIN_UINT8, 3, shape, 1, &image), RESIN_OK);
    io_expect_error(test, resin_image_resize(context, image, 5, 5, &out), RESIN_ERROR_SHAPE,
                    "(height, width, 3)");
    resin_release(image);
}

/* ---- Loaders --------------------------------------------------------------------------------- */

enum { FILES = 23, SIDE = 12 };

/* FILES paths, the pictures by turns; the last one is `last`. */
static void list_files(const char **paths, const char *last) {
    static const char *const files[] = {FIXTURES "colour.jpg", FIXTURES "photograph.png",
                                        FIXTURES "grey.png"};
    for (int i = 0; i < FILES; i++) paths[i] = files[i % 3];
    if (last) paths[FILES - 1] = last;
}

static resin_loader_settings loader_settings(int workers) {
    return (resin_loader_settings){
        .batch = {.pad = 1, .flip = true, .mean = {0.5f, 0.4f, 0.3f},
                  .deviation = {0.2f, 0.3f, 0.4f}, .seed = 9, .epoch = 4},
        .batch_size = 4, .shuffle = true, .workers = workers, .ahead = 3};
}

static resin_loader *start(const io_state *test, const char **paths, bool random,
                           const resin_loader_settings *settings) {
    resin_loader *loader;
    resin_tensor *labels;
    const resin_picture_settings how = {.height = SIDE, .width = SIDE, .shorter = SIDE + 2,
                                        .random = random, .area = {0.1, 1}, .ratio = {0.5, 2}};
    assert_int_equal(resin_arange(test->context, RESIN_INT64, 0, 1, FILES, &labels), RESIN_OK);
    assert_int_equal(resin_picture_loader_new(test->context, paths, labels, &how, settings,
                                              &loader), RESIN_OK);
    resin_release(labels);
    return loader;
}

/* The same bits with 0, 1 and 3 workers, two epochs of them; and the second differs. */
static void same_bits(void **state) {
    io_state *test = *state;
    need("png");
    need("jpeg");
    const char *paths[FILES];
    list_files(paths, NULL);
    for (int random = 0; random < 2; random++) {
        resin_loader *loaders[3];
        const int workers[3] = {0, 1, 3};
        for (int i = 0; i < 3; i++) {
            resin_loader_settings settings = loader_settings(workers[i]);
            loaders[i] = start(test, paths, random, &settings);
        }
        for (int64_t step = 0; step < 2 * (resin_loader_batches(loaders[0]) + 1); step++) {
            resin_tensor *images[3], *labels[3];
            for (int i = 0; i < 3; i++) {
                assert_int_equal(resin_loader_next(loaders[i], &images[i], &labels[i]), RESIN_OK);
                assert_true((images[i] == NULL) == (images[0] == NULL));
                if (!images[i]) continue;
                size_t size = (size_t)resin_tensor_count(images[0]);
                assert_memory_equal(resin_tensor_data(images[i]), resin_tensor_data(images[0]),
                                    size * sizeof(float));
                assert_memory_equal(resin_tensor_data(labels[i]), resin_tensor_data(labels[0]),
                                    (size_t)resin_tensor_count(labels[0]) * sizeof(int64_t));
            }
            for (int i = 0; i < 3; i++) {
                resin_release(images[i]);
                resin_release(labels[i]);
            }
        }
        for (int i = 0; i < 3; i++) resin_loader_close(loaders[i]); /* in the midst of work */
    }
}

/* A picture that cannot be read is an error of its batch, which names it and comes again. */
static void bad_picture(void **state) {
    io_state *test = *state;
    need("png");
    need("jpeg");
    const char *bad = io_path(test, "bad.png"), *paths[FILES];
    io_write(bad, "\x89PNG\r\n\x1a\n", 8);
    list_files(paths, bad);
    for (int workers = 0; workers < 3; workers++) {
        resin_loader_settings settings = loader_settings(workers);
        settings.shuffle = false;
        resin_loader *loader = start(test, paths, true, &settings);
        resin_tensor *images, *labels;
        for (int step = 0; step < FILES / 4; step++) {
            assert_int_equal(resin_loader_next(loader, &images, &labels), RESIN_OK);
            resin_release(images);
            resin_release(labels);
        }
        for (int again = 0; again < 2; again++) {
            resin_status status = resin_loader_next(loader, &images, &labels);
            io_expect_error(test, status, RESIN_ERROR_FILE, "bad.png");
            assert_null(images);
        }
        resin_loader_close(loader);
    }
}

static void wrong_settings(void **state) {
    io_state *test = *state;
    const char *paths[FILES];
    list_files(paths, NULL);
    resin_tensor *labels;
    resin_loader *loader;
    resin_loader_settings settings = loader_settings(0);
    assert_int_equal(resin_arange(test->context, RESIN_INT64, 0, 1, FILES, &labels), RESIN_OK);
    const resin_picture_settings good = {.height = SIDE, .width = SIDE, .random = true,
                                         .area = {0.1, 1}, .ratio = {0.5, 2}};
    resin_picture_settings wrong[] = {good, good, good, good};
    static const char *const words[] = {"sides of 1", "parts of the area", "parts of the area",
                                        "ratios"};
    wrong[0].height = 0;
    wrong[1].area[0] = 0;
    wrong[2].area[1] = 1.5;
    wrong[3].ratio[1] = 0.1;
    for (int i = 0; i < 4; i++)
        io_expect_error(test, resin_picture_loader_new(test->context, paths, labels, &wrong[i],
                                                       &settings, &loader),
                        RESIN_ERROR_ARGUMENT, words[i]);
    resin_release(labels);
}

/* ---- Folders --------------------------------------------------------------------------------- */

static void folder_names(void **state) {
    io_state *test = *state;
    resin_tensor *names = NULL;
    char inner[600];
    snprintf(inner, sizeof inner, "%s/b", test->folder);
    assert_int_equal(mkdir(inner, 0777), 0);
    io_write(io_path(test, "c"), "", 0);
    io_write(io_path(test, "a.png"), "", 0);
    io_write(io_path(test, ".hidden"), "", 0);
    assert_int_equal(resin_folder_list(test->context, test->folder, &names), RESIN_OK);
    assert_int_equal(resin_tensor_count(names), 11);
    assert_memory_equal(resin_tensor_data(names), "a.png\0b/\0c", 11);
    resin_release(names);
    assert_int_equal(rmdir(inner), 0);
    assert_int_equal(remove(io_path(test, ".hidden")), 0);
    io_expect_error(test, resin_folder_list(test->context, inner, &names), RESIN_ERROR_FILE,
                    "cannot open the folder");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(truncated), TEST(damaged), TEST(huge_png), TEST(huge_jpeg), TEST(many_scans),
        TEST(not_a_picture), TEST(without_memory), TEST(one_colour), TEST(wrong_sizes),
        TEST(same_bits), TEST(bad_picture), TEST(wrong_settings), TEST(folder_names),
    };
    return cmocka_run_group_tests_name("images", tests, NULL, NULL);
}
