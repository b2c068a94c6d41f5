--- Where validation data come from, and whether they fit those of the training.
local core = require "resin.core"
local check = require "resin.nn.check"
local source = require "resin.train.source"

local validation = {}

-- The set of classes among labels: integers, or one-hot vectors; nil for other targets.
local function classes_of(labels)
    if not labels then return nil end
    if labels:dtype():find("float") then
        if labels:rank() ~= 2 or labels:size(2) < 2 then return nil end
        labels = labels:argmax(-1)
    elseif labels:rank() ~= 1 then
        return nil
    end
    local present = {}
    for _, label in ipairs(labels:totable()) do present[label] = true end
    return present
end

-- A class that cannot be learned makes validation look bad for a reason that is hard to guess.
local function warn_of_missing_classes(train, held_out, was_split)
    local known, wanted = classes_of(train:labels()), classes_of(held_out:labels())
    if not known or not wanted then return end
    local missing = {}
    for class in pairs(wanted) do
        if not known[class] then missing[#missing + 1] = class end
    end
    if #missing == 0 then return end
    table.sort(missing)
    local why = was_split and " (validation_split takes the last part, unshuffled)" or ""
    io.stderr:write(("warning: the validation data have the class%s %s, the training data do not"
        .. "%s\n"):format(#missing > 1 and "es" or "", table.concat(missing, ", "), why))
end

local function split(data, given)
    local fraction = given.validation_split
    if type(fraction) ~= "number" or not (fraction > 0 and fraction < 1) then
        check.fail("train.fit: validation_split must lie between 0 and 1, got %s",
            tostring(fraction))
    end
    local whole = source.new("train.fit", data, given)
    return whole:split(1 - fraction)
end

--- The sources of training and validation; the second is nil if there is none.
function validation.sources(data, given)
    local held_out = given.validation_data
    if given.validation_split ~= 0 then
        if held_out then
            check.fail("train.fit: give validation_data or validation_split, not both")
        end
        data, held_out = split(data, given)
    end
    local train = source.new("train.fit", data, given)
    if not held_out then return train, nil end
    local tested = source.new("train.fit: validation_data", held_out,
        {batch_size = given.batch_size, shuffle = false, seed = given.seed})
    if given.loss ~= "mse" and type(given.loss) == "string" then
        core.no_grad(warn_of_missing_classes, train, tested, given.validation_split ~= 0)
    end
    return train, tested
end

return validation
