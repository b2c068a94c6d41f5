-- Methods of tensors that are written in Lua, on top of the ops.
local core = require "resin.core"

local methods = core.tensor_methods

-- A copy of the elements; gradients flow through it.
function methods:clone()
    return self * 1
end

-- The tensor in another dtype ("float64"); itself if it has that dtype already.
function methods:to(dtype)
    if self:dtype() == dtype then return self end
    return core.cast(self, dtype)
end

-- A list of views along `axis` (default 1): of `sizes[i]` positions each, or, for a number, of that
-- many positions, the last one shorter.
function methods:split(sizes, axis)
    axis = axis or 1
    local total = self:size(axis)
    if math.type(sizes) == "integer" then
        if sizes < 1 then error("split: expected a positive size, got " .. sizes, 2) end
        local list = {}
        for first = 1, total, sizes do list[#list + 1] = math.min(sizes, total - first + 1) end
        sizes = list
    end
    local parts, first = {}, 1
    for i, size in ipairs(sizes) do
        parts[i] = self:slice(axis, first, first + size - 1)
        first = first + size
    end
    if first ~= total + 1 then
        error(("split: the sizes add up to %d, axis %d has %d"):format(first - 1, axis, total), 2)
    end
    return parts
end

-- resin.split(x, sizes, axis)
core.split = methods.split

return methods
