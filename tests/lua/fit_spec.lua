-- train.fit, evaluate and predict. Expected numbers are computed here by hand or with plain loops.
local resin = require "resin"
local progress = require "resin.train.progress"
local history_text = require "resin.train.history"
local data, nn, optim, train = resin.data, resin.nn, resin.optim, resin.train

-- One weight w, output w x: what a training does to it can be told by hand.
local function one_weight(start, options)
    local x = nn.input{1}
    local layer = nn.dense{1, bias = false, initializer = {"constant", value = start},
        l2 = options and options.l2}
    return nn.model(x, layer(x))
end

local function weight(model) return model:parameters()[1]:item() end

local function column(...) return resin.tensor{...}:reshape{select("#", ...), 1} end

local function classifier(seed)
    resin.seed(seed or 1)
    local x = nn.input{4}
    return nn.model(x, nn.dense{3, activation = "softmax"}(nn.dense{8, activation = "tanh"}(x)))
end

-- Learnable: the class is the largest of three inputs.
local function easy_data(count, seed)
    resin.seed(seed or 2)
    local x = resin.randn(count, 4)
    return {x, x[{{}, {1, 3}}]:argmax(-1)}
end

local function fit(model, set, options)
    local given = {optimizer = optim.sgd{model, learning_rate = 0.1}, verbose = false, seed = 1}
    for name, value in pairs(options or {}) do given[name] = value end
    return train.fit(model, set, given)
end

local function near(expected, actual, tolerance)
    assert.is_true(math.abs(expected - actual) <= (tolerance or 1e-6),
        ("expected %.9g, got %.9g"):format(expected, actual))
end

describe("fit", function()
    it("takes batches of 32 in one epoch, and means the loss over samples", function()
        -- 33 samples: the last batch has one. The weight does not move.
        local model = one_weight(0)
        local values = {}
        for i = 1, 33 do values[i] = i == 33 and 10 or 1 end
        local y = column(table.unpack(values))
        local history = fit(model, {resin.zeros(33, 1), y}, {loss = "mse", metrics = {"mae"}})
        assert.equal(1, #history)
        near((32 + 100) / 33, history[1].loss)
        near((32 + 10) / 33, history[1].mae)
        assert.equal(2, history[1].steps)
        assert.equal(33, history[1].images)
        assert.same({"epoch", "loss", "mae", "lr", "seconds", "waited", "val_seconds", "steps",
            "images"}, history.columns)
    end)

    it("learns, from tensors with labels or one-hot vectors, the same", function()
        local set = easy_data(200)
        local first, second = classifier(), classifier()
        local one = fit(first, set, {epochs = 20})
        local two = fit(second, set, {epochs = 20, one_hot = true})
        assert.is_true(one[20].accuracy > 0.8 and one[20].loss < one[1].loss)
        assert.equal(one[20].accuracy, two[20].accuracy)
        near(one[20].loss, two[20].loss, 1e-4)
        local third = classifier()
        local hot = {set[1], resin.one_hot(set[2], {classes = 3})}
        near(one[20].loss, fit(third, hot, {epochs = 20})[20].loss, 1e-4)
    end)

    it("has an order that depends on the seed only", function()
        local function weights(options)
            local model = classifier()
            resin.seed(99)
            resin.rand(5)
            fit(model, easy_data(50), options)
            return model:parameters()[1]:totable()
        end
        assert.same(weights{seed = 4, epochs = 2}, weights{seed = 4, epochs = 2})
        assert.not_same(weights{seed = 4, epochs = 2}, weights{seed = 5, epochs = 2})
        assert.same(weights{seed = 4, shuffle = false}, weights{seed = 5, shuffle = false})
    end)

    it("takes a function that returns an iterator", function()
        local set, epochs = easy_data(64), {}
        local function batches(epoch)
            epochs[#epochs + 1] = epoch
            return coroutine.wrap(function()
                for first = 1, 64, 16 do
                    coroutine.yield(set[1]:slice(1, first, first + 15),
                        set[2]:slice(1, first, first + 15))
                end
            end)
        end
        local first, second = classifier(), classifier()
        local one = fit(first, batches, {epochs = 2})
        local two = fit(second, set, {epochs = 2, batch_size = 16, shuffle = false})
        assert.equal(one[2].loss, two[2].loss)
        assert.same({1, 2}, epochs)
    end)

    it("takes data sets, with augmentation", function()
        local set, test_set = data.synthetic{count = 60}
        resin.seed(1)
        local x = nn.input{32, 32, 3}
        local y = nn.global_avg_pool(nn.conv2d{4, kernel = 3, stride = 4}(x))
        local model = nn.model(x, nn.dense{10}(y))
        local history = fit(model, set, {augment = {crop = 2, flip = true}, epochs = 2,
            validation_data = test_set, batch_size = 16})
        assert.equal(60, history[2].images)
        local result = train.evaluate(model, test_set)
        near(history[2].val_loss, result.loss)
        assert.equal(history[2].val_accuracy, result.accuracy)
        assert.same({12, 10}, train.predict(model, test_set):shape())
        assert.is_true(history[2].waited <= history[2].seconds)
    end)

    it("holds the last part out for validation, unshuffled", function()
        local model = one_weight(0)
        -- floor(5 (1 - 0.3)) = 3 samples to train
        local history = fit(model, {resin.zeros(5, 1), column(1, 1, 1, 3, 5)},
            {loss = "mse", validation_split = 0.3, metrics = {}})
        near(1, history[1].loss)
        near((9 + 25) / 2, history[1].val_loss)
        assert.equal(3, history[1].images)
    end)

    it("warns when validation has a class that training lacks", function()
        local written = {}
        local stderr = io.stderr
        io.stderr = {write = function(_, text) written[#written + 1] = text end}
        local x = resin.randn(10, 4)
        local y = resin.tensor({1, 2, 1, 2, 1, 2, 1, 2, 3, 1}, "int64")
        local ok, message = pcall(fit, classifier(), {x, y}, {validation_split = 0.2})
        local _, calm = pcall(fit, classifier(), {x, y:flip{axes = {1}}}, {validation_split = 0.2})
        io.stderr = stderr
        assert.is_true(ok, message)
        assert.equal(1, #written, calm)
        assert.is_truthy(written[1]:find("class 3", 1, true))
    end)

    it("weighs classes as Keras: divided by the number of samples", function()
        -- logits 0: each loss is ln 3
        local x = nn.input{1}
        local layer = nn.dense{3, initializer = "zeros"}
        local model = nn.model(x, layer(x))
        local y = resin.tensor({1, 2, 3, 3}, "int64")
        local history = fit(model, {resin.ones(4, 1), y}, {class_weights = {[1] = 5, [3] = 0}})
        near((5 + 1) / 4 * math.log(3), history[1].loss)
        -- gradient of the bias: sum of w (softmax - one_hot) / 4
        local bias = model:parameters()[2]:totable()
        near(-0.1 * (5 * (1 / 3 - 1) + 1 / 3) / 4, bias[1])
        near(-0.1 * (5 / 3 + 1 / 3 - 1) / 4, bias[2])
        near(-0.1 * (5 / 3 + 1 / 3) / 4, bias[3])
        assert.error_matches(function()
            fit(model, {resin.ones(4, 1), y}, {class_weights = {[4] = 1}})
        end, "no class 4")
    end)

    it("smooths labels", function()
        local x = nn.input{1}
        local model = nn.model(x, nn.dense{2, bias = false,
            initializer = {"constant", value = 0}}(x))
        model:parameters()[1]:detach():copy_(resin.tensor{{0, 1}})
        local y = resin.tensor({2}, "int64")
        local history = fit(model, {resin.ones(1, 1), y}, {label_smoothing = 0.2})
        local log_sum = math.log(1 + math.exp(1))
        near(0.9 * (log_sum - 1) + 0.1 * log_sum, history[1].loss)
    end)

    it("adds the gradients of several batches to one step, as one large batch", function()
        local set = easy_data(50) -- batches of 8 in groups of three: the last has 2 samples
        local first, second = classifier(), classifier()
        local one = fit(first, set, {batch_size = 8, accumulate = 3, shuffle = false, epochs = 3})
        local two = fit(second, set, {batch_size = 24, shuffle = false, epochs = 3})
        assert.equal(3, one[1].steps)
        for i, tensor in ipairs(first:parameters()) do
            assert.is_true((tensor - second:parameters()[i]):abs():max():item() < 1e-6)
        end
        near(one[3].loss, two[3].loss, 1e-5)
    end)

    it("averages weights: validation and the end have the average", function()
        local model = one_weight(1)
        local seen = {}
        local history = fit(model, {resin.ones(3, 1), resin.zeros(3, 1)}, {
            loss = "mse", batch_size = 1, average = 0.5, metrics = {},
            validation_data = {resin.ones(1, 1), resin.zeros(1, 1)},
            callbacks = {{
                on_step_end = function() seen[#seen + 1] = weight(model) end,
                on_epoch_end = function() seen[#seen + 1] = weight(model) end,
            }},
        })
        local w, mean = 1, 1
        for step = 1, 3 do
            w = w * 0.8 -- w - 0.1 * 2 w
            local d = math.min(0.5, (1 + step) / (10 + step))
            mean = d * mean + (1 - d) * w
            near(w, seen[step])
        end
        near(mean, seen[4])
        near(mean ^ 2, history[1].val_loss)
        near(mean, weight(model))
        assert.is_true(history.average)
    end)

    it("shows penalties in the loss", function()
        local model = one_weight(2, {l2 = 0.5})
        local history = fit(model, {resin.zeros(1, 1), resin.zeros(1, 1)}, {
            loss = "mse", metrics = {}, validation_data = {resin.zeros(1, 1), resin.zeros(1, 1)}})
        near(0.5 * 4, history[1].loss)
        local w = 2 - 0.1 * 2 * 0.5 * 2
        near(w, weight(model))
        near(0.5 * w * w, history[1].val_loss)
        near(0.5 * w * w, train.evaluate(model, {resin.zeros(1, 1), resin.zeros(1, 1)},
            {loss = "mse", metrics = {}}).loss)
    end)

    it("takes losses by Keras' names and as functions", function()
        local model = one_weight(3)
        local set = {resin.ones(2, 1), column(1, 2)}
        local function loss(output, target) return (output - target):abs() end -- by sample
        local options = {shuffle = false, metrics = {}}
        for name, expected in pairs{mse = 2.5, mean_squared_error = 2.5, mae = 1.5, huber = 1,
            [loss] = 1.5} do
            near(expected, train.evaluate(model, set, {loss = name, metrics = {}}).loss)
        end
        options.loss = loss
        near(1.5, fit(model, set, options)[1].loss)
        near(3 - 0.1, weight(model))
        -- targets (n) for outputs (n, 1)
        near((1.9 ^ 2 + 0.9 ^ 2) / 2, train.evaluate(model, {set[1], resin.tensor{1, 2}},
            {loss = "mse", metrics = {}}).loss)
    end)

    it("does binary classification with and without the sigmoid", function()
        local x = nn.input{1}
        local set = {column(1, -1, 2, 3), resin.tensor{1, 0, 0, 1}}
        local function evaluate(activation)
            local layer = nn.dense{1, activation = activation, bias = false, initializer = "ones"}
            return train.evaluate(nn.model(x, layer(x)), set, {loss = "binary_crossentropy"})
        end
        local one, two = evaluate("sigmoid"), evaluate(nil)
        local function softplus(z) return math.log(1 + math.exp(z)) end
        near((softplus(-1) + softplus(-1) + softplus(2) + softplus(-3)) / 4, one.loss)
        near(one.loss, two.loss)
        assert.equal(0.75, one.accuracy)
        assert.equal(0.75, two.accuracy)
        assert.error_matches(function() evaluate("softmax") end, "does not fit.*softmax")
    end)

    it("holds no more memory after five epochs than after two", function()
        local set, held = data.synthetic{split = "train", count = 64}, {}
        resin.seed(1)
        local x = nn.input{32, 32, 3}
        local y = nn.relu(nn.batch_norm()(nn.conv2d{4, kernel = 3, stride = 4}(x)))
        local model = nn.model(x, nn.dense{10}(nn.global_avg_pool(y)))
        collectgarbage("stop")
        fit(model, set, {epochs = 5, batch_size = 16, average = 0.9, accumulate = 2,
            metrics = {"accuracy", "top_5"}, one_hot = true, validation_data = set,
            callbacks = {{on_epoch_begin = function() held[#held + 1] = resin.memory().held end}}})
        collectgarbage("restart")
        assert.equal(5, #held)
        -- What the loader has ready may differ by some batches.
        assert.is_true(held[5] - held[2] <= 5 * 16 * 32 * 32 * 3 * 4, held[5] - held[2])
    end)

    it("stops at a NaN and names the step", function()
        local set = {resin.ones(64, 1), resin.zeros(64, 1)}
        assert.error_matches(function()
            local model = one_weight(1)
            fit(model, set, {optimizer = optim.sgd{model, learning_rate = 1e15}, loss = "mse",
                batch_size = 8})
        end, "the loss is %a+ at step %d+ %(epoch 1, batch %d+%).*lower than 1e%+15")
    end)

    it("says what it does not take", function()
        local model, set = classifier(), easy_data(10)
        local function refuses(pattern, options, other)
            assert.error_matches(function() fit(model, other or set, options) end, pattern)
        end
        refuses('unknown option "epoch"', {epoch = 3})
        refuses("epochs must be an integer", {epochs = 0})
        refuses('unknown loss "crossentropy"', {loss = "crossentropy"})
        refuses('unknown metric "precise"', {metrics = {"precise"}})
        refuses('the name "accuracy" is taken', {metrics = {"accuracy", "acc"}})
        refuses('the name "lr" is taken', {metrics = {lr = function() return 1 end}})
        refuses('unknown optimizer "sdg"', {optimizer = "sdg"})
        refuses("resume needs checkpoint", {resume = true})
        refuses("validation_split", {validation_split = 1})
        refuses("not both", {validation_split = 0.5, validation_data = set})
        refuses("10 samples, but 3 targets", {}, {set[1], resin.ones(3)})
        refuses("no targets", {}, set[1])
        refuses("expected a data set", {}, "cifar10")
        refuses("needs a data set", {augment = {flip = true}})
        assert.error_matches(function() train.fit(nil, set, {}) end, "nn.model")
        assert.error_matches(function() train.fit(model, set, {}) end, '"optimizer" must be given')
        refuses('does not fit a model that ends with softmax', {loss = "binary_cross_entropy"})
    end)
end)

describe("metrics", function()
    local function evaluate(outputs, labels, given)
        local x = nn.input{#outputs[1]}
        local model = nn.model(x, nn.activation("softmax")(x))
        return train.evaluate(model, {resin.tensor(outputs), labels},
            {metrics = given, batch_size = 2})
    end
    local OUTPUTS = {{1, 2, 3, 4}, {4, 3, 2, 1}, {1, 3, 2, 4}, {0, 0, 9, 1}, {5, 6, 7, 8}}

    it("are means over samples", function()
        local labels = resin.tensor({4, 2, 1, 1, 4}, "int64") -- places 1, 2, 4, 3, 1
        local result = evaluate(OUTPUTS, labels, {"accuracy", "top_2", "top_3", "top_4"})
        near(2 / 5, result.accuracy)
        near(3 / 5, result.top_2)
        near(4 / 5, result.top_3)
        near(1, result.top_4)
        local hot = resin.one_hot(labels, {classes = 4})
        local again = evaluate(OUTPUTS, hot, {"accuracy", "top_2"})
        near(2 / 5, again.accuracy)
        near(3 / 5, again.top_2)
    end)

    it("are any function of probabilities and targets", function()
        local labels = resin.tensor({4, 2, 3, 1, 4}, "int64")
        local result = evaluate(OUTPUTS, labels, {
            total = function(p) return p:sum(-1) end,                       -- by sample
            first = function(_, t) return t:to("float32"):mean():item() end, -- mean of the batch
            ratio = function(_, t) return t:sum():item(), 2 * #t end,       -- sum and weight
        })
        near(1, result.total)
        near(14 / 5, result.first)
        near(14 / 10, result.ratio)
        assert.error_matches(function()
            evaluate(OUTPUTS, labels, {function() return 1 end})
        end, "needs a name")
    end)
end)

describe("predict", function()
    it("gives what the model says, in order, whatever the batches", function()
        local model, set = classifier(), easy_data(70)
        local expected = model(set[1])
        for _, size in ipairs{1, 32, 100} do
            local given = train.predict(model, set, {batch_size = size})
            assert.is_true((given - expected):abs():max():item() < 1e-6)
        end
        assert.same({70, 3}, model:predict(set[1]):shape())
    end)
end)

describe("callbacks", function()
    -- A training whose validation losses are those given.
    local function with_values(values, callbacks, options)
        local model = one_weight(0)
        local feed = {on_epoch_end = function(_, epoch, row) row.val_loss = values[epoch] end}
        local given = {loss = "mse", metrics = {}, epochs = #values,
            validation_data = {resin.ones(1, 1), resin.ones(1, 1)},
            callbacks = {feed, table.unpack(callbacks)}}
        for name, value in pairs(options or {}) do given[name] = value end
        return fit(model, {resin.ones(1, 1), resin.ones(1, 1)}, given), model
    end

    it("are called in order", function()
        local calls = {}
        local all = setmetatable({}, {__index = function(_, name)
            if not name:find("^on_") then return nil end
            return function(_, number)
                calls[#calls + 1] = type(number) == "number" and name .. " " .. number or name
            end
        end})
        fit(one_weight(0), {resin.ones(3, 1), resin.ones(3, 1)},
            {loss = "mse", metrics = {}, batch_size = 2, epochs = 2, callbacks = {all}})
        assert.equal("on_train_begin on_epoch_begin 1 on_step_end 1 on_step_end 2 on_epoch_end 1 "
            .. "on_epoch_begin 2 on_step_end 3 on_step_end 4 on_epoch_end 2 on_train_end",
            table.concat(calls, " "))
    end)

    it("stop early with a patience of 0, and do not bring back the best weights", function()
        local history = with_values({3, 2, 2.5, 1}, {train.early_stopping{}})
        assert.equal(3, #history)
        assert.equal("early stopping: val_loss was best in epoch 2", history.stopped)
    end)

    it("stop early with patience, and bring back the best weights when asked", function()
        local at = {}
        local watch = {on_epoch_end = function(_, epoch, _, run) at[epoch] = weight(run.model) end}
        local history, model = with_values({3, 1, 2, 1.5, 4, 0},
            {train.early_stopping{patience = 3, restore_best = true}, watch})
        assert.equal(5, #history)
        assert.is_true(at[5] > at[2])
        assert.equal(at[2], weight(model))
    end)

    it("need a value that exists", function()
        assert.error_matches(function()
            fit(classifier(), easy_data(10), {callbacks = {train.early_stopping{}}})
        end, 'no "val_loss".*loss, accuracy')
    end)

    it("reduce the rate on a plateau", function()
        local history = with_values({3, 3, 3, 1, 1, 1, 1},
            {train.reduce_on_plateau{patience = 2, factor = 0.5, min_rate = 0.04}})
        local rates = {}
        for epoch, row in ipairs(history) do rates[epoch] = row.lr end
        assert.same({0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.04}, rates)
    end)

    it("set the rate by epoch", function()
        local history = with_values({1, 1, 1},
            {train.schedule(function(epoch, rate) return epoch < 3 and rate / 2 or 1 end)})
        assert.equal(0.05, history[1].lr)
        assert.equal(0.025, history[2].lr)
        assert.equal(1, history[3].lr)
    end)

    it("stop in the middle of an epoch", function()
        local history = fit(classifier(), easy_data(100), {batch_size = 10, epochs = 3, callbacks =
            {{on_step_end = function(_, step, run) if step == 14 then run:stop("enough") end end}}})
        assert.equal(1, #history)
        assert.equal("enough", history.stopped)
    end)

    it("write weights and CSV", function()
        local path = os.tmpname()
        with_values({3, 1, 2}, {
            train.checkpoint{path .. "-{epoch}-{val_loss}", best_only = true},
            train.checkpoint{path .. "-{epoch}", every = 2},
            train.csv_log(path .. ".csv"),
        })
        local function exists(name)
            local file = io.open(name)
            if file then file:close() end
            os.remove(name)
            return file ~= nil
        end
        assert.is_true(exists(path .. "-1-3.0000") or exists(path .. "-1-3"))
        assert.is_true(exists(path .. "-2-1.0000") or exists(path .. "-2-1"))
        assert.is_false(exists(path .. "-3-2.0000") or exists(path .. "-3-2"))
        assert.is_true(exists(path .. "-2"))
        assert.is_false(exists(path .. "-1") or exists(path .. "-3"))
        local lines = {}
        for line in io.lines(path .. ".csv") do lines[#lines + 1] = line end
        assert.equal(4, #lines)
        assert.equal("epoch,loss,val_loss,lr,seconds,waited,val_seconds,steps,images", lines[1])
        assert.is_truthy(lines[3]:find("^2,[%d.]+,1,0.1,"))
        os.remove(path .. ".csv")
        os.remove(path)
    end)
end)

describe("cancelling", function()
    after_each(function() resin.cancelled(true) end)

    it("ends a training after the step and gives its history", function()
        local model, set = classifier(), easy_data(100)
        local steps = 0
        local history = fit(model, set, {batch_size = 10, epochs = 3, callbacks = {{
            on_step_end = function()
                steps = steps + 1
                if steps == 14 then resin.cancel() end
            end,
        }}})
        assert.equal(14, steps)
        assert.equal(1, #history)
        assert.equal("interrupted", history.stopped)
        assert.is_false(resin.cancelled())
    end)

    it("ends a training before its first step", function()
        resin.cancel()
        assert.equal(0, #fit(classifier(), easy_data(10)))
    end)

    it("ends validation, which is made up for after resuming", function()
        local path = os.tmpname()
        local set = easy_data(64)
        local function train_once(cancel_at, options)
            local model, calls = classifier(), 0
            local function counting()
                calls = calls + 1
                if calls == cancel_at then resin.cancel() end
                return 0
            end
            local given = {batch_size = 16, epochs = 2, validation_data = set, checkpoint = path,
                metrics = {"accuracy", counting = counting}}
            for name, value in pairs(options or {}) do given[name] = value end
            return fit(model, set, given), model
        end
        local expected, whole = train_once(0)
        local history = train_once(6) -- the second batch of the first validation
        assert.equal(0, #history)
        assert.equal("interrupted", history.stopped)
        local resumed, model = train_once(0, {resume = true})
        os.remove(path)
        assert.equal(2, #resumed)
        for epoch = 1, 2 do
            assert.equal(expected[epoch].loss, resumed[epoch].loss)
            assert.equal(expected[epoch].val_loss, resumed[epoch].val_loss)
        end
        assert.same(whole:parameters()[1]:totable(), model:parameters()[1]:totable())
    end)

    it("ends evaluate and predict", function()
        local model, set = classifier(), easy_data(100)
        resin.cancel()
        assert.same({nil, "cancelled"}, {train.evaluate(model, set)})
        resin.cancel()
        assert.same({nil, "cancelled"}, {train.predict(model, set)})
    end)
end)

describe("progress", function()
    -- What a training with these step times shows.
    local function show(mode, width, steps, times)
        local now, out = 0, {}
        local display = progress.new(mode, {width = width, clock = function() return now end,
            write = function(text) out[#out + 1] = text end})
        for epoch = 1, 2 do
            display:start_epoch(epoch, 2, steps, 0)
            for step, seconds in ipairs(times) do
                now = now + seconds
                display:step({"loss"}, function() return {loss = 1 / step} end)
            end
            display:end_steps()
            now = now + 2
            display:end_epoch({"loss", "val_loss"}, {loss = 0.25, val_loss = 0.00012})
        end
        return table.concat(out)
    end

    it("is one line an epoch in a file, with ms/step without the first step", function()
        assert.equal("Epoch 1/2 - 4s 100ms/step - loss: 0.2500 - val_loss: 1.2000e-04\n"
            .. "Epoch 2/2 - 4s 100ms/step - loss: 0.2500 - val_loss: 1.2000e-04\n",
            show("lines", nil, 5, {2, 0.1, 0.1, 0.1, 0.1}))
    end)

    it("is a bar in a terminal", function()
        local out = show("bar", 100, 5, {2, 0.25, 0.25, 0.25, 0.25})
        assert.is_truthy(out:find("^Epoch 1/2\n\r1/5 %[=====>%.+%] %- ETA: 8s %- 2s/step %- "
            .. "loss: 1.0000 *\r2/5 %[===========>%.+%] %- ETA: 1s %- 250ms/step %- loss: 0.5000"))
        assert.is_truthy(out:find("\r5/5 [==============================] - 5s 250ms/step - "
            .. "loss: 0.2500 - val_loss: 1.2000e-04\nEpoch 2/2\n", 1, true))
    end)

    it("fits into a narrow terminal", function()
        for line in show("bar", 40, 500, {2, 1, 1, 1}):gmatch("\r([^\r\n]*)") do
            if line:find("ETA") then assert.is_true(#line < 40, line) end
        end
    end)

    it("is not drawn more often than ten times a second", function()
        local times = {}
        for i = 1, 1000 do times[i] = 0.001 end
        local _, redraws = show("bar", 80, 1000, times):gsub("\r", "")
        assert.is_true(redraws < 30, redraws)
    end)

    it("is silent when asked", function()
        assert.equal("", show(false, nil, 5, {1, 1}))
    end)
end)

describe("rows as text", function()
    it("read back to the same bits", function()
        local row = {a = 0.1, b = 1 / 3, c = 5, d = 5.0, e = -2 ^ -1040, f = math.huge,
            g = math.mininteger, h = true, i = false, j = 1e300, k = -0.0}
        local again = history_text.decode(history_text.encode(row))
        for name, value in pairs(row) do
            assert.equal(value, again[name])
            assert.equal(math.type(value), math.type(again[name]))
        end
        assert.equal(-math.huge, 1 / again.k)
        local nan = history_text.decode(history_text.encode{x = 0 / 0}).x
        assert.is_true(nan ~= nan)
    end)
end)
