--- What all pictures share: the frame of an SVG element, its colours in light and dark, its text.
local svg = {}

-- Told apart by colour-blind readers, too (Okabe and Ito, "Color universal design", 2008); on a
-- dark ground the dark ones of them are exchanged for lighter ones.
local LIGHT = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#222222"}
local DARK = {"#56b4e9", "#ff9a57", "#2cc79b", "#e6a3c8", "#f0e442", "#9ecbff", "#eeeeee"}
svg.colours = #LIGHT

local INK = {
    light = {paper = "#ffffff", ink = "#1f2328", faint = "#656d76", grid = "#e3e6ea",
        axis = "#8b949e", over = "#ffffff"},
    dark = {paper = "#14171c", ink = "#e8eaed", faint = "#9aa3ad", grid = "#2b3038",
        axis = "#6b747f", over = "#10131a"},
}

-- Rules for shapes: .lineN and .fillN of the N-th colour, .paper, .ink, .faint, .grid, .axis, and
-- .over for text on a filled shape. Plain classes, since not every viewer knows variables.
local function rules(ink, colours)
    local out = {}
    local function add(class, property, colour)
        out[#out + 1] = (".resin .%s{%s:%s}"):format(class, property, colour)
    end
    for _, class in ipairs{"paper", "ink", "faint", "over"} do add(class, "fill", ink[class]) end
    for _, class in ipairs{"grid", "axis"} do add(class, "stroke", ink[class]) end
    for i, colour in ipairs(colours) do
        add("line" .. i, "stroke", colour)
        add("fill" .. i, "fill", colour)
    end
    return table.concat(out)
end

local STYLE = rules(INK.light, LIGHT) .. "@media (prefers-color-scheme:dark){"
    .. rules(INK.dark, DARK) .. "}"

--- The colours of a page around the pictures, as CSS variables.
function svg.page_colours()
    local function variables(ink, colours)
        return (":root{--paper:%s;--ink:%s;--faint:%s;--grid:%s;--first:%s;--second:%s}"):format(
            ink.paper, ink.ink, ink.faint, ink.grid, colours[1], colours[2])
    end
    return variables(INK.light, LIGHT) .. "\n@media (prefers-color-scheme:dark){"
        .. variables(INK.dark, DARK) .. "}"
end

--- Text with what HTML and SVG read as marks replaced.
function svg.escape(text)
    return (tostring(text):gsub("[&<>\"]",
        {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;"}))
end

--- A text of at most `count` characters of UTF-8.
function svg.shorten(text, count)
    text = tostring(text)
    local length = utf8.len(text)
    if not length or length <= count then return text end
    return text:sub(1, utf8.offset(text, count) - 1) .. "…"
end

--- A picture to draw on: picture:add(format, ...), picture:text(x, y, text, {anchor =, class =,
--- more =}), tostring(picture).
local Picture = {}
Picture.__index = Picture

function Picture:add(text, ...)
    self[#self + 1] = select("#", ...) > 0 and text:format(...) or text
end

function Picture:text(x, y, text, options)
    options = options or {}
    self:add('<text x="%.1f" y="%.1f" text-anchor="%s" class="%s"%s>%s</text>', x, y,
        options.anchor or "start", options.class or "ink",
        options.more and " " .. options.more or "", svg.escape(text))
end

function Picture:title(title)
    self:text(self.width / 2, 24, title or "",
        {anchor = "middle", more = 'font-size="15" font-weight="600"'})
end

function Picture:__tostring() return table.concat(self, "\n") .. "\n</svg>" end

function svg.picture(width, height, title)
    width, height = math.ceil(width), math.ceil(height)
    local picture = setmetatable({width = width, height = height}, Picture)
    picture:add('<svg xmlns="http://www.w3.org/2000/svg" class="resin" width="%d" height="%d" '
        .. 'viewBox="0 0 %d %d" role="img" aria-label="%s" '
        .. 'font-family="system-ui, -apple-system, \'Segoe UI\', \'DejaVu Sans\', sans-serif" '
        .. 'font-size="12">', width, height, width, height, svg.escape(title or ""))
    picture:add("<style>" .. STYLE .. "</style>")
    picture:add('<rect width="%d" height="%d" class="paper"/>', width, height)
    return picture
end

return svg
