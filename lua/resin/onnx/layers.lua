--- The layers in ONNX operators, by class: function(b, layer, x) of a builder, a layer and its
--- input (or its list of inputs), which returns the output.
local nn_activations = require "resin.nn.activations"
local activations = require "resin.onnx.activations"
local builder = require "resin.onnx.builder"
local conv = require "resin.nn.conv"
local dense = require "resin.nn.dense"
local graph = require "resin.nn.graph"
local merge = require "resin.nn.merge"
local norm = require "resin.nn.norm"
local pool = require "resin.nn.pool"

local converters = {}

local CHANNELS_FIRST = {channels_first = true}

local function activate(b, layer, x)
    return activations[layer.activation or "linear"](b, x)
end

---- Convolution --------------------------------------------------------------------------------

-- The padding of a window over an image of {h, w, c}, {top, bottom, left, right}, such that the
-- operators' rule (whole windows only) gives what the layer gives: "same" and `ceil` in numbers.
local function padding_of(layer, input, output)
    local padding = {}
    for axis = 1, 2 do
        local before, after = layer.padding[2 * axis - 1], layer.padding[2 * axis]
        local dilation = layer.dilation and layer.dilation[axis] or 1
        local window = (layer.kernel[axis] - 1) * dilation + 1
        local needed = (output[axis] - 1) * layer.stride[axis] + window - input[axis]
        if layer.same then
            before = math.max(needed, 0) // 2
            after = math.max(needed, 0) - before
        end
        padding[2 * axis - 1], padding[2 * axis] = before, math.max(after, needed - before)
    end
    return padding
end

-- In the order of ONNX: all beginnings, then all ends.
local function pads(padding) return {padding[1], padding[3], padding[2], padding[4]} end

-- The convolution of a layer with the fields of conv2d, without activation.
local function convolve(b, layer, x, operator, attributes)
    attributes.kernel_shape, attributes.strides = layer.kernel, layer.stride
    attributes.dilations, attributes.group = layer.dilation, layer.groups
    -- (H, W, in, out) to (out, in, H, W), and for the transpose (H, W, out, in) to (in, out, H, W).
    local inputs = {b:channels_first(x), b:parameter(layer.weights, "weights", {4, 3, 1, 2})}
    if layer.bias then inputs[3] = b:parameter(layer.bias, "bias") end
    return b:node(operator, inputs, attributes, CHANNELS_FIRST)
end

local function conv2d(b, layer, x)
    local padding = padding_of(layer, x.sizes, b.step.sizes)
    return convolve(b, layer, x, "Conv", {pads = pads(padding)})
end

converters[conv.layers.conv2d] = function(b, layer, x)
    return activate(b, layer, conv2d(b, layer, x))
end

converters[conv.layers.conv2d_transpose] = function(b, layer, x)
    local attributes = {
        pads = pads(layer.padding), output_padding = layer.attributes.output_padding,
    }
    return activate(b, layer, convolve(b, layer, x, "ConvTranspose", attributes))
end

-- Zeros in front of and behind the rows, columns and channels of an image.
local function pad(b, x, front, behind)
    local sizes = {}
    for axis, size in ipairs(x.sizes) do sizes[axis] = size + front[axis] + behind[axis] end
    local amounts = b:integers{0, front[3], front[1], front[2], 0, behind[3], behind[1], behind[2]}
    local inputs = {x, amounts}
    local y = b:node("Pad", inputs, nil, {sizes = sizes, channels_first = true})
    y.pad_inputs = inputs
    return y
end

-- {top, bottom, left, right} around an image.
local function pad_image(b, x, padding)
    local top, bottom, left, right = table.unpack(padding)
    return pad(b, x, {top, left, 0}, {bottom, right, 0})
end

converters[conv.layers.zero_pad2d] = function(b, layer, x)
    return pad_image(b, b:channels_first(x), layer.padding)
end

---- Normalization ------------------------------------------------------------------------------

local function normalize(b, layer, x)
    local count = layer.moving_mean:count()
    return b:node("BatchNormalization", {
        b:channels_first(x),
        layer.gamma and b:parameter(layer.gamma, "gamma") or b:number(1, count),
        layer.beta and b:parameter(layer.beta, "beta") or b:number(0, count),
        b:parameter(layer.moving_mean, "moving_mean"),
        b:parameter(layer.moving_variance, "moving_variance"),
    }, {epsilon = layer.epsilon + 0.0}, CHANNELS_FIRST)
end

converters[norm.layers.batch_norm] = normalize

converters[norm.layers.conv_bn_act] = function(b, layer, x)
    local image, shortcut = x, nil
    if x[1] then image, shortcut = x[1], x[2] end
    local y = normalize(b, layer, conv2d(b, layer, image))
    if shortcut then y = b:like(y, "Add", {y, b:channels_first(shortcut)}) end
    return activate(b, layer, y)
end

---- Pooling ------------------------------------------------------------------------------------

local function pool2d(b, layer, x, operator, padding, attributes)
    attributes = attributes or {}
    -- onnxruntime (1.30, pad_fusion.cc) takes a Pad with zeros into a pool behind it, whose own
    -- padding means something else. A negative zero it leaves alone.
    if x.pad_inputs then x.pad_inputs[3] = b:number(-0.0) end
    attributes.kernel_shape, attributes.strides = layer.kernel, layer.stride
    attributes.pads = pads(padding)
    return b:node(operator, {x}, attributes, CHANNELS_FIRST)
end

converters[pool.layers.max_pool2d] = function(b, layer, x)
    local padding = padding_of(layer, x.sizes, b.step.sizes)
    return pool2d(b, layer, b:channels_first(x), "MaxPool", padding)
end

converters[pool.layers.avg_pool2d] = function(b, layer, x)
    x = b:channels_first(x)
    local padding = padding_of(layer, x.sizes, b.step.sizes)
    if layer.count_padding and not layer.same then
        -- Zeros that count are part of the image; what `ceil` adds never counts.
        local top, bottom, left, right = table.unpack(layer.padding)
        x = pad_image(b, x, layer.padding)
        padding = {padding[1] - top, padding[2] - bottom, padding[3] - left, padding[4] - right}
    end
    return pool2d(b, layer, x, "AveragePool", padding, {count_include_pad = 0})
end

converters[pool.layers.adaptive_avg_pool2d] = function(b, layer, x)
    x = b:channels_first(x)
    local h, w, c = table.unpack(x.sizes)
    local height, width = layer.size[1], layer.size[2]
    -- Along rows, then along columns, as products with matrices of averages.
    local rows = b:parameter(layer.averages(height, h, "float32"), "rows")
    local columns = b:parameter(layer.averages(width, w, "float32"), "columns", {2, 1})
    local narrow = b:node("MatMul", {rows, x}, nil,
        {sizes = {height, w, c}, channels_first = true})
    return b:node("MatMul", {narrow, columns}, nil, CHANNELS_FIRST)
end

local function global_pool(operator)
    return function(b, _, x)
        local y = b:node(operator, {b:channels_first(x)}, nil,
            {sizes = {1, 1, x.sizes[3]}, channels_first = true})
        return b:node("Flatten", {y}, {axis = 1})
    end
end

converters[pool.layers.global_avg_pool] = global_pool "GlobalAveragePool"
converters[pool.layers.global_max_pool] = global_pool "GlobalMaxPool"

---- Dense layers and shapes --------------------------------------------------------------------

converters[dense.layers.dense] = function(b, layer, x)
    x = b:channels_last(x)
    local weights = b:parameter(layer.weights, "weights")
    local bias = layer.bias and b:parameter(layer.bias, "bias")
    local y
    if #x.sizes == 1 then
        y = b:node("Gemm", {x, weights, bias or nil})
    else
        y = b:node("MatMul", {x, weights})
        if bias then y = b:like(y, "Add", {y, bias}) end
    end
    return activate(b, layer, y)
end

converters[dense.layers.flatten] = function(b, _, x)
    return b:node("Flatten", {b:channels_last(x)}, {axis = 1})
end

converters[dense.layers.reshape] = function(b, layer, x)
    -- 0 stands for the size that the input has there: the batch.
    return b:node("Reshape", {b:channels_last(x), b:integers{0, table.unpack(layer.target)}})
end

converters[dense.layers.dropout] = function(_, _, x) return x end

converters[dense.layers.rescale] = function(b, layer, x)
    local y = x
    if x.dtype ~= b.step.dtype then
        y = b:node("Cast", {x}, {to = builder.data_types[b.step.dtype]},
            {channels_first = x.channels_first == x})
    end
    y = b:like(y, "Mul", {y, b:number(layer.scale)})
    return layer.offset == 0 and y or b:like(y, "Add", {y, b:number(layer.offset)})
end

---- Joining ------------------------------------------------------------------------------------

converters[merge.layers.add] = function(b, _, x)
    x = b:alike(x)
    return b:like(x[1], #x == 2 and "Add" or "Sum", x)
end

converters[merge.layers.multiply] = function(b, _, x)
    x = b:alike(x)
    local layout = {channels_first = x[1].channels_first == x[1]}
    local y = x[1]
    for position = 2, #x do
        -- Shapes may differ before the last product; nobody asks for that of those between.
        y = b:node("Mul", {y, x[position]}, nil, layout)
    end
    return y
end

converters[merge.layers.concatenate] = function(b, layer, x)
    x = b:alike(x)
    local axis = layer.axis < 0 and #x[1].sizes + 1 + layer.axis or layer.axis - 1
    return b:node("Concat", x, {axis = b:axis(x[1], axis)},
        {channels_first = x[1].channels_first == x[1]})
end

converters[merge.layers.identity_shortcut] = function(b, layer, x)
    x = b:channels_first(x)
    local sizes, y = b.step.sizes, x
    if layer.stride > 1 then
        -- Starts, ends (beyond the image: all of it), axes, steps.
        local ends = {x.sizes[1], x.sizes[2]}
        y = b:node("Slice", {x, b:integers{0, 0}, b:integers(ends), b:integers{2, 3},
            b:integers{layer.stride, layer.stride}}, nil,
            {sizes = {sizes[1], sizes[2], x.sizes[3]}, channels_first = true})
    end
    local extra = layer.filters - x.sizes[3]
    if extra == 0 then return y end
    return pad(b, y, {0, 0, extra // 2}, {0, 0, extra - extra // 2})
end

---- Activations --------------------------------------------------------------------------------

for _, class in pairs(nn_activations.layers) do
    converters[class] = function(b, layer, x)
        return activations[layer.kind](b, x, layer.alpha)
    end
end

---- What may be converted ----------------------------------------------------------------------

--- Why a step cannot be converted, in words; nil if it can.
local function problem(layer)
    if layer.user or layer.composite then
        return "a function or a layer of one's own"
    end
    if type(layer.activation) == "function" or type(layer.kind) == "function" then
        return "its activation is a Lua function"
    end
    if not converters[getmetatable(layer)] and getmetatable(layer) ~= graph.InputLayer then
        return "has no ONNX form"
    end
end

return {converters = converters, problem = problem}
