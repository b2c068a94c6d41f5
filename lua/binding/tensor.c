/* tensor.c: the tensor type: making, looking at and changing tensors, and gradients. */
#include <string.h>

#include "lua/binding/binding.h"
#include "lua/binding/indexing.h"
#include "lua/binding/resin_lua.h"

typedef struct tensor_box {
    resin_tensor *tensor; /* NULL once released */
} tensor_box;

/* ---- Across the border ---------------------------------------------------------------------- */

resin_tensor **binding_new_tensor(lua_State *L) {
    binding_collect(L, false);
    tensor_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->tensor = NULL;
    luaL_setmetatable(L, TENSOR_TYPE);
    return &box->tensor;
}

resin_tensor *binding_test_tensor(lua_State *L, int index) {
    tensor_box *box = luaL_testudata(L, index, TENSOR_TYPE);
    return box ? box->tensor : NULL;
}

resin_tensor *binding_tensor(lua_State *L, int index) {
    tensor_box *box = luaL_testudata(L, index, TENSOR_TYPE);
    if (!box) luaL_typeerror(L, index, "tensor");
    if (!box->tensor) luaL_argerror(L, index, "the tensor was released");
    return box->tensor;
}

resin_tensor *resin_lua_check(lua_State *L, int index) { return binding_tensor(L, index); }

void resin_lua_push(lua_State *L, resin_tensor *tensor) {
    tensor_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->tensor = NULL;
    luaL_setmetatable(L, TENSOR_TYPE);
    box->tensor = resin_retain(tensor);
}

/* ---- Making tensors ------------------------------------------------------------------------- */

typedef struct creation {
    resin_dtype dtype;
    int rank;
    int64_t shape[RESIN_MAX_RANK];
    int next; /* the argument after shape and dtype */
} creation;

/* (2, 3[, dtype]) or ({2, 3}[, dtype]) from argument `first`. */
static creation creation_arguments(lua_State *L, int first) {
    creation c = {.rank = 0};
    int index = first;
    if (lua_istable(L, index)) {
        c.rank = binding_ints(L, index, c.shape, "shape");
        index++;
    } else {
        while (lua_type(L, index) == LUA_TNUMBER) {
            if (c.rank == RESIN_MAX_RANK)
                luaL_error(L, "shape: expected at most %d axes", RESIN_MAX_RANK);
            c.shape[c.rank++] = luaL_checkinteger(L, index++);
        }
    }
    c.dtype = binding_dtype(L, index, RESIN_FLOAT32);
    c.next = index + 1;
    return c;
}

/* Runs `make` and once more, after a collection, when memory is out. */
typedef resin_status (*make_function)(resin_context *context, const creation *c, double a, double b,
                                      resin_tensor **out);
static int create(lua_State *L, make_function make, const creation *c, double a, double b) {
    resin_context *context = binding_context(L);
    resin_tensor **slot = binding_new_tensor(L);
    resin_status status = make(context, c, a, b, slot);
    if (status == RESIN_ERROR_MEMORY) {
        binding_collect(L, true);
        status = make(context, c, a, b, slot);
    }
    binding_check(L, status);
    return 1;
}

static resin_status make_full(resin_context *context, const creation *c, double a, double b,
                              resin_tensor **out) {
    (void)b;
    return resin_full(context, c->dtype, c->rank, c->shape, a, out);
}
static resin_status make_empty(resin_context *context, const creation *c, double a, double b,
                               resin_tensor **out) {
    (void)a;
    (void)b;
    return resin_empty(context, c->dtype, c->rank, c->shape, out);
}
static resin_status make_uniform(resin_context *context, const creation *c, double a, double b,
                                 resin_tensor **out) {
    return resin_uniform(context, c->dtype, c->rank, c->shape, a, b, out);
}
static resin_status make_normal(resin_context *context, const creation *c, double a, double b,
                                resin_tensor **out) {
    return resin_normal(context, c->dtype, c->rank, c->shape, a, b, out);
}
static resin_status make_arange(resin_context *context, const creation *c, double a, double b,
                                resin_tensor **out) {
    return resin_arange(context, c->dtype, a, b, c->shape[0], out);
}

static int new_zeros(lua_State *L) {
    creation c = creation_arguments(L, 1);
    return create(L, make_full, &c, 0, 0);
}

static int new_ones(lua_State *L) {
    creation c = creation_arguments(L, 1);
    return create(L, make_full, &c, 1, 0);
}

static int new_empty(lua_State *L) {
    creation c = creation_arguments(L, 1);
    return create(L, make_empty, &c, 0, 0);
}

/* full(shape, value[, dtype]) */
static int new_full(lua_State *L) {
    creation c = {.dtype = binding_dtype(L, 3, RESIN_FLOAT32)};
    c.rank = binding_ints(L, 1, c.shape, "shape");
    return create(L, make_full, &c, luaL_checknumber(L, 2), 0);
}

static int new_rand(lua_State *L) {
    creation c = creation_arguments(L, 1);
    return create(L, make_uniform, &c, 0, 1);
}

static int new_randn(lua_State *L) {
    creation c = creation_arguments(L, 1);
    return create(L, make_normal, &c, 0, 1);
}

/* uniform(shape[, low[, high[, dtype]]]) */
static int new_uniform(lua_State *L) {
    creation c = {.dtype = binding_dtype(L, 4, RESIN_FLOAT32)};
    c.rank = binding_ints(L, 1, c.shape, "shape");
    return create(L, make_uniform, &c, luaL_optnumber(L, 2, 0), luaL_optnumber(L, 3, 1));
}

/* normal(shape[, mean[, deviation[, dtype]]]) */
static int new_normal(lua_State *L) {
    creation c = {.dtype = binding_dtype(L, 4, RESIN_FLOAT32)};
    c.rank = binding_ints(L, 1, c.shape, "shape");
    return create(L, make_normal, &c, luaL_optnumber(L, 2, 0), luaL_optnumber(L, 3, 1));
}

/* arange(first, last[, step][, dtype]): last is included. */
static int new_arange(lua_State *L) {
    double first = luaL_checknumber(L, 1), last = luaL_checknumber(L, 2), step = 1;
    int index = 3;
    if (lua_type(L, index) == LUA_TNUMBER) step = lua_tonumber(L, index++);
    luaL_argcheck(L, step != 0, 3, "the step must not be 0");
    bool integers = lua_isinteger(L, 1) && (index == 3 || lua_isinteger(L, 3));
    creation c = {.dtype = binding_dtype(L, index, integers ? RESIN_INT64 : RESIN_FLOAT32),
                  .rank = 1};
    double count = (last - first) / step + 1 + 1e-9; /* so that 0, 1, 0.1 has its last value */
    if (!(count < 0x1p53)) luaL_error(L, "arange: too many values");
    c.shape[0] = count > 0 ? (int64_t)count : 0;
    return create(L, make_arange, &c, first, step);
}

/* permutation(n): 1 .. n in a random order, int64. */
static int new_permutation(lua_State *L) {
    lua_Integer count = luaL_checkinteger(L, 1);
    luaL_argcheck(L, count >= 0, 1, "expected a count");
    resin_tensor **slot = binding_new_tensor(L);
    binding_check(L, resin_permutation(binding_context(L), count, slot));
    int64_t *order = resin_tensor_data(*slot);
    for (lua_Integer i = 0; i < count; i++) order[i]++;
    return 1;
}

/* The shape of nested tables, from the first entry of each. */
static int table_shape(lua_State *L, int index, int64_t *shape) {
    int rank = 0;
    lua_pushvalue(L, index);
    while (lua_istable(L, -1)) {
        if (rank == RESIN_MAX_RANK)
            luaL_error(L, "tensor: expected at most %d nested tables", RESIN_MAX_RANK);
        shape[rank++] = luaL_len(L, -1);
        luaL_checkstack(L, 2, NULL);
        lua_geti(L, -1, 1);
        lua_remove(L, -2);
    }
    lua_pop(L, 1);
    return rank;
}

/* Stores the table (or number) on top of the stack at axis `axis`; positions before it are set. */
static void table_store(lua_State *L, resin_tensor *t, int axis, int64_t *position) {
    int rank = resin_tensor_rank(t);
    if (axis == rank) {
        int is_number;
        if (lua_isinteger(L, -1)) {
            binding_check(L, resin_set_int64(t, position, lua_tointeger(L, -1)));
            return;
        }
        double value = lua_tonumberx(L, -1, &is_number);
        if (!is_number) luaL_error(L, "tensor: expected a number, got %s", luaL_typename(L, -1));
        binding_check(L, resin_set(t, position, value));
        return;
    }
    int64_t size = resin_tensor_shape(t)[axis];
    if (!lua_istable(L, -1) || luaL_len(L, -1) != size)
        luaL_error(L, "tensor: the tables on axis %d have different lengths (%I expected)",
                   axis + 1, (lua_Integer)size);
    luaL_checkstack(L, 4, NULL);
    for (int64_t i = 0; i < size; i++) {
        position[axis] = i;
        lua_geti(L, -1, i + 1);
        table_store(L, t, axis + 1, position);
        lua_pop(L, 1);
    }
}

/* tensor(nested table or number[, dtype]) */
static int new_tensor(lua_State *L) {
    if (!lua_istable(L, 1)) luaL_checknumber(L, 1);
    creation c = {.dtype = binding_dtype(L, 2, RESIN_FLOAT32)};
    c.rank = table_shape(L, 1, c.shape);
    create(L, make_empty, &c, 0, 0);
    int64_t position[RESIN_MAX_RANK] = {0};
    lua_pushvalue(L, 1);
    table_store(L, binding_tensor(L, -2), 0, position);
    lua_pop(L, 1);
    return 1;
}

/* ---- Looking at tensors --------------------------------------------------------------------- */

static int tensor_shape(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    int rank = resin_tensor_rank(t);
    lua_createtable(L, rank, 0);
    for (int i = 0; i < rank; i++) {
        lua_pushinteger(L, resin_tensor_shape(t)[i]);
        lua_seti(L, -2, i + 1);
    }
    return 1;
}

static int tensor_size(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    int axis = indexing_axis(L, 2, resin_tensor_rank(t));
    lua_pushinteger(L, resin_tensor_shape(t)[axis]);
    return 1;
}

static int tensor_rank(lua_State *L) {
    lua_pushinteger(L, resin_tensor_rank(binding_tensor(L, 1)));
    return 1;
}

static int tensor_count(lua_State *L) {
    lua_pushinteger(L, resin_tensor_count(binding_tensor(L, 1)));
    return 1;
}

static int tensor_dtype(lua_State *L) {
    lua_pushstring(L, resin_dtype_name(resin_tensor_dtype(binding_tensor(L, 1))));
    return 1;
}

static int tensor_is_contiguous(lua_State *L) {
    lua_pushboolean(L, resin_tensor_contiguous(binding_tensor(L, 1)));
    return 1;
}

static int tensor_length(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    if (resin_tensor_rank(t) == 0) luaL_error(L, "a tensor without axes has no length");
    lua_pushinteger(L, resin_tensor_shape(t)[0]);
    return 1;
}

static void push_element(lua_State *L, resin_tensor *t, const int64_t *position) {
    resin_dtype dtype = resin_tensor_dtype(t);
    if (dtype == RESIN_FLOAT32 || dtype == RESIN_FLOAT64) {
        double value;
        binding_check(L, resin_get(t, position, &value));
        lua_pushnumber(L, value);
    } else {
        int64_t value;
        binding_check(L, resin_get_int64(t, position, &value));
        lua_pushinteger(L, value);
    }
}

static int tensor_item(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    const int64_t position[RESIN_MAX_RANK] = {0};
    if (resin_tensor_count(t) != 1)
        luaL_error(L, "item: expected one element, got %I", (lua_Integer)resin_tensor_count(t));
    push_element(L, t, position);
    return 1;
}

static void push_table(lua_State *L, resin_tensor *t, int axis, int64_t *position) {
    if (axis == resin_tensor_rank(t)) {
        push_element(L, t, position);
        return;
    }
    int64_t size = resin_tensor_shape(t)[axis];
    luaL_checkstack(L, 3, NULL);
    lua_createtable(L, size < INT32_MAX ? (int)size : 0, 0);
    for (int64_t i = 0; i < size; i++) {
        position[axis] = i;
        push_table(L, t, axis + 1, position);
        lua_seti(L, -2, i + 1);
    }
}

static int tensor_totable(lua_State *L) {
    int64_t position[RESIN_MAX_RANK] = {0};
    push_table(L, binding_tensor(L, 1), 0, position);
    return 1;
}

static int is_tensor(lua_State *L) {
    lua_pushboolean(L, luaL_testudata(L, 1, TENSOR_TYPE) != NULL);
    return 1;
}

/* ---- Changing and giving back --------------------------------------------------------------- */

static int tensor_copy_from(lua_State *L) {
    binding_check(L, resin_copy(binding_tensor(L, 1), binding_tensor(L, 2)));
    lua_settop(L, 1);
    return 1;
}

static int tensor_fill(lua_State *L) {
    binding_check(L, resin_fill(binding_tensor(L, 1), luaL_checknumber(L, 2)));
    lua_settop(L, 1);
    return 1;
}

void binding_release_tensor(lua_State *L, int index) {
    tensor_box *box = luaL_checkudata(L, index, TENSOR_TYPE);
    resin_tensor *tensor = box->tensor;
    box->tensor = NULL;
    resin_release(tensor);
}

/* Also __gc and __close. */
static int tensor_release(lua_State *L) {
    binding_release_tensor(L, 1);
    return 0;
}

/* ---- Gradients ------------------------------------------------------------------------------ */

static int tensor_require_grad(lua_State *L) {
    bool required = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
    binding_check(L, resin_require_grad(binding_tensor(L, 1), required));
    lua_settop(L, 1);
    return 1;
}

static int tensor_requires_grad(lua_State *L) {
    lua_pushboolean(L, resin_requires_grad(binding_tensor(L, 1)));
    return 1;
}

static int tensor_clear_grad(lua_State *L) {
    resin_clear_grad(binding_tensor(L, 1));
    lua_settop(L, 1);
    return 1;
}

static int tensor_detach(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    binding_check(L, resin_detach(t, binding_new_tensor(L)));
    return 1;
}

/* backward([grad][, {keep_graph = true}]) */
static int tensor_backward(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1), *grad = NULL;
    bool keep = false;
    int options = 2;
    if (!lua_isnoneornil(L, 2) && !lua_istable(L, 2)) grad = binding_tensor(L, 2);
    if (!lua_istable(L, 2)) options = 3;
    if (lua_istable(L, options)) {
        lua_getfield(L, options, "keep_graph");
        keep = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    lua_State *before = binding_blocks_enter(L);
    binding_blocks_leave(L, before, resin_backward(t, grad, keep));
    return 0;
}

/* ---- The type ------------------------------------------------------------------------------- */

/* t.grad, methods by name, and positions (indexing.c). Upvalue 2 is the table of methods. */
static int tensor_index(lua_State *L) {
    if (lua_type(L, 2) != LUA_TSTRING) return indexing_get(L);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
    const char *key = lua_tostring(L, 2);
    if (strcmp(key, "grad") == 0) {
        resin_tensor *grad = resin_tensor_grad(binding_tensor(L, 1));
        if (grad)
            resin_lua_push(L, grad);
        else
            lua_pushnil(L);
        return 1;
    }
    return luaL_error(L, "a tensor has no method or field \"%s\"", key);
}

static int tensor_less(lua_State *L) {
    return luaL_error(L, "tensors are compared by methods: a:less(b), a:less_equal(b), "
                         "a:greater(b), a:equal(b)");
}

static const luaL_Reg functions[] = {
    {"zeros", new_zeros},     {"ones", new_ones},       {"empty", new_empty},
    {"full", new_full},       {"rand", new_rand},       {"randn", new_randn},
    {"uniform", new_uniform}, {"normal", new_normal},   {"arange", new_arange},
    {"tensor", new_tensor},   {"permutation", new_permutation},
    {"is_tensor", is_tensor}, {NULL, NULL},
};

static const luaL_Reg methods[] = {
    {"shape", tensor_shape},
    {"size", tensor_size},
    {"rank", tensor_rank},
    {"count", tensor_count},
    {"dtype", tensor_dtype},
    {"is_contiguous", tensor_is_contiguous},
    {"item", tensor_item},
    {"totable", tensor_totable},
    {"copy_", tensor_copy_from},
    {"fill", tensor_fill},
    {"release", tensor_release},
    {"require_grad", tensor_require_grad},
    {"requires_grad", tensor_requires_grad},
    {"clear_grad", tensor_clear_grad},
    {"detach", tensor_detach},
    {"backward", tensor_backward},
    {"slice", indexing_slice},
    {"select", indexing_select},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__gc", tensor_release},     {"__close", tensor_release}, {"__len", tensor_length},
    {"__newindex", indexing_set}, {"__lt", tensor_less},       {"__le", tensor_less},
    {"__tostring", indexing_tostring}, {NULL, NULL},
};

/* Leaves the table of methods in the metatable as "methods", where ops.c adds the ops. */
void binding_open_tensor(lua_State *L) {
    binding_register(L, functions);
    luaL_newmetatable(L, TENSOR_TYPE);
    binding_register(L, metamethods);
    lua_newtable(L);
    binding_register(L, methods);
    binding_push_context(L);
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, tensor_index, 2);
    lua_setfield(L, -3, "__index");
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "methods");
    lua_setfield(L, -3, "tensor_methods"); /* for methods written in Lua, lua/resin/tensor.lua */
    lua_pushliteral(L, "tensor");
    lua_setfield(L, -2, "__name");
    lua_pop(L, 1);
}
