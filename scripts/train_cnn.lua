-- train_cnn.lua: trains a plain convolutional network, or a residual network written as classes of
-- layers, on images.
--
--     lua5.4 scripts/train_cnn.lua
--     lua5.4 scripts/train_cnn.lua --filters 16,32,64 --activation elu --dropout 0.3 --l2 1e-4
--     lua5.4 scripts/train_cnn.lua --data cifar10 --data-dir FOLDER --optimizer rmsprop
--     lua5.4 scripts/train_cnn.lua --variant resnet --blocks 6 --filters 32
--     lua5.4 scripts/train_cnn.lua --variant resnet --pooling none --image-size 224 --summary
--
-- The classes are lua/resin/models/class_style.lua. As usually printed, the residual network has
-- --block-stride 2 and no --projection: that is an error, which names the block and both shapes.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local models = require "resin".models
local script = require "resin.script"
local rows = script.rows

-- Both variants train as Keras does by default.
local function variant(own)
    local all = {
        data = "synthetic", batch_size = 32, optimizer = "adam", schedule = "constant",
        weight_decay = 0, nesterov = false, rule = "keras", held_out = "Validation", crop = 0,
        flip = false, random = {1000, 0.8},
        lr = {sgd = 0.01, adam = 0.001, adamw = 0.001, rmsprop = 0.001},
    }
    for name, value in pairs(own) do all[name] = value end
    return all
end

-- A list of filters says how many blocks there are.
local function with_blocks(given)
    if type(given.filters) == "table" then given.blocks = given.blocks or #given.filters end
    return given
end

script.train{
    about = "Trains a plain convolutional network, or a residual network of layer classes.",
    variant = {"convolutions, pools and dense layers, or a stem and residual blocks",
        default = "plain"},
    rows = {
        {"blocks", "N", "convolutions with their pools (plain 3) or residual blocks (resnet 20)",
            kind = "integer", low = 1},
        {"filters", "N", "of the convolutions (plain 32, resnet 64); a list as 16,32,64 has one "
            .. "for each block and makes --blocks needless", kind = "integers", low = 1},
        rows.kernel, rows.activation,
        {"units", "N", "of the first dense layer of plain (128)", kind = "integer", low = 1},
        {"stride", "N", "of the resnet's stem (2)", kind = "integer", low = 1},
        {"block-stride", "N", "of every residual block (1)", kind = "integer", low = 1},
        {"projection", nil, "a 1x1 convolution in every block's shortcut"},
        {"pooling", "NAME", "what joins the resnet's last pixels (avg); none as printed: a softmax "
            .. "at every pixel, to be looked at only", what = "pooling",
            choices = {"avg", "max", "none"}},
        rows.dropout, rows.l1, rows.l2,
    },
    variants = {
        plain = variant{
            build = function(given) return models.plain_cnn(with_blocks(given)) end,
            network = {"blocks", "filters", "kernel", "activation", "units", "dropout", "l1", "l2"},
            name = "cnn", image_size = 180, pixels = "bytes",
        },
        resnet = variant{
            build = function(given) return models.class_resnet(with_blocks(given)) end,
            network = {"blocks", "filters", "kernel", "activation", "stride", "block-stride",
                "projection", "pooling", "dropout", "l1", "l2"},
            name = "class-resnet", image_size = 224, pooling = "avg", costly = true,
        },
    },
}
