/* measure_binding.c: what the machine can do at most, and profiles of what the ops do. */
#include "lua/binding/binding.h"

/* fma_peak() -> GFLOP/s of multiply-adds on the context's threads. */
static int fma_peak(lua_State *L) {
    lua_pushnumber(L, resin_measure_peak(binding_context(L)));
    return 1;
}

/* handover() -> seconds that a line of the cache takes between two threads and back; 0 with one. */
static int handover(lua_State *L) {
    lua_pushnumber(L, resin_measure_handover(binding_context(L)));
    return 1;
}

/* memory_bandwidth() -> GB/s of reading, GB/s of copying on the context's threads. */
static int memory_bandwidth(lua_State *L) {
    resin_bandwidth bandwidth;
    binding_check(L, resin_measure_bandwidth(binding_context(L), &bandwidth));
    lua_pushnumber(L, bandwidth.read);
    lua_pushnumber(L, bandwidth.copy);
    return 2;
}

/* ---- Profiles -------------------------------------------------------------------------------- */

enum { CAPACITY = 1 << 16 };

static void set_string(lua_State *L, const char *name, const char *value) {
    if (!value) return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static void set_number(lua_State *L, const char *name, double value) {
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

static void push_event(lua_State *L, const resin_profile_event *event) {
    lua_createtable(L, 0, 8);
    set_string(L, "name", event->name);
    set_string(L, "pass", event->pass);
    set_string(L, "method", event->method);
    lua_pushinteger(L, (lua_Integer)event->mark);
    lua_setfield(L, -2, "mark");
    set_number(L, "seconds", event->seconds);
    set_number(L, "multiply_adds", event->multiply_adds);
    set_number(L, "bytes_read", event->bytes_read);
    set_number(L, "bytes_written", event->bytes_written);
}

/* profile(f, ...) -> the events of f(...) as a list of tables with the fields of
 * resin_profile_event; errors of f pass through. */
static int profile(lua_State *L) {
    resin_context *context = binding_context(L);
    const resin_profile_event *events;
    int64_t lost;
    luaL_checktype(L, 1, LUA_TFUNCTION);
    binding_check(L, resin_profile_start(context, CAPACITY));
    int status = lua_pcall(L, lua_gettop(L) - 1, 0, 0);
    resin_profile_stop(context);
    if (status != LUA_OK) return lua_error(L);
    int64_t count = resin_profile_events(context, &events, &lost);
    if (lost > 0)
        return luaL_error(L, "profile: %d events are too many: %d are kept", (int)(count + lost),
                          (int)count);
    lua_createtable(L, (int)count, 0);
    for (int64_t i = 0; i < count; i++) {
        push_event(L, &events[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* profile_mark(number) -> the mark before; that of the events to come. */
static int profile_mark(lua_State *L) {
    lua_Integer mark = luaL_checkinteger(L, 1);
    lua_pushinteger(L, (lua_Integer)resin_profile_mark(binding_context(L), mark));
    return 1;
}

void binding_open_measure(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"fma_peak", fma_peak},
        {"handover", handover},
        {"memory_bandwidth", memory_bandwidth},
        {"profile", profile},
        {"profile_mark", profile_mark},
        {NULL, NULL},
    };
    binding_register(L, functions);
}
