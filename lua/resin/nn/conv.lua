--- Convolutions: nn.conv2d, nn.conv2d_transpose, nn.zero_pad2d. Images are (N, H, W, C).
local core = require "resin.core"
local activations = require "resin.nn.activations"
local check = require "resin.nn.check"
local layer = require "resin.nn.layer"
local shape = require "resin.nn.shape"

local conv = {}

---- Padding and sizes --------------------------------------------------------------------------

--- The padding option of convolutions and pools: "valid", "same" (SEMANTICS: out = ceil(in / s),
--- the odd row goes to the bottom and right), an integer, {height, width} or {top, bottom, left,
--- right}. Returns the four numbers, and whether it is "same".
function conv.padding(what, padding)
    if padding == "valid" then return {0, 0, 0, 0}, false end
    if padding == "same" then return {0, 0, 0, 0}, true end
    local list = type(padding) == "table" and padding or {padding}
    for _, value in ipairs(list) do
        if not check.is_integer(value, 0) then list = {} end
    end
    if #list == 1 then return {list[1], list[1], list[1], list[1]}, false end
    if #list == 2 then return {list[1], list[1], list[2], list[2]}, false end
    if #list == 4 then return {list[1], list[2], list[3], list[4]}, false end
    check.fail('%s: padding must be "valid", "same" or 1, 2 or 4 integers of at least 0, got %s',
        what, tostring(padding))
end

--- Fails unless the shape is an image's.
function conv.check_image(self, sizes)
    if #sizes ~= 3 then
        self:shape_fail("expected an image of shape (N, H, W, C), got %s", shape.text(sizes))
    end
end

--- Height and width after a window: sizes {h, w, c} of self's input, self.kernel, .stride,
--- .padding, .same and perhaps .dilation and .ceil.
function conv.window_sizes(self, sizes)
    conv.check_image(self, sizes)
    local result = {}
    for axis = 1, 2 do
        local size, stride = sizes[axis], self.stride[axis]
        if self.same then
            result[axis] = (size + stride - 1) // stride
        else
            local dilation = self.dilation and self.dilation[axis] or 1
            local window = (self.kernel[axis] - 1) * dilation + 1
            local padded = size + self.padding[2 * axis - 1] + self.padding[2 * axis]
            if padded < window then
                self:shape_fail("a window of %dx%d does not fit into %s", self.kernel[1],
                    self.kernel[2], shape.text(sizes))
            end
            local steps = padded - window
            result[axis] = (self.ceil and (steps + stride - 1) // stride or steps // stride) + 1
            -- As PyTorch: the last window must start inside of the image or its padding before.
            if self.ceil and (result[axis] - 1) * stride >= size + self.padding[2 * axis - 1] then
                result[axis] = result[axis] - 1
            end
        end
    end
    return result
end

---- Conv2D -------------------------------------------------------------------------------------

--- nn.conv2d{filters, kernel, ...}: (N, H, W, C) to (N, H', W', filters).
---
---   kernel        3 or {height, width}            stride       1       also {height, width}
---   padding       "valid", "same", integers       dilation     1
---   groups        1                               bias         true
---   activation    none, a name or a function      initializer  "glorot_uniform"; see
---   bias_initializer  zeros ("pytorch" with initializer = "pytorch")   nn.initializers
---   l1, l2        penalties of the weights        name, trainable
---
--- Parameters: weights (height, width, C / groups, filters), bias (filters).
local Conv2D = layer.class("Conv2D")
Conv2D.first_option = "filters"
Conv2D.options = {
    filters = check.required, kernel = check.required, stride = 1, padding = "valid", dilation = 1,
    groups = 1, bias = true, activation = check.optional, initializer = "glorot_uniform",
    bias_initializer = check.optional, l1 = check.optional, l2 = check.optional,
}

-- Checks and normalizes what all convolutions share.
local function set_conv_options(self, options)
    self:set_options(options)
    local what = self:label()
    rawset(self, "use_bias", self.bias)
    rawset(self, "bias", nil) -- the tensor, later
    check.integer(what, "filters", self.filters, 1)
    check.integer(what, "groups", self.groups, 1)
    for name, least in pairs{kernel = 1, stride = 1, dilation = 1} do
        rawset(self, name, check.pair(what, name, self[name], least))
    end
    local padding, same = conv.padding(what, self.padding)
    rawset(self, "padding", padding)
    rawset(self, "same", same)
    rawset(self, "f", activations.find(what, self.activation))
    rawset(self, "attributes", {
        stride = self.stride, padding = padding, dilation = self.dilation, groups = self.groups,
        same = same,
    })
end
conv.set_options = set_conv_options

--- The bias of a layer with weights: fan_in is that of the weights.
function conv.make_bias(self, size, fan_in)
    if not self.use_bias then return end
    local initializer = self.bias_initializer
        or (self.initializer == "pytorch" and "pytorch" or "zeros")
    rawset(self, "bias", self:parameter("bias", {size}, initializer,
        {fan_in = fan_in, fan_out = size}))
end

function Conv2D:init(options) set_conv_options(self, options) end

-- At building: remembers the channels, which the groups must divide.
local function check_groups(self, input_shape)
    conv.check_image(self, input_shape)
    local channels, groups = input_shape[3], self.groups
    if channels % groups ~= 0 or self.filters % groups ~= 0 then
        self:shape_fail("%d groups must divide the channels of %s and the %d filters", groups,
            shape.text(input_shape), self.filters)
    end
    rawset(self, "channels", channels)
end

-- Later: a layer that is used again must get as many channels.
local function check_channels(self, input_shape)
    conv.check_image(self, input_shape)
    if input_shape[3] ~= self.channels then
        self:shape_fail("was built for (N, H, W, %d), got %s", self.channels,
            shape.text(input_shape))
    end
end

function Conv2D:build(input_shape)
    check_groups(self, input_shape)
    local height, width, channels = self.kernel[1], self.kernel[2], self.channels // self.groups
    rawset(self, "weights", self:parameter("weights", {height, width, channels, self.filters},
        self.initializer, {l1 = self.l1, l2 = self.l2}))
    conv.make_bias(self, self.filters, height * width * channels)
end

function Conv2D:output_shape(input_shape)
    check_channels(self, input_shape)
    local sizes = conv.window_sizes(self, input_shape)
    return {sizes[1], sizes[2], self.filters}
end

function Conv2D:call(x)
    local y = core.conv2d(x, self.weights, self.bias, self.attributes)
    return activations.finish(self.f, y)
end

---- Conv2DTranspose ----------------------------------------------------------------------------

--- nn.conv2d_transpose{filters, kernel, stride, padding, ...}: the transpose of conv2d, with its
--- options. Height: (h - 1) stride + (kernel - 1) dilation + 1 - padding; h stride with "same".
--- Parameters: weights (height, width, filters / groups, C), bias (filters).
local Conv2DTranspose = layer.class("Conv2DTranspose", Conv2D)

function Conv2DTranspose:init(options)
    set_conv_options(self, options)
    local output_padding = {0, 0}
    if self.same then
        -- What conv2d's "same" takes off an image of h stride rows when it makes h of them.
        for axis = 1, 2 do
            local window = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            local total = math.max(window - self.stride[axis], 0)
            self.padding[2 * axis - 1], self.padding[2 * axis] = total // 2, total - total // 2
            output_padding[axis] = math.max(self.stride[axis] - window, 0)
        end
    end
    rawset(self, "attributes", {
        stride = self.stride, padding = self.padding, dilation = self.dilation,
        groups = self.groups, output_padding = output_padding,
    })
end

function Conv2DTranspose:build(input_shape)
    check_groups(self, input_shape)
    local height, width, filters = self.kernel[1], self.kernel[2], self.filters // self.groups
    rawset(self, "weights", self:parameter("weights", {height, width, filters, self.channels},
        self.initializer, {l1 = self.l1, l2 = self.l2}))
    conv.make_bias(self, self.filters, height * width * filters)
end

function Conv2DTranspose:output_shape(input_shape)
    check_channels(self, input_shape)
    local sizes, padding = {}, self.padding
    for axis = 1, 2 do
        local window = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        sizes[axis] = (input_shape[axis] - 1) * self.stride[axis] + window
            - padding[2 * axis - 1] - padding[2 * axis] + self.attributes.output_padding[axis]
        if sizes[axis] < 1 then
            self:shape_fail("nothing is left of %s after the padding", shape.text(input_shape))
        end
    end
    return {sizes[1], sizes[2], self.filters}
end

function Conv2DTranspose:call(x)
    local y = core.conv2d_transpose(x, self.weights, self.bias, self.attributes)
    return activations.finish(self.f, y)
end

---- ZeroPadding2D ------------------------------------------------------------------------------

--- nn.zero_pad2d{padding}: an integer, {height, width} or {top, bottom, left, right}.
local ZeroPadding2D = layer.class("ZeroPadding2D")
ZeroPadding2D.first_option = "padding"
ZeroPadding2D.options = {padding = 1}

function ZeroPadding2D:init(options)
    self:set_options(options)
    local padding = conv.padding(self:label(), self.padding)
    rawset(self, "padding", padding)
    rawset(self, "attributes", {
        before = {0, padding[1], padding[3], 0}, after = {0, padding[2], padding[4], 0},
    })
end

function ZeroPadding2D:output_shape(input_shape)
    conv.check_image(self, input_shape)
    local padding = self.padding
    return {input_shape[1] + padding[1] + padding[2], input_shape[2] + padding[3] + padding[4],
        input_shape[3]}
end

function ZeroPadding2D:call(x) return core.pad(x, self.attributes) end

conv.layers = {
    conv2d = Conv2D, conv2d_transpose = Conv2DTranspose, zero_pad2d = ZeroPadding2D,
}

return conv
