--- Tables of text for measurements.
local text_table = {}

--- Lines with aligned columns. rows: lists of texts, the first one with the heads; `left`: how many
--- columns are set to the left, the others to the right. A row "-" is a rule.
function text_table.text(rows, left)
    local widths, lines = {}, {}
    for _, row in ipairs(rows) do
        for column, cell in ipairs(row ~= "-" and row or {}) do
            widths[column] = math.max(widths[column] or 0, utf8.len(cell) or #cell)
        end
    end
    local total = 2 * (#widths - 1)
    for _, width in ipairs(widths) do total = total + width end
    for _, row in ipairs(rows) do
        local cells = {}
        for column, cell in ipairs(row ~= "-" and row or {}) do
            local space = (" "):rep(widths[column] - (utf8.len(cell) or #cell))
            cells[column] = column <= left and cell .. space or space .. cell
        end
        lines[#lines + 1] = row == "-" and ("-"):rep(total)
            or (table.concat(cells, "  "):gsub(" +$", ""))
    end
    return table.concat(lines, "\n")
end

--- A number with three digits or more: "0.123", "1.23", "12.3", "1234"; nothing for nil.
function text_table.number(value)
    if not value or value ~= value then return "" end
    local size = math.abs(value)
    local digits = size < 1 and 3 or size < 10 and 2 or size < 100 and 1 or 0
    return ("%." .. digits .. "f"):format(value)
end

return text_table
