-- train_resnet.lua: trains a residual network on images.
--
--     lua5.4 scripts/train_resnet.lua
--     lua5.4 scripts/train_resnet.lua --data cifar10 --data-dir FOLDER --dry-run
--     lua5.4 scripts/train_resnet.lua --data cifar10 --data-dir FOLDER --epochs 3
--     lua5.4 scripts/train_resnet.lua --variant tutorial --image-size 64 --samples 200
--
-- Ctrl-C ends it after the step; the same command with --resume goes on, to the same bits.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local files = require "resin.files"
local options = require "resin.options"
local report = require "resin.report"
local cost = require "resin.nn.cost"
local data, models, optim, train = resin.data, resin.models, resin.optim, resin.train

-- ---- Settings -----------------------------------------------------------------------------------

-- What is used where the command line says nothing: by variant, else by data set. `lr` is the
-- highest learning rate of each optimizer, `crop` by how many pixels images are shifted at most.
local VARIANTS = {
    cifar = {
        data = "synthetic", width = 16, batch_size = 128, optimizer = "sgd", schedule = "one-cycle",
        weight_decay = 5e-4, image_size = 32, nesterov = true, shortcut = "identity",
        lr = {sgd = 0.2, adam = 0.004, adamw = 0.004, rmsprop = 0.002},
    },
    tutorial = {
        data = "random", width = 64, batch_size = 32, optimizer = "adam", schedule = "constant",
        weight_decay = 0, image_size = 224, epochs = 10, crop = 0, flip = false, nesterov = false,
        lr = {sgd = 0.01, adam = 0.001, adamw = 0.001, rmsprop = 0.001},
    },
}
local DATA = {
    synthetic = {image = {32, 32, 3}, classes = 10, epochs = 8, crop = 0, flip = false},
    random = {classes = 10, epochs = 10, crop = 0, flip = false},
    cifar10 = {image = {32, 32, 3}, classes = 10, epochs = 20, crop = 4, flip = true},
    cifar100 = {image = {32, 32, 3}, classes = 100, epochs = 30, crop = 4, flip = true},
    mnist = {image = {28, 28, 1}, classes = 10, epochs = 3, crop = 2, flip = false},
    ["fashion-mnist"] = {image = {28, 28, 1}, classes = 10, epochs = 5, crop = 2, flip = true},
}

-- Options of a network that the tutorial's, which is as it is, does not have.
local CIFAR_ONLY = {"filters", "kernel", "activation", "shortcut", "dropout", "l1", "l2"}

local OPTIONS = {
    about = "Trains a residual network on images. What follows from variant or data is marked *.",
    {"data", "NAME", "the images*", what = "data set",
        choices = {"synthetic", "random", "cifar10", "cifar100", "mnist", "fashion-mnist"}},
    {"data-dir", "DIR", "the folder with the files of cifar10, cifar100, mnist or fashion-mnist"},
    {"variant", "NAME", "He et al. 2015 for small images, or the Keras tutorial's network on noise",
        choices = {"cifar", "tutorial"}, what = "variant", default = "cifar"},
    {"samples", "N", "images to make of random (1000) or synthetic (10000)", kind = "integer",
        low = 10},
    {"image-size", "N", "side of random images*", kind = "integer", low = 8},

    {"depth", "N", "layers of the variant cifar, 6 n + 2", kind = "integer", default = 20},
    {"width", "N", "filters of the first stage*; the next ones have twice as many",
        kind = "integer", low = 1},
    {"filters", "A,B,C", "filters of the three stages"},
    {"kernel", "N", "side of the convolutions' windows (3)", kind = "integer", low = 1, high = 31},
    {"activation", "NAME", "relu, sigmoid, tanh, elu, leaky_relu, selu, gelu, silu ... (relu)"},
    {"shortcut", "NAME", "what is added to a block (identity)", what = "shortcut",
        choices = {"identity", "projection", "none"}},
    {"dropout", "X", "the part dropped in front of the dense layer (0)", kind = "number", low = 0,
        high = 0.99},
    {"l1", "X", "penalty of the weights' absolute values (0)", kind = "number", low = 0},
    {"l2", "X", "penalty of the weights' squares (0)", kind = "number", low = 0},

    {"epochs", "N", "passes over the training images*", kind = "integer", low = 1},
    {"batch-size", "N", "images in a batch*", kind = "integer", low = 1},
    {"accumulate", "N", "batches whose mean gradient makes a step", kind = "integer", low = 1,
        default = 1},
    {"optimizer", "NAME", "what changes the weights*", what = "optimizer",
        choices = {"sgd", "adam", "adamw", "rmsprop"}},
    {"lr", "X", "learning rate, the highest of the schedule*", kind = "number", low = 0},
    {"schedule", "NAME", "of the learning rate*", what = "schedule",
        choices = {"constant", "step", "cosine", "one-cycle"}},
    {"momentum", "X", "of sgd (0.9) and rmsprop (0)", kind = "number", low = 0, high = 1},
    {"nesterov", nil, "Nesterov's step of sgd*; --no-nesterov without"},
    {"beta1", "X", "of adam and adamw (0.9)", kind = "number", low = 0, high = 1},
    {"beta2", "X", "of adam and adamw (0.999)", kind = "number", low = 0, high = 1},
    {"alpha", "X", "of rmsprop (0.99; tutorial 0.9)", kind = "number", low = 0, high = 1},
    {"epsilon", "X", "of adam, adamw and rmsprop (1e-8; tutorial 1e-7)", kind = "number", low = 0},
    {"weight-decay", "X", "decay of the weights*", kind = "number", low = 0},
    {"clip-norm", "X", "the largest norm of all gradients together (0: any)", kind = "number",
        low = 0},
    {"label-smoothing", "X", "the part of a label spread over all classes", kind = "number",
        low = 0, high = 0.99, default = 0},
    {"average", "X", "decay of averaged weights, as 0.999 (none)", kind = "number", low = 0.01,
        high = 0.999999},

    {"crop", "N", "shift training images by up to N pixels*", kind = "integer", low = 0},
    {"flip", nil, "mirror training images at random*; --no-flip does not"},
    {"cutout", "N", "set a square of N pixels a side of training images to zero", kind = "integer",
        low = 0, default = 0},

    {"seed", "N", "same seed, same result, at any number of threads", kind = "integer", low = 0,
        default = 1},
    {"threads", "N", "all processors if left out", kind = "integer", low = 1, high = 64},
    {"out", "DIR", "folder of report, history, weights and checkpoint (runs/...)"},
    {"resume", nil, "go on from the checkpoint in the folder of --out"},
    {"checkpoint-steps", "N", "write the checkpoint every N steps, too, not only after epochs",
        kind = "integer", low = 1},
    {"dry-run", nil, "tell parameters, multiply-adds, memory and expected time, and end"},
    {"summary", nil, "print the table of the network's layers and end"},
}

-- "16,32,64" as a list.
local function read_filters(text)
    local list = {}
    for part in (text .. ","):gmatch("([^,]*),") do
        local number = math.tointeger(tonumber(part))
        if not number or number < 1 then
            options.fail("--filters: expected three numbers as 16,32,64, got '%s'", text)
        end
        list[#list + 1] = number
    end
    if #list ~= 3 then options.fail("--filters: expected three numbers, got '%s'", text) end
    return list
end

local function read_settings()
    local given = options.parse(arg, OPTIONS)
    local variant = VARIANTS[given.variant]
    given.tutorial = given.variant == "tutorial"
    if given.tutorial then
        for _, name in ipairs(CIFAR_ONLY) do
            if given[name] then options.fail("--%s: the variant tutorial is as it is", name) end
        end
    end
    given.data = given.data or variant.data
    local set = DATA[given.data]
    for _, name in ipairs{"width", "batch_size", "optimizer", "schedule", "weight_decay",
        "image_size", "epochs", "crop", "flip", "nesterov", "shortcut"} do
        if given[name] == nil then given[name] = variant[name] end
        if given[name] == nil then given[name] = set[name] end
    end
    if given.filters then given.filters = read_filters(given.filters) end
    given.lr = given.lr or variant.lr[given.optimizer]
    given.classes = set.classes
    given.image = set.image or {given.image_size, given.image_size, 3}
    given.name = given.tutorial and "tutorial" or "cifar" .. given.depth
    given.held_out = given.tutorial and "Validation" or "Test"
    given.out = given.out or ("runs/%s-%s"):format(given.name, given.data)
    return given
end

-- ---- Images, network, optimizer -----------------------------------------------------------------

local function load_images(settings)
    local name = settings.data
    if name == "synthetic" then
        return data.synthetic{count = settings.samples, seed = settings.seed}
    end
    if name == "random" then
        local all = data.random{count = settings.samples or 1000, height = settings.image[1],
            width = settings.image[2], seed = settings.seed}
        -- The tutorial's values lie in [0, 1); its validation part is the last fifth, unshuffled.
        if settings.tutorial then all.mean, all.deviation = {0, 0, 0}, {1, 1, 1} end
        return all:split(0.8)
    end
    if not settings.data_dir then
        error(("--data %s needs --data-dir, the folder with its files"):format(name), 0)
    end
    return data[name:gsub("-", "_")](settings.data_dir)
end

local function build_network(settings)
    local given = {width = settings.width, input = settings.image, classes = settings.classes}
    if settings.tutorial then return models.tutorial_resnet(given) end
    given.depth = settings.depth
    for _, name in ipairs(CIFAR_ONLY) do given[name] = settings[name] end
    return models.cifar_resnet(given)
end

local function build_schedule(settings, steps)
    local name, rate = settings.schedule, settings.lr
    if name == "constant" then return optim.constant(rate) end
    if name == "cosine" then return optim.cosine{rate = rate, steps = steps} end
    if name == "one-cycle" then return optim.one_cycle{peak = rate, steps = steps} end
    -- As He et al.: a tenth after half of the steps, and again after three quarters.
    return optim.step_schedule{rate = rate, milestones = {steps // 2, steps * 3 // 4}}
end

-- Which settings each optimizer has.
local OPTIMIZER_SETTINGS = {
    sgd = {"momentum"}, adam = {"beta1", "beta2", "epsilon"},
    adamw = {"beta1", "beta2", "epsilon"}, rmsprop = {"momentum", "alpha", "epsilon"},
}

-- The tutorial follows Keras' formulas, the rest PyTorch's.
local function build_optimizer(model, settings, steps)
    local name = settings.optimizer
    local given = {model, learning_rate = build_schedule(settings, steps),
        weight_decay = settings.weight_decay, clip_norm = settings.clip_norm,
        rule = settings.tutorial and "keras" or "pytorch"}
    for _, setting in ipairs(OPTIMIZER_SETTINGS[name]) do given[setting] = settings[setting] end
    if name == "sgd" then
        given.momentum = given.momentum or 0.9
        given.nesterov = settings.nesterov and given.momentum > 0
    end
    return optim[name](given)
end

local function augmentation(settings)
    return {crop = settings.crop, flip = settings.flip, cutout = settings.cutout}
end

-- ---- What it costs ------------------------------------------------------------------------------

local function duration(seconds)
    if seconds < 90 then return ("%.0f seconds"):format(math.max(seconds, 1)) end
    if seconds < 5400 then return ("%.0f minutes"):format(seconds / 60) end
    return ("%.1f hours"):format(seconds / 3600)
end

-- Seconds for an image in training, and the memory that a step takes, in MB: both measured on steps
-- of a network of its own, so that the training is not touched. Where a batch is much work, a part
-- of it has to do.
local function measure(settings, set, multiply_adds)
    local state, held = resin.random_state(), resin.memory().held
    local model = build_network(settings)
    local optimizer = build_optimizer(model, settings, 3)
    local size = math.min(settings.batch_size, #set, math.max(4, 5e9 // multiply_adds))
    local bytes, seconds = {}, nil
    for step, count in ipairs{math.max(size // 2, 1), size, size} do
        resin.reset_peak_memory()
        local iterate = set:batches{batch_size = math.tointeger(count)}
        local start = resin.clock()
        train.fit(model, function()
            return function()
                local images, labels = iterate()
                iterate = function() return nil end -- one step
                return images, labels
            end
        end, {optimizer = optimizer, verbose = false})
        seconds = (resin.clock() - start) / count
        bytes[step] = resin.memory().peak - held
    end
    resin.random_state(state)
    local for_each = (bytes[3] - bytes[1]) / math.max(size - math.max(size // 2, 1), 1)
    return seconds, (bytes[3] + math.max(for_each, 0) * (settings.batch_size - size)) / 1e6
end

-- What the training is; of a dry run or the tutorial, how long it takes.
local function describe(settings, model, train_set, test_set)
    local all, trainable = model:count()
    local multiply_adds = cost.multiply_adds(model)
    print(("%s on %s: %d + %d images, %d trainable parameters, %.4g million multiply-adds an "
        .. "image, %d threads"):format(settings.name, settings.data, #train_set, #test_set,
            trainable, multiply_adds / 1e6, resin.threads()))
    if not settings.tutorial and not settings.dry_run then return end
    -- Backward takes twice as long as forward; a multiply-add is two operations.
    local passes = settings.epochs * (3 * #train_set + #test_set)
    local seconds, megabytes = measure(settings, train_set, multiply_adds)
    if settings.dry_run then
        print(("parameters: %d, of them %d not trainable (running statistics)"):format(all,
            all - trainable))
        print(("memory: about %.0f MB for a batch of %d, besides the images (%.0f MB)"):format(
            megabytes, settings.batch_size,
            (train_set.images:count() + test_set.images:count()) / 1e6))
        local epoch = seconds / 3 * passes / settings.epochs
        print(("an epoch: %d steps, about %s"):format(
            (#train_set - 1) // (settings.batch_size * settings.accumulate) + 1, duration(epoch)))
    end
    print(("training and validation are %.4g TFLOP and take about %s here; %s--width and --epochs "
        .. "make it less"):format(2e-12 * multiply_adds * passes, duration(seconds / 3 * passes),
            settings.data == "random" and "--image-size, --samples, " or ""))
end

-- ---- Training -----------------------------------------------------------------------------------

local function fit(settings, model, train_set, test_set)
    local batches = (#train_set - 1) // settings.batch_size + 1
    local steps = (batches - 1) // settings.accumulate + 1
    return train.fit(model, train_set, {
        optimizer = build_optimizer(model, settings, settings.epochs * steps),
        epochs = settings.epochs, batch_size = settings.batch_size,
        accumulate = settings.accumulate, seed = settings.seed, augment = augmentation(settings),
        validation_data = test_set, one_hot = settings.tutorial,
        label_smoothing = settings.label_smoothing, average = settings.average,
        callbacks = {train.csv_log(settings.out .. "/history.csv")},
        checkpoint = {settings.out .. "/checkpoint.safetensors",
            every_steps = settings.checkpoint_steps},
        resume = settings.resume or false,
    })
end

-- The settings that were in force, for the report.
local function shown_settings(settings, started)
    local shown = {{"started", started}, {"resin", resin.version},
        {"kernels", resin.instruction_set()}, {"threads", resin.threads()}}
    local of_optimizer = {momentum = true, nesterov = true, beta1 = true, beta2 = true,
        alpha = true, epsilon = true}
    for _, row in ipairs(OPTIONS) do
        local name = row[1]:gsub("-", "_")
        local value = settings[name]
        if name == "filters" and value then value = table.concat(value, ", ") end
        local unused = name == "threads" or name == "summary" or name == "dry_run"
            or name == "depth" and settings.tutorial or name == "out"
            or name == "image_size" and settings.data ~= "random"
            or name == "nesterov" and settings.optimizer ~= "sgd"
            or of_optimizer[name] and value == nil
        if value ~= nil and not unused then shown[#shown + 1] = {row[1], value} end
    end
    return shown
end

-- Makes the folder of the results now: nobody wants to learn after hours that it cannot be written.
local function make_folder(path)
    if not files.make_folder(path) then
        error("--out: cannot write to the folder " .. path, 0)
    end
end

local function main()
    local settings = read_settings()
    if settings.threads then resin.set_threads(settings.threads) end
    resin.seed(settings.seed)
    local model = build_network(settings)
    if settings.summary then return model:summary() end
    local train_set, test_set = load_images(settings)
    if not settings.dry_run then make_folder(settings.out) end
    describe(settings, model, train_set, test_set)
    if settings.dry_run then return end
    local interrupt <close> = resin.on_interrupt()
    local started = os.date("%Y-%m-%d %H:%M:%S")
    local history = fit(settings, model, train_set, test_set)
    if #history == 0 then
        error("stopped before the end of the first epoch; --resume goes on", 0)
    end
    model:save(settings.out .. "/model.safetensors")
    local result = report.write{
        out = settings.out, title = ("%s on %s"):format(settings.name, settings.data),
        history = history, settings = shown_settings(settings, started), model = model,
        test = test_set, held_out = settings.held_out,
    }
    print(("test accuracy: %.4f"):format(history[#history].val_accuracy))
    print("report: " .. result.path)
    if history.stopped == "interrupted" then os.exit(130, true) end -- as a shell calls Ctrl-C
end

io.stdout:setvbuf("line")
options.run(main)
