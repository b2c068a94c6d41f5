/* image.h: pictures in JPEG and PNG files, and what turns them into images of one size.
 *
 * All of it works in any context, so that each background worker of a loader can have its own: a
 * picture is read and cut there, and only the finished pixels go into the batch. */
#ifndef RESIN_IO_IMAGE_H
#define RESIN_IO_IMAGE_H

#include "core/base/context.h"
#include "core/io/batch.h"

/* A new uint8 image (height, width, 3) for the picture at `path`, which says that it has this size;
 * `most` pixels are what the bytes of its file can stand for. */
resin_status image_new(resin_context *context, const char *path, uint64_t height, uint64_t width,
                       uint64_t most, resin_tensor **image);

/* The picture in the `size` bytes of the file at `path`. */
resin_status image_jpeg_decode(resin_context *context, const char *path, const uint8_t *bytes,
                               size_t size, resin_tensor **image);
resin_status image_png_decode(resin_context *context, const char *path, const uint8_t *bytes,
                              size_t size, resin_tensor **image);

/* A rectangle of pixels; top and left may be negative. */
typedef struct image_window {
    int64_t top, left, height, width;
} image_window;

/* Takes the rectangle `from`, inside of the image, resizes it to height x width and writes the
 * window `to` of the result to `out`: to.height x to.width x 3 bytes; zeros where the window leaves
 * the result. */
resin_status image_resample(resin_context *context, const resin_tensor *image, image_window from,
                            int64_t height, int64_t width, image_window to, uint8_t *out);

/* ---- Pictures for batches -------------------------------------------------------------------- */

/* Paths of pictures, and what is done with each. Workers only read it. */
typedef struct image_files {
    int64_t count;
    const char **path; /* [count], into `text` */
    char *text;
    resin_picture_settings settings;
} image_files;

resin_status image_files_make(resin_context *context, const char *const *paths, int64_t count,
                              const resin_picture_settings *settings, image_files *files);
void image_files_free(resin_context *context, image_files *files);

/* The counterpart of batch_place for picture number `record`; `work` is made by batch_prepare_size
 * with the settings' height and width. `context` is the calling thread's. */
resin_status image_files_place(resin_context *context, const image_files *files,
                               const batch_work *work, uint64_t epoch, int64_t record, float *out);

#endif
