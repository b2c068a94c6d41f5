/* stored.h: numbers as files keep them: more types than tensors have, in both byte orders.
 *
 * Every type is read as the tensor's type that holds all its values: f16 and bf16 as float32, 8 and
 * 16 bit integers as int32 (unsigned bytes stay uint8), u32 as int64, u64 as int64 where the values
 * fit, bool as uint8 with 0 and 1. */
#ifndef RESIN_IO_STORED_H
#define RESIN_IO_STORED_H

#include "core/io/file.h"

typedef enum stored_type {
    STORED_F16, STORED_BF16, STORED_F32, STORED_F64,
    STORED_I8, STORED_I16, STORED_I32, STORED_I64,
    STORED_U8, STORED_U16, STORED_U32, STORED_U64, STORED_BOOL, STORED_TYPE_COUNT
} stored_type;

/* What it becomes. */
resin_dtype stored_dtype(stored_type type);

/* Reads `count` numbers from the file into `data`, an array of stored_dtype(type). */
resin_status stored_read(resin_reader *reader, stored_type type, bool big_endian, int64_t count,
                         void *data);
/* The same into a new tensor. The shape is checked against the bytes the file can still give before
 * memory is asked for. */
resin_status stored_read_tensor(resin_reader *reader, stored_type type, bool big_endian, int rank,
                                const int64_t *shape, resin_tensor **out);
/* Writes a tensor of any strides in row-major order, little-endian. */
resin_status stored_write_tensor(resin_writer *writer, const resin_tensor *tensor);

#endif
