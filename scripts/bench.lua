-- bench.lua: times one training or inference step of a reference network: after two steps to warm
-- up, the median of all steps in the given time, at least three.
--
--     lua5.4 scripts/bench.lua --model resnet20 --mode train --batch 128 --threads 2 --seconds 10
--
-- A training step is forward, loss, backward and SGD with momentum. effective_gflops counts two
-- operations for each multiply-add of the direct convolutions and dense layers, three times as many
-- in training; fma_peak_gflops is what the same threads reach in this run with multiply-adds that
-- touch no memory.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local options = require "resin.options"
local cost = require "resin.nn.cost"
local networks, optim = resin.models.bench, resin.optim

local NAMES = {"resnet20", "resnet56", "cifar14-w64", "tutorial-resnet", "tutorial-resnext",
    "resnet18", "resnet50", "resnext50", "vgg16"}

local function random_labels(batch, classes)
    local labels = resin.zeros({batch}, "int64")
    for i = 1, batch do labels[i] = i % classes + 1 end
    return labels
end

-- A function that runs one step.
local function step_function(model, mode, images, labels)
    if mode == "infer" then
        return function() model(images):release() end
    end
    local optimizer = optim.sgd{model, learning_rate = 0.01, momentum = 0.9, rule = "pytorch"}
    return function()
        local logits <close> = model(images, {training = true})
        local loss <close> = resin.cross_entropy(logits, labels)
        loss:backward()
        optimizer:step()
        optimizer:clear_grads()
    end
end

-- Sorted times of the steps, in seconds.
local function time_steps(step, seconds)
    step()
    step()
    local times, start = {}, resin.clock()
    while resin.clock() - start < seconds or #times < 3 do
        local before = resin.clock()
        step()
        times[#times + 1] = resin.clock() - before
    end
    table.sort(times)
    return times
end

local function measure(given)
    local network = networks[given.model]
    local batch = given.batch or network.batch
    resin.set_threads(given.threads)
    local model = network.make()
    local images = resin.randn(batch, network.side, network.side, 3)
    local step = step_function(model, given.mode, images, random_labels(batch, 10))
    local times = time_steps(step, given.seconds)
    local median = times[#times // 2 + 1]
    local _, trainable = model:count()
    local operations = 2 * cost.multiply_adds(model) * batch * (given.mode == "train" and 3 or 1)
    return {
        model = given.model, mode = given.mode, batch = batch, threads = given.threads,
        parameters = trainable, median_ms = median * 1e3, min_ms = times[1] * 1e3,
        images_per_s = batch / median, effective_gflops = operations / median * 1e-9,
        fma_peak_gflops = resin.fma_peak(), peak_rss_mb = resin.peak_rss() / 2 ^ 20, steps = #times,
    }
end

local JSON = '{"engine": "resin %s", "model": "%s", "mode": "%s", "batch": %d, "threads": %d, '
    .. '"parameters": %d, "median_ms": %.2f, "min_ms": %.2f, "images_per_s": %.2f, '
    .. '"effective_gflops": %.1f, "fma_peak_gflops": %.1f, "peak_rss_mb": %.0f, "steps": %d}'
local TEXT = "%s %s, batch %d, %d threads: %.2f ms a step (fastest %.2f), %.1f images/s, "
    .. "%.0f effective GFLOP/s (multiply-add peak %.0f), %.0f MB"

local function list_networks()
    for _, name in ipairs(NAMES) do
        local network = networks[name]
        local model = network.make()
        local _, trainable = model:count()
        print(("%-17s batch %3d, %dx%d: %9d parameters, %6.2f billion multiply-adds an image")
            :format(name, network.batch, network.side, network.side, trainable,
                cost.multiply_adds(model) * 1e-9))
    end
end

local function main()
    local given = options.parse(arg, {
        about = "Times one step of a reference network.",
        {"model", "NAME", "the network", choices = NAMES, what = "network", default = "resnet20"},
        {"mode", "MODE", "what a step is", choices = {"train", "infer"}, what = "mode",
            default = "train"},
        {"batch", "N", "images in a step (by network)", kind = "integer", low = 1},
        {"threads", "N", "threads", kind = "integer", low = 1, high = 64,
            default = resin.threads()},
        {"seconds", "S", "how long to measure", kind = "number", low = 0, default = 10},
        {"json", nil, "print one line of JSON"},
        {"list", nil, "print the networks with parameters and multiply-adds, and end"},
    })
    if given.list then return list_networks() end
    local m = measure(given)
    if given.json then
        print(JSON:format(resin.version, m.model, m.mode, m.batch, m.threads, m.parameters,
            m.median_ms, m.min_ms, m.images_per_s, m.effective_gflops, m.fma_peak_gflops,
            m.peak_rss_mb, m.steps))
    else
        print(TEXT:format(m.model, m.mode, m.batch, m.threads, m.median_ms, m.min_ms,
            m.images_per_s, m.effective_gflops, m.fma_peak_gflops, m.peak_rss_mb))
    end
end

options.run(main)
