--- What a training will cost, told before it starts.
local core = require "resin.core"
local of_model = require "resin.nn.cost"
local optimizer = require "resin.script.optimizer"
local train = require "resin.train"

local cost = {}

local function duration(seconds)
    if seconds < 90 then return ("%.0f seconds"):format(math.max(seconds, 1)) end
    if seconds < 5400 then return ("%.0f minutes"):format(seconds / 60) end
    return ("%.1f hours"):format(seconds / 3600)
end

-- Seconds for an image in training, and the memory that a step takes, in MB: both measured on steps
-- of a network of its own, so that the training is not touched. Where a batch is much work, a part
-- of it has to do.
local function measure(settings, set, multiply_adds)
    local state, held = core.random_state(), core.memory().held
    local model = settings:build()
    local steps = optimizer.build(model, settings, 3)
    local size = math.min(settings.batch_size, #set, math.max(4, 5e9 // multiply_adds))
    local bytes, seconds = {}, nil
    for step, count in ipairs{math.max(size // 2, 1), size, size} do
        core.reset_peak_memory()
        local iterate = set:batches{batch_size = math.tointeger(count)}
        local start = core.clock()
        train.fit(model, function()
            return function()
                local images, labels = iterate()
                iterate = function() return nil end -- one step
                return images, labels
            end
        end, {optimizer = steps, verbose = false})
        seconds = (core.clock() - start) / count
        bytes[step] = core.memory().peak - held
    end
    core.random_state(state)
    local for_each = (bytes[3] - bytes[1]) / math.max(size - math.max(size // 2, 1), 1)
    return seconds, (bytes[3] + math.max(for_each, 0) * (settings.batch_size - size)) / 1e6
end

-- The options that make it cheaper.
local function cheaper(settings)
    local names = {"--image-size", "--samples"}
    for _, name in ipairs(settings.network) do
        if name == "width" or name == "blocks" or name == "cardinality" then
            names[#names + 1] = "--" .. name
        end
    end
    return table.concat(names, ", ") .. " and --epochs"
end

--- Prints what the training is; of a dry run or a costly variant also how long it takes.
function cost.describe(settings, model, train_set, test_set)
    local all, trainable = model:count()
    local multiply_adds = of_model.multiply_adds(model)
    print(("%s on %s: %d + %d images, %d trainable parameters, %.4g million multiply-adds an "
        .. "image, %d threads"):format(settings.name, settings.data, #train_set, #test_set,
            trainable, multiply_adds / 1e6, core.threads()))
    if not settings.costly and not settings.dry_run then return end
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
    print(("training and validation are %.4g TFLOP and take about %s here; %s make it less")
        :format(2e-12 * multiply_adds * passes, duration(seconds / 3 * passes), cheaper(settings)))
end

return cost
