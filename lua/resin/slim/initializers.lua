--- First values of variables, by TF-slim's names. Each makes an initializer of nn.initializers;
--- those are taken, too: a name ("he_normal"), a number, a function.
local check = require "resin.nn.check"
local initializers = require "resin.nn.initializers"

local slim = {}

--- xavier_initializer{uniform = true}: variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010).
function slim.xavier_initializer(options)
    options = check.options("slim.xavier_initializer", options or {}, {uniform = true}, "uniform")
    return slim.variance_scaling_initializer{
        factor = 1, mode = "FAN_AVG", uniform = options.uniform,
    }
end

--- variance_scaling_initializer{factor = 2, mode = "FAN_IN", uniform = false}: variance factor / n,
--- with n by mode: FAN_IN, FAN_OUT, FAN_AVG. The normal one is cut off at two deviations, which
--- TF-slim makes up for with 1.3 factor / n (exactly it would be 1.292).
function slim.variance_scaling_initializer(options)
    options = check.options("slim.variance_scaling_initializer", options or {},
        {factor = 2, mode = "FAN_IN", uniform = false}, "factor")
    local factor, mode = options.factor, tostring(options.mode):upper()
    if mode ~= "FAN_IN" and mode ~= "FAN_OUT" and mode ~= "FAN_AVG" then
        check.fail('slim.variance_scaling_initializer: mode must be "FAN_IN", "FAN_OUT" or '
            .. '"FAN_AVG", got %s', tostring(options.mode))
    end
    if options.uniform then
        return {
            "variance_scaling", scale = factor, mode = mode:lower(), distribution = "uniform",
        }
    end
    return function(shape, fan_in, fan_out, dtype)
        local n = mode == "FAN_IN" and fan_in or mode == "FAN_OUT" and fan_out
            or (fan_in + fan_out) / 2
        return initializers.make({"truncated_normal", deviation = math.sqrt(1.3 * factor / n)},
            shape, dtype)
    end
end

--- truncated_normal_initializer(mean = 0, stddev = 1): nothing beyond two deviations.
function slim.truncated_normal_initializer(mean, stddev)
    return {"truncated_normal", mean = mean or 0, deviation = stddev or 1}
end

--- random_normal_initializer(mean = 0, stddev = 1).
function slim.random_normal_initializer(mean, stddev)
    return {"normal", mean = mean or 0, deviation = stddev or 1}
end

--- random_uniform_initializer(low = 0, high = 1).
function slim.random_uniform_initializer(low, high)
    return {"uniform", low = low or 0, high = high or 1}
end

function slim.constant_initializer(value) return {"constant", value = value or 0} end

function slim.zeros_initializer() return "zeros" end

function slim.ones_initializer() return "ones" end

return slim
