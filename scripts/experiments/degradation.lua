-- degradation.lua: plain and residual networks of 20 and 56 layers, their errors by epoch.
--
--     lua5.4 scripts/experiments/degradation.lua
--     lua5.4 scripts/experiments/degradation.lua --data cifar10 --data-dir FOLDER --samples 10000
--
-- The claim of He et al. 2015 (arXiv 1512.03385, figures 1 and 6): a plain network with more layers
-- is worse on the images it was trained on, too, so it is not that it learns them by heart; with
-- shortcuts more layers do no harm.
--
-- Takes three to four minutes on two cores.
dofile((arg[0]:match("^(.*)/") or ".") .. "/../path.lua")
local resin = require "resin"
local experiment = require "resin.script.experiment"
local models, plot = resin.models, resin.plot

local KINDS = {
    {name = "plain", shortcut = "none", dashed = true},
    {name = "residual", shortcut = "identity", dashed = false},
}

-- Errors that differ by less, in percent of the images, are called equal: one training of each
-- network says no more.
local MARGIN = 1

local function curves(trainings, column, title, high)
    local series = {}
    for i, rows in ipairs(trainings) do
        series[i] = {name = rows[1].network, dashed = rows.dashed,
            x = experiment.column(rows, "epoch"), y = experiment.column(rows, column)}
    end
    return plot.chart{title = title, x_label = "Epoch", y_label = "Error (%)", series = series,
        y_range = {0, high}}
end

local function draw(trainings)
    local high = 0
    for _, row in ipairs(experiment.joined(trainings)) do
        high = math.max(high, row.training_error, row.test_error)
    end
    high = math.min(1.05 * high, 100)
    return plot.sheet{title = "Plain and residual networks by depth",
        curves(trainings, "training_error", "Training error", high),
        curves(trainings, "test_error", "Test error", high)}
end

-- What more layers add to an error at the end: text and number.
local function compare(shallow, deep, column)
    local a, b = shallow[#shallow][column], deep[#deep][column]
    return b - a, ("%.2f %% with %s, %.2f %% with %s"):format(a, shallow[1].network, b,
        deep[1].network)
end

local function judge(report, trainings)
    local plain, plain_text = compare(trainings[1], trainings[2], "training_error")
    local plain_test, test_text = compare(trainings[1], trainings[2], "test_error")
    local residual, residual_text = compare(trainings[3], trainings[4], "training_error")
    report:claim("the deeper plain network is worse on its own training set", plain > MARGIN,
        "Training error in the end: %s.", plain_text)
    report:claim("and on the test set", plain_test > MARGIN, "Test error in the end: %s.",
        test_text)
    report:claim("the deeper residual network is not worse on its training set",
        residual <= MARGIN, "Training error in the end: %s.", residual_text)
    report:say("One training of each network; differences of up to %g %% count as none. The errors "
        .. "are those after %d epochs: a network that is slower may still come closer.", MARGIN,
        #trainings[1])
end

local function main(settings, report)
    local trainings, cells = {}, {}
    for _, kind in ipairs(KINDS) do
        for _, depth in ipairs{settings.shallow, settings.deep} do
            resin.seed(settings.seed)
            local model = models.cifar_resnet{depth = depth, width = settings.width,
                input = settings.input, classes = settings.classes, shortcut = kind.shortcut}
            local rows = experiment.train(settings, model,
                {name = ("%s-%d"):format(kind.name, depth)})
            rows.dashed = kind.dashed
            trainings[#trainings + 1] = rows
            local last = rows[#rows]
            cells[#cells + 1] = {last.network, ("%.4f"):format(last.loss),
                ("%.2f"):format(last.training_error), ("%.2f"):format(last.test_error)}
        end
    end
    report:table({"network", "loss", "training error (%)", "test error (%)"}, cells)
    judge(report, trainings)
    report:data(experiment.joined(trainings))
    report:picture(draw(trainings))
end

experiment.run{
    name = "degradation",
    about = "Trains plain and residual networks of two depths and compares their errors.",
    defaults = {samples = 4000, image_size = 16, epochs = 30, batch_size = 100, lr = 0.05,
        weight_decay = 1e-4, width = 16},
    rows = {
        {"shallow", "N", "layers of the shallow networks, 6 n + 2", kind = "integer", default = 20},
        {"deep", "N", "layers of the deep networks, 6 n + 2", kind = "integer", default = 56},
    },
    main = main,
}
