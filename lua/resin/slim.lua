--- slim: networks in TF-slim's way of writing. Layers are functions that name and make their
--- variables, arg_scope sets their arguments, variable_scope shares them.
---
---   local function small(x)
---       return slim.arg_scope({slim.conv2d, slim.fully_connected}, {
---           weights_regularizer = slim.l2_regularizer(0.0005),
---       }, function()
---           local net = slim.repeat_(x, 2, slim.conv2d, 16, {3, 3}, {scope = "conv1"})
---           net = slim.max_pool2d(net, {2, 2}, {scope = "pool1"})
---           net = slim.dropout(slim.fully_connected(net, 64, {scope = "fc2"}), 0.5)
---           return slim.fully_connected(net, 10, {activation_fn = false, scope = "fc3"})
---       end)
---   end
---
--- As a graph, it is a model that is trained, saved and summarized like any other:
---
---   local x = nn.input{32, 32, 3}
---   local model = nn.model(x, small(x))
---
--- On tensors it runs at once. The variables are kept, by name; they are there after a first call,
--- and the optimizer is made then, before the losses it is to lower:
---
---   local function net(x)
---       return slim.variable_scope("small", {reuse = "auto"}, function() return small(x) end)
---   end
---   net(images)
---   local optimizer = optim.adam{slim.get_trainable_variables()}
---   slim.losses.softmax_cross_entropy(net(images), slim.one_hot(labels, 10))
---   slim.losses.get_total_loss():backward()
---   optimizer:step()
---   optimizer:clear_grads()
---
--- Where what is:
---   slim/layers.lua        conv2d, max_pool2d, fully_connected, dropout, batch_norm ...
---   slim/combine.lua       repeat_, stack
---   slim/arguments.lua     arg_scope, add_arg_scope; how arguments are given
---   slim/scopes.lua        variable_scope, reuse
---   slim/variables.lua     variable, get_variables ...
---   slim/collections.lua   collections, end points
---   slim/initializers.lua  slim/regularizers.lua  slim/losses.lua
---   slim/vgg.lua           slim/resnet.lua: slim.nets
---   slim/state.lua         what is remembered between calls; reset, in_new_graph
local arguments = require "resin.slim.arguments"
local collections = require "resin.slim.collections"
local combine = require "resin.slim.combine"
local regularizers = require "resin.slim.regularizers"
local resnet = require "resin.slim.resnet"
local scopes = require "resin.slim.scopes"
local state = require "resin.slim.state"
local variables = require "resin.slim.variables"
local vgg = require "resin.slim.vgg"

local slim = {
    arg_scope = arguments.arg_scope,
    add_arg_scope = arguments.layer,
    current_arg_scope = arguments.current,
    has_arg_scope = arguments.has_arg_scope,
    variable_scope = scopes.variable_scope,
    get_variable_scope = scopes.current,
    repeat_ = combine.repeat_,
    ["repeat"] = combine.repeat_,
    stack = combine.stack,
    reset = state.reset,
    in_new_graph = state.in_new_graph,
    get_collection = collections.get,
    end_points = collections.end_points,
    utils = {convert_collection_to_dict = collections.convert_collection_to_dict},
    losses = require "resin.slim.losses",
    nets = {
        vgg = vgg, resnet_v1 = resnet.resnet_v1, resnet_v2 = resnet.resnet_v2,
        resnet_utils = resnet.resnet_utils,
    },
}

for name, f in pairs(require "resin.slim.layers") do
    if arguments.has_arg_scope(f) then slim[name] = f end
end
for name, f in pairs(require "resin.slim.initializers") do slim[name] = f end
for _, name in ipairs{"variable", "model_variable", "get_variables", "get_model_variables",
    "get_trainable_variables", "get_variables_by_name", "get_unique_variable"} do
    slim[name] = variables[name]
end
for _, name in ipairs{"l1_regularizer", "l2_regularizer", "l1_l2_regularizer",
    "sum_regularizer"} do
    slim[name] = regularizers[name]
end
-- The networks without their family's name, too: slim.nets.vgg_16.
for _, family in ipairs{vgg, resnet.resnet_v1, resnet.resnet_v2} do
    for name, make in pairs(family) do
        if name:find("_%d+$") or name == "vgg_a" then slim.nets[name] = make end
    end
end

return slim
