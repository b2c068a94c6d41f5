--- Pooling: nn.max_pool2d, nn.avg_pool2d, nn.adaptive_avg_pool2d, nn.global_avg_pool,
--- nn.global_max_pool.
local core = require "resin.core"
local check = require "resin.nn.check"
local conv = require "resin.nn.conv"
local layer = require "resin.nn.layer"

--- nn.max_pool2d{kernel = 2, stride = kernel, padding = "valid", ceil = false}: padding as
--- conv2d's; ceil keeps a last window that is not whole (PyTorch's ceil_mode).
local MaxPooling2D = layer.class("MaxPooling2D")
MaxPooling2D.first_option = "kernel"
MaxPooling2D.options = {kernel = 2, stride = check.optional, padding = "valid", ceil = false}

--- nn.avg_pool2d: also count_padding = false, whether padded zeros count into the mean (PyTorch's
--- rule is true, Keras' false).
local AveragePooling2D = layer.class("AveragePooling2D", MaxPooling2D)
AveragePooling2D.options = {
    kernel = 2, stride = check.optional, padding = "valid", ceil = false, count_padding = false,
}

function MaxPooling2D:init(options)
    self:set_options(options)
    local what = self:label()
    rawset(self, "kernel", check.pair(what, "kernel", self.kernel, 1))
    rawset(self, "stride", check.pair(what, "stride", self.stride or self.kernel, 1))
    local padding, same = conv.padding(what, self.padding)
    rawset(self, "padding", padding)
    rawset(self, "same", same)
    rawset(self, "attributes", {
        kernel = self.kernel, stride = self.stride, padding = padding, same = same,
        ceil = self.ceil, count_padding = self.count_padding,
    })
end

function MaxPooling2D:output_shape(input_shape)
    local sizes = conv.window_sizes(self, input_shape)
    return {sizes[1], sizes[2], input_shape[3]}
end

function MaxPooling2D:call(x) return core.max_pool2d(x, self.attributes) end

function AveragePooling2D:call(x) return core.avg_pool2d(x, self.attributes) end

--- nn.adaptive_avg_pool2d{size}: (N, H, W, C) of any height and width to (N, size, size, C) or
--- (N, size[1], size[2], C), by PyTorch's rule: row i (from 0) is the mean of the rows from
--- floor(i H / size) to before ceil((i + 1) H / size), so windows may overlap.
local AdaptiveAveragePooling2D = layer.class("AdaptiveAveragePooling2D")
AdaptiveAveragePooling2D.first_option = "size"
AdaptiveAveragePooling2D.options = {size = check.required}

function AdaptiveAveragePooling2D:init(options)
    self:set_options(options)
    rawset(self, "size", check.pair(self:label(), "size", self.size, 1))
end

function AdaptiveAveragePooling2D:output_shape(input_shape)
    conv.check_image(self, input_shape)
    return {self.size[1], self.size[2], input_shape[3]}
end

--- The matrix (size, count) that averages the windows along one axis of `count` elements.
function AdaptiveAveragePooling2D.averages(size, count, dtype)
    local rows = {}
    for i = 1, size do
        local first, last = (i - 1) * count // size + 1, (i * count + size - 1) // size
        local share = 1 / (last - first + 1)
        rows[i] = {}
        for j = 1, count do rows[i][j] = j >= first and j <= last and share or 0 end
    end
    return core.tensor(rows, dtype)
end

function AdaptiveAveragePooling2D:call(x)
    local height, width = self.size[1], self.size[2]
    local n, h, w, c = table.unpack(x:shape())
    if h == height and w == width then return x end
    if h % height == 0 and w % width == 0 then
        return core.avg_pool2d(x, {kernel = {h // height, w // width}})
    end
    -- A mean over a rectangle is one over rows and one over columns: two products.
    local rows <close> = self.averages(height, h, x:dtype())
    local columns <close> = self.averages(width, w, x:dtype())
    local lines <close> = x:reshape{n, h, w * c}
    local pooled <close> = core.matmul(rows, lines)
    local apart <close> = pooled:reshape{n * height, w, c}
    local result <close> = core.matmul(columns, apart)
    return result:reshape{n, height, width, c}
end

--- nn.global_avg_pool(): (N, H, W, C) to (N, C).
local GlobalAveragePooling2D = layer.class("GlobalAveragePooling2D")
GlobalAveragePooling2D.options = {}

--- nn.global_max_pool(): (N, H, W, C) to (N, C).
local GlobalMaxPooling2D = layer.class("GlobalMaxPooling2D", GlobalAveragePooling2D)

function GlobalAveragePooling2D:init(options) self:set_options(options) end

function GlobalAveragePooling2D:output_shape(input_shape)
    conv.check_image(self, input_shape)
    return {input_shape[3]}
end

function GlobalAveragePooling2D:call(x) return core.global_avg_pool(x) end

function GlobalMaxPooling2D:call(x) return core.global_max_pool(x) end

return {
    layers = {
        max_pool2d = MaxPooling2D, avg_pool2d = AveragePooling2D,
        adaptive_avg_pool2d = AdaptiveAveragePooling2D,
        global_avg_pool = GlobalAveragePooling2D, global_max_pool = GlobalMaxPooling2D,
    },
}
