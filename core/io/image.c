/* image.c: reads a picture: which format it is, and how large it may be. */
#include "core/io/image.h"

#include "core/base/memory.h"
#include "core/io/file.h"

#include <inttypes.h>
#include <string.h>

/* No picture is larger; where PIL takes one for a decompression bomb, too. */
static const uint64_t most_pixels = 178956970;
/* A file is read as a whole. */
static const uint64_t most_bytes = (uint64_t)1 << 30;

enum { JPEG_MAGIC = 3, PNG_MAGIC = 8 };
static const uint8_t jpeg_magic[JPEG_MAGIC] = {0xff, 0xd8, 0xff};
static const uint8_t png_magic[PNG_MAGIC] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

resin_status image_new(resin_context *context, const char *path, uint64_t height, uint64_t width,
                       uint64_t most, resin_tensor **image) {
    uint64_t pixels; /* the sizes have 32 bits */
    if (__builtin_mul_overflow(height, width, &pixels) || pixels == 0 || pixels > most_pixels)
        return resin_fail(context, RESIN_ERROR_FILE,
                          "%s: is a picture of %" PRIu64 " x %" PRIu64 " pixels; expected at least "
                          "one and at most %" PRIu64, resin_path_shown(path), width, height,
                          most_pixels);
    if (pixels > most)
        return resin_fail(context, RESIN_ERROR_FILE,
                          "%s: announces %" PRIu64 " x %" PRIu64 " pixels, more than its bytes can "
                          "hold; is the file truncated?", resin_path_shown(path), width, height);
    const int64_t shape[3] = {(int64_t)height, (int64_t)width, 3};
    return resin_empty(context, RESIN_UINT8, 3, shape, image);
}

bool resin_image_format(const char *name) {
#ifdef RESIN_HAVE_JPEG
    if (strcmp(name, "jpeg") == 0) return true;
#endif
#ifdef RESIN_HAVE_PNG
    if (strcmp(name, "png") == 0) return true;
#endif
    (void)name;
    return false;
}

static resin_status decode(resin_context *context, const char *path, const uint8_t *bytes,
                           size_t size, resin_tensor **image) {
    if (size >= JPEG_MAGIC && memcmp(bytes, jpeg_magic, JPEG_MAGIC) == 0)
        return image_jpeg_decode(context, path, bytes, size, image);
    if (size >= PNG_MAGIC && memcmp(bytes, png_magic, PNG_MAGIC) == 0)
        return image_png_decode(context, path, bytes, size, image);
    return resin_fail(context, RESIN_ERROR_FILE, "%s: is neither a JPEG nor a PNG file",
                      resin_path_shown(path));
}

resin_status resin_image_read(resin_context *context, const char *path, resin_tensor **out) {
    resin_reader reader;
    void *bytes = NULL;
    resin_tensor *image = NULL;
    RESIN_TRY(resin_reader_open(context, path, false, &reader));
    size_t size = (size_t)reader.left;
    resin_status status = RESIN_OK;
    if (reader.left > most_bytes)
        status = resin_fail(context, RESIN_ERROR_FILE, "%s: has %" PRIu64 " bytes, too many for a "
                            "picture", resin_path_shown(path), reader.left);
    if (status == RESIN_OK) status = resin_allocate(context, size, &bytes);
    if (status == RESIN_OK) status = resin_reader_read(&reader, "the picture", bytes, size);
    resin_reader_close(&reader);
    if (status == RESIN_OK) status = decode(context, path, bytes, size, &image);
    resin_deallocate(context, bytes);
    if (status == RESIN_OK) *out = image;
    return status;
}
