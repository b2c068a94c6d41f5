--- Options of the scripts: `--name value`, `--name=value`, `--switch`, `--no-switch`.
--
--     local given = options.parse(arg, {
--         about = "Trains a residual network.",
--         {"epochs", "N", "passes over the images", kind = "integer", low = 1, default = 8},
--         {"data", "NAME", "the images", choices = {"mnist", "cifar10"}, default = "mnist"},
--         {"flip", nil, "mirror images at random"},
--     })
--
-- A row is the name, what stands for the value in --help (nil: a switch), and a sentence. `kind`
-- "integer" or "number" asks for one, `low` and `high` bound it; "integers" for a list as 16,32,64,
-- or one (then the value is that number). `what` names a choice in errors; with `file`, which
--- says what kind, the name of something that exists is a choice, too.
-- The result has given.epochs, with "-" in names turned into "_". A wrong option ends the program
-- with one line and status 1.
local files = require "resin.files"

local options = {}

local program = "resin"

--- Ends the program with one line on the standard error.
function options.fail(message, ...)
    if select("#", ...) > 0 then message = message:format(...) end
    io.stderr:write(program, ": ", message, "\n")
    os.exit(1, true)
end

--- Runs f(...); an error ends the program with its message as one line, without a traceback. The
-- place in the source is kept only for mistakes of ours.
function options.run(f, ...)
    local ok, message = pcall(f, ...)
    if ok then return end
    message = tostring(message):gsub("\n+%s*", " ")
    if not message:find("attempt to ", 1, true) then
        message = message:gsub("^%S+%.lua:%d+: ", "")
    end
    options.fail("%s", message)
end

local function print_help(rows)
    local lines = {("usage: lua5.4 %s [options]"):format(program), rows.about, ""}
    local shown, width = {}, 0
    for i, row in ipairs(rows) do
        shown[i] = "--" .. row[1] .. (row[2] and " " .. row[2] or "")
        width = math.max(width, #shown[i])
    end
    for i, row in ipairs(rows) do
        local text = row[3]
        if row.choices then text = text .. ": " .. table.concat(row.choices, ", ") end
        if row.file then text = text .. ", or " .. row.file end
        if row.default ~= nil and row[2] then text = ("%s (%s)"):format(text, row.default) end
        local line = ("  %-" .. width .. "s "):format(shown[i])
        for word in text:gmatch("%S+") do
            if #line + #word > 98 then
                lines[#lines + 1], line = line, (" "):rep(width + 3)
            end
            line = line .. " " .. word
        end
        lines[#lines + 1] = line
    end
    print(table.concat(lines, "\n"))
end

local function check_choice(row, text)
    for _, choice in ipairs(row.choices) do
        if choice == text then return text end
    end
    if row.file and files.exists(text) then return text end
    options.fail("--%s: unknown %s '%s'; known: %s%s", row[1], row.what or "value", text,
        table.concat(row.choices, ", "), row.file and ", or " .. row.file or "")
end

local function check_number(row, text, kind)
    local number = tonumber(text)
    if kind == "integer" then number = math.tointeger(number) end
    if not number or number ~= number or math.abs(number) == math.huge then
        options.fail("--%s: expected %s, got '%s'", row[1],
            row.kind == "integers" and "a whole number or a list as 16,32,64"
            or kind == "integer" and "a whole number" or "a number", text)
    end
    if row.low and number < row.low then
        options.fail("--%s: expected at least %s, got %s", row[1], row.low, text)
    end
    if row.high and number > row.high then
        options.fail("--%s: expected at most %s, got %s", row[1], row.high, text)
    end
    return number
end

local function check_numbers(row, text)
    local list = {}
    for part in (text .. ","):gmatch("([^,]*),") do
        list[#list + 1] = check_number(row, part, "integer")
    end
    return #list == 1 and list[1] or list
end

-- The row of an argument and the value that stands in it: "--lr=0.1" has one, a switch is one.
local function find_row(by_name, argument)
    local name, text = argument:match("^%-%-([^=]+)=(.*)$")
    name = name or argument:match("^%-%-(.+)$")
    if not name then options.fail("unexpected argument '%s' (see --help)", argument) end
    local row, off = by_name[name], by_name[name:match("^no%-(.+)$") or ""]
    if not row and off and not off[2] and not text then return off, false end
    if not row then options.fail("unknown option '--%s' (see --help)", name) end
    if not row[2] and text then options.fail("--%s takes no value", name) end
    if not row[2] then return row, true end
    return row, text
end

--- Reads the arguments by `rows` (above).
function options.parse(arguments, rows)
    program = (arguments[0] or program):match("[^/]*$")
    local by_name, given = {}, {}
    local function give(row, value) given[row[1]:gsub("-", "_")] = value end
    for _, row in ipairs(rows) do
        by_name[row[1]] = row
        give(row, row.default)
    end
    local position = 1
    while position <= #arguments do
        if arguments[position] == "--help" or arguments[position] == "-h" then
            print_help(rows)
            os.exit(0, true)
        end
        local row, value = find_row(by_name, arguments[position])
        if value == nil then
            position = position + 1
            value = arguments[position]
            if not value or value:find("^%-%-") then
                options.fail("--%s: its value %s is missing", row[1], row[2])
            end
        end
        if row.choices then value = check_choice(row, value) end
        if row.kind == "integers" then
            value = check_numbers(row, value)
        elseif row.kind then
            value = check_number(row, value, row.kind)
        end
        give(row, value)
        position = position + 1
    end
    return given
end

return options
