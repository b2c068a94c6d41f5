-- Measuring: profiles of ops, bench.lua's tables, compare.lua. Times themselves are not judged: the
-- machine may be busy.
local resin = require "resin"
local compare = require "resin.bench.compare"
local files = require "resin.files"
local profile = require "resin.bench.profile"
local scaling = require "resin.bench.scaling"
local step = require "resin.bench.step"
local nn = resin.nn

local LUA = os.getenv("LUA") or "lua5.4"

local PYTHON = "/usr/bin/python3"

-- What a command prints, with its errors, and its status.
local function output_of(command)
    local pipe = io.popen(command .. " 2>&1")
    local text = pipe:read("a")
    local _, _, status = pipe:close()
    return text, status
end

-- Looked for without loading it, which takes seconds.
local function has_torch()
    local _, status = output_of(PYTHON .. " -c 'import sys; from importlib.util import find_spec; "
        .. 'sys.exit(not all(map(find_spec, ("torch", "torchvision"))))\'')
    return status == 0
end

describe("resin.profile", function()
    it("lists what a function's ops did", function()
        local x = resin.randn(2, 6, 6, 3)
        local w = resin.randn(3, 3, 3, 4):require_grad()
        local events = resin.profile(function(factor)
            assert.equal(0, resin.profile_mark(5))
            local y = resin.conv2d(x, w, {padding = 1}) * factor
            assert.equal(5, resin.profile_mark(0))
            y:sum():backward()
        end, 2)
        local found = {}
        for _, event in ipairs(events) do
            found[#found + 1] = ("%s %s%s"):format(event.name, event.pass,
                event.method and " part" or "")
            assert.is_true(event.seconds > 0)
            assert.equal((event.name == "sum") and 0 or 5, event.mark)
        end
        assert.same({"conv2d forward part", "conv2d forward", "multiply forward", "sum forward",
            "sum backward", "multiply backward", "conv2d weights part", "conv2d backward"}, found)
        assert.equal(2 * 6 * 6 * 9 * 3 * 4, events[1].multiply_adds)
        assert.equal(4 * 2 * 6 * 6 * 4, events[2].bytes_written)
    end)

    it("has both backward passes of a convolution in one, where they run so", function()
        local x = resin.randn(64, 16, 16, 16):require_grad()
        local w = resin.randn(3, 3, 16, 16):require_grad()
        local y = resin.conv2d(x, w, {padding = 1}):sum()
        local found, multiply_adds = {}, 0
        for _, event in ipairs(resin.profile(function() y:backward() end)) do
            if event.method then
                found[#found + 1] = event.pass .. " " .. event.method
                multiply_adds = multiply_adds + event.multiply_adds
            end
        end
        assert.same({"backward winograd"}, found)
        assert.equal(2 * 64 * 16 * 16 * 9 * 16 * 16, multiply_adds)
    end)

    it("passes errors on and records nothing afterwards", function()
        assert.has_error(function() resin.profile(function() error("mine", 0) end) end, "mine")
        assert.same({}, resin.profile(function() end))
        assert.has_error(function() resin.profile(3) end)
    end)
end)

describe("the profile of a step", function()
    local one

    setup(function() one = step.new{model = "resnet20", mode = "train", batch = 2} end)

    it("has every layer with its method, and adds up", function()
        local p = profile.measure(one, 0)
        assert.equal(#one.model.plan.steps + 1, #p.rows) -- and the loss
        local convolutions, seconds = 0, 0
        for _, row in ipairs(p.rows) do
            seconds = seconds + row.forward + row.backward
            assert.is_true(row.forward > 0, row.name)
            if row.kind:find("^Conv2D") then
                convolutions = convolutions + 1
                assert.is_truthy(row.method ~= "" and row.multiply_adds > 0, row.name)
                assert.is_true(row.inner < row.forward + row.backward, row.name)
            end
        end
        assert.equal(19, convolutions)
        assert.equal("conv2d", p.rows[1].name)
        assert.equal("Conv2D 3x3 + norm + relu", p.rows[1].kind)
        assert.equal("32x32x16", p.rows[1].shape)
        assert.equal("loss", p.rows[#p.rows].name)
        -- Three passes, but for the image's gradient.
        local forward, of_first = 40551040, 32 * 32 * 9 * 3 * 16
        assert.equal(2 * (3 * forward - of_first), p.multiply_adds)
        assert.is_true(p.step > 0 and p.optimizer > 0 and p.optimizer < p.step)
        assert.is_true(seconds < 3 * p.step) -- medians of three steps
        local of_kinds = 0
        for _, kind in ipairs(p.kinds) do of_kinds = of_kinds + kind.seconds end
        assert.is_true(math.abs(of_kinds - seconds) < 1e-6)
    end)

    it("names layers inside of others, and inference", function()
        local p = profile.measure(step.new{model = "resnet18", mode = "infer", batch = 1,
            side = 32}, 0)
        assert.equal("layer1.0.conv2", p.rows[4].name)
        assert.equal("Conv2D 3x3 + norm + add + relu", p.rows[4].kind)
        assert.equal("Conv2D 7x7/2 + norm + relu", p.rows[1].kind)
        assert.equal(0, p.rows[1].backward)
        local text = profile.text(p, {fma_peak = 250, read = 20, copy = 15, handover = 90})
        for _, words in ipairs{"layer4.1.conv2", "MaxPooling2D 3x3/2", "multiply-add peak",
            "of the peak", "outside of ops", "GB/s", "share"} do
            assert.is_truthy(text:find(words, 1, true), words)
        end
    end)

    it("costs nothing in the numbers", function()
        local x = nn.input{8, 8, 3}
        local model = nn.model(x, nn.global_avg_pool(nn.conv2d{4, kernel = 3}(x)))
        local images = resin.randn(2, 8, 8, 3)
        local seen, plain = {}, model(images):totable()
        local events = resin.profile(function()
            local y = model(images, {observe = function(i)
                seen[#seen + 1] = i
                resin.profile_mark(i)
            end})
            assert.same(plain, y:totable())
        end)
        assert.same({1, 2}, seen)
        assert.equal(2, events[#events].mark)
    end)
end)

describe("bench.lua", function()
    it("prints the step by layer, and tables of scaling", function()
        local text, status = output_of(LUA .. " scripts/bench.lua --model resnet20 --batch 2 "
            .. "--threads 1 --seconds 0 --profile")
        assert.equal(0, status, text)
        assert.is_truthy(text:find("\nconv2d_18 ", 1, true))
        assert.is_truthy(text:find("\noptimizer ", 1, true))
        text, status = output_of(LUA .. " scripts/bench.lua --json --profile")
        assert.equal(1, status)
        assert.is_truthy(text:find("--json goes with neither", 1, true))
    end)

    it("says what memory does, in its line of JSON", function()
        local text = output_of(LUA .. " scripts/bench.lua --batch 1 --threads 1 --seconds 0 --json")
        local m = compare.parse(text)
        assert.is_true(m.memory_read_gbs > 0 and m.memory_copy_gbs > 0)
        assert.equal(269722, m.parameters)
        assert.equal("resnet20", m.model)
    end)

    it("scales over threads, batches and images", function()
        local before = resin.threads()
        local result = scaling.measure({model = "tutorial-resnext", mode = "infer", batch = 4,
            seconds = 0}, 2)
        resin.set_threads(before)
        local function column(rows, name)
            local list = {}
            for position, row in ipairs(rows) do list[position] = row[name] end
            return list
        end
        assert.same({1, 2}, column(result.threads, "threads"))
        assert.same({1, 2, 4, 8}, column(result.batches, "batch"))
        assert.same({16, 24, 32, 48}, column(result.sides, "side"))
        local text = scaling.text(result)
        assert.is_truthy(text:find("ms an image", 1, true))
        assert.is_truthy(text:find("48x48", 1, true))
    end)
end)

describe("the median", function()
    it("is the middle, or between the two", function()
        assert.equal(2, step.median{3, 1, 2})
        assert.equal(2.5, step.median{4, 1, 2, 3})
        assert.equal(7, step.median{7})
    end)
end)

-- Runs as they would be measured: three rounds of resin and of both layouts.
local function made_up(ours, nchw, nhwc)
    local runs = {resin = {}, nchw = {}, nhwc = {}}
    for round = 1, #ours do
        runs.resin[round] = {median_ms = ours[round], peak_rss_mb = 100, batch = 128,
            parameters = 7, effective_gflops = 200, fma_peak_gflops = 250, memory_read_gbs = 20,
            memory_copy_gbs = 15, handover_ns = 90, engine = "resin"}
        for name, times in pairs{nchw = nchw, nhwc = nhwc} do
            runs[name][round] = {median_ms = times[round], peak_rss_mb = 400, layout = name,
                engine = "torch 1.13.0", parameters = 7}
        end
    end
    return runs
end

describe("compare.lua", function()
    local settings = {threads = 2, rounds = 3, seconds = 5}

    it("takes the better layout and the median of the rounds' ratios", function()
        local result = compare.result(compare.rows[1],
            made_up({10, 20, 10}, {25, 40, 50}, {90, 90, 30}))
        assert.equal("nchw", result.torch.layout)
        assert.equal(40, result.torch.ms)
        assert.equal(10, result.resin.ms)
        assert.equal(2.5, result.torch.ratio.median) -- of 2.5, 2 and 5
        assert.equal(2, result.torch.ratio.low)
        assert.equal(5, result.torch.ratio.high)
        assert.equal(0.25, result.torch.memory_ratio)
    end)

    it("refuses networks that differ", function()
        local runs = made_up({1}, {1}, {1})
        runs.nhwc[1].parameters = 8
        assert.has_error(function() compare.result(compare.rows[1], runs) end,
            "resnet20: nhwc has 8 parameters, resin 7")
    end)

    it("writes a table, its numbers and a plot", function()
        local folder = os.tmpname()
        os.remove(folder)
        assert.is_true(files.make_folder(folder))
        local runs = made_up({10, 20, 10}, {25, 40, 50}, {90, 90, 30})
        runs.onnxruntime = {{median_ms = 15, peak_rss_mb = 50}, {median_ms = 30, peak_rss_mb = 50},
            {median_ms = 15, peak_rss_mb = 50}}
        compare.write(folder, {compare.result(compare.rows[1], runs)}, settings)
        local function read(kind)
            local file <close> = assert(io.open(folder .. "/compare." .. kind))
            return file:read("a")
        end
        local markdown, csv, svg = read("md"), read("csv"), read("svg")
        os.execute("rm -r " .. folder)
        assert.is_truthy(markdown:find("| resnet20 | 128 | 10.0 | 40.0 (NCHW) | 2.50 x | 2.00 to "
            .. "5.00 | 2.50 x | 4.00 x | 100 | 400 | 0.25 | 0.60 | 200 | 0.80 |", 1, true))
        assert.is_truthy(markdown:find("| resnet20 | 10.0 | 15.0 | 1.50 x |", 1, true))
        assert.is_truthy(csv:find("\nresnet20,resnet20,train,128,10,40,nchw,2.5,2,5,2.5,4,100,400,"
            .. "0.25,0.6,200,250,20,15,90,15,1.5\n", 1, true))
        assert.equal(select(2, csv:match("^[^\n]*"):gsub(",", "")),
            select(2, csv:match("\n([^\n]*)"):gsub(",", "")))
        assert.is_truthy(svg:find("resnet20, batch 128", 1, true))
        assert.is_truthy(svg:find(">2.50 x<", 1, true))
        assert.is_nil(svg:find("nan"))
    end)

    it("chooses rows and reads lines of JSON", function()
        assert.equal(11, #compare.choose(nil))
        local two = compare.choose("vgg16, infer-resnet50")
        assert.same({"vgg16", "infer-resnet50"}, {two[1].name, two[2].name})
        assert.has_error(function() compare.choose("resnet19") end,
            "--rows: there is no row 'resnet19'")
        assert.same({a = 1.5, b = "x y", c = -2}, compare.parse('noise {\n{"a": 1.5, "b": "x y", '
            .. '"c": -2}\n'))
        assert.is_nil(compare.parse("Traceback"))
    end)

    it("runs both in turn", function()
        if not has_torch() then
            pending("python3-torch and python3-torchvision are not installed")
            return
        end
        local folder = os.tmpname()
        os.remove(folder)
        local text, status = output_of(LUA .. " scripts/compare.lua --rows infer-resnet18 "
            .. "--rounds 1 --seconds 0 --threads 1 --python " .. PYTHON .. " --out " .. folder)
        os.execute("rm -r " .. folder)
        assert.equal(0, status, text)
        assert.is_truthy(text:find("infer%-resnet18, round 1: resin [%d.]+ ms, "
            .. "PyTorch nchw [%d.]+ ms, PyTorch nhwc [%d.]+ ms\n"), text)
        assert.is_truthy(text:find("| infer-resnet18 | 1 |", 1, true), text)
    end)

    it("says what failed", function()
        local text, status = output_of(LUA .. " scripts/compare.lua --rows resnet19 --python true "
            .. "--out " .. os.tmpname() .. ".folder")
        assert.equal(1, status)
        assert.is_truthy(text:find("no row 'resnet19'", 1, true))
    end)
end)

describe("PyTorch's networks", function()
    it("have as many parameters as ours", function()
        if not has_torch() then
            pending("python3-torch and python3-torchvision are not installed")
            return
        end
        local text, status = output_of(PYTHON .. " -c \"import sys, json; "
            .. "sys.path.insert(0, 'scripts/peers'); import torch_bench as t; "
            .. "print(json.dumps({n: sum(p.numel() for p in m[0]().parameters()) "
            .. "for n, m in t.NETWORKS.items() if n != 'vgg16'}))\"")
        assert.equal(0, status, text)
        local count = 0
        for name, parameters in text:gmatch('"([%w-]+)": (%d+)') do
            local _, trainable = resin.models.bench[name].make():count()
            assert.equal(trainable, math.tointeger(parameters), name)
            count = count + 1
        end
        assert.equal(8, count)
    end)
end)
