--- One training or inference step of a reference network (resin.models.bench), and how long it
--- takes.
local resin = require "resin"
local networks, nn, optim = resin.models.bench, resin.nn, resin.optim

local step = {}

local function random_labels(batch, classes)
    local labels = resin.zeros({batch}, "int64")
    for i = 1, batch do labels[i] = i % classes + 1 end
    return labels
end

--- A step as an object: settings have model (the name), mode ("train" or "infer"), and perhaps
--- batch and side. Fields: network, batch, side, model; run(observe) runs it and returns the
--- seconds of the optimizer; observe(i) is called before step i of the model's plan, and before the
--- loss. Inference runs as nn.plan, which knows the profile's marks from when it was recorded;
--- `memory` is its block in bytes.
function step.new(settings)
    local network = networks[settings.model]
    local self = {
        network = network, batch = settings.batch or network.batch,
        side = settings.side or network.side,
    }
    self.model = network.make{input = {self.side, self.side, 3}}
    local model, loss_position = self.model, #self.model.plan.steps + 1
    local images = resin.randn(self.batch, self.side, self.side, 3)
    if settings.mode == "infer" then
        local plan = nn.plan(model, images, {observe = resin.profile_mark})
        self.memory = plan:memory()
        function self.run()
            plan(images):release()
            return 0
        end
        return self
    end
    local labels = random_labels(self.batch, 10)
    local optimizer = optim.sgd{model, learning_rate = 0.01, momentum = 0.9, rule = "pytorch"}
    function self.run(observe)
        local logits <close> = model(images, {training = true, observe = observe})
        if observe then observe(loss_position) end
        local loss <close> = resin.cross_entropy(logits, labels)
        loss:backward()
        local before = resin.clock()
        optimizer:step()
        optimizer:clear_grads()
        return resin.clock() - before
    end
    return self
end

--- Calls run() for so many seconds, at least three times, after two calls to warm up.
function step.repeat_for(seconds, run)
    run()
    run()
    local start, count = resin.clock(), 0
    while resin.clock() - start < seconds or count < 3 do
        run()
        count = count + 1
    end
end

--- The seconds of each step, sorted.
function step.times(self, seconds)
    local times = {}
    step.repeat_for(seconds, function()
        local before = resin.clock()
        self.run()
        times[#times + 1] = resin.clock() - before
    end)
    times = table.move(times, 3, #times, 1, {}) -- without the two to warm up
    table.sort(times)
    return times
end

--- The median of a list of numbers, which is sorted.
function step.median(values)
    table.sort(values)
    return (values[(#values + 1) // 2] + values[#values // 2 + 1]) / 2
end

return step
