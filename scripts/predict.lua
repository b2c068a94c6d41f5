-- predict.lua: what a network says of pictures.
--
--     lua5.4 scripts/predict.lua --model resnet50 --weights resnet50.safetensors \
--         --naming torchvision --classes imagenet.txt --image dog.jpg cat.png
--     lua5.4 scripts/predict.lua --model resnet50 --weights W --input X.npy --output Y.npy
--
-- Pictures (JPEG, PNG) are prepared as for torchvision's networks: the shorter side becomes 256
-- pixels, the centre of 224 x 224 is cut out, ImageNet's mean and deviation are taken away. X.npy
-- has images that are prepared already, float32 (N, height, width, 3), or (N, 3, height, width) as
-- PyTorch has them; Y.npy gets what the network ends with, before a softmax: (N, classes).
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local network = require "resin.script.network"
local options = require "resin.options"
local data = resin.data

local OPTIONS = {
    about = "What a network says of pictures. Several may follow --image.",
    {"model", "NAME", "the network: resnet18 ... resnet152, resnext50, vgg16 ..."},
    {"weights", "FILE", "its weights, a safetensors file"},
    {"naming", "NAME", "whose names the weights have", what = "naming",
        choices = {"resin", "torchvision", "keras"}, default = "resin"},
    {"image", "FILE", "a picture, JPEG or PNG"},
    {"input", "FILE", "prepared images, a .npy file"},
    {"output", "FILE", "where the network's output for --input goes, a .npy file"},
    {"classes", "FILE", "names of the classes, one in a line"},
    {"top", "N", "how many classes to show", kind = "integer", low = 1, default = 5},
    {"resize", "N", "the shorter side of pictures", kind = "integer", low = 1, default = 256},
    {"crop", "N", "side of the centre that the network sees", kind = "integer", low = 1,
        default = 224},
    {"batch-size", "N", "images at a time", kind = "integer", low = 1, default = 8},
    {"threads", "N", "all processors if left out", kind = "integer", low = 1, high = 64},
}

-- What stands after --image up to the next option: `--image a.jpg b.jpg` is two pictures, and so is
-- `--image a.jpg --image b.jpg`. Returns them and the other arguments.
local function take_images(arguments)
    local images, rest, position = {}, {[0] = arguments[0]}, 1
    while position <= #arguments do
        local argument = arguments[position]
        position = position + 1
        local joined = argument:match("^%-%-image=(.+)$")
        if joined then
            images[#images + 1] = joined
        elseif argument ~= "--image" then
            rest[#rest + 1] = argument
        else
            local first = position
            while arguments[position] and not arguments[position]:find("^%-%-") do
                images[#images + 1] = arguments[position]
                position = position + 1
            end
            if position == first then rest[#rest + 1] = argument end -- its value is missing
        end
    end
    return images, rest
end

local function read_settings()
    local images, rest = take_images(arg)
    local given = options.parse(rest, OPTIONS)
    given.images = images
    if not given.model or not given.weights then
        options.fail("--model and --weights must be given (see --help)")
    end
    if (#images > 0) == (given.input ~= nil) then
        options.fail("give pictures with --image, or --input and --output (see --help)")
    end
    if given.input and not given.output then options.fail("--input needs --output, a .npy file") end
    if given.output and not given.input then options.fail("--output needs --input, a .npy file") end
    return given
end

local function read_lines(path)
    local file, message = io.open(path)
    if not file then error("--classes: " .. message, 0) end
    local lines = {}
    for line in file:lines() do lines[#lines + 1] = (line:gsub("%s+$", "")) end
    file:close()
    while #lines > 0 and lines[#lines] == "" do lines[#lines] = nil end
    if #lines == 0 then error(("--classes: %s is empty"):format(path), 0) end
    return lines
end

local function load_network(settings, classes, input)
    local model = network.build(settings.model, classes, input)
    model:load(settings.weights, {naming = settings.naming})
    return model
end

-- The logits of a model that ends with a softmax, too.
local function run(model, images) return model(images, {logits = true}) end

-- ---- Pictures -----------------------------------------------------------------------------------

local function show(path, probabilities, settings, names)
    local order, width = {}, 0
    for class = 1, #probabilities do order[class] = class end
    table.sort(order, function(a, b)
        if probabilities[a] ~= probabilities[b] then return probabilities[a] > probabilities[b] end
        return a < b
    end)
    local function name(class) return names and names[class] or ("class %d"):format(class) end
    local shown = math.min(settings.top, #order)
    for place = 1, shown do width = math.max(width, #name(order[place])) end
    print(path)
    for place = 1, shown do
        local class = order[place]
        print(("  %-" .. math.min(width, 60) .. "s  %8.4f %%"):format(name(class),
            100 * probabilities[class]))
    end
end

local function predict_pictures(settings)
    local names = settings.classes and read_lines(settings.classes)
    local input = {settings.crop, settings.crop, 3}
    local model = load_network(settings, names and #names, input)
    for first = 1, #settings.images, settings.batch_size do
        local last = math.min(first + settings.batch_size - 1, #settings.images)
        local paths = table.move(settings.images, first, last, 1, {})
        local images <close> = data.preprocess(paths, {resize = settings.resize,
            crop = settings.crop})
        local logits <close> = run(model, images)
        local probabilities <close> = logits:softmax(-1)
        for i, row in ipairs(probabilities:totable()) do show(paths[i], row, settings, names) end
    end
end

-- ---- Prepared images ----------------------------------------------------------------------------

local function read_input(path)
    local images = resin.read_npy(path)
    local shape = images:shape()
    if images:dtype():find("float") and #shape == 4 and shape[1] > 0 then
        if images:dtype() ~= "float32" then images = images:to("float32") end
        if shape[4] == 3 then return images end
        if shape[2] == 3 then return images:transpose{1, 3, 4, 2}:contiguous() end
    end
    error(("--input: %s: expected float32 (N, height, width, 3) or (N, 3, height, width), got %s "
        .. "(%s)"):format(path, images:dtype(), table.concat(shape, ", ")), 0)
end

local function predict_array(settings)
    local names = settings.classes and read_lines(settings.classes)
    local images = read_input(settings.input)
    local model = load_network(settings, names and #names, {images:size(2), images:size(3), 3})
    local parts = {}
    for first = 1, #images, settings.batch_size do
        local last = math.min(first + settings.batch_size - 1, #images)
        parts[#parts + 1] = run(model, images[{{first, last}}])
    end
    local output = #parts == 1 and parts[1] or resin.concatenate(parts, {axis = 1})
    resin.write_npy(settings.output, output)
    print(("%s: (%s)"):format(settings.output, table.concat(output:shape(), ", ")))
end

local function main()
    local settings = read_settings()
    if settings.threads then resin.set_threads(settings.threads) end
    if settings.input then return predict_array(settings) end
    return predict_pictures(settings)
end

io.stdout:setvbuf("line")
options.run(main)
