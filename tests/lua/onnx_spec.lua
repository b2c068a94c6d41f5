-- ONNX export: every layer and every ready-made network. tests/onnx/check.py (onnx.checker) and
-- tests/onnx/run.js (onnxruntime) judge the files where their tools are there; their structure is
-- read here in any case.
local resin = require "resin"
local converters = require("resin.onnx.layers").converters
local nn, models = resin.nn, resin.models

-- Differences of outputs, relative to the largest output or 1.
local TOLERANCE = 1e-4

---- Tools --------------------------------------------------------------------------------------

local function output_of(command)
    local pipe = io.popen(command .. " 2>/dev/null")
    local text = pipe:read("a")
    return pipe:close() and text
end

-- The first of several commands that succeeds.
local function first_working(commands)
    for _, command in ipairs(commands) do
        if output_of(command[1]) then return command[2] end
    end
end

local python = first_working{
    {"python3 -c 'import onnx'", "python3"},
    {"/usr/bin/python3 -c 'import onnx'", "/usr/bin/python3"},
}
local node = first_working{{
    "node -e \"require(require.resolve('onnxruntime-node',"
        .. " {paths: [process.env.RESIN_ONNXRUNTIME || process.cwd()]}))\"", "node",
}}

local folder = os.tmpname()
os.remove(folder)
os.execute("mkdir " .. folder)

---- Cases --------------------------------------------------------------------------------------

-- Running statistics, scales and shifts that are not those of a new layer.
local function disturb(model)
    for _, entry in ipairs(model:variables()) do
        local shape = entry.tensor:shape()
        if #shape == 1 then
            local values = entry.name:find("variance") and resin.uniform(shape, 0.5, 1.5)
                or entry.name:find("gamma") and resin.uniform(shape, 0.7, 1.3)
                or resin.uniform(shape, -0.3, 0.3)
            entry.tensor:detach():copy_(values)
        end
    end
end

local cases = {}

-- inputs: shapes with the batch. Values are in [0, largest).
local function case(name, make, inputs, largest, dtype)
    cases[#cases + 1] = {
        name = name, make = make, inputs = inputs, largest = largest or 1,
        dtype = dtype or "float32",
    }
end

-- A model of one layer (or a function of the input) on an image.
local function layer_case(name, layer, sizes)
    sizes = sizes or {9, 8, 4}
    case(name, function()
        local x = nn.input(sizes)
        return nn.model(x, layer(x))
    end, {{2, table.unpack(sizes)}})
end

for name, options in pairs{
    valid = {6, kernel = 3}, same = {6, kernel = 3, padding = "same"},
    strided_same = {6, kernel = 3, stride = 2, padding = "same"},
    even_kernel_same = {6, kernel = {4, 2}, stride = {3, 2}, padding = "same"},
    asymmetric = {6, kernel = 3, padding = {0, 1, 2, 3}, bias = false},
    dilated = {6, kernel = 3, dilation = {2, 1}, padding = "same"},
    dilated_grouped = {6, kernel = 3, dilation = 2, groups = 2, padding = 2, stride = 2},
    depthwise = {8, kernel = 3, groups = 4, activation = "relu"},
    one = {6, kernel = 1, activation = "elu"},
} do
    layer_case("conv2d " .. name, nn.conv2d(options))
end

for name, options in pairs{
    valid = {6, kernel = 3, stride = 2}, same = {6, kernel = 3, stride = 2, padding = "same"},
    wide_stride = {6, kernel = 2, stride = 3, padding = "same"},
    grouped = {6, kernel = 3, stride = {2, 1}, groups = 2, padding = {1, 0, 1, 1},
        activation = "tanh"},
    dilated = {4, kernel = 3, dilation = 2, bias = false, padding = 1},
} do
    layer_case("conv2d_transpose " .. name, nn.conv2d_transpose(options))
end

for name, options in pairs{
    plain = {2}, same = {kernel = 3, stride = 2, padding = "same"},
    asymmetric = {kernel = 3, stride = 2, padding = {1, 0, 0, 2}},
    ceil = {kernel = 2, stride = 2, ceil = true},
    ceil_padded = {kernel = 3, stride = 2, padding = 1, ceil = true},
    ceil_wide = {kernel = 2, stride = 3, padding = 1, ceil = true},
} do
    layer_case("max_pool2d " .. name, nn.max_pool2d(options))
    layer_case("avg_pool2d " .. name, nn.avg_pool2d(options))
    options.count_padding = true
    layer_case("avg_pool2d counting padding, " .. name, nn.avg_pool2d(options))
end
layer_case("adaptive_avg_pool2d of whole windows", nn.adaptive_avg_pool2d{{3, 4}})
layer_case("adaptive_avg_pool2d", nn.adaptive_avg_pool2d{{4, 3}})
layer_case("adaptive_avg_pool2d that enlarges", nn.adaptive_avg_pool2d{11})
layer_case("global_avg_pool", nn.global_avg_pool())
layer_case("global_max_pool", nn.global_max_pool())
layer_case("zero_pad2d", nn.zero_pad2d{{1, 2, 3, 0}})
-- Zeros that win over negative values, and what is beside them must not.
for name, options in pairs{plain = {3}, padded = {kernel = 3, stride = 2, padding = {1, 1, 0, 2}}} do
    for _, kind in ipairs{"max_pool2d", "avg_pool2d"} do
        layer_case(("zeros before %s, %s"):format(kind, name), function(x)
            x = nn.zero_pad2d{{0, 3, 4, 0}}(nn.rescale{1, offset = -2}(x))
            return nn[kind](options)(x)
        end)
    end
end

layer_case("batch_norm", nn.batch_norm())
layer_case("batch_norm of vectors", nn.batch_norm{rule = "pytorch"}, {7})
layer_case("batch_norm of rank 3", nn.batch_norm(), {5, 7})
layer_case("batch_norm without scale", nn.batch_norm{scale = false, center = false})
layer_case("conv_bn_act", nn.conv_bn_act{6, kernel = 3, stride = 2, padding = "same"})
layer_case("conv_bn_act with shortcut", function(x)
    return nn.conv_bn_act{4, kernel = 3, padding = 1, bias = true}{x, x}
end)

for _, kind in ipairs{"relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid",
    "tanh", "softplus", "softmax", "log_softmax"} do
    -- Values of all sizes, in both layouts.
    layer_case(kind, function(x)
        x = nn.rescale{8, offset = -4}(x)
        return nn.concatenate{nn[kind](x), nn[kind](nn.conv2d{4, kernel = 1}(x))}
    end)
end
layer_case("activations with alpha", function(x)
    x = nn.rescale{2, offset = -1}(x)
    return nn.add{nn.elu{0.3}(x), nn.leaky_relu{0.2}(x), nn.activation{"linear"}(x)}
end)

layer_case("dense", nn.dense{5, activation = "softmax"}, {7})
layer_case("dense without bias", nn.dense{5, bias = false}, {7})
layer_case("dense on images", nn.dense{5, activation = "softmax"})
layer_case("dense on a convolution's image", function(x)
    return nn.dense{5, activation = "log_softmax"}(nn.conv2d{3, kernel = 3}(x))
end)
layer_case("flatten and dense", function(x)
    return nn.dense(5)(nn.flatten(nn.conv2d{3, kernel = 3}(x)))
end)
layer_case("reshape", function(x)
    local y = nn.reshape{4, 3, 8}(nn.conv2d{2, kernel = 3, padding = {1, 0, 0, 0}}(x))
    return nn.conv2d{3, kernel = 2}(y)
end)
layer_case("dropout", function(x) return nn.dropout(0.5)(nn.relu(nn.dropout(0.5)(x))) end)
layer_case("the input itself", nn.dropout(0.5))

layer_case("add and multiply", function(x)
    local y = nn.conv2d{4, kernel = 3, padding = "same"}(x)
    local weights = nn.reshape{1, 1, 4}(nn.global_avg_pool(y))
    return nn.add{x, y, y * weights, 2 * x} + nn.multiply{y, weights, x}
end)
layer_case("concatenate along height and width", function(x)
    local y = nn.conv2d{4, kernel = 3, padding = "same"}(x)
    return nn.concatenate{nn.concatenate{x, y, axis = 2}, nn.concatenate{y, y, axis = 2}, axis = -2}
end)
layer_case("identity_shortcut", nn.identity_shortcut{9, stride = 2})
layer_case("identity_shortcut without zeros", nn.identity_shortcut{4, stride = 3})
layer_case("identity_shortcut without stride", nn.identity_shortcut{6})

case("bytes", function()
    local x = nn.input{shape = {8, 8, 3}, dtype = "uint8"}
    return nn.model(x, nn.conv2d{3, kernel = 3}(nn.rescale{1 / 255, offset = -0.5}(x)))
end, {{2, 8, 8, 3}}, 255, "uint8")

case("a layer used twice, inputs and outputs by name", function()
    local a, b = nn.input{shape = {8, 8, 3}, name = "left"}, nn.input{8, 8, 3}
    local shared = nn.conv2d{4, kernel = 3, name = "shared"}
    local one, other = shared(a), shared(b)
    return nn.model({a, b}, {nn.relu(one), nn.add{one, other}, one, a})
end, {{2, 8, 8, 3}, {2, 8, 8, 3}})

-- A layer of one's own whose layers are always the same, in a sequential inside of a model.
local Block = nn.layer("Block")
Block.static = true
function Block:build() self.conv, self.norm = nn.conv2d{4, kernel = 1}, nn.batch_norm() end
function Block:call(x) return nn.relu()(self.norm(self.conv(x)) + x) end

case("models and layers inside of a model", function()
    local x, z = nn.input{6, 6, 4}, nn.input{6, 6, 4}
    local block = Block{}
    local inner = nn.model(z, nn.sequential{block, nn.relu(), block}(z))
    return nn.model(x, inner(nn.elu()(inner(x))))
end, {{2, 6, 6, 4}})

-- Ready-made networks in sizes that take no time.
for _, one in ipairs{
    {"cifar_resnet", {depth = 8, width = 4, input = {16, 16, 3}}},
    {"cifar_resnet", {depth = 8, width = 4, input = {15, 16, 3}, shortcut = "projection",
        activation = "elu"}},
    {"tutorial_resnet", {width = 4, input = {32, 32, 3}, stride = 2}},
    {"tutorial_resnext", {filters = 4, cardinality = 3, input = {8, 8, 3}}},
    {"class_resnet", {blocks = 2, filters = 4, input = {16, 16, 3}, block_stride = 2,
        projection = true}},
    {"plain_cnn", {input = {32, 32, 3}, classes = 5}, 255},
    {"resnet18", {classes = 10, input = {33, 32, 3}}},
    {"resnet", {depth = 50, version = "v1", width = 4, classes = 10, input = {65, 64, 3}}},
    {"resnet", {depth = 50, version = "v2", width = 4, classes = 10, input = {65, 64, 3},
        activation = "gelu"}},
    {"resnet", {depth = 18, version = "v2", width = 4, input = {64, 64, 3}, top = false}},
    {"resnext", {depth = 29, cardinality = 2, width = 4, blocks = {1, 1, 1}, input = {16, 16, 3}}},
    {"wide_resnet", {depth = 10, widen = 1, dropout = 0.3, input = {16, 16, 3}}},
    {"preactivation_resnet", {filters = 8, units = 2, input = {12, 12, 3}}},
    {"vgg", {depth = 11, batch_norm = true, top = false, input = {32, 32, 3}}},
} do
    local name, options, largest = table.unpack(one, 1, 3)
    case(("%s %s %s"):format(name, options.depth or "", options.version or ""),
        function() return models[name](options) end, {{2, table.unpack(options.input)}}, largest)
end

case("classes of layers", function()
    local x = nn.input{16, 16, 4}
    local y = models.ResidualBlock{filters = 4}(models.residual_block(x, 4, 2, "elu"))
    return nn.model(x, models.ResNet{blocks = 1, filters = 4}(y))
end, {{2, 16, 16, 4}})

case("slim", function()
    local slim = resin.slim
    local x = nn.input{16, 16, 3}
    local y = slim.arg_scope({slim.conv2d}, {normalizer_fn = slim.batch_norm}, function()
        local net = slim.repeat_(x, 2, slim.conv2d, 8, {3, 3}, {scope = "conv1"})
        return slim.max_pool2d(net, {2, 2}, {scope = "pool1"})
    end)
    y = slim.stack(slim.avg_pool2d(y, {2, 2}), slim.fully_connected, {32, 16}, {scope = "fc"})
    return nn.model(x, slim.softmax(slim.dropout(y, 0.5)))
end, {{2, 16, 16, 3}})

---- Reading files ------------------------------------------------------------------------------

-- The fields of a message: a list of {number, value}; bytes as strings.
local function fields(bytes)
    local list, at = {}, 1
    local function varint()
        local value, shift = 0, 0
        repeat
            local byte = bytes:byte(at)
            value, shift, at = value | (byte & 0x7f) << shift, shift + 7, at + 1
        until byte < 0x80
        return value
    end
    while at <= #bytes do
        local key = varint()
        local kind, value = key & 7, nil
        if kind == 0 then
            value = varint()
        elseif kind == 2 then
            local length = varint()
            value, at = bytes:sub(at, at + length - 1), at + length
            assert.equal(length, #value)
        else
            assert.equal(5, kind)
            value, at = string.unpack("<f", bytes, at)
        end
        list[#list + 1] = {key >> 3, value}
    end
    return list
end

-- The values of one field, by number.
local function values(bytes, number)
    local list = {}
    for _, field in ipairs(fields(bytes)) do
        if field[1] == number then list[#list + 1] = field[2] end
    end
    return list
end

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("a")
    file:close()
    return text
end

-- {operators = list, initializers = name -> {sizes, data}, inputs = names, outputs = names}
local function read_graph(path)
    local model = read(path)
    local graph = values(model, 7)[1]
    local result = {operators = {}, initializers = {}, inputs = {}, outputs = {}}
    for _, one in ipairs(values(graph, 1)) do table.insert(result.operators, values(one, 4)[1]) end
    for _, tensor in ipairs(values(graph, 5)) do
        result.initializers[values(tensor, 8)[1]] = {
            sizes = values(tensor, 1), data = values(tensor, 9)[1],
        }
    end
    for _, one in ipairs(values(graph, 11)) do table.insert(result.inputs, values(one, 1)[1]) end
    for _, one in ipairs(values(graph, 12)) do table.insert(result.outputs, values(one, 1)[1]) end
    return result
end

---- Tests --------------------------------------------------------------------------------------

describe("an exported model", function()
    local checked, ran = {}, {}

    setup(function()
        local files, names = {}, {}
        for position, one in ipairs(cases) do
            resin.seed(position)
            one.path = folder .. "/" .. position
            local model, inputs = one.make(), {}
            disturb(model)
            model:export_onnx(one.path .. ".onnx")
            for place, shape in ipairs(one.inputs) do
                inputs[place] = resin.uniform(shape, 0, one.largest):to(one.dtype)
                resin.write_npy(one.path .. ".in" .. place .. ".npy", inputs[place])
            end
            local outputs = model(inputs)
            if resin.is_tensor(outputs) then outputs = {outputs} end
            for place, output in ipairs(outputs) do
                resin.write_npy(one.path .. ".out" .. place .. ".npy", output)
            end
            -- What is compared must depend on the input.
            local first = outputs[1]
            one.spread = (first[1] - first[2]):abs():max():item()
            files[position], names[position] = one.path .. ".onnx", one.path
            collectgarbage()
        end
        local function lines_by_path(command, pattern, into)
            for line in (output_of(command) or ""):gmatch("[^\n]+") do
                local path = line:match(pattern)
                if path then into[path] = line end
            end
        end
        if python then
            lines_by_path(python .. " tests/onnx/check.py " .. table.concat(files, " "),
                "^%w+ (.-%d+)%.onnx", checked)
        end
        if node then
            lines_by_path("node tests/onnx/run.js " .. table.concat(names, " "), "^(%S+)", ran)
        end
    end)
    teardown(function() os.execute("rm -r " .. folder) end)

    if not python then
        it("is accepted by onnx.checker", function()
            pending("there is no python3 with the package onnx (Debian: python3-onnx)")
        end)
    end
    if not node then
        it("gives onnxruntime the same outputs", function()
            pending("there is no node with onnxruntime-node (RESIN_ONNXRUNTIME names the folder "
                .. "of its node_modules)")
        end)
    end
    for _, one in ipairs(cases) do
        if python then
            it("is accepted by onnx.checker: " .. one.name, function()
                assert.equal("ok " .. one.path .. ".onnx", checked[one.path])
            end)
        end
        if node then
            it("gives onnxruntime the same outputs: " .. one.name, function()
                local line = ran[one.path] or "nothing"
                local off, size = line:match("^%S+ (%S+) (%S+)$")
                off, size = tonumber(off), tonumber(size)
                assert(off and size, line)
                assert(off <= TOLERANCE * math.max(size, 1), line)
                assert(one.spread > 3 * TOLERANCE * math.min(size, 1),
                    ("hardly depends on the input: %g of %g"):format(one.spread, size))
            end)
        end
    end

    it("has nodes, weights and names as they should be", function()
        local path = folder .. "/structure.onnx"
        resin.seed(1)
        local x = nn.input{shape = {4, 4, 2}, name = "image"}
        local y = nn.conv2d{3, kernel = 2, groups = 1, name = "first"}(x)
        local model = nn.model(x, nn.dense{5, name = "scores"}(nn.global_avg_pool(nn.relu(y))))
        model:export_onnx(path)
        local graph = read_graph(path)
        assert.same({"Transpose", "Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"},
            graph.operators)
        assert.same({"image"}, graph.inputs)
        assert.same({"scores"}, graph.outputs)
        -- (H, W, in, out) became (out, in, H, W).
        local weights = graph.initializers["first/weights"]
        assert.same({3, 2, 2, 2}, weights.sizes)
        local own = model:get_layer("first").weights:detach()
        local at = 1
        for o = 1, 3 do
            for i = 1, 2 do
                for h = 1, 2 do
                    for w = 1, 2 do
                        local value
                        value, at = string.unpack("<f", weights.data, at)
                        assert.equal(own[{h, w, i, o}]:item(), value)
                    end
                end
            end
        end
        assert.same({3, 5}, graph.initializers["scores/weights"].sizes)
        local before = read(path)
        model:export_onnx(path)
        assert.equal(before, read(path))
    end)

    it("keeps weights once that are used twice", function()
        local path = folder .. "/twice.onnx"
        local x = nn.input{4, 4, 2}
        local shared = nn.conv2d{2, kernel = 3, padding = "same"}
        nn.model(x, shared(shared(x))):export_onnx(path)
        local graph, count = read_graph(path), 0
        for _ in pairs(graph.initializers) do count = count + 1 end
        assert.equal(2, count)
        assert.same({"Transpose", "Conv", "Conv", "Transpose"}, graph.operators)
    end)
end)

describe("export_onnx", function()
    it("knows every layer", function()
        for _, subject in ipairs{"activations", "conv", "dense", "merge", "norm", "pool"} do
            for name, class in pairs(require("resin.nn." .. subject).layers) do
                assert(converters[class], "no conversion of nn." .. name)
            end
        end
    end)

    it("refuses functions and layers of one's own, naming them all", function()
        local Own = nn.layer("Own")
        function Own:call(x) return nn.relu()(x) end
        local x = nn.input{4, 4, 2}
        local y = nn.func{"double", function(t) return t * 2 end}(Own{name = "mine"}(x))
        y = nn.conv2d{2, kernel = 1, name = "odd", activation = function(t) return t:abs() end}(y)
        local path = os.tmpname()
        os.remove(path)
        local ok, message = pcall(function() nn.model(x, y):export_onnx(path) end)
        assert.is_false(ok)
        for _, words in ipairs{"double (Func)", "mine (Own)", "odd (Conv2D)", "onnx_spec.lua:"} do
            assert.truthy(message:find(words, 1, true), message)
        end
        assert.is_nil(io.open(path))
        assert.is_nil(io.open(path .. ".new"))
    end)

    it("refuses what ONNX files cannot hold", function()
        local x = nn.input{4}
        local huge = nn.dense{4}
        local model = nn.model(x, huge(x))
        -- 3.2 GB that take no memory.
        rawset(huge, "weights", resin.zeros(1, 1):broadcast_to{shape = {40000, 20000}})
        local ok, message = pcall(model.export_onnx, model, os.tmpname())
        assert.is_false(ok)
        assert.truthy(message:find("3.20 GB; ONNX files end at 2 GB", 1, true), message)
        local double = nn.input{shape = {4}, dtype = "float64"}
        ok, message = pcall(function() nn.model(double, nn.relu(double)):export_onnx("x") end)
        assert.is_false(ok)
        assert.truthy(message:find("only float32 is exported", 1, true), message)
    end)

    it("says when its file cannot be written", function()
        local x = nn.input{4}
        local model = nn.model(x, nn.relu(x))
        local ok, message = pcall(model.export_onnx, model, "/none/x.onnx")
        assert.is_false(ok)
        assert.truthy(message:find("/none/x.onnx", 1, true), message)
        assert.has_error(function() model:export_onnx() end)
    end)
end)
