-- torchvision's networks with weights from a file in its naming: logits, gradients and running
-- statistics as PyTorch computes them. tests/fixtures/make_torchvision_golden.py says how the
-- values were made: in float64, with what PyTorch's own float32 is off from them as `error`.
--
-- A network in float64 must agree to the digits that the files have (DIGITS, relative to a tensor's
-- norm). In float32 errors are allowed of at most PARITY times PyTorch's, WINOGRAD_PARITY times
-- where Winograd's method may run, as in golden_spec.lua. A gradient's own error varies by chance,
-- so the mean over the network's gradients counts as well; and where rounding turns ReLUs on or off
-- they may be off by twice what the generator found that Winograd's rounding can do (`perturbed`),
-- some hundredths. Logits must agree within 1e-4 of their scale whatever PyTorch's float32 does.
--
-- Without RESIN_GOLDEN only resnet18 runs, at one size, in training mode. RESIN_GOLDEN=all runs all
-- of them (some ten minutes, and half a gigabyte of disk at a time), RESIN_GOLDEN=NAME one.
local resin = require "resin"
local core = require "resin.core"
local naming = require "resin.nn.naming"
local formula = dofile "tests/lua/formula.lua"

local PARITY, WINOGRAD_PARITY = 4, 20
local ONE_ROUNDING = 2.0 ^ -24
local LOGITS, DIGITS = 1e-4, 1e-7
local BLOCK, SHIFT, BLOCK_STREAM, IMAGE_STREAM = 262147, 104729, 8000, 5000
local PROJECTIONS = {0, 50000, 150000}

local NETWORKS = {
    "resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d",
    "wide_resnet50_2", "vgg16", "vgg16_bn",
}

---- The formulas -------------------------------------------------------------------------------

local blocks = {}

-- Elements `start`, start + 1 ... (from 0) of the repeated block.
local function repeated(count, start, dtype)
    blocks[dtype] = blocks[dtype] or formula.tensor(BLOCK_STREAM, {BLOCK}, -1, 1, dtype)
    start = start % BLOCK
    local copies = (start + count + BLOCK - 1) // BLOCK
    local tiled <close> = resin.tile(blocks[dtype], {repeats = {copies}})
    return tiled[{{start + 1, start + count}}]:contiguous()
end

-- Of tensors with one axis: {middle, half width}.
local RANGES = {
    shift = {0, 0.2}, variance = {1, 0.5}, scale = {1, 0.2}, small_scale = {0.3, 0.1},
}

-- Tensor number k of a network's list, as a file has it.
local function filled(k, given)
    local sizes, count = given.shape, 1
    for _, size in ipairs(sizes) do count = count * size end
    if given.kind == "weights" then
        local values <close> = repeated(count, SHIFT * k, "float32")
        return (values * math.sqrt(6 / (count // sizes[1]))):reshape(sizes)
    end
    local middle, half = table.unpack(RANGES[given.kind])
    local values = {}
    for i = 1, count do values[i] = middle + half * (2 * formula.unit(k, i - 1) - 1) end
    return resin.tensor(values)
end

local function write_weights(path, list)
    local tensors = {}
    for k, given in ipairs(list) do tensors[k] = {given.name, filled(k, given)} end
    core.safetensors_write(path, tensors, {format = "pt"})
    for _, pair in ipairs(tensors) do pair[2]:release() end
end

---- Comparing ----------------------------------------------------------------------------------

-- All of a tensor's elements in float64.
local function flat_of(tensor) return tensor:contiguous():reshape{tensor:count()}:to("float64") end

local function largest(values)
    local result = 0
    for _, value in ipairs(values) do
        value = math.abs(value)
        result = value <= result and result or value -- a NaN stays
    end
    return result
end

local function product(flat, vector)
    local products <close> = flat * vector
    return products:sum():item()
end

-- How far a tensor is from its golden row {norm, projections ...}, relative to the norm if there is
-- one.
local function off_by(tensor, row)
    local flat <close> = flat_of(tensor)
    local off = {flat:norm():item() - row[1]}
    for i, start in ipairs(PROJECTIONS) do
        local vector <close> = repeated(flat:count(), start, "float64")
        off[i + 1] = product(flat, vector) - row[1 + i]
    end
    return row[1] > 0 and largest(off) / row[1] or largest(off)
end

-- Likewise from {norm, projection, entries ...}.
local function logits_off_by(logits, row, vector)
    local flat <close> = flat_of(logits)
    local off = {flat:norm():item() - row[1], product(flat, vector) - row[2]}
    local count, entries, squares = flat:count(), #row - 2, 0
    for i = 1, entries do
        local position = (2 * i - 1) * count // (2 * entries) + 1
        squares = squares + (flat[position]:item() - row[2 + i]) ^ 2
    end
    off[3] = math.sqrt(squares / entries * count)
    return largest(off) / row[1]
end

-- Without a parity: in float64.
local function assert_close(what, off, own, parity, most)
    local allowed = DIGITS
    if parity then allowed = math.min(parity * math.max(own, ONE_ROUNDING), most or math.huge) end
    assert(off <= allowed, ("%s: off by %.2e; PyTorch's float32 by %.2e, allowed are %.2e"):format(
        what, off, own, allowed))
end

-- A network's tensors in the order of the golden list, as the file has them.
local function by_name(model)
    local items = {}
    for _, item in ipairs(naming.items(model, "torchvision")) do items[item.name] = item end
    return items
end

local function is_statistic(name) return name:find("running_", 1, true) ~= nil end

-- What all gradients may be off by.
local function least_error(golden, parity)
    if not parity then return 0 end
    local squares, count = 0, 0
    for _, row in ipairs(golden.grads) do
        if row[1] > 0 then squares, count = squares + row.error ^ 2, count + 1 end
    end
    return math.max(math.sqrt(squares / count), 2 * golden.perturbed / parity)
end

local function check_gradients(items, list, golden, parity)
    local least, position = least_error(golden, parity), 0
    for _, given in ipairs(list) do
        if not is_statistic(given.name) then
            position = position + 1
            local item, row = items[given.name], golden.grads[position]
            local gradient = naming.to_file(item, item.tensor.grad)
            assert_close("the gradient of " .. given.name, off_by(gradient, row),
                row[1] > 0 and math.max(row.error, least) or row.error, parity)
        end
    end
    assert.equal(#golden.grads, position)
end

local function check_statistics(items, list, golden, parity)
    local position = 0
    for _, given in ipairs(list) do
        if is_statistic(given.name) and golden.training then
            position = position + 1
            local row = golden.statistics[position]
            assert_close(given.name, off_by(items[given.name].tensor, row), row.error, parity)
        end
    end
    assert.equal(#golden.statistics, position)
end

local function check_case(model, list, golden, parity)
    local size, batch = golden.size, golden.batch
    local images = formula.tensor(IMAGE_STREAM + golden.images, {batch, size, size, 3}, -2, 2,
        parity and "float32" or "float64")
    images:require_grad()
    local logits = model(images, {training = golden.training, gradient = true})
    local vector = resin.tensor(formula.projection(logits:count()), "float64")
    assert_close("the logits", logits_off_by(logits:detach(), golden.logits, vector),
        golden.logits.error, parity, LOGITS)
    logits:backward(vector:to(logits:dtype()):reshape(logits:shape()))
    assert_close("the gradient of the images", off_by(images.grad, golden.image_grad),
        math.max(golden.image_grad.error, least_error(golden, parity)), parity)
    local items = by_name(model)
    check_gradients(items, list, golden, parity)
    check_statistics(items, list, golden, parity)
end

---- The networks -------------------------------------------------------------------------------

-- How a network is computed: a method of convolution and what is asked of it, or float64.
local WAYS = {
    {name = "auto", parity = WINOGRAD_PARITY}, {name = "direct", parity = PARITY},
    {name = "float64"},
}

local function check_network(name, way, chosen)
    local golden = dofile("tests/fixtures/torchvision/" .. name .. ".lua")
    local path = os.tmpname()
    local before = resin.conv_method(way.parity and way.name or "auto")
    local ok, message = pcall(function()
        write_weights(path, golden.tensors)
        for _, case in ipairs(golden) do
            if chosen(case) then
                local size, dtype = case.size, way.parity and "float32" or "float64"
                local options = {input = {shape = {size, size, 3}, dtype = dtype}}
                if name:find("^vgg") then options.dropout = 0 end
                local model = resin.models[name](options)
                model:load(path, {naming = "torchvision"})
                check_case(model, golden.tensors, case, way.parity)
            end
            collectgarbage()
        end
    end)
    resin.conv_method(before)
    os.remove(path)
    assert(ok, message)
end

local function all() return true end

local function one(case) return case.size == 64 and case.training end

describe("as torchvision computes it:", function()
    local wanted = os.getenv("RESIN_GOLDEN")
    for _, name in ipairs(NETWORKS) do
        for _, way in ipairs(WAYS) do
            if wanted == "all" or wanted == name then
                it(name .. ", " .. way.name, function() check_network(name, way, all) end)
            elseif name == "resnet18" and way.name ~= "direct" then
                it(name .. ", " .. way.name .. ", one case", function()
                    check_network(name, way, one)
                end)
            end
        end
    end
end)
