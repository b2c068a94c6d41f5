-- cardinality.lua: a small ResNeXt made deeper, wider, or given more groups, all at the same cost,
-- and one without groups; several seeds each.
--
--     lua5.4 scripts/experiments/cardinality.lua
--     lua5.4 scripts/experiments/cardinality.lua --data cifar10 --data-dir FOLDER --samples 10000
--
-- The claim of Xie et al. 2016 (arXiv 1611.05431, tables 3 and 4): at the same number of
-- multiply-adds groups are better than none, and more groups are a better use of them than more
-- layers or more width. "4 x 6d" is 4 groups that are 6 channels wide in the first stage. Grouped
-- convolutions reach fewer multiply-adds a second, so equal cost is not equal time.
--
-- Takes two to three minutes on two cores.
dofile((arg[0]:match("^(.*)/") or ".") .. "/../path.lua")
local resin = require "resin"
local experiment = require "resin.script.experiment"
local models, plot = resin.models, resin.plot

---- The networks ----------------------------------------------------------------------------------

local function build(settings, shape)
    local width = settings.width
    return models.resnext{variant = "cifar", cardinality = shape.groups, width = shape.group_width,
        blocks = shape.blocks, filters = {4 * width, 8 * width, 16 * width}, stem = width,
        input = settings.input, classes = settings.classes}
end

local function cost_of(settings, shape) return build(settings, shape):cost().multiply_adds end

-- The shape whose `field` (an integer) brings the cost closest to the budget. Cost grows with it.
local function fitted(settings, shape, field, budget)
    local best, least
    for value = 1, math.huge do
        local one = {groups = shape.groups, group_width = shape.group_width, blocks = shape.blocks,
            name = shape.name}
        one[field] = value
        one.cost = cost_of(settings, one)
        local distance = math.abs(one.cost - budget)
        if not least or distance < least then best, least = one, distance end
        if one.cost > budget then return best end
    end
end

-- The base, and what has the cost of its deeper form.
local function shapes_of(settings)
    local groups, group_width = settings.groups, settings.group_width
    local base = {name = "base", groups = groups, group_width = group_width, blocks = 1}
    local deeper = {name = "deeper", groups = groups, group_width = group_width, blocks = 2}
    base.cost, deeper.cost = cost_of(settings, base), cost_of(settings, deeper)
    return {base, deeper,
        fitted(settings, {name = "wider", groups = groups, blocks = 1}, "group_width", deeper.cost),
        fitted(settings, {name = "no groups", groups = 1, blocks = 1}, "group_width", deeper.cost),
        fitted(settings, {name = "more groups", group_width = group_width, blocks = 1}, "groups",
            deeper.cost)}
end

local function describe(shape)
    return ("%d x %dd, %d block%s a stage"):format(shape.groups, shape.group_width, shape.blocks,
        shape.blocks > 1 and "s" or "")
end

---- What came out ---------------------------------------------------------------------------------

local function facts(values)
    local low, high, sum = math.min(table.unpack(values)), math.max(table.unpack(values)), 0
    for _, value in ipairs(values) do sum = sum + value end
    return sum / #values, low, high
end

local function range_text(values)
    return ("%.2f (%.2f to %.2f)"):format(facts(values))
end

-- Fewer errors with `one` than with `other`: true or false where all seeds of the one are on the
-- same side of all of the other, nil where they overlap. One seed does not tell.
local function is_better(one, other)
    if #one.test == 1 then return nil end
    local _, low, high = facts(one.test)
    local _, other_low, other_high = facts(other.test)
    if high < other_low then return true end
    if low > other_high then return false end
    return nil
end

local function claim(report, text, one, other)
    local better = is_better(one, other)
    report:claim(text, better, "Test error %s %% with %s, %s %% with %s%s.", range_text(one.test),
        one.name, range_text(other.test), other.name,
        #one.test == 1 and "; one seed has no range" or better == nil
            and ("; the ranges of %d seeds overlap"):format(#one.test) or "")
end

local function judge(report, shapes)
    local _, deeper, wider, none, more = table.unpack(shapes)
    claim(report, "at equal cost more groups are better than none", more, none)
    claim(report, "at equal cost more groups are better than more layers", more, deeper)
    claim(report, "at equal cost more groups are better than more width", more, wider)
    local furthest = 0
    for i = 2, #shapes do
        furthest = math.max(furthest, math.abs(shapes[i].cost / deeper.cost - 1))
    end
    report:say("The costs of the four differ by up to %.1f %%, because groups and widths are whole "
        .. "numbers; the base costs %.0f %% of them.", 100 * furthest,
        100 * shapes[1].cost / deeper.cost)
end

local function show_table(report, shapes, test_count)
    local cells = {}
    for i, shape in ipairs(shapes) do
        cells[i] = {shape.name, describe(shape), ("%.2f"):format(shape.cost / 1e6),
            ("%d"):format(shape.parameters), range_text(shape.training), range_text(shape.test)}
    end
    report:table({"network", "shape", "million multiply-adds", "parameters", "training error (%)",
        "test error (%)"}, cells)
    report:say("Errors: mean (lowest to highest) over the seeds, of which there are %d; %d "
        .. "images in the test.", #shapes[1].test, test_count)
end

local function draw(shapes)
    local rows = {}
    for i, shape in ipairs(shapes) do
        rows[i] = {name = shape.name, note = ("%s, %.1f M"):format(describe(shape),
            shape.cost / 1e6), values = shape.test, colour = i == 1 and 7 or i == 5 and 2 or 1}
    end
    return plot.ranges{title = "Cardinality, width and depth at equal cost",
        note = ("%d seeds each: circles; bar: their range; stroke: their mean; M: million "
            .. "multiply-adds"):format(#shapes[1].test), x_label = "Test error (%)", rows = rows}
end

local function main(settings, report)
    local shapes, trainings = shapes_of(settings), {}
    for _, shape in ipairs(shapes) do
        shape.training, shape.test = {}, {}
        for repetition = 1, settings.seeds do
            local seed = settings.seed + repetition - 1
            resin.seed(seed)
            local model = build(settings, shape)
            local rows = experiment.train(settings, model,
                {name = shape.name, seed = seed, only_last = true})
            trainings[#trainings + 1] = rows
            shape.parameters = select(2, model:count())
            shape.training[repetition] = rows[1].training_error
            shape.test[repetition] = rows[1].test_error
        end
    end
    show_table(report, shapes, #settings.test)
    judge(report, shapes)
    report:data(experiment.joined(trainings))
    report:picture(draw(shapes))
end

experiment.run{
    name = "cardinality",
    about = "Compares more groups with more layers and more width at the same multiply-adds.",
    defaults = {samples = 2500, image_size = 16, epochs = 12, batch_size = 50, lr = 0.05,
        weight_decay = 5e-4, width = 16},
    rows = {
        {"groups", "N", "groups of the base", kind = "integer", low = 2, default = 4},
        {"group-width", "N", "channels of a group of the base's first stage", kind = "integer",
            low = 1, default = 4},
        {"seeds", "N", "trainings of each network, with the seeds from --seed on", kind = "integer",
            low = 1, default = 3},
    },
    main = main,
}
