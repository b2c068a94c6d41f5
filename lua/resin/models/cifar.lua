--- The networks of He et al. 2015 (arXiv 1512.03385, section 4.2) for CIFAR: 6 n + 2 layers in
--- three stages, by default with shortcuts without weights (option A).
local check = require "resin.nn.check"
local nn = require "resin.nn"
local parts = require "resin.models.parts"

local cifar = {}

local SHORTCUTS = {identity = true, projection = true, none = true}

-- Makes the layers that the options ask for.
local function builder(options)
    local build = {activate = parts.activation(options.activation)}

    function build.conv(filters, stride, kernel)
        return nn.conv2d{
            filters, kernel = kernel, stride = stride, bias = not options.batch_norm,
            padding = kernel % 2 == 1 and kernel // 2 or "same",
            initializer = "kaiming_normal", l1 = options.l1, l2 = options.l2,
        }
    end

    function build.norm(x)
        return options.batch_norm and nn.batch_norm{rule = "pytorch"}(x) or x
    end

    -- What is added to a block's result; nothing in a plain network.
    function build.shortcut(x, filters, stride)
        if options.shortcut == "none" then return nil end
        if stride == 1 and parts.channels(x) == filters then return x end
        if options.shortcut == "projection" then
            return build.norm(build.conv(filters, stride, 1)(x))
        end
        return nn.identity_shortcut{filters, stride = stride}(x)
    end

    function build.block(x, filters, stride)
        local y = build.activate(build.norm(build.conv(filters, stride, options.kernel)(x)))
        y = build.norm(build.conv(filters, 1, options.kernel)(y))
        local shortcut = build.shortcut(x, filters, stride)
        return build.activate(shortcut and y + shortcut or y)
    end

    return build
end

--- cifar_resnet{depth = 20, width = 16, classes = 10, input = {32, 32, 3}}: depth is 6 n + 2 (20,
--- 32, 44, 56, 110, 1202), width the filters of the first stage. The output is logits. Beside the
--- options that stand in parts.lua:
---
---   filters      of the three stages, {width, 2 width, 4 width} if left out
---   kernel       3: the side of the convolutions' windows
---   shortcut     "identity" (without weights), "projection" (1x1 convolution and batch norm where
---                the size changes) or "none" (a plain network)
---   batch_norm   true; without it convolutions have biases
function cifar.cifar_resnet(options)
    options = parts.options("cifar_resnet", options, {
        depth = 20, width = 16, classes = 10, input = {32, 32, 3}, filters = check.optional,
        kernel = 3, shortcut = "identity", batch_norm = true,
    }, "depth")
    if not check.is_integer(options.depth, 8) or (options.depth - 2) % 6 ~= 0 then
        check.fail("cifar_resnet: depth must be 6 n + 2 (20, 32, 44, 56, 110), got %s",
            tostring(options.depth))
    end
    check.integer("cifar_resnet", "kernel", options.kernel, 1)
    if not SHORTCUTS[options.shortcut] then
        check.fail('cifar_resnet: shortcut must be "identity", "projection" or "none", got %s',
            tostring(options.shortcut))
    end
    local filters = parts.stage_filters("cifar_resnet", options.width, options.filters, 3)
    local build = builder(options)
    local x = nn.input(options.input)
    local y = build.activate(build.norm(build.conv(filters[1], 1, options.kernel)(x)))
    for stage = 1, 3 do
        for unit = 1, (options.depth - 2) // 6 do
            y = build.block(y, filters[stage], stage > 1 and unit == 1 and 2 or 1)
        end
    end
    return nn.model(x, parts.ending("cifar_resnet", y, options))
end

return cifar
