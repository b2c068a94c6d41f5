/* plan_binding.c: the type of a plan, a recorded computation. How one is recorded stands in
 * lua/resin/nn/plan.lua. */
#include <stdio.h>
#include <string.h>

#include "lua/binding/binding.h"
#include "lua/binding/resin_lua.h"

#define PLAN_TYPE "resin.plan"

typedef struct plan_box {
    resin_plan *plan; /* NULL once released */
    bool as_list;     /* the outputs come in a table */
} plan_box;

static plan_box *check_box(lua_State *L, int index) {
    plan_box *box = luaL_checkudata(L, index, PLAN_TYPE);
    if (!box->plan) luaL_argerror(L, index, "the plan was released");
    return box;
}

resin_plan *resin_lua_check_plan(lua_State *L, int index) { return check_box(L, index)->plan; }

/* ---- Recording ------------------------------------------------------------------------------- */

/* The tensors of the list at `index` as an array, which is left on the stack; the list keeps them
 * alive. */
static resin_tensor **tensor_list(lua_State *L, int index, const char *what, int *count) {
    luaL_checktype(L, index, LUA_TTABLE);
    const lua_Integer length = luaL_len(L, index);
    if (length < 0 || length > 1 << 20) luaL_error(L, "plan: too many %ss", what);
    *count = (int)length;
    resin_tensor **tensors = lua_newuserdatauv(L, ((size_t)length + 1) * sizeof *tensors, 0);
    for (int i = 0; i < *count; i++) {
        lua_geti(L, index, i + 1);
        tensors[i] = binding_test_tensor(L, -1);
        if (!tensors[i])
            luaL_error(L, "plan: %s %d must be a tensor, got %s", what, i + 1,
                       luaL_tolstring(L, -1, NULL));
        lua_pop(L, 1);
    }
    return tensors;
}

/* plan_begin(list of tensors) */
static int plan_begin(lua_State *L) {
    int count;
    resin_tensor **inputs = tensor_list(L, 1, "input", &count);
    binding_check(L, resin_plan_begin(binding_context(L), inputs, count));
    return 0;
}

/* plan_end(list of tensors, as_list) -> plan */
static int plan_end(lua_State *L) {
    int count;
    const bool as_list = lua_toboolean(L, 2);
    resin_tensor **outputs = tensor_list(L, 1, "output", &count);
    plan_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (plan_box){.as_list = as_list};
    luaL_setmetatable(L, PLAN_TYPE);
    binding_check(L, resin_plan_end(binding_context(L), outputs, count, &box->plan));
    return 1;
}

static int plan_cancel(lua_State *L) {
    resin_plan_cancel(binding_context(L));
    return 0;
}

/* ---- Running --------------------------------------------------------------------------------- */

enum { TYPE_TEXT = 224 };

static const char *type_text(resin_dtype dtype, int rank, const int64_t *shape,
                             char text[TYPE_TEXT]) {
    int length = snprintf(text, TYPE_TEXT, "%s (", resin_dtype_name(dtype));
    for (int i = 0; i < rank; i++)
        length += snprintf(text + length, (size_t)(TYPE_TEXT - length), "%s%lld", i ? ", " : "",
                           (long long)shape[i]);
    snprintf(text + length, (size_t)(TYPE_TEXT - length), ")");
    return text;
}

/* The elements of the tensor at `index`, row-major: of a copy that takes its place, if need be. */
static const void *input_data(lua_State *L, const resin_plan *plan, int number, int index) {
    const resin_plan_value wanted = resin_plan_input(plan, number);
    resin_tensor *t = binding_test_tensor(L, index);
    if (!t)
        luaL_error(L, "plan: input %d must be a tensor, got %s", number + 1,
                   luaL_tolstring(L, index, NULL));
    const int rank = resin_tensor_rank(t);
    char expected[TYPE_TEXT], found[TYPE_TEXT];
    if (resin_tensor_dtype(t) != wanted.dtype || rank != wanted.rank ||
        memcmp(resin_tensor_shape(t), wanted.shape, (size_t)rank * sizeof *wanted.shape) != 0)
        luaL_error(L, "plan: input %d must be %s, as it was recorded, got %s", number + 1,
                   type_text(wanted.dtype, wanted.rank, wanted.shape, expected),
                   type_text(resin_tensor_dtype(t), rank, resin_tensor_shape(t), found));
    if (!resin_tensor_contiguous(t)) {
        resin_tensor **dense = binding_new_tensor(L);
        binding_check(L, resin_apply(binding_context(L), "contiguous", &t, 1, NULL, 0, dense));
        t = *dense;
        lua_replace(L, index);
    }
    const void *data = resin_tensor_data(t);
    if (!data && resin_tensor_count(t) > 0) binding_check(L, RESIN_ERROR_MEMORY);
    return data;
}

/* Pushes a new tensor with the elements of an output. */
static void push_output(lua_State *L, const resin_plan *plan, int number) {
    const resin_plan_value value = resin_plan_output(plan, number);
    resin_tensor **slot = binding_new_tensor(L);
    binding_check(L, resin_empty(binding_context(L), value.dtype, value.rank, value.shape, slot));
    const size_t bytes = (size_t)resin_tensor_count(*slot) * resin_dtype_size(value.dtype);
    if (bytes > 0) memcpy(resin_tensor_data(*slot), value.data, bytes);
}

/* plan(x, ...) or plan{x, ...} -> the outputs */
static int plan_call(lua_State *L) {
    plan_box *box = check_box(L, 1);
    resin_plan *plan = box->plan;
    const int inputs = resin_plan_inputs(plan), outputs = resin_plan_outputs(plan);
    if (lua_gettop(L) == 2 && lua_istable(L, 2)) {
        const int given = (int)luaL_len(L, 2);
        luaL_checkstack(L, inputs + 8, "too many inputs");
        for (int i = 0; i < given && i <= inputs; i++) lua_geti(L, 2, i + 1);
        lua_remove(L, 2);
    }
    if (lua_gettop(L) != 1 + inputs)
        return luaL_error(L, "plan: expected %d input%s, got %d", inputs, inputs == 1 ? "" : "s",
                          lua_gettop(L) - 1);
    luaL_checkstack(L, outputs + 8, "too many outputs");
    const void **data = lua_newuserdatauv(L, ((size_t)inputs + 1) * sizeof *data, 0);
    for (int i = 0; i < inputs; i++) data[i] = input_data(L, plan, i, i + 2);

    resin_status status = resin_plan_run(plan, data);
    if (status == RESIN_ERROR_MEMORY) {
        binding_collect(L, true);
        status = resin_plan_run(plan, data);
    }
    binding_check(L, status);
    if (box->as_list) lua_createtable(L, outputs, 0);
    for (int i = 0; i < outputs; i++) {
        push_output(L, plan, i);
        if (box->as_list) lua_seti(L, -2, i + 1);
    }
    return box->as_list ? 1 : outputs;
}

/* ---- The type -------------------------------------------------------------------------------- */

/* plan:memory() -> bytes of its block */
static int plan_memory(lua_State *L) {
    const resin_plan *plan = check_box(L, 1)->plan;
    lua_pushinteger(L, (lua_Integer)resin_plan_memory(plan));
    lua_pushinteger(L, (lua_Integer)resin_plan_kept_memory(plan));
    return 2;
}

/* Also __gc and __close. */
static int plan_release(lua_State *L) {
    plan_box *box = luaL_checkudata(L, 1, PLAN_TYPE);
    resin_plan *plan = box->plan;
    box->plan = NULL;
    resin_plan_release(plan);
    return 0;
}

void binding_open_plan(lua_State *L) {
    static const luaL_Reg functions[] = {{"plan_begin", plan_begin},
                                         {"plan_end", plan_end},
                                         {"plan_cancel", plan_cancel},
                                         {NULL, NULL}};
    static const luaL_Reg methods[] = {
        {"memory", plan_memory}, {"release", plan_release}, {"__call", plan_call},
        {"__gc", plan_release},  {"__close", plan_release}, {NULL, NULL},
    };
    binding_register(L, functions);
    luaL_newmetatable(L, PLAN_TYPE);
    binding_register(L, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
