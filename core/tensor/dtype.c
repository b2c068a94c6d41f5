/* dtype.c: the element types. */
#include "core/resin.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[RESIN_DTYPE_COUNT] = {
    [RESIN_FLOAT32] = {"float32", 4}, [RESIN_FLOAT64] = {"float64", 8},
    [RESIN_INT32] = {"int32", 4},     [RESIN_INT64] = {"int64", 8},
    [RESIN_UINT8] = {"uint8", 1},
};

const char *resin_dtype_name(resin_dtype dtype) { return dtypes[dtype].name; }

size_t resin_dtype_size(resin_dtype dtype) { return dtypes[dtype].size; }

bool resin_dtype_from_name(const char *name, resin_dtype *dtype) {
    for (int i = 0; i < RESIN_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *dtype = (resin_dtype)i;
            return true;
        }
    }
    return false;
}
