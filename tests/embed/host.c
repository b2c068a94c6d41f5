/* host.c: a program with Lua states of its own that runs scripts on the installed engine: what a
 * host does, and a test of it. `make test` builds it against build/embed-prefix through pkg-config,
 * as a stranger would, and passes the folder of the installed Lua files as INSTALLED_LUA. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <resin_lua.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int passed, failed;

static bool check(bool condition, const char *what) {
    if (condition) {
        passed++;
    } else {
        failed++;
        printf("failed: %s\n", what);
    }
    return condition;
}

/* A Lua state with the engine opened in it, or NULL. */
static lua_State *open_engine(void) {
    lua_State *L = luaL_newstate();
    if (!L) return NULL;
    luaL_openlibs(L);
    luaL_requiref(L, "resin.core", luaopen_resin_core, 0);
    lua_getglobal(L, "package");
    lua_pushliteral(L, INSTALLED_LUA "/?.lua;" INSTALLED_LUA "/?/init.lua");
    lua_setfield(L, -2, "path");
    lua_pushliteral(L, ""); /* No module of C beside the one that is linked. */
    lua_setfield(L, -2, "cpath");
    lua_settop(L, 0);
    return L;
}

/* Runs a script with the values on the stack as its arguments; its results replace them. On an
 * error prints the message, which stays on the stack. */
static bool run(lua_State *L, const char *script) {
    if (luaL_loadstring(L, script) == LUA_OK) {
        lua_insert(L, 1);
        if (lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0) == LUA_OK) return true;
    }
    printf("script: %s\n", lua_tostring(L, -1));
    return false;
}

/* Called by the engine when the last tensor over a buffer of this program is gone. */
static void count_call(void *user) {
    ++*(int *)user;
}

/* Pushes a tensor of 2 x 3 over `buffer`, nothing copied; `freed` counts the end of its use. */
static bool push_shared(lua_State *L, float *buffer, int *freed) {
    const int64_t shape[] = {2, 3};
    resin_tensor *tensor;
    if (resin_from_buffer(resin_lua_context(L), buffer, RESIN_FLOAT32, 2, shape, count_call, freed,
                          &tensor) != RESIN_OK) {
        printf("%s\n", resin_error_message(resin_lua_context(L)));
        return false;
    }
    resin_lua_push(L, tensor);
    resin_release(tensor); /* Lua has a reference of its own. */
    return true;
}

static void test_script(void) {
    lua_State *L = open_engine();
    bool ran = L && run(L, "local resin = require 'resin'\n"
                           "return resin.tensor({1, 2, 3}):sum():item(), resin.ones(2, 2) + 1");
    if (!check(ran, "a script runs on the engine")) return;
    check(lua_tonumber(L, 1) == 6, "a number comes back");
    resin_tensor *tensor = resin_lua_check(L, 2);
    const float *data = resin_tensor_data(tensor);
    check(resin_tensor_rank(tensor) == 2 && resin_tensor_count(tensor) == 4 &&
              resin_tensor_dtype(tensor) == RESIN_FLOAT32 && data[0] == 2 && data[3] == 2,
          "a tensor comes back");
    check(resin_tensor_context(tensor) == resin_lua_context(L), "in the context of the state");

    /* A reference keeps the tensor, and with it the engine, beyond the state. */
    resin_retain(tensor);
    lua_close(L);
    check(data[3] == 2, "a tensor outlives its state");
    resin_release(tensor);
}

static void test_shared_buffer(void) {
    float buffer[6] = {1, 2, 3, 4, 5, 6};
    int freed = 0;
    lua_State *L = open_engine();
    bool pushed = L && push_shared(L, buffer, &freed);
    if (!check(pushed, "a buffer becomes a tensor")) return;
    check(resin_tensor_data(resin_lua_check(L, 1)) == buffer, "nothing is copied");

    check(run(L, "shared = ...\n"
                 "return shared:sum():item(), shared[2][3]:item()"),
          "a script reads the buffer");
    check(lua_tonumber(L, 1) == 21 && lua_tonumber(L, 2) == 6, "Lua sees what C wrote");
    lua_settop(L, 0);

    buffer[0] = 100;
    check(run(L, "shared[2][3] = 7\n"
                 "local row = shared[1]\n"
                 "return row[1]:item()") &&
              lua_tonumber(L, 1) == 100,
          "Lua sees what C writes later");
    check(buffer[5] == 7, "C sees what Lua wrote");
    lua_settop(L, 0);

    check(run(L, "view = shared[1]; shared = nil; collectgarbage(); collectgarbage()") &&
              freed == 0,
          "a view keeps the buffer");
    lua_close(L);
    check(freed == 1, "the buffer is given back once, at lua_close");
}

static void test_gradient(void) {
    float weights[6] = {1, 2, 3, 4, 5, 6};
    int freed = 0;
    lua_State *L = open_engine();
    bool ran = L && push_shared(L, weights, &freed) &&
               run(L, "local w = ...\n"
                      "w:require_grad()\n"
                      "local loss = (w * w):sum()\n"
                      "loss:backward()\n"
                      "return w.grad");
    if (!check(ran, "backward runs through a shared buffer")) return;
    const float *grad = resin_tensor_data(resin_lua_check(L, 1));
    check(grad[0] == 2 && grad[5] == 12, "and leaves the gradient");
    lua_close(L);
    check(freed == 1, "the buffer of a leaf is given back once");
}

static void test_two_states(void) {
    lua_State *first = open_engine(), *second = open_engine();
    check(first && second && resin_lua_context(first) != resin_lua_context(second),
          "two states have contexts of their own");
    const char *draw = "local resin = require 'resin'\n"
                       "resin.seed(1)\n"
                       "return resin.rand(3)";
    if (!check(run(first, draw) && run(second, draw), "both draw numbers")) return;
    const float *one = resin_tensor_data(resin_lua_check(first, 1));
    const float *other = resin_tensor_data(resin_lua_check(second, 1));
    check(memcmp(one, other, 3 * sizeof(float)) == 0,
          "the same seed gives the same numbers in both");
    lua_close(first);
    lua_settop(second, 0);
    check(run(second, "return require('resin').ones(5):sum():item()") &&
              lua_tonumber(second, 1) == 5,
          "one goes on after the other is closed");
    lua_close(second);
}

/* A thread with an engine of its own; returns how many runs gave the right sum. */
static void *work(void *argument) {
    int *right = argument;
    lua_State *L = open_engine();
    for (int i = 0; L && i < 20; i++) {
        if (run(L, "local resin = require 'resin'\n"
                   "local a = resin.ones(64, 64)\n"
                   "return a:matmul(a):sum():item()") &&
            lua_tonumber(L, 1) == 64.0 * 64 * 64)
            ++*right;
        lua_settop(L, 0);
    }
    if (L) lua_close(L);
    return NULL;
}

static void test_two_threads(void) {
    int right[2] = {0, 0};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        if (!check(pthread_create(&threads[i], NULL, work, &right[i]) == 0, "a thread starts"))
            return;
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    check(right[0] == 20 && right[1] == 20, "two threads work at once, each with its state");
}

/* A script makes a network and its plan; the program runs it after Lua is gone. */
static void test_plan(void) {
    lua_State *L = open_engine();
    bool ran = L && run(L, "local resin = require 'resin'\n"
                           "local nn = resin.nn\n"
                           "local x = nn.input{8, 8, 3}\n"
                           "local y = nn.relu()(nn.conv2d{4, kernel = 3}(x))\n"
                           "local model = nn.model(x, nn.dense{5}(nn.flatten()(y)))\n"
                           "local image = resin.rand(1, 8, 8, 3)\n"
                           "return nn.plan(model, {1, 8, 8, 3}), image, model(image)");
    if (!check(ran, "a script makes a plan")) return;
    float image[8 * 8 * 3], expected[5];
    memcpy(image, resin_tensor_data(resin_lua_check(L, 2)), sizeof image);
    memcpy(expected, resin_tensor_data(resin_lua_check(L, 3)), sizeof expected);
    resin_plan *plan = resin_plan_retain(resin_lua_check_plan(L, 1));
    lua_close(L);
    const void *inputs[] = {image};
    size_t allocations = resin_memory(resin_plan_context(plan)).system_allocations;
    for (int i = 0; i < 3; i++)
        check(resin_plan_run(plan, inputs) == RESIN_OK, "the plan runs without Lua");
    const resin_plan_value output = resin_plan_output(plan, 0);
    check(output.rank == 2 && output.shape[1] == 5 && output.dtype == RESIN_FLOAT32 &&
              memcmp(output.data, expected, sizeof expected) == 0,
          "and gives what the script got");
    check(resin_memory(resin_plan_context(plan)).system_allocations == allocations &&
              resin_plan_memory(plan) > 0,
          "in memory that it had before");
    resin_plan_release(plan);
}

static void test_errors(void) {
    lua_State *L = open_engine();
    check(L && !run(L, "local resin = require 'resin'\n"
                       "return resin.ones(2, 3) + resin.ones(4, 5)"),
          "shapes that do not fit are an error of the script");
    const char *message = lua_tostring(L, -1);
    check(message && strstr(message, "add") && strchr(message, '3') && strchr(message, '5'),
          "whose message names the op and the shapes");
    lua_settop(L, 0);
    check(run(L, "return require('resin').ones(2):sum():item()") && lua_tonumber(L, 1) == 2,
          "the state goes on after an error");
    lua_close(L);
}

static int expect_tensor(lua_State *L) {
    resin_lua_check(L, 1);
    return 0;
}

static int expect_plan(lua_State *L) {
    resin_lua_check_plan(L, 1);
    return 0;
}

static void test_wrong_value(void) {
    lua_State *L = open_engine();
    lua_pushcfunction(L, expect_tensor);
    lua_pushinteger(L, 5);
    check(lua_pcall(L, 1, 0, 0) != LUA_OK && strstr(lua_tostring(L, -1), "#1"),
          "a value that is no tensor is a Lua error that names the argument");
    lua_settop(L, 0);
    lua_pushcfunction(L, expect_plan);
    lua_pushinteger(L, 5);
    check(lua_pcall(L, 1, 0, 0) != LUA_OK && strstr(lua_tostring(L, -1), "#1"),
          "and so is one that is no plan");
    lua_close(L);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0); /* What was said is seen even if the program dies. */
    check(resin_lua_abi_version() == RESIN_LUA_ABI_VERSION, "header and library fit");
    test_script();
    test_shared_buffer();
    test_gradient();
    test_two_states();
    test_two_threads();
    test_plan();
    test_errors();
    test_wrong_value();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
