--- nn.checkpoint: blocks whose inside backward computes again, so that it need not be kept.
---
--- In a graph the nodes of such a block carry its region (node.in_region); the plan for training
--- makes one step of them, which runs a plan of its own through the engine's checkpoint.
local core = require "resin.core"
local check = require "resin.nn.check"
local layer = require "resin.nn.layer"
local node = require "resin.nn.node"

local recompute = {}

-- An own part of what the engine's checkpoint calls: f of a list of tensors -> a list.
local function run_block(name, f, inputs, owned)
    local builds, first = layer.builds(), true
    return core.checkpoint(function(list)
        local results = f(list)
        if first and layer.builds() ~= builds then
            check.fail("%s: layers in the block were built while it ran; call them once before",
                name)
        end
        first = false
        return results
    end, inputs, owned)
end

---- On tensors ---------------------------------------------------------------------------------

-- A layer that all is built in runs through the engine's checkpoint; one that is not, plainly: what
-- building draws at random would not be drawn again.
local function run_layer(self, x, options)
    local run = layer.runner(self, options)
    if not layer.is_built(self) then return run(x) end
    local one, single = core.is_tensor(x), nil
    local results = run_block(self:label(), function(list)
        local y = run(one and list[1] or list)
        single = core.is_tensor(y)
        return single and {y} or y
    end, one and {x} or x)
    return single and results[1] or results
end

-- f(...) of tensors, and of other values that are handed through.
local function run_function(f, ...)
    local arguments, inputs, places = table.pack(...), {}, {}
    for position = 1, arguments.n do
        if core.is_tensor(arguments[position]) then
            inputs[#inputs + 1], places[#places + 1] = arguments[position], position
        end
    end
    if #inputs == 0 then check.fail("checkpoint: expected tensors among the arguments") end
    local in_place = layer.runner(f)
    return table.unpack(run_block("checkpoint", function(list)
        local given = table.move(arguments, 1, arguments.n, 1, {})
        for which, position in ipairs(places) do given[position] = list[which] end
        return {in_place(table.unpack(given, 1, arguments.n))}
    end, inputs))
end

---- The layer or function -----------------------------------------------------------------------

--- nn.checkpoint(block): in training, block is run without keeping what it computes, and again when
--- backward comes to it: less memory for about a third more time. Gradients are the same but for
--- rounding where a large convolution would sum a batch norm's gradient across the block's
--- border; dropout drops the same, running statistics move once.
---
---   local stage = nn.checkpoint(nn.sequential{...})          -- the layer itself, marked
---   y = nn.checkpoint(function(x) return block(x, 64) end)(x) -- of tensors, or of symbolic ones
---
--- A layer keeps its name and its parameters theirs. A function takes tensors or symbolic tensors,
--- and other values, and returns one or several; it must do the same when it runs again, and what it
--- uses of a graph must be among its arguments. Blocks may stand in blocks. In a model, a block
--- should not part a convolution from its batch norm and activation: the model could not fuse them.
function recompute.checkpoint(block)
    if layer.is(block) then
        layer.mark(block, run_layer)
        return block
    end
    if type(block) ~= "function" then
        check.fail("checkpoint: expected a layer or a function of tensors, got %s",
            core.is_tensor(block) and "a tensor" or type(block))
    end
    return function(...)
        for position = 1, select("#", ...) do
            if node.is_symbolic((select(position, ...))) then return node.in_region(block, ...) end
        end
        return run_function(block, ...)
    end
end

---- In the plan of a model ----------------------------------------------------------------------

-- Several results of one step, and the steps that take them out.
local Bundle = {}
Bundle.__index = Bundle
function Bundle:release() end

local Pick = {}
Pick.__index = Pick
function Pick:path() return "checkpoint" end
function Pick:call(bundle) return bundle[self.position] end

-- A step that stands for those of a region.
local Region = {class_name = "Checkpoint"}
Region.__index = Region
function Region:path() return "checkpoint" end

function Region:call(x, options)
    local inner = {}
    for name, value in pairs(options) do inner[name] = value end
    inner.observe = nil -- it counts the steps outside
    local results = run_block("checkpoint", function(list)
        return self.run(self.plan, list, inner, {})
    end, x, self.owned)
    return self.single and results[1] or setmetatable(results, Bundle)
end

-- The region directly inside of `outer` that `region` is or lies in; nil if it is `outer`.
local function region_inside(region, outer)
    if region == outer then return nil end
    while region.outer ~= outer do region = region.outer end
    return region
end

-- What the steps of a group read from outside gets placeholders; returns both lists.
local function cut_inputs(group)
    local inside, placeholder, inputs, given = {}, {}, {}, {}
    for _, step in ipairs(group) do inside[step] = true end
    for _, step in ipairs(group) do
        for place, value in ipairs(step.inputs) do
            if not inside[value] then
                if not placeholder[value] then
                    placeholder[value] = {input = #inputs + 1}
                    inputs[#inputs + 1], given[#given + 1] = value, placeholder[value]
                end
                step.inputs[place] = placeholder[value]
            end
        end
    end
    return inputs, given
end

-- The values of a group that steps outside of it or the outputs read.
local function results_of(group, steps, outputs)
    local inside, read, results = {}, {}, {}
    for _, step in ipairs(group) do inside[step] = true end
    for _, step in ipairs(steps) do
        if not inside[step] then
            for _, value in ipairs(step.inputs) do read[value] = true end
        end
    end
    for _, value in ipairs(outputs) do read[value] = true end
    for _, step in ipairs(group) do
        if read[step] then results[#results + 1] = step end
    end
    return results
end

--- The steps of one level (`outer`: the region around them, or nil) with those of each region in it
--- replaced by one. Returns them and, by value that a region computes, the step that gives it.
--- make(given, results, steps, region) makes the plan of a region; run runs it.
function recompute.group(steps, outputs, outer, make, run, is_user_code)
    local grouped, group, group_region, replaced = {}, nil, nil, {}
    local function finish()
        if not group then return end
        local results = results_of(group, steps, outputs)
        local owned = true
        for _, step in ipairs(group) do owned = owned and not is_user_code(step) end
        local inputs, given = cut_inputs(group)
        local runner = setmetatable({
            plan = make(given, results, group, group_region), run = run, owned = owned,
            single = #results == 1,
        }, Region)
        local whole = {layer = runner, inputs = inputs, many = true}
        grouped[#grouped + 1] = whole
        for position, value in ipairs(results) do
            replaced[value] = whole
            if #results > 1 then
                replaced[value] = {
                    layer = setmetatable({position = position}, Pick), inputs = {whole},
                }
                grouped[#grouped + 1] = replaced[value]
            end
        end
        group, group_region = nil, nil
    end
    for _, step in ipairs(steps) do
        local region = region_inside(step.region, outer)
        if region ~= group_region then finish() end
        if region then
            group, group_region = group or {}, region
            group[#group + 1] = step
        else
            grouped[#grouped + 1] = step
        end
    end
    finish()
    for _, step in ipairs(grouped) do
        for place, value in ipairs(step.inputs) do
            step.inputs[place] = replaced[value] or value
        end
    end
    return grouped, replaced
end

return recompute
