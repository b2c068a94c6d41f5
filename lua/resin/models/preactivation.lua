--- The pre-activation network with ELU, in the way of TF-slim; and a bottleneck as a function.
local core = require "resin.core"
local check = require "resin.nn.check"
local nn = require "resin.nn"
local parts = require "resin.models.parts"
local shape = require "resin.nn.shape"

local preactivation = {}

-- slim's batch norm: shift but no scale, decay 0.999.
local function norm(x, name)
    return nn.batch_norm{momentum = 0.999, epsilon = 1e-3, scale = false, name = name}(x)
end

--- preactivation_resnet{input = {32, 32, 3}, classes = 10, units = 5, filters = 64, kernel = 3}:
---
---   conv_0     convolution without bias, batch norm, ReLU
---   res_unit1  batch norm, ELU, convolution, batch norm, ELU, convolution, plus the input
---   ...
---   conv_top   convolution without bias to the classes, batch norm; mean over height and width,
---              softmax
---
--- Also activation = "elu", dropout (0, in front of conv_top), l1, l2, softmax = true. As commonly
--- printed the loss applies softmax a second time and cannot go below 1.461 with ten classes:
--- softmax_twice = true puts a second softmax behind the first, of which the loss takes the place.
function preactivation.preactivation_resnet(options)
    options = check.options("preactivation_resnet", options, {
        input = {32, 32, 3}, classes = 10, units = 5, filters = 64, kernel = 3, activation = "elu",
        dropout = 0, softmax = true, softmax_twice = false, l1 = check.optional,
        l2 = check.optional,
    })
    local function activate(x) return nn.activation(options.activation)(x) end
    local function conv(x, filters, bias, name)
        return nn.conv2d{
            filters, kernel = options.kernel, padding = "same", bias = bias, l1 = options.l1,
            l2 = options.l2, name = name,
        }(x)
    end

    local x = nn.input(options.input)
    local y = nn.relu(norm(conv(x, options.filters, false, "conv_0"), "conv_0/BatchNorm"))
    for unit = 1, check.integer("preactivation_resnet", "units", options.units, 1) do
        local name, z = "res_unit" .. unit, nil
        z = activate(norm(y, name .. "/BatchNorm"))
        z = conv(z, options.filters, true, name .. "/Conv")
        z = activate(norm(z, name .. "/BatchNorm_1"))
        y = conv(z, options.filters, true, name .. "/Conv_1") + y
    end
    if options.dropout ~= 0 then y = nn.dropout(options.dropout)(y) end
    y = norm(conv(y, options.classes, false, "conv_top"), "conv_top/BatchNorm")
    y = nn.global_avg_pool(y)
    if options.softmax then y = nn.softmax(y) end
    if options.softmax_twice then y = nn.softmax(y) end
    return nn.model(x, y)
end

--- residual_block(x, f = 32, r = 4, activation = "relu"): a bottleneck on a symbolic tensor (or,
--- with weights of its own, on a tensor): 1x1 convolution to floor(f / r) filters, 3x3 to as many,
--- 1x1 to f, each with the activation, plus x, which must have f channels.
function preactivation.residual_block(x, f, r, activation)
    f = check.integer("residual_block", "f", f or 32, 1)
    r = r or 4
    if type(r) ~= "number" or not (r > 0) or f // r < 1 then
        check.fail("residual_block: r must be a number from 0 to f = %d, got %s", f, tostring(r))
    end
    if parts.channels(x) ~= f then
        local sizes = core.is_tensor(x) and shape.tensor_text(x) or shape.text(x:shape())
        check.fail("residual_block: the input must have f = %d channels to be added, got %s", f,
            sizes)
    end
    local function conv(y, filters, kernel)
        return nn.conv2d{
            filters, kernel = kernel, padding = "same", activation = activation or "relu",
        }(y)
    end
    local narrow = math.tointeger(f // r)
    return conv(conv(conv(x, narrow, 1), narrow, 3), f, 1) + x
end

return preactivation
