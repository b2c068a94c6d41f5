/* boost_binding.c: fitted sums of trees, and the settings they are grown with. Classes count from 0
 * here, as in the core: resin.boost shifts them. */
#include <string.h>

#include "lua/binding/binding.h"

#define TREES_TYPE "resin.trees"

typedef struct trees_box {
    resin_trees *trees; /* NULL only while it is being made */
} trees_box;

static resin_trees *check_trees(lua_State *L) {
    trees_box *box = luaL_checkudata(L, 1, TREES_TYPE);
    luaL_argcheck(L, box->trees, 1, "the trees are gone");
    return box->trees;
}

static int trees_gc(lua_State *L) {
    trees_box *box = luaL_checkudata(L, 1, TREES_TYPE);
    resin_trees_release(box->trees);
    box->trees = NULL;
    return 0;
}

static trees_box *new_box(lua_State *L) {
    trees_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->trees = NULL;
    luaL_setmetatable(L, TREES_TYPE);
    return box;
}

/* ---- Settings ------------------------------------------------------------------------------- */

static const char *const loss_names[] = {"squared_error", "absolute_error", "huber", "quantile",
                                         "log_loss", NULL};

static double number_field(lua_State *L, int index, const char *name, double fallback) {
    int is_number = 1;
    double value = fallback;
    if (lua_getfield(L, index, name) != LUA_TNIL) value = lua_tonumberx(L, -1, &is_number);
    if (!is_number)
        luaL_error(L, "boost: expected a number as %s, got %s", name, luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
    return value;
}

static int64_t integer_field(lua_State *L, int index, const char *name, int64_t fallback) {
    int is_integer = 1;
    lua_Integer value = fallback;
    if (lua_getfield(L, index, name) != LUA_TNIL) value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer)
        luaL_error(L, "boost: expected an integer as %s, got %s", name,
                   luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
    return value;
}

static bool boolean_field(lua_State *L, int index, const char *name, bool fallback) {
    bool value = lua_getfield(L, index, name) == LUA_TNIL ? fallback : lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static resin_trees_loss loss_field(lua_State *L, int index) {
    const char *name = lua_getfield(L, index, "loss") == LUA_TSTRING ? lua_tostring(L, -1) : "";
    for (int i = 0; loss_names[i]; i++) {
        if (strcmp(loss_names[i], name) != 0) continue;
        lua_pop(L, 1);
        return (resin_trees_loss)i;
    }
    luaL_error(L, "boost: expected a loss (squared_error, absolute_error, huber, quantile or "
               "log_loss), got \"%s\"", name);
    return RESIN_TREES_SQUARED;
}

/* The list `name`, of one small integer for each feature, in a block that is left on the stack;
 * NULL if there is none. */
static const int8_t *feature_list(lua_State *L, int index, const char *name, int64_t features) {
    if (lua_getfield(L, index, name) == LUA_TNIL) return NULL;
    luaL_checktype(L, -1, LUA_TTABLE);
    int list = lua_gettop(L);
    if (luaL_len(L, list) != features)
        luaL_error(L, "boost: expected one entry for each of %I features in %s, got %I",
                   (lua_Integer)features, name, luaL_len(L, list));
    int8_t *block = lua_newuserdatauv(L, (size_t)features, 0);
    for (int64_t f = 0; f < features; f++) {
        int is_integer;
        lua_geti(L, list, f + 1);
        lua_Integer value = lua_tointegerx(L, -1, &is_integer);
        if (!is_integer || value < -1 || value > 1)
            luaL_error(L, "boost: expected -1, 0 or 1 in %s, got %s", name,
                       luaL_tolstring(L, -1, NULL));
        block[f] = (int8_t)value;
        lua_pop(L, 1);
    }
    return block;
}

static const bool *feature_flags(lua_State *L, int index, const char *name, int64_t features) {
    const int8_t *list = feature_list(L, index, name, features);
    if (!list) return NULL;
    bool *flags = lua_newuserdatauv(L, (size_t)features * sizeof *flags, 0);
    for (int64_t f = 0; f < features; f++) flags[f] = list[f] != 0;
    return flags;
}

static void read_settings(lua_State *L, int index, int64_t features, resin_trees_settings *s) {
    resin_trees_defaults(s);
    s->loss = loss_field(L, index);
    s->classes = integer_field(L, index, "classes", s->classes);
    s->alpha = number_field(L, index, "alpha", s->alpha);
    s->stages = integer_field(L, index, "n_estimators", s->stages);
    s->learning_rate = number_field(L, index, "learning_rate", s->learning_rate);
    s->subsample = number_field(L, index, "subsample", s->subsample);
    s->zero_start = boolean_field(L, index, "zero_start", s->zero_start);
    s->max_depth = integer_field(L, index, "max_depth", s->max_depth);
    s->max_leaves = integer_field(L, index, "max_leaf_nodes", s->max_leaves);
    s->min_split = integer_field(L, index, "min_samples_split", s->min_split);
    s->min_leaf = integer_field(L, index, "min_samples_leaf", s->min_leaf);
    s->max_features = integer_field(L, index, "max_features", s->max_features);
    s->seed = (uint64_t)integer_field(L, index, "seed", (int64_t)s->seed);
    s->validation = number_field(L, index, "validation_fraction", s->validation);
    s->tolerance = number_field(L, index, "tolerance", s->tolerance);
    s->patience = integer_field(L, index, "n_iter_no_change", s->patience);
    s->histogram = boolean_field(L, index, "histogram", s->histogram);
    s->friedman = boolean_field(L, index, "friedman", s->friedman);
    s->min_impurity_decrease = number_field(L, index, "min_impurity_decrease",
                                            s->min_impurity_decrease);
    s->bins = integer_field(L, index, "max_bins", s->bins);
    s->l2 = number_field(L, index, "l2", s->l2);
    s->min_gain = number_field(L, index, "min_gain", s->min_gain);
    s->min_leaf_hessian = number_field(L, index, "min_child_weight", s->min_leaf_hessian);
    s->monotone = feature_list(L, index, "monotone", features);
    s->categorical = feature_flags(L, index, "categorical", features);
}

/* ---- Fitting and predicting ----------------------------------------------------------------- */

/* boost_fit(x, y, weights or nil, settings) -> trees */
static int boost_fit(lua_State *L) {
    resin_tensor *x = binding_tensor(L, 1), *y = binding_tensor(L, 2);
    resin_tensor *weights = lua_isnoneornil(L, 3) ? NULL : binding_tensor(L, 3);
    luaL_checktype(L, 4, LUA_TTABLE);
    lua_settop(L, 4);
    int64_t features = resin_tensor_rank(x) == 2 ? resin_tensor_shape(x)[1] : 0;
    resin_trees_settings settings;
    read_settings(L, 4, features, &settings);
    binding_collect(L, false);
    trees_box *box = new_box(L);
    binding_check(L, resin_trees_fit(binding_context(L), x, y, weights, &settings, &box->trees));
    return 1;
}

/* trees:start(rows) -> scores */
static int trees_start(lua_State *L) {
    resin_trees *trees = check_trees(L);
    lua_Integer rows = luaL_checkinteger(L, 2);
    luaL_argcheck(L, rows >= 0, 2, "expected a number of rows");
    resin_tensor **out = binding_new_tensor(L);
    binding_check(L, resin_trees_start(trees, rows, out));
    return 1;
}

/* trees:add(x, first, last, scores): the stages first to last, from 1, added to the scores */
static int trees_add(lua_State *L) {
    resin_trees *trees = check_trees(L);
    lua_Integer first = luaL_checkinteger(L, 3), last = luaL_checkinteger(L, 4);
    luaL_argcheck(L, first >= 1, 3, "stages count from 1");
    binding_check(L, resin_trees_add(trees, binding_tensor(L, 2), first - 1, last,
                                     binding_tensor(L, 5)));
    return 0;
}

static int trees_importances(lua_State *L) {
    resin_trees *trees = check_trees(L);
    resin_tensor **out = binding_new_tensor(L);
    binding_check(L, resin_trees_importances(trees, out));
    return 1;
}

static void push_numbers(lua_State *L, const double *numbers, int64_t count, const char *name) {
    if (!numbers) return;
    lua_createtable(L, (int)count, 0);
    for (int64_t i = 0; i < count; i++) {
        lua_pushnumber(L, numbers[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, name);
}

static void push_integer(lua_State *L, int64_t value, const char *name) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

/* trees:describe() -> {loss, features, classes, outputs, stages, nodes, learning_rate, initial,
 * train_loss, validation_loss} */
static int trees_describe(lua_State *L) {
    resin_trees_info info = resin_trees_describe(check_trees(L));
    lua_newtable(L);
    lua_pushstring(L, loss_names[info.loss]);
    lua_setfield(L, -2, "loss");
    push_integer(L, info.features, "features");
    push_integer(L, info.classes, "classes");
    push_integer(L, info.outputs, "outputs");
    push_integer(L, info.stages, "stages");
    push_integer(L, info.nodes, "nodes");
    lua_pushnumber(L, info.learning_rate);
    lua_setfield(L, -2, "learning_rate");
    push_numbers(L, info.initial, info.outputs, "initial");
    push_numbers(L, info.train_loss, info.stages, "train_loss");
    push_numbers(L, info.validation_loss, info.stages, "validation_loss");
    return 1;
}

/* ---- As tensors ----------------------------------------------------------------------------- */

/* trees:export() -> {{name, tensor}, ...} */
static int trees_export(lua_State *L) {
    resin_trees *trees = check_trees(L);
    lua_createtable(L, RESIN_TREES_TENSORS, 0);
    for (int i = 0; i < RESIN_TREES_TENSORS; i++) {
        lua_createtable(L, 2, 0);
        lua_pushstring(L, resin_trees_tensor_name(i));
        lua_rawseti(L, -2, 1);
        resin_tensor **out = binding_new_tensor(L);
        binding_check(L, resin_trees_export(trees, i, out));
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* boost_import({name = tensor, ...}, {loss, features, classes, learning_rate}) -> trees */
static int boost_import(lua_State *L) {
    resin_tensor *tensors[RESIN_TREES_TENSORS];
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    for (int i = 0; i < RESIN_TREES_TENSORS; i++) {
        lua_getfield(L, 1, resin_trees_tensor_name(i));
        tensors[i] = binding_test_tensor(L, -1);
        lua_pop(L, 1); /* the table holds it */
    }
    resin_trees_loss loss = loss_field(L, 2);
    int64_t features = integer_field(L, 2, "features", 0);
    int64_t classes = integer_field(L, 2, "classes", 0);
    double learning_rate = number_field(L, 2, "learning_rate", 1);
    trees_box *box = new_box(L);
    binding_check(L, resin_trees_import(binding_context(L), tensors, loss, features, classes,
                                        learning_rate, &box->trees));
    return 1;
}

/* ---- Registration --------------------------------------------------------------------------- */

void binding_open_boost(lua_State *L) {
    static const luaL_Reg metamethods[] = {
        {"__gc", trees_gc},
        {NULL, NULL},
    };
    static const luaL_Reg methods[] = {
        {"start", trees_start},
        {"add", trees_add},
        {"importances", trees_importances},
        {"describe", trees_describe},
        {"export", trees_export},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {
        {"boost_fit", boost_fit},
        {"boost_import", boost_import},
        {NULL, NULL},
    };
    if (luaL_newmetatable(L, TREES_TYPE)) {
        binding_register(L, metamethods);
        lua_newtable(L);
        binding_register(L, methods);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
    binding_register(L, functions);
}
