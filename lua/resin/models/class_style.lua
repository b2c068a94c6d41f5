--- A network of blocks that are a layer class of their own, and a plain stack.
local check = require "resin.nn.check"
local nn = require "resin.nn"
local parts = require "resin.models.parts"

local class_style = {}

local function activation(kind) return kind == "relu" and nn.relu() or nn.activation(kind) end

---- ResidualBlock --------------------------------------------------------------------------------

--- ResidualBlock{filters, kernel = 3, stride = 1, projection = false}: a layer; the shortcut is the
--- input as it is, or a 1x1 convolution with the stride. Also activation = "relu", l1, l2.
local ResidualBlock = nn.layer("ResidualBlock")
ResidualBlock.static = true -- `call` is the same at every step, so its layers may be fused
ResidualBlock.first_option = "filters"
ResidualBlock.options = {
    filters = check.required, kernel = 3, stride = 1, projection = false, activation = "relu",
    l1 = check.optional, l2 = check.optional,
}

function ResidualBlock:init(options) self:set_options(options) end

function ResidualBlock:build()
    local function conv(kernel, stride)
        return nn.conv2d{
            self.filters, kernel = kernel, stride = stride, padding = "same", l1 = self.l1,
            l2 = self.l2,
        }
    end
    self.conv1, self.norm1 = conv(self.kernel, self.stride), nn.batch_norm()
    self.conv2, self.norm2 = conv(self.kernel, 1), nn.batch_norm()
    if self.projection then self.shortcut = conv(1, self.stride) end
    self.relu = activation(self.activation)
end

function ResidualBlock:call(x)
    local y = self.relu(self.norm1(self.conv1(x)))
    y = self.norm2(self.conv2(y))
    return self.relu(y + (self.shortcut and self.shortcut(x) or x))
end

---- ResNet ---------------------------------------------------------------------------------------

--- ResNet{blocks = 20, filters = 64, kernel = 3, stride = 2, ...}: a layer of a stem with the
--- stride, the blocks, and a dense layer whose softmax acts on the last axis of the image.
---
---   filters       64, or a list with a number for each block
---   block_stride  1: of every block      projection  false: a 1x1 convolution in every shortcut
---   classes       10                     pooling     "none", "avg" or "max" before the dense layer
---   softmax       true                   activation, dropout (before the dense layer), l1, l2
---
--- As usually printed block_stride is 2 and projection false: the sum has two shapes then, and
--- building fails.
local ResNet = nn.layer("ResNet")
ResNet.static = true
ResNet.options = {
    blocks = 20, filters = 64, kernel = 3, stride = 2, block_stride = 1, projection = false,
    classes = 10, pooling = "none", softmax = true, activation = "relu", dropout = 0,
    l1 = check.optional, l2 = check.optional,
}

local POOLS = {none = false, avg = nn.global_avg_pool, max = nn.global_max_pool}

function ResNet:init(options)
    self:set_options(options)
    check.integer(self:label(), "blocks", self.blocks, 1)
    rawset(self, "filters", parts.list(self:label(), "filters", self.filters, self.blocks))
    if POOLS[self.pooling] == nil then
        self:fail('pooling must be "none", "avg" or "max", got %s', tostring(self.pooling))
    end
end

function ResNet:build()
    self.stem = nn.conv2d{
        self.filters[1], kernel = self.kernel, stride = self.stride, padding = "same",
        l1 = self.l1, l2 = self.l2,
    }
    self.norm, self.relu, self.residual_blocks = nn.batch_norm(), activation(self.activation), {}
    for position, filters in ipairs(self.filters) do
        self.residual_blocks[position] = ResidualBlock{
            filters = filters, kernel = self.kernel, stride = self.block_stride,
            projection = self.projection, activation = self.activation, l1 = self.l1, l2 = self.l2,
        }
    end
    if POOLS[self.pooling] then self.pool = POOLS[self.pooling]() end
    if self.dropout ~= 0 then self.drop = nn.dropout(self.dropout) end
    self.classify = nn.dense{
        self.classes, activation = self.softmax and "softmax" or nil, l1 = self.l1, l2 = self.l2,
    }
end

function ResNet:call(x)
    local y = self.relu(self.norm(self.stem(x)))
    for _, block in ipairs(self.residual_blocks) do y = block(y) end
    if self.pool then y = self.pool(y) end
    if self.drop then y = self.drop(y) end
    return self.classify(y)
end

class_style.ResidualBlock, class_style.ResNet = ResidualBlock, ResNet

--- class_resnet{input = {224, 224, 3}, ...}: a model of a ResNet's layers, each with its own row in
--- the summary. The other options are those of ResNet.
function class_style.class_resnet(options)
    local given, input = {name = "class_resnet"}, {224, 224, 3}
    for name, value in pairs(options or {}) do
        if name == "input" then input = value else given[name] = value end
    end
    local net = ResNet(given)
    net:build()
    local x = nn.input(input)
    return nn.model(x, net:call(x))
end

---- The plain stack ------------------------------------------------------------------------------

--- plain_cnn{input = {180, 180, 3}, classes = 5}: three times convolution and pooling, then dense
--- layers, on bytes. The output is logits. What one may change:
---
---   blocks   3: convolutions with their pools      filters     32, or a list of them
---   kernel   3                                     activation  "relu"
---   units    128: of the first dense layer         dropout     0: in front of the last one
---   l1, l2   penalties of the weights
function class_style.plain_cnn(options)
    options = check.options("plain_cnn", options, {
        input = {180, 180, 3}, classes = 5, blocks = 3, filters = 32, kernel = 3, units = 128,
        activation = "relu", dropout = 0, l1 = check.optional, l2 = check.optional,
    })
    local blocks = check.integer("plain_cnn", "blocks", options.blocks, 1)
    local layers = {nn.input(options.input), nn.rescale(1 / 255)}
    local function add(layer) layers[#layers + 1] = layer end
    for _, filters in ipairs(parts.list("plain_cnn", "filters", options.filters, blocks)) do
        add(nn.conv2d{
            filters, kernel = options.kernel, activation = options.activation, l1 = options.l1,
            l2 = options.l2,
        })
        add(nn.max_pool2d())
    end
    add(nn.flatten())
    add(nn.dense{
        options.units, activation = options.activation, l1 = options.l1, l2 = options.l2,
    })
    if options.dropout ~= 0 then add(nn.dropout(options.dropout)) end
    add(nn.dense{options.classes, l1 = options.l1, l2 = options.l2})
    return nn.sequential(layers)
end

return class_style
