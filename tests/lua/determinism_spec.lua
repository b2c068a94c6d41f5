-- The same seed gives the same bits, at any number of threads (DESIGN.md, decision 7).
local resin = require "resin"
local formula = dofile "tests/lua/formula.lua"

local THREADS = { 1, 2, 7 }

-- Runs f with each number of threads from the same random state; the tensors that it returns, a
-- list, must be the same.
local function same_at_any_threads(f)
    local before, expected = resin.threads(), nil
    for _, threads in ipairs(THREADS) do
        resin.set_threads(threads)
        resin.seed(11)
        local ok, result = pcall(f)
        resin.set_threads(before)
        assert(ok, result)
        expected = expected or result
        assert(formula.identical(expected, result), threads .. " threads give other bits")
    end
end

-- Result and gradients of an op on random tensors of the given shapes.
local function run_op(op, shapes, options, dtype)
    local inputs = {}
    for i, shape in ipairs(shapes) do
        inputs[i] = resin.randn(shape, dtype or "float32"):require_grad()
    end
    local arguments = table.move(inputs, 1, #inputs, 1, {})
    arguments[#arguments + 1] = options
    local y = resin[op](table.unpack(arguments))
    y:backward(resin.randn(y:shape(), dtype or "float32"))
    local all = { y }
    for i, input in ipairs(inputs) do all[i + 1] = input.grad end
    return all
end

-- Shapes that are cut into many pieces, none of them even.
local OPS = {
    { "add", { { 67, 311, 3 }, { 311, 1 } } },
    { "divide", { { 3, 1, 999 }, { 3, 77, 1 } } },
    { "exp", { { 70001 } } },
    { "gelu", { { 70001 } } },
    { "sum", { { 1013, 67 } }, { axes = 1 } },
    { "sum", { { 70001 } } },
    { "mean", { { 41, 53, 29 } }, { axes = { 1, 3 } } },
    { "variance", { { 67, 1013 } }, { axes = 1 } },
    { "norm", { { 70001 } } },
    { "max", { { 67, 1013 } }, { axes = 2 } },
    { "softmax", { { 1013, 67 } } },
    { "logsumexp", { { 67, 1013 } }, { axes = 1 } },
    { "matmul", { { 211, 307 }, { 307, 101 } } },
    { "matmul", { { 5, 61, 47 }, { 47, 33 } } },
    { "matmul", { { 211, 307 }, { 307, 101 } }, nil, "float64" },
    { "linear", { { 300, 70 }, { 70, 50 }, { 50 } } },
    { "conv2d", { { 5, 29, 31, 3 }, { 3, 3, 3, 16 }, { 16 } }, { padding = 1 } },
    { "conv2d", { { 5, 29, 31, 32 }, { 3, 3, 32, 32 } }, { padding = 1 } },
    { "conv2d", { { 5, 29, 31, 16 }, { 3, 3, 16, 32 } }, { padding = 1, stride = 2 } },
    { "conv2d", { { 5, 29, 31, 48 }, { 1, 1, 48, 20 }, { 20 } } },
    { "conv2d", { { 5, 29, 31, 16 }, { 3, 3, 4, 16 } }, { groups = 4 } },
    { "conv2d", { { 3, 29, 31, 16 }, { 5, 5, 1, 16 } }, { groups = 16, same = true } },
    { "conv2d", { { 2, 19, 21, 6 }, { 3, 3, 6, 5 } }, { dilation = 2 }, "float64" },
    { "conv2d_transpose", { { 4, 15, 16, 8 }, { 3, 3, 12, 8 } }, { stride = 2 } },
    { "max_pool2d", { { 5, 29, 31, 17 } }, { kernel = 3, stride = 2, padding = 1 } },
    { "avg_pool2d", { { 5, 29, 31, 17 } }, { kernel = 3, stride = 2, same = true } },
    { "global_avg_pool", { { 9, 29, 31, 17 } } },
    { "dropout", { { 70001 } }, { rate = 0.3, training = true } },
    { "mse_loss", { { 70001 }, { 70001 } } },
}

describe("the same bits at 1, 2 and 7 threads:", function()
    for _, case in ipairs(OPS) do
        local op, shapes, options, dtype = table.unpack(case, 1, 4)
        it(("%s %s"):format(op, table.concat(shapes[1], "x")), function()
            same_at_any_threads(function() return run_op(op, shapes, options, dtype) end)
        end)
    end

    it("batch_norm and its running statistics", function()
        same_at_any_threads(function()
            local x = resin.randn(6, 29, 31, 17):require_grad()
            local gamma, beta = resin.randn(17):require_grad(), resin.randn(17):require_grad()
            local mean, variance = resin.zeros(17), resin.ones(17)
            local y = resin.batch_norm(x, gamma, beta, mean, variance, { training = true })
            y:backward(resin.randn(y:shape()))
            return { y, x.grad, gamma.grad, beta.grad, mean, variance }
        end)
    end)

    it("cross_entropy", function()
        same_at_any_threads(function()
            local x = resin.randn(3001, 11):require_grad()
            local loss = resin.cross_entropy(x, formula.labels(1, { 3001 }, 11))
            loss:backward()
            return { loss, x.grad }
        end)
    end)

    it("gather and take, which add where positions repeat", function()
        same_at_any_threads(function()
            local x = resin.randn(50, 401):require_grad()
            local rows = resin.take(x, formula.labels(2, { 300 }, 50), { axis = 1 })
            local cells = resin.gather(x, formula.labels(3, { 50, 700 }, 401), { axis = 2 })
            rows:backward(resin.randn(rows:shape()))
            cells:backward(resin.randn(cells:shape()))
            return { rows, cells, x.grad }
        end)
    end)

    it("random numbers and orders", function()
        same_at_any_threads(function()
            return { resin.randn(30001), resin.rand({ 30001 }, "float64"), resin.permutation(5000) }
        end)
    end)
end)

-- ---- Networks and trainings ---------------------------------------------------------------------

local function gradients(model, x, labels)
    local logits = model(x, { training = true })
    resin.cross_entropy(logits, labels):backward()
    local all = { logits }
    for _, tensor in model:named_parameters() do all[#all + 1] = tensor.grad end
    for _, tensor in model:named_buffers() do all[#all + 1] = tensor end
    return all
end

local function train(make_optimizer)
    local model = resin.models.cifar_resnet { depth = 8, width = 8 }
    local optimizer = make_optimizer(model)
    local x = formula.tensor(1, { 40, 32, 32, 3 }, -1, 1)
    local labels = formula.labels(2, { 40 }, 10)
    for _ = 1, 2 do
        local order = resin.permutation(40)
        for _, some in ipairs(order:split(20)) do
            local images = resin.dropout(resin.take(x, some), { rate = 0.1, training = true })
            local logits = model(images, { training = true })
            resin.cross_entropy(logits, resin.take(labels, some)):backward()
            optimizer:step()
            optimizer:clear_grads()
        end
    end
    local all = {}
    for _, tensor in model:named_parameters() do all[#all + 1] = tensor end
    for _, tensor in model:named_buffers() do all[#all + 1] = tensor end
    return all
end

local function sgd(model)
    return resin.optim.sgd { model, learning_rate = 0.05, momentum = 0.9, clip_norm = 1 }
end

describe("the same bits at 1, 2 and 7 threads in", function()
    local x, labels = formula.tensor(3, { 6, 32, 32, 3 }, -1, 1), formula.labels(4, { 6 }, 10)

    it("a ResNet, forward and backward", function()
        same_at_any_threads(function()
            return gradients(resin.models.cifar_resnet { depth = 20 }, x, labels)
        end)
    end)

    it("a ResNet without Winograd", function()
        local before = resin.conv_method("direct")
        local ok, message = pcall(same_at_any_threads, function()
            return gradients(resin.models.cifar_resnet { depth = 8 }, x, labels)
        end)
        resin.conv_method(before)
        assert(ok, message)
    end)

    it("a short training with SGD", function()
        same_at_any_threads(function() return train(sgd) end)
    end)

    it("a short training with Adam", function()
        same_at_any_threads(function()
            return train(function(model) return resin.optim.adam { model, weight_decay = 0.01 } end)
        end)
    end)
end)

describe("a seed", function()
    it("gives the same training twice, and another one another", function()
        local weights = {}
        for i, seed in ipairs { 5, 5, 6 } do
            resin.seed(seed)
            weights[i] = train(sgd)
        end
        assert.is_true(formula.identical(weights[1], weights[2]))
        assert.is_false(formula.identical(weights[1], weights[3]))
    end)

    it("is put back with the stream", function()
        resin.seed(5)
        resin.randn(3)
        local state = resin.random_state()
        local first, second = { resin.randn(100) }, { resin.randn(100) }
        assert.is_false(formula.identical(first, second))
        resin.random_state(state)
        assert.is_true(formula.identical(first, { resin.randn(100) }))
    end)
end)
