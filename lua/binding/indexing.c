/* indexing.c: positions and ranges. In Lua they count from 1, ranges are inclusive and negative
 * numbers count from the end. */
#include "lua/binding/indexing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int indexing_axis(lua_State *L, int index, int rank) {
    lua_Integer axis = luaL_checkinteger(L, index);
    lua_Integer zero_based = axis > 0 ? axis - 1 : axis + rank;
    if (axis == 0 || zero_based < 0 || zero_based >= rank)
        luaL_error(L, "axis %I is out of range for %d axes", axis, rank);
    return (int)zero_based;
}

/* ---- Views ---------------------------------------------------------------------------------- */

typedef struct region {
    int64_t start[RESIN_MAX_RANK], stop[RESIN_MAX_RANK], step[RESIN_MAX_RANK]; /* as the core's */
    bool selected[RESIN_MAX_RANK]; /* a single position: the axis goes */
} region;

static region whole(const resin_tensor *t) {
    region r = {.start = {0}};
    for (int i = 0; i < resin_tensor_rank(t); i++) {
        r.stop[i] = resin_tensor_shape(t)[i];
        r.step[i] = 1;
    }
    return r;
}

static int64_t position_from_lua(lua_State *L, lua_Integer position, int axis, int64_t size) {
    int64_t i = position > 0 ? position - 1 : position + size;
    if (position == 0 || i < 0 || i >= size)
        luaL_error(L, "position %I is out of range on axis %d of size %I", position, axis + 1,
                   (lua_Integer)size);
    return i;
}

static void select_position(lua_State *L, region *r, int axis, int64_t size, lua_Integer position) {
    r->start[axis] = position_from_lua(L, position, axis, size);
    r->stop[axis] = r->start[axis] + 1;
    r->selected[axis] = true;
}

/* first .. last of an axis; last = first - 1 is the empty range. */
static void select_range(lua_State *L, region *r, int axis, int64_t size, lua_Integer first,
                         lua_Integer last, lua_Integer step) {
    if (step == 0) luaL_error(L, "the step on axis %d must not be 0", axis + 1);
    int64_t from = first > 0 ? first - 1 : first + size;
    int64_t to = last >= 0 ? last - 1 : last + size;
    bool empty = step > 0 ? to < from : to > from;
    if (first == 0 || from < 0 || from > size || to < -1 || to >= size || (!empty && from >= size))
        luaL_error(L, "range {%I, %I} is out of range on axis %d of size %I", first, last, axis + 1,
                   (lua_Integer)size);
    r->start[axis] = from;
    r->step[axis] = step;
    r->stop[axis] = empty ? from : step > 0 ? to + 1 : to - 1;
}

/* One entry of x[{...}] on top of the stack. */
static void region_entry(lua_State *L, region *r, int axis, int64_t size) {
    int is_integer;
    if (!lua_istable(L, -1)) {
        lua_Integer position = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer)
            luaL_error(L, "axis %d: expected a position or {first, last[, step]}, got %s", axis + 1,
                       luaL_tolstring(L, -1, NULL));
        select_position(L, r, axis, size, position);
        return;
    }
    lua_Integer value[3] = {1, size, 1};
    lua_Integer count = luaL_len(L, -1);
    if (count == 0) return;
    if (count > 3) luaL_error(L, "axis %d: expected {first, last[, step]}", axis + 1);
    for (int i = 0; i < count; i++) {
        lua_geti(L, -1, i + 1);
        value[i] = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer) luaL_error(L, "axis %d: expected {first, last[, step]}", axis + 1);
        lua_pop(L, 1);
    }
    select_range(L, r, axis, size, value[0], value[1], value[2]);
}

/* The region that the number or table at `index` names. */
static region region_at(lua_State *L, const resin_tensor *t, int index) {
    int rank = resin_tensor_rank(t), is_integer;
    const int64_t *shape = resin_tensor_shape(t);
    region r = whole(t);
    if (!lua_istable(L, index)) {
        lua_Integer position = lua_tointegerx(L, index, &is_integer);
        if (!is_integer)
            luaL_error(L, "a tensor is indexed by integers and tables, got %s",
                       luaL_tolstring(L, index, NULL));
        if (rank == 0) luaL_error(L, "a tensor without axes cannot be indexed; use x:item()");
        select_position(L, &r, 0, shape[0], position);
        return r;
    }
    lua_Integer count = luaL_len(L, index);
    if (count > rank) luaL_error(L, "%I positions for %d axes", count, rank);
    for (int axis = 0; axis < count; axis++) {
        lua_geti(L, index, axis + 1);
        region_entry(L, &r, axis, shape[axis]);
        lua_pop(L, 1);
    }
    return r;
}

/* Pushes the view of `t` (which stays reachable on the stack) that the region names. */
static resin_tensor *push_view(lua_State *L, resin_tensor *t, const region *r) {
    resin_context *context = binding_context(L);
    int rank = resin_tensor_rank(t);
    resin_attribute range[3] = {{.name = "start", .kind = RESIN_VALUE_INTS, .count = rank},
                                {.name = "stop", .kind = RESIN_VALUE_INTS, .count = rank},
                                {.name = "step", .kind = RESIN_VALUE_INTS, .count = rank}};
    resin_attribute axes = {.name = "axes", .kind = RESIN_VALUE_INTS};
    memcpy(range[0].ints, r->start, sizeof r->start);
    memcpy(range[1].ints, r->stop, sizeof r->stop);
    memcpy(range[2].ints, r->step, sizeof r->step);
    for (int i = 0; i < rank; i++)
        if (r->selected[i]) axes.ints[axes.count++] = i;
    resin_tensor **slot = binding_new_tensor(L);
    binding_check(L, resin_apply(context, "slice", &t, 1, range, 3, slot));
    if (axes.count > 0) {
        resin_tensor *narrow = *slot;
        *slot = NULL;
        resin_status status = resin_apply(context, "squeeze", &narrow, 1, &axes, 1, slot);
        resin_release(narrow);
        binding_check(L, status);
    }
    return *slot;
}

int indexing_get(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    region r = region_at(L, t, 2);
    push_view(L, t, &r);
    return 1;
}

/* x[i] = number or tensor (broadcast), in place. */
int indexing_set(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    if (lua_type(L, 2) == LUA_TSTRING)
        return luaL_error(L, "a tensor has no field \"%s\" to set", lua_tostring(L, 2));
    region r = region_at(L, t, 2);
    if (resin_recording(binding_context(L)) && resin_requires_grad(t))
        return luaL_error(L, "a tensor of a graph cannot be changed in place while gradients are "
                             "recorded; use no_grad or detach");
    resin_tensor **plain = binding_new_tensor(L); /* the same data outside of the graph */
    binding_check(L, resin_detach(t, plain));
    resin_tensor *view = push_view(L, *plain, &r);
    if (lua_type(L, 3) == LUA_TNUMBER)
        binding_check(L, resin_fill(view, lua_tonumber(L, 3)));
    else
        binding_check(L, resin_copy(view, binding_tensor(L, 3)));
    return 0;
}

int indexing_slice(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    int axis = indexing_axis(L, 2, resin_tensor_rank(t));
    int64_t size = resin_tensor_shape(t)[axis];
    region r = whole(t);
    select_range(L, &r, axis, size, luaL_checkinteger(L, 3), luaL_optinteger(L, 4, size),
                 luaL_optinteger(L, 5, 1));
    push_view(L, t, &r);
    return 1;
}

int indexing_select(lua_State *L) {
    resin_tensor *t = binding_tensor(L, 1);
    int axis = indexing_axis(L, 2, resin_tensor_rank(t));
    region r = whole(t);
    select_position(L, &r, axis, resin_tensor_shape(t)[axis], luaL_checkinteger(L, 3));
    push_view(L, t, &r);
    return 1;
}

/* ---- Text ----------------------------------------------------------------------------------- */

enum { TEXT_ALL = 1000, TEXT_EDGE = 3 }; /* larger tensors show 3 entries at both ends of an axis */

typedef struct text_format {
    bool abbreviated, is_float;
    int width;
} text_format;

static void format_number(const text_format *format, double value, char text[32]) {
    if (!format->is_float || (value == floor(value) && fabs(value) < 1e6))
        snprintf(text, 32, "%.0f", value);
    else
        snprintf(text, 32, "%.5g", value);
}

static bool shown(const text_format *format, int64_t i, int64_t size) {
    return !format->abbreviated || size <= 2 * TEXT_EDGE + 1 || i < TEXT_EDGE ||
           i >= size - TEXT_EDGE;
}

/* Calls itself for each axis; with `buffer` NULL it only finds the widest number. */
static void format_axis(lua_State *L, const resin_tensor *t, text_format *format, int axis,
                        int64_t *position, luaL_Buffer *buffer) {
    int rank = resin_tensor_rank(t);
    if (axis == rank) {
        double value;
        char number[32], padded[64];
        binding_check(L, resin_get(t, position, &value));
        format_number(format, value, number);
        int length = (int)strlen(number);
        if (length > format->width && !buffer) format->width = length;
        snprintf(padded, sizeof padded, "%*s", rank ? format->width : 0, number);
        if (buffer) luaL_addstring(buffer, padded);
        return;
    }
    int64_t size = resin_tensor_shape(t)[axis];
    bool gap = false;
    if (buffer) luaL_addchar(buffer, '{');
    for (int64_t i = 0; i < size; i++) {
        if (!shown(format, i, size)) {
            if (!gap && buffer) luaL_addstring(buffer, axis == rank - 1 ? ", ..." : ",\n ...");
            gap = true;
            continue;
        }
        if (buffer && i > 0) {
            luaL_addstring(buffer, axis == rank - 1 ? ", " : ",\n");
            for (int j = 0; axis < rank - 1 && j <= axis; j++) luaL_addchar(buffer, ' ');
        }
        position[axis] = i;
        format_axis(L, t, format, axis + 1, position, buffer);
    }
    if (buffer) luaL_addchar(buffer, '}');
}

/* "tensor(2, 3) float32" and the elements. */
int indexing_tostring(lua_State *L) {
    resin_tensor *t = luaL_testudata(L, 1, TENSOR_TYPE) ? binding_test_tensor(L, 1) : NULL;
    if (!t) {
        lua_pushliteral(L, "tensor (released)");
        return 1;
    }
    resin_dtype dtype = resin_tensor_dtype(t);
    text_format format = {.abbreviated = resin_tensor_count(t) > TEXT_ALL,
                          .is_float = dtype == RESIN_FLOAT32 || dtype == RESIN_FLOAT64};
    int64_t position[RESIN_MAX_RANK] = {0};
    format_axis(L, t, &format, 0, position, NULL);
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    luaL_addstring(&buffer, "tensor(");
    for (int i = 0; i < resin_tensor_rank(t); i++) {
        char size[32];
        snprintf(size, sizeof size, "%s%lld", i ? ", " : "", (long long)resin_tensor_shape(t)[i]);
        luaL_addstring(&buffer, size);
    }
    luaL_addstring(&buffer, ") ");
    luaL_addstring(&buffer, resin_dtype_name(dtype));
    luaL_addchar(&buffer, '\n');
    format_axis(L, t, &format, 0, position, &buffer);
    luaL_pushresult(&buffer);
    return 1;
}
