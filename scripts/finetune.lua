-- finetune.lua: teaches a trained network other classes, from a folder of photographs.
--
--     lua5.4 scripts/finetune.lua --data PHOTOGRAPHS --model resnet50 \
--         --weights resnet50.safetensors --naming torchvision --freeze '^conv1$,^bn1$,^layer[123]'
--
-- PHOTOGRAPHS has a folder for each class with JPEG and PNG files in it, or the folders train and
-- val with these. All weights are taken from the file but those of the last layer, which is made
-- anew for the classes of the folder. Ctrl-C ends it after the step; the same command with --resume
-- goes on, to the same bits. Afterwards
--
--     lua5.4 scripts/predict.lua --model resnet50 --weights DIR/model.safetensors \
--         --classes DIR/classes.txt --image NEW.jpg
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local files = require "resin.files"
local network = require "resin.script.network"
local options = require "resin.options"
local report = require "resin.report"
local data, optim, train = resin.data, resin.optim, resin.train

local OPTIONS = {
    about = "Teaches a trained network other classes, from a folder of photographs.",
    {"data", "FOLDER", "a folder for each class, or train and val with these"},
    {"model", "NAME", "the network: resnet18 ... resnet152, resnext50, vgg16 ...",
        default = "resnet50"},
    {"weights", "FILE", "its weights, a safetensors file; without one it starts from chance"},
    {"naming", "NAME", "whose names the weights have", what = "naming",
        choices = {"resin", "torchvision", "keras"}, default = "resin"},
    {"freeze", "PATTERN", "layers that stay as they are: Lua patterns for their names, with commas "
        .. "between; ^layer[123] for example, or 'all' for all but the last"},
    {"size", "N", "side of the images that the network sees", kind = "integer", low = 8,
        default = 224},
    {"validation", "X", "the part of each class that is held out", kind = "number", low = 0.001,
        high = 0.99, default = 0.2},
    {"random", nil, "random rectangles of training images, mirrored or not; --no-random: the centre",
        default = true},

    {"epochs", "N", "passes over the training images", kind = "integer", low = 1, default = 10},
    {"batch-size", "N", "images in a batch", kind = "integer", low = 1, default = 32},
    {"optimizer", "NAME", "what changes the weights", what = "optimizer",
        choices = {"sgd", "adam", "adamw"}, default = "sgd"},
    {"lr", "X", "learning rate (sgd 0.002, adam and adamw 0.0001), down along a cosine",
        kind = "number", low = 0},
    {"head-lr", "X", "learning rate of the last layer (ten times --lr)", kind = "number", low = 0},
    {"weight-decay", "X", "decay of the weights", kind = "number", low = 0, default = 1e-4},
    {"label-smoothing", "X", "the part of a label spread over all classes", kind = "number",
        low = 0, high = 0.99, default = 0},

    {"seed", "N", "same seed, same result, at any number of threads", kind = "integer", low = 0,
        default = 1},
    {"threads", "N", "all processors if left out", kind = "integer", low = 1, high = 64},
    {"workers", "N", "threads that read pictures", kind = "integer", low = 0, high = 64,
        default = 1},
    {"out", "DIR", "folder of report, history, weights and checkpoint (runs/finetune-MODEL)"},
    {"resume", nil, "go on from the checkpoint in the folder of --out"},
}

local RATES = {sgd = 0.002, adam = 1e-4, adamw = 1e-4}

local function read_settings()
    local given = options.parse(arg, OPTIONS)
    if not given.data then options.fail("--data, a folder of photographs, must be given") end
    given.lr = given.lr or RATES[given.optimizer]
    given.head_lr = given.head_lr or 10 * given.lr
    given.out = given.out or "runs/finetune-" .. given.model
    return given
end

-- ---- Network and optimizer ----------------------------------------------------------------------

-- With --weights everything but the last layer comes from the file.
local function build_network(settings, classes)
    local model = network.build(settings.model, classes, {settings.size, settings.size, 3})
    local head = network.head(model)
    if settings.weights then
        local found = model:load(settings.weights,
            {naming = settings.naming, except = network.pattern(head)})
        print(("%s: %d tensors; the last layer, %s, is new"):format(settings.weights,
            #found.loaded, head))
    end
    return model, head
end

local function freeze(settings, model, head)
    if not settings.freeze then return end
    local count = 0
    if settings.freeze == "all" then
        count = model:freeze() - model:unfreeze("^" .. head:gsub("%p", "%%%0") .. "$")
    else
        for pattern in settings.freeze:gmatch("[^,]+") do count = count + model:freeze(pattern) end
    end
    local _, trainable, rest = model:count()
    print(("frozen: %d layers; %d of %d values are trained"):format(count, trainable,
        trainable + rest))
end

-- The rate of the schedule is --lr; the last layer's is a multiple, and without the first no
-- multiple would do.
local function build_optimizer(settings, model, head, steps)
    local base = settings.lr > 0 and settings.lr or settings.head_lr
    if base == 0 then error("--lr and --head-lr are both 0: nothing would be learned", 0) end
    local pattern = network.pattern(head)
    local given = {model, rule = "pytorch", weight_decay = settings.weight_decay,
        learning_rate = optim.cosine{rate = base, steps = steps},
        groups = {{"", rate_scale = settings.lr / base},
            {pattern, rate_scale = settings.head_lr / base}}}
    if settings.optimizer == "sgd" then given.momentum, given.nesterov = 0.9, true end
    return optim[settings.optimizer](given)
end

-- ---- Training -----------------------------------------------------------------------------------

local function fit(settings, model, head, train_set, test_set)
    local steps = (#train_set - 1) // settings.batch_size + 1
    return train.fit(model, train_set, {
        optimizer = build_optimizer(settings, model, head, settings.epochs * steps),
        epochs = settings.epochs, batch_size = settings.batch_size, seed = settings.seed,
        augment = {workers = settings.workers}, validation_data = test_set,
        label_smoothing = settings.label_smoothing,
        callbacks = {train.csv_log(settings.out .. "/history.csv")},
        checkpoint = settings.out .. "/checkpoint.safetensors", resume = settings.resume or false,
    })
end

local function shown_settings(settings, started)
    local shown = {{"started", started}, {"resin", resin.version},
        {"kernels", resin.instruction_set()}, {"threads", resin.threads()}}
    for _, row in ipairs(OPTIONS) do
        local value = settings[row[1]:gsub("-", "_")]
        if value ~= nil and row[1] ~= "threads" and row[1] ~= "out" then
            shown[#shown + 1] = {row[1], value}
        end
    end
    return shown
end

-- The names of the classes, for predict.lua.
local function write_classes(path, names)
    local file, message = io.open(path, "w")
    if not file then error(message, 0) end
    for _, name in ipairs(names) do file:write(name, "\n") end
    file:close()
end

local function main()
    local settings = read_settings()
    if settings.threads then resin.set_threads(settings.threads) end
    resin.seed(settings.seed)
    local train_set, test_set = data.folder{settings.data, validation = settings.validation,
        seed = settings.seed, size = settings.size, random = settings.random}
    local model, head = build_network(settings, train_set.classes)
    freeze(settings, model, head)
    if not files.make_folder(settings.out) then
        error("--out: cannot write to the folder " .. settings.out, 0)
    end
    write_classes(settings.out .. "/classes.txt", train_set.class_names)
    print(("%s: %d classes, %d pictures for training, %d held out"):format(settings.data,
        train_set.classes, #train_set, #test_set))
    local interrupt <close> = resin.on_interrupt()
    local started = os.date("%Y-%m-%d %H:%M:%S")
    local history = fit(settings, model, head, train_set, test_set)
    if #history == 0 then
        error("stopped before the end of the first epoch; --resume goes on", 0)
    end
    model:save(settings.out .. "/model.safetensors")
    local result = report.write{
        out = settings.out, title = ("%s on %s"):format(settings.model, settings.data),
        history = history, settings = shown_settings(settings, started), model = model,
        test = test_set, held_out = "Validation",
    }
    print(("test accuracy: %.4f"):format(history[#history].val_accuracy))
    print("report: " .. result.path)
    if history.stopped == "interrupted" then os.exit(130, true) end -- as a shell calls Ctrl-C
end

io.stdout:setvbuf("line")
options.run(main)
