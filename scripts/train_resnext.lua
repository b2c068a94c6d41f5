-- train_resnext.lua: trains a ResNeXt on images.
--
--     lua5.4 scripts/train_resnext.lua
--     lua5.4 scripts/train_resnext.lua --cardinality 32 --data synthetic
--     lua5.4 scripts/train_resnext.lua --variant cifar --data cifar10 --data-dir FOLDER --dry-run
--     lua5.4 scripts/train_resnext.lua --variant cifar --cardinality 4 --width 8 --samples 2000
--     lua5.4 scripts/train_resnext.lua --variant imagenet --image-size 64 --samples 2000
--
-- The tutorial's network has its cardinality as parallel paths of full width, summed: its cost
-- grows with the cardinality. It learns 1,000 random images by heart, which says nothing about
-- others. The real ones (cifar 29 8x64d, imagenet 50 32x4d) have grouped convolutions.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local models = require "resin".models
local script = require "resin.script"
local rows = script.rows

-- "resnext29-8x64d"
local function name_of(settings)
    return ("resnext%d-%dx%dd"):format(settings.depth, settings.cardinality, settings.width)
end

-- The real ones.
local function variant(own)
    local all = {
        build = function(given, settings)
            given.variant = settings.variant
            return models.resnext(given)
        end,
        network = {"depth", "cardinality", "width", "blocks", "activation", "pooling", "dropout",
            "l1", "l2"},
        name = name_of, data = "synthetic", optimizer = "sgd", schedule = "one-cycle",
        weight_decay = 5e-4, nesterov = true, rule = "pytorch", held_out = "Test",
        random = {1000, 0.8}, costly = true,
        lr = {sgd = 0.05, adam = 0.001, adamw = 0.001, rmsprop = 0.001},
    }
    for name, value in pairs(own) do all[name] = value end
    return all
end

script.train{
    about = "Trains a ResNeXt on images.",
    variant = {"parallel paths on noise, or grouped convolutions for CIFAR or ImageNet",
        default = "tutorial"},
    rows = {
        {"depth", "N", "layers: of cifar 9 n + 2 (29), of imagenet 50, 101 or 152 (50)",
            kind = "integer"},
        {"cardinality", "N", "paths (tutorial 8) or groups (cifar 8, imagenet 32)",
            kind = "integer", low = 1},
        {"width", "N", "filters of a path (tutorial 64) or of a group of the first stage (cifar "
            .. "64, imagenet 4)", kind = "integer", low = 1},
        {"blocks", "A,B,C", "blocks (tutorial 1), or those of each stage in place of --depth",
            kind = "integers", low = 1},
        rows.kernel, rows.activation,
        {"pooling", "NAME", "what joins the last pixels of cifar and imagenet (avg)",
            what = "pooling", choices = {"avg", "max"}},
        rows.dropout, rows.l1, rows.l2,
    },
    variants = {
        tutorial = {
            build = function(given)
                given.filters, given.width = given.width, nil
                return models.tutorial_resnext(given)
            end,
            network = {"cardinality", "width", "blocks", "kernel", "activation", "dropout", "l1",
                "l2"},
            name = "tutorial-resnext", cardinality = 8, width = 64, data = "random", epochs = 10,
            crop = 0, flip = false, batch_size = 32, optimizer = "adam", schedule = "constant",
            weight_decay = 0, nesterov = false, image_size = 32, rule = "keras",
            held_out = "Validation", random = {2000, 0.5}, pixels = "unit",
            titles = {accuracy = "Model Accuracy", loss = "Model Loss"},
            lr = {sgd = 0.01, adam = 0.001, adamw = 0.001, rmsprop = 0.001},
        },
        cifar = variant{
            depth = 29, cardinality = 8, width = 64, batch_size = 64, image_size = 32,
        },
        imagenet = variant{
            depth = 50, cardinality = 32, width = 4, batch_size = 32, image_size = 224,
        },
    },
}
