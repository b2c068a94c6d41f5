--- The options of the training scripts, and what follows from variant and data set.
local core = require "resin.core"
local data = require "resin.data"
local options = require "resin.options"

local settings = {}

---- Data sets -------------------------------------------------------------------------------------

-- What is used where neither the command line nor the variant says anything; `crop` is by how many
-- pixels images are shifted at most.
local DATA = {
    synthetic = {image = {32, 32, 3}, classes = 10, epochs = 8, crop = 0, flip = false},
    random = {classes = 10, epochs = 10, crop = 0, flip = false},
    cifar10 = {image = {32, 32, 3}, classes = 10, epochs = 30, crop = 4, flip = true},
    cifar100 = {image = {32, 32, 3}, classes = 100, epochs = 30, crop = 4, flip = true},
    mnist = {image = {28, 28, 1}, classes = 10, epochs = 3, crop = 2, flip = false},
    ["fashion-mnist"] = {image = {28, 28, 1}, classes = 10, epochs = 15, crop = 2, flip = true},
}

-- Of pictures in a folder.
local FOLDER = {epochs = 10, crop = 0, flip = true}

---- The options -----------------------------------------------------------------------------------

local BEFORE = {
    {"data", "NAME", "the images*", what = "data set",
        choices = {"synthetic", "random", "cifar10", "cifar100", "mnist", "fashion-mnist"},
        file = "a folder that has one of pictures for each class"},
    {"data-dir", "DIR", "the folder with the files of cifar10, cifar100, mnist or fashion-mnist"},
    {"samples", "N", "images: of random*, those for the test included; of other data the first N "
        .. "for training (synthetic 10000, others all) and a fifth as many for the test",
        kind = "integer", low = 10},
    {"image-size", "N", "side of random images and of pictures*; others are resized to it", kind = "integer",
        low = 8},
}

local AFTER = {
    {"epochs", "N", "passes over the training images*", kind = "integer", low = 1},
    {"batch-size", "N", "images in a batch*", kind = "integer", low = 1},
    {"accumulate", "N", "batches whose mean gradient makes a step", kind = "integer", low = 1,
        default = 1},
    {"optimizer", "NAME", "what changes the weights*", what = "optimizer",
        choices = {"sgd", "adam", "adamw", "rmsprop"}},
    {"lr", "X", "learning rate, the highest of the schedule*", kind = "number", low = 0},
    {"schedule", "NAME", "of the learning rate*", what = "schedule",
        choices = {"constant", "step", "cosine", "one-cycle"}},
    {"momentum", "X", "of sgd (0.9) and rmsprop (0)", kind = "number", low = 0, high = 1},
    {"nesterov", nil, "Nesterov's step of sgd*; --no-nesterov without"},
    {"beta1", "X", "of adam and adamw (0.9)", kind = "number", low = 0, high = 1},
    {"beta2", "X", "of adam and adamw (0.999)", kind = "number", low = 0, high = 1},
    {"alpha", "X", "of rmsprop (0.99; with Keras' rule 0.9)", kind = "number", low = 0, high = 1},
    {"epsilon", "X", "of adam, adamw and rmsprop (1e-8; with Keras' rule 1e-7)", kind = "number",
        low = 0},
    {"weight-decay", "X", "decay of the weights*", kind = "number", low = 0},
    {"clip-norm", "X", "the largest norm of all gradients together (0: any)", kind = "number",
        low = 0},
    {"label-smoothing", "X", "the part of a label spread over all classes", kind = "number",
        low = 0, high = 0.99, default = 0},
    {"average", "X", "decay of averaged weights, as 0.999 (none)", kind = "number", low = 0.01,
        high = 0.999999},

    {"crop", "N", "shift training images by up to N pixels*", kind = "integer", low = 0},
    {"flip", nil, "mirror training images at random*; --no-flip does not"},
    {"cutout", "N", "set a square of N pixels a side of training images to zero", kind = "integer",
        low = 0, default = 0},

    {"seed", "N", "same seed, same result, at any number of threads", kind = "integer", low = 0,
        default = 1},
    {"threads", "N", "all processors if left out", kind = "integer", low = 1, high = 64},
    {"out", "DIR", "folder of report, history, weights and checkpoint (runs/...)"},
    {"resume", nil, "go on from the checkpoint in the folder of --out"},
    {"checkpoint-steps", "N", "write the checkpoint every N steps, too, not only after epochs",
        kind = "integer", low = 1},
    {"dry-run", nil, "tell parameters, multiply-adds, memory and expected time, and end"},
    {"summary", nil, "print the table of the network's layers and end"},
}

--- Options of networks that several scripts have.
settings.network_rows = {
    filters = {"filters", "A,B,C", "filters of each stage in place of --width", kind = "integers",
        low = 1},
    kernel = {"kernel", "N", "side of the convolutions' windows (3)", kind = "integer", low = 1,
        high = 31},
    activation = {"activation", "NAME",
        "relu, sigmoid, tanh, elu, leaky_relu, selu, gelu, silu ... (relu)"},
    dropout = {"dropout", "X", "the part dropped in front of the last dense layer (0)",
        kind = "number", low = 0, high = 0.99},
    l1 = {"l1", "X", "penalty of the weights' absolute values (0)", kind = "number", low = 0},
    l2 = {"l2", "X", "penalty of the weights' squares (0)", kind = "number", low = 0},
}

local function field(name) return (name:gsub("-", "_")) end

-- The names of a script's variants, the default one first.
local function variant_names(program)
    local names = {}
    for name in pairs(program.variants) do
        if name ~= program.variant.default then names[#names + 1] = name end
    end
    table.sort(names)
    table.insert(names, 1, program.variant.default)
    return names
end

local function all_rows(program)
    local rows = {about = program.about .. "\nWhat follows from variant or data is marked *.",
        {"variant", "NAME", program.variant[1], what = "variant",
            choices = variant_names(program), default = program.variant.default}}
    for _, list in ipairs{BEFORE, program.rows, AFTER} do
        for _, row in ipairs(list) do rows[#rows + 1] = row end
    end
    return rows
end

---- Reading ---------------------------------------------------------------------------------------

-- An option of the network that the variant does not have is an error, not a thing to overlook.
local function check_network_options(program, given, variant)
    local has, names = {}, {}
    for _, name in ipairs(variant.network) do
        has[name] = true
        names[#names + 1] = "--" .. name
    end
    for _, row in ipairs(program.rows) do
        if not has[row[1]] and given[field(row[1])] ~= nil then
            options.fail("--%s: the variant %s does not take it; its network takes %s", row[1],
                given.variant, table.concat(names, ", "))
        end
    end
end

local Settings = {}
Settings.__index = Settings

--- The network.
function Settings:build()
    local given = {input = {table.unpack(self.image)}, classes = self.classes}
    for _, name in ipairs(self.network) do given[field(name)] = self[field(name)] end
    return self.build_network(given, self)
end

local OF_OPTIMIZER = {momentum = true, nesterov = true, beta1 = true, beta2 = true, alpha = true,
    epsilon = true}
local NOT_SHOWN = {threads = true, summary = true, dry_run = true, out = true}

--- What was in force, for the report: {{name, value}, ...}.
function Settings:shown(started)
    local shown = {{"started", started}, {"resin", core.version},
        {"kernels", core.instruction_set()}, {"threads", core.threads()}}
    for _, row in ipairs(self.rows) do
        local name = field(row[1])
        local value = self[name]
        if type(value) == "table" then value = table.concat(value, ", ") end
        local unused = NOT_SHOWN[name] or name == "nesterov" and self.optimizer ~= "sgd"
            or OF_OPTIMIZER[name] and value == nil
        if value ~= nil and not unused then shown[#shown + 1] = {row[1], value} end
    end
    return shown
end

-- The images that the network gets, and how many classes.
local function set_images(self, set)
    if set == FOLDER then
        if self.samples then
            options.fail("--samples: all pictures of the folder %s are taken", self.data)
        end
        self.sets = {data.folder{folder = self.data, size = self.image_size, seed = self.seed}}
    end
    self.classes = self.sets and self.sets[1].classes or set.classes
    local side, channels = self.image_size, set.image and set.image[3] or 3
    self.image = side and {side, side, channels} or {table.unpack(set.image)}
end

--- The settings of a script for the arguments of the command line: a field for each option ("-" in
--- names is "_"), those of the variant, image and classes.
function settings.read(program, arguments)
    local rows = all_rows(program)
    local self = setmetatable(options.parse(arguments, rows), Settings)
    local variant = program.variants[self.variant]
    check_network_options(program, self, variant)
    self.rows = rows
    for name, value in pairs(variant) do
        if self[name] == nil and name ~= "lr" and name ~= "build" and name ~= "image_size" then
            self[name] = value
        end
    end
    local set = DATA[self.data] or FOLDER
    if not set.image and not self.image_size then self.image_size = variant.image_size end
    for _, name in ipairs{"epochs", "crop", "flip"} do
        if self[name] == nil then self[name] = set[name] end
    end
    self.lr = self.lr or variant.lr[self.optimizer]
    self.build_network = variant.build
    set_images(self, set)
    if type(variant.name) == "function" then self.name = variant.name(self) end
    self.out = self.out or ("runs/%s-%s"):format(self.name, self.data:match("([^/]*)/*$"))
    return self
end

return settings
