--- model:summary{}: the table that Keras 2 prints.
---
--- 65 columns with three fields for a plain stack, 98 with "Connected to" for any other graph. A
--- cell that is too long goes on in the next line; in a list it breaks behind each item that ends
--- there.
local graph = require "resin.nn.graph"
local shape = require "resin.nn.shape"

local summary = {}

local PLAIN = {width = 65, ends = {29, 55, 65}, titles = {"Layer (type)", "Output Shape",
    "Param #"}}
local CONNECTED = {width = 98, ends = {29, 58, 68, 98}, titles = {"Layer (type)",
    "Output Shape", "Param #", "Connected to"}}

---- Rows ---------------------------------------------------------------------------------------

-- Where a cell breaks behind an item of a list, if it does within `text`.
local function item_end(text)
    local first
    for _, mark in ipairs{"),", "},", "],", "',"} do
        local _, last = text:find(mark, 1, true)
        if last and (not first or last < first) then first = last end
    end
    return first
end

-- Takes off the front of a cell what fits into `room` columns.
local function take(cell, room)
    local fitting = cell:sub(1, room)
    local length = item_end(fitting) or room
    return fitting:sub(1, length), cell:sub(length + 1)
end

-- Writes a row's cells as lines; inside of an opened layer with bars on both sides.
local function write_row(write, layout, cells, level)
    local left, bars = table.move(cells, 1, #cells, 1, {}), ("|"):rep(level)
    repeat
        local line, more = bars .. " ", false
        for column, cell in ipairs(left) do
            local start, last = layout.ends[column - 1] or 0, column == #layout.ends
            local room = layout.ends[column] - start
            if not last then room = room - 3 end -- the space in front, and two between the columns
            if column == 1 then room = room - level end
            local part
            part, left[column] = take(cell, room)
            more = more or left[column] ~= ""
            local stop = layout.ends[column] - (last and level or 0)
            line = line .. part .. (last and "" or "  ")
            line = line .. (" "):rep(stop - #line)
        end
        write(line .. bars)
    until not more
end

local function quoted_list(items)
    local quoted = {}
    for position, item in ipairs(items) do quoted[position] = "'" .. item .. "'" end
    return "[" .. table.concat(quoted, ", ") .. "]"
end

---- What the rows say --------------------------------------------------------------------------

-- The nodes of each layer in order, and each node's number among them.
local function calls_by_layer(nodes)
    local calls, number = {}, {}
    for _, one in ipairs(nodes) do
        local list = calls[one.layer] or {}
        calls[one.layer] = list
        number[one] = #list
        list[#list + 1] = one
    end
    return calls, number
end

local function shape_text(calls, is_input)
    for position = 2, #calls do
        if not shape.equal(calls[1].sizes, calls[position].sizes) then return "multiple" end
    end
    local text = shape.keras_text(calls[1].sizes)
    return is_input and "[" .. text .. "]" or text
end

-- The rows of a graph: {name, layer, shape, connections, inner, input_names}. name_of names layers.
local function rows_of(nodes, layers, name_of)
    local calls, number = calls_by_layer(nodes)
    local rows = {}
    for position, one in ipairs(layers) do
        local connections = {}
        for _, call in ipairs(calls[one]) do
            for _, input in ipairs(call.inputs) do
                connections[#connections + 1] =
                    ("%s[%d][0]"):format(name_of(input.layer), number[input])
            end
        end
        local input_names = {}
        for place, input in ipairs(calls[one][1].inputs) do
            input_names[place] = name_of(input.layer)
        end
        rows[position] = {
            name = name_of(one), layer = one, inner = calls[one][1].inner,
            input_names = input_names,
            shape = shape_text(calls[one], getmetatable(one) == graph.InputLayer),
            connections = quoted_list(connections),
        }
    end
    return rows
end

-- The rows inside of a layer made of layers; of one that ran on tensors only the layers are known.
local function inner_rows(row)
    local children = row.layer:children()
    if not row.inner then
        local rows = {}
        for position, child in ipairs(children) do
            rows[position] = {name = child[1], layer = child[2], shape = "?", connections = "[]"}
        end
        return rows
    end
    local labels = {}
    for _, child in ipairs(children) do labels[child[2]] = child[1] end
    local nodes, layers = graph.nodes{row.inner.output}, {}
    for position, placeholder in ipairs(row.inner.inputs) do
        labels[placeholder.layer] = row.input_names[position]
    end
    for _, one in ipairs(graph.layers(nodes)) do
        if one.class_name ~= "Placeholder" then layers[#layers + 1] = one end
    end
    local counts = {}
    for _, one in ipairs(layers) do -- those that `call` makes anew each time have no label
        local count = counts[one.default_name] or 0
        if not labels[one] then
            labels[one] = count == 0 and one.default_name or one.default_name .. "_" .. count
            counts[one.default_name] = count + 1
        end
    end
    return rows_of(nodes, layers, function(one) return labels[one] end)
end

-- Keras' rule: one layer at each depth, each with one input and used once.
local function is_plain(nodes)
    local depth, used, seen = graph.depths(nodes), {}, {}
    for _, one in ipairs(nodes) do
        if #one.inputs > 1 or used[one.layer] or seen[depth[one]] then return false end
        used[one.layer], seen[depth[one]] = true, true
    end
    return true
end

-- "44.07 MB"
local function size_text(bytes)
    local size = bytes
    for _, unit in ipairs{"Byte", "KB", "MB", "GB", "TB"} do
        if size < 1024 then return ("%.2f %s"):format(size, unit) end
        size = size / 1024
    end
    return ("%.2f PB"):format(size)
end

---- The table ----------------------------------------------------------------------------------

local function write_rows(write, layout, rows, level, expand)
    local bars = ("|"):rep(level)
    for position, row in ipairs(rows) do
        local cells = {row.name .. " (" .. row.layer.class_name .. ")", row.shape,
            tostring(math.tointeger((row.layer:count()))), row.connections}
        if #layout.ends == 3 then cells[4] = nil end
        write_row(write, layout, cells, level)
        local inner = expand and row.layer.composite and inner_rows(row) or {}
        if #inner > 0 then
            local line = "¯"
            write(bars .. "|" .. line:rep(layout.width - 2 * level - 2) .. "|" .. bars)
            write_rows(write, layout, inner, level + 1, expand)
            write(bars .. line:rep(layout.width - 2 * level) .. bars)
        end
        if level == 0 or position < #rows then
            write(bars .. (" "):rep(layout.width - 2 * level) .. bars)
        end
    end
end

local function write_totals(write, model)
    local counts, bytes = {trainable = 0, rest = 0}, {trainable = 0, rest = 0}
    for _, entry in ipairs(model:variables()) do
        local kind = entry.trainable and "trainable" or "rest"
        local count = entry.tensor:count()
        counts[kind] = counts[kind] + count
        bytes[kind] = bytes[kind] + count * (entry.tensor:dtype() == "float64" and 8 or 4)
    end
    local function total(title, count, size)
        write(("%s params: %d (%s)"):format(title, count, size_text(size)))
    end
    total("Total", counts.trainable + counts.rest, bytes.trainable + bytes.rest)
    total("Trainable", counts.trainable, bytes.trainable)
    total("Non-trainable", counts.rest, bytes.rest)
end

--- model:summary{expand = false, print = true}: prints Keras' table. expand opens layers made of
--- layers; print = false returns the text instead, and a function gets it line by line.
function summary.print(model, options)
    options = options or {}
    local lines = {}
    local function write(line) lines[#lines + 1] = line end
    local layout = is_plain(model.nodes) and PLAIN or CONNECTED
    local layers = model.layers
    if model.is_sequential then layers = table.move(layers, 2, #layers, 1, {}) end
    local rows = rows_of(model.nodes, layers, function(one) return model.names[one] end)
    write(('Model: "%s"'):format(model.name or model.default_name))
    write(("_"):rep(layout.width))
    write_row(write, layout, layout.titles, 0)
    write(("="):rep(layout.width))
    write_rows(write, layout, rows, 0, options.expand)
    write(("="):rep(layout.width))
    write_totals(write, model)
    write(("_"):rep(layout.width))
    if options.print == false then return table.concat(lines, "\n") .. "\n" end
    if type(options.print) == "function" then
        for _, line in ipairs(lines) do options.print(line) end
    else
        io.write(table.concat(lines, "\n"), "\n")
    end
end

return summary
