-- bench_boosting.lua: times gradient boosting on made-up tables: X uniform, y = sin(6 x1) + x_last^2 +
-- 0.1 noise, a fifth as many rows to test. One line a table and method.
--
--     lua5.4 scripts/bench_boosting.lua --threads 2
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local options = require "resin.options"

local OPTIONS = {
    about = "Times gradient boosting of 100 trees: the best of three fits and of three predictions.",
    {"threads", "N", "all processors if left out", kind = "integer", low = 1, high = 64},
}

local ROWS = {
    {rows = 20640, columns = 8, method = "exact", max_depth = 3},
    {rows = 20640, columns = 8, method = "hist", max_depth = 6},
    {rows = 200000, columns = 20, method = "hist", max_depth = 6},
}

local function make_table(rows, columns, seed)
    resin.seed(seed)
    local x = resin.rand(rows, columns)
    local noise = resin.normal({rows}, 0, 0.1)
    return x, (x:select(2, 1) * 6):sin() + x:select(2, columns) ^ 2 + noise
end

-- The least seconds of three calls, and what the last one gave.
local function best_of_three(call)
    local least, result = math.huge, nil
    for _ = 1, 3 do
        local start = resin.clock()
        result = call()
        least = math.min(least, resin.clock() - start)
    end
    return least, result
end

local function measure(row)
    local x, y = make_table(row.rows, row.columns, 0)
    local test_x, test_y = make_table(row.rows // 5, row.columns, 1)
    local fit_seconds, model = best_of_three(function()
        return resin.boost.gradient_boosting{n_estimators = 100, max_depth = row.max_depth,
            method = row.method}:fit(x, y)
    end)
    local predict_seconds = best_of_three(function() return model:predict(x) end)
    local errors = model:predict(test_x) - test_y:to("float64")
    print(("%-5s  %6d x %-2d  depth %d  fit %.4f s  prediction of its rows %.4f s  test rmse %.6f")
        :format(row.method, row.rows, row.columns, row.max_depth, fit_seconds, predict_seconds,
            (errors * errors):mean():item() ^ 0.5))
end

options.run(function()
    local settings = options.parse(arg, OPTIONS)
    if settings.threads then resin.set_threads(settings.threads) end
    for _, row in ipairs(ROWS) do measure(row) end
end)
