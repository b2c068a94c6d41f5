--- A picture of several panels, each with points and a line through or beside them: what single
--- trees fit, and what their sum becomes.
local svg = require "resin.plot.svg"
local ticks = require("resin.plot.chart").ticks

local WIDTH, HEIGHT = 420, 250 -- of a panel
local LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 40

local function range_of(panel, axis)
    local low, high = math.huge, -math.huge
    for _, set in ipairs{panel.points, panel.line} do
        for _, value in ipairs(set[axis]) do
            low, high = math.min(low, value), math.max(high, value)
        end
    end
    if low == high then low, high = low - 0.5, high + 0.5 end
    local margin = 0.06 * (high - low)
    return low - margin, high + margin
end

local function label(value) return (("%g"):format(value):gsub("^%-", "−")) end

local function draw_axes(picture, frame, place_x, place_y)
    for _, value in ipairs(ticks(frame.y_low, frame.y_high, 4)) do
        local y = place_y(value)
        picture:add('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" class="grid"/>', frame.left,
            frame.right, y, y)
        picture:text(frame.left - 7, y + 4, label(value), {anchor = "end"})
    end
    for _, value in ipairs(ticks(frame.x_low, frame.x_high, 5)) do
        picture:text(place_x(value), frame.bottom + 17, label(value), {anchor = "middle"})
    end
    picture:add('<path d="M%.1f %.1fV%.1fH%.1f" fill="none" class="axis"/>', frame.left, frame.top,
        frame.bottom, frame.right)
end

local function draw_panel(picture, panel, x0, y0)
    local frame = {left = x0 + LEFT, right = x0 + WIDTH - RIGHT, top = y0 + TOP,
        bottom = y0 + HEIGHT - BOTTOM}
    frame.x_low, frame.x_high = range_of(panel, "x")
    frame.y_low, frame.y_high = range_of(panel, "y")
    local function place_x(x)
        return frame.left + (x - frame.x_low) / (frame.x_high - frame.x_low)
            * (frame.right - frame.left)
    end
    local function place_y(y)
        return frame.bottom - (y - frame.y_low) / (frame.y_high - frame.y_low)
            * (frame.bottom - frame.top)
    end
    picture:text((frame.left + frame.right) / 2, y0 + 20, panel.title,
        {anchor = "middle", more = 'font-weight="600"'})
    draw_axes(picture, frame, place_x, place_y)
    for i, x in ipairs(panel.points.x) do
        picture:add('<circle cx="%.1f" cy="%.1f" r="2.2" class="fill1" fill-opacity="0.65"/>',
            place_x(x), place_y(panel.points.y[i]))
    end
    local path = {}
    for i, x in ipairs(panel.line.x) do
        path[i] = ("%s%.1f %.1f"):format(i == 1 and "M" or "L", place_x(x),
            place_y(panel.line.y[i]))
    end
    picture:add('<path d="%s" fill="none" class="line2" stroke-width="2.2"/>',
        table.concat(path, " "))
end

--- panels{title =, columns = 2, {title =, points = {x =, y =}, line = {x =, y =}}, ...}: an SVG
--- element. Points and lines are lists of numbers.
return function(given)
    local columns = given.columns or 2
    local rows = (#given + columns - 1) // columns
    local picture = svg.picture(columns * WIDTH, 40 + rows * HEIGHT, given.title)
    picture:title(given.title)
    for i, panel in ipairs(given) do
        draw_panel(picture, panel, (i - 1) % columns * WIDTH, 40 + (i - 1) // columns * HEIGHT)
    end
    return tostring(picture)
end
