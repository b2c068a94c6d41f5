--- slim's layers: functions that make their variables, call nn's layers and return the output. x is
--- a tensor, or what comes from nn.input. Arguments have TF-slim's names, order and defaults; false
--- is its None.
---
--- is_training: on tensors true if left out, as in TF-slim. In a model dropout and batch_norm
--- follow the model's own mode, unless is_training = false.
local core = require "resin.core"
local activations = require "resin.nn.activations"
local arguments = require "resin.slim.arguments"
local check = require "resin.nn.check"
local collections = require "resin.slim.collections"
local layer = require "resin.nn.layer"
local nn = require "resin.nn"
local node = require "resin.nn.node"
local regularizers = require "resin.slim.regularizers"
local scopes = require "resin.slim.scopes"
local shape = require "resin.nn.shape"
local state = require "resin.slim.state"
local variables = require "resin.slim.variables"

local layers = {}

-- The arguments that every layer has.
local COMMON = {scope = check.optional, outputs_collections = check.optional}

local function define(spec)
    for name, default in pairs(COMMON) do spec.defaults[name] = default end
    local call = spec.call
    spec.call = function(x, given)
        state.check_input(spec.title, x)
        return call(x, given)
    end
    local f = arguments.layer(spec)
    layers[spec.title:match("^slim%.(.*)$")] = f
    return f
end

-- A layer of nn that is called `path` in a model, with a number behind it where several are. (A
-- `name` must be unique.)
local function named(class, options, path)
    options.name = path
    local made = class(options)
    rawset(made, "name", nil)
    rawset(made, "default_name", path)
    return made
end
layers.named = named

-- Runs a layer of nn. On tensors is_training says the mode, by default that of the layer around, if
-- there is one.
local function run(made, x, is_training)
    if node.is(x) then return made(x) end
    if is_training == nil and layer.is_nested() then return made(x) end
    return made(x, {training = is_training ~= false})
end

---- Variables of layers ------------------------------------------------------------------------

-- nn's names of variables and slim's.
local SHORT_NAMES = {bias = "biases"}

-- What a layer's variables are made with: by slim's short names {initializer, regularizer,
-- trainable}.
local function sources_of(given)
    return {
        weights = {given.weights_initializer, given.weights_regularizer, given.trainable},
        biases = {given.biases_initializer, given.biases_regularizer, given.trainable},
    }
end

-- A function that makes or reuses a variable of x's owner in the scope in force and notes it in
-- `taken`, with whether it is trained now.
local function taker(x, sources, in_collections, taken)
    local owner = state.owner(x)
    return function(short_name, sizes, dtype, fan_in, fan_out)
        local source = sources[short_name]
        local variable = variables.get(owner, short_name, sizes, dtype, {
            initializer = source[1], regularizer = source[2], trainable = source[3],
            collections = in_collections, fan_in = fan_in, fan_out = fan_out,
        })
        taken[short_name] = {variable, variable.tensor:requires_grad()}
        return variable.tensor
    end
end

-- After a layer of nn was built: slim's names, the penalties, and the moving statistics, for which
-- nn has no initializers.
local function adopt(self, take, taken)
    for _, own in ipairs(self._variables) do
        own.name = SHORT_NAMES[own.name] or own.name
        if own.role == "buffer" then
            own.tensor = take(own.name, own.tensor:shape(), own.tensor:dtype())
            rawset(self, own.name, own.tensor)
        end
        local variable, is_trained = table.unpack(taken[own.name])
        own.tensor:require_grad(is_trained)
        if not variable.trainable then own.role = "buffer" end
        if regularizers.is_penalty(variable.regularizer) then
            own.l1, own.l2 = variable.regularizer.l1, variable.regularizer.l2
        end
    end
end

-- A layer of nn that takes its variables from the scope in force. `options` are its own, in which
-- initializers are replaced; `sources` as above.
local function with_variables(class, options, path, x, sources, in_collections)
    if layer.is_nested() then
        check.fail("slim: a model would not see the variables that slim makes inside of another "
            .. "layer's call; use the layers of nn there")
    end
    local taken = {}
    local take = taker(x, sources, in_collections, taken)
    for option, short_name in pairs{initializer = "weights", bias_initializer = "biases",
        gamma_initializer = "gamma", beta_initializer = "beta"} do
        if class.options[option] ~= nil then
            options[option] = function(sizes, fan_in, fan_out, dtype)
                return take(short_name, sizes, dtype, fan_in, fan_out)
            end
        end
    end
    local made = named(class, options, path)
    rawset(made, "build", function(self, input_shape)
        class.build(self, input_shape)
        adopt(self, take, taken)
    end)
    return made
end

---- Activations --------------------------------------------------------------------------------

-- resin.relu is "relu", nn.relu, too.
local kind_of = {}
for kind, class in pairs(activations.layers) do
    if kind ~= "activation" then
        kind_of[class] = kind
        if core[kind] then kind_of[core[kind]] = kind end
    end
end

local function kind_name(activation)
    if not activation or activation == "linear" then return nil end
    return type(activation) == "string" and activation or kind_of[activation]
end

-- "LeakyRelu" for "leaky_relu".
local function camel_case(kind)
    return (kind:gsub("^%l", string.upper):gsub("_(%l)", string.upper))
end

-- activation_fn of y: a name, a function of a tensor, a layer of nn or slim; false for none.
local function activate(y, activation, path)
    if not activation or activation == "linear" then return y end
    local kind = kind_name(activation)
    if not kind and (layer.is(activation) or arguments.has_arg_scope(activation)) then
        return activation(y)
    end
    local class = kind ~= "activation" and activations.layers[kind]
    local made = class and {class, {}} or {nn.activation, {kind or activation}}
    return named(made[1], made[2], path .. "/" .. camel_case(kind or "activation"))(y)
end

---- Layers with weights ------------------------------------------------------------------------

local function weighted_defaults(more)
    local defaults = {
        num_outputs = check.required, activation_fn = "relu", normalizer_fn = check.optional,
        normalizer_params = check.optional, weights_initializer = "glorot_uniform",
        weights_regularizer = check.optional, biases_initializer = "zeros",
        biases_regularizer = check.optional, reuse = check.optional,
        variables_collections = check.optional, trainable = true,
    }
    for name, default in pairs(more) do defaults[name] = default end
    return defaults
end

-- Weights, then the normalizer in the place of biases, then the activation. `options` are those of
-- the layer of nn, `default` the name of a scope that is not given.
local function weighted(class, default, x, given, options)
    return scopes.enter(given.scope, default, x, given.reuse, function(scope)
        local normalizer, activation = given.normalizer_fn, given.activation_fn
        local kind = kind_name(activation)
        -- A model leaves out a softmax that ends it only where it sees one.
        local inside = kind and not normalizer and not activations.is_in_loss(kind)
        options.bias = not normalizer and given.biases_initializer ~= false
        options.activation = inside and kind or nil
        local y = run(with_variables(class, options, scope.name, x, sources_of(given),
            given.variables_collections), x)
        if normalizer then y = normalizer(y, given.normalizer_params or nil) end
        if not inside then y = activate(y, activation, scope.name) end
        collections.add(given.outputs_collections, scope.name, y)
        return y
    end)
end

-- "SAME" and "VALID" in any case; numbers as nn takes them.
local function padding_of(padding)
    return type(padding) == "string" and padding:lower() or padding
end

--- slim.conv2d(x, num_outputs, kernel_size, stride = 1, padding = "SAME", rate = 1, activation_fn =
--- "relu", normalizer_fn, normalizer_params, weights_initializer = Xavier's, weights_regularizer,
--- biases_initializer = "zeros", biases_regularizer, reuse, variables_collections,
--- outputs_collections, trainable = true, scope). Variables: weights; biases, unless there is a
--- normalizer. rate dilates.
define{
    title = "slim.conv2d", name = "convolution2d",
    positional = {
        "num_outputs", "kernel_size", "stride", "padding", "rate", "activation_fn",
        "normalizer_fn", "normalizer_params",
    },
    defaults = weighted_defaults{
        kernel_size = check.required, stride = 1, padding = "SAME", rate = 1,
    },
    call = function(x, given)
        return weighted(nn.conv2d, "Conv", x, given, {
            filters = given.num_outputs, kernel = given.kernel_size, stride = given.stride,
            padding = padding_of(given.padding), dilation = given.rate,
        })
    end,
}
layers.convolution2d = layers.conv2d

--- slim.conv2d_transpose(x, num_outputs, kernel_size, stride = 1, padding = "SAME", ...).
define{
    title = "slim.conv2d_transpose", name = "convolution2d_transpose",
    positional = {
        "num_outputs", "kernel_size", "stride", "padding", "activation_fn", "normalizer_fn",
        "normalizer_params",
    },
    defaults = weighted_defaults{kernel_size = check.required, stride = 1, padding = "SAME"},
    call = function(x, given)
        return weighted(nn.conv2d_transpose, "Conv2d_transpose", x, given, {
            filters = given.num_outputs, kernel = given.kernel_size, stride = given.stride,
            padding = padding_of(given.padding),
        })
    end,
}

local function rank_of(x) return node.is(x) and #x:shape() + 1 or x:rank() end

-- As TF-slim's documentation says (its code does not): all but the batch becomes one axis.
local function flattened(x, scope)
    if rank_of(x) <= 2 then return x end
    return named(nn.flatten, {}, scope.name .. "/Flatten")(x)
end

--- slim.fully_connected(x, num_outputs, activation_fn = "relu", normalizer_fn, ...): as conv2d, and
--- flatten = true: an input with more axes is flattened, as TF-slim's documentation says. With
--- false it works on the last axis, as TF-slim's code does.
define{
    title = "slim.fully_connected", name = "fully_connected",
    positional = {"num_outputs", "activation_fn", "normalizer_fn", "normalizer_params"},
    defaults = weighted_defaults{flatten = true},
    call = function(x, given)
        return scopes.enter(given.scope, "fully_connected", x, given.reuse, function(scope)
            local input = given.flatten and flattened(x, scope) or x
            given.scope, given.reuse = scope, nil
            return weighted(nn.dense, nil, input, given, {units = given.num_outputs})
        end)
    end,
}

--- slim.batch_norm(x, decay = 0.999, center = true, scale = false, epsilon = 0.001, activation_fn,
--- param_initializers = {beta, gamma, moving_mean, moving_variance}, param_regularizers = {beta,
--- gamma}, is_training, reuse, variables_collections, outputs_collections, trainable = true,
--- scope). Variables: gamma (if scale), beta (if center), moving_mean, moving_variance. The moving
--- statistics move by themselves in training, so updates_collections is taken and does nothing.
define{
    title = "slim.batch_norm", name = "batch_norm",
    positional = {"decay", "center", "scale", "epsilon", "activation_fn"},
    defaults = {
        decay = 0.999, center = true, scale = false, epsilon = 0.001,
        activation_fn = check.optional, param_initializers = check.optional,
        param_regularizers = check.optional, updates_collections = check.optional,
        is_training = check.optional, reuse = check.optional,
        variables_collections = check.optional, trainable = true,
    },
    call = function(x, given)
        return scopes.enter(given.scope, "BatchNorm", x, given.reuse, function(scope)
            local initial, penalty = given.param_initializers or {}, given.param_regularizers or {}
            local sources = {
                gamma = {initial.gamma or "ones", penalty.gamma, given.trainable},
                beta = {initial.beta or "zeros", penalty.beta, given.trainable},
                moving_mean = {initial.moving_mean or "zeros", nil, false},
                moving_variance = {initial.moving_variance or "ones", nil, false},
            }
            -- TensorFlow's fused op, which TF-slim calls, keeps the unbiased variance.
            local made = with_variables(nn.batch_norm, {
                momentum = given.decay, epsilon = given.epsilon, center = given.center,
                scale = given.scale, unbiased = true,
            }, scope.name, x, sources, given.variables_collections)
            if given.is_training == false then
                rawset(made, "training_attributes", made.inference_attributes)
            end
            local y = activate(run(made, x, given.is_training), given.activation_fn, scope.name)
            collections.add(given.outputs_collections, scope.name, y)
            return y
        end)
    end,
}

---- Layers without weights ---------------------------------------------------------------------

-- A layer that is one call: make(given) returns a class of nn and its options, or nil for none.
local function simple(spec)
    local make, default = spec.make, spec.scope
    spec.call = function(x, given)
        return scopes.enter(given.scope, default, x, nil, function(scope)
            local class, options = make(given)
            local y = class and run(named(class, options, scope.name), x, given.is_training) or x
            collections.add(given.outputs_collections, scope.name, y)
            return y
        end)
    end
    return define(spec)
end

for title, class in pairs{max_pool2d = nn.max_pool2d, avg_pool2d = nn.avg_pool2d} do
    --- slim.max_pool2d, slim.avg_pool2d (x, kernel_size, stride = 2, padding = "VALID",
    --- outputs_collections, scope). The mean leaves out what "SAME" pads.
    simple{
        title = "slim." .. title, name = title,
        scope = title == "max_pool2d" and "MaxPool2D" or "AvgPool2D",
        positional = {"kernel_size", "stride", "padding"},
        defaults = {kernel_size = check.required, stride = 2, padding = "VALID"},
        make = function(given)
            return class, {
                given.kernel_size, stride = given.stride, padding = padding_of(given.padding),
            }
        end,
    }
end

--- slim.dropout(x, keep_prob = 0.5, is_training, outputs_collections, scope): keep_prob is the part
--- that is KEPT, and scaled by 1 / keep_prob.
simple{
    title = "slim.dropout", name = "dropout", scope = "Dropout",
    positional = {"keep_prob", "is_training"},
    defaults = {keep_prob = 0.5, is_training = check.optional},
    make = function(given)
        local keep = given.keep_prob
        if type(keep) ~= "number" or not (keep > 0 and keep <= 1) then
            check.fail("slim.dropout: keep_prob, the part that is kept, must be above 0 and at "
                .. "most 1, got %s", tostring(keep))
        end
        if given.is_training == false then return nil end
        return nn.dropout, {1 - keep}
    end,
}

--- slim.flatten(x, outputs_collections, scope): (N, ...) to (N, product).
simple{
    title = "slim.flatten", name = "flatten", scope = "Flatten", defaults = {},
    make = function() return nn.flatten, {} end,
}

--- slim.softmax(x, scope): over the last axis.
simple{
    title = "slim.softmax", name = "softmax", scope = "softmax", defaults = {},
    make = function() return nn.softmax, {} end,
}

local OneHot = layer.class("OneHotEncoding")
OneHot.options = {classes = check.required, on = check.required, off = check.required}

function OneHot:init(options) self:set_options(options) end

function OneHot:output_shape(input_shape)
    local sizes = shape.copy(input_shape)
    sizes[#sizes + 1] = self.classes
    return sizes
end

function OneHot:output_dtype() return "float32" end

function OneHot:call(labels)
    local result = core.one_hot(labels, {classes = self.classes})
    if self.on == 1 and self.off == 0 then return result end
    return result * (self.on - self.off) + self.off
end

--- slim.one_hot(labels, num_classes, on_value = 1, off_value = 0, scope), TF-slim's
--- one_hot_encoding: labels count from 1.
simple{
    title = "slim.one_hot", name = "one_hot_encoding", scope = "OneHotEncoding",
    positional = {"num_classes", "on_value", "off_value"},
    defaults = {num_classes = check.required, on_value = 1, off_value = 0},
    make = function(given)
        local classes = check.integer("slim.one_hot", "num_classes", given.num_classes, 1)
        return OneHot, {classes = classes, on = given.on_value, off = given.off_value}
    end,
}
layers.one_hot_encoding = layers.one_hot

return layers
