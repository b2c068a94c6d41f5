--- slim.nets.resnet_v1 and resnet_v2: He et al. 2015 (arXiv 1512.03385) and 2016 (1603.05027) as
--- TF-slim has them: the stride sits on the 3x3 convolution of the last unit of a block, and
--- strided convolutions pad as if they were not.
---
--- They bring their arg scope (resnet_arg_scope) along; what a scope around them says wins.
local arguments = require "resin.slim.arguments"
local check = require "resin.nn.check"
local collections = require "resin.slim.collections"
local initializers = require "resin.slim.initializers"
local layers = require "resin.slim.layers"
local nn = require "resin.nn"
local regularizers = require "resin.slim.regularizers"
local scopes = require "resin.slim.scopes"
local state = require "resin.slim.state"
local vgg = require "resin.slim.vgg"

local conv2d, batch_norm, max_pool2d = layers.conv2d, layers.batch_norm, layers.max_pool2d

---- What both have in common (TF-slim's resnet_utils) ------------------------------------------

local utils = {}

--- subsample(x, factor, {scope =}): every factor-th pixel.
function utils.subsample(x, factor, options)
    if factor == 1 then return x end
    return max_pool2d(x, {1, 1}, factor, options)
end

--- conv2d_same(x, num_outputs, kernel_size, stride, {rate = 1, scope =}): pads by the kernel's size
--- alone, so that a stride takes every stride-th result of stride 1.
function utils.conv2d_same(x, num_outputs, kernel_size, stride, options)
    options = check.options("slim.nets.resnet_utils.conv2d_same", options or {},
        {rate = 1, scope = check.optional})
    local total = (kernel_size - 1) * options.rate
    local before, after = total // 2, total - total // 2
    return conv2d(x, num_outputs, kernel_size, {
        stride = stride, rate = options.rate, scope = options.scope,
        padding = stride == 1 and "SAME" or {before, after, before, after},
    })
end

--- resnet_arg_scope{weight_decay = 0.0001, batch_norm_decay = 0.997, batch_norm_epsilon = 1e-5,
--- batch_norm_scale = true}.
function utils.resnet_arg_scope(options)
    options = check.options("slim.nets.resnet_utils.resnet_arg_scope", options or {}, {
        weight_decay = 0.0001, batch_norm_decay = 0.997, batch_norm_epsilon = 1e-5,
        batch_norm_scale = true,
    }, "weight_decay")
    local of_norm = {
        decay = options.batch_norm_decay, epsilon = options.batch_norm_epsilon,
        scale = options.batch_norm_scale,
    }
    return arguments.arg_scope({conv2d}, {
        weights_regularizer = regularizers.l2_regularizer(options.weight_decay),
        weights_initializer = initializers.variance_scaling_initializer(),
        activation_fn = "relu", normalizer_fn = batch_norm, normalizer_params = of_norm,
    }, function()
        return arguments.arg_scope({batch_norm}, of_norm, function()
            return arguments.arg_scope({max_pool2d}, {padding = "SAME"})
        end)
    end)
end

-- The unit of `name`; body(x, given, scope) returns its output.
local function unit(name, body)
    return arguments.layer{
        title = "slim.nets." .. name, name = name,
        positional = {"depth", "depth_bottleneck", "stride", "rate"},
        defaults = {
            depth = check.required, depth_bottleneck = check.required, stride = check.required,
            rate = 1, outputs_collections = check.optional, scope = check.optional,
        },
        call = function(x, given)
            return scopes.enter(given.scope, name, x, nil, function(scope)
                local y = body(x, given, scope)
                collections.add(given.outputs_collections, scope.name, y)
                return y
            end)
        end,
    }
end

local function channels(x)
    local sizes = x:shape()
    return sizes[#sizes]
end

local function sum(shortcut, residual, scope)
    return layers.named(nn.add, {}, scope.name .. "/add")({shortcut, residual})
end

--- stack_blocks_dense(x, blocks, {output_stride =, outputs_collections =}): blocks of units, each
--- {scope =, unit =, strides = {...}, depth =, depth_bottleneck =}. From output_stride on strides
--- become dilations.
utils.stack_blocks_dense = arguments.layer{
    title = "slim.nets.resnet_utils.stack_blocks_dense", name = "stack_blocks_dense",
    positional = {"blocks", "output_stride"},
    defaults = {
        blocks = check.required, output_stride = check.optional,
        outputs_collections = check.optional,
    },
    call = function(x, given)
        local net, stride, rate, wanted = x, 1, 1, given.output_stride
        local function call(block, position, unit_stride)
            local dilated = wanted and stride == wanted
            net = scopes.enter("unit_" .. position, nil, net, nil, function()
                return block.unit(net, {
                    depth = block.depth, depth_bottleneck = block.depth_bottleneck,
                    stride = dilated and 1 or unit_stride, rate = dilated and rate or 1,
                })
            end)
            if dilated then rate = rate * unit_stride else stride = stride * unit_stride end
        end
        for _, block in ipairs(given.blocks) do
            scopes.enter(block.scope, nil, net, nil, function(scope)
                for position, unit_stride in ipairs(block.strides) do
                    call(block, position, unit_stride)
                end
                collections.add(given.outputs_collections, scope.name, net)
            end)
        end
        if wanted and stride ~= wanted then
            check.fail("slim: these blocks cannot reach an output_stride of %d", wanted)
        end
        return net
    end,
}

-- Global average pooling that keeps the axes.
local function global_pool(net, scope)
    local pooled = layers.named(nn.global_avg_pool, {}, scope:join("pool5"))(net)
    local sizes = {1, 1, channels(pooled)}
    return layers.named(nn.reshape, sizes, scope:join("pool5/expanded"))(pooled)
end

-- A network: root(x, given), blocks, finish(net), pooling and the layer on top.
local function make(title, bottleneck, depths, root, finish)
    local name = title:match("[^.]*$")
    local spec = {
        title = "slim.nets." .. title,
        positional = {"num_classes", "is_training", "global_pool", "output_stride"},
        defaults = {
            num_classes = check.optional, is_training = check.optional, global_pool = true,
            output_stride = check.optional, spatial_squeeze = true, reuse = check.optional,
            scope = name,
        },
    }
    local blocks = {}
    for position, count in ipairs(depths) do
        local strides = {}
        for number = 1, count do strides[number] = number == count and position < 4 and 2 or 1 end
        blocks[position] = {
            scope = "block" .. position, unit = bottleneck, strides = strides,
            depth = 128 << position, depth_bottleneck = 32 << position,
        }
    end
    local function body(x, given, scope, points)
        local wanted = given.output_stride
        if wanted and wanted % 4 ~= 0 then
            check.fail("%s: output_stride must be a multiple of 4, got %s", spec.title,
                tostring(wanted))
        end
        local net = max_pool2d(root(x), {3, 3}, {stride = 2, scope = "pool1"})
        net = utils.stack_blocks_dense(net, blocks, {output_stride = wanted and wanted // 4})
        net = finish(net)
        if given.global_pool then net = global_pool(net, scope) end
        if not given.num_classes then return net end
        net = conv2d(net, given.num_classes, {1, 1}, {
            activation_fn = false, normalizer_fn = false, scope = "logits",
        })
        if given.spatial_squeeze and given.global_pool then
            net = vgg.squeezed(net, scope:join("logits"))
        end
        points.predictions = layers.softmax(net, {scope = "predictions"})
        return net
    end
    return function(x, ...)
        local given = arguments.read(spec, nil, ...)
        state.check_input(spec.title, x)
        return arguments.with_defaults(utils.resnet_arg_scope, function()
            return scopes.enter(given.scope, name, x, given.reuse, function(scope)
                local points = collections.end_points()
                local collected = {conv2d, bottleneck, utils.stack_blocks_dense}
                return arguments.arg_scope(collected, {outputs_collections = points}, function()
                    local function run() return body(x, given, scope, points), points end
                    if given.is_training == nil then return run() end
                    return arguments.arg_scope({batch_norm}, {is_training = given.is_training}, run)
                end)
            end)
        end)
    end
end

-- The last two convolutions of a unit and the first one.
local function residual(x, given, last)
    local y = conv2d(x, given.depth_bottleneck, {1, 1}, {scope = "conv1"})
    y = utils.conv2d_same(y, given.depth_bottleneck, 3, given.stride,
        {rate = given.rate, scope = "conv2"})
    last.scope = "conv3"
    return conv2d(y, given.depth, {1, 1}, last)
end

---- Version 1: activation after the sum --------------------------------------------------------

local bottleneck_v1 = unit("bottleneck_v1", function(x, given, scope)
    local shortcut
    if channels(x) == given.depth then
        shortcut = utils.subsample(x, given.stride, {scope = "shortcut"})
    else
        shortcut = conv2d(x, given.depth, {1, 1},
            {stride = given.stride, activation_fn = false, scope = "shortcut"})
    end
    local y = sum(shortcut, residual(x, given, {activation_fn = false}), scope)
    return layers.named(nn.relu, {}, scope.name .. "/Relu")(y)
end)

local function root_v1(x) return utils.conv2d_same(x, 64, 7, 2, {scope = "conv1"}) end

local function finish_v1(net) return net end

---- Version 2: normalization and activation before the convolutions ----------------------------

local LINEAR = {activation_fn = false, normalizer_fn = false}

local bottleneck_v2 = unit("bottleneck_v2", function(x, given, scope)
    local active = batch_norm(x, {activation_fn = "relu", scope = "preact"})
    local shortcut
    if channels(x) == given.depth then
        shortcut = utils.subsample(x, given.stride, {scope = "shortcut"})
    else
        shortcut = conv2d(active, given.depth, {1, 1}, {
            stride = given.stride, activation_fn = false, normalizer_fn = false, scope = "shortcut",
        })
    end
    local y = residual(active, given, {activation_fn = false, normalizer_fn = false})
    return sum(shortcut, y, scope)
end)

local function root_v2(x)
    return arguments.arg_scope({conv2d}, LINEAR, function() return root_v1(x) end)
end

local function finish_v2(net)
    return batch_norm(net, {activation_fn = "relu", scope = "postnorm"})
end

---- The networks -------------------------------------------------------------------------------

local DEPTHS = {[50] = {3, 4, 6, 3}, [101] = {3, 4, 23, 3}, [152] = {3, 8, 36, 3}}

local v1 = {resnet_arg_scope = utils.resnet_arg_scope, bottleneck = bottleneck_v1}
local v2 = {resnet_arg_scope = utils.resnet_arg_scope, bottleneck = bottleneck_v2}

--- resnet_v1.resnet_v1_50 (_101, _152), resnet_v2.resnet_v2_50 ...: (x, num_classes, is_training,
--- global_pool = true, output_stride, spatial_squeeze = true, reuse, scope). They return logits, or
--- the features in front of them without num_classes, and end points.
for depth, depths in pairs(DEPTHS) do
    local name = "resnet_v1_" .. depth
    v1[name] = make("resnet_v1." .. name, bottleneck_v1, depths, root_v1, finish_v1)
    name = "resnet_v2_" .. depth
    v2[name] = make("resnet_v2." .. name, bottleneck_v2, depths, root_v2, finish_v2)
end

return {resnet_v1 = v1, resnet_v2 = v2, resnet_utils = utils}
