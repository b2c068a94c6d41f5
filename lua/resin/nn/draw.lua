--- model:draw("x.svg"): the graph as a picture, layers as boxes with name, kind and output shape.
local check = require "resin.nn.check"
local files = require "resin.files"
local layout = require "resin.nn.draw_layout"
local svg = require "resin.plot.svg"
local unfold = require "resin.nn.unfold"

local draw = {}

local MARGIN, TOP = 24, 92
local LEAST_WIDTH = 500
local NARROWEST, WIDEST = 140, 250
-- About how wide a letter is.
local NAME_LETTER, TEXT_LETTER = 7, 6.1

---- What a box says ----------------------------------------------------------------------------

local WEIGHTS, NORM, ACTIVATION, POOL, JOIN, OTHER = 1, 4, 3, 5, 2, 6
local FAMILIES = {
    {WEIGHTS, "weights"}, {NORM, "normalization"}, {ACTIVATION, "activation"}, {POOL, "pooling"},
    {JOIN, "joining"}, {OTHER, "others"},
}

-- The colour of a kind.
local function family_of(layer)
    local kind = layer.class_name
    if kind:find("^Conv") or kind == "Dense" or layer.composite then return WEIGHTS end
    if kind:find("Normalization") then return NORM end
    if layer.kind then return ACTIVATION end
    if kind:find("Pooling") then return POOL end
    if kind == "Add" or kind == "Multiply" or kind == "Concatenate" then return JOIN end
    return OTHER
end

-- {2, 2} as "2", {2, 1} as "2×1".
local function pair_text(pair)
    return pair[1] == pair[2] and tostring(pair[1]) or pair[1] .. "×" .. pair[2]
end

-- The kind of a layer with what matters: "Conv2D 3×3 /2", the stride behind the slash.
local function kind_text(layer)
    local text = layer.class_name
    if layer.user or layer.composite then return text end
    if text == "Activation" then text = "Activation " .. tostring(layer.kind):gsub(":.*", "") end
    if text == "BatchNormalization" then text = "BatchNorm" end
    text = text:gsub("AveragePooling2D", "AvgPool"):gsub("MaxPooling2D", "MaxPool")
    if type(layer.kernel) == "table" then
        text = ("%s %d×%d"):format(text, layer.kernel[1], layer.kernel[2])
        local stride = pair_text(layer.stride)
        if stride ~= "1" then text = text .. " /" .. stride end
        if (layer.groups or 1) > 1 then text = text .. " g" .. layer.groups end
    end
    if type(layer.activation) == "string" and layer.activation ~= "linear" then
        text = text .. " " .. layer.activation
    end
    return text
end

-- Whether a layer stands close to the one above it.
local function follows(family, kind, inputs)
    if family == NORM then return inputs[1].family == WEIGHTS end
    return family == ACTIVATION or kind == "Dropout"
end

local function item_of(step, item_of_step)
    local inputs = {}
    for position, input in ipairs(step.inputs) do inputs[position] = item_of_step[input] end
    local family = family_of(step.layer)
    local kind = step.layer.class_name
    return {
        inputs = inputs, family = family, name = step.name, kind = kind_text(step.layer),
        shape = table.concat(step.sizes, "×"),
        sums = kind == "Add" and #inputs == 2,
        follows = follows(family, kind, inputs),
    }
end

---- Drawing ------------------------------------------------------------------------------------

local function text_width(item)
    local name = utf8.len(item.name) or #item.name
    local below = utf8.len(item.kind) + utf8.len(item.shape) + 2
    return math.max(name * NAME_LETTER, below * TEXT_LETTER) + 20
end

local function rectangle(picture, box, width, more)
    picture:add('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="4" %s/>', box.x, box.y, width,
        layout.BOX_HEIGHT, more)
end

local function draw_box(picture, box, width)
    local item = box.item
    rectangle(picture, box, width, 'class="paper"') -- lines must not shine through
    if box.ghost then
        rectangle(picture, box, width, 'class="axis" fill="none" stroke-dasharray="3 3"')
    else
        rectangle(picture, box, width, ('class="fill%d" fill-opacity="0.13"'):format(item.family))
        rectangle(picture, box, width, ('class="line%d" fill="none" stroke-opacity="0.45"'):format(
            item.family))
        picture:add('<rect x="%.1f" y="%.1f" width="4" height="%d" rx="2" class="fill%d"/>', box.x,
            box.y, layout.BOX_HEIGHT, item.family)
    end
    local room = width - 18
    picture:text(box.x + 10, box.y + 13, svg.shorten(item.name, room // NAME_LETTER),
        {class = box.ghost and "faint" or "ink", more = 'font-size="11.5" font-weight="600"'})
    local kind = svg.shorten(item.kind, room // TEXT_LETTER - utf8.len(item.shape) - 2)
    picture:text(box.x + 10, box.y + 26.5, box.ghost and "continued" or kind,
        {class = "faint", more = 'font-size="10.5"'})
    picture:text(box.x + width - 8, box.y + 26.5, item.shape,
        {anchor = "end", class = box.ghost and "faint" or "ink", more = 'font-size="10.5"'})
end

local HEADS = {down = "-3.5 -5l3.5 5l3.5 -5", right = "-5 -3.5l5 3.5l-5 3.5",
    left = "5 -3.5l-5 3.5l5 3.5"}

local function draw_line(picture, line)
    local style = ('class="%s" stroke-width="1.5"'):format(line.shortcut and "line2" or "axis")
    picture:add('<path d="%s" fill="none" %s/>', line.path, style)
    -- Between boxes that nearly touch there is no room for an arrow.
    if line.kind == "straight" and line.to.y - line.from.y - layout.BOX_HEIGHT < 8 then return end
    picture:add('<path d="M%.1f %.1fm%s" fill="none" %s/>', line.x, line.y, HEADS[line.direction],
        style)
end

local LEGEND_LETTER, LEGEND_GAP = 6.2, 28

local function draw_legend(picture, middle, y)
    local width = -LEGEND_GAP / 2
    for _, family in ipairs(FAMILIES) do width = width + LEGEND_GAP + #family[2] * LEGEND_LETTER end
    local x = middle - width / 2
    for _, family in ipairs(FAMILIES) do
        picture:add('<rect x="%.1f" y="%.1f" width="10" height="10" rx="2" class="fill%d"/>', x,
            y - 9, family[1])
        picture:text(x + 14, y, family[2], {class = "faint", more = 'font-size="11"'})
        x = x + LEGEND_GAP + #family[2] * LEGEND_LETTER
    end
end

local function grouped(number)
    local text = ("%d"):format(number):reverse():gsub("(%d%d%d)", "%1,"):reverse()
    return (text:gsub("^,", ""))
end

--- model:draw([path][, {title =, expand = false, columns =}]): writes the picture to a file, or
--- returns it as a string without one. Each layer is a box with name, kind (3×3 /2: kernel and
--- stride, g32: groups) and output shape without the batch; what leaps over layers is a curve beside
--- them. expand opens layers made of layers; columns folds the picture into that many.
function draw.draw(model, path, options)
    if type(path) == "table" then path, options = nil, path end
    options = check.options("draw", options or {},
        {title = check.optional, expand = false, columns = check.optional})
    if options.columns then check.integer("draw", "columns", options.columns, 1) end
    local steps = unfold.steps(model, function() return options.expand end)
    local items, item_of_step, box_width = {}, {}, NARROWEST
    for position, step in ipairs(steps) do
        items[position] = item_of(step, item_of_step)
        item_of_step[step] = items[position]
        box_width = math.max(box_width, math.min(text_width(items[position]), WIDEST))
    end
    local arranged = layout.arrange(items, box_width, MARGIN, TOP, options.columns)
    local width = math.max(arranged.width + 2 * MARGIN, LEAST_WIDTH)
    local title = options.title or model.name or model.default_name
    local picture = svg.picture(width, TOP + arranged.height + MARGIN, title)
    picture:title(title)
    picture:text(width / 2, 44, ("%d layers, %s parameters; shapes are without the batch"):format(
        #steps, grouped((model:count()))), {anchor = "middle", class = "faint"})
    draw_legend(picture, width / 2, 64)
    -- Narrow pictures stand in the middle.
    picture:add('<g transform="translate(%.1f 0)">', (width - arranged.width) / 2 - MARGIN)
    for _, shortcut in ipairs{true, false} do -- what lines share belongs to those on the main way
        for _, line in ipairs(arranged.lines) do
            if (line.shortcut == true) == shortcut then draw_line(picture, line) end
        end
    end
    for _, box in ipairs(arranged.boxes) do draw_box(picture, box, box_width) end
    picture:add("</g>")
    local text = tostring(picture)
    if not path then return text end
    files.replace(path, function(put) put(text) end)
end

return draw
