-- What networks cost: multiply-adds as torchvision's documentation states them, parameters, and the
-- bytes of activations beside what the engine holds.
local resin = require "resin"
local nn, models, initializers = resin.nn, resin.models, resin.nn.initializers

local DRAWING = {"kaiming_normal", "kaiming_normal_fan_out", "normal", "pytorch", "glorot_uniform"}

describe("model:cost", function()
    local drawn = {}

    setup(function() -- millions of random numbers are not looked at
        for _, name in ipairs(DRAWING) do
            drawn[name], initializers[name] = initializers[name], initializers.zeros
        end
    end)
    teardown(function()
        for _, name in ipairs(DRAWING) do initializers[name] = drawn[name] end
    end)

    -- "GFLOPS" in the tables of https://docs.pytorch.org/vision/stable/models.html.
    for name, billions in pairs{
        resnet18 = 1.81, resnet34 = 3.66, resnet50 = 4.09, resnet101 = 7.80, resnet152 = 11.51,
        resnext50_32x4d = 4.23, resnext101_32x8d = 16.41, wide_resnet50_2 = 11.40, vgg11 = 7.61,
        vgg16 = 15.47,
    } do
        it(("counts %.2f billion multiply-adds in %s"):format(billions, name), function()
            local model = models[name]()
            local result = model:cost()
            assert.equal(("%.2f"):format(billions), ("%.2f"):format(result.multiply_adds / 1e9))
            assert.equal((model:count()), result.parameters)
            assert.equal(0, result.unknown)
            collectgarbage()
        end)
    end

    it("lists layers with all that they cost", function()
        local x = nn.input{8, 8, 4}
        local y = nn.conv2d{6, kernel = 3, stride = 2, padding = "same", groups = 2, name = "a"}(x)
        y = nn.relu(nn.batch_norm{name = "norm"}(y))
        y = nn.dense{3, name = "b"}(nn.conv2d_transpose{5, kernel = 2, stride = 2, name = "t"}(y))
        local model = nn.model(x, nn.flatten(y))
        local result = model:cost{batch = 10}
        local rows = {}
        for _, row in ipairs(result.rows) do rows[row.name] = row end
        assert.equal(6, #result.rows)
        assert.same({name = "a", kind = "Conv2D", shape = {4, 4, 6}, parameters = 9 * 2 * 6 + 6,
            multiply_adds = 10 * 16 * 9 * 2 * 6, activation_bytes = 0}, rows.a)
        assert.equal(24, rows.norm.parameters)
        assert.equal(0, rows.norm.activation_bytes) -- fused into the ReLU
        assert.equal(10 * 16 * 6 * 4, rows.re_lu.activation_bytes)
        assert.equal(10 * 16 * 2 * 2 * 6 * 5, rows.t.multiply_adds)
        assert.equal(10 * 64 * 5 * 3, rows.b.multiply_adds)
        assert.equal(0, rows.flatten.activation_bytes)
        assert.equal((model:count()), result.parameters)
        assert.equal(4 * model:count(), result.parameter_bytes)
        assert.equal(rows.a.multiply_adds + rows.t.multiply_adds + rows.b.multiply_adds,
            result.multiply_adds)
        -- The transposed convolution's result and the dense layer's are held together.
        assert.equal(10 * 64 * (5 + 3) * 4, result.peak_bytes)
    end)

    it("adds the backward pass in training, where it happens", function()
        local x = nn.input{8, 8, 4}
        local y = nn.relu(nn.batch_norm(nn.conv2d{6, kernel = 1, name = "a"}(x)))
        y = nn.relu(nn.batch_norm(nn.conv2d{6, kernel = 1, name = "b"}(y)))
        local model = nn.model(x, nn.dense{2, name = "c"}(y))
        local function times()
            local forward, training, result = model:cost().rows, model:cost{training = true}, {}
            for position, row in ipairs(training.rows) do
                local once = forward[position].multiply_adds
                if once > 0 then result[row.name] = row.multiply_adds / once end
            end
            return result, training
        end
        local result, training = times()
        -- The images need no gradient.
        assert.same({a = 2, b = 3, c = 3}, result)
        -- Of each convolution its result, and that of the ReLU which no convolution reads.
        assert.equal(4 * 64 * (3 * 6 + 2), training.activation_bytes)
        local _, trained, rest = model:count()
        assert.equal(4 * (2 * trained + rest), training.parameter_bytes)
        model:freeze("^a$")
        assert.same({a = 1, b = 3, c = 3}, (times()))
        model:freeze("batch")
        assert.same({a = 1, b = 2, c = 3}, (times()))
        model:freeze()
        assert.same({a = 1, b = 1, c = 1}, (times()))
    end)

    it("counts no ReLU in training that maxima over windows read", function()
        local x = nn.input{8, 8, 4}
        local y = nn.relu(nn.batch_norm(nn.conv2d{6, kernel = 1}(x)))
        local pooled = nn.max_pool2d{kernel = 3, stride = 2, padding = 1}(y)
        assert.equal(4 * 6 * (64 + 16),
            nn.model(x, pooled):cost{training = true}.activation_bytes)
        local both = nn.model(x, {pooled, nn.avg_pool2d{kernel = 2}(y)})
        assert.equal(4 * 6 * (64 + 64 + 16 + 16), both:cost{training = true}.activation_bytes)
    end)

    it("is near to what the engine holds in training", function()
        for name, options in pairs{
            cifar_resnet = {depth = 20, width = 8}, plain_cnn = {input = {64, 64, 3}},
        } do
            local model = models[name](options)
            local x = resin.rand({8, table.unpack(model.inputs[1].sizes)})
            model(x, {training = true}):release()
            collectgarbage()
            local before = resin.memory().held
            local y = model(x, {training = true, logits = true})
            collectgarbage()
            local held = resin.memory().held - before
            local told = model:cost{batch = 8, training = true}.activation_bytes
            assert(math.abs(held - told) < 0.2 * told,
                ("%s: %d held, %d told"):format(name, held, told))
            y:release()
        end
    end)

    it("counts shared layers' parameters once, opens blocks and says what it does not know",
        function()
            local Block = nn.layer("Block")
            function Block:build() self.conv = nn.conv2d{2, kernel = 1} end
            function Block:call(x) return self.conv(x) + x end
            local x, block = nn.input{4, 4, 2}, Block{name = "block"}
            local y = nn.func{"mystery", function(t) return t * 2 end}(block(block(x)))
            local result = nn.model(x, y):cost()
            assert.equal(6, result.parameters)
            assert.equal(2 * 16 * 4, result.multiply_adds)
            assert.equal("block/conv", result.rows[1].name)
            assert.is_nil(result.rows[5].multiply_adds)
            assert.equal(1, result.unknown)
            assert.truthy(tostring(result):find("(1)", 1, true))
        end)

    it("prints a table", function()
        local text = tostring(models.plain_cnn():cost())
        assert.truthy(text:find("\nconv2d (Conv2D)                 (N, 178, 178, 32)     27,374,976"
            .. "         896         4,055,552\n", 1, true), text)
        assert.truthy(text:find("\nTotal                                                114,262,016"
            .. "   1,658,565         6,930,644\n", 1, true), text)
        assert.truthy(text:find("Inference of batch 1: 114.26 M multiply-adds", 1, true), text)
        for line in text:gmatch("[^\n]+") do assert.truthy(#line <= 160 and not line:find(" $")) end
    end)

    it("refuses wrong options", function()
        local model = models.plain_cnn{input = {32, 32, 3}}
        assert.has_error(function() model:cost{batches = 2} end)
        assert.has_error(function() model:cost{batch = 0} end)
    end)
end)
