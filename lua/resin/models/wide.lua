--- Wide residual networks: Zagoruyko and Komodakis 2016 (arXiv 1605.07146), as their code has them:
--- pre-activation, and a 1x1 convolution as shortcut where the size changes.
local check = require "resin.nn.check"
local nn = require "resin.nn"
local parts = require "resin.models.parts"

local wide = {}

--- wide_resnet{depth = 28, widen = 10, dropout = 0, classes = 10, input = {32, 32, 3}}: depth is
--- 6 n + 4 (16, 22, 28, 40), widen how many times more filters than 16, 32 and 64. dropout is that
--- between a block's convolutions. The output is logits. The other options stand in parts.lua.
function wide.wide_resnet(options)
    options = parts.options("wide_resnet", options, {
        depth = 28, widen = 10, classes = 10, input = {32, 32, 3},
    }, "depth")
    if not check.is_integer(options.depth, 10) or (options.depth - 4) % 6 ~= 0 then
        check.fail("wide_resnet: depth must be 6 n + 4 (16, 22, 28, 40), got %s",
            tostring(options.depth))
    end
    local widen = check.integer("wide_resnet", "widen", options.widen, 1)
    local dropout = options.dropout
    options.dropout = 0 -- none in front of the dense layer
    local activate = parts.activation(options.activation)

    local function conv(x, filters, kernel, stride)
        return nn.conv2d{
            filters, kernel = kernel, stride = stride, padding = kernel // 2, bias = false,
            initializer = "kaiming_normal_fan_out", l1 = options.l1, l2 = options.l2,
        }(x)
    end
    local function norm_activate(x) return activate(nn.batch_norm{rule = "pytorch"}(x)) end

    -- Where the size changes, the shortcut reads the activated input, too.
    local function block(x, filters, stride)
        local y, shortcut = norm_activate(x), x
        if stride ~= 1 or parts.channels(x) ~= filters then
            shortcut = conv(y, filters, 1, stride)
        end
        y = norm_activate(conv(y, filters, 3, stride))
        if dropout ~= 0 then y = nn.dropout(dropout)(y) end
        return conv(y, filters, 3, 1) + shortcut
    end

    local x = nn.input(options.input)
    local y = conv(x, 16, 3, 1)
    for stage = 1, 3 do
        for unit = 1, (options.depth - 4) // 6 do
            y = block(y, 16 * widen << (stage - 1), stage > 1 and unit == 1 and 2 or 1)
        end
    end
    return nn.model(x, parts.ending("wide_resnet", norm_activate(y), options))
end

return wide
