--- Builds an ONNX graph: values, nodes and initializers, and the bytes of the whole model
--- (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
---
--- The engine's images are (N, H, W, C), those of ONNX (N, C, H, W). A value knows how it lies, and
--- a converter asks for what its operator needs: builder:channels_last(x) or
--- builder:channels_first(x) puts a Transpose between only where x lies otherwise, once. In a usual
--- network that is one behind the input.
local core = require "resin.core"
local protobuf = require "resin.onnx.protobuf"
local shape = require "resin.nn.shape"

-- Opset 17 (ONNX 1.12, June 2022) has all that is needed.
local IR_VERSION, OPSET = 8, 17

-- TensorProto.DataType
local DATA_TYPES = {float32 = 1, uint8 = 2, int8 = 3, int32 = 6, int64 = 7}

local Builder = {}
Builder.__index = Builder

local builder = {data_types = DATA_TYPES}

function builder.new()
    return setmetatable({
        nodes = {}, initializers = {}, inputs = {}, outputs = {}, taken = {}, of_tensor = {},
        of_constant = {},
    }, Builder)
end

---- Values -------------------------------------------------------------------------------------

-- A name that no other value or node has.
local function unique(self, name)
    local result, count = name, 0
    while self.taken[result] do
        count = count + 1
        result = name .. "_" .. count
    end
    self.taken[result] = true
    return result
end

-- sizes: as the engine has them, (H, W, C), whatever the layout.
local function new_value(name, sizes, dtype, is_channels_first)
    local value = {name = name, sizes = sizes, dtype = dtype}
    -- With at most one axis beside the batch's both layouts are one.
    if #sizes <= 1 or not is_channels_first then value.channels_last = value end
    if #sizes <= 1 or is_channels_first then value.channels_first = value end
    return value
end

--- What the step that is converted now is called: its nodes and values are named after it.
function Builder:start(step) self.step = step end

--- Adds a node; returns its output. inputs: values, initializers, or false for one left out.
--- attributes: integers, floats, lists of integers. result: {sizes, dtype, channels_first}, by
--- default the shape and dtype of the step.
function Builder:node(operator, inputs, attributes, result)
    result = result or {}
    local name = unique(self, self.step.name .. "/" .. operator)
    local value = new_value(name, result.sizes or self.step.sizes, result.dtype or self.step.dtype,
        result.channels_first)
    self.nodes[#self.nodes + 1] = {
        operator = operator, name = name, inputs = inputs, output = value,
        attributes = attributes or {},
    }
    return value
end

--- A node whose output has shape, dtype and layout of its input `x`.
function Builder:like(x, operator, inputs, attributes)
    return self:node(operator, inputs, attributes, {
        sizes = x.sizes, dtype = x.dtype, channels_first = x.channels_first == x,
    })
end

-- The value in the other layout.
local function transposed(self, x, is_channels_first)
    local permutation, rank = {0}, #x.sizes + 1
    for axis = 1, rank - 1 do
        permutation[axis + 1] = is_channels_first and (axis - 2) % (rank - 1) + 1
            or axis % (rank - 1) + 1
    end
    return self:node("Transpose", {x}, {perm = permutation},
        {sizes = x.sizes, dtype = x.dtype, channels_first = is_channels_first})
end

--- The value laid as the engine has it.
function Builder:channels_last(x)
    if not x.channels_last then
        x.channels_last = transposed(self, x, false)
        x.channels_last.channels_first = x
    end
    return x.channels_last
end

--- The value with the channels behind the batch's axis.
function Builder:channels_first(x)
    if not x.channels_first then
        x.channels_first = transposed(self, x, true)
        x.channels_first.channels_last = x
    end
    return x.channels_first
end

--- The values in one layout: channels first where they differ.
function Builder:alike(values)
    local first, any = false, {}
    for _, x in ipairs(values) do first = first or x.channels_first == x end
    for position, x in ipairs(values) do
        any[position] = first and self:channels_first(x) or x
    end
    return any
end

--- The number of an axis in a value's layout, from 0. axis: as the engine counts, without the
--- batch's: 1 is the first behind it.
function Builder:axis(x, axis)
    if x.channels_last == x then return axis end
    return axis == #x.sizes and 1 or axis + 1
end

---- Initializers -------------------------------------------------------------------------------

local function add_initializer(self, initializer)
    initializer.name = unique(self, initializer.name)
    self.initializers[#self.initializers + 1] = initializer
    return initializer
end

--- A list of integers (int64).
function Builder:integers(list)
    local key = "integers " .. table.concat(list, " ")
    self.of_constant[key] = self.of_constant[key] or add_initializer(self, {
        name = "constant/" .. table.concat(list, "_"), dtype = "int64", sizes = {#list},
        bytes = string.pack("<" .. ("i8"):rep(#list), table.unpack(list)),
    })
    return self.of_constant[key]
end

--- A number (float32), or `count` of it.
function Builder:number(value, count)
    local key = ("number %a %d"):format(value, count or 0)
    self.of_constant[key] = self.of_constant[key] or add_initializer(self, {
        name = ("constant/%.9g"):format(value), dtype = "float32", sizes = count and {count} or {},
        bytes = string.pack("<f", value):rep(count or 1),
    })
    return self.of_constant[key]
end

--- A layer's parameter or running statistics with its axes permuted. Those that are used several
--- times are stored once.
function Builder:parameter(tensor, name, permutation)
    local key = permutation and table.concat(permutation, " ") or ""
    local known = self.of_tensor[tensor] or {}
    self.of_tensor[tensor] = known
    if not known[key] then
        local sizes = tensor:shape()
        if permutation then
            local own = sizes
            sizes = {}
            for axis, from in ipairs(permutation) do sizes[axis] = own[from] end
        end
        known[key] = add_initializer(self, {
            name = self.step.name .. "/" .. name, dtype = tensor:dtype(), sizes = sizes,
            tensor = tensor, permutation = permutation,
        })
    end
    return known[key]
end

local CHUNK = 4096
local CHUNK_FORMAT = "<" .. ("f"):rep(CHUNK)

local function put_floats(whole, put)
    local flat <close> = whole:reshape{shape = {whole:count()}}
    local count = flat:count()
    for first = 1, count, CHUNK do
        local last = math.min(first + CHUNK - 1, count)
        local part <close> = flat:slice(1, first, last)
        local length = last - first + 1
        local format = length == CHUNK and CHUNK_FORMAT or "<" .. ("f"):rep(length)
        put(format:pack(table.unpack(part:totable())))
    end
end

-- The most elements that are copied in order to turn them.
local MOST_TURNED = 1 << 20

-- Writes a tensor's elements in small pieces, turned ones by ranges of their first axis.
local function put_elements(tensor, permutation, put)
    local source <close> = tensor:detach()
    if not permutation then
        local whole <close> = source:contiguous()
        put_floats(whole, put)
        return
    end
    local axis = permutation[1]
    local size = source:size(axis)
    local step = math.max(MOST_TURNED // (source:count() // size), 1)
    for first = 1, size, step do
        local part <close> = source:slice(axis, first, math.min(first + step - 1, size))
        local turned <close> = part:transpose{axes = permutation}
        local whole <close> = turned:contiguous()
        put_floats(whole, put)
    end
end

---- Messages -----------------------------------------------------------------------------------

local function tensor_message(initializer)
    local message = {}
    for _, size in ipairs(initializer.sizes) do
        message[#message + 1] = protobuf.integer(1, size)
    end
    message[#message + 1] = protobuf.integer(2, DATA_TYPES[initializer.dtype])
    message[#message + 1] = protobuf.bytes(8, initializer.name)
    if initializer.bytes then
        message[#message + 1] = protobuf.bytes(9, initializer.bytes)
    else
        protobuf.add_bytes(message, 9, 4 * shape.count(initializer.sizes), function(put)
            put_elements(initializer.tensor, initializer.permutation, put)
        end)
    end
    return message
end

-- AttributeProto.AttributeType
local FLOAT, INTEGER, INTEGERS = 1, 2, 7

local function attribute_message(name, value)
    local message = {protobuf.bytes(1, name)}
    if type(value) == "table" then
        for _, item in ipairs(value) do message[#message + 1] = protobuf.integer(8, item) end
        message[#message + 1] = protobuf.integer(20, INTEGERS)
    elseif math.type(value) == "integer" then
        message[#message + 1] = protobuf.integer(3, value)
        message[#message + 1] = protobuf.integer(20, INTEGER)
    else
        message[#message + 1] = protobuf.float(2, value)
        message[#message + 1] = protobuf.integer(20, FLOAT)
    end
    return message
end

local function node_message(node)
    local message = {}
    for _, input in ipairs(node.inputs) do
        message[#message + 1] = protobuf.bytes(1, input and input.name or "")
    end
    message[#message + 1] = protobuf.bytes(2, node.output.name)
    message[#message + 1] = protobuf.bytes(3, node.name)
    message[#message + 1] = protobuf.bytes(4, node.operator)
    local names = {}
    for name in pairs(node.attributes) do names[#names + 1] = name end
    table.sort(names) -- the same file each time
    for _, name in ipairs(names) do
        protobuf.add_message(message, 5, attribute_message(name, node.attributes[name]))
    end
    return message
end

-- Name, type and shape (the batch's axis free) of an input or output.
local function value_message(value)
    local dimensions = {}
    protobuf.add_message(dimensions, 1, {protobuf.bytes(2, "N")})
    for _, size in ipairs(value.sizes) do
        protobuf.add_message(dimensions, 1, {protobuf.integer(1, size)})
    end
    local tensor_type = {protobuf.integer(1, DATA_TYPES[value.dtype])}
    protobuf.add_message(tensor_type, 2, dimensions)
    local value_type = {}
    protobuf.add_message(value_type, 1, tensor_type)
    local message = {protobuf.bytes(1, value.name)}
    protobuf.add_message(message, 2, value_type)
    return message
end

--- An input of the graph.
function Builder:input(name, sizes, dtype)
    local value = new_value(unique(self, name), sizes, dtype, false)
    self.inputs[#self.inputs + 1] = value
    return value
end

--- Makes a value an output of the graph under a name, laid as the engine has it.
function Builder:output(x, name)
    x = self:channels_last(x)
    local own = false
    for _, node in ipairs(self.nodes) do own = own or node.output == x end
    for _, output in ipairs(self.outputs) do own = own and output ~= x end
    if not own then x = self:node("Identity", {x}) end
    x.name = unique(self, name)
    self.outputs[#self.outputs + 1] = x
end

--- The model as a message.
function Builder:message(model_name)
    local content = {}
    for _, node in ipairs(self.nodes) do protobuf.add_message(content, 1, node_message(node)) end
    content[#content + 1] = protobuf.bytes(2, model_name)
    for _, one in ipairs(self.initializers) do
        protobuf.add_message(content, 5, tensor_message(one))
    end
    for _, input in ipairs(self.inputs) do
        protobuf.add_message(content, 11, value_message(input))
    end
    for _, output in ipairs(self.outputs) do
        protobuf.add_message(content, 12, value_message(output))
    end
    local message = {
        protobuf.integer(1, IR_VERSION), protobuf.bytes(2, "resin"),
        protobuf.bytes(3, core.version),
    }
    protobuf.add_message(message, 7, content)
    protobuf.add_message(message, 8, {protobuf.bytes(1, ""), protobuf.integer(2, OPSET)})
    return message
end

return builder
