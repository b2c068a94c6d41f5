--- Images in rows as SVG, each with its caption: plot.images. They are PNG files inside of it.
local core = require "resin.core"
local svg = require "resin.plot.svg"

local images = {}

local MARGIN, TOP, LINE = 20, 44, 15
local SIDE = 96 -- about how wide an image is shown

---- One image -------------------------------------------------------------------------------------

local LETTERS = {}
for letter in ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):gmatch(".") do
    LETTERS[#LETTERS + 1] = letter
end

local function base64(bytes)
    local out = {}
    for i = 1, #bytes, 3 do
        local a, b, c = bytes:byte(i, i + 2)
        local word = a << 16 | (b or 0) << 8 | (c or 0)
        local third = b and LETTERS[(word >> 6 & 63) + 1] or "="
        local fourth = c and LETTERS[(word & 63) + 1] or "="
        out[#out + 1] = LETTERS[(word >> 18) + 1] .. LETTERS[(word >> 12 & 63) + 1] .. third
            .. fourth
    end
    return table.concat(out)
end

-- Large images made smaller, by means of squares of pixels; what is over at the border is left out.
local function reduced(image)
    local factor = math.max(image:size(1), image:size(2)) // SIDE
    if factor < 2 or math.min(image:size(1), image:size(2)) < factor then
        return image:contiguous()
    end
    local height, width, channels = table.unpack(image:shape())
    return image:to("float32"):reshape{1, height, width, channels}
        :avg_pool2d{kernel = factor, stride = factor}:squeeze(1):round():to("uint8")
end

--- A uint8 image (height, width, 1 or 3 channels) as text that may stand for a file's address, its
--- width and its height.
function images.data_address(image)
    local small = core.no_grad(reduced, image)
    return "data:image/png;base64," .. base64(core.png(small)), small:size(2), small:size(1)
end

---- The grid --------------------------------------------------------------------------------------

--- settings: title, note (a line below it), columns, side (about how wide an image is shown), cell
--- (width of a column), and images = {{image = uint8 tensor, caption = {{text, class}, ...}}, ...}
--- with up to two lines below an image.
function images.images(settings)
    local list = settings.images
    local columns = math.min(settings.columns or 10, math.max(#list, 1))
    local address, width, height = {}, 1, 1
    for i, one in ipairs(list) do address[i], width, height = images.data_address(one.image) end
    local scale = math.max((settings.side or SIDE) // math.max(width, height), 1)
    local lines = 0
    for _, one in ipairs(list) do lines = math.max(lines, #(one.caption or {})) end
    width, height = width * scale, height * scale
    local cell = math.max(settings.cell or 0, width + 8)
    local row = height + lines * LINE + (lines > 0 and 16 or 8)
    local top = TOP + (settings.note and 22 or 0)
    local picture = svg.picture(math.max(columns * cell + 2 * MARGIN, settings.least_width or 0),
        top + math.ceil(#list / columns) * row + MARGIN // 2, settings.title)
    picture:title(settings.title)
    if settings.note then
        picture:text(picture.width / 2, TOP + 2, settings.note,
            {anchor = "middle", class = "faint"})
    end
    local left = (picture.width - columns * cell) / 2
    for i, one in ipairs(list) do
        local x = left + (i - 1) % columns * cell + (cell - width) / 2
        local y = top + (i - 1) // columns * row
        picture:add('<image x="%.1f" y="%.1f" width="%d" height="%d" href="%s" '
            .. 'style="image-rendering:pixelated"/>', x, y, width, height, address[i])
        for number, line in ipairs(one.caption or {}) do
            picture:text(x + width / 2, y + height + number * LINE, line[1],
                {anchor = "middle", class = line[2], more = 'font-size="11.5"'})
        end
    end
    return tostring(picture)
end

return images
