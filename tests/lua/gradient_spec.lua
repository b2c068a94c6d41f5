-- Gradients: every row of the table of ops against differences, and functions of one number at the
-- extremes against PyTorch.
local resin = require "resin"
local formula = dofile "tests/lua/formula.lua"
local gradient_check = dofile "tests/lua/gradient_check.lua"

-- The tensors are small: threads would only wait for each other (determinism_spec.lua tests them).
local threads = resin.threads()
setup(function() resin.set_threads(1) end)
teardown(function() resin.set_threads(threads) end)

describe("the gradient of", function()
    for _, row in ipairs(resin.ops()) do
        if row.check then
            it(row.name, function()
                gradient_check.row(row, { "plain", "transposed", "sliced" }, { 1, 2 })
            end)
        end
    end
end)

-- A check that cannot fail checks nothing.
describe("the gradient check", function()
    local function broken(row)
        return function() gradient_check.row(row, { "plain" }, { 1 }) end
    end

    it("finds that no gradient flows", function()
        local row = { name = "greater", signature = "a, b", check = "{a = {3}, b = {3}}" }
        assert.has_error(broken(row))
    end)

    it("finds a wrong gradient", function()
        -- The value is x^2, but backward knows of one factor only.
        resin.broken_square = function(x) return x:detach() * x end
        local row = { name = "broken_square", signature = "x", check = "{x = {3}}" }
        local ok, message = pcall(broken(row))
        resin.broken_square = nil
        assert.is_false(ok)
        assert.truthy(message:find("differences give", 1, true))
    end)

    it("finds a gradient that is always zero", function()
        resin.broken_zero = function(x) return x * 0 end
        local row = { name = "broken_zero", signature = "x", check = "{x = {3}}" }
        local ok, message = pcall(broken(row))
        resin.broken_zero = nil
        assert.is_false(ok)
        assert.truthy(message:find("zero in every case", 1, true))
    end)

    it("refuses a case that names no argument", function()
        local row = { name = "exp", signature = "x", check = "{x = {3}, alpha = 1}" }
        assert.has_error(broken(row))
    end)
end)

-- ---- Extreme inputs -----------------------------------------------------------------------------

-- Names in the fixture that are options here.
local CALLS = {
    clamp = { "clamp", { min = -1, max = 2 } },
    gelu_tanh = { "gelu", { approximate = "tanh" } },
}

-- At the infinities these give their limits, where PyTorch's formulas give inf * 0 = NaN.
local LIMITS = {
    gelu = true, gelu_tanh = true, silu = true,
    [math.huge] = { y = math.huge, grad = 1 },
    [-math.huge] = { y = 0, grad = 0 },
}

-- What a value may be off by: rounding of a few operations in the dtype, and denormals may be zero.
local BOUNDS = { float64 = { 1e-13, 2.3e-308 }, float32 = { 2e-6, 1.2e-38 } }

-- 1 - tanh(x)^2 cancels where tanh is near 1: what is left has the rounding of 1.
local CANCELS = { tanh = { float64 = 2.0 ^ -53, float32 = 2.0 ^ -24 } }

local function same(value, golden, dtype, more)
    if golden ~= golden or value ~= value then return golden ~= golden and value ~= value end
    if value == golden then return true end
    local relative, absolute = table.unpack(BOUNDS[dtype])
    return math.abs(value - golden) <= relative * math.abs(golden) + absolute + more
end

local function compare(name, dtype, points, golden)
    local op, options = name, nil
    if CALLS[name] then op, options = table.unpack(CALLS[name]) end
    local x = resin.tensor(points, dtype):require_grad()
    local y = options and resin[op](x, options) or resin[op](x)
    y:backward(resin.ones({ #points }, dtype))
    local ys, grads = formula.flat(y), formula.flat(x.grad)
    local wrong, more = {}, CANCELS[name] and CANCELS[name][dtype] or 0
    for i, point in ipairs(points) do
        if not same(ys[i], golden.y[i], dtype, 0) then
            wrong[#wrong + 1] = ("%s(%g) = %.9g, PyTorch %.9g"):format(name, point, ys[i],
                golden.y[i])
        end
        if not same(grads[i], golden.grad[i], dtype, more) then
            wrong[#wrong + 1] = ("%s'(%g) = %.9g, PyTorch %.9g"):format(name, point, grads[i],
                golden.grad[i])
        end
    end
    assert(#wrong == 0, "\n" .. table.concat(wrong, "\n"))
end

describe("at the extremes", function()
    local golden = dofile "tests/fixtures/golden_extremes.lua"
    local names = {}
    for name in pairs(golden.float64) do
        if name ~= "points" then names[#names + 1] = name end
    end
    table.sort(names)
    for _, dtype in ipairs { "float64", "float32" } do
        local points = golden[dtype].points
        for _, name in ipairs(names) do
            it(("%s in %s is PyTorch's"):format(name, dtype), function()
                local values = golden[dtype][name]
                for i, point in ipairs(points) do
                    local limit = LIMITS[name] and LIMITS[point]
                    if limit then values.y[i], values.grad[i] = limit.y, limit.grad end
                end
                compare(name, dtype, points, values) -- in vectors, and alone:
                for i, point in ipairs(points) do
                    local alone = { y = { values.y[i] }, grad = { values.grad[i] } }
                    compare(name, dtype, { point }, alone)
                end
            end)
        end
    end
end)
