--- Averaged weights (an exponential moving average, EMA): after each step
---
---   average = d average + (1 - d) weights,  d = min(decay, (1 + step) / (10 + step))
---
--- so that the first steps count little (as tf.train.ExponentialMovingAverage). Running statistics
--- are averaged alike.
local core = require "resin.core"

local average = {}

local Average = {}
Average.__index = Average

-- A copy that shares nothing.
local function copy_of(tensor)
    local copy = core.empty(tensor:shape(), tensor:dtype())
    copy:copy_(tensor:detach())
    return copy
end

--- Averages of what a training of `model` changes: the parameters of its optimizer, as one flat
--- buffer, and the running statistics.
function average.new(model, parameters, decay)
    local self = setmetatable({decay = decay, weights = {parameters:flat()}, means = {}}, Average)
    for _, tensor in model:named_buffers() do self.weights[#self.weights + 1] = tensor end
    for i, tensor in ipairs(self.weights) do self.means[i] = copy_of(tensor) end
    return self
end

local function move(mean, weights, share)
    local difference <close> = weights - mean
    local part <close> = difference * share
    local moved <close> = mean + part
    mean:copy_(moved)
end

--- Takes the weights after step number `step` in.
function Average:update(step)
    local share = 1 - math.min(self.decay, (1 + step) / (10 + step))
    core.no_grad(function()
        for i, mean in ipairs(self.means) do move(mean, self.weights[i], share) end
    end)
end

--- Exchanges the model's weights and their averages; a second time puts them back.
function Average:swap()
    core.no_grad(function()
        for i, mean in ipairs(self.means) do
            local kept <close> = copy_of(self.weights[i])
            self.weights[i]:copy_(mean)
            mean:copy_(kept)
        end
    end)
end

--- {name, tensor} of each, for a checkpoint.
function Average:state()
    local list = {}
    for i, mean in ipairs(self.means) do list[i] = {tostring(i), mean} end
    return list
end

return average
