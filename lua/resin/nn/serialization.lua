--- model:save and model:load: weights and running statistics by name in a safetensors file.
local core = require "resin.core"
local check = require "resin.nn.check"
local shape = require "resin.nn.shape"

local serialization = {}

--- model:save(path[, metadata]): all tensors by name, tied ones once; metadata is a table of
--- strings. The file appears under its name when it is complete.
function serialization.save(model, path, metadata)
    local tensors = {}
    for position, entry in ipairs(model:variables()) do
        tensors[position] = {entry.name, entry.tensor:detach()}
    end
    local strings = {format = "resin", model = model.name or model.default_name}
    for key, value in pairs(metadata or {}) do strings[key] = tostring(value) end
    core.safetensors_write(path, tensors, strings)
end

-- What of the file fits: lists of entries, and of names in words.
local function compare(file, model)
    local found = {fitting = {}, missing = {}, surplus = {}, mismatched = {}}
    local in_file = {}
    for _, name in ipairs(file:names()) do in_file[name] = true end
    for _, entry in ipairs(model:variables()) do
        local name = entry.name
        if not in_file[name] then
            found.missing[#found.missing + 1] = name
        else
            in_file[name] = nil
            local stored, own = file:shape(name), entry.tensor:shape()
            if shape.equal(stored, own) then
                found.fitting[#found.fitting + 1] = entry
            else
                found.mismatched[#found.mismatched + 1] = ("%s: the file has {%s}, the model {%s}")
                    :format(name, table.concat(stored, ", "), table.concat(own, ", "))
            end
        end
    end
    for _, name in ipairs(file:names()) do
        if in_file[name] then found.surplus[#found.surplus + 1] = name end
    end
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
    add("of another shape", found.mismatched)
    return #lines > 0 and table.concat(lines, "\n") or nil
end

--- model:load(path[, {strict = true}]): the tensors of a file by name, into the model's own. Names
--- that are missing, surplus or have another shape are an error that lists them, and then nothing
--- has been loaded; strict = false loads what fits. Returns {loaded = names, missing, surplus,
--- mismatched} and the file's metadata.
function serialization.load(model, path, options)
    local file = core.safetensors_open(path)
    local ok, found, metadata = pcall(function()
        local found = compare(file, model)
        local message = complaint(found)
        if message and not (options and options.strict == false) then
            check.fail("load %s into %s:\n%s", path, model:label(), message)
        end
        found.loaded = {}
        for position, entry in ipairs(found.fitting) do
            file:load_into(entry.name, entry.tensor)
            found.loaded[position] = entry.name
        end
        found.fitting = nil
        return found, file:metadata()
    end)
    file:close()
    if not ok then error(found, 0) end
    return found, metadata
end

return serialization
