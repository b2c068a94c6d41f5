--- Horizontal bars from 0, with their range and marks to compare with: plot.bars.
local svg = require "resin.plot.svg"
local chart = require "resin.plot.chart"

local bars = {}

local TOP, BOTTOM, RIGHT, ROW, THICKNESS = 56, 76, 26, 34, 18

local function length_of(text) return utf8.len(text) or #text end

-- The largest number that is drawn.
local function most_of(settings)
    local most = settings.line or 0
    for _, row in ipairs(settings.rows) do
        most = math.max(most, row.value, row.high or 0)
        for _, mark in pairs(row.marks or {}) do most = math.max(most, mark) end
    end
    return most > 0 and most or 1
end

local function draw_axis(picture, left, bottom, most, place)
    local ticks, step = chart.ticks(0, most, 8)
    local digits = math.max(0, -math.floor(math.log(step, 10) + 1e-9))
    for _, value in ipairs(ticks) do
        local x = place(value)
        picture:add('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="grid"/>', x, x, TOP, bottom)
        picture:text(x, bottom + 18, ("%." .. digits .. "f"):format(value), {anchor = "middle"})
    end
    picture:add('<path d="M%d %dV%dH%d" fill="none" class="axis"/>', left, TOP, bottom,
        picture.width - RIGHT)
end

-- The first mark is a whole line across the row, the second a dashed one.
local function draw_mark(picture, number, x, y)
    picture:add('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" class="line%d" '
        .. 'stroke-width="2.4"%s/>', x, x, y - 13, y + 13, number + 1,
        number > 1 and ' stroke-dasharray="4 3"' or "")
end

local function draw_row(picture, settings, row, y, place)
    local zero, right = place(0), place(row.value)
    picture:text(zero - 10, y + 4, row.name, {anchor = "end"})
    picture:add('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" class="fill1" '
        .. 'fill-opacity="0.85"/>', zero, y - THICKNESS / 2, math.max(right - zero, 0.5), THICKNESS)
    for number, name in ipairs(settings.marks or {}) do
        local mark = row.marks and row.marks[name]
        if mark then draw_mark(picture, number, place(mark), y) end
    end
    if row.low and row.high then
        local low, high = place(row.low), place(row.high)
        picture:add('<path d="M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8" fill="none" class="line7" '
            .. 'stroke-width="1.2"/>', low, y, high, low, y - 4, high, y - 4)
    end
    -- In the bar, where no mark is, or behind it if it is too short for that.
    local text, fits = row.text or ("%.2f"):format(row.value), right - zero > 64
    picture:text(fits and zero + 8 or right + 7, y + 4, text,
        {class = fits and "over" or "ink", more = 'font-weight="600"'})
end

-- Centred below the axis: what the lines are.
local function draw_legend(picture, settings, y)
    local names, width = settings.marks or {}, 0
    for _, name in ipairs(names) do width = width + 42 + 6.6 * length_of(name) end
    local x = (picture.width - width) / 2
    for number, name in ipairs(names) do
        draw_mark(picture, number, x + 6, y - 4)
        picture:text(x + 16, y, name)
        x = x + 42 + 6.6 * length_of(name)
    end
end

--- settings: title, note (a line below it), x_label, width, line = a number that all rows are
--- compared with (dotted), marks = {names of up to five marks}, and rows, the first on top, as
--- {name =, value =, text = (in the bar), low =, high = (its range), marks = {[name] = number}}.
--- An SVG element.
function bars.bars(settings)
    local longest = 0
    for _, row in ipairs(settings.rows) do longest = math.max(longest, length_of(row.name)) end
    local left = 24 + math.ceil(longest * 6.6)
    local height = TOP + #settings.rows * ROW + BOTTOM
    local picture = svg.picture(settings.width or 760, height, settings.title)
    local bottom, most = height - BOTTOM, most_of(settings)
    local function place(value)
        return left + value / (1.04 * most) * (picture.width - RIGHT - left)
    end
    picture:title(settings.title)
    if settings.note then
        picture:text(picture.width / 2, 42, settings.note, {anchor = "middle", class = "faint"})
    end
    draw_axis(picture, left, bottom, most, place)
    for position, row in ipairs(settings.rows) do
        draw_row(picture, settings, row, TOP + (position - 0.5) * ROW, place)
    end
    if settings.line then
        picture:add('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="line7" stroke-width="1" '
            .. 'stroke-dasharray="2 3"/>', place(settings.line), place(settings.line), TOP, bottom)
    end
    picture:text((left + picture.width - RIGHT) / 2, bottom + 38, settings.x_label or "",
        {anchor = "middle"})
    draw_legend(picture, settings, height - 14)
    return tostring(picture)
end

return bars
