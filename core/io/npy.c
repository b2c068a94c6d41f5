/* npy.c: numpy's .npy files (format versions 1, 2 and 3): the magic number, a version, the
 * length of the header, a header that is a Python dictionary with 'descr', 'fortran_order' and
 * 'shape', and the numbers. The dictionary is parsed, never evaluated; arrays of objects
 * (pickles) are refused. */
#include "core/io/stored.h"

#include "core/base/memory.h"
#include "core/tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MAX_HEADER = 65536, ALIGNMENT = 64 };
static const char MAGIC[6] = "\x93NUMPY";

typedef struct npy_header {
    stored_type type;
    bool big_endian, fortran_order;
    int rank;
    int64_t shape[RESIN_MAX_RANK];
} npy_header;

/* ---- The dictionary -------------------------------------------------------------------------- */

typedef struct cursor {
    resin_reader *reader;
    const char *at; /* the text ends with a zero byte */
} cursor;

static resin_status fail_header(const cursor *text, const char *problem) {
    return resin_fail(text->reader->context, RESIN_ERROR_FILE,
                      "%s: the .npy header %s (at \"%.20s\")",
                      resin_path_shown(text->reader->path), problem, text->at);
}

static void skip_space(cursor *text) { text->at += strspn(text->at, " \t\n"); }

static bool accept(cursor *text, const char *token) {
    skip_space(text);
    size_t length = strlen(token);
    if (strncmp(text->at, token, length) != 0) return false;
    text->at += length;
    return true;
}

/* A string in single or double quotes, without escapes. */
static bool accept_string(cursor *text, char *string, size_t room) {
    skip_space(text);
    char quote = *text->at;
    if (quote != '\'' && quote != '"') return false;
    const char *end = strchr(text->at + 1, quote);
    size_t length = end ? (size_t)(end - text->at - 1) : 0;
    if (!end || length >= room || memchr(text->at + 1, '\\', length)) return false;
    memcpy(string, text->at + 1, length);
    string[length] = '\0';
    text->at = end + 1;
    return true;
}

static const struct { char name[3]; stored_type type; } types[] = {
    {"f2", STORED_F16}, {"f4", STORED_F32}, {"f8", STORED_F64}, {"i1", STORED_I8},
    {"i2", STORED_I16}, {"i4", STORED_I32}, {"i8", STORED_I64}, {"u1", STORED_U8},
    {"u2", STORED_U16}, {"u4", STORED_U32}, {"u8", STORED_U64}, {"b1", STORED_BOOL},
};

static resin_status parse_type(cursor *text, npy_header *header) {
    char name[16];
    if (!accept_string(text, name, sizeof name))
        return fail_header(text, "has a 'descr' that is no simple type; records are not supported");
    if (strchr(name, 'O'))
        return fail_header(text, "says that Python objects follow; pickles are not loaded, because "
                                 "loading one can run any code");
    header->big_endian = name[0] == '>';
    const char *base = strchr("<>|=", name[0]) && name[0] ? name + 1 : name;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(base, types[i].name) == 0) {
            header->type = types[i].type;
            return RESIN_OK;
        }
    return resin_fail(text->reader->context, RESIN_ERROR_FILE,
                      "%s: numbers of type '%s' cannot be read; expected f2, f4, f8, i1 to i8, u1 "
                      "to u8 or b1", resin_path_shown(text->reader->path), name);
}

static resin_status parse_length(cursor *text, int64_t *length) {
    skip_space(text);
    if (*text->at < '0' || *text->at > '9') return fail_header(text, "has a malformed 'shape'");
    *length = 0;
    for (; *text->at >= '0' && *text->at <= '9'; text->at++)
        if (__builtin_mul_overflow(*length, 10, length) ||
            __builtin_add_overflow(*length, *text->at - '0', length))
            return fail_header(text, "has an axis too long for 64 bits");
    accept(text, "L"); /* written by Python 2 */
    return RESIN_OK;
}

/* (), (3,), (3, 4) or (3, 4,). */
static resin_status parse_shape(cursor *text, npy_header *header) {
    if (!accept(text, "(")) return fail_header(text, "has a malformed 'shape'");
    header->rank = 0;
    while (!accept(text, ")")) {
        if (header->rank == RESIN_MAX_RANK)
            return resin_fail(text->reader->context, RESIN_ERROR_FILE,
                              "%s: has more than %d axes", resin_path_shown(text->reader->path),
                              RESIN_MAX_RANK);
        RESIN_TRY(parse_length(text, &header->shape[header->rank++]));
        bool comma = accept(text, ",");
        skip_space(text);
        if (!comma && (*text->at != ')' || header->rank == 1))
            return fail_header(text, "has a malformed 'shape'");
    }
    return RESIN_OK;
}

static resin_status parse_dictionary(cursor *text, npy_header *header) {
    enum { TYPE = 1, ORDER = 2, SHAPE = 4, ALL = 7 };
    int seen = 0;
    if (!accept(text, "{")) return fail_header(text, "is no dictionary");
    while (!accept(text, "}")) {
        char key[20];
        if (!accept_string(text, key, sizeof key) || !accept(text, ":"))
            return fail_header(text, "is malformed");
        int which = strcmp(key, "descr") == 0 ? TYPE : strcmp(key, "fortran_order") == 0 ? ORDER
                  : strcmp(key, "shape") == 0 ? SHAPE : 0;
        if (which == 0 || (seen & which))
            return fail_header(text, "has an unknown or repeated key");
        seen |= which;
        if (which == TYPE) {
            RESIN_TRY(parse_type(text, header));
        } else if (which == SHAPE) {
            RESIN_TRY(parse_shape(text, header));
        } else {
            header->fortran_order = accept(text, "True");
            if (!header->fortran_order && !accept(text, "False"))
                return fail_header(text, "has a 'fortran_order' that is neither True nor False");
        }
        bool comma = accept(text, ",");
        skip_space(text);
        if (!comma && *text->at != '}') return fail_header(text, "is malformed");
    }
    skip_space(text);
    if (*text->at != '\0') return fail_header(text, "goes on after the dictionary");
    return seen == ALL ? RESIN_OK : fail_header(text, "lacks 'descr', 'fortran_order' or 'shape'");
}

/* The magic number, the version and the length of the dictionary. */
static resin_status read_preamble(resin_reader *reader, size_t *length) {
    uint8_t start[8], size[4] = {0};
    RESIN_TRY(resin_reader_read(reader, "the .npy header", start, sizeof start));
    if (memcmp(start, MAGIC, sizeof MAGIC) != 0)
        return resin_fail(reader->context, RESIN_ERROR_FILE,
                          "%s: is no .npy file: it does not start with \\x93NUMPY%s",
                          resin_path_shown(reader->path),
                          memcmp(start, "PK", 2) == 0 ? "; .npz archives have to be unzipped" : "");
    if (start[6] < 1 || start[6] > 3)
        return resin_fail(reader->context, RESIN_ERROR_FILE, "%s: unknown version %d.%d of .npy",
                          resin_path_shown(reader->path), start[6], start[7]);
    RESIN_TRY(resin_reader_read(reader, "the .npy header", size, start[6] == 1 ? 2 : 4));
    *length = 0;
    for (int i = 3; i >= 0; i--) *length = *length << 8 | size[i];
    if (*length > MAX_HEADER || *length > reader->left)
        return resin_fail(reader->context, RESIN_ERROR_FILE,
                          "%s: the .npy header announces %zu bytes; %s",
                          resin_path_shown(reader->path), *length,
                          *length > MAX_HEADER ? "at most 65536 are read" : "the file is shorter");
    return RESIN_OK;
}

static resin_status read_header(resin_reader *reader, npy_header *header) {
    size_t length = 0;
    RESIN_TRY(read_preamble(reader, &length));
    void *block;
    RESIN_TRY(resin_allocate(reader->context, length + 1, &block));
    char *text = block;
    resin_status status = resin_reader_read(reader, "the .npy header", text, length);
    if (status == RESIN_OK) {
        text[length] = '\0';
        cursor start = {reader, text};
        status = strlen(text) == length ? parse_dictionary(&start, header)
                                        : fail_header(&start, "holds a zero byte");
    }
    resin_deallocate(reader->context, block);
    return status;
}

/* ---- The numbers ----------------------------------------------------------------------------- */

/* Puts numbers that came column by column (first axis fastest) into rows. */
static void columns_to_rows(const char *columns, const npy_header *header, resin_tensor *rows) {
    size_t size = resin_dtype_size(resin_tensor_dtype(rows));
    int64_t position[RESIN_MAX_RANK] = {0}, step[RESIN_MAX_RANK], length = 1, from = 0;
    for (int axis = 0; axis < header->rank; axis++) {
        step[axis] = length;
        length *= header->shape[axis];
    }
    char *to = resin_tensor_data(rows);
    for (int64_t i = 0; i < length; i++, to += size) {
        memcpy(to, columns + (size_t)from * size, size);
        for (int axis = header->rank - 1; axis >= 0; axis--) {
            from += step[axis];
            if (++position[axis] < header->shape[axis]) break;
            from -= step[axis] * header->shape[axis];
            position[axis] = 0;
        }
    }
}

static resin_status read_array(resin_reader *reader, resin_tensor **out) {
    npy_header header = {0};
    RESIN_TRY(read_header(reader, &header));
    resin_tensor *tensor, *rows = NULL;
    RESIN_TRY(stored_read_tensor(reader, header.type, header.big_endian, header.rank, header.shape,
                                 &tensor));
    resin_status status = resin_reader_expect_end(reader);
    if (status == RESIN_OK && header.fortran_order && header.rank > 1) {
        status = resin_empty(reader->context, resin_tensor_dtype(tensor), header.rank, header.shape,
                             &rows);
        if (status == RESIN_OK) {
            columns_to_rows(resin_tensor_data(tensor), &header, rows);
            resin_release(tensor);
            tensor = rows;
        }
    }
    if (status == RESIN_OK)
        *out = tensor;
    else
        resin_release(tensor);
    return status;
}

resin_status resin_npy_read(resin_context *context, const char *path, resin_tensor **out) {
    resin_reader reader;
    RESIN_TRY(resin_reader_open(context, path, false, &reader));
    resin_status status = read_array(&reader, out);
    resin_reader_close(&reader);
    return status;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static const char *type_name(resin_dtype dtype) {
    switch (dtype) {
    case RESIN_FLOAT64: return "<f8";
    case RESIN_INT32: return "<i4";
    case RESIN_INT64: return "<i8";
    case RESIN_UINT8: return "|u1";
    default: return "<f4";
    }
}

/* A header of version 1, filled with spaces so that the numbers start at a multiple of 64 bytes. */
static resin_status write_header(resin_writer *writer, const resin_tensor *tensor) {
    char text[512] = {0};
    memcpy(text, MAGIC, sizeof MAGIC);
    text[6] = 1;
    size_t at = 10;
    at += (size_t)snprintf(text + at, sizeof text - at,
                           "{'descr': '%s', 'fortran_order': False, 'shape': (",
                           type_name(resin_tensor_dtype(tensor)));
    int rank = resin_tensor_rank(tensor);
    for (int axis = 0; axis < rank; axis++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%" PRId64 "%s",
                               resin_tensor_shape(tensor)[axis],
                               axis + 1 < rank ? ", " : rank == 1 ? "," : "");
    at += (size_t)snprintf(text + at, sizeof text - at, "), }");
    while ((at + 1) % ALIGNMENT != 0) text[at++] = ' ';
    text[at++] = '\n';
    text[8] = (char)((at - 10) & 255u);
    text[9] = (char)((at - 10) >> 8);
    return resin_writer_write(writer, text, at);
}

resin_status resin_npy_write(resin_context *context, const char *path, const resin_tensor *tensor) {
    resin_writer writer;
    RESIN_TRY(resin_writer_open(context, path, &writer));
    resin_status status = write_header(&writer, tensor);
    if (status == RESIN_OK) status = stored_write_tensor(&writer, tensor);
    return resin_writer_close(&writer, status);
}
