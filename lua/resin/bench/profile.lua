--- A step by layer: what scripts/bench.lua --profile prints.
local resin = require "resin"
local graph = require "resin.nn.graph"
local step = require "resin.bench.step"
local text_table = require "resin.bench.table"
local unfold = require "resin.nn.unfold"

local profile = {}

---- Measuring ----------------------------------------------------------------------------------

-- Seconds of a step, of its optimizer, and what neither ops nor optimizer account for.
local function run_profiled(one)
    local start, optimizer, taken = resin.clock(), nil, nil
    local events = resin.profile(function()
        optimizer = one.run(resin.profile_mark)
        taken = resin.clock() - start
    end)
    local outside = taken - optimizer
    for _, event in ipairs(events) do
        if not event.method then outside = outside - event.seconds end
    end
    return events, {step = taken, optimizer = optimizer, outside = outside}
end

-- The events of one step with the median seconds of many, and the medians of what run_profiled
-- gives. Each step has the same events in the same order; the first two warm up.
local function measure_events(one, seconds)
    local events, times, samples = nil, {step = {}, optimizer = {}, outside = {}}, {}
    local runs, medians = 0, {}
    step.repeat_for(seconds, function()
        local list, taken = run_profiled(one)
        runs = runs + 1
        if runs <= 2 then return end
        if events and #list ~= #events then error("the steps differ in what they run", 0) end
        events = list
        for position, event in ipairs(list) do
            samples[position] = samples[position] or {}
            table.insert(samples[position], event.seconds)
        end
        for name, list_of in pairs(times) do table.insert(list_of, taken[name]) end
    end)
    for position, event in ipairs(events) do event.seconds = step.median(samples[position]) end
    for name, list in pairs(times) do medians[name] = step.median(list) end
    return events, medians
end

---- What the steps of the plan are called --------------------------------------------------------

local function window_text(layer)
    local kernel, stride = layer.kernel, layer.stride
    if not kernel then return "" end
    local text = (" %dx%d"):format(kernel[1], kernel[2])
    if stride and (stride[1] > 1 or stride[2] > 1) then text = text .. "/" .. stride[1] end
    if (layer.groups or 1) > 1 then text = text .. " in " .. layer.groups .. " groups" end
    return text
end

-- "Conv2D 3x3/2 + norm + add + relu" for a fused unit.
local function kind_of(one)
    local layer = one.layer
    if not (layer.norm and layer.inference) then return layer.class_name .. window_text(layer) end
    local parts = {layer.conv and "Conv2D" .. window_text(layer.conv) or "BatchNorm"}
    if layer.conv then parts[2] = "norm" end
    if #one.arguments > 1 then parts[#parts + 1] = "add" end
    if layer.inference.activation == "relu" then parts[#parts + 1] = "relu" end
    return table.concat(parts, " + ")
end

-- By position in the plan: {name, kind, shape}.
local function describe_steps(model)
    local named = {}
    for _, one in ipairs(unfold.steps(model, function(node) return node.layer.static end)) do
        if getmetatable(one.layer) ~= graph.InputLayer then
            named[one.layer] = named[one.layer] or one
        end
    end
    local steps = {}
    for position, one in ipairs(model.plan.steps) do
        local layer = one.layer.conv or one.layer.norm or one.layer
        local known = named[layer] or {name = layer:path(), sizes = {}}
        steps[position] = {name = known.name, kind = kind_of(one),
            shape = table.concat(known.sizes, "x")}
    end
    steps[#steps + 1] = {name = "loss", kind = "softmax, cross-entropy", shape = ""}
    return steps
end

---- By layer -----------------------------------------------------------------------------------

local function new_row(described)
    return {
        name = described.name, kind = described.kind, shape = described.shape, forward = 0,
        backward = 0, inner = 0, multiply_adds = 0, bytes = 0, methods = {},
    }
end

-- forward/data/weights, one name where they are the same. Products have no such passes.
local function method_text(methods)
    local list, same = {}, true
    for _, pass in ipairs{"forward", "data", "weights"} do
        if methods[pass] then list[#list + 1] = methods[pass] end
        same = same and (methods[pass] or list[1]) == list[1]
    end
    if #list == 0 then return methods.product or "" end
    if same then return list[1] end
    return ("%s/%s/%s"):format(methods.forward or "-", methods.data or "-",
        methods.weights or "-")
end

local function add_part(row, event)
    row.inner = row.inner + event.seconds
    row.multiply_adds = row.multiply_adds + event.multiply_adds
    if event.pass == "backward" then -- both in one sweep
        row.methods.data, row.methods.weights = event.method, event.method
    else
        row.methods[event.pass or event.name] = event.method
    end
end

local function rows_of(events, described)
    local rows = {}
    for position, one in ipairs(described) do rows[position] = new_row(one) end
    for _, event in ipairs(events) do
        local row = rows[event.mark]
        if not row then error(("op %s belongs to no layer"):format(event.name), 0) end
        if event.method then
            add_part(row, event)
        else
            row[event.pass] = row[event.pass] + event.seconds
            row.bytes = row.bytes + event.bytes_read + event.bytes_written
        end
    end
    local used = {}
    for _, row in ipairs(rows) do
        row.method = method_text(row.methods)
        if row.forward + row.backward > 0 then used[#used + 1] = row end
    end
    return used
end

---- By kind of work -----------------------------------------------------------------------------

local BETWEEN = {
    conv_bn_act = "batch norm, shortcut, activation",
    batch_norm = "batch norm, shortcut, activation",
    conv2d = "convolution, rest", linear = "dense, rest", matmul = "dense, rest",
}

-- Sums of seconds, multiply-adds and bytes by what is done, the longest first.
local function kinds_of(events)
    local kinds, list, inner = {}, {}, 0
    local function add(name, seconds, multiply_adds)
        local kind = kinds[name]
        if not kind then
            kind = {name = name, seconds = 0, multiply_adds = 0}
            kinds[name] = kind
            list[#list + 1] = kind
        end
        kind.seconds = kind.seconds + seconds
        kind.multiply_adds = kind.multiply_adds + multiply_adds
    end
    for _, event in ipairs(events) do
        if event.method then
            add(event.name == "conv2d" and ("convolution %s, %s"):format(event.pass, event.method)
                or ("matrix product, %s"):format(event.method), event.seconds, event.multiply_adds)
            inner = inner + event.seconds
        else
            add(BETWEEN[event.name] or event.name, event.seconds - inner, 0)
            inner = 0
        end
    end
    table.sort(list, function(a, b) return a.seconds > b.seconds end)
    return list
end

---- All of it ----------------------------------------------------------------------------------

--- Measures for so many seconds: {rows = {{name, kind, shape, method, forward, backward and inner
--- (the convolution or product alone) in seconds, multiply_adds, bytes}, ...}, kinds, step,
--- optimizer, outside (seconds), multiply_adds, bytes}.
function profile.measure(one, seconds)
    local events, times = measure_events(one, seconds)
    local result = {
        rows = rows_of(events, describe_steps(one.model)), kinds = kinds_of(events),
        step = times.step, optimizer = times.optimizer, outside = times.outside,
        multiply_adds = 0, bytes = 0,
    }
    for _, row in ipairs(result.rows) do
        result.multiply_adds = result.multiply_adds + row.multiply_adds
        result.bytes = result.bytes + row.bytes
    end
    return result
end

--- What the machine does at most right now: {fma_peak (GFLOP/s), read, copy (GB/s), handover (ns
--- that a line of the cache takes between two threads and back; 0 with one)}.
function profile.limits()
    local limits = {fma_peak = resin.fma_peak(), handover = resin.handover() * 1e9}
    limits.read, limits.copy = resin.memory_bandwidth()
    return limits
end

local number = text_table.number

local function milliseconds(seconds) return seconds > 0 and number(seconds * 1e3) or "" end

local function gflops(multiply_adds, seconds)
    return multiply_adds > 0 and number(2e-9 * multiply_adds / seconds) or ""
end

local function percent(part, whole) return ("%.1f %%"):format(100 * part / whole) end

local function layer_lines(p)
    local lines = {{"layer", "what", "output", "method", "forward ms", "backward ms", "conv ms",
        "GFLOP/s", "MB", "GB/s", "share"}, "-"}
    for _, row in ipairs(p.rows) do
        local seconds = row.forward + row.backward
        lines[#lines + 1] = {row.name, row.kind, row.shape, row.method, milliseconds(row.forward),
            milliseconds(row.backward), milliseconds(row.inner), gflops(row.multiply_adds,
            row.inner), row.bytes > 0 and number(row.bytes * 1e-6) or "",
            row.bytes > 0 and number(row.bytes * 1e-9 / seconds) or "", percent(seconds, p.step)}
    end
    return text_table.text(lines, 4)
end

local function kind_lines(p, fma_peak)
    local lines = {{"what takes the time", "ms", "share", "GFLOP/s", "of the peak"}, "-"}
    for _, kind in ipairs(p.kinds) do
        local speed = 2e-9 * kind.multiply_adds / kind.seconds
        lines[#lines + 1] = {kind.name, milliseconds(kind.seconds), percent(kind.seconds, p.step),
            gflops(kind.multiply_adds, kind.seconds),
            kind.multiply_adds > 0 and ("%.2f"):format(speed / fma_peak) or ""}
    end
    if p.optimizer > 0 then
        lines[#lines + 1] = {"optimizer", milliseconds(p.optimizer), percent(p.optimizer, p.step)}
    end
    lines[#lines + 1] = {"outside of ops (Lua, graph)", milliseconds(p.outside),
        percent(p.outside, p.step)}
    lines[#lines + 1] = "-"
    lines[#lines + 1] = {"step", milliseconds(p.step), percent(p.step, p.step),
        gflops(p.multiply_adds, p.step), ("%.2f"):format(2e-9 * p.multiply_adds / p.step
        / fma_peak)}
    return text_table.text(lines, 1)
end

local LIMITS = [[
Limits in this run, %d threads: multiply-add peak %.0f GFLOP/s; memory read %.1f GB/s, copied %.1f;
a line of the cache from thread to thread and back in %.0f ns.
%.2f G multiply-adds, counted directly, take %.2f ms at the peak (Winograd does a quarter of them,
Strassen seven eighths);
%.0f MB of tensors, each read and written once, take %.2f ms as copies. Times are medians.
"conv ms" is the convolution or matrix product alone, both ways; the GFLOP/s are its own.]]

--- The tables as text.
function profile.text(p, limits)
    local ideal = LIMITS:format(resin.threads(), limits.fma_peak, limits.read, limits.copy,
        limits.handover,
        p.multiply_adds * 1e-9, 2e-6 * p.multiply_adds / limits.fma_peak, p.bytes * 1e-6,
        p.bytes * 1e-6 / limits.copy)
    return table.concat({layer_lines(p), kind_lines(p, limits.fma_peak), ideal}, "\n\n")
end

return profile
