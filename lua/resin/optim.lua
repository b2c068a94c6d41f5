--- Optimizers and learning-rate schedules.
--
--     local optimizer = optim.sgd{model, learning_rate = 0.1, momentum = 0.9, rule = "pytorch"}
--     loss:backward()
--     optimizer:step()
--     optimizer:clear_grads()
--
-- The first entry is a model, a list of tensors, or what optim.parameters made of them. A step is
-- one sweep in C over the flat buffer that holds all parameters; the formulas stand in
-- core/optim/optimizer.c.
--
-- `rule` says whose formulas and defaults hold, "keras" (if left out) or "pytorch":
--
--              keras                                   pytorch
--     sgd      learning_rate 0.01, momentum 0          the same, and dampening 0
--     adam     0.001, beta1 0.9, beta2 0.999,          the same, epsilon 1e-8
--              epsilon 1e-7
--     adamw    as adam, weight_decay 0.004             as adam, weight_decay 0.01
--     rmsprop  0.001, alpha 0.9 (Keras' rho),          0.01, alpha 0.99, epsilon 1e-8 outside
--              epsilon 1e-7 inside the root            the root
--     all      weight_decay 0, apart from the          weight_decay 0, added to the gradient
--              gradient: w = (1 - rate decay) w        (apart from it in adamw)
--
-- Also: nesterov (sgd), momentum and centered (rmsprop), clip_norm (all: the largest L2 norm that
-- all gradients together may have; 0 for none), and groups (all, for a model): settings of
-- parameters whose names match a Lua pattern, the last match counts:
--
--     groups = {{"^fc/", rate_scale = 10}, {"/bias$", decay = 0}}
local core = require "resin.core"

local optim = {}

-- ---- What is optimized --------------------------------------------------------------------------

--- The parameters of a model (its own flat buffer), or of a list of leaf tensors, which move into a
-- new flat buffer. Settings by parameter, given by number (from 1) or by its tensor; the others
-- stay:
--
--     parameters:set(3, {frozen = true})       neither gradient nor state
--     parameters:set(bias, {decay = 0, l1 = 0, l2 = 1e-4, rate_scale = 0.1})
--
-- decay and rate_scale multiply the optimizer's weight_decay and learning rate (both 1 at first);
-- l1 and l2 act as if l1 sum |w| + l2 sum w^2 were part of the loss. parameters:get(3),
-- #parameters, parameters:clip_norm(5), parameters:check_finite() (the first whose gradient is
-- not), :penalty().
function optim.parameters(source)
    if type(source) == "userdata" and not core.is_tensor(source) then return source end
    if type(source) ~= "table" then
        error("optim: expected a model, a list of tensors or optim.parameters, got "
            .. (core.is_tensor(source) and "a tensor" or type(source)), 0)
    end
    if source.flat_parameters then return source:flat_parameters() end
    return core.parameters(source)
end

-- The names that a group's settings may have; what is frozen is the model's affair.
local GROUP_SETTINGS = {"rate_scale", "decay", "l1", "l2"}

local function check_group(what, group)
    if type(group) ~= "table" or type(group[1]) ~= "string" then
        error(('%s: expected groups as {{"^fc/", rate_scale = 10}, ...}'):format(what), 0)
    end
    local settings = {}
    for _, name in ipairs(GROUP_SETTINGS) do settings[name] = group[name] end
    for name in pairs(group) do
        if name ~= 1 and settings[name] == nil then
            error(("%s: groups: unknown setting '%s'; known: %s"):format(what, tostring(name),
                table.concat(GROUP_SETTINGS, ", ")), 0)
        end
    end
    return settings
end

-- The option `groups`; one that matches nothing is an error.
local function set_groups(what, model, parameters, groups)
    if type(groups) ~= "table" or type(model) ~= "table" or not model.named_parameters then
        error(what .. ": groups are a list, and need a model, whose parameters have names", 0)
    end
    for _, group in ipairs(groups) do
        local settings, count = check_group(what, group), 0
        for name, tensor in model:named_parameters() do
            if name:find(group[1]) then
                parameters:set(tensor, settings)
                count = count + 1
            end
        end
        if count == 0 then
            error(('%s: groups: no parameter has a name that matches "%s"'):format(what, group[1]),
                0)
        end
    end
end

-- ---- Optimizers ---------------------------------------------------------------------------------

local Optimizer = {}
Optimizer.__index = Optimizer

-- optim.sgd{model, ...}: what is to be optimized is taken out, a schedule too, and C checks the
-- rest.
local function maker(name)
    return function(settings)
        if type(settings) ~= "table" then
            error(("optim.%s: expected a table, as optim.%s{model, learning_rate = 0.01}")
                :format(name, name), 2)
        end
        local options = {}
        for key, value in pairs(settings) do options[key] = value end
        options[1] = nil
        local self = setmetatable({name = name}, Optimizer)
        if type(options.learning_rate) == "function" then
            self.schedule, options.learning_rate = options.learning_rate, nil
        end
        self.parameters = optim.parameters(settings[1])
        if options.groups ~= nil then
            set_groups("optim." .. name, settings[1], self.parameters, options.groups)
            options.groups = nil
        end
        self.state_in_c = core.optimizer(name, self.parameters, options)
        return self
    end
end

for _, name in ipairs{"sgd", "adam", "adamw", "rmsprop"} do optim[name] = maker(name) end

--- One step with the gradients that backward has left; parameters that got none are skipped.
function Optimizer:step()
    local in_c = self.state_in_c
    if self.schedule then in_c:set_rate(self.schedule(in_c:steps() + 1)) end
    in_c:step()
end

--- Forgets the gradients, so that the next backward stores and does not add.
function Optimizer:clear_grads() self.parameters:clear_grads() end

--- The learning rate of the next step.
function Optimizer:learning_rate()
    local in_c = self.state_in_c
    return self.schedule and self.schedule(in_c:steps() + 1) or in_c:rate()
end

--- A number, or a schedule: a function of the step, from 1.
function Optimizer:set_learning_rate(rate)
    self.schedule = type(rate) == "function" and rate or nil
    if not self.schedule then self.state_in_c:set_rate(rate) end
end

--- The number of steps taken.
function Optimizer:steps() return self.state_in_c:steps() end

--- All that a checkpoint needs besides the weights: a list of {name, tensor}, in which tensors are
-- views of the state or, for "steps", new: the optimizer's own count and then that of each
-- parameter.
function Optimizer:state()
    local in_c, count = self.state_in_c, #self.parameters
    local steps = core.zeros({count + 1}, "int64")
    steps[1] = in_c:steps()
    for i = 1, count do steps[i + 1] = in_c:steps(i) end
    local list = {{"steps", steps}}
    for _, name in ipairs(in_c:state_names()) do
        for i = 1, count do
            local tensor = in_c:state(name, i)
            if tensor then list[#list + 1] = {name .. "/" .. i, tensor} end
        end
    end
    return list
end

--- Puts back what state() gave: `tensors` by name. Nothing is changed when something is missing.
function Optimizer:load_state(tensors)
    local own = self:state()
    for _, entry in ipairs(own) do
        local name, tensor = entry[1], entry[2]
        if not tensors[name] then
            error(("optim.%s: the state has no '%s'"):format(self.name, name), 2)
        end
        local given = table.concat(tensors[name]:shape(), ", ")
        local expected = table.concat(tensor:shape(), ", ")
        if given ~= expected then
            error(("optim.%s: %s has shape (%s), expected (%s)"):format(self.name, name, given,
                expected), 2)
        end
    end
    local steps = tensors.steps:totable()
    self.state_in_c:set_steps(steps[1])
    for i = 1, #self.parameters do self.state_in_c:set_steps(steps[i + 1], i) end
    for i = 2, #own do own[i][2]:copy_(tensors[own[i][1]]) end
end

-- ---- Schedules ----------------------------------------------------------------------------------
-- A schedule is a function of the step, counted from 1, that returns the learning rate. Any
-- function will do: optim.sgd{model, learning_rate = function(step) return 0.1 / step end}.

local function required(settings, schedule, name)
    local value = settings[name]
    if type(value) ~= "number" then
        error(("optim.%s: expected a number for '%s', got %s"):format(schedule, name,
            type(value)), 3)
    end
    return value
end

--- The same rate at every step.
function optim.constant(rate)
    return function() return rate end
end

--- rate times factor (0.1) each `every` steps, or after each of the `milestones` (a list of steps).
function optim.step_schedule(settings)
    local rate, factor = required(settings, "step_schedule", "rate"), settings.factor or 0.1
    local every, milestones = settings.every, settings.milestones
    if not every and not milestones then
        error("optim.step_schedule: expected 'every' or 'milestones'", 2)
    end
    return function(step)
        local drops = every and (step - 1) // every or 0
        for _, milestone in ipairs(milestones or {}) do
            if step > milestone then drops = drops + 1 end
        end
        return rate * factor ^ drops
    end
end

-- From `first` to `last` along half a cosine, 0 <= part <= 1.
local function anneal(first, last, part)
    part = math.min(math.max(part, 0), 1)
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2
end

--- From rate down to `final` (0) in `steps` steps: Loshchilov and Hutter, "SGDR", 2017, one period.
function optim.cosine(settings)
    local rate, steps = required(settings, "cosine", "rate"), required(settings, "cosine", "steps")
    local final = settings.final or 0
    return function(step) return anneal(rate, final, (step - 1) / steps) end
end

--- Up to `peak` in the first part (`rise`, 0.3) of `steps`, then down to nearly nothing: Smith and
-- Topin, "Super-convergence", 2018, with PyTorch's numbers: from peak / 25 to peak / 250,000.
function optim.one_cycle(settings)
    local peak = required(settings, "one_cycle", "peak")
    local steps = required(settings, "one_cycle", "steps")
    local first = settings.first or peak / 25
    local final = settings.final or first / 1e4
    local top = (settings.rise or 0.3) * steps - 1
    return function(step)
        local position = step - 1
        if position <= top then return anneal(first, peak, position / top) end
        return anneal(peak, final, (position - top) / (steps - 1 - top))
    end
end

--- Linearly up to what `schedule` (a function, or a rate) gives first in `steps` steps; then the
-- schedule, from its own step 1.
function optim.warmup(settings)
    local steps, schedule = required(settings, "warmup", "steps"), settings.schedule
    if type(schedule) == "number" then schedule = optim.constant(schedule) end
    if type(schedule) ~= "function" then
        error("optim.warmup: expected a function or a rate for 'schedule', got "
            .. type(schedule), 2)
    end
    return function(step)
        if step <= steps then return schedule(1) * step / (steps + 1) end
        return schedule(step - steps)
    end
end

return optim
