-- nn.plan: what is recorded gives the bits of what was called, with no allocation, whatever changes
-- in between; and what cannot be recorded says so.
local resin = require "resin"
local formula = dofile "tests/lua/formula.lua"
local gradient_check = dofile "tests/lua/gradient_check.lua"
local nn, models = resin.nn, resin.models

local function list_of(...)
    local first = ...
    return type(first) == "table" and first or {...}
end

local function copies(tensors)
    local list = {}
    for position, tensor in ipairs(tensors) do list[position] = tensor:detach() * 1 end
    return list
end

-- The plan on these inputs gives what f gives on them.
local function assert_same(run, f, ...)
    local found = list_of(run(...))
    local expected = list_of(resin.no_grad(function(...) return f(...) end, ...))
    assert.is_true(formula.identical(found, expected))
    for position, tensor in ipairs(expected) do
        assert.same(tensor:shape(), found[position]:shape())
        assert.equal(tensor:dtype(), found[position]:dtype())
    end
end

local function assert_fails(f, ...)
    local ok, message = pcall(f)
    assert.is_false(ok)
    for _, text in ipairs{...} do
        assert.is_truthy(tostring(message):find(text, 1, true), ("no '%s' in: %s"):format(text,
            message))
    end
end

local function small_vgg()
    local x = nn.input{16, 16, 3}
    local y = x
    for group = 1, 2 do
        for _ = 1, 2 do y = nn.relu()(nn.conv2d{8 * group, kernel = 3, padding = 1}(y)) end
        y = nn.max_pool2d{kernel = 2, stride = 2}(y)
    end
    y = nn.dropout(0.5)(nn.dense{32, activation = "relu"}(nn.flatten()(y)))
    return nn.model(x, nn.dense{10, activation = "softmax"}(y))
end

describe("a plan of a network:", function()
    local small = {input = {32, 32, 3}, classes = 10}
    local NETWORKS = {
        {"resnet20", models.bench.resnet20.make, {2, 32, 32, 3}},
        {"resnet18", models.resnet18, {1, 32, 32, 3}, small},
        {"resnet50, version 2", models.resnet, {1, 64, 64, 3}, {depth = 50, version = "v2",
            input = {64, 64, 3}, blocks = {1, 1, 1, 1}}},
        {"resnext29", models.resnext, {3, 32, 32, 3}, {variant = "cifar", cardinality = 4,
            width = 4, blocks = 1, input = {32, 32, 3}}},
        {"tutorial_resnet", models.tutorial_resnet, {2, 64, 64, 3}, {input = {64, 64, 3}}},
        {"tutorial_resnext", models.tutorial_resnext, {2, 32, 32, 3}},
        {"vgg in small", small_vgg, {1, 16, 16, 3}},
    }
    for _, case in ipairs(NETWORKS) do
        local name, make, shape, options = table.unpack(case)
        it(name, function()
            resin.seed(3)
            local model = make(options)
            local run <close> = nn.plan(model, shape)
            local x = resin.randn(shape)
            for round = 1, 2 do assert_same(run, model, round == 1 and x or x * 0.5 + 1) end
            local threads = resin.threads()
            resin.set_threads(threads == 1 and 2 or 1)
            local ok, message = pcall(assert_same, run, model, x)
            resin.set_threads(threads)
            assert(ok, message)

            run(x):release() -- lays out for the threads of before
            collectgarbage()
            collectgarbage()
            local before = resin.memory()
            local y <close> = run(x)
            local again <close> = run(x)
            y:release()
            again:release()
            assert.equal(before.held, resin.memory().held)
            local own, kept = run:memory()
            assert.is_true(own > 0 and kept > 0)
        end)
    end

    it("sees weights that change in place: load, training, copy_", function()
        resin.seed(5)
        local model, other = models.cifar_resnet{depth = 8}, models.cifar_resnet{depth = 8}
        local run = nn.plan(model, {4, 32, 32, 3})
        local x, path = resin.randn(4, 32, 32, 3), os.tmpname()
        local first = run(x)
        other:save(path)
        model:load(path)
        os.remove(path)
        assert_same(run, model, x)
        assert.is_true(formula.identical({run(x)}, {other(x)}))
        assert.is_false(formula.identical({run(x)}, {first}))

        local optimizer = resin.optim.sgd{model, learning_rate = 0.1}
        local labels = formula.labels(1, {4}, 10)
        for _ = 1, 2 do
            local loss = resin.cross_entropy(model(x, {training = true}), labels)
            loss:backward()
            optimizer:step()
            optimizer:clear_grads()
            assert_same(run, model, x)
        end
        assert.is_false(formula.identical({run(x)}, {other(x)}))
        resin.no_grad(function() model:parameters()[1]:fill(0.5) end)
        assert_same(run, model, x)
    end)

    it("takes several inputs and gives several outputs", function()
        local a, b = nn.input{8, 8, 4}, nn.input{8, 8, 4}
        local joined = nn.concatenate()({nn.conv2d{5, kernel = 3, padding = 1}(a), b})
        local flat = nn.flatten()(nn.max_pool2d{2}(joined))
        local model = nn.model({a, b}, {nn.dense{3, activation = "softmax"}(flat),
            nn.relu(joined), flat})
        local run = nn.plan(model, {{2, 8, 8, 4}, {2, 8, 8, 4}})
        local x, y = resin.randn(2, 8, 8, 4), resin.randn(2, 8, 8, 4)
        assert_same(run, model, {x, y})
        assert_same(run, model, {y, x})
        assert.is_true(formula.identical(run(x, y), model{x, y}))
        local logits = nn.plan(model, {x, y}, {logits = true})
        assert.is_true(formula.identical(logits{x, y}, model({x, y}, {logits = true})))
        assert.is_false(formula.identical({logits(x, y)[1]}, {run(x, y)[1]}))
    end)

    it("takes the dtypes of the inputs, and bytes where the example has them", function()
        local x = nn.input{6, 6, 2}
        local model = nn.model(x, nn.global_avg_pool()(nn.rescale{1 / 255}(x)))
        local bytes = (resin.rand(3, 6, 6, 2) * 255):to("uint8")
        local run = nn.plan(model, bytes)
        assert_same(run, model, bytes)
        assert_fails(function() run(bytes:to("float32")) end, "uint8 (3, 6, 6, 2)", "float32")
        local double = nn.input{4, dtype = "float64"}
        local linear = nn.model(double, nn.dense{2}(double))
        assert_same(nn.plan(linear, {5, 4}), linear, resin.randn({5, 4}, "float64"))
    end)

    it("runs layers and code of users", function()
        local Scaled = nn.layer("Scaled")
        function Scaled:build() self.factor = self:parameter("factor", {1}, "ones") end
        function Scaled:call(x)
            local kept = x * self.factor
            return resin.relu(kept) + kept:transpose{1, 3, 2, 4}:mean{axes = {2}, keep = true}
        end
        local x = nn.input{8, 8, 3}
        local y = nn.func{"turned", function(t) return t:flip{2}[{{}, {2, 7}, {2, 7}}] end}(x)
        local model = nn.model(x, nn.conv2d{4, kernel = 3}(Scaled()(y)))
        assert_same(nn.plan(model, {2, 8, 8, 3}), model, resin.randn(2, 8, 8, 3))
        local layer = nn.conv2d{3, kernel = 3} -- not built yet
        local run = nn.plan(layer, {1, 5, 5, 2})
        assert_same(run, layer, resin.randn(1, 5, 5, 2))
    end)
end)

describe("a plan of a function", function()
    it("holds what it computes, and constants as they were", function()
        local w, made = resin.randn(6, 4), 0
        local function f(x)
            made = made + 1
            local scale = resin.full({4}, made > 2 and 100 or 2)
            local views = resin.reshape(resin.matmul(x, w) * scale, 2, 2, -1):split(1, 2)
            return views[2]:squeeze() - views[1]:squeeze() * 3, x
        end
        local run = nn.plan(f, {2, 6})
        assert.equal(2, made)
        made = 0
        assert_same(run, f, resin.randn(2, 6))
        assert.equal(1, made)
    end)

    it("gives tensors that later runs leave alone", function()
        local run = nn.plan(function(x) return x + 1, x end, {3})
        local a, b = run(resin.tensor{1, 2, 3})
        local c = run(resin.tensor{4, 5, 6})
        assert.same({2, 3, 4}, a:totable())
        assert.same({1, 2, 3}, b:totable())
        assert.same({5, 6, 7}, c:totable())
        a:fill(0)
        assert.same({5, 6, 7}, c:totable())
    end)

    it("takes tensors of any strides, and leaves them as they are", function()
        local f = function(x) return resin.exp(x):sum{axes = 1} end
        local run = nn.plan(f, resin.randn(4, 3):transpose())
        local x = resin.randn(4, 3):transpose()
        assert.is_true(formula.identical({run(x)}, {f(x:contiguous())}))
        local sliced = resin.randn(6, 8)[{{1, 6, 2}, {1, 8, 2}}]
        assert.is_true(formula.identical({run(sliced)}, {f(sliced:contiguous())}))
        assert.same({3, 4}, sliced:shape())
    end)

    it("takes the branch of the example every time", function()
        local function f(x)
            if x:sum():item() > 0 then return x * 2 end
            return x * 3
        end
        local run = nn.plan(f, resin.tensor{1})
        assert.equal(-2, run(resin.tensor{-1}):item())
        assert.equal(-3, nn.plan(f, {1})(resin.tensor{-1}):item())
    end)

    it("takes one tensor for two inputs", function()
        local x = resin.tensor{1, 2}
        local run = nn.plan(function(a, b) return a - b end, {x, x})
        assert.same({0, 0}, run(x, x):totable())
        assert.same({-4, -4}, run(x, resin.tensor{5, 6}):totable())
    end)

    -- Random programs: each op takes what any of those before it made, views among them.
    local OPS = {
        function(a, b) return a + b end,
        function(a, b) return a * b:mean{axes = {1}} end,
        function(a) return a:transpose():reshape(4, 6) end,
        function(a) return a:reshape(6, 4):transpose() end,
        function(a, b) return resin.concatenate({a, b}, {axis = 2})[{{}, {2, 12, 2}}] end,
        function(a) return a:flip{2} end,
        function(a) return resin.softmax(a) end,
        function(a, b) return a:matmul(b:transpose()):matmul(a) * 0.1 end,
        function(a, b) return resin.maximum(a, b) end,
        function(a) return a:detach() end,
        function(a) return resin.relu(a[{{}, {1, 3}}]):tile{1, 2} end,
    }
    local function random_program()
        local lines, outputs = {}, {}
        for i = 1, math.random(1, 25) do
            lines[i] = {OPS[math.random(#OPS)], math.random(i + 1), math.random(i + 1)}
        end
        for i = 1, math.random(3) do outputs[i] = math.random(#lines + 2) end
        return function(x, y)
            local made, results = {x, y}, {}
            for i, line in ipairs(lines) do made[i + 2] = line[1](made[line[2]], made[line[3]]) end
            for i, number in ipairs(outputs) do results[i] = made[number] end
            return results
        end
    end

    it("holds what lives, whatever the program", function()
        math.randomseed(17)
        resin.seed(17)
        for _ = 1, 150 do
            local f = random_program()
            local run <close> = nn.plan(f, {{4, 6}, {4, 6}})
            for _ = 1, 2 do assert_same(run, f, resin.randn(4, 6), resin.randn(4, 6)) end
        end
    end)

    it("refuses other inputs than it was made for", function()
        local run = nn.plan(function(x) return x * 2 end, {2, 3})
        assert_fails(function() run(resin.ones(3, 2)) end, "input 1", "float32 (2, 3)", "(3, 2)")
        assert_fails(function() run(resin.ones(2, 3, 1)) end, "float32 (2, 3)", "(2, 3, 1)")
        assert_fails(function() run(resin.ones({2, 3}, "float64")) end, "float32", "float64 (2, 3)")
        assert_fails(function() run() end, "expected 1 input, got 0")
        assert_fails(function() run(resin.ones(2, 3), resin.ones(2, 3)) end, "got 2")
        assert_fails(function() run{} end, "got 0")
        assert_fails(function() run(5) end, "input 1 must be a tensor")
        run:release()
        assert_fails(function() run(resin.ones(2, 3)) end, "released")
    end)

    it("refuses what cannot be repeated, and leaves nothing behind", function()
        local x, w = resin.randn(2, 3), resin.randn(3):require_grad()
        assert_fails(function()
            nn.plan(function(a) return a:dropout{rate = 0.5, training = true} end, x)
        end, "dropout", "random")
        assert_fails(function() nn.plan(function(a) return a:fill(1) end, x) end, "in place")
        assert_fails(function()
            nn.plan(function(a)
                local sum = a + 1
                sum[1] = a[2]
                return sum
            end, x)
        end, "in place")
        assert_fails(function()
            nn.plan(function(a)
                resin.recording(true)
                local ok, result = pcall(resin.multiply, a, w)
                resin.recording(false)
                return ok and result or error(result, 0)
            end, x)
        end, "gradients")
        assert_fails(function() nn.plan(function(a) error("mine: " .. #a, 0) end, x) end, "mine: 2")
        assert_fails(function() nn.plan(function() return 5 end, x) end, "output 1", "tensor")
        assert_fails(function() nn.plan(function() end, x) end, "output")
        assert_fails(function() nn.plan(nn.relu(), x, {training = true}) end, "neither trains")
        assert_fails(function() nn.plan(5, x) end, "expected a model")
        assert_fails(function() nn.plan(nn.relu(), {}) end, "shape")
        assert_fails(function() nn.plan(nn.relu(), {"a"}) end, "input 1")
        assert_fails(function() nn.plan(models.cifar_resnet{depth = 8}, {1, 16, 16, 3}) end,
            "(N, 32, 32, 3)")
        local inner = nn.plan(nn.relu(), x)
        assert_fails(function() nn.plan(function(a) return inner(a) end, x) end, "another one")
        assert.is_true(resin.recording())
        assert.is_true((x * w):requires_grad())
        assert_same(nn.plan(nn.relu(), x), nn.relu(), x)
    end)
end)

describe("a plan of the op", function()
    local rows = resin.ops()
    local CASES = { -- in place of the cases of the gradient check
        dropout = "{x = {3, 4}, training = true}, {x = {3, 4}, rate = 0.5, training = false}",
        argmax = "{x = {3, 4}}", argmin = "{x = {3, 4}}",
        one_hot = "{labels = {shape = {4}, integers = 5}, classes = 5}",
    }
    for _, row in ipairs(rows) do
        local check = CASES[row.name] or row.check or "{a = {2, 3}, b = {3}}"
        it(row.name, function()
            resin.seed(9)
            math.randomseed(9)
            local named, ran = {name = row.name, signature = row.signature, check = check}, 0
            for _, dtype in ipairs{"float32", "float64"} do
                for _, call in ipairs(gradient_check.calls(named, dtype)) do
                    local function f(...) return call.run{...} end
                    if call.training then
                        assert_fails(function() nn.plan(f, call.tensors) end, row.name .. ": it ")
                    else
                        local run = nn.plan(f, call.tensors)
                        assert_same(run, f, table.unpack(copies(call.tensors)))
                        local other = copies(call.tensors)
                        for position, tensor in ipairs(other) do
                            other[position] = tensor:flip():contiguous()
                        end
                        assert_same(run, f, table.unpack(other))
                        ran = ran + 1
                    end
                end
            end
            assert.is_true(ran > 0)
        end)
    end
end)
