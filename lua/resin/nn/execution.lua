--- How a graph runs: a plan of steps over numbered values, made once by nn.model.
---
--- Values 1 .. n are the inputs. A value is released after its last reader, so that memory does not
--- wait for Lua's collector; what backward needs stays alive through the engine's graph. Values
--- that pass through code of users (nn.layer, nn.func) are left to the collector: it may have kept
--- them.
local check = require "resin.nn.check"
local fusion = require "resin.nn.fusion"
local graph = require "resin.nn.graph"
local layer = require "resin.nn.layer"
local recompute = require "resin.nn.recompute"

local execution = {}

-- Appends the steps of `nodes`. value_of maps nodes to steps; those of inputs are there already.
-- The graph inside of a layer that always does the same (nn.sequential, a model) is run in place.
local function add_steps(steps, value_of, nodes)
    for _, one in ipairs(nodes) do
        if not value_of[one] then
            local inputs = {}
            for position, input in ipairs(one.inputs) do inputs[position] = value_of[input] end
            if one.inner and one.layer.static then
                for position, placeholder in ipairs(one.inner.inputs) do
                    value_of[placeholder] = inputs[position]
                end
                add_steps(steps, value_of, graph.nodes{one.inner.output})
                value_of[one] = value_of[one.inner.output]
            else
                local step = {
                    layer = one.layer, inputs = inputs, many = one.many, region = one.region,
                }
                steps[#steps + 1], value_of[one] = step, step
            end
        end
    end
end

local function is_user_code(step) return step.layer.user or step.layer.composite end

-- Numbers the values and counts the readers of each; those not to be released have one more.
local function number(steps, inputs, outputs)
    local index, readers, kept = {}, {}, {}
    for position, value in ipairs(inputs) do index[value] = position end
    for position, step in ipairs(steps) do index[step] = #inputs + position end
    for value in pairs(index) do readers[index[value]], kept[index[value]] = 0, false end
    for _, value in ipairs(inputs) do kept[index[value]] = true end
    for _, value in ipairs(outputs) do kept[index[value]] = true end
    for _, step in ipairs(steps) do
        if is_user_code(step) then kept[index[step]] = true end
        for _, value in ipairs(step.inputs) do
            readers[index[value]] = readers[index[value]] + 1
            if is_user_code(step) then kept[index[value]] = true end
        end
    end
    for value, keep in pairs(kept) do
        if keep then readers[value] = readers[value] + 1 end
    end
    return index, readers
end

-- The plan of steps: its inputs and outputs are values. `settings`: fuse, recompute, and `finals`,
-- the values that are the model's outputs.
local function plan_of(inputs, outputs, steps, settings, region)
    if settings.recompute then
        local function make(given, results, group, inner)
            return plan_of(given, results, group, settings, inner)
        end
        local replaced
        steps, replaced = recompute.group(steps, outputs, region, make, execution.run,
            is_user_code)
        outputs = table.move(outputs, 1, #outputs, 1, {})
        for position, value in ipairs(outputs) do outputs[position] = replaced[value] or value end
    end
    if settings.fuse ~= false then steps = fusion.fuse(steps, outputs) end
    local index, readers = number(steps, inputs, outputs)
    local plan = {steps = {}, readers = readers, outputs = {}, is_output = {}}
    for position, value in ipairs(outputs) do
        plan.outputs[position] = index[value]
        plan.is_output[index[value]] = settings.finals[value]
    end
    for position, step in ipairs(steps) do
        local arguments = {}
        for place, value in ipairs(step.inputs) do arguments[place] = index[value] end
        plan.steps[position] = {
            layer = step.layer, arguments = arguments, many = step.many, output = index[step],
            composite = step.layer.composite,
        }
    end
    return plan
end

--- The plan of a graph: {steps = list of {layer, arguments (numbers of values), many, output,
--- readers}, readers of the inputs, outputs}. settings: fuse = false leaves chains as they are;
--- recompute = true makes one step of each checkpointed block (nn/recompute.lua).
function execution.plan(input_nodes, output_nodes, nodes, settings)
    local steps, value_of, inputs, outputs, finals = {}, {}, {}, {}, {}
    for position, one in ipairs(input_nodes) do
        inputs[position] = {input = position}
        value_of[one] = inputs[position]
    end
    add_steps(steps, value_of, nodes)
    for position, one in ipairs(output_nodes) do
        outputs[position] = value_of[one]
        finals[value_of[one]] = true
    end
    return plan_of(inputs, outputs, steps,
        {fuse = settings.fuse, recompute = settings.recompute, finals = finals})
end

--- Whether a graph has checkpointed blocks.
function execution.has_regions(nodes)
    for _, one in ipairs(nodes) do
        if one.region then return true end
        if one.inner and one.layer.static
            and execution.has_regions(graph.nodes{one.inner.output}) then
            return true
        end
    end
    return false
end

local function run_step(step, x, options, is_output)
    if step.composite then return layer.run(step.layer, x, options) end
    local method = step.layer.call
    if options.logits and is_output and step.layer.logits then method = step.layer.logits end
    local ok, result = pcall(method, step.layer, x, options)
    if not ok then check.again(step.layer:path(), result) end
    return result
end

--- Runs the plan on a list of tensors; returns the list of outputs. `owned`: inputs that belong to
--- the run (converted copies) and are released like any value. options.observe(i) is called before
--- step i, for measurements.
function execution.run(plan, tensors, options, owned)
    local values, pending = {}, {}
    -- A layer may return its own input, so readers are counted by tensor, not by value.
    local function produce(number_, tensor, readers)
        values[number_] = tensor
        pending[tensor] = (pending[tensor] or 0) + readers
    end
    for position, tensor in ipairs(tensors) do
        produce(position, tensor, plan.readers[position] - (owned[position] and 1 or 0))
    end
    local observe = options.observe
    for position, step in ipairs(plan.steps) do
        local arguments, x = step.arguments, nil
        if observe then observe(position) end
        if step.many then
            x = {}
            for place, number_ in ipairs(arguments) do x[place] = values[number_] end
        else
            x = values[arguments[1]]
        end
        produce(step.output, run_step(step, x, options, plan.is_output[step.output]),
            plan.readers[step.output])
        for _, number_ in ipairs(arguments) do
            local tensor = values[number_]
            pending[tensor] = pending[tensor] - 1
            if pending[tensor] == 0 then
                tensor:release()
                values[number_] = nil
            end
        end
    end
    local results = {}
    for position, number_ in ipairs(plan.outputs) do results[position] = values[number_] end
    return results
end

return execution
