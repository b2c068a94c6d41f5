--- Symbolic tensors: what nn.input gives and layers called on it return.
---
--- A node records one call of a layer: {layer, inputs (nodes), shape (without the batch axis),
--- dtype, id (rises with creation, so every node's inputs have smaller ids)}. `inner` is the graph
--- inside a layer made of layers: {inputs, output}. `region` is the checkpointed block that the node
--- was made in: {outer = the one around it}, or nil.
local check = require "resin.nn.check"
local shape = require "resin.nn.shape"

local Node = {__name = "resin.nn.node"}
Node.__index = Node

local node = {Node = Node}
local created = 0
local region -- what nodes are made in now

--- f(...) with what it makes in a region of its own.
function node.in_region(f, ...)
    local outer = region
    region = {outer = outer}
    local results = table.pack(pcall(f, ...))
    region = outer
    if not results[1] then error(results[2], 0) end
    return table.unpack(results, 2, results.n)
end

--- A new node. `scope` counts the layers met since nn.input, by kind, to name them in errors; the
--- graph inside a layer has none.
function node.new(layer, inputs, sizes, dtype)
    created = created + 1
    local scope = inputs[1] and inputs[1].scope
    return setmetatable({
        layer = layer, inputs = inputs, sizes = sizes, dtype_name = dtype, id = created,
        scope = scope, region = region,
    }, Node)
end

function node.is(value) return getmetatable(value) == Node end

--- Whether `x` is a node or a list of nodes; an error for a list that mixes nodes and tensors.
function node.is_symbolic(x)
    if node.is(x) then return true end
    if type(x) ~= "table" or getmetatable(x) or not node.is(x[1]) then return false end
    for position = 2, #x do
        if not node.is(x[position]) then
            check.fail("a layer's inputs are all symbolic (from nn.input) or all tensors")
        end
    end
    return true
end

--- The symbolic shape without the batch axis, {56, 56, 64}.
function Node:shape() return shape.copy(self.sizes) end

function Node:dtype() return self.dtype_name end

function Node:__tostring()
    return ("node %s of %s, shape %s"):format(self.dtype_name, self.layer:label(),
        shape.text(self.sizes))
end

return node
