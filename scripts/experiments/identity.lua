-- identity.lua: deepens a trained ResNet-20 to 56 layers without changing what it says.
--
--     lua5.4 scripts/experiments/identity.lua
--     lua5.4 scripts/experiments/identity.lua --weights runs/cifar20-synthetic/model.safetensors
--
-- A new block at the end of a stage gives relu(f(x) + x), and x >= 0 has come out of a relu. Where
-- the scale and shift of the last batch norm of f are 0, f(x) is 0, whatever the other weights are,
-- and the block gives x: more layers can always be as good as fewer. The gradient of the scale is
-- not 0, so the new blocks learn.
--
-- Takes about a minute on two cores.
dofile((arg[0]:match("^(.*)/") or ".") .. "/../path.lua")
local resin = require "resin"
local experiment = require "resin.script.experiment"
local models, plot = resin.models, resin.plot

---- Deepening -------------------------------------------------------------------------------------

-- The layers of a CIFAR ResNet that have weights: the stem's convolution and batch norm, for each
-- block two of both, the dense layer.
local function layers_of(model)
    local list = {}
    for _, child in ipairs(model:children()) do
        if #child[2]:variables() > 0 then list[#list + 1] = child[2] end
    end
    return list
end

local IN_STEM, IN_BLOCK, LAST_NORM = 2, 4, 4

local function copy_layer(from, to)
    local sources = from:variables()
    resin.no_grad(function()
        for i, entry in ipairs(to:variables()) do entry.tensor:copy_(sources[i].tensor) end
    end)
end

local function set_scales(norms, value)
    resin.no_grad(function()
        for _, norm in ipairs(norms) do norm.gamma:fill(value) end
    end)
end

-- Copies the weights of `shallow` into `deep`, whose stages have more blocks: the first ones of
-- each stage get them, the others the identity. Returns the last batch norms of these.
local function deepen(shallow, shallow_depth, deep, deep_depth)
    local from, to = layers_of(shallow), layers_of(deep)
    local few, many = (shallow_depth - 2) // 6, (deep_depth - 2) // 6
    for i = 1, IN_STEM do copy_layer(from[i], to[i]) end
    local new_norms = {}
    for stage = 0, 2 do
        for unit = 0, many - 1 do
            local source = IN_STEM + (stage * few + unit) * IN_BLOCK
            local target = IN_STEM + (stage * many + unit) * IN_BLOCK
            if unit < few then
                for i = 1, IN_BLOCK do copy_layer(from[source + i], to[target + i]) end
            else
                new_norms[#new_norms + 1] = to[target + LAST_NORM] -- its shift is 0 as it is
            end
        end
    end
    copy_layer(from[#from], to[#to])
    set_scales(new_norms, 0)
    return new_norms
end

---- The same logits -------------------------------------------------------------------------------

-- The largest difference of two tensors, and how many of their values differ at all.
local function difference(a, b)
    return (a - b):abs():max():item(), math.tointeger(a:not_equal(b):to("int64"):sum():item())
end

-- Compares both networks on the test images. Also with what is wrong on purpose: scales of 0.01,
-- which must be seen.
local function compare(report, settings, shallow, deep, new_norms)
    local images = settings.test:batches{batch_size = math.min(#settings.test, 500)}()
    local logits = shallow(images)
    local largest = logits:abs():max():item()
    local apart, unequal = difference(logits, deep(images))
    set_scales(new_norms, 0.01)
    local control = difference(logits, deep(images))
    set_scales(new_norms, 0)
    report:say("%d test images, logits up to %.4g: the largest difference between the networks is "
        .. "%.3g, and %d of %d logits differ. With scales of 0.01 instead of 0 the largest "
        .. "difference is %.3g.", #images, largest, apart, unequal, logits:count(), control)
    report:claim("blocks whose last scale is zero leave the logits as they are",
        apart <= 1e-5 * largest, unequal == 0
            and "They are bit-equal: what a new block adds is a sum of products with 0, x + 0 is "
            .. "x, and relu(x) is x for an x that has come out of a relu."
            or "They are not bit-equal: the networks are computed with other roundings.")
    return apart, unequal
end

-- In training the batch norms take the batch's statistics: the same identity, other numbers.
local function compare_in_training(report, settings, shallow, deep)
    local images = settings.train:batches{batch_size = settings.batch_size}()
    local apart, unequal = resin.no_grad(function()
        local statistics = {training = true}
        return difference(shallow(images, statistics), deep(images, statistics))
    end)
    report:say("In training mode (statistics of the batch) on %d images: largest difference %.3g, "
        .. "%d logits differ.", #images, apart, unequal)
end

---- The course ------------------------------------------------------------------------------------

local function mean_scale(norms)
    local sum = 0
    for _, norm in ipairs(norms) do sum = sum + norm.gamma:abs():mean():item() end
    return sum / #norms
end

local function draw(before, after)
    local series = {}
    for _, rows in ipairs{before, after} do
        for _, kind in ipairs{{"training_error", "training"}, {"test_error", "test"}} do
            series[#series + 1] = {name = rows[1].network .. ", " .. kind[2],
                dashed = kind[2] == "test", x = experiment.column(rows, "epoch"),
                y = experiment.column(rows, kind[1])}
        end
    end
    return plot.chart{title = "A trained network is deepened, and training goes on",
        x_label = "Epoch", y_label = "Error (%)", series = series, width = 680}
end

local function new_network(settings, depth)
    return models.cifar_resnet{depth = depth, width = settings.width, input = settings.input,
        classes = settings.classes}
end

-- The network to start from: trained here, or read from a file.
local function shallow_network(settings, name)
    local model = new_network(settings, settings.shallow)
    if settings.weights then
        model:load(settings.weights)
        return model, {{network = name, seed = settings.seed, epoch = 0,
            training_error = experiment.error_of(model, settings.train),
            test_error = experiment.error_of(model, settings.test)}}
    end
    return model, experiment.train(settings, model, {name = name})
end

local function main(settings, report)
    if settings.deep <= settings.shallow then
        error(("--deep: expected more layers than --shallow %d, got %d"):format(settings.shallow,
            settings.deep), 0)
    end
    local shallow_name = ("%d layers"):format(settings.shallow)
    local deep_name = ("deepened to %d"):format(settings.deep)
    local shallow, before = shallow_network(settings, shallow_name)
    local deep = new_network(settings, settings.deep)
    local new_norms = deepen(shallow, settings.shallow, deep, settings.deep)
    report:say("%s: %d parameters; %s: %d, with %d new blocks.", shallow_name,
        select(2, shallow:count()), deep_name, select(2, deep:count()), #new_norms)
    compare(report, settings, shallow, deep, new_norms)
    local last = before[#before]
    local start = {network = deep_name, seed = settings.seed, epoch = last.epoch,
        training_error = experiment.error_of(deep, settings.train),
        test_error = experiment.error_of(deep, settings.test)}
    compare_in_training(report, settings, shallow, deep)

    local after = experiment.train(settings, deep, {name = deep_name, after = last.epoch,
        epochs = settings.more_epochs, lr = settings.more_lr})
    table.insert(after, 1, start)
    local ending = after[#after]
    report:say("Errors (training, test): %s %.2f %%, %.2f %%; deepened, before training %.2f %%, "
        .. "%.2f %%; after %d more epochs %.2f %%, %.2f %%.", shallow_name, last.training_error,
        last.test_error, start.training_error, start.test_error, #after - 1, ending.training_error,
        ending.test_error)
    local improved = ending.training_error < start.training_error
    if start.training_error == 0 then improved = nil end -- nothing was left to learn
    report:claim("training goes on from there", improved,
        "The mean size of the new blocks' last scales went from 0 to %.3g.", mean_scale(new_norms))
    report:data(experiment.joined{before, after})
    report:picture(draw(before, after))
end

experiment.run{
    name = "identity",
    about = "Deepens a trained residual network by blocks that change nothing, and trains on.",
    defaults = {samples = 4000, image_size = 16, epochs = 6, batch_size = 100, lr = 0.05,
        weight_decay = 1e-4, width = 16},
    rows = {
        {"shallow", "N", "layers of the network to start from, 6 n + 2", kind = "integer",
            default = 20},
        {"deep", "N", "layers of the deepened network", kind = "integer", default = 56},
        {"weights", "FILE", "the trained network (of train_resnet.lua with the same --width); "
            .. "without it one is trained"},
        {"more-epochs", "N", "passes over the images after deepening", kind = "integer", low = 1,
            default = 10},
        {"more-lr", "X", "learning rate after deepening", kind = "number", low = 0, default = 0.02},
    },
    main = main,
}
