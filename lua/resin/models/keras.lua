--- The ResNets of keras.applications, V1 (He et al. 2015) and V2 (He et al. 2016, pre-activation),
--- with its names of layers, padding, biases and batch norm. Keras has depths 50, 101 and 152; 18
--- and 34 are the same with blocks of two 3x3 convolutions.
---
---   V1   strides in the first convolution of a stage's first block; every convolution has a bias
---   V2   strides in the 3x3 convolution of a stage's last block, whose shortcut is a max-pool;
---        biases only where no batch norm follows at once: stem, shortcuts, a block's end
local check = require "resin.nn.check"
local nn = require "resin.nn"
local parts = require "resin.models.parts"

local keras = {}

local UNITS = {
    [18] = {2, 2, 2, 2}, [34] = {3, 4, 6, 3}, [50] = {3, 4, 6, 3}, [101] = {3, 4, 23, 3},
    [152] = {3, 8, 36, 3},
}

---- Layers ---------------------------------------------------------------------------------------

-- Makes the layers that the options ask for.
local function builder(options)
    local build = {kernel = options.kernel}

    function build.conv(x, name, filters, kernel, how)
        return nn.conv2d{
            filters, kernel = kernel, stride = how.stride or 1, padding = how.padding or "valid",
            bias = how.bias ~= false, l1 = options.l1, l2 = options.l2, name = name,
        }(x)
    end

    function build.pad(x, name, padding) return nn.zero_pad2d{padding, name = name}(x) end

    function build.norm(x, name) return nn.batch_norm{epsilon = 1.001e-5, name = name}(x) end

    function build.activate(x, name)
        return nn.activation{options.activation, name = name}(x)
    end

    function build.norm_activate(x, name)
        return build.activate(build.norm(x, name .. "_bn"), name .. "_relu")
    end

    return build
end

---- Blocks ---------------------------------------------------------------------------------------

local blocks = {}

local function projected(build, x, name, filters, stride)
    if stride == 1 and parts.channels(x) == filters then return x end
    local y = build.conv(x, name .. "_0_conv", filters, 1, {stride = stride})
    return build.norm(y, name .. "_0_bn")
end

local function bottleneck_v1(build, x, name, filters, stride)
    local shortcut = projected(build, x, name, 4 * filters, stride)
    local y = build.conv(x, name .. "_1_conv", filters, 1, {stride = stride})
    y = build.norm_activate(y, name .. "_1")
    y = build.conv(y, name .. "_2_conv", filters, build.kernel, {padding = "same"})
    y = build.norm_activate(y, name .. "_2")
    y = build.norm(build.conv(y, name .. "_3_conv", 4 * filters, 1, {}), name .. "_3_bn")
    return build.activate(nn.add{shortcut, y, name = name .. "_add"}, name .. "_out")
end

local function basic_v1(build, x, name, filters, stride)
    local shortcut = projected(build, x, name, filters, stride)
    local y = build.pad(x, name .. "_1_pad", build.kernel // 2)
    y = build.conv(y, name .. "_1_conv", filters, build.kernel, {stride = stride})
    y = build.norm_activate(y, name .. "_1")
    y = build.conv(y, name .. "_2_conv", filters, build.kernel, {padding = "same"})
    y = build.norm(y, name .. "_2_bn")
    return build.activate(nn.add{shortcut, y, name = name .. "_add"}, name .. "_out")
end

-- The shortcut of V2: from the activated input where the filters change.
local function shortcut_v2(build, x, activated, name, filters, stride)
    if parts.channels(x) ~= filters then
        return build.conv(activated, name .. "_0_conv", filters, 1, {stride = stride})
    end
    return stride > 1 and nn.max_pool2d{kernel = 1, stride = stride}(x) or x
end

local function bottleneck_v2(build, x, name, filters, stride)
    local activated = build.norm_activate(x, name .. "_preact")
    local shortcut = shortcut_v2(build, x, activated, name, 4 * filters, stride)
    local y = build.conv(activated, name .. "_1_conv", filters, 1, {bias = false})
    y = build.norm_activate(y, name .. "_1")
    y = build.pad(y, name .. "_2_pad", build.kernel // 2)
    y = build.conv(y, name .. "_2_conv", filters, build.kernel, {stride = stride, bias = false})
    y = build.norm_activate(y, name .. "_2")
    y = build.conv(y, name .. "_3_conv", 4 * filters, 1, {})
    return nn.add{shortcut, y, name = name .. "_out"}
end

local function basic_v2(build, x, name, filters, stride)
    local activated = build.norm_activate(x, name .. "_preact")
    local shortcut = shortcut_v2(build, x, activated, name, filters, stride)
    local y = build.pad(activated, name .. "_1_pad", build.kernel // 2)
    y = build.conv(y, name .. "_1_conv", filters, build.kernel, {stride = stride, bias = false})
    y = build.norm_activate(y, name .. "_1")
    y = build.conv(y, name .. "_2_conv", filters, build.kernel, {padding = "same"})
    return nn.add{shortcut, y, name = name .. "_out"}
end

blocks.v1 = {basic = basic_v1, bottleneck = bottleneck_v1}
blocks.v2 = {basic = basic_v2, bottleneck = bottleneck_v2}

-- V1 strides in the first block of the stages two to four, V2 in the last one of one to three.
local function stride_of(version, stage, unit, count)
    if version == "v1" then return stage > 1 and unit == 1 and 2 or 1 end
    return stage < 4 and unit == count and 2 or 1
end

---- The network ----------------------------------------------------------------------------------

--- The network of version "v1" or "v2" with the options of models.resnet.
function keras.resnet(version, options)
    options = parts.options("resnet", options, {
        depth = 50, width = 64, classes = 1000, input = {224, 224, 3}, filters = check.optional,
        blocks = check.optional, kernel = 3, classifier_activation = "softmax",
    })
    local units = UNITS[options.depth]
    if not units then
        check.fail("resnet: depth must be 18, 34, 50, 101 or 152, got %s", tostring(options.depth))
    end
    units = options.blocks and parts.list("resnet", "blocks", options.blocks, 4) or units
    if not check.is_integer(options.kernel, 1) or options.kernel % 2 == 0 then
        check.fail("resnet: kernel must be 1, 3, 5 ..., got %s", tostring(options.kernel))
    end
    local filters = parts.stage_filters("resnet", options.width, options.filters, 4)
    local build = builder(options)
    local block = blocks[version][options.depth < 50 and "basic" or "bottleneck"]

    local x = nn.input(options.input)
    local y = build.pad(x, "conv1_pad", 3)
    y = build.conv(y, "conv1_conv", filters[1], 7, {stride = 2})
    if version == "v1" then y = build.norm_activate(y, "conv1") end
    y = build.pad(y, "pool1_pad", 1)
    y = nn.max_pool2d{kernel = 3, stride = 2, name = "pool1_pool"}(y)
    for stage, count in ipairs(units) do
        for unit = 1, count do
            local name = ("conv%d_block%d"):format(stage + 1, unit)
            y = block(build, y, name, filters[stage], stride_of(version, stage, unit, count))
        end
    end
    if version == "v2" then y = build.norm_activate(y, "post") end
    return nn.model(x, parts.ending("resnet", y, options,
        {name = "predictions", avg = "avg_pool", max = "max_pool"}))
end

return keras
