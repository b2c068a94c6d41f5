--- The networks of two tutorials: a ResNet whose every block has a projected shortcut, and a
--- ResNeXt with its cardinality as parallel paths.
local check = require "resin.nn.check"
local nn = require "resin.nn"
local parts = require "resin.models.parts"

local tutorial = {}

-- Makes convolution, batch norm and the like as the options say.
local function builder(options)
    local build = {activate = parts.activation(options.activation)}

    function build.conv_norm(x, filters, kernel, stride)
        local conv = nn.conv2d{
            filters, kernel = kernel, stride = stride, padding = "same", l1 = options.l1,
            l2 = options.l2,
        }
        return nn.batch_norm()(conv(x))
    end

    return build
end

-- The program's softmax at the end, or logits.
local function finish(what, x, y, options)
    options.classifier_activation = options.softmax and "softmax" or nil
    options.top = true
    return nn.model(x, parts.ending(what, y, options))
end

-- Options of both networks, and what they share with others.
local function check_options(what, options, own)
    own.classes, own.softmax, own.activation, own.dropout, own.kernel = 10, true, "relu", 0, 3
    own.l1, own.l2 = check.optional, check.optional
    return check.options(what, options, own)
end

---- ResNet ---------------------------------------------------------------------------------------

local SHORTCUTS = {}

function SHORTCUTS.projection(build, x, filters, stride)
    return build.conv_norm(x, filters, 1, stride)
end

function SHORTCUTS.identity(_, x, filters, stride)
    if stride == 1 and parts.channels(x) == filters then return x end
    return nn.identity_shortcut{filters, stride = stride}(x)
end

function SHORTCUTS.none() return nil end

-- The printed block hands its stride to both convolutions; the repaired one strides once.
local function block(build, x, name, filters, stride, options)
    local y = build.activate(build.conv_norm(x, filters, options.kernel, stride))
    y = build.conv_norm(y, filters, options.kernel, options.faulty and stride or 1)
    local shortcut = SHORTCUTS[options.shortcut](build, x, filters, stride)
    return build.activate(shortcut and parts.sum(name, y, shortcut) or y)
end

--- tutorial_resnet{input = {224, 224, 3}, width = 64, classes = 10, stride = 1, softmax = true}:
--- stem, four stages of two blocks with width, 2, 4 and 8 width filters, global pooling, softmax.
--- stride is that of the first block of stages two to four; faulty = true strides its second
--- convolution, too, as printed, which fails for any stride but 1. What one may change:
---
---   filters      of the four stages             blocks       2: in each stage
---   kernel       3                              activation   "relu"
---   shortcut     "projection" (in every block), "identity" (without weights) or "none"
---   dropout      0: in front of the dense layer, l1, l2: penalties of the weights
function tutorial.tutorial_resnet(options)
    local what = "tutorial_resnet"
    options = check_options(what, options, {
        input = {224, 224, 3}, width = 64, stride = 1, faulty = false, filters = check.optional,
        blocks = 2, shortcut = "projection",
    })
    if not SHORTCUTS[options.shortcut] then
        check.fail('%s: shortcut must be "projection", "identity" or "none", got %s', what,
            tostring(options.shortcut))
    end
    local filters = parts.stage_filters(what, options.width, options.filters, 4)
    local blocks = parts.list(what, "blocks", options.blocks, 4)
    local build = builder(options)
    local x = nn.input(options.input)
    local y = build.activate(build.conv_norm(x, filters[1], 7, 2))
    y = nn.max_pool2d{kernel = 3, stride = 2, padding = "same"}(y)
    for stage = 1, 4 do
        for unit = 1, blocks[stage] do
            local name = ("%s: block %d of stage %d"):format(what, unit, stage)
            local stride = stage > 1 and unit == 1 and options.stride or 1
            y = block(build, y, name, filters[stage], stride, options)
        end
    end
    return finish(what, x, y, options)
end

---- ResNeXt --------------------------------------------------------------------------------------

--- tutorial_resnext{input = {32, 32, 3}, filters = 64, cardinality = 8, classes = 10, softmax =
--- true}: one block (blocks = 1). Full-width paths that are summed are not a grouped convolution:
--- the cost grows with the cardinality. Also kernel = 3, activation, dropout, l1, l2.
function tutorial.tutorial_resnext(options)
    local what = "tutorial_resnext"
    options = check_options(what, options, {
        input = {32, 32, 3}, filters = 64, cardinality = 8, blocks = 1,
    })
    local filters = check.integer(what, "filters", options.filters, 1)
    check.integer(what, "cardinality", options.cardinality, 1)
    local build = builder(options)
    local activate, conv_norm = build.activate, build.conv_norm
    local x = nn.input(options.input)
    local y = x
    for _ = 1, check.integer(what, "blocks", options.blocks, 1) do
        local paths, shortcut = {}, y
        for path = 1, options.cardinality do
            paths[path] = activate(conv_norm(y, filters, options.kernel, 1))
        end
        y = #paths > 1 and nn.add(paths) or paths[1]
        y = activate(conv_norm(y, filters, 1, 1))
        y = activate(y + conv_norm(shortcut, filters, 1, 1))
    end
    return finish(what, x, y, options)
end

return tutorial
