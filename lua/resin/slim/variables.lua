--- Variables: tensors with a name, which layers make and share.
---
--- A variable is {name, tensor, trainable, regularizer, is_model}. Lists of them, as
--- slim.get_trainable_variables() returns, may be given to an optimizer: optim.adam{list}.
local core = require "resin.core"
local check = require "resin.nn.check"
local initializers = require "resin.nn.initializers"
local collections = require "resin.slim.collections"
local regularizers = require "resin.slim.regularizers"
local scopes = require "resin.slim.scopes"
local shape = require "resin.nn.shape"
local state = require "resin.slim.state"

local variables = {}

-- The variable that reuse takes, or nil.
local function find(owner, name, reuse)
    local own = state.table_of(state.graph.stores, owner)[name]
    if own or not reuse then return own end
    return state.graph.variables[name]
end

local function check_existing(variable, sizes, dtype)
    local tensor = variable.tensor
    if not shape.equal(tensor:shape(), sizes) then
        check.fail('slim: the variable "%s" has the shape {%s}, the layer needs {%s}',
            variable.name, table.concat(tensor:shape(), ", "), table.concat(sizes, ", "))
    end
    if tensor:dtype() ~= dtype then
        check.fail('slim: the variable "%s" is %s, the layer needs %s', variable.name,
            tensor:dtype(), dtype)
    end
end

local function remember(owner, variable)
    local graph = state.graph
    if not graph.variables[variable.name] then
        table.insert(graph.names, variable.name)
    end
    graph.variables[variable.name] = variable
    state.table_of(graph.stores, owner)[variable.name] = variable
end

local function check_regularizer(owner, name, regularizer)
    if not regularizer or regularizers.is_penalty(regularizer) then return end
    if type(regularizer) ~= "function" then
        check.fail('slim: the regularizer of "%s" must be a function, as slim.l2_regularizer(0.1) '
            .. "makes, got %s", name, type(regularizer))
    end
    if not state.is_for_tensors(owner) then
        check.fail('slim: a model cannot train "%s" with a regularizer of your own, only with '
            .. "slim's; functions are added to the total loss on tensors", name)
    end
end

-- "weights" -> what is said for it, where collections are given by name of variable.
local function collection_of(given, short_name)
    if type(given) == "table" and given[1] == nil then return given[short_name] end
    return given
end

--- The variable `short_name` of the scope in force, made or reused. options: initializer,
--- regularizer, trainable, collections, is_model; fan_in, fan_out for the initializer.
function variables.get(owner, short_name, sizes, dtype, options)
    local scope = scopes.current()
    local name = scope:join(short_name)
    local variable = find(owner, name, scope.reuse)
    if variable and not scope.reuse then
        check.fail('slim: there is a variable "%s" already; reuse = true shares it, another scope '
            .. "makes a new one", name)
    elseif variable then
        check_existing(variable, sizes, dtype)
        state.table_of(state.graph.stores, owner)[name] = variable
        check_regularizer(owner, name, variable.regularizer)
        return variable
    elseif scope.reuse == true then
        check.fail('slim: there is no variable "%s" to reuse; reuse = "auto" makes what is missing',
            name)
    end
    check_regularizer(owner, name, options.regularizer)
    local trainable = options.trainable ~= false
    local tensor = initializers.make(options.initializer or "glorot_uniform", sizes, dtype,
        options.fan_in, options.fan_out)
    variable = {
        name = name, tensor = tensor:require_grad(trainable), trainable = trainable,
        regularizer = options.regularizer or nil, is_model = options.is_model ~= false,
    }
    remember(owner, variable)
    collections.add(collection_of(options.collections, short_name), name, variable)
    return variable
end

--- slim.variable(name, shape[, {initializer =, regularizer =, trainable = true, dtype =, reuse =,
--- collections =}]): the tensor of a variable of your own, in the scope in force.
local function variable_of(what, is_model)
    return function(name, sizes, options)
        options = check.options(what, options or {}, {
            initializer = "glorot_uniform", regularizer = check.optional, trainable = true,
            dtype = "float32", reuse = check.optional, collections = check.optional,
        })
        if type(name) ~= "string" or type(sizes) ~= "table" then
            check.fail('%s: expected a name and a shape, as ("weights", {3, 3, 64, 128})', what)
        end
        options.is_model = is_model
        local function get()
            local owner = state.owner()
            return variables.get(owner, name, sizes, options.dtype, options).tensor
        end
        if options.reuse == nil then return get() end
        local scope = scopes.current()
        local before = scope.reuse
        local back <close> = setmetatable({}, {__close = function() scope.reuse = before end})
        scope.reuse = options.reuse
        return get()
    end
end

variables.variable = variable_of("slim.variable", false)

--- slim.model_variable: likewise, and among slim.get_model_variables().
variables.model_variable = variable_of("slim.model_variable", true)

---- Lists --------------------------------------------------------------------------------------

local List = {}
List.__index = List

--- What an optimizer takes: all in one flat buffer.
function List:flat_parameters()
    local tensors = {}
    for position, variable in ipairs(self) do tensors[position] = variable.tensor end
    if #tensors == 0 then check.fail("slim: there are no variables to optimize") end
    return core.parameters(tensors)
end

-- The variables that `is_wanted`, in the order of their names' first making. scope: the beginning
-- of the name, in whole parts; suffix: its last part.
local function list(scope, suffix, is_wanted)
    local found = setmetatable({}, List)
    if type(scope) == "table" then scope = scope.name end
    for _, name in ipairs(state.graph.names) do
        local variable = state.graph.variables[name]
        local inside = not scope or scope == "" or name == scope
            or name:sub(1, #scope + 1) == scope .. "/"
        local ends = not suffix or name:match("[^/]*$") == suffix
        if inside and ends and is_wanted(variable) then found[#found + 1] = variable end
    end
    return found
end

--- slim.get_variables([scope[, suffix]]): a list of variables; of each name the one made last.
function variables.get_variables(scope, suffix)
    return list(scope, suffix, function() return true end)
end

--- slim.get_model_variables([scope[, suffix]]): those of layers, moving statistics included.
function variables.get_model_variables(scope, suffix)
    return list(scope, suffix, function(variable) return variable.is_model end)
end

--- slim.get_trainable_variables([scope[, suffix]]): those that are trained.
function variables.get_trainable_variables(scope, suffix)
    return list(scope, suffix, function(variable) return variable.trainable end)
end

--- slim.get_variables_by_name(suffix[, scope]): all "weights", for example.
function variables.get_variables_by_name(suffix, scope)
    return variables.get_variables(scope, suffix)
end

--- slim.get_unique_variable(name): the one with this full name.
function variables.get_unique_variable(name)
    local variable = state.graph.variables[name]
    if not variable then check.fail('slim: there is no variable "%s"', tostring(name)) end
    return variable
end

return variables
