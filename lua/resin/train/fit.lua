--- train.fit: the loop.
local core = require "resin.core"
local check = require "resin.nn.check"
local average = require "resin.train.average"
local checkpoint = require "resin.train.checkpoint"
local evaluation = require "resin.train.evaluation"
local files = require "resin.files"
local metrics = require "resin.train.metrics"
local optim = require "resin.optim"
local progress = require "resin.train.progress"
local source = require "resin.train.source"
local validation = require "resin.train.validation"

-- See the description of fit at the end.
local OPTIONS = {
    optimizer = check.required, loss = "cross_entropy", metrics = {"accuracy"}, batch_size = 32,
    epochs = 1, shuffle = true, seed = check.optional, augment = check.optional,
    validation_data = check.optional, validation_split = 0, validation_every = 1,
    class_weights = check.optional, label_smoothing = 0, one_hot = false, accumulate = 1,
    average = check.optional, callbacks = check.optional, checkpoint = check.optional,
    resume = false, verbose = check.optional,
}

---- Preparing -----------------------------------------------------------------------------------

local Run = {}
Run.__index = Run

--- Ends the training after the step (or epoch) it is in.
function Run:stop(reason) self.stopped = self.stopped or reason or "stopped by a callback" end

function Run:call(method, ...)
    for _, callback in ipairs(self.callbacks) do
        if callback[method] then callback[method](callback, ...) end
    end
end

-- Runs f with the averaged weights in the model, if there are any.
function Run:with_average(f, ...)
    if not self.average then return f(...) end
    self.average:swap()
    local results = table.pack(pcall(f, ...))
    self.average:swap()
    if not results[1] then error(results[2], 0) end
    return table.unpack(results, 2, results.n)
end

local function find_optimizer(model, given)
    if type(given) == "string" then
        local make = ({sgd = 1, adam = 1, adamw = 1, rmsprop = 1})[given] and optim[given]
        if not make then
            check.fail('train.fit: unknown optimizer "%s"; there are sgd, adam, adamw, rmsprop',
                given)
        end
        return make{model}
    end
    if type(given) ~= "table" or not given.state_in_c then
        check.fail("train.fit: expected an optimizer (optim.adam{model}) or its name, got %s",
            type(given))
    end
    return given
end

-- Whether parameters have l1 or l2 penalties, which belong to the loss that is shown.
local function has_penalty(parameters)
    for i = 1, #parameters do
        local segment = parameters:get(i)
        if segment.l1 ~= 0 or segment.l2 ~= 0 then return true end
    end
    return false
end

-- The option `checkpoint`: a path, or {path, every = 1 (epochs), every_steps =}.
local function checkpoint_options(given)
    if given == nil then return nil end
    local settings = check.options("train.fit: checkpoint", given,
        {path = check.required, every = 1, every_steps = check.optional}, "path")
    if type(settings.path) ~= "string" then
        check.fail("train.fit: checkpoint: expected the path of a file, got %s",
            type(settings.path))
    end
    settings.every = check.integer("train.fit: checkpoint", "every", settings.every, 1)
    if settings.every_steps then
        check.integer("train.fit: checkpoint", "every_steps", settings.every_steps, 1)
    end
    return settings
end

local function read_options(options)
    local given = check.options("train.fit", options or {}, OPTIONS)
    for _, name in ipairs{"batch_size", "epochs", "accumulate", "validation_every"} do
        given[name] = check.integer("train.fit", name, given[name], 1)
    end
    given.seed = given.seed or core.random_state().seed
    given.checkpoint = checkpoint_options(given.checkpoint)
    if given.resume and not given.checkpoint then
        check.fail("train.fit: resume needs checkpoint, the path of the file")
    end
    local decay = given.average
    if decay and (type(decay) ~= "number" or not (decay > 0 and decay < 1)) then
        check.fail("train.fit: average is the decay of averaged weights, between 0 and 1, got %s",
            tostring(decay))
    end
    return given
end

-- The names of a row's values, in the order in which they are shown and written.
local function columns_of(run)
    local shown = run.sums:names()
    if run.held_out then
        for _, name in ipairs(run.sums:names()) do shown[#shown + 1] = "val_" .. name end
    end
    local columns = table.move(shown, 1, #shown, 2, {"epoch"})
    for _, name in ipairs{"lr", "seconds", "waited", "val_seconds", "steps", "images"} do
        columns[#columns + 1] = name
    end
    return shown, columns
end

local function new_run(model, data, given)
    local run = setmetatable({
        model = model, given = given, epoch = 1, batch = 0, step = 0, seconds = 0.0, waited = 0.0,
        history = {}, callbacks = given.callbacks or {}, batch_size = given.batch_size,
        seed = given.seed, shuffle = given.shuffle, accumulate = given.accumulate,
    }, Run)
    run.setup = evaluation.setup(model, given)
    run.source, run.held_out = validation.sources(data, given)
    run.optimizer = find_optimizer(model, given.optimizer)
    run.parameters = run.optimizer.parameters
    run.penalized = has_penalty(run.parameters)
    if given.average then run.average = average.new(model, run.parameters, given.average) end
    run.sums = metrics.sums(run.setup.metrics)
    run.shown, run.columns = columns_of(run)
    run.history.columns = run.columns
    run.progress = progress.new(given.verbose)
    return run
end

---- Steps ---------------------------------------------------------------------------------------

-- Ends a training that has come to nothing; the checkpoint stays what it was.
local function give_up(run, format, ...)
    local settings = run.given.checkpoint
    local kept = settings and files.exists(settings.path)
        and ("; the last good checkpoint is " .. settings.path) or ""
    run.progress:leave_line()
    check.fail("train.fit: %s; try a learning rate lower than %g%s", format:format(...),
        run.optimizer.state_in_c:rate(), kept)
end

-- A loss that is not a number will not become one again.
local function guard(run, value)
    if value == value and value ~= math.huge then return end
    give_up(run, "the loss is %s at step %d (epoch %d, batch %d)",
        value ~= value and "NaN" or "infinite", run.step + 1, run.epoch,
        run.batch + run.group.batches + 1)
end

-- The penalties are part of the loss that is shown; the optimizer adds their gradients.
local function penalty(run) return run.penalized and run.parameters:penalty() or 0 end

-- Batches of a group count by their samples: the first one fully, the others in proportion, and
-- `apply` divides.
local function backward(run, loss, n)
    local group = run.group
    if group.batches == 0 then
        group.first = n
        loss:backward()
    else
        local weight <close> = core.full({}, n / group.first, loss:dtype())
        loss:backward(weight)
    end
    group.batches, group.samples = group.batches + 1, group.samples + n
end

-- Forward and backward of one batch.
local function learn(run, x, y)
    local setup, n = run.setup, evaluation.samples(x)
    local prediction = run.model(x, {training = true, logits = setup.loss.logits})
    local closing <close> = evaluation.closing(prediction)
    local loss <close> = setup.loss.compute(prediction, y)
    local value = loss:item()
    guard(run, value)
    value = value + penalty(run)
    backward(run, loss, n)
    evaluation.count(setup, run.sums, n, value, prediction, y)
end

-- One step of the optimizer with what the group's batches have left.
local function apply(run)
    local group = run.group
    if group.batches > 1 then
        core.no_grad(function()
            local grad = run.parameters:flat_grad()
            local scaled <close> = grad * (group.first / group.samples)
            grad:copy_(scaled)
        end)
    end
    run.optimizer:step()
    run.optimizer:clear_grads()
    run.step, run.batch = run.step + 1, run.batch + group.batches
    run.group = {batches = 0, samples = 0}
    if run.average then run.average:update(run.step) end
end

local function save(run)
    local settings = run.given.checkpoint
    if not settings then return end
    local bad = checkpoint.find_bad_weights(run.model)
    if bad then give_up(run, "%s is not finite after step %d", bad, run.step) end
    checkpoint.save(run, settings.path)
end

-- After each step: the callbacks, the checkpoint, and whether to go on.
local function after_step(run)
    run:call("on_step_end", run.step, run)
    if core.cancelled(true) then
        run.interrupted = true
        run:stop("interrupted")
    end
    local settings = run.given.checkpoint
    local due = settings and settings.every_steps and run.step % settings.every_steps == 0
    if run.stopped or due then save(run) end
    return not run.stopped
end

-- The training part of an epoch, from batch run.batch + 1 on; false if it was left early.
local function train_epoch(run)
    local from, last = run.source, core.clock()
    if from.batches and run.batch >= from.batches then return true end
    run.group = {batches = 0, samples = 0}
    local function values() return run.sums:write{} end
    local function tick(name)
        local now = core.clock()
        run.seconds = run.seconds + (now - last)
        if name then run[name] = run[name] + (now - last) end
        last = now
    end
    local next_batch = from:epoch(run.epoch, run.batch + 1)
    while true do
        local x, y = next_batch()
        tick("waited")
        if x ~= nil then
            y = evaluation.targets(run.setup, from, y)
            learn(run, x, y)
            source.release(from.owned, x, y)
        end
        local full = run.group.batches == run.accumulate
        local due = full or x == nil and run.group.batches > 0
        if due then apply(run) end
        tick()
        if due then
            if not after_step(run) then return false end
            last = core.clock() -- what callbacks and checkpoints took is not training
        end
        if x == nil then return true end
        run.progress:step(run.shown, values)
    end
end

---- Epochs --------------------------------------------------------------------------------------

-- Validation, into row; false if it was cancelled.
local function validate(run, row)
    if not run.held_out or run.epoch % run.given.validation_every ~= 0 then return true end
    local started = core.clock()
    local sums = run:with_average(evaluation.run, run.setup, run.held_out, penalty(run))
    if not sums then return false end
    sums:write(row, "val_")
    row.val_seconds = core.clock() - started
    if row.val_loss ~= row.val_loss then
        give_up(run, "the validation loss is NaN after step %d (epoch %d)", run.step, run.epoch)
    end
    return true
end

local function interrupt_validation(run)
    core.cancelled(true)
    run.interrupted = true
    run:stop("interrupted")
    save(run) -- the epoch's batches are done; resumed, it goes on with the validation
end

local function end_epoch(run, row)
    local epoch = run.epoch
    row.lr, row.seconds, row.waited = run.optimizer.state_in_c:rate(), run.seconds, run.waited
    row.images = run.sums.samples
    row.steps = (run.batch + run.accumulate - 1) // run.accumulate
    run.history[#run.history + 1] = row
    run.progress:end_epoch(run.shown, row)
    run:with_average(run.call, run, "on_epoch_end", epoch, row, run)
    run.epoch, run.batch, run.seconds, run.waited = epoch + 1, 0, 0.0, 0.0
    run.sums = metrics.sums(run.setup.metrics)
    run.ended_by_callback = run.stopped ~= nil
    local settings, last = run.given.checkpoint, epoch == run.given.epochs or run.stopped
    if settings and (epoch % settings.every == 0 or last) then save(run) end
end

local function run_epoch(run)
    run.sums = metrics.sums(run.setup.metrics, run.stored_sums)
    run.stored_sums = nil
    if run.batch == 0 then run:call("on_epoch_begin", run.epoch, run) end
    run.progress:start_epoch(run.epoch, run.given.epochs, run.source.batches, run.batch)
    if not train_epoch(run) then return end
    if run.sums.samples == 0 then check.fail("train.fit: epoch %d had no batches", run.epoch) end
    run.progress:end_steps()
    local row = run.sums:write{epoch = run.epoch}
    if validate(run, row) then return end_epoch(run, row) end
    interrupt_validation(run)
end

local function resume(run)
    local settings = run.given.checkpoint
    if not run.given.resume then return end
    if not files.exists(settings.path) then
        return run.progress:say(("no checkpoint %s yet: starting anew"):format(settings.path))
    end
    checkpoint.load(run, settings.path)
    local where = run.batch > 0 and (" of epoch %d, batch %d"):format(run.epoch, run.batch)
        or (" after epoch %d"):format(run.epoch - 1)
    run.progress:say(("resumed from %s%s"):format(settings.path, where))
end

local function say_why(run)
    if not run.stopped then return end
    local settings = run.given.checkpoint
    local saved = run.interrupted and settings and ("; checkpoint " .. settings.path) or ""
    run.progress:say(("%s after step %d%s"):format(run.stopped, run.step, saved))
end

local function train(run)
    run.optimizer:clear_grads()
    run:call("on_train_begin", run)
    resume(run)
    if core.cancelled(true) then
        run.interrupted = true
        run:stop("interrupted")
    end
    while run.epoch <= run.given.epochs and not run.stopped do run_epoch(run) end
    if run.average then run.average:swap() end
    run:call("on_train_end", run)
    say_why(run)
    run.history.stopped, run.history.average = run.stopped, run.average ~= nil
    return run.history
end

--- train.fit(model, data, options): trains a model (nn.model) and returns the history, a list of
--- rows {epoch, loss, accuracy, val_loss, ..., lr, seconds, waited}; history.columns has their
--- names in order, history.stopped why it ended early. data: a data set, {x, y} of tensors, or a
--- function of the epoch that returns an iterator over x, y (see train/source.lua).
---
---   optimizer          optim.sgd{model, ...} or a name: "adam" with Keras' settings
---   loss               "cross_entropy" (integer labels from 1, or one-hot),
---                      "binary_cross_entropy", "mse", "mae", "huber", Keras' names of those, or
---                      function(output, target). A softmax (sigmoid) that ends the model becomes
---                      part of the loss; a model without it gives logits
---   metrics            {"accuracy"}: see train/metrics.lua
---   batch_size         32                    epochs           1
---   shuffle            true: in an order that depends on seed and epoch
---   seed               of the order and of augment; that of resin.seed if left out
---   augment            options of the loader: {crop = 4, flip = true, cutout = 8}
---   validation_data    like data             validation_split the last part of data, as 0.2
---   validation_every   1: epochs             class_weights    {[3] = 2.5}; others have 1
---   label_smoothing    0                     one_hot          labels become one-hot vectors
---   accumulate         1: batches whose mean gradient makes a step
---   average            decay of averaged weights (EMA), as 0.999: validation uses them, and the
---                      model has them in the end
---   callbacks          {train.early_stopping{...}, ...}: see train/callbacks.lua
---   checkpoint         a path, or {path, every = 1 (epochs), every_steps =}: the whole state
---   resume             true: goes on from the checkpoint, to the same bits; without one it starts
---   verbose            "bar", "lines" or false; what suits standard output if left out
---
--- resin.cancel (with resin.on_interrupt: Ctrl-C) ends it after the step; the checkpoint is written
--- and the history returned. A loss that is NaN or infinite is an error that names the step.
local function fit(model, data, options)
    evaluation.check_model("train.fit", model)
    local run <close> = new_run(model, data, read_options(options))
    return train(run)
end

-- Loaders have threads; they end with the run, whatever happened.
function Run:__close()
    self.source:close()
    if self.held_out then self.held_out:close() end
end

return fit
