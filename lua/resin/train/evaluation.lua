--- What training and evaluation have in common: the loss and metrics of batches; and the functions
--- train.evaluate and train.predict.
local core = require "resin.core"
local activations = require "resin.nn.activations"
local check = require "resin.nn.check"
local losses = require "resin.train.losses"
local metrics = require "resin.train.metrics"
local source = require "resin.train.source"

local evaluation = {}

--- A model of nn.model, or an error.
function evaluation.check_model(what, model)
    if type(model) ~= "table" or not rawget(model, "plan") then
        check.fail("%s: expected a model (nn.model) first, got %s", what, type(model))
    end
end

--- How batches of a model are judged: {model, loss, metrics, finish, one_hot}. settings: loss,
--- metrics, label_smoothing, class_weights, one_hot.
function evaluation.setup(model, settings)
    local loss = losses.find(model, settings)
    local ending = loss.logits and losses.ending(model)
    local finish = activations.is_in_loss(ending) and activations.find("metrics", ending) or nil
    return {model = model, loss = loss, metrics = metrics.find(settings.metrics, loss),
        finish = finish, one_hot = settings.one_hot}
end

--- Integer labels as one-hot vectors if the setup asks for that; `y` is released then, if owned.
function evaluation.targets(setup, from, y)
    if not y then check.fail("train: the data have no targets (labels)") end
    if not setup.one_hot or y:dtype():find("float") then return y end
    local classes = from.classes or setup.model.outputs[1].sizes[#setup.model.outputs[1].sizes]
    local made = core.one_hot(y, {classes = classes})
    if from.owned then y:release() end
    return made
end

--- How many samples a batch has.
function evaluation.samples(x) return core.is_tensor(x) and #x or #x[1] end

--- Releases a prediction, which may be a list, at the end of a scope.
function evaluation.closing(prediction)
    if core.is_tensor(prediction) then return prediction end
    return setmetatable({}, {__close = function()
        for _, tensor in ipairs(prediction) do tensor:release() end
    end})
end

--- Adds loss (a number) and metrics of a batch to sums.
function evaluation.count(setup, sums, n, loss, prediction, y)
    local made
    local function finished()
        if not setup.finish then return prediction end
        made = made or setup.finish(prediction)
        return made
    end
    core.no_grad(sums.add, sums, n, loss, prediction, y, finished)
    if made then made:release() end
end

local function evaluate_batch(setup, sums, penalty, x, y)
    local prediction = setup.model(x, {logits = setup.loss.logits})
    local closing <close> = evaluation.closing(prediction)
    local loss <close> = core.no_grad(setup.loss.compute, prediction, y)
    evaluation.count(setup, sums, evaluation.samples(x), loss:item() + penalty, prediction, y)
end

--- Goes over all batches of a source. Returns the sums, or nil when it was cancelled meanwhile
--- (resin.cancel); the flag stays set.
function evaluation.run(setup, from, penalty)
    local sums = metrics.sums(setup.metrics)
    for x, y in from:epoch(1, 1) do
        y = evaluation.targets(setup, from, y)
        evaluate_batch(setup, sums, penalty, x, y)
        source.release(from.owned, x, y)
        if core.cancelled() then return nil end
    end
    if sums.samples == 0 then check.fail("train.evaluate: there are no samples") end
    return sums
end

---- Public --------------------------------------------------------------------------------------

local EVALUATE_OPTIONS = {loss = "cross_entropy", metrics = {"accuracy"}, batch_size = 32,
    label_smoothing = 0, one_hot = false, augment = check.optional, seed = 1, shuffle = false}

-- The source is closed at the end of the scope, whatever happened.
local function closing_source(what, data, given)
    local from = source.new(what, data, given)
    return from, setmetatable({}, {__close = function() from:close() end})
end

-- What the layers' l1 and l2 add to the loss. Only a model with some makes its flat buffer here,
-- for the parameters may be those of an optimizer over loose tensors.
local function penalty(model)
    for _, _, entry in model:named_parameters() do
        if (entry.l1 or 0) ~= 0 or (entry.l2 or 0) ~= 0 then return model:penalty() end
    end
    return 0
end

--- train.evaluate(model, data, {loss = "cross_entropy", metrics = {"accuracy"}, batch_size = 32,
--- label_smoothing, one_hot}): {loss =, accuracy =}, means over the samples. nil and "cancelled"
--- when resin.cancel (Ctrl-C) stopped it.
function evaluation.evaluate(model, data, options)
    evaluation.check_model("train.evaluate", model)
    local given = check.options("train.evaluate", options or {}, EVALUATE_OPTIONS)
    given.batch_size = check.integer("train.evaluate", "batch_size", given.batch_size, 1)
    local setup = evaluation.setup(model, given)
    local from, closing <close> = closing_source("train.evaluate", data, given)
    local sums = evaluation.run(setup, from, penalty(model))
    if not sums then
        core.cancelled(true)
        return nil, "cancelled"
    end
    return sums:write{}
end

local function joined(parts)
    if #parts == 1 then return parts[1] end
    local whole = core.concatenate(parts, {axis = 1})
    for _, part in ipairs(parts) do part:release() end
    return whole
end

--- train.predict(model, data, {batch_size = 32}): what the model says of all samples, behind its
--- last activation: one tensor, a list for a model with several outputs. Targets in the data are
--- not looked at. nil and "cancelled" when resin.cancel (Ctrl-C) stopped it.
function evaluation.predict(model, data, options)
    evaluation.check_model("train.predict", model)
    local given = check.options("train.predict", options or {},
        {batch_size = 32, augment = check.optional, seed = 1, shuffle = false})
    given.batch_size = check.integer("train.predict", "batch_size", given.batch_size, 1)
    local from, closing <close> = closing_source("train.predict", data, given)
    local parts = {}
    for position = 1, #model.outputs do parts[position] = {} end
    for x, y in from:epoch(1, 1) do
        local prediction = model(x)
        if core.is_tensor(prediction) then prediction = {prediction} end
        for position, tensor in ipairs(prediction) do
            parts[position][#parts[position] + 1] = tensor
        end
        source.release(from.owned, x, y)
        if core.cancelled() then
            core.cancelled(true)
            return nil, "cancelled"
        end
    end
    if #parts[1] == 0 then check.fail("train.predict: there are no samples") end
    for position, list in ipairs(parts) do parts[position] = joined(list) end
    return model.many_outputs and parts or parts[1]
end

return evaluation
