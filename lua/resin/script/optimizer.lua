--- Optimizer and schedule of the training scripts.
local optim = require "resin.optim"

local optimizer = {}

local function schedule(settings, steps)
    local name, rate = settings.schedule, settings.lr
    if name == "constant" then return optim.constant(rate) end
    if name == "cosine" then return optim.cosine{rate = rate, steps = steps} end
    if name == "one-cycle" then return optim.one_cycle{peak = rate, steps = steps} end
    -- As He et al.: a tenth after half of the steps, and again after three quarters.
    return optim.step_schedule{rate = rate, milestones = {steps // 2, steps * 3 // 4}}
end

-- Which settings each optimizer has.
local SETTINGS = {
    sgd = {"momentum"}, adam = {"beta1", "beta2", "epsilon"},
    adamw = {"beta1", "beta2", "epsilon"}, rmsprop = {"momentum", "alpha", "epsilon"},
}

--- The optimizer for a training of so many steps.
function optimizer.build(model, settings, steps)
    local name = settings.optimizer
    local given = {model, learning_rate = schedule(settings, steps),
        weight_decay = settings.weight_decay, clip_norm = settings.clip_norm,
        rule = settings.rule}
    for _, setting in ipairs(SETTINGS[name]) do given[setting] = settings[setting] end
    if name == "sgd" then
        given.momentum = given.momentum or 0.9
        given.nesterov = settings.nesterov and given.momentum > 0
    end
    return optim[name](given)
end

return optimizer
