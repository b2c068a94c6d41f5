--- The activations in ONNX operators, by the names that nn.activation knows: function(b, x, alpha)
--- of a builder and a value.
local activations = {}

local function simple(operator)
    return function(b, x) return b:like(x, operator, {x}) end
end

local function with_alpha(operator, default)
    return function(b, x, alpha)
        return b:like(x, operator, {x}, {alpha = (alpha or default) + 0.0})
    end
end

-- Along the channels, the last axis of the engine.
local function along_channels(operator)
    return function(b, x) return b:like(x, operator, {x}, {axis = b:axis(x, #x.sizes)}) end
end

function activations.linear(_, x) return x end

activations.relu = simple "Relu"
activations.selu = simple "Selu" -- the operator's defaults are the published constants
activations.sigmoid = simple "Sigmoid"
activations.tanh = simple "Tanh"
activations.softplus = simple "Softplus"
activations.leaky_relu = with_alpha("LeakyRelu", 0.01)
activations.elu = with_alpha("Elu", 1)
activations.softmax = along_channels "Softmax"
activations.log_softmax = along_channels "LogSoftmax"

function activations.relu6(b, x) return b:like(x, "Clip", {x, b:number(0), b:number(6)}) end

-- x (1 + erf(x / sqrt 2)) / 2
function activations.gelu(b, x)
    local scaled = b:like(x, "Div", {x, b:number(math.sqrt(2))})
    local error_function = b:like(x, "Erf", {scaled})
    local shifted = b:like(x, "Add", {error_function, b:number(1)})
    local doubled = b:like(x, "Mul", {x, shifted})
    return b:like(x, "Mul", {doubled, b:number(0.5)})
end

-- x sigmoid(x)
function activations.silu(b, x)
    return b:like(x, "Mul", {x, b:like(x, "Sigmoid", {x})})
end
activations.swish = activations.silu

return activations
