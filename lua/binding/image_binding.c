/* image_binding.c: pictures in files, their resizing, and the names in a folder. */
#include <string.h>

#include "lua/binding/binding.h"

static const char *check_path(lua_State *L) {
    size_t length;
    const char *path = luaL_checklstring(L, 1, &length);
    luaL_argcheck(L, strlen(path) == length, 1, "a string with a zero byte");
    return path;
}

/* read_image(path) -> uint8 (height, width, 3) */
static int read_image(lua_State *L) {
    const char *path = check_path(L);
    resin_tensor **out = binding_new_tensor(L);
    binding_check(L, resin_image_read(binding_context(L), path, out));
    return 1;
}

/* image_format("jpeg"|"png") -> whether it can be read */
static int image_format(lua_State *L) {
    lua_pushboolean(L, resin_image_format(luaL_checkstring(L, 1)));
    return 1;
}

/* resize_image(image, height, width) -> image */
static int resize_image(lua_State *L) {
    lua_Integer height = luaL_checkinteger(L, 2), width = luaL_checkinteger(L, 3);
    resin_tensor *image = binding_tensor(L, 1), **out = binding_new_tensor(L);
    binding_check(L, resin_image_resize(binding_context(L), image, height, width, out));
    return 1;
}

/* fit_image(image, shorter, height, width) -> image */
static int fit_image(lua_State *L) {
    lua_Integer shorter = luaL_checkinteger(L, 2);
    lua_Integer height = luaL_checkinteger(L, 3), width = luaL_checkinteger(L, 4);
    resin_tensor *image = binding_tensor(L, 1), **out = binding_new_tensor(L);
    binding_check(L, resin_image_fit(binding_context(L), image, shorter, height, width, out));
    return 1;
}

/* list_folder(path) -> names of files, names of folders */
static int list_folder(lua_State *L) {
    const char *path = check_path(L);
    resin_tensor **names = binding_new_tensor(L);
    binding_check(L, resin_folder_list(binding_context(L), path, names));
    const char *name = resin_tensor_data(*names), *end = name + resin_tensor_count(*names);
    lua_newtable(L);
    lua_newtable(L);
    while (name < end) {
        size_t length = strlen(name);
        int list = name[length - 1] == '/' ? -2 : -3;
        lua_pushlstring(L, name, list == -2 ? length - 1 : length);
        lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
        name += length + 1;
    }
    return 2;
}

void binding_open_image(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"read_image", read_image},     {"image_format", image_format},
        {"resize_image", resize_image}, {"fit_image", fit_image},
        {"list_folder", list_folder},   {NULL, NULL},
    };
    binding_register(L, functions);
}
