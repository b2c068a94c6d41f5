-- The scripts in scripts/experiments as a user runs them, on tiny settings, and what they rest on:
-- a ResNeXt block is the same as split paths that are summed.
local resin = require "resin"
local models = resin.models

local folder = os.tmpname()
os.remove(folder)

local script = dofile "tests/lua/run_script.lua"("experiments/")
local read, run = script.read, script.run

local TINY = " --image-size 8 --width 2 --batch-size 10 --threads 1 --out "

-- Runs an experiment to its end; its text, the lines of its table of numbers, its picture.
local function experiment(name, options)
    local status, output, message = run(("%s.lua %s%s%s"):format(name, options, TINY, folder))
    assert.equal("", message)
    assert.equal(0, status)
    local path = ("%s/%s"):format(folder, name)
    assert.is_truthy(output:find(path .. ".md, .csv, .svg\n", 1, true), output)
    local text, lines = read(path .. ".md"), {}
    for line in read(path .. ".csv"):gmatch("[^\n]+") do lines[#lines + 1] = line end
    for claim in text:gmatch("\nClaim: [^\n]+") do
        assert.is_truthy(claim:find(". Shown by these data. ", 1, true)
            or claim:find(". NOT shown by these data. ", 1, true)
            or claim:find(". These data do not decide. ", 1, true), claim)
        assert.is_truthy(output:find(claim, 1, true), "not printed: " .. claim)
    end
    return text, lines, read(path .. ".svg")
end

local function count(text, pattern) return select(2, text:gsub(pattern, "")) end

describe("the experiment", function()
    teardown(function() os.execute(("rm -rf '%s'"):format(folder)) end)

    it("degradation has both errors of four networks after each epoch", function()
        local text, lines, svg = experiment("degradation",
            "--samples 40 --epochs 2 --shallow 8 --deep 14")
        assert.equal("network,seed,epoch,loss,training_error,test_error", lines[1])
        assert.equal(1 + 4 * 2, #lines)
        assert.is_truthy(lines[9]:find("^residual%-14,1,2,"), lines[9])
        assert.equal(3, count(text, "\nClaim: "))
        assert.equal(2 * 4, count(svg, '<path d="M[^"]+" fill="none" class="line'))
        assert.is_truthy(svg:find("Training error", 1, true) and svg:find("Test error", 1, true))
    end)

    it("gradient_norm has the norm of each layer of four networks, twice", function()
        local text, lines, svg = experiment("gradient_norm",
            "--samples 40 --depth 14 --steps 3 --measured 10")
        assert.equal("network,when,layer,gradient_norm", lines[1])
        assert.equal(1 + 4 * 2 * 13, #lines)
        for i = 2, #lines do
            local norm = tonumber(lines[i]:match("[^,]+$"))
            assert.is_true(norm > 0 and norm < math.huge, lines[i])
        end
        assert.equal(4, count(text, "\nClaim: "))
        assert.equal(2 * 4, count(svg, '<path d="M[^"]+" fill="none" class="line'))
    end)

    it("identity finds the same logits, and others with other scales", function()
        local text, lines = experiment("identity",
            "--samples 40 --epochs 1 --more-epochs 2 --shallow 8 --deep 20")
        assert.is_truthy(text:find("largest difference between the networks is 0, and 0 of ", 1,
            true), text)
        assert.is_truthy(text:find("bit-equal", 1, true))
        assert.is_true(tonumber(text:match("instead of 0 the largest difference is ([%d.e-]+%d)"))
            > 1e-6)
        assert.equal(1 + 1 + 1 + 2, #lines)
        local function errors(line) return line:match(",([^,]+,[^,]+)$") end
        assert.equal(errors(lines[2]), errors(lines[3]), "the network has changed")
    end)

    it("identity takes trained weights", function()
        resin.seed(7)
        local path = folder .. "/weights.safetensors"
        models.cifar_resnet{depth = 8, width = 2, input = {8, 8, 3}}:save(path)
        local _, lines = experiment("identity",
            "--samples 40 --more-epochs 1 --shallow 8 --deep 14 --weights " .. path)
        assert.equal(1 + 1 + 1 + 1, #lines)
    end)

    it("cardinality has several seeds of five networks, four of them at one cost", function()
        local text, lines, svg = experiment("cardinality",
            "--samples 30 --epochs 1 --seeds 2 --groups 2")
        assert.equal(1 + 5 * 2, #lines)
        local costs = {}
        for cost in text:gmatch("\n| [^|]+| [^|]+ a stage | +([%d.]+) |") do
            costs[#costs + 1] = tonumber(cost)
        end
        assert.equal(5, #costs)
        for i = 3, 5 do assert.near(1, costs[i] / costs[2], 0.25) end
        assert.is_true(costs[1] < costs[2])
        assert.equal(3, count(text, "\nClaim: "))
        assert.equal(5 * 2, count(svg, "<circle"))
    end)

    it("tells its options and refuses wrong ones", function()
        for _, name in ipairs{"degradation", "gradient_norm", "identity", "cardinality"} do
            local status, output = run(name .. ".lua --help")
            assert.equal(0, status)
            for _, option in ipairs{"--data-dir DIR", "--samples N", "--seed N", "--out DIR"} do
                assert.is_truthy(output:find(option, 1, true), option)
            end
        end
        local function refused(command_line, word)
            local status, _, message = run(command_line .. " --out " .. folder)
            assert.equal(1, status)
            assert.equal(1, count(message, "\n"), "more than one line: " .. message)
            assert.is_truthy(message:find(word, 1, true), message)
        end
        refused("degradation.lua --steps 3", "unknown option '--steps'")
        refused("degradation.lua --data cifar10", "needs --data-dir")
        refused("gradient_norm.lua --depth 15 --samples 20", "6 n + 2")
        refused("identity.lua --shallow 20 --deep 14 --samples 20", "--deep")
        refused("cardinality.lua --seeds 0", "at least 1")
    end)
end)

---- Split paths are a grouped convolution -------------------------------------------------------

local GROUPS, GROUP_WIDTH, CHANNELS = 4, 3, 10
local INNER = GROUPS * GROUP_WIDTH

-- Gradients and values in double precision, so that only rounding of that size is allowed.
local function random(...) return resin.randn({...}, "float64"):require_grad() end

local function new_block()
    resin.seed(3)
    local block = {x = random(2, 6, 6, CHANNELS), conv1 = random(1, 1, CHANNELS, INNER),
        conv2 = random(3, 3, GROUP_WIDTH, INNER), conv3 = random(1, 1, INNER, CHANNELS)}
    for i, size in ipairs{INNER, INNER, CHANNELS} do
        block["gamma" .. i], block["beta" .. i] = random(size), random(size)
    end
    return block
end

local function norm(y, gamma, beta)
    local size = #gamma
    return resin.batch_norm(y, gamma, beta, resin.zeros({size}, "float64"),
        resin.ones({size}, "float64"), nil, {training = true})
end

local SAME = {1, 1, 1, 1}

-- Figure 3 (c) of Xie et al. 2016: the 3x3 convolution has groups.
local function grouped(block)
    local y = norm(resin.conv2d(block.x, block.conv1), block.gamma1, block.beta1):relu()
    y = resin.conv2d(y, block.conv2, nil, {padding = SAME, groups = GROUPS})
    y = norm(y, block.gamma2, block.beta2):relu()
    return (norm(resin.conv2d(y, block.conv3), block.gamma3, block.beta3) + block.x):relu()
end

-- The channels of a group along an axis of a tensor.
local function part(tensor, group, axis)
    local ranges = {}
    for i = 1, tensor:rank() do ranges[i] = {} end
    ranges[axis] = {(group - 1) * GROUP_WIDTH + 1, group * GROUP_WIDTH}
    return tensor[ranges]
end

-- Figure 3 (b): each group's channels by themselves, then concatenated.
local function concatenated(block)
    local y = norm(resin.conv2d(block.x, block.conv1), block.gamma1, block.beta1):relu()
    local paths = {}
    for group = 1, GROUPS do
        paths[group] = resin.conv2d(part(y, group, 4), part(block.conv2, group, 4), nil,
            {padding = SAME})
    end
    y = norm(resin.concatenate(paths, {axis = 4}), block.gamma2, block.beta2):relu()
    return (norm(resin.conv2d(y, block.conv3), block.gamma3, block.beta3) + block.x):relu()
end

-- Figure 3 (a): whole paths of 1x1, 3x3 and 1x1, whose results are added.
local function summed(block)
    local sum
    for group = 1, GROUPS do
        local y = resin.conv2d(block.x, part(block.conv1, group, 4))
        y = norm(y, part(block.gamma1, group, 1), part(block.beta1, group, 1)):relu()
        y = resin.conv2d(y, part(block.conv2, group, 4), nil, {padding = SAME})
        y = norm(y, part(block.gamma2, group, 1), part(block.beta2, group, 1)):relu()
        y = resin.conv2d(y, part(block.conv3, group, 3))
        sum = sum and sum + y or y
    end
    return (norm(sum, block.gamma3, block.beta3) + block.x):relu()
end

-- The result and the gradients of everything that goes in, by name.
local function run_block(form)
    local block = new_block()
    local y = form(block)
    local weights = resin.arange(1, y:count(), 1, "float64"):reshape(y:shape()):sin()
    ;(y * weights):sum():backward()
    local results = {y = y:detach()}
    for name, tensor in pairs(block) do results[name] = tensor.grad end
    return results
end

local function largest_difference(a, b)
    local largest = 0
    for name, tensor in pairs(a) do
        local difference = (tensor - b[name]):abs():max():item()
        largest = math.max(largest, difference / tensor:abs():max():item())
    end
    return largest
end

describe("a ResNeXt block", function()
    it("is the same with groups, concatenated paths and summed paths, and so its gradients",
        function()
            local expected = run_block(grouped)
            assert.is_true(largest_difference(expected, run_block(concatenated)) < 1e-11)
            assert.is_true(largest_difference(expected, run_block(summed)) < 1e-11)
            local swapped = run_block(function(block) -- the test can fail
                local y = block.conv2
                block.conv2 = resin.flip(y, {axes = {4}})
                local result = concatenated(block)
                block.conv2 = y
                return result
            end)
            assert.is_true(largest_difference(expected, swapped) > 1e-2)
        end)

    it("of the library is made of a grouped convolution", function()
        resin.seed(4)
        local model = models.resnext{variant = "cifar", cardinality = 4, width = 2, blocks = 1,
            filters = {8, 16, 24}, stem = 4, input = {8, 8, 3}}
        local x = resin.randn(2, 8, 8, 3)
        local conv = model:get_layer("layer1.0.conv2")
        assert.same({3, 3, 2, 8}, conv.weights:shape())
        local input = resin.randn(2, 8, 8, 8)
        local paths = {}
        for group = 1, 4 do
            local range = {2 * group - 1, 2 * group}
            paths[group] = resin.conv2d(input[{{}, {}, {}, range}]:contiguous(),
                conv.weights[{{}, {}, {}, range}]:contiguous(), nil, {padding = SAME})
        end
        local difference = conv(input) - resin.concatenate(paths, {axis = 4})
        assert.is_true(difference:abs():max():item() < 1e-4)
        assert.same({2, 10}, model(x):shape())
    end)
end)

describe("the networks' options for the experiments", function()
    it("batch_norm = false gives convolutions with biases", function()
        local model = models.cifar_resnet{depth = 20, batch_norm = false}
        local total, trainable = model:count()
        assert.equal(total, trainable)
        -- A bias takes the place of scale and shift: as many values less as there are filters.
        assert.equal(269722 - (16 + 6 * (16 + 32 + 64)), trainable)
    end)
    it("filters and stem change a ResNeXt's channels", function()
        local model = models.resnext{variant = "cifar", cardinality = 2, width = 3, blocks = 1,
            filters = {8, 12, 20}, stem = 5}
        assert.equal(3 * 3 * 3 * 5, model:get_layer("conv1").weights:count())
        assert.same({1, 1, 6 * 4, 20}, model:get_layer("layer3.0.conv3").weights:shape())
        assert.equal(34426698, select(2, models.resnext{29}:count()))
    end)
end)
