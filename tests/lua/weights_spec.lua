-- Weights from elsewhere: files by PyTorch's and Keras' names and layouts, what is said of those
-- that do not fit, and scripts/convert_pth.py.
local resin = require "resin"
local core = require "resin.core"
local nn, models = resin.nn, resin.models
local initializers = nn.initializers

-- A file as a table {name = {shape =, dtype = (in the file), values =}}.
local function read_file(path)
    local file, contents = core.safetensors_open(path), {}
    for _, name in ipairs(file:names()) do
        local tensor = file:load(name)
        local _, stored = file:dtype(name)
        contents[name] = {
            shape = file:shape(name), dtype = stored,
            values = tensor:reshape{tensor:count()}:totable(),
        }
    end
    file:close()
    return contents
end

-- Names, shapes and values of two files, without making tables of millions of numbers.
local function assert_same_tensors(path, other_path)
    local one, other = core.safetensors_open(path), core.safetensors_open(other_path)
    local names, other_names = one:names(), other:names()
    table.sort(names)
    table.sort(other_names)
    assert.same(names, other_names)
    for _, name in ipairs(names) do
        local a <close> = one:load(name)
        local b <close> = other:load(name)
        assert.same(a:shape(), b:shape())
        assert.same({one:dtype(name)}, {other:dtype(name)})
        assert.equal(0, a:count() > 0 and a:not_equal(b):sum():item() or 0, name)
    end
    one:close()
    other:close()
end

local function sorted_names(contents)
    local names = {}
    for name in pairs(contents) do names[#names + 1] = name end
    table.sort(names)
    return names
end

local function largest_difference(a, b) return (a - b):abs():max():item() end

local function assert_fails(f, ...)
    local ok, message = pcall(f)
    assert.is_false(ok)
    for _, part in ipairs{...} do
        assert(message:find(part, 1, true), ("%q is not in: %s"):format(part, message))
    end
end

-- Convolution, batch norm, and a dense layer on a flattened image of 2 x 3 x 4.
local function small_model(options)
    options = options or {}
    resin.seed(options.seed or 1)
    local x = nn.input{4, 5, 2}
    local y = nn.conv2d{4, kernel = 3, bias = false, name = "conv1"}(x)
    y = nn.relu(nn.batch_norm{name = "bn1"}(y))
    y = nn.dropout(0.1)(nn.flatten(y))
    return nn.model(x, nn.dense{options.classes or 3, name = "fc"}(y))
end

describe("weights by torchvision's naming", function()
    local path, copy
    before_each(function() path, copy = os.tmpname(), os.tmpname() end)
    after_each(function()
        os.remove(path)
        os.remove(copy)
    end)

    it("are written with PyTorch's names and layouts", function()
        local model = small_model()
        model:save(path, {naming = "torchvision", note = "hello"})
        local file = read_file(path)
        assert.same({"bn1.bias", "bn1.num_batches_tracked", "bn1.running_mean", "bn1.running_var",
            "bn1.weight", "conv1.weight", "fc.bias", "fc.weight"}, sorted_names(file))
        local conv, own = file["conv1.weight"], model:get_layer("conv1").weights
        assert.same({4, 2, 3, 3}, conv.shape)
        local position = 0
        for o = 1, 4 do for i = 1, 2 do for h = 1, 3 do for w = 1, 3 do
            position = position + 1
            assert.equal(own[{h, w, i, o}]:item(), conv.values[position])
        end end end end
        -- The flattened image is counted (channel, row, column) there, (row, column, channel) here.
        local dense, weights = file["fc.weight"], model:get_layer("fc").weights
        assert.same({3, 24}, dense.shape)
        position = 0
        for unit = 1, 3 do for c = 1, 4 do for h = 1, 2 do for w = 1, 3 do
            position = position + 1
            local feature = ((h - 1) * 3 + w - 1) * 4 + c
            assert.equal(weights[{feature, unit}]:item(), dense.values[position])
        end end end end
        assert.same({shape = {}, dtype = "I64", values = {0}}, file["bn1.num_batches_tracked"])
        local _, metadata = model:load(path, {naming = "torchvision"})
        assert.equal("pt", metadata.format)
        assert.equal("hello", metadata.note)
    end)

    it("come back as they were", function()
        local model, other = small_model(), small_model{seed = 2}
        local images = resin.rand(3, 4, 5, 2)
        model(images, {training = true})
        rawset(model:get_layer("bn1"), "batches_tracked", 12)
        model:save(path, {naming = "torchvision"})
        local report = other:load(path, {naming = "torchvision"})
        assert.equal(8, #report.loaded)
        assert.equal(0, largest_difference(model(images), other(images)))
        other:save(copy, {naming = "torchvision"})
        assert_same_tensors(path, copy)
        assert.same({12}, read_file(copy)["bn1.num_batches_tracked"].values)
    end)

    it("may lack num_batches_tracked, as files of old do", function()
        local model = small_model()
        model:save(path, {naming = "torchvision"})
        local tensors, file = {}, core.safetensors_open(path)
        for _, name in ipairs(file:names()) do
            if not name:find("num_batches") then tensors[#tensors + 1] = {name, file:load(name)} end
        end
        file:close()
        core.safetensors_write(copy, tensors)
        assert.equal(7, #small_model{seed = 2}:load(copy, {naming = "torchvision"}).loaded)
    end)

    it("see an image through layers, models and batch norms between flatten and dense", function()
        resin.seed(3)
        local x = nn.input{2, 3, 2}
        local features = nn.model(x, nn.flatten(nn.relu(x)), {name = "features"})
        local z = nn.input{2, 3, 2}
        local y = nn.batch_norm{name = "norm"}(nn.relu(features(z)))
        local head = nn.sequential{
            nn.dropout(0.5), nn.dense{4, name = "one"}, nn.dense{2, name = "two"}, name = "head",
        }
        local model = nn.model(z, head(y))
        local weights = head:children()[2][2].weights
        model:get_layer("norm").gamma:detach():copy_(resin.arange(1, 12, 1, "float32"))
        model:save(path, {naming = "torchvision"})
        local file = read_file(path)
        local position = 0
        for c = 1, 2 do for h = 1, 2 do for w = 1, 3 do
            position = position + 1
            local feature = ((h - 1) * 3 + w - 1) * 2 + c
            assert.equal(weights[{feature, 1}]:item(), file["head.one.weight"].values[position])
            assert.equal(feature, file["norm.weight"].values[position])
        end end end
        assert.same({2, 4}, file["head.two.weight"].shape) -- of a vector, not of an image
        assert.equal(head:children()[3][2].weights[{3, 1}]:item(),
            file["head.two.weight"].values[3])
    end)

    it("keep transposed convolutions as PyTorch has them: (in, out / groups, h, w)", function()
        local x = nn.input{4, 4, 6}
        local up = nn.conv2d_transpose{4, kernel = {2, 3}, groups = 2, name = "up"}
        local model = nn.model(x, up(x))
        model:save(path, {naming = "torchvision"})
        local file = read_file(path)
        assert.same({6, 2, 2, 3}, file["up.weight"].shape)
        assert.equal(model:get_layer("up").weights[{2, 1, 2, 5}]:item(),
            file["up.weight"].values[(((5 - 1) * 2 + 2 - 1) * 2 + 2 - 1) * 3 + 1])
    end)

    it("are taken from float16, bfloat16 and float64", function()
        local x = nn.input{2}
        local model = nn.model(x, nn.dense{1, name = "fc"}(x))
        for _, case in ipairs{
            {"F16", string.pack("<I2I2", 0x3800, 0xC100)},    -- 0.5, -2.5
            {"BF16", string.pack("<I2I2", 0x3F00, 0xC020)},
            {"F64", string.pack("<dd", 0.5, -2.5)},
        } do
            local dtype, bytes = table.unpack(case)
            local size = #bytes // 2
            local header = ('{"fc.weight":{"dtype":"%s","shape":[1,2],"data_offsets":[0,%d]},'
                .. '"fc.bias":{"dtype":"%s","shape":[1],"data_offsets":[%d,%d]}}'):format(dtype,
                2 * size, dtype, 2 * size, 3 * size)
            local file = assert(io.open(path, "wb"))
            file:write(string.pack("<I8", #header), header, bytes, bytes:sub(1, size))
            file:close()
            model:load(path, {naming = "torchvision"})
            assert.same({{0.5}, {-2.5}}, model:get_layer("fc").weights:totable())
            assert.same({0.5}, model:get_layer("fc").bias:totable())
        end
    end)
end)

describe("weights that do not fit", function()
    local path
    before_each(function() path = os.tmpname() end)
    after_each(function() os.remove(path) end)

    local function write(changes)
        local model = small_model()
        model:save(path, {naming = "torchvision"})
        local tensors, file = {}, core.safetensors_open(path)
        for _, name in ipairs(file:names()) do
            local tensor = changes[name]
            if tensor == nil then tensor = file:load(name) end
            if tensor then tensors[#tensors + 1] = {name, tensor} end
        end
        file:close()
        for name, tensor in pairs(changes) do
            if name:find("^extra") then tensors[#tensors + 1] = {name, tensor} end
        end
        core.safetensors_write(path, tensors)
    end

    it("are listed by the file's names, and nothing has been loaded", function()
        write{["bn1.weight"] = false, ["extra.weight"] = resin.zeros(2),
            ["fc.weight"] = resin.zeros(5, 24)}
        local model = small_model{seed = 2}
        local before = model:get_layer("conv1").weights:clone()
        local load = function() model:load(path, {naming = "torchvision"}) end
        assert_fails(load, path, "missing in the file (1):\n  bn1.weight",
            "in the file, but not in the model (1):\n  extra.weight",
            "fc.weight: the file has {5, 24}, the model {3, 24}")
        assert.equal(0, largest_difference(before, model:get_layer("conv1").weights))
        local report = model:load(path, {naming = "torchvision", strict = false})
        assert.same({"bn1.weight"}, report.missing)
        assert.same({"extra.weight"}, report.surplus)
        assert.equal(1, #report.mismatched)
        assert.equal(6, #report.loaded)
        assert.is_true(largest_difference(before, model:get_layer("conv1").weights) > 0)
    end)

    it("may be left out by a pattern, as another number of classes is", function()
        write{}
        local model = small_model{classes = 5, seed = 2}
        local before = model:get_layer("fc").weights:clone()
        assert_fails(function() model:load(path, {naming = "torchvision"}) end, "fc.weight",
            "fc.bias")
        local report = model:load(path, {naming = "torchvision", except = "^fc%."})
        assert.equal(6, #report.loaded)
        assert.same({}, report.mismatched)
        assert.equal(0, largest_difference(before, model:get_layer("fc").weights))
    end)

    it("of integers are no weights, and of two numbers no count", function()
        write{["fc.bias"] = resin.zeros({3}, "int64")}
        assert_fails(function() small_model():load(path, {naming = "torchvision"}) end,
            "fc.bias: the file has I64, the model float32")
        write{["bn1.num_batches_tracked"] = resin.zeros({2}, "int64")}
        assert_fails(function() small_model():load(path, {naming = "torchvision"}) end,
            "bn1.num_batches_tracked")
    end)

    it("are an error if none fits, strict or not", function()
        core.safetensors_write(path, {{"a", resin.zeros(2)}})
        assert_fails(function() small_model():load(path, {strict = false}) end, "conv1/weights",
            "  a")
    end)

    it("get a hint at the naming that fits", function()
        write{}
        assert_fails(function() small_model():load(path) end, 'naming = "torchvision"', "8 of its")
        assert_fails(function() small_model():load(path, {naming = "pytorch"}) end,
            'unknown naming "pytorch"', "resin, torchvision and keras")
        assert_fails(function() small_model():save(path, {naming = "pytorch"}) end,
            "unknown naming")
        assert_fails(function() small_model():load(path, {name = "resin"}) end,
            'unknown option "name"')
    end)

    it("cannot be named where one layer is two", function()
        local x = nn.input{4, 4, 2}
        local model = nn.model(x, nn.conv_bn_act{3, kernel = 1, name = "unit"}(x))
        assert_fails(function() model:save(path, {naming = "torchvision"}) end, "unit.weight")
    end)
end)

-- Where values do not matter, millions of random numbers may be zeros.
local DRAWING = {"kaiming_normal", "kaiming_normal_fan_out", "normal", "pytorch", "glorot_uniform"}

describe("with the ready-made networks", function()
    local drawn, path = {}, nil

    setup(function()
        for _, name in ipairs(DRAWING) do
            drawn[name], initializers[name] = initializers[name], initializers.zeros
        end
    end)
    teardown(function()
        for _, name in ipairs(DRAWING) do initializers[name] = drawn[name] end
    end)
    before_each(function() path = os.tmpname() end)
    after_each(function()
        os.remove(path)
        collectgarbage()
    end)

    local TRAINABLE = {
        resnext101_32x8d = 88791336, resnext101_64x4d = 83455272, wide_resnet50_2 = 68883240,
        wide_resnet101_2 = 126886696, vgg13_bn = 133053736,
    }
    for name, expected in pairs(TRAINABLE) do
        it(("%s has %d trainable parameters"):format(name, expected), function()
            local _, trainable = models[name]{input = {64, 64, 3}}:count()
            assert.equal(expected, trainable)
        end)
    end

    it("torchvision's names are found in ResNet-18", function()
        models.resnet18{input = {32, 32, 3}}:save(path, {naming = "torchvision"})
        local file = core.safetensors_open(path)
        assert.equal(122, #file:names()) -- as PyTorch counts them in its state_dict
        for name, sizes in pairs{
            ["conv1.weight"] = {64, 3, 7, 7}, ["bn1.running_var"] = {64},
            ["layer2.0.downsample.0.weight"] = {128, 64, 1, 1},
            ["layer2.0.downsample.1.num_batches_tracked"] = {}, ["fc.weight"] = {1000, 512},
        } do
            assert.same(sizes, file:shape(name))
        end
        file:close()
    end)

    local KERAS = {
        v1 = {318, "conv1_conv/kernel", "conv1_bn/moving_mean", "conv2_block1_0_conv/bias",
            "conv2_block1_3_bn/gamma", "conv5_block3_2_conv/kernel", "predictions/kernel"},
        v2 = {270, "conv1_conv/bias", "conv2_block1_preact_bn/beta", "conv2_block1_0_conv/bias",
            "conv3_block4_1_conv/kernel", "conv5_block3_2_bn/moving_variance", "post_bn/gamma",
            "predictions/bias"},
    }
    for version, names in pairs(KERAS) do
        it(("Keras' names are found in ResNet-50 %s"):format(version), function()
            local model = models.resnet{50, version = version, input = {32, 32, 3}, classes = 4}
            model:save(path, {naming = "keras"})
            local file = core.safetensors_open(path)
            assert.equal(names[1] + 2, #file:names())
            for position = 2, #names do
                assert.is_true(file:has(names[position]), names[position])
            end
            file:close()
            assert.equal(names[1] + 2, #model:load(path, {naming = "keras"}).loaded)
        end)
    end
end)

describe("weights by Keras' naming", function()
    local path, copy
    before_each(function() path, copy = os.tmpname(), os.tmpname() end)
    after_each(function()
        os.remove(path)
        os.remove(copy)
    end)

    it("come back as they were, also with :0 and with a layer's name twice", function()
        local model, other = small_model(), small_model{seed = 2}
        local images = resin.rand(3, 4, 5, 2)
        model(images, {training = true})
        model:save(path, {naming = "keras"})
        local contents = read_file(path)
        assert.same({"bn1/beta", "bn1/gamma", "bn1/moving_mean", "bn1/moving_variance",
            "conv1/kernel", "fc/bias", "fc/kernel"}, sorted_names(contents))
        assert.same({3, 3, 2, 4}, contents["conv1/kernel"].shape)
        assert.same({24, 3}, contents["fc/kernel"].shape)

        local tensors, file = {}, core.safetensors_open(path)
        for position, name in ipairs(file:names()) do
            local layer = name:match("^[^/]*")
            local given = position % 2 == 0 and layer .. "/" .. name .. ":0" or name .. ":0"
            tensors[position] = {given, file:load(name)}
        end
        core.safetensors_write(copy, tensors)
        other:load(copy, {naming = "keras"})
        assert.equal(0, largest_difference(model(images), other(images)))
        other:save(copy, {naming = "keras"})
        assert_same_tensors(path, copy)

        tensors[#tensors + 1] = {"fc/bias", file:load("fc/bias")}
        file:close()
        core.safetensors_write(copy, tensors)
        assert_fails(function() other:load(copy, {naming = "keras"}) end, "fc/bias")
    end)
end)

describe("adaptive average pooling", function()
    -- By its definition, one window after the other.
    local function by_hand(x, height, width)
        local _, h, w = table.unpack(x:shape())
        local function window(i, size, count)
            return (i - 1) * count // size + 1, (i * count + size - 1) // size
        end
        local rows = {}
        for i = 1, height do
            local top, bottom = window(i, height, h)
            local row = {}
            for j = 1, width do
                local left, right = window(j, width, w)
                row[j] = x[{{}, {top, bottom}, {left, right}}]:mean{axes = {2, 3}}
            end
            rows[i] = resin.stack(row, {axis = 2})
        end
        return resin.stack(rows, {axis = 2})
    end

    for _, case in ipairs{
        {5, 3, {2, 2}}, {2, 3, {7, 7}}, {14, 14, {7, 7}}, {7, 7, {7, 7}}, {8, 5, {4, 3}},
        {1, 1, {3, 2}},
    } do
        local h, w, size = table.unpack(case)
        it(("of %dx%d to %dx%d"):format(h, w, size[1], size[2]), function()
            resin.seed(1)
            local layer = nn.adaptive_avg_pool2d{size}
            local x = resin.randn({2, h, w, 3}, "float64"):require_grad()
            local z = x:detach():clone():require_grad()
            local weights = resin.randn({2, size[1], size[2], 3}, "float64")
            local y, expected = layer(x), by_hand(z, size[1], size[2])
            assert.same({2, size[1], size[2], 3}, y:shape())
            assert.is_true(largest_difference(y:detach(), expected:detach()) < 1e-14)
            y:backward(weights)
            expected:backward(weights)
            assert.is_true(largest_difference(x.grad, z.grad) < 1e-14)
            local node = layer(nn.input{h, w, 3})
            assert.same({size[1], size[2], 3}, node:shape())
        end)
    end
end)

---- PyTorch itself -----------------------------------------------------------------------------

-- Found without importing it, which takes seconds.
local function find_python()
    local look = [[ -c 'import sys, importlib.util as u;
sys.exit(not (u.find_spec("torch") and u.find_spec("torchvision")))' >/dev/null 2>&1]]
    for _, python in ipairs{"python3", "/usr/bin/python3"} do
        if os.execute(python .. look) then return python end
    end
end

describe("scripts/convert_pth.py", function()
    local folder, output
    local python = find_python()

    setup(function()
        if not python then return end
        folder = os.tmpname()
        os.remove(folder)
        assert(os.execute("mkdir " .. folder))
        local pipe = assert(io.popen(("PYTHONDONTWRITEBYTECODE=1 %s %s %s 2>&1"):format(python,
            "tests/fixtures/convert_checkpoints.py", folder)))
        output = pipe:read("a")
        pipe:close()
    end)
    teardown(function()
        if folder then os.execute("rm -r " .. folder) end
    end)

    local function check(title, f)
        it(title, function()
            if not python then
                pending("there is no python3 with torchvision (Debian: python3-torchvision)")
                return
            end
            f()
        end)
    end

    check("makes files that give torchvision's logits and come back as they were", function()
        local file, copy = folder .. "/wrapped.safetensors", folder .. "/copy.safetensors"
        local model = models.resnet18{classes = 7, input = {64, 64, 3}}
        model:load(file, {naming = "torchvision"})
        local images = core.read_npy(folder .. "/images.npy")
        local expected = core.read_npy(folder .. "/logits.npy")
        local off = largest_difference(model(images), expected)
        assert(off <= 1e-4 * expected:abs():max():item(), "off by " .. off)
        model:save(copy, {naming = "torchvision"})
        assert_same_tensors(file, copy)
    end)

    check("keeps numbers of all kinds, and says what it leaves out", function()
        local kinds = read_file(folder .. "/kinds.safetensors")
        assert.same({
            half = {shape = {2}, dtype = "F16", values = {0.5, -2}},
            brain = {shape = {2}, dtype = "BF16", values = {1.5, 3}},
            double = {shape = {1}, dtype = "F64", values = {0.1}},
            view = {shape = {3, 2}, dtype = "F32", values = {0, 3, 1, 4, 2, 5}},
            scalar = {shape = {}, dtype = "I64", values = {7}},
            empty = {shape = {0, 4}, dtype = "F32", values = {}},
        }, kinds)
        assert.truthy(output:find("cannot hold them: name", 1, true), output)
    end)

    check("finds the tensors where --key says, and says where it looked", function()
        assert.same({1, 1}, read_file(folder .. "/keyed.safetensors").w.values)
        assert.truthy(output:find("none: .*%-%-key.*ema"), output)
    end)

    check("runs no code from the file", function()
        assert.truthy(output:find("code: .*%-%-trust"), output)
        assert.is_nil(io.open(folder .. "/code.safetensors"))
        assert.is_nil(io.open(folder .. "/code-ran"))
    end)
end)

describe("saving", function()
    it("removes what killed processes have left of earlier attempts", function()
        local function output_of(command)
            local pipe = assert(io.popen(command))
            local output = pipe:read "l"
            pipe:close()
            return output
        end
        local folder = output_of "mktemp -d"
        local path = folder .. "/weights.safetensors"
        local dead, alive = output_of "echo $$", output_of "echo $PPID" -- the second: this one
        local function leave(name, age)
            os.execute(("touch -d '%d seconds ago' '%s/%s'"):format(age, folder, name))
        end
        leave("weights.safetensors." .. dead .. "-0.tmp", 200)
        leave("weights.safetensors." .. dead .. "-1.tmp", 0)
        leave("weights.safetensors." .. alive .. "-0.tmp", 200)
        leave("weights.safetensors." .. dead .. ".tmp", 200)
        leave("other.safetensors." .. dead .. "-0.tmp", 200)
        local x = nn.input{2}
        nn.model(x, nn.dense{3}(x)):save(path)
        local left = {}
        for name in io.popen("ls " .. folder):lines() do left[#left + 1] = name end
        os.execute("rm -r " .. folder)
        table.sort(left)
        local expected = {"other.safetensors." .. dead .. "-0.tmp", "weights.safetensors",
            "weights.safetensors." .. alive .. "-0.tmp", "weights.safetensors." .. dead .. "-1.tmp",
            "weights.safetensors." .. dead .. ".tmp"}
        table.sort(expected)
        assert.same(expected, left)
    end)
end)
