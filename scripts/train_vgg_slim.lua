-- train_vgg_slim.lua: trains a VGG, written with resin.slim, on images.
--
--     lua5.4 scripts/train_vgg_slim.lua
--     lua5.4 scripts/train_vgg_slim.lua --depth 16 --width 16 --no-batch-norm --optimizer adam
--     lua5.4 scripts/train_vgg_slim.lua --data cifar10 --data-dir FOLDER --epochs 10
--     lua5.4 scripts/train_vgg_slim.lua --variant vgg_16 --data cifar10 --data-dir FOLDER --dry-run
--
-- `small` is the network below, narrower than VGG by default; `vgg_16` is slim.nets.vgg.vgg_16 as it
-- is (134 million parameters at ten classes), its top padded so that it takes small images.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local script = require "resin.script"
local nn, slim = resin.nn, resin.slim

-- Convolutions in each of the five groups (Simonyan and Zisserman 2014, table 1: A, B, D, E).
local GROUPS = {
    [11] = {1, 1, 2, 2, 2}, [13] = {2, 2, 2, 2, 2}, [16] = {2, 2, 3, 3, 3}, [19] = {2, 2, 4, 4, 4},
}

local INITIALIZERS = {
    xavier = slim.xavier_initializer(),
    ["truncated-normal"] = slim.truncated_normal_initializer(0, 0.01),
    ["variance-scaling"] = slim.variance_scaling_initializer(),
}

-- Five groups of convolutions, each with a pool, and two fully connected layers.
local function network(x, given)
    local net = x
    for group, depth in ipairs(GROUPS[given.depth]) do
        local filters = given.width * math.min(1 << (group - 1), 8)
        net = slim.repeat_(net, depth, slim.conv2d, filters, {3, 3}, {scope = "conv" .. group})
        net = slim.max_pool2d(net, {2, 2}, {padding = "SAME", scope = "pool" .. group})
    end
    net = slim.fully_connected(net, given.units, {scope = "fc6"})
    net = slim.dropout(net, given.keep_prob, {scope = "dropout6"})
    return slim.fully_connected(net, given.classes,
        {activation_fn = false, normalizer_fn = false, scope = "fc7"})
end

-- What all layers with weights have in common.
local function scope_of(given)
    return slim.arg_scope({slim.conv2d, slim.fully_connected}, {
        activation_fn = given.activation,
        weights_initializer = INITIALIZERS[given.initializer],
        weights_regularizer = slim.l2_regularizer(given.l2),
        normalizer_fn = given.batch_norm and slim.batch_norm,
        normalizer_params = {decay = given.batch_norm_decay, scale = true},
    })
end

local function build_small(given)
    local x = nn.input(given.input)
    return nn.model(x, slim.arg_scope(scope_of(given), function() return network(x, given) end))
end

local function build_vgg_16(given)
    local x = nn.input(given.input)
    local scope = slim.nets.vgg.vgg_arg_scope(given.l2)
    local logits = slim.arg_scope(scope, function()
        return slim.nets.vgg.vgg_16(x, given.classes,
            {dropout_keep_prob = given.keep_prob, fc_conv_padding = "SAME"})
    end)
    return nn.model(x, logits)
end

-- The L2 regularizer stands in the place of the optimizer's decay.
local function variant(own)
    local all = {
        data = "synthetic", batch_size = 64, optimizer = "sgd", schedule = "one-cycle",
        weight_decay = 0, nesterov = true, rule = "pytorch", held_out = "Test", image_size = 32,
        random = {1000, 0.8}, keep_prob = 0.5, l2 = 5e-4,
    }
    for name, value in pairs(own) do all[name] = value end
    return all
end

script.train{
    about = "Trains a VGG, written in TF-slim's way, on images.",
    variant = {"a network of any depth and width, or TF-slim's vgg_16 as it is",
        default = "small"},
    rows = {
        {"depth", "N", "the convolutions of VGG-11, 13, 16 or 19 (11)", kind = "integer"},
        {"width", "N", "filters of the first group (32; VGG has 64); at most 8 times as many in "
            .. "the others", kind = "integer", low = 1},
        {"units", "N", "of the first fully connected layer (256)", kind = "integer", low = 1},
        {"keep-prob", "X", "the part that dropout KEEPS (0.5)", kind = "number", low = 0.01,
            high = 1},
        {"activation", "NAME", "relu, elu, tanh, leaky_relu ... (relu)"},
        {"batch-norm", nil, "normalize instead of biases (small does); --no-batch-norm does not"},
        {"batch-norm-decay", "X", "of the moving statistics (0.9)", kind = "number", low = 0,
            high = 0.9999},
        {"initializer", "NAME", "of the weights (xavier)", what = "initializer",
            choices = {"xavier", "truncated-normal", "variance-scaling"}},
        {"l2", "X", "scale of slim.l2_regularizer, which has the half in it (0.0005)",
            kind = "number", low = 0},
    },
    variants = {
        small = variant{
            build = function(given)
                if not GROUPS[given.depth] then
                    error("--depth: expected 11, 13, 16 or 19, got " .. given.depth, 0)
                end
                return build_small(given)
            end,
            network = {"depth", "width", "units", "keep-prob", "activation", "batch-norm",
                "batch-norm-decay", "initializer", "l2"},
            name = function(settings) return "vgg-slim" .. settings.depth end,
            depth = 11, width = 32, units = 256, activation = "relu", batch_norm = true,
            batch_norm_decay = 0.9, initializer = "xavier",
            lr = {sgd = 0.05, adam = 0.002, adamw = 0.002, rmsprop = 0.001},
        },
        vgg_16 = variant{
            build = build_vgg_16, network = {"keep-prob", "l2"}, name = "vgg_16", costly = true,
            lr = {sgd = 0.01, adam = 0.0001, adamw = 0.0001, rmsprop = 0.0001},
        },
    },
}
