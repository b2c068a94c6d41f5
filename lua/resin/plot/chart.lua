--- Line charts: plot.chart and plot.ticks.
local svg = require "resin.plot.svg"

local chart = {}

local LEFT, RIGHT, TOP, BOTTOM = 66, 20, 48, 54
local ROW = 20 -- of the legend
-- With more points than this the lines speak for themselves.
local MOST_MARKERS = 40

local function is_finite(value) return value == value and math.abs(value) ~= math.huge end

--- Round positions for about `count` marks between low and high: multiples of 1, 2 or 5 x 10^n.
function chart.ticks(low, high, count, whole)
    local rough = (high - low) / math.max(count, 1)
    local power = 10.0 ^ math.floor(math.log(rough, 10))
    local step = power * 10
    for _, factor in ipairs{1, 2, 5} do
        if factor * power >= rough then
            step = factor * power
            break
        end
    end
    if whole and step < 1 then step = 1.0 end
    local ticks = {}
    for i = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) do
        ticks[#ticks + 1] = i * step
    end
    return ticks, step
end

--- Positions on a logarithmic axis, as decimal logarithms: powers of ten, and between them 2 and 5
--- where there are few.
function chart.log_ticks(low, high, count)
    local ticks = chart.ticks(low, high, count, true)
    if #ticks > 2 then return ticks end
    ticks = {}
    for power = math.floor(low), math.ceil(high) do
        for _, factor in ipairs{1, 2, 5} do
            local tick = power + math.log(factor, 10)
            if tick >= low and tick <= high then ticks[#ticks + 1] = tick end
        end
    end
    return ticks
end

local function tick_text(value, step)
    local digits = math.max(0, -math.floor(math.log(step, 10) + 1e-9))
    if digits > 6 or math.abs(value) >= 1e7 then return ("%.3g"):format(value) end
    return (("%." .. digits .. "f"):format(value):gsub("^%-", "−"))
end

-- The range of all finite values of one axis, never empty.
local function range_of(series, axis)
    local low, high = math.huge, -math.huge
    for _, line in ipairs(series) do
        for i, value in ipairs(line[axis]) do
            if is_finite(value) and is_finite(line.y[i] or 0 / 0) then
                low, high = math.min(low, value), math.max(high, value)
            end
        end
    end
    if low > high then low, high = 0, 1 end
    if low == high then
        local margin = low == 0 and 1 or math.abs(low) * 0.1
        if axis == "x" then margin = 0.5 end
        low, high = low - margin, high + margin
    end
    return low, high
end

-- A circle, a square or a diamond, so that the lines differ without their colours, too.
local function marker(picture, number, x, y)
    local kind = (number - 1) % 3
    local class = (number - 1) % svg.colours + 1
    if kind == 0 then
        picture:add('<circle cx="%.1f" cy="%.1f" r="3" class="fill%d"/>', x, y, class)
        return
    end
    local turn = kind == 2 and (' transform="rotate(45 %.1f %.1f)"'):format(x, y) or ""
    picture:add('<rect x="%.1f" y="%.1f" width="5.4" height="5.4" class="fill%d"%s/>', x - 2.7,
        y - 2.7, class, turn)
end

local function has_markers(line) return #line.x <= MOST_MARKERS end

local function dashes(line) return line.dashed and ' stroke-dasharray="6 4"' or "" end

-- One line for each stretch of finite values, and markers where there are few points.
local function draw_series(picture, number, line, place_x, place_y)
    local path, pen_is_down = {}, false
    for i, x in ipairs(line.x) do
        local y = line.y[i] or 0 / 0
        local drawable = is_finite(x) and is_finite(y)
        if drawable then
            path[#path + 1] = ("%s%.1f %.1f"):format(pen_is_down and "L" or "M", place_x(x),
                place_y(y))
        end
        pen_is_down = drawable
    end
    picture:add('<path d="%s" fill="none" class="line%d" stroke-width="2" '
        .. 'stroke-linejoin="round" stroke-linecap="round"%s/>', table.concat(path, " "),
        (number - 1) % svg.colours + 1, dashes(line))
    for i, x in ipairs(has_markers(line) and line.x or {}) do
        local y = line.y[i] or 0 / 0
        if is_finite(x) and is_finite(y) then marker(picture, number, place_x(x), place_y(y)) end
    end
end

-- The series in rows that fit into the picture: lists of {number, name, width}, with their width.
local function legend_rows(series, width)
    local rows = {}
    for i, line in ipairs(series) do
        local name = line.name or ""
        local entry, row = {i, name, 54 + 6.6 * (utf8.len(name) or #name)}, rows[#rows]
        if not row or row.width + entry[3] > width then
            row = {width = 0}
            rows[#rows + 1] = row
        end
        row[#row + 1], row.width = entry, row.width + entry[3]
    end
    return rows
end

-- The names of the series with their colours, below the title.
local function draw_legend(picture, rows, series)
    for number, row in ipairs(rows) do
        local x, y = math.max((picture.width - row.width + 24) / 2, 8), 26 + number * ROW
        for _, entry in ipairs(row) do
            picture:add('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="line%d" '
                .. 'stroke-width="2"%s/>', x, x + 24, y, y, (entry[1] - 1) % svg.colours + 1,
                dashes(series[entry[1]]))
            if has_markers(series[entry[1]]) then marker(picture, entry[1], x + 12, y) end
            picture:text(x + 30, y + 4, entry[2])
            x = x + entry[3]
        end
    end
end

-- Positions and texts of the marks of the vertical axis.
local function y_marks(y_range)
    local texts = {}
    if y_range.log then
        local ticks = chart.log_ticks(y_range[1], y_range[2], 6)
        for i, value in ipairs(ticks) do texts[i] = ("%.6g"):format(10 ^ value) end
        return ticks, texts
    end
    local ticks, step = chart.ticks(y_range[1], y_range[2], 6)
    for i, value in ipairs(ticks) do texts[i] = tick_text(value, step) end
    return ticks, texts
end

local function draw_axes(picture, top, x_range, y_range, place_x, place_y)
    local right, bottom = picture.width - RIGHT, picture.height - BOTTOM
    local marks, texts = y_marks(y_range)
    for i, value in ipairs(marks) do
        local y = place_y(value)
        picture:add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/>', LEFT, right, y, y)
        picture:text(LEFT - 9, y + 4, texts[i], {anchor = "end"})
    end
    local ticks, step = chart.ticks(x_range[1], x_range[2], 9, x_range[2] - x_range[1] >= 1)
    for _, value in ipairs(ticks) do
        local x = place_x(value)
        picture:add('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="axis"/>', x, x, bottom,
            bottom + 5)
        picture:text(x, bottom + 19, tick_text(value, step), {anchor = "middle"})
    end
    picture:add('<path d="M%d %dV%dH%d" fill="none" class="axis"/>', LEFT, top, bottom, right)
end

-- The series with the decimal logarithms of their values; what has none is not finite then.
local function logarithms(series)
    local list = {}
    for i, line in ipairs(series) do
        list[i] = {name = line.name, x = line.x, y = {}, dashed = line.dashed}
        for j, value in ipairs(line.y) do list[i].y[j] = math.log(math.max(value, 0), 10) end
    end
    return list
end

-- The ends of the vertical axis: those that were asked for, or a little more than the values.
local function y_range_of(settings, series)
    local low, high = range_of(series, "y")
    local margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    if settings.y_range then
        low, high = table.unpack(settings.y_range)
        if settings.y_log then low, high = math.log(low, 10), math.log(high, 10) end
    end
    return low, high
end

--- An SVG element with one line chart. settings: title, x_label, y_label, width, height, and
---
---   series    {{name = ..., x = {...}, y = {...}, dashed = false}, ...}; values that are not
---             finite leave a gap
---   y_log     a logarithmic vertical axis; values of 0 and below leave a gap
---   y_range   {low, high}: the ends of the vertical axis, so that several charts have the same
function chart.chart(settings)
    local width = settings.width or 560
    local legend = legend_rows(settings.series, width)
    local top = TOP + #legend * ROW
    -- Rows of the legend beyond the first make the picture taller.
    local height = (settings.height or 380) + math.max(#legend - 1, 0) * ROW
    local picture = svg.picture(width, height, settings.title)
    local right, bottom = picture.width - RIGHT, picture.height - BOTTOM
    local series = settings.y_log and logarithms(settings.series) or settings.series
    local x_low, x_high = range_of(series, "x")
    local y_low, y_high = y_range_of(settings, series)
    local x_margin = 0.02 * (x_high - x_low)
    local function place_x(x)
        local share = (x - x_low + x_margin) / (x_high - x_low + 2 * x_margin)
        return LEFT + share * (right - LEFT)
    end
    local function place_y(y) return bottom - (y - y_low) / (y_high - y_low) * (bottom - top) end

    picture:title(settings.title)
    draw_axes(picture, top, {x_low, x_high}, {y_low, y_high, log = settings.y_log}, place_x,
        place_y)
    picture:text((LEFT + right) / 2, picture.height - 14, settings.x_label or "",
        {anchor = "middle"})
    picture:text(0, 0, settings.y_label or "", {anchor = "middle",
        more = ('transform="translate(18 %.1f) rotate(-90)"'):format((top + bottom) / 2)})
    for i, line in ipairs(series) do draw_series(picture, i, line, place_x, place_y) end
    draw_legend(picture, legend, series)
    return tostring(picture)
end

return chart
