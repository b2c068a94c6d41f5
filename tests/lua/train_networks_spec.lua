-- train_cnn.lua, train_resnext.lua and the variants of train_resnet.lua as a user runs them, on
-- tiny settings.
local folder = os.tmpname()
os.remove(folder)

local script = dofile "tests/lua/run_script.lua"("train_")
local read, run, assert_refused = script.read, script.run, script.assert_refused

-- A training ends with its two lines; what it printed, and its report.
local function train(command_line)
    local status, output, message = run(command_line .. " --epochs 1 --batch-size 8 --out "
        .. folder)
    assert.equal("", message)
    assert.equal(0, status)
    local last = "\ntest accuracy: [01]%.%d%d%d%d\nreport: [^\n]+/report%.html\n$"
    assert.is_truthy(output:match(last), output)
    return output, read(folder .. "/report.html")
end

-- The numbers of the summary: trainable, not trainable.
local function count(command_line)
    local status, output, message = run(command_line .. " --summary")
    assert.equal("", message)
    assert.equal(0, status)
    return tonumber(output:match("\nTrainable params: (%d+) ")),
        tonumber(output:match("\nNon%-trainable params: (%d+) "))
end

describe("the training scripts", function()
    teardown(function() os.execute(("rm -rf '%s'"):format(folder)) end)

    it("cnn: trains the plain network, with every setting", function()
        local output = train("cnn.lua --samples 40")
        assert.is_truthy(output:find("cnn on synthetic: 40 + 8 images, 37194 trainable", 1, true))
        local _, page = train("cnn.lua --samples 40 --filters 4,6 --kernel 5 --activation elu "
            .. "--units 9 --dropout 0.2 --l1 1e-5 --l2 1e-4 --optimizer sgd --nesterov "
            .. "--momentum 0.8 --lr 0.02")
        for _, text in ipairs{"4, 6", "elu", "0.02", "nesterov"} do
            assert.is_truthy(page:find(text, 1, true), text)
        end
        assert.equal(75 * 4 + 4 + 100 * 6 + 6 + 5 * 5 * 6 * 9 + 9 + 9 * 10 + 10,
            (count("cnn.lua --filters 4,6 --kernel 5 --units 9")))
        assert.equal(1658565 + 5 * 129, (count("cnn.lua --data random")), "ten classes, not five")
    end)

    it("cnn: trains the network of classes, and shows it as printed", function()
        train("cnn.lua --variant resnet --samples 24 --blocks 2 --filters 4 --activation tanh")
        train("cnn.lua --variant resnet --samples 24 --blocks 2 --filters 4,6 --projection "
            .. "--block-stride 2 --pooling max --dropout 0.1")
        local trainable, rest = count("cnn.lua --variant resnet --data random --pooling none")
        assert.equal(1490058, trainable + rest)
        assert.equal(5248, rest)
        assert_refused("cnn.lua --variant resnet --data random --block-stride 2",
            "residual_block/add", "(N, 56, 56, 64) and (N, 112, 112, 64)")
        assert_refused("cnn.lua --variant resnet --pooling none", "for each pixel", "--pooling")
        assert_refused("cnn.lua --stride 2", "--stride", "variant plain", "--units")
        assert_refused("cnn.lua --filters 8,0", "--filters", "at least 1")
        assert_refused("cnn.lua --filters 8,9 --blocks 3", "a list of 3, got a list of 2")
    end)

    it("resnext: trains the tutorial's network on noise, with its plot", function()
        local output, page = train("resnext.lua --samples 64 --cardinality 3 --width 8")
        assert.is_truthy(output:find("tutorial-resnext on random: 32 + 32 images", 1, true))
        assert.is_truthy(output:find("\nEpoch 1/1 %- %d+s %d+%ws/step %- loss: %d+%.%d%d%d%d %- "
            .. "accuracy: [01]%.%d%d%d%d %- val_loss: %d+%.%d%d%d%d %- val_accuracy: "))
        assert.is_truthy(page:find("Model Accuracy", 1, true))
        local trainable, rest = count("resnext.lua")
        assert.equal(21962, trainable + rest)
        assert.equal(1280, rest)
    end)

    it("resnext: builds and trains the real ones", function()
        assert.equal(34426698, (count("resnext.lua --variant cifar")))
        assert.equal(68155210, (count("resnext.lua --variant cifar --cardinality 16")))
        assert.equal(25028904 - 990 * 2049, (count("resnext.lua --variant imagenet")))
        train("resnext.lua --variant cifar --depth 11 --cardinality 2 --width 2 --samples 16")
        train("resnext.lua --variant imagenet --blocks 1 --cardinality 2 --width 2 --samples 16")
        assert_refused("resnext.lua --variant cifar --depth 28", "9 n + 2")
        assert_refused("resnext.lua --variant imagenet --depth 29", "50, 101 or 152")
        assert_refused("resnext.lua --depth 29", "--depth", "variant tutorial")
    end)

    it("resnet: builds Keras' networks at any depth and trains them at any size", function()
        local classes = 990 * 2049
        local known = {
            v1 = {[50] = {25636712, 53120}, [101] = {44707176, 105344}, [152] = {60419944, 151424}},
            v2 = {[50] = {25613800, 45440}, [101] = {44675560, 97664}, [152] = {60380648, 143744}},
        }
        for version, depths in pairs(known) do
            for depth, expected in pairs(depths) do
                local trainable, rest = count(("resnet.lua --variant %s --depth %d --image-size 96")
                    :format(version, depth))
                assert.equal(expected[1] - classes, trainable + rest)
                assert.equal(expected[2], rest)
            end
        end
        train("resnet.lua --variant v1 --samples 16 --width 2 --image-size 40")
        local output = train("resnet.lua --variant v2 --depth 18 --samples 16 --width 4 "
            .. "--pooling max")
        assert.is_truthy(output:find("take about %d+ seconds here"))
        assert_refused("resnet.lua --variant v1 --depth 20", "18, 34, 50, 101 or 152", "20")
        assert_refused("resnet.lua --variant v2 --shortcut none", "--shortcut", "variant v2")
    end)

    it("resnet: the tutorial's network takes what one turns", function()
        train("resnet.lua --variant tutorial --image-size 32 --samples 80 --filters 2,3,4,5 "
            .. "--blocks 1 --kernel 5 --activation tanh --shortcut identity --stride 2 "
            .. "--dropout 0.1 --l1 1e-5 --l2 1e-4")
        assert_refused("resnet.lua --variant tutorial --stride 2 --faulty", "block 1 of stage 2",
            "(N, 14, 14, 128)", "(N, 28, 28, 128)")
        assert_refused("resnet.lua --variant tutorial --depth 20", "--depth", "variant tutorial")
    end)
end)

describe("other sizes", function()
    it("resize as bilinear interpolation does", function()
        local resin = require "resin"
        local images = require "resin.script.images"
        local settings = {data = "synthetic", samples = 10, seed = 1, image = {64, 64, 3},
            image_size = 64}
        local train_set = images.load(settings)
        assert.same({10, 64, 64, 3}, train_set.images:shape())
        local original = resin.data.synthetic{count = 10, seed = 1}.images
        -- Between pixels 1 and 2 of a row there are 3/4, 1/4 and 1/4, 3/4 of them; corners stay.
        local function value(set, ...) return set[{...}]:item() end
        assert.equal(value(original, 3, 1, 1, 2), value(train_set.images, 3, 1, 1, 2))
        local a, b = value(original, 3, 1, 1, 2), value(original, 3, 1, 2, 2)
        assert.near(0.75 * a + 0.25 * b, value(train_set.images, 3, 1, 2, 2), 0.51)
        settings.image, settings.image_size = {16, 16, 3}, 16
        local half = images.load(settings).images:to("float32")
        assert.near(original:to("float32"):mean():item(), half:mean():item(), 0.5)
        settings.image_size, settings.pixels, settings.image = nil, "bytes", {32, 32, 3}
        local bytes = images.load(settings):batches{batch_size = 2}()
        assert.near(value(original, 2, 5, 5, 1), value(bytes, 2, 5, 5, 1), 1e-3)
    end)
end)
