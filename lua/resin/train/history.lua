--- The history of a training: a list of rows {epoch =, loss =, ...}, as text and as a CSV file.
local files = require "resin.files"

local history = {}

---- Flat tables as text -------------------------------------------------------------------------
-- A line "name=value name=value" holds numbers and booleans and reads back to the same bits.

local function value_text(value)
    if type(value) == "boolean" then return tostring(value) end
    if math.type(value) == "integer" then return ("%d"):format(value) end
    if value ~= value then return "nan" end
    if value == math.huge then return "inf" end
    if value == -math.huge then return "-inf" end
    return ("%.17g"):format(value)
end

local WORDS = {nan = 0 / 0, inf = math.huge, ["-inf"] = -math.huge, ["true"] = true,
    ["false"] = false}

--- The numbers and booleans of a table whose keys are words; other values are left out.
function history.encode(row)
    local parts = {}
    for name, value in pairs(row) do
        if type(value) == "number" or type(value) == "boolean" then
            -- A float that looks like an integer must stay one.
            local text = value_text(value)
            if math.type(value) == "float" and text:find("^%-?%d+$") then text = text .. ".0" end
            parts[#parts + 1] = name .. "=" .. text
        end
    end
    table.sort(parts)
    return table.concat(parts, " ")
end

function history.decode(line)
    local row = {}
    for name, text in line:gmatch("([%w_]+)=(%S+)") do
        local value = WORDS[text]
        if value == nil then value = tonumber(text) end
        row[name] = value
    end
    return row
end

--- A list of rows, one line each.
function history.encode_rows(rows)
    local lines = {}
    for i, row in ipairs(rows) do lines[i] = history.encode(row) end
    return table.concat(lines, "\n")
end

function history.decode_rows(text, rows)
    for line in text:gmatch("[^\n]+") do rows[#rows + 1] = history.decode(line) end
    return rows
end

---- CSV -----------------------------------------------------------------------------------------

local function columns_of(rows)
    if rows.columns then return rows.columns end
    local columns = {}
    for name in pairs(rows[1] or {}) do columns[#columns + 1] = name end
    table.sort(columns)
    return columns
end

--- The rows as CSV, with a line of names above; what a row lacks stays empty.
function history.csv(rows)
    local columns = columns_of(rows)
    local lines = {table.concat(columns, ",")}
    for _, row in ipairs(rows) do
        local cells = {}
        for i, name in ipairs(columns) do
            local value = row[name]
            local float = math.type(value) == "float"
            cells[i] = value == nil and "" or float and ("%.8g"):format(value) or tostring(value)
        end
        lines[#lines + 1] = table.concat(cells, ",")
    end
    return table.concat(lines, "\n") .. "\n"
end

--- Writes a text to a file; a kill leaves the older one whole.
function history.write_file(path, text)
    files.replace(path, function(put) put(text) end)
end

--- train.write_csv(path, history)
function history.write_csv(path, rows) history.write_file(path, history.csv(rows)) end

return history
