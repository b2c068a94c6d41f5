-- Inference of conv_bn_act, where the convolution itself applies the running statistics, shortcut
-- and activation, against convolution, batch norm, addition and activation as ops of their own.
local resin = require "resin"

-- Not contiguous: every other one of twice as many numbers on the last axis.
local function sliced(shape)
    local wide = {table.unpack(shape)}
    wide[#wide] = wide[#wide] * 2
    return resin.randn(wide):slice(#wide, 1, wide[#wide], 2)
end

local cases = {
    {name = "3x3", kernel = 3, from = 8, to = 33, same = true},
    {name = "1x1", kernel = 1, from = 48, to = 64},
    {name = "7x7 with stride", kernel = 7, from = 3, to = 40, stride = 2, same = true},
    {name = "groups", kernel = 3, from = 24, to = 24, groups = 6, same = true},
    {name = "depthwise", kernel = 3, from = 20, to = 20, groups = 20, same = true},
    {name = "dilation", kernel = 3, from = 5, to = 7, dilation = 2},
}

local function run(case, activation, with_shortcut, with_bias)
    resin.seed(5)
    local x = resin.randn{2, 13, 12, case.from}
    local weights = resin.randn{case.kernel, case.kernel, case.from // (case.groups or 1),
        case.to} * 0.2
    local bias = with_bias and sliced{case.to} or nil
    local gamma, beta, mean = sliced{case.to}, resin.randn{case.to}, sliced{case.to}
    local variance = resin.exp(resin.randn{case.to})
    local conv = {stride = case.stride, groups = case.groups or 1, same = case.same,
        dilation = case.dilation}
    local norm = {training = false, activation = "linear", epsilon = 1e-3}
    local all = {activation = activation, training = false, epsilon = 1e-3}
    for name, value in pairs(conv) do all[name] = value end
    return resin.no_grad(function()
        local z = resin.conv2d(x, weights, bias, conv)
        local shortcut = with_shortcut and sliced(z:shape()) or nil
        local kept = shortcut and shortcut:contiguous()
        local y = resin.conv_bn_act(x, weights, bias, gamma, beta, mean, variance, shortcut, all)
        if shortcut then assert.equal(0, resin.max(resin.abs(shortcut - kept)):item()) end
        z = resin.batch_norm(z, gamma, beta, mean, variance, nil, norm)
        if shortcut then z = z + shortcut end
        return y, activation == "relu" and resin.relu(z) or z
    end)
end

describe("epilogue", function()
    for _, case in ipairs(cases) do
        it("is what the ops by themselves give: " .. case.name, function()
            for i = 0, 7 do
                local activation = i & 1 > 0 and "relu" or "linear"
                local fused, plain = run(case, activation, i & 2 > 0, i & 4 > 0)
                -- Both round each sum of a few numbers of about the size of the result.
                local bound = 8 * 2 ^ -24 * (1 + resin.max(resin.abs(plain)):item())
                local error = resin.max(resin.abs(fused - plain)):item()
                assert.is_true(error <= bound, ("case %d: %g > %g"):format(i, error, bound))
            end
        end)
    end

    it("gives the same bits at any number of threads", function()
        local before = resin.threads()
        for _, case in ipairs(cases) do
            local results = {}
            for i, threads in ipairs{1, 2, 5} do
                resin.set_threads(threads)
                results[i] = run(case, "relu", true, true)
            end
            resin.set_threads(before)
            for i = 2, 3 do
                assert.equal(0, resin.max(resin.abs(results[i] - results[1])):item())
            end
        end
    end)

    it("lets NaN through", function()
        local one = resin.ones{1}
        local y = resin.no_grad(function()
            return resin.conv_bn_act(resin.full({1, 2, 2, 1}, 0 / 0), resin.ones{1, 1, 1, 1}, nil,
                one, one, one, one, nil, {activation = "relu", training = false})
        end)
        assert.is_true(resin.sum(y):item() ~= resin.sum(y):item())
    end)
end)
