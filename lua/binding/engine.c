/* engine.c: the engine's settings: threads, memory, random state, recording. */
#include <sys/resource.h>
#include <time.h>

#include "lua/binding/binding.h"

static int seed(lua_State *L) {
    resin_seed(binding_context(L), (uint64_t)luaL_checkinteger(L, 1));
    return 0;
}

/* random_state() -> {seed, stream}; random_state{seed =, stream =} sets it. */
static int random_state(lua_State *L) {
    resin_context *context = binding_context(L);
    if (lua_istable(L, 1)) {
        lua_getfield(L, 1, "seed");
        lua_getfield(L, 1, "stream");
        resin_random_state given = {.seed = (uint64_t)luaL_checkinteger(L, -2),
                                    .stream = (uint64_t)luaL_checkinteger(L, -1)};
        resin_random_set(context, given);
        lua_pop(L, 2);
    }
    resin_random_state state = resin_random_get(context);
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, (lua_Integer)state.seed);
    lua_setfield(L, -2, "seed");
    lua_pushinteger(L, (lua_Integer)state.stream);
    lua_setfield(L, -2, "stream");
    return 1;
}

static int set_threads(lua_State *L) {
    lua_Integer threads = luaL_checkinteger(L, 1);
    int count = threads < 0 ? -1 : threads > 1 << 20 ? 1 << 20 : (int)threads;
    binding_check(L, resin_set_threads(binding_context(L), count));
    return 0;
}

static int threads(lua_State *L) {
    lua_pushinteger(L, resin_threads(binding_context(L)));
    return 1;
}

static int memory(lua_State *L) {
    resin_memory_info info = resin_memory(binding_context(L));
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, (lua_Integer)info.held);
    lua_setfield(L, -2, "held");
    lua_pushinteger(L, (lua_Integer)info.peak);
    lua_setfield(L, -2, "peak");
    lua_pushinteger(L, (lua_Integer)info.cached);
    lua_setfield(L, -2, "cached");
    lua_pushinteger(L, (lua_Integer)info.system_allocations);
    lua_setfield(L, -2, "system_allocations");
    return 1;
}

static int trim_memory(lua_State *L) {
    resin_memory_trim(binding_context(L));
    return 0;
}

static int reset_peak(lua_State *L) {
    resin_memory_reset_peak(binding_context(L));
    return 0;
}

/* recording([bool]) -> what it was */
static int recording(lua_State *L) {
    resin_context *context = binding_context(L);
    bool before = resin_recording(context);
    if (!lua_isnoneornil(L, 1)) resin_set_recording(context, lua_toboolean(L, 1));
    lua_pushboolean(L, before);
    return 1;
}

/* no_grad(f, ...) -> f(...), nothing recorded; errors pass through. */
static int no_grad(lua_State *L) {
    resin_context *context = binding_context(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    bool before = resin_set_recording(context, false);
    int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    resin_set_recording(context, before);
    if (status != LUA_OK) return lua_error(L);
    return lua_gettop(L);
}

static int conv_method(lua_State *L) {
    resin_context *context = binding_context(L);
    lua_pushstring(L, resin_conv_method(context));
    if (!lua_isnoneornil(L, 1))
        binding_check(L, resin_set_conv_method(context, luaL_checkstring(L, 1)));
    return 1;
}

static int instruction_set(lua_State *L) {
    lua_pushstring(L, resin_instruction_set());
    return 1;
}

static int cancel(lua_State *L) {
    resin_cancel(binding_context(L));
    return 0;
}

static int cancelled(lua_State *L) {
    lua_pushboolean(L, resin_cancelled(binding_context(L), lua_toboolean(L, 1)));
    return 1;
}

/* Seconds of a clock that only goes forward. */
static int clock_seconds(lua_State *L) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    return 1;
}

/* The most memory that the process has had resident, in bytes. */
static int peak_rss(lua_State *L) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    lua_pushinteger(L, usage.ru_maxrss);
#else
    lua_pushinteger(L, (lua_Integer)usage.ru_maxrss * 1024);
#endif
    return 1;
}

/* fma_peak() -> GFLOP/s of multiply-adds on the context's threads. */
static int fma_peak(lua_State *L) {
    lua_pushnumber(L, resin_measure_peak(binding_context(L)));
    return 1;
}

void binding_open_engine(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"seed", seed},
        {"random_state", random_state},
        {"set_threads", set_threads},
        {"threads", threads},
        {"memory", memory},
        {"trim_memory", trim_memory},
        {"reset_peak_memory", reset_peak},
        {"recording", recording},
        {"no_grad", no_grad},
        {"conv_method", conv_method},
        {"instruction_set", instruction_set},
        {"cancel", cancel},
        {"cancelled", cancelled},
        {"clock", clock_seconds},
        {"peak_rss", peak_rss},
        {"fma_peak", fma_peak},
        {NULL, NULL},
    };
    binding_register(L, functions);
    lua_pushliteral(L, RESIN_VERSION);
    lua_setfield(L, -2, "version");
}
