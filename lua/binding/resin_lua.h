/* resin_lua.h: for hosts with a Lua state of their own: the engine as a Lua 5.4 module, and tensors
 * across the border between C and Lua. */
#ifndef RESIN_LUA_H
#define RESIN_LUA_H

#include <lua.h>
#include <resin.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a function below changes its meaning. */
#define RESIN_LUA_ABI_VERSION 1

/* Opens the module: luaL_requiref(L, "resin.core", luaopen_resin_core, 0). */
RESIN_API int luaopen_resin_core(lua_State *L);

/* The RESIN_LUA_ABI_VERSION that the library was built with. */
RESIN_API int resin_lua_abi_version(void);

/* The context of this Lua state, borrowed. The module must have been opened (NULL otherwise). */
RESIN_API resin_context *resin_lua_context(lua_State *L);

/* Pushes a tensor; Lua gets a reference of its own, the caller keeps its. Raises a Lua error when
 * memory is out. */
RESIN_API void resin_lua_push(lua_State *L, resin_tensor *tensor);

/* The tensor at `index`, borrowed: valid while the Lua value is. Raises a Lua error that names the
 * argument when it is none, or when it was released. */
RESIN_API resin_tensor *resin_lua_check(lua_State *L, int index);

/* The plan at `index` (of nn.plan), borrowed, likewise. With resin_plan_retain it outlives the Lua
 * state: a script builds and loads the network, and the host goes on without Lua. */
RESIN_API resin_plan *resin_lua_check_plan(lua_State *L, int index);

#ifdef __cplusplus
}
#endif
#endif
