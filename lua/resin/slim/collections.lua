--- Collections and end points: outputs of layers by name, in the order in which they were made.
---
---   slim.arg_scope({slim.conv2d}, {outputs_collections = "points"}, function() ... end)
---   local end_points = slim.utils.convert_collection_to_dict("points")
---   for name, output in pairs(end_points) do ... end     -- in order
---   end_points["vgg_16/conv1/conv1_1"]
local check = require "resin.nn.check"
local state = require "resin.slim.state"

local collections = {}

-- The names in the end points, in order, by table of end points.
local orders = setmetatable({}, {__mode = "k"})

local EndPoints = {__name = "resin.slim.end_points"}

function EndPoints:__pairs()
    local position, order = 0, orders[self]
    return function()
        position = position + 1
        local name = order[position]
        if name then return name, self[name] end
    end
end

function EndPoints:__newindex(name, output)
    table.insert(orders[self], name)
    rawset(self, name, output)
end

function EndPoints:__len() return #orders[self] end

--- New end points: outputs by name; pairs() gives them in order, # their number.
function collections.end_points()
    local made = {}
    orders[made] = {}
    return setmetatable(made, EndPoints)
end

-- The list of a name, made at first need.
local function list_of(name)
    local all = state.graph.collections
    all[name] = all[name] or {}
    return all[name]
end

--- Adds an output (or a variable) under its name to a collection: a name, end points, or a list of
--- those.
function collections.add(collection, name, value)
    if not collection then return end
    if getmetatable(collection) == EndPoints then
        collection[name] = value
    elseif type(collection) == "string" then
        table.insert(list_of(collection), {name, value})
    elseif type(collection) == "table" then
        for _, one in ipairs(collection) do collections.add(one, name, value) end
    else
        check.fail("slim: a collection is a name or a list of names, got %s", type(collection))
    end
end

--- slim.get_collection(name): what is in a collection, a list.
function collections.get(name)
    local list = {}
    for position, entry in ipairs(state.graph.collections[name] or {}) do
        list[position] = entry[2]
    end
    return list
end

--- slim.utils.convert_collection_to_dict(name[, clear]): the same as end points.
function collections.convert_collection_to_dict(name, clear)
    local result = collections.end_points()
    for _, entry in ipairs(state.graph.collections[name] or {}) do result[entry[1]] = entry[2] end
    if clear then state.graph.collections[name] = nil end
    return result
end

return collections
