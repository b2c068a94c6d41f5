--- What slim remembers between calls, and how long.
---
--- A layer called on what comes from an nn.input makes its variables for that input's graph, one
--- called on tensors for the program's tensors: these are the two kinds of owners. Without reuse a
--- name may come once with each owner, so that a network can be built twice in one program. With
--- reuse the owner's own variable of that name is taken, else the one that was made last: that is
--- how two inputs, or a graph and tensors, share weights.
local core = require "resin.core"
local check = require "resin.nn.check"
local node = require "resin.nn.node"

local state = {}

local WEAK_KEYS = {__mode = "k"}

-- The owner of variables that are made for tensors.
local TENSORS = {}

local function new_graph()
    local function by_owner() return setmetatable({}, WEAK_KEYS) end
    return {
        variables = {},         -- by name: the one made last
        names = {},             -- of the variables, in order
        stores = by_owner(),    -- the variables of each owner by name
        counts = by_owner(),    -- the default names given outside of all scopes
        collections = {},       -- lists by name
        losses = {},
    }
end

state.graph = new_graph()

--- Forgets all variables, collections and losses. Models keep what they have.
function state.reset() state.graph = new_graph() end

--- Runs f(...) with variables, names, collections and losses of its own.
function state.in_new_graph(f, ...)
    local outer = state.graph
    local back <close> = setmetatable({}, {__close = function() state.graph = outer end})
    state.graph = new_graph()
    return f(...)
end

--- The owner of x, a symbolic node or a tensor.
function state.owner(x)
    if node.is(x) then return x.scope or TENSORS end
    return TENSORS
end

function state.is_for_tensors(owner) return owner == TENSORS end

--- state.table_of(state.graph.stores, owner), made at first need.
function state.table_of(by_owner, owner)
    local found = by_owner[owner]
    if not found then
        found = {}
        by_owner[owner] = found
    end
    return found
end

--- Fails unless x is something that a layer can be called on.
function state.check_input(what, x)
    if node.is(x) or core.is_tensor(x) then return end
    check.fail("%s: expected a tensor or what comes from nn.input first, got %s", what, type(x))
end

return state
