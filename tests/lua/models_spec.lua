-- The ready-made networks: parameter counts to the digit, and a step of each in a small size.
local resin = require "resin"
local models, initializers = resin.models, resin.nn.initializers

-- Where only counts are looked at, millions of random numbers may be zeros.
local DRAWING = {"kaiming_normal", "kaiming_normal_fan_out", "normal", "pytorch", "glorot_uniform"}

describe("parameter counts", function()
    local drawn = {}

    setup(function()
        for _, name in ipairs(DRAWING) do
            drawn[name], initializers[name] = initializers[name], initializers.zeros
        end
    end)
    teardown(function()
        for _, name in ipairs(DRAWING) do initializers[name] = drawn[name] end
    end)

    local TRAINABLE = {
        {"cifar_resnet", {depth = 20}, 269722}, {"cifar_resnet", {depth = 32}, 464154},
        {"cifar_resnet", {depth = 44}, 658586}, {"cifar_resnet", {depth = 56}, 853018},
        {"cifar_resnet", {depth = 110}, 1727962}, {"resnet18", {}, 11689512},
        {"resnet34", {}, 21797672}, {"resnet50", {}, 25557032},
        {"resnet101", {}, 44549160}, {"resnet152", {}, 60192808},
        {"resnext50", {}, 25028904}, {"vgg16", {}, 138357544},
    }
    for _, case in ipairs(TRAINABLE) do
        local name, options, expected = table.unpack(case)
        local title = ("%s %s: %d trainable"):format(name, options.depth or "", expected)
        it(title, function()
            local _, trainable = models[name](options):count()
            assert.equal(expected, trainable)
            collectgarbage()
        end)
    end

    local TOTALS = {
        {"tutorial_resnet", {}, 11553418, 11648}, {"tutorial_resnext", {}, 21962, 1280},
        {"tutorial_resnext", {cardinality = 3}, 2048 * 3 + 5578, 640},
        {"class_resnet", {}, 1490058, 5248},
        {"class_resnet", {block_stride = 2, projection = true}, 1573258, 5248},
        {"plain_cnn", {}, 1658565, 0},
    }
    for _, case in ipairs(TOTALS) do
        local name, options, expected, still = table.unpack(case)
        it(("%s: %d, %d of them not trainable"):format(name, expected, still), function()
            local total, _, rest = models[name](options):count()
            assert.equal(expected, total)
            assert.equal(still, rest)
        end)
    end

end)

describe("models", function()
    it("fail as the printed programs do, naming the layer and both shapes", function()
        local ok, message = pcall(models.class_resnet, {block_stride = 2})
        assert.is_false(ok)
        assert.truthy(message:find("residual_block", 1, true))
        assert.truthy(message:find("(N, 56, 56, 64) and (N, 112, 112, 64)", 1, true))
        ok, message = pcall(models.tutorial_resnet, {stride = 2, faulty = true})
        assert.is_false(ok)
        assert.truthy(message:find("add_2", 1, true))
        assert.truthy(message:find("(N, 14, 14, 128) and (N, 28, 28, 128)", 1, true))
        assert.truthy(models.tutorial_resnet{stride = 2, width = 8})
        assert.has_error(function() models.cifar_resnet{depth = 21} end)
        assert.has_error(function() models.cifar_resnet{deepness = 20} end)
    end)

    it("bench lists nine networks", function()
        local count = 0
        for name, entry in pairs(models.bench) do
            count = count + 1
            assert.truthy(entry.make and entry.batch and entry.side and entry.classes, name)
        end
        assert.equal(9, count)
    end)

    -- Each network in a size that takes no time: output shape, loss, and a gradient everywhere.
    local SMALL = {
        cifar_resnet = {depth = 8, width = 4, input = {16, 16, 3}},
        tutorial_resnet = {width = 4, input = {32, 32, 3}},
        tutorial_resnext = {filters = 4, cardinality = 3, input = {8, 8, 3}},
        class_resnet = {blocks = 2, filters = 4, input = {16, 16, 3}},
        plain_cnn = {input = {32, 32, 3}, classes = 5},
        resnet18 = {classes = 10, input = {32, 32, 3}},
        resnet50 = {classes = 10, input = {32, 32, 3}},
        resnext50 = {classes = 10, input = {32, 32, 3}},
    }
    for name, options in pairs(SMALL) do
        it(name .. " runs forward and backward", function()
            resin.seed(3)
            local model = models[name](options)
            local side = options.input[1]
            local images = resin.rand(2, side, side, 3)
            local inferred = model(images)
            assert.is_false(inferred:requires_grad())
            local logits = model(images, {training = true, logits = true})
            local classes = options.classes or 10
            assert.equal(classes, logits:size(-1))
            local pooled = logits:rank() == 4 and logits:mean{axes = {2, 3}} or logits
            local loss = resin.cross_entropy(pooled, resin.tensor({1, classes}, "int64"))
            loss:backward()
            assert.truthy(loss:item() == loss:item() and loss:item() > 0)
            for path, tensor in model:named_parameters() do
                assert.truthy(tensor.grad, "no gradient of " .. path)
            end
            collectgarbage()
        end)
    end
end)
