-- PyTorch's values: single ops, optimizers and networks. tests/fixtures/make_golden.py says how
-- they were made: float64 results, and what PyTorch's own float32 is off from them.
--
-- What is asked of float32: an error of at most PARITY times PyTorch's, WINOGRAD_PARITY times where
-- Winograd's method runs (its transforms enlarge rounding errors; core/ops/conv_winograd.c). Errors
-- are relative to the size of the whole tensor: its largest value where every element is stored,
-- its root mean square where only 16 entries are. PyTorch can be exact by luck; an error of one
-- rounding of such a value (2^-24) is always allowed for.
local resin = require "resin"
local formula = dofile "tests/lua/formula.lua"

local PARITY, WINOGRAD_PARITY = 4, 20
local ONE_ROUNDING = 2.0 ^ -24
-- float64 against float64: orders of summation differ, and x around 100 loses two digits in batch
-- norm.
local EXACT = 1e-12

local function largest(values)
    local result = 0
    for _, value in ipairs(values) do result = math.max(result, math.abs(value)) end
    return result
end

local function dot(a, b)
    local sum = 0
    for i = 1, #a do sum = sum + a[i] * b[i] end
    return sum
end

-- How far a tensor is from its golden values, relative to their size: two numbers, what is allowed
-- for comes from golden.error for the first and golden.rms_error for the second.
local function errors(tensor, golden)
    local values = formula.flat(tensor)
    if golden.values then
        assert.are.same(#golden.values, #values)
        local off = 0
        for i, value in ipairs(values) do
            local difference = math.abs(value - golden.values[i])
            off = difference <= off and off or difference -- a NaN stays
        end
        local scale = largest(golden.values)
        return scale > 0 and off / scale or off, nil
    end
    local squares = 0
    for i, position in ipairs(golden.positions) do
        squares = squares + (values[position] - golden.entries[i]) ^ 2
    end
    local entries = math.sqrt(squares / #golden.positions * #values) / golden.norm
    local norm = math.abs(math.sqrt(dot(values, values)) - golden.norm) / golden.norm
    local projection = dot(values, formula.projection(#values)) - golden.projection
    return nil, math.max(entries, norm, math.abs(projection) / golden.norm)
end

local function check(what, tensor, golden, dtype, parity)
    local off, rms = errors(tensor, golden)
    local own = off and golden.error or golden.rms_error
    local bound = dtype == "float64" and EXACT or parity * math.max(own, ONE_ROUNDING)
    off = off or rms
    if not (off <= bound) then
        error(("%s in %s is off by %.2e; PyTorch's float32 by %.2e, allowed are %.2e"):format(what,
            dtype, off, own, bound), 0)
    end
end

-- ---- Single ops ---------------------------------------------------------------------------------

local function make_inputs(case, dtype)
    local inputs = {}
    for i, given in ipairs(case.inputs) do
        if given.classes then
            inputs[i] = formula.labels(given.stream, given.shape, given.classes)
        else
            inputs[i] = formula.tensor(given.stream, given.shape, given.low, given.high, dtype)
            if given.grad then inputs[i]:require_grad() end
        end
    end
    return inputs
end

local function check_op(case, dtype, parity)
    local inputs = make_inputs(case, dtype)
    local arguments = table.move(inputs, 1, #inputs, 1, {})
    if next(case.options) then arguments[#arguments + 1] = case.options end
    local y = resin[case.op](table.unpack(arguments))
    assert.are.same(case.output.shape, y:shape())
    check("the result", y, case.output, dtype, parity)
    local weights = resin.tensor(formula.projection(y:count()), dtype):reshape(y:shape())
    y:backward(weights)
    for i, given in ipairs(case.inputs) do
        local golden, changed = case.grads[given.name], case.changed[given.name]
        if golden then
            check("the gradient of " .. given.name, inputs[i].grad, golden, dtype, parity)
        elseif changed then
            check(given.name .. " afterwards", inputs[i], changed, dtype, parity)
        end
    end
end

describe("as PyTorch computes it:", function()
    for _, case in ipairs(dofile "tests/fixtures/golden_ops.lua") do
        it(case.name, function()
            check_op(case, "float64", 1)
            check_op(case, "float32", case.winograd and WINOGRAD_PARITY or PARITY)
            if case.winograd then
                local before = resin.conv_method("direct")
                local ok, message = pcall(check_op, case, "float32", PARITY)
                resin.conv_method(before)
                assert(ok, message)
            end
        end)
    end
end)

-- ---- Optimizers ---------------------------------------------------------------------------------

local function check_optimizer(case, dtype)
    local count = #case.weights[1].values
    local w = formula.tensor(1, { count }, -1, 1, dtype):require_grad()
    local settings = { { w }, rule = "pytorch" }
    for name, value in pairs(case.options) do settings[name] = value end
    local optimizer = resin.optim[case.kind](settings)
    for step, golden in ipairs(case.weights) do
        (w * formula.tensor(1 + step, { count }, -0.5, 0.5, dtype)):sum():backward()
        optimizer:step()
        optimizer:clear_grads()
        check("the weights after step " .. step, w:detach(), golden, dtype, PARITY)
    end
end

describe("as PyTorch's optimizers step:", function()
    for _, case in ipairs(dofile "tests/fixtures/golden_optimizers.lua") do
        it(case.name, function()
            check_optimizer(case, "float64")
            check_optimizer(case, "float32")
        end)
    end
end)

-- ---- Networks -----------------------------------------------------------------------------------

local nn = resin.nn
local networks = {}

-- Convolution and batch norm, named as the generator names them.
local function unit(x, name, filters, kernel, stride, groups)
    x = nn.conv2d {
        filters, kernel = kernel, stride = stride or 1, groups = groups or 1, padding = kernel // 2,
        bias = false, name = name .. ".conv",
    }(x)
    return nn.batch_norm { rule = "pytorch", name = name .. ".norm" }(x)
end

local function top(x) return nn.dense { 10, name = "top" }(nn.global_avg_pool(x)) end

local function bottleneck_net(groups)
    return function(size, options)
        local input = nn.input { size, size, 3 }
        local x = nn.relu(unit(input, "stem", 16, 3))
        for i, block in ipairs { { 16, 32, 1 }, { 16, 32, 1 }, { 32, 64, 2 } } do
            local width, filters, stride = table.unpack(block)
            local name = "block" .. i
            local y = nn.relu(unit(x, name .. ".1", width, 1))
            y = nn.relu(unit(y, name .. ".2", width, 3, stride, groups))
            y = unit(y, name .. ".3", filters, 1)
            if x:shape()[3] ~= filters then x = unit(x, name .. ".shortcut", filters, 1, stride) end
            x = nn.relu(y + x)
        end
        return nn.model(input, top(x), options)
    end
end

networks.bottleneck = bottleneck_net(1)
networks.grouped = bottleneck_net(4)

function networks.resnet18(size, options)
    local input = nn.input { size, size, 3 }
    local x = nn.relu(unit(input, "stem", 16, 7, 2))
    x = nn.max_pool2d { kernel = 3, stride = 2, padding = 1 }(x)
    for stage = 1, 4 do
        for block = 1, 2 do
            local name, filters = ("stage%d.block%d"):format(stage, block), 16 << (stage - 1)
            local stride = stage > 1 and block == 1 and 2 or 1
            local y = nn.relu(unit(x, name .. ".1", filters, 3, stride))
            y = unit(y, name .. ".2", filters, 3)
            if stride == 2 then x = unit(x, name .. ".shortcut", filters, 1, 2) end
            x = nn.relu(y + x)
        end
    end
    return nn.model(input, top(x), options)
end

-- The ready-made one, whose layers have other names but the same order.
function networks.resnet20() return resin.models.cifar_resnet { depth = 20 } end

-- The tensor for each golden parameter: by name, or by order in the ready-made network.
local function match_parameters(model, golden)
    local by_name, list = {}, {}
    for name, tensor in model:named_parameters() do
        list[#list + 1] = tensor
        by_name[name] = tensor
    end
    assert.are.same(#golden, #list)
    local ordered = not by_name["stem.conv/weights"]
    local matched = {}
    for i, parameter in ipairs(golden) do
        local layer, variable = parameter.name:match("^(.*)%.(%l+)$")
        local name = variable == "conv" and parameter.name .. "/weights" or layer .. "/" .. variable
        local tensor = ordered and list[i] or by_name[name]
        assert(tensor, "there is no parameter " .. name)
        assert.are.same(parameter.shape, tensor:shape())
        matched[i] = tensor
    end
    return matched
end

local function set_parameters(tensors, golden)
    resin.no_grad(function()
        for i, parameter in ipairs(golden) do
            tensors[i]:copy_(formula.tensor(parameter.stream, parameter.shape, parameter.low,
                parameter.high))
        end
    end)
end

local IMAGE_STREAM, LABEL_STREAM = 5000, 6000

local function batch(number, count, size)
    return formula.tensor(IMAGE_STREAM + number, { count, size, size, 3 }, -2, 2),
        formula.labels(LABEL_STREAM + number, { count }, 10)
end

-- Every gradient of one step in training mode. What a parameter's own error is by PyTorch varies by
-- chance (batch norm's gradients are sums of few terms), so the mean of the network's counts as
-- well.
local function check_network(golden, model, parity)
    local tensors = match_parameters(model, golden.parameters)
    set_parameters(tensors, golden.parameters)
    local x, labels = batch(golden.images, golden.batch, golden.size)
    local logits = model(x, { training = true })
    check("the logits", logits, golden.logits, "float32", parity)
    local loss = resin.cross_entropy(logits, labels)
    local allowed = parity * math.max(golden.loss_error, ONE_ROUNDING * golden.loss,
        golden.logits.rms_error * golden.loss)
    assert(math.abs(loss:item() - golden.loss) <= allowed, "the loss is " .. loss:item())
    loss:backward()

    local squares = 0
    for _, parameter in ipairs(golden.parameters) do
        squares = squares + parameter.grad.rms_error ^ 2
    end
    local mean = math.sqrt(squares / #golden.parameters)
    for i, parameter in ipairs(golden.parameters) do
        parameter.grad.rms_error = math.max(parameter.grad.rms_error, mean)
        check("the gradient of " .. parameter.name, tensors[i].grad, parameter.grad, "float32",
            parity)
    end
end

local function with_method(method, f, ...)
    local before = resin.conv_method(method)
    local ok, message = pcall(f, ...)
    resin.conv_method(before)
    assert(ok, message)
end

describe("as PyTorch computes the network", function()
    local golden = dofile "tests/fixtures/golden_networks.lua"

    for _, name in ipairs { "resnet20", "bottleneck", "grouped", "resnet18" } do
        for _, method in ipairs { "auto", "direct" } do
            local parity = method == "auto" and WINOGRAD_PARITY or PARITY
            it(("%s, conv method %s"):format(name, method), function()
                local model = networks[name](golden[name].size)
                with_method(method, check_network, golden[name], model, parity)
            end)
        end
        if name ~= "resnet20" then
            it(name .. ", not fused", function()
                local model = networks[name](golden[name].size, { fuse = false })
                with_method("direct", check_network, golden[name], model, PARITY)
            end)
        end
    end

    -- Errors grow from step to step, as rounding turns a unit on or off: the largest counts.
    local function check_training(method, parity)
        local model = networks.resnet20()
        local parameters = golden.resnet20.parameters
        set_parameters(match_parameters(model, parameters), parameters)
        local optimizer = resin.optim.sgd {
            model, learning_rate = 0.01, momentum = 0.9, rule = "pytorch",
        }
        local off, allowed, losses = {}, largest(golden.training.errors), {}
        for step, expected in ipairs(golden.training.losses) do
            local x, labels = batch(step - 1, golden.training.batch, golden.training.size)
            local loss = resin.cross_entropy(model(x, { training = true }), labels)
            losses[step] = loss:item()
            off[step] = losses[step] - expected
            loss:backward()
            optimizer:step()
            optimizer:clear_grads()
        end
        assert(largest(off) <= parity * allowed, ("%s: losses %s, off by up to %.1e, allowed %.1e")
            :format(method, table.concat(losses, " "), largest(off), parity * allowed))
        assert(math.abs(off[1]) <= parity * 1e-5) -- before any step
    end

    it("resnet20 in ten steps of training", function()
        with_method("auto", check_training, "auto", WINOGRAD_PARITY)
        with_method("direct", check_training, "direct", PARITY)
    end)
end)
