--- Checks an op's gradient by the cases of its row in the table of ops (the column `check`,
--- described in core/ops/op.h): backward against central differences of a random projection of the
--- result, in float64, and float32 against float64.
local resin = require "resin"

local gradient_check = {}

-- The step of the differences, and what they may be off from backward.
--
-- For L = sum(y * r), a central difference is off by h^2 / 6 |L'''| from truncation and by about K
-- eps S / h from rounding, with eps = 2^-53, S = sum |y * r| and K the number of roundings that an
-- element of y goes through. With h = 1e-5 these are 1.7e-11 |L'''| and 1.1e-11 K S. The bound
-- below leaves room for third derivatives up to some thousands and K up to some thousands; a wrong
-- formula is off by hundredths.
local STEP = 1e-5
local function bound(derivative, size) return 1e-7 * (1 + size) + 1e-6 * math.abs(derivative) end

-- float32 against float64 on inputs that both hold: an element is a sum of at most some hundred
-- terms of like size, each off by 2^-24; batch norm divides by deviations of few elements, which
-- enlarges that by some ten more.
local SINGLE_BOUND = 1e-4

-- A tensor is checked entry by entry up to this size, beyond it in so many places; in either case
-- along two random directions, which every entry takes part in.
local ALL_ENTRIES, SOME_ENTRIES, DIRECTIONS = 24, 12, 2

-- Ops whose gradient is zero wherever it exists.
local FLAT = { sign = true, floor = true, ceil = true, round = true }

-- ---- Reading rows -------------------------------------------------------------------------------

local function trim(text) return text:match("^%s*(.-)%s*$") end

--- The arguments of a signature: tensors, a list of {name, optional, variadic}, and the set of
--- names of attributes.
function gradient_check.arguments(signature)
    local tensors, attributes = {}, {}
    local before, after = signature:match("^([^;]*);?(.*)$")
    for part in before:gmatch("[^,]+") do
        local name, mark = trim(part):match("^([%w_]+)([?*]?)~?$")
        tensors[#tensors + 1] = { name = name, optional = mark == "?", variadic = mark == "*" }
    end
    for part in after:gmatch("[^,]+") do attributes[trim(part:match("^[^:]+"))] = true end
    return tensors, attributes
end

--- The cases of a row: a list of tables.
function gradient_check.cases(row)
    return assert(load("return {" .. row.check .. "}", "=check of " .. row.name, "t", {}))()
end

-- ---- Drawing inputs -----------------------------------------------------------------------------

-- Windows of 3 to 5 pixels must fit into "h" and "w".
local LETTERS = { n = { 1, 3 }, h = { 5, 9 }, w = { 5, 9 }, c = { 1, 6 } }

local function draw_shape(given, letters)
    local shape = {}
    for axis, size in ipairs(given.shape or given) do
        if type(size) == "string" then
            local range = LETTERS[size] or { 1, 5 }
            letters[size] = letters[size] or math.random(range[1], range[2])
            size = letters[size]
        end
        shape[axis] = size
    end
    return shape
end

local function count_of(shape)
    local count = 1
    for _, size in ipairs(shape) do count = count * size end
    return count
end

-- Values a tenth apart, in a random order.
local function distinct_values(shape)
    local count = count_of(shape)
    local order = resin.permutation(count):to("float64")
    return ((order - count / 2) * 0.1 + 0.03):reshape(shape)
end

-- Values of a tensor by its specification, rounded to float32 so that both dtypes hold them.
local function draw_values(given, distinct, letters)
    local shape = draw_shape(given, letters)
    if given.integers or given.mask then
        local list = {}
        for i = 1, count_of(shape) do
            list[i] = given.mask and math.random(0, 1) or math.random(given.integers)
        end
        return resin.tensor(list, given.mask and "uint8" or "int64"):reshape(shape)
    end
    if given.mask then return resin.normal(shape):greater(0) end
    local values
    if distinct or given.distinct then
        values = distinct_values(shape)
    elseif given.low or given.high then
        values = resin.uniform(shape, given.low or 0, given.high or 1, "float64")
    else
        values = resin.normal(shape, 0, 1, "float64")
    end
    return values:to("float32"):to("float64")
end

local function reversed(list)
    local result = {}
    for i = #list, 1, -1 do result[#result + 1] = list[i] end
    return result
end

--- The same elements with other strides. "transposed": the first axis is the dense one; "sliced":
--- every second element of a larger tensor of NaNs, every other axis backward.
function gradient_check.place(values, layout)
    local shape, rank = values:shape(), values:rank()
    local view
    if layout == "transposed" and rank > 1 then
        local axes = {}
        for axis = 1, rank do axes[axis] = rank + 1 - axis end
        view = resin.empty(reversed(shape), values:dtype()):transpose(axes)
    elseif layout == "sliced" and rank > 0 then
        local larger, ranges = {}, {}
        for axis, size in ipairs(shape) do
            larger[axis] = 2 * size + 1
            ranges[axis] = axis % 2 == 0 and { 2 * size, 2, -2 } or { 2, 2 * size, 2 }
        end
        view = resin.full(larger, 0 / 0, values:dtype())[ranges]
    else
        view = resin.empty(shape, values:dtype())
    end
    return view:copy_(values)
end

-- What a case is run with: `slots` in the signature's order, each a tensor, a list of them
-- (variadic) or nil, and the options. `leaves` is the list of {name, tensor} whose gradient is
-- wanted, `constants` that of the others that are floats, with a copy of their values: an op may
-- change them in place.
local function draw_case(row, case)
    local tensors, attributes = gradient_check.arguments(row.signature)
    local drawn = { row = row, slots = {}, count = #tensors, options = {}, given = {} }
    local letters, known = {}, { distinct = true }
    for slot, argument in ipairs(tensors) do
        local given = case[argument.name]
        known[argument.name] = true
        if given then
            local list = {}
            for i, one in ipairs(argument.variadic and given or { given }) do
                list[i] = { name = argument.name .. (argument.variadic and i or ""),
                    values = draw_values(one, case.distinct, letters),
                    wanted = not one.integers and not one.mask and not one.constant }
            end
            drawn.given[slot] = { variadic = argument.variadic, list = list }
        end
    end
    for name, value in pairs(case) do
        if attributes[name] then
            drawn.options[name] = value
        elseif not known[name] then
            error(("%s: its check names %s, which is no argument"):format(row.name, name))
        end
    end
    return drawn
end

-- Lays the values of a drawn case out as tensors of a dtype.
local function lay_out(drawn, layout, dtype)
    local laid = { slots = {}, leaves = {}, constants = {} }
    for slot, given in pairs(drawn.given) do
        local list = {}
        for i, one in ipairs(given.list) do
            local tensor = one.values
            if tensor:dtype() == "float64" then
                tensor = gradient_check.place(tensor:to(dtype), one.wanted and layout or "plain")
                if one.wanted then
                    tensor:require_grad()
                    laid.leaves[#laid.leaves + 1] = { name = one.name, tensor = tensor }
                else
                    laid.constants[#laid.constants + 1] = { tensor = tensor, values = one.values }
                end
            end
            list[i] = tensor
        end
        laid.slots[slot] = given.variadic and list or list[1]
    end
    return laid
end

-- ---- Running ------------------------------------------------------------------------------------

-- In Lua slice and select are methods written by hand, which count positions from 1; the row of
-- slice is reached by x[{...}].
local special = {}

function special.slice(slots, options)
    local x, ranges = slots[1], {}
    for axis = 1, x:rank() do
        local size = x:size(axis)
        local start, stop = options.start[axis] or 0, options.stop[axis] or size
        local step = options.step and options.step[axis] or 1
        ranges[axis] = { start + 1, step > 0 and stop or stop + 2, step }
    end
    return x[ranges]
end

function special.select(slots, options) return slots[1]:select(options.axis, options.index) end

function special.select(slots, options) return slots[1]:select(options.axis, options.index) end

-- Calls the op with the random state and the constants as they were at first.
local function run(drawn, laid, state)
    resin.random_state(state)
    for _, constant in ipairs(laid.constants) do constant.tensor:copy_(constant.values) end
    local name = drawn.row.name
    if special[name] then return special[name](laid.slots, drawn.options) end
    local arguments, count = {}, drawn.count
    for slot = 1, count do arguments[slot] = laid.slots[slot] end
    if next(drawn.options) then
        count = count + 1
        arguments[count] = drawn.options
    end
    return resin[name](table.unpack(arguments, 1, count))
end

local function projected(drawn, laid, state, weights)
    local y = run(drawn, laid, state)
    return (y * weights):sum():item()
end

-- (L(x + h v) - L(x - h v)) / 2h for a direction v (a tensor), x put back afterwards.
local function difference(loss, leaf, start, direction)
    leaf:copy_(start + direction * STEP)
    local above = loss()
    leaf:copy_(start - direction * STEP)
    local below = loss()
    leaf:copy_(start)
    return (above - below) / (2 * STEP)
end

local function unit_vector(shape, place)
    local flat = resin.zeros({ count_of(shape) }, "float64")
    flat[place] = 1
    return flat:reshape(shape)
end

local function random_direction(shape)
    local direction = resin.normal(shape, 0, 1, "float64")
    return direction / math.sqrt((direction * direction):sum():item())
end

local function directions_for(shape)
    local count, list = count_of(shape), {}
    local all = count <= ALL_ENTRIES
    for i = 1, all and count or SOME_ENTRIES do
        local place = all and i or math.random(count)
        list[#list + 1] = { "entry " .. place, unit_vector(shape, place) }
    end
    for i = 1, DIRECTIONS do list[#list + 1] = { "direction " .. i, random_direction(shape) } end
    return list
end

local function check_leaf(loss, leaf, size, where)
    local start = leaf.tensor:detach():contiguous() * 1
    for _, named in ipairs(directions_for(leaf.tensor:shape())) do
        local numeric = difference(loss, leaf.tensor, start, named[2])
        local exact = (leaf.grad * named[2]):sum():item()
        local off = math.abs(numeric - exact)
        if not (off <= bound(numeric, size)) then
            error(("%s: the gradient of %s at %s is %.10g, differences give %.10g (bound %.1e)")
                :format(where, leaf.name, named[1], exact, numeric, bound(numeric, size)), 0)
        end
    end
end

-- Result, and gradients by leaf, of one run; nil if no gradient flows.
local function run_backward(drawn, laid, state, weights, where)
    local y = run(drawn, laid, state)
    if not y:requires_grad() then error(where .. ": there is a check, but no gradient", 0) end
    y:backward(weights:to(y:dtype()))
    for _, leaf in ipairs(laid.leaves) do
        leaf.grad = leaf.tensor.grad
        if not leaf.grad then error(where .. ": no gradient reached " .. leaf.name, 0) end
    end
    return y:detach()
end

-- Whether |a - b| <= bound everywhere; returns how far off.
local function distance(a, b)
    a, b = a:to("float64"), b:to("float64")
    if a:count() == 0 then return 0 end
    local scale = math.max(1, b:abs():max():item())
    local off = (a - b):abs():max():item() / scale
    return off == off and off or math.huge
end

-- float32 on the same inputs, and with every layout the same as in a plain one.
local function check_single(drawn, layout, state, weights, exact, laid, where)
    local single = lay_out(drawn, layout, "float32")
    local y = run_backward(drawn, single, state, weights, where .. ", float32")
    if distance(y, exact) > SINGLE_BOUND then
        error(("%s: float32 is %.1e off"):format(where, distance(y, exact)), 0)
    end
    for i, leaf in ipairs(single.leaves) do
        local off = distance(leaf.grad, laid.leaves[i].grad)
        if off > SINGLE_BOUND then
            error(("%s: the float32 gradient of %s is %.1e off"):format(where, leaf.name, off), 0)
        end
    end
end

local function check_case(drawn, layout, seed, where, flowed)
    local laid = lay_out(drawn, layout, "float64")
    local state = { seed = seed, stream = 1000 }
    local shape = resin.no_grad(run, drawn, laid, state):shape()
    resin.random_state { seed = seed, stream = 2000 }
    local weights = gradient_check.place(resin.normal(shape, 0, 1, "float64"), layout)
    local y = run_backward(drawn, laid, state, weights, where)
    local size = (y * weights):abs():sum():item()
    if size ~= size then error(where .. ": the result is not a number", 0) end

    resin.no_grad(function()
        local function loss() return projected(drawn, laid, state, weights) end
        for _, leaf in ipairs(laid.leaves) do
            check_leaf(loss, leaf, size, where)
            flowed[leaf.name] = flowed[leaf.name] or leaf.grad:abs():sum():item() > 0
        end
    end)
    check_single(drawn, layout, state, weights, y, laid, where)
end

--- Checks every case of a row with every layout and seed; raises an error that says what is wrong.
function gradient_check.row(row, layouts, seeds)
    local flowed = {}
    for number, case in ipairs(gradient_check.cases(row)) do
        for _, seed in ipairs(seeds) do
            math.randomseed(seed)
            resin.seed(seed)
            local drawn = draw_case(row, case)
            for _, layout in ipairs(layouts) do
                local where = ("%s, case %d, %s, seed %d"):format(row.name, number, layout, seed)
                check_case(drawn, layout, seed, where, flowed)
            end
        end
    end
    assert(next(flowed) ~= nil, row.name .. ": its check asks for no gradient")
    for name, yes in pairs(flowed) do
        if not yes and not FLAT[row.name] then
            error(("%s: the gradient of %s was zero in every case"):format(row.name, name), 0)
        end
    end
end

--- The cases of a row for tests of other things: a list of {tensors (a flat list, plain, of a
--- dtype), training, run}; run(tensors) calls the op on such a list.
function gradient_check.calls(row, dtype)
    local calls = {}
    for number, case in ipairs(gradient_check.cases(row)) do
        local drawn = draw_case(row, case)
        local laid, call = lay_out(drawn, "plain", dtype), {tensors = {}, where = {}}
        for slot = 1, drawn.count do
            local value = laid.slots[slot]
            for position, tensor in ipairs(resin.is_tensor(value) and {value} or value or {}) do
                table.insert(call.tensors, tensor:detach())
                table.insert(call.where, {slot, not resin.is_tensor(value) and position})
            end
        end
        function call.run(tensors)
            local slots = {}
            for i, tensor in ipairs(tensors) do
                local slot, position = table.unpack(call.where[i])
                if position then
                    slots[slot] = slots[slot] or {}
                    slots[slot][position] = tensor
                else
                    slots[slot] = tensor
                end
            end
            return run(drawn, {slots = slots, constants = {}}, resin.random_state())
        end
        call.training = drawn.options.training
        calls[number] = call
    end
    return calls
end

return gradient_check
