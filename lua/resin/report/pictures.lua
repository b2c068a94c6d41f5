--- The pictures of a report: a list of {file, svg}.
local core = require "resin.core"
local judge = require "resin.report.judge"
local plot = require "resin.plot"
local svg = require "resin.plot.svg"

local pictures = {}

local SHOWN, WORST, MOST_FILTERS = 40, 24, 64

---- Curves ----------------------------------------------------------------------------------------

local function curve(history, name, column)
    local x, y, has = {}, {}, false
    for i, row in ipairs(history) do
        x[i], y[i] = row.epoch or i, row[column] or 0 / 0
        has = has or row[column] ~= nil
    end
    return has and {name = name, x = x, y = y} or nil
end

local function curves(given, title, column)
    local series = {}
    series[1] = curve(given.history, "Training " .. title, column)
    series[#series + 1] = curve(given.history, given.held_out .. " " .. title, "val_" .. column)
    if #series == 0 then return nil end
    return {file = column .. ".svg", svg = plot.chart{
        title = given.titles[column] or title .. " over Epochs", x_label = "Epoch",
        y_label = title, series = series}}
end

---- Test images -----------------------------------------------------------------------------------

local function captioned(test, image)
    local right = image.predicted == image.class
    local name = svg.shorten(test.class_names[image.predicted], 13)
    return {
        image = test.images[image.number],
        caption = {
            {("%s %.0f %%"):format(name, 100 * image.probability), right and "fill1" or "fill2"},
            {"true: " .. svg.shorten(test.class_names[image.class], 14), "faint"},
        },
    }
end

local NOTE = "below each image: the predicted class and its probability (orange where it is wrong),"
    .. " then the true class"

local function predictions(test, result)
    local list = {}
    for i = 1, math.min(SHOWN, #result.images) do list[i] = captioned(test, result.images[i]) end
    return {file = "predictions.svg", svg = plot.images{
        title = ("Predictions for the First %d Test Images"):format(#list), note = NOTE,
        images = list, columns = 8, cell = 136, side = 96, least_width = 640}}
end

local function mistakes(test, result)
    local worst, all = judge.mistakes(result, WORST)
    if all == 0 then return nil end
    local list = {}
    for i, image in ipairs(worst) do list[i] = captioned(test, image) end
    return {file = "mistakes.svg", svg = plot.images{
        title = "Worst Mistakes", images = list, columns = 8, cell = 136, side = 96,
        least_width = 640,
        note = ("%d of %d mistakes among %d test images, the least probability for the true "
            .. "class first"):format(#worst, all, #result.images)}}
end

local function confusion(test, result)
    return {file = "confusion.svg", svg = plot.confusion{title = "Confusion Matrix",
        counts = result.counts, names = test.class_names}}
end

---- Filters ---------------------------------------------------------------------------------------

-- The weights (height, width, input, output) of the first convolution.
local function first_weights(model)
    for name, tensor in model:named_parameters() do
        if tensor:rank() == 4 then return tensor:detach(), name end
    end
end

-- One filter as an image: grey is 0, each filter has its own scale. Two channels, or more than
-- three, are shown by their mean.
local function filter_image(filter)
    local height, width, channels = table.unpack(filter:shape())
    if channels == 2 or channels > 3 then
        filter = filter:mean{axes = {3}, keep = true}
    end
    local most = math.max(filter:abs():max():item(), 1e-30)
    local image = (filter * (127 / most) + 128):round():clamp(0, 255):to("uint8")
    return image:reshape{height, width, #image:shape() == 3 and image:size(3) or channels}
end

local function filters(model)
    local weights, name = first_weights(model)
    if not weights or weights:size(1) < 2 then return nil end
    local list, count = {}, weights:size(4)
    for i = 1, math.min(count, MOST_FILTERS) do
        list[i] = {image = filter_image(weights[{{}, {}, {}, i}]:contiguous())}
    end
    local shown = #list < count and (" (%d of %d)"):format(#list, count) or ""
    return {file = "filters.svg", svg = plot.images{title = "First-Layer Filters" .. shown,
        note = ("%s, %d×%d; grey is 0, each filter on its own scale"):format(name,
            weights:size(1), weights:size(2)),
        images = list, columns = #list <= 32 and 8 or 12, side = 44, least_width = 460}}
end

---- All of them -----------------------------------------------------------------------------------

--- given: the options of report.write; result: of judge.judge, or nil.
function pictures.all(given, result)
    local list = {}
    local function add(picture) list[#list + 1] = picture end
    add(curves(given, "Accuracy", "accuracy"))
    add(curves(given, "Loss", "loss"))
    if result then
        add(predictions(given.test, result))
        add(mistakes(given.test, result))
        add(confusion(given.test, result))
    end
    if given.model then add(core.no_grad(filters, given.model)) end
    return list
end

return pictures
