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
