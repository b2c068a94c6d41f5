--- Variable scopes: what stands in front of the names of variables, and whether they are reused.
---
---   slim.variable_scope("net", {reuse = true}, function(scope) ... end)
---
--- reuse: false makes new variables (a name that is there already is an error), true takes those
--- that are there (a missing one is an error), "auto" makes those that are missing. Scopes inside
--- inherit it. Layers without a scope are counted by kind: Conv, Conv_1 ...; the count starts anew
--- each time a scope is entered.
local check = require "resin.nn.check"
local state = require "resin.slim.state"

local scopes = {}

local Scope = {__name = "resin.slim.variable_scope"}
Scope.__index = Scope

-- The scope in force of a graph; outside of all, one that has no name.
local function current()
    local graph = state.graph
    if not graph.scope then
        graph.scope = setmetatable({name = "", reuse = false, counts = graph.counts}, Scope)
    end
    return graph.scope
end
scopes.current = current

--- From here on the scope's variables are reused.
function Scope:reuse_variables() self.reuse = true end

--- The full name of something inside the scope.
function Scope:join(name) return self.name == "" and name or self.name .. "/" .. name end

local function check_reuse(reuse)
    if reuse ~= nil and type(reuse) ~= "boolean" and reuse ~= "auto" then
        check.fail('slim: reuse must be true, false or "auto", got %s', tostring(reuse))
    end
end

-- The name that a layer of x without a scope gets.
local function count_default(scope, owner, default)
    local counts = state.table_of(scope.counts, owner)
    local count = counts[default] or 0
    counts[default] = count + 1
    return count == 0 and default or default .. "_" .. count
end

--- Runs f(scope, ...) in the scope `name`, a string or a scope that was entered before; without one
--- in `default`, counted for the owner of x.
function scopes.enter(name, default, x, reuse, f, ...)
    local outer, graph = current(), state.graph
    check_reuse(reuse)
    local full
    if getmetatable(name) == Scope then
        full, reuse = name.name, reuse or name.reuse
    elseif type(name) == "string" and name:find("[^/]") then
        full = outer:join(name)
        local counts = state.table_of(outer.counts, state.owner(x))
        counts[name] = (counts[name] or 0) + 1
    elseif name then
        check.fail('slim: a scope is a name, as "conv1", got %s', type(name) == "string"
            and '"' .. name .. '"' or type(name))
    else
        if reuse == true then check.fail("slim: reuse = true needs a scope to be named") end
        full = outer:join(count_default(outer, state.owner(x), default))
    end
    local scope = setmetatable({
        name = full, reuse = reuse or outer.reuse, counts = setmetatable({}, {__mode = "k"}),
    }, Scope)
    local back <close> = setmetatable({}, {__close = function() graph.scope = outer end})
    graph.scope = scope
    return f(scope, ...)
end

--- slim.variable_scope(name[, {reuse =}], f): runs f(scope) and returns what it returns. `name` is
--- a string or a scope that was entered before.
function scopes.variable_scope(name, options, f)
    if type(options) == "function" then options, f = nil, options end
    options = check.options("slim.variable_scope", options or {}, {reuse = check.optional})
    if type(f) ~= "function" then
        check.fail("slim.variable_scope: expected a function last, got %s", type(f))
    end
    if not name then check.fail("slim.variable_scope: expected a name first") end
    return scopes.enter(name, nil, nil, options.reuse, f)
end

return scopes
