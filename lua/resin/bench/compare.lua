--- resin beside PyTorch and onnxruntime, in turn: what scripts/compare.lua does.
local resin = require "resin"
local files = require "resin.files"
local step = require "resin.bench.step"
local text_table = require "resin.bench.table"

local compare = {}

-- A row: its network and mode, what its ratio of times should be at least (floor) and is meant to
-- be (target), and at most the ratio of memory.
local function training(model, floor, target, memory)
    return {name = model, model = model, mode = "train", floor = floor, target = target,
        memory = memory}
end

local function inference(model, floor, target, onnxruntime)
    return {name = "infer-" .. model, model = model, mode = "infer", batch = 1, floor = floor,
        target = target, onnxruntime = onnxruntime}
end

--- All rows, in their order.
compare.rows = {
    training("resnet20", 2.5, 4, 0.6), training("resnet56", 2.5, 4, 0.6),
    training("cifar14-w64", 3, 4.5, 0.6), training("resnet18", 2.5, 4, 0.6),
    training("tutorial-resnet", 2.5, 3.5, 0.6), training("tutorial-resnext", 2.5, 4, 0.6),
    training("vgg16", 3, 4.5, 0.85), training("resnet50", 1.8, 2.5, 0.7),
    training("resnext50", 1.8, 3, 0.7), inference("resnet18", 3, 4.5, 1.5),
    inference("resnet50", 1.7, 2.5, 1.1),
}

--- The rows that a list of names, as "resnet20,infer-resnet50", stands for; nil: all.
function compare.choose(names)
    if not names then return compare.rows end
    local chosen, by_name = {}, {}
    for _, row in ipairs(compare.rows) do by_name[row.name] = row end
    for name in names:gmatch("[^,%s]+") do
        if not by_name[name] then error(("--rows: there is no row '%s'"):format(name), 0) end
        chosen[#chosen + 1] = by_name[name]
    end
    return chosen
end

---- Engines ------------------------------------------------------------------------------------

local function quote(text) return "'" .. tostring(text):gsub("'", "'\\''") .. "'" end

-- What a command prints, and whether it succeeded.
local function output_of(command)
    local pipe = assert(io.popen(command .. " 2>&1", "r"))
    local text = pipe:read("a")
    return text, pipe:close() == true
end

--- The line of JSON that a text ends with, as a table; nil if there is none. Numbers and strings.
function compare.parse(text)
    local line = text:match("({[^{}]*})%s*$")
    if not line then return nil end
    local result = {}
    for name, string, number in line:gmatch('"([%w_]+)":%s*"?([^",}]*)"?()') do
        result[name] = number and (tonumber(string) or string)
    end
    return result
end

-- Runs one engine and gives what it measured.
local function run(command)
    local text, succeeded = output_of(command)
    local measured = succeeded and compare.parse(text)
    if not measured or not tonumber(measured.median_ms) then
        error(("this failed: %s\n%s"):format(command, text:sub(-2000)), 0)
    end
    return measured
end

-- The one that is given, or that has what is needed. Looked for without loading it, which takes
-- seconds.
local function find_python(given)
    for _, python in ipairs{given or "python3", not given and "/usr/bin/python3" or nil} do
        local _, found = output_of(python .. " -c 'import sys; from importlib.util import "
            .. 'find_spec; sys.exit(not all(map(find_spec, ("torch", "torchvision"))))\'')
        if found then return python end
    end
    error("no Python with PyTorch and torchvision was found: `make compare` installs Debian's "
        .. "python3-torch and python3-torchvision, --python names another", 0)
end

-- What OpenBLAS should take this processor for: it does not know those younger than itself.
local function core_type()
    if os.getenv("OPENBLAS_CORETYPE") then return "" end
    local type = ({v4 = "SkylakeX", v3 = "Haswell"})[resin.instruction_set()]
    return type and "OPENBLAS_CORETYPE=" .. type .. " " or ""
end

-- The options that all benchmarks take.
local function options_of(row, settings)
    local text = ("--model %s --mode %s --threads %d --seconds %s"):format(row.model, row.mode,
        settings.threads, settings.seconds)
    return row.batch and text .. " --batch " .. row.batch or text
end

--- The engines in the order in which they run, resin first, as {name, peer (nil: resin itself),
--- mode (nil: both), command(row, settings)}. found: lua, scripts (the folder), out, and perhaps
--- python, onnxruntime (a folder).
function compare.engines(found)
    local engines = {{name = "resin", command = function(row, settings)
        return ("%s %s %s --json"):format(quote(found.lua), quote(found.scripts .. "/bench.lua"),
            options_of(row, settings))
    end}}
    local python = find_python(found.python)
    for _, layout in ipairs{"nchw", "nhwc"} do
        engines[#engines + 1] = {name = layout, peer = "torch", command = function(row, settings)
            return ("%s%s %s %s --layout %s"):format(core_type(), python,
                quote(found.scripts .. "/peers/torch_bench.py"), options_of(row, settings), layout)
        end}
    end
    if not found.onnxruntime then return engines end
    engines[#engines + 1] = {name = "onnxruntime", peer = "onnxruntime", mode = "infer",
        command = function(row, settings)
            local network = resin.models.bench[row.model]
            local file = ("%s/%s.onnx"):format(found.out, row.model)
            if not files.exists(file) then network.make():export_onnx(file) end
            return ("node %s %s %s %d %d %d %s"):format(
                quote(found.scripts .. "/peers/onnxruntime_bench.js"), quote(found.onnxruntime),
                quote(file), row.batch, network.side, settings.threads, settings.seconds)
        end}
    return engines
end

---- Measuring ----------------------------------------------------------------------------------

local function medians(runs, field)
    local values = {}
    for _, measured in ipairs(runs) do values[#values + 1] = measured[field] end
    return #values > 0 and step.median(values) or nil
end

-- How much longer the peer takes: the median of the rounds, the least and the most.
local function ratio_of(ours, theirs)
    local ratios = {}
    for round, measured in ipairs(ours) do
        ratios[round] = theirs[round].median_ms / measured.median_ms
    end
    return {median = step.median(ratios), low = ratios[1], high = ratios[#ratios]}
end

-- What the runs of one engine say: milliseconds, memory, and against resin's the ratios.
local function summarize(runs, ours)
    local summary = {ms = medians(runs, "median_ms"), memory = medians(runs, "peak_rss_mb"),
        engine = runs[1].engine, layout = runs[1].layout}
    if runs == ours then return summary end
    summary.ratio = ratio_of(ours, runs)
    summary.memory_ratio = medians(ours, "peak_rss_mb") / summary.memory
    return summary
end

local function check_same(row, runs)
    local first = runs.resin[1]
    for name, list in pairs(runs) do
        local count = list[1].parameters
        if count and count ~= first.parameters then
            error(("%s: %s has %d parameters, resin %d"):format(row.name, name, count,
                first.parameters), 0)
        end
    end
end

--- The result of a row from the runs of each engine, {[name] = list by round}.
function compare.result(row, runs)
    check_same(row, runs)
    local ours, first = runs.resin, runs.resin[1]
    local result = {
        row = row, batch = first.batch, resin = summarize(ours, ours),
        gflops = medians(ours, "effective_gflops"), peak = medians(ours, "fma_peak_gflops"),
        read = medians(ours, "memory_read_gbs"), copy = medians(ours, "memory_copy_gbs"),
        handover = medians(ours, "handover_ns"),
        onnxruntime = runs.onnxruntime and summarize(runs.onnxruntime, ours),
    }
    for _, layout in ipairs{"nchw", "nhwc"} do
        local summary = summarize(runs[layout], ours)
        if not result.torch or summary.ms < result.torch.ms then result.torch = summary end
    end
    return result
end

--- Runs the engines in turn for one row; say(text) tells what came out.
function compare.measure(row, engines, settings, say)
    local runs = {}
    for round = 1, settings.rounds do
        local shown = {}
        for _, engine in ipairs(engines) do
            if not engine.mode or engine.mode == row.mode then
                runs[engine.name] = runs[engine.name] or {}
                local measured = run(engine.command(row, settings))
                runs[engine.name][round] = measured
                shown[#shown + 1] = ("%s %.2f ms"):format(engine.peer == "torch"
                    and "PyTorch " .. engine.name or engine.name, measured.median_ms)
                if measured.handover_ns and measured.handover_ns > 0 then
                    shown[#shown] = shown[#shown] .. (" (handover %.0f ns)"):format(
                        measured.handover_ns)
                end
            end
        end
        say(("%s, round %d: %s"):format(row.name, round, table.concat(shown, ", ")))
    end
    return compare.result(row, runs)
end

---- The machine --------------------------------------------------------------------------------

local function content_of(path)
    local file = io.open(path, "r")
    if not file then return "" end
    local text = file:read("a")
    file:close()
    return text
end

local function processor_name()
    local text = content_of("/proc/cpuinfo")
    return text:match("model name%s*:%s*([^\n]+)") or text:match("CPU part%s*:%s*([^\n]+)")
        or "an unknown processor"
end

--- A sentence that says so if other programs run, nil if not: threads that wait for each other, as
--- PyTorch's, then take many times as long, and no ratio means anything.
function compare.busy()
    local load = tonumber(content_of("/proc/loadavg"):match("^%S+"))
    if not load or load < 0.5 then return nil end
    return ("The machine was busy at the start (load %.1f): these ratios mean little."):format(load)
end

---- Writing ------------------------------------------------------------------------------------

local number = text_table.number

local function times(value) return value and ("%.2f x"):format(value) or "" end

local function memory_text(row, torch)
    if not row.memory then return "", "" end
    return ("%.2f"):format(torch.memory_ratio), ("%.2f"):format(row.memory)
end

-- The cells of one result, by column.
local COLUMNS = {"", "batch", "resin ms", "PyTorch ms", "ratio", "range", "floor", "target",
    "resin MB", "PyTorch MB", "memory", "at most", "GFLOP/s", "of the peak"}

local function cells_of(result)
    local row, torch = result.row, result.torch
    local memory, most = memory_text(row, torch)
    return {
        row.name, tostring(result.batch), number(result.resin.ms),
        ("%s (%s)"):format(number(torch.ms), torch.layout:upper()), times(torch.ratio.median),
        ("%.2f to %.2f"):format(torch.ratio.low, torch.ratio.high), times(row.floor),
        times(row.target), number(result.resin.memory), number(torch.memory), memory, most,
        number(result.gflops), ("%.2f"):format(result.gflops / result.peak),
    }
end

local function markdown_table(rows)
    local lines = {}
    for position, cells in ipairs(rows) do
        lines[#lines + 1] = "| " .. table.concat(cells, " | ") .. " |"
        if position == 1 then lines[2] = "|" .. ("---|"):rep(#cells) end
    end
    return table.concat(lines, "\n")
end

local function onnxruntime_table(results)
    local rows = {{"", "resin ms", "onnxruntime ms", "ratio", "range", "floor"}}
    for _, result in ipairs(results) do
        local other = result.onnxruntime
        if other then
            rows[#rows + 1] = {result.row.name, number(result.resin.ms), number(other.ms),
                times(other.ratio.median), ("%.2f to %.2f"):format(other.ratio.low,
                other.ratio.high), times(result.row.onnxruntime)}
        end
    end
    return #rows > 1 and markdown_table(rows) or nil
end

local ABOUT = [[
%s, %d thread%s; %s; resin %s (%s); rounds in turn: %d, %s s a run.
Ratio: how many times as long %s takes, the median of the rounds; PyTorch by the faster of its
memory formats.
Memory: resin's peak beside PyTorch's. Multiply-add peak of the rows %s GFLOP/s, memory read
%s GB/s, copied %s GB/s; a line of the cache from thread to thread and back (handover)
%s ns. GFLOP/s count direct convolutions, whatever the method.]]

-- "250 to 260": the least and the most of all rows; far apart on a machine that was busy.
local function range_of(results, field)
    local values = {}
    for position, result in ipairs(results) do values[position] = result[field] end
    table.sort(values)
    return ("%s to %s"):format(number(values[1]), number(values[#values]))
end

--- The tables as Markdown.
function compare.markdown(results, settings)
    local engine, rows = results[1].torch.engine, {COLUMNS}
    for _, result in ipairs(results) do rows[#rows + 1] = cells_of(result) end
    local text = ABOUT:format(processor_name(), settings.threads,
        settings.threads > 1 and "s" or "", os.date("%Y-%m-%d"), resin.version,
        resin.instruction_set(), settings.rounds, tostring(settings.seconds), engine,
        range_of(results, "peak"), range_of(results, "read"), range_of(results, "copy"),
        range_of(results, "handover"))
    if settings.busy then text = settings.busy .. "\n\n" .. text end
    return table.concat({text, markdown_table(rows), onnxruntime_table(results)}, "\n\n") .. "\n"
end

-- Every number of a result, for programs.
local function csv_line(result)
    local row, torch, other = result.row, result.torch, result.onnxruntime
    local cells = {
        row.name, row.model, row.mode, result.batch, result.resin.ms, torch.ms, torch.layout,
        torch.ratio.median, torch.ratio.low, torch.ratio.high, row.floor, row.target,
        result.resin.memory, torch.memory, torch.memory_ratio, row.memory or "", result.gflops,
        result.peak, result.read, result.copy, result.handover, other and other.ms or "",
        other and other.ratio.median or "",
    }
    for position, cell in ipairs(cells) do
        cells[position] = math.type(cell) == "float" and ("%.6g"):format(cell) or tostring(cell)
    end
    return table.concat(cells, ",")
end

local CSV_HEAD = "row,model,mode,batch,resin_ms,torch_ms,torch_layout,ratio,ratio_low,ratio_high,"
    .. "floor,target,resin_mb,torch_mb,memory_ratio,memory_most,effective_gflops,fma_peak_gflops,"
    .. "memory_read_gbs,memory_copy_gbs,handover_ns,onnxruntime_ms,onnxruntime_ratio\n"

--- The plot: a bar for each row, as SVG.
function compare.plot(results, settings)
    local rows = {}
    for _, result in ipairs(results) do
        local ratio = result.torch.ratio
        rows[#rows + 1] = {
            name = ("%s, batch %d"):format(result.row.name, result.batch), value = ratio.median,
            low = ratio.low, high = ratio.high, text = times(ratio.median),
            marks = {floor = result.row.floor, target = result.row.target},
        }
    end
    return resin.plot.bars{
        title = ("How many times as fast as %s"):format(results[1].torch.engine),
        note = ("%s, %d threads"):format(processor_name(), settings.threads),
        x_label = "time of PyTorch / time of resin; thin lines: least and most of the rounds",
        rows = rows, marks = {"floor", "target"}, line = 1,
    }
end

--- compare.md, compare.csv and compare.svg in a folder.
function compare.write(folder, results, settings)
    local lines = {CSV_HEAD}
    for _, result in ipairs(results) do lines[#lines + 1] = csv_line(result) .. "\n" end
    local texts = {md = compare.markdown(results, settings), csv = table.concat(lines),
        svg = compare.plot(results, settings)}
    for kind, text in pairs(texts) do
        files.replace(folder .. "/compare." .. kind, function(put) put(text) end)
    end
end

return compare
