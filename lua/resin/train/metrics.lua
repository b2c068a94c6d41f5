--- Metrics: numbers about predictions, meant over samples.
---
--- train.fit{metrics = {"accuracy", "top_5", mine = function(prediction, target) ... end}}
---
--- A function gets the model's output (behind its last activation) and the targets. It returns the
--- mean over the batch, as a number or a tensor that is then meant; or two numbers, a sum and what
--- it is to be divided by in the end.
local core = require "resin.core"
local check = require "resin.nn.check"

local metrics = {}

-- Integer labels as they are; one-hot ones, or probabilities, by their largest entry.
local function labels_of(prediction, target)
    if target:rank() == prediction:rank() then return target:argmax(-1) end
    return core.contiguous(target)
end

local function total(x)
    local sum <close> = x:sum()
    return sum:item()
end

--- The part of samples whose largest output is that of their class.
function metrics.accuracy(prediction, target)
    local labels <close> = labels_of(prediction, target)
    local predicted <close> = prediction:argmax(-1)
    local equal <close> = predicted:equal(labels)
    return total(equal), equal:count()
end

-- Of outputs before a sigmoid: right where sign and target agree.
local function binary_accuracy(logits, target)
    local fitted <close> = core.reshape(target, {shape = logits:shape()})
    local predicted <close> = core.greater(logits, 0)
    local wanted <close> = core.greater(fitted, 0.5)
    local equal <close> = predicted:equal(wanted)
    return total(equal), equal:count()
end

--- The part of samples whose class is among the k largest outputs; ties count as among them.
function metrics.top_k(k)
    check.integer("metrics", "k", k, 1)
    return function(prediction, target)
        local labels <close> = labels_of(prediction, target)
        local shape = prediction:shape()
        shape[#shape] = 1
        local indices <close> = labels:reshape(shape)
        local own <close> = core.gather(prediction, indices, {axis = -1})
        -- Counted from below, so that a NaN is never among the best.
        local not_above <close> = prediction:less_equal(own)
        local counts <close> = not_above:to("int64"):sum(-1)
        local among <close> = core.greater(counts, prediction:size(-1) - k)
        return total(among), among:count()
    end
end

local function mean_of(loss)
    return function(prediction, target)
        local fitted <close> = core.reshape(target, {shape = prediction:shape()})
        local value <close> = loss(prediction, fitted)
        return value:item()
    end
end

-- Metrics by name; `raw` ones are the same before the last activation.
local function by_name(name, loss)
    if name == "accuracy" or name == "acc" then
        local binary = loss.name == "binary_cross_entropy"
        return {name = "accuracy", f = binary and binary_accuracy or metrics.accuracy, raw = true}
    end
    local k = name:match("^top_(%d+)$")
    if k then return {name = name, f = metrics.top_k(math.tointeger(k)), raw = true} end
    if name == "mse" then return {name = name, f = mean_of(core.mse_loss)} end
    if name == "mae" then return {name = name, f = mean_of(core.l1_loss)} end
    check.fail('unknown metric "%s"; there are accuracy, top_K (top_5), mae, mse, or a function '
        .. "under a name: {mine = function(prediction, target) ... end}", name)
end

-- What else a row of the history has, and a name given twice, cannot be a metric's.
local RESERVED = {epoch = true, loss = true, lr = true, seconds = true, waited = true,
    val_seconds = true, steps = true, images = true}

local function check_names(list)
    local seen = {}
    for _, metric in ipairs(list) do
        if RESERVED[metric.name] or seen[metric.name] then
            check.fail('metrics: the name "%s" is taken', metric.name)
        end
        seen[metric.name] = true
    end
    return list
end

--- The list of {name, f, raw} of what the user gave: names, and functions under their names.
function metrics.find(given, loss)
    local list, named = {}, {}
    for _, item in ipairs(given) do
        if type(item) ~= "string" then
            check.fail("metrics: a %s needs a name: {mine = function(prediction, target) ... end}",
                type(item))
        end
        list[#list + 1] = by_name(item, loss)
    end
    for name, f in pairs(given) do
        if type(name) == "string" then
            if not name:find("^[%a_][%w_]*$") or type(f) ~= "function" then
                check.fail("metrics: expected a function under a name of letters, digits and _, "
                    .. "got %s = %s", name, type(f))
            end
            named[#named + 1] = name
        end
    end
    table.sort(named)
    for _, name in ipairs(named) do list[#list + 1] = {name = name, f = given[name]} end
    return check_names(list)
end

-- What a metric says of a batch of n samples: a sum, and what it is a sum of.
local function measure(metric, prediction, target, n)
    local value, count = metric.f(prediction, target)
    if core.is_tensor(value) then
        local tensor <close> = value
        local mean <close> = tensor:mean()
        value, count = mean:item(), nil
    end
    if type(value) ~= "number" then
        check.fail("metrics: %s returned %s, not a number", metric.name, type(value))
    end
    if count then return value, count end
    return value * n, n
end

---- Sums over samples ---------------------------------------------------------------------------

local Sums = {}
Sums.__index = Sums

--- Sums of the loss and of metrics over an epoch. `stored` (what :stored() gave) goes on.
function metrics.sums(list, stored)
    local self = setmetatable({list = list, sum = {}, weight = {}, samples = 0}, Sums)
    for _, name in ipairs(self:names()) do
        self.sum[name] = stored and stored["sum_" .. name] or 0.0
        self.weight[name] = stored and stored["weight_" .. name] or 0
    end
    self.samples = stored and stored.samples or 0
    return self
end

function Sums:names()
    local names = {"loss"}
    for _, metric in ipairs(self.list) do names[#names + 1] = metric.name end
    return names
end

--- Takes a batch of n samples in. `finished` is the output behind the last activation: a function
--- that makes it when a metric wants it.
function Sums:add(n, loss, prediction, target, finished)
    self.samples = self.samples + n
    self.sum.loss, self.weight.loss = self.sum.loss + loss * n, self.weight.loss + n
    for _, metric in ipairs(self.list) do
        local name = metric.name
        local sum, weight = measure(metric, metric.raw and prediction or finished(), target, n)
        self.sum[name], self.weight[name] = self.sum[name] + sum, self.weight[name] + weight
    end
end

--- The means, into `row` under their names with `prefix` in front.
function Sums:write(row, prefix)
    for _, name in ipairs(self:names()) do
        row[(prefix or "") .. name] = self.sum[name] / self.weight[name]
    end
    return row
end

--- A flat table of numbers for a checkpoint.
function Sums:stored()
    local stored = {samples = self.samples}
    for _, name in ipairs(self:names()) do
        stored["sum_" .. name], stored["weight_" .. name] = self.sum[name], self.weight[name]
    end
    return stored
end

return metrics
