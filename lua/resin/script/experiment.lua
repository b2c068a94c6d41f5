--- What the scripts in scripts/experiments have in common: options, images, a training with the
--- errors after each epoch, and what came out of it, as text, table and picture. A script is
---
---   experiment.run{
---       name = "degradation", about = "...",
---       defaults = {samples = 4000, epochs = 10, ...},
---       rows = {{"depth", "N", "...", kind = "integer", default = 56}},
---       main = function(settings, report) ... end,
---   }
---
--- `rows` are options of its own (options.lua) behind the common ones, whose defaults the script
--- gives; those without a default are left out. settings has the options, train and test (data
--- sets), input (the images' shape) and classes. What main hands to `report` is printed and stands
--- in the folder --out in the end, as NAME.md, NAME.csv and NAME.svg:
---
---   report:say(format, ...)        a paragraph
---   report:table(columns, rows)    a small table; cells are texts
---   report:claim(text, shown, why) whether the data show a claim: true, false, or nil where they
---                                  do not tell
---   report:data(rows)              all numbers: a list of {name = value}, rows.columns their order
---   report:picture(svg)
local core = require "resin.core"
local files = require "resin.files"
local history = require "resin.train.history"
local images = require "resin.script.images"
local optim = require "resin.optim"
local options = require "resin.options"
local train = require "resin.train"

local experiment = {}

---- Options ---------------------------------------------------------------------------------------

local DATA_SETS = {"synthetic", "cifar10", "cifar100", "mnist", "fashion-mnist"}

local function common_rows(defaults)
    local all = {
        {"data", "NAME", "the images", what = "data set", choices = DATA_SETS,
            default = "synthetic"},
        {"data-dir", "DIR", "the folder with the files of the other data sets"},
        {"samples", "N", "the first N images for training, a fifth as many for the test",
            kind = "integer", low = 10},
        {"image-size", "N", "side that the images are resized to", kind = "integer", low = 8},
        {"epochs", "N", "passes over the images of each training", kind = "integer", low = 1},
        {"steps", "N", "steps of each training", kind = "integer", low = 0},
        {"batch-size", "N", "images in a batch", kind = "integer", low = 2},
        {"lr", "X", "learning rate of SGD with momentum 0.9", kind = "number", low = 0},
        {"weight-decay", "X", "decay of the weights", kind = "number", low = 0},
        {"width", "N", "filters of the first stage", kind = "integer", low = 1},
    }
    local rows = {}
    for _, row in ipairs(all) do
        local default = defaults[row[1]:gsub("-", "_")]
        if default ~= nil or row[1]:find("^data") then
            row.default = row.default or default
            rows[#rows + 1] = row
        end
    end
    return rows
end

local function last_rows(name)
    return {
        {"seed", "N", "same seed, same result, at any number of threads", kind = "integer", low = 0,
            default = 1},
        {"threads", "N", "all processors if left out", kind = "integer", low = 1, high = 64},
        {"out", "DIR", "folder of the results", default = "runs/" .. name},
    }
end

local function read_settings(program)
    local rows = {about = program.about}
    for _, list in ipairs{common_rows(program.defaults), program.rows or {},
        last_rows(program.name)} do
        table.move(list, 1, #list, #rows + 1, rows)
    end
    return options.parse(arg, rows), rows
end

local function load_images(settings)
    settings.image = {settings.image_size, settings.image_size}
    settings.train, settings.test = images.load(settings)
    settings.input, settings.classes = {settings.train:image_shape()}, settings.train.classes
end

---- Results ---------------------------------------------------------------------------------------

local Report = {}
Report.__index = Report

function Report:say(format, ...)
    local text = select("#", ...) > 0 and format:format(...) or format
    print(text)
    self[#self + 1] = text
end

-- Columns as wide as their widest cell, all but the first to the right: Markdown that reads well as
-- plain text.
function Report:table(columns, rows)
    local widths, all = {}, {columns, {}}
    table.move(rows, 1, #rows, 3, all)
    for column in ipairs(columns) do
        widths[column] = 0
        for _, row in ipairs(all) do
            widths[column] = math.max(widths[column], utf8.len(row[column] or ""))
        end
        all[2][column] = column == 1 and ("-"):rep(widths[1])
            or ("-"):rep(widths[column] - 1) .. ":"
    end
    local lines = {}
    for i, row in ipairs(all) do
        local cells = {}
        for column, cell in ipairs(row) do
            local space = (" "):rep(widths[column] - utf8.len(cell))
            cells[column] = column == 1 and cell .. space or space .. cell
        end
        lines[i] = "| " .. table.concat(cells, " | ") .. " |"
    end
    self:say("%s", table.concat(lines, "\n"))
end

local ANSWERS = {[true] = "Shown by these data", [false] = "NOT shown by these data"}

function Report:claim(text, shown, why, ...)
    if select("#", ...) > 0 then why = why:format(...) end
    self:say("Claim: %s. %s. %s", text, ANSWERS[shown] or "These data do not decide", why)
end

function Report:data(rows) self.csv = history.csv(rows) end

function Report:picture(svg) self.svg = svg end

-- What was in force, without what does not change the numbers.
local function settings_text(settings, rows)
    local parts = {}
    for _, row in ipairs(rows) do
        local value = settings[row[1]:gsub("-", "_")]
        if value ~= nil and row[1] ~= "out" and row[1] ~= "threads" and row[1] ~= "data-dir" then
            parts[#parts + 1] = ("--%s %s"):format(row[1], value)
        end
    end
    return table.concat(parts, " ")
end

local function write(report, program, settings, rows)
    local path = settings.out .. "/" .. program.name
    local text = ("# %s\n\n%s\n\nSettings: `%s`; kernels %s.\n\n![](%s.svg)\n\n%s\n"):format(
        program.name, program.about, settings_text(settings, rows), core.instruction_set(),
        program.name, table.concat(report, "\n\n"))
    history.write_file(path .. ".md", text)
    history.write_file(path .. ".csv", report.csv)
    history.write_file(path .. ".svg", report.svg)
    print(("%d seconds; results: %s.md, .csv, .svg"):format((core.clock() - report.started) // 1,
        path))
end

---- Training --------------------------------------------------------------------------------------

local function stop() os.exit(130, true) end -- as a shell calls Ctrl-C

--- In percent, of all images of a set, as the network infers.
function experiment.error_of(model, set)
    local result = train.evaluate(model, set, {batch_size = 250})
    if not result then stop() end
    return 100 * (1 - result.accuracy)
end

--- Trains with SGD (momentum 0.9, Nesterov, one-cycle up to settings.lr) and returns a row for each
--- epoch, {network, seed, epoch, loss, training_error, test_error}: errors in percent, after the
--- epoch, of all images. how: name, and epochs, lr, seed where they are not those of the settings;
--- `after`: epochs that the network has behind it; `only_last`: a row for the last epoch alone.
function experiment.train(settings, model, how)
    local epochs, seed = how.epochs or settings.epochs, how.seed or settings.seed
    local steps = (#settings.train - 1) // settings.batch_size + 1
    local rows, started = {}, core.clock()
    local measuring = {}
    function measuring:on_epoch_end(epoch, row)
        if how.only_last and epoch < epochs then return end
        local one = {network = how.name, seed = seed, epoch = (how.after or 0) + epoch,
            loss = row.loss, training_error = experiment.error_of(model, settings.train),
            test_error = experiment.error_of(model, settings.test)}
        rows[#rows + 1] = one
        print(("%s, seed %d, epoch %d: loss %.4f, error %.2f %% in training, %.2f %% in the test, "
            .. "%.0f s"):format(one.network, seed, one.epoch, one.loss, one.training_error,
                one.test_error, core.clock() - started))
    end
    local optimizer = optim.sgd{model, rule = "pytorch", momentum = 0.9, nesterov = true,
        weight_decay = settings.weight_decay,
        learning_rate = optim.one_cycle{peak = how.lr or settings.lr, steps = epochs * steps}}
    local result = train.fit(model, settings.train, {optimizer = optimizer, epochs = epochs,
        batch_size = settings.batch_size, seed = seed, callbacks = {measuring}, verbose = false})
    if result.stopped then stop() end
    return rows
end

--- The values of one column.
function experiment.column(rows, name)
    local list = {}
    for i, row in ipairs(rows) do list[i] = row[name] end
    return list
end

--- The rows of several trainings in one list, with the columns' order, for report:data.
function experiment.joined(trainings)
    local all = {columns = {"network", "seed", "epoch", "loss", "training_error", "test_error"}}
    for _, rows in ipairs(trainings) do table.move(rows, 1, #rows, #all + 1, all) end
    return all
end

---- Running ---------------------------------------------------------------------------------------

local function main(program)
    local settings, rows = read_settings(program)
    if settings.threads then core.set_threads(settings.threads) end
    core.seed(settings.seed)
    if not files.make_folder(settings.out) then
        error("--out: cannot write to the folder " .. settings.out, 0)
    end
    load_images(settings)
    local interrupt <close> = core.on_interrupt()
    local report = setmetatable({started = core.clock()}, Report)
    program.main(settings, report)
    write(report, program, settings, rows)
end

--- Runs the script with the arguments of the command line; wrong ones end the program.
function experiment.run(program)
    io.stdout:setvbuf("line")
    options.run(main, program)
end

return experiment
