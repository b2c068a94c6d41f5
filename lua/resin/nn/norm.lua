--- nn.batch_norm, and nn.conv_bn_act: convolution, batch norm, shortcut and activation in one op.
local core = require "resin.core"
local check = require "resin.nn.check"
local conv = require "resin.nn.conv"
local layer = require "resin.nn.layer"
local shape = require "resin.nn.shape"

-- The two rules. momentum: Keras' is the weight of the old value, PyTorch's that of the new one;
-- `unbiased`: whether the running variance divides by n - 1 (the normalization never does).
local RULES = {
    keras = {momentum = 0.99, epsilon = 1e-3, unbiased = false},
    pytorch = {momentum = 0.1, epsilon = 1e-5, unbiased = true},
}

local NORM_OPTIONS = {
    rule = "keras", momentum = check.optional, epsilon = check.optional, unbiased = check.optional,
    center = true, scale = true, gamma_initializer = "ones", beta_initializer = "zeros",
}

-- Completes the options from the rule and prepares the op's attributes for both modes.
local function set_norm(self, attributes)
    local rule = RULES[self.rule]
    if not rule then
        check.fail('%s: unknown rule "%s"; there are keras and pytorch', self:label(),
            tostring(self.rule))
    end
    for name, value in pairs(rule) do
        if self[name] == nil then rawset(self, name, value) end
    end
    attributes.epsilon, attributes.unbiased = self.epsilon, self.unbiased
    -- The op's momentum is the weight of the new value.
    attributes.momentum = self.rule == "keras" and 1 - self.momentum or self.momentum
    attributes.training = false
    local training = {}
    for name, value in pairs(attributes) do training[name] = value end
    training.training = true
    rawset(self, "inference_attributes", attributes)
    rawset(self, "training_attributes", training)
end

local function build_norm(self, channels)
    if self.scale then
        rawset(self, "gamma", self:parameter("gamma", {channels}, self.gamma_initializer))
    end
    if self.center then
        rawset(self, "beta", self:parameter("beta", {channels}, self.beta_initializer))
    end
    rawset(self, "moving_mean", self:buffer("moving_mean", {channels}, "zeros"))
    rawset(self, "moving_variance", self:buffer("moving_variance", {channels}, "ones"))
end

--- nn.batch_norm{rule = "keras"|"pytorch", ...}: normalization over all axes but the last.
---
---   rule "keras"     momentum 0.99 (weight of the old value), epsilon 1e-3
---   rule "pytorch"   momentum 0.1 (weight of the new value), epsilon 1e-5, running variance
---                    unbiased
---   center, scale    true: whether there are beta and gamma
---   gamma_initializer "ones", beta_initializer "zeros"
---
--- The running statistics move by themselves with {training = true}. A frozen layer uses them.
local BatchNormalization = layer.class("BatchNormalization")
BatchNormalization.options = NORM_OPTIONS

function BatchNormalization:init(options)
    self:set_options(options)
    set_norm(self, {activation = "linear"})
end

function BatchNormalization:build(input_shape)
    rawset(self, "channels", input_shape[#input_shape])
    build_norm(self, self.channels)
end

function BatchNormalization:output_shape(input_shape)
    if input_shape[#input_shape] ~= self.channels then
        self:shape_fail("was built for %d channels, got %s", self.channels, shape.text(input_shape))
    end
    return shape.copy(input_shape)
end

function BatchNormalization:call(x, options)
    local training = options.training and self.trainable
    return core.batch_norm(x, self.gamma, self.beta, self.moving_mean, self.moving_variance, nil,
        training and self.training_attributes or self.inference_attributes)
end

--- nn.conv_bn_act{filters, kernel, activation = "relu"|"linear", ...}: conv2d, batch norm, and with
--- a list {x, shortcut} the sum with the shortcut, then the activation, as one op. Options and
--- parameters are those of conv2d (bias = false by default) and batch_norm. What nn.model does by
--- itself to chains of the single layers; the two differ in rounding only.
local ConvBnAct = layer.class("ConvBnAct")
ConvBnAct.first_option = "filters"
ConvBnAct.options = {activation = "relu"}
for name, default in pairs(NORM_OPTIONS) do ConvBnAct.options[name] = default end
for _, name in ipairs{"filters", "kernel", "stride", "padding", "dilation", "groups",
    "initializer", "bias_initializer", "l1", "l2"} do
    ConvBnAct.options[name] = conv.layers.conv2d.options[name]
end
ConvBnAct.options.bias = false

function ConvBnAct:init(options)
    conv.set_options(self, options)
    if self.activation ~= "relu" and self.activation ~= "linear" then
        check.fail('%s: activation must be "relu" or "linear"', self:label())
    end
    local attributes = {activation = self.activation}
    for name, value in pairs(self.attributes) do attributes[name] = value end
    set_norm(self, attributes)
end

function ConvBnAct:build(input_shape)
    local image = type(input_shape[1]) == "table" and input_shape[1] or input_shape
    conv.layers.conv2d.build(self, image)
    build_norm(self, self.filters)
end

function ConvBnAct:output_shape(input_shape)
    if type(input_shape[1]) ~= "table" then
        return conv.layers.conv2d.output_shape(self, input_shape)
    end
    local result = conv.layers.conv2d.output_shape(self, input_shape[1])
    if input_shape[2] and not shape.equal(result, input_shape[2]) then
        self:shape_fail("the sum has two shapes, %s and the shortcut's %s", shape.text(result),
            shape.text(input_shape[2]))
    end
    return result
end

function ConvBnAct:call(x, options)
    local shortcut
    if not core.is_tensor(x) then x, shortcut = x[1], x[2] end
    local training = options.training and self.trainable
    return core.conv_bn_act(x, self.weights, self.bias, self.gamma, self.beta, self.moving_mean,
        self.moving_variance, shortcut,
        training and self.training_attributes or self.inference_attributes)
end

return {layers = {batch_norm = BatchNormalization, conv_bn_act = ConvBnAct}}
