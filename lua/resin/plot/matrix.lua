--- A confusion matrix as SVG: plot.confusion.
local svg = require "resin.plot.svg"

local matrix = {}

local TOP, MARGIN = 44, 18
-- Above this many classes cells are too small for numbers and names.
local MOST_WITH_TEXT = 24
local LONGEST_NAME = 18

-- How strongly a cell is filled. Mistakes are rare: the root lets one in a hundred still be seen.
local function strength(share, right) return right and 0.08 + 0.92 * share or share ^ 0.5 end

local function draw_cell(picture, x, y, size, count, total, right, with_text)
    if count == 0 then return end
    local fill = strength(count / total, right)
    picture:add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="fill%d" '
        .. 'fill-opacity="%.3f"/>', x, y, size, size, right and 1 or 2, fill)
    if with_text then
        picture:text(x + size / 2, y + size / 2 + 4, count,
            {anchor = "middle", class = fill > 0.55 and "over" or "ink", more = 'font-size="11"'})
    end
end

local function draw_names(picture, names, left, top, size)
    for i, name in ipairs(names) do
        name = svg.shorten(name, LONGEST_NAME)
        picture:text(left - 8, top + (i - 0.5) * size + 4, name, {anchor = "end"})
        picture:text(0, 0, name, {more = ('transform="translate(%.1f %.1f) rotate(-45)"'):format(
            left + (i - 0.4) * size, top - 8)})
    end
end

-- Where there is no room for names: every tenth class's number.
local function draw_numbers(picture, left, top, size, classes)
    for i = 10, classes, 10 do
        picture:text(left - 5, top + (i - 0.5) * size + 3.5, i,
            {anchor = "end", class = "faint", more = 'font-size="10"'})
        picture:text(left + (i - 0.5) * size, top - 5, i,
            {anchor = "middle", class = "faint", more = 'font-size="10"'})
    end
end

local function draw_lines(picture, left, top, size, classes)
    local every = classes > MOST_WITH_TEXT and 10 or 1
    local side = size * classes
    for i = 0, classes do
        if i % every == 0 or i == classes then
            picture:add('<path d="M%.1f %.1fv%.1fM%.1f %.1fh%.1f" class="grid"/>', left + i * size,
                top, side, left, top + i * size, side)
        end
    end
end

--- settings: title, names (of the classes), counts (counts[true class][predicted class]).
function matrix.confusion(settings)
    local counts, classes = settings.counts, #settings.counts
    local with_text = classes <= MOST_WITH_TEXT
    local size = with_text and math.max(32, math.min(42, 460 / classes)) or
        math.max(3, 560 / classes)
    local longest = 0
    for _, name in ipairs(with_text and settings.names or {}) do
        longest = math.max(longest, math.min(utf8.len(name) or #name, LONGEST_NAME))
    end
    local left, top = MARGIN + 22 + longest * 6.6, TOP + 22 + longest * 5
    local side = size * classes
    local recall_width = with_text and 72 or 0
    local picture = svg.picture(left + side + recall_width + MARGIN,
        top + side + MARGIN, settings.title)
    picture:title(settings.title)
    picture:text(left + side / 2, TOP, "predicted class", {anchor = "middle", class = "faint"})
    picture:text(0, 0, "true class", {anchor = "middle", class = "faint",
        more = ('transform="translate(%d %.1f) rotate(-90)"'):format(MARGIN, top + side / 2)})
    if with_text then
        draw_names(picture, settings.names, left, top, size)
        picture:text(left + side + 12, top - 8, "recall", {class = "faint"})
    else
        draw_numbers(picture, left, top, size, classes)
    end
    draw_lines(picture, left, top, size, classes)
    for i, row in ipairs(counts) do
        local total = 0
        for _, count in ipairs(row) do total = total + count end
        for j, count in ipairs(row) do
            draw_cell(picture, left + (j - 1) * size, top + (i - 1) * size, size, count, total,
                i == j, with_text)
        end
        if with_text and total > 0 then
            picture:text(left + side + 12, top + (i - 0.5) * size + 4,
                ("%.1f %%"):format(100 * row[i] / total))
        end
    end
    return tostring(picture)
end

return matrix
