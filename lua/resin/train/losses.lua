--- Losses by name, or a function of the user: how a model's output is compared with the targets.
local core = require "resin.core"
local check = require "resin.nn.check"

local losses = {}

-- A target (n) of a prediction (n, 1) as (n, 1), as Keras has it; other shapes must be the same.
local function fit_target(prediction, target)
    local shape, given = prediction:shape(), target:shape()
    if #shape == #given + 1 and shape[#shape] == 1 then given[#given + 1] = 1 end
    local text, given_text = table.concat(shape, ", "), table.concat(given, ", ")
    if text ~= given_text then
        check.fail("loss: the output has shape (%s), the target (%s)", text, given_text)
    end
    return core.reshape(target, {shape = shape})
end

local function compared(op)
    return function(prediction, target, settings)
        local fitted <close> = fit_target(prediction, target)
        return op(prediction, fitted, {reduction = settings.reduction})
    end
end

local function cross_entropy(logits, target, settings)
    return core.cross_entropy(logits, target, settings)
end

local function binary_cross_entropy(logits, target, settings)
    local fitted <close> = fit_target(logits, target)
    local smoothing = settings.label_smoothing or 0
    local smoothed <close> = fitted * (1 - smoothing) + smoothing / 2
    return core.binary_cross_entropy_with_logits(logits, smoothed, {reduction = settings.reduction})
end

-- `ending` is the activation that the loss contains: a model may end with it or without it.
local kinds = {
    cross_entropy = {f = cross_entropy, ending = "softmax", smooths = true},
    binary_cross_entropy = {f = binary_cross_entropy, ending = "sigmoid", smooths = true},
    mse = {f = compared(core.mse_loss)},
    mae = {f = compared(core.l1_loss)},
    huber = {f = compared(core.huber_loss)},
}

local ALIASES = {
    categorical_crossentropy = "cross_entropy", sparse_categorical_crossentropy = "cross_entropy",
    categorical_cross_entropy = "cross_entropy", binary_crossentropy = "binary_cross_entropy",
    mean_squared_error = "mse", mean_absolute_error = "mae", l1 = "mae",
}

--- The activation that ends a model's only output, by name, or nil; and that layer.
function losses.ending(model)
    if model.many_outputs then return nil end
    for _, step in ipairs(model.plan.steps) do
        if step.output == model.plan.outputs[1] and step.layer.logits then
            local kind = step.layer.kind or step.layer.activation
            return type(kind) == "string" and kind or nil, step.layer
        end
    end
end

-- Weights by class, from 1, as a tensor for `classes` classes; those not named have 1.
local function class_tensor(weights, classes)
    local list = {}
    for class = 1, classes do list[class] = 1 end
    for class, weight in pairs(weights) do
        if math.type(class) ~= "integer" or class < 1 or class > classes then
            check.fail("class_weights: there is no class %s; classes are 1 to %d", tostring(class),
                classes)
        end
        if type(weight) ~= "number" or not (weight >= 0) then
            check.fail("class_weights: expected a number of at least 0 for class %d, got %s", class,
                tostring(weight))
        end
        list[class] = weight
    end
    return core.tensor(list)
end

-- The weight of each sample by its class; one-hot targets have that of their largest entry.
local function sample_weights(weights, target)
    if not target:dtype():find("float") then return core.take(weights, target) end
    local labels <close> = target:argmax(-1)
    return core.take(weights, labels)
end

-- As Keras: the weighted losses are added and divided by the number of samples, not of weights.
local function weighted(loss, by_class)
    local weights
    return function(prediction, target, settings)
        settings.reduction = "none"
        local each <close> = loss.f(prediction, target, settings)
        weights = weights or class_tensor(by_class, prediction:size(-1))
        local by_sample <close> = sample_weights(weights, target)
        local products <close> = each * by_sample
        return products:mean()
    end
end

-- A function's result as the mean over the batch.
local function from_function(f)
    return function(prediction, target)
        local result = f(prediction, target)
        if not core.is_tensor(result) then
            check.fail("loss: the function returned %s, not a tensor", type(result))
        end
        if result:rank() == 0 then return result end
        local each <close> = result
        return each:mean()
    end
end

local function names()
    local list = {}
    for name in pairs(kinds) do list[#list + 1] = name end
    table.sort(list)
    return table.concat(list, ", ")
end

-- Only the activation that is part of the loss may end the model: a softmax below a sigmoid's loss
-- would be left out in silence.
local function check_ending(name, loss, ending)
    if not loss.ending or not ending or ending == loss.ending then return end
    if ending == "log_softmax" and loss.ending == "softmax" then return end
    if ending == "softmax" or ending == "sigmoid" or ending == "log_softmax" then
        check.fail('loss "%s" does not fit a model that ends with %s', name, ending)
    end
end

--- The loss of a fit: {name, logits (the model leaves out its last activation), compute(prediction,
--- target) -> a scalar, the mean over the batch}. settings: loss, label_smoothing, class_weights.
function losses.find(model, settings)
    local given = settings.loss
    local smoothing = settings.label_smoothing or 0
    if type(smoothing) ~= "number" or not (smoothing >= 0 and smoothing < 1) then
        check.fail("label_smoothing must be at least 0 and less than 1, got %s",
            tostring(smoothing))
    end
    if type(given) == "function" then
        if smoothing > 0 or settings.class_weights then
            check.fail("label_smoothing and class_weights need a loss by name; do it in the "
                .. "function")
        end
        return {name = "loss", logits = false, compute = from_function(given)}
    end
    local name = ALIASES[given] or given
    local loss = kinds[name]
    if not loss then
        check.fail('unknown loss "%s"; there are %s, or a function', tostring(given), names())
    end
    if model.many_outputs then
        check.fail('loss "%s": a model with several outputs needs a function as loss', name)
    end
    check_ending(name, loss, losses.ending(model))
    if smoothing > 0 and not loss.smooths then
        check.fail('label_smoothing does not go with the loss "%s"', name)
    end
    if settings.class_weights and name ~= "cross_entropy" then
        check.fail('class_weights go with the loss "cross_entropy", not with "%s"', name)
    end
    local f = settings.class_weights and weighted(loss, settings.class_weights) or loss.f
    return {name = name, logits = loss.ending ~= nil, compute = function(prediction, target)
        return f(prediction, target, {label_smoothing = loss.smooths and smoothing or nil,
            reduction = "mean"})
    end}
end

return losses
