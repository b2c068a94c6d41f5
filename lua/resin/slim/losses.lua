--- slim.losses: losses of tensors, predictions first, then what should have come out. Each returns
--- the loss (a scalar, averaged over what has a weight) and adds it to the collection that
--- get_total_loss sums up.
---
---   slim.losses.softmax_cross_entropy(logits, slim.one_hot(labels, 10))
---   local loss = slim.losses.get_total_loss()        -- with the regularizers of all variables
---   loss:backward()
---
--- The collection starts anew with the first loss after a total; more than 1,000 losses without one
--- push out the oldest.
---
--- weights, in all of them: a number, or a tensor of the batch's (or more) leading axes; 0 leaves a
--- sample out. A model's fit takes these functions, too: {loss = slim.losses.softmax_cross_entropy,
--- one_hot = true}; it adds the regularizers itself.
local core = require "resin.core"
local arguments = require "resin.slim.arguments"
local check = require "resin.nn.check"
local node = require "resin.nn.node"
local shape = require "resin.nn.shape"
local state = require "resin.slim.state"
local variables = require "resin.slim.variables"

local losses = {}

local MOST = 1000

--- slim.losses.add_loss(loss): adds a loss of your own to the collection.
function losses.add_loss(loss)
    if not core.is_tensor(loss) then
        check.fail("slim.losses.add_loss: expected a tensor, got %s", type(loss))
    end
    local list = state.graph.losses
    if list.is_summed then
        list = {}
        state.graph.losses = list
    end
    if #list == MOST then table.remove(list, 1) end
    list[#list + 1] = loss
    return loss
end

---- Weights ------------------------------------------------------------------------------------

local function as_float(tensor)
    return tensor:dtype():find("float") and tensor or core.cast(tensor, {dtype = "float32"})
end

local function count_nonzero(weights)
    return core.sum(core.cast(core.not_equal(weights, 0), {dtype = "float32"})):item()
end

-- A tensor's shape with axes of one at its end, up to `rank`.
local function with_rank(tensor, rank)
    local sizes = tensor:shape()
    for axis = #sizes + 1, rank do sizes[axis] = 1 end
    return tensor:reshape{shape = sizes}
end

-- The weights as a tensor whose axes are the first ones of the losses'.
local function fit_weights(what, each, weights)
    local is_list = type(weights) == "table" and not getmetatable(weights)
    if is_list then weights = core.tensor(weights) end
    if not core.is_tensor(weights) then
        check.fail("%s: weights must be a number or a tensor, got %s", what, type(weights))
    end
    weights = as_float(weights)
    local rank = weights:rank()
    if rank > 1 and weights:size(rank) == 1 then
        weights = core.squeeze(weights, {axes = {rank}})
        rank = rank - 1
    end
    local leading = table.move(each:shape(), 1, rank, 1, {})
    if not shape.equal(weights:shape(), leading) then
        check.fail("%s: weights of shape %s do not fit losses of shape %s", what,
            shape.tensor_text(weights), shape.tensor_text(each))
    end
    return weights
end

-- sum (each weights) / the number of losses whose weight is not 0.
local function weighted_mean(what, each, weights)
    if type(weights) == "number" then
        return weights == 0 and each:sum() * 0 or each:mean() * weights
    end
    weights = fit_weights(what, each, weights)
    if weights:rank() == 0 then return each:mean() * weights end
    local count = count_nonzero(weights) * (each:count() // weights:count())
    local sum = (each * with_rank(weights, each:rank())):sum()
    return count == 0 and sum * 0 or sum / count
end

--- slim.losses.compute_weighted_loss(losses, weights = 1): the weighted mean of single losses,
--- added to the collection.
function losses.compute_weighted_loss(each, weights)
    return losses.add_loss(weighted_mean("slim.losses.compute_weighted_loss", each, weights or 1))
end

---- Losses -------------------------------------------------------------------------------------

local function check_tensor(what, value, which)
    if core.is_tensor(value) then return end
    check.fail("%s: expected a tensor as %s, got %s%s", what, which, type(value), node.is(value)
        and "; on nn.input a model's fit does it: {loss = " .. what .. ", one_hot = true}" or "")
end

-- f(predictions, labels, given) becomes a loss with the arguments `positional`, which have
-- `defaults`. f gets labels of the predictions' shape and dtype, and returns single losses.
local function define(name, positional, defaults, f, any_labels)
    local spec = {title = "slim.losses." .. name, positional = positional, defaults = defaults}
    defaults.weights, defaults.scope = defaults.weights or 1, check.optional
    losses[name] = function(predictions, labels, ...)
        local given = arguments.read(spec, nil, ...)
        check_tensor(spec.title, predictions, "predictions")
        check_tensor(spec.title, labels, "labels")
        if not any_labels then
            if not shape.equal(predictions:shape(), labels:shape()) then
                check.fail("%s: predictions have the shape %s, labels %s%s", spec.title,
                    shape.tensor_text(predictions), shape.tensor_text(labels),
                    labels:rank() + 1 == predictions:rank() and "; slim.one_hot makes one-hot ones"
                    or "")
            end
            labels = labels:to(predictions:dtype())
        end
        local each = f(predictions, labels, given)
        return losses.add_loss(weighted_mean(spec.title, each, given.weights))
    end
end

local function check_smoothing(what, smoothing)
    if type(smoothing) ~= "number" or not (smoothing >= 0 and smoothing <= 1) then
        check.fail("%s: label_smoothing must be between 0 and 1, got %s", what,
            tostring(smoothing))
    end
    return smoothing
end

--- softmax_cross_entropy(logits, onehot_labels, weights = 1, label_smoothing = 0, scope). Labels
--- are smoothed towards 1 / classes.
define("softmax_cross_entropy", {"weights", "label_smoothing", "scope"}, {label_smoothing = 0},
    function(logits, labels, given)
        local smoothing = check_smoothing("slim.losses.softmax_cross_entropy",
            given.label_smoothing)
        if smoothing > 0 then
            labels = labels * (1 - smoothing) + smoothing / logits:size(logits:rank())
        end
        return core.cross_entropy(logits, labels, {reduction = "none"})
    end)

--- sparse_softmax_cross_entropy(logits, labels, weights = 1, scope): labels count from 1, (N) or
--- (N, 1).
define("sparse_softmax_cross_entropy", {"weights", "scope"}, {}, function(logits, labels)
    if labels:rank() == logits:rank() and labels:size(labels:rank()) == 1 then
        labels = core.squeeze(labels, {axes = {labels:rank()}})
    end
    return core.cross_entropy(logits, labels, {reduction = "none"})
end, true)

--- sigmoid_cross_entropy(logits, multi_class_labels, weights = 1, label_smoothing = 0, scope).
--- Labels are smoothed towards 1/2.
define("sigmoid_cross_entropy", {"weights", "label_smoothing", "scope"}, {label_smoothing = 0},
    function(logits, labels, given)
        local smoothing = check_smoothing("slim.losses.sigmoid_cross_entropy",
            given.label_smoothing)
        if smoothing > 0 then labels = labels * (1 - smoothing) + smoothing / 2 end
        return core.binary_cross_entropy_with_logits(logits, labels, {reduction = "none"})
    end)

--- log_loss(predictions, labels, weights = 1, epsilon = 1e-7, scope): of probabilities.
define("log_loss", {"weights", "epsilon", "scope"}, {epsilon = 1e-7},
    function(predictions, labels, given)
        local epsilon = given.epsilon
        return -(labels * core.log(predictions + epsilon))
            - (1 - labels) * core.log(1 - predictions + epsilon)
    end)

--- mean_squared_error(predictions, labels, weights = 1, scope).
define("mean_squared_error", {"weights", "scope"}, {}, function(predictions, labels)
    return core.square(predictions - labels)
end)

--- absolute_difference(predictions, labels, weights = 1, scope).
define("absolute_difference", {"weights", "scope"}, {}, function(predictions, labels)
    return core.abs(predictions - labels)
end)

--- cosine_distance(predictions, labels, axis, weights = 1, scope): 1 - the sum of the products
--- along the axis, which counts from 1; both should have the length 1.
define("cosine_distance", {"axis", "weights", "scope"}, {axis = check.required},
    function(predictions, labels, given)
        return 1 - (predictions * labels):sum{axes = {given.axis}}
    end)

--- hinge_loss(logits, labels): labels are 0 and 1. As in TF-slim the single losses come back and
--- nothing is added to the collection: see compute_weighted_loss.
function losses.hinge_loss(logits, labels)
    check_tensor("slim.losses.hinge_loss", logits, "logits")
    check_tensor("slim.losses.hinge_loss", labels, "labels")
    if not shape.equal(logits:shape(), labels:shape()) then
        check.fail("slim.losses.hinge_loss: logits have the shape %s, labels %s",
            shape.tensor_text(logits), shape.tensor_text(labels))
    end
    return core.relu(1 - (labels:to(logits:dtype()) * 2 - 1) * logits)
end

--- mean_pairwise_squared_error(predictions, labels, weights = 1, scope): how the differences
--- between the values of a sample differ. weights: a number or one for each sample. As in TF-slim
--- the samples' losses are added, not averaged: of each 2 (sum d^2 / n - (sum d)^2 / n^2), with d
--- the differences of its n values.
function losses.mean_pairwise_squared_error(predictions, labels, ...)
    local what = "slim.losses.mean_pairwise_squared_error"
    local given = arguments.read({
        title = what, positional = {"weights", "scope"},
        defaults = {weights = 1, scope = check.optional},
    }, nil, ...)
    check_tensor(what, predictions, "predictions")
    check_tensor(what, labels, "labels")
    local differences = predictions - labels:to(predictions:dtype())
    local batch = #differences
    local n = differences:count() // batch
    local rows = differences:reshape{shape = {batch, n}}
    local each = (core.square(rows):sum(2) / n - core.square(rows:sum(2)) / (n * n)) * 2
    local weights = given.weights
    if type(weights) ~= "number" then weights = fit_weights(what, each, weights) end
    return losses.add_loss((each * weights):sum())
end

---- Totals -------------------------------------------------------------------------------------

--- slim.losses.get_losses(): the losses since the last total, a list.
function losses.get_losses()
    return table.move(state.graph.losses, 1, #state.graph.losses, 1, {})
end

--- slim.losses.get_regularization_losses([scope]): what the regularizers of the variables add, a
--- list of scalars.
function losses.get_regularization_losses(scope)
    local list = {}
    for _, variable in ipairs(variables.get_variables(scope)) do
        if variable.regularizer then list[#list + 1] = variable.regularizer(variable.tensor) end
    end
    return list
end

local function sum(list)
    local total = list[1]
    for position = 2, #list do total = total + list[position] end
    return total
end

--- slim.losses.get_regularization_loss([scope]): their sum, or the number 0 if there are none.
function losses.get_regularization_loss(scope)
    return sum(losses.get_regularization_losses(scope)) or 0
end

--- slim.losses.get_total_loss(add_regularization_losses = true): the sum of the losses since the
--- last total, and of the regularizers.
function losses.get_total_loss(add_regularization_losses)
    if type(add_regularization_losses) == "table" then
        add_regularization_losses = add_regularization_losses.add_regularization_losses
    end
    local list = losses.get_losses()
    if add_regularization_losses ~= false then
        for _, penalty in ipairs(losses.get_regularization_losses()) do
            list[#list + 1] = penalty
        end
    end
    if #list == 0 then check.fail("slim.losses.get_total_loss: there is no loss yet") end
    state.graph.losses.is_summed = true
    return sum(list)
end

return losses
