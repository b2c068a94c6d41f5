--- nn.dense, and the layers without weights that reshape, scale or drop.
local core = require "resin.core"
local activations = require "resin.nn.activations"
local check = require "resin.nn.check"
local conv = require "resin.nn.conv"
local layer = require "resin.nn.layer"
local node = require "resin.nn.node"
local shape = require "resin.nn.shape"

--- nn.dense{units, activation, bias = true, initializer = "glorot_uniform", bias_initializer, l1,
--- l2}: y = f(x weights + bias) on the last axis of any tensor. Parameters: weights (C, units),
--- bias.
local Dense = layer.class("Dense")
Dense.first_option = "units"
Dense.options = {
    units = check.required, bias = true, activation = check.optional,
    initializer = "glorot_uniform", bias_initializer = check.optional, l1 = check.optional,
    l2 = check.optional,
}

function Dense:init(options)
    self:set_options(options)
    check.integer(self:label(), "units", self.units, 1)
    rawset(self, "use_bias", self.bias)
    rawset(self, "bias", nil)
    rawset(self, "f", activations.find(self:label(), self.activation))
end

function Dense:build(input_shape)
    local size = input_shape[#input_shape]
    if not size then self:shape_fail("expected (N, ..., C), got %s", shape.text(input_shape)) end
    rawset(self, "size", size)
    rawset(self, "weights", self:parameter("weights", {size, self.units}, self.initializer,
        {l1 = self.l1, l2 = self.l2}))
    conv.make_bias(self, self.units, size)
end

function Dense:output_shape(input_shape)
    if input_shape[#input_shape] ~= self.size then
        self:shape_fail("was built for (N, ..., %d), got %s", self.size, shape.text(input_shape))
    end
    local result = shape.copy(input_shape)
    result[#result] = self.units
    return result
end

local function linear(self, x) return core.linear(x, self.weights, self.bias) end

function Dense:call(x)
    return activations.finish(self.f, linear(self, x))
end

--- What a model that ends with this layer gives with {logits = true}.
function Dense:logits(x)
    return activations.is_in_loss(self.activation) and linear(self, x) or self:call(x)
end

--- nn.flatten(): (N, ...) to (N, product).
local Flatten = layer.class("Flatten")
Flatten.options = {}

function Flatten:init(options) self:set_options(options) end

function Flatten:output_shape(input_shape) return {shape.count(input_shape)} end

function Flatten:call(x)
    local sizes = x:shape()
    return core.reshape(x, {shape = {sizes[1], shape.count(shape.of(x))}})
end

--- nn.reshape{2, 3}: to (N, 2, 3).
local Reshape = layer.class("Reshape")

function Reshape:init(sizes)
    if type(sizes) ~= "table" then
        check.fail("reshape: expected a shape, as nn.reshape{7, 7, 64}")
    end
    rawset(self, "target", shape.copy(sizes))
    for _, size in ipairs(self.target) do check.integer(self:label(), "a size", size, 0) end
end

function Reshape:output_shape(input_shape)
    if shape.count(input_shape) ~= shape.count(self.target) then
        self:shape_fail("%s does not fit into %s", shape.text(input_shape), shape.text(self.target))
    end
    return shape.copy(self.target)
end

function Reshape:call(x)
    return core.reshape(x, {shape = shape.with_batch(self.target, x:size(1))})
end

--- nn.dropout{rate}: the part that is dropped (in training), the rest scaled by 1 / (1 - rate).
local Dropout = layer.class("Dropout")
Dropout.first_option = "rate"
Dropout.options = {rate = check.required}

function Dropout:init(options)
    self:set_options(options)
    if type(self.rate) ~= "number" or not (self.rate >= 0 and self.rate < 1) then
        check.fail("%s: rate must be at least 0 and less than 1, got %s", self:label(),
            tostring(self.rate))
    end
end

function Dropout:output_shape(input_shape) return shape.copy(input_shape) end

function Dropout:call(x, options)
    if not options.training or self.rate == 0 then return x end
    return core.dropout(x, {rate = self.rate, training = true})
end

--- nn.rescale{scale, offset = 0}: x scale + offset, with bytes made float32: nn.rescale(1 / 255).
local Rescaling = layer.class("Rescaling")
Rescaling.first_option = "scale"
Rescaling.options = {scale = check.required, offset = 0}

function Rescaling:init(options) self:set_options(options) end

function Rescaling:output_shape(input_shape) return shape.copy(input_shape) end

function Rescaling:output_dtype(dtype) return dtype == "float64" and dtype or "float32" end

function Rescaling:call(x)
    local dtype = self:output_dtype(x:dtype())
    local cast <close> = x:dtype() ~= dtype and core.cast(x, {dtype = dtype}) or nil
    local y = (cast or x) * self.scale
    if self.offset == 0 then return y end
    local scaled <close> = y
    return scaled + self.offset
end

--- Symbolic nodes with numbers: a * 2, a / 2, a + 1, a - 1, -a.
local function rescaled(a, scale, offset) return Rescaling{scale = scale, offset = offset}(a) end

node.with_number = {
    multiply = function(a, number) return rescaled(a, number, 0) end,
    add = function(a, number) return rescaled(a, 1, number) end,
}

return {
    layers = {
        dense = Dense, flatten = Flatten, reshape = Reshape, dropout = Dropout,
        rescale = Rescaling,
    },
}
