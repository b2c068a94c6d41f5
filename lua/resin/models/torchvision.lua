--- torchvision's networks, with its names of layers, explicit padding, PyTorch's batch norm and its
--- initial values. The output is logits. Options: classes = 1000, input = {224, 224, 3}.
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
        options = check.options(what, options, DEFAULTS)
        local x = nn.input(options.input)
        local y = nn.relu(conv_norm(x, "conv1", "bn1", 64, 7, 2))
        y = nn.max_pool2d{kernel = 3, stride = 2, padding = 1}(y)
        for stage, count in ipairs(units) do
            for unit = 1, count do
                local name = ("layer%d.%d"):format(stage, unit - 1)
                local stride = stage > 1 and unit == 1 and 2 or 1
                y = block(y, name, 64 << (stage - 1), stride, groups or 1, group_width or 64)
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
--- ResNeXt-50 32x4d.
torchvision.resnext50 = resnet("resnext50", bottleneck, {3, 4, 6, 3}, 32, 4)

---- VGG ----------------------------------------------------------------------------------------

local VGG16 = {{64, 2}, {128, 2}, {256, 3}, {512, 3}, {512, 3}}

--- vgg16{dropout = 0.5, ...}: groups of 3x3 convolutions and max-pooling, then dense layers. Images
--- have sides of 32 or more; 224 makes the 7 x 7 x 512 that the dense layers' known weights expect.
function torchvision.vgg16(options)
    options = check.options("vgg16", options,
        {classes = 1000, input = {224, 224, 3}, dropout = 0.5})
    local x = nn.input(options.input)
    local y, index = x, 0
    for _, group in ipairs(VGG16) do
        for _ = 1, group[2] do
            y = nn.conv2d{
                group[1], kernel = 3, padding = 1, activation = "relu",
                initializer = "kaiming_normal_fan_out", name = "features." .. index,
            }(y)
            index = index + 2 -- torchvision counts the activation, too
        end
        y = nn.max_pool2d{kernel = 2, stride = 2}(y)
        index = index + 1
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

return torchvision
