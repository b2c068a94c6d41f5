/* image_files.c: many pictures of any size, each read when its turn comes and cut to one size: at
 * the centre, or at random as in Szegedy et al. 2014 ("Going deeper with convolutions", section 6),
 * by torchvision's RandomResizedCrop. The draws depend on (seed, epoch, record) only. */
#include "core/io/image.h"

#include "core/base/memory.h"
#include "core/io/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- The list -------------------------------------------------------------------------------- */

static resin_status copy_paths(resin_context *context, const char *const *paths,
                               image_files *files) {
    size_t size = 0;
    void *block;
    for (int64_t i = 0; i < files->count; i++) size += strlen(paths[i]) + 1;
    RESIN_TRY(resin_allocate(context, (size_t)files->count * sizeof *files->path, &block));
    files->path = block;
    RESIN_TRY(resin_allocate(context, size, &block));
    files->text = block;
    char *out = files->text;
    for (int64_t i = 0; i < files->count; i++) {
        size_t length = strlen(paths[i]) + 1;
        files->path[i] = memcpy(out, paths[i], length);
        out += length;
    }
    return RESIN_OK;
}

static resin_status check_settings(resin_context *context,
                                   const resin_picture_settings *settings) {
    if (settings->height < 1 || settings->width < 1 || settings->height > RESIN_MAX_SIDE ||
        settings->width > RESIN_MAX_SIDE || settings->shorter < 0 ||
        settings->shorter > RESIN_MAX_SIDE)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "pictures: expected sides of 1 to %d pixels, got %" PRId64 " x %" PRId64
                          " with a shorter side of %" PRId64, RESIN_MAX_SIDE, settings->height,
                          settings->width, settings->shorter);
    if (!settings->random) return RESIN_OK;
    const double *area = settings->area, *ratio = settings->ratio;
    if (!(area[0] > 0.0 && area[0] <= area[1] && area[1] <= 1.0))
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "pictures: expected parts of the area above 0 to 1, got %g to %g",
                          area[0], area[1]);
    if (!(ratio[0] > 0.0 && ratio[0] <= ratio[1] && ratio[1] <= 1000.0))
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "pictures: expected ratios of the sides above 0 to 1000, got %g to %g",
                          ratio[0], ratio[1]);
    return RESIN_OK;
}

resin_status image_files_make(resin_context *context, const char *const *paths, int64_t count,
                              const resin_picture_settings *settings, image_files *files) {
    *files = (image_files){.count = count, .settings = *settings};
    RESIN_TRY(check_settings(context, settings));
    resin_status status = copy_paths(context, paths, files);
    if (status != RESIN_OK) image_files_free(context, files);
    return status;
}

void image_files_free(resin_context *context, image_files *files) {
    resin_deallocate(context, files->path);
    resin_deallocate(context, files->text);
    *files = (image_files){0};
}

/* ---- One picture ----------------------------------------------------------------------------- */

enum { ATTEMPTS = 10 };

/* The middle of the picture, in the nearest ratio of sides that is allowed. */
static image_window central(const double ratio[2], int64_t height, int64_t width) {
    image_window from = {0, 0, height, width};
    double own = (double)width / (double)height;
    if (own < ratio[0]) from.height = (int64_t)rint((double)width / ratio[0]);
    if (own > ratio[1]) from.width = (int64_t)rint((double)height * ratio[1]);
    if (from.height < 1) from.height = 1;
    if (from.width < 1) from.width = 1;
    from.top = (height - from.height) / 2;
    from.left = (width - from.width) / 2;
    return from;
}

/* A rectangle with a random part of the area and a random ratio of sides, uniform in its
 * logarithm. */
static image_window draw(const resin_picture_settings *settings, resin_dice *dice, int64_t height,
                         int64_t width) {
    double low = log(settings->ratio[0]), high = log(settings->ratio[1]);
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        double part = resin_dice_between(dice, settings->area[0], settings->area[1]);
        double area = (double)height * (double)width * part;
        double ratio = exp(resin_dice_between(dice, low, high));
        image_window from = {.height = (int64_t)rint(sqrt(area / ratio)),
                             .width = (int64_t)rint(sqrt(area * ratio))};
        if (from.width < 1 || from.width > width || from.height < 1 || from.height > height)
            continue;
        from.top = resin_dice_below(dice, (uint32_t)(height - from.height + 1));
        from.left = resin_dice_below(dice, (uint32_t)(width - from.width + 1));
        return from;
    }
    return central(settings->ratio, height, width);
}

/* The pixels of a picture in the size of the batch: a new image. */
static resin_status cut(resin_context *context, const resin_picture_settings *settings,
                        resin_dice *dice, const resin_tensor *picture, resin_tensor **out) {
    const int64_t *shape = resin_tensor_shape(picture);
    if (!settings->random)
        return resin_image_fit(context, picture, settings->shorter, settings->height,
                               settings->width, out);
    const int64_t made[3] = {settings->height, settings->width, 3};
    const image_window all = {0, 0, settings->height, settings->width};
    resin_tensor *result;
    RESIN_TRY(resin_empty(context, RESIN_UINT8, 3, made, &result));
    resin_status status =
        image_resample(context, picture, draw(settings, dice, shape[0], shape[1]),
                       settings->height, settings->width, all, resin_tensor_data(result));
    if (status == RESIN_OK)
        *out = result;
    else
        resin_release(result);
    return status;
}

/* Puts the path in front of the context's message. */
static resin_status name_file(resin_context *context, resin_status status, const char *path) {
    char message[512];
    snprintf(message, sizeof message, "%s", resin_error_message(context));
    return resin_fail(context, status, "%s: %s", resin_path_shown(path), message);
}

resin_status image_files_place(resin_context *context, const image_files *files,
                               const batch_work *work, uint64_t epoch, int64_t record, float *out) {
    resin_tensor *picture, *image = NULL;
    resin_dice dice = batch_dice(work, epoch, record);
    RESIN_TRY(resin_image_read(context, files->path[record], &picture));
    resin_status status = cut(context, &files->settings, &dice, picture, &image);
    if (status != RESIN_OK) status = name_file(context, status, files->path[record]);
    if (status == RESIN_OK) batch_finish(work, &dice, resin_tensor_data(image), out);
    resin_release(image);
    resin_release(picture);
    return status;
}
