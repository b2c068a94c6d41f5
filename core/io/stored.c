/* stored.c: see stored.h. Numbers pass through a buffer: bytes are put into the machine's order
 * there and widened from there to the tensor. */
#include "core/io/stored.h"

#include "core/tensor/tensor.h"

#include <inttypes.h>
#include <string.h>

enum { BUFFER_BYTES = 1 << 15 };

static const struct stored_row {
    size_t size;
    resin_dtype dtype;
} rows[STORED_TYPE_COUNT] = {
    [STORED_F16] = {2, RESIN_FLOAT32}, [STORED_BF16] = {2, RESIN_FLOAT32},
    [STORED_F32] = {4, RESIN_FLOAT32}, [STORED_F64] = {8, RESIN_FLOAT64},
    [STORED_I8] = {1, RESIN_INT32},    [STORED_I16] = {2, RESIN_INT32},
    [STORED_I32] = {4, RESIN_INT32},   [STORED_I64] = {8, RESIN_INT64},
    [STORED_U8] = {1, RESIN_UINT8},    [STORED_U16] = {2, RESIN_INT32},
    [STORED_U32] = {4, RESIN_INT64},   [STORED_U64] = {8, RESIN_INT64},
    [STORED_BOOL] = {1, RESIN_UINT8},
};

resin_dtype stored_dtype(stored_type type) { return rows[type].dtype; }

static bool host_is_big_endian(void) {
    const uint16_t one = 1;
    return *(const uint8_t *)&one == 0;
}

static void swap_bytes(uint8_t *bytes, size_t size, size_t count) {
    for (size_t i = 0; size > 1 && i < count; i++, bytes += size)
        for (size_t low = 0, high = size - 1; low < high; low++, high--) {
            uint8_t kept = bytes[low];
            bytes[low] = bytes[high];
            bytes[high] = kept;
        }
}

/* IEEE 754 binary16 to binary32, exactly: bias 15 becomes 127, 10 bits of fraction become 23. */
static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u;
    uint32_t fraction = half & 0x3ffu, bits;
    if (exponent == 0) { /* zero, or a denormal: fraction times 2^-24 */
        float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    bits = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float bfloat_to_float(uint16_t stored) {
    uint32_t bits = (uint32_t)stored << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* `count` numbers of a type that is wider in the tensor. Returns the position of the first that
 * does not fit, or -1. */
static int64_t widen(stored_type type, const void *source, size_t count, void *destination) {
    float *real = destination;
    int32_t *narrow = destination;
    int64_t *wide = destination;
    for (size_t i = 0; i < count; i++) {
        switch (type) {
        case STORED_F16: real[i] = half_to_float(((const uint16_t *)source)[i]); break;
        case STORED_BF16: real[i] = bfloat_to_float(((const uint16_t *)source)[i]); break;
        case STORED_I8: narrow[i] = ((const int8_t *)source)[i]; break;
        case STORED_I16: narrow[i] = ((const int16_t *)source)[i]; break;
        case STORED_U16: narrow[i] = ((const uint16_t *)source)[i]; break;
        case STORED_U32: wide[i] = ((const uint32_t *)source)[i]; break;
        case STORED_U64:
            if (((const uint64_t *)source)[i] > INT64_MAX) return (int64_t)i;
            wide[i] = (int64_t)((const uint64_t *)source)[i];
            break;
        case STORED_BOOL: ((uint8_t *)destination)[i] = ((const uint8_t *)source)[i] != 0; break;
        default: memcpy(destination, source, count * rows[type].size); return -1;
        }
    }
    return -1;
}

resin_status stored_read(resin_reader *reader, stored_type type, bool big_endian, int64_t count,
                         void *data) {
    union { uint8_t bytes[BUFFER_BYTES]; uint64_t align; } buffer;
    size_t size = rows[type].size, wide = resin_dtype_size(rows[type].dtype);
    bool swap = big_endian != host_is_big_endian();
    int64_t at_once = (int64_t)(BUFFER_BYTES / size);
    for (int64_t first = 0; first < count; first += at_once) {
        size_t some = (size_t)(count - first < at_once ? count - first : at_once);
        RESIN_TRY(resin_reader_read(reader, "the data", buffer.bytes, some * size));
        if (swap) swap_bytes(buffer.bytes, size, some);
        int64_t misfit = widen(type, buffer.bytes, some, (char *)data + (size_t)first * wide);
        if (misfit >= 0)
            return resin_fail(reader->context, RESIN_ERROR_FILE,
                              "%s: element %" PRId64 " (an unsigned integer of 64 bits) does not "
                              "fit int64", resin_path_shown(reader->path), first + misfit);
    }
    return RESIN_OK;
}

resin_status stored_read_tensor(resin_reader *reader, stored_type type, bool big_endian, int rank,
                                const int64_t *shape, resin_tensor **out) {
    uint64_t bytes = rows[type].size;
    bool fits = true;
    char text[SHAPE_TEXT];
    for (int i = 0; i < rank; i++)
        fits = fits && shape[i] >= 0 && !__builtin_mul_overflow(bytes, (uint64_t)shape[i], &bytes);
    if (!fits || bytes > reader->left)
        return resin_fail(reader->context, RESIN_ERROR_FILE,
                          "%s: the header announces the shape %s, but the data are too short",
                          resin_path_shown(reader->path), shape_format(rank, shape, text));
    resin_tensor *tensor;
    resin_status status = resin_empty(reader->context, rows[type].dtype, rank, shape, &tensor);
    if (status == RESIN_ERROR_SHAPE) /* no bytes at all, but lengths beyond 64 bits beside a 0 */
        return resin_fail(reader->context, RESIN_ERROR_FILE,
                          "%s: the header announces the impossible shape %s",
                          resin_path_shown(reader->path), shape_format(rank, shape, text));
    RESIN_TRY(status);
    status = stored_read(reader, type, big_endian, (int64_t)(bytes / rows[type].size),
                                      resin_tensor_data(tensor));
    if (status == RESIN_OK)
        *out = tensor;
    else
        resin_release(tensor);
    return status;
}

/* One run of elements with a stride, through the buffer. */
static resin_status write_run(resin_writer *writer, const char *source, size_t size, int64_t stride,
                              int64_t count) {
    uint8_t buffer[BUFFER_BYTES];
    int64_t at_once = (int64_t)(BUFFER_BYTES / size);
    for (int64_t first = 0; first < count; first += at_once) {
        size_t some = (size_t)(count - first < at_once ? count - first : at_once);
        for (size_t i = 0; i < some; i++)
            memcpy(buffer + i * size, source + (first + (int64_t)i) * stride * (int64_t)size, size);
        if (host_is_big_endian()) swap_bytes(buffer, size, some);
        RESIN_TRY(resin_writer_write(writer, buffer, some * size));
    }
    return RESIN_OK;
}

resin_status stored_write_tensor(resin_writer *writer, const resin_tensor *tensor) {
    size_t size = resin_dtype_size(resin_tensor_dtype(tensor));
    const char *data = resin_tensor_data(tensor);
    if (resin_tensor_contiguous(tensor) && !host_is_big_endian())
        return resin_writer_write(writer, data, (size_t)resin_tensor_count(tensor) * size);
    if (resin_tensor_count(tensor) == 0) return RESIN_OK;
    tensor_iterator it;
    iterator_start(&it, tensor->rank, tensor->shape, 1, &tensor);
    for (int64_t outer = 0; outer < it.outer; outer++) {
        int64_t offset[ITERATE_MAX];
        iterator_offsets(&it, outer, offset);
        RESIN_TRY(write_run(writer, data + offset[0] * (int64_t)size, size, it.inner_stride[0],
                            it.inner));
    }
    return RESIN_OK;
}
