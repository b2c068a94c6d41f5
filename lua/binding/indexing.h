/* indexing.h: x[i], x[{...}], assignments to them, and tensors as text. */
#ifndef RESIN_BINDING_INDEXING_H
#define RESIN_BINDING_INDEXING_H

#include "lua/binding/binding.h"

/* The axis at `index`, counted from 1 or from the end, as 0 .. rank - 1. */
int indexing_axis(lua_State *L, int index, int rank);

int indexing_get(lua_State *L);      /* __index with a number or a table */
int indexing_set(lua_State *L);      /* __newindex */
int indexing_slice(lua_State *L);    /* x:slice(axis, first, last[, step]) */
int indexing_select(lua_State *L);   /* x:select(axis, position) */
int indexing_tostring(lua_State *L); /* __tostring */

#endif
