/* optim_binding.c: parameters in one flat buffer, and the optimizers that go over them. */
#include <string.h>

#include "lua/binding/binding.h"
#include "lua/binding/resin_lua.h"

#define PARAMETERS_TYPE "resin.parameters"
#define OPTIMIZER_TYPE "resin.optimizer"

/* ---- Parameters ----------------------------------------------------------------------------- */

typedef struct parameters_box {
    resin_parameters *parameters; /* NULL only while it is being made */
} parameters_box;

static resin_parameters *check_parameters(lua_State *L, int index) {
    parameters_box *box = luaL_checkudata(L, index, PARAMETERS_TYPE);
    luaL_argcheck(L, box->parameters, index, "the parameters are gone");
    return box->parameters;
}

static int parameters_gc(lua_State *L) {
    parameters_box *box = luaL_checkudata(L, 1, PARAMETERS_TYPE);
    resin_parameters_release(box->parameters);
    box->parameters = NULL;
    return 0;
}

static parameters_box *new_parameters_box(lua_State *L) {
    parameters_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->parameters = NULL;
    luaL_setmetatable(L, PARAMETERS_TYPE);
    return box;
}

/* parameters{tensor, ...} */
static int new_parameters(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_Integer count = luaL_len(L, 1);
    luaL_argcheck(L, count >= 1 && count < 1 << 24, 1, "expected a list of tensors");
    parameters_box *box = new_parameters_box(L);
    resin_tensor **tensors = lua_newuserdatauv(L, (size_t)count * sizeof *tensors, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_geti(L, 1, i);
        tensors[i - 1] = binding_test_tensor(L, -1);
        if (!tensors[i - 1])
            luaL_error(L, "parameters: expected a tensor at position %I, got %s", i,
                       luaL_typename(L, -1));
        lua_pop(L, 1); /* the list holds it */
    }
    binding_check(L, resin_parameters_new(binding_context(L), tensors, (int)count,
                                          &box->parameters));
    lua_pop(L, 1);
    return 1;
}

static int parameters_count(lua_State *L) {
    lua_pushinteger(L, resin_parameters_count(check_parameters(L, 1)));
    return 1;
}

/* A segment by number from 1, or by its tensor; from 0. */
static int check_segment(lua_State *L, resin_parameters *parameters, int index) {
    resin_tensor *tensor = binding_test_tensor(L, index);
    if (tensor) {
        int found = resin_parameters_find(parameters, tensor);
        luaL_argcheck(L, found >= 0, index, "the tensor is not among the parameters");
        return found;
    }
    lua_Integer number = luaL_checkinteger(L, index), count = resin_parameters_count(parameters);
    if (number < 1 || number > count)
        luaL_error(L, "expected a parameter from 1 to %I, got %I", count, number);
    return (int)number - 1;
}

/* p:find(tensor) -> number or nil */
static int parameters_find(lua_State *L) {
    int found = resin_parameters_find(check_parameters(L, 1), binding_tensor(L, 2));
    if (found < 0) return 0;
    lua_pushinteger(L, found + 1);
    return 1;
}

/* p:tensor(which) */
static int parameters_tensor(lua_State *L) {
    resin_parameters *parameters = check_parameters(L, 1);
    resin_lua_push(L, resin_parameters_tensor(parameters, check_segment(L, parameters, 2)));
    return 1;
}

static int parameters_flat(lua_State *L) {
    resin_lua_push(L, resin_parameters_flat(check_parameters(L, 1)));
    return 1;
}

static int parameters_flat_grad(lua_State *L) {
    resin_lua_push(L, resin_parameters_flat_grad(check_parameters(L, 1)));
    return 1;
}

/* p:get(which) -> {offset, length, rate_scale, decay, l1, l2, frozen}; offset counts from 1. */
static int parameters_get(lua_State *L) {
    resin_parameters *parameters = check_parameters(L, 1);
    resin_segment segment;
    binding_check(L, resin_parameters_segment(parameters, check_segment(L, parameters, 2),
                                              &segment));
    lua_createtable(L, 0, 7);
    lua_pushinteger(L, segment.offset + 1);
    lua_setfield(L, -2, "offset");
    lua_pushinteger(L, segment.length);
    lua_setfield(L, -2, "length");
    lua_pushnumber(L, segment.rate_scale);
    lua_setfield(L, -2, "rate_scale");
    lua_pushnumber(L, segment.decay);
    lua_setfield(L, -2, "decay");
    lua_pushnumber(L, segment.l1);
    lua_setfield(L, -2, "l1");
    lua_pushnumber(L, segment.l2);
    lua_setfield(L, -2, "l2");
    lua_pushboolean(L, segment.frozen);
    lua_setfield(L, -2, "frozen");
    return 1;
}

/* The setting whose name is at -2 and whose value is at -1. */
static void apply_setting(lua_State *L, resin_segment *segment) {
    const struct { const char *name; double *number; } numbers[] = {
        {"rate_scale", &segment->rate_scale},
        {"decay", &segment->decay},
        {"l1", &segment->l1},
        {"l2", &segment->l2},
    };
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
    if (strcmp(name, "frozen") == 0) {
        segment->frozen = lua_toboolean(L, -1);
        return;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(name, numbers[i].name) != 0) continue;
        if (lua_type(L, -1) != LUA_TNUMBER)
            luaL_error(L, "parameters: expected a number for %s, got %s", name,
                       luaL_typename(L, -1));
        *numbers[i].number = lua_tonumber(L, -1);
        return;
    }
    luaL_error(L, "parameters: unknown setting '%s'; known: rate_scale, decay, l1, l2, frozen",
               name);
}

/* p:set(which, {rate_scale =, decay =, l1 =, l2 =, frozen =}); what is left out stays. */
static int parameters_set(lua_State *L) {
    resin_parameters *parameters = check_parameters(L, 1);
    int index = check_segment(L, parameters, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    resin_segment segment;
    binding_check(L, resin_parameters_segment(parameters, index, &segment));
    lua_pushnil(L);
    while (lua_next(L, 3)) {
        apply_setting(L, &segment);
        lua_pop(L, 1);
    }
    binding_check(L, resin_parameters_set_segment(parameters, index, &segment));
    return 0;
}

static int parameters_clear_grads(lua_State *L) {
    resin_parameters_clear_grads(check_parameters(L, 1));
    return 0;
}

/* p:clip_norm(max) -> the norm before */
static int parameters_clip_norm(lua_State *L) {
    double norm = 0;
    resin_parameters *parameters = check_parameters(L, 1);
    binding_check(L, resin_parameters_clip_norm(parameters, luaL_checknumber(L, 2), &norm));
    lua_pushnumber(L, norm);
    return 1;
}

/* p:check_finite() -> number of the first parameter whose gradient is not finite, or nil */
static int parameters_check_finite(lua_State *L) {
    int index = -1;
    binding_check(L, resin_parameters_check_finite(check_parameters(L, 1), &index));
    if (index < 0) return 0;
    lua_pushinteger(L, index + 1);
    return 1;
}

static int parameters_penalty(lua_State *L) {
    double penalty = 0;
    binding_check(L, resin_parameters_penalty(check_parameters(L, 1), &penalty));
    lua_pushnumber(L, penalty);
    return 1;
}

/* ---- Optimizers ----------------------------------------------------------------------------- */

typedef struct optimizer_box {
    resin_optimizer *optimizer;
} optimizer_box;

static resin_optimizer *check_optimizer(lua_State *L, int index) {
    optimizer_box *box = luaL_checkudata(L, index, OPTIMIZER_TYPE);
    luaL_argcheck(L, box->optimizer, index, "the optimizer is gone");
    return box->optimizer;
}

static int optimizer_gc(lua_State *L) {
    optimizer_box *box = luaL_checkudata(L, 1, OPTIMIZER_TYPE);
    resin_optimizer_release(box->optimizer);
    box->optimizer = NULL;
    return 0;
}

/* The option whose name is at -2 and whose value is at -1; strings stay those of Lua's table. */
static resin_attribute option_of(lua_State *L) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "optimizer: options have names");
    resin_attribute option = {.name = lua_tostring(L, -2)};
    switch (lua_type(L, -1)) {
    case LUA_TNUMBER:
        option.kind = RESIN_VALUE_NUMBER;
        option.number = lua_tonumber(L, -1);
        break;
    case LUA_TBOOLEAN:
        option.kind = RESIN_VALUE_BOOL;
        option.integer = lua_toboolean(L, -1);
        break;
    case LUA_TSTRING:
        option.kind = RESIN_VALUE_STRING;
        option.string = lua_tostring(L, -1);
        break;
    default:
        luaL_error(L, "optimizer: expected a number, a boolean or a string for '%s', got %s",
                   option.name, luaL_typename(L, -1));
    }
    return option;
}

/* optimizer(name, parameters, {learning_rate = ...}) */
static int new_optimizer(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    resin_parameters *parameters = check_parameters(L, 2);
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    resin_attribute options[RESIN_MAX_ATTRIBUTES];
    int count = 0;
    lua_pushnil(L);
    while (lua_next(L, 3)) {
        if (count == RESIN_MAX_ATTRIBUTES)
            luaL_error(L, "%s: expected at most %d options", name, RESIN_MAX_ATTRIBUTES);
        options[count++] = option_of(L);
        lua_pop(L, 1);
    }
    optimizer_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->optimizer = NULL;
    luaL_setmetatable(L, OPTIMIZER_TYPE);
    binding_check(L, resin_optimizer_new(parameters, name, options, count, &box->optimizer));
    return 1;
}

static int optimizer_step(lua_State *L) {
    binding_check(L, resin_optimizer_step(check_optimizer(L, 1)));
    return 0;
}

static int optimizer_rate(lua_State *L) {
    lua_pushnumber(L, resin_optimizer_rate(check_optimizer(L, 1)));
    return 1;
}

static int optimizer_set_rate(lua_State *L) {
    resin_optimizer *optimizer = check_optimizer(L, 1);
    binding_check(L, resin_optimizer_set_rate(optimizer, luaL_checknumber(L, 2)));
    return 0;
}

/* The number of a segment at `index`, from 0, or -1 for none: C checks it. */
static int segment_or_all(lua_State *L, int index) {
    lua_Integer number = luaL_optinteger(L, index, 0);
    luaL_argcheck(L, number >= 0 && number < 1 << 24, index, "there is no such parameter");
    return (int)number - 1;
}

/* o:steps([parameter]) */
static int optimizer_steps(lua_State *L) {
    lua_pushinteger(L, resin_optimizer_steps(check_optimizer(L, 1), segment_or_all(L, 2)));
    return 1;
}

/* o:set_steps(steps[, parameter]) */
static int optimizer_set_steps(lua_State *L) {
    resin_optimizer *optimizer = check_optimizer(L, 1);
    lua_Integer steps = luaL_checkinteger(L, 2);
    binding_check(L, resin_optimizer_set_steps(optimizer, segment_or_all(L, 3), steps));
    return 0;
}

/* o:state_names() -> {"m", "v"} */
static int optimizer_state_names(lua_State *L) {
    resin_optimizer *optimizer = check_optimizer(L, 1);
    const char *name;
    lua_newtable(L);
    for (int i = 0; (name = resin_optimizer_state_name(optimizer, i)); i++) {
        lua_pushstring(L, name);
        lua_seti(L, -2, i + 1);
    }
    return 1;
}

/* o:state(name, parameter) -> a tensor to read or write, or nil */
static int optimizer_state(lua_State *L) {
    resin_optimizer *optimizer = check_optimizer(L, 1);
    const char *name = luaL_checkstring(L, 2);
    lua_Integer number = luaL_checkinteger(L, 3);
    luaL_argcheck(L, number >= 1 && number < 1 << 24, 3, "there is no such parameter");
    resin_tensor **slot = binding_new_tensor(L);
    binding_check(L, resin_optimizer_state(optimizer, name, (int)number - 1, slot));
    if (!*slot) lua_pushnil(L);
    return 1;
}

/* ---- Registration --------------------------------------------------------------------------- */

static void new_type(lua_State *L, const char *name, const luaL_Reg *metamethods,
                     const luaL_Reg *methods) {
    luaL_newmetatable(L, name);
    binding_register(L, metamethods);
    lua_newtable(L);
    binding_register(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

void binding_open_optim(lua_State *L) {
    static const luaL_Reg parameters_meta[] = {
        {"__gc", parameters_gc},
        {"__len", parameters_count},
        {NULL, NULL},
    };
    static const luaL_Reg parameters_methods[] = {
        {"count", parameters_count},
        {"find", parameters_find},
        {"tensor", parameters_tensor},
        {"flat", parameters_flat},
        {"flat_grad", parameters_flat_grad},
        {"get", parameters_get},
        {"set", parameters_set},
        {"clear_grads", parameters_clear_grads},
        {"clip_norm", parameters_clip_norm},
        {"check_finite", parameters_check_finite},
        {"penalty", parameters_penalty},
        {NULL, NULL},
    };
    static const luaL_Reg optimizer_meta[] = {
        {"__gc", optimizer_gc},
        {NULL, NULL},
    };
    static const luaL_Reg optimizer_methods[] = {
        {"step", optimizer_step},
        {"rate", optimizer_rate},
        {"set_rate", optimizer_set_rate},
        {"steps", optimizer_steps},
        {"set_steps", optimizer_set_steps},
        {"state_names", optimizer_state_names},
        {"state", optimizer_state},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {
        {"parameters", new_parameters},
        {"optimizer", new_optimizer},
        {NULL, NULL},
    };
    new_type(L, PARAMETERS_TYPE, parameters_meta, parameters_methods);
    new_type(L, OPTIMIZER_TYPE, optimizer_meta, optimizer_methods);
    binding_register(L, functions);
}
