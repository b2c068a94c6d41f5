--- How the time of a step grows with threads, batch and image: what scripts/bench.lua --scaling
--- prints.
local resin = require "resin"
local step = require "resin.bench.step"
local text_table = require "resin.bench.table"

local scaling = {}

-- Seconds of a step, and what the machine does at most at that moment.
local function measure(settings, changes, threads)
    local all = {}
    for _, given in ipairs{settings, changes} do
        for key, value in pairs(given) do all[key] = value end
    end
    resin.set_threads(threads)
    local one = step.new(all)
    local seconds = step.median(step.times(one, settings.seconds))
    return {seconds = seconds, batch = one.batch, side = one.side, threads = threads}
end

-- 1, 2, 4 ... and the last one.
local function doubled(last)
    local list, value = {}, 1
    while value < last do
        list[#list + 1] = value
        value = 2 * value
    end
    list[#list + 1] = last
    return list
end

local function collect_after(result)
    collectgarbage()
    resin.trim_memory()
    return result
end

--- By threads 1, 2, 4 ... up to `most`, by batches from 1/8 to twice the usual one, and by sides of
--- the image from half to one and a half: three lists of {threads, batch, side, seconds}; those by
--- threads have fma_peak (GFLOP/s).
function scaling.measure(settings, most)
    local usual = resin.models.bench[settings.model]
    local batch = settings.batch or usual.batch
    local result = {threads = {}, batches = {}, sides = {}}
    for _, threads in ipairs(doubled(most)) do
        local row = collect_after(measure(settings, {}, threads))
        row.fma_peak = resin.fma_peak()
        table.insert(result.threads, row)
    end
    local seen = {}
    for _, factor in ipairs{1 / 8, 1 / 4, 1 / 2, 1, 2} do
        local size = math.max(1, math.floor(batch * factor))
        if not seen[size] then
            seen[size] = true
            table.insert(result.batches, collect_after(measure(settings, {batch = size}, most)))
        end
    end
    for _, factor in ipairs{0.5, 0.75, 1, 1.5} do
        local side = math.floor(usual.side * factor / 8 + 0.5) * 8
        table.insert(result.sides, collect_after(measure(settings, {side = side}, most)))
    end
    return result
end

local number = text_table.number

local function images_per_second(row) return row.batch / row.seconds end

local function thread_lines(rows)
    local lines, first = {{"threads", "ms", "images/s", "times 1 thread", "peak GFLOP/s",
        "times 1 thread"}, "-"}, rows[1]
    for _, row in ipairs(rows) do
        lines[#lines + 1] = {tostring(row.threads), number(row.seconds * 1e3),
            number(images_per_second(row)), ("%.2f"):format(first.seconds / row.seconds),
            number(row.fma_peak), ("%.2f"):format(row.fma_peak / first.fma_peak)}
    end
    return text_table.text(lines, 0)
end

-- `size` of a row is what the cost should be linear in; the last column is what a unit of it costs,
-- as a multiple of the least.
local function size_lines(heads, rows, size, cell, unit)
    local lines, least = {heads, "-"}, math.huge
    for _, row in ipairs(rows) do least = math.min(least, row.seconds / size(row)) end
    for _, row in ipairs(rows) do
        local each = row.seconds / size(row)
        lines[#lines + 1] = {cell(row), number(row.seconds * 1e3), number(images_per_second(row)),
            number(each * unit), ("%.2f"):format(each / least)}
    end
    return text_table.text(lines, 0)
end

--- The tables as text.
function scaling.text(result)
    return table.concat({
        thread_lines(result.threads),
        size_lines({"batch", "ms", "images/s", "ms an image", "times the least"}, result.batches,
            function(row) return row.batch end, function(row) return tostring(row.batch) end, 1e3),
        size_lines({"image", "ms", "images/s", "ns a pixel", "times the least"}, result.sides,
            function(row) return row.batch * row.side ^ 2 end,
            function(row) return ("%dx%d"):format(row.side, row.side) end, 1e9),
    }, "\n\n")
end

return scaling
