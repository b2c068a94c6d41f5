--- The options of boost.tree and boost.gradient_boosting, and what the core is told of them.
---
--- Both take (defaults of the tree in brackets):
---   max_depth = 3 (none)   false or 0: no limit
---   max_leaf_nodes         no limit; else the leaf that gains most is split next
---   min_samples_split = 2, min_samples_leaf = 1   rows of a node that is split, and of a leaf
---   max_features           features drawn at each node: a count, a part (0.5), "sqrt" or "log2"
---   criterion = "friedman_mse" ("squared_error")  the same splits, another order of best leaves
---   min_impurity_decrease = 0
---   seed = 1, feature_names
--- gradient_boosting also:
---   n_estimators = 100, learning_rate = 0.1, subsample = 1
---   loss = "squared_error", "absolute_error", "huber" and "quantile" (both with alpha = 0.9),
---          "log_loss" for classes
---   init = "best" (the best constant) or "zero"
---   n_iter_no_change       stages without a gain of tol (1e-4) on the part validation_fraction
---                          (0.1) of the rows, after which growing ends
---   method = "exact" or "hist". hist has no criterion and no min_impurity_decrease, but
---     growth = "depth" or "leaf" (31 leaves, if max_leaf_nodes says nothing else)
---     max_bins = 255, l2 = 0, min_gain = 0, min_child_weight = 1e-3
---     categorical = {3, "colour"}        features whose values are categories 0 to 254; when
---                                        predicting, one that a node never saw goes right, and
---                                        what is no category goes as missing values do
---     monotone = {[1] = 1, price = -1}   features in which the result only rises or falls, with
---                                        the losses squared_error and log_loss
local check = require "resin.nn.check"

local settings = {}

local required_by_method = {
    criterion = "exact", min_impurity_decrease = "exact", growth = "hist", max_bins = "hist",
    l2 = "hist", min_gain = "hist", min_child_weight = "hist", categorical = "hist",
    monotone = "hist",
}

local TREE = {
    max_depth = check.optional, max_leaf_nodes = check.optional, min_samples_split = 2,
    min_samples_leaf = 1, max_features = check.optional, criterion = "squared_error",
    min_impurity_decrease = 0, seed = 1, feature_names = check.optional,
}

local BOOSTING = {
    max_depth = 3, max_leaf_nodes = check.optional, min_samples_split = 2, min_samples_leaf = 1,
    max_features = check.optional, criterion = check.optional,
    min_impurity_decrease = check.optional, seed = 1, feature_names = check.optional,
    n_estimators = 100, learning_rate = 0.1, subsample = 1, loss = "squared_error", alpha = 0.9,
    init = "best", n_iter_no_change = check.optional, validation_fraction = 0.1, tol = 1e-4,
    method = "exact", growth = check.optional, max_bins = check.optional, l2 = check.optional,
    min_gain = check.optional, min_child_weight = check.optional, categorical = check.optional,
    monotone = check.optional,
}

local function choice(what, given, name, allowed)
    for _, value in ipairs(allowed) do
        if given[name] == value then return end
    end
    check.fail('%s: expected %s to be "%s", got %s', what, name, table.concat(allowed, '" or "'),
        tostring(given[name]))
end

-- "No limit" is 0 in the core, which checks the rest.
local function limit(what, given, name)
    local value = given[name]
    if not value or value == math.huge then
        given[name] = 0
    else
        given[name] = check.integer(what, name, value, 0)
    end
end

function settings.tree(options)
    local given = check.options("boost.tree", options or {}, TREE)
    choice("boost.tree", given, "criterion", {"squared_error", "friedman_mse"})
    limit("boost.tree", given, "max_depth")
    limit("boost.tree", given, "max_leaf_nodes")
    given.n_estimators, given.learning_rate, given.init = 1, 1, "zero"
    given.loss, given.method, given.what = "squared_error", "exact", "boost.tree"
    return given
end

function settings.gradient_boosting(options)
    local what = "boost.gradient_boosting"
    local given = check.options(what, options or {}, BOOSTING)
    choice(what, given, "loss",
        {"squared_error", "absolute_error", "huber", "quantile", "log_loss"})
    choice(what, given, "init", {"best", "zero"})
    choice(what, given, "method", {"exact", "hist"})
    for name, method in pairs(required_by_method) do
        if given[name] ~= nil and given.method ~= method then
            check.fail('%s: the option "%s" needs method = "%s"', what, name, method)
        end
    end
    given.criterion = given.criterion or "friedman_mse"
    given.growth = given.growth or "depth"
    choice(what, given, "criterion", {"friedman_mse", "squared_error"})
    choice(what, given, "growth", {"depth", "leaf"})
    limit(what, given, "max_depth")
    limit(what, given, "max_leaf_nodes")
    if given.growth == "leaf" and given.max_leaf_nodes == 0 then given.max_leaf_nodes = 31 end
    given.what = what
    return given
end

-- ---- By feature ---------------------------------------------------------------------------------

local function feature_position(given, feature, features)
    if check.is_integer(feature, 1) and feature <= features then return math.tointeger(feature) end
    for position, name in ipairs(given.feature_names or {}) do
        if name == feature then return position end
    end
    check.fail("%s: there is no feature %s among %d", given.what, tostring(feature), features)
end

-- {3, "colour"} as a list with 1 at these features.
local function categorical_list(given, features)
    if not given.categorical then return nil end
    local list = {}
    for feature = 1, features do list[feature] = 0 end
    for _, feature in ipairs(given.categorical) do
        list[feature_position(given, feature, features)] = 1
    end
    return list
end

local function monotone_list(given, features)
    if not given.monotone then return nil end
    local list = {}
    for feature = 1, features do list[feature] = 0 end
    for feature, direction in pairs(given.monotone) do
        list[feature_position(given, feature, features)] = direction
    end
    return list
end

-- As scikit-learn: a part is rounded down, to at least one feature.
local function feature_count(given, features)
    local wanted = given.max_features
    if wanted == nil then return 0 end
    if wanted == "sqrt" then return math.max(1, math.floor(math.sqrt(features))) end
    if wanted == "log2" then return math.max(1, math.floor(math.log(features, 2))) end
    if math.type(wanted) == "float" and wanted > 0 and wanted <= 1 then
        return math.max(1, math.floor(wanted * features))
    end
    if math.type(wanted) == "integer" and wanted >= 1 and wanted <= features then return wanted end
    check.fail('%s: expected max_features of 1 to %d, a part up to 1.0, "sqrt" or "log2", got %s',
        given.what, features, tostring(wanted))
end

--- What the core is told for a table of so many features.
function settings.for_core(given, features, classes)
    if given.feature_names and #given.feature_names ~= features then
        check.fail("%s: %d feature_names for a table of %d features", given.what,
            #given.feature_names, features)
    end
    return {
        loss = given.loss, classes = classes, alpha = given.alpha,
        n_estimators = given.n_estimators, learning_rate = given.learning_rate,
        subsample = given.subsample, zero_start = given.init == "zero",
        max_depth = given.max_depth, max_leaf_nodes = given.max_leaf_nodes,
        min_samples_split = given.min_samples_split, min_samples_leaf = given.min_samples_leaf,
        max_features = feature_count(given, features), seed = given.seed,
        n_iter_no_change = given.n_iter_no_change, tolerance = given.tol,
        validation_fraction = given.validation_fraction,
        histogram = given.method == "hist", friedman = given.criterion == "friedman_mse",
        min_impurity_decrease = given.min_impurity_decrease,
        max_bins = given.max_bins, l2 = given.l2, min_gain = given.min_gain,
        min_child_weight = given.min_child_weight,
        categorical = categorical_list(given, features),
        monotone = monotone_list(given, features),
    }
end

return settings
