/* module.c: opens resin.core: one context for a Lua state, and what the binding's files share. */
#include "lua/binding/binding.h"

#include <string.h>

#include "lua/binding/resin_lua.h"

#define CONTEXT_TYPE "resin.context"

/* Where the registry holds the state's context. */
static const char *const context_key = "resin.context.instance";

typedef struct context_box {
    resin_context *context;
    size_t held_after_collection; /* bytes, for binding_new_tensor's bound */
    binding_blocks *blocks;
} context_box;

static int context_gc(lua_State *L) {
    context_box *box = luaL_checkudata(L, 1, CONTEXT_TYPE);
    resin_context_release(box->context); /* tensors that live on hold it too */
    box->context = NULL;
    binding_blocks_release(box->blocks); /* likewise blocks that live on in graphs */
    box->blocks = NULL;
    return 0;
}

static context_box *context_box_of(lua_State *L) {
    lua_getfield(L, LUA_REGISTRYINDEX, context_key);
    context_box *box = luaL_testudata(L, -1, CONTEXT_TYPE);
    lua_pop(L, 1);
    return box;
}

resin_context *binding_context(lua_State *L) {
    context_box *box = lua_touserdata(L, lua_upvalueindex(1));
    return box->context;
}

binding_blocks *binding_blocks_of(lua_State *L) {
    context_box *box = lua_touserdata(L, lua_upvalueindex(1));
    return box->blocks;
}

void binding_check(lua_State *L, resin_status status) {
    if (status != RESIN_OK) luaL_error(L, "%s", resin_error_message(binding_context(L)));
}

/* Lua's collector does not see the engine's memory: a full collection runs when the bytes held
 * exceed twice those after the last one plus this. */
static const size_t collection_slack = (size_t)64 << 20;

void binding_collect(lua_State *L, bool force) {
    context_box *box = lua_touserdata(L, lua_upvalueindex(1));
    if (!force &&
        resin_memory(box->context).held <= 2 * box->held_after_collection + collection_slack)
        return;
    /* Stopped by the user (0), or we are in a finalizer (-1). */
    if (lua_gc(L, LUA_GCISRUNNING) != 1) return;
    lua_gc(L, LUA_GCCOLLECT);
    box->held_after_collection = resin_memory(box->context).held;
}

void binding_push_context(lua_State *L) { lua_getfield(L, LUA_REGISTRYINDEX, context_key); }

void binding_register(lua_State *L, const luaL_Reg *functions) {
    binding_push_context(L);
    luaL_setfuncs(L, functions, 1);
}

int binding_ints(lua_State *L, int index, int64_t *ints, const char *what) {
    index = lua_absindex(L, index);
    luaL_checktype(L, index, LUA_TTABLE);
    lua_Integer count = luaL_len(L, index);
    if (count > RESIN_MAX_RANK)
        luaL_error(L, "%s: expected at most %d integers, got %I", what, RESIN_MAX_RANK, count);
    for (lua_Integer i = 1; i <= count; i++) {
        int is_integer;
        lua_geti(L, index, i);
        ints[i - 1] = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer)
            luaL_error(L, "%s: expected an integer at position %I, got %s", what, i,
                       luaL_tolstring(L, -1, NULL));
        lua_pop(L, 1);
    }
    return (int)count;
}

resin_dtype binding_dtype(lua_State *L, int index, resin_dtype fallback) {
    if (lua_isnoneornil(L, index)) return fallback;
    resin_dtype dtype;
    const char *name = luaL_checkstring(L, index);
    if (!resin_dtype_from_name(name, &dtype))
        luaL_error(L, "expected a dtype (float32, float64, int32, int64 or uint8), got \"%s\"",
                   name);
    return dtype;
}

int resin_lua_abi_version(void) { return RESIN_LUA_ABI_VERSION; }

resin_context *resin_lua_context(lua_State *L) {
    context_box *box = context_box_of(L);
    return box ? box->context : NULL;
}

static void open_context(lua_State *L) {
    if (context_box_of(L)) return; /* the module is opened a second time */
    context_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    memset(box, 0, sizeof *box);
    if (luaL_newmetatable(L, CONTEXT_TYPE)) {
        lua_pushcfunction(L, context_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    box->context = resin_context_new();
    box->blocks = binding_blocks_new();
    if (!box->context || !box->blocks) luaL_error(L, "resin: out of memory");
    lua_setfield(L, LUA_REGISTRYINDEX, context_key);
}

int luaopen_resin_core(lua_State *L) {
    luaL_checkversion(L);
    open_context(L);
    lua_newtable(L);
    binding_open_tensor(L);
    binding_open_ops(L);
    binding_open_plan(L);
    binding_open_engine(L);
    binding_open_checkpoint(L);
    binding_open_measure(L);
    binding_open_data(L);
    binding_open_loader(L);
    binding_open_image(L);
    binding_open_optim(L);
    binding_open_boost(L);
    return 1;
}
