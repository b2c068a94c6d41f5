--- Regularizers: what weights add to the loss. Each is called on a tensor and gives a scalar; a
--- model's fit knows them as penalties. On tensors any function of a tensor may stand in their
--- place.
local core = require "resin.core"
local check = require "resin.nn.check"

local regularizers = {}

-- l1 sum |w| + l2 sum w^2 (nn's l2: without the half).
local Regularizer = {__name = "resin.slim.regularizer"}
Regularizer.__index = Regularizer

function Regularizer:__call(weights)
    local parts
    for _, part in ipairs{
        self.l1 ~= 0 and core.abs(weights):sum() * self.l1 or false,
        self.l2 ~= 0 and core.square(weights):sum() * self.l2 or false,
    } do
        if part then parts = parts and parts + part or part end
    end
    return parts or core.zeros({}, weights:dtype())
end

local function check_scale(what, scale)
    if type(scale) ~= "number" or not (scale >= 0 and scale < math.huge) then
        check.fail("slim.%s: expected a scale of at least 0, got %s", what, tostring(scale))
    end
    return scale
end

local function new(l1, l2) return setmetatable({l1 = l1, l2 = l2}, Regularizer) end

--- l1_regularizer(scale): scale sum |w|.
function regularizers.l1_regularizer(scale)
    return new(check_scale("l1_regularizer", scale), 0)
end

--- l2_regularizer(scale): scale sum w^2 / 2.
function regularizers.l2_regularizer(scale)
    return new(0, check_scale("l2_regularizer", scale) / 2)
end

--- l1_l2_regularizer(scale_l1 = 1, scale_l2 = 1): the sum of both.
function regularizers.l1_l2_regularizer(scale_l1, scale_l2)
    return new(check_scale("l1_l2_regularizer", scale_l1 or 1),
        check_scale("l1_l2_regularizer", scale_l2 or 1) / 2)
end

local function is_penalty(value) return getmetatable(value) == Regularizer end

--- sum_regularizer{regularizer, ...}: the sum of several.
function regularizers.sum_regularizer(list)
    local l1, l2, functions = 0, 0, {}
    for _, one in ipairs(list) do
        if is_penalty(one) then
            l1, l2 = l1 + one.l1, l2 + one.l2
        else
            functions[#functions + 1] = one
        end
    end
    local penalty = new(l1, l2)
    if #functions == 0 then return penalty end
    return function(weights)
        local sum = penalty(weights)
        for _, f in ipairs(functions) do sum = sum + f(weights) end
        return sum
    end
end

regularizers.is_penalty = is_penalty

return regularizers
