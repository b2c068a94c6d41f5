--- The graph of a model as one list of steps, layers made of layers opened: what export, pictures
--- and costs walk along.
local graph = require "resin.nn.graph"

local unfold = {}

-- Names for the layers inside of another: what the fields are called that they were assigned to;
-- those that `call` makes anew each time are counted by kind.
local function inner_names(outer, layers)
    local names, counts = {}, {}
    for _, child in ipairs(outer:children()) do names[child[2]] = child[1] end
    for _, one in ipairs(layers) do
        if not names[one] then
            local kind = one.default_name
            local count = counts[kind] or 0
            names[one], counts[kind] = count == 0 and kind or kind .. "_" .. count, count + 1
        end
    end
    return names
end

local function add_steps(steps, value_of, nodes, names, prefix, opens)
    for _, one in ipairs(nodes) do
        if not value_of[one] then
            local name, inputs = prefix .. names[one.layer], {}
            for position, input in ipairs(one.inputs) do inputs[position] = value_of[input] end
            if one.inner and opens(one) then
                for position, placeholder in ipairs(one.inner.inputs) do
                    value_of[placeholder] = inputs[position]
                end
                local inner = graph.nodes{one.inner.output}
                add_steps(steps, value_of, inner, inner_names(one.layer, graph.layers(inner)),
                    name .. "/", opens)
                value_of[one] = value_of[one.inner.output]
            else
                local step = {
                    layer = one.layer, name = name, inputs = inputs, many = one.many,
                    sizes = one.sizes, dtype = one.dtype_name,
                }
                steps[#steps + 1], value_of[one] = step, step
            end
        end
    end
end

--- The steps of a model in the order in which they run, those of the inputs among them: a list of
--- {layer, name (as "block/conv1"), inputs (steps), many (whether the layer takes a list), sizes
--- (of the output, without the batch axis), dtype}. A layer made of layers whose graph is known is
--- replaced by what is inside if opens(node) is true. Also returns the steps of the inputs and of
--- the outputs in the model's order.
function unfold.steps(model, opens)
    local steps, value_of, inputs, outputs = {}, {}, {}, {}
    add_steps(steps, value_of, model.nodes, model.names, "", opens)
    for position, one in ipairs(model.inputs) do inputs[position] = value_of[one] end
    for position, one in ipairs(model.outputs) do outputs[position] = value_of[one] end
    return steps, inputs, outputs
end

return unfold
