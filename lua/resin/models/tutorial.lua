--- The networks of two tutorials: a ResNet whose every block has a projected shortcut, and a
--- ResNeXt with its cardinality as parallel paths.
local check = require "resin.nn.check"
local nn = require "resin.nn"

local tutorial = {}

local function conv_norm(x, filters, kernel, stride)
    local conv = nn.conv2d{filters, kernel = kernel, stride = stride, padding = "same"}
    return nn.batch_norm()(conv(x))
end

-- The printed block hands its stride to both convolutions; the repaired one strides once.
local function block(x, filters, stride, faulty)
    local y = nn.relu(conv_norm(x, filters, 3, stride))
    y = conv_norm(y, filters, 3, faulty and stride or 1)
    return nn.relu(y + conv_norm(x, filters, 1, stride))
end

local function classify(x, y, options)
    local activation = options.softmax and "softmax" or nil
    return nn.model(x, nn.dense{options.classes, activation = activation}(nn.global_avg_pool(y)))
end

--- tutorial_resnet{input = {224, 224, 3}, width = 64, classes = 10, stride = 1, softmax = true}:
--- stem, four stages of two blocks with width, 2, 4 and 8 width filters, global pooling, softmax.
--- stride is that of the first block of stages two to four; faulty = true strides its second
--- convolution, too, as printed, which fails for any stride but 1.
function tutorial.tutorial_resnet(options)
    options = check.options("tutorial_resnet", options, {
        input = {224, 224, 3}, width = 64, classes = 10, stride = 1, faulty = false, softmax = true,
    })
    local x = nn.input(options.input)
    local y = nn.relu(conv_norm(x, options.width, 7, 2))
    y = nn.max_pool2d{kernel = 3, stride = 2, padding = "same"}(y)
    for stage = 1, 4 do
        for unit = 1, 2 do
            local stride = stage > 1 and unit == 1 and options.stride or 1
            y = block(y, options.width << (stage - 1), stride, options.faulty)
        end
    end
    return classify(x, y, options)
end

--- tutorial_resnext{input = {32, 32, 3}, filters = 64, cardinality = 8, classes = 10, softmax =
--- true}: one block. Full-width paths that are summed are not a grouped convolution: the cost grows
--- with the cardinality.
function tutorial.tutorial_resnext(options)
    options = check.options("tutorial_resnext", options, {
        input = {32, 32, 3}, filters = 64, cardinality = 8, classes = 10, softmax = true,
    })
    local x = nn.input(options.input)
    local paths = {}
    for path = 1, options.cardinality do
        paths[path] = nn.relu(conv_norm(x, options.filters, 3, 1))
    end
    local y = #paths > 1 and nn.add(paths) or paths[1]
    y = nn.relu(conv_norm(y, options.filters, 1, 1))
    y = nn.relu(y + conv_norm(x, options.filters, 1, 1))
    return classify(x, y, options)
end

return tutorial
