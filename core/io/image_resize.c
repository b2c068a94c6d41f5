/* image_resize.c: bilinear resizing with antialiasing, bit for bit PIL's Image.resize(BILINEAR),
 * and torchvision's Resize and CenterCrop on it.
 *
 * A pixel of the result is a weighted mean of the pixels around its centre: a triangle that is as
 * wide as the scale where the picture shrinks, and one pixel on each side where it grows. Rows come
 * first, then columns, each rounded to bytes; weights are integers of 22 bits (PIL's Resample.c).
 * Every pixel stands for itself, so that a window of the result needs no more than its own. */
#include "core/io/image.h"

#include "core/base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum {
    WEIGHT_BITS = 32 - 8 - 2, /* a sum of products with bytes stays below 2^31 */
    CHANNELS = 3
};

/* Along one axis: the pixels first[i] to first[i] + used[i] - 1 of the source make pixel i, with
 * the weights weight[i * room], .... */
typedef struct axis {
    int64_t room;
    int64_t *first, *used;
    int32_t *weight;
    void *block;
} axis;

static double triangle(double x) { return fabs(x) < 1.0 ? 1.0 - fabs(x) : 0.0; }

/* PIL's precompute_coeffs for the pixels from `from` on of `to` in all. */
static void fill_axis(axis *line, int64_t source, int64_t to, int64_t from, int64_t count) {
    double scale = (double)source / (double)to, width = scale < 1.0 ? 1.0 : scale;
    for (int64_t i = 0; i < count; i++) {
        double centre = ((double)(from + i) + 0.5) * scale, inverse = 1.0 / width, sum = 0.0;
        int64_t first = (int64_t)(centre - width + 0.5), end = (int64_t)(centre + width + 0.5);
        if (first < 0) first = 0;
        if (end > source) end = source;
        line->first[i] = first;
        line->used[i] = end - first;
        for (int64_t x = first; x < end; x++)
            sum += triangle(((double)x - centre + 0.5) * inverse);
        for (int64_t x = first; x < end; x++) {
            double weight = triangle(((double)x - centre + 0.5) * inverse);
            if (sum != 0.0) weight /= sum;
            line->weight[i * line->room + x - first] =
                (int32_t)(0.5 + weight * (double)(1 << WEIGHT_BITS));
        }
    }
}

static resin_status make_axis(resin_context *context, int64_t source, int64_t to, int64_t from,
                              int64_t count, axis *line) {
    /* Sides are at most 2^20 and files have at most 2^28 pixels: no overflow. */
    double scale = (double)source / (double)to;
    line->room = (int64_t)ceil(scale < 1.0 ? 1.0 : scale) * 2 + 1;
    size_t places = 2 * sizeof(int64_t) * (size_t)count;
    RESIN_TRY(resin_allocate(context, places + (size_t)(count * line->room) * sizeof(int32_t),
                             &line->block));
    line->first = line->block;
    line->used = line->first + count;
    line->weight = (int32_t *)(line->used + count);
    fill_axis(line, source, to, from, count);
    return RESIN_OK;
}

static uint8_t to_byte(int32_t sum) {
    sum >>= WEIGHT_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

enum { HALF = 1 << (WEIGHT_BITS - 1) };

static void resize_row(const axis *line, const uint8_t *source, int64_t count, uint8_t *out) {
    for (int64_t i = 0; i < count; i++, out += CHANNELS) {
        const uint8_t *pixel = source + line->first[i] * CHANNELS;
        const int32_t *weight = line->weight + i * line->room;
        int32_t red = HALF, green = HALF, blue = HALF;
        for (int64_t x = 0; x < line->used[i]; x++, pixel += CHANNELS) {
            red += weight[x] * pixel[0];
            green += weight[x] * pixel[1];
            blue += weight[x] * pixel[2];
        }
        out[0] = to_byte(red);
        out[1] = to_byte(green);
        out[2] = to_byte(blue);
    }
}

/* One row of the result from the rows at `source`, `size` bytes each; `sums` has room for one. */
static void mix_rows(const int32_t *weight, int64_t rows, const uint8_t *source, int64_t size,
                     int32_t *sums, uint8_t *out) {
    for (int64_t i = 0; i < size; i++) sums[i] = HALF;
    for (int64_t y = 0; y < rows; y++, source += size)
        for (int64_t i = 0; i < size; i++) sums[i] += weight[y] * source[i];
    for (int64_t i = 0; i < size; i++) out[i] = to_byte(sums[i]);
}

typedef struct resampling {
    axis across, down;
    void *rows;  /* resized along their axis */
    void *sums;
} resampling;

/* What is visible of the window: inside of height x width. */
static image_window visible(int64_t height, int64_t width, image_window to) {
    int64_t top = to.top > 0 ? to.top : 0, left = to.left > 0 ? to.left : 0;
    int64_t bottom = to.top + to.height, right = to.left + to.width;
    if (bottom > height) bottom = height;
    if (right > width) right = width;
    return (image_window){top, left, bottom - top, right - left};
}

static resin_status resample(resin_context *context, resampling *work, const resin_tensor *image,
                             image_window from, int64_t height, int64_t width, image_window to,
                             uint8_t *out) {
    image_window seen = visible(height, width, to);
    int64_t stride = resin_tensor_shape(image)[1] * CHANNELS, row = seen.width * CHANNELS;
    if (seen.height <= 0 || seen.width <= 0) return RESIN_OK;
    RESIN_TRY(make_axis(context, from.width, width, seen.left, seen.width, &work->across));
    RESIN_TRY(make_axis(context, from.height, height, seen.top, seen.height, &work->down));
    const axis *down = &work->down;
    int64_t first = down->first[0];
    int64_t count = down->first[seen.height - 1] + down->used[seen.height - 1] - first;
    RESIN_TRY(resin_allocate(context, (size_t)(count * row), &work->rows));
    RESIN_TRY(resin_allocate(context, (size_t)row * sizeof(int32_t), &work->sums));
    const uint8_t *source = (const uint8_t *)resin_tensor_data(image) +
                            (from.top + first) * stride + from.left * CHANNELS;
    uint8_t *rows = work->rows;
    for (int64_t y = 0; y < count; y++)
        resize_row(&work->across, source + y * stride, seen.width, rows + y * row);
    out += (seen.top - to.top) * to.width * CHANNELS + (seen.left - to.left) * CHANNELS;
    for (int64_t y = 0; y < seen.height; y++, out += to.width * CHANNELS)
        mix_rows(down->weight + y * down->room, down->used[y],
                 rows + (down->first[y] - first) * row, row, work->sums, out);
    return RESIN_OK;
}

resin_status image_resample(resin_context *context, const resin_tensor *image, image_window from,
                            int64_t height, int64_t width, image_window to, uint8_t *out) {
    if (height < 1 || height > RESIN_MAX_SIDE || width < 1 || width > RESIN_MAX_SIDE)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "image_resize: expected sides of 1 to %d pixels, got %" PRId64 " x %"
                          PRId64, RESIN_MAX_SIDE, height, width);
    memset(out, 0, (size_t)(to.height * to.width * CHANNELS));
    resampling work = {0};
    resin_status status = resample(context, &work, image, from, height, width, to, out);
    void *blocks[] = {work.across.block, work.down.block, work.rows, work.sums};
    for (int i = 0; i < 4; i++) resin_deallocate(context, blocks[i]);
    return status;
}

/* ---- Whole images ---------------------------------------------------------------------------- */

static resin_status check_image(resin_context *context, const char *name,
                                const resin_tensor *image) {
    const int64_t *shape = resin_tensor_shape(image);
    if (resin_tensor_dtype(image) == RESIN_UINT8 && resin_tensor_rank(image) == 3 &&
        resin_tensor_contiguous(image) && shape[0] > 0 && shape[1] > 0 && shape[2] == CHANNELS)
        return RESIN_OK;
    return resin_fail(context, RESIN_ERROR_SHAPE,
                      "%s: expected a contiguous uint8 image (height, width, 3), got %s of rank %d",
                      name, resin_dtype_name(resin_tensor_dtype(image)), resin_tensor_rank(image));
}

static resin_status new_window(resin_context *context, const resin_tensor *image, int64_t height,
                               int64_t width, image_window to, resin_tensor **out) {
    const int64_t *shape = resin_tensor_shape(image), made[3] = {to.height, to.width, CHANNELS};
    const image_window all = {0, 0, shape[0], shape[1]};
    if (to.height < 1 || to.height > RESIN_MAX_SIDE || to.width < 1 || to.width > RESIN_MAX_SIDE)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "image_resize: expected sides of 1 to %d pixels, got %" PRId64 " x %"
                          PRId64, RESIN_MAX_SIDE, to.height, to.width);
    resin_tensor *result;
    RESIN_TRY(resin_empty(context, RESIN_UINT8, 3, made, &result));
    resin_status status =
        image_resample(context, image, all, height, width, to, resin_tensor_data(result));
    if (status == RESIN_OK)
        *out = result;
    else
        resin_release(result);
    return status;
}

resin_status resin_image_resize(resin_context *context, const resin_tensor *image, int64_t height,
                                int64_t width, resin_tensor **out) {
    RESIN_TRY(check_image(context, "image_resize", image));
    return new_window(context, image, height, width, (image_window){0, 0, height, width}, out);
}

/* Where a window of `crop` pixels begins in the middle of `size`: half of the rest, rounded half to
 * even as Python's round does, or what is missing on that side rounded down. */
static int64_t middle(int64_t size, int64_t crop) {
    if (crop > size) return -((crop - size) / 2);
    int64_t half = (size - crop) / 2;
    return (size - crop) % 2 != 0 && half % 2 != 0 ? half + 1 : half;
}

/* torchvision's Resize(shorter): the longer side is rounded down. */
static resin_status resized(resin_context *context, int64_t shorter, int64_t *height,
                            int64_t *width) {
    int64_t *low = *height < *width ? height : width, *high = low == height ? width : height;
    if (shorter < 0 || shorter > RESIN_MAX_SIDE)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "image_fit: expected a shorter side of 0 to %d pixels, got %" PRId64,
                          RESIN_MAX_SIDE, shorter);
    if (shorter == 0) return RESIN_OK;
    *high = shorter * *high / *low;
    *low = shorter;
    return RESIN_OK;
}

resin_status resin_image_fit(resin_context *context, const resin_tensor *image, int64_t shorter,
                             int64_t height, int64_t width, resin_tensor **out) {
    RESIN_TRY(check_image(context, "image_fit", image));
    int64_t to_height = resin_tensor_shape(image)[0], to_width = resin_tensor_shape(image)[1];
    RESIN_TRY(resized(context, shorter, &to_height, &to_width));
    image_window to = {middle(to_height, height), middle(to_width, width), height, width};
    return new_window(context, image, to_height, to_width, to, out);
}
