--- What a network costs: the multiply-adds of its convolutions and dense layers, counted directly
--- (whatever method computes them). Everything else is small beside them.
local graph = require "resin.nn.graph"
local shape = require "resin.nn.shape"

local cost = {}

-- How many positions each weight of a layer meets, by the kind of layer.
local positions = {
    Conv2D = function(input, output) return output[1] * output[2] end,
    Conv2DTranspose = function(input) return input[1] * input[2] end,
    Dense = function(input) return shape.count(input) // input[#input] end,
}
positions.ConvBnAct = positions.Conv2D

local function of_nodes(nodes)
    local total = 0
    for _, one in ipairs(nodes) do
        local count = positions[one.layer.class_name]
        if count then
            total = total + one.layer.weights:count() * count(one.inputs[1].sizes, one.sizes)
        elseif one.inner then
            total = total + of_nodes(graph.nodes{one.inner.output})
        end
    end
    return total
end

--- The multiply-adds for one image to go forward through a model; a training step costs three times
--- as many.
function cost.multiply_adds(model) return of_nodes(model.nodes) end

return cost
