--- repeat_ and stack: a layer several times.
local arguments = require "resin.slim.arguments"
local check = require "resin.nn.check"
local scopes = require "resin.slim.scopes"
local state = require "resin.slim.state"

local combine = {}

-- Calls `layer` once for each list of arguments, in scopes that are numbered: conv3/conv3_1 ...
local function apply(x, layer, calls, named, outer_name, other_name)
    local name = named.scope
    return scopes.enter(name, outer_name, x, nil, function()
        name = name or arguments.name_of(layer) or other_name
        local y = x
        for position, call in ipairs(calls) do
            local options = {}
            for key, value in pairs(named) do options[key] = value end
            for key, value in pairs(call.named) do options[key] = value end
            options.scope = name .. "_" .. position
            local ordered = table.move(call, 1, call.n, 1, {})
            ordered[call.n + 1] = options
            y = layer(y, table.unpack(ordered, 1, call.n + 1))
        end
        return y
    end)
end

local function check_call(what, x, layer)
    state.check_input(what, x)
    if type(layer) ~= "function" then
        check.fail("%s: expected a layer, as slim.conv2d, got %s", what, type(layer))
    end
end

--- slim.repeat_(x, 3, slim.conv2d, 256, {3, 3}, {scope = "conv3"}): the same layer with the same
--- arguments, in the scopes conv3/conv3_1 to conv3/conv3_3; without a scope Repeat/<layer>_1 ...
function combine.repeat_(x, repetitions, layer, ...)
    check_call("slim.repeat_", x, layer)
    check.integer("slim.repeat_", "repetitions", repetitions, 0)
    local call, named = arguments.split(...)
    call.named = {}
    local calls = {}
    for position = 1, repetitions do calls[position] = call end
    return apply(x, layer, calls, named, "Repeat", "repeat")
end

--- slim.stack(x, slim.fully_connected, {32, 64, 128}, {scope = "fc"}): a layer with other arguments
--- each time, a value or a list ({32, {3, 3}}), in the scopes fc/fc_1 ...; without one
--- Stack/<layer>_1 ...
function combine.stack(x, layer, stack_args, options)
    check_call("slim.stack", x, layer)
    if type(stack_args) ~= "table" or getmetatable(stack_args) then
        check.fail("slim.stack: expected a list with the arguments of each layer, got %s",
            type(stack_args))
    end
    local calls = {}
    for position, item in ipairs(stack_args) do
        local list = type(item) == "table" and not getmetatable(item) and item or {item}
        local call = {n = #list, named = {}}
        for key, value in pairs(list) do
            (math.type(key) == "integer" and call or call.named)[key] = value
        end
        calls[position] = call
    end
    return apply(x, layer, calls, options or {}, "Stack", "stack")
end

return combine
