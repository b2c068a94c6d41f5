--- nn.input, and what is known about a graph of symbolic nodes: its order, depths and names.
local check = require "resin.nn.check"
local layer = require "resin.nn.layer"
local node = require "resin.nn.node"

local graph = {}

local InputLayer = layer.class("InputLayer")
graph.InputLayer = InputLayer

--- nn.input{224, 224, 3}, or {shape = {224, 224, 3}, name =, dtype = "float32"}: a symbolic tensor
--- (N, 224, 224, 3) to call layers on. The batch axis is not given; it is free.
function graph.input(given)
    if type(given) ~= "table" then
        check.fail("input: expected a shape without the batch axis, as nn.input{224, 224, 3}")
    end
    local sizes = given.shape or table.move(given, 1, #given, 1, {})
    for key in pairs(given) do
        if math.type(key) == nil and key ~= "shape" and key ~= "name" and key ~= "dtype" then
            check.fail('input: unknown option "%s"; it takes shape, name, dtype', tostring(key))
        end
    end
    for axis, size in ipairs(sizes) do sizes[axis] = check.integer("input", "a size", size, 1) end
    local dtype = given.dtype or "float32"
    local made = InputLayer{name = given.name}
    rawset(made, "built", true)
    local result = node.new(made, {}, sizes, dtype)
    result.scope = {}
    return result
end

--- All nodes that `outputs` depend on, in the order of their creation: inputs before what uses
--- them.
function graph.nodes(outputs)
    local found, waiting, seen = {}, {}, {}
    local function visit(one)
        if seen[one] then return end
        seen[one] = true
        found[#found + 1], waiting[#waiting + 1] = one, one
    end
    for _, output in ipairs(outputs) do visit(output) end
    while #waiting > 0 do
        for _, input in ipairs(table.remove(waiting).inputs) do visit(input) end
    end
    table.sort(found, function(a, b) return a.id < b.id end)
    return found
end

--- Depths counted from the outputs: of nodes, and of layers the largest of their nodes'.
function graph.depths(nodes)
    local of_node, of_layer = {}, {}
    for position = #nodes, 1, -1 do
        local one = nodes[position]
        local depth = math.max(of_node[one] or 0, of_layer[one.layer] or 0)
        of_node[one], of_layer[one.layer] = depth, depth
        for _, input in ipairs(one.inputs) do
            of_node[input] = math.max(of_node[input] or 0, depth + 1)
        end
    end
    return of_node, of_layer
end

--- The layers of the nodes as Keras sorts them: by depth from the output, ties by creation.
function graph.layers(nodes)
    local _, depth = graph.depths(nodes)
    local layers = {}
    for one in pairs(depth) do layers[#layers + 1] = one end
    table.sort(layers, function(a, b)
        if depth[a] ~= depth[b] then return depth[a] > depth[b] end
        return a._id < b._id
    end)
    return layers
end

--- Names by layer: those given, others counted by kind in the order of creation, as Keras does:
--- conv2d, conv2d_1 ...; input_1, input_2 ...
function graph.names(layers, what)
    local names, taken, by_creation = {}, {}, table.move(layers, 1, #layers, 1, {})
    table.sort(by_creation, function(a, b) return a._id < b._id end)
    for _, one in ipairs(by_creation) do
        local name = rawget(one, "name")
        if name then
            if taken[name] then
                check.fail('%s: two layers are called "%s"; give one of them another name', what,
                    name)
            end
            names[one], taken[name] = name, true
        end
    end
    local counts = {}
    for _, one in ipairs(by_creation) do
        local kind = getmetatable(one) == InputLayer and "input" or one.default_name
        local count = counts[kind] or (kind == "input" and 1 or 0)
        while not names[one] do
            local name = count == 0 and kind or kind .. "_" .. count
            count = count + 1
            if not taken[name] then names[one], taken[name] = name, true end
        end
        counts[kind] = count
    end
    return names
end

return graph
