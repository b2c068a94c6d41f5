--- Fusion: convolution -> batch norm -> (+ shortcut) -> relu becomes one step of the plan, run by
--- the op conv_bn_act; batch norm -> (+ shortcut) -> relu without a convolution one batch_norm.
---
--- Only results that nobody else reads may disappear. The layers stay what they are: their tensors
--- are the op's arguments, and the summary shows them. Fused and unfused differ in rounding only
--- (tests/lua/nn_spec.lua states the bound).
local core = require "resin.core"
local activations = require "resin.nn.activations"
local conv = require "resin.nn.conv"
local merge = require "resin.nn.merge"
local norm = require "resin.nn.norm"
local pool = require "resin.nn.pool"

local fusion = {}

---- The fused step -----------------------------------------------------------------------------

local Unit = {}
Unit.__index = Unit

-- `convolution` may be nil. `deferred`: in training the result comes about where it is read;
-- `unwritten`: and need not go to memory there.
local function new_unit(convolution, normalization, activation, deferred, unwritten)
    local function attributes(of_norm)
        local all = {}
        for name, value in pairs(convolution and convolution.attributes or {}) do
            all[name] = value
        end
        for name, value in pairs(of_norm) do all[name] = value end
        all.activation = activation
        if deferred then all.deferred = true end
        return all
    end
    return setmetatable({
        conv = convolution, norm = normalization, unwritten = unwritten,
        inference = attributes(normalization.inference_attributes),
        training = attributes(normalization.training_attributes),
    }, Unit)
end

function Unit:path() return (self.conv or self.norm):path() end

--- x: {input} or {input, shortcut}.
function Unit:call(x, options)
    local c, n = self.conv, self.norm
    local attributes = options.training and n.trainable and self.training or self.inference
    if not c then
        return core.batch_norm(x[1], n.gamma, n.beta, n.moving_mean, n.moving_variance, x[2],
            attributes)
    end
    return core.conv_bn_act(x[1], c.weights, c.bias, n.gamma, n.beta, n.moving_mean,
        n.moving_variance, x[2], attributes)
end

---- Finding chains -----------------------------------------------------------------------------

local function is(step, class) return step.layer ~= nil and getmetatable(step.layer) == class end

local Activation = activations.layers.activation

local function is_relu(step)
    return step.layer ~= nil and step.layer.kind == "relu"
        and (is(step, Activation) or is(step, activations.layers.relu))
end

-- The one step that reads `value`, or nil if there are several or it is an output.
local function only_reader(readers, value)
    local list = readers[value]
    return list and #list == 1 and list[1] or nil
end

local function read_by(steps, outputs)
    local readers = {}
    local function add(value, reader)
        readers[value] = readers[value] or {}
        table.insert(readers[value], reader)
    end
    for _, step in ipairs(steps) do
        for _, value in ipairs(step.inputs) do add(value, step) end
    end
    for _, value in ipairs(outputs) do add(value, false) end
    return readers
end

-- The chain that goes through the batch norm `step`: {conv, norm, add, relu} steps, perhaps without
-- conv, add or relu. Nil if the batch norm stands alone.
local function chain_of(step, readers, taken)
    local chain = {norm = step, last = step}
    local before = step.inputs[1]
    if before.layer and is(before, conv.layers.conv2d) and not before.layer.f
        and only_reader(readers, before) == step and not taken[before] then
        chain.conv = before
    end
    local after = only_reader(readers, chain.last)
    if after and is(after, merge.layers.add) and #after.inputs == 2 and not taken[after] then
        chain.add, chain.last = after, after
        chain.shortcut = after.inputs[after.inputs[1] == step and 2 or 1]
        after = only_reader(readers, after)
    end
    if after and is_relu(after) and not taken[after] then chain.relu, chain.last = after, after end
    if not chain.conv and chain.last == step then return nil end
    return chain
end

-- Whether every reader can normalize what it reads on the way.
local function only_windows_read(readers, value)
    for _, reader in ipairs(readers[value] or {}) do
        if not reader or not (is(reader, conv.layers.conv2d)
            or is(reader, pool.layers.max_pool2d)) then
            return false
        end
    end
    return true
end

-- `taken`: the chains by their steps.
local function is_shortcut_of_deferred(readers, taken, value)
    local reader = only_reader(readers, value)
    local chain = reader and taken[reader]
    return chain and chain.conv and chain.relu and chain.shortcut == value or false
end

-- Whether the result of a chain comes about where it is read, and whether nothing reads it from
-- memory: convolutions and maxima normalize on the way. A result with a shortcut is written by the
-- convolution that adds it; the shortcut may be such a result itself, without relu.
local function how_deferred(chain, readers, taken)
    if not chain.conv then return false, false end
    if chain.add then return chain.relu ~= nil, false end
    local unwritten
    if chain.relu then unwritten = only_windows_read(readers, chain.last)
    else unwritten = is_shortcut_of_deferred(readers, taken, chain.last) end
    return unwritten, unwritten
end

--- The steps with chains replaced. A step is {layer, inputs (steps, or {input = i})}; the fused
--- ones keep the identity of their last step, so that readers need no change, and stand in its
--- place, where the shortcut has been computed.
function fusion.fuse(steps, outputs)
    local readers, taken = read_by(steps, outputs), {}
    for _, step in ipairs(steps) do
        if is(step, norm.layers.batch_norm) and not taken[step] then
            local chain = chain_of(step, readers, taken)
            if chain then
                for _, name in ipairs{"conv", "norm", "add", "relu"} do
                    if chain[name] then taken[chain[name]] = chain end
                end
                local unit = new_unit(chain.conv and chain.conv.layer, step.layer,
                    chain.relu and "relu" or "linear", how_deferred(chain, readers, taken))
                chain.last.fused = {
                    layer = unit, inputs = {(chain.conv or step).inputs[1], chain.shortcut},
                }
            end
        end
    end
    local result = {}
    for _, step in ipairs(steps) do
        if step.fused then
            step.layer, step.inputs, step.many = step.fused.layer, step.fused.inputs, true
            step.fused = nil
            result[#result + 1] = step
        elseif not taken[step] then
            result[#result + 1] = step
        end
    end
    return result
end

return fusion
