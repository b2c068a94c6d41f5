/* engine.c: the engine's settings: threads, memory, random state, recording; interrupts. */
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

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

/* ---- Interrupts (Ctrl-C) --------------------------------------------------------------------- */

#define INTERRUPT_TYPE "resin.interrupt"

/* One call of on_interrupt. Signals belong to the process, so these stand in one list for all Lua
 * states, the newest first. */
typedef struct interrupt_box {
    bool active;
    resin_context *context;
    struct sigaction before; /* what was there when it came */
    struct interrupt_box *older;
} interrupt_box;

static interrupt_box *newest_box;

/* What the signal handler reads: the context of the newest box. */
static resin_context *volatile interrupted_context;

static void interrupt_handler(int number) {
    (void)number;
    resin_context *context = interrupted_context;
    if (context) resin_cancel(context);
}

/* handle:close(), also __gc and __close: what was there before is there again. */
static int interrupt_close(lua_State *L) {
    interrupt_box *box = luaL_checkudata(L, 1, INTERRUPT_TYPE);
    if (!box->active) return 0;
    box->active = false;
    if (newest_box == box) {
        newest_box = box->older;
        interrupted_context = newest_box ? newest_box->context : NULL;
        sigaction(SIGINT, &box->before, NULL);
    } else { /* closed out of order: the next newer one restores in its place */
        interrupt_box *newer = newest_box;
        while (newer->older != box) newer = newer->older;
        newer->older = box->older;
        newer->before = box->before;
    }
    lua_pushnil(L); /* the registry held it */
    lua_rawsetp(L, LUA_REGISTRYINDEX, box);
    return 0;
}

/* on_interrupt() -> handle; SA_RESETHAND lets the second Ctrl-C end the program. The registry holds
 * the handle, so that it stays in force when the caller drops it. */
static int on_interrupt(lua_State *L) {
    struct sigaction action = {.sa_handler = interrupt_handler};
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    sigemptyset(&action.sa_mask);
    interrupt_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->active = false;
    luaL_setmetatable(L, INTERRUPT_TYPE);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, box);
    box->context = binding_context(L);
    box->older = newest_box;
    interrupted_context = box->context;
    if (sigaction(SIGINT, &action, &box->before) != 0) {
        interrupted_context = newest_box ? newest_box->context : NULL;
        luaL_error(L, "on_interrupt: the system refused the signal handler");
    }
    box->active = true;
    newest_box = box;
    return 1;
}

static void open_interrupts(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"close", interrupt_close},
        {"__gc", interrupt_close},
        {"__close", interrupt_close},
        {NULL, NULL},
    };
    luaL_newmetatable(L, INTERRUPT_TYPE);
    binding_register(L, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

/* ---- The process and the terminal ------------------------------------------------------------- */

/* terminal_width() -> the columns of the terminal that standard output is, or nil if it is none. */
static int terminal_width(lua_State *L) {
    struct winsize size;
    if (!isatty(STDOUT_FILENO)) {
        lua_pushnil(L);
        return 1;
    }
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    lua_pushinteger(L, known ? size.ws_col : 80);
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
        {"on_interrupt", on_interrupt},
        {"terminal_width", terminal_width},
        {"clock", clock_seconds},
        {"peak_rss", peak_rss},
        {NULL, NULL},
    };
    open_interrupts(L);
    binding_register(L, functions);
    lua_pushliteral(L, RESIN_VERSION);
    lua_setfield(L, -2, "version");
}
