--- slim.nets.vgg: the networks of Simonyan and Zisserman 2014 (arXiv 1409.1556) as TF-slim has
--- them, with the fully connected layers as convolutions.
local arguments = require "resin.slim.arguments"
local check = require "resin.nn.check"
local collections = require "resin.slim.collections"
local combine = require "resin.slim.combine"
local layers = require "resin.slim.layers"
local nn = require "resin.nn"
local node = require "resin.nn.node"
local regularizers = require "resin.slim.regularizers"
local scopes = require "resin.slim.scopes"
local state = require "resin.slim.state"

local vgg = {}

local conv2d, dropout, max_pool2d = layers.conv2d, layers.dropout, layers.max_pool2d

--- vgg_arg_scope{weight_decay = 0.0005}: what the networks were trained with.
function vgg.vgg_arg_scope(options)
    options = check.options("slim.nets.vgg.vgg_arg_scope", options or {}, {weight_decay = 0.0005},
        "weight_decay")
    return arguments.arg_scope({conv2d, layers.fully_connected}, {
        activation_fn = "relu",
        weights_regularizer = regularizers.l2_regularizer(options.weight_decay),
        biases_initializer = "zeros",
    }, function()
        return arguments.arg_scope({conv2d}, {padding = "SAME"})
    end)
end

-- (N, 1, 1, C) as (N, C).
local function squeezed(net, name)
    local sizes = node.is(net) and net:shape() or table.move(net:shape(), 2, 4, 1, {})
    if sizes[1] ~= 1 or sizes[2] ~= 1 then
        check.fail("%s: the output has %d x %d positions; spatial_squeeze = false leaves them, and "
            .. "images of 224 x 224 make one", name, sizes[1], sizes[2])
    end
    return layers.named(nn.reshape, {sizes[3]}, name .. "/squeezed")(net)
end
vgg.squeezed = squeezed

-- Five groups of as many convolutions as `depths` says, and the three layers on top of them.
local function network(x, given, depths)
    local net = x
    for group, depth in ipairs(depths) do
        net = combine.repeat_(net, depth, conv2d, math.min(64 << (group - 1), 512), {3, 3},
            {scope = "conv" .. group})
        net = max_pool2d(net, {2, 2}, {scope = "pool" .. group})
    end
    local function drop(y, scope)
        return dropout(y, given.dropout_keep_prob, {is_training = given.is_training, scope = scope})
    end
    net = conv2d(net, 4096, {7, 7}, {padding = given.fc_conv_padding, scope = "fc6"})
    net = conv2d(drop(net, "dropout6"), 4096, {1, 1}, {scope = "fc7"})
    net = drop(net, "dropout7")
    return conv2d(net, given.num_classes, {1, 1}, {
        activation_fn = false, normalizer_fn = false, scope = "fc8",
    })
end

local function maker(name, depths)
    local spec = {
        title = "slim.nets.vgg." .. name,
        positional = {"num_classes", "is_training", "dropout_keep_prob", "spatial_squeeze"},
        defaults = {
            num_classes = 1000, is_training = check.optional, dropout_keep_prob = 0.5,
            spatial_squeeze = true, fc_conv_padding = "VALID", reuse = check.optional, scope = name,
        },
    }
    return function(x, ...)
        local given = arguments.read(spec, nil, ...)
        state.check_input(spec.title, x)
        return scopes.enter(given.scope, name, x, given.reuse, function(scope)
            local points = collections.end_points()
            local net = arguments.arg_scope({conv2d, layers.fully_connected, max_pool2d},
                {outputs_collections = points}, function()
                    return network(x, given, depths)
                end)
            if given.spatial_squeeze then
                net = squeezed(net, scope:join("fc8"))
                rawset(points, scope:join("fc8"), net)
            end
            return net, points
        end)
    end
end

--- vgg_16(x, num_classes = 1000, is_training, dropout_keep_prob = 0.5, spatial_squeeze = true,
--- fc_conv_padding = "VALID", reuse, scope = "vgg_16"): returns logits and end points. Images of
--- 224 x 224, or larger with spatial_squeeze = false; fc_conv_padding = "SAME" takes smaller ones.
vgg.vgg_16 = maker("vgg_16", {2, 2, 3, 3, 3})

--- vgg_a (11 layers) and vgg_19 likewise.
vgg.vgg_a = maker("vgg_a", {1, 1, 2, 2, 2})
vgg.vgg_19 = maker("vgg_19", {2, 2, 4, 4, 4})

return vgg
