--- The images of the training scripts: by name, the first of them, in another size.
local core = require "resin.core"
local data = require "resin.data"

local images = {}

---- Another size ----------------------------------------------------------------------------------

-- The matrix (to, from) that resizes an axis: a triangle of weights around each new pixel's centre,
-- as wide as two pixels of the coarser side (bilinear interpolation with antialiasing).
local function resizing(from, to)
    local scale, rows = from / to, {}
    local radius = math.max(scale, 1)
    for i = 1, to do
        local centre, sum, row = (i - 0.5) * scale, 0, {}
        for j = 1, from do
            row[j] = math.max(1 - math.abs(j - 0.5 - centre) / radius, 0)
            sum = sum + row[j]
        end
        for j = 1, from do row[j] = row[j] / sum end
        rows[i] = row
    end
    return core.tensor(rows)
end

local CHUNK = 64

-- The bytes (N, H, W, C) as (N, side, side, C).
local function resize(bytes, side)
    local count, height, width, channels = table.unpack(bytes:shape())
    local rows <close> = resizing(height, side)
    local columns <close> = resizing(width, side)
    local result = core.empty({count, side, side, channels}, "uint8")
    for first = 1, count, CHUNK do
        local last = math.min(first + CHUNK - 1, count)
        local n = last - first + 1
        local part <close> = bytes[{{first, last}}]:to("float32")
        local lines <close> = core.matmul(rows, part:reshape{n, height, width * channels})
        local pixels <close> = core.matmul(columns, lines:reshape{n * side, width, channels})
        local rounded <close> = pixels:round():clamp(0, 255):to("uint8")
        result[{{first, last}}] = rounded:reshape{n, side, side, channels}
    end
    return result
end

---- Sets ------------------------------------------------------------------------------------------

-- The same set with other fields.
local function changed(set, fields)
    local copy = setmetatable({}, getmetatable(set))
    for name, value in pairs(set) do copy[name] = value end
    for name, value in pairs(fields) do copy[name] = value end
    return copy
end

-- The first `count` images of a set.
local function first_of(set, count)
    if not count or count >= #set then return set end
    return changed(set, {images = set.images[{{1, count}}], labels = set.labels[{{1, count}}]})
end

-- What the network reads is (pixel / 255 - mean) / deviation.
local function with_pixels(set, pixels)
    if pixels == "normalized" or pixels == nil then return set end
    local mean, deviation = {}, {}
    for channel = 1, #set.mean do
        mean[channel], deviation[channel] = 0, pixels == "bytes" and 1 / 255 or 1
    end
    return changed(set, {mean = mean, deviation = deviation})
end

local function load_by_name(settings)
    local name = settings.data
    if name == "synthetic" then
        return data.synthetic{count = settings.samples, seed = settings.seed}
    end
    if name == "random" then
        local count, part = table.unpack(settings.random)
        return data.random{count = settings.samples or count, height = settings.image[1],
            width = settings.image[2], seed = settings.seed}:split(part)
    end
    if not settings.data_dir then
        error(("--data %s needs --data-dir, the folder with its files"):format(name), 0)
    end
    local train, test = data[name:gsub("-", "_")](settings.data_dir)
    local count = settings.samples
    return first_of(train, count), first_of(test, count and math.max(count // 5, 1))
end

--- The images for training and for the test or validation.
function images.load(settings)
    if settings.sets then -- pictures in files
        return with_pixels(settings.sets[1], settings.pixels),
            with_pixels(settings.sets[2], settings.pixels)
    end
    local sets = {load_by_name(settings)}
    for i, set in ipairs(sets) do
        local height, width = set:image_shape()
        local side = settings.image[1]
        if settings.image_size and (height ~= side or width ~= side) then
            set = changed(set, {images = core.no_grad(resize, set.images, side)})
        end
        sets[i] = with_pixels(set, settings.pixels)
    end
    return sets[1], sets[2]
end

return images
