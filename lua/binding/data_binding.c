/* data_binding.c: files and data sets: readers and writers, the embedded images, batches, and the
 * type of an open safetensors file. Records and labels count from 1 here. */
#include <string.h>

#include "lua/binding/binding.h"

#define SAFETENSORS_TYPE "resin.safetensors"

/* A string without zero bytes: C would take it for a shorter one. */
static const char *check_text(lua_State *L, int index) {
    size_t length;
    const char *text = luaL_checklstring(L, index, &length);
    luaL_argcheck(L, strlen(text) == length, index, "a string with a zero byte");
    return text;
}

/* ---- Whole data sets ------------------------------------------------------------------------- */

/* Labels come from 0 and leave from 1. */
static void count_from_one(resin_tensor *numbers) {
    int64_t *number = resin_tensor_data(numbers), count = resin_tensor_count(numbers);
    for (int64_t i = 0; i < count; i++) number[i]++;
    resin_tensor_touch(numbers);
}

/* read_cifar10(folder, test) -> images, labels */
static int read_cifar10(lua_State *L) {
    const char *folder = check_text(L, 1);
    bool test = lua_toboolean(L, 2);
    resin_tensor **images = binding_new_tensor(L), **labels = binding_new_tensor(L);
    binding_check(L, resin_cifar10_read(binding_context(L), folder, test, images, labels));
    count_from_one(*labels);
    return 2;
}

/* read_cifar100(folder, test, superclass) -> images, labels */
static int read_cifar100(lua_State *L) {
    const char *folder = check_text(L, 1);
    bool test = lua_toboolean(L, 2), superclass = lua_toboolean(L, 3);
    resin_tensor **images = binding_new_tensor(L), **labels = binding_new_tensor(L);
    binding_check(L, resin_cifar100_read(binding_context(L), folder, test, superclass, images,
                                         labels));
    count_from_one(*labels);
    return 2;
}

/* synthetic_images(seed, test, count) -> images, labels */
static int synthetic_images(lua_State *L) {
    uint64_t seed = (uint64_t)luaL_checkinteger(L, 1);
    bool test = lua_toboolean(L, 2);
    lua_Integer count = luaL_checkinteger(L, 3);
    resin_tensor **images = binding_new_tensor(L), **labels = binding_new_tensor(L);
    binding_check(L, resin_synthetic_images(binding_context(L), seed, test, count, images, labels));
    count_from_one(*labels);
    return 2;
}

static int synthetic_class_names(lua_State *L) {
    lua_newtable(L);
    const char *name;
    for (int label = 0; (name = resin_synthetic_class_name(label)); label++) {
        lua_pushstring(L, name);
        lua_rawseti(L, -2, label + 1);
    }
    return 1;
}

/* random_images(seed, {count, height, width, channels}, classes) -> images, labels */
static int random_images(lua_State *L) {
    uint64_t seed = (uint64_t)luaL_checkinteger(L, 1);
    int64_t shape[RESIN_MAX_RANK];
    luaL_argcheck(L, binding_ints(L, 2, shape, "random_images") == 4, 2,
                  "expected {count, height, width, channels}");
    lua_Integer classes = luaL_checkinteger(L, 3);
    resin_tensor **images = binding_new_tensor(L), **labels = binding_new_tensor(L);
    binding_check(L, resin_random_images(binding_context(L), seed, shape, classes, images, labels));
    count_from_one(*labels);
    return 2;
}

/* ---- Arrays ---------------------------------------------------------------------------------- */

static int read_idx(lua_State *L) {
    const char *path = check_text(L, 1);
    resin_tensor **out = binding_new_tensor(L);
    binding_check(L, resin_idx_read(binding_context(L), path, out));
    return 1;
}

static int read_npy(lua_State *L) {
    const char *path = check_text(L, 1);
    resin_tensor **out = binding_new_tensor(L);
    binding_check(L, resin_npy_read(binding_context(L), path, out));
    return 1;
}

/* write_npy(path, tensor) */
static int write_npy(lua_State *L) {
    const char *path = check_text(L, 1);
    binding_check(L, resin_npy_write(binding_context(L), path, binding_tensor(L, 2)));
    return 0;
}

/* ---- Batches --------------------------------------------------------------------------------- */

/* epoch_order(count, shuffle, seed, epoch) -> int64 records from 1 */
static int epoch_order(lua_State *L) {
    lua_Integer count = luaL_checkinteger(L, 1);
    bool shuffle = lua_toboolean(L, 2);
    uint64_t seed = (uint64_t)luaL_checkinteger(L, 3), epoch = (uint64_t)luaL_checkinteger(L, 4);
    resin_tensor **order = binding_new_tensor(L);
    binding_check(L, resin_epoch_order(binding_context(L), count, shuffle, seed, epoch, order));
    count_from_one(*order);
    return 1;
}

/* Arguments 2 to 4: int64 records, and which of them, first to last; counted from 0 they go into a
 * block that Lua collects, left on the stack. */
static const int64_t *check_records(lua_State *L, int64_t *count) {
    resin_tensor *order = binding_tensor(L, 2);
    lua_Integer first = luaL_checkinteger(L, 3), last = luaL_checkinteger(L, 4);
    luaL_argcheck(L, resin_tensor_dtype(order) == RESIN_INT64 && resin_tensor_rank(order) == 1 &&
                         resin_tensor_contiguous(order), 2, "expected a list of int64 records");
    luaL_argcheck(L, first >= 1 && first <= resin_tensor_count(order), 3,
                  "outside of the list of records");
    luaL_argcheck(L, last >= first && last <= resin_tensor_count(order), 4,
                  "outside of the list of records");
    *count = last - first + 1;
    int64_t *records = lua_newuserdatauv(L, (size_t)*count * sizeof *records, 0);
    const int64_t *given = (const int64_t *)resin_tensor_data(order) + (first - 1);
    for (int64_t i = 0; i < *count; i++) {
        if (given[i] < 1) luaL_error(L, "record %I: records count from 1", (lua_Integer)given[i]);
        records[i] = given[i] - 1;
    }
    return records;
}

void binding_channel_numbers(lua_State *L, int index, const char *name,
                             float numbers[RESIN_MAX_CHANNELS]) {
    if (lua_getfield(L, index, name) != LUA_TTABLE)
        luaL_error(L, "image_batch: expected a list of numbers as %s", name);
    for (int i = 0; i < RESIN_MAX_CHANNELS; i++) {
        lua_rawgeti(L, -1, i + 1);
        numbers[i] = (float)lua_tonumber(L, -1); /* 0 is refused as a deviation */
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static lua_Integer integer_field(lua_State *L, int index, const char *name) {
    int is_integer;
    lua_getfield(L, index, name);
    lua_Integer value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer && !lua_isnil(L, -1))
        luaL_error(L, "image_batch: expected an integer as %s, got %s", name,
                   luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
    return value;
}

/* image_batch(images, records, first, last, {pad, flip, cutout, mean, deviation, seed, epoch}) ->
 * float32 */
static int image_batch(lua_State *L) {
    luaL_checktype(L, 5, LUA_TTABLE);
    resin_batch_settings settings = {.seed = (uint64_t)integer_field(L, 5, "seed"),
                                     .epoch = (uint64_t)integer_field(L, 5, "epoch")};
    lua_Integer pad = integer_field(L, 5, "pad");
    if (pad < 0 || pad > RESIN_MAX_PAD)
        luaL_error(L, "image_batch: expected a pad of 0 to %d pixels, got %I", RESIN_MAX_PAD, pad);
    settings.pad = (int)pad;
    lua_Integer cutout = integer_field(L, 5, "cutout");
    if (cutout < 0 || cutout > RESIN_MAX_PAD)
        luaL_error(L, "image_batch: expected a cutout of 0 to %d pixels, got %I", RESIN_MAX_PAD,
                   cutout);
    settings.cutout = (int)cutout;
    lua_getfield(L, 5, "flip");
    settings.flip = lua_toboolean(L, -1);
    binding_channel_numbers(L, 5, "mean", settings.mean);
    binding_channel_numbers(L, 5, "deviation", settings.deviation);
    int64_t count;
    const int64_t *records = check_records(L, &count);
    resin_tensor **out = binding_new_tensor(L);
    binding_check(L, resin_image_batch(binding_context(L), binding_tensor(L, 1), records, count,
                                       &settings, out));
    return 1;
}

/* label_batch(labels, records, first, last) -> int64 */
static int label_batch(lua_State *L) {
    int64_t count;
    const int64_t *records = check_records(L, &count);
    resin_tensor **out = binding_new_tensor(L);
    binding_check(L, resin_label_batch(binding_context(L), binding_tensor(L, 1), records, count,
                                       out));
    return 1;
}

static void push_numbers(lua_State *L, const double *numbers, int64_t count) {
    lua_createtable(L, (int)count, 0);
    for (int i = 0; i < count; i++) {
        lua_pushnumber(L, numbers[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

/* image_statistics(images) -> mean, deviation: lists of numbers by channel */
static int image_statistics(lua_State *L) {
    resin_tensor *images = binding_tensor(L, 1);
    double mean[RESIN_MAX_CHANNELS], deviation[RESIN_MAX_CHANNELS];
    binding_check(L, resin_image_statistics(binding_context(L), images, mean, deviation));
    push_numbers(L, mean, resin_tensor_shape(images)[3]);
    push_numbers(L, deviation, resin_tensor_shape(images)[3]);
    return 2;
}

/* ---- Open safetensors files ------------------------------------------------------------------ */

typedef struct safetensors_box {
    resin_safetensors *file; /* NULL once closed */
} safetensors_box;

/* safetensors_open(path) -> file */
static int safetensors_open(lua_State *L) {
    const char *path = check_text(L, 1);
    safetensors_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->file = NULL;
    luaL_setmetatable(L, SAFETENSORS_TYPE);
    binding_check(L, resin_safetensors_open(binding_context(L), path, &box->file));
    return 1;
}

static resin_safetensors *check_file(lua_State *L) {
    safetensors_box *box = luaL_checkudata(L, 1, SAFETENSORS_TYPE);
    if (!box->file) luaL_error(L, "the safetensors file was closed");
    return box->file;
}

/* Argument 2: the name of one of its tensors. */
static int64_t check_name(lua_State *L, resin_safetensors *file) {
    const char *name = check_text(L, 2);
    int64_t index = resin_safetensors_find(file, name);
    if (index < 0) luaL_error(L, "there is no tensor '%s' in the safetensors file", name);
    return index;
}

/* file:names() -> list, in the order of their bytes */
static int file_names(lua_State *L) {
    resin_safetensors *file = check_file(L);
    lua_newtable(L);
    for (int64_t i = 0; i < resin_safetensors_count(file); i++) {
        lua_pushstring(L, resin_safetensors_describe(file, i).name);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* file:has(name) -> boolean */
static int file_has(lua_State *L) {
    lua_pushboolean(L, resin_safetensors_find(check_file(L), check_text(L, 2)) >= 0);
    return 1;
}

/* file:shape(name) -> list */
static int file_shape(lua_State *L) {
    resin_safetensors *file = check_file(L);
    resin_safetensors_info info = resin_safetensors_describe(file, check_name(L, file));
    lua_createtable(L, info.rank, 0);
    for (int axis = 0; axis < info.rank; axis++) {
        lua_pushinteger(L, info.shape[axis]);
        lua_rawseti(L, -2, axis + 1);
    }
    return 1;
}

/* file:dtype(name) -> dtype when loaded (nil if it cannot be), dtype in the file */
static int file_dtype(lua_State *L) {
    resin_safetensors *file = check_file(L);
    resin_safetensors_info info = resin_safetensors_describe(file, check_name(L, file));
    if (info.dtype == RESIN_DTYPE_COUNT)
        lua_pushnil(L);
    else
        lua_pushstring(L, resin_dtype_name(info.dtype));
    lua_pushstring(L, info.stored_dtype);
    return 2;
}

/* file:load(name) -> tensor */
static int file_load(lua_State *L) {
    resin_safetensors *file = check_file(L);
    int64_t index = check_name(L, file);
    resin_tensor **out = binding_new_tensor(L);
    binding_check(L, resin_safetensors_load(file, index, out));
    return 1;
}

/* file:load_into(name, tensor) */
static int file_load_into(lua_State *L) {
    resin_safetensors *file = check_file(L);
    int64_t index = check_name(L, file);
    binding_check(L, resin_safetensors_load_into(file, index, binding_tensor(L, 3)));
    return 0;
}

/* file:metadata() -> table of strings */
static int file_metadata(lua_State *L) {
    resin_safetensors *file = check_file(L);
    lua_newtable(L);
    for (int64_t i = 0; i < resin_safetensors_metadata_count(file); i++) {
        const char *value, *key = resin_safetensors_metadata_at(file, i, &value);
        lua_pushstring(L, value);
        lua_setfield(L, -2, key);
    }
    return 1;
}

/* Also __gc and __close. */
static int file_close(lua_State *L) {
    safetensors_box *box = luaL_checkudata(L, 1, SAFETENSORS_TYPE);
    resin_safetensors *file = box->file;
    box->file = NULL;
    resin_safetensors_close(file);
    return 0;
}

/* ---- Writing safetensors files --------------------------------------------------------------- */

/* What resin_safetensors_write takes, in blocks that Lua collects. The strings and tensors stay
 * where they are: in the caller's tables. */
typedef struct writing {
    const char **names, **keys, **values;
    resin_tensor **tensors;
    lua_Integer count, metadata_count;
} writing;

static const char *string_on_top(lua_State *L, const char *what) {
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "safetensors_write: expected a string as %s, got %s", what,
                   luaL_typename(L, -1));
    const char *string = lua_tostring(L, -1);
    if (strlen(string) != lua_rawlen(L, -1))
        luaL_error(L, "safetensors_write: %s '%s' holds a zero byte", what, string);
    return string;
}

/* Argument 2: {{name, tensor}, ...}. */
static void collect_tensors(lua_State *L, writing *what) {
    luaL_checktype(L, 2, LUA_TTABLE);
    what->count = luaL_len(L, 2);
    what->names = lua_newuserdatauv(L, (size_t)(what->count + 1) * sizeof *what->names, 0);
    what->tensors = lua_newuserdatauv(L, (size_t)(what->count + 1) * sizeof *what->tensors, 0);
    for (lua_Integer i = 0; i < what->count; i++) {
        if (lua_rawgeti(L, 2, i + 1) != LUA_TTABLE)
            luaL_error(L, "safetensors_write: expected {name, tensor} at position %I", i + 1);
        lua_rawgeti(L, -1, 1);
        what->names[i] = string_on_top(L, "the name of a tensor");
        lua_rawgeti(L, -2, 2);
        what->tensors[i] = binding_test_tensor(L, -1);
        if (!what->tensors[i])
            luaL_error(L, "safetensors_write: '%s' is no tensor, or was released", what->names[i]);
        lua_pop(L, 3);
    }
}

/* Argument 3: {key = string, ...} or nothing. */
static void collect_metadata(lua_State *L, writing *what) {
    what->metadata_count = 0;
    if (lua_isnoneornil(L, 3)) return;
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_Integer count = 0, i = 0;
    for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) count++;
    what->keys = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *what->keys, 0);
    what->values = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *what->values, 0);
    for (lua_pushnil(L); lua_next(L, 3); i++) {
        what->values[i] = string_on_top(L, "a value of the metadata");
        lua_pop(L, 1);
        what->keys[i] = string_on_top(L, "a key of the metadata");
    }
    what->metadata_count = count;
}

/* safetensors_write(path, {{name, tensor}, ...}[, {key = string, ...}]) */
static int safetensors_write(lua_State *L) {
    const char *path = check_text(L, 1);
    writing what = {0};
    lua_settop(L, 3);
    collect_tensors(L, &what);
    collect_metadata(L, &what);
    binding_check(L, resin_safetensors_write(binding_context(L), path, what.names, what.tensors,
                                             what.count, what.keys, what.values,
                                             what.metadata_count));
    return 0;
}

/* ---- Opening --------------------------------------------------------------------------------- */

static const luaL_Reg file_methods[] = {
    {"names", file_names},         {"has", file_has},
    {"shape", file_shape},         {"dtype", file_dtype},
    {"load", file_load},           {"load_into", file_load_into},
    {"metadata", file_metadata},   {"close", file_close},
    {"__gc", file_close},          {"__close", file_close},
    {NULL, NULL},
};

void binding_open_data(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"read_cifar10", read_cifar10},
        {"read_cifar100", read_cifar100},
        {"synthetic_images", synthetic_images},
        {"synthetic_class_names", synthetic_class_names},
        {"random_images", random_images},
        {"read_idx", read_idx},
        {"read_npy", read_npy},
        {"write_npy", write_npy},
        {"epoch_order", epoch_order},
        {"image_batch", image_batch},
        {"label_batch", label_batch},
        {"image_statistics", image_statistics},
        {"safetensors_open", safetensors_open},
        {"safetensors_write", safetensors_write},
        {NULL, NULL},
    };
    if (luaL_newmetatable(L, SAFETENSORS_TYPE)) {
        binding_register(L, file_methods);
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
    binding_register(L, functions);
}
