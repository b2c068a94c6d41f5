-- Memory: flat over a training, bounded in eager loops whatever mode Lua's collector is in
-- (DESIGN.md, decision 6), and given back by release, <close> and the collector.
local resin = require "resin"
local formula = dofile "tests/lua/formula.lua"

local MEGABYTE = 1 << 20

-- Threads do not matter here, but on a busy machine they would wait for each other.
local threads = resin.threads()
setup(function() resin.set_threads(1) end)
teardown(function() resin.set_threads(threads) end)

-- Collects and trims, so that a test starts from what is really alive.
local function held()
    collectgarbage()
    collectgarbage()
    return resin.memory().held
end

-- The bound counts from what the engine's last collection left, which may have been another test's
-- tensors: makes garbage until it has collected again. Meanwhile Lua's own collector waits.
local function settle()
    local pause, multiplier = 200, 100 -- Lua's defaults
    local mode = collectgarbage("incremental", 1000, multiplier)
    local before
    repeat
        before = resin.memory().held
        resin.empty(1024, 1024)
    until resin.memory().held < before
    collectgarbage("incremental", pause, multiplier)
    collectgarbage(mode)
end

describe("memory in a training", function()
    it("is flat over a thousand steps", function()
        local model = resin.models.cifar_resnet { depth = 8, width = 4, input = { 8, 8, 3 } }
        local optimizer = resin.optim.sgd { model, learning_rate = 0.01, momentum = 0.9 }
        local x, labels = formula.tensor(1, { 4, 8, 8, 3 }, -1, 1), formula.labels(2, { 4 }, 10)
        local function step()
            local logits <close> = model(x, { training = true })
            local loss <close> = resin.cross_entropy(logits, labels)
            loss:backward()
            optimizer:step()
            optimizer:clear_grads()
        end
        resin.set_threads(2)
        collectgarbage("stop") -- what is flat must not be so by the collector's grace
        for _ = 1, 5 do step() end
        local first = resin.memory()
        for _ = 1, 1000 do step() end
        local last = resin.memory()
        collectgarbage("restart")
        resin.set_threads(1)
        assert.are.equal(first.held, last.held)
        assert.are.equal(first.peak, last.peak)
        assert.are.equal(first.system_allocations, last.system_allocations)
    end)

    -- What training steps and inferences take from the system once the free blocks are those that a
    -- step leaves: the first begins with others, so the second may still cut them otherwise.
    local networks = {
        ["resnet with identity shortcuts"] = function()
            return resin.models.cifar_resnet { depth = 20, input = { 32, 32, 3 } }
        end,
        ["resnext"] = function()
            return resin.models.resnext { depth = 11, cardinality = 4, width = 16 }
        end,
        ["vgg with dropout"] = function()
            local nn = resin.nn
            local x = nn.input { 32, 32, 3 }
            local y = x
            for _, filters in ipairs { 16, 32, 64 } do
                y = nn.relu(nn.conv2d { filters, kernel = 3, padding = 1 }(y))
                y = nn.relu(nn.conv2d { filters, kernel = 3, padding = 1 }(y))
                y = nn.max_pool2d { kernel = 2, stride = 2 }(y)
            end
            y = nn.dropout(0.5)(nn.dense { 256, activation = "relu" }(nn.flatten(y)))
            return nn.model(x, nn.dense { 10 }(y))
        end,
        ["checkpointed blocks"] = function()
            local x = resin.nn.input { 32, 32, 3 }
            local y = x
            for _ = 1, 3 do
                y = resin.nn.checkpoint(function(z)
                    local conv = resin.nn.conv2d { 16, kernel = 3, padding = 1, bias = false }
                    return resin.nn.relu(resin.nn.batch_norm(conv(z)))
                end)(y)
            end
            return resin.nn.model(x, resin.nn.dense { 10 }(resin.nn.global_avg_pool(y)))
        end,
    }
    for name, make in pairs(networks) do
        it("takes nothing from the system after two steps: " .. name, function()
            local model = make()
            local optimizer = resin.optim.sgd { model, learning_rate = 0.01, momentum = 0.9 }
            local x = formula.tensor(1, { 8, 32, 32, 3 }, -1, 1)
            local labels = formula.labels(2, { 8 }, 10)
            local function step()
                local logits <close> = model(x, { training = true })
                local loss <close> = resin.cross_entropy(logits, labels)
                loss:backward()
                optimizer:step()
                optimizer:clear_grads()
            end
            local function infer() model(x):release() end
            collectgarbage()
            collectgarbage "stop"
            local taken = {}
            for position, run in ipairs { step, infer } do
                run()
                run()
                local before = resin.memory().system_allocations
                for _ = 1, 3 do run() end
                taken[position] = resin.memory().system_allocations - before
            end
            collectgarbage "restart"
            assert.are.same({ 0, 0 }, taken)
        end)
    end

    it("is bounded when nothing is released by hand", function()
        local model = resin.models.cifar_resnet { depth = 8, width = 4, input = { 8, 8, 3 } }
        local optimizer = resin.optim.sgd { model, learning_rate = 0.01, momentum = 0.9 }
        local x, labels = formula.tensor(1, { 64, 8, 8, 3 }, -1, 1), formula.labels(2, { 64 }, 10)
        settle()
        local start, most = held(), 0
        for _ = 1, 100 do
            resin.cross_entropy(model(x, { training = true }), labels):backward()
            optimizer:step()
            optimizer:clear_grads()
            most = math.max(most, resin.memory().held)
        end
        -- A step's activations are some megabytes; a hundred steps would hold hundreds.
        assert(most <= 2 * start + 80 * MEGABYTE, ("%d MB held"):format(most // MEGABYTE))
    end)
end)

-- Keeps the last `window` of many tensors of 1 MB.
local function eager_loop(window, count)
    settle()
    local start, most, kept = held(), 0, {}
    for i = 1, count do
        kept[i % window + 1] = resin.zeros(512, 512)
        most = math.max(most, resin.memory().held)
    end
    return start, most
end

describe("an eager loop", function()
    local mode
    after_each(function() collectgarbage(mode) end)

    for _, collector in ipairs { "incremental", "generational" } do
        for _, window in ipairs { 1, 20, 200 } do
            it(("with %d live tensors of 1 MB, collector %s"):format(window, collector), function()
                mode = collectgarbage(collector)
                local start, most = eager_loop(window, 1000)
                -- Twice what was held after a collection, plus 64 MB, plus the tensor being made;
                -- blocks may be a quarter larger than asked.
                local bound = 2 * (start + window * 1.25 * MEGABYTE) + 66 * MEGABYTE
                assert(most <= bound, ("%d MB held, %d MB allowed"):format(most // MEGABYTE,
                    bound // MEGABYTE))
                assert(held() <= start)
            end)
        end

        it("of results of ops, collector " .. collector, function()
            mode = collectgarbage(collector)
            settle()
            local start = held()
            local x, most = resin.ones(512, 512), 0
            for _ = 1, 600 do
                x = x * 0.5 + 1
                most = math.max(most, resin.memory().held)
            end
            assert(most <= 2 * start + 72 * MEGABYTE, ("%d MB held"):format(most // MEGABYTE))
            assert.is_true(math.abs(x[{ 1, 1 }]:item() - 2) < 1e-6)
        end)
    end

    it("leaves a stopped collector alone", function()
        mode = collectgarbage("incremental")
        local start = held()
        collectgarbage("stop")
        for _ = 1, 150 do resin.zeros(512, 512) end
        local most = resin.memory().held
        collectgarbage("restart")
        assert(most >= start + 150 * MEGABYTE)
        assert(held() <= start)
    end)
end)

describe("a tensor's memory is given back", function()
    local start
    before_each(function() start = held() end)
    local function since() return resin.memory().held - start end

    it("by release, at once", function()
        local x = resin.zeros(512, 512)
        assert(since() >= MEGABYTE)
        x:release()
        assert.are.equal(0, since())
        x:release() -- a second time is nothing
    end)

    it("at the end of a block, by <close>", function()
        do
            local x <close> = resin.zeros(512, 512)
            assert(since() >= x:count() * 4)
        end
        assert.are.equal(0, since())
    end)

    it("when an error leaves the block", function()
        pcall(function()
            local x <close> = resin.zeros(512, 512)
            error(x:dtype())
        end)
        assert.are.equal(0, since())
    end)

    it("by the collector", function()
        resin.zeros(512, 512)
        assert.are.equal(start, held())
    end)

    it("when its last view is gone", function()
        local x = resin.zeros(512, 512)
        local view = x[{ {}, { 1, 2 } }]
        x:release()
        assert(since() >= MEGABYTE)
        assert.are.same({ 512, 2 }, view:shape())
        view:release()
        assert.are.equal(0, since())
    end)

    it("when a graph that saved it is gone", function()
        local x <close> = resin.ones(512, 512):require_grad()
        local only_x = since()
        local y = (x * 3):sin():sum()
        assert(since() >= only_x + MEGABYTE)
        y:release()
        collectgarbage()
        assert.are.equal(only_x, since())
    end)

    it("when backward fails", function()
        local x <close> = resin.ones(512, 512):require_grad()
        local only_x = since()
        local ok = pcall(function() (x * 3):sin():backward() end)
        assert.is_false(ok)
        collectgarbage()
        assert.are.equal(only_x, since())
    end)
end)

describe("a released tensor", function()
    it("is refused everywhere", function()
        local x, y = resin.zeros(3), resin.ones(3)
        x:release()
        for name, use in pairs {
            add = function() return x + y end,
            right = function() return y + x end,
            method = function() return y:multiply(x) end,
            list = function() return resin.concatenate { y, x } end,
            shape = function() return x:shape() end,
            length = function() return #x end,
            index = function() return x[1] end,
            assignment = function() x[1] = 2 end,
            copy = function() y:copy_(x) end,
            backward = function() x:backward() end,
            grad = function() return x.grad end,
            totable = function() return x:totable() end,
        } do
            local ok, message = pcall(use)
            assert.is_false(ok, name)
            assert.truthy(tostring(message):find("released", 1, true), name .. ": " .. message)
        end
        assert.are.equal("tensor (released)", tostring(x))
        assert.is_true(resin.is_tensor(x))
    end)
end)

describe("the arena", function()
    it("keeps blocks, and gives them back when asked", function()
        resin.zeros(512, 512):release()
        assert(resin.memory().cached >= MEGABYTE)
        resin.trim_memory()
        assert.are.equal(0, resin.memory().cached)
        local before = resin.memory().system_allocations
        for _ = 1, 10 do resin.zeros(512, 512):release() end
        assert(resin.memory().system_allocations <= before + 3)
    end)

    it("measures the peak anew", function()
        local x <close> = resin.zeros(512, 512)
        resin.reset_peak_memory()
        local peak = resin.memory().peak
        resin.zeros(1024, 512):release()
        assert(resin.memory().peak >= peak + 2 * MEGABYTE)
        assert.are.equal(262144, x:count())
    end)

    it("says how much was wanted when memory is out", function()
        local ok, message = pcall(resin.zeros, { 1 << 50 })
        assert.is_false(ok)
        assert.truthy(message:find("out of memory", 1, true))
        assert.truthy(message:find(tostring(1 << 52), 1, true))
    end)
end)
