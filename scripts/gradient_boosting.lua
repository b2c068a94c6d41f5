-- gradient_boosting.lua: residuals in two worlds. Three trees by hand beside gradient boosting's
-- one call, what boosting does to bias and variance, a real table, and a residual network on the
-- same points, its error after each block beside the error after each tree.
--
--     lua5.4 scripts/gradient_boosting.lua
--     lua5.4 scripts/gradient_boosting.lua --table houses.csv --target price
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local csv = require "resin.csv"
local files = require "resin.files"
local options = require "resin.options"
local page = require "resin.report.page"
local panels = require "resin.boost.panels"
local boost, nn, optim, plot = resin.boost, resin.nn, resin.optim, resin.plot

-- ---- Settings -----------------------------------------------------------------------------------

-- Where the project's tests look for shared data, too.
local SHARED_TABLE = (os.getenv("RESIN_SHARED") or "../shared")
    .. "/data/tables/california_housing.csv"

local OPTIONS = {
    about = "Gradient boosting by hand and in one call, and a residual network beside it.",
    {"redraws", "N", "data sets drawn for bias and variance", kind = "integer", low = 2,
        default = 200},
    {"trees", "N", "trees for bias and variance", kind = "integer", low = 2, default = 60},
    {"blocks", "N", "blocks of the residual network", kind = "integer", low = 1, default = 6},
    {"steps", "N", "steps of the network's training", kind = "integer", low = 1, default = 3000},
    {"table", "FILE", "a CSV file with a header (the shared California housing, if it is there)"},
    {"target", "NAME", "the column to predict (median_house_value)"},
    {"seed", "N", "same seed, same result, at any number of threads", kind = "integer", low = 0,
        default = 1},
    {"threads", "N", "all processors if left out", kind = "integer", low = 1, high = 64},
    {"out", "DIR", "folder of the report and the pictures", default = "runs/gradient-boosting"},
}

local function heading(text) print("\n" .. text) end

local function mean_square(values) return values:square():mean():item() end

local function list_of(tensor) return tensor:reshape{tensor:count()}:totable() end

-- 100 points of y = 3 x^2 + 0.05 noise, x in [-0.5, 0.5).
local function draw_points(count)
    local x = resin.rand({count, 1}) - 0.5
    local noise = resin.randn({count}, "float64") * 0.05
    return x, 3 * x:reshape{count}:to("float64"):square() + noise
end

-- ---- Three trees by hand ------------------------------------------------------------------------

-- Fits each tree to what the sum before it leaves over, times `rate`.
local function boost_by_hand(x, y, rate)
    local fit = {trees = {}, residuals = {}, sums = {}}
    local sum = resin.zeros({#x}, "float64")
    for stage = 1, 3 do
        fit.residuals[stage] = y - sum
        fit.trees[stage] = boost.tree{max_depth = 2}:fit(x, fit.residuals[stage])
        sum = sum + rate * fit.trees[stage]:predict(x)
        fit.sums[stage] = sum
    end
    return fit
end

local function difference_to_call(x, y, rate, init)
    local call = boost.gradient_boosting{max_depth = 2, n_estimators = 3, learning_rate = rate,
        init = init}:fit(x, y)
    return (boost_by_hand(x, y, rate).sums[3] - call:predict(x)):abs():max():item()
end

local function show_agreement(x, y)
    heading("Three trees of depth 2, each fitted to the residual of those before, and the one call")
    local at_one, at_half = difference_to_call(x, y, 1.0), difference_to_call(x, y, 0.5)
    local at_half_from_zero = difference_to_call(x, y, 0.5, "zero")
    print(("  learning rate 1.0: largest difference %.2g (%s)"):format(at_one,
        at_one < 1e-6 and "they agree to 1e-6" or "THEY DIFFER"))
    print(("  learning rate 0.5: largest difference %.2g"):format(at_half))
    print("    The call starts from the mean of y, the trees by hand from 0. At rate 1 the first")
    print("    tree takes in the mean, whatever stands before it. At rate 0.5 each stage by hand")
    print(("    takes in half of it, and an eighth is missing after three: 0.125 x %.4f = %.4f.")
        :format(y:mean():item(), 0.125 * y:mean():item()))
    print(("    Started from 0 the call gives the same again: difference %.2g."):format(
        at_half_from_zero))
    return at_one
end

-- Left what each tree is given and what it makes of it, right the sum so far over the data.
local function draw_stages(x, y, fit)
    local grid = resin.arange(0, 399, 1, "float32"):reshape{400, 1} / 399 - 0.5
    local grid_x, sum = list_of(grid), resin.zeros({400}, "float64")
    local points_x = list_of(x)
    local given = {title = "Data, the residual that each tree fits, and the growing sum"}
    for stage, tree in ipairs(fit.trees) do
        local fitted = tree:predict(grid)
        sum = sum + fitted
        given[#given + 1] = {
            title = stage == 1 and "Tree 1 fits the data"
                or ("Tree %d fits the residual"):format(stage),
            points = {x = points_x, y = list_of(fit.residuals[stage])},
            line = {x = grid_x, y = list_of(fitted)},
        }
        given[#given + 1] = {
            title = stage == 1 and "Tree 1" or ("Sum of trees 1 to %d"):format(stage),
            points = {x = points_x, y = list_of(y)},
            line = {x = grid_x, y = list_of(sum)},
        }
    end
    return panels(given)
end

-- ---- Bias and variance --------------------------------------------------------------------------

-- Squared bias and variance on a grid after each stage, over many draws of the data.
local function bias_and_variance(settings)
    local grid = resin.arange(0, 100, 1, "float32"):reshape{101, 1} / 100 - 0.5
    local truth = 3 * grid:reshape{101}:to("float64"):square()
    local sums, squares = {}, {}
    for _ = 1, settings.redraws do
        local x, y = draw_points(100)
        local model = boost.gradient_boosting{n_estimators = settings.trees, max_depth = 2,
            learning_rate = 0.1}:fit(x, y)
        for stage, predicted in model:staged_predict(grid) do
            sums[stage] = sums[stage] and sums[stage] + predicted or predicted
            local square = predicted:square()
            squares[stage] = squares[stage] and squares[stage] + square or square
        end
    end
    local result = {stage = {}, bias = {}, variance = {}, total = {}}
    for stage = 1, settings.trees do
        local mean = sums[stage] / settings.redraws
        result.stage[stage] = stage
        result.bias[stage] = mean_square(mean - truth)
        result.variance[stage] = (squares[stage] / settings.redraws - mean:square()):mean():item()
        result.total[stage] = result.bias[stage] + result.variance[stage]
    end
    return result
end

local function show_bias_and_variance(settings)
    heading(("Bias and variance over %d redraws of 100 points (depth 2, learning rate 0.1)"):format(
        settings.redraws))
    local result = bias_and_variance(settings)
    print("  trees   bias^2      variance    sum")
    local shown = {1, 2, 5, 10, 20, 40, settings.trees}
    for i, stage in ipairs(shown) do
        if stage <= settings.trees and stage ~= shown[i - 1] then
            print(("  %5d   %.3e   %.3e   %.3e"):format(stage, result.bias[stage],
                result.variance[stage], result.total[stage]))
        end
    end
    local last = settings.trees
    print(("  Boosting lowers bias: bias^2 falls %.0f-fold, variance grows from %.1e to %.1e.")
        :format(result.bias[1] / result.bias[last], result.variance[1], result.variance[last]))
    return plot.chart{title = "Bias and variance against the number of trees", x_label = "Trees",
        y_label = "Mean square", series = {
            {name = "bias²", x = result.stage, y = result.bias},
            {name = "variance", x = result.stage, y = result.variance},
            {name = "sum", x = result.stage, y = result.total}}}
end

-- ---- A real table -------------------------------------------------------------------------------

local function rows_of(x, y, order, first, last)
    local rows = order[{{first, last}}]
    return x:take(rows, {axis = 1}), y:take(rows, {axis = 1})
end

local function root_errors(model, x, y)
    local list = {}
    for stage, predicted in model:staged_predict(x) do
        list[stage] = math.sqrt(mean_square(predicted - y))
    end
    return list
end

local function show_real_table(settings)
    heading("A real table")
    local path = settings.table or SHARED_TABLE
    if not settings.table and not files.exists(path) then
        print("  left out: there is none; give one with --table FILE.csv --target COLUMN")
        return nil
    end
    local read = csv.read(path)
    local x, y, names, categorical = read:features_and_target(settings.target
        or "median_house_value")
    local order, count = resin.permutation(#x), #x
    local border = math.floor(0.8 * count)
    local train_x, train_y = rows_of(x, y, order, 1, border)
    local test_x, test_y = rows_of(x, y, order, border + 1, count)
    local start = resin.clock()
    local model = boost.gradient_boosting{method = "hist", n_estimators = 300, max_depth = 6,
        learning_rate = 0.1, feature_names = names, categorical = categorical}
    model:fit(train_x, train_y)
    local seconds = resin.clock() - start
    local train, test = root_errors(model, train_x, train_y), root_errors(model, test_x, test_y)
    print(("  %s: %d rows to learn from, %d to test; %d features, %d of them categories"):format(
        path:match("[^/]*$"), border, count - border, #names, #categorical))
    print(("  300 trees of depth 6 in %.2f s"):format(seconds))
    local stages = {}
    for stage = 1, model.stages do stages[stage] = stage end
    print("  trees   train RMSE   test RMSE")
    for _, stage in ipairs{1, 10, 50, 100, 200, 300} do
        print(("  %5d   %10.6g   %9.6g"):format(stage, train[stage], test[stage]))
    end
    local importances = list_of(model:feature_importances())
    local ranked = {}
    for i, name in ipairs(names) do ranked[i] = {name, importances[i]} end
    table.sort(ranked, function(a, b) return a[2] > b[2] end)
    print(("  what counts most: %s (%.0f %%), %s (%.0f %%)"):format(ranked[1][1],
        100 * ranked[1][2], ranked[2][1], 100 * ranked[2][2]))
    local chart = plot.chart{title = "Train and test error over trees", x_label = "Trees",
        y_label = "RMSE", series = {{name = "train", x = stages, y = train},
            {name = "test", x = stages, y = test}}}
    return {chart = chart, test = test[model.stages]}
end

-- ---- The residual network -----------------------------------------------------------------------

-- h = W x; h = h + block(h), ...: after each block the same last layer reads the sum so far. A
-- block is about as much as a tree of depth 2: two bends beside its three steps.
local function residual_network(blocks)
    local x, head = nn.input{1}, nn.dense{1}
    local h = nn.dense{8}(x)
    local outputs = {head(h)}
    for block = 1, blocks do
        h = h + nn.dense{8}(nn.dense{2, activation = "tanh"}(h))
        outputs[block + 1] = head(h)
    end
    return nn.model(x, outputs)
end

-- The loss asks every reading to be right: each block is trained on what the sum before it misses.
local function train_network(settings, x, y)
    local model = residual_network(settings.blocks)
    local optimizer = optim.adam{model, learning_rate = optim.cosine{rate = 0.01,
        steps = settings.steps}}
    local target = y:to("float32"):reshape{#y, 1}
    for _ = 1, settings.steps do
        local loss
        for _, output in ipairs(model(x, {training = true})) do
            local part = resin.mse_loss(output, target)
            loss = loss and loss + part or part
        end
        loss:backward()
        optimizer:step()
        optimizer:clear_grads()
    end
    return model
end

local function show_network(settings, x, y)
    heading(("The same points: a tree a stage, or a residual block a stage (%d blocks)"):format(
        settings.blocks))
    local test_x, test_y = draw_points(1000)
    local trees = boost.gradient_boosting{n_estimators = settings.blocks, max_depth = 2,
        learning_rate = 1}:fit(x, y)
    local network = train_network(settings, x, y)
    local after_tree = {math.sqrt(mean_square(test_y - y:mean():item()))}
    for stage, predicted in trees:staged_predict(test_x) do
        after_tree[stage + 1] = math.sqrt(mean_square(predicted - test_y))
    end
    local after_block, stages = {}, {}
    for i, output in ipairs(network(test_x)) do
        stages[i] = i - 1
        after_block[i] = math.sqrt(mean_square(output:reshape{#test_y}:to("float64") - test_y))
    end
    print("  RMSE on 1,000 new points (the noise alone is 0.05)")
    print("  stage   after the tree   after the block")
    for i, stage in ipairs(stages) do
        print(("  %5d   %14.4f   %15.4f"):format(stage, after_tree[i], after_block[i]))
    end
    return plot.chart{title = "Error after each tree and after each residual block",
        x_label = "Trees or blocks", y_label = "RMSE on new points", series = {
            {name = "trees", x = stages, y = after_tree},
            {name = "residual blocks", x = stages, y = after_block}}}, after_block
end

-- ---- All of it ----------------------------------------------------------------------------------

local function write(path, text)
    local file = assert(io.open(path, "wb"))
    assert(file:write(text))
    assert(file:close())
end

local function main()
    local settings = options.parse(arg, OPTIONS)
    if settings.threads then resin.set_threads(settings.threads) end
    resin.seed(settings.seed)
    if not files.make_folder(settings.out) then
        error("--out: cannot write to the folder " .. settings.out, 0)
    end
    local x, y = draw_points(100)
    local difference = show_agreement(x, y)
    local fit = boost_by_hand(x, y, 1)
    local pictures = {{"stages.svg", draw_stages(x, y, fit)},
        {"tree.svg", fit.trees[1]:draw()},
        {"bias.svg", show_bias_and_variance(settings)}}
    local real = show_real_table(settings)
    if real then pictures[#pictures + 1] = {"table.svg", real.chart} end
    local chart, after_block = show_network(settings, x, y)
    pictures[#pictures + 1] = {"network.svg", chart}
    local shown = {}
    for i, picture in ipairs(pictures) do
        write(settings.out .. "/" .. picture[1], picture[2])
        shown[i] = {svg = picture[2]}
    end
    local numbers = {{"largest difference to the one call", ("%.1g"):format(difference)},
        {"RMSE after the last block", ("%.4f"):format(after_block[#after_block])}}
    if real then numbers[#numbers + 1] = {"test RMSE of the table", ("%.6g"):format(real.test)} end
    write(settings.out .. "/report.html", page.page{
        title = "Residuals by trees and by blocks", pictures = shown, numbers = numbers,
        summary = "Each tree is fitted to what the sum of those before it leaves over; "
            .. "each residual block adds what the sum before it misses."})
    print(("\nreport: %s/report.html"):format(settings.out))
end

options.run(main)
