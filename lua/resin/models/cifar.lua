--- The networks of He et al. 2015 (arXiv 1512.03385, section 4.2) for CIFAR: 6 n + 2 layers in
--- three stages, by default with shortcuts without weights (option A).
local check = require "resin.nn.check"
local nn = require "resin.nn"

local cifar = {}

local SHORTCUTS = {identity = true, projection = true, none = true}

-- Makes the layers that the options ask for.
local function builder(options)
    local build = {}

    function build.conv(filters, stride, kernel)
        return nn.conv2d{
            filters, kernel = kernel, stride = stride, bias = false,
            padding = kernel % 2 == 1 and kernel // 2 or "same",
            initializer = "kaiming_normal", l1 = options.l1, l2 = options.l2,
        }
    end

    function build.norm(x) return nn.batch_norm{rule = "pytorch"}(x) end

    function build.activate(x)
        if options.activation == "relu" then return nn.relu(x) end
        return nn.activation(options.activation)(x)
    end

    -- What is added to a block's result; nothing in a plain network.
    function build.shortcut(x, filters, stride)
        if options.shortcut == "none" then return nil end
        if stride == 1 and x:shape()[3] == filters then return x end
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

local function check_options(options)
    if not check.is_integer(options.depth, 8) or (options.depth - 2) % 6 ~= 0 then
        check.fail("cifar_resnet: depth must be 6 n + 2 (20, 32, 44, 56, 110), got %s",
            tostring(options.depth))
    end
    check.integer("cifar_resnet", "kernel", options.kernel, 1)
    if not SHORTCUTS[options.shortcut] then
        check.fail('cifar_resnet: shortcut must be "identity", "projection" or "none", got %s',
            tostring(options.shortcut))
    end
    local width = check.integer("cifar_resnet", "width", options.width, 1)
    local filters = options.filters or {width, 2 * width, 4 * width}
    if type(filters) ~= "table" or #filters ~= 3 then
        check.fail("cifar_resnet: filters are a list of three numbers, one for each stage")
    end
    for _, count in ipairs(filters) do check.integer("cifar_resnet", "filters", count, 1) end
    return filters
end

--- cifar_resnet{depth = 20, width = 16, classes = 10, input = {32, 32, 3}}: depth is 6 n + 2 (20,
--- 32, 44, 56, 110), width the filters of the first stage. The output is logits. What one turns:
---
---   filters      of the three stages, {width, 2 width, 4 width} if left out
---   kernel       3: the side of the convolutions' windows
---   activation   "relu": a name that nn.activation knows, or a function
---   shortcut     "identity" (without weights), "projection" (1x1 convolution and batch norm where
---                the size changes) or "none" (a plain network)
---   dropout      0: the part dropped in front of the dense layer
---   l1, l2       penalties of the convolutions' and the dense layer's weights
function cifar.cifar_resnet(options)
    options = check.options("cifar_resnet", options, {
        depth = 20, width = 16, classes = 10, input = {32, 32, 3}, filters = check.optional,
        kernel = 3, activation = "relu", shortcut = "identity", dropout = 0, l1 = check.optional,
        l2 = check.optional,
    }, "depth")
    local filters = check_options(options)
    local build = builder(options)
    local x = nn.input(options.input)
    local y = build.activate(build.norm(build.conv(filters[1], 1, options.kernel)(x)))
    for stage = 1, 3 do
        for unit = 1, (options.depth - 2) // 6 do
            y = build.block(y, filters[stage], stage > 1 and unit == 1 and 2 or 1)
        end
    end
    y = nn.global_avg_pool(y)
    if options.dropout ~= 0 then y = nn.dropout(options.dropout)(y) end
    return nn.model(x, nn.dense{options.classes, l1 = options.l1, l2 = options.l2}(y))
end

return cifar
