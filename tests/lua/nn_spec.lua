-- Layers, graphs and models.
local resin = require "resin"
local nn = resin.nn

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

local function names_of(model)
    local names = {}
    for name in model:named_parameters() do names[#names + 1] = name end
    return names
end

describe("symbolic shapes", function()
    local function shape_after(layer, ...) return layer(nn.input{...}):shape() end

    it("are inferred by every layer", function()
        assert.same({112, 112, 64},
            shape_after(nn.conv2d{64, kernel = 7, stride = 2, padding = "same"}, 224, 224, 3))
        assert.same({112, 112, 64},
            shape_after(nn.conv2d{64, kernel = 7, stride = 2, padding = 3}, 224, 224, 3))
        assert.same({5, 7, 2}, shape_after(nn.conv2d{2, kernel = {4, 2}}, 8, 8, 1))
        assert.same({4, 8, 2}, shape_after(nn.conv2d{2, kernel = 3, dilation = {2, 1},
            padding = {0, 0, 1, 1}}, 8, 8, 1))
        assert.same({10, 10, 4},
            shape_after(nn.conv2d_transpose{4, kernel = 3, stride = 2, padding = "same"}, 5, 5, 2))
        assert.same({11, 11, 4}, shape_after(nn.conv2d_transpose{4, kernel = 3, stride = 2}, 5, 5, 2))
        assert.same({56, 56, 64},
            shape_after(nn.max_pool2d{kernel = 3, stride = 2, padding = "same"}, 112, 112, 64))
        assert.same({2, 2, 3}, shape_after(nn.avg_pool2d{2}, 5, 5, 3))
        assert.same({3, 3, 3}, shape_after(nn.avg_pool2d{2, ceil = true}, 5, 5, 3))
        assert.same({64}, shape_after(nn.global_avg_pool(), 7, 7, 64))
        assert.same({64}, shape_after(nn.global_max_pool(), 7, 7, 64))
        assert.same({7, 7, 10}, shape_after(nn.dense(10), 7, 7, 64))
        assert.same({3136}, shape_after(nn.flatten(), 7, 7, 64))
        assert.same({14, 7, 32}, shape_after(nn.reshape{14, 7, 32}, 7, 7, 64))
        assert.same({9, 10, 3}, shape_after(nn.zero_pad2d{{1, 0, 0, 2}}, 8, 8, 3))
        assert.same({8, 8, 32}, shape_after(nn.identity_shortcut{32, stride = 2}, 16, 16, 16))
        assert.same({16, 16, 8}, nn.concatenate{nn.input{16, 16, 3}, nn.input{16, 16, 5}}:shape())
        assert.same({4, 4, 3}, nn.multiply{nn.input{4, 4, 3}, nn.input{1, 1, 3}}:shape())
        assert.same({6, 6, 4}, shape_after(nn.conv_bn_act{4, kernel = 3}, 8, 8, 3))
    end)

    it("agree with what the layers compute", function()
        local layers = {
            nn.conv2d{4, kernel = {3, 2}, stride = 2, padding = "same"},
            nn.conv2d{4, kernel = 3, groups = 2, dilation = 2, padding = {1, 0, 2, 1}},
            nn.conv2d_transpose{4, kernel = 3, stride = 2, padding = "same"},
            nn.conv2d_transpose{4, kernel = 1, stride = 3, padding = "same"},
            nn.conv2d_transpose{4, kernel = {4, 3}, stride = {2, 1}, padding = 1, groups = 2},
            nn.max_pool2d{kernel = 3, stride = 2, padding = "same"},
            nn.max_pool2d{kernel = 3, stride = 2, padding = 1, ceil = true},
            nn.avg_pool2d{kernel = 2, stride = 3, ceil = true},
            nn.global_avg_pool(), nn.global_max_pool(), nn.dense(5), nn.flatten(),
            nn.reshape{4, 54}, nn.zero_pad2d{{1, 2, 0, 3}}, nn.dropout(0.5), nn.batch_norm(),
            nn.rescale{2, offset = 1}, nn.identity_shortcut{7, stride = 2},
            nn.conv_bn_act{3, kernel = 3, padding = 1}, nn.softmax(), nn.elu{alpha = 0.5},
            nn.activation("tanh"),
        }
        for _, layer in ipairs(layers) do
            local expected = layer(nn.input{9, 6, 4}):shape()
            for _, training in ipairs{false, true} do
                local got = layer(resin.rand(2, 9, 6, 4), {training = training}):shape()
                assert.same({2, table.unpack(expected)}, got, tostring(layer))
            end
        end
    end)

    it("have errors that name the layer and the shapes", function()
        local x = nn.input{8, 8, 3}
        assert_fails(function() return x + nn.input{8, 8, 4} end, "add", "(N, 8, 8, 3)", "(N, 8, 8, 4)")
        assert_fails(function() return nn.conv2d{4, kernel = 9, name = "stem"}(x) end,
            "stem", "9x9", "(N, 8, 8, 3)", "nn_spec.lua")
        assert_fails(function() return nn.conv2d{4, kernel = 3, groups = 2}(x) end, "conv2d", "groups")
        assert_fails(function() return nn.conv2d{4, kernel = 3}(nn.input{8}) end, "(N, H, W, C)", "(N, 8)")
        assert_fails(function() return nn.reshape{5, 5}(x) end, "(N, 8, 8, 3)", "(N, 5, 5)")
        assert_fails(function() return nn.concatenate{x, nn.input{4, 8, 3}} end, "(N, 4, 8, 3)")
        local conv = nn.conv2d{4, kernel = 3}
        conv(x)
        assert_fails(function() return conv(nn.input{8, 8, 5}) end, "(N, H, W, 3)", "(N, 8, 8, 5)")
        assert_fails(function() return nn.sequential{nn.relu} end, "item 1", "nn.relu()")
        assert_fails(function() return nn.conv2d{filters = 4, kernal = 3} end, "kernal", "kernel,")
        assert_fails(function() return nn.conv2d{filters = 4} end, '"kernel" must be given')
        assert_fails(function() return nn.activation("rellu") end, "rellu", "leaky_relu")
    end)

    it("may be combined with numbers and operators", function()
        local x = nn.input{3}
        local model = nn.model(x, (x * 2 + 1) * x)
        assert.same({{3, 10, 21}}, model(resin.tensor{{1, 2, 3}}):totable())
    end)
end)

describe("layers", function()
    it("run on tensors as they are", function()
        local dense = nn.dense{2, initializer = "ones", bias_initializer = 0.5}
        assert.same({{3.5, 3.5}}, dense(resin.tensor{{1, 2}}):totable())
    end)

    it("start from the same weights with the same seed", function()
        local function weights()
            resin.seed(7)
            local layer = nn.conv2d{4, kernel = 3}
            layer(nn.input{8, 8, 3})
            return layer.weights
        end
        assert.equal(0, difference(weights(), weights()))
    end)

    it("follow Keras' and PyTorch's initial values", function()
        resin.seed(1)
        local function spread(initializer, deviation, limit)
            local conv = nn.conv2d{256, kernel = 3, initializer = initializer}
            conv(nn.input{8, 8, 64})
            local w = conv.weights
            assert.near(0, w:mean():item(), deviation / 50)
            assert.near(deviation, math.sqrt(w:variance():item()), deviation / 50)
            assert.truthy(resin.max(resin.abs(w)):item() <= limit)
            return conv
        end
        local fan_in, fan_out = 9 * 64, 9 * 256
        local glorot = math.sqrt(6 / (fan_in + fan_out))
        local keras = spread("glorot_uniform", glorot / math.sqrt(3), glorot)
        assert.equal(0, resin.max(resin.abs(keras.bias)):item())
        local bound = 1 / math.sqrt(fan_in)
        local torch = spread("pytorch", bound / math.sqrt(3), bound)
        assert.truthy(resin.max(resin.abs(torch.bias)):item() > 0)
        assert.truthy(resin.max(resin.abs(torch.bias)):item() <= bound)
        local he = math.sqrt(2 / fan_in)
        spread("he_normal", he, 2.001 * he / 0.8796)
        spread("kaiming_normal", he, 7 * he)
        spread("kaiming_normal_fan_out", math.sqrt(2 / fan_out), 7 * he)
        spread({"truncated_normal", deviation = 0.01}, 0.0088, 0.02001)
        spread({"normal", deviation = 0.1}, 0.1, 1)
        assert_fails(function() nn.dense{3, initializer = "nonsense"}(nn.input{2}) end, "nonsense")
    end)

    it("normalize by both rules", function()
        local x = resin.tensor{{1}, {2}, {3}, {6}}
        local keras, torch = nn.batch_norm(), nn.batch_norm{rule = "pytorch"}
        local y = keras(x, {training = true})
        torch(x, {training = true})
        -- Mean 3, variance 3.5 (biased) or 14 / 3.
        assert.near((6 - 3) / math.sqrt(3.5 + 1e-3), y:totable()[4][1], 1e-5)
        assert.near(0.01 * 3, keras.moving_mean:totable()[1], 1e-6)
        assert.near(0.99 + 0.01 * 3.5, keras.moving_variance:totable()[1], 1e-6)
        assert.near(0.1 * 3, torch.moving_mean:totable()[1], 1e-6)
        assert.near(0.9 + 0.1 * 14 / 3, torch.moving_variance:totable()[1], 1e-6)
        local still = nn.batch_norm{trainable = false}
        still(x, {training = true})
        assert.equal(0, still.moving_mean:totable()[1])
    end)

    it("drop in training only", function()
        resin.seed(5)
        local dropout = nn.dropout(0.5)
        local x = resin.ones(1000)
        assert.equal(1000, dropout(x):sum():item())
        local kept = dropout(x, {training = true}):sum():item()
        assert.truthy(kept > 800 and kept < 1200 and kept ~= 1000)
    end)

    it("convert bytes with rescale", function()
        local x = nn.input{2, 2, 1, dtype = "uint8"}
        local model = nn.model(x, nn.rescale(1 / 255)(x))
        local y = model(resin.full({1, 2, 2, 1}, 51, "uint8"))
        assert.equal("float32", y:dtype())
        assert.near(0.2, y:mean():item(), 1e-7)
    end)

    it("subsample and pad with option A", function()
        local x = resin.arange(1, 32):reshape{shape = {1, 4, 4, 2}}
        local y = nn.identity_shortcut{5, stride = 2}(x)
        assert.same({0, 1, 2, 0, 0}, y:totable()[1][1][1])
        assert.same({0, 5, 6, 0, 0}, y:totable()[1][1][2])
        assert.same({0, 21, 22, 0, 0}, y:totable()[1][2][2])
    end)
end)

describe("a user's layer", function()
    local Block = nn.layer("ResidualBlock")

    function Block:build(input_shape)
        self.expand = self.filters ~= input_shape[3]
        self.conv = nn.conv2d{self.filters, kernel = 3, padding = "same"}
        self.norms = {nn.batch_norm(), nn.batch_norm()}
        self.shortcut = self.expand and nn.conv2d{self.filters, kernel = 1} or false
        self.scale = self:parameter("scale", {self.filters}, "ones")
    end

    function Block:call(x)
        local y = self.norms[2](nn.relu(self.norms[1](self.conv(x))))
        return nn.relu(y * self.scale + (self.shortcut and self.shortcut(x) or x))
    end

    it("works on tensors and in a graph, with its parameters by path", function()
        local x = nn.input{6, 6, 3}
        local block = Block{filters = 4, name = "first"}
        local model = nn.model(x, nn.dense(2)(nn.global_avg_pool(block(x))))
        assert.same({
            "first/scale", "first/conv/weights", "first/conv/bias", "first/norms/1/gamma",
            "first/norms/1/beta", "first/norms/2/gamma", "first/norms/2/beta",
            "first/shortcut/weights", "first/shortcut/bias", "dense/weights", "dense/bias",
        }, names_of(model))
        local images = resin.rand(2, 6, 6, 3)
        local y = model(images, {training = true})
        y:sum():backward()
        for name, tensor in model:named_parameters() do
            assert.truthy(tensor.grad, "no gradient of " .. name)
        end
        -- Sub-layers inherit the mode though `call` does not hand it on.
        assert.truthy(resin.max(resin.abs(block.norms[1].moving_mean)):item() > 0)
        assert.same({2, 6, 6, 4}, block(images):shape())
    end)

    it("may use ops that know tensors only", function()
        local Gate = nn.layer("Gate")
        function Gate:init() self.dense = nn.dense(3) end
        function Gate:call(x) return resin.sigmoid(self.dense(x)) * x:mean{axes = 2, keep = true} end
        local x = nn.input{5}
        local y = Gate()(x)
        assert.same({3}, y:shape())
        assert.same({"gate/dense/weights", "gate/dense/bias"}, names_of(nn.model(x, y)))
    end)

    it("shares its weights when it is used twice", function()
        local x = nn.input{4}
        local dense = nn.dense{4, bias = false, initializer = "ones"}
        local model = nn.model(x, dense(dense(x)))
        assert.same({"dense/weights"}, names_of(model))
        assert.equal(16, (model:count()))
        local y = model(resin.ones(1, 4), {training = true})
        assert.equal(16, y:totable()[1][1])
        y:sum():backward()
        assert.equal(8, dense.weights.grad:totable()[1][1]) -- 4 of each use
    end)

    it("can be tried again when building failed", function()
        local Picky = nn.layer("Picky")
        function Picky:build(input_shape)
            self.weights = self:parameter("weights", {input_shape[1]}, "ones")
            if input_shape[1] ~= 4 then self:fail("expected 4 values, got %d", input_shape[1]) end
        end
        function Picky:call(x) return x * self.weights end
        local picky = Picky()
        assert_fails(function() picky(nn.input{3}) end, "picky", "got 3")
        assert.same({4}, picky(nn.input{4}):shape())
        assert.equal(4, picky:count())
    end)

    it("is told when it uses a name that layers have", function()
        assert_fails(function() return nn.layer("Clash") {count = 3} end, '"count"')
    end)

    it("is named with the line when its code is wrong", function()
        local Wrong = nn.layer("Wrong")
        function Wrong:call(x) return self.conv(x) end
        assert_fails(function() return Wrong()(nn.input{4}) end, "nn_spec.lua", "wrong", "field 'conv'")
    end)

    it("is named with both shapes when its sum does not fit", function()
        local Faulty = nn.layer("Faulty")
        function Faulty:init() self.conv = nn.conv2d{4, kernel = 3, stride = 2, padding = "same"} end
        function Faulty:call(x) return self.conv(x) + x end
        assert_fails(function() return Faulty()(nn.input{8, 8, 4}) end,
            "faulty", "(N, 4, 4, 4)", "(N, 8, 8, 4)")
        assert_fails(function() return Faulty()(resin.rand(1, 8, 8, 4)) end, "faulty", "(1, 4, 4, 4)", "(1, 8, 8, 4)")
    end)
end)

describe("a model", function()
    local function small(options)
        resin.seed(11)
        local x = nn.input{8, 8, 3}
        local y = nn.relu(nn.batch_norm(nn.conv2d{6, kernel = 3, padding = "same"}(x)))
        local z = nn.batch_norm(nn.conv2d{6, kernel = 3, padding = 1, bias = false}(y))
        y = nn.relu(z + y)
        y = nn.relu(nn.batch_norm(nn.conv2d{8, kernel = 1, stride = 2}(y))
            + nn.batch_norm(nn.conv2d{8, kernel = 1, stride = 2}(y)))
        y = nn.conv2d{8, kernel = 3}(nn.relu(nn.batch_norm(y)))
        return nn.model(x, nn.dense{3, activation = "softmax"}(nn.global_avg_pool(y)), options)
    end

    it("fuses chains, and the results agree", function()
        -- Stated bound: 1e-5 of the largest value in outputs and running statistics, 1e-4 in
        -- gradients, where sums over all pixels cancel.
        local fused, unfused = small(), small{fuse = false}
        assert.equal(8, #fused.plan.steps)
        assert.equal(18, #unfused.plan.steps)
        local images = resin.rand(4, 8, 8, 3)
        local labels = resin.tensor({1, 2, 3, 1}, "int64")
        local function step(model)
            local y = model(images, {training = true, logits = true})
            resin.cross_entropy(y, labels):backward()
            return y
        end
        assert.truthy(difference(step(unfused), step(fused)) < 1e-5)
        local gradients = {}
        for name, tensor in unfused:named_parameters() do gradients[name] = tensor.grad end
        for name, tensor in fused:named_parameters() do
            -- A bias before a batch norm has no gradient but rounding.
            if not name:find("^conv2d.*bias") or name == "conv2d_4/bias" then
                assert.truthy(difference(gradients[name], tensor.grad) < 1e-4, name)
            end
        end
        local buffers = {}
        for name, tensor in unfused:named_buffers() do buffers[name] = tensor end
        for name, tensor in fused:named_buffers() do
            assert.truthy(difference(buffers[name], tensor) < 1e-5, name)
        end
        assert.truthy(difference(unfused(images), fused(images)) < 1e-5)
    end)

    it("leaves chains whose middle is read elsewhere", function()
        local x = nn.input{4, 4, 2}
        local conv = nn.conv2d{2, kernel = 1}(x)
        local norm = nn.batch_norm(conv)
        assert.equal(3, #nn.model(x, nn.relu(norm) + conv).plan.steps) -- conv, norm + relu, add
        assert.equal(2, #nn.model(x, {norm, nn.relu(norm)}).plan.steps) -- conv + norm, relu
    end)

    it("infers without recording and trains with it", function()
        local model = small()
        local images = resin.rand(2, 8, 8, 3)
        assert.is_false(model(images):requires_grad())
        assert.is_true(model(images, {gradient = true}):requires_grad())
        assert.is_true(model(images, {training = true}):requires_grad())
        assert.is_true(resin.recording())
    end)

    it("leaves out the last softmax for {logits = true}", function()
        local model, images = small(), resin.rand(2, 8, 8, 3)
        local logits = model(images, {logits = true})
        assert.truthy(difference(model(images), resin.softmax(logits, {axis = -1})) < 1e-6)
    end)

    it("checks its inputs", function()
        local model = small()
        assert_fails(function() model(resin.rand(2, 8, 9, 3)) end, "input_1", "(N, 8, 8, 3)", "(2, 8, 9, 3)")
        assert_fails(function() model(resin.rand({2, 8, 8, 3}, "float64")) end, "float32", "float64")
        assert_fails(function() model(3) end, "model", "number")
        local x = nn.input{3}
        assert_fails(function() nn.model(nn.input{3}, x) end, "not among the inputs")
        assert_fails(function() nn.model(x, 3) end, "outputs")
        local a, b = nn.dense{2, name = "same"}, nn.dense{2, name = "same"}
        assert_fails(function() nn.model(x, b(a(x))) end, '"same"')
    end)

    it("has several inputs and outputs", function()
        local a, b = nn.input{2, name = "left"}, nn.input{2}
        local model = nn.model({a, b}, {a + b, nn.multiply{a, b}})
        local results = model{resin.tensor{{1, 2}}, resin.tensor{{3, 4}}}
        assert.same({{4, 6}}, results[1]:totable())
        assert.same({{3, 8}}, results[2]:totable())
    end)

    it("is a layer, and sequential stacks are fused inside of graphs", function()
        local unit = nn.sequential{nn.conv2d{4, kernel = 3, padding = 1}, nn.batch_norm(), nn.relu()}
        local x = nn.input{6, 6, 4}
        local inner = nn.model(x, unit(x), {name = "inner"})
        local z = nn.input{6, 6, 4}
        local model = nn.model(z, inner(unit(z)))
        assert.equal(2, #model.plan.steps)
        assert.same({
            "sequential/conv2d/weights", "sequential/conv2d/bias",
            "sequential/batch_normalization/gamma", "sequential/batch_normalization/beta",
        }, names_of(model))
        local images = resin.rand(1, 6, 6, 4)
        assert.truthy(difference(unit(unit(images)), model(images)) < 1e-5)
    end)

    it("knows functions as layers", function()
        local x = nn.input{3}
        local model = nn.model(x, nn.func{"double", function(t) return t * 2 end}(x))
        assert.same({{2, 4, 6}}, model(resin.tensor{{1, 2, 3}}):totable())
        assert.truthy(model:get_layer("double"))
        assert_fails(function()
            nn.func{"wrong", function(t) return t:reshape{shape = {7}} end}(x)
        end, "wrong")
    end)

    it("freezes layers", function()
        local model = small()
        local total, trainable = model:count()
        model:freeze("^conv2d")
        local _, after, still = model:count()
        assert.equal(total, after + still)
        assert.truthy(after < trainable)
        model:unfreeze()
        assert.equal(trainable, (select(2, model:count())))
        local a, b = nn.input{3}, nn.input{3}
        local inner = nn.model(a, nn.dense(3)(a), {name = "inner", trainable = false})
        local outer = nn.model(b, nn.dense(2)(inner(b)))
        assert.equal(12, (select(3, outer:count())))
        outer:unfreeze("inner")
        assert.equal(0, (select(3, outer:count())))
    end)

    it("runs layers of a static class in their place", function()
        local Unit = nn.layer("Unit")
        function Unit:init()
            self.conv, self.norm = nn.conv2d{3, kernel = 3, padding = 1}, nn.batch_norm()
        end
        function Unit:call(x) return nn.relu(self.norm(self.conv(x)) + x) end
        local x = nn.input{5, 5, 3}
        local unit = Unit()
        local eager = nn.model(x, unit(x))
        assert.is_true(eager.plan.steps[1].composite)
        Unit.static = true
        local static = nn.model(x, unit(x))
        assert.equal(1, #static.plan.steps)
        assert.is_nil(static.plan.steps[1].composite)
        local images = resin.rand(2, 5, 5, 3)
        assert.truthy(difference(eager(images), static(images)) < 1e-5)
    end)

    it("gives its parameters to optimizers, penalties included", function()
        local x = nn.input{2}
        local model = nn.model(x, nn.dense{1, l2 = 0.5, l1 = 0.25, initializer = "ones"}(x))
        assert.near(0.5 * 2 + 0.25 * 2, model:penalty(), 1e-6)
        local optimizer = resin.optim.sgd{model, learning_rate = 0.1}
        model(resin.tensor{{1, 2}}, {training = true}):sum():backward()
        optimizer:step()
        local weights = model:get_layer("dense").weights
        assert.near(1 - 0.1 * (1 + 2 * 0.5 * 1 + 0.25), weights:totable()[1][1], 1e-6)
    end)

    it("leaves frozen parameters alone", function()
        local x = nn.input{2}
        local model = nn.model(x, nn.dense{1, initializer = "ones"}(nn.dense{2, initializer = "ones"}(x)))
        model:freeze("^dense$")
        local optimizer = resin.optim.sgd{model, learning_rate = 0.1}
        model(resin.tensor{{1, 2}}, {training = true}):sum():backward()
        optimizer:step()
        assert.equal(1, model:get_layer("dense").weights:totable()[1][1])
        assert.truthy(model:get_layer("dense_1").weights:totable()[1][1] < 1)
    end)

    it("holds no more after many steps", function()
        local model = small()
        local optimizer = resin.optim.sgd{model, learning_rate = 0.01}
        local images, labels = resin.rand(4, 8, 8, 3), resin.tensor({1, 2, 3, 1}, "int64")
        local function step()
            local y <close> = model(images, {training = true, logits = true})
            local loss <close> = resin.cross_entropy(y, labels)
            loss:backward()
            optimizer:step()
        end
        for _ = 1, 3 do step() end
        collectgarbage("stop")
        local before = resin.memory().held
        for _ = 1, 20 do step() end
        local after = resin.memory().held
        for _ = 1, 20 do model(images):release() end
        local inferred = resin.memory().held
        collectgarbage("restart")
        assert.equal(before, after)
        assert.equal(before, inferred)
    end)
end)

describe("save and load", function()
    local path

    before_each(function() path = os.tmpname() end)
    after_each(function() os.remove(path) end)

    local function network(units, seed)
        resin.seed(seed)
        local x = nn.input{4, 4, 2}
        local y = nn.relu(nn.batch_norm(nn.conv2d{3, kernel = 3}(x)))
        return nn.model(x, nn.dense(units)(nn.flatten(y)))
    end

    it("bring back the same outputs", function()
        local one, other = network(5, 1), network(5, 2)
        local images = resin.rand(3, 4, 4, 2)
        one(images, {training = true})
        one:save(path, {note = "hello"})
        local report, metadata = other:load(path)
        assert.equal(8, #report.loaded)
        assert.equal("hello", metadata.note)
        assert.equal("resin", metadata.format)
        assert.equal(0, difference(one(images), other(images)))
    end)

    it("work after the parameters moved into an optimizer's buffer", function()
        local one, other = network(5, 1), network(5, 2)
        resin.optim.sgd{other, learning_rate = 0.1}
        one:save(path)
        other:load(path)
        local images = resin.rand(3, 4, 4, 2)
        assert.equal(0, difference(one(images), other(images)))
    end)

    it("name what does not fit, and then load nothing", function()
        network(5, 1):save(path)
        local other = network(6, 2)
        local before = other:get_layer("conv2d").weights:clone()
        assert_fails(function() other:load(path) end, "dense/weights", "{12, 5}", "{12, 6}", "dense/bias")
        assert.equal(0, difference(before, other:get_layer("conv2d").weights))
        local report = other:load(path, {strict = false})
        assert.equal(6, #report.loaded)
        assert.equal(2, #report.mismatched)
        local x = nn.input{4, 4, 2}
        local third = nn.model(x, nn.conv2d{3, kernel = 3, name = "other"}(x))
        assert_fails(function() third:load(path) end, "missing", "other/weights", "not in the model", "conv2d/bias")
        assert_fails(function() third:load("/nonexistent/file") end, "/nonexistent/file")
    end)
end)
