-- nn.checkpoint: gradients are those without, bit for bit; memory falls; random numbers and running
-- statistics are those of one run.
local resin = require "resin"
local formula = dofile "tests/lua/formula.lua"
local nn = resin.nn

local threads = resin.threads()
setup(function() resin.set_threads(1) end)
teardown(function() resin.set_threads(threads) end)

local function plainly(block) return block end

-- All values of a tensor as a string.
local function bits(tensor)
    if not tensor then return "none" end
    local count = tensor:count()
    return string.pack(("f"):rep(count), table.unpack(tensor:reshape(count):totable()))
end

local LABELS = formula.labels(2, { 8 }, 10)

-- Two training steps: the losses, peak memory of the second, gradients and buffers by name.
local function train(model, inputs)
    local optimizer = resin.optim.sgd { model, learning_rate = 0.05, momentum = 0.9 }
    local result = { values = {} }
    for step = 1, 2 do
        collectgarbage()
        local start = resin.memory().held
        resin.reset_peak_memory()
        local logits <close> = model(inputs, { training = true })
        local loss <close> = resin.cross_entropy(logits, LABELS)
        loss:backward()
        result.peak = resin.memory().peak - start
        result[step] = loss:item()
        if step == 1 then
            optimizer:step()
            optimizer:clear_grads()
        end
    end
    for name, tensor in model:named_parameters() do
        result.values[name] = bits(tensor.grad)
    end
    for name, tensor in model:named_buffers() do result.values[name] = bits(tensor) end
    result.stream = resin.random_state().stream
    return result
end

-- Trains what make(nn.checkpoint) and make(a function that does nothing) return; both results.
local function both(make, inputs)
    local results = {}
    for position, checkpoint in ipairs { plainly, nn.checkpoint } do
        resin.seed(5)
        local model = make(checkpoint)
        resin.seed(6)
        results[position] = train(model, inputs or formula.tensor(1, { 8, 16, 16, 8 }, -1, 1))
    end
    return results[1], results[2]
end

local function assert_same(plain, saved)
    assert.are.equal(plain[1], saved[1])
    assert.are.equal(plain[2], saved[2])
    assert.are.equal(plain.stream, saved.stream)
    for name, value in pairs(plain.values) do
        assert(value == saved.values[name], name .. " differs")
    end
    for name in pairs(saved.values) do assert(plain.values[name], name .. " is new") end
end

local function conv_norm(x, filters, stride)
    return nn.batch_norm(nn.conv2d {
        filters, kernel = 3, padding = "same", stride = stride or 1, bias = false,
    }(x))
end

local function unit(x, filters, stride)
    local y = nn.relu(conv_norm(x, filters, stride))
    y = nn.dropout(0.25)(conv_norm(y, filters))
    local shortcut = x
    if (stride or 1) > 1 then shortcut = conv_norm(x, filters, stride) end
    return nn.relu(y + shortcut)
end

local function finish(x, y) return nn.model(x, nn.dense { 10 }(nn.global_avg_pool(y))) end

local function residual(checkpoint)
    local x = nn.input { 16, 16, 8 }
    local y = nn.relu(conv_norm(x, 16))
    for _ = 1, 4 do y = checkpoint(unit)(y, 16) end
    y = checkpoint(unit)(y, 32, 2)
    return finish(x, y)
end

describe("checkpointed blocks of a model", function()
    it("give the same gradients in less memory", function()
        local plain, saved = both(residual)
        assert_same(plain, saved)
        assert(saved.peak < 0.75 * plain.peak, ("%d of %d"):format(saved.peak, plain.peak))
    end)

    it("at any number of threads", function()
        local _, one = both(residual)
        resin.set_threads(2)
        local plain, saved = both(residual)
        resin.set_threads(1)
        assert_same(plain, saved)
        assert_same(one, saved)
    end)

    it("may stand in each other", function()
        local function make(checkpoint)
            local function stage(x, count)
                for _ = 1, count do x = checkpoint(unit)(x, 8) end
                return x
            end
            local x = nn.input { 16, 16, 8 }
            return finish(x, checkpoint(stage)(checkpoint(stage)(x, 2), 3))
        end
        assert_same(both(make))
    end)

    it("may be layers, which keep their names", function()
        local function make(checkpoint)
            local x = nn.input { 16, 16, 8 }
            local block = checkpoint(nn.sequential {
                nn.conv2d { 16, kernel = 3, padding = "same" }, nn.batch_norm {}, nn.relu {},
                nn.dropout { 0.5 }, name = "block",
            })
            local shared = checkpoint(nn.conv2d { 16, kernel = 3, padding = "same", name = "twice" })
            local Own = nn.layer "Own"
            function Own:build() self.inner = checkpoint(nn.dense { 16, activation = "tanh" }) end
            function Own:call(y) return self.inner(y):sin() end
            return finish(x, checkpoint(Own { name = "own" })(shared(shared(block(x)))))
        end
        local plain, saved = both(make)
        assert_same(plain, saved)
        assert.is_string(saved.values["block/conv2d/weights"])
        assert.is_string(saved.values["own/inner/weights"])
    end)

    it("may have several inputs and results, and hand some through", function()
        local function make(checkpoint)
            local a, b = nn.input { 16, 16, 8 }, nn.input { 16, 16, 8 }
            local c, d, e = checkpoint(function(x, y, filters)
                local z = nn.relu(conv_norm(x + y, filters))
                return z, nn.dropout(0.2)(z), y
            end)(nn.relu(a), nn.conv2d { 8, kernel = 1 }(b), 8)
            return finish({ a, b }, nn.add { c, nn.relu(d), e })
        end
        local inputs = { formula.tensor(1, { 8, 16, 16, 8 }, -1, 1),
            formula.tensor(3, { 8, 16, 16, 8 }, -1, 1) }
        assert_same(both(make, inputs))
    end)

    it("change nothing of the model but its memory", function()
        resin.seed(1)
        local plain = residual(plainly)
        resin.seed(1)
        local saved = residual(nn.checkpoint)
        local names = {}
        for name in plain:named_parameters() do names[#names + 1] = name end
        for name in saved:named_parameters() do
            assert.are.equal(name, table.remove(names, 1))
        end
        assert.are.same({}, names)
        assert.are.equal(#plain.plan.steps, #saved.plan.steps)
        assert(#saved.recording_plan.steps < #saved.plan.steps)
        local x = formula.tensor(1, { 2, 16, 16, 8 }, -1, 1)
        assert.are.equal(bits(plain(x)), bits(saved(x)))
        local file = os.tmpname()
        saved:save(file)
        plain:load(file)
        os.remove(file)
        assert.are.same(plain:cost {}, saved:cost {})
    end)

    it("are an option of torchvision's residual networks", function()
        local function make(checkpoint)
            return resin.models.resnet18 {
                classes = 10, input = { 32, 32, 3 }, checkpoint = checkpoint == nn.checkpoint,
            }
        end
        local x, results = formula.tensor(1, { 2, 32, 32, 3 }, -1, 1), {}
        for position, checkpoint in ipairs { plainly, nn.checkpoint } do
            resin.seed(2)
            local model = make(checkpoint)
            model(x, { training = true }):sum():backward()
            results[position] = bits(model:get_layer "conv1".weights.grad)
            assert.are.equal(position == 2, model.recording_plan ~= nil)
            assert.is_table(model:get_layer "layer4.1.bn2")
        end
        assert(results[1] == results[2])
    end)

    it("train frozen, with one trained layer outside", function()
        local function make(checkpoint)
            local model = residual(checkpoint)
            model:freeze "conv"
            return model
        end
        assert_same(both(make))
    end)

    it("end in the model's softmax, which logits leave out", function()
        local x = nn.input { 4 }
        local y = nn.checkpoint(function(z)
            return nn.dense { 3, activation = "softmax" }(nn.dense { 8 }(z))
        end)(x)
        local model = nn.model(x, y)
        local given = formula.tensor(1, { 5, 4 }, -1, 1)
        local logits = model(given, { training = true, logits = true })
        local inferred = model(given, { logits = true })
        assert.are.equal(bits(inferred), bits(logits))
        assert.are.equal(bits(resin.softmax(logits, { axis = -1 })),
            bits(model(given, { training = true })))
    end)
end)

describe("a checkpointed function of tensors", function()
    local weights = formula.tensor(4, { 6, 6 }, -1, 1):require_grad()
    local x = formula.tensor(5, { 4, 6 }, -1, 1):require_grad()
    before_each(function()
        weights:clear_grad()
        x:clear_grad()
    end)

    local function gradients(block)
        resin.seed(9)
        weights:clear_grad()
        x:clear_grad()
        local h = (x * 2):matmul(weights)
        local a, b = block(h, 0.3, x)
        local loss = (a + b * h):sum() + h:exp():sum() -- others read h, too
        loss:backward()
        return bits(x.grad) .. bits(weights.grad)
    end

    it("gives the same gradients", function()
        local function block(h, rate, y)
            local dropped = h:matmul(weights):dropout { rate = rate, training = true }
            return dropped:sin() + y, dropped * h
        end
        assert.are.equal(gradients(block), gradients(nn.checkpoint(block)))
    end)

    it("runs once without a graph, and is not run again", function()
        local runs = 0
        local block = nn.checkpoint(function(h)
            runs = runs + 1
            return h:sin()
        end)
        local y = resin.no_grad(block, x * 2)
        assert.is_false(y:requires_grad())
        local z = block(formula.tensor(6, { 3 }, 0, 1)) -- nothing wants a gradient
        assert.is_false(z:requires_grad())
        assert.are.equal(2, runs)
        block(x):sum():backward()
        assert.are.equal(4, runs)
    end)

    it("can be run backward twice where the graph is kept", function()
        local loss = nn.checkpoint(function(h) return h:matmul(weights):sin() end)(x):sum()
        loss:backward { keep_graph = true }
        local once = bits(x.grad)
        x:clear_grad()
        loss:backward { keep_graph = true }
        assert.are.equal(once, bits(x.grad))
        loss:backward()
        assert.has_error(function() loss:backward() end)
    end)

    it("leaves integers and what has no gradient alone", function()
        local value, place = nn.checkpoint(function(h) return h:sin(), h:argmax(2) end)(x)
        assert.are.equal("int64", place:dtype())
        assert.is_true(value:requires_grad())
        assert.is_false(place:requires_grad())
    end)

    it("keeps nothing after backward", function()
        local function held()
            collectgarbage()
            nn.checkpoint(function(h) return h:sin() end)(x):release() -- drops functions of others
            collectgarbage()
            collectgarbage()
            return resin.memory().held
        end
        local start = held()
        do
            local big <close> = resin.ones(256, 256):require_grad()
            local y <close> = nn.checkpoint(function(h) return (h:sin() * h):exp() end)(big)
            local loss <close> = y:sum()
            loss:backward()
            big:clear_grad()
        end
        assert.are.equal(start, held())
    end)

    it("hands errors on as they are", function()
        local block = nn.checkpoint(function() error({ code = 7 }) end)
        local ok, caught = pcall(block, x)
        assert.is_false(ok)
        assert.are.equal(7, caught.code)
        local runs = 0
        local second = nn.checkpoint(function(h)
            runs = runs + 1
            if runs > 1 then error "the second time" end
            return h:sin()
        end)(x)
        local loss = second:sum()
        ok, caught = pcall(loss.backward, loss, { keep_graph = true })
        assert.is_false(ok)
        assert.truthy(tostring(caught):find("the second time", 1, true))
        assert.is_true(resin.recording())
        assert.is_nil(x.grad)
        runs = 0
        loss:backward()
        assert.is_userdata(x.grad)
    end)

    local function message_of(...)
        local ok, message = pcall(...)
        assert.is_false(ok)
        return message
    end

    it("says what it cannot do", function()
        assert.truthy(message_of(nn.checkpoint, 3):find("expected a layer or a function", 1, true))
        assert.truthy(message_of(nn.checkpoint(function() return 3 end), x)
            :find("output 1 of the block is no tensor", 1, true))
        assert.truthy(message_of(nn.checkpoint(function() return 3 end), 3)
            :find("expected tensors among the arguments", 1, true))

        local outside = x * 3
        local loss = nn.checkpoint(function(h) return h * outside end)(weights[{ { 1, 4 } }]):sum()
        assert.truthy(message_of(loss.backward, loss):find("not among its inputs", 1, true))

        local given = x * 2
        loss = nn.checkpoint(function(h) return h:sin() end)(given):sum()
        resin.no_grad(function() given:detach():fill(1) end)
        assert.truthy(message_of(loss.backward, loss):find("changed in place", 1, true))

        local runs = 0
        loss = nn.checkpoint(function(h)
            runs = runs + 1
            return runs == 1 and h:sin() or h:sum()
        end)(x):sum()
        assert.truthy(message_of(loss.backward, loss):find("another output", 1, true))

        local dense = nn.dense { 3 }
        assert.truthy(message_of(nn.checkpoint(function(h) return dense(h) end), x)
            :find("call them once before", 1, true))
    end)
end)

describe("a checkpointed layer called on tensors", function()
    it("gives the same gradients, also in a coroutine", function()
        local block = nn.sequential {
            nn.conv2d { 4, kernel = 3, padding = "same" }, nn.batch_norm {}, nn.relu {},
            nn.dropout { 0.4 },
        }
        local x = formula.tensor(1, { 4, 6, 6, 2 }, -1, 1):require_grad()
        block(x) -- builds it
        local function run()
            resin.seed(3)
            x:clear_grad()
            for _, entry in ipairs(block:variables()) do entry.tensor:clear_grad() end
            block(x, { training = true }):sum():backward()
            local all = { bits(x.grad) }
            for _, entry in ipairs(block:variables()) do all[#all + 1] = bits(entry.tensor.grad) end
            return table.concat(all)
        end
        local plain = run()
        nn.checkpoint(block)
        assert.are.equal(plain, run())
        assert.are.equal(plain, coroutine.wrap(run)())
    end)
end)
