--- torchvision's networks, with its names of layers, explicit padding, PyTorch's batch norm and its
--- initial values. The output is logits. Options: classes = 1000, input = {224, 224, 3}; of the
--- residual networks also checkpoint = false: backward computes the blocks again (nn.checkpoint).
---
---   local model = resin.models.resnet50{classes = 5}
---   model:load("resnet50.safetensors", {naming = "torchvision", except = "^fc%."})
---
--- scripts/convert_pth.py makes the file from PyTorch's.
local check = require "resin.nn.check"
local nn = require "resin.nn"

local torchvision = {}

local DEFAULTS = {classes = 1000, input = {224, 224, 3}}

---- ResNet and ResNeXt -------------------------------------------------------------------------

-- Convolution without bias and batch norm, e.g. layer1.0.conv1 and layer1.0.bn1.
local function conv_norm(x, conv_name, norm_name, filters, kernel, stride, groups)
    local y = nn.conv2d{
        filters, kernel = kernel, stride = stride, padding = kernel // 2, groups = groups or 1,
        bias = false, initializer = "kaiming_normal_fan_out", name = conv_name,
    }(x)
    return nn.batch_norm{rule = "pytorch", name = norm_name}(y)
end

local function shortcut(x, name, filters, stride)
    if stride == 1 and x:shape()[3] == filters then return x end
    return conv_norm(x, name .. ".downsample.0", name .. ".downsample.1", filters, 1, stride)
end

local function basic_block(x, name, planes, stride)
    local y = nn.relu(conv_norm(x, name .. ".conv1", name .. ".bn1", planes, 3, stride))
    y = conv_norm(y, name .. ".conv2", name .. ".bn2", planes, 3, 1)
    return nn.relu(y + shortcut(x, name, planes, stride))
end

-- The stride sits on the 3x3 convolution ("v1.5"). Groups of `group_width` channels at 64 planes.
local function bottleneck(x, name, planes, stride, groups, group_width)
    local width = planes * group_width // 64 * groups
    local y = nn.relu(conv_norm(x, name .. ".conv1", name .. ".bn1", width, 1, 1))
    y = nn.relu(conv_norm(y, name .. ".conv2", name .. ".bn2", width, 3, stride, groups))
    y = conv_norm(y, name .. ".conv3", name .. ".bn3", 4 * planes, 1, 1)
    return nn.relu(y + shortcut(x, name, 4 * planes, stride))
end

local function resnet(what, block, units, groups, group_width)
    return function(options)
        options = check.options(what, options,
            {classes = DEFAULTS.classes, input = DEFAULTS.input, checkpoint = false})
        local make_block = options.checkpoint and nn.checkpoint(block) or block
        local x = nn.input(options.input)
        local y = nn.relu(conv_norm(x, "conv1", "bn1", 64, 7, 2))
        y = nn.max_pool2d{kernel = 3, stride = 2, padding = 1}(y)
        for stage, count in ipairs(units) do
            for unit = 1, count do
                local name = ("layer%d.%d"):format(stage, unit - 1)
                local stride = stage > 1 and unit == 1 and 2 or 1
                y = make_block(y, name, 64 << (stage - 1), stride, groups or 1, group_width or 64)
            end
        end
        y = nn.global_avg_pool(y)
        return nn.model(x, nn.dense{options.classes, initializer = "pytorch", name = "fc"}(y))
    end
end

torchvision.resnet18 = resnet("resnet18", basic_block, {2, 2, 2, 2})
torchvision.resnet34 = resnet("resnet34", basic_block, {3, 4, 6, 3})
torchvision.resnet50 = resnet("resnet50", bottleneck, {3, 4, 6, 3})
torchvision.resnet101 = resnet("resnet101", bottleneck, {3, 4, 23, 3})
torchvision.resnet152 = resnet("resnet152", bottleneck, {3, 8, 36, 3})

--- ResNeXt: 32 groups of 4 or 8 channels, 64 of 4. resnext50 is the 32x4d.
torchvision.resnext50_32x4d = resnet("resnext50_32x4d", bottleneck, {3, 4, 6, 3}, 32, 4)
torchvision.resnext50 = torchvision.resnext50_32x4d
torchvision.resnext101_32x8d = resnet("resnext101_32x8d", bottleneck, {3, 4, 23, 3}, 32, 8)
torchvision.resnext101_64x4d = resnet("resnext101_64x4d", bottleneck, {3, 4, 23, 3}, 64, 4)

--- torchvision's "wide" ResNets: the 3x3 convolutions have twice the channels.
torchvision.wide_resnet50_2 = resnet("wide_resnet50_2", bottleneck, {3, 4, 6, 3}, 1, 128)
torchvision.wide_resnet101_2 = resnet("wide_resnet101_2", bottleneck, {3, 4, 23, 3}, 1, 128)

---- VGG ----------------------------------------------------------------------------------------

-- Convolutions in each group.
local VGG = {
    [11] = {1, 1, 2, 2, 2}, [13] = {2, 2, 2, 2, 2}, [16] = {2, 2, 3, 3, 3}, [19] = {2, 2, 4, 4, 4},
}
local VGG_FILTERS = {64, 128, 256, 512, 512}

-- The groups of 3x3 convolutions and max-pooling, named by positions as torchvision counts them.
local function vgg_features(x, depth, batch_norm)
    local index = 0
    local function name()
        index = index + 1
        return "features." .. index - 1
    end
    for group, count in ipairs(VGG[depth]) do
        for _ = 1, count do
            x = nn.conv2d{
                VGG_FILTERS[group], kernel = 3, padding = 1,
                initializer = "kaiming_normal_fan_out", name = name(),
            }(x)
            if batch_norm then x = nn.batch_norm{rule = "pytorch", name = name()}(x) end
            x = nn.relu{name = name()}(x)
        end
        x = nn.max_pool2d{kernel = 2, stride = 2, name = name()}(x)
    end
    return x
end

local function vgg(what, depth, batch_norm)
    return function(options)
        options = check.options(what, options,
            {classes = 1000, input = {224, 224, 3}, dropout = 0.5})
        local x = nn.input(options.input)
        local y = vgg_features(x, depth, batch_norm)
        local sizes = y:shape()
        if sizes[1] ~= 7 or sizes[2] ~= 7 then
            y = nn.adaptive_avg_pool2d{7, name = "avgpool"}(y)
        end
        y = nn.flatten(y)
        local function dense(position, units, activation)
            return nn.dense{
                units, activation = activation, initializer = {"normal", deviation = 0.01},
                name = "classifier." .. position,
            }
        end
        y = nn.dropout(options.dropout)(dense(0, 4096, "relu")(y))
        y = nn.dropout(options.dropout)(dense(3, 4096, "relu")(y))
        return nn.model(x, dense(6, options.classes)(y))
    end
end

--- vgg16{dropout = 0.5, ...} and the others, vgg16_bn with batch norm. Images have sides of 32 or
--- more; where they are not 224, the last features are averaged to the 7 x 7 that the dense layers
--- expect.
for depth in pairs(VGG) do
    for suffix, batch_norm in pairs{[""] = false, _bn = true} do
        local name = "vgg" .. depth .. suffix
        torchvision[name] = vgg(name, depth, batch_norm)
    end
end

return torchvision
