/* batch.c: from records of a data set to a batch of normalized images, and the order of an
 * epoch.
 *
 * The crop, the flip and the cutout of an image depend on (seed, epoch, record) only, so threads,
 * batch size and order do not matter, and a training that is resumed in the middle of an epoch goes
 * on with the same bits. */
#include "core/io/batch.h"

#include "core/base/context.h"
#include "core/base/threads.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { PIXELS_PER_PIECE = 1 << 14 };

/* The keys of the two uses of a seed; the epoch is spread over the key by an odd factor (2^64
 * divided by the golden ratio), so that neighbouring seeds and epochs have nothing in common. */
static uint64_t epoch_key(uint64_t seed, uint64_t epoch, uint64_t use) {
    return (seed ^ use) + (epoch + 1) * UINT64_C(0x9E3779B97F4A7C15);
}
static const uint64_t AUGMENT = UINT64_C(0x6175676d656e7400);
static const uint64_t SHUFFLE = UINT64_C(0x73687566666c6500);

/* ---- One image ------------------------------------------------------------------------------- */

/* The pixels of one row from `from` on, forwards or (step -1) backwards. */
static void place_pixels(const batch_work *work, const uint8_t *from, int step, int64_t count,
                         float *out) {
    if (work->channels == 3) { /* the usual images, without the inner loop */
        for (int64_t x = 0; x < count; x++, from += 3 * step, out += 3) {
            out[0] = work->level[0][from[0]];
            out[1] = work->level[1][from[1]];
            out[2] = work->level[2][from[2]];
        }
        return;
    }
    for (int64_t x = 0; x < count; x++, from += work->channels * step, out += work->channels)
        for (int c = 0; c < work->channels; c++) out[c] = work->level[c][from[c]];
}

/* Copies one image, moved by (down, right) and mirrored; what comes from outside is zero. */
static void place_image(const batch_work *work, const uint8_t *image, int64_t down, int64_t right,
                        bool flip, float *out) {
    int64_t height = work->height, width = work->width, channels = work->channels;
    /* The row's pixels from `left` to before `end` are seen; mirrored, at the other side. */
    int64_t left = right > 0 ? right : 0, end = right < 0 ? width + right : width;
    int64_t before = flip ? width - (end - right) : left - right, count = end - left;
    for (int64_t y = 0; y < height; y++, out += width * channels) {
        memset(out, 0, (size_t)(width * channels) * sizeof *out);
        if (y + down < 0 || y + down >= height || count <= 0) continue;
        const uint8_t *row = image + (y + down) * width * channels;
        place_pixels(work, row + (flip ? end - 1 : left) * channels, flip ? -1 : 1, count,
                     out + before * channels);
    }
}

/* A square of zeros around a random pixel, cut off where it leaves the image (DeVries and Taylor
 * 2017, "Improved regularization of convolutional neural networks with cutout"). */
static void cut_out(const batch_work *work, resin_dice *dice, float *image) {
    int64_t side = work->settings.cutout, channels = work->channels;
    int64_t top = (int64_t)resin_dice_below(dice, (uint32_t)work->height) - side / 2;
    int64_t left = (int64_t)resin_dice_below(dice, (uint32_t)work->width) - side / 2;
    int64_t bottom = top + side < work->height ? top + side : work->height;
    int64_t right = left + side < work->width ? left + side : work->width;
    if (left < 0) left = 0;
    for (int64_t y = top > 0 ? top : 0; y < bottom; y++)
        memset(image + (y * work->width + left) * channels, 0,
               (size_t)((right - left) * channels) * sizeof *image);
}

resin_dice batch_dice(const batch_work *work, uint64_t epoch, int64_t record) {
    return resin_dice_start(epoch_key(work->settings.seed, epoch, AUGMENT), (uint64_t)record);
}

void batch_finish(const batch_work *work, resin_dice *dice, const uint8_t *image, float *out) {
    const resin_batch_settings *settings = &work->settings;
    uint32_t offsets = 2 * (uint32_t)settings->pad + 1;
    int64_t down = (int64_t)resin_dice_below(dice, offsets) - settings->pad;
    int64_t right = (int64_t)resin_dice_below(dice, offsets) - settings->pad;
    bool flip = settings->flip && (resin_dice_bits(dice) & 1u);
    place_image(work, image, down, right, flip, out);
    /* Drawn last, so that crop and flip are the same with it and without. */
    if (settings->cutout > 0) cut_out(work, dice, out);
}

void batch_place(const batch_work *work, uint64_t epoch, int64_t record, float *out) {
    int64_t size = work->height * work->width * work->channels;
    if (size == 0) return;
    resin_dice dice = batch_dice(work, epoch, record);
    batch_finish(work, &dice, work->images + record * size, out);
}

static resin_status check_settings(resin_context *context, const resin_batch_settings *settings,
                                   int channels) {
    if (settings->pad < 0 || settings->pad > RESIN_MAX_PAD)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "image_batch: expected a pad of 0 to %d pixels, got %d", RESIN_MAX_PAD,
                          settings->pad);
    if (settings->cutout < 0 || settings->cutout > RESIN_MAX_PAD)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "image_batch: expected a cutout of 0 to %d pixels, got %d", RESIN_MAX_PAD,
                          settings->cutout);
    for (int c = 0; c < channels; c++)
        if (!(settings->deviation[c] > 0.0f))
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "image_batch: expected a deviation above 0 for channel %d, got %g", c,
                              (double)settings->deviation[c]);
    return RESIN_OK;
}

resin_status batch_prepare(resin_context *context, const resin_tensor *images,
                           const resin_batch_settings *settings, batch_work *work) {
    const int64_t *shape = resin_tensor_shape(images);
    if (resin_tensor_dtype(images) != RESIN_UINT8 || resin_tensor_rank(images) != 4 ||
        !resin_tensor_contiguous(images))
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "image_batch: expected contiguous uint8 images (count, height, width, "
                          "channels), got %s of rank %d",
                          resin_dtype_name(resin_tensor_dtype(images)), resin_tensor_rank(images));
    if (shape[3] < 1 || shape[3] > RESIN_MAX_CHANNELS)
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "image_batch: expected 1 to %d channels, got %" PRId64,
                          RESIN_MAX_CHANNELS, shape[3]);
    RESIN_TRY(batch_prepare_size(context, shape[0], shape[1], shape[2], (int)shape[3], settings,
                                 work));
    work->images = resin_tensor_data(images);
    return RESIN_OK;
}

resin_status batch_prepare_size(resin_context *context, int64_t all, int64_t height, int64_t width,
                                int channels, const resin_batch_settings *settings,
                                batch_work *work) {
    RESIN_TRY(check_settings(context, settings, channels));
    work->images = NULL;
    work->all = all;
    work->height = height;
    work->width = width;
    work->channels = channels;
    work->settings = *settings;
    for (int c = 0; c < work->channels; c++)
        for (int level = 0; level < BATCH_LEVELS; level++)
            work->level[c][level] =
                ((float)level / 255.0f - settings->mean[c]) / settings->deviation[c];
    return RESIN_OK;
}

resin_status batch_check_labels(resin_context *context, const resin_tensor *labels) {
    if (resin_tensor_dtype(labels) != RESIN_INT64 || resin_tensor_rank(labels) != 1 ||
        !resin_tensor_contiguous(labels))
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "label_batch: expected contiguous int64 labels (count), got %s of rank "
                          "%d",
                          resin_dtype_name(resin_tensor_dtype(labels)), resin_tensor_rank(labels));
    return RESIN_OK;
}

/* ---- Batches --------------------------------------------------------------------------------- */

typedef struct gathering {
    batch_work work;
    const int64_t *records;
    int64_t count, pieces;
    float *out;
} gathering;

static void gather_piece(void *argument, int64_t piece, int worker) {
    (void)worker;
    const gathering *batch = argument;
    const batch_work *work = &batch->work;
    int64_t first, last, size = work->height * work->width * work->channels;
    resin_piece_bounds(batch->count, batch->pieces, piece, &first, &last);
    for (int64_t i = first; i < last; i++)
        batch_place(work, work->settings.epoch, batch->records[i], batch->out + i * size);
}

static resin_status check_records(resin_context *context, const char *name, const int64_t *records,
                                  int64_t count, int64_t all) {
    if (count < 1)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "%s: expected at least 1 record, got %" PRId64, name, count);
    for (int64_t i = 0; i < count; i++)
        if (records[i] < 0 || records[i] >= all)
            return resin_fail(context, RESIN_ERROR_ARGUMENT,
                              "%s: record %" PRId64 " is outside of the set, which has the records "
                              "0 to %" PRId64, name, records[i], all - 1);
    return RESIN_OK;
}

resin_status resin_image_batch(resin_context *context, const resin_tensor *images,
                               const int64_t *records, int64_t count,
                               const resin_batch_settings *settings, resin_tensor **out) {
    gathering batch = {.records = records, .count = count};
    const batch_work *work = &batch.work;
    RESIN_TRY(batch_prepare(context, images, settings, &batch.work));
    RESIN_TRY(check_records(context, "image_batch", records, count, work->all));
    int64_t shape[4] = {count, work->height, work->width, work->channels};
    RESIN_TRY(resin_empty(context, RESIN_FLOAT32, 4, shape, out));
    batch.out = resin_tensor_data(*out);
    int64_t pixels = work->height * work->width > 0 ? work->height * work->width : 1;
    batch.pieces = resin_piece_count(count, (PIXELS_PER_PIECE + pixels - 1) / pixels);
    resin_parallel(context, batch.pieces, gather_piece, &batch);
    return RESIN_OK;
}

resin_status resin_label_batch(resin_context *context, const resin_tensor *labels,
                               const int64_t *records, int64_t count, resin_tensor **out) {
    RESIN_TRY(batch_check_labels(context, labels));
    RESIN_TRY(check_records(context, "label_batch", records, count, resin_tensor_shape(labels)[0]));
    resin_tensor *batch;
    RESIN_TRY(resin_empty(context, RESIN_INT64, 1, &count, &batch));
    const int64_t *all = resin_tensor_data(labels);
    int64_t *some = resin_tensor_data(batch);
    for (int64_t i = 0; i < count; i++) some[i] = all[records[i]];
    *out = batch;
    return RESIN_OK;
}

/* ---- The order of an epoch ------------------------------------------------------------------- */

resin_status resin_epoch_order(resin_context *context, int64_t count, bool shuffle, uint64_t seed,
                               uint64_t epoch, resin_tensor **out) {
    if (count < 0 || count > UINT32_MAX)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "epoch_order: expected a count of 0 to 2^32 - 1, got %" PRId64, count);
    resin_tensor *order;
    RESIN_TRY(resin_empty(context, RESIN_INT64, 1, &count, &order));
    int64_t *record = resin_tensor_data(order);
    for (int64_t i = 0; i < count; i++) record[i] = i;
    resin_dice dice = resin_dice_start(epoch_key(seed, epoch, SHUFFLE), 0);
    for (int64_t i = count - 1; shuffle && i > 0; i--) { /* Fisher and Yates */
        int64_t other = resin_dice_below(&dice, (uint32_t)i + 1);
        int64_t kept = record[i];
        record[i] = record[other];
        record[other] = kept;
    }
    *out = order;
    return RESIN_OK;
}

/* ---- Mean and deviation ---------------------------------------------------------------------- */

resin_status resin_image_statistics(resin_context *context, const resin_tensor *images,
                                    double mean[RESIN_MAX_CHANNELS],
                                    double deviation[RESIN_MAX_CHANNELS]) {
    const int64_t *shape = resin_tensor_shape(images);
    if (resin_tensor_dtype(images) != RESIN_UINT8 || resin_tensor_rank(images) != 4 ||
        !resin_tensor_contiguous(images) || resin_tensor_count(images) == 0 ||
        shape[3] > RESIN_MAX_CHANNELS)
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "image_statistics: expected contiguous uint8 images (count, height, "
                          "width, channels) with 1 to %d channels", RESIN_MAX_CHANNELS);
    int channels = (int)shape[3];
    int64_t pixels = resin_tensor_count(images) / channels;
    const uint8_t *pixel = resin_tensor_data(images);
    uint64_t histogram[RESIN_MAX_CHANNELS][BATCH_LEVELS] = {{0}};
    for (int64_t i = 0; i < pixels; i++, pixel += channels)
        for (int c = 0; c < channels; c++) histogram[c][pixel[c]]++;
    for (int c = 0; c < channels; c++) {
        double sum = 0.0, squares = 0.0;
        for (int level = 0; level < BATCH_LEVELS; level++)
            sum += (double)histogram[c][level] * level;
        mean[c] = sum / (double)pixels;
        for (int level = 0; level < BATCH_LEVELS; level++)
            squares += (double)histogram[c][level] * (level - mean[c]) * (level - mean[c]);
        deviation[c] = sqrt(squares / (double)pixels) / 255.0;
        mean[c] /= 255.0;
    }
    return RESIN_OK;
}
