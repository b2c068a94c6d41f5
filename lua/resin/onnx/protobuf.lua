--- The wire format of protocol buffers (https://protobuf.dev/programming-guides/encoding), as far as
--- writing needs it: fields of numbers, of bytes, and of messages.
---
--- A message is a list of pieces: strings, or {size =, write = function(put)} for bytes that are
--- made only when they are written, so that gigabytes of weights never stand in memory at once.
local protobuf = {}

local VARINT, BYTES, FIXED32 = 0, 2, 5

-- Seven bits a byte, the lowest first; a negative number counts as its 64 bits.
local function varint(value)
    local bytes = {}
    while value & ~0x7f ~= 0 do
        bytes[#bytes + 1] = string.char(value & 0x7f | 0x80)
        value = value >> 7
    end
    bytes[#bytes + 1] = string.char(value)
    return table.concat(bytes)
end

local function tag(field, kind) return varint(field << 3 | kind) end

--- int32, int64 or an enumeration's number.
function protobuf.integer(field, value) return tag(field, VARINT) .. varint(value) end

function protobuf.float(field, value) return tag(field, FIXED32) .. string.pack("<f", value) end

--- A string or bytes.
function protobuf.bytes(field, text) return tag(field, BYTES) .. varint(#text) .. text end

--- The bytes of a list of pieces.
function protobuf.size(pieces)
    local size = 0
    for _, piece in ipairs(pieces) do
        size = size + (type(piece) == "string" and #piece or piece.size)
    end
    return size
end

--- Appends a message as a field of another: its pieces behind tag and length.
function protobuf.add_message(pieces, field, message)
    pieces[#pieces + 1] = tag(field, BYTES) .. varint(protobuf.size(message))
    table.move(message, 1, #message, #pieces + 1, pieces)
end

--- Appends bytes that `write(put)` makes later: `size` of them, by calling put(text).
function protobuf.add_bytes(pieces, field, size, write)
    pieces[#pieces + 1] = tag(field, BYTES) .. varint(size)
    pieces[#pieces + 1] = {size = size, write = write}
end

--- Writes all pieces with put(text).
function protobuf.write(pieces, put)
    for _, piece in ipairs(pieces) do
        if type(piece) == "string" then put(piece) else piece.write(put) end
    end
end

return protobuf
