/* checkpoint_binding.c: Lua functions as blocks that backward runs again (resin_checkpoint). */
#include <pthread.h>
#include <stdlib.h>

#include "lua/binding/binding.h"
#include "lua/binding/resin_lua.h"

/* What the blocks of a Lua state share. A graph may be released by a thread or at a time that must
 * not call Lua, so references to functions are only listed then, and dropped by the next call. */
struct binding_blocks {
    pthread_mutex_t lock;
    int users;          /* the state and its blocks */
    lua_State *running; /* the one that runs blocks now: who called backward */
    struct lua_block *dead;
};

typedef struct lua_block {
    binding_blocks *blocks;
    int function; /* reference in the registry */
    bool owned;   /* the tensors that the function gets and gives are nobody else's */
    struct lua_block *next;
} lua_block;

/* Where the registry holds the error of a block until it is raised. */
static const char error_key = 0;

binding_blocks *binding_blocks_new(void) {
    binding_blocks *blocks = calloc(1, sizeof *blocks);
    if (!blocks) return NULL;
    if (pthread_mutex_init(&blocks->lock, NULL) != 0) {
        free(blocks);
        return NULL;
    }
    blocks->users = 1;
    return blocks;
}

void binding_blocks_release(binding_blocks *blocks) {
    if (!blocks) return;
    pthread_mutex_lock(&blocks->lock);
    bool last = --blocks->users == 0;
    pthread_mutex_unlock(&blocks->lock);
    if (!last) return;
    for (lua_block *block = blocks->dead, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    pthread_mutex_destroy(&blocks->lock);
    free(blocks);
}

static void release_block(void *user) {
    lua_block *block = user;
    binding_blocks *blocks = block->blocks;
    pthread_mutex_lock(&blocks->lock);
    block->next = blocks->dead;
    blocks->dead = block;
    pthread_mutex_unlock(&blocks->lock);
    binding_blocks_release(blocks);
}

/* Drops the functions of blocks that are no more. */
static void drop_dead(lua_State *L, binding_blocks *blocks) {
    pthread_mutex_lock(&blocks->lock);
    lua_block *block = blocks->dead;
    blocks->dead = NULL;
    pthread_mutex_unlock(&blocks->lock);
    while (block) {
        lua_block *next = block->next;
        luaL_unref(L, LUA_REGISTRYINDEX, block->function);
        free(block);
        block = next;
    }
}

/* ---- Running a block ------------------------------------------------------------------------- */

typedef struct block_call {
    const lua_block *block;
    resin_tensor *const *inputs;
    int input_count;
    resin_tensor **outputs;
    int *output_count;
} block_call;

static void push_inputs(lua_State *L, const block_call *call) {
    lua_createtable(L, call->input_count, 0);
    for (int i = 0; i < call->input_count; i++) {
        resin_lua_push(L, call->inputs[i]);
        lua_seti(L, -2, i + 1);
    }
}

/* Gives the tensors of the list at `index` back, but for those that the list at `except` has. */
static void release_tensors(lua_State *L, int index, int except) {
    lua_Integer count = luaL_len(L, index), others = except ? luaL_len(L, except) : 0;
    for (lua_Integer i = 1; i <= count; i++) {
        bool found = false;
        lua_geti(L, index, i);
        for (lua_Integer k = 1; k <= others && !found; k++) {
            lua_geti(L, except, k);
            found = lua_rawequal(L, -1, -2);
            lua_pop(L, 1);
        }
        if (!found) binding_release_tensor(L, lua_gettop(L));
        lua_pop(L, 1);
    }
}

/* In protected mode: function(list of inputs) -> list of outputs. */
static int call_function(lua_State *L) {
    const block_call *call = lua_touserdata(L, 1);
    enum { INPUTS = 2, OUTPUTS = 3 };
    push_inputs(L, call);
    lua_rawgeti(L, LUA_REGISTRYINDEX, call->block->function);
    lua_pushvalue(L, INPUTS);
    lua_call(L, 1, 1);
    lua_Integer count = lua_istable(L, OUTPUTS) ? luaL_len(L, OUTPUTS) : 0;
    if (count < 1 || count > RESIN_MAX_BLOCK_TENSORS)
        return luaL_error(L, "checkpoint: expected a block that returns 1 to %d tensors",
                          RESIN_MAX_BLOCK_TENSORS);
    for (int i = 0; i < count; i++) {
        lua_geti(L, OUTPUTS, i + 1);
        call->outputs[i] = binding_test_tensor(L, -1);
        if (!call->outputs[i])
            return luaL_error(L, "checkpoint: output %d of the block is no tensor but %s", i + 1,
                              luaL_tolstring(L, -1, NULL));
        lua_pop(L, 1);
    }
    for (int i = 0; i < count; i++) resin_retain(call->outputs[i]);
    *call->output_count = (int)count;
    if (call->block->owned) {
        release_tensors(L, OUTPUTS, 0);
        release_tensors(L, INPUTS, OUTPUTS);
    }
    return 0;
}

static resin_status run_block(void *user, resin_tensor *const *inputs, int input_count,
                              resin_tensor **outputs, int *output_count) {
    const lua_block *block = user;
    block_call call = {block, inputs, input_count, outputs, output_count};
    lua_State *L = block->blocks->running;
    if (!L || !lua_checkstack(L, LUA_MINSTACK)) return RESIN_ERROR_SYSTEM; /* not Lua's backward */
    lua_pushcfunction(L, call_function);
    lua_pushlightuserdata(L, &call);
    if (lua_pcall(L, 1, 0, 0) == LUA_OK) return RESIN_OK;
    for (int i = 0; i < RESIN_MAX_BLOCK_TENSORS; i++) outputs[i] = NULL; /* none was retained */
    lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
    return RESIN_ERROR_ARGUMENT;
}

/* ---- What Lua calls -------------------------------------------------------------------------- */

lua_State *binding_blocks_enter(lua_State *L) {
    binding_blocks *blocks = binding_blocks_of(L);
    lua_State *before = blocks->running;
    blocks->running = L;
    return before;
}

void binding_blocks_leave(lua_State *L, lua_State *before, resin_status status) {
    binding_blocks *blocks = binding_blocks_of(L);
    blocks->running = before;
    drop_dead(L, blocks);
    if (status == RESIN_OK) return;
    bool raised = lua_rawgetp(L, LUA_REGISTRYINDEX, &error_key) != LUA_TNIL;
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
    if (raised) lua_error(L);
    binding_check(L, status);
}

/* A block for the function at `index`. */
static lua_block *new_block(lua_State *L, int index, bool owned) {
    binding_blocks *blocks = binding_blocks_of(L);
    lua_pushvalue(L, index);
    int function = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_block *block = malloc(sizeof *block);
    if (!block) {
        luaL_unref(L, LUA_REGISTRYINDEX, function);
        luaL_error(L, "checkpoint: out of memory");
        return NULL;
    }
    *block = (lua_block){.blocks = blocks, .function = function, .owned = owned};
    pthread_mutex_lock(&blocks->lock);
    blocks->users++;
    pthread_mutex_unlock(&blocks->lock);
    return block;
}

/* checkpoint(f, inputs[, owned]) -> list of outputs: f gets a list of tensors, the inputs, and
 * returns one. owned: f keeps none of them, so they are released behind it. */
static int checkpoint(lua_State *L) {
    enum { FUNCTION = 1, INPUTS = 2, OWNED = 3, OUTPUTS = 4 };
    resin_tensor *inputs[RESIN_MAX_BLOCK_TENSORS], *outputs[RESIN_MAX_BLOCK_TENSORS];
    resin_tensor **slot[RESIN_MAX_BLOCK_TENSORS];
    luaL_checktype(L, FUNCTION, LUA_TFUNCTION);
    luaL_checktype(L, INPUTS, LUA_TTABLE);
    lua_settop(L, OWNED);
    lua_Integer count = luaL_len(L, INPUTS);
    luaL_argcheck(L, count >= 1 && count <= RESIN_MAX_BLOCK_TENSORS, INPUTS,
                  "expected a list of 1 to 32 tensors");
    for (int i = 0; i < count; i++) {
        lua_geti(L, INPUTS, i + 1);
        inputs[i] = binding_tensor(L, -1);
        lua_pop(L, 1);
    }
    /* Room for the outputs is made before there are any: nothing may raise then. */
    lua_createtable(L, RESIN_MAX_BLOCK_TENSORS, 0);
    for (int i = 0; i < RESIN_MAX_BLOCK_TENSORS; i++) {
        slot[i] = binding_new_tensor(L);
        lua_seti(L, OUTPUTS, i + 1);
    }
    lua_block *block = new_block(L, FUNCTION, lua_toboolean(L, OWNED));
    const resin_block given = {run_block, release_block, block};
    int output_count;
    lua_State *before = binding_blocks_enter(L);
    resin_status status = resin_checkpoint(binding_context(L), &given, inputs, (int)count, outputs,
                                           &output_count);
    for (int i = 0; i < output_count; i++) *slot[i] = outputs[i];
    binding_blocks_leave(L, before, status);
    for (int i = output_count; i < RESIN_MAX_BLOCK_TENSORS; i++) {
        lua_pushnil(L);
        lua_seti(L, OUTPUTS, i + 1);
    }
    lua_settop(L, OUTPUTS);
    return 1;
}

void binding_open_checkpoint(lua_State *L) {
    static const luaL_Reg functions[] = {{"checkpoint", checkpoint}, {NULL, NULL}};
    binding_register(L, functions);
}
