--- Activations: nn.activation("relu"), and the layers named after the usual ones.
local core = require "resin.core"
local check = require "resin.nn.check"
local layer = require "resin.nn.layer"
local shape = require "resin.nn.shape"

local activations = {}

local kinds = {
    linear = function(x) return x end,
    relu = function(x) return core.relu(x) end,
    relu6 = function(x) return core.relu6(x) end,
    leaky_relu = function(x, alpha) return core.leaky_relu(x, {slope = alpha or 0.01}) end,
    elu = function(x, alpha) return core.elu(x, {alpha = alpha or 1}) end,
    selu = function(x) return core.selu(x) end,
    gelu = function(x) return core.gelu(x) end,
    silu = function(x) return core.silu(x) end,
    sigmoid = function(x) return core.sigmoid(x) end,
    tanh = function(x) return core.tanh(x) end,
    softplus = function(x) return core.softplus(x) end,
    softmax = function(x) return core.softmax(x, {axis = -1}) end,
    log_softmax = function(x) return core.log_softmax(x, {axis = -1}) end,
}
kinds.swish = kinds.silu

--- Whether the losses contain this activation, so that a model may end before it.
function activations.is_in_loss(kind)
    return kind == "softmax" or kind == "log_softmax" or kind == "sigmoid"
end

--- The function of an activation given by name or as a function of a tensor; nil for none.
function activations.find(what, activation)
    if activation == nil or activation == "linear" then return nil end
    if type(activation) == "function" then return activation end
    local f = type(activation) == "string" and kinds[activation]
    if f then return f end
    local names = {}
    for name in pairs(kinds) do names[#names + 1] = name end
    table.sort(names)
    check.fail('%s: unknown activation "%s"; there are %s', what, tostring(activation),
        table.concat(names, ", "))
end

local releases = {}
for _, f in pairs(kinds) do releases[f] = true end

--- f(y), or y without f. y is released; a user's function may have kept it.
function activations.finish(f, y)
    if not f then return y end
    local result = f(y)
    if releases[f] then y:release() end
    return result
end

--- nn.activation{kind}: "relu", "elu", "softmax" ... (over the last axis), or a function of a
--- tensor. alpha: of elu (1) and leaky_relu (0.01).
local Activation = layer.class("Activation")
Activation.options = {kind = check.required, alpha = check.optional}
Activation.first_option = "kind"

function Activation:init(options)
    self:set_options(options)
    rawset(self, "f", activations.find(self:label(), self.kind) or kinds.linear)
end

function Activation:output_shape(input_shape) return shape.copy(input_shape) end

function Activation:call(x) return self.f(x, self.alpha) end

--- What a model that ends with this layer gives with {logits = true}.
function Activation:logits(x)
    return activations.is_in_loss(self.kind) and x or self:call(x)
end

-- A class of its own for one kind, as Keras has.
local function named(class_name, kind)
    local class = layer.class(class_name, Activation)
    class.kind = kind
    class.options = {}
    if kind == "elu" or kind == "leaky_relu" then
        class.options, class.first_option = {alpha = check.optional}, "alpha"
    end
    return class
end

--- nn.relu(), nn.relu6(), nn.leaky_relu{alpha}, nn.elu{alpha}, nn.softmax() ...
activations.layers = {
    activation = Activation,
    relu = named("ReLU", "relu"),
    relu6 = named("ReLU6", "relu6"),
    leaky_relu = named("LeakyReLU", "leaky_relu"),
    elu = named("ELU", "elu"),
    selu = named("SELU", "selu"),
    gelu = named("GELU", "gelu"),
    silu = named("SiLU", "silu"),
    sigmoid = named("Sigmoid", "sigmoid"),
    tanh = named("Tanh", "tanh"),
    softplus = named("Softplus", "softplus"),
    softmax = named("Softmax", "softmax"),
    log_softmax = named("LogSoftmax", "log_softmax"),
}

return activations
