--- Several pictures as one: plot.sheet.
local svg = require "resin.plot.svg"

local sheet = {}

local TITLE, NOTE = 34, 20

local function size_of(picture)
    local width, height = picture:match('^<svg [^>]-width="(%d+)" height="(%d+)"')
    if not width then error("plot.sheet: expected pictures that resin.plot has made", 0) end
    return tonumber(width), tonumber(height)
end

-- Where the pictures go: {{x, y}, ...}, and what all of them take.
local function places_of(pictures, columns, top)
    local places, width, x, y, row_height = {}, 0, 0, top, 0
    for i, picture in ipairs(pictures) do
        local own_width, own_height = size_of(picture)
        if (i - 1) % columns == 0 then x, y, row_height = 0, y + row_height, 0 end
        places[i] = {x, y}
        x, row_height = x + own_width, math.max(row_height, own_height)
        width = math.max(width, x)
    end
    return places, width, y + row_height
end

--- plot.sheet{title =, note = (a line below it), columns = 2, picture, ...}: an SVG element with
--- the pictures (SVG elements of resin.plot) in rows.
function sheet.sheet(settings)
    local top = (settings.title and TITLE or 0) + (settings.note and NOTE or 0)
    local places, width, height = places_of(settings, settings.columns or 2, top)
    local picture = svg.picture(width, height, settings.title)
    if settings.title then picture:title(settings.title) end
    if settings.note then
        picture:text(width / 2, top - 8, settings.note, {anchor = "middle", class = "faint"})
    end
    for i, place in ipairs(places) do
        picture:add((settings[i]:gsub("^<svg ", ('<svg x="%d" y="%d" '):format(place[1], place[2]),
            1)))
    end
    return tostring(picture)
end

return sheet
