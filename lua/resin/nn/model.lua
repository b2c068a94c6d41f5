--- nn.model: a graph of layers with its parameters by name; nn.sequential: a chain of layers.
local core = require "resin.core"
local check = require "resin.nn.check"
local execution = require "resin.nn.execution"
local graph = require "resin.nn.graph"
local layer = require "resin.nn.layer"
local node = require "resin.nn.node"
local serialization = require "resin.nn.serialization"
local shape = require "resin.nn.shape"
local summary = require "resin.nn.summary"

---- Building -----------------------------------------------------------------------------------

local Model = layer.class("Functional")
Model.default_name = "model"
Model.composite, Model.static = true, true

local function node_list(given, what)
    local list = node.is(given) and {given} or given
    if type(list) ~= "table" or #list == 0 then
        check.fail("nn.model: %s must be a symbolic tensor (from nn.input) or a list of them", what)
    end
    for _, one in ipairs(list) do
        if not node.is(one) then
            check.fail("nn.model: %s must be symbolic tensors (from nn.input), got %s", what,
                core.is_tensor(one) and "a tensor" or type(one))
        end
    end
    return list
end

-- Every input that the outputs depend on must be given.
local function check_inputs(nodes, inputs)
    local given = {}
    for _, one in ipairs(inputs) do
        if getmetatable(one.layer) ~= graph.InputLayer then
            check.fail("nn.model: inputs must come from nn.input, got the output of %s",
                one.layer:label())
        end
        given[one] = true
    end
    for _, one in ipairs(nodes) do
        if #one.inputs == 0 and not given[one] then
            check.fail("nn.model: the output depends on an input %s that is not among the inputs",
                shape.text(one.sizes))
        end
    end
end

function Model:init(given)
    local set = function(name, value) rawset(self, name, value) end
    set("inputs", node_list(given.inputs, "the inputs"))
    set("outputs", node_list(given.outputs, "the outputs"))
    set("many_outputs", not node.is(given.outputs))
    set("nodes", graph.nodes(self.outputs))
    check_inputs(self.nodes, self.inputs)
    set("layers", graph.layers(self.nodes))
    set("names", graph.names(self.layers, self:label()))
    for _, one in ipairs(self.layers) do
        if not rawget(one, "name") then rawset(one, "_label", self.names[one]) end
    end
    set("plan", execution.plan(self.inputs, self.outputs, self.nodes, {fuse = given.fuse}))
    if execution.has_regions(self.nodes) then
        set("recording_plan", execution.plan(self.inputs, self.outputs, self.nodes,
            {fuse = given.fuse, recompute = true}))
    end
    set("built", true)
    if not self.trainable then self:set_trainable(false) end
end

--- nn.model(inputs, outputs[, {name =, fuse = true}]): the graph between symbolic tensors (or lists
--- of them). model(x) infers without recording; model(x, {training = true}) trains: batch norm and
--- dropout in their training mode, gradients recorded. Other options of a call: gradient = true
--- records in inference; logits = true leaves out a softmax or sigmoid that ends the network.
local function make_model(inputs, outputs, options)
    options = options or {}
    for name in pairs(options) do
        if name ~= "name" and name ~= "fuse" and name ~= "trainable" then
            check.fail('nn.model: unknown option "%s"; it takes fuse, name, trainable',
                tostring(name))
        end
    end
    return Model{
        inputs = inputs, outputs = outputs, name = options.name, fuse = options.fuse,
        trainable = options.trainable,
    }
end

---- Running ------------------------------------------------------------------------------------

-- The tensors for the inputs, checked; integers become what the input was declared as.
local function prepare(self, x)
    local tensors = core.is_tensor(x) and {x} or x
    if type(tensors) ~= "table" or #tensors ~= #self.inputs then
        self:fail("expected %d input%s, got %s", #self.inputs, #self.inputs > 1 and "s" or "",
            type(tensors) == "table" and #tensors or type(tensors))
    end
    local prepared, owned = {}, {}
    for position, input in ipairs(self.inputs) do
        local tensor = tensors[position]
        if not core.is_tensor(tensor) then
            self:fail("input %d must be a tensor, got %s", position, type(tensor))
        end
        if tensor:rank() == 0 or not shape.equal(shape.of(tensor), input.sizes) then
            self:fail("%s expected %s, got %s", self.names[input.layer], shape.text(input.sizes),
                shape.tensor_text(tensor))
        end
        local dtype, wanted = tensor:dtype(), input.dtype_name
        if dtype ~= wanted and not dtype:find("float") and wanted:find("float") then
            tensor, owned[position] = core.cast(tensor, {dtype = wanted}), true
        elseif dtype ~= wanted then
            self:fail("%s expected %s, got %s", self.names[input.layer], wanted, dtype)
        end
        prepared[position] = tensor
    end
    return prepared, owned
end

-- Calls the layers again on other symbolic inputs: a model is a layer, too.
local function record_again(self, x)
    local given = node.is(x) and {x} or x
    local value_of = {}
    for position, input in ipairs(self.inputs) do
        if not given[position] or not shape.equal(given[position].sizes, input.sizes) then
            self:shape_fail("expected %s, got %s", shape.text(input.sizes),
                given[position] and shape.text(given[position].sizes) or "nothing")
        end
        value_of[input] = given[position]
    end
    for _, one in ipairs(self.nodes) do
        if not value_of[one] then
            local inputs = {}
            for position, input in ipairs(one.inputs) do inputs[position] = value_of[input] end
            value_of[one] = one.layer(one.many and inputs or inputs[1])
        end
    end
    if self.many_outputs then self:fail("a model with several outputs cannot stand in a graph") end
    return value_of[self.outputs[1]]
end

--- How it runs now: with checkpointed blocks (nn.checkpoint) by another plan when a graph is
--- recorded.
function Model:plan_now()
    return core.recording() and rawget(self, "recording_plan") or self.plan
end

function Model:call(x, options)
    if node.is_symbolic(x) then return record_again(self, x) end
    local tensors, owned = prepare(self, x)
    local results = execution.run(self:plan_now(), tensors, options, owned)
    return self.many_outputs and results or results[1]
end

function Model:run_or_record(x, options)
    local base = layer.Layer.run_or_record
    if layer.is_nested() or node.is_symbolic(x) then return base(self, x, options) end
    if options and (options.training or options.gradient) then return base(self, x, options) end
    return core.no_grad(base, self, x, options)
end

---- Looking inside -----------------------------------------------------------------------------

function Model:children()
    local children = {}
    for _, one in ipairs(self.layers) do
        if getmetatable(one) ~= graph.InputLayer then
            children[#children + 1] = {self.names[one], one}
        end
    end
    return children
end

--- The layer with a name; an error if there is none.
function Model:get_layer(name)
    for _, child in ipairs(self:children()) do
        if child[1] == name then return child[2] end
    end
    self:fail('there is no layer called "%s"', tostring(name))
end

-- Iterates over the entries of one role as (name, tensor, entry).
local function each(self, role)
    local entries, position = self:variables(), 0
    return function()
        repeat position = position + 1 until not entries[position] or entries[position].role == role
        local entry = entries[position]
        if entry then return entry.name, entry.tensor, entry end
    end
end

--- for name, tensor, entry in model:named_parameters() do: the trainable tensors in order, as
--- "conv2d_1/weights"; entry has trainable, l1, l2 and layer. Tied ones come once.
function Model:named_parameters() return each(self, "parameter") end

--- Likewise the running statistics and other tensors that are not trained.
function Model:named_buffers() return each(self, "buffer") end

--- The parameters as a list of tensors.
function Model:parameters()
    local list = {}
    for _, tensor in self:named_parameters() do list[#list + 1] = tensor end
    return list
end

--- Numbers of values: total, trainable, and not trainable (running statistics, frozen layers).
function Model:count()
    local trainable, rest = 0, 0
    for _, entry in ipairs(self:variables()) do
        local count = entry.tensor:count()
        if entry.trainable then trainable = trainable + count else rest = rest + count end
    end
    return trainable + rest, trainable, rest
end

--- The flat buffer of all parameters and gradients (resin.optim.parameters), made at first use,
--- with the layers' penalties and what is frozen now.
function Model:flat_parameters()
    local flat = rawget(self, "_flat")
    if not flat then
        flat = core.parameters(self:parameters())
        for _, tensor, entry in self:named_parameters() do
            flat:set(tensor, {l1 = entry.l1 or 0, l2 = entry.l2 or 0})
        end
        rawset(self, "_flat", flat)
    end
    for _, tensor, entry in self:named_parameters() do
        flat:set(tensor, {frozen = not entry.trainable})
    end
    return flat
end

--- What the layers' l1 and l2 penalties add to the loss, as a number.
function Model:penalty() return self:flat_parameters():penalty() end

-- Visits the layers inside of `parent` whose paths match, outer ones first; how many there were.
local function set_inside(parent, prefix, pattern, trainable)
    local count = 0
    for _, child in ipairs(parent:children()) do
        local path = prefix .. child[1]
        if not pattern or path:find(pattern) then
            child[2]:set_trainable(trainable)
            count = count + 1
        else
            count = count + set_inside(child[2], path .. "/", pattern, trainable)
        end
    end
    return count
end

local function set_matching(self, what, pattern, trainable)
    local count = set_inside(self, "", pattern, trainable)
    if count == 0 then
        local names, children = {}, self:children()
        for position = 1, math.min(#children, 12) do names[position] = children[position][1] end
        self:fail('%s: no layer has a name that matches "%s"; there are %s%s', what, pattern,
            table.concat(names, ", "), #children > #names and ", ..." or "")
    end
    if rawget(self, "_flat") then self:flat_parameters() end
    return count
end

--- Freezes the layers whose names match a Lua pattern, all of them without one, and returns how
--- many; none is an error. A layer inside of another is called "block/conv". Frozen parameters have
--- no gradient; frozen batch norms use their running statistics.
function Model:freeze(pattern) return set_matching(self, "freeze", pattern, false) end

--- Lets them train again.
function Model:unfreeze(pattern) return set_matching(self, "unfreeze", pattern, true) end

Model.summary = summary.print
Model.save = serialization.save
Model.load = serialization.load

--- model:fit(data, options), model:evaluate(data, options), model:predict(data, options): those of
--- resin.train.
for _, name in ipairs{"fit", "evaluate", "predict"} do
    Model[name] = function(self, ...) return require("resin.train")[name](self, ...) end
end

--- model:cost{...}, model:draw(path), model:export_onnx(path): nn/cost.lua, nn/draw.lua, onnx.lua.
function Model:cost(...) return require("resin.nn.cost").cost(self, ...) end
function Model:draw(...) return require("resin.nn.draw").draw(self, ...) end
function Model:export_onnx(...) return require("resin.onnx").export(self, ...) end

---- Sequential ---------------------------------------------------------------------------------

local Sequential = layer.class("Sequential")
Sequential.composite, Sequential.static = true, true

local function check_layers(list)
    for position, item in ipairs(list) do
        if not layer.is(item) then
            check.fail("nn.sequential: item %d is no layer but a %s%s", position,
                type(item), type(item) == "table" and " (a class is called first: nn.relu())" or "")
        end
    end
end

function Sequential:init(given)
    check_layers(given.layers)
    rawset(self, "layers", given.layers)
    rawset(self, "names", graph.names(given.layers, self:label()))
    for _, one in ipairs(given.layers) do
        if not rawget(one, "_label") then rawset(one, "_label", self.names[one]) end
    end
end

function Sequential:children()
    local children = {}
    for position, one in ipairs(self.layers) do children[position] = {self.names[one], one} end
    return children
end

function Sequential:call(x, options)
    for _, one in ipairs(self.layers) do x = one(x, options) end
    return x
end

--- nn.sequential{layer, layer, ..., name =}: layers called one after the other. With nn.input{...}
--- as first item, or input = {180, 180, 3}, it is a model at once, else a layer.
local function make_sequential(given)
    if type(given) ~= "table" then check.fail("nn.sequential: expected a list of layers") end
    local list = table.move(given, 1, #given, 1, {})
    local x = node.is(list[1]) and table.remove(list, 1) or given.input and graph.input(given.input)
    for key in pairs(given) do
        if math.type(key) == nil and key ~= "name" and key ~= "input" and key ~= "trainable" then
            check.fail('nn.sequential: unknown option "%s"; it takes input, name, trainable',
                tostring(key))
        end
    end
    if not x then
        return Sequential{layers = list, name = given.name, trainable = given.trainable}
    end
    check_layers(list)
    local y = x
    for _, one in ipairs(list) do y = one(y) end
    local model = make_model(x, y, {name = given.name or "sequential", trainable = given.trainable})
    rawset(model, "is_sequential", true)
    return model
end

return {Model = Model, model = make_model, sequential = make_sequential}
