/* idx.c: the IDX format of the MNIST files. Two zero bytes, a type, the number of axes, each axis'
 * length as 32 bits, then the numbers in row-major order; everything big-endian. */
#include "core/io/stored.h"

/* The type byte of a header, and how its numbers are kept. */
static const struct idx_type { uint8_t code; stored_type type; } types[] = {
    {0x08, STORED_U8},  {0x09, STORED_I8},  {0x0B, STORED_I16},
    {0x0C, STORED_I32}, {0x0D, STORED_F32}, {0x0E, STORED_F64},
};
enum { TYPES = sizeof types / sizeof types[0] };

static resin_status parse_start(resin_reader *reader, stored_type *type, int *rank) {
    uint8_t start[4];
    RESIN_TRY(resin_reader_read(reader, "the IDX header", start, sizeof start));
    int row = 0;
    while (row < TYPES && types[row].code != start[2]) row++;
    if (start[0] != 0 || start[1] != 0 || row == TYPES)
        return resin_fail(reader->context, RESIN_ERROR_FILE,
                          "%s: is no IDX file: it starts with %02x %02x %02x %02x instead of 00 "
                          "00, a type (08, 09, 0b to 0e) and the number of axes",
                          resin_path_shown(reader->path), start[0], start[1], start[2], start[3]);
    if (start[3] < 1 || start[3] > RESIN_MAX_RANK)
        return resin_fail(reader->context, RESIN_ERROR_FILE,
                          "%s: the IDX header announces %d axes; 1 to %d are possible",
                          resin_path_shown(reader->path), start[3], RESIN_MAX_RANK);
    *type = types[row].type;
    *rank = start[3];
    return RESIN_OK;
}

static resin_status read_open_file(resin_reader *reader, resin_tensor **out) {
    stored_type type = STORED_U8;
    int rank = 0;
    RESIN_TRY(parse_start(reader, &type, &rank));
    int64_t shape[RESIN_MAX_RANK];
    for (int axis = 0; axis < rank; axis++) {
        uint8_t b[4];
        RESIN_TRY(resin_reader_read(reader, "the IDX header", b, sizeof b));
        shape[axis] = (int64_t)b[0] << 24 | (int64_t)b[1] << 16 | (int64_t)b[2] << 8 | b[3];
    }
    resin_tensor *tensor;
    RESIN_TRY(stored_read_tensor(reader, type, true, rank, shape, &tensor));
    resin_status status = resin_reader_expect_end(reader);
    if (status == RESIN_OK)
        *out = tensor;
    else
        resin_release(tensor);
    return status;
}

resin_status resin_idx_read(resin_context *context, const char *path, resin_tensor **out) {
    resin_reader reader;
    RESIN_TRY(resin_reader_open(context, path, true, &reader));
    resin_status status = read_open_file(&reader, out);
    resin_reader_close(&reader);
    return status;
}
