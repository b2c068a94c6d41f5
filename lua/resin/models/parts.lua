--- What several of the networks share: options, activations, the sum of a block with its shortcut,
--- and what stands on the last feature maps.
local check = require "resin.nn.check"
local nn = require "resin.nn"
local shape = require "resin.nn.shape"

local parts = {}

-- Options of every network whose end `parts.ending` builds:
--
--   activation             "relu": a name that nn.activation knows, or a function
--   top                    true; false leaves out the dense layer
--   pooling                "avg", "max" or "none" (the dense layer acts at every pixel then); "avg"
--                          with the top and "none" without it if left out
--   classifier_activation  of the dense layer, as "softmax"; none: logits
--   dropout                0: the part dropped in front of the dense layer
--   l1, l2                 penalties of the convolutions' and the dense layer's weights
local COMMON = {
    activation = "relu", top = true, pooling = check.optional,
    classifier_activation = check.optional, dropout = 0, l1 = check.optional, l2 = check.optional,
}

--- The options of a network: its own, and those above (its own defaults win).
function parts.options(what, given, defaults, first)
    local allowed = {}
    for name, default in pairs(COMMON) do allowed[name] = default end
    for name, default in pairs(defaults) do allowed[name] = default end
    return check.options(what, given, allowed, first)
end

--- A list of `count` integers of at least 1, from such a list or from one number for all.
function parts.list(what, name, given, count)
    local list = given
    if type(given) ~= "table" then
        list = {}
        for position = 1, count do list[position] = given end
    end
    if #list ~= count then
        check.fail("%s: %s is a number or a list of %d, got a list of %d", what, name, count, #list)
    end
    for position = 1, count do check.integer(what, name, list[position], 1) end
    return list
end

--- The filters of `count` stages: `filters` if given, else width, 2 width, 4 width ...
function parts.stage_filters(what, width, filters, count)
    if filters ~= nil then return parts.list(what, "filters", filters, count) end
    local list = {}
    for stage = 1, count do list[stage] = check.integer(what, "width", width, 1) << (stage - 1) end
    return list
end

--- A function activate(x) for a kind of activation.
function parts.activation(kind)
    if kind == "relu" then return nn.relu end
    return function(x) return nn.activation(kind)(x) end
end

function parts.channels(x)
    local sizes = x:shape()
    return sizes[#sizes]
end

--- a + b, with an error that names the block they belong to.
function parts.sum(block, a, b)
    if not shape.equal(a:shape(), b:shape()) then
        check.fail("%s: the sum has two shapes, %s and the shortcut's %s", block,
            shape.text(a:shape()), shape.text(b:shape()))
    end
    return a + b
end

local POOLS = {avg = nn.global_avg_pool, max = nn.global_max_pool, none = false}

local function pool(what, kind, y, name)
    local layer = POOLS[kind]
    if layer == nil then
        check.fail('%s: pooling must be "avg", "max" or "none", got %s', what, tostring(kind))
    end
    return layer and layer{name = name}(y) or y
end

--- What stands on the last feature maps y, by the options above. how: the dense layer's name and
--- initializer, and the names of the pools, {avg =, max =}.
function parts.ending(what, y, options, how)
    how = how or {}
    local kind = options.pooling or (options.top and "avg" or "none")
    y = pool(what, kind, y, how[kind])
    if not options.top then return y end
    if options.dropout ~= 0 then y = nn.dropout(options.dropout)(y) end
    return nn.dense{
        options.classes, activation = options.classifier_activation, l1 = options.l1,
        l2 = options.l2, initializer = how.initializer, name = how.name,
    }(y)
end

--- A network that is ready, with the end that top, pooling and classifier_activation ask for.
function parts.with_ending(what, model, options)
    local x, y = model.inputs[1], model.outputs[1]
    if options.top then
        if options.pooling then check.fail("%s: pooling goes with top = false", what) end
        if not options.classifier_activation then return model end
        return nn.model(x, nn.activation(options.classifier_activation)(y))
    end
    -- Back to the last feature maps; torchvision's VGG has brought those to 7x7 for its top.
    while #y:shape() ~= 3 or getmetatable(y.layer) == nn.adaptive_avg_pool2d do y = y.inputs[1] end
    return nn.model(x, pool(what, options.pooling or "none", y))
end

return parts
