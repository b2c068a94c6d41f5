/* batch.h: one image of a batch, for batch.c (on the context's threads) and loader.c (on threads of
 * its own): raw buffers only, and nothing can fail once the work is prepared. */
#ifndef RESIN_IO_BATCH_H
#define RESIN_IO_BATCH_H

#include "core/io/dice.h"
#include "core/resin.h"

enum { BATCH_LEVELS = 256 };

typedef struct batch_work {
    const uint8_t *images;
    int64_t all, height, width; /* of the source */
    int channels;
    resin_batch_settings settings;
    float level[RESIN_MAX_CHANNELS][BATCH_LEVELS]; /* what each byte becomes */
} batch_work;

/* Checks images and settings; `images` must stay alive as long as the work is used. */
resin_status batch_prepare(resin_context *context, const resin_tensor *images,
                           const resin_batch_settings *settings, batch_work *work);
/* The same without images, which come from elsewhere: `all` of this size. */
resin_status batch_prepare_size(resin_context *context, int64_t all, int64_t height, int64_t width,
                                int channels, const resin_batch_settings *settings,
                                batch_work *work);
/* Checks that labels are int64, of rank 1 and contiguous. */
resin_status batch_check_labels(resin_context *context, const resin_tensor *labels);

/* Image number `record` as it is seen in `epoch`: height x width x channels numbers. */
void batch_place(const batch_work *work, uint64_t epoch, int64_t record, float *out);
/* Its two halves: the random numbers of an image, and what becomes of its pixels (height x width x
 * channels bytes). */
resin_dice batch_dice(const batch_work *work, uint64_t epoch, int64_t record);
void batch_finish(const batch_work *work, resin_dice *dice, const uint8_t *image, float *out);

#endif
