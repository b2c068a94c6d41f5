/* image_jpeg.c: JPEG files through libjpeg-turbo (or another libjpeg), with the library's own
 * defaults: the accurate integer transform and smooth upsampling, as PIL has it.
 *
 * The library reports an error by a function that must not return: a longjmp back into `run`. What
 * the reading owns stands in a struct of the caller's, so that nothing is lost on the way. */
#include "core/io/image.h"

#include "core/io/file.h"

#ifdef RESIN_HAVE_JPEG
#include "core/base/memory.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum {
    /* The first scan has at least one bit for each block of 8 x 8 pixels of the finest component;
     * the rest is for unusual subsampling. */
    PIXELS_PER_BYTE = 1024,
    /* Each scan of a progressive file goes over the whole picture, however short it is in the
     * file. Real ones have about ten. */
    MOST_SCANS = 100
};

typedef struct jpeg_reading {
    struct jpeg_decompress_struct decoder;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    resin_context *context;
    const char *path;
    const uint8_t *bytes;
    size_t size;
    resin_tensor *image;
    void *row; /* of CMYK pixels */
    resin_status status;
} jpeg_reading;

static void give_up(jpeg_reading *reading, resin_status status, const char *why) {
    reading->status = resin_fail(reading->context, status, "%s: %s",
                                 resin_path_shown(reading->path), why);
    longjmp(reading->back, 1);
}

static void on_error(j_common_ptr common) {
    char text[JMSG_LENGTH_MAX], why[JMSG_LENGTH_MAX + 40];
    common->err->format_message(common, text);
    bool memory = common->err->msg_code == JERR_OUT_OF_MEMORY;
    snprintf(why, sizeof why, "%s: %s", memory ? "out of memory" : "is a damaged JPEG file", text);
    give_up(common->client_data, memory ? RESIN_ERROR_MEMORY : RESIN_ERROR_FILE, why);
}

/* Of the warnings only the end of the file counts, as with PIL; the library would go on with
 * grey. */
static void on_message(j_common_ptr common, int level) {
    if (level < 0 && common->err->msg_code == JWRN_JPEG_EOF)
        give_up(common->client_data, RESIN_ERROR_FILE,
                "the JPEG data end too early; is the file truncated?");
}

static void say_nothing(j_common_ptr common) { (void)common; }

static void on_progress(j_common_ptr common) {
    jpeg_reading *reading = common->client_data;
    if (reading->decoder.input_scan_number > MOST_SCANS)
        give_up(reading, RESIN_ERROR_FILE, "is a JPEG file with more than 100 scans");
}

static uint8_t multiply(unsigned a, unsigned b) { /* a b / 255, rounded */
    unsigned product = a * b + 128;
    return (uint8_t)(((product >> 8) + product) >> 8);
}

/* Four inks to three lights. Files have them inverted, as Adobe's programs write them. */
static void convert_cmyk(const uint8_t *inks, int64_t width, uint8_t *out) {
    for (int64_t x = 0; x < width; x++, inks += 4, out += 3)
        for (int c = 0; c < 3; c++)
            out[c] = (uint8_t)(inks[3] - multiply(255u - inks[c], inks[3]));
}

/* Reads the header and prepares everything that may fail for lack of memory. */
static void start(jpeg_reading *reading) {
    struct jpeg_decompress_struct *decoder = &reading->decoder;
    jpeg_create_decompress(decoder);
    decoder->client_data = reading;
    decoder->progress = &reading->progress;
    jpeg_mem_src(decoder, (unsigned char *)reading->bytes, (unsigned long)reading->size);
    jpeg_read_header(decoder, TRUE);
    int components = decoder->num_components;
    if (components != 1 && components != 3 && components != 4)
        give_up(reading, RESIN_ERROR_FILE, "is a JPEG file with neither 1, 3 nor 4 components");
    decoder->out_color_space = components == 4 ? JCS_CMYK : JCS_RGB;
    reading->status = image_new(reading->context, reading->path, decoder->image_height,
                                decoder->image_width,
                                (uint64_t)PIXELS_PER_BYTE * reading->size, &reading->image);
    if (reading->status == RESIN_OK && components == 4)
        reading->status = resin_allocate(reading->context, (size_t)decoder->image_width * 4,
                                         &reading->row);
    if (reading->status != RESIN_OK) longjmp(reading->back, 1);
}

static void read_rows(jpeg_reading *reading) {
    struct jpeg_decompress_struct *decoder = &reading->decoder;
    uint8_t *out = resin_tensor_data(reading->image);
    jpeg_start_decompress(decoder);
    while (decoder->output_scanline < decoder->output_height) {
        JSAMPROW row = reading->row ? reading->row : out;
        jpeg_read_scanlines(decoder, &row, 1);
        if (reading->row) convert_cmyk(reading->row, decoder->output_width, out);
        out += (size_t)decoder->output_width * 3;
    }
    jpeg_finish_decompress(decoder);
}

/* Nothing may stand between setjmp and the library but calls. */
static void run(jpeg_reading *reading) {
    if (setjmp(reading->back) != 0) return;
    start(reading);
    read_rows(reading);
}

resin_status image_jpeg_decode(resin_context *context, const char *path, const uint8_t *bytes,
                               size_t size, resin_tensor **image) {
    jpeg_reading reading;
    memset(&reading, 0, sizeof reading);
    reading.context = context;
    reading.path = path;
    reading.bytes = bytes;
    reading.size = size;
    reading.decoder.err = jpeg_std_error(&reading.errors);
    reading.decoder.client_data = &reading; /* for an error of the first call */
    reading.errors.error_exit = on_error;
    reading.errors.emit_message = on_message;
    reading.errors.output_message = say_nothing;
    reading.progress.progress_monitor = on_progress;
    run(&reading);
    jpeg_destroy_decompress(&reading.decoder);
    resin_deallocate(context, reading.row);
    if (reading.status == RESIN_OK)
        *image = reading.image;
    else
        resin_release(reading.image);
    return reading.status;
}

#else

resin_status image_jpeg_decode(resin_context *context, const char *path, const uint8_t *bytes,
                               size_t size, resin_tensor **image) {
    (void)bytes, (void)size, (void)image;
    return resin_fail(context, RESIN_ERROR_FILE,
                      "%s: is a JPEG file, and resin was built without libjpeg-turbo; install its "
                      "development files (Debian: libjpeg-dev) and build again",
                      resin_path_shown(path));
}

#endif
