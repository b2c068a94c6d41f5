--- Where fit, evaluate and predict take their batches from: a data set of resin.data, tensors, or a
--- function of the user.
local core = require "resin.core"
local check = require "resin.nn.check"

local source = {}

---- A data set ----------------------------------------------------------------------------------

local Set = {}
Set.__index = Set

local function from_set(set, given)
    local drop_last = given.augment and given.augment.drop_last or false
    return setmetatable({set = set, given = given, samples = #set, owned = true,
        classes = set.classes,
        batches = set:batch_count{batch_size = given.batch_size, drop_last = drop_last}}, Set)
end

-- Iterates over the batches of an epoch from number `first` on. A loader goes on with the next
-- epoch by itself, so that its threads make batches while the model is evaluated.
function Set:epoch(epoch, first)
    local given, loader = self.given, self.loader
    if loader then
        local next_epoch, next_batch = loader:position()
        if next_epoch == epoch and next_batch == first then return loader end
        self:close()
    end
    local options = {batch_size = given.batch_size, shuffle = given.shuffle, seed = given.seed,
        epoch = epoch, step = first, last_epoch = math.max(given.epochs or epoch, epoch)}
    for name, value in pairs(given.augment or {}) do options[name] = value end
    self.loader = self.set:loader(options)
    return self.loader
end

function Set:close()
    if self.loader then self.loader:close() end
    self.loader = nil
end

function Set:labels() return self.set.labels end

function Set:split(fraction) return self.set:split(fraction) end

---- Tensors -------------------------------------------------------------------------------------

local Tensors = {}
Tensors.__index = Tensors

-- All tensors have one length along the first axis.
local function from_tensors(x, y, given, what)
    local inputs = core.is_tensor(x) and {x} or x
    local count = inputs[1]:rank() > 0 and #inputs[1] or 0
    for _, tensor in ipairs(inputs) do
        if tensor:rank() == 0 or #tensor ~= count or count == 0 then
            check.fail("%s: expected tensors with the same number of samples on the first axis",
                what)
        end
    end
    if y and (y:rank() == 0 or #y ~= count) then
        check.fail("%s: there are %d samples, but %s targets", what, count,
            y:rank() == 0 and "no" or #y)
    end
    if given.augment and next(given.augment) then
        check.fail("%s: augment needs a data set (resin.data), not tensors", what)
    end
    return setmetatable({x = x, y = y, given = given, samples = count, owned = true,
        batches = (count + given.batch_size - 1) // given.batch_size}, Tensors)
end

function Tensors:epoch(epoch, first)
    local count, size, given = self.samples, self.given.batch_size, self.given
    local order = given.shuffle and core.epoch_order(count, true, given.seed, epoch)
    local position = (first - 1) * size + 1
    local function part(tensor, last)
        if not order then return tensor:slice(1, position, last) end
        local records <close> = order:slice(1, position, last)
        return core.take(tensor, records)
    end
    return function()
        if position > count then return nil end
        local last, x = math.min(position + size - 1, count), nil
        if core.is_tensor(self.x) then
            x = part(self.x, last)
        else
            x = {}
            for i, tensor in ipairs(self.x) do x[i] = part(tensor, last) end
        end
        local y = self.y and part(self.y, last)
        position = last + 1
        return x, y
    end
end

function Tensors:close() end
function Tensors:labels() return self.y end

-- The first floor(fraction n) samples and the rest, as data for another source.
function Tensors:split(fraction)
    local first = math.floor(fraction * self.samples)
    if first == 0 or first == self.samples then
        check.fail("validation_split: a part would be empty: %g of %d samples", fraction,
            self.samples)
    end
    local function part(from, to)
        local function slice(tensor) return tensor:slice(1, from, to) end
        local x = self.x
        if core.is_tensor(x) then
            x = slice(x)
        else
            x = {}
            for i, tensor in ipairs(self.x) do x[i] = slice(tensor) end
        end
        return {x, slice(self.y)}
    end
    return part(1, first), part(first + 1, self.samples)
end

---- A function ----------------------------------------------------------------------------------

local Iterator = {}
Iterator.__index = Iterator

function Iterator:epoch(epoch, first)
    local f, state, control = self.make(epoch)
    local meta = getmetatable(f)
    if type(f) ~= "function" and not (meta and meta.__call) then
        check.fail("data: the function returned %s, not an iterator", type(f))
    end
    local function next_batch()
        local x, y = f(state, control)
        control = x
        return x, y
    end
    for _ = 1, first - 1 do next_batch() end
    return next_batch
end

function Iterator:close() end
function Iterator:labels() return nil end

function Iterator:split()
    check.fail("validation_split needs a data set or tensors; give validation_data")
end

---- Which ---------------------------------------------------------------------------------------

--- The batches of `data`: a data set; x or {x, y} or {{x1, x2}, y} (tensors); or a function of the
--- epoch that returns an iterator over x, y. given: batch_size, shuffle, seed, augment
--- (options of the loader), epochs (the last that will come).
--- A source has samples and batches (nil where unknown), owned (its tensors may be released),
--- :epoch(epoch, first), :labels(), :split(fraction), :close().
function source.new(what, data, given)
    if type(data) == "function" then
        return setmetatable({make = data, owned = false}, Iterator)
    end
    if core.is_tensor(data) then return from_tensors(data, nil, given, what) end
    if type(data) == "table" and data.images and data.batches then return from_set(data, given) end
    if type(data) == "table" then
        local x, y = data[1] or data.x, data[2] or data.y
        local many = type(x) == "table" and core.is_tensor(x[1])
        if (core.is_tensor(x) or many) and (y == nil or core.is_tensor(y)) then
            return from_tensors(x, y, given, what)
        end
    end
    check.fail("%s: expected a data set, {x, y} of tensors, or a function that returns an "
        .. "iterator, got %s", what, type(data))
end

--- Releases what a source gave.
function source.release(owned, x, y)
    if not owned then return end
    if core.is_tensor(x) then
        x:release()
    else
        for _, tensor in ipairs(x) do tensor:release() end
    end
    if y then y:release() end
end

return source
