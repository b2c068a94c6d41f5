--- resin.csv: tables of numbers and names from CSV files (RFC 4180) with a header.
---
---   local houses = csv.read("california_housing.csv")
---   local x, y, names, categorical = houses:features_and_target("median_house_value")
---   model:fit(x, y)
---
--- A column whose values are all numbers is one of numbers; any other is one of categories: the
--- distinct texts in alphabetical order, numbered from 1. Empty fields, NA, NaN, null and ? are
--- missing: NaN.
local core = require "resin.core"
local check = require "resin.nn.check"

local csv = {}

local Table = {}
Table.__index = Table

local MISSING = {[""] = true, NA = true, ["N/A"] = true, NaN = true, nan = true, null = true,
    ["?"] = true}

-- ---- Reading ------------------------------------------------------------------------------------

-- The position behind the closing quote of a field that begins at `at`, and the field.
local function quoted_field(text, at, path)
    local parts, from = {}, at + 1
    while true do
        local quote = text:find('"', from, true)
        if not quote then check.fail("csv: %s: a quoted field does not end", path) end
        parts[#parts + 1] = text:sub(from, quote - 1)
        if text:sub(quote + 1, quote + 1) ~= '"' then return quote + 1, table.concat(parts) end
        parts[#parts + 1] = '"'
        from = quote + 2
    end
end

-- All records as lists of fields.
local function split_records(text, separator, path)
    local records, record, at = {}, {}, 1
    local stop = "[\r\n" .. (separator:gsub("%p", "%%%0")) .. "]"
    text = text:gsub("^\xEF\xBB\xBF", "")
    while at <= #text do
        local field
        if text:sub(at, at) == '"' then
            at, field = quoted_field(text, at, path)
            local behind = text:sub(at, at)
            if behind ~= "" and not behind:find(stop) then
                check.fail("csv: %s: %q stands behind a quoted field in record %d", path, behind,
                    #records + 1)
            end
        else
            local last = (text:find(stop, at) or #text + 1) - 1
            field = text:sub(at, last)
            at = last + 1
        end
        record[#record + 1] = field
        local behind = text:sub(at, at)
        at = at + (text:sub(at, at + 1) == "\r\n" and 2 or 1)
        if behind ~= separator or at > #text then
            if behind == separator then record[#record + 1] = "" end
            if #record > 1 or record[1] ~= "" then records[#records + 1] = record end
            record = {}
        end
    end
    return records
end

local function read_text(path)
    local file, message = io.open(path, "rb")
    if not file then check.fail("csv: %s", message) end
    local text, problem = file:read("a")
    file:close()
    if not text then check.fail("csv: %s: %s", path, problem) end
    return text
end

local function trim(field) return field:match("^%s*(.-)%s*$") end

-- A column of numbers, or of categories with their names.
local function read_column(records, first, position)
    local values, is_number = {}, true
    for row = first, #records do
        local field = trim(records[row][position])
        local missing = MISSING[field]
        local value = not missing and field:find("^[%d.+-]") and tonumber(field)
        if not missing and not value then
            is_number = false
            break
        end
        values[row - first + 1] = missing and 0 / 0 or value
    end
    if is_number then return values end
    local names, number = {}, {}
    for row = first, #records do
        local field = trim(records[row][position])
        if not MISSING[field] and not number[field] then
            number[field] = true
            names[#names + 1] = field
        end
    end
    table.sort(names)
    for i, name in ipairs(names) do number[name] = i end
    for row = first, #records do
        values[row - first + 1] = number[trim(records[row][position])] or 0 / 0
    end
    return values, names
end

--- csv.read(path[, {header = true, separator = ","}]): the whole file. Without a header columns are
--- named "1", "2", ... The result has .names (of the columns), .rows (how many), .columns (name ->
--- list of numbers) and .categories (name -> list of texts).
function csv.read(path, options)
    local given = check.options("csv.read", options or {}, {header = true, separator = ","})
    if type(given.separator) ~= "string" or #given.separator ~= 1 then
        check.fail("csv.read: expected a separator of one character")
    end
    local records = split_records(read_text(path), given.separator, path)
    if #records == 0 then check.fail("csv: %s is empty", path) end
    local result = setmetatable({names = {}, columns = {}, categories = {}}, Table)
    for position, name in ipairs(records[1]) do
        name = given.header and trim(name) or tostring(position)
        result.names[position] = name
    end
    local first, width = given.header and 2 or 1, #result.names
    result.rows = #records - first + 1
    for row = first, #records do
        if #records[row] ~= width then
            check.fail("csv: %s: record %d has %d fields, the first has %d", path, row,
                #records[row], width)
        end
    end
    for position, name in ipairs(result.names) do
        if result.columns[name] then
            check.fail("csv: %s: two columns are named %q", path, name)
        end
        result.columns[name], result.categories[name] = read_column(records, first, position)
    end
    return result
end

-- ---- As tensors ---------------------------------------------------------------------------------

function Table:check_column(name)
    if self.columns[name] then return self.columns[name] end
    check.fail("csv: there is no column %q; there are %s", tostring(name),
        table.concat(self.names, ", "))
end

--- table:column(name): float64 (rows); categories are their numbers.
function Table:column(name) return core.tensor(self:check_column(name), "float64") end

--- table:tensor{names}: float32 (rows, columns).
function Table:tensor(names)
    local flat, width = {}, #names
    for position, name in ipairs(names) do
        local column = self:check_column(name)
        for row = 1, self.rows do flat[(row - 1) * width + position] = column[row] end
    end
    if #flat == 0 then return core.zeros{self.rows, width} end
    return core.tensor(flat, "float32"):reshape{self.rows, width}
end

--- table:features_and_target(target[, {without = names}]): x of all other columns but `without`, y,
--- the names of x's columns, and which of those are categories (for the option `categorical`).
function Table:features_and_target(target, options)
    self:check_column(target)
    local left_out, names, categorical = {[target] = true}, {}, {}
    for _, name in ipairs(options and options.without or {}) do
        self:check_column(name)
        left_out[name] = true
    end
    for _, name in ipairs(self.names) do
        if not left_out[name] then
            names[#names + 1] = name
            if self.categories[name] then categorical[#categorical + 1] = name end
        end
    end
    return self:tensor(names), self:column(target), names, categorical
end

return csv
