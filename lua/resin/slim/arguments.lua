--- How slim's layers are called, and arg_scope.
---
---   slim.conv2d(x, 64, {3, 3}, {scope = "conv1"})     arguments in order, then by name
---
--- A table with names as keys comes last and holds arguments by name. Where Python says None, Lua
--- says false: nil in a table is nothing at all.
---
---   slim.arg_scope({slim.conv2d, slim.fully_connected}, {activation_fn = "elu"}, function(scope)
---       ...                         -- defaults of these layers' arguments in here
---   end)
---   local scope = slim.arg_scope({slim.conv2d}, {padding = "VALID"})   -- saved for later
---   slim.arg_scope(scope, function() ... end)         -- it takes the place of all scopes around
---
--- An argument that is given wins, then the innermost scope that has it for this layer.
local check = require "resin.nn.check"

local arguments = {}

-- What is known of the layers that take scopes, by function.
local layers = {}

local Scope = {__name = "resin.slim.scope"} -- layer -> arguments by name
local current = setmetatable({}, Scope)

local function is_named(value)
    return type(value) == "table" and not getmetatable(value)
        and (next(value) == nil or type(next(value)) == "string")
end

--- Splits the arguments of a call: those in order (with n), and those by name.
function arguments.split(...)
    local given = table.pack(...)
    local last = given[given.n]
    if given.n == 0 or not is_named(last) then return given, {} end
    given[given.n], given.n = nil, given.n - 1
    return given, last
end

--- The arguments of a call by name. `spec`: {title, positional = names in order, defaults = name ->
--- default (see check.options)}; `outside`: those that a scope gives.
function arguments.read(spec, outside, ...)
    local ordered, named = arguments.split(...)
    local given = {}
    for name, value in pairs(outside or {}) do given[name] = value end
    for position = 1, ordered.n do
        local name = spec.positional[position]
        if not name then
            check.fail("%s: expected at most %d arguments in order, got %d; the others are given "
                .. "by name, in a table at the end", spec.title, #spec.positional, ordered.n)
        end
        if ordered[position] ~= nil then given[name] = ordered[position] end
    end
    for name, value in pairs(named) do
        for position = 1, ordered.n do
            if spec.positional[position] == name and ordered[position] ~= nil then
                check.fail("%s: %s is given twice", spec.title, name)
            end
        end
        given[name] = value
    end
    return check.options(spec.title, given, spec.defaults)
end

--- A layer that takes scopes: slim.add_arg_scope{name = "block", positional = {"depth", "stride"},
--- defaults = {depth = 64, stride = 1, scope = ""}, call = function(x, given) ... end} is called as
--- block(x, 32, {stride = 2}); `call` gets all arguments by name. `name` names its scopes in
--- repeat_ and stack, `title` (or name) errors.
function arguments.layer(spec)
    spec.title, spec.positional = spec.title or spec.name, spec.positional or {}
    if type(spec.call) ~= "function" or type(spec.name) ~= "string" then
        check.fail("slim.add_arg_scope: expected {name =, positional =, defaults =, call =}")
    end
    local function f(x, ...) return spec.call(x, arguments.read(spec, current[f], ...)) end
    layers[f] = spec
    return f
end

--- The name of a layer that takes scopes, or nil.
function arguments.name_of(f) return layers[f] and layers[f].name end

---- Scopes -------------------------------------------------------------------------------------

function arguments.is_scope(value) return getmetatable(value) == Scope end

local function copy(given)
    local result = {}
    for key, value in pairs(given or {}) do result[key] = value end
    return result
end

-- Runs f(scope) with `scope` in force.
local function inside(scope, f)
    local outer = current
    local back <close> = setmetatable({}, {__close = function() current = outer end})
    current = scope
    return f(scope)
end

-- The scope in force with `given` for each layer of the list.
local function extend(list, given)
    local scope = setmetatable(copy(current), Scope)
    for position, layer in ipairs(list) do
        local spec = layers[layer]
        if not spec then
            check.fail("slim.arg_scope: item %d of the list takes no scope; it must be a layer, as "
                .. "slim.conv2d, or made by slim.add_arg_scope", position)
        end
        scope[layer] = copy(scope[layer])
        for name, value in pairs(given) do
            if spec.defaults[name] == nil then
                check.fail('slim.arg_scope: %s has no argument "%s"', spec.title, tostring(name))
            end
            scope[layer][name] = value
        end
    end
    return scope
end

--- slim.arg_scope(list, arguments, f) or slim.arg_scope(scope, f): runs f(scope) and returns what
--- it returns; without f it returns the scope.
function arguments.arg_scope(list, given, f)
    local scope
    if arguments.is_scope(list) then
        if type(given) == "table" then
            check.fail("slim.arg_scope: a saved scope takes no arguments; give them to a scope "
                .. "inside")
        end
        scope, f = list, given
    else
        if type(list) == "function" then list = {list} end
        if type(list) ~= "table" or #list == 0 then
            check.fail("slim.arg_scope: expected a list of layers or a saved scope, got %s",
                type(list) == "table" and "an empty table" or type(list))
        end
        if not is_named(given) then
            check.fail('slim.arg_scope: expected arguments by name, as {padding = "SAME"}')
        end
        scope = extend(list, given)
    end
    if f == nil then return scope end
    if type(f) ~= "function" then
        check.fail("slim.arg_scope: expected a function last, got %s", type(f))
    end
    return inside(scope, f)
end

--- Runs f with a scope's arguments where the scopes around say nothing. `make` makes the scope
--- outside of all others.
function arguments.with_defaults(make, f)
    local scope = inside(setmetatable({}, Scope), function() return make() end)
    local merged = setmetatable(copy(current), Scope)
    for layer, given in pairs(scope) do
        merged[layer] = copy(given)
        for name, value in pairs(current[layer] or {}) do merged[layer][name] = value end
    end
    return inside(merged, f)
end

--- slim.current_arg_scope(): the one in force.
function arguments.current() return current end

--- slim.has_arg_scope(f): whether f is a layer that takes scopes.
function arguments.has_arg_scope(f) return layers[f] ~= nil end

return arguments
