--- The base of all layers, and of those that users write.
---
--- A layer is an object that is called: on tensors it runs at once, on symbolic nodes (nn.input) it
--- records itself. It builds (makes its parameters) when its first input's shape is known.
---
---   local Block = nn.layer("ResidualBlock")
---
---   function Block:build(input_shape)            -- {56, 56, 64}: without the batch axis
---       self.conv = nn.conv2d{filters = self.filters, kernel = 3, padding = "same"}
---       self.norm = nn.batch_norm{}
---       self.scale = self:parameter("scale", {self.filters}, "ones")
---   end
---
---   function Block:call(x, options)              -- tensors, or symbolic nodes
---       return nn.relu()(self.norm(self.conv(x)) * self.scale + x)
---   end
---
---   local y = Block{filters = 64}(x)             -- options become fields
---
--- `build` may be left out, sub-layers made in `init(options)` instead. Layers assigned to self are
--- found by themselves, also in lists. options.training says which mode runs; sub-layers that are
--- called without options inherit it. A layer that gets a list of inputs sees lists of shapes.
--- Where `call` uses ops that know tensors only, the output's shape is found by running it once on
--- a batch of one zero image; define `output_shape(input_shape)` to avoid that.
---
--- A model runs `call` at every step, so it may do what it likes. `Block.static = true` promises
--- that it always calls the same layers in the same way: a model then runs those in its place, and
--- fuses their convolutions and batch norms.
local core = require "resin.core"
local check = require "resin.nn.check"
local initializers = require "resin.nn.initializers"
local node = require "resin.nn.node"
local shape = require "resin.nn.shape"

local Layer = {class_name = "Layer", default_name = "layer"}

local layer = {Layer = Layer}
local created = 0

-- The last error about shapes at building time.
local shape_error

-- What runs now: {layer, options, path} of the innermost layer made of layers, or nil.
local active

--- Keras' names of types: "ReLU" is re_lu, "MaxPooling2D" is max_pooling2d.
local function snake_case(name)
    name = name:gsub("(.)(%u[%l%d]+)", "%1_%2")
    name = name:gsub("(%l)(%u)", "%1_%2")
    return name:lower()
end

local function is_layer(value)
    local class = type(value) == "table" and getmetatable(value)
    return type(class) == "table" and rawget(class, "_is_layer") == true
end
layer.is = is_layer

local function is_data(value) return node.is(value) or core.is_tensor(value) end

-- Takes data out of what a class was called with: nn.relu(x), nn.add{a, b}, nn.concatenate{a, b,
-- axis = 2}. Returns the data and the options without them.
local function split_data(given)
    if is_data(given) then return given, nil end
    if type(given) ~= "table" or getmetatable(given) or not is_data(given[1]) then
        return nil, given
    end
    local data, options = {}, {}
    for key, value in pairs(given) do
        (math.type(key) == "integer" and data or options)[key] = value
    end
    return data, options
end

-- Options that every layer takes.
local COMMON = {name = true, trainable = true}

local function construct(class, given, ...)
    local data
    data, given = split_data(given)
    created = created + 1
    local self = setmetatable({}, class)
    rawset(self, "_fields", {})    -- names of fields in the order of their assignment
    rawset(self, "_variables", {}) -- parameters and buffers in order
    rawset(self, "_id", created)
    rawset(self, "built", false)
    rawset(self, "trainable", true)
    if type(given) == "table" and not getmetatable(given) then
        if given.name ~= nil and type(given.name) ~= "string" then
            check.fail("%s: name must be a string", class.default_name)
        end
        rawset(self, "name", given.name)
        if given.trainable ~= nil then rawset(self, "trainable", given.trainable) end
    end
    self:init(given, ...)
    if data then return self(data) end
    return self
end

-- Remembers the order of fields, where layers may hide; pairs() has none.
local function assign(self, key, value)
    if type(Layer[key]) == "function" then
        self:fail('"%s" is a method of every layer; call the field otherwise', key)
    end
    if type(key) == "string" then self._fields[#self._fields + 1] = key end
    rawset(self, key, value)
end

--- A new class of layers: Class{options} makes a layer, Class(x) one with default options that is
--- called on x at once, Class{a, b} on a list. `base` is Layer if left out.
function layer.class(type_name, base)
    base = base or Layer
    local class = {
        class_name = type_name, default_name = snake_case(type_name), _is_layer = true,
        __newindex = assign,
        __call = function(self, x, options)
            local run_marked = rawget(self, "_run_marked")
            if not run_marked then return self:run_or_record(x, options) end
            if node.is_symbolic(x) then return node.in_region(self.run_or_record, self, x) end
            return run_marked(self, x, options)
        end,
        __tostring = function(self) return self:label() .. " (" .. self.class_name .. ")" end,
    }
    class.__index = class
    return setmetatable(class, {__index = base, __call = construct})
end

--- The class that users' layers are of: nn.layer("ResidualBlock").
function layer.user_class(type_name)
    if type(type_name) ~= "string" or not type_name:find("^%a[%w_]*$") then
        check.fail('nn.layer: expected the name of a class, as "ResidualBlock", got %s',
            tostring(type_name))
    end
    local class = layer.class(type_name)
    class.composite, class.user = true, true
    return class
end

--- Called with the options at construction. By default options become fields.
function Layer:init(options)
    if type(options) ~= "table" then return end
    local keys = {}
    for key in pairs(options) do
        if type(key) ~= "string" then
            self:fail("options are given by name; define init to take others")
        end
        if not COMMON[key] then keys[#keys + 1] = key end
    end
    table.sort(keys) -- so that layers among the options have an order
    for _, key in ipairs(keys) do self[key] = options[key] end
end

--- Makes parameters and sub-layers. Nothing by default.
function Layer:build() end

--- For layers with options: checks them against Class.options (see check.options) and makes them
--- fields.
function Layer:set_options(given)
    local allowed = {}
    for name, default in pairs(self.options) do allowed[name] = default end
    for name in pairs(COMMON) do allowed[name] = check.optional end
    local what = self.name or self.default_name
    for name, value in pairs(check.options(what, given, allowed, self.first_option)) do
        if not COMMON[name] then rawset(self, name, value) end
    end
end

--- The name to use in errors: its own, the field it was assigned to, or its class's.
function Layer:label()
    return rawget(self, "name") or rawget(self, "_label") or self.default_name
end

--- The label with those of the layers around it: "residual_block/conv1".
function Layer:path()
    if not active then return self:label() end
    return active.layer == self and active.path or active.path .. "/" .. self:label()
end

--- Raises an error that names this layer and points at the user's line.
function Layer:fail(format, ...)
    check.fail("%s", self:path() .. ": " .. format:format(...))
end

---- Parameters ---------------------------------------------------------------------------------

local function variable(self, role, name, sizes, initializer, options)
    for _, other in ipairs(self._variables) do
        if other.name == name then
            self:fail('there is a %s called "%s" already', other.role, name)
        end
    end
    options = options or {}
    local tensor = initializers.make(initializer, sizes, self.dtype or "float32", options.fan_in,
        options.fan_out)
    self._variables[#self._variables + 1] = {
        role = role, name = name, tensor = tensor, layer = self, l1 = options.l1, l2 = options.l2,
    }
    return tensor
end

--- A new trainable tensor. options: l1, l2 (Keras' penalties l1 * sum |w| and l2 * sum w^2),
--- fan_in, fan_out.
function Layer:parameter(name, sizes, initializer, options)
    local tensor = variable(self, "parameter", name, sizes, initializer or "zeros", options)
    return tensor:require_grad(self.trainable)
end

--- A new tensor that is saved but not trained, as running statistics are.
function Layer:buffer(name, sizes, initializer)
    return variable(self, "buffer", name, sizes, initializer or "zeros")
end

local function collect(children, label, value, seen)
    if is_layer(value) then
        if seen[value] then return end
        seen[value] = true
        if not value.name and not value._label then rawset(value, "_label", label) end
        children[#children + 1] = {label, value}
        return
    end
    if type(value) ~= "table" or getmetatable(value) or seen[value] then return end
    seen[value] = true
    for position, item in ipairs(value) do
        collect(children, label .. "/" .. position, item, seen)
    end
    local keys = {}
    for key in pairs(value) do
        if type(key) == "string" then keys[#keys + 1] = key end
    end
    table.sort(keys)
    for _, key in ipairs(keys) do collect(children, label .. "/" .. key, value[key], seen) end
end

--- The layers inside this one: a list of {label, layer} in the order of their assignment.
function Layer:children()
    local children, seen = {}, {[self] = true}
    for _, key in ipairs(self._fields) do collect(children, key, rawget(self, key), seen) end
    return children
end

--- All parameters and buffers inside, named by path: a list of {name, tensor, role, trainable, l1,
--- l2, layer}. Tensors and layers that come twice are listed once.
function Layer:variables(prefix, list, seen, trainable)
    list, seen = list or {}, seen or {}
    trainable = (trainable == nil or trainable) and self.trainable
    if seen[self] then return list end
    seen[self] = true
    for _, own in ipairs(self._variables) do
        if not seen[own.tensor] then
            seen[own.tensor] = true
            list[#list + 1] = {
                name = prefix and prefix .. "/" .. own.name or own.name, tensor = own.tensor,
                role = own.role, trainable = trainable and own.role == "parameter", l1 = own.l1,
                l2 = own.l2, layer = self,
            }
        end
    end
    for _, child in ipairs(self:children()) do
        local label = prefix and prefix .. "/" .. child[1] or child[1]
        child[2]:variables(label, list, seen, trainable)
    end
    return list
end

--- Whether the layer and all inside are trained. Frozen batch norms use their running statistics,
--- as Keras' do.
function Layer:set_trainable(trainable)
    rawset(self, "trainable", trainable)
    for _, own in ipairs(self._variables) do
        if own.role == "parameter" then own.tensor:require_grad(trainable) end
    end
    for _, child in ipairs(self:children()) do child[2]:set_trainable(trainable) end
end

--- The number of parameters inside, running statistics included.
function Layer:count()
    local count = 0
    for _, entry in ipairs(self:variables()) do count = count + entry.tensor:count() end
    return count
end

---- Running ------------------------------------------------------------------------------------

-- Calls f(...) with this layer as the innermost one, so that layers inside know mode and path.
local function inside(self, options, f, ...)
    local outer = active
    active = {layer = self, options = options, path = self:path()}
    local ok, result = pcall(f, ...)
    active = outer
    if not ok then check.again(self:path(), result) end
    return result
end

local builds = 0

local function build(self, input_shape, dtype)
    if self.built then return end
    builds = builds + 1
    if self.dtype == nil then
        rawset(self, "dtype", dtype == "float64" and "float64" or "float32")
    end
    local before = #self._variables
    local ok, message = pcall(inside, self, nil, self.build, self, input_shape)
    if not ok then -- so that it can be tried again with another input
        for position = #self._variables, before + 1, -1 do self._variables[position] = nil end
        error(message, 0)
    end
    self:children() -- gives them their labels
    if not self.trainable then self:set_trainable(false) end
    rawset(self, "built", true)
end

local NO_OPTIONS = {}

-- Runs on tensors.
local function run(self, x, options)
    options = options or active and active.options or NO_OPTIONS
    if not self.built then
        if core.is_tensor(x) then
            build(self, shape.of(x), x:dtype())
        elseif type(x) == "table" and core.is_tensor(x[1]) then
            local shapes = {}
            for position, item in ipairs(x) do shapes[position] = shape.of(item) end
            build(self, shapes, x[1]:dtype())
        else
            self:fail("expected a tensor, a symbolic node or a list of them, got %s", type(x))
        end
    end
    if self.composite then return inside(self, options, self.call, self, x, options) end
    local ok, result = pcall(self.call, self, x, options)
    if not ok then check.again(self:path(), result) end
    return result
end
layer.run = run

---- For nn.checkpoint (nn/recompute.lua) --------------------------------------------------------

--- How many layers have been built.
function layer.builds() return builds end

--- Whether a layer and all inside have been.
function layer.is_built(self)
    if not self.built then return false end
    for _, child in ipairs(self:children()) do
        if not layer.is_built(child[2]) then return false end
    end
    return true
end

--- From now on run(layer, x, options) is called in place of the layer, where x are tensors.
function layer.mark(self, run_marked) rawset(self, "_run_marked", run_marked) end

--- A function that runs a layer on tensors (or calls a function) as it would run here and now, with
--- the mode and the path of the layers around it, whenever it is called.
function layer.runner(self, options)
    local here = active
    options = options or here and here.options or NO_OPTIONS
    return function(x, ...)
        local there, results = active, nil
        active = here
        if is_layer(self) then
            results = table.pack(pcall(self.run_or_record, self, x, options))
        else
            results = table.pack(pcall(self, x, ...))
        end
        active = there
        if not results[1] then error(results[2], 0) end
        return table.unpack(results, 2, results.n)
    end
end

--- Whether tensors run inside of another layer now.
function layer.is_nested() return active ~= nil end

-- Finds the output's shape by running on a batch of one.
local function try_on_zeros(self, inputs, many)
    local tensors = {}
    for position, input in ipairs(inputs) do
        tensors[position] = core.zeros(shape.with_batch(input.sizes, 1), input.dtype_name)
    end
    local result = core.no_grad(run, self, many and tensors or tensors[1], {training = false})
    if not core.is_tensor(result) then self:fail("call returned %s, not a tensor", type(result)) end
    return shape.of(result)
end

local Placeholder -- the class of the inputs of the graph inside a layer

-- Calls a layer made of layers on new symbolic inputs: the graph inside it, {inputs, output}, or
-- nil and the error.
local function trace(self, inputs, many)
    local placeholders = {}
    for position, input in ipairs(inputs) do
        placeholders[position] = node.new(Placeholder{}, {}, shape.copy(input.sizes),
            input.dtype_name)
    end
    local ok, output = pcall(inside, self, {training = false}, self.call, self,
        many and placeholders or placeholders[1], {training = false})
    if not ok then return nil, output end
    if not node.is(output) then return nil, self:path() .. ": call returned no tensor" end
    return {inputs = placeholders, output = output}
end

-- The shape of the output, and the graph inside if there is one.
local function infer(self, inputs, shapes, many)
    if self.output_shape then return self:output_shape(many and shapes or shapes[1]) end
    if not self.composite then return try_on_zeros(self, inputs, many) end
    local inner, symbolic_error = trace(self, inputs, many)
    if inner then return shape.copy(inner.output.sizes), inner end
    -- `call` may use what only tensors can do; if it fails on those, too, it is wrong. A layer that
    -- failed by a shape has said so already.
    if shape_error and symbolic_error == shape_error then error(symbolic_error, 0) end
    return try_on_zeros(self, inputs, many)
end

--- Raises an error about shapes at building time.
function Layer:shape_fail(format, ...)
    local _, message = pcall(self.fail, self, format, ...)
    shape_error = message
    error(message, 0)
end

-- Names a layer as the model will, counting by kind, so that errors can tell it from others.
local function give_label(self, scope)
    if rawget(self, "name") or rawget(self, "_label") or not scope then return end
    local count = scope[self.default_name] or 0
    scope[self.default_name] = count + 1
    rawset(self, "_label", count == 0 and self.default_name or self.default_name .. "_" .. count)
end

-- Records a call on symbolic nodes.
local function record(self, x)
    local many = not node.is(x)
    local inputs = many and x or {x}
    local shapes = {}
    for position, input in ipairs(inputs) do shapes[position] = shape.copy(input.sizes) end
    give_label(self, inputs[1].scope)
    build(self, many and shapes or shapes[1], inputs[1].dtype_name)
    local sizes, inner = infer(self, inputs, shapes, many)
    local dtype = self.output_dtype and self:output_dtype(inputs[1].dtype_name)
        or inputs[1].dtype_name
    local recorded = node.new(self, table.move(inputs, 1, #inputs, 1, {}), sizes, dtype)
    recorded.many, recorded.inner = many, inner
    return recorded
end

--- layer(x[, options]): x is a tensor, a symbolic node, or a list of either.
function Layer:run_or_record(x, options)
    if node.is_symbolic(x) then return record(self, x) end
    return run(self, x, options)
end

Placeholder = layer.class("Placeholder")

return layer
