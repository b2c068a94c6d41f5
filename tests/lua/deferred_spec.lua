-- Deferred outputs of conv_bn_act: whoever reads them, in whatever way, finds what would have been
-- computed at once.
local resin = require "resin"

local function unit(x, weights, options)
    local channels = weights:shape()[4]
    local gamma = resin.full({channels}, 0.7):require_grad()
    local beta = resin.full({channels}, 0.1):require_grad()
    local mean, variance = resin.zeros{channels}, resin.ones{channels}
    options.training, options.activation, options.same = true, "relu", true
    return resin.conv_bn_act(x, weights, nil, gamma, beta, mean, variance, nil, options),
        {gamma, beta}
end

local function weights(kernel, from, to)
    return (resin.randn{kernel, kernel, from, to} * 0.3):detach():require_grad()
end

-- The output and all gradients of two units, the first one deferred or not.
local function chain(deferred, kernel, stride, groups)
    resin.seed(3)
    local x = resin.randn{2, 9, 10, 8}:require_grad()
    local first, second = weights(3, 8, 12), weights(kernel, 12 // groups, 20)
    local y, parameters = unit(x, first, {deferred = deferred})
    local z, more = unit(y, second, {stride = stride, groups = groups})
    resin.sum(z * z):backward()
    local results = {z:detach(), x.grad, first.grad, second.grad}
    for _, list in ipairs{parameters, more} do
        for _, parameter in ipairs(list) do results[#results + 1] = parameter.grad end
    end
    return results
end

-- Sums are cut differently where a convolution reads strips instead of the image: rounding.
local function assert_same(a, b)
    for i = 1, #a do
        local difference = resin.max(resin.abs(a[i] - b[i])):item()
        local scale = resin.max(resin.abs(b[i])):item()
        assert.is_true(difference <= 1e-5 * scale, ("result %d: %g of %g"):format(i, difference,
            scale))
    end
end

describe("a deferred output", function()
    for _, case in ipairs{{3, 1, 1}, {3, 2, 1}, {1, 1, 1}, {1, 2, 1}, {3, 1, 4}, {5, 1, 2}} do
        it(("is read by a convolution: kernel %d, stride %d, groups %d"):format(
            table.unpack(case)), function()
            assert_same(chain(true, table.unpack(case)), chain(false, table.unpack(case)))
        end)
    end

    -- The maxima over windows behind a unit, and all gradients. Some channels turn around where they
    -- are normalized, in some nearly all is below zero.
    local function pooled(deferred, shape, options, twice)
        resin.seed(4)
        local channels = shape[4]
        local x, w = resin.randn(shape):require_grad(), weights(3, channels, channels)
        local gamma = resin.randn{channels}:require_grad()
        local beta = (resin.randn{channels} - 1):require_grad()
        local y = resin.conv_bn_act(x, w, nil, gamma, beta, resin.zeros{channels},
            resin.ones{channels}, nil,
            {training = true, activation = "relu", same = true, deferred = deferred})
        local z = resin.max_pool2d(y, options)
        local loss = resin.sum(z * z * 0.5 + z)
        if twice then loss = loss + resin.sum(resin.conv2d(y, weights(1, channels, 3))) end
        loss:backward()
        return {z:detach(), x.grad, w.grad, gamma.grad, beta.grad}
    end

    for _, case in ipairs{
        {{2, 9, 10, 8}, {kernel = 3, stride = 2, padding = 1}},
        {{2, 13, 11, 35}, {kernel = 3, stride = 2, padding = 1}},
        {{1, 12, 15, 64}, {kernel = 3, stride = 2, same = true}},
        {{3, 9, 8, 17}, {kernel = 2}}, {{2, 11, 8, 20}, {kernel = {4, 3}, stride = {1, 5}}},
        {{1, 20, 18, 5}, {kernel = 17, stride = 1}}, {{2, 9, 9, 3}, {kernel = 3, stride = 1}},
        {{2, 13, 11, 35}, {kernel = 3, stride = 2, padding = 1}, true},
    } do
        local shape, options, twice = table.unpack(case, 1, 3)
        it(("is read by a maximum over windows: %d x %d x %d x %d%s"):format(shape[1], shape[2],
            shape[3], shape[4], twice and ", and by a convolution" or ""), function()
            local a, b = pooled(true, shape, options, twice), pooled(false, shape, options, twice)
            assert.are.same(b[1]:totable(), a[1]:totable())
            assert_same(a, b)
        end)
    end

    it("takes no memory of its own where a maximum reads it", function()
        local x, w = resin.randn{2, 33, 32, 16}, weights(3, 16, 16)
        local function held(deferred)
            collectgarbage()
            local before = resin.memory().held
            local y = unit(x, w, {deferred = deferred})
            local z = resin.max_pool2d(y, {kernel = 3, stride = 2, padding = 1})
            collectgarbage()
            return resin.memory().held - before, z
        end
        assert.is_true(held(true) + 2 * 33 * 32 * 16 * 4 <= held(false) + 4096)
    end)

    -- A unit without activation beside one with a shortcut, which convolutions read, and whoever
    -- else: relu(a(x) + b(x)), then relu(c(d(y)) + y).
    local function blocks(deferred, channels, size, kernel, read)
        resin.seed(4)
        local x = resin.randn{2, size, size + 1, 16}:require_grad()
        local parameters = {}
        local function run(kernel_size, input, inputs, shortcut, activation)
            local w = weights(kernel_size, inputs, channels)
            local gamma = resin.full({channels}, 0.7):require_grad()
            for _, parameter in ipairs{w, gamma} do parameters[#parameters + 1] = parameter end
            return resin.conv_bn_act(input, w, nil, gamma, nil, resin.zeros{channels},
                resin.ones{channels}, shortcut,
                {training = true, activation = activation, same = true, deferred = deferred})
        end
        local y = run(1, x, 16, run(1, x, 16, nil, "linear"), "relu")
        if read then read(y) end
        local z = run(kernel, run(kernel, y, channels, nil, "relu"), channels, y, "relu")
        resin.sum(z * z):backward()
        local results = {z:detach(), y:detach(), x.grad}
        for _, parameter in ipairs(parameters) do results[#results + 1] = parameter.grad end
        return results
    end

    for _, case in ipairs{{32, 25, 1}, {32, 25, 3}, {20, 25, 1}, {64, 40, 1}, {48, 5, 1}} do
        it(("adds a shortcut: %d channels, %d rows, kernel %d"):format(table.unpack(case)),
            function()
                assert_same(blocks(true, table.unpack(case)), blocks(false, table.unpack(case)))
            end)
    end

    it("with a shortcut is computed for another reader before", function()
        local function sum(y) return resin.sum(y):item() end
        local function maximum(y)
            return resin.sum(resin.max_pool2d(y, {kernel = 3, stride = 2})):item()
        end
        for _, reader in ipairs{sum, maximum} do
            local read = {}
            local function remember(y) read[#read + 1] = reader(y) end
            assert_same(blocks(true, 32, 25, 1, remember), blocks(false, 32, 25, 1, remember))
            assert.is_true(math.abs(read[1] - read[2]) <= 1e-5 * read[2] and read[2] > 0)
        end
    end)

    it("with a shortcut has a gradient that nobody's reading brought", function()
        local gradients = {}
        for i, deferred in ipairs{true, false} do
            resin.seed(5)
            local x, w = resin.randn{2, 5, 5, 4}:require_grad(), weights(3, 4, 4)
            local y = resin.conv_bn_act(x, w, nil, nil, nil, resin.zeros{4}, resin.ones{4}, x,
                {training = true, activation = "relu", same = true, deferred = deferred})
            y:backward(resin.randn{2, 5, 5, 4})
            gradients[i] = {x.grad, w.grad}
        end
        assert_same(gradients[1], gradients[2])
    end)

    it("cannot be computed when its shortcut has been changed", function()
        resin.seed(5)
        local x, w = resin.randn{2, 5, 5, 4}, weights(3, 4, 4)
        local y = resin.conv_bn_act(x, w, nil, nil, nil, resin.zeros{4}, resin.ones{4}, x,
            {training = true, activation = "relu", same = true, deferred = true})
        x:copy_(resin.ones(x:shape()))
        assert.has_error(function() y:totable() end,
            "conv_bn_act: the shortcut of a deferred result was changed in place before the "
                .. "result was read")
    end)

    local function both()
        local results = {}
        for i, deferred in ipairs{true, false} do
            resin.seed(5)
            local x, w = resin.randn{2, 5, 5, 4}, weights(3, 4, 6)
            results[i] = unit(x, w, {deferred = deferred})
        end
        return results[1], results[2]
    end

    it("is computed for any other reader", function()
        local readers = {
            item = function(y) return y[{1, 2, 3, 4}]:item() end,
            table = function(y) return y:totable() end,
            op = function(y) return resin.sum(y):item() end,
            view = function(y) return y:reshape{10, 30}:totable() end,
            transposed = function(y) return y:transpose{4, 1, 2, 3}:totable() end,
            slice = function(y) return y[{1, {2, 3}}]:totable() end,
            copy = function(y) return resin.zeros(y:shape()):copy_(y):totable() end,
            detached = function(y) return y:detach():totable() end,
            gradient = function(y)
                local a = resin.zeros(y:shape()):require_grad();
                (a * 2):backward(y:detach())
                return a.grad:totable()
            end,
            text = tostring,
        }
        for name, read in pairs(readers) do
            local deferred, computed = both()
            assert.are.same(read(computed), read(deferred), name)
        end
    end)

    it("may be changed in place, which a later backward notices", function()
        local deferred, computed = both()
        local w = weights(3, 6, 2)
        local y = resin.conv2d(deferred, w, {same = true})
        deferred:detach():copy_(resin.ones(deferred:shape()))
        assert.has_error(function() resin.sum(y):backward() end)
        assert.are.equal(1, deferred[{1, 1, 1, 1}]:item())
        assert.are_not.equal(1, computed[{1, 1, 1, 1}]:item())
    end)

    it("outlives what it is made of, and needs no memory of its own before it is read", function()
        local y = both()
        collectgarbage()
        local before = resin.memory().held
        local first = y[{1, 1, 1, 1}]:item()
        assert.is_true(resin.memory().held >= before + 2 * 5 * 5 * 6 * 4)
        assert.are.equal(first, y[{1, 1, 1, 1}]:item())
    end)
end)
