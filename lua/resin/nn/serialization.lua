--- model:save and model:load: weights and running statistics by name in a safetensors file. How
--- other programs' files call them: naming.lua.
local core = require "resin.core"
local check = require "resin.nn.check"
local naming = require "resin.nn.naming"

local serialization = {}

--- model:save(path[, {naming = "resin", ...}]): all tensors by name, tied ones once. naming =
--- "torchvision" or "keras" writes what those programs read. What else the table has is kept in the
--- file as metadata, as strings. The file appears under its name when it is complete.
function serialization.save(model, path, metadata)
    local used = metadata and metadata.naming or "resin"
    naming.check("save", used)
    local tensors = {}
    for position, item in ipairs(naming.items(model, used)) do
        tensors[position] = {item.name, naming.written(item)}
    end
    -- Readers of PyTorch's files ask for "pt".
    local strings = {
        format = used == "torchvision" and "pt" or "resin",
        model = model.name or model.default_name,
    }
    for key, value in pairs(metadata or {}) do strings[key] = tostring(value) end
    core.safetensors_write(path, tensors, strings)
end

-- The names in the file, by the names that items have: {[canonical] = name}, and those that come
-- twice, as "a/kernel" and "a/kernel:0" do.
local function names_in(file, used)
    local names, repeated = {}, {}
    for _, name in ipairs(file:names()) do
        local canonical = naming.canonical(used, name)
        if names[canonical] then
            repeated[#repeated + 1] = name
        else
            names[canonical] = name
        end
    end
    return names, repeated
end

-- What of the file fits: a list of {item, name}, and lists of names and of words. Names that match
-- the pattern `except` are left out of all.
local function compare(file, model, used, except)
    local found = {fitting = {}, loaded = {}, missing = {}, surplus = {}, mismatched = {}}
    local names, repeated = names_in(file, used)
    local function add(list, name, text)
        if except and name:find(except) then return end
        list[#list + 1] = text or name
    end
    for _, item in ipairs(naming.items(model, used)) do
        local name = names[item.name]
        names[item.name] = nil
        local misfit = name and naming.misfit(item, file, name)
        if not name then
            if not item.counter_of then add(found.missing, item.name) end
        elseif misfit then
            add(found.mismatched, item.name, name .. ": " .. misfit)
        elseif not (except and item.name:find(except)) then
            found.fitting[#found.fitting + 1] = {item, name}
            found.loaded[#found.loaded + 1] = name
        end
    end
    for _, name in ipairs(file:names()) do
        local canonical = naming.canonical(used, name)
        if names[canonical] == name then add(found.surplus, canonical, name) end
    end
    for _, name in ipairs(repeated) do add(found.surplus, naming.canonical(used, name), name) end
    return found
end

local SHOWN = 20

local function complaint(found)
    local lines = {}
    local function add(title, list)
        if #list == 0 then return end
        lines[#lines + 1] = ("%s (%d):"):format(title, #list)
        for position = 1, math.min(#list, SHOWN) do lines[#lines + 1] = "  " .. list[position] end
        if #list > SHOWN then lines[#lines + 1] = ("  and %d more"):format(#list - SHOWN) end
    end
    add("missing in the file", found.missing)
    add("in the file, but not in the model", found.surplus)
    add("that do not fit", found.mismatched)
    return #lines > 0 and table.concat(lines, "\n") or nil
end

-- A naming by which more of the file is in the model, as the last line of an error.
local function hint(file, model, used)
    local best, most = nil, 0
    for _, other in ipairs(naming.names) do
        local names, count = names_in(file, other), 0
        local possible, items = pcall(naming.items, model, other)
        for _, item in ipairs(possible and items or {}) do
            if names[item.name] then count = count + 1 end
        end
        if count > most or count == most and other == used then best, most = other, count end
    end
    if not best or best == used then return "" end
    return ('\n%d of its names are the model\'s by naming = "%s"'):format(most, best)
end

local OPTIONS = {strict = true, naming = "resin", except = check.optional}

--- model:load(path[, {strict = true, naming = "resin", except = "^fc%."}]): the tensors of a file
--- by name, into the model's own; float16, bfloat16 and float64 become what the model has.
---
---   naming   whose names and layouts the file has: "resin", "torchvision" (PyTorch), "keras"
---   strict   names that are missing, surplus, or of another shape are an error that lists them,
---            and then nothing has been loaded; false loads what fits, and fails if nothing does
---   except   a Lua pattern: tensors whose names in the file match are left as they are, as those
---            of a last layer with another number of classes
---
--- Returns {loaded = names, missing, surplus, mismatched} and the file's metadata.
function serialization.load(model, path, options)
    options = check.options("load", options or {}, OPTIONS)
    naming.check("load", options.naming)
    local file = core.safetensors_open(path)
    local ok, found, metadata = pcall(function()
        local found = compare(file, model, options.naming, options.except)
        local message = complaint(found)
        if message and (options.strict or #found.fitting == 0) then
            check.fail("load %s into %s:\n%s%s", path, model:label(), message,
                hint(file, model, options.naming))
        end
        for _, pair in ipairs(found.fitting) do naming.load(pair[1], file, pair[2]) end
        found.fitting = nil
        return found, file:metadata()
    end)
    file:close()
    if not ok then error(found, 0) end
    return found, metadata
end

return serialization
