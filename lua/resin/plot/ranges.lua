--- Values of several repetitions by row, with their mean and range: plot.ranges.
local svg = require "resin.plot.svg"
local chart = require "resin.plot.chart"

local ranges = {}

local TOP, BOTTOM, RIGHT, ROW = 50, 52, 26, 44

-- The smallest, the largest and the mean of a list.
local function facts(values)
    local low, high, sum = math.huge, -math.huge, 0
    for _, value in ipairs(values) do
        low, high, sum = math.min(low, value), math.max(high, value), sum + value
    end
    return low, high, sum / #values
end

local function range_of(rows)
    local low, high = math.huge, -math.huge
    for _, row in ipairs(rows) do
        local least, most = facts(row.values)
        low, high = math.min(low, least), math.max(high, most)
    end
    local margin = high > low and 0.08 * (high - low) or math.max(math.abs(high) * 0.1, 1e-3)
    return low - margin, high + margin
end

local function draw_axis(picture, left, bottom, low, high, place)
    local ticks, step = chart.ticks(low, high, 7)
    local digits = math.max(0, -math.floor(math.log(step, 10) + 1e-9))
    for _, value in ipairs(ticks) do
        local x = place(value)
        picture:add('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="grid"/>', x, x, TOP, bottom)
        picture:text(x, bottom + 18, ("%." .. digits .. "f"):format(value), {anchor = "middle"})
    end
    picture:add('<path d="M%d %dH%d" fill="none" class="axis"/>', left, bottom,
        picture.width - RIGHT)
end

-- A bar from the smallest to the largest value, a stroke at the mean, a circle for each value; each
-- a little lower than the one before, so that equal ones are seen.
local function draw_row(picture, row, y, place)
    local low, high, mean = facts(row.values)
    local class = ((row.colour or 1) - 1) % svg.colours + 1
    picture:add('<rect x="%.1f" y="%.1f" width="%.1f" height="18" rx="3" class="fill%d" '
        .. 'fill-opacity="0.25"/>', place(low), y - 9, math.max(place(high) - place(low), 1), class)
    local count = #row.values
    for i, value in ipairs(row.values) do
        picture:add('<circle cx="%.1f" cy="%.1f" r="3" class="fill%d"/>', place(value),
            y + (i - (count + 1) / 2) * math.min(5, 15 / count), class)
    end
    picture:add('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" class="line%d" stroke-width="2.4"/>',
        place(mean), place(mean), y - 12, y + 12, class)
end

--- settings: title, note (a line below it), x_label, width, and rows = {{name =, note = (a line
--- below the name), values = {...}, colour = 1}, ...}, the first on top. An SVG element.
function ranges.ranges(settings)
    local longest = 0
    for _, row in ipairs(settings.rows) do
        for _, text in ipairs{row.name, row.note or ""} do
            longest = math.max(longest, utf8.len(text) or #text)
        end
    end
    local left = 24 + math.ceil(longest * 6.6)
    local picture = svg.picture(settings.width or 760, TOP + #settings.rows * ROW + BOTTOM,
        settings.title)
    local bottom, low, high = picture.height - BOTTOM, range_of(settings.rows)
    local function place(value)
        return left + (value - low) / (high - low) * (picture.width - RIGHT - left)
    end
    picture:title(settings.title)
    if settings.note then
        picture:text(picture.width / 2, 42, settings.note, {anchor = "middle", class = "faint"})
    end
    draw_axis(picture, left, bottom, low, high, place)
    for i, row in ipairs(settings.rows) do
        local y = TOP + (i - 0.5) * ROW
        picture:text(left - 12, y + (row.note and -2 or 4), row.name, {anchor = "end"})
        if row.note then
            picture:text(left - 12, y + 13, row.note, {anchor = "end", class = "faint"})
        end
        draw_row(picture, row, y, place)
    end
    picture:text((left + picture.width - RIGHT) / 2, picture.height - 14, settings.x_label or "",
        {anchor = "middle"})
    return tostring(picture)
end

return ranges
