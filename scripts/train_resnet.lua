-- train_resnet.lua: trains a residual network on images, one line an epoch.
--
--     lua5.4 scripts/train_resnet.lua
--     lua5.4 scripts/train_resnet.lua --data cifar10 --data-dir FOLDER --epochs 3
--     lua5.4 scripts/train_resnet.lua --variant tutorial --image-size 64 --samples 200
--
-- The loop is written out below (train_epoch), to be read and changed.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local options = require "resin.options"
local cost = require "resin.nn.cost"
local data, models, optim, plot = resin.data, resin.models, resin.optim, resin.plot

-- ---- Settings -----------------------------------------------------------------------------------

-- What is used where the command line says nothing: by variant, else by data set. `lr` is the
-- highest learning rate of each optimizer, `crop` by how many pixels images are shifted at most.
local VARIANTS = {
    cifar = {
        data = "synthetic", width = 16, batch_size = 128, optimizer = "sgd", schedule = "one-cycle",
        weight_decay = 5e-4, image_size = 32,
        lr = {sgd = 0.2, adam = 0.004, adamw = 0.004, rmsprop = 0.002},
    },
    tutorial = {
        data = "random", width = 64, batch_size = 32, optimizer = "adam", schedule = "constant",
        weight_decay = 0, image_size = 224, epochs = 10, crop = 0, flip = false,
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

local OPTIONS = {
    about = "Trains a residual network on images. What follows from variant or data is marked *.",
    {"data", "NAME", "the images*", what = "data set",
        choices = {"synthetic", "random", "cifar10", "cifar100", "mnist", "fashion-mnist"}},
    {"data-dir", "DIR", "the folder with the files of cifar10, cifar100, mnist or fashion-mnist"},
    {"variant", "NAME", "He et al. 2015 for small images, or the Keras tutorial's network on noise",
        choices = {"cifar", "tutorial"}, what = "variant", default = "cifar"},
    {"depth", "N", "layers of the variant cifar, 6 n + 2", kind = "integer", default = 20},
    {"width", "N", "filters of the first stage*", kind = "integer", low = 1},
    {"epochs", "N", "passes over the training images*", kind = "integer", low = 1},
    {"batch-size", "N", "images in a step*", kind = "integer", low = 1},
    {"optimizer", "NAME", "what changes the weights*", what = "optimizer",
        choices = {"sgd", "adam", "adamw", "rmsprop"}},
    {"lr", "X", "learning rate, the highest of the schedule*", kind = "number", low = 0},
    {"schedule", "NAME", "of the learning rate*", what = "schedule",
        choices = {"constant", "step", "cosine", "one-cycle"}},
    {"momentum", "X", "of sgd, with Nesterov's step", kind = "number", low = 0, high = 1,
        default = 0.9},
    {"weight-decay", "X", "L2 decay of the weights*", kind = "number", low = 0},
    {"crop", "N", "shift training images by up to N pixels*", kind = "integer", low = 0},
    {"flip", nil, "mirror training images at random; --no-flip does not*"},
    {"samples", "N", "images to make of random (1000) or synthetic (10000)", kind = "integer",
        low = 10},
    {"image-size", "N", "side of random images*", kind = "integer", low = 8},
    {"seed", "N", "same seed, same result, at any number of threads", kind = "integer", low = 0,
        default = 1},
    {"threads", "N", "all processors if left out", kind = "integer", low = 1, high = 64},
    {"out", "DIR", "folder of the report and the weights (runs/...)"},
    {"summary", nil, "print the table of the network's layers and end"},
}

local function read_settings()
    local given = options.parse(arg, OPTIONS)
    local variant = VARIANTS[given.variant]
    given.data = given.data or variant.data
    local set = DATA[given.data]
    for _, name in ipairs{"width", "batch_size", "optimizer", "schedule", "weight_decay",
        "image_size", "epochs", "crop", "flip"} do
        if given[name] == nil then given[name] = variant[name] end
        if given[name] == nil then given[name] = set[name] end
    end
    given.lr = given.lr or variant.lr[given.optimizer]
    given.classes = set.classes
    given.image = set.image or {given.image_size, given.image_size, 3}
    given.tutorial = given.variant == "tutorial"
    given.name = given.tutorial and "tutorial" or "cifar" .. given.depth
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

-- The tutorial follows Keras' formulas, the rest PyTorch's.
local function build_optimizer(model, settings, steps)
    local given = {model, learning_rate = build_schedule(settings, steps),
        weight_decay = settings.weight_decay, rule = settings.tutorial and "keras" or "pytorch"}
    if settings.optimizer == "sgd" then
        given.momentum, given.nesterov = settings.momentum, settings.momentum > 0
    end
    return optim[settings.optimizer](given)
end

-- ---- The loop -----------------------------------------------------------------------------------

local function count_correct(logits, labels)
    local predicted <close> = logits:argmax(-1)
    local equal <close> = predicted:equal(labels)
    local count <close> = equal:sum()
    return count:item()
end

-- One step: the loss of the batch, and how many images were classified rightly before the step.
-- Cross entropy with integer labels is Keras' categorical cross-entropy with one-hot ones; `logits`
-- leaves the final softmax to it.
local function train_step(run, images, labels)
    local logits <close> = run.model(images, {training = true, logits = true})
    local loss <close> = resin.cross_entropy(logits, labels)
    local value = loss:item()
    run.step = run.step + 1
    if value ~= value or value == math.huge then
        error(("the loss is %s at step %d; try a lower --lr than %g"):format(
            value ~= value and "NaN" or "infinite", run.step, run.settings.lr), 0)
    end
    loss:backward()
    run.optimizer:step()
    run.optimizer:clear_grads()
    return value, count_correct(logits, labels)
end

-- One pass over the training images: their mean loss and accuracy as they came.
local function train_epoch(run, epoch)
    local settings, loss_sum, correct, seen = run.settings, 0, 0, 0
    local batches = run.train:batches{batch_size = settings.batch_size, shuffle = true,
        seed = settings.seed, epoch = epoch, crop = settings.crop, flip = settings.flip}
    for batch_images, batch_labels in batches do
        local images <close> = batch_images
        local labels <close> = batch_labels
        local loss, right = train_step(run, images, labels)
        loss_sum, correct, seen = loss_sum + loss * #images, correct + right, seen + #images
    end
    return loss_sum / seen, correct / seen
end

-- Mean loss and accuracy over the test images.
local function evaluate(run)
    local loss_sum, correct, seen = 0, 0, 0
    for batch_images, batch_labels in run.test:batches{batch_size = run.settings.batch_size} do
        local images <close> = batch_images
        local labels <close> = batch_labels
        local logits <close> = run.model(images, {logits = true})
        local loss <close> = resin.cross_entropy(logits, labels)
        loss_sum, seen = loss_sum + loss:item() * #images, seen + #images
        correct = correct + count_correct(logits, labels)
    end
    if loss_sum ~= loss_sum then
        error(("the loss of the test images is NaN after step %d; try a lower --lr than %g"):format(
            run.step, run.settings.lr), 0)
    end
    return loss_sum / seen, correct / seen
end

local function train(run)
    local epochs, history = run.settings.epochs, {}
    for epoch = 1, epochs do
        local start = resin.clock()
        local loss, accuracy = train_epoch(run, epoch)
        local seconds = resin.clock() - start
        local test_loss, test_accuracy = evaluate(run)
        local speed = #run.train / seconds
        history[epoch] = {loss = loss, accuracy = accuracy, test_loss = test_loss,
            test_accuracy = test_accuracy, seconds = seconds, images_per_second = speed}
        print(("epoch %2d/%d  loss %.4f  accuracy %.4f  test accuracy %.4f  %.1f s  %.0f images/s")
            :format(epoch, epochs, loss, accuracy, test_accuracy, seconds, speed))
    end
    return history
end

-- ---- What it costs, and what came out -----------------------------------------------------------

local function duration(seconds)
    if seconds < 90 then return ("%.0f seconds"):format(math.max(seconds, 1)) end
    if seconds < 5400 then return ("%.0f minutes"):format(seconds / 60) end
    return ("%.1f hours"):format(seconds / 3600)
end

-- Times one step of a network of its own on a few images, so that the training is not touched.
local function measure_image(settings, train_set)
    local model = build_network(settings)
    local run = {model = model, settings = settings, step = 0,
        optimizer = build_optimizer(model, settings, 2)}
    local seconds
    for _, size in ipairs{1, math.min(4, settings.batch_size)} do -- the first one warms up
        local images, labels = train_set:batches{batch_size = size}()
        local start = resin.clock()
        train_step(run, images, labels)
        seconds = (resin.clock() - start) / #images
    end
    return seconds
end

local function describe(settings, model, train_set, test_set)
    local _, trainable = model:count()
    local multiply_adds = cost.multiply_adds(model)
    print(("%s on %s: %d + %d images, %d trainable parameters, %.4g million multiply-adds an "
        .. "image, %d threads"):format(settings.name, settings.data, #train_set, #test_set,
            trainable, multiply_adds / 1e6, resin.threads()))
    if not settings.tutorial then return end
    -- Backward takes twice as long as forward; a multiply-add is two operations.
    local passes = settings.epochs * (3 * #train_set + #test_set)
    local seconds = measure_image(settings, train_set) / 3 * passes
    print(("training and validation are %.4g TFLOP and take about %s here; --image-size, --samples, "
        .. "--width and --epochs make it less"):format(2e-12 * multiply_adds * passes,
            duration(seconds)))
end

local function curve(history, name, key)
    local x, y = {}, {}
    for epoch, row in ipairs(history) do x[epoch], y[epoch] = epoch, row[key] end
    return {name = name, x = x, y = y}
end

local function write_report(settings, history, started)
    local held_out = settings.tutorial and "Validation" or "Test"
    local function chart(title, key)
        return plot.chart{title = title .. " over Epochs", x_label = "Epoch", y_label = title,
            series = {curve(history, "Training " .. title, key),
                curve(history, held_out .. " " .. title, "test_" .. key)}}
    end
    local rows = {{"epoch", "loss", "accuracy", held_out:lower() .. " loss",
        held_out:lower() .. " accuracy", "seconds", "images/s"}}
    for epoch, row in ipairs(history) do
        rows[#rows + 1] = {epoch, ("%.4f"):format(row.loss), ("%.4f"):format(row.accuracy),
            ("%.4f"):format(row.test_loss), ("%.4f"):format(row.test_accuracy),
            ("%.1f"):format(row.seconds), ("%.0f"):format(row.images_per_second)}
    end
    local shown = {{"started", started}, {"resin", resin.version},
        {"kernels", resin.instruction_set()}, {"threads", resin.threads()}}
    for _, name in ipairs{"variant", "depth", "width", "data", "epochs", "batch_size", "optimizer",
        "lr", "schedule", "momentum", "weight_decay", "crop", "flip", "samples", "seed"} do
        local unused = name == "depth" and settings.tutorial
            or name == "momentum" and settings.optimizer ~= "sgd"
        if settings[name] ~= nil and not unused then shown[#shown + 1] = {name, settings[name]} end
    end
    local last, path = history[#history], settings.out .. "/report.html"
    local file = assert(io.open(path, "w"))
    file:write(plot.report{
        title = ("%s on %s"):format(settings.name, settings.data),
        summary = ("%s accuracy %.4f after %d epochs."):format(held_out, last.test_accuracy,
            #history),
        charts = {chart("Accuracy", "accuracy"), chart("Loss", "loss")},
        rows = rows, settings = shown,
    })
    assert(file:close())
    return path
end

-- Makes the folder of the results now: nobody wants to learn after hours that it cannot be written.
local function make_folder(path)
    local quoted = "'" .. path:gsub("'", "'\\''") .. "'"
    if not os.execute("mkdir -p -- " .. quoted .. " 2> /dev/null && test -w " .. quoted) then
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
    make_folder(settings.out)
    describe(settings, model, train_set, test_set)
    local batches = train_set:batch_count{batch_size = settings.batch_size}
    local run = {settings = settings, model = model, train = train_set, test = test_set, step = 0,
        optimizer = build_optimizer(model, settings, settings.epochs * batches)}
    local started = os.date("%Y-%m-%d %H:%M:%S")
    local history = train(run)
    model:save(settings.out .. "/model.safetensors")
    local report = write_report(settings, history, started)
    print(("test accuracy: %.4f"):format(history[#history].test_accuracy))
    print("report: " .. report)
end

io.stdout:setvbuf("line")
options.run(main)
