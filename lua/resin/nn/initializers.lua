--- First values of parameters: nn.initializers.
---
--- An initializer is given to a layer as a name ("he_normal"), as a table {"normal", deviation =
--- 0.01}, as a number (constant), or as a function f(shape, fan_in, fan_out, dtype) that returns a
--- tensor. The same seed gives the same weights: every draw takes the next stream of resin.seed.
---
---   Keras' default         glorot_uniform, biases zero
---   PyTorch's default      "pytorch": kaiming uniform with a = sqrt(5), which is U(-b, b) with
---                          b = 1 / sqrt(fan_in), for weights and biases alike
---   He et al. 2015         he_normal
---   torchvision's ResNets  kaiming_normal_fan_out (normal, not truncated)
local core = require "resin.core"
local check = require "resin.nn.check"

local initializers = {}

function initializers.zeros(shape, _, _, dtype) return core.full(shape, 0, dtype) end

function initializers.ones(shape, _, _, dtype) return core.full(shape, 1, dtype) end

--- {"constant", value = 0.1}
function initializers.constant(shape, _, _, dtype, options)
    return core.full(shape, options.value or 0, dtype)
end

--- {"uniform", low = -0.05, high = 0.05}, Keras' RandomUniform.
function initializers.uniform(shape, _, _, dtype, options)
    return core.uniform(shape, options.low or -0.05, options.high or 0.05, dtype)
end

--- {"normal", mean = 0, deviation = 0.05}, Keras' RandomNormal.
function initializers.normal(shape, _, _, dtype, options)
    return core.normal(shape, options.mean or 0, options.deviation or 0.05, dtype)
end

-- Standard normal values with those beyond 2 drawn again, 4.6 % of the rest each time.
local function truncated(shape, dtype)
    local values = core.normal(shape, 0, 1, dtype)
    for _ = 1, 100 do
        local beyond = core.greater(core.abs(values), 2)
        if core.sum(core.cast(beyond, {dtype = "float32"})):item() == 0 then return values end
        values = core.where(beyond, core.normal(shape, 0, 1, dtype), values)
    end
    return core.clamp(values, {min = -2, max = 2})
end

--- {"truncated_normal", mean = 0, deviation = 0.05}: nothing beyond two deviations.
function initializers.truncated_normal(shape, _, _, dtype, options)
    return core.no_grad(function()
        return truncated(shape, dtype) * (options.deviation or 0.05) + (options.mean or 0)
    end)
end

-- The standard deviation of a standard normal distribution cut off at -2 and 2.
local TRUNCATED_DEVIATION = 0.87962566103423978

--- {"variance_scaling", scale = 1, mode = "fan_in", distribution = "truncated_normal"}: variance
--- scale / fan; modes fan_in, fan_out, fan_avg; distributions uniform, normal, truncated_normal.
function initializers.variance_scaling(shape, fan_in, fan_out, dtype, options)
    local mode, distribution = options.mode or "fan_in", options.distribution or "truncated_normal"
    local fan = ({fan_in = fan_in, fan_out = fan_out, fan_avg = (fan_in + fan_out) / 2})[mode]
    if not fan then check.fail('variance_scaling: unknown mode "%s"', mode) end
    local deviation = math.sqrt((options.scale or 1) / math.max(1, fan))
    if distribution == "uniform" then
        local limit = math.sqrt(3) * deviation
        return core.uniform(shape, -limit, limit, dtype)
    elseif distribution == "normal" then
        return core.normal(shape, 0, deviation, dtype)
    elseif distribution == "truncated_normal" then
        return initializers.truncated_normal(shape, fan_in, fan_out, dtype,
            {deviation = deviation / TRUNCATED_DEVIATION})
    end
    check.fail('variance_scaling: unknown distribution "%s"', distribution)
end

local function scaled(scale, mode, distribution)
    local options = {scale = scale, mode = mode, distribution = distribution}
    return function(shape, fan_in, fan_out, dtype)
        return initializers.variance_scaling(shape, fan_in, fan_out, dtype, options)
    end
end

initializers.glorot_uniform = scaled(1, "fan_avg", "uniform")
initializers.glorot_normal = scaled(1, "fan_avg", "truncated_normal")
initializers.he_uniform = scaled(2, "fan_in", "uniform")
initializers.he_normal = scaled(2, "fan_in", "truncated_normal")
initializers.lecun_uniform = scaled(1, "fan_in", "uniform")
initializers.lecun_normal = scaled(1, "fan_in", "truncated_normal")
initializers.kaiming_uniform = scaled(2, "fan_in", "uniform")
initializers.kaiming_normal = scaled(2, "fan_in", "normal")
initializers.kaiming_uniform_fan_out = scaled(2, "fan_out", "uniform")
initializers.kaiming_normal_fan_out = scaled(2, "fan_out", "normal")
initializers.pytorch = scaled(1 / 3, "fan_in", "uniform")

-- fan_in and fan_out of weights (..., in, out): the leading axes are the receptive field.
local function fans(shape)
    local rank, field = #shape, 1
    if rank == 0 then return 1, 1 end
    if rank == 1 then return shape[1], shape[1] end
    for axis = 1, rank - 2 do field = field * shape[axis] end
    return field * shape[rank - 1], field * shape[rank]
end

--- A new tensor of `shape` from an initializer in any of its forms. `fan_in` and `fan_out` are
--- computed from the shape, (..., in, out), unless they are given.
function initializers.make(initializer, shape, dtype, fan_in, fan_out)
    local options = {}
    if type(initializer) == "table" then initializer, options = initializer[1], initializer end
    if type(initializer) == "number" then return core.full(shape, initializer, dtype) end
    if not fan_in then fan_in, fan_out = fans(shape) end
    local f = initializer
    if type(initializer) == "string" then
        f = initializer ~= "make" and initializers[initializer]
        if not f then check.fail('unknown initializer "%s"', initializer) end
    elseif type(initializer) ~= "function" then
        check.fail("an initializer is a name, a table, a number or a function, got %s",
            type(initializer))
    end
    return f(shape, fan_in, fan_out, dtype, options)
end

return initializers
