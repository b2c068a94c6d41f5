/* ops.c: every row of the table of ops as a Lua function and as a method of tensors. Lua's arguments
 * are read by the row's signature: tensors first, then attributes in order or by name. */
#include <string.h>

#include "lua/binding/binding.h"
#include "lua/binding/indexing.h"

enum { MAX_TENSORS = 16 };

/* ---- Attributes ----------------------------------------------------------------------------- */

/* An axis counted from 1, or from the end when negative, as the core counts it. */
static int64_t axis_from_lua(lua_State *L, const char *op, lua_Integer axis) {
    if (axis == 0) luaL_error(L, "%s: axes count from 1, got axis 0", op);
    return axis > 0 ? axis - 1 : axis;
}

static int attribute_error(lua_State *L, const resin_op_info *op, const resin_op_argument *argument,
                           int index) {
    return luaL_error(L, "%s: %s must be %s, got %s; its arguments are (%s)", op->name,
                      argument->name, argument->kind, luaL_tolstring(L, index, NULL),
                      op->signature);
}

static void read_ints(lua_State *L, const resin_op_info *op, const resin_op_argument *argument,
                      int index, resin_attribute *attribute) {
    bool axes = strcmp(argument->kind, "axes") == 0;
    attribute->kind = RESIN_VALUE_INTS;
    if (lua_istable(L, index)) {
        attribute->count = binding_ints(L, index, attribute->ints, argument->name);
    } else {
        int is_integer;
        attribute->count = 1;
        attribute->ints[0] = lua_tointegerx(L, index, &is_integer);
        if (!is_integer) attribute_error(L, op, argument, index);
    }
    for (int i = 0; axes && i < attribute->count; i++)
        attribute->ints[i] = axis_from_lua(L, op->name, attribute->ints[i]);
}

static void read_attribute(lua_State *L, const resin_op_info *op,
                           const resin_op_argument *argument, int index,
                           resin_attribute *attribute) {
    const char *kind = argument->kind;
    *attribute = (resin_attribute){.name = argument->name};
    if (strcmp(kind, "ints") == 0 || strcmp(kind, "axes") == 0) {
        read_ints(L, op, argument, index, attribute);
    } else if (strcmp(kind, "string") == 0) {
        if (lua_type(L, index) != LUA_TSTRING) attribute_error(L, op, argument, index);
        attribute->kind = RESIN_VALUE_STRING;
        attribute->string = lua_tostring(L, index); /* its argument or table keeps it alive */
    } else if (strcmp(kind, "bool") == 0) {
        if (!lua_isboolean(L, index)) attribute_error(L, op, argument, index);
        attribute->kind = RESIN_VALUE_BOOL;
        attribute->integer = lua_toboolean(L, index);
    } else if (strcmp(kind, "number") == 0) {
        if (lua_type(L, index) != LUA_TNUMBER) attribute_error(L, op, argument, index);
        attribute->kind = RESIN_VALUE_NUMBER;
        attribute->number = lua_tonumber(L, index);
    } else {
        int is_integer;
        attribute->kind = RESIN_VALUE_INT;
        attribute->integer = lua_tointegerx(L, index, &is_integer);
        if (!is_integer) attribute_error(L, op, argument, index);
        if (strcmp(kind, "axis") == 0)
            attribute->integer = axis_from_lua(L, op->name, attribute->integer);
    }
}

/* From a table {name = value, ...}; a name that is no attribute is an error. */
static int named_attributes(lua_State *L, const resin_op_info *op, int index,
                            resin_attribute *attributes) {
    int count = 0;
    lua_pushnil(L);
    while (lua_next(L, index)) {
        int a = 0;
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "%s: options are named; its arguments are (%s)", op->name, op->signature);
        const char *name = lua_tostring(L, -2);
        while (a < op->attribute_count && strcmp(op->attribute[a].name, name) != 0) a++;
        if (a == op->attribute_count)
            luaL_error(L, "%s: there is no option \"%s\"; its arguments are (%s)", op->name, name,
                       op->signature);
        read_attribute(L, op, &op->attribute[a], lua_gettop(L), &attributes[count++]);
        lua_pop(L, 1);
    }
    return count;
}

static bool is_options(lua_State *L, int index) {
    if (!lua_istable(L, index) || lua_rawlen(L, index) > 0) return false;
    lua_pushnil(L);
    if (!lua_next(L, index)) return false; /* {}: an empty list */
    bool named = lua_type(L, -2) == LUA_TSTRING;
    lua_pop(L, 2);
    return named;
}

/* x:reshape(2, 3): the only attribute is a list, and its entries stand side by side. */
static bool is_spread_list(lua_State *L, const resin_op_info *op, int first) {
    const char *kind = op->attribute_count == 1 ? op->attribute[0].kind : "";
    if (strcmp(kind, "ints") != 0 && strcmp(kind, "axes") != 0) return false;
    int top = lua_gettop(L);
    if (top <= first || top - first >= RESIN_MAX_INTS) return false;
    for (int i = first; i <= top; i++)
        if (!lua_isinteger(L, i)) return false;
    return true;
}

static int positional_attributes(lua_State *L, const resin_op_info *op, int first,
                                 resin_attribute *attributes) {
    int count = 0, top = lua_gettop(L);
    if (is_spread_list(L, op, first)) {
        lua_createtable(L, top - first + 1, 0);
        for (int i = first; i <= top; i++) {
            lua_pushvalue(L, i);
            lua_seti(L, -2, i - first + 1);
        }
        read_attribute(L, op, &op->attribute[0], lua_gettop(L), &attributes[0]);
        lua_pop(L, 1);
        return 1;
    }
    if (top - first + 1 > op->attribute_count)
        luaL_error(L, "%s: too many arguments; its arguments are (%s)", op->name, op->signature);
    for (int i = first; i <= top; i++)
        if (!lua_isnil(L, i))
            read_attribute(L, op, &op->attribute[i - first], i, &attributes[count++]);
    return count;
}

/* Positions in integer tensors count from 1 in Lua, unless `base` is given. */
static int add_base(const resin_op_info *op, resin_attribute *attributes, int count) {
    for (int a = 0; a < op->attribute_count; a++) {
        if (strcmp(op->attribute[a].kind, "base") != 0) continue;
        for (int i = 0; i < count; i++)
            if (strcmp(attributes[i].name, op->attribute[a].name) == 0) return count;
        attributes[count++] = (resin_attribute){.name = op->attribute[a].name,
                                                .kind = RESIN_VALUE_INT, .integer = 1};
    }
    return count;
}

/* ---- Tensors -------------------------------------------------------------------------------- */

static int tensor_error(lua_State *L, const resin_op_info *op, const resin_op_argument *argument,
                        int index) {
    return luaL_error(L, "%s: %s must be a tensor, got %s; its arguments are (%s)", op->name,
                      argument->name, lua_isnoneornil(L, index) ? "nothing"
                                                                : luaL_tolstring(L, index, NULL),
                      op->signature);
}

/* The dtype that a plain number takes beside tensors: that of the first float one, or else of the
 * first. */
static resin_dtype number_dtype(lua_State *L, int top) {
    resin_dtype dtype = RESIN_FLOAT32;
    bool found = false;
    for (int i = 1; i <= top; i++) {
        resin_tensor *t = binding_test_tensor(L, i);
        if (!t) continue;
        resin_dtype own = resin_tensor_dtype(t);
        if (!found) dtype = own;
        found = true;
        if (own == RESIN_FLOAT32 || own == RESIN_FLOAT64) return own;
    }
    return dtype;
}

/* Puts a scalar tensor in the place of the number at `index`. */
static void number_to_tensor(lua_State *L, int index) {
    resin_dtype dtype = number_dtype(L, lua_gettop(L));
    double value = lua_tonumber(L, index);
    resin_tensor **slot = binding_new_tensor(L);
    binding_check(L, resin_full(binding_context(L), dtype, 0, NULL, value, slot));
    lua_replace(L, index);
}

/* Fills `inputs` from the arguments by the signature; returns the first argument after them. */
static int read_tensors(lua_State *L, const resin_op_info *op, resin_tensor **inputs) {
    int index = 1;
    for (int t = 0; t < op->tensor_count; t++) {
        const resin_op_argument *argument = &op->tensor[t];
        inputs[t] = NULL;
        if (luaL_testudata(L, index, TENSOR_TYPE)) {
            inputs[t] = binding_tensor(L, index++);
        } else if (argument->optional) {
            if (lua_type(L, index) == LUA_TNIL) index++;
        } else if (lua_type(L, index) == LUA_TNUMBER && op->tensor_count > 1) {
            number_to_tensor(L, index);
            inputs[t] = binding_tensor(L, index++);
        } else {
            tensor_error(L, op, argument, index);
        }
    }
    return index;
}

/* A list of tensors at argument 1; returns their array (a userdata left on the stack, at 1). */
static resin_tensor **read_list(lua_State *L, const resin_op_info *op, int *count) {
    if (!lua_istable(L, 1)) tensor_error(L, op, &op->tensor[0], 1);
    lua_Integer length = luaL_len(L, 1);
    if (length > 1 << 20) luaL_error(L, "%s: too many tensors", op->name);
    *count = (int)length;
    resin_tensor **inputs = lua_newuserdatauv(L, (size_t)(length + 1) * sizeof *inputs, 1);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1); /* the list keeps the tensors alive */
    for (int i = 0; i < *count; i++) {
        lua_geti(L, 1, i + 1);
        inputs[i] = binding_test_tensor(L, -1);
        if (!inputs[i])
            luaL_error(L, "%s: expected a list of tensors, got %s at position %d", op->name,
                       luaL_tolstring(L, -1, NULL), i + 1);
        lua_pop(L, 1);
    }
    lua_replace(L, 1);
    return inputs;
}

/* ---- Calls ---------------------------------------------------------------------------------- */

static int call_op(lua_State *L, int index) {
    resin_op_info op = resin_op_describe(index);
    resin_tensor *stack[MAX_TENSORS], **inputs = stack;
    resin_attribute attributes[RESIN_MAX_ATTRIBUTES + 2];
    int count = op.tensor_count, first = 2;
    if (op.tensor_count > 0 && op.tensor[0].variadic)
        inputs = read_list(L, &op, &count);
    else
        first = read_tensors(L, &op, inputs);

    int given = lua_gettop(L) == first && is_options(L, first)
                    ? named_attributes(L, &op, first, attributes)
                    : positional_attributes(L, &op, first, attributes);
    given = add_base(&op, attributes, given);

    resin_context *context = binding_context(L);
    resin_tensor **slot = binding_new_tensor(L);
    resin_status status = resin_apply(context, op.name, inputs, count, attributes, given, slot);
    if (status == RESIN_ERROR_MEMORY) {
        binding_collect(L, true);
        status = resin_apply(context, op.name, inputs, count, attributes, given, slot);
    }
    binding_check(L, status);
    return 1;
}

/* Upvalue 2 is the op's row. */
static int op_function(lua_State *L) {
    return call_op(L, (int)lua_tointeger(L, lua_upvalueindex(2)));
}

/* An operator: like the function, with numbers on either side. Lua passes unary minus its operand
 * twice. */
static int op_operator(lua_State *L) {
    int index = (int)lua_tointeger(L, lua_upvalueindex(2));
    lua_settop(L, resin_op_describe(index).tensor_count);
    return call_op(L, index);
}

/* ops() -> list of {name, signature, doc, check} */
static int ops_list(lua_State *L) {
    lua_createtable(L, resin_op_count(), 0);
    for (int i = 0; i < resin_op_count(); i++) {
        resin_op_info op = resin_op_describe(i);
        lua_createtable(L, 0, 4);
        lua_pushstring(L, op.name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, op.signature);
        lua_setfield(L, -2, "signature");
        lua_pushstring(L, op.doc);
        lua_setfield(L, -2, "doc");
        lua_pushstring(L, op.check);
        lua_setfield(L, -2, "check");
        lua_seti(L, -2, i + 1);
    }
    return 1;
}

static void push_closure(lua_State *L, lua_CFunction function, int index) {
    binding_push_context(L);
    lua_pushinteger(L, index);
    lua_pushcclosure(L, function, 2);
}

static const struct {
    const char *op, *metamethod;
} operators[] = {{"add", "__add"}, {"subtract", "__sub"}, {"multiply", "__mul"},
                 {"divide", "__div"}, {"pow", "__pow"}, {"neg", "__unm"}};

static int find_op(const char *name) {
    for (int i = 0; i < resin_op_count(); i++)
        if (strcmp(resin_op_describe(i).name, name) == 0) return i;
    return -1;
}

/* Adds field `name` unless the table has one: functions written by hand (indexing.c counts positions
 * from 1) go first. */
static void add_function(lua_State *L, int table, const char *name, int index) {
    if (lua_getfield(L, table, name) == LUA_TNIL) {
        push_closure(L, op_function, index);
        lua_setfield(L, table, name);
    }
    lua_pop(L, 1);
}

void binding_open_ops(lua_State *L) {
    static const luaL_Reg functions[] = {{"ops", ops_list},
                                         {"slice", indexing_slice},
                                         {"select", indexing_select},
                                         {NULL, NULL}};
    binding_register(L, functions);
    int module = lua_gettop(L);
    luaL_getmetatable(L, TENSOR_TYPE);
    int metatable = lua_gettop(L);
    lua_getfield(L, metatable, "methods");
    int methods = lua_gettop(L);
    for (int i = 0; i < resin_op_count(); i++) {
        const char *name = resin_op_describe(i).name;
        add_function(L, module, name, i);
        add_function(L, methods, name, i);
    }
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        int index = find_op(operators[i].op);
        if (index < 0) continue;
        push_closure(L, op_operator, index);
        lua_setfield(L, metatable, operators[i].metamethod);
    }
    lua_settop(L, module);
}
