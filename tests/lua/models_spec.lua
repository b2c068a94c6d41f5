-- The ready-made networks: parameter counts to the digit, what they are made of, what they refuse,
-- and a step of each in a small size.
local resin = require "resin"
local models, nn, initializers = resin.models, resin.nn, resin.nn.initializers

-- Where only counts are looked at, millions of random numbers may be zeros.
local DRAWING = {"kaiming_normal", "kaiming_normal_fan_out", "normal", "pytorch", "glorot_uniform"}

local function without_drawing()
    local drawn = {}
    setup(function()
        for _, name in ipairs(DRAWING) do
            drawn[name], initializers[name] = initializers[name], initializers.zeros
        end
    end)
    teardown(function()
        for _, name in ipairs(DRAWING) do initializers[name] = drawn[name] end
        collectgarbage()
    end)
end

describe("parameter counts", function()
    without_drawing()

    -- name, options, trainable, not trainable (running statistics; nil: not published)
    local function keras(total, rest) return total - rest, rest end
    local COUNTS = {
        {"resnet", {depth = 50}, keras(25636712, 53120)},
        {"resnet", {depth = 101}, keras(44707176, 105344)},
        {"resnet", {depth = 152}, keras(60419944, 151424)},
        {"resnet", {depth = 50, version = "v2"}, keras(25613800, 45440)},
        {"resnet", {depth = 101, version = "v2"}, keras(44675560, 97664)},
        {"resnet", {depth = 152, version = "v2"}, keras(60380648, 143744)},
        {"resnet", {depth = 50, top = false}, keras(23587712, 53120)},
        {"resnet", {depth = 50, version = "v2", top = false, pooling = "avg"},
            keras(23564800, 45440)},
        {"resnet", {depth = 18, version = "torchvision"}, 11689512},
        {"resnet", {depth = 34, version = "torchvision"}, 21797672},
        {"resnet", {depth = 50, version = "torchvision"}, 25557032, 53120},
        {"resnet", {depth = 101, version = "torchvision"}, 44549160},
        {"resnet", {depth = 152, version = "torchvision"}, 60192808},
        {"resnet", {depth = 50, version = "next"}, 25028904},
        {"resnext50", {}, 25028904},
        {"resnext", {depth = 50}, 25028904, 68224},
        {"resnext", {depth = 101, width = 8}, 88791336},
        {"resnext", {depth = 29}, 34426698},
        {"resnext", {depth = 29, cardinality = 16}, 68155210},
        {"vgg", {depth = 11}, 132863336, 0},
        {"vgg", {depth = 13}, 133047848, 0},
        {"vgg", {depth = 16}, 138357544, 0},
        {"vgg", {depth = 19}, 143667240, 0},
        {"vgg", {depth = 16, batch_norm = true}, 138365992, 8448},
        {"cifar_resnet", {depth = 20}, 269722, 1376},
        {"cifar_resnet", {depth = 32}, 464154},
        {"cifar_resnet", {depth = 44}, 658586},
        {"cifar_resnet", {depth = 56}, 853018},
        {"cifar_resnet", {depth = 110}, 1727962},
        {"cifar_resnet", {depth = 1202}, 19421274},
        {"wide_resnet", {depth = 28, widen = 10}, 36479194},
        {"wide_resnet", {depth = 40, widen = 4}, 8949210},
        {"tutorial_resnet", {}, 11541770, 11648},
        {"tutorial_resnext", {}, 20682, 1280},
        {"tutorial_resnext", {cardinality = 3}, 2048 * 3 + 5578 - 640, 640},
        {"preactivation_resnet", {}, 377482, 1428},
        {"class_resnet", {}, 1484810, 5248},
        {"class_resnet", {block_stride = 2, projection = true}, 1568010, 5248},
        {"plain_cnn", {}, 1658565, 0},
    }
    local function text(value)
        if type(value) ~= "table" then return tostring(value) end
        local list = {}
        for name, item in pairs(value) do list[#list + 1] = name .. " = " .. text(item) end
        table.sort(list)
        return table.concat(list, ", ")
    end
    for _, case in ipairs(COUNTS) do
        local name, options, trainable, rest = table.unpack(case, 1, 4)
        it(("%s{%s}: %d"):format(name, text(options), trainable), function()
            local total, counted, still = models[name](options):count()
            assert.equal(trainable, counted)
            if rest then assert.equal(rest, still) end
            assert.equal(trainable + still, total)
            collectgarbage()
        end)
    end
end)

-- The layers of a model by name.
local function layers_of(model)
    local layers = {}
    for _, child in ipairs(model:children()) do layers[child[1]] = child[2] end
    return layers
end

local function node_of(model, name)
    for _, node in ipairs(model.nodes) do
        if model.names[node.layer] == name then return node end
    end
end

describe("Keras' ResNets", function()
    without_drawing()

    it("V1: stride in the first 1x1, biases, epsilon, names", function()
        local layers = layers_of(models.resnet{50})
        assert.same({2, 2}, layers.conv3_block1_1_conv.stride)
        assert.same({1, 1}, layers.conv3_block1_2_conv.stride)
        assert.same({2, 2}, layers.conv5_block1_0_conv.stride)
        assert.same({1, 1}, layers.conv2_block1_0_conv.stride)
        assert.is_nil(layers.conv3_block2_0_conv)
        for _, name in ipairs{"conv1_conv", "conv2_block1_1_conv", "conv2_block3_2_conv"} do
            assert.is_true(layers[name].use_bias, name)
        end
        assert.equal(1.001e-5, layers.conv1_bn.epsilon)
        assert.equal(0.99, layers.conv1_bn.momentum)
        for _, name in ipairs{"conv1_pad", "pool1_pad", "pool1_pool", "conv2_block1_add",
            "conv5_block3_out", "avg_pool", "predictions"} do
            assert.truthy(layers[name], name)
        end
        -- keras.applications prints 177 rows, the input among them
        assert.equal(176, #models.resnet{50}:children())
    end)

    it("V2: stride in the last block, whose shortcut is a max-pool; few biases", function()
        local model = models.resnet{50, version = "v2"}
        local layers = layers_of(model)
        assert.same({2, 2}, layers.conv2_block3_2_conv.stride)
        assert.same({1, 1}, layers.conv3_block1_2_conv.stride)
        assert.same({1, 1}, layers.conv5_block3_2_conv.stride)
        local function input_of(name) return model.names[node_of(model, name).inputs[1].layer] end
        assert.equal("max_pooling2d", input_of("conv2_block3_out"))
        assert.equal("conv2_block1_preact_relu", input_of("conv2_block1_0_conv"))
        for name, layer in pairs(layers) do
            local inner = name:find("_[12]_conv$") ~= nil and name ~= "conv1_conv"
            if layer.class_name == "Conv2D" then assert.equal(not inner, layer.use_bias, name) end
        end
        assert.is_nil(layers.conv1_bn)
        assert.truthy(layers.post_bn and layers.post_relu and layers.conv4_block6_2_pad)
        assert.same({7, 7, 2048}, node_of(model, "post_relu"):shape())
        assert.equal(191, #model:children()) -- 192 rows with the input
    end)

    it("take any size and end as asked", function()
        local function shape_of(options) return models.resnet(options).outputs[1]:shape() end
        local small = {75, 50, 1}
        assert.same({7}, shape_of{50, input = small, classes = 7})
        assert.same({3, 2, 2048}, shape_of{50, input = small, top = false})
        assert.same({2048}, shape_of{50, input = small, top = false, pooling = "max"})
        assert.same({3, 2, 7}, shape_of{50, input = small, classes = 7, pooling = "none"})
        assert.same({16, 16, 128}, shape_of{18, input = {512, 512, 3}, width = 16, top = false})
        assert.same({512}, shape_of{34, version = "v2", top = false, pooling = "avg"})
        assert.same({2, 2, 512},
            shape_of{18, version = "torchvision", input = {64, 64, 3}, top = false})
        local sigmoid = models.resnet{18, input = small, classifier_activation = "sigmoid"}
        assert.equal("sigmoid", layers_of(sigmoid).predictions.activation)
        assert.equal("elu", layers_of(models.resnet{50, activation = "elu"}).conv1_relu.kind)
    end)

    it("take the numbers of blocks, as a tuner turns them", function()
        local names = layers_of(models.resnet{50, blocks = {3, 8, 6, 3}, input = {32, 32, 3}})
        assert.truthy(names.conv3_block8_out and not names.conv3_block9_out)
        assert.error_matches(function() models.resnet{50, blocks = {3, 8, 6}} end,
            "resnet: blocks is a number or a list of 4, got a list of 3")
    end)
end)

describe("families", function()
    without_drawing()

    it("resnext has torchvision's names and shapes", function()
        local own, theirs = models.resnext(), models.resnext50()
        local entries = own:variables()
        for position, entry in ipairs(theirs:variables()) do
            assert.equal(entry.name, entries[position].name)
            assert.same(entry.tensor:shape(), entries[position].tensor:shape())
        end
        assert.equal(#theirs:variables(), #entries)
    end)

    it("vgg and the others go without the top", function()
        local function shape_of(name, options)
            options.top = false
            return models[name](options).outputs[1]:shape()
        end
        assert.same({2, 2, 512}, shape_of("vgg", {11, input = {64, 64, 3}}))
        assert.same({512}, shape_of("vgg", {11, input = {64, 64, 3}, pooling = "max"}))
        assert.same({8, 8, 64}, shape_of("cifar_resnet", {8}))
        assert.same({8, 8, 1024}, shape_of("resnext", {29, cardinality = 2, width = 4}))
        assert.same({128}, shape_of("wide_resnet", {10, widen = 2, pooling = "avg"}))
    end)

    it("a class of layers is one row, or rows of its own", function()
        local x = nn.input{32, 32, 3}
        local model = nn.model(x, models.ResNet{blocks = 2, filters = 8}(x))
        assert.equal(1, #model:children())
        assert.equal("res_net", model:children()[1][1])
        local flat = models.class_resnet{blocks = 2, filters = 8, input = {32, 32, 3}}
        assert.equal(flat:count(), model:count())
        assert.same({16, 16, 10}, flat.outputs[1]:shape()) -- softmax on the last axis
        local block = models.ResidualBlock{filters = 4}
        assert.same({1, 8, 8, 4}, block(resin.rand(1, 8, 8, 4)):shape())
    end)

    it("residual_block is the bottleneck as a function", function()
        local x = nn.input{8, 8, 32}
        local model = nn.model(x, models.residual_block(x))
        local narrow = 32 * 8 + 8 + 9 * 8 * 8 + 8 + 8 * 32 + 32
        assert.equal(narrow, model:count())
        assert.same({8, 8, 32}, model.outputs[1]:shape())
        x = nn.input{8, 8, 10}
        local elu = nn.model(x, models.residual_block(x, 10, 4, "elu"))
        assert.equal(10 * 2 + 2 + 9 * 2 * 2 + 2 + 2 * 10 + 10, elu:count()) -- floor(10 / 4)
        assert.same({2, 8, 8, 10}, models.residual_block(resin.rand(2, 8, 8, 10), 10):shape())
        assert.error_matches(function() models.residual_block(x) end,
            "f = 32 channels to be added, got %(N, 8, 8, 10%)")
        assert.error_matches(function() models.residual_block(x, 10, 11) end, "r must be")
    end)

    it("the pre-activation network's faulty loss has softmax twice", function()
        local function loss_of(options)
            options.input, options.units, options.filters = {4, 4, 3}, 1, 4
            local model = models.preactivation_resnet(options)
            -- As sure as it can be of the first class.
            local beta = model:get_layer("conv_top/BatchNorm").beta
            beta:detach():copy_(resin.tensor{1000, 0, 0, 0, 0, 0, 0, 0, 0, 0})
            local result = resin.train.evaluate(model,
                {resin.rand(2, 4, 4, 3), resin.tensor({1, 1}, "int64")})
            return result.loss
        end
        assert.near(0, loss_of{}, 1e-6)
        assert.near(math.log((math.exp(1) + 9) / math.exp(1)), loss_of{softmax_twice = true}, 1e-5)
    end)
end)

describe("models", function()
    local function refused(expected, name, options)
        local ok, message = pcall(models[name], options)
        assert.is_false(ok, name)
        assert.truthy(message:find(expected, 1, true), message)
    end

    it("fail as the printed programs do, naming the block and both shapes", function()
        refused("residual_block/add: the sum has two shapes, (N, 56, 56, 64) and (N, 112, 112, 64)",
            "class_resnet", {block_stride = 2})
        refused("tutorial_resnet: block 1 of stage 2: the sum has two shapes, (N, 14, 14, 128) and "
            .. "the shortcut's (N, 28, 28, 128)", "tutorial_resnet", {stride = 2, faulty = true})
        local x = nn.input{224, 224, 3}
        local ok, message = pcall(models.ResNet{block_stride = 2}, x)
        assert.is_false(ok)
        assert.truthy(message:find("res_net/residual_blocks/1/add", 1, true), message)
    end)

    it("run when they are repaired", function()
        local tutorial = models.tutorial_resnet{stride = 2, width = 8}
        assert.same({7, 7, 64}, node_of(tutorial, "re_lu_16"):shape())
        assert.truthy(models.class_resnet{block_stride = 2, projection = true, filters = 8})
    end)

    it("say what was expected", function()
        refused("6 n + 2", "cifar_resnet", {depth = 21})
        refused('unknown option "deepness"', "cifar_resnet", {deepness = 20})
        refused("6 n + 4", "wide_resnet", {depth = 20})
        refused("9 n + 2", "resnext", {depth = 28})
        refused("50, 101 or 152", "resnext", {depth = 28, variant = "imagenet"})
        refused('"imagenet" or "cifar"', "resnext", {variant = "mnist"})
        refused("18, 34, 50, 101 or 152", "resnet", {depth = 51})
        refused("18, 34, 50, 101 or 152", "resnet", {depth = 51, version = "torchvision"})
        refused('version must be "v1", "v2", "torchvision"', "resnet", {version = "v3"})
        refused('unknown option "width"', "resnet", {18, version = "torchvision", width = 32})
        refused('"avg", "max" or "none", got mean', "resnet", {50, pooling = "mean"})
        refused("11, 13, 16 or 19", "vgg", {depth = 12})
        refused("a list of 4", "tutorial_resnet", {filters = {1, 2}})
        refused("shortcut must be", "tutorial_resnet", {shortcut = "skip"})
        refused("class_resnet: filters is a number or a list of 20", "class_resnet",
            {filters = {1}})
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
    local image, tiny = {32, 32, 3}, {16, 16, 3}
    local SMALL = {
        {"cifar_resnet", {depth = 8, width = 4, input = tiny}},
        {"tutorial_resnet", {width = 4, input = image}},
        {"tutorial_resnet", {width = 4, input = image, shortcut = "identity", stride = 2,
            activation = "elu", kernel = 5, blocks = {1, 2, 1, 1}, dropout = 0.5, l2 = 1e-4}},
        {"tutorial_resnext", {filters = 4, cardinality = 3, input = {8, 8, 3}}},
        {"class_resnet", {blocks = 2, filters = 4, input = tiny}},
        {"class_resnet", {blocks = 2, filters = {4, 6}, projection = true, pooling = "max",
            activation = "tanh", dropout = 0.2, input = tiny}},
        {"plain_cnn", {input = image, classes = 5}},
        {"plain_cnn", {input = image, filters = {4, 6}, blocks = 2, dropout = 0.5, units = 9}},
        {"preactivation_resnet", {units = 2, filters = 4, input = tiny}},
        {"wide_resnet", {depth = 10, widen = 1, dropout = 0.3, input = tiny}},
        {"resnet", {depth = 50, width = 4, classes = 10, input = image}},
        {"resnet", {depth = 50, version = "v2", width = 4, classes = 10, input = image}},
        {"resnet", {depth = 18, width = 4, classes = 10, input = image}},
        {"resnet", {depth = 18, version = "v2", width = 4, classes = 10, input = image}},
        {"resnext", {depth = 29, cardinality = 2, width = 4, input = tiny}},
        {"resnet18", {classes = 10, input = image}},
        {"resnet50", {classes = 10, input = image}},
        {"resnext50", {classes = 10, input = image}},
    }
    for number, case in ipairs(SMALL) do
        local name, options = table.unpack(case)
        it(("%s runs forward and backward (%d)"):format(name, number), function()
            resin.seed(3)
            local model = models[name](options)
            local side = options.input[1]
            local images = resin.rand(2, side, side, 3)
            local inferred = model(images)
            assert.is_false(inferred:requires_grad())
            local logits = model(images, {training = true, logits = true})
            local classes = options.classes or name == "plain_cnn" and 5 or 10
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
