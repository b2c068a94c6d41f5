-- The scripts as a user runs them, on tiny settings.
local script = dofile "tests/lua/run_script.lua"("")
local read, run, assert_refused = script.read, script.run, script.assert_refused

local TINY = "train_resnet.lua --data random --samples 40 --image-size 8 --depth 8 --batch-size 8 "
    .. "--epochs 2"

describe("train_resnet.lua", function()
    local folder

    setup(function()
        folder = os.tmpname()
        os.remove(folder)
    end)
    teardown(function()
        os.execute(("rm -rf '%s'"):format(folder))
    end)

    it("says what its options are", function()
        local status, output = run("train_resnet.lua --help")
        assert.equal(0, status)
        for _, name in ipairs{"data", "data-dir", "depth", "variant", "epochs", "batch-size",
            "optimizer", "lr", "seed", "threads", "out", "summary", "resume", "dry-run",
            "activation", "kernel", "filters", "dropout", "l1", "l2", "momentum", "shortcut"} do
            assert.is_truthy(output:find("--" .. name, 1, true), name)
        end
    end)

    it("refuses wrong options in one line", function()
        assert_refused("train_resnet.lua --epoch 3", "unknown option '--epoch'")
        assert_refused("train_resnet.lua 3", "unexpected argument '3'")
        assert_refused("train_resnet.lua --epochs", "--epochs", "missing")
        assert_refused("train_resnet.lua --epochs 1.5", "--epochs", "whole number", "1.5")
        assert_refused("train_resnet.lua --epochs 0", "--epochs", "at least 1")
        assert_refused("train_resnet.lua --lr fast", "--lr", "a number", "fast")
        assert_refused("train_resnet.lua --lr nan", "--lr", "a number")
        assert_refused("train_resnet.lua --threads 65", "--threads", "at most 64")
        assert_refused("train_resnet.lua --summary=3", "--summary", "no value")
        assert_refused("train_resnet.lua --data cifar11", "data set 'cifar11'", "cifar10, ")
        assert_refused("train_resnet.lua --optimizer sdg", "optimizer 'sdg'", "sgd")
        assert_refused("train_resnet.lua --depth 21 --summary", "21", "6 n + 2")
    end)

    it("refuses data that is not there", function()
        assert_refused("train_resnet.lua --data cifar10", "--data-dir")
        for _, name in ipairs{"cifar10", "cifar100", "mnist", "fashion-mnist"} do
            assert_refused(("train_resnet.lua --data %s --data-dir /no/such/folder"):format(name),
                "/no/such/folder")
        end
    end)

    it("refuses a folder that cannot be written before it trains", function()
        assert_refused(TINY .. " --out /dev/null/runs", "/dev/null/runs")
    end)

    it("trains, reports and saves, with the same result at any number of threads", function()
        local status, output, message = run(TINY .. " --threads 1 --out " .. folder)
        assert.equal("", message)
        assert.equal(0, status)
        assert.equal(2, select(2, output:gsub("\nEpoch %d/2 %- %d+s %d+%ws/step %- "
            .. "loss: %d+%.%d%d%d%d %- accuracy: [01]%.%d%d%d%d %- val_loss: %d+%.%d%d%d%d %- "
            .. "val_accuracy: [01]%.%d%d%d%d", "")))
        assert.equal(folder, output:match(
            "\ntest accuracy: [01]%.%d%d%d%d\nreport: ([^\n]+)/report%.html\n$"))
        local report = read(folder .. "/report.html")
        assert.is_truthy(report:find("<svg", 1, true) and report:find("</html>", 1, true))
        local weights = read(folder .. "/model.safetensors")

        local _, again = run(TINY .. " --threads 2 --out " .. folder)
        assert.equal(output:match("test accuracy: %S+\n"), again:match("test accuracy: %S+\n"))
        assert.is_true(weights == read(folder .. "/model.safetensors"), "weights differ")
    end)

    it("stops at a loss that is not a number, and says at which step", function()
        assert_refused(TINY .. " --schedule constant --lr 1e30 --out " .. folder, "at step",
            "learning rate")
    end)

    it("goes on from a checkpoint", function()
        local settings = " --dropout 0.1 --average 0.9 --cutout 2 --crop 1 --schedule constant "
        local _, whole = run(TINY .. settings .. "--epochs 3 --out " .. folder)
        local weights = read(folder .. "/model.safetensors")
        run(TINY .. settings .. "--epochs 1 --out " .. folder)
        local status, output, message = run(TINY .. settings .. "--epochs 3 --resume --out "
            .. folder)
        assert.equal("", message)
        assert.equal(0, status)
        assert.is_truthy(output:find("resumed from " .. folder, 1, true))
        assert.is_nil(output:find("Epoch 1/3", 1, true))
        assert.equal(whole:match("test accuracy: %S+\n"), output:match("test accuracy: %S+\n"))
        assert.is_true(weights == read(folder .. "/model.safetensors"), "weights differ")
        assert.equal(4, select(2, read(folder .. "/history.csv"):gsub("\n", "")))
    end)

    it("tells before what a training costs", function()
        local status, output = run("train_resnet.lua --data random --samples 40 --image-size 8 "
            .. "--depth 8 --batch-size 8 --dry-run")
        assert.equal(0, status)
        assert.is_truthy(output:find("75290 trainable parameters", 1, true))
        assert.is_truthy(output:find("multiply-adds an image", 1, true))
        assert.is_truthy(output:find("\nmemory: about %d+ MB for a batch of 8"))
        assert.is_truthy(output:find("take about %d+ seconds"))
    end)

    it("builds the network that the options ask for", function()
        local status, output = run("train_resnet.lua --depth 8 --filters 4,6,9 --kernel 5 "
            .. "--activation elu --shortcut projection --dropout 0.3 --l1 1e-5 --l2 1e-4 --summary")
        assert.equal(0, status)
        assert.is_truthy(output:find("activation (Activation)", 1, true))
        assert.is_truthy(output:find("dropout (Dropout)", 1, true))
        -- 5x5 convolutions, 1x1 shortcuts of stages two and three, batch norms, dense
        local convolutions = 25 * (3 * 4 + 2 * 4 * 4 + 4 * 6 + 6 * 6 + 6 * 9 + 9 * 9)
            + 4 * 6 + 6 * 9
        local norms = 2 * (3 * 4 + 3 * 6 + 3 * 9)
        assert.is_truthy(output:find(("Trainable params: %d "):format(
            convolutions + norms + 9 * 10 + 10), 1, true), output)
        assert_refused("train_resnet.lua --filters 4,6", "filters", "a list of 3")
        assert_refused("train_resnet.lua --filters 4,x", "--filters", "16,32,64", "x")
        assert_refused("train_resnet.lua --activation rulu --summary", "rulu")
    end)

    it("takes every optimizer's settings", function()
        for _, settings in ipairs{"sgd --momentum 0.8 --no-nesterov --clip-norm 1",
            "adam --beta1 0.8 --beta2 0.99 --epsilon 1e-6", "adamw --weight-decay 0.01",
            "rmsprop --alpha 0.95 --momentum 0.5 --label-smoothing 0.1 --accumulate 2"} do
            local status, _, message = run(TINY .. " --epochs 1 --out " .. folder
                .. " --optimizer " .. settings)
            assert.equal("", message)
            assert.equal(0, status)
        end
    end)

    it("prints the tutorial's table", function()
        local status, output = run("train_resnet.lua --variant tutorial --summary")
        assert.equal(0, status)
        assert.is_truthy(output:find("Total params: 11553418 (44.07 MB)", 1, true))
        assert.is_truthy(output:find("Non-trainable params: 11648 (45.50 KB)", 1, true))
    end)

    it("trains the tutorial's network and says beforehand what it costs", function()
        local status, output, message = run("train_resnet.lua --variant tutorial --image-size 16 "
            .. "--samples 60 --width 4 --batch-size 4 --epochs 1 --out " .. folder)
        assert.equal("", message)
        assert.equal(0, status)
        assert.is_truthy(output:find("multiply-adds an image", 1, true))
        assert.is_truthy(output:match("\ntest accuracy: [01]%.%d%d%d%d\nreport: [^\n]+\n$"))
        local report = read(folder .. "/report.html")
        assert.is_truthy(report:find("Accuracy over Epochs", 1, true))
        assert.is_truthy(report:find("Validation Loss", 1, true))
    end)
end)

describe("bench.lua", function()
    it("lists its networks", function()
        local status, output = run("bench.lua --list")
        assert.equal(0, status)
        for _, name in ipairs{"resnet20", "resnet56", "cifar14-w64", "tutorial-resnet",
            "tutorial-resnext", "resnet18", "resnet50", "resnext50", "vgg16"} do
            assert.is_truthy(output:find(name, 1, true), name)
        end
        assert.is_truthy(output:find("36.21 billion multiply-adds", 1, true)) -- tutorial-resnet
        assert.is_truthy(output:find("1.81 billion multiply-adds", 1, true))  -- resnet18
    end)

    it("prints one line of JSON", function()
        for _, mode in ipairs{"train", "infer"} do
            local status, output, message = run(
                "bench.lua --model resnet20 --batch 2 --seconds 0.1 --json --mode " .. mode)
            assert.equal("", message)
            assert.equal(0, status)
            assert.is_truthy(output:match("^{.*}\n$"))
            for _, name in ipairs{"batch", "threads", "median_ms", "min_ms", "images_per_s",
                "effective_gflops", "fma_peak_gflops", "peak_rss_mb"} do
                local value = tonumber(output:match('"' .. name .. '": ([%d.]+)'))
                assert.is_true(value ~= nil and value > 0, name)
            end
            assert.is_truthy(output:find('"model": "resnet20"', 1, true))
            assert.is_truthy(output:find('"parameters": 269722', 1, true))
        end
    end)

    it("refuses what it does not know", function()
        assert_refused("bench.lua --model resnet19", "resnet19", "resnet20")
        assert_refused("bench.lua --mode test", "test", "infer")
    end)
end)

describe("ops.lua", function()
    it("prints the table of ops", function()
        local status, output = run("ops.lua")
        assert.equal(0, status)
        assert.is_truthy(output:find("\nelu(", 1, true))
        assert.is_truthy(output:find("\nconv2d(", 1, true))
    end)
    it("explains one op, or says that there is none", function()
        local _, output = run("ops.lua elu")
        assert.is_truthy(output:find("alpha", 1, true))
        assert_refused("ops.lua elo", "no op 'elo'")
    end)
end)

describe("README", function()
    it("has a first network that runs (here on fewer images)", function()
        local code = read("README.md"):match("```lua\n(.-)```")
        local fewer, changes = code:gsub("data%.synthetic%(%)", "data.synthetic{count = 320}")
        assert.equal(1, changes)
        local shown
        local environment = setmetatable({print = function(...) shown = {...} end}, {__index = _G})
        assert(load(fewer, "=README.md", "t", environment))()
        assert.equal("accuracy", shown[1])
        assert.is_true(shown[2] >= 0 and shown[2] <= 1)
    end)
end)
