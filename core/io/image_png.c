/* image_png.c: PNG files through libpng, as RGB: colours of a palette are looked up, grey is
 * repeated, alpha is left out, of 16 bits the high byte is taken (but for grey ones, see below);
 * gamma and colour profiles are ignored. That is PIL's convert("RGB").
 *
 * As in image_jpeg.c, errors come by longjmp into `run`. */
#include "core/io/image.h"

#include "core/io/file.h"

#ifdef RESIN_HAVE_PNG
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

enum {
    DEFLATE = 1032, /* bytes that one can stand for at most (zlib's technical details) */
    MOST_SIDE = 1000000
};

typedef struct png_reading {
    png_structp reader;
    png_infop info;
    jmp_buf back;
    resin_context *context;
    const char *path;
    const uint8_t *bytes; /* what comes next */
    size_t left, size;
    resin_tensor *image;
    bool deep_grey; /* 16 bits */
    resin_status status;
} png_reading;

static void give_up(png_reading *reading, const char *what, const char *why) {
    reading->status = resin_fail(reading->context, RESIN_ERROR_FILE, "%s: %s%s",
                                 resin_path_shown(reading->path), what, why);
    longjmp(reading->back, 1);
}

static void on_error(png_structp reader, png_const_charp message) {
    give_up(png_get_error_ptr(reader), "is a damaged PNG file: ", message);
}

static void on_warning(png_structp reader, png_const_charp message) {
    (void)reader, (void)message;
}

static void give_bytes(png_structp reader, png_bytep out, size_t size) {
    png_reading *reading = png_get_io_ptr(reader);
    if (size > reading->left)
        give_up(reading, "the PNG data end too early; is the file truncated?", "");
    memcpy(out, reading->bytes, size);
    reading->bytes += size;
    reading->left -= size;
}

/* What the rows of the file become. A picture of 16 bits of grey is PIL's mode "I", whose values
 * above 255 are cut to 255 where it becomes RGB; so it is here, that both see the same. */
static void choose_pixels(png_reading *reading) {
    png_structp reader = reading->reader;
    int type = png_get_color_type(reader, reading->info);
    int bits = png_get_bit_depth(reader, reading->info);
    reading->deep_grey = type == PNG_COLOR_TYPE_GRAY && bits == 16;
    if (reading->deep_grey) return;
    if (bits == 16) png_set_strip_16(reader);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(reader);
    if (type == PNG_COLOR_TYPE_GRAY && bits < 8) png_set_expand_gray_1_2_4_to_8(reader);
    if (!(type & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(reader);
    png_set_strip_alpha(reader); /* also what a palette's transparency became */
}

static void start(png_reading *reading) {
    png_structp reader = reading->reader;
    png_set_read_fn(reader, reading, give_bytes);
    png_set_user_limits(reader, MOST_SIDE, MOST_SIDE);
#ifdef PNG_HANDLE_AS_UNKNOWN_SUPPORTED
    png_set_keep_unknown_chunks(reader, PNG_HANDLE_CHUNK_NEVER, NULL, -1); /* texts, profiles */
#endif
    png_read_info(reader, reading->info);
    uint64_t height = png_get_image_height(reader, reading->info);
    uint64_t width = png_get_image_width(reader, reading->info);
    uint64_t row = png_get_rowbytes(reader, reading->info);
    uint64_t rows = (uint64_t)DEFLATE * reading->size / (row + 1); /* a byte for the filter */
    choose_pixels(reading);
    reading->status = image_new(reading->context, reading->path, height, width, rows * width,
                                &reading->image);
    if (reading->status != RESIN_OK) longjmp(reading->back, 1);
}

/* In place, from the end: two bytes of grey become three equal ones. */
static void convert_deep_grey(uint8_t *row, size_t width) {
    for (size_t x = width; x-- > 0;) {
        uint8_t level = row[2 * x] > 0 ? 255 : row[2 * x + 1];
        memset(row + 3 * x, level, 3);
    }
}

static void read_rows(png_reading *reading) {
    png_structp reader = reading->reader;
    size_t height = png_get_image_height(reader, reading->info);
    size_t width = png_get_image_width(reader, reading->info), row = width * 3;
    uint8_t *out = resin_tensor_data(reading->image);
    int passes = png_set_interlace_handling(reader);
    png_read_update_info(reader, reading->info);
    if (png_get_rowbytes(reader, reading->info) != (reading->deep_grey ? width * 2 : row))
        give_up(reading, "is a PNG file with pixels that cannot be read", "");
    for (int pass = 0; pass < passes; pass++)
        for (size_t y = 0; y < height; y++) png_read_row(reader, out + y * row, NULL);
    png_read_end(reader, NULL);
    for (size_t y = 0; reading->deep_grey && y < height; y++)
        convert_deep_grey(out + y * row, width);
}

static void run(png_reading *reading) {
    if (setjmp(reading->back) != 0) return;
    start(reading);
    read_rows(reading);
}

resin_status image_png_decode(resin_context *context, const char *path, const uint8_t *bytes,
                              size_t size, resin_tensor **image) {
    png_reading reading;
    memset(&reading, 0, sizeof reading);
    reading.context = context;
    reading.path = path;
    reading.bytes = bytes;
    reading.left = reading.size = size;
    /* Fails with NULL, not by on_error: a wrong version or no memory. */
    reading.reader = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reading, NULL, on_warning);
    if (reading.reader) reading.info = png_create_info_struct(reading.reader);
    if (reading.info) {
        png_set_error_fn(reading.reader, &reading, on_error, on_warning);
        run(&reading);
    } else {
        reading.status = resin_fail(context, RESIN_ERROR_MEMORY, "%s: libpng cannot be started",
                                    resin_path_shown(path));
    }
    png_destroy_read_struct(&reading.reader, &reading.info, NULL);
    if (reading.status == RESIN_OK)
        *image = reading.image;
    else
        resin_release(reading.image);
    return reading.status;
}

#else

resin_status image_png_decode(resin_context *context, const char *path, const uint8_t *bytes,
                              size_t size, resin_tensor **image) {
    (void)bytes, (void)size, (void)image;
    return resin_fail(context, RESIN_ERROR_FILE,
                      "%s: is a PNG file, and resin was built without libpng; install its "
                      "development files (Debian: libpng-dev) and build again",
                      resin_path_shown(path));
}

#endif
