--- Line charts as SVG and small self-contained reports as HTML. Plain text out, nothing needed to
-- look at it but a browser.
--
--     local svg = plot.chart{
--         title = "Loss over Epochs", x_label = "Epoch", y_label = "Loss",
--         series = {{name = "Training Loss", x = {1, 2, 3}, y = {2.3, 1.9, 1.7}}},
--     }
local plot = {}

-- Told apart by colour-blind readers, too (Okabe and Ito, "Color universal design", 2008).
local COLOURS = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}
local LEFT, RIGHT, TOP, BOTTOM = 64, 16, 58, 52

local function escape(text)
    return (tostring(text):gsub("[&<>\"]",
        {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;"}))
end

local function is_finite(value) return value == value and math.abs(value) ~= math.huge end

--- Round positions for about `count` marks between low and high: multiples of 1, 2 or 5 x 10^n.
function plot.ticks(low, high, count, whole)
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

local function tick_text(value, step)
    local digits = math.max(0, -math.floor(math.log(step, 10) + 1e-9))
    if digits > 6 or math.abs(value) >= 1e7 then return ("%.3g"):format(value) end
    return ("%." .. digits .. "f"):format(value)
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

-- A series as SVG: one line per stretch of finite values, and a dot where there are few points.
local function draw_series(line, colour, place_x, place_y)
    local out, path, pen_is_down = {}, {}, false
    for i, x in ipairs(line.x) do
        local y = line.y[i] or 0 / 0
        local drawable = is_finite(x) and is_finite(y)
        if drawable then
            local command = pen_is_down and "L" or "M"
            path[#path + 1] = ("%s%.1f %.1f"):format(command, place_x(x), place_y(y))
            if #line.x <= 40 then
                out[#out + 1] = ('<circle cx="%.1f" cy="%.1f" r="2.6" fill="%s"/>'):format(
                    place_x(x), place_y(y), colour)
            end
        end
        pen_is_down = drawable
    end
    out[#out + 1] = ('<path d="%s" fill="none" stroke="%s" stroke-width="2" '
        .. 'stroke-linejoin="round"/>'):format(table.concat(path, " "), colour)
    return table.concat(out, "\n")
end

-- The names of the series with their colours, in a row below the title.
local function draw_legend(add, add_text, series)
    local x = LEFT
    for i, line in ipairs(series) do
        add('<line x1="%d" x2="%d" y1="42" y2="42" stroke="%s" stroke-width="3"/>', x, x + 20,
            COLOURS[(i - 1) % #COLOURS + 1])
        add_text(x + 26, 46, "start", line.name or "")
        x = x + 50 + 7 * #(line.name or "")
    end
end

--- An SVG element with one line chart. settings: title, x_label, y_label, width, height and
-- series = {{name = ..., x = {...}, y = {...}}, ...}; values that are not finite leave a gap.
function plot.chart(settings)
    local width, height = settings.width or 560, settings.height or 360
    local series = settings.series
    local x_low, x_high = range_of(series, "x")
    local y_low, y_high = range_of(series, "y")
    local margin = 0.05 * (y_high - y_low)
    y_low, y_high = y_low - margin, y_high + margin
    local function place_x(x)
        return LEFT + (x - x_low) / (x_high - x_low) * (width - LEFT - RIGHT)
    end
    local function place_y(y)
        return height - BOTTOM - (y - y_low) / (y_high - y_low) * (height - TOP - BOTTOM)
    end

    local out = {}
    local function add(text, ...) out[#out + 1] = text:format(...) end
    local function add_text(x, y, anchor, text, more)
        add('<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>', x, y, anchor, more or "",
            escape(text))
    end
    add('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
        .. 'role="img" font-family="system-ui, sans-serif" font-size="12" fill="#333">',
        width, height, width, height)
    add('<rect width="%d" height="%d" fill="#fff"/>', width, height)
    local right, bottom = width - RIGHT, height - BOTTOM
    local ticks, step = plot.ticks(y_low, y_high, 6)
    for _, value in ipairs(ticks) do
        local y = place_y(value)
        add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#e4e4e4"/>', LEFT, right, y, y)
        add_text(LEFT - 8, y + 4, "end", tick_text(value, step))
    end
    ticks, step = plot.ticks(x_low, x_high, 8, x_high - x_low >= 1)
    for _, value in ipairs(ticks) do
        local x = place_x(value)
        add('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#999"/>', x, x, bottom, bottom + 4)
        add_text(x, bottom + 18, "middle", tick_text(value, step))
    end
    add('<path d="M%d %dV%dH%d" fill="none" stroke="#999"/>', LEFT, TOP, bottom, right)
    add_text(width / 2, 22, "middle", settings.title or "", 'font-size="15" font-weight="600"')
    add_text((LEFT + right) / 2, height - 12, "middle", settings.x_label or "")
    add_text(0, 0, "middle", settings.y_label or "",
        ('transform="translate(16 %.1f) rotate(-90)"'):format((TOP + bottom) / 2))
    for i, line in ipairs(series) do
        out[#out + 1] = draw_series(line, COLOURS[(i - 1) % #COLOURS + 1], place_x, place_y)
    end
    draw_legend(add, add_text, series)
    out[#out + 1] = "</svg>"
    return table.concat(out, "\n")
end

local function html_table(rows, has_header)
    local out = {"<table>"}
    for i, row in ipairs(rows) do
        local cell = has_header and i == 1 and "th" or "td"
        local cells = {}
        for j, value in ipairs(row) do
            cells[j] = ("<%s>%s</%s>"):format(cell, escape(value), cell)
        end
        out[#out + 1] = "<tr>" .. table.concat(cells) .. "</tr>"
    end
    out[#out + 1] = "</table>"
    return table.concat(out, "\n")
end

local STYLE = [[
body { font: 15px/1.5 system-ui, sans-serif; color: #333; max-width: 1180px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 1.6em; }
table { border-collapse: collapse; } td, th { padding: 2px 14px 2px 0; text-align: left; }
td { border-top: 1px solid #e4e4e4; font-variant-numeric: tabular-nums; }
.charts { display: flex; flex-wrap: wrap; gap: 12px; } svg { max-width: 100%; height: auto; }]]

--- A whole HTML page: report.title, report.summary (a sentence), report.charts (SVG elements),
-- report.settings ({{name, value}, ...}) and report.rows (the first one holds the headings).
function plot.report(report)
    return table.concat({
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        "<title>" .. escape(report.title) .. "</title>",
        "<style>" .. STYLE .. "</style></head><body>",
        "<h1>" .. escape(report.title) .. "</h1>", "<p>" .. escape(report.summary) .. "</p>",
        '<div class="charts">', table.concat(report.charts, "\n"), "</div>",
        "<h2>Epochs</h2>", html_table(report.rows, true),
        "<h2>Settings</h2>", html_table(report.settings), "</body></html>", "",
    }, "\n")
end

return plot
