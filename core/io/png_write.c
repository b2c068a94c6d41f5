/* png_write.c: an image as the bytes of a PNG file (W3C, "Portable Network Graphics", second
 * edition): signature, header, one block of data, end. Rows are stored without a filter; without
 * zlib the data are stored blocks of deflate (RFC 1951, section 3.2.4). */
#include "core/base/context.h"
#include "core/base/memory.h"

#include <string.h>

#ifdef RESIN_HAVE_ZLIB
#include <zlib.h>
#endif

enum {
    SIGNATURE = 8,
    AROUND = 12, /* of a chunk: length, name, checksum */
    HEADER = 13,
    FRAME = SIGNATURE + AROUND + HEADER + AROUND + AROUND, /* everything but the data */
    STORED_BLOCK = 65535
};

static uint8_t *put_u32(uint8_t *out, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) *out++ = (uint8_t)(value >> shift);
    return out;
}

/* CRC-32 as in the specification's annex D, four bits at a time. */
static uint32_t checksum(const uint8_t *bytes, size_t size) {
    uint32_t table[16], sum = 0xffffffffu;
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = i;
        for (int bit = 0; bit < 4; bit++)
            table[i] = table[i] & 1u ? 0xedb88320u ^ (table[i] >> 1) : table[i] >> 1;
    }
    for (size_t i = 0; i < size; i++) {
        sum = table[(sum ^ bytes[i]) & 15u] ^ (sum >> 4);
        sum = table[(sum ^ (bytes[i] >> 4)) & 15u] ^ (sum >> 4);
    }
    return ~sum;
}

/* A chunk whose `size` bytes stand already at out + 8; returns what follows it. */
static uint8_t *close_chunk(uint8_t *out, const char name[4], size_t size) {
    put_u32(out, (uint32_t)size);
    memcpy(out + 4, name, 4);
    return put_u32(out + 8 + size, checksum(out + 4, size + 4));
}

/* ---- Deflate --------------------------------------------------------------------------------- */

#ifdef RESIN_HAVE_ZLIB
static size_t deflate_bound(size_t size) { return compressBound((uLong)size); }

static bool deflate_bytes(const uint8_t *bytes, size_t size, uint8_t *out, size_t *out_size) {
    uLongf length = (uLongf)*out_size;
    if (compress2(out, &length, bytes, (uLong)size, Z_DEFAULT_COMPRESSION) != Z_OK) return false;
    *out_size = (size_t)length;
    return true;
}
#else
static size_t deflate_bound(size_t size) { return size + 5 * (size / STORED_BLOCK + 1) + 6; }

static bool deflate_bytes(const uint8_t *bytes, size_t size, uint8_t *out, size_t *out_size) {
    uint8_t *start = out;
    uint32_t a = 1, b = 0; /* Adler-32, RFC 1950 */
    for (size_t i = 0; i < size; i++) {
        a = (a + bytes[i]) % 65521u;
        b = (b + a) % 65521u;
    }
    *out++ = 0x78;
    *out++ = 0x01;
    do {
        size_t length = size < STORED_BLOCK ? size : STORED_BLOCK;
        *out++ = length == size; /* the last one */
        *out++ = (uint8_t)length;
        *out++ = (uint8_t)(length >> 8);
        *out++ = (uint8_t)~length;
        *out++ = (uint8_t)(~length >> 8);
        memcpy(out, bytes, length);
        out += length;
        bytes += length;
        size -= length;
    } while (size > 0);
    out = put_u32(out, b << 16 | a);
    *out_size = (size_t)(out - start);
    return true;
}
#endif

/* ---- The file -------------------------------------------------------------------------------- */

/* Writes the whole file; `size` is the room for it, then its length. */
static bool write_file(uint8_t *file, const int64_t *shape, const uint8_t *rows, size_t row_bytes,
                       size_t *size) {
    static const uint8_t signature[SIGNATURE] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    static const uint8_t colour[] = {0, 0, 4, 2, 6}; /* by channels: the type of the pixels */
    uint8_t *out = file;
    memcpy(out, signature, SIGNATURE);
    out += SIGNATURE;
    uint8_t *header = put_u32(put_u32(out + 8, (uint32_t)shape[1]), (uint32_t)shape[0]);
    const uint8_t rest[5] = {8, colour[shape[2]], 0, 0, 0};
    memcpy(header, rest, sizeof rest);
    out = close_chunk(out, "IHDR", HEADER);
    size_t length = *size - FRAME;
    if (!deflate_bytes(rows, row_bytes, out + 8, &length)) return false;
    out = close_chunk(out, "IDAT", length);
    out = close_chunk(out, "IEND", 0);
    *size = (size_t)(out - file);
    return true;
}

resin_status resin_png_encode(resin_context *context, const resin_tensor *image,
                              resin_tensor **file) {
    const int64_t *shape = resin_tensor_shape(image);
    *file = NULL;
    if (resin_tensor_dtype(image) != RESIN_UINT8 || resin_tensor_rank(image) != 3 ||
        !resin_tensor_contiguous(image) || shape[2] < 1 || shape[2] > 4)
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "png_encode: expected a contiguous uint8 image (height, width, 1 to 4 "
                          "channels), got %s of rank %d",
                          resin_dtype_name(resin_tensor_dtype(image)), resin_tensor_rank(image));
    const int64_t largest = 1 << 20;
    int64_t row = shape[1] * shape[2];
    if (shape[0] < 1 || shape[1] < 1 || shape[0] > largest || shape[1] > largest ||
        shape[0] * (row + 1) > INT32_MAX / 2)
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "png_encode: the image is empty or too large");
    size_t row_bytes = (size_t)(shape[0] * (row + 1)), size = FRAME + deflate_bound(row_bytes);
    void *rows, *bytes = NULL;
    RESIN_TRY(resin_allocate(context, row_bytes, &rows));
    resin_status status = resin_allocate(context, size, &bytes);
    uint8_t *out = rows;
    for (int64_t y = 0; y < shape[0]; y++, out += row + 1) {
        out[0] = 0; /* no filter */
        memcpy(out + 1, (const uint8_t *)resin_tensor_data(image) + y * row, (size_t)row);
    }
    if (status == RESIN_OK && !write_file(bytes, shape, rows, row_bytes, &size))
        status = resin_fail(context, RESIN_ERROR_MEMORY, "png_encode: out of memory");
    int64_t length = (int64_t)size;
    if (status == RESIN_OK) status = resin_empty(context, RESIN_UINT8, 1, &length, file);
    if (status == RESIN_OK) memcpy(resin_tensor_data(*file), bytes, size);
    resin_deallocate(context, rows);
    resin_deallocate(context, bytes);
    return status;
}
