-- slim: TF-slim's names, defaults, scopes and losses, on tensors and as a graph.
local resin = require "resin"
local nn, optim, slim = resin.nn, resin.optim, resin.slim

-- The error of f must have all the words.
local function assert_fails(f, ...)
    local ok, message = pcall(f)
    assert.is_false(ok, "no error")
    for _, word in ipairs{...} do
        assert.truthy(tostring(message):find(word, 1, true),
            ("no '%s' in: %s"):format(word, message))
    end
end

-- Largest difference of two tensors, relative to the largest value of the first.
local function difference(a, b)
    local scale = math.max(resin.max(resin.abs(a)):item(), 1e-30)
    return resin.max(resin.abs(a - b)):item() / scale
end

local function assert_near(expected, tensor)
    assert.near(expected, tensor:item(), 1e-5 * math.max(1, math.abs(expected)))
end

local function names_of(variables)
    local names = {}
    for position, variable in ipairs(variables) do names[position] = variable.name end
    return names
end

local function parameter_names(model)
    local names = {}
    for name in model:named_parameters() do names[#names + 1] = name end
    return names
end

local function images(...) return resin.rand(...) end

before_each(function()
    slim.reset()
    resin.seed(3)
end)

describe("a layer by hand", function()
    it("equals its slim form", function()
        local x = images(2, 6, 6, 4)
        resin.seed(9)
        -- Variables, convolution, biases, ReLU.
        local by_hand = slim.variable_scope("conv1_1", function()
            local weights = slim.variable("weights", {3, 3, 4, 8}, {
                initializer = slim.truncated_normal_initializer(0, 0.1),
            })
            local biases = slim.variable("biases", {8}, {initializer = slim.zeros_initializer()})
            return resin.relu(resin.conv2d(x, weights, nil, {same = true}) + biases)
        end)
        resin.seed(9)
        local options = {
            weights_initializer = slim.truncated_normal_initializer(0, 0.1), scope = "again",
        }
        local short = slim.conv2d(x, 8, {3, 3}, options)
        assert.truthy(resin.max(by_hand):item() > 0)
        assert.truthy(difference(by_hand, short) < 1e-6)
        -- And with the same variables.
        local shared = slim.conv2d(x, 8, {3, 3}, {scope = "conv1_1", reuse = true})
        assert.truthy(difference(by_hand, shared) < 1e-6)
        assert.same({"conv1_1/weights", "conv1_1/biases", "again/weights", "again/biases"},
            names_of(slim.get_variables()))
    end)
end)

describe("defaults", function()
    it("of conv2d are SAME, stride 1, ReLU, Xavier's weights and zero biases", function()
        local y = slim.conv2d(images(2, 7, 7, 16), 32, 3, {scope = "c"})
        assert.same({2, 7, 7, 32}, y:shape())
        assert.equal(0, resin.min(y):item())
        local weights = slim.get_unique_variable("c/weights").tensor
        local limit = math.sqrt(6 / (9 * 16 + 9 * 32))
        local largest = resin.max(resin.abs(weights)):item()
        assert.truthy(largest <= limit and largest > 0.98 * limit)
        assert.equal(0, resin.max(resin.abs(slim.get_unique_variable("c/biases").tensor)):item())
    end)

    it("of pools are VALID and stride 2", function()
        assert.same({1, 3, 3, 2}, slim.max_pool2d(images(1, 7, 7, 2), {2, 2}):shape())
        assert.same({1, 3, 3, 2}, slim.avg_pool2d(images(1, 7, 7, 2), 3):shape())
        local same = slim.max_pool2d(images(1, 7, 7, 2), 3, {padding = "SAME"})
        assert.same({1, 4, 4, 2}, same:shape())
        local mean = slim.avg_pool2d(resin.ones(1, 3, 3, 1), 3, 2, "SAME") -- padding does not count
        assert.equal(1, resin.min(mean):item())
    end)

    it("of dropout keep half, and keep_prob is what is kept", function()
        local x = resin.ones(1, 10000)
        local y = slim.dropout(x, 0.9)
        local kept = resin.sum(resin.cast(resin.greater(y, 0), {dtype = "float32"})):item()
        assert.truthy(kept > 8800 and kept < 9200)
        assert.near(1 / 0.9, resin.max(y):item(), 1e-6)
        assert.near(2, resin.max(slim.dropout(x)):item(), 1e-6)
        assert.equal(x, slim.dropout(x, 0.5, false))
        assert_fails(function() slim.dropout(x, 0) end, "keep_prob", "kept")
    end)

    it("of batch_norm are decay 0.999, epsilon 0.001, a shift and no scale", function()
        local x = resin.tensor{{1}, {2}, {3}, {6}}
        local y = slim.batch_norm(x, {scope = "bn"})
        assert.near((6 - 3) / math.sqrt(3.5 + 0.001), y:totable()[4][1], 1e-5)
        assert.same({"bn/beta", "bn/moving_mean", "bn/moving_variance"},
            names_of(slim.get_variables()))
        assert.near(0.003, slim.get_unique_variable("bn/moving_mean").tensor:totable()[1], 1e-7)
        assert.near(0.999 + 0.001 * 14 / 3,
            slim.get_unique_variable("bn/moving_variance").tensor:totable()[1], 1e-6)
        assert.same({"bn/beta"}, names_of(slim.get_trainable_variables()))
        local still = slim.batch_norm(x, {scope = "bn", reuse = true, is_training = false})
        assert.near((6 - 0.003) / math.sqrt(1.0026667), still:totable()[4][1], 1e-2)
        assert.near(0.003, slim.get_unique_variable("bn/moving_mean").tensor:totable()[1], 1e-7)
    end)

    it("of fully_connected are ReLU and a flattened input", function()
        local x = images(2, 3, 3, 2)
        assert.same({2, 5}, slim.fully_connected(x, 5, {scope = "a"}):shape())
        local y = slim.fully_connected(x, 5, {scope = "b", flatten = false, activation_fn = false})
        assert.same({2, 3, 3, 5}, y:shape())
        assert.truthy(resin.min(y):item() < 0)
        assert.same({18, 5}, slim.get_unique_variable("a/weights").tensor:shape())
        assert.same({2, 5}, slim.get_unique_variable("b/weights").tensor:shape())
    end)

    it("a normalizer stands in the place of biases", function()
        local y = slim.conv2d(images(4, 5, 5, 3), 6, {3, 3}, {
            normalizer_fn = slim.batch_norm, normalizer_params = {scale = true, decay = 0.9},
            scope = "conv1",
        })
        assert.equal(0, resin.min(y):item())
        assert.same({
            "conv1/weights", "conv1/BatchNorm/gamma", "conv1/BatchNorm/beta",
            "conv1/BatchNorm/moving_mean", "conv1/BatchNorm/moving_variance",
        }, names_of(slim.get_model_variables()))
    end)

    it("softmax, flatten and one_hot do what they say", function()
        assert_near(2, slim.softmax(images(2, 5)):sum())
        assert.same({2, 12}, slim.flatten(images(2, 2, 3, 2)):shape())
        local labels = resin.tensor({2, 1}, "int64")
        assert.same({{0, 1, 0}, {1, 0, 0}}, slim.one_hot(labels, 3):totable())
        assert.same({{-1, 2}, {2, -1}}, slim.one_hot(labels, 2, 2, -1):totable())
        local x = nn.input{shape = {}, dtype = "int64"}
        assert.same({3}, slim.one_hot(x, 3):shape())
    end)

    it("activations are names, functions of tensors, layers of nn and of slim", function()
        local x = images(2, 4)
        local function with(activation)
            return slim.variable_scope("net", {reuse = "auto"}, function()
                return slim.fully_connected(x, 6, {activation_fn = activation, scope = "fc"})
            end)
        end
        local plain = with(false)
        assert.truthy(difference(resin.elu(plain), with("elu")) < 1e-6)
        assert.truthy(difference(resin.elu(plain), with(resin.elu)) < 1e-6)
        assert.truthy(difference(resin.elu(plain), with(nn.elu)) < 1e-6)
        assert.truthy(difference(resin.softmax(plain, -1), with(slim.softmax)) < 1e-6)
        assert.truthy(difference(plain * 2, with(function(y) return y * 2 end)) < 1e-6)
        local z = nn.input{4}
        local y = slim.fully_connected(z, 6, {activation_fn = function(t) return t * 2 end})
        assert.same({2, 6}, nn.model(z, y)(x):shape())
        assert_fails(function() with("rellu") end, "rellu")
    end)
end)

describe("repeat_ and stack", function()
    it("number their scopes", function()
        local x = images(1, 8, 8, 3)
        assert.equal(slim.repeat_, slim["repeat"])
        slim.repeat_(x, 3, slim.conv2d, 4, {3, 3}, {scope = "conv3"})
        slim.stack(x, slim.fully_connected, {5, 6}, {scope = "fc"})
        slim.stack(x, slim.conv2d, {{4, {3, 3}}, {5, {1, 1}, stride = 2}}, {scope = "core"})
        slim.repeat_(x, 1, slim.conv2d, 4, {3, 3})
        slim.repeat_(x, 1, slim.conv2d, 4, {3, 3})
        slim.stack(x, slim.fully_connected, {5})
        assert.same({
            "conv3/conv3_1/weights", "conv3/conv3_2/weights", "conv3/conv3_3/weights",
            "fc/fc_1/weights", "fc/fc_2/weights", "core/core_1/weights", "core/core_2/weights",
            "Repeat/convolution2d_1/weights", "Repeat_1/convolution2d_1/weights",
            "Stack/fully_connected_1/weights",
        }, names_of(slim.get_variables(nil, "weights")))
        assert.same({1, 1, 4, 5}, slim.get_unique_variable("core/core_2/weights").tensor:shape())
    end)

    it("take functions of the user, too", function()
        local function double(x, factor, options)
            assert.truthy(options.scope:find("^twice/?_?%d$"))
            return x * factor
        end
        assert.equal(8, slim.repeat_(resin.ones(1), 3, double, 2, {scope = "twice"}):item())
    end)

    it("refuse what is not a list", function()
        local x = images(1, 8)
        assert_fails(function() slim.stack(x, slim.fully_connected, 32) end, "slim.stack", "list")
        assert_fails(function() slim.stack(x, "conv2d", {32}) end, "slim.stack", "layer")
        assert_fails(function() slim.repeat_(x, 1.5, slim.fully_connected, 3) end, "repetitions")
    end)
end)

describe("arg_scope", function()
    local seen
    local probe = slim.add_arg_scope{
        name = "probe", positional = {"first"}, defaults = {first = 1, second = 2, third = 3},
        call = function(_, given) seen = {given.first, given.second, given.third} end,
    }
    local function call(...)
        probe(nil, ...)
        return seen
    end

    it("nests: the inner one and the argument itself win", function()
        slim.arg_scope({probe}, {first = 10, second = 20}, function()
            assert.same({10, 20, 3}, call())
            slim.arg_scope({probe}, {second = 200}, function()
                assert.same({10, 200, 3}, call())
                assert.same({7, 200, 8}, call(7, {third = 8}))
                assert.same({10, false, 3}, call{second = false})
            end)
            assert.same({10, 20, 3}, call())
        end)
        assert.same({1, 2, 3}, call())
    end)

    it("is left by an error, too, and returns what its function does", function()
        pcall(slim.arg_scope, {probe}, {first = 10}, function() error("x") end)
        assert.same({1, 2, 3}, call())
        assert.same({4, 5}, {slim.arg_scope({probe}, {first = 10}, function() return 4, 5 end)})
    end)

    it("can be saved; entered again it replaces the one around", function()
        local saved = slim.arg_scope({probe}, {first = 10})
        local inner
        slim.arg_scope({probe}, {second = 20}, function()
            slim.arg_scope({probe}, {third = 30}, function(scope) inner = scope end)
            slim.arg_scope(saved, function() assert.same({10, 2, 3}, call()) end)
            assert.same({1, 20, 3}, call())
        end)
        slim.arg_scope(inner, function() assert.same({1, 20, 30}, call()) end)
        assert_fails(function() slim.arg_scope(saved, {first = 1}, print) end, "saved scope")
    end)

    it("sets several layers at once", function()
        local x = images(1, 9, 9, 3)
        slim.arg_scope({slim.conv2d, slim.max_pool2d}, {stride = 3, padding = "VALID"}, function()
            assert.same({1, 3, 3, 4}, slim.conv2d(x, 4, 3):shape())
            assert.same({1, 3, 3, 3}, slim.max_pool2d(x, 3):shape())
            assert.same({1, 9, 9, 4}, slim.conv2d(x, 4, 3, 1, "SAME"):shape())
        end)
    end)

    it("refuses layers that take no scope and arguments that a layer has not", function()
        assert_fails(function() slim.arg_scope({slim.conv2d, print}, {stride = 2}) end, "item 2")
        assert_fails(function() slim.arg_scope({slim.repeat_}, {stride = 2}) end, "item 1")
        assert_fails(function() slim.arg_scope({slim.conv2d}, {keep_prob = 1}) end, "slim.conv2d",
            "keep_prob")
        assert_fails(function() slim.arg_scope("conv2d", {stride = 1}) end, "list")
        local x = images(1, 4)
        assert_fails(function() slim.fully_connected(x, 3, {num_outputs = 4}) end, "given twice")
        assert_fails(function() slim.fully_connected(x) end, "num_outputs")
        assert_fails(function() slim.fully_connected(x, 3, {unit = 4}) end, "unit", "slim_spec.lua")
        assert_fails(function() slim.dropout(x, 0.5, true, 3) end, "at most 2")
        assert_fails(function() slim.conv2d(3, 3, 3) end, "slim.conv2d", "number")
    end)
end)

describe("variable scopes", function()
    local x

    before_each(function() x = images(2, 4) end)

    it("name variables, and count layers without a scope", function()
        slim.variable_scope("net", function(scope)
            assert.equal("net", scope.name)
            slim.fully_connected(x, 3)
            slim.fully_connected(x, 3)
            slim.variable_scope("inner", function() slim.fully_connected(x, 3, {scope = "a/b"}) end)
        end)
        assert.same({
            "net/fully_connected/weights", "net/fully_connected_1/weights", "net/inner/a/b/weights",
        }, names_of(slim.get_variables(nil, "weights")))
        assert.same({"net/inner/a/b/weights", "net/inner/a/b/biases"},
            names_of(slim.get_variables("net/inner")))
        assert.equal(3, #slim.get_variables_by_name("biases"))
    end)

    it("share with reuse and only with it", function()
        local function net(input) return slim.fully_connected(input, 3, {scope = "fc"}) end
        local first = slim.variable_scope("net", function() return net(x) end)
        assert_fails(function() slim.variable_scope("net", function() net(x) end) end,
            "net/fc/weights", "reuse = true")
        local again = slim.variable_scope("net", {reuse = true}, function() return net(x) end)
        assert.equal(0, difference(first, again))
        assert_fails(function()
            slim.variable_scope("other", {reuse = true}, function() net(x) end)
        end, "other/fc/weights", "no variable")
        assert_fails(function() slim.fully_connected(images(2, 5), 3, {scope = "net/fc",
            reuse = true}) end, "net/fc/weights", "{4, 3}", "{5, 3}")
        assert_fails(function() slim.fully_connected(x, 3, {reuse = true}) end, "needs a scope")
        assert_fails(function() slim.fully_connected(x, 3, {reuse = "yes"}) end, "yes")
        slim.get_variable_scope():reuse_variables()
        assert.truthy(slim.fully_connected(x, 3, {scope = "net/fc"}))
    end)

    it("train on tensors: 'auto', the total loss, an optimizer over the variables", function()
        local data = resin.randn(64, 4)
        local labels = resin.argmax(data, 2)
        local function net(input)
            return slim.variable_scope("net", {reuse = "auto"}, function()
                local y = slim.fully_connected(input, 16, {
                    normalizer_fn = slim.batch_norm,
                    weights_regularizer = slim.l2_regularizer(1e-4),
                })
                return slim.fully_connected(y, 4, {activation_fn = false})
            end)
        end
        local function loss()
            slim.losses.softmax_cross_entropy(net(data), slim.one_hot(labels, 4))
            return slim.losses.get_total_loss()
        end
        local before = loss():item()
        local optimizer = optim.adam{slim.get_trainable_variables(), learning_rate = 0.02}
        for _ = 1, 60 do
            loss():backward()
            optimizer:step()
            optimizer:clear_grads()
        end
        assert.truthy(loss():item() < 0.3 * before)
        assert.equal(6, #slim.get_variables()) -- and no new ones
        local mean = slim.get_unique_variable("net/fully_connected/BatchNorm/moving_mean").tensor
        assert.truthy(resin.max(resin.abs(mean)):item() > 0)
    end)

    it("leave variables alone that are not trainable", function()
        slim.fully_connected(x, 3, {scope = "fc", trainable = false})
        assert.equal(0, #slim.get_trainable_variables())
        assert.equal(2, #slim.get_variables())
        local z = nn.input{4}
        local y = slim.fully_connected(z, 3, {scope = "fc", trainable = false})
        local total, trainable = nn.model(z, slim.fully_connected(y, 2)):count()
        assert.same({23, 8}, {total, trainable})
    end)

    it("keep graphs apart, and share between them with reuse", function()
        local function net(input, reuse)
            return slim.variable_scope("net", {reuse = reuse}, function()
                return slim.fully_connected(input, 3, {
                    normalizer_fn = slim.batch_norm, scope = "fc",
                })
            end)
        end
        local a, b, c = nn.input{4}, nn.input{4}, nn.input{4}
        local model_a, model_b = nn.model(a, net(a)), nn.model(b, net(b))
        local model_c = nn.model(c, net(c, true)) -- as the last one that was made
        assert.same(parameter_names(model_a), parameter_names(model_c))
        assert.truthy(difference(model_a(x), model_b(x)) > 0.01)
        assert.equal(0, difference(model_b(x), model_c(x)))
        model_b(x, {training = true})
        assert.equal(0, difference(model_b(x), model_c(x))) -- moving statistics, too
        assert_fails(function() net(a) end, "net/fc/weights", "already")
        local y = slim.variable_scope("net", {reuse = true}, function()
            return slim.fully_connected(x, 3, {
                normalizer_fn = slim.batch_norm, normalizer_params = {is_training = false},
                scope = "fc",
            })
        end)
        assert.truthy(difference(model_b(x), y) < 1e-6)
        -- Twice in one graph: one set of weights.
        local d, e = nn.input{4}, nn.input{4}
        local twice = nn.model({d, e}, net(d) + net(e, true))
        assert.equal(12 + 3 + 6, (twice:count()))
        assert.same({"net/fc/weights", "net/fc/BatchNorm/beta"}, parameter_names(twice))
    end)

    it("in_new_graph keeps everything apart", function()
        slim.fully_connected(x, 3, {scope = "fc"})
        slim.in_new_graph(function()
            assert.equal(0, #slim.get_variables())
            slim.fully_connected(x, 3, {scope = "fc"})
        end)
        assert.equal(2, #slim.get_variables())
    end)

    it("warn of variables inside of other layers", function()
        local Block = nn.layer("SlimInside")
        function Block:call(y) return slim.fully_connected(y, 3) end
        assert_fails(function() Block()(x) end, "slim", "layers of nn")
    end)
end)

describe("collections", function()
    it("give end points in order", function()
        local x = nn.input{8, 8, 3}
        slim.arg_scope({slim.conv2d, slim.max_pool2d}, {outputs_collections = "points"}, function()
            local y = slim.repeat_(x, 2, slim.conv2d, 4, {3, 3}, {scope = "conv1"})
            y = slim.max_pool2d(y, 2, {scope = "pool1"})
            slim.conv2d(y, 5, 1, {scope = "conv2", variables_collections = {weights = "w"}})
        end)
        local points, names = slim.utils.convert_collection_to_dict("points"), {}
        for name in pairs(points) do names[#names + 1] = name end
        assert.same({"conv1/conv1_1", "conv1/conv1_2", "pool1", "conv2"}, names)
        assert.same({4, 4, 4}, points.pool1:shape())
        assert.equal(4, #slim.get_collection("points"))
        assert.same({"conv2/weights"}, names_of(slim.get_collection("w")))
        -- A model may end at any of them.
        assert.same({1, 4, 4, 4}, nn.model(x, points.pool1)(images(1, 8, 8, 3)):shape())
    end)
end)

describe("initializers", function()
    it("have TF-slim's deviations", function()
        local function spread(initializer, deviation, limit)
            slim.reset()
            local w = slim.variable("w", {3, 3, 64, 128}, {initializer = initializer})
            assert.near(deviation, math.sqrt(w:variance():item()), deviation / 50)
            assert.truthy(resin.max(resin.abs(w)):item() <= limit)
        end
        local fan_in, fan_avg = 9 * 64, 9 * (64 + 128) / 2
        -- A normal distribution cut off at 2 deviations has the deviation 0.8796.
        spread(slim.truncated_normal_initializer(0, 0.01), 0.008796, 0.02)
        local xavier = math.sqrt(1 / fan_avg)
        spread(slim.xavier_initializer(), xavier, math.sqrt(3) * xavier)
        local function cut(factor, n) return math.sqrt(1.3 * factor / n) end
        spread(slim.xavier_initializer{uniform = false}, 0.8796 * cut(1, fan_avg),
            2 * cut(1, fan_avg))
        spread(slim.variance_scaling_initializer(), 0.8796 * cut(2, fan_in), 2 * cut(2, fan_in))
        spread(slim.variance_scaling_initializer{factor = 1, mode = "FAN_OUT", uniform = true},
            math.sqrt(1 / (9 * 128)), math.sqrt(3 / (9 * 128)))
        assert_fails(function() slim.variance_scaling_initializer{mode = "FAN"} end, "FAN_AVG")
    end)
end)

describe("regularizers", function()
    it("have TF-slim's values", function()
        local w = resin.tensor{1, -2, 3}
        assert_near(0.6, slim.l1_regularizer(0.1)(w))
        assert_near(0.7, slim.l2_regularizer(0.1)(w))
        assert_near(0.6 + 7, slim.l1_l2_regularizer(0.1, 1)(w))
        local both = slim.sum_regularizer{slim.l1_regularizer(0.1), slim.l2_regularizer(0.1)}
        assert_near(1.3, both(w))
        local own = slim.sum_regularizer{slim.l1_regularizer(0.1), function(t) return t:sum() end}
        assert_near(2.6, own(w))
        assert_fails(function() slim.l2_regularizer(-1) end, "l2_regularizer")
    end)

    it("are in the total loss, and are penalties of a model", function()
        local function net(x)
            return slim.arg_scope({slim.fully_connected}, {
                weights_regularizer = slim.l2_regularizer(0.01),
                biases_regularizer = slim.l1_regularizer(0.5), biases_initializer = 0.25,
            }, function() return slim.fully_connected(x, 3, {scope = "fc"}) end)
        end
        local x = resin.rand(2, 4)
        net(x)
        local w = slim.get_unique_variable("fc/weights").tensor
        local expected = 0.01 * resin.sum(w * w):item() / 2 + 0.5 * 0.75
        assert.equal(2, #slim.losses.get_regularization_losses())
        assert_near(expected, slim.losses.get_regularization_loss())
        slim.losses.add_loss(resin.tensor(2.0))
        assert_near(2 + expected, slim.losses.get_total_loss())
        assert_near(2, slim.losses.get_total_loss(false))
        local input = nn.input{4}
        local model = nn.model(input, net(input))
        local weights = model:parameters()[1]
        expected = 0.01 * resin.sum(weights * weights):item() / 2 + 0.5 * 0.75
        assert.near(expected, model:penalty(), 1e-5)
        assert_fails(function()
            slim.fully_connected(input, 2, {scope = "own",
                weights_regularizer = function(t) return t:sum() end})
        end, "own/weights", "regularizer")
    end)
end)

describe("losses", function()
    local logits = resin.tensor{{2, 1, 0}, {0, 0, 3}}
    local labels = resin.tensor({1, 2}, "int64")
    local first = math.log(1 + math.exp(-1) + math.exp(-2))
    local second = 3 + math.log(1 + 2 * math.exp(-3))

    it("softmax_cross_entropy takes predictions, then one-hot labels", function()
        local one_hot = slim.one_hot(labels, 3)
        assert_near((first + second) / 2, slim.losses.softmax_cross_entropy(logits, one_hot))
        assert_near((first + second) / 2, slim.losses.sparse_softmax_cross_entropy(logits, labels))
        assert_near(first + second, slim.losses.get_total_loss())
        assert_near(2 * (first + second) / 2, slim.losses.softmax_cross_entropy(logits, one_hot, 2))
        assert.equal(1, #slim.losses.get_losses()) -- a new list after a total
        -- The mean is over those whose weight is not 0.
        assert_near(3 * second,
            slim.losses.softmax_cross_entropy(logits, one_hot, {weights = resin.tensor{0, 3}}))
        assert_near(0,
            slim.losses.softmax_cross_entropy(logits, one_hot, {weights = resin.tensor{0, 0}}))
        local smoothed = slim.losses.softmax_cross_entropy(logits, one_hot, {label_smoothing = 0.3})
        local log = resin.log_softmax(logits, -1)
        local targets = one_hot * 0.7 + 0.1
        assert_near(-resin.sum(log * targets):item() / 2, smoothed)
        assert_fails(function() slim.losses.softmax_cross_entropy(logits, labels) end, "(2, 3)",
            "(2,)", "one_hot")
        assert_fails(function() slim.losses.softmax_cross_entropy(nn.input{3}, one_hot) end, "fit")
        assert_fails(function()
            slim.losses.softmax_cross_entropy(logits, one_hot, {weights = resin.rand(3)})
        end, "(3,)")
    end)

    it("have TF-slim's formulas", function()
        local p, t = resin.tensor{{0.5, 0.25}, {0.75, 1}}, resin.tensor{{1, 0}, {1, 0.5}}
        local losses = slim.losses
        assert_near((0.25 + 0.0625 + 0.0625 + 0.25) / 4, losses.mean_squared_error(p, t))
        assert_near((0.5 + 0.25 + 0.25 + 0.5) / 4, losses.absolute_difference(p, t))
        assert_near(0.5 * 2, losses.absolute_difference(p, t, resin.tensor{{2, 0}, {0, 0}}))
        assert_near((0.5 + 0.25) / 2, losses.absolute_difference(p, t, resin.tensor{{1}, {0}}))
        local function ln(x) return math.log(x + 1e-7) end
        assert_near(-(ln(0.5) + ln(0.75) + ln(0.75) + 0.5 * ln(1) + 0.5 * ln(0)) / 4,
            losses.log_loss(p, t))
        local function softplus(x) return math.log(1 + math.exp(x)) end
        assert_near((softplus(-0.5) + softplus(0.25) + softplus(-0.75) + softplus(1) - 0.5) / 4,
            losses.sigmoid_cross_entropy(p, t))
        assert_near(((1 - 0.5) + (1 - (0.75 + 0.5))) / 2, losses.cosine_distance(p, t, 2))
        assert.same({{0.5, 1.25}, {0.25, 0}},
            losses.hinge_loss(p, resin.tensor{{1, 0}, {1, 1}}):totable())
        -- Per sample (d1 - d2)^2 / 2: d = (-0.5, 0.25) and (-0.25, 0.5).
        assert_near(2 * 0.75 ^ 2 / 2, losses.mean_pairwise_squared_error(p, t))
        assert_near(0.75 ^ 2, losses.mean_pairwise_squared_error(p, t, resin.tensor{2, 0}))
    end)

    it("have a gradient", function()
        local x = resin.tensor{{1, 2, 3}}:require_grad()
        slim.losses.softmax_cross_entropy(x, slim.one_hot(resin.tensor({3}, "int64"), 3))
        slim.losses.get_total_loss():backward()
        assert.near(0, x.grad:sum():item(), 1e-6)
        assert.truthy(x.grad:totable()[1][3] < 0)
        assert_fails(function()
            slim.reset()
            slim.losses.get_total_loss()
        end, "no loss")
    end)
end)

describe("a model", function()
    local function small(x, is_training)
        return slim.arg_scope({slim.conv2d}, {
            normalizer_fn = slim.batch_norm,
            normalizer_params = {decay = 0.9, is_training = is_training},
            weights_regularizer = slim.l2_regularizer(0.001),
        }, function()
            local net = slim.repeat_(x, 2, slim.conv2d, 8, {3, 3}, {scope = "conv1"})
            net = slim.max_pool2d(net, {2, 2}, {scope = "pool1"})
            net = slim.dropout(slim.fully_connected(net, 16, {scope = "fc2"}), 0.8)
            return slim.fully_connected(net, 2, {activation_fn = false, scope = "fc3"})
        end)
    end

    it("is trained, saved and loaded, with fused convolutions", function()
        local x = nn.input{8, 8, 1}
        local model = nn.model(x, small(x))
        assert.equal(7, #model.plan.steps)
        local data = images(64, 8, 8, 1)
        -- Which half of an image is brighter.
        local upper = data[{{}, {1, 4}}]:mean{axes = {2, 3, 4}}
        local lower = data[{{}, {5, 8}}]:mean{axes = {2, 3, 4}}
        local labels = resin.cast(resin.greater(upper, lower), "int64") + 1
        local history = model:fit({data, labels}, {
            optimizer = optim.adam{model, learning_rate = 0.01}, epochs = 12, batch_size = 16,
            loss = slim.losses.softmax_cross_entropy, one_hot = true, verbose = false,
        })
        assert.truthy(history[#history].accuracy > 0.9, history[#history].accuracy)
        local path = os.tmpname()
        model:save(path)
        slim.reset()
        local y = nn.input{8, 8, 1}
        local copy = nn.model(y, small(y))
        copy:load(path)
        os.remove(path)
        assert.equal(0, difference(model(data), copy(data)))
        assert.same({
            "conv1/conv1_1/weights", "conv1/conv1_1/BatchNorm/beta", "conv1/conv1_2/weights",
            "conv1/conv1_2/BatchNorm/beta", "fc2/weights", "fc2/biases", "fc3/weights",
            "fc3/biases",
        }, parameter_names(copy))
    end)

    it("gives what its layers give on tensors", function()
        local x = nn.input{8, 8, 1}
        local model = nn.model(x, small(x))
        local data = images(3, 8, 8, 1)
        model(data, {training = true}) -- moves the statistics
        local y = slim.variable_scope(slim.get_variable_scope(), {reuse = true}, function()
            return slim.arg_scope({slim.dropout}, {is_training = false}, function()
                return small(data, false)
            end)
        end)
        assert.truthy(difference(model(data), y) < 1e-5)
    end)

    it("keeps what is_training = false says", function()
        local x = nn.input{4}
        local y = slim.batch_norm(slim.dropout(x, 0.5, false), {is_training = false, scope = "bn"})
        local model = nn.model(x, y)
        local data = images(8, 4)
        local result = model(data, {training = true})
        assert.truthy(difference(data, result) < 1e-3)
        result:sum():backward()
        local beta = slim.get_unique_variable("bn/beta").tensor
        assert.near(8, beta.grad:totable()[1], 1e-4) -- which is trained all the same
    end)
end)

describe("VGG-16", function()
    -- As TF-slim's readme writes it.
    local function vgg16(inputs, flatten)
        return slim.arg_scope({slim.conv2d, slim.fully_connected}, {
            activation_fn = "relu", weights_initializer = "zeros", -- 0.5 GB of random numbers
            weights_regularizer = slim.l2_regularizer(0.0005),
        }, function()
            local net = slim.repeat_(inputs, 2, slim.conv2d, 64, {3, 3}, {scope = "conv1"})
            net = slim.max_pool2d(net, {2, 2}, {scope = "pool1"})
            net = slim.repeat_(net, 2, slim.conv2d, 128, {3, 3}, {scope = "conv2"})
            net = slim.max_pool2d(net, {2, 2}, {scope = "pool2"})
            net = slim.repeat_(net, 3, slim.conv2d, 256, {3, 3}, {scope = "conv3"})
            net = slim.max_pool2d(net, {2, 2}, {scope = "pool3"})
            net = slim.repeat_(net, 3, slim.conv2d, 512, {3, 3}, {scope = "conv4"})
            net = slim.max_pool2d(net, {2, 2}, {scope = "pool4"})
            net = slim.repeat_(net, 3, slim.conv2d, 512, {3, 3}, {scope = "conv5"})
            net = slim.max_pool2d(net, {2, 2}, {scope = "pool5"})
            net = slim.fully_connected(net, 4096, {scope = "fc6", flatten = flatten})
            net = slim.dropout(net, 0.5, {scope = "dropout6"})
            net = slim.fully_connected(net, 4096, {scope = "fc7", flatten = flatten})
            net = slim.dropout(net, 0.5, {scope = "dropout7"})
            return slim.fully_connected(net, 1000,
                {activation_fn = false, scope = "fc8", flatten = flatten})
        end)
    end

    local function count(make)
        local x = nn.input{224, 224, 3}
        local y = make(x)
        local total = nn.model(x, y):count()
        slim.reset()
        collectgarbage()
        return total, y:shape()
    end

    it("in a dozen lines has 138,357,544 parameters, without flattening 37,694,248", function()
        local total, sizes = count(function(x) return vgg16(x) end)
        assert.equal(138357544, total)
        assert.same({1000}, sizes)
        total, sizes = count(function(x) return vgg16(x, false) end)
        assert.equal(37694248, total)
        assert.same({7, 7, 1000}, sizes)
    end)

    it("ready-made has TF-slim's names and end points", function()
        assert.equal(slim.nets.vgg.vgg_16, slim.nets.vgg_16)
        local points
        local total, sizes = count(function(x)
            local net
            slim.arg_scope({slim.conv2d}, {weights_initializer = "zeros"}, function()
                net, points = slim.nets.vgg.vgg_16(x)
            end)
            local names = names_of(slim.get_model_variables())
            assert.equal(32, #names)
            assert.equal("vgg_16/conv3/conv3_1/weights", names[9])
            assert.equal("vgg_16/fc8/biases", names[32])
            return net
        end)
        assert.equal(138357544, total)
        assert.same({1000}, sizes)
        local names = {}
        for name in pairs(points) do names[#names + 1] = name end
        assert.equal(21, #points)
        assert.equal("vgg_16/conv1/conv1_1", names[1])
        assert.equal("vgg_16/pool1", names[3])
        assert.equal("vgg_16/fc8", names[21])
        assert.same({1, 1, 4096}, points["vgg_16/fc6"]:shape())
        assert.same({1000}, points["vgg_16/fc8"]:shape())
    end)

    it("works fully convolutionally, and says when it cannot squeeze", function()
        slim.arg_scope({slim.conv2d}, {weights_initializer = "zeros"}, function()
            assert_fails(function() slim.nets.vgg_16(nn.input{256, 256, 3}, 10) end, "2 x 2",
                "spatial_squeeze")
            local y = slim.nets.vgg_16(nn.input{256, 256, 3}, 10, {spatial_squeeze = false})
            assert.same({2, 2, 10}, y:shape())
            y = slim.nets.vgg.vgg_a(nn.input{32, 32, 3}, 10, {fc_conv_padding = "SAME"})
            assert.same({10}, y:shape())
        end)
        slim.reset()
        collectgarbage()
    end)
end)

describe("the ResNets", function()
    local function network(name, input, ...)
        local given = table.pack(...)
        return slim.arg_scope({slim.conv2d}, {weights_initializer = "zeros"}, function()
            return slim.nets[name](input, table.unpack(given, 1, given.n))
        end)
    end

    local CASES = {
        {"resnet_v1_50", 25557032, 53120, {
            ["resnet_v1_50/conv1/weights"] = {7, 7, 3, 64},
            ["resnet_v1_50/conv1/BatchNorm/gamma"] = {64},
            ["resnet_v1_50/block1/unit_1/bottleneck_v1/shortcut/weights"] = {1, 1, 64, 256},
            ["resnet_v1_50/block4/unit_3/bottleneck_v1/conv3/BatchNorm/moving_mean"] = {2048},
            ["resnet_v1_50/logits/biases"] = {1000},
        }, 267},
        -- Keras' ResNet50V2 has biases in the same places.
        {"resnet_v2_50", 25613800 - 45440, 45440, {
            ["resnet_v2_50/conv1/biases"] = {64},
            ["resnet_v2_50/block1/unit_1/bottleneck_v2/preact/gamma"] = {64},
            ["resnet_v2_50/block1/unit_1/bottleneck_v2/shortcut/biases"] = {256},
            ["resnet_v2_50/block2/unit_1/bottleneck_v2/conv2/BatchNorm/beta"] = {128},
            ["resnet_v2_50/postnorm/moving_variance"] = {2048},
            ["resnet_v2_50/logits/weights"] = {1, 1, 2048, 1000},
        }, 272},
    }
    for _, case in ipairs(CASES) do
        local name, trainable, still, shapes, count = table.unpack(case)
        it(name .. " has TF-slim's variables", function()
            local x = nn.input{224, 224, 3}
            local y, points = network(name, x, 1000)
            local _, of_model, rest = nn.model(x, y):count()
            assert.same({trainable, still}, {of_model, rest})
            assert.equal(count, #slim.get_variables())
            for variable, sizes in pairs(shapes) do
                assert.same(sizes, slim.get_unique_variable(variable).tensor:shape(), variable)
            end
            local unit = name:gsub("resnet_(v%d)_50", "bottleneck_%1")
            -- The stride sits in the last unit of a block.
            assert.same({56, 56, 256}, points[name .. "/block1/unit_2/" .. unit]:shape())
            assert.same({28, 28, 256}, points[name .. "/block1/unit_3/" .. unit]:shape())
            assert.same({28, 28, 256}, points[name .. "/block1"]:shape())
            assert.same({7, 7, 2048}, points[name .. "/block4"]:shape())
            assert.same({1000}, points.predictions:shape())
            slim.reset()
            collectgarbage()
        end)
    end

    it("have the settings of their arg scope, which one around overrides", function()
        local x = nn.input{32, 32, 3}
        local net = network("resnet_v1_50", x, 10)
        local model = nn.model(x, net)
        local norm = model:get_layer("resnet_v1_50/conv1/BatchNorm")
        assert.near(0.003, norm.training_attributes.momentum, 1e-12)
        assert.equal(1e-5, norm.epsilon)
        local function l2()
            return slim.get_unique_variable("resnet_v1_50/conv1/weights").regularizer.l2
        end
        assert.near(5e-5, l2(), 1e-12)
        slim.reset()
        local scope = slim.nets.resnet_v1.resnet_arg_scope{weight_decay = 0.01}
        slim.arg_scope(scope, function() network("resnet_v1_50", nn.input{32, 32, 3}, 10) end)
        assert.near(5e-3, l2(), 1e-12)
    end)

    it("strided convolutions give every other result of stride 1", function()
        local x = images(1, 8, 8, 2)
        local one = slim.nets.resnet_utils.conv2d_same(x, 3, 3, 1, {scope = "c"})
        slim.get_variable_scope():reuse_variables()
        local two = slim.nets.resnet_utils.conv2d_same(x, 3, 3, 2, {scope = "c"})
        assert.truthy(difference(slim.nets.resnet_utils.subsample(one, 2), two) < 1e-5)
    end)

    it("keep the positions for output_stride, and give features without classes", function()
        local x = nn.input{64, 64, 3}
        local y = network("resnet_v2_50", x, {global_pool = false, output_stride = 8})
        assert.same({8, 8, 2048}, y:shape())
        assert.same({1, 1, 2048}, network("resnet_v1_50", x):shape())
        assert_fails(function()
            network("resnet_v1_50", nn.input{64, 64, 3}, {output_stride = 6})
        end, "multiple of 4")
    end)

    it("run and learn on tensors", function()
        local x = images(2, 32, 32, 3)
        local tiny = slim.arg_scope({slim.conv2d}, {weights_initializer = 0.01}, function()
            return slim.nets.resnet_v1_50(x, 5)
        end)
        assert.same({2, 5}, tiny:shape())
        slim.losses.softmax_cross_entropy(tiny, slim.one_hot(resin.tensor({1, 2}, "int64"), 5))
        slim.losses.get_total_loss():backward()
        local missing = {}
        for _, variable in ipairs(slim.get_trainable_variables()) do
            if not variable.tensor.grad then missing[#missing + 1] = variable.name end
        end
        assert.same({}, missing)
        slim.reset()
        collectgarbage()
    end)
end)

describe("train_vgg_slim.lua", function()
    local LUA = os.getenv("LUA") or "lua5.4"
    local TINY = "--data random --samples 40 --image-size 8 --width 2 --units 4 --batch-size 8 "

    -- A run's exit status and what it printed, errors included.
    local function run(options)
        local pipe = io.popen(("%s scripts/train_vgg_slim.lua %s 2>&1"):format(LUA, options))
        local output = pipe:read("a")
        local _, _, status = pipe:close()
        return status, output
    end

    it("trains and ends with the two lines", function()
        local folder = os.tmpname()
        os.remove(folder)
        local status, output = run(TINY .. "--epochs 1 --out " .. folder)
        assert.equal(0, status, output)
        assert.truthy(output:find("\ntest accuracy: 0%.%d%d%d%d\nreport: " .. folder
            .. "/report%.html\n$"), output)
        os.execute(("rm -rf '%s'"):format(folder))
    end)

    it("takes every setting of the network", function()
        local status, output = run("--depth 16 --width 4 --units 8 --keep-prob 0.8 --activation elu "
            .. "--no-batch-norm --initializer truncated-normal --l2 0 --summary")
        assert.equal(0, status, output)
        assert.truthy(output:find("conv5/conv5_3 (Conv2D)", 1, true))
        assert.falsy(output:find("BatchNorm", 1, true))
    end)

    it("refuses wrong ones in one line", function()
        local status, output = run("--depth 12 --summary")
        assert.equal(1, status)
        assert.truthy(output:find("^[^\n]*%-%-depth: expected 11, 13, 16 or 19, got 12\n$"), output)
        assert.equal(1, (run("--keep-prob 0 --summary")))
        assert.equal(1, (run("--variant vgg_16 --width 3 --summary")))
    end)
end)
