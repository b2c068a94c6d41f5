/* loader_binding.c: the type of a loader, which makes batches in the background, and images as PNG.
 * Steps count from 1 here; a loader is called as an iterator: `for images, labels in loader do` is
 * one epoch. */
#include "lua/binding/binding.h"

#define LOADER_TYPE "resin.loader"

typedef struct loader_box {
    resin_loader *loader; /* NULL once closed */
} loader_box;

static lua_Integer integer_field(lua_State *L, const char *name, lua_Integer fallback) {
    int is_integer;
    if (lua_getfield(L, 3, name) == LUA_TNIL) {
        lua_pop(L, 1);
        return fallback;
    }
    lua_Integer value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer)
        luaL_error(L, "loader: expected an integer as %s, got %s", name,
                   luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
    return value;
}

/* An integer that fits into C's int; the engine says what it may be. */
static int int_field(lua_State *L, const char *name, lua_Integer fallback) {
    lua_Integer value = integer_field(L, name, fallback);
    return value < -1 ? -1 : value > INT32_MAX ? INT32_MAX : (int)value;
}

static bool boolean_field(lua_State *L, const char *name) {
    lua_getfield(L, 3, name);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

/* Argument 3: {pad, flip, cutout, mean, deviation, seed, epoch, batch_size, shuffle, drop_last,
 * step, epochs, workers, ahead} */
static resin_loader_settings check_settings(lua_State *L) {
    luaL_checktype(L, 3, LUA_TTABLE);
    resin_loader_settings settings = {
        .batch = {.pad = int_field(L, "pad", 0), .flip = boolean_field(L, "flip"),
                  .seed = (uint64_t)integer_field(L, "seed", 0),
                  .epoch = (uint64_t)integer_field(L, "epoch", 1),
                  .cutout = int_field(L, "cutout", 0)},
        .batch_size = integer_field(L, "batch_size", 32),
        .shuffle = boolean_field(L, "shuffle"), .drop_last = boolean_field(L, "drop_last"),
        .step = integer_field(L, "step", 1), .epochs = integer_field(L, "epochs", 0),
        .workers = int_field(L, "workers", 1), .ahead = int_field(L, "ahead", 4)};
    luaL_argcheck(L, settings.step >= 1, 3, "steps count from 1");
    settings.step--;
    binding_channel_numbers(L, 3, "mean", settings.batch.mean);
    binding_channel_numbers(L, 3, "deviation", settings.batch.deviation);
    return settings;
}

/* Pushes a loader that is still to be made. */
static loader_box *new_box(lua_State *L) {
    loader_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->loader = NULL;
    luaL_setmetatable(L, LOADER_TYPE);
    binding_collect(L, false);
    return box;
}

/* loader(images, labels, settings) */
static int loader_new(lua_State *L) {
    resin_loader_settings settings = check_settings(L);
    resin_tensor *images = binding_tensor(L, 1), *labels = binding_tensor(L, 2);
    loader_box *box = new_box(L);
    binding_check(L, resin_loader_new(binding_context(L), images, labels, &settings, &box->loader));
    return 1;
}

/* ---- Of pictures in files -------------------------------------------------------------------- */

/* The list {low, high} in the field `name` of argument 3. */
static void range_field(lua_State *L, const char *name, double range[2]) {
    lua_getfield(L, 3, name);
    for (int i = 0; i < 2 && lua_istable(L, -1); i++) {
        lua_rawgeti(L, -1, i + 1);
        range[i] = lua_tonumber(L, -1); /* 0 is refused */
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Argument 1, a list of `count` paths, in a block that Lua collects; the strings stay in the
 * list. */
static const char **check_paths(lua_State *L, int64_t count) {
    luaL_checktype(L, 1, LUA_TTABLE);
    if ((int64_t)lua_rawlen(L, 1) != count)
        luaL_error(L, "loader: %I pictures, but %I labels", (lua_Integer)lua_rawlen(L, 1),
                   (lua_Integer)count);
    const char **paths = lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *paths, 0);
    for (int64_t i = 0; i < count; i++) {
        if (lua_rawgeti(L, 1, i + 1) != LUA_TSTRING)
            luaL_error(L, "loader: expected a path at position %I, got %s", (lua_Integer)i + 1,
                       luaL_typename(L, -1));
        paths[i] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    return paths;
}

/* picture_loader(paths, labels, settings): those of loader, and height, width, shorter, random,
 * area, ratio */
static int picture_loader_new(lua_State *L) {
    resin_loader_settings settings = check_settings(L);
    resin_picture_settings pictures = {
        .height = integer_field(L, "height", 0), .width = integer_field(L, "width", 0),
        .shorter = integer_field(L, "shorter", 0), .random = boolean_field(L, "random")};
    range_field(L, "area", pictures.area);
    range_field(L, "ratio", pictures.ratio);
    resin_tensor *labels = binding_tensor(L, 2);
    const char **paths = check_paths(L, resin_tensor_count(labels));
    loader_box *box = new_box(L);
    binding_check(L, resin_picture_loader_new(binding_context(L), paths, labels, &pictures,
                                              &settings, &box->loader));
    return 1;
}

static resin_loader *check_loader(lua_State *L) {
    loader_box *box = luaL_checkudata(L, 1, LOADER_TYPE);
    if (!box->loader) luaL_error(L, "the loader was closed");
    return box->loader;
}

/* loader() -> images, labels, or nil at the end of each epoch */
static int loader_next(lua_State *L) {
    lua_settop(L, 1);
    resin_tensor **images = binding_new_tensor(L), **labels = binding_new_tensor(L);
    binding_check(L, resin_loader_next(check_loader(L), images, labels));
    if (*images) return 2;
    lua_pushnil(L);
    return 1;
}

/* loader:position() -> epoch, step of what comes next; step is batch_count() + 1 before the nil
 * that ends an epoch */
static int loader_position(lua_State *L) {
    uint64_t epoch;
    int64_t step;
    resin_loader_position(check_loader(L), &epoch, &step);
    lua_pushinteger(L, (lua_Integer)epoch);
    lua_pushinteger(L, step + 1);
    return 2;
}

/* loader:batch_count() -> batches of a whole epoch */
static int loader_batch_count(lua_State *L) {
    lua_pushinteger(L, resin_loader_batches(check_loader(L)));
    return 1;
}

/* loader:waited() -> seconds spent in it so far */
static int loader_waited(lua_State *L) {
    lua_pushnumber(L, resin_loader_waited(check_loader(L)));
    return 1;
}

/* Also __gc and __close. */
static int loader_close(lua_State *L) {
    loader_box *box = luaL_checkudata(L, 1, LOADER_TYPE);
    resin_loader *loader = box->loader;
    box->loader = NULL;
    resin_loader_close(loader);
    return 0;
}

/* png(image) -> the bytes of a file */
static int png(lua_State *L) {
    resin_tensor *image = binding_tensor(L, 1), **file = binding_new_tensor(L);
    binding_check(L, resin_png_encode(binding_context(L), image, file));
    lua_pushlstring(L, resin_tensor_data(*file), (size_t)resin_tensor_count(*file));
    return 1;
}

static const luaL_Reg loader_methods[] = {
    {"next", loader_next},       {"position", loader_position},
    {"waited", loader_waited},   {"batch_count", loader_batch_count},
    {"close", loader_close},     {"__call", loader_next},
    {"__gc", loader_close},      {"__close", loader_close},
    {NULL, NULL},
};

void binding_open_loader(lua_State *L) {
    static const luaL_Reg functions[] = {{"loader", loader_new},
                                         {"picture_loader", picture_loader_new},
                                         {"png", png},
                                         {NULL, NULL}};
    if (luaL_newmetatable(L, LOADER_TYPE)) {
        binding_register(L, loader_methods);
        lua_pushvalue(L, -1);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
    binding_register(L, functions);
}
