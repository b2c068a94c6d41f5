--- nn: layers, symbolic inputs and models.
---
---   local x = nn.input{32, 32, 3}
---   local y = nn.conv2d{filters = 16, kernel = 3, padding = "same"}(x)
---   y = nn.relu()(nn.batch_norm()(y))
---   y = nn.dense{10, activation = "softmax"}(nn.global_avg_pool()(y))
---   local model = nn.model(x, y)
---   model:summary()
---
--- A layer works on symbolic tensors (it records itself) and on tensors (it runs). Where what is:
---   nn/graph.lua           nn.input; order, depths and names of a graph
---   nn/model.lua           nn.model, nn.sequential: parameters, freezing, running
---   nn/summary.lua         model:summary{}: Keras' table
---   nn/serialization.lua   model:save, model:load
---   nn/naming.lua          what files of PyTorch and Keras call the tensors
---   nn/layer.lua           the base class, and nn.layer for layers of your own
---   nn/conv.lua            conv2d, conv2d_transpose, zero_pad2d
---   nn/norm.lua            batch_norm, conv_bn_act
---   nn/pool.lua            max_pool2d, avg_pool2d, adaptive_avg_pool2d, global_avg_pool,
---                          global_max_pool
---   nn/dense.lua           dense, flatten, reshape, dropout, rescale
---   nn/merge.lua           add, multiply, concatenate, identity_shortcut
---   nn/activations.lua     activation, relu, elu, softmax ...
---   nn/func.lua            func: a function as a layer
---   nn/initializers.lua    first values of weights
---   nn/fusion.lua          conv -> batch norm -> (+ shortcut) -> relu as one op
---   nn/execution.lua       how a model runs
---   nn/plan.lua            plan: a network recorded to be run with no Lua and no allocation
---   nn/recompute.lua       checkpoint: blocks that backward computes again
---   nn/unfold.lua          a graph as one list of steps, for the three below
---   nn/cost.lua            model:cost{}: multiply-adds, parameters, activations by layer
---   nn/draw.lua            model:draw(path): a picture; nn/draw_layout.lua: what lies where in it
---   resin/onnx.lua         model:export_onnx(path)
local graph = require "resin.nn.graph"
local layer = require "resin.nn.layer"
local model = require "resin.nn.model"
local node = require "resin.nn.node"
local plan = require "resin.nn.plan"

local nn = {
    input = graph.input,
    model = model.model,
    sequential = model.sequential,
    plan = plan.new,
    layer = layer.user_class,
    is_layer = layer.is,
    is_symbolic = node.is,
    checkpoint = require("resin.nn.recompute").checkpoint,
    initializers = require "resin.nn.initializers",
}

for _, subject in ipairs{"activations", "conv", "dense", "func", "merge", "norm", "pool"} do
    for name, class in pairs(require("resin.nn." .. subject).layers) do nn[name] = class end
end

return nn
