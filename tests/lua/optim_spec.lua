-- Optimizers and schedules. Expected numbers without a formula beside them come from PyTorch 1.13
-- in float64 (torch.optim and torch.optim.lr_scheduler with the same settings).
local resin = require "resin"
local optim, nn = resin.optim, resin.nn

local START = {0.5, -1.0, 2.0}
local GRADIENTS = {{0.1, -0.2, 0.3}, {-0.3, 0.05, 0.2}, {0.4, 0.4, -0.1}}

local function leaf(values, dtype)
    return resin.tensor(values, dtype or "float64"):require_grad()
end

-- Leaves `gradient` in w.grad.
local function give_gradient(w, gradient)
    (w * resin.tensor(gradient, w:dtype())):sum():backward()
end

local function assert_near(expected, actual, tolerance)
    assert.equal(#expected, #actual)
    for i = 1, #expected do
        assert.is_true(math.abs(expected[i] - actual[i]) <= (tolerance or 1e-8),
            ("entry %d: expected %.9g, got %.9g"):format(i, expected[i], actual[i]))
    end
end

-- The weights after three steps of an optimizer made by make{w, ...}.
local function three_steps(make, settings)
    local w = leaf(START)
    local given = {w}
    for name, value in pairs(settings) do given[name] = value end
    given[1] = {w}
    local optimizer = make(given)
    for _, gradient in ipairs(GRADIENTS) do
        give_gradient(w, gradient)
        optimizer:step()
        optimizer:clear_grads()
    end
    return w:totable()
end

describe("optimizers by PyTorch's rule", function()
    local cases = {
        {"sgd", {learning_rate = 0.1}, {0.48, -1.025, 1.96}},
        {"sgd", {learning_rate = 0.1, momentum = 0.9}, {0.4899, -0.9953, 1.8907}},
        {"sgd", {learning_rate = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.01},
            {0.466887062, -1.012922674, 1.845940737}},
        {"adam", {learning_rate = 0.1}, {0.42297897, -0.893235649, 1.747775607}},
        {"adam", {learning_rate = 0.1, weight_decay = 0.1, beta1 = 0.8, beta2 = 0.9,
            epsilon = 1e-3}, {0.394179177, -0.841070402, 1.720424327}},
        {"adamw", {learning_rate = 0.1}, {0.42163095, -0.890485495, 1.74207854}},
        {"rmsprop", {learning_rate = 0.1}, {-0.336968901, -1.134381579, 0.712747508}},
        {"rmsprop", {learning_rate = 0.1, alpha = 0.9, momentum = 0.5, centered = true,
            weight_decay = 0.01, epsilon = 1e-4}, {0.12124201, -0.809845864, 1.192285252}},
    }
    for number, case in ipairs(cases) do
        it(("equal PyTorch, case %d: %s"):format(number, case[1]), function()
            local settings = {rule = "pytorch"}
            for name, value in pairs(case[2]) do settings[name] = value end
            assert_near(case[3], three_steps(optim[case[1]], settings), 2e-9)
        end)
    end
end)

describe("optimizers by Keras' rule", function()
    -- f(w, g, t, state) is the formula as Keras' documentation has it.
    local function check(make, settings, f)
        local expected = {}
        for i, w in ipairs(START) do
            local state = {m = 0, v = 0}
            for t, gradient in ipairs(GRADIENTS) do w = f(w, gradient[i], t, state) end
            expected[i] = w
        end
        assert_near(expected, three_steps(make, settings), 1e-12)
    end

    it("sgd: v = m v - lr g; w += v, and with Nesterov w += m v - lr g", function()
        check(optim.sgd, {learning_rate = 0.1, momentum = 0.9}, function(w, g, _, s)
            s.v = 0.9 * s.v - 0.1 * g
            return w + s.v
        end)
        local nesterov = {learning_rate = 0.1, momentum = 0.9, nesterov = true}
        check(optim.sgd, nesterov, function(w, g, _, s)
            s.v = 0.9 * s.v - 0.1 * g
            return w + 0.9 * s.v - 0.1 * g
        end)
    end)

    it("adam: 0.001, 0.9, 0.999, 1e-7, epsilon beside the uncorrected root", function()
        check(optim.adam, {}, function(w, g, t, s)
            s.m, s.v = 0.9 * s.m + 0.1 * g, 0.999 * s.v + 0.001 * g * g
            local rate = 0.001 * math.sqrt(1 - 0.999 ^ t) / (1 - 0.9 ^ t)
            return w - rate * s.m / (math.sqrt(s.v) + 1e-7)
        end)
    end)

    it("rmsprop: 0.001, 0.9, 1e-7 inside the root", function()
        check(optim.rmsprop, {}, function(w, g, _, s)
            s.v = 0.9 * s.v + 0.1 * g * g
            return w - 0.001 * g / math.sqrt(s.v + 1e-7)
        end)
    end)

    it("weight decay is apart from the gradient", function()
        check(optim.sgd, {learning_rate = 0.1, weight_decay = 0.01}, function(w, g)
            return w * (1 - 0.1 * 0.01) - 0.1 * g
        end)
    end)
end)

describe("parameters", function()
    local function one_step(settings, prepare)
        local a, b = leaf{1, -2}, leaf{3, 4, 5}
        local parameters = optim.parameters{a, b}
        if prepare then prepare(parameters, a, b) end
        settings[1] = parameters
        local optimizer = optim.sgd(settings)
        give_gradient(a, {0.5, 0.5})
        if not parameters:get(2).frozen then give_gradient(b, {1, 1, 1}) end
        optimizer:step()
        return a:totable(), b:totable(), optimizer, parameters
    end

    it("have a learning rate of their own", function()
        local a, b = one_step({learning_rate = 0.1}, function(p, first)
            p:set(first, {rate_scale = 0.5})
        end)
        assert_near({0.975, -2.025}, a)
        assert_near({2.9, 3.9, 4.9}, b)
    end)

    it("can be frozen, and trained again", function()
        local _, b, optimizer, parameters = one_step({learning_rate = 0.1, momentum = 0.9},
            function(p) p:set(2, {frozen = true}) end)
        assert_near({3, 4, 5}, b)
        assert.is_true(parameters:get(2).frozen)
        assert.is_nil(optimizer.state_in_c:state("momentum", 2))
        parameters:set(2, {frozen = false})
        optimizer:clear_grads()
        local tensor = parameters:tensor(2)
        give_gradient(tensor, {1, 1, 1})
        optimizer:step()
        assert_near({2.9, 3.9, 4.9}, tensor:totable())
    end)

    it("have penalties: l1 sum |w| + l2 sum w^2", function()
        local a, b, _, parameters = one_step({learning_rate = 0.1}, function(p)
            p:set(1, {l1 = 0.3})
            p:set(2, {l2 = 0.01})
        end)
        assert_near({1 - 0.1 * (0.5 + 0.3), -2 - 0.1 * (0.5 - 0.3)}, a)
        assert_near({3 - 0.1 * (1 + 0.06), 4 - 0.1 * (1 + 0.08), 5 - 0.1 * (1 + 0.1)}, b)
        local expected = 0
        for _, w in ipairs(a) do expected = expected + 0.3 * math.abs(w) end
        for _, w in ipairs(b) do expected = expected + 0.01 * w * w end
        assert_near({expected}, {parameters:penalty()})
    end)

    it("can be exempt from weight decay", function()
        local a, b = one_step({learning_rate = 0.1, weight_decay = 0.5, rule = "pytorch"},
            function(p, first) p:set(first, {decay = 0}) end)
        assert_near({0.95, -2.05}, a)
        assert_near({3 - 0.1 * 2.5, 4 - 0.1 * 3, 5 - 0.1 * 3.5}, b)
    end)

    it("are clipped together", function()
        local norm = math.sqrt(2 * 0.25 + 3)
        local a, b = one_step{learning_rate = 1, clip_norm = norm / 2}
        assert_near({0.75, -2.25}, a)
        assert_near({2.5, 3.5, 4.5}, b)
    end)

    it("without a gradient are skipped", function()
        local a, b = leaf{1}, leaf{2}
        local optimizer = optim.adam{{a, b}, learning_rate = 0.1}
        give_gradient(a, {1})
        optimizer:step()
        assert_near({0.9}, a:totable(), 1e-6)
        assert.equal(2, b:item())
    end)

    it("that are tied are one", function()
        local a = leaf{1}
        assert.equal(1, #optim.parameters{a, a})
    end)

    it("tell where a gradient is not finite", function()
        local a, b = leaf{1}, leaf{2}
        local parameters = optim.parameters{a, b}
        give_gradient(a, {1})
        give_gradient(b, {0 / 0})
        assert.equal(2, parameters:check_finite())
        parameters:clear_grads()
        assert.is_nil(parameters:check_finite())
    end)

    it("of a model are named and set by its layers", function()
        local x = nn.input{4}
        local y = nn.dense{3, l2 = 0.5, name = "first"}(x)
        local model = nn.model(x, nn.dense{2, name = "second"}(y))
        local parameters = optim.parameters(model)
        assert.equal(4, #parameters)
        assert.equal(0.5, parameters:get(1).l2)
        assert.equal(0, parameters:get(3).l2)
        model:freeze("first")
        assert.is_true(optim.parameters(model):get(1).frozen)
    end)

    it("refuse what is wrong", function()
        assert.error_matches(function() optim.sgd{learning_rate = 0.1} end, "expected a model")
        assert.error_matches(function() optim.sgd{leaf{1}} end, "a tensor")
        assert.error_matches(function() optim.sgd(3) end, "expected a table")
        assert.error_matches(function() optim.sgd{{1}} end, "position 1")
        local p = optim.parameters{leaf{1}}
        assert.error_matches(function() p:set(2, {}) end, "from 1 to 1, got 2")
        assert.error_matches(function() p:set(1, {rate = 3}) end, "unknown setting 'rate'")
        assert.error_matches(function() p:set(1, {l1 = "x"}) end, "number for l1")
        assert.error_matches(function() p:set(leaf{1}, {}) end, "not among")
        assert.error_matches(function() optim.sgd{p, learning_rat = 0.1} end, "learning_rat")
        assert.error_matches(function() optim.sgd{p, learning_rate = -1} end, "learning_rate")
        assert.error_matches(function() optim.sgd{p, learning_rate = {}} end, "learning_rate")
        assert.error_matches(function() optim.sgd{p, rule = "caffe"} end, "pytorch")
        assert.error_matches(function() optim.adam{p, momentum = 0.9} end, "momentum")
    end)
end)

describe("an optimizer's state", function()
    -- Five steps on fixed gradients, with the state taken out and put into a new optimizer after
    -- three.
    for _, name in ipairs{"sgd", "adam", "adamw", "rmsprop"} do
        it("continues bit by bit: " .. name, function()
            local function run(interrupted)
                local w = leaf(START, "float32")
                local settings = {{w}, learning_rate = optim.cosine{rate = 0.1, steps = 5}}
                if name == "sgd" or name == "rmsprop" then settings.momentum = 0.9 end
                local optimizer = optim[name](settings)
                for step = 1, 5 do
                    if step == 4 and interrupted then
                        local saved = {}
                        for _, entry in ipairs(optimizer:state()) do
                            saved[entry[1]] = entry[2]:clone()
                        end
                        w = leaf(w:totable(), "float32")
                        settings[1] = {w}
                        optimizer = optim[name](settings)
                        optimizer:load_state(saved)
                        assert.equal(3, optimizer:steps())
                    end
                    give_gradient(w, GRADIENTS[(step - 1) % 3 + 1])
                    optimizer:step()
                    optimizer:clear_grads()
                end
                return w:totable()
            end
            assert.same(run(false), run(true))
        end)
    end

    it("is refused when it does not fit", function()
        local optimizer = optim.adam{{leaf{1, 2}}}
        assert.error_matches(function() optimizer:load_state{} end, "has no 'steps'")
        local state = {}
        for _, entry in ipairs(optim.adam{{leaf{1, 2, 3}}, learning_rate = 0.1}:state()) do
            state[entry[1]] = entry[2]
        end
        assert.error_matches(function() optimizer:load_state(state) end, "%(3%), expected %(2%)")
    end)
end)

describe("schedules", function()
    local function first(schedule, count)
        local rates = {}
        for step = 1, count do rates[step] = schedule(step) end
        return rates
    end

    it("one_cycle equals PyTorch's OneCycleLR", function()
        assert_near({0.02, 0.26, 0.5, 0.475242316, 0.405872827, 0.305631011, 0.194370989,
            0.094129173, 0.024759684, 2e-06}, first(optim.one_cycle{peak = 0.5, steps = 10}, 10))
    end)
    it("cosine equals PyTorch's CosineAnnealingLR", function()
        assert_near({1.0, 0.975528258, 0.904508497, 0.793892626, 0.654508497, 0.5, 0.345491503,
            0.206107374, 0.095491503, 0.024471742}, first(optim.cosine{rate = 1, steps = 10}, 10))
    end)
    it("step_schedule equals PyTorch's StepLR and MultiStepLR", function()
        assert_near({1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001},
            first(optim.step_schedule{rate = 1, every = 3}, 10))
        assert_near({1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01},
            first(optim.step_schedule{rate = 1, milestones = {2, 5}}, 10))
    end)
    it("warmup leads to another schedule", function()
        assert_near({0.25, 0.5, 0.75, 1, 0.5, 0, 0},
            first(optim.warmup{steps = 3, schedule = optim.cosine{rate = 1, steps = 2}}, 7))
        assert_near({0.05, 0.1, 0.1}, first(optim.warmup{steps = 1, schedule = 0.1}, 3))
    end)
    it("stay in bounds beyond the end and for few steps", function()
        for _, steps in ipairs{1, 2, 3} do
            for _, rate in ipairs(first(optim.one_cycle{peak = 1, steps = steps}, 5)) do
                assert.is_true(rate > 0 and rate <= 1)
            end
        end
    end)
    it("drive an optimizer", function()
        local schedule = optim.step_schedule{rate = 1, every = 1}
        local optimizer = optim.sgd{{leaf{1}}, learning_rate = schedule}
        assert.equal(1, optimizer:learning_rate())
        optimizer:step()
        assert_near({0.1}, {optimizer:learning_rate()})
        optimizer:set_learning_rate(0.5)
        assert.equal(0.5, optimizer:learning_rate())
    end)
    it("say what they lack", function()
        assert.error_matches(function() optim.cosine{rate = 1} end, "'steps'")
        assert.error_matches(function() optim.step_schedule{rate = 1} end, "'milestones'")
        assert.error_matches(function() optim.warmup{steps = 3} end, "'schedule'")
    end)
end)
