--- What files call a model's tensors, and how they lay them out: the option `naming` of model:load
--- and model:save.
---
---   "resin"        as the model has them: conv1/weights (height, width, in, out), fc/weights (in,
---                  out), bn1/gamma, beta, moving_mean, moving_variance
---   "torchvision"  PyTorch's: conv1.weight (out, in, height, width), fc.weight (out, in),
---                  bn1.weight, bias, running_mean, running_var, num_batches_tracked; a dense layer
---                  after a flattened image counts it channel by channel
---   "keras"        conv1_conv/kernel and predictions/kernel, laid out as here; conv1_bn/gamma,
---                  beta, moving_mean, moving_variance. In files a ":0" at the end and a layer's
---                  name that comes twice (as in HDF5 files) are accepted.
local core = require "resin.core"
local activations = require "resin.nn.activations"
local check = require "resin.nn.check"
local conv = require "resin.nn.conv"
local dense = require "resin.nn.dense"
local graph = require "resin.nn.graph"
local norm = require "resin.nn.norm"
local shape = require "resin.nn.shape"

local naming = {}

---- Which image a vector was flattened from ----------------------------------------------------

local Dense, Flatten = dense.layers.dense, dense.layers.flatten
local BatchNorm = norm.layers.batch_norm

-- Layers that keep the order of a vector's elements.
local KEEPS_ORDER = {
    [dense.layers.dropout] = true, [dense.layers.rescale] = true, [BatchNorm] = true,
}
for _, class in pairs(activations.layers) do KEEPS_ORDER[class] = true end

-- All nodes of a graph and of those inside its layers. `outer` gets what stands for the inputs of
-- the inner ones.
local function all_nodes(nodes, outer, list)
    for _, one in ipairs(nodes) do
        list[#list + 1] = one
        if one.inner then
            for position, placeholder in ipairs(one.inner.inputs) do
                outer[placeholder] = one.inputs[position]
            end
            all_nodes(graph.nodes{one.inner.output}, outer, list)
        end
    end
    return list
end

local function image_behind(one, outer)
    while one and #one.sizes == 1 do
        local class = getmetatable(one.layer)
        if outer[one] then
            one = outer[one]
        elseif one.inner then
            one = one.inner.output
        elseif class == Flatten or KEEPS_ORDER[class] then
            one = one.inputs[1]
        else
            return nil
        end
    end
    return one and #one.sizes == 3 and one.sizes or nil
end

-- The images {height, width, channels} behind the inputs of layers, by layer.
local function flattened_images(model)
    local outer, images = {}, {}
    for _, one in ipairs(all_nodes(model.nodes, outer, {})) do
        local class = getmetatable(one.layer)
        local input = one.inputs[1]
        if (class == Dense or class == BatchNorm) and #input.sizes == 1 then
            images[one.layer] = image_behind(input, outer)
        end
    end
    return images
end

---- Layouts ------------------------------------------------------------------------------------

-- A layout says how to go from the model's tensor to the file's: reshape to `inner`, transpose by
-- `axes`, reshape to the file's shape. No layout: as it is.

local CONVOLUTIONS = {
    [conv.layers.conv2d] = true, [conv.layers.conv2d_transpose] = true,
    [norm.layers.conv_bn_act] = true,
}

local function pytorch_layout(layer, variable, sizes, image)
    local class = getmetatable(layer)
    if class == BatchNorm and image then return {inner = image, axes = {3, 1, 2}} end
    if variable ~= "weights" then return nil end
    if CONVOLUTIONS[class] then return {inner = sizes, axes = {4, 3, 1, 2}} end
    if class ~= Dense then return nil end
    if not image then return {inner = sizes, axes = {2, 1}} end
    return {inner = {image[1], image[2], image[3], sizes[2]}, axes = {4, 3, 1, 2}}
end

local function permuted(sizes, axes)
    local result = {}
    for position, axis in ipairs(axes) do result[position] = sizes[axis] end
    return result
end

local function file_shape(sizes, layout)
    if not layout then return sizes end
    local result = permuted(layout.inner, layout.axes)
    if #result == #sizes then return result end
    return #sizes == 1 and sizes or {sizes[2], sizes[1]} -- that of a flattened image
end

--- The model's tensor, or its gradient, as the file has it. A view where that is possible.
function naming.to_file(item, tensor)
    local layout = item.layout
    if not layout then return tensor end
    return core.no_grad(function()
        local view = tensor:reshape(layout.inner):transpose(layout.axes)
        return #item.shape == #layout.axes and view or view:reshape(item.shape)
    end)
end

--- Copies the file's tensor into the model's.
function naming.from_file(item, stored)
    local layout, own = item.layout, item.tensor
    core.no_grad(function()
        if not layout then
            own:copy_(stored)
            return
        end
        local back = {}
        for position, axis in ipairs(layout.axes) do back[axis] = position end
        local view = stored:reshape(permuted(layout.inner, layout.axes)):transpose(back)
        own:reshape(layout.inner):copy_(view)
    end)
end

---- Names --------------------------------------------------------------------------------------

local PYTORCH_NAMES = {
    weights = "weight", gamma = "weight", beta = "bias", moving_mean = "running_mean",
    moving_variance = "running_var",
}

local conventions = {
    resin = {
        name = function(layer, variable) return layer .. "/" .. variable end,
    },
    torchvision = {
        name = function(layer, variable)
            return layer:gsub("/", ".") .. "." .. (PYTORCH_NAMES[variable] or variable)
        end,
        layout = pytorch_layout,
        counts_batches = true,
    },
    keras = {
        name = function(layer, variable)
            return layer .. "/" .. (variable == "weights" and "kernel" or variable)
        end,
        canonical = function(name)
            name = name:gsub(":0$", "")
            local first, rest = name:match("^([^/]+)/(.+)$")
            return rest and rest:sub(1, #first + 1) == first .. "/" and rest or name
        end,
    },
}

--- Fails unless there is such a naming.
function naming.check(what, name)
    if not conventions[name] then
        check.fail('%s: unknown naming "%s"; there are resin, torchvision and keras', what,
            tostring(name))
    end
end

--- The namings there are.
naming.names = {"resin", "torchvision", "keras"}

-- PyTorch's batch norms also hold how many batches they have seen. Nothing here depends on it; it
-- is kept so that a file comes back as it was. Files of old do not have it.
local function batch_counter(entry, layer_name)
    return {name = layer_name:gsub("/", ".") .. ".num_batches_tracked", shape = {},
        counter_of = entry.layer}
end

--- All tensors that a file of the model holds by a naming: a list of {name (in the file), shape (in
--- the file), tensor (the model's), layout}, and {name, shape, counter_of = layer}, which may be
--- missing.
function naming.items(model, naming_name)
    local convention, items, taken = conventions[naming_name], {}, {}
    local images = convention.layout and flattened_images(model)
    local function add(item)
        if taken[item.name] then
            check.fail('%s: by the naming "%s" two of its tensors are called %s', model:label(),
                naming_name, item.name)
        end
        taken[item.name] = true
        items[#items + 1] = item
    end
    for _, entry in ipairs(model:variables()) do
        local layer_name, variable = entry.name:match("^(.*)/([^/]*)$")
        local sizes = entry.tensor:shape()
        local layout = convention.layout
            and convention.layout(entry.layer, variable, sizes, images[entry.layer])
        add{name = convention.name(layer_name, variable), shape = file_shape(sizes, layout),
            tensor = entry.tensor, layout = layout}
        if convention.counts_batches and variable == "moving_variance" then
            add(batch_counter(entry, layer_name))
        end
    end
    return items
end

--- The name by which `items` lists a tensor that the file calls `name`.
function naming.canonical(naming_name, name)
    local canonical = conventions[naming_name].canonical
    return canonical and canonical(name) or name
end

--- The tensor to write for an item.
function naming.written(item)
    if item.counter_of then return core.tensor(item.counter_of.batches_tracked or 0, "int64") end
    return naming.to_file(item, item.tensor:detach())
end

--- What of a float tensor's place is wrong with a tensor in a file, in words, or nil.
function naming.misfit(item, file, name)
    local stored, dtype, stored_dtype = file:shape(name), file:dtype(name)
    if item.counter_of then
        return shape.count(stored) ~= 1 and "the file has no single number" or nil
    end
    if not shape.equal(stored, item.shape) then
        return ("the file has {%s}, the model {%s}"):format(table.concat(stored, ", "),
            table.concat(item.shape, ", "))
    end
    if not dtype or item.tensor:dtype():find("float") and not dtype:find("float") then
        return ("the file has %s, the model %s"):format(stored_dtype, item.tensor:dtype())
    end
end

--- Loads one tensor of a file that fits into its place.
function naming.load(item, file, name)
    if item.counter_of then
        local count <close> = file:load(name)
        rawset(item.counter_of, "batches_tracked", math.tointeger(count:item()))
    elseif item.layout then
        local stored <close> = file:load(name)
        naming.from_file(item, stored)
    else
        file:load_into(name, item.tensor)
    end
end

return naming
