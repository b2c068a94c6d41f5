-- Trees and boosting: against scikit-learn's results (fixtures/make_boost_golden.py), the histogram
-- method against plain sums, odd inputs, files, pictures.
local resin = require "resin"
local csv = require "resin.csv"
local boost = resin.boost
local formula = dofile "tests/lua/formula.lua"
local golden = dofile "tests/fixtures/golden_boost.lua"

local ROWS = 300

-- The table that make_boost_golden.py describes.
local function made_up()
    local x, y, weights = {}, {}, {}
    local unit = formula.unit
    for row = 1, ROWS do
        local cells = {}
        for feature = 1, 4 do cells[feature] = unit(1, 4 * (row - 1) + feature - 1) end
        local a, b, c, d = table.unpack(cells)
        x[row] = cells
        y[row] = 3 * (a - 0.5) * (a - 0.5) + b * c - d + 0.2 * (unit(2, row - 1) - 0.5)
        weights[row] = 0.25 + unit(3, row - 1)
    end
    return resin.tensor(x), resin.tensor(y, "float64"), resin.tensor(weights, "float64")
end

local function assert_near(expected, actual, tolerance, what)
    local bound = tolerance * math.max(1, math.abs(expected))
    assert.is_true(math.abs(expected - actual) <= bound,
        ("%s: expected %.17g, got %.17g"):format(what, expected, actual))
end

local function assert_list(expected, actual, tolerance, what)
    for i, value in ipairs(expected) do
        assert_near(value, actual[i], tolerance, what .. " " .. i)
    end
end

local function flat(tensor) return tensor:reshape{tensor:count()}:totable() end

-- All nodes as the fixture stores them.
local function stored_nodes(model)
    local list = {}
    for stage = 1, model.stages do
        for class = 1, model.outputs do
            for _, node in ipairs(model:tree(stage, class).nodes) do
                list[#list + 1] = node.feature or 0
                list[#list + 1] = node.threshold or node.value
            end
        end
    end
    return list
end

local function describe_case(case)
    local list = {}
    for name, value in pairs(case.options) do list[#list + 1] = name .. "=" .. tostring(value) end
    table.sort(list)
    return ("%s %s%s%s"):format(case.kind, table.concat(list, " "), case.classes and
        " classes=" .. case.classes or "", case.weighted and " weighted" or "")
end

describe("scikit-learn's trees", function()
    local x, y, weights = made_up()
    for _, case in ipairs(golden.made_up) do
        it("split for split: " .. describe_case(case), function()
            local make = case.kind == "tree" and boost.tree or boost.gradient_boosting
            local model = make(case.options)
            model:fit(x, case.labels or y, {weights = case.weighted and weights or nil})
            local nodes = stored_nodes(model)
            assert.equal(#case.nodes, #nodes)
            for i = 1, #nodes, 2 do
                assert.equal(case.nodes[i], nodes[i], "feature of node " .. (i + 1) // 2)
                local leaf = nodes[i] == 0
                assert_near(case.nodes[i + 1], nodes[i + 1], leaf and 1e-12 or 0,
                    (leaf and "value" or "threshold") .. " of node " .. (i + 1) // 2)
            end
            assert_list(case.scores, flat(model:decision(x)), 1e-12, "score")
            assert_list(case.importances, flat(model:feature_importances()), 1e-12, "importance")
            assert_list(case.train_loss or {}, model.train_loss, 1e-12, "loss of stage")
        end)
    end

    for _, case in ipairs(golden.real) do
        it(("predictions on a real table: %s %s"):format(case.file, case.loss), function()
            local path = (os.getenv("RESIN_SHARED") or "../shared") .. "/data/tables/" .. case.file
            local file = io.open(path, "rb")
            if not file then return pending("no shared data") end
            file:close()
            local read = csv.read(path, {header = case.header})
            local names = {}
            for i, position in ipairs(case.columns) do names[i] = read.names[position] end
            local target = read:column(read.names[case.target])[{{1, case.rows}}]
            if case.loss == "log_loss" then target = target:to("int64") + 1 end
            local table_x = read:tensor(names)[{{1, case.rows}}]
            local model = boost.gradient_boosting{n_estimators = 20, max_depth = 2,
                min_samples_leaf = 5, loss = case.loss}:fit(table_x, target)
            local scores, sum = flat(model:decision(table_x)), 0
            for _, score in ipairs(scores) do sum = sum + score end
            for i, expected in ipairs(case.scores) do
                assert_near(expected, scores[1 + (i - 1) * case.step], 1e-6, "score")
            end
            assert_near(case.sum, sum, 1e-6, "sum")
        end)
    end
end)

describe("boosting by hand", function()
    local x, y = {}, {}
    for i = 1, 100 do
        local value = formula.unit(5, i - 1) - 0.5
        x[i], y[i] = {value}, 3 * value * value + 0.05 * (formula.unit(6, i - 1) - 0.5)
    end

    local function by_hand(rate)
        local target, sum = resin.tensor(y, "float64"), resin.zeros({100}, "float64")
        for _ = 1, 3 do
            local tree = boost.tree{max_depth = 2}:fit(x, target - sum)
            sum = sum + rate * tree:predict(x)
        end
        return sum
    end

    local function difference(rate)
        local call = boost.gradient_boosting{max_depth = 2, n_estimators = 3, learning_rate = rate}
        return (by_hand(rate) - call:fit(x, y):predict(x)):abs():max():item()
    end

    it("equals the one call at learning rate 1 and at no other", function()
        assert.is_true(difference(1.0) < 1e-6)
        assert.is_true(difference(0.5) > 1e-3)
    end)
end)

-- ---- The histogram method -----------------------------------------------------------------------

-- Mean squared error.
local function error_of(model, x, y)
    return ((model:predict(x) - y):square()):mean():item()
end

describe("the histogram method", function()
    local x, y, weights = made_up()

    local function hist(options)
        options.method = "hist"
        return boost.gradient_boosting(options)
    end

    -- With a bin for each value it tries the thresholds of the exact method.
    it("equals the exact method where every value has its bin", function()
        local few = (x * 40):floor()
        local exact = boost.gradient_boosting{n_estimators = 5, min_samples_leaf = 5}:fit(few, y)
        local binned = hist{n_estimators = 5, min_samples_leaf = 5}:fit(few, y)
        assert_list(flat(exact:predict(few)), flat(binned:predict(few)), 1e-6, "prediction")
        assert_list(flat(exact:feature_importances()), flat(binned:feature_importances()), 1e-5,
            "importance")
    end)

    it("learns where missing values go", function()
        local list, target = {}, {}
        for row = 1, 200 do
            local value = formula.unit(7, row)
            local missing = row % 4 == 0
            list[row] = {missing and 0 / 0 or value, formula.unit(8, row)}
            target[row] = (missing or value > 0.8) and 2 or 0
        end
        local model = hist{n_estimators = 1, learning_rate = 1, max_depth = 2}:fit(list, target)
        assert.is_false(model:tree(1).nodes[1].missing_left)
        assert_list(target, flat(model:predict(list)), 1e-6, "prediction")
        assert_near(2, model:predict({{0 / 0, 0.5}})[1]:item(), 1e-6, "missing")
    end)

    it("divides categories in two, whatever their order", function()
        local list, target = {}, {}
        local high = {[2] = true, [5] = true, [250] = true}
        for row = 1, 300 do
            local category = ({0, 2, 3, 5, 9, 250})[1 + math.floor(6 * formula.unit(9, row))]
            list[row], target[row] = {category, formula.unit(10, row)}, high[category] and 1 or -1
        end
        local options = {n_estimators = 1, learning_rate = 1, max_depth = 1, categorical = {1}}
        local model = hist(options):fit(list, target)
        assert_list(target, flat(model:predict(list)), 1e-6, "prediction")
        assert.same({0, 3, 9}, model:tree(1).nodes[1].categories)
        local path = os.tmpname()
        model:save(path)
        local loaded = boost.load(path)
        os.remove(path)
        assert.same(flat(model:predict(list)), flat(loaded:predict(list)))
        -- A category that was never seen goes right; what is none goes as missing values do.
        local odd = model:predict{{77, 0}, {250, 0}, {0 / 0, 0}, {0.5, 0}, {-1, 0}, {math.huge, 0}}
        assert.equal(odd[2]:item(), odd[1]:item())
        for i = 4, 6 do assert.equal(odd[3]:item(), odd[i]:item()) end
        assert.has_error(function() hist(options):fit({{0.5}, {1}}, {1, 2}) end)
    end)

    it("rises and falls where it must", function()
        local options = {n_estimators = 30, max_depth = 4, monotone = {1, [4] = -1, [2] = 0}}
        local model = hist(options):fit(x, y)
        for feature, direction in pairs{[1] = 1, [4] = -1} do
            for row = 1, 20 do
                local cells, before = x[row]:totable(), nil
                for step = 0, 20 do
                    cells[feature] = step / 20
                    local value = direction * model:predict{cells}[1]:item()
                    assert.is_true(not before or value >= before - 1e-12)
                    before = value
                end
            end
        end
    end)

    it("keeps to its limits", function()
        local leaves = hist{growth = "leaf", max_leaf_nodes = 6, max_depth = false,
            n_estimators = 3}:fit(x, y)
        assert.equal(11, #leaves:tree(1))
        local large = hist{min_samples_leaf = 40, max_depth = 6, n_estimators = 3}:fit(x, y)
        for _, node in ipairs(large:tree(3).nodes) do assert.is_true(node.samples >= 40) end
        assert.equal(1, #hist{min_gain = 1e9, n_estimators = 1}:fit(x, y):tree(1))
        local shrunk = hist{l2 = 1e9, n_estimators = 1}:fit(x, y):tree(1)
        for _, node in ipairs(shrunk.nodes) do assert.is_true(math.abs(node.value) < 1e-3) end
    end)

    it("takes all losses and weights", function()
        for _, loss in ipairs{"squared_error", "absolute_error", "huber", "quantile"} do
            local model = hist{loss = loss, n_estimators = 40}
            model:fit(x, y, {weights = weights})
            assert.is_true(model.train_loss[40] < 0.5 * model.train_loss[1], loss)
        end
        local labels = y:greater(-0.1):to("int64") + y:greater(0.3):to("int64") + 1
        local model = hist{loss = "log_loss", n_estimators = 30}:fit(x, labels)
        assert.equal(3, model.classes)
        assert.is_true(model:predict(x):equal(labels):to("float32"):mean():item() > 0.95)
        local sums = model:predict_proba(x):sum{axes = 2}
        assert_near(1, sums:min():item(), 1e-12, "sum of probabilities")
    end)

    it("weights count as rows", function()
        local doubled = resin.concatenate({x, x[{{1, 100}}]}, {axis = 1})
        local doubled_y = resin.concatenate({y, y[{{1, 100}}]}, {axis = 1})
        local twice = resin.ones({ROWS}, "float64")
        twice[{{1, 100}}] = 2
        for _, method in ipairs{"exact", "hist"} do
            local options = {method = method, n_estimators = 3, max_depth = 2}
            local a = boost.gradient_boosting(options):fit(doubled, doubled_y)
            local b = boost.gradient_boosting(options):fit(x, y, {weights = twice})
            if method == "exact" then
                assert_list(flat(a:predict(x)), flat(b:predict(x)), 1e-9, method)
            else -- borders are quantiles of rows, not of weights
                assert.is_true((a:predict(x) - b:predict(x)):abs():mean():item() < 0.02)
            end
        end
    end)
end)

-- ---- Both methods -------------------------------------------------------------------------------

describe("drawing and stopping", function()
    local x, y = made_up()

    it("gives the same bits at any number of threads", function()
        local threads, wide = resin.threads(), formula.tensor(11, {9000, 6}, -1, 1)
        local target = wide:sum{axes = 2}:tanh()
        for _, options in ipairs{{method = "exact", max_features = 2, subsample = 0.7},
            {method = "hist", max_depth = 6}, {method = "hist", loss = "huber", subsample = 0.5},
            {method = "exact", max_leaf_nodes = 12, max_depth = false}} do
            options.n_estimators = 4
            local expected
            for _, count in ipairs{1, 2, 5} do
                resin.set_threads(count)
                local model = boost.gradient_boosting(options):fit(wide, target)
                local got = flat(model:predict(wide))
                expected = expected or got
                assert.same(expected, got)
            end
        end
        resin.set_threads(threads)
    end)

    it("draws by its seed only", function()
        local function fit(seed)
            return flat(boost.gradient_boosting{subsample = 0.5, max_features = 2, seed = seed,
                n_estimators = 5}:fit(x, y):predict(x))
        end
        assert.same(fit(1), fit(1))
        assert.not_same(fit(1), fit(2))
    end)

    it("stops when the validation part gets no better", function()
        local noise = formula.tensor(12, {ROWS}, -1, 1)
        local model = boost.gradient_boosting{n_estimators = 500, n_iter_no_change = 3,
            validation_fraction = 0.3}:fit(x, noise)
        assert.is_true(model.stages < 100)
        assert.equal(model.stages, #model.validation_loss)
        assert.equal(model.stages, #model.train_loss)
    end)

    it("predicts stage by stage", function()
        local model = boost.gradient_boosting{n_estimators = 6}:fit(x, y)
        local count = 0
        for stage, predicted in model:staged_predict(x) do
            count = count + 1
            assert.equal(count, stage)
            assert.same(flat(model:predict(x, stage)), flat(predicted))
        end
        assert.equal(6, count)
        assert_near(model.train_loss[6], error_of(model, x, y), 1e-12, "loss")
    end)

    it("stops when asked to", function()
        resin.cancel()
        local model = boost.gradient_boosting{n_estimators = 50}:fit(x, y)
        assert.equal(1, model.stages)
        assert.is_true(resin.cancelled(true))
    end)
end)

describe("odd inputs", function()
    local inf, nan = math.huge, 0 / 0

    -- Predictions of both methods for tables with one answer.
    local function both(x, y, check_model)
        for _, method in ipairs{"exact", "hist"} do
            check_model(boost.gradient_boosting{method = method, n_estimators = 3,
                learning_rate = 1, max_depth = 2}:fit(x, y), method)
        end
    end

    it("one row: its target", function()
        both({{1, 2}}, {7}, function(model)
            assert.equal(1, #model:tree(1))
            assert.same({7.0, 7.0}, model:predict{{1, 2}, {5, 5}}:totable())
        end)
    end)

    it("constant features and constant targets: no split", function()
        both({{1}, {1}, {1}}, {1, 2, 6}, function(model)
            assert.equal(1, #model:tree(1))
            assert_near(3, model:predict{{9}}[1]:item(), 1e-6, "mean")
        end)
        both({{1}, {2}, {3}}, {4, 4, 4}, function(model)
            assert.equal(1, #model:tree(1))
            assert.same({4.0}, model:predict{{2}}:totable())
            assert.same({0.0}, model:feature_importances():totable())
        end)
    end)

    it("duplicated features: the first one is taken", function()
        local x, y = {}, {}
        for i = 1, 60 do
            local value = formula.unit(13, i)
            x[i], y[i] = {value, value, 2 * value}, value * value
        end
        both(x, y, function(model)
            for stage = 1, 3 do
                for _, node in ipairs(model:tree(stage).nodes) do
                    assert.is_true(node.feature == nil or node.feature == 1)
                end
            end
        end)
    end)

    it("duplicated rows stay together", function()
        both({{1}, {1}, {1}, {2}, {2}}, {0, 1, 2, 5, 7}, function(model)
            assert.same({1.0, 6.0}, model:predict{{1}, {2}}:totable())
        end)
    end)

    it("values within 1e-7 are equal to the exact method", function()
        local model = boost.tree{}:fit({{0.1}, {0.10000001}, {5}}, {1, 3, 9})
        assert.same({2.0, 9.0}, model:predict{{0.1}, {5}}:totable())
    end)

    it("neighbouring float32: the threshold is the lower one", function()
        local model = boost.tree{}:fit({{16777216}, {16777218}}, {1, 2})
        assert.same({1.0, 2.0}, model:predict{{16777216}, {16777218}}:totable())
        local near = boost.tree{}:fit({{3e38}, {3.4e38}}, {1, 2})
        assert.same({1.0, 2.0}, near:predict{{3e38}, {3.4e38}}:totable())
    end)

    it("NaN and infinities: refused by the exact method, learned by the other", function()
        for _, value in ipairs{nan, inf, -inf, 1e39} do
            assert.error_matches(function() boost.tree{}:fit({{1}, {value}}, {1, 2}) end,
                "exact method takes finite float32 values.*row 2 of 2, feature 1 of 1")
        end
        local model = boost.gradient_boosting{method = "hist", n_estimators = 1, learning_rate = 1}
        model:fit({{-inf}, {0}, {inf}, {nan}}, {1, 2, 3, 4})
        assert_list({1, 2, 3, 4}, model:predict{{-inf}, {0}, {inf}, {nan}}:totable(), 1e-6, "value")
        local all = boost.gradient_boosting{method = "hist", n_estimators = 1}
        assert.same({1.5}, all:fit({{nan}, {nan}}, {1, 2}):predict{{3}}:totable())
    end)

    it("NaN when predicting with the exact method goes right", function()
        local model = boost.tree{}:fit({{1}, {2}}, {10, 20})
        assert.same({20.0}, model:predict{{nan}}:totable())
    end)

    it("targets and weights must be finite, weights not negative", function()
        local x = {{1}, {2}}
        for _, value in ipairs{nan, inf} do
            assert.error_matches(function() boost.tree{}:fit(x, {1, value}) end,
                "finite targets.*row 2 of 2")
            assert.error_matches(function()
                boost.tree{}:fit(x, {1, 2}, {weights = {1, value}})
            end, "weights of at least 0")
        end
        assert.error_matches(function() boost.tree{}:fit(x, {1, 2}, {weights = {1, -1}}) end,
            "weights of at least 0, got %-1 in row 2 of 2")
        assert.error_matches(function() boost.tree{}:fit(x, {1, 2}, {weights = {0, 0}}) end,
            "all weights are 0")
    end)

    it("rows of weight 0 are left out", function()
        local model = boost.tree{}:fit({{1}, {2}, {3}}, {1, 2, 30}, {weights = {1, 1, 0}})
        assert.same({2.0}, model:predict{{3}}:totable())
    end)

    it("empty tables: no fit, but an empty prediction", function()
        assert.error_matches(function() boost.tree{}:fit({}, {}) end, "empty")
        assert.error_matches(function() boost.tree{}:fit(resin.zeros{3, 0}, {1, 2, 3}) end, "empty")
        local model = boost.tree{}:fit({{1}, {2}}, {1, 2})
        assert.equal(0, #model:predict(resin.zeros{0, 1}))
    end)
end)

describe("wrong shapes and options", function()
    local function fails(pattern, f)
        assert.error_matches(f, pattern)
        local _, message = pcall(f)
        assert.truthy(message:find("boost_spec.lua", 1, true), message)
    end
    local x, y = {{1}, {2}, {3}}, {1, 2, 3}

    it("name both shapes, or the option", function()
        fails("shape %(rows, features%), got %(3%)", function() boost.tree{}:fit({1, 2, 3}, y) end)
        fails("one target for each row of the table %(3, 1%), got %(2%)", function()
            boost.tree{}:fit(x, {1, 2})
        end)
        fails("one weight for each row", function() boost.tree{}:fit(x, y, {weights = {1}}) end)
        fails("rows of 1 features, got a table of shape %(1, 2%)", function()
            boost.tree{}:fit(x, y):predict{{1, 2}}
        end)
        fails("call fit first", function() boost.tree{}:predict(x) end)
        fails("expected a tensor or a list of rows, got string", function()
            boost.tree{}:fit("x", y)
        end)
        fails('unknown option "depth"', function() boost.tree{depth = 3} end)
        fails("unknown option", function() boost.tree{}:fit(x, y, {weight = {1, 1, 1}}) end)
        fails('expected loss to be', function() boost.gradient_boosting{loss = "cubic"} end)
        fails('needs method = "hist"', function() boost.gradient_boosting{max_bins = 10} end)
        fails('needs method = "exact"', function()
            boost.gradient_boosting{method = "hist", criterion = "squared_error"}
        end)
        fails("max_bins of 2 to 255", function()
            boost.gradient_boosting{method = "hist", max_bins = 256}:fit(x, y)
        end)
        fails("there is no feature colour", function()
            boost.gradient_boosting{method = "hist", categorical = {"colour"}}:fit(x, y)
        end)
        fails("monotone features need the loss", function()
            boost.gradient_boosting{method = "hist", loss = "huber", monotone = {1}}:fit(x, y)
        end)
        fails("there is no tree", function() boost.tree{}:fit(x, y):tree(2) end)
        fails("probabilities need the loss", function() boost.tree{}:fit(x, y):predict_proba(x) end)
        fails("2 feature_names for a table of 1", function()
            boost.tree{feature_names = {"a", "b"}}:fit(x, y)
        end)
    end)

    it("numbers out of their range", function()
        for _, options in ipairs{{n_estimators = 0}, {learning_rate = 0}, {learning_rate = -1},
            {subsample = 0}, {subsample = 1.5}, {min_samples_split = 1}, {min_samples_leaf = 0},
            {max_leaf_nodes = 1}, {max_features = 0}, {max_features = 2}, {max_features = 1.5},
            {loss = "huber", alpha = 0}, {n_iter_no_change = -1}, {n_estimators = 1.5},
            {learning_rate = "fast"}, {n_iter_no_change = 2, validation_fraction = 1},
            {max_depth = -1}} do
            assert.has_error(function() boost.gradient_boosting(options):fit(x, y) end)
        end
    end)

    it("labels count from 1", function()
        local function fit(labels)
            return function() boost.gradient_boosting{loss = "log_loss"}:fit(x, labels) end
        end
        fails("labels count from 1", fit{0, 1, 1})
        fails("at least two classes", fit{1, 1, 1})
        fails("classes 0 to 1, got 0.5", fit{1, 1.5, 2})
        fails("labels count from 1", fit{1, 0 / 0, 2})
    end)
end)

-- ---- Files and pictures -------------------------------------------------------------------------

describe("a model is data", function()
    local x, y = made_up()
    local path = os.tmpname()
    teardown(function() os.remove(path) end)

    it("saved and loaded it predicts the same bits", function()
        local model = boost.gradient_boosting{n_estimators = 4,
            feature_names = {"a", "b", "c", "d"}}
        model:fit(x, y):save(path)
        local loaded = boost.load(path)
        assert.same(flat(model:predict(x)), flat(loaded:predict(x)))
        assert.equal(model:dump(), loaded:dump())
        local labels = {}
        for i, value in ipairs(y:totable()) do labels[i] = value > 0 and "high" or "low" end
        local classifier = boost.gradient_boosting{loss = "log_loss", n_estimators = 2}
        classifier:fit(x, labels):save(path)
        assert.same({"high", "low"}, boost.load(path).class_names)
        assert.same(flat(classifier:predict_proba(x)), flat(boost.load(path):predict_proba(x)))
    end)

    it("a damaged one is refused", function()
        boost.tree{max_depth = 2}:fit(x, y):save(path)
        local file <close> = resin.safetensors_open(path)
        local function damaged(change)
            local tensors, list = {}, {}
            for _, name in ipairs(file:names()) do tensors[name] = file:load(name) end
            change(tensors)
            for name, tensor in pairs(tensors) do list[#list + 1] = {name, tensor} end
            resin.safetensors_write(path .. ".bad", list, file:metadata())
            local ok, message = pcall(boost.load, path .. ".bad")
            os.remove(path .. ".bad")
            assert.is_false(ok)
            return message
        end
        local outside = "leads outside of its tree"
        assert.matches(outside, damaged(function(t) t.left[1] = 99 end))
        assert.matches(outside, damaged(function(t) t.left[1] = 0 end))
        assert.matches(outside, damaged(function(t) t.right[1] = t.left[1]:item() end))
        assert.matches(outside, damaged(function(t) t.right[2] = t.right[1]:item() end))
        assert.matches(outside, damaged(function(t) t.feature[1] = 4 end))
        assert.matches(outside, damaged(function(t) t.set[1] = 0 end))
        assert.matches(outside, damaged(function(t) t.tree_first[2] = 3 end))
        assert.matches("there is no tensor 'gain'", damaged(function(t) t.gain = nil end))
        assert.matches("'value' has 1 entries", damaged(function(t)
            t.value = resin.zeros({1}, "float64")
        end))
    end)

    it("a foreign file is refused", function()
        resin.safetensors_write(path, {{"a", resin.ones{2}}})
        assert.error_matches(function() boost.load(path) end, "holds no trees")
        assert.has_error(function() boost.load(path .. ".missing") end)
    end)
end)

describe("one tree to look at", function()
    local tree = boost.tree{max_depth = 2, feature_names = {"width"}}
    tree:fit({{1}, {2}, {3}, {4}}, {1, 2, 3, 5})

    it("as text", function()
        assert.equal([[
width <= 3.5  (4 rows, gain 6.75)
  yes: width <= 1.5  (3 rows, gain 1.5)
    yes: 1  (1 rows)
    no:  2.5  (2 rows)
  no:  5  (1 rows)
]], tree:tree():dump())
        assert.equal(2, tree:tree():depth())
    end)

    it("as a picture", function()
        local path = os.tmpname()
        tree:draw(path)
        local file = io.open(path, "rb")
        local svg = file:read("a")
        file:close()
        os.remove(path)
        assert.matches("^<svg .*width &lt;= 3.5.*</svg>%s*$", svg)
        local boxes = select(2, svg:gsub('stroke%-width="1.5"', ""))
        assert.equal(5, boxes)
        assert.error_matches(function() tree:draw("/nowhere/at/all.svg") end, "nowhere")
    end)
end)

describe("csv", function()
    local path = os.tmpname()
    teardown(function() os.remove(path) end)
    local function read(text, options)
        local file = io.open(path, "wb")
        file:write(text)
        file:close()
        return csv.read(path, options)
    end

    it("reads numbers, texts, missing values and quotes", function()
        local got = read('\xEF\xBB\xBFa,"b ""x""",c\r\n1,"red, dark",-2e3\r\n,blue,NA\r\n3,blue,4')
        assert.same({"a", 'b "x"', "c"}, got.names)
        assert.equal(3, got.rows)
        assert.same({2, 1, 1}, got.columns['b "x"'])
        assert.same({"blue", "red, dark"}, got.categories['b "x"'])
        assert.equal(-2000, got.columns.c[1])
        assert.is_true(got.columns.a[2] ~= got.columns.a[2])
        local x, y, names, categorical = got:features_and_target("c")
        assert.same({3, 2}, x:shape())
        assert.same({3}, y:shape())
        assert.same({"a", 'b "x"'}, names)
        assert.same({'b "x"'}, categorical)
    end)

    it("reads other separators and files without a header", function()
        local got = read("1;2\n3;4\n\n", {header = false, separator = ";"})
        assert.same({{1, 2}, {3, 4}}, got:tensor{"1", "2"}:totable())
    end)

    it("says what is wrong", function()
        assert.error_matches(function() read("a,b\n1\n") end,
            "record 2 has 1 fields, the first has 2")
        assert.error_matches(function() read("") end, "is empty")
        assert.error_matches(function() read('a\n"1') end, "does not end")
        assert.error_matches(function() read('a\n"1"2\n') end, "behind a quoted field")
        assert.error_matches(function() read("a,a\n1,2\n") end, "two columns are named")
        assert.error_matches(function() read("a\n1\n"):column("b") end, "there is no column")
        assert.error_matches(function() csv.read("/nowhere/at/all.csv") end, "nowhere")
    end)
end)

describe("the script", function()
    it("shows that three trees by hand are the one call", function()
        local out, houses = os.tmpname(), os.tmpname() .. "houses.csv"
        os.remove(out)
        local file = io.open(houses, "wb")
        file:write("size,place,price\n")
        for i = 1, 60 do
            file:write(("%d,%s,%d\n"):format(i, i % 3 == 0 and "sea" or "land", i * i))
        end
        file:close()
        local command = ("%s scripts/gradient_boosting.lua --redraws 3 --trees 4 --steps 20 "
            .. "--blocks 2 --table %s --target price --out %s 2>&1"):format(
            os.getenv("LUA") or "lua5.4", houses, out)
        local pipe = io.popen(command)
        local text = pipe:read("a")
        pipe:close()
        os.remove(houses)
        assert.matches("they agree to 1e%-6", text)
        assert.matches("learning rate 0.5: largest difference 0%.0", text)
        assert.matches("houses.csv: 48 rows to learn from, 12 to test", text)
        assert.matches("report: " .. out .. "/report.html", text, 1, true)
        for _, name in ipairs{"stages.svg", "tree.svg", "bias.svg", "table.svg", "network.svg",
            "report.html"} do
            local picture = assert(io.open(out .. "/" .. name, "rb"), text)
            assert.matches("<svg", picture:read("a"), 1, true)
            picture:close()
            os.remove(out .. "/" .. name)
        end
        os.remove(out)
    end)
end)
