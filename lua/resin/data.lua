--- resin.data: sets of images with labels, and batches of them.
--
-- Each reader gives a data set, or with no `split` two of them, train and test:
--
--     local train, test = data.synthetic{seed = 1}
--     local train = data.cifar10("folder", "train")
--     for images, labels in train:batches{batch_size = 128, shuffle = true, epoch = 1} do ... end
--
-- A data set has `images` (uint8, NHWC; grey ones with 1 channel), `labels` (int64, from 1),
-- `classes` (how many), `class_names`, and `mean` and `deviation` by channel, on the scale 0 to 1.
-- Pictures in JPEG and PNG files, single and in folders: data/pictures.lua.
local core = require "resin.core"
local check = require "resin.nn.check"
local files = require "resin.files"
local pictures = require "resin.data.pictures"
local split = require "resin.data.split"

local data = {}

-- f(...) of the core; its errors get the user's position in front, as those of this file.
local function try(f, ...)
    local results = table.pack(pcall(f, ...))
    if not results[1] then check.fail("%s", results[2]) end
    return table.unpack(results, 2, results.n)
end

local dataset = {}
dataset.__index = dataset

-- ---- Data sets ---------------------------------------------------------------------------------

local function numbered_names(classes)
    local names = {}
    for class = 1, classes do names[class] = tostring(class - 1) end
    return names
end

-- `facts`: class_names or classes; mean and deviation (from the images where they are not known).
local function new_dataset(images, labels, facts)
    local mean, deviation = facts.mean, facts.deviation
    if not mean then mean, deviation = try(core.image_statistics, images) end
    for channel = 1, #deviation do
        if deviation[channel] == 0 then deviation[channel] = 1 end -- one colour in all images
    end
    return setmetatable({
        images = images,
        labels = labels,
        classes = facts.classes or #facts.class_names,
        class_names = facts.class_names or numbered_names(facts.classes),
        mean = mean,
        deviation = deviation,
    }, dataset)
end

--- #set: how many images it has.
function dataset:__len() return self.images:size(1) end

function dataset:__tostring()
    return ("data set of %d images %dx%dx%d in %d classes"):format(#self, self.images:size(2),
        self.images:size(3), self.images:size(4), self.classes)
end

--- Height, width and channels of its images.
function dataset:image_shape()
    return self.images:size(2), self.images:size(3), self.images:size(4)
end

--- set:split(fraction): two sets, the first floor(fraction n) images and the rest, over the same
-- memory. As with Keras' validation_split, nothing is shuffled.
function dataset:split(fraction)
    return split(self, fraction, function(from, to)
        return new_dataset(self.images[{{from, to}}], self.labels[{{from, to}}], self)
    end)
end

-- `make(test)` gives one of the two splits.
local function by_split(what, split, make)
    if split == nil then return make(false), make(true) end
    if split ~= "train" and split ~= "test" then
        check.fail('%s: expected the split "train" or "test", got %s', what, tostring(split))
    end
    return make(split == "test")
end

-- Options of a reader that is called with (folder, split) or with a table of options.
local function folder_options(what, folder, split, more)
    local allowed = {folder = check.required, split = check.optional}
    for name, default in pairs(more or {}) do allowed[name] = default end
    local given = type(folder) == "table" and folder or {folder = folder, split = split}
    given = check.options(what, given, allowed, "folder")
    if type(given.folder) ~= "string" then
        check.fail("%s: expected the path of a folder, got %s", what, type(given.folder))
    end
    return given
end

-- ---- Embedded and random images ----------------------------------------------------------------

local TRAIN_COUNT, TEST_COUNT = 10000, 2000

--- data.synthetic{split =, count =, seed = 1}: the embedded images, 32x32x3 in ten classes of
-- figures and textures. Image i depends on seed, split and i only. Without `count` 10,000 for
-- training and 2,000 for the test; without `split` `count` is for training, the test has a fifth.
function data.synthetic(options)
    local given = check.options("data.synthetic", options,
        {split = check.optional, count = check.optional, seed = 1})
    local seed = check.integer("data.synthetic", "seed", given.seed, math.mininteger)
    local count = given.count and check.integer("data.synthetic", "count", given.count, 1)
    return by_split("data.synthetic", given.split, function(test)
        local wanted = count or (test and TEST_COUNT or TRAIN_COUNT)
        if count and test and not given.split then wanted = math.max(count // 5, 1) end
        local images, labels = try(core.synthetic_images, seed, test, wanted)
        return new_dataset(images, labels, {class_names = core.synthetic_class_names(),
            mean = {0.5, 0.5, 0.5}, deviation = {0.244, 0.244, 0.244}})
    end)
end

--- data.random{count =, height =, width =, channels = 3, classes = 10, seed = 1}: one set of noise
-- with random labels.
function data.random(options)
    local given = check.options("data.random", options, {count = check.required,
        height = check.required, width = check.required, channels = 3, classes = 10, seed = 1})
    for _, name in ipairs{"count", "height", "width", "channels", "classes"} do
        given[name] = check.integer("data.random", name, given[name], 1)
    end
    local seed = check.integer("data.random", "seed", given.seed, math.mininteger)
    local images, labels = try(core.random_images, seed, {given.count, given.height, given.width,
        given.channels}, given.classes)
    local mean, deviation = {}, {}
    for channel = 1, given.channels do
        mean[channel], deviation[channel] = 0.5, 0.2887 -- uniform: sqrt(1 / 12)
    end
    local facts = {classes = given.classes, mean = mean, deviation = deviation}
    return new_dataset(images, labels, facts)
end

-- ---- CIFAR -------------------------------------------------------------------------------------

--- data.cifar10(folder[, split]) or data.cifar10{folder =, split =}: the binary version. Mean and
-- deviation are those of the 50,000 training images.
function data.cifar10(folder, split)
    local given = folder_options("data.cifar10", folder, split)
    return by_split("data.cifar10", given.split, function(test)
        local images, labels = try(core.read_cifar10, given.folder, test)
        return new_dataset(images, labels, {
            class_names = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse",
                "ship", "truck"},
            mean = {0.4914, 0.4822, 0.4465}, deviation = {0.2470, 0.2435, 0.2616},
        })
    end)
end

--- data.cifar100(folder[, split]) or data.cifar100{folder =, split =, superclass = false}: 100
-- classes, or the 20 superclasses.
function data.cifar100(folder, split)
    local given = folder_options("data.cifar100", folder, split, {superclass = false})
    return by_split("data.cifar100", given.split, function(test)
        local images, labels = try(core.read_cifar100, given.folder, test, given.superclass)
        return new_dataset(images, labels, {
            classes = given.superclass and 20 or 100,
            mean = {0.5071, 0.4865, 0.4409}, deviation = {0.2673, 0.2564, 0.2762},
        })
    end)
end

-- ---- IDX: MNIST and its kin --------------------------------------------------------------------

local function describe(tensor)
    return ("%s {%s}"):format(tensor:dtype(), table.concat(tensor:shape(), ", "))
end

-- Images of an IDX file as NHWC: grey ones get their one channel.
local function read_images(path)
    local images = try(core.read_idx, path)
    local shape = images:shape()
    if images:dtype() ~= "uint8" or (#shape ~= 3 and #shape ~= 4) or images:count() == 0 then
        check.fail("data.idx: %s: expected uint8 images (count, height, width[, channels]), got %s",
            path, describe(images))
    end
    if #shape == 4 then return images end
    return images:reshape{shape[1], shape[2], shape[3], 1}
end

-- Labels of an IDX file, counted from 1.
local function read_labels(path, images)
    local labels = try(core.read_idx, path)
    local dtype = labels:dtype()
    if labels:rank() ~= 1 or (dtype ~= "uint8" and dtype ~= "int32") or #labels ~= #images then
        check.fail("data.idx: %s: expected %d labels (integers), got %s", path, #images,
            describe(labels))
    end
    labels = labels:to("int64") + 1
    local lowest, highest = labels:min():item(), labels:max():item()
    if lowest < 1 then check.fail("data.idx: %s: the label %d is negative", path, lowest - 1) end
    return labels, math.tointeger(highest)
end

--- data.idx(images_path, labels_path[, {class_names =, classes =, mean =, deviation =}]): one set
-- from two IDX files, plain or gzipped. Labels count from 0 in the file.
function data.idx(images_path, labels_path, options)
    local given = check.options("data.idx", options or {}, {class_names = check.optional,
        classes = check.optional, mean = check.optional, deviation = check.optional})
    local images = read_images(images_path)
    local labels, highest = read_labels(labels_path, images)
    given.classes = given.class_names and #given.class_names or given.classes or highest
    if highest > given.classes then
        check.fail("data.idx: %s: the label %d, but there are %d classes (labels 0 to %d)",
            labels_path, highest - 1, given.classes, given.classes - 1)
    end
    return new_dataset(images, labels, given)
end

-- The four files of MNIST are known as "train-images-idx3-ubyte" and "train-images.idx3-ubyte".
local function find_idx(what, folder, name)
    for _, separator in ipairs{"-", "."} do
        for _, ending in ipairs{"", ".gz"} do
            local path = folder .. "/" .. name:gsub("%-idx", separator .. "idx") .. ending
            if files.exists(path) then return path end
        end
    end
    check.fail("%s: %s (or %s.gz) is missing in %s; expected train-images-idx3-ubyte, "
        .. "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, "
        .. "plain or with .gz",
        what, name, name, folder)
end

local function mnist_like(what, folder, split, facts)
    local given = folder_options(what, folder, split)
    return by_split(what, given.split, function(test)
        local part = test and "t10k" or "train"
        local images = find_idx(what, given.folder, part .. "-images-idx3-ubyte")
        return data.idx(images, find_idx(what, given.folder, part .. "-labels-idx1-ubyte"), facts)
    end)
end

--- data.mnist(folder[, split]) or data.mnist{folder =, split =}
function data.mnist(folder, split)
    return mnist_like("data.mnist", folder, split,
        {classes = 10, mean = {0.1307}, deviation = {0.3081}})
end

--- data.fashion_mnist(folder[, split]) or data.fashion_mnist{folder =, split =}
function data.fashion_mnist(folder, split)
    return mnist_like("data.fashion_mnist", folder, split, {
        class_names = {"T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt",
            "sneaker", "bag", "ankle boot"},
        mean = {0.2860}, deviation = {0.3530},
    })
end

-- ---- Batches -----------------------------------------------------------------------------------

local BATCH_OPTIONS = {batch_size = 32, shuffle = false, seed = 1, epoch = 1, crop = 0,
    flip = false, cutout = 0, drop_last = false}

-- `more` are options with their defaults that only one of the functions takes. Training sets of
-- pictures are mirrored if nothing is said.
local function batch_options(what, set, options, more)
    local allowed = more or {}
    for name, default in pairs(BATCH_OPTIONS) do allowed[name] = default end
    if set.flip then allowed.flip = true end
    local given = check.options(what, options or {}, allowed)
    given.batch_size = check.integer(what, "batch_size", given.batch_size, 1)
    given.crop = check.integer(what, "crop", given.crop, 0)
    given.cutout = check.integer(what, "cutout", given.cutout, 0)
    given.seed = check.integer(what, "seed", given.seed, math.mininteger)
    given.epoch = check.integer(what, "epoch", given.epoch, 0)
    return given
end

--- How many batches `data.batches` gives.
function data.batch_count(set, options)
    local given = batch_options("data.batches", set, options)
    if given.drop_last then return #set // given.batch_size end
    return (#set + given.batch_size - 1) // given.batch_size
end

--- data.batches(set, options), also set:batches(options): for images, labels in ... do: float32
-- NHWC, normalized by the set's mean and deviation, and int64 labels from 1. The caller may release
-- each as soon as it is done with it.
--
--   batch_size = 32   images in a batch; the last has what is left
--   drop_last = false leaves it out if it is short
--   shuffle = false   in an order that depends on seed and epoch
--   crop = 0          pads by that many zeros after normalization and takes a random window
--   flip = false      mirrors one image in two
--   cutout = 0        sets a square of that many pixels a side, around a random pixel, to zero
--   seed = 1, epoch = 1   what is random depends on these and the image's number only, not on batch
--                         size or threads
function data.batches(set, options)
    local given = batch_options("data.batches", set, options)
    if set.paths then
        given.workers, given.last_epoch = 0, given.epoch
        return data.loader(set, given)
    end
    local count, size = #set, given.batch_size
    local order = try(core.epoch_order, count, given.shuffle, given.seed, given.epoch)
    local settings = {pad = given.crop, flip = given.flip, cutout = given.cutout,
        seed = given.seed, epoch = given.epoch, mean = set.mean, deviation = set.deviation}
    local last = given.drop_last and count - count % size or count
    local next_record = 1
    return function()
        if next_record > last then return nil end
        local from, to = next_record, math.min(next_record + size - 1, last)
        next_record = to + 1
        return try(core.image_batch, set.images, order, from, to, settings),
            try(core.label_batch, set.labels, order, from, to)
    end
end

--- data.loader(set, options), also set:loader(options): the same batches, made in the background
-- while the caller trains. It takes the options of data.batches; `epoch` is the first one, and each
-- loop over the loader is the next:
--
--     local loader <close> = set:loader{batch_size = 128, shuffle = true, crop = 4, flip = true}
--     for epoch = 1, 20 do
--         for images, labels in loader do ... end
--     end
--
--   step = 1          starts with this batch of the first epoch (to go on with a training)
--   last_epoch = nil  the last epoch; without it there is no end
--   workers = 1       threads; what comes out is the same for any number, and 0 makes each batch
--                     when it is asked for
--   ahead = 4         how many batches wait at most
--
-- loader:position() gives epoch and step of the next batch, loader:waited() the seconds that the
-- caller has waited for batches so far, loader:batch_count() the batches of a whole epoch;
-- loader:close() stops the threads. The set's tensors must not change meanwhile.
function data.loader(set, options)
    local given = batch_options("data.loader", set, options,
        {step = 1, last_epoch = check.optional, workers = 1, ahead = 4})
    given.step = check.integer("data.loader", "step", given.step, 1)
    given.workers = check.integer("data.loader", "workers", given.workers, 0)
    given.ahead = check.integer("data.loader", "ahead", given.ahead, 1)
    if given.last_epoch then
        local last = check.integer("data.loader", "last_epoch", given.last_epoch, given.epoch)
        given.epochs = last - given.epoch + 1
    end
    given.pad, given.mean, given.deviation = given.crop, set.mean, set.deviation
    if set.paths then return set:open_loader(given) end
    return try(core.loader, set.images, set.labels, given)
end

for _, name in ipairs{"batches", "loader", "batch_count"} do
    dataset[name], pictures.set_class[name] = data[name], data[name]
end
for _, name in ipairs{"read_image", "resize_image", "preprocess", "folder"} do
    data[name] = pictures[name]
end

return data
