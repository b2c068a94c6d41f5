--- Callbacks: tables that train.fit calls, with any of these methods:
---
---   on_train_begin(run)            on_epoch_begin(epoch, run)
---   on_step_end(step, run)         on_epoch_end(epoch, row, run)
---   on_train_end(run)
---
---   state() -> table of numbers[, list of {name, tensor}]     what a checkpoint keeps of it
---   load_state(table, tensors by name)
---
--- run has model, optimizer, history, epoch, batch and step (done so far), columns (what a row will
--- have) and stop(reason), which ends the training. In on_epoch_end the model has its averaged
--- weights, if there are any.
local core = require "resin.core"
local check = require "resin.nn.check"
local history = require "resin.train.history"

local callbacks = {}

---- Watching a value ----------------------------------------------------------------------------

local WATCH = {monitor = "val_loss", mode = "auto", min_delta = 0}

-- Adds options.monitor, mode and min_delta to what a callback takes.
local function watch_options(what, options, own)
    for name, default in pairs(WATCH) do
        if own[name] == nil then own[name] = default end
    end
    local given = check.options(what, options or {}, own)
    if given.mode ~= "auto" and given.mode ~= "min" and given.mode ~= "max" then
        check.fail('%s: mode must be "auto", "min" or "max", got %s', what, tostring(given.mode))
    end
    given.what = what
    local name = given.monitor
    local grows = name:find("acc") or name:find("top_%d") or name:find("auc")
    given.sign = (given.mode == "max" or given.mode == "auto" and grows) and -1 or 1
    return given
end

local function is_better(given, value, best)
    return given.sign * value < given.sign * best - math.abs(given.min_delta)
end

local function worst(given) return given.sign * math.huge end

local function check_monitor(given, run)
    for _, name in ipairs(run.columns) do
        if name == given.monitor then return end
    end
    check.fail('%s: there is no "%s" to watch; an epoch has %s', given.what, given.monitor,
        table.concat(run.columns, ", "))
end

---- Early stopping ------------------------------------------------------------------------------

local EarlyStopping = {}
EarlyStopping.__index = EarlyStopping

--- train.early_stopping{monitor = "val_loss", patience = 0, min_delta = 0, mode = "auto", baseline,
--- restore_best = false, start_from_epoch = 0}: ends the training when the value has not become
--- better for `patience` epochs, as Keras does. restore_best puts the weights of the best epoch
--- back at the end.
function callbacks.early_stopping(options)
    local given = watch_options("early_stopping", options, {patience = 0, restore_best = false,
        baseline = check.optional, start_from_epoch = 0})
    check.integer("early_stopping", "patience", given.patience, 0)
    return setmetatable({given = given}, EarlyStopping)
end

function EarlyStopping:on_train_begin(run)
    check_monitor(self.given, run)
    self.best, self.wait, self.best_epoch = worst(self.given), 0, 0 -- a second fit begins anew
    if self.given.restore_best then
        self.model, self.best_weights = run.model, {}
        for i, entry in ipairs(run.model:variables()) do
            self.best_weights[i] = core.zeros(entry.tensor:shape(), entry.tensor:dtype())
        end
    end
end

-- Copies between the model and the list of the best weights.
function EarlyStopping:copy(to_model)
    core.no_grad(function()
        for i, entry in ipairs(self.model:variables()) do
            local own, best = entry.tensor, self.best_weights[i]
            if to_model then own:copy_(best) else best:copy_(own) end
        end
    end)
end

function EarlyStopping:on_epoch_end(epoch, row, run)
    local given, value = self.given, row[self.given.monitor]
    if not value or epoch <= given.start_from_epoch then return end
    self.wait = self.wait + 1
    if self.best_epoch == 0 or is_better(given, value, self.best) then
        self.best, self.best_epoch = value, epoch
        if given.restore_best then self:copy(false) end
        local baseline = given.baseline or worst(given)
        if is_better(given, value, baseline) then
            self.wait = 0
            return
        end
    end
    if self.wait >= given.patience and epoch > 1 then
        run:stop(("early stopping: %s was best in epoch %d"):format(given.monitor,
            self.best_epoch))
    end
end

function EarlyStopping:on_train_end()
    if self.given.restore_best and self.best_epoch > 0 then self:copy(true) end
end

function EarlyStopping:state()
    local tensors = {}
    for i, tensor in ipairs(self.best_weights or {}) do tensors[i] = {tostring(i), tensor} end
    return {best = self.best, wait = self.wait, best_epoch = self.best_epoch}, tensors
end

function EarlyStopping:load_state(stored, tensors)
    self.best, self.wait, self.best_epoch = stored.best, stored.wait, stored.best_epoch
    for i, tensor in ipairs(self.best_weights or {}) do
        if tensors[tostring(i)] then tensor:copy_(tensors[tostring(i)]) end
    end
end

---- Learning rate -------------------------------------------------------------------------------

local Plateau = {}
Plateau.__index = Plateau

--- train.reduce_on_plateau{monitor = "val_loss", factor = 0.1, patience = 10, min_delta = 1e-4,
--- cooldown = 0, min_rate = 0, mode = "auto"}: multiplies the learning rate by `factor` when the
--- value has not become better for `patience` epochs, as Keras does.
function callbacks.reduce_on_plateau(options)
    local given = watch_options("reduce_on_plateau", options,
        {factor = 0.1, patience = 10, min_delta = 1e-4, cooldown = 0, min_rate = 0})
    check.integer("reduce_on_plateau", "patience", given.patience, 0)
    if type(given.factor) ~= "number" or not (given.factor > 0 and given.factor < 1) then
        check.fail("reduce_on_plateau: factor must lie between 0 and 1, got %s",
            tostring(given.factor))
    end
    return setmetatable({given = given}, Plateau)
end

function Plateau:on_train_begin(run)
    check_monitor(self.given, run)
    self.best, self.wait, self.cooldown = worst(self.given), 0, 0
    if run.optimizer.schedule then
        check.fail("reduce_on_plateau: the optimizer has a schedule; give it a number as rate")
    end
end

function Plateau:on_epoch_end(_, row, run)
    local given, value = self.given, row[self.given.monitor]
    if not value then return end
    if self.cooldown > 0 then self.cooldown, self.wait = self.cooldown - 1, 0 end
    if is_better(given, value, self.best) then
        self.best, self.wait = value, 0
    elseif self.cooldown == 0 then
        self.wait = self.wait + 1
        local rate = run.optimizer:learning_rate()
        if self.wait >= given.patience and rate > given.min_rate then
            run.optimizer:set_learning_rate(math.max(rate * given.factor, given.min_rate))
            self.cooldown, self.wait = given.cooldown, 0
        end
    end
end

function Plateau:state()
    return {best = self.best, wait = self.wait, cooldown = self.cooldown}
end

function Plateau:load_state(stored)
    self.best, self.wait, self.cooldown = stored.best, stored.wait, stored.cooldown
end

--- train.schedule(function(epoch, rate) return new_rate end): the learning rate by epoch. Schedules
--- by step (optim.one_cycle, ...) are given to the optimizer as its learning_rate.
function callbacks.schedule(f)
    if type(f) ~= "function" then
        check.fail("schedule: expected a function of epoch and rate, got %s", type(f))
    end
    return {
        on_epoch_begin = function(_, epoch, run)
            local rate = f(epoch, run.optimizer:learning_rate())
            if type(rate) ~= "number" then
                check.fail("schedule: expected a number for epoch %d, got %s", epoch, type(rate))
            end
            run.optimizer:set_learning_rate(rate)
        end,
    }
end

---- Files ---------------------------------------------------------------------------------------

-- "best-{epoch}-{val_loss}" with the row's values.
local function fill_in(path, row)
    return (path:gsub("{([%w_]+)}", function(name)
        local value = row[name]
        if not value then check.fail("checkpoint: there is no {%s} for %s", name, path) end
        return math.type(value) == "integer" and tostring(value) or ("%.4f"):format(value)
    end))
end

local Checkpoint = {}
Checkpoint.__index = Checkpoint

--- train.checkpoint{path, best_only = false, monitor = "val_loss", mode = "auto", min_delta = 0,
--- every = 1}: writes the model's weights (for model:load) after every so many epochs, with
--- best_only only when the value is the best so far. The path may have {epoch}, {val_loss} ... in
--- it. What a training can be resumed from is fit's option `checkpoint`.
function callbacks.checkpoint(options)
    if type(options) == "string" then options = {path = options} end
    if type(options) == "table" and options[1] and not options.path then
        local named = {}
        for name, value in pairs(options) do named[name == 1 and "path" or name] = value end
        options = named
    end
    local given = watch_options("checkpoint", options,
        {path = check.required, best_only = false, every = 1})
    check.integer("checkpoint", "every", given.every, 1)
    return setmetatable({given = given, best = worst(given), saved = 0}, Checkpoint)
end

function Checkpoint:on_train_begin(run)
    if self.given.best_only then check_monitor(self.given, run) end
end

function Checkpoint:on_epoch_end(epoch, row, run)
    local given, value = self.given, row[self.given.monitor]
    if given.best_only then
        if not value or self.saved > 0 and not is_better(given, value, self.best) then return end
        self.best = value
    elseif epoch % given.every ~= 0 then
        return
    end
    self.saved = epoch
    run.model:save(fill_in(given.path, row), {epoch = epoch})
end

function Checkpoint:state() return {best = self.best, saved = self.saved} end
function Checkpoint:load_state(stored) self.best, self.saved = stored.best, stored.saved end

--- train.csv_log(path): the history as a CSV file, written anew after each epoch, so that a resumed
--- training leaves the whole of it.
function callbacks.csv_log(path)
    if type(path) == "table" then path = path.path or path[1] end
    if type(path) ~= "string" then
        check.fail("csv_log: expected the path of a file, got %s", type(path))
    end
    return {on_epoch_end = function(_, _, _, run) history.write_csv(path, run.history) end}
end

return callbacks
