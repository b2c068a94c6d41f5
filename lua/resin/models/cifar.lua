--- The networks of He et al. 2015 (arXiv 1512.03385, section 4.2) for CIFAR: 6 n + 2 layers in
--- three stages, shortcuts without weights (option A).
local check = require "resin.nn.check"
local nn = require "resin.nn"

local cifar = {}

local function conv(filters, stride)
    return nn.conv2d{
        filters, kernel = 3, stride = stride, padding = 1, bias = false,
        initializer = "kaiming_normal",
    }
end

local function batch_norm() return nn.batch_norm{rule = "pytorch"} end

local function block(x, filters, stride)
    local y = nn.relu(batch_norm()(conv(filters, stride)(x)))
    y = batch_norm()(conv(filters, 1)(y))
    local resized = stride > 1 or x:shape()[3] ~= filters
    local shortcut = resized and nn.identity_shortcut{filters, stride = stride}(x) or x
    return nn.relu(y + shortcut)
end

--- cifar_resnet{depth = 20, width = 16, classes = 10, input = {32, 32, 3}}: depth is 6 n + 2 (20,
--- 32, 44, 56, 110), width the filters of the first stage. The output is logits.
function cifar.cifar_resnet(options)
    options = check.options("cifar_resnet", options,
        {depth = 20, width = 16, classes = 10, input = {32, 32, 3}}, "depth")
    if not check.is_integer(options.depth, 8) or (options.depth - 2) % 6 ~= 0 then
        check.fail("cifar_resnet: depth must be 6 n + 2 (20, 32, 44, 56, 110), got %s",
            tostring(options.depth))
    end
    local x = nn.input(options.input)
    local y = nn.relu(batch_norm()(conv(options.width, 1)(x)))
    for stage = 1, 3 do
        for unit = 1, (options.depth - 2) // 6 do
            y = block(y, options.width << (stage - 1), stage > 1 and unit == 1 and 2 or 1)
        end
    end
    return nn.model(x, nn.dense(options.classes)(nn.global_avg_pool(y)))
end

return cifar
