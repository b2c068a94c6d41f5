--- nn.plan: a network, or any function of tensors, recorded once to be run again and again: the ops
--- alone, in one block of memory that is laid out beforehand. What a step takes is then the ops, no
--- Lua and no allocation, and how much memory it takes is known.
local core = require "resin.core"
local check = require "resin.nn.check"
local layer = require "resin.nn.layer"

local plan = {}

local function is_shape(given)
    if type(given) ~= "table" then return false end
    for _, size in ipairs(given) do
        if not check.is_integer(size, 0) then return false end
    end
    return true
end

-- Zeros for a shape; of a tensor its elements, row-major, in a tensor of its own, so that one that
-- is given twice is two inputs.
local function example(given, dtype, position)
    if core.is_tensor(given) then return core.contiguous(given):detach() end
    if not is_shape(given) then
        check.fail("nn.plan: input %d must be a shape, as {1, 224, 224, 3}, or a tensor, got %s",
            position, type(given))
    end
    return core.zeros(given, dtype)
end

-- A shape or tensor, or a list of them, as a list of tensors. A list of integers is one shape.
local function examples(model, given)
    local list = (core.is_tensor(given) or is_shape(given) and #given > 0) and {given} or given
    if type(list) ~= "table" or #list == 0 then
        check.fail("nn.plan: expected the shape of the input, or a list of shapes or tensors")
    end
    local tensors = {}
    for position, one in ipairs(list) do
        local input = layer.is(model) and model.inputs and model.inputs[position]
        tensors[position] = example(one, input and input.dtype_name or "float32", position)
    end
    return tensors
end

-- The function to record: from the tensors to a list of outputs, and whether they came in a list.
local function runner(model, options)
    if not layer.is(model) then return function(tensors) return model(table.unpack(tensors)) end end
    return function(tensors) return model(#tensors == 1 and tensors[1] or tensors, options) end
end

local function outputs_of(...)
    local first = ...
    if type(first) == "table" and not core.is_tensor(first) then return first, true end
    return {...}, false
end

local function record(run, tensors)
    core.plan_begin(tensors)
    local ok, result = pcall(function()
        local outputs, as_list = outputs_of(run(tensors))
        return core.plan_end(outputs, as_list)
    end)
    core.plan_cancel() -- nothing, if it has ended
    if not ok then error(result, 0) end
    return result
end

--- nn.plan(model, input[, options]): the plan of a model (nn.model, or any layer) for inputs of one
--- shape, batch axis included.
---
---   local run = nn.plan(model, {1, 224, 224, 3})
---   local scores = run(image)         -- the bits of model(image)
---   print(run:memory())               -- bytes of its block: all results and scratch; and those
---                                        of what it keeps: convolutions' weights, arranged
---
--- `input` is a shape (float32, or as the model's nn.input says), an example tensor, or a list of
--- these for several inputs. Instead of a model any function of tensors can be given; it gets the
--- inputs as arguments. run(x, ...) takes tensors of just these shapes and dtypes, anything else is
--- an error, and gives new tensors: what the model gives (a list, if it has several outputs).
--- `options` go to the model, as {logits = true}; a plan neither trains nor records gradients.
---
--- The weights are the model's: what is changed in place later, by model:load, copy_ or training,
--- counts in the next run (convolutions' are kept a second time, as the processor reads them best,
--- and arranged anew when they have changed). Lua code runs when the plan is made (a function
--- twice) on the example, or zeros: a branch that looks at elements (t:item()) goes the same way in
--- every run, and tensors made there (resin.zeros, resin.randn) are constants. Ops that draw random
--- numbers and changes in place are errors. A change of resin.set_threads lays the memory out anew at
--- the next run. A plan is used by one thread at a time; a host can run it without Lua
--- (resin_lua_check_plan, resin_plan_run).
function plan.new(model, input, options)
    if not layer.is(model) and type(model) ~= "function" then
        check.fail("nn.plan: expected a model, a layer or a function first, got %s", type(model))
    end
    if options and (options.training or options.gradient) then
        check.fail("nn.plan: a plan neither trains nor records gradients")
    end
    local tensors, run = examples(model, input), runner(model, options)
    -- Layers make their weights at the first call.
    if not (layer.is(model) and model.built) then core.no_grad(run, tensors) end
    return record(run, tensors)
end

return plan
