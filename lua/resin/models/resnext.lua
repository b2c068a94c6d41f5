--- ResNeXt: Xie et al. 2016 (arXiv 1611.05431), bottlenecks whose 3x3 convolution has groups, for
--- ImageNet and for CIFAR. Layers have the names of torchvision's, so its weights fit.
local check = require "resin.nn.check"
local nn = require "resin.nn"
local parts = require "resin.models.parts"

local resnext = {}

local VARIANTS = {
    imagenet = {depth = 50, cardinality = 32, width = 4, classes = 1000, input = {224, 224, 3}},
    cifar = {depth = 29, cardinality = 8, width = 64, classes = 10, input = {32, 32, 3}},
}
local IMAGENET_UNITS = {[50] = {3, 4, 6, 3}, [101] = {3, 4, 23, 3}, [152] = {3, 8, 36, 3}}

-- How many blocks the stages have.
local function units_of(variant, depth, blocks)
    local stages = variant == "imagenet" and 4 or 3
    if blocks then return parts.list("resnext", "blocks", blocks, stages) end
    if variant == "imagenet" then
        return IMAGENET_UNITS[depth]
            or check.fail("resnext: depth must be 50, 101 or 152 (29 for CIFAR), got %s",
                tostring(depth))
    end
    if not check.is_integer(depth, 11) or (depth - 2) % 9 ~= 0 then
        check.fail("resnext: depth must be 9 n + 2 (29) for CIFAR, got %s", tostring(depth))
    end
    return parts.list("resnext", "blocks", (depth - 2) // 9, 3)
end

-- Makes the layers that the options ask for.
local function builder(options)
    local build = {activate = parts.activation(options.activation)}

    function build.conv_norm(x, conv_name, norm_name, filters, kernel, stride, groups)
        local y = nn.conv2d{
            filters, kernel = kernel, stride = stride, padding = kernel // 2, groups = groups or 1,
            bias = false, initializer = "kaiming_normal_fan_out", l1 = options.l1, l2 = options.l2,
            name = conv_name,
        }(x)
        return nn.batch_norm{rule = "pytorch", name = norm_name}(y)
    end

    -- Groups of `width` channels, as many as the cardinality.
    function build.block(x, name, width, filters, stride)
        local inner, activate, conv_norm = width * options.cardinality, build.activate,
            build.conv_norm
        local y = activate(conv_norm(x, name .. ".conv1", name .. ".bn1", inner, 1, 1))
        y = activate(conv_norm(y, name .. ".conv2", name .. ".bn2", inner, 3, stride,
            options.cardinality))
        y = conv_norm(y, name .. ".conv3", name .. ".bn3", filters, 1, 1)
        if stride ~= 1 or parts.channels(x) ~= filters then
            x = conv_norm(x, name .. ".downsample.0", name .. ".downsample.1", filters, 1, stride)
        end
        return activate(y + x)
    end

    return build
end

--- resnext{depth = 50, cardinality = 32, width = 4, classes = 1000, input = {224, 224, 3}}: 50
--- 32x4d; {depth = 101, width = 8} is 101 32x8d. depth 29 (or variant = "cifar") is CIFAR's, 29
--- 8x64d: cardinality = 8, width = 64, classes = 10, input = {32, 32, 3}; {29, cardinality = 16} is
--- 29 16x64d. width is that of a group in the first stage, stem = 64 the filters of the first
--- convolution; blocks is a list of the stages' numbers of blocks in place of the depth's, filters
--- of the channels behind their blocks ({256, 512, 1024 ...}). The output is logits. The other
--- options stand in parts.lua.
function resnext.resnext(options)
    options = parts.options("resnext", options, {
        depth = check.optional, variant = check.optional, cardinality = check.optional,
        width = check.optional, classes = check.optional, input = check.optional,
        blocks = check.optional, filters = check.optional, stem = 64,
    }, "depth")
    local depth = options.depth
    local variant = options.variant
        or (depth and not IMAGENET_UNITS[depth] and "cifar" or "imagenet")
    local defaults = VARIANTS[variant]
    if not defaults then
        check.fail('resnext: variant must be "imagenet" or "cifar", got %s', tostring(variant))
    end
    for name, value in pairs(defaults) do
        if options[name] == nil then options[name] = value end
    end
    check.integer("resnext", "cardinality", options.cardinality, 1)
    check.integer("resnext", "stem", options.stem, 1)
    local widths = parts.stage_filters("resnext", options.width, nil, 4)
    local units = units_of(variant, options.depth, options.blocks)
    local filters = parts.stage_filters("resnext", 256, options.filters, #units)

    local build = builder(options)
    local x, y = nn.input(options.input), nil
    if variant == "imagenet" then
        y = build.activate(build.conv_norm(x, "conv1", "bn1", options.stem, 7, 2))
        y = nn.max_pool2d{kernel = 3, stride = 2, padding = 1}(y)
    else
        y = build.activate(build.conv_norm(x, "conv1", "bn1", options.stem, 3, 1))
    end
    for stage, count in ipairs(units) do
        for unit = 1, count do
            local name = ("layer%d.%d"):format(stage, unit - 1)
            y = build.block(y, name, widths[stage], filters[stage],
                stage > 1 and unit == 1 and 2 or 1)
        end
    end
    return nn.model(x, parts.ending("resnext", y, options, {name = "fc", initializer = "pytorch"}))
end

return resnext
