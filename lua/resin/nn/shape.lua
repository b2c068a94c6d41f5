--- Shapes of the layer graph: lists of sizes without the batch axis, {224, 224, 3}.
local shape = {}

local function join(first, sizes)
    local parts = {first}
    for _, size in ipairs(sizes) do parts[#parts + 1] = tostring(size) end
    return "(" .. table.concat(parts, ", ") .. ")"
end

--- "(N, 224, 224, 3)", as errors write it.
function shape.text(sizes) return join("N", sizes) end

--- "(None, 224, 224, 3)", as Keras' summary writes it.
function shape.keras_text(sizes) return join("None", sizes) end

--- "(2, 224, 224, 3)": a tensor's whole shape.
function shape.tensor_text(tensor)
    local sizes = tensor:shape()
    if #sizes == 1 then return "(" .. sizes[1] .. ",)" end
    return "(" .. table.concat(sizes, ", ") .. ")"
end

--- The shape of a tensor without its batch axis.
function shape.of(tensor)
    local sizes = tensor:shape()
    return table.move(sizes, 2, #sizes, 1, {})
end

function shape.with_batch(sizes, batch) return table.move(sizes, 1, #sizes, 2, {batch}) end

function shape.copy(sizes) return table.move(sizes, 1, #sizes, 1, {}) end

function shape.equal(a, b)
    if #a ~= #b then return false end
    for axis = 1, #a do
        if a[axis] ~= b[axis] then return false end
    end
    return true
end

function shape.count(sizes)
    local count = 1
    for _, size in ipairs(sizes) do count = count * size end
    return count
end

--- The common shape by broadcasting, or nil. Axes are aligned at the end.
function shape.broadcast(a, b)
    if #a < #b then a, b = b, a end
    local result, shift = shape.copy(a), #a - #b
    for axis = 1, #b do
        local one, other = a[axis + shift], b[axis]
        if one ~= other and one ~= 1 and other ~= 1 then return nil end
        result[axis + shift] = one == 1 and other or one
    end
    return result
end

return shape
