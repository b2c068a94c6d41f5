--- Pictures in files: reading, preparing for a network, and folders of them as data sets. What is
--- here is part of resin.data.
---
---   data.read_image(path)            a JPEG or PNG file as uint8 (height, width, 3)
---   data.resize_image(image, size)   bilinear with antialiasing, PIL's pixels
---   data.preprocess(images, {...})   torchvision's preparation: a batch for a network
---   data.folder{folder = ...}        a folder for each class: two data sets
---
--- Pictures are what PIL's Image.open(path).convert("RGB") gives, which torchvision loads: grey is
--- repeated, transparency left out, an EXIF orientation not applied. JPEG needs an engine built
--- with libjpeg-turbo, PNG libpng; the error says so.
local core = require "resin.core"
local check = require "resin.nn.check"
local split = require "resin.data.split"

local pictures = {}

-- Mean and deviation of ImageNet's channels, with which torchvision's networks were trained.
local MEAN, DEVIATION = {0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}

-- f(...) of the core; its errors get the user's position in front.
local function try(f, ...)
    local results = table.pack(pcall(f, ...))
    if not results[1] then check.fail("%s", results[2]) end
    return table.unpack(results, 2, results.n)
end

---- Single pictures -------------------------------------------------------------------------------

--- data.read_image(path): uint8 (height, width, 3).
function pictures.read_image(path)
    if type(path) ~= "string" then
        check.fail("data.read_image: expected the path of a file, got %s", type(path))
    end
    return try(core.read_image, path)
end

--- data.resize_image(image, size): a uint8 image (height, width, 3) whose shorter side becomes
--- `size`, or of {height, width}. The same bytes as PIL's resize(BILINEAR), torchvision's Resize.
function pictures.resize_image(image, size)
    if type(size) == "table" then
        local pair = check.pair("data.resize_image", "size", size, 1)
        return try(core.resize_image, image, pair[1], pair[2])
    end
    local shorter = check.integer("data.resize_image", "size", size, 1)
    local height, width = image:size(1), image:size(2)
    local least = math.min(height, width)
    return try(core.resize_image, image, shorter * height // least, shorter * width // least)
end

local function read_and_fit(image, shorter, crop)
    if core.is_tensor(image) then return try(core.fit_image, image, shorter, crop[1], crop[2]) end
    local picture <close> = pictures.read_image(image)
    local ok, fitted = pcall(core.fit_image, picture, shorter, crop[1], crop[2])
    if not ok then check.fail("%s: %s", image, fitted) end
    return fitted
end

--- data.preprocess(images, {resize = 256, crop = 224, mean =, deviation =}): pictures as a network
--- wants them: float32 (count, crop, crop, 3). images: a path, a uint8 image (height, width, 3), or
--- a list of these. As torchvision's Resize, CenterCrop, ToTensor and Normalize, to the same bits;
--- resize = false leaves the size, crop may be {height, width}; mean and deviation are ImageNet's.
function pictures.preprocess(images, options)
    local what = "data.preprocess"
    local given = check.options(what, options or {}, {resize = 256, crop = 224, mean = MEAN,
        deviation = DEVIATION})
    local shorter = given.resize and check.integer(what, "resize", given.resize, 1) or 0
    local crop = check.pair(what, "crop", given.crop, 1)
    local list = (type(images) == "string" or core.is_tensor(images)) and {images} or images
    if type(list) ~= "table" or #list == 0 then
        check.fail("%s: expected the path of a picture, an image or a list of them", what)
    end
    local fitted = {}
    for position, image in ipairs(list) do fitted[position] = read_and_fit(image, shorter, crop) end
    local stacked <close> = core.stack(fitted, {axis = 1})
    for _, image in ipairs(fitted) do image:release() end
    local order <close> = core.epoch_order(#list, false, 1, 1)
    return try(core.image_batch, stacked, order, 1, #list,
        {mean = given.mean, deviation = given.deviation})
end

---- Folders: what is in them ----------------------------------------------------------------------

local READ = {jpg = true, jpeg = true, png = true}
-- What torchvision reads, too.
local FOREIGN = {ppm = true, bmp = true, pgm = true, tif = true, tiff = true, webp = true}
local DEEPEST = 16

-- Adds the folder and those below it to `found`: a list of {path, names of files}.
local function walk(path, found, depth)
    if depth > DEEPEST then check.fail("data.folder: %s: too many folders in one another", path) end
    local names, folders = try(core.list_folder, path)
    found[#found + 1] = {path, names}
    for _, folder in ipairs(folders) do walk(path .. "/" .. folder, found, depth + 1) end
    return found
end

-- The pictures of a class, folder by folder in the order of their paths, as ImageFolder has them.
local function pictures_below(folder)
    local found, paths = walk(folder, {}, 1), {}
    table.sort(found, function(a, b) return a[1] < b[1] end)
    for _, one in ipairs(found) do
        for _, name in ipairs(one[2]) do
            local path, ending = one[1] .. "/" .. name, (name:match("%.(%w+)$") or ""):lower()
            if FOREIGN[ending] then
                check.fail("data.folder: %s: only JPEG and PNG files can be read", path)
            end
            if READ[ending] then paths[#paths + 1] = path end
        end
    end
    return paths
end

-- Class names in order, and by name the list of paths.
local function scan(folder)
    local _, names = try(core.list_folder, folder)
    if #names == 0 then
        check.fail("data.folder: %s: expected a folder for each class with its pictures in it, "
            .. "found none", folder)
    end
    local of_class = {}
    for _, name in ipairs(names) do
        of_class[name] = pictures_below(folder .. "/" .. name)
        if #of_class[name] == 0 then
            check.fail("data.folder: %s/%s: there are no pictures (.jpg, .jpeg, .png)", folder,
                name)
        end
    end
    return names, of_class
end

---- Folders: the data set -------------------------------------------------------------------------

local set_class = {}
set_class.__index = set_class

-- What stands in the place of a data set's images: images[3] reads the third one as it is seen
-- without chance, uint8 (height, width, 3). None is kept, so that count, the bytes held, is 0.
local shown_class = {}

function shown_class.__len(shown) return #rawget(shown, "set").paths end

function shown_class.__index(shown, key)
    if math.type(key) ~= "integer" then return shown_class[key] end
    local set = rawget(shown, "set")
    return read_and_fit(set.paths[key], set.shorter, {set.height, set.width})
end

function shown_class.count() return 0 end

function shown_class.size(shown, axis)
    local set = rawget(shown, "set")
    return ({#set.paths, set.height, set.width, 3})[axis]
end

-- `facts`: what the settings of data.folder and the folder's classes have become, and random.
local function new_set(paths, labels, facts)
    local set = {paths = paths, labels = labels}
    for _, name in ipairs{"classes", "class_names", "mean", "deviation", "height", "width",
        "shorter", "area", "ratio", "random", "flip"} do
        set[name] = facts[name]
    end
    set.images = setmetatable({set = set}, shown_class)
    return setmetatable(set, set_class)
end

function set_class:__len() return #self.paths end

function set_class:__tostring()
    return ("data set of %d pictures in files, %dx%dx3 in %d classes"):format(#self, self.height,
        self.width, self.classes)
end

function set_class:image_shape() return self.height, self.width, 3 end

--- set:split(fraction): the first part and the rest, as of every data set. The pictures are in the
--- order of their classes, so this is seldom what is wanted: see `validation` of data.folder.
function set_class:split(fraction)
    return split(self, fraction, function(from, to)
        return new_set(table.move(self.paths, from, to, 1, {}), self.labels[{{from, to}}], self)
    end)
end

-- Called by data.loader with its options, checked.
function set_class:open_loader(given)
    for _, name in ipairs{"height", "width", "shorter", "area", "ratio", "random"} do
        given[name] = self[name]
    end
    return try(core.picture_loader, self.paths, self.labels, given)
end

---- Folders: reading them -------------------------------------------------------------------------

-- Which of `count` pictures of class number `class` are held out, as a set of positions.
local function held_out(count, class, given)
    local chosen, wanted = {}, math.floor(given.validation * count + 0.5)
    if given.validation > 0 then wanted = math.min(math.max(wanted, 1), count - 1) end
    local order <close> = core.epoch_order(count, true, given.seed, class)
    for _, position in ipairs(table.move(order:totable(), 1, wanted, 1, {})) do
        chosen[position] = true
    end
    return chosen
end

local function make_set(paths, labels, facts, random, what)
    if #paths == 0 then check.fail("data.folder: the %s set would be empty", what) end
    facts.random, facts.flip = random, random
    return new_set(paths, core.tensor(labels, "int64"), facts)
end

-- One folder, cut by chance, but the same for the same seed: from each class the same part.
local function cut_folder(given)
    local names, of_class = scan(given.folder)
    given.class_names, given.classes = names, #names
    local paths, labels = {{}, {}}, {{}, {}}
    for class, name in ipairs(names) do
        local chosen = held_out(#of_class[name], class, given)
        for position, path in ipairs(of_class[name]) do
            local part = chosen[position] and 2 or 1
            table.insert(paths[part], path)
            table.insert(labels[part], class)
        end
    end
    return paths, labels
end

-- Folders of training and validation that are there already; the second may lack classes.
local function two_folders(given, held)
    local names, of_class = scan(given.folder .. "/train")
    given.class_names, given.classes = names, #names
    local class_of, paths, labels = {}, {{}, {}}, {{}, {}}
    for class, name in ipairs(names) do class_of[name] = class end
    local held_names, of_held = scan(given.folder .. "/" .. held)
    for part, all in ipairs{{names, of_class}, {held_names, of_held}} do
        for _, name in ipairs(all[1]) do
            if not class_of[name] then
                check.fail("data.folder: %s/%s has the class '%s', and train has not", given.folder,
                    held, name)
            end
            for _, path in ipairs(all[2][name]) do
                table.insert(paths[part], path)
                table.insert(labels[part], class_of[name])
            end
        end
    end
    return paths, labels
end

-- The name of the folder beside "train", if there are these two and no other.
local function find_held(folder)
    local _, names = try(core.list_folder, folder)
    local there = {}
    for _, name in ipairs(names) do there[name] = true end
    if #names ~= 2 or not there.train then return nil end
    for _, name in ipairs{"val", "validation", "valid", "test"} do
        if there[name] then return name end
    end
end

local OPTIONS = {
    folder = check.required, split = check.optional, validation = 0.2, seed = 1, size = 224,
    resize = check.optional, area = {0.08, 1}, ratio = {3 / 4, 4 / 3}, random = true, mean = MEAN,
    deviation = DEVIATION,
}

local function read_options(options)
    local what = "data.folder"
    local given = check.options(what, options, OPTIONS, "folder")
    if type(given.folder) ~= "string" then
        check.fail("%s: expected the path of a folder, got %s", what, type(given.folder))
    end
    local split, part = given.split, given.validation
    if split ~= nil and split ~= "train" and split ~= "test" then
        check.fail('%s: expected the split "train" or "test", got %s', what, tostring(split))
    end
    if type(part) ~= "number" or not (part >= 0 and part < 1) then
        check.fail("%s: validation is the part held out, from 0 to below 1, got %s", what,
            tostring(part))
    end
    given.seed = check.integer(what, "seed", given.seed, math.mininteger)
    given.height, given.width = table.unpack(check.pair(what, "size", given.size, 1))
    local usual = math.min(given.height, given.width) * 8 // 7
    given.shorter = check.integer(what, "resize", given.resize or usual, 1)
    return given
end

--- data.folder{folder =, ...}: pictures in files, a folder for each class, as torchvision's
--- ImageFolder has them: classes in the order of their folders' names, pictures (.jpg, .jpeg, .png,
--- also in folders below) in the order of theirs. Gives two data sets, training and validation, or
--- one with split = "train" or "test". Pictures are read when they are needed, by the threads of
--- the loader, so the memory does not depend on how many there are.
---
---   validation = 0.2    the part of each class that is held out, chosen by seed (at least one, if
---                       the class has two). Where `folder` has the folders train and val (or
---                       validation, valid, test) and no other, these are the two sets
---   seed = 1
---   size = 224          of the images, or {height, width}
---   resize = 8/7 size   validation: the shorter side, before the centre is cut out
---   random = true       training: a random rectangle of the picture, mirrored or not; false: as
---                       for validation
---   area = {0.08, 1}    which part of the picture it is, and
---   ratio = {3/4, 4/3}  its width to its height
---   mean, deviation     ImageNet's
---
--- A set's `paths` are the files; `images[i]` reads one.
function pictures.folder(options)
    local given = read_options(options)
    local held = find_held(given.folder)
    local paths, labels
    if held then
        paths, labels = two_folders(given, held)
    else
        paths, labels = cut_folder(given)
    end
    local function train() return make_set(paths[1], labels[1], given, given.random, "training") end
    local function test() return make_set(paths[2], labels[2], given, false, "validation") end
    if given.split then return given.split == "train" and train() or test() end
    return train(), test()
end

pictures.set_class = set_class

return pictures
