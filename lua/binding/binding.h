/* binding.h: shared by the files of the binding. They check arguments and call resin.h, nothing more.
 *
 * No C resource is held across a Lua call that may raise: a userdata is created empty, given its
 * metatable, and only then acquires what it owns. */
#ifndef RESIN_BINDING_H
#define RESIN_BINDING_H

#include <lauxlib.h>
#include <lua.h>

#include "core/resin.h"

#define TENSOR_TYPE "resin.tensor"

/* The state's context: upvalue 1 of every function of the module (see binding_register). */
resin_context *binding_context(lua_State *L);

/* Pushes what binding_context reads: the upvalue for closures made by hand. */
void binding_push_context(lua_State *L);

/* Raises the Lua error of a status that is not RESIN_OK, with the context's message. */
void binding_check(lua_State *L, resin_status status);

/* Runs Lua's collector when the engine holds much more than after the last collection (or in any
 * case), so that tensors nobody reaches give their memory back. */
void binding_collect(lua_State *L, bool force);

/* Pushes a new, empty tensor userdata; the caller stores one reference in the slot. Runs
 * binding_collect first. */
resin_tensor **binding_new_tensor(lua_State *L);

/* The tensor at `index`, or an error that says what stands there. */
resin_tensor *binding_tensor(lua_State *L, int index);
resin_tensor *binding_test_tensor(lua_State *L, int index); /* NULL if it is none, no error */

/* Gives the tensor at `index` back before the collector does. */
void binding_release_tensor(lua_State *L, int index);

/* What checkpointed blocks of a state share (checkpoint_binding.c). Around a call of the engine that
 * may run blocks: enter, and leave with what it returned, which raises the error of status. */
typedef struct binding_blocks binding_blocks;
binding_blocks *binding_blocks_new(void);
void binding_blocks_release(binding_blocks *blocks);
binding_blocks *binding_blocks_of(lua_State *L);
lua_State *binding_blocks_enter(lua_State *L);
void binding_blocks_leave(lua_State *L, lua_State *before, resin_status status);

/* Integers from a list {2, 3} at `index` into at most RESIN_MAX_RANK entries; returns the count. */
int binding_ints(lua_State *L, int index, int64_t *ints, const char *what);
/* Numbers by channel from the list `name` of the table at `index`; what is missing is 0. */
void binding_channel_numbers(lua_State *L, int index, const char *name,
                             float numbers[RESIN_MAX_CHANNELS]);
/* A dtype name at `index`, or `fallback` when there is none. */
resin_dtype binding_dtype(lua_State *L, int index, resin_dtype fallback);

/* Each file registers its functions in the module table on top of the stack. Functions get the
 * context as upvalue 1. */
void binding_register(lua_State *L, const luaL_Reg *functions);
void binding_open_tensor(lua_State *L);  /* tensor.c: the type and its methods */
void binding_open_ops(lua_State *L);     /* ops.c: the table of ops */
void binding_open_plan(lua_State *L);    /* plan_binding.c: recorded computations */
void binding_open_engine(lua_State *L);  /* engine.c: threads, memory, random state */
void binding_open_checkpoint(lua_State *L); /* checkpoint_binding.c: blocks that run again */
void binding_open_measure(lua_State *L); /* measure_binding.c: peaks, profiles */
void binding_open_data(lua_State *L);    /* data_binding.c: files and data sets */
void binding_open_loader(lua_State *L);  /* loader_binding.c: batches in the background, PNG */
void binding_open_image(lua_State *L);   /* image_binding.c: pictures and folders */
void binding_open_optim(lua_State *L);   /* optim_binding.c: parameters and optimizers */
void binding_open_boost(lua_State *L);   /* boost_binding.c: trees and boosting */

#endif
