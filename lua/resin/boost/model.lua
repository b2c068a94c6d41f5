--- Fitted sums of trees: fit, predict, save and load.
local core = require "resin.core"
local check = require "resin.nn.check"
local settings = require "resin.boost.settings"
local view = require "resin.boost.view"

local Model = {}
Model.__index = Model

-- f(...) of the core; its errors get the user's position in front.
local function try(f, ...)
    local results = table.pack(pcall(f, ...))
    if not results[1] then check.fail("%s", (results[2]:gsub("^%S+%.lua:%d+: ", ""))) end
    return table.unpack(results, 2, results.n)
end

local function new_model(given, kind)
    return setmetatable({settings = given, kind = kind}, Model)
end

--- boost.tree{...}: one regression tree (boost/settings.lua has the options).
local function tree(options) return new_model(settings.tree(options), "tree") end

--- boost.gradient_boosting{...}: a sum of trees.
local function gradient_boosting(options)
    return new_model(settings.gradient_boosting(options), "gradient_boosting")
end

-- ---- Input --------------------------------------------------------------------------------------

-- A table of numbers as a tensor (rows, features).
local function table_of(what, x)
    if core.is_tensor(x) then return x end
    if type(x) ~= "table" then
        check.fail("%s: expected a tensor or a list of rows, got %s", what, type(x))
    end
    if #x == 0 then return core.zeros{0, 0} end
    return try(core.tensor, x, "float32")
end

local function column_of(what, name, y)
    if core.is_tensor(y) then return y end
    if type(y) ~= "table" then
        check.fail("%s: expected a tensor or a list of numbers as %s, got %s", what, name, type(y))
    end
    if #y == 0 then return core.zeros({0}, "float64") end
    return try(core.tensor, y, "float64")
end

-- Class names in their order, and the list with their numbers.
local function number_names(names)
    local classes, number = {}, {}
    for _, name in ipairs(names) do
        if not number[name] then
            number[name] = true
            classes[#classes + 1] = name
        end
    end
    table.sort(classes)
    for i, name in ipairs(classes) do number[name] = i end
    local labels = {}
    for i, name in ipairs(names) do labels[i] = number[name] end
    return classes, labels
end

-- Labels from 1 (or names) as classes from 0, and how many classes there are.
local function classes_of(self, y)
    local what = self.settings.what
    if type(y) == "table" and type(y[1]) == "string" then
        self.class_names, y = number_names(y)
    end
    local labels = column_of(what, "labels", y)
    if labels:count() == 0 then check.fail("%s: there are no rows", what) end
    local lowest, highest = labels:min():item(), labels:max():item()
    if not (lowest >= 1) then
        check.fail("%s: labels count from 1, got %s", what, tostring(lowest))
    end
    if highest < 2 or highest ~= math.floor(highest) then
        check.fail("%s: expected labels 1, 2, ..., at least two classes, the highest is %s", what,
            tostring(highest))
    end
    return labels:detach() - 1, math.tointeger(highest)
end

-- ---- Fitting ------------------------------------------------------------------------------------

--- model:fit(x, y[, {weights = ...}]): x is (rows, features), y (rows): numbers, or with the log
--- loss labels from 1 or a list of names. Returns the model, with
---   stages            how many were grown
---   train_loss        after each stage: list; validation_loss as well with n_iter_no_change
---   class_names       where labels were names
function Model:fit(x, y, options)
    local given = self.settings
    local weights = check.options(given.what .. ":fit", options or {},
        {weights = check.optional}).weights
    x = table_of(given.what, x)
    local classes
    if given.loss == "log_loss" then
        y, classes = classes_of(self, y)
    else
        y = column_of(given.what, "targets", y)
    end
    weights = weights and column_of(given.what, "weights", weights)
    local features = x:rank() == 2 and x:size(2) or 0
    if x:rank() == 2 and x:count() == 0 then
        check.fail("%s: the table is empty: {%s}", given.what, table.concat(x:shape(), ", "))
    end
    local told = features > 0 and settings.for_core(given, features, classes) or {loss = given.loss}
    self.trees = try(core.boost_fit, x, y, weights, told)
    self:describe()
    return self
end

-- Takes over what the core says of the trees.
function Model:describe()
    local facts = self.trees:describe()
    self.stages, self.features, self.initial = facts.stages, facts.features, facts.initial
    self.train_loss, self.validation_loss = facts.train_loss, facts.validation_loss
    self.outputs, self.classes, self.loss = facts.outputs, facts.classes, facts.loss
    self.learning_rate, self.nodes = facts.learning_rate, nil
end

function Model:check_fitted()
    if not self.trees then check.fail("boost.%s: call fit first", self.kind) end
end

-- ---- Predicting ---------------------------------------------------------------------------------

--- model:decision(x[, stages]): the sums themselves, float64 (rows, outputs): numbers, log odds of
--- class 2, or one score for each class. `stages`: only the first so many.
function Model:decision(x, stages)
    self:check_fitted()
    x = table_of("boost." .. self.kind, x)
    local scores = try(self.trees.start, self.trees, #x)
    try(self.trees.add, self.trees, x, 1, stages or self.stages, scores)
    return scores
end

local function probabilities(self, scores)
    if self.outputs > 1 then return core.softmax(scores) end
    local second = scores:sigmoid()
    return core.concatenate({1 - second, second}, {axis = 2})
end

-- What predict gives for scores: numbers, or labels from 1.
local function predictions(self, scores)
    if self.classes == 0 then return scores:reshape{#scores} end
    if self.outputs > 1 then return scores:argmax(-1) end
    return (scores:reshape{#scores}:greater(0)):to("int64") + 1
end

--- model:predict(x[, stages]): float64 (rows), or labels from 1, int64 (rows).
function Model:predict(x, stages) return predictions(self, self:decision(x, stages)) end

--- model:predict_proba(x[, stages]): the probability of each class, float64 (rows, classes).
function Model:predict_proba(x, stages)
    self:check_fitted()
    if self.classes == 0 then
        check.fail('boost.%s: probabilities need the loss "log_loss"', self.kind)
    end
    return probabilities(self, self:decision(x, stages))
end

--- for stage, predicted in model:staged_predict(x) do: after each stage.
function Model:staged_predict(x)
    self:check_fitted()
    x = table_of("boost." .. self.kind, x)
    local scores, stage = try(self.trees.start, self.trees, #x), 0
    return function()
        if stage == self.stages then return nil end
        stage = stage + 1
        try(self.trees.add, self.trees, x, stage, stage, scores)
        return stage, predictions(self, scores:clone())
    end
end

--- model:feature_importances(): how much of the loss each feature took away, adding up to 1.
function Model:feature_importances()
    self:check_fitted()
    return self.trees:importances()
end

-- ---- Single trees -------------------------------------------------------------------------------

--- model:tree([stage = 1[, class = 1]]): one tree to look at (boost/view.lua): :dump(),
--- :draw(path), .nodes.
function Model:tree(stage, class)
    self:check_fitted()
    stage, class = stage or 1, class or 1
    local fits = check.is_integer(stage, 1) and stage <= self.stages
        and check.is_integer(class, 1) and class <= self.outputs
    if not fits then
        check.fail("boost.%s: there is no tree (%s, %s) among %d stages of %d", self.kind,
            tostring(stage), tostring(class), self.stages, self.outputs)
    end
    if not self.nodes then
        self.nodes = {}
        for _, entry in ipairs(self.trees:export()) do self.nodes[entry[1]] = entry[2] end
    end
    return view.tree(self.nodes, (stage - 1) * self.outputs + class, self.settings.feature_names)
end

--- model:dump([path]): all trees as text; to a file if there is a path.
function Model:dump(path)
    self:check_fitted()
    local out = {}
    for stage = 1, self.stages do
        for class = 1, self.outputs do
            local name = self.outputs > 1 and (" class %d"):format(class) or ""
            out[#out + 1] = ("tree %d%s\n%s"):format(stage, name, self:tree(stage, class):dump())
        end
    end
    local text = table.concat(out, "\n")
    if path then view.write(path, text) end
    return text
end

--- Of a model of one tree, that tree.
function Model:draw(path) return self:tree(1):draw(path) end

-- ---- Files --------------------------------------------------------------------------------------

--- model:save(path): a safetensors file; the settings of fitting are not kept, the trees are.
function Model:save(path)
    self:check_fitted()
    local names = self.settings.feature_names
    local strings = {
        format = "resin.boost", kind = self.kind, loss = self.loss,
        features = tostring(self.features), classes = tostring(self.classes),
        learning_rate = ("%.17g"):format(self.learning_rate),
        feature_names = names and table.concat(names, "\n"),
        class_names = self.class_names and table.concat(self.class_names, "\n"),
    }
    try(core.safetensors_write, path, self.trees:export(), strings)
end

local function lines_of(text)
    if not text then return nil end
    local list = {}
    for line in (text .. "\n"):gmatch("(.-)\n") do list[#list + 1] = line end
    return list
end

local function read_trees(path, file)
    local strings, tensors = file:metadata(), {}
    if strings.format ~= "resin.boost" then check.fail("%s: this file holds no trees", path) end
    for _, name in ipairs(file:names()) do tensors[name] = file:load(name) end
    local trees = core.boost_import(tensors, {loss = strings.loss,
        features = math.tointeger(tonumber(strings.features)),
        classes = math.tointeger(tonumber(strings.classes)),
        learning_rate = tonumber(strings.learning_rate)})
    return trees, strings
end

--- boost.load(path): a model that predicts as the saved one did, bit for bit.
local function load(path)
    local file = try(core.safetensors_open, path)
    local ok, trees, strings = pcall(read_trees, path, file)
    file:close()
    if not ok then check.fail("boost.load: %s: %s", path, trees) end
    local kind = strings.kind == "tree" and "tree" or "gradient_boosting"
    local given = {what = "boost." .. kind, feature_names = lines_of(strings.feature_names)}
    local model = new_model(given, kind)
    given.loss = strings.loss
    model.trees, model.class_names = trees, lines_of(strings.class_names)
    model:describe()
    return model
end

return {tree = tree, gradient_boosting = gradient_boosting, load = load}
