--- The formula from which tests/fixtures/make_golden.py and the tests compute the same inputs (it
--- is described there), and reading what the fixtures store.
local resin = require "resin"

local formula = {}

local PROJECTION_STREAM = 9999

--- Number `index` (from 0) of a stream, in [0, 1): the upper 24 bits of splitmix64's output.
function formula.unit(stream, index)
    local z = ((stream << 32) + index + 1) * 0x9E3779B97F4A7C15
    z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ~ (z >> 27)) * 0x94D049BB133111EB
    z = z ~ (z >> 31)
    return (z >> 40) / 16777216
end

local function count_of(shape)
    local count = 1
    for _, size in ipairs(shape) do count = count * size end
    return count
end

--- A tensor of values in [low, high) that are exact in float32.
function formula.tensor(stream, shape, low, high, dtype)
    local list, range, unit = {}, high - low, formula.unit
    for i = 1, count_of(shape) do list[i] = low + range * unit(stream, i - 1) end
    return resin.tensor(list):reshape(shape):to(dtype or "float32")
end

--- Labels 1 .. classes, int64.
function formula.labels(stream, shape, classes)
    local list = {}
    for i = 1, count_of(shape) do
        list[i] = 1 + math.floor(classes * formula.unit(stream, i - 1))
    end
    return resin.tensor(list, "int64"):reshape(shape)
end

--- The elements of a tensor in row-major order.
function formula.flat(tensor)
    return tensor:contiguous():reshape({ tensor:count() }):totable()
end

--- The vector that gradients are projected on.
function formula.projection(count)
    local list = {}
    for i = 1, count do list[i] = 2 * formula.unit(PROJECTION_STREAM, i - 1) - 1 end
    return list
end

--- Whether two lists of tensors hold the same numbers (the sign of a zero does not count).
function formula.identical(a, b)
    if #a ~= #b then return false end
    for i, one in ipairs(a) do
        if one:count() ~= b[i]:count() then return false end
        if one:not_equal(b[i]):sum():item() ~= 0 then return false end
    end
    return true
end

return formula
