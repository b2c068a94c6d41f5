--- Errors that point at the user's line, and the checking of options.
local check = {}

--- Stands for the default of an option that must be given, and of one that may be nil.
check.required = setmetatable({}, {__tostring = function() return "required" end})
check.optional = setmetatable({}, {__tostring = function() return "optional" end})

-- Source names of this library's files start with this ("@/usr/share/lua/5.4/resin/").
local library = debug.getinfo(1, "S").source:match("^(.*)nn[/\\][^/\\]*$")

-- "script.lua:12: " for the innermost line outside of this library; "" if there is none.
local function position()
    local level = 3
    while true do
        local info = debug.getinfo(level, "Sl")
        if not info then return "" end
        if info.currentline > 0 and info.source:sub(1, #library) ~= library then
            return ("%s:%d: "):format(info.short_src, info.currentline)
        end
        level = level + 1
    end
end

-- The last message raised by `fail`: layers around the failing one must not name themselves again.
local last_failure

--- Raises an error with the user's position in front.
function check.fail(format, ...)
    last_failure = position() .. (select("#", ...) > 0 and format:format(...) or format)
    error(last_failure, 0)
end

--- Raises what pcall caught, with `name` in front unless `fail` has named the place already.
function check.again(name, caught)
    if type(caught) ~= "string" or caught == last_failure then error(caught, 0) end
    -- Where inside this library an op was called does not help anybody.
    caught = caught:gsub("^%S*resin[/\\]nn[/\\][%w_]+%.lua:%d+: ", "")
    local place, message = caught:match("^(%S+:%d+: )(.*)$")
    last_failure = (place or position()) .. name .. ": " .. (message or caught)
    error(last_failure, 0)
end

local function names(allowed)
    local list = {}
    for name in pairs(allowed) do list[#list + 1] = name end
    table.sort(list)
    return table.concat(list, ", ")
end

--- The options of `what` with defaults filled in. `given`: nil, a table, or one bare value, which
--- is option `first`, as is given[1]. `allowed`: name -> default. Unknown names are errors.
function check.options(what, given, allowed, first)
    if type(given) ~= "table" or getmetatable(given) then given = {given} end
    local options = {}
    for name, value in pairs(given) do
        if name == 1 and first then name = first end
        if allowed[name] == nil then
            check.fail('%s: unknown option "%s"; it takes %s', what, tostring(name), names(allowed))
        end
        options[name] = value
    end
    for name, default in pairs(allowed) do
        if options[name] == nil and default ~= check.optional then
            if default == check.required then
                check.fail('%s: option "%s" must be given', what, name)
            end
            options[name] = default
        end
    end
    return options
end

--- Whether `value` is an integer (3 or 3.0) of at least `least`.
function check.is_integer(value, least)
    return math.type(value) ~= nil and math.tointeger(value) ~= nil and value >= least
end

--- An integer option of at least `least`.
function check.integer(what, name, value, least)
    if not check.is_integer(value, least) then
        check.fail("%s: %s must be an integer of at least %d, got %s", what, name, least,
            tostring(value))
    end
    return math.tointeger(value)
end

--- A number, or a list of two, as {height, width}.
function check.pair(what, name, value, least)
    local pair = type(value) == "table" and value or {value, value}
    local valid = #pair == 2 and check.is_integer(pair[1], least)
        and check.is_integer(pair[2], least)
    if not valid then
        local text = type(value) == "table" and "{" .. table.concat(value, ", ") .. "}"
            or tostring(value)
        check.fail("%s: %s must be an integer of at least %d or a list of two, got %s", what, name,
            least, text)
    end
    return {math.tointeger(pair[1]), math.tointeger(pair[2])}
end

return check
