/* test_loader.c: batches made in the background: the bits of batches made in the foreground, for
 * any number of workers, from any place on; back-pressure; a clean end at any moment, after a fork
 * and when memory is out. And images as PNG files. */
#include "core/base/memory.h"
#include "tests/c/io_files.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TEST(function) cmocka_unit_test_setup_teardown(function, io_setup, io_teardown)

enum { COUNT = 50, HEIGHT = 6, WIDTH = 5, CHANNELS = 3, IMAGE = HEIGHT * WIDTH * CHANNELS };

typedef struct source {
    resin_tensor *images, *labels;
} source;

static source make_source(const io_state *test) {
    source made;
    const int64_t shape[4] = {COUNT, HEIGHT, WIDTH, CHANNELS};
    assert_int_equal(resin_random_images(test->context, 3, shape, 7, &made.images, &made.labels),
                     RESIN_OK);
    return made;
}

static void free_source(source made) {
    resin_release(made.images);
    resin_release(made.labels);
}

static resin_loader_settings usual_settings(int workers) {
    return (resin_loader_settings){
        .batch = {.pad = 2, .flip = true, .cutout = 3, .mean = {0.5f, 0.4f, 0.3f},
                  .deviation = {0.2f, 0.3f, 0.4f}, .seed = 9, .epoch = 4},
        .batch_size = 8, .shuffle = true, .workers = workers, .ahead = 3};
}

static resin_loader *start(const io_state *test, source from, resin_loader_settings settings) {
    resin_loader *loader;
    assert_int_equal(resin_loader_new(test->context, from.images, from.labels, &settings, &loader),
                     RESIN_OK);
    return loader;
}

/* Takes one batch and compares it with what the foreground makes of the same records. */
static void expect_batch(const io_state *test, source from, const resin_loader_settings *settings,
                         resin_loader *loader, uint64_t epoch, int64_t step) {
    resin_tensor *images, *labels, *order, *expected_images, *expected_labels;
    resin_batch_settings batch = settings->batch;
    batch.epoch = epoch;
    int64_t size = settings->batch_size, first = step * size;
    int64_t count = COUNT - first < size ? COUNT - first : size;
    assert_int_equal(resin_loader_next(loader, &images, &labels), RESIN_OK);
    assert_non_null(images);
    resin_epoch_order(test->context, COUNT, settings->shuffle, batch.seed, epoch, &order);
    const int64_t *records = (const int64_t *)resin_tensor_data(order) + first;
    resin_image_batch(test->context, from.images, records, count, &batch, &expected_images);
    resin_label_batch(test->context, from.labels, records, count, &expected_labels);
    assert_int_equal(resin_tensor_shape(images)[0], count);
    assert_memory_equal(resin_tensor_data(images), resin_tensor_data(expected_images),
                        (size_t)count * IMAGE * sizeof(float));
    assert_memory_equal(resin_tensor_data(labels), resin_tensor_data(expected_labels),
                        (size_t)count * sizeof(int64_t));
    resin_tensor *made[] = {images, labels, order, expected_images, expected_labels};
    for (int i = 0; i < 5; i++) resin_release(made[i]);
}

static void expect_end(resin_loader *loader) {
    resin_tensor *images, *labels;
    assert_int_equal(resin_loader_next(loader, &images, &labels), RESIN_OK);
    assert_null(images);
    assert_null(labels);
}

/* ---- What comes out -------------------------------------------------------------------------- */

static void same_as_foreground(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    for (int workers = 0; workers <= 7; workers++) {
        resin_loader_settings settings = usual_settings(workers);
        settings.shuffle = workers != 2;
        settings.ahead = workers == 3 ? 20 : 3; /* the ring may hold several epochs */
        resin_loader *loader = start(test, from, settings);
        assert_int_equal(resin_loader_batches(loader), 7);
        for (uint64_t epoch = 4; epoch < 7; epoch++) {
            for (int64_t step = 0; step < 7; step++)
                expect_batch(test, from, &settings, loader, epoch, step);
            expect_end(loader);
        }
        resin_loader_close(loader);
    }
    free_source(from);
}

static void starts_anywhere(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    for (int64_t first = 0; first <= 7; first++) {
        resin_loader_settings settings = usual_settings(2);
        settings.step = first;
        settings.epochs = 2;
        resin_loader *loader = start(test, from, settings);
        for (uint64_t epoch = 4; epoch < 6; epoch++) {
            for (int64_t step = epoch == 4 ? first : 0; step < 7; step++) {
                uint64_t at_epoch;
                int64_t at_step;
                resin_loader_position(loader, &at_epoch, &at_step);
                assert_int_equal(at_epoch, epoch);
                assert_int_equal(at_step, step);
                expect_batch(test, from, &settings, loader, epoch, step);
            }
            expect_end(loader);
        }
        for (int i = 0; i < 3; i++) expect_end(loader); /* there are no more epochs */
        resin_loader_close(loader);
    }
    free_source(from);
}

static void short_batches(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    resin_loader_settings settings = usual_settings(1);
    settings.drop_last = true;
    resin_loader *loader = start(test, from, settings);
    assert_int_equal(resin_loader_batches(loader), 6);
    for (int64_t step = 0; step < 6; step++)
        expect_batch(test, from, &settings, loader, 4, step);
    expect_end(loader);
    resin_loader_close(loader);
    settings.drop_last = false;
    settings.batch_size = INT64_MAX; /* all in one */
    loader = start(test, from, settings);
    assert_int_equal(resin_loader_batches(loader), 1);
    expect_batch(test, from, &settings, loader, 4, 0);
    expect_end(loader);
    resin_loader_close(loader);
    free_source(from);
}

/* Cutout is the same image with a square of zeros, and no other change. */
static void cutout_is_a_square(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    int64_t records[COUNT], zeros_at_most = 3 * 3;
    for (int i = 0; i < COUNT; i++) records[i] = i;
    resin_batch_settings settings = usual_settings(1).batch;
    resin_tensor *with, *without;
    settings.mean[0] = 2.0f; /* no pixel is zero by itself in channel 0, but for the padding */
    resin_image_batch(test->context, from.images, records, COUNT, &settings, &with);
    settings.cutout = 0;
    resin_image_batch(test->context, from.images, records, COUNT, &settings, &without);
    const float *a = resin_tensor_data(with), *b = resin_tensor_data(without);
    int64_t all = 0;
    for (int image = 0; image < COUNT; image++, a += IMAGE, b += IMAGE) {
        int64_t changed = 0;
        for (int i = 0; i < IMAGE; i++) assert_true(a[i] == b[i] || a[i] == 0.0f);
        for (int i = 0; i < IMAGE; i += CHANNELS) changed += a[i] != b[i];
        assert_true(changed <= zeros_at_most);
        all += changed;
    }
    assert_true(all > COUNT); /* most squares lie inside */
    settings.cutout = -1;
    resin_tensor *none;
    io_expect_error(test, resin_image_batch(test->context, from.images, records, 1, &settings,
                                            &none), RESIN_ERROR_ARGUMENT, "cutout");
    resin_release(with);
    resin_release(without);
    free_source(from);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void pause_a_little(long microseconds) {
    nanosleep(&(struct timespec){.tv_nsec = microseconds * 1000}, NULL);
}

static void closed_at_any_moment(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    for (int i = 0; i < 60; i++) {
        resin_loader_settings settings = usual_settings(1 + i % 4);
        settings.ahead = 1 + i % 5;
        resin_loader *loader = start(test, from, settings);
        for (int step = 0; step < i % 7; step++)
            expect_batch(test, from, &settings, loader, 4, step);
        if (i % 3 == 0) pause_a_little(i * 5);
        resin_loader_close(loader);
    }
    resin_loader_close(NULL);
    free_source(from);
}

/* The ring is bounded: memory does not grow while nobody takes batches. */
static void back_pressure(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    resin_loader_settings settings = usual_settings(4);
    settings.shuffle = false;
    resin_loader *loader = start(test, from, settings);
    size_t held = resin_memory(test->context).held;
    pause_a_little(20000);
    for (int epoch = 4; epoch < 40; epoch++) {
        for (int step = 0; step < 7; step++)
            expect_batch(test, from, &settings, loader, (uint64_t)epoch, step);
        expect_end(loader);
        assert_true(resin_memory(test->context).held <= held);
    }
    assert_true(resin_loader_waited(loader) > 0.0);
    resin_loader_close(loader);
    free_source(from);
}

/* The child goes on where the parent stood, without threads, while the parent goes on, too. */
static void after_fork(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    for (int i = 0; i < 8; i++) {
        resin_loader_settings settings = usual_settings(2);
        resin_loader *loader = start(test, from, settings);
        for (int64_t step = 0; step < i; step++)
            if (step < 7) expect_batch(test, from, &settings, loader, 4, step);
        pid_t child = fork();
        assert_true(child >= 0);
        for (int64_t step = i; step < 7; step++)
            expect_batch(test, from, &settings, loader, 4, step);
        expect_end(loader);
        expect_batch(test, from, &settings, loader, 5, 0);
        resin_loader_close(loader);
        if (child == 0) _exit(0);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    free_source(from);
}

static void out_of_memory(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    resin_loader_settings settings = usual_settings(2);
    resin_status status = RESIN_ERROR_MEMORY;
    for (long allowed = 0; status != RESIN_OK; allowed++) {
        resin_loader *loader;
        resin_arena_fail_after(test->context, allowed);
        status = resin_loader_new(test->context, from.images, from.labels, &settings, &loader);
        resin_arena_fail_after(test->context, -1);
        assert_true(status == RESIN_OK || status == RESIN_ERROR_MEMORY);
        assert_int_equal(status == RESIN_OK, loader != NULL);
        resin_loader_close(loader);
    }
    /* Later a batch that could not be made is only late. */
    resin_loader *loader = start(test, from, settings);
    resin_tensor *images, *labels;
    resin_arena_fail_after(test->context, 0);
    for (int i = 0; i < settings.ahead; i++) {
        resin_arena_fail_after(test->context, 0);
        assert_int_equal(resin_loader_next(loader, &images, &labels), RESIN_OK);
        resin_release(images);
        resin_release(labels);
    }
    resin_arena_fail_after(test->context, 0);
    io_expect_error(test, resin_loader_next(loader, &images, &labels), RESIN_ERROR_MEMORY,
                    "memory");
    resin_arena_fail_after(test->context, -1);
    for (int64_t step = settings.ahead; step < 7; step++)
        expect_batch(test, from, &settings, loader, 4, step);
    resin_loader_close(loader);
    free_source(from);
}

static void refuse(const io_state *test, source from, resin_loader_settings settings,
                   const char *words) {
    resin_loader *loader;
    resin_status status =
        resin_loader_new(test->context, from.images, from.labels, &settings, &loader);
    assert_true(status == RESIN_ERROR_ARGUMENT || status == RESIN_ERROR_SHAPE);
    io_expect_error(test, status, status, words);
    assert_null(loader);
}

static void refused(void **state) {
    const io_state *test = *state;
    source from = make_source(test);
    const char *const words[] = {"batch_size", "workers", "workers", "ahead", "step", "step",
                                 "epochs", "pad", "no batch of 51"};
    enum { CASES = sizeof words / sizeof *words };
    resin_loader_settings good = usual_settings(1), bad[CASES];
    for (int i = 0; i < CASES; i++) bad[i] = good;
    bad[0].batch_size = 0;
    bad[1].workers = 65;
    bad[2].workers = -1;
    bad[3].ahead = 0;
    bad[4].step = 8;
    bad[5].step = -1;
    bad[6].epochs = -1;
    bad[7].batch.pad = -1;
    bad[8].batch_size = 51;
    bad[8].drop_last = true;
    for (int i = 0; i < CASES; i++) refuse(test, from, bad[i], words[i]);
    refuse(test, (source){from.labels, from.labels}, good, "uint8");
    refuse(test, (source){from.images, from.images}, good, "int64");
    free_source(from);
}

/* ---- PNG ------------------------------------------------------------------------------------- */

static uint32_t read_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Its frame is as the specification says; the pixels were compared with libpng's by hand. */
static void png_files(void **state) {
    const io_state *test = *state;
    const uint8_t first[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    for (int64_t channels = 1; channels <= 4; channels++) {
        const int64_t shape[3] = {150, 170, channels};
        resin_tensor *image, *file;
        resin_full(test->context, RESIN_UINT8, 3, shape, 7, &image);
        assert_int_equal(resin_png_encode(test->context, image, &file), RESIN_OK);
        const uint8_t *bytes = resin_tensor_data(file);
        int64_t size = resin_tensor_count(file);
        assert_memory_equal(bytes, first, 8);
        assert_memory_equal(bytes + 12, "IHDR", 4);
        assert_int_equal(read_u32(bytes + 16), 170);
        assert_int_equal(read_u32(bytes + 20), 150);
        assert_int_equal(size, 8 + 25 + 12 + read_u32(bytes + 33) + 12);
        /* The checksum of an IEND chunk is known. */
        assert_memory_equal(bytes + size - 8, "IEND\xae\x42\x60\x82", 8);
        resin_release(image);
        resin_release(file);
    }
    const int64_t empty[3] = {0, 3, 3}, many[3] = {3, 3, 5};
    resin_tensor *image, *file;
    resin_full(test->context, RESIN_UINT8, 3, empty, 0, &image);
    io_expect_error(test, resin_png_encode(test->context, image, &file), RESIN_ERROR_SHAPE,
                    "empty");
    resin_release(image);
    resin_full(test->context, RESIN_UINT8, 3, many, 0, &image);
    io_expect_error(test, resin_png_encode(test->context, image, &file), RESIN_ERROR_SHAPE,
                    "channels");
    resin_release(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(same_as_foreground), TEST(starts_anywhere), TEST(short_batches),
        TEST(cutout_is_a_square), TEST(closed_at_any_moment), TEST(back_pressure),
        TEST(after_fork), TEST(out_of_memory), TEST(refused), TEST(png_files),
    };
    return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
