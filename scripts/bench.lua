-- bench.lua: times one training or inference step of a reference network: after two steps to warm
-- up, the median of all steps in the given time, at least three.
--
--     lua5.4 scripts/bench.lua --model resnet20 --mode train --batch 128 --threads 2 --seconds 10
--     lua5.4 scripts/bench.lua --model resnet50 --profile
--     lua5.4 scripts/bench.lua --model resnet20 --scaling
--
-- A training step is forward, loss, backward and SGD with momentum; an inference step is one run of
-- the network's plan (nn.plan). effective_gflops counts two operations for each multiply-add of the
-- direct convolutions and dense layers, three times as many in training; fma_peak_gflops is what
-- the same threads reach in this run with multiply-adds that touch no memory, memory_read_gbs and
-- memory_copy_gbs how fast they read and copy memory.
-- `make compare` runs it beside PyTorch (scripts/compare.lua).
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local options = require "resin.options"
local cost = require "resin.nn.cost"
local profile = require "resin.bench.profile"
local scaling = require "resin.bench.scaling"
local step = require "resin.bench.step"
local networks = resin.models.bench

local NAMES = {"resnet20", "resnet56", "cifar14-w64", "tutorial-resnet", "tutorial-resnext",
    "resnet18", "resnet50", "resnext50", "vgg16"}

local function measure(given)
    local one = step.new(given)
    local times = step.times(one, given.seconds)
    local median = step.median(times)
    local _, trainable = one.model:count()
    local operations = 2 * cost.multiply_adds(one.model) * one.batch
        * (given.mode == "train" and 3 or 1)
    local peak_rss = resin.peak_rss() -- before memory is measured
    local limits = profile.limits()
    return {
        model = given.model, mode = given.mode, batch = one.batch, threads = given.threads,
        parameters = trainable, median_ms = median * 1e3, min_ms = times[1] * 1e3,
        images_per_s = one.batch / median, effective_gflops = operations / median * 1e-9,
        peak_rss_mb = peak_rss / 2 ^ 20, steps = #times, fma_peak_gflops = limits.fma_peak,
        read = limits.read, copy = limits.copy, handover = limits.handover, plan = one.memory,
    }
end

local JSON = '{"engine": "resin %s", "model": "%s", "mode": "%s", "batch": %d, "threads": %d, '
    .. '"parameters": %d, "median_ms": %.2f, "min_ms": %.2f, "images_per_s": %.2f, '
    .. '"effective_gflops": %.1f, "fma_peak_gflops": %.1f, "memory_read_gbs": %.1f, '
    .. '"memory_copy_gbs": %.1f, "handover_ns": %.0f, "peak_rss_mb": %.0f, "steps": %d, '
    .. '"isa": "%s"}'
local TEXT = "%s %s, batch %d, %d threads: %.2f ms a step (fastest %.2f), %.1f images/s, "
    .. "%.0f effective GFLOP/s (multiply-add peak %.0f; memory read %.1f GB/s, copied %.1f; "
    .. "thread to thread and back %.0f ns), %.0f MB"

local function print_measured(m, json)
    if json then
        print(JSON:format(resin.version, m.model, m.mode, m.batch, m.threads, m.parameters,
            m.median_ms, m.min_ms, m.images_per_s, m.effective_gflops, m.fma_peak_gflops, m.read,
            m.copy, m.handover, m.peak_rss_mb, m.steps, resin.instruction_set()))
    else
        print(TEXT:format(m.model, m.mode, m.batch, m.threads, m.median_ms, m.min_ms,
            m.images_per_s, m.effective_gflops, m.fma_peak_gflops, m.read, m.copy, m.handover,
            m.peak_rss_mb)
            .. (m.plan and ("; results and scratch %.2f MB"):format(m.plan / 2 ^ 20) or ""))
    end
end

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
        {"seconds", "S", "how long to measure (10), with --scaling each row (2)", kind = "number",
            low = 0},
        {"json", nil, "print one line of JSON"},
        {"profile", nil, "print the step by layer"},
        {"scaling", nil, "print tables over threads (up to --threads), batches and image sizes"},
        {"list", nil, "print the networks with parameters and multiply-adds, and end"},
    })
    if given.list then return list_networks() end
    if given.json and (given.profile or given.scaling) then
        options.fail("--json goes with neither --profile nor --scaling")
    end
    given.seconds = given.seconds or given.scaling and 2 or 10
    resin.set_threads(given.threads)
    if given.profile then
        local measured = profile.measure(step.new(given), given.seconds)
        print(profile.text(measured, profile.limits()))
    end
    if given.scaling then print(scaling.text(scaling.measure(given, given.threads))) end
    if not (given.profile or given.scaling) then print_measured(measure(given), given.json) end
end

options.run(main)
