-- conv_bn_act takes batch norm's sums, in both directions, while convolutions write what is summed;
-- conv2d followed by batch_norm takes them in passes of their own. Results differ in rounding only,
-- whoever else reads the tensors in between.
local resin = require "resin"

local function leaf(tensor) return tensor:detach():require_grad() end

-- What a unit learns: weights, gamma, beta; and its running statistics.
local function new_unit(channels)
    return {
        weights = leaf(resin.randn{3, 3, channels, channels} * 0.2),
        gamma = leaf(resin.randn{channels} * 0.2 + 1), beta = leaf(resin.randn{channels} * 0.2),
        mean = resin.zeros{channels}, variance = resin.ones{channels},
    }
end

local function fused(u, x, shortcut, activation)
    return resin.conv_bn_act(x, u.weights, nil, u.gamma, u.beta, u.mean, u.variance, shortcut,
        {same = true, training = true, activation = activation or "relu",
            deferred = not shortcut and activation == nil})
end

local function apart(u, x, shortcut, activation)
    return resin.batch_norm(resin.conv2d(x, u.weights, {same = true}), u.gamma, u.beta, u.mean,
        u.variance, shortcut, {training = true, activation = activation or "relu"})
end

-- How the units are put together.
local networks = {
    {"residual blocks", function(unit, u, x)
        local y = unit(u[2], unit(u[1], x), x)
        return unit(u[4], unit(u[3], y), y)
    end},
    {"without activation", function(unit, u, x)
        return unit(u[2], unit(u[1], x, nil, "linear"), x, "linear")
    end},
    {"two readers", function(unit, u, x)
        local y = unit(u[1], x)
        return unit(u[2], y) + unit(u[3], y)
    end},
    {"another reader behind", function(unit, u, x)
        local y = unit(u[1], x, x)
        local z = unit(u[2], y)
        return z + y * 3
    end},
    {"another reader before", function(unit, u, x)
        local y = unit(u[1], x, x)
        local other = y * 3
        return other + unit(u[2], y)
    end},
}

local function run(network, unit, shape, times)
    resin.seed(7)
    local x = leaf(resin.randn(shape))
    local units, results = {}, {}
    for i = 1, 4 do units[i] = new_unit(shape[4]) end
    local y = network(unit, units, x)
    local loss = resin.sum(y * y) * 1e-3
    for time = 1, times or 1 do loss:backward(nil, {keep_graph = time < (times or 1)}) end
    results[1], results[2] = y:detach(), x.grad
    for _, u in ipairs(units) do
        for _, name in ipairs{"mean", "variance"} do results[#results + 1] = u[name] end
        for _, name in ipairs{"weights", "gamma", "beta"} do
            if u[name].grad then results[#results + 1] = u[name].grad end
        end
    end
    return results
end

local function norm(t) return resin.sum(resin.abs(t)):item() end

-- By the sum: where rounding decides what relu lets through, some elements differ by more.
local function assert_close(a, b)
    assert.are.equal(#a, #b)
    for i = 1, #a do
        local difference, scale = norm(a[i] - b[i]), norm(b[i])
        assert.is_true(difference <= 1e-3 * scale, ("result %d: %g of %g"):format(i, difference,
            scale))
    end
end

describe("sums of batch norm while a convolution writes", function()
    -- Both backward passes in one sweep; backward-data alone; rows too wide to be shown; odd sizes.
    for _, shape in ipairs{{4, 60, 58, 16}, {5, 33, 46, 12}, {3, 40, 37, 20}, {2, 8, 130, 16}} do
        for _, entry in ipairs(networks) do
            local name, network = table.unpack(entry)
            it(("are those of a pass of their own: %s, %d x %d x %d x %d"):format(name,
                table.unpack(shape)), function()
                assert_close(run(network, fused, shape), run(network, apart, shape))
            end)
        end
    end

    local pooling = {kernel = 3, stride = 2, padding = 1}
    local pools = {
        {"maxima", function(unit, u, x) return resin.max_pool2d(unit(u[1], x), pooling) end},
        {"maxima of a sum", function(unit, u, x)
            return resin.max_pool2d(unit(u[1], x, x), pooling)
        end},
        {"maxima and another reader behind", function(unit, u, x)
            local y = unit(u[1], x)
            return resin.sum(resin.max_pool2d(y, pooling)) + y * 3
        end},
        {"maxima and another reader before", function(unit, u, x)
            local y = unit(u[1], x)
            local other = y * 3
            return other + resin.sum(resin.max_pool2d(y, pooling))
        end},
    }
    for _, shape in ipairs{{3, 61, 58, 16}, {2, 70, 67, 19}, {9, 31, 30, 16}, {2, 5, 900, 16}} do
        for _, entry in ipairs(pools) do
            local name, network = table.unpack(entry)
            it(("are taken where pooling writes: %s, %d x %d x %d x %d"):format(name,
                table.unpack(shape)), function()
                assert_close(run(network, fused, shape), run(network, apart, shape))
                assert_close(run(network, fused, shape, 2), run(network, apart, shape, 2))
            end)
        end
    end

    it("are taken anew by every backward", function()
        local network, shape = networks[1][2], {4, 60, 58, 16}
        assert_close(run(network, fused, shape, 2), run(network, apart, shape, 2))
    end)

    it("have the same bits at any number of threads", function()
        for _, network in ipairs{networks[1][2], pools[1][2]} do
            local before, first = resin.threads(), nil
            for _, threads in ipairs{1, 2, 3} do
                resin.set_threads(threads)
                local results = run(network, fused, {4, 60, 58, 16})
                first = first or results
                for i = 1, #first do assert.are.equal(0, norm(first[i] - results[i])) end
            end
            resin.set_threads(before)
        end
    end)
end)
