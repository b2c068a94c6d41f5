-- train_resnet.lua: trains a residual network on images.
--
--     lua5.4 scripts/train_resnet.lua
--     lua5.4 scripts/train_resnet.lua --data cifar10 --data-dir FOLDER --dry-run
--     lua5.4 scripts/train_resnet.lua --data cifar10 --data-dir FOLDER --epochs 3
--     lua5.4 scripts/train_resnet.lua --variant tutorial --image-size 64 --samples 200
--     lua5.4 scripts/train_resnet.lua --variant v2 --depth 101 --image-size 64 --samples 2000
--
-- Ctrl-C ends it after the step; the same command with --resume goes on, to the same bits.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local models = require "resin".models
local script = require "resin.script"
local rows = script.rows

-- Keras' networks: depth 50, 101 or 152, and the same with two convolutions in a block.
local function keras(version)
    return {
        build = function(given)
            given.version = version
            return models.resnet(given)
        end,
        network = {"depth", "width", "filters", "blocks", "kernel", "activation", "pooling",
            "dropout", "l1", "l2"},
        name = function(settings) return ("resnet%d-%s"):format(settings.depth, version) end,
        depth = 50, data = "synthetic", batch_size = 32, optimizer = "adam", schedule = "one-cycle",
        weight_decay = 0, nesterov = false, image_size = 224, rule = "keras", held_out = "Test",
        random = {1000, 0.8}, costly = true,
        lr = {sgd = 0.05, adam = 0.001, adamw = 0.001, rmsprop = 0.001},
    }
end

script.train{
    about = "Trains a residual network on images.",
    variant = {"He et al. 2015 for small images, the Keras tutorial's network on noise, or Keras' "
        .. "ResNet50, 101, 152 (v1) and ResNet50V2 ... (v2)", default = "cifar"},
    rows = {
        {"depth", "N", "layers: of cifar 6 n + 2 (20); of v1 and v2 18, 34, 50, 101 or 152 (50)",
            kind = "integer"},
        {"width", "N", "filters of the first stage (cifar 16, others 64); the next ones have twice "
            .. "as many", kind = "integer", low = 1},
        rows.filters,
        {"blocks", "A,B,C,D", "blocks of each stage of tutorial (2), v1 or v2 (by depth)",
            kind = "integers", low = 1},
        rows.kernel, rows.activation,
        {"shortcut", "NAME", "what is added to a block (cifar identity, tutorial projection)",
            what = "shortcut", choices = {"identity", "projection", "none"}},
        {"pooling", "NAME", "what joins the last pixels (avg)", what = "pooling",
            choices = {"avg", "max"}},
        {"stride", "N", "of the tutorial's stages two to four (1)", kind = "integer", low = 1},
        {"faulty", nil, "the tutorial's block as printed: it strides twice, which fails with "
            .. "--stride 2"},
        rows.dropout, rows.l1, rows.l2,
    },
    variants = {
        cifar = {
            build = models.cifar_resnet,
            network = {"depth", "width", "filters", "kernel", "activation", "shortcut", "pooling",
                "dropout", "l1", "l2"},
            name = function(settings) return "cifar" .. settings.depth end,
            depth = 20, width = 16, shortcut = "identity", data = "synthetic", batch_size = 128,
            optimizer = "sgd", schedule = "one-cycle", weight_decay = 5e-4, nesterov = true,
            image_size = 32, rule = "pytorch", held_out = "Test", random = {1000, 0.8},
            lr = {sgd = 0.2, adam = 0.004, adamw = 0.004, rmsprop = 0.002},
        },
        tutorial = {
            build = models.tutorial_resnet,
            network = {"width", "filters", "blocks", "kernel", "activation", "shortcut", "stride",
                "faulty", "dropout", "l1", "l2"},
            name = "tutorial", width = 64, data = "random", epochs = 10, crop = 0, flip = false,
            batch_size = 32, optimizer = "adam", schedule = "constant", weight_decay = 0,
            nesterov = false, image_size = 224, rule = "keras", held_out = "Validation",
            random = {1000, 0.8}, pixels = "unit", one_hot = true, costly = true,
            lr = {sgd = 0.01, adam = 0.001, adamw = 0.001, rmsprop = 0.001},
        },
        v1 = keras("v1"), v2 = keras("v2"),
    },
}
