--- A network of blocks that are a layer class of their own, and a plain stack.
local check = require "resin.nn.check"
local nn = require "resin.nn"

local class_style = {}

--- ResidualBlock{filters, kernel, stride, projection}: the shortcut is the input as it is, or a 1x1
--- convolution with the stride.
local ResidualBlock = nn.layer("ResidualBlock")
ResidualBlock.static = true -- `call` is the same at every step, so its layers may be fused

function ResidualBlock:build()
    local function conv(kernel, stride)
        return nn.conv2d{self.filters, kernel = kernel, stride = stride, padding = "same"}
    end
    self.conv1, self.norm1 = conv(self.kernel, self.stride), nn.batch_norm()
    self.conv2, self.norm2 = conv(self.kernel, 1), nn.batch_norm()
    if self.projection then self.shortcut = conv(1, self.stride) end
    self.relu = nn.relu()
end

function ResidualBlock:call(x)
    local y = self.relu(self.norm1(self.conv1(x)))
    y = self.norm2(self.conv2(y))
    return self.relu(y + (self.shortcut and self.shortcut(x) or x))
end

--- class_resnet{blocks = 20, filters = 64, kernel = 3, stride = 2, block_stride = 1, projection =
--- false, classes = 10, input = {224, 224, 3}}: stem with the stride, blocks, and a softmax that
--- acts on the last axis of the image. As usually printed block_stride is 2 and projection false:
--- the sum has two shapes then, and building fails.
function class_style.class_resnet(options)
    options = check.options("class_resnet", options, {
        blocks = 20, filters = 64, kernel = 3, stride = 2, block_stride = 1, projection = false,
        classes = 10, input = {224, 224, 3},
    })
    local x = nn.input(options.input)
    local y = nn.conv2d{
        options.filters, kernel = options.kernel, stride = options.stride, padding = "same",
    }(x)
    y = nn.relu(nn.batch_norm(y))
    for _ = 1, options.blocks do
        y = ResidualBlock{
            filters = options.filters, kernel = options.kernel, stride = options.block_stride,
            projection = options.projection,
        }(y)
    end
    return nn.model(x, nn.dense{options.classes, activation = "softmax"}(y))
end

--- plain_cnn{input = {180, 180, 3}, classes = 5}: three times convolution and pooling, then dense
--- layers, on bytes. The output is logits.
function class_style.plain_cnn(options)
    options = check.options("plain_cnn", options, {input = {180, 180, 3}, classes = 5})
    local function conv() return nn.conv2d{32, kernel = 3, activation = "relu"} end
    return nn.sequential{
        nn.input(options.input),
        nn.rescale(1 / 255),
        conv(), nn.max_pool2d(),
        conv(), nn.max_pool2d(),
        conv(), nn.max_pool2d(),
        nn.flatten(),
        nn.dense{128, activation = "relu"},
        nn.dense(options.classes),
    }
end

return class_style
