--- resin.script: what the training scripts have in common: options, images, optimizer, the cost
--- told beforehand, training, report. A script says what networks it trains:
---
---   script.train{
---       about = "Trains a network.",
---       variant = {"plain or deep", default = "plain"},  -- the text of --variant
---       rows = {{"depth", "N", "layers", kind = "integer"}, script.rows.dropout},
---       variants = {plain = {...}, deep = {...}},
---   }
---
--- `rows` are the options of its networks, as in options.lua. A variant has
---
---   build     function(given, settings): the network (nn.model) for given.input, given.classes and
---             the options of the network
---   network   names of those among the script's options that it takes, as {"depth"}
---   name      of the results: a text, or a function of the settings
---   rule      "keras" or "pytorch": whose optimizers
---   lr        the learning rate of each optimizer: {sgd =, adam =, adamw =, rmsprop =}
---   random    {count, part}: how many random images, and the part of them for training
---   pixels    "normalized" (if left out), "unit" (from 0 to 1) or "bytes" (0 to 255)
---   held_out  "Test" or "Validation": what the other images are called
---   one_hot   labels as vectors
---   costly    tells before a training how long it will take
---   titles    of the report's plots: {accuracy = "Model Accuracy"}
---
--- and, by name, what holds for options that are not given, the script's own among them.
---
--- Where what is:
---   script/settings.lua   the options and what follows from them
---   script/images.lua     the data sets, cut and resized
---   script/optimizer.lua  optimizer and schedule
---   script/cost.lua       what a training will cost
local resin = require "resin"
local cost = require "resin.script.cost"
local files = require "resin.files"
local images = require "resin.script.images"
local optimizer = require "resin.script.optimizer"
local options = require "resin.options"
local settings_of = require "resin.script.settings"
local report, train = resin.report, resin.train

--- script.rows: options of networks that several scripts have (script/settings.lua).
local script = {rows = settings_of.network_rows}

local function fit(settings, model, train_set, test_set)
    local batches = (#train_set - 1) // settings.batch_size + 1
    local steps = (batches - 1) // settings.accumulate + 1
    return train.fit(model, train_set, {
        optimizer = optimizer.build(model, settings, settings.epochs * steps),
        epochs = settings.epochs, batch_size = settings.batch_size,
        accumulate = settings.accumulate, seed = settings.seed,
        augment = {crop = settings.crop, flip = settings.flip, cutout = settings.cutout},
        validation_data = test_set, one_hot = settings.one_hot,
        label_smoothing = settings.label_smoothing, average = settings.average,
        callbacks = {train.csv_log(settings.out .. "/history.csv")},
        checkpoint = {settings.out .. "/checkpoint.safetensors",
            every_steps = settings.checkpoint_steps},
        resume = settings.resume or false,
    })
end

-- Makes the folder of the results now: nobody wants to learn after hours that it cannot be written.
local function make_folder(path)
    if not files.make_folder(path) then
        error("--out: cannot write to the folder " .. path, 0)
    end
end

-- The output of a network that ends with an image has no class for the whole.
local function check_output(model)
    local sizes = model.outputs[1]:shape()
    if #sizes > 1 then
        error(("the network has an output for each pixel, (N, %s), and the images have one label: "
            .. "--pooling avg or max joins them; --summary shows the network as it is"):format(
            table.concat(sizes, ", ")), 0)
    end
end

local function main(program)
    local settings = settings_of.read(program, arg)
    if settings.threads then resin.set_threads(settings.threads) end
    resin.seed(settings.seed)
    local model = settings:build()
    if settings.summary then return model:summary() end
    check_output(model)
    local train_set, test_set = images.load(settings)
    if not settings.dry_run then make_folder(settings.out) end
    cost.describe(settings, model, train_set, test_set)
    if settings.dry_run then return end
    local interrupt <close> = resin.on_interrupt()
    local started = os.date("%Y-%m-%d %H:%M:%S")
    local history = fit(settings, model, train_set, test_set)
    if #history == 0 then
        error("stopped before the end of the first epoch; --resume goes on", 0)
    end
    model:save(settings.out .. "/model.safetensors")
    local result = report.write{
        out = settings.out, title = ("%s on %s"):format(settings.name, settings.data),
        history = history, settings = settings:shown(started), model = model, test = test_set,
        held_out = settings.held_out, titles = settings.titles,
    }
    print(("test accuracy: %.4f"):format(history[#history].val_accuracy))
    print("report: " .. result.path)
    if history.stopped == "interrupted" then os.exit(130, true) end -- as a shell calls Ctrl-C
end

--- Runs the script with the arguments of the command line; wrong ones end the program.
function script.train(program)
    io.stdout:setvbuf("line")
    options.run(main, program)
end

return script
