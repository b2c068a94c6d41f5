--- Layers that join: nn.add{a, b}, nn.multiply{a, b}, nn.concatenate{a, b}; `a + b` and `a * b` on
--- symbolic nodes; and the shortcut without weights of He et al. 2015.
local core = require "resin.core"
local check = require "resin.nn.check"
local layer = require "resin.nn.layer"
local node = require "resin.nn.node"
local shape = require "resin.nn.shape"

local function check_many(self, input_shapes)
    if type(input_shapes[1]) ~= "table" or #input_shapes < 2 then
        self:shape_fail("expected a list of at least two inputs")
    end
end

---- Add and Multiply ---------------------------------------------------------------------------

--- nn.add{a, b, ...}: the sum of tensors of one shape. Alone, nn.add() is a layer that takes a
--- list.
local Add = layer.class("Add")
Add.options = {}

function Add:init(options) self:set_options(options) end

function Add:output_shape(input_shapes)
    check_many(self, input_shapes)
    for position = 2, #input_shapes do
        if not shape.equal(input_shapes[1], input_shapes[position]) then
            self:shape_fail("the sum has two shapes, %s and %s", shape.text(input_shapes[1]),
                shape.text(input_shapes[position]))
        end
    end
    return shape.copy(input_shapes[1])
end

-- What joining a to b, then to c ... gives; the results between are released.
local function fold(f, tensors)
    local result = f(tensors[1], tensors[2])
    for position = 3, #tensors do
        local sum = result
        result = f(sum, tensors[position])
        sum:release()
    end
    return result
end

function Add:call(tensors)
    for position = 2, #tensors do
        local one, other = shape.of(tensors[1]), shape.of(tensors[position])
        if not shape.equal(one, other) then
            self:fail("the sum has two shapes, %s and %s", shape.text(one), shape.text(other))
        end
    end
    return fold(core.add, tensors)
end

--- nn.multiply{a, b, ...}: the product, with broadcasting: (N, H, W, C) times (N, 1, 1, C).
local Multiply = layer.class("Multiply")
Multiply.options = {}

function Multiply:init(options) self:set_options(options) end

function Multiply:output_shape(input_shapes)
    check_many(self, input_shapes)
    local result = input_shapes[1]
    for position = 2, #input_shapes do
        local common = #result == #input_shapes[position]
            and shape.broadcast(result, input_shapes[position])
        if not common then
            self:shape_fail("shapes %s and %s do not fit", shape.text(result),
                shape.text(input_shapes[position]))
        end
        result = common
    end
    return shape.copy(result)
end

function Multiply:call(tensors) return fold(core.multiply, tensors) end

---- Concatenate --------------------------------------------------------------------------------

--- nn.concatenate{a, b, ..., axis = -1}: along an axis of the tensors: 1 is the batch, -1 the
--- channels.
local Concatenate = layer.class("Concatenate")
Concatenate.first_option = "axis"
Concatenate.options = {axis = -1}

function Concatenate:init(options)
    self:set_options(options)
    if math.type(self.axis) ~= "integer" or self.axis == 0 or self.axis == 1 then
        check.fail("%s: axis must be -1, -2 ... or 2, 3 ... (1 is the batch), got %s", self:label(),
            tostring(self.axis))
    end
end

function Concatenate:output_shape(input_shapes)
    check_many(self, input_shapes)
    local first = input_shapes[1]
    local result = shape.copy(first)
    local axis = self.axis < 0 and #first + 1 + self.axis or self.axis - 1
    if axis < 1 or axis > #first then
        self:shape_fail("%s has no axis %d", shape.text(first), self.axis)
    end
    for position = 2, #input_shapes do
        local other = input_shapes[position]
        local rest = shape.copy(other)
        rest[axis] = first[axis]
        if not shape.equal(first, rest) then
            self:shape_fail("shapes %s and %s differ elsewhere than in axis %d", shape.text(first),
                shape.text(other), self.axis)
        end
        result[axis] = result[axis] + other[axis]
    end
    return result
end

function Concatenate:call(tensors) return core.concatenate(tensors, {axis = self.axis}) end

---- The shortcut without weights ---------------------------------------------------------------

--- nn.identity_shortcut{filters, stride = 1}: every stride-th pixel, and zeros for the channels
--- that are missing, half of them in front (the odd one behind): option A of He et al. 2015,
--- section 4.2.
local IdentityShortcut = layer.class("IdentityShortcut")
IdentityShortcut.first_option = "filters"
IdentityShortcut.options = {filters = check.required, stride = 1}

function IdentityShortcut:init(options)
    self:set_options(options)
    check.integer(self:label(), "filters", self.filters, 1)
    check.integer(self:label(), "stride", self.stride, 1)
end

function IdentityShortcut:output_shape(input_shape)
    if #input_shape ~= 3 or input_shape[3] > self.filters then
        self:shape_fail("expected (N, H, W, C) with at most %d channels, got %s", self.filters,
            shape.text(input_shape))
    end
    local function strided(size) return (size + self.stride - 1) // self.stride end
    return {strided(input_shape[1]), strided(input_shape[2]), self.filters}
end

function IdentityShortcut:call(x)
    local extra, strided = self.filters - x:size(4), nil
    if self.stride > 1 then
        local rows, columns = {1, x:size(2), self.stride}, {1, x:size(3), self.stride}
        strided = x[{{}, rows, columns, {}}]
    end
    if extra == 0 then return strided or x end
    local view <close> = strided
    local front = extra // 2
    return core.pad(view or x, {before = {0, 0, 0, front}, after = {0, 0, 0, extra - front}})
end

---- Operators on symbolic nodes ----------------------------------------------------------------

local function operator(class, name)
    return function(a, b)
        if type(a) == "number" then a, b = b, a end
        if type(b) == "number" then return node.with_number[name](a, b) end
        return class{}({a, b})
    end
end

node.Node.__add = operator(Add, "add")
node.Node.__mul = operator(Multiply, "multiply")

return {
    layers = {
        add = Add, multiply = Multiply, concatenate = Concatenate,
        identity_shortcut = IdentityShortcut,
    },
}
