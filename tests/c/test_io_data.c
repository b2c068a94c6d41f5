/* test_io_data.c: the embedded images and the batches: the same bits always, at any number of
 * threads, and what the header promises of crops, flips and orders. */
#include "tests/c/io_files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, IMAGE = SIDE * SIDE * 3 };

/* FNV-1a, 64 bits. */
static uint64_t hash(const void *bytes, size_t size) {
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    return sum;
}

static uint64_t tensor_hash(resin_tensor *tensor) {
    return hash(resin_tensor_data(tensor),
                (size_t)resin_tensor_count(tensor) * resin_dtype_size(resin_tensor_dtype(tensor)));
}

static void make_images(const io_state *test, uint64_t seed, bool held_out, int64_t count,
                        resin_tensor **images, resin_tensor **labels) {
    assert_int_equal(resin_synthetic_images(test->context, seed, held_out, count, images, labels),
                     RESIN_OK);
}

/* ---- The embedded images --------------------------------------------------------------------- */

static void synthetic_is_fixed(void **state) {
    io_state *test = *state;
    resin_tensor *images, *labels;
    uint64_t first = 0;
    for (int threads = 1; threads <= 7; threads += threads == 1 ? 1 : 5) {
        assert_int_equal(resin_set_threads(test->context, threads), RESIN_OK);
        make_images(test, 1, false, 500, &images, &labels);
        if (threads == 1) first = tensor_hash(images);
        assert_true(tensor_hash(images) == first);
        resin_release(images);
        resin_release(labels);
    }
    /* Published accuracies stand for these images: a change of the drawing is a change of the
     * set. */
    assert_true(first == UINT64_C(0x5b31a5d76ae78921));
}

static void synthetic_continues(void **state) {
    io_state *test = *state;
    resin_tensor *few, *many, *few_labels, *many_labels;
    make_images(test, 7, true, 30, &few, &few_labels);
    make_images(test, 7, true, 300, &many, &many_labels);
    assert_memory_equal(resin_tensor_data(few), resin_tensor_data(many), 30 * IMAGE);
    int counts[10] = {0};
    for (int i = 0; i < 300; i++) counts[((int64_t *)resin_tensor_data(many_labels))[i]]++;
    for (int k = 0; k < 10; k++) assert_int_equal(counts[k], 30);
    /* No image twice, within a split or across splits and seeds. */
    resin_tensor *others[3], *labels;
    make_images(test, 7, false, 300, &others[0], &labels);
    resin_release(labels);
    make_images(test, 8, true, 300, &others[1], &labels);
    resin_release(labels);
    others[2] = resin_retain(many);
    for (int set = 0; set < 3; set++)
        for (int i = 0; i < 300; i++)
            for (int j = set == 2 ? i + 1 : 0; j < 300; j++)
                assert_int_not_equal(memcmp((char *)resin_tensor_data(many) + i * IMAGE,
                                            (char *)resin_tensor_data(others[set]) + j * IMAGE,
                                            IMAGE),
                                     0);
    for (int set = 0; set < 3; set++) resin_release(others[set]);
    resin_release(few);
    resin_release(many);
    resin_release(few_labels);
    resin_release(many_labels);
}

static void class_names(void **state) {
    (void)state;
    for (int label = 0; label < 10; label++) assert_non_null(resin_synthetic_class_name(label));
    assert_string_equal(resin_synthetic_class_name(0), "disk");
    assert_null(resin_synthetic_class_name(10));
    assert_null(resin_synthetic_class_name(-1));
}

static void random_images(void **state) {
    io_state *test = *state;
    resin_tensor *images, *labels;
    const int64_t shape[4] = {200, 5, 7, 2};
    uint64_t first = 0;
    for (int threads = 1; threads <= 2; threads++) {
        assert_int_equal(resin_set_threads(test->context, threads), RESIN_OK);
        assert_int_equal(resin_random_images(test->context, 3, shape, 6, &images, &labels),
                         RESIN_OK);
        if (threads == 1) first = tensor_hash(images) ^ tensor_hash(labels);
        assert_true((tensor_hash(images) ^ tensor_hash(labels)) == first);
        double mean[4], deviation[4];
        assert_int_equal(resin_image_statistics(test->context, images, mean, deviation), RESIN_OK);
        assert_true(fabs(mean[1] - 0.5) < 0.02 && fabs(deviation[1] - 1 / sqrt(12)) < 0.01);
        for (int i = 0; i < 200; i++) {
            int64_t label = ((int64_t *)resin_tensor_data(labels))[i];
            assert_true(label >= 0 && label < 6);
        }
        resin_release(images);
        resin_release(labels);
    }
    io_expect_error(
        test, resin_random_images(test->context, 3, (int64_t[]){1, 0, 7, 2}, 6, &images, &labels),
        RESIN_ERROR_ARGUMENT, "at least 1, got 0");
    io_expect_error(test, resin_random_images(test->context, 3, shape, 0, &images, &labels),
                    RESIN_ERROR_ARGUMENT, "classes, got 0");
    io_expect_error(test, resin_synthetic_images(test->context, 3, false, 0, &images, &labels),
                    RESIN_ERROR_ARGUMENT, "count of at least 1");
}

static void statistics(void **state) {
    io_state *test = *state;
    resin_tensor *images;
    assert_int_equal(resin_empty(test->context, RESIN_UINT8, 4, (int64_t[]){2, 1, 2, 2}, &images),
                     RESIN_OK);
    memcpy(resin_tensor_data(images), (uint8_t[]){0, 51, 255, 51, 0, 51, 255, 51}, 8);
    double mean[RESIN_MAX_CHANNELS], deviation[RESIN_MAX_CHANNELS];
    assert_int_equal(resin_image_statistics(test->context, images, mean, deviation), RESIN_OK);
    assert_true(fabs(mean[0] - 0.5) < 1e-15 && fabs(deviation[0] - 0.5) < 1e-15);
    assert_true(fabs(mean[1] - 0.2) < 1e-15 && deviation[1] == 0.0);
    resin_release(images);
}

/* ---- Batches --------------------------------------------------------------------------------- */

static resin_batch_settings plain_settings(void) {
    return (resin_batch_settings){
        .mean = {0.5f, 0.25f, 0.125f}, .deviation = {0.25f, 0.5f, 2.0f}, .seed = 11, .epoch = 3};
}

static float normalized(const uint8_t *image, const resin_batch_settings *settings, int64_t y,
                        int64_t x, int channel) {
    if (y < 0 || y >= SIDE || x < 0 || x >= SIDE) return 0.0f;
    return ((float)image[(y * SIDE + x) * 3 + channel] / 255.0f - settings->mean[channel]) /
           settings->deviation[channel];
}

/* Whether a batch's image is the record's, moved and mirrored like this. */
static bool is_placed(const float *out, const uint8_t *image, const resin_batch_settings *settings,
                      int64_t down, int64_t right, bool flip) {
    for (int64_t y = 0; y < SIDE; y++)
        for (int64_t x = 0; x < SIDE; x++)
            for (int channel = 0; channel < 3; channel++)
                if (out[(y * SIDE + x) * 3 + channel] !=
                    normalized(image, settings, y + down, (flip ? SIDE - 1 - x : x) + right,
                               channel))
                    return false;
    return true;
}

static void batch_without_changes(void **state) {
    io_state *test = *state;
    resin_tensor *images, *labels, *batch, *numbers;
    make_images(test, 1, false, 40, &images, &labels);
    const int64_t records[4] = {39, 0, 7, 7};
    resin_batch_settings settings = plain_settings();
    assert_int_equal(resin_image_batch(test->context, images, records, 4, &settings, &batch),
                     RESIN_OK);
    assert_int_equal(resin_label_batch(test->context, labels, records, 4, &numbers), RESIN_OK);
    for (int i = 0; i < 4; i++) {
        const uint8_t *image = (uint8_t *)resin_tensor_data(images) + records[i] * IMAGE;
        assert_true(is_placed((float *)resin_tensor_data(batch) + i * IMAGE, image, &settings, 0, 0,
                              false));
        assert_int_equal(((int64_t *)resin_tensor_data(numbers))[i], records[i] % 10);
    }
    resin_release(images);
    resin_release(labels);
    resin_release(batch);
    resin_release(numbers);
}

/* Every image of the batch is one of the windows; all windows and both sides come up. */
static void crop_and_flip(void **state) {
    io_state *test = *state;
    enum { COUNT = 400, PAD = 2, WINDOWS = 2 * PAD + 1 };
    resin_tensor *images, *labels, *batch;
    make_images(test, 1, false, COUNT, &images, &labels);
    int64_t records[COUNT];
    for (int i = 0; i < COUNT; i++) records[i] = COUNT - 1 - i;
    resin_batch_settings settings = plain_settings();
    settings.pad = PAD;
    settings.flip = true;
    assert_int_equal(resin_image_batch(test->context, images, records, COUNT, &settings, &batch),
                     RESIN_OK);
    int seen[WINDOWS][WINDOWS][2] = {{{0}}};
    for (int i = 0; i < COUNT; i++) {
        const uint8_t *image = (uint8_t *)resin_tensor_data(images) + records[i] * IMAGE;
        const float *out = (float *)resin_tensor_data(batch) + i * IMAGE;
        int found = 0;
        for (int place = 0; place < WINDOWS * WINDOWS * 2; place++) {
            int down = place / 2 / WINDOWS, right = place / 2 % WINDOWS, flip = place % 2;
            if (!is_placed(out, image, &settings, down - PAD, right - PAD, flip == 1)) continue;
            seen[down][right][flip]++;
            found++;
        }
        assert_int_equal(found, 1);
    }
    int flipped = 0;
    for (int place = 0; place < WINDOWS * WINDOWS; place++) {
        const int *sides = seen[place / WINDOWS][place % WINDOWS];
        assert_true(sides[0] + sides[1] > 0);
        flipped += sides[1];
    }
    assert_true(flipped > COUNT / 2 - 40 && flipped < COUNT / 2 + 40); /* four deviations */
    resin_release(images);
    resin_release(labels);
    resin_release(batch);
}

/* What a record becomes depends on seed, epoch and record; not on threads or its batch. */
static void batch_is_keyed(void **state) {
    io_state *test = *state;
    enum { COUNT = 100 };
    resin_tensor *images, *labels, *whole, *part;
    make_images(test, 2, false, COUNT, &images, &labels);
    int64_t records[COUNT];
    for (int i = 0; i < COUNT; i++) records[i] = i;
    resin_batch_settings settings = plain_settings();
    settings.pad = 4;
    settings.flip = true;
    assert_int_equal(resin_set_threads(test->context, 1), RESIN_OK);
    assert_int_equal(resin_image_batch(test->context, images, records, COUNT, &settings, &whole),
                     RESIN_OK);
    assert_int_equal(resin_set_threads(test->context, 7), RESIN_OK);
    assert_int_equal(resin_image_batch(test->context, images, records, COUNT, &settings, &part),
                     RESIN_OK);
    assert_true(tensor_hash(whole) == tensor_hash(part));
    resin_release(part);
    for (int i = 0; i < COUNT; i += 10) {
        assert_int_equal(
            resin_image_batch(test->context, images, records + i, 10, &settings, &part), RESIN_OK);
        assert_memory_equal(resin_tensor_data(part), (float *)resin_tensor_data(whole) + i * IMAGE,
                            10 * IMAGE * sizeof(float));
        resin_release(part);
    }
    uint64_t hashes[3] = {tensor_hash(whole)};
    for (int change = 1; change <= 2; change++) {
        settings.epoch = change == 1 ? 4 : 3;
        settings.seed = change == 2 ? 12 : 11;
        assert_int_equal(resin_image_batch(test->context, images, records, COUNT, &settings, &part),
                         RESIN_OK);
        hashes[change] = tensor_hash(part);
        resin_release(part);
    }
    assert_true(hashes[0] != hashes[1] && hashes[0] != hashes[2] && hashes[1] != hashes[2]);
    resin_release(images);
    resin_release(labels);
    resin_release(whole);
}

static void batch_refused(void **state) {
    io_state *test = *state;
    resin_tensor *images, *labels, *batch, *five;
    make_images(test, 2, false, 10, &images, &labels);
    const int64_t good[1] = {9}, after[1] = {10}, before[1] = {-1};
    resin_batch_settings settings = plain_settings();
    resin_context *c = test->context;
    io_expect_error(test, resin_image_batch(c, images, after, 1, &settings, &batch),
                    RESIN_ERROR_ARGUMENT, "record 10 is outside of the set");
    io_expect_error(test, resin_image_batch(c, images, before, 1, &settings, &batch),
                    RESIN_ERROR_ARGUMENT, "record -1 is outside of the set");
    io_expect_error(test, resin_label_batch(c, labels, after, 1, &batch), RESIN_ERROR_ARGUMENT,
                    "record 10 is outside of the set");
    io_expect_error(test, resin_image_batch(c, images, good, 0, &settings, &batch),
                    RESIN_ERROR_ARGUMENT, "at least 1 record");
    io_expect_error(test, resin_image_batch(c, labels, good, 1, &settings, &batch),
                    RESIN_ERROR_SHAPE, "expected contiguous uint8 images");
    io_expect_error(test, resin_label_batch(c, images, good, 1, &batch), RESIN_ERROR_SHAPE,
                    "expected contiguous int64 labels");
    settings.deviation[1] = 0.0f;
    io_expect_error(test, resin_image_batch(c, images, good, 1, &settings, &batch),
                    RESIN_ERROR_ARGUMENT, "deviation above 0 for channel 1, got 0");
    settings.pad = -1;
    io_expect_error(test, resin_image_batch(c, images, good, 1, &settings, &batch),
                    RESIN_ERROR_ARGUMENT, "pad of 0 to 4096 pixels, got -1");
    assert_int_equal(resin_full(c, RESIN_UINT8, 4, (int64_t[]){1, 2, 2, 5}, 0, &five), RESIN_OK);
    io_expect_error(test, resin_image_batch(c, five, good, 1, &settings, &batch), RESIN_ERROR_SHAPE,
                    "1 to 4 channels, got 5");
    resin_release(five);
    resin_release(images);
    resin_release(labels);
}

static void epoch_order(void **state) {
    io_state *test = *state;
    enum { COUNT = 1000 };
    resin_tensor *order;
    uint64_t hashes[4];
    for (int i = 0; i < 4; i++) { /* in order; seed 1 epoch 1; seed 1 epoch 2; seed 2 epoch 1 */
        assert_int_equal(
            resin_epoch_order(test->context, COUNT, i > 0, i == 3 ? 2 : 1, i == 2 ? 2 : 1, &order),
            RESIN_OK);
        const int64_t *record = resin_tensor_data(order);
        char seen[COUNT] = {0};
        int in_place = 0;
        for (int k = 0; k < COUNT; k++) {
            assert_true(record[k] >= 0 && record[k] < COUNT && !seen[record[k]]);
            seen[record[k]] = 1;
            in_place += record[k] == k;
        }
        assert_true(i == 0 ? in_place == COUNT : in_place < 10);
        hashes[i] = tensor_hash(order);
        for (int k = 0; k < i; k++) assert_true(hashes[k] != hashes[i]);
        resin_release(order);
    }
    io_expect_error(test, resin_epoch_order(test->context, -1, true, 1, 1, &order),
                    RESIN_ERROR_ARGUMENT, "got -1");
}

static resin_status make_and_gather(resin_context *context, const char *path) {
    (void)path;
    resin_tensor *images = NULL, *labels = NULL, *batch = NULL, *numbers = NULL;
    const int64_t records[2] = {1, 0};
    resin_batch_settings settings = plain_settings();
    resin_status status = resin_synthetic_images(context, 1, false, 2, &images, &labels);
    if (status == RESIN_OK)
        status = resin_image_batch(context, images, records, 2, &settings, &batch);
    if (status == RESIN_OK) status = resin_label_batch(context, labels, records, 2, &numbers);
    resin_release(images);
    resin_release(labels);
    resin_release(batch);
    resin_release(numbers);
    return status;
}

static void out_of_memory(void **state) { io_starve(*state, NULL, make_and_gather); }

#define TEST(name) cmocka_unit_test_setup_teardown(name, io_setup, io_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(synthetic_is_fixed), TEST(synthetic_continues), TEST(class_names),
        TEST(random_images),      TEST(statistics),          TEST(batch_without_changes),
        TEST(crop_and_flip),      TEST(batch_is_keyed),      TEST(batch_refused),
        TEST(epoch_order),        TEST(out_of_memory),
    };
    return cmocka_run_group_tests_name("data", tests, NULL, NULL);
}
