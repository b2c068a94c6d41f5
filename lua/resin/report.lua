--- resin.report: what a training leaves behind, as pictures and one page.
---
---   local result = report.write{
---       out = "runs/first", title = "ResNet-20 on CIFAR-10", history = history,
---       settings = {{"optimizer", "sgd"}, {"lr", 0.2}}, model = model, test = test_set,
---   }
---
--- writes to the folder `out`: history.csv, accuracy.svg, loss.svg, predictions.svg, mistakes.svg,
--- confusion.svg, filters.svg, and report.html, which holds them all and needs no other file.
local check = require "resin.nn.check"
local files = require "resin.files"
local page = require "resin.report.page"
local pictures = require "resin.report.pictures"
local judge = require "resin.report.judge"
local history_files = require "resin.train.history"

local report = {page = page.page}

local OPTIONS = {
    out = check.required, history = check.required, title = "Training",
    summary = check.optional,      -- a sentence below the title
    settings = check.optional,     -- {{name, value}, ...}
    times = check.optional,        -- {{name, text}, ...}, more rows for the table of times
    model = check.optional, test = check.optional,
    waited_share = check.optional, -- 0 to 1; from the history's columns where it has them
    held_out = "Validation",       -- what the history's columns val_... are in pictures
    titles = {},                   -- of curves in place of the usual, as {loss = "Model Loss"}
}

---- Numbers ---------------------------------------------------------------------------------------

local function sum_of(history, name)
    local sum
    for _, row in ipairs(history) do
        if row[name] then sum = (sum or 0) + row[name] end
    end
    return sum
end

local function duration(seconds)
    if seconds < 100 then return ("%.1f s"):format(seconds) end
    if seconds < 7200 then
        return ("%d min %02d s"):format(seconds // 60, math.floor(seconds % 60))
    end
    return ("%d h %02d min"):format(seconds // 3600, math.floor(seconds % 3600 / 60))
end

local function waited_share(given)
    if given.waited_share then return given.waited_share end
    local waited, seconds = sum_of(given.history, "waited"), sum_of(given.history, "seconds")
    return waited and seconds and seconds > 0 and waited / seconds or nil
end

local function percent(share) return ("%.2f %%"):format(100 * share) end

-- The numbers at the head of the page.
local function head_numbers(given, result)
    local history, list = given.history, {}
    local last = history[#history] or {}
    local function add(name, text) list[#list + 1] = {name, text} end
    if result then
        add("test accuracy", percent(result.accuracy))
        add("test loss", ("%.4f"):format(result.loss))
    elseif last.val_accuracy then
        add(given.held_out:lower() .. " accuracy", percent(last.val_accuracy))
    end
    add(#history == 1 and "epoch" or "epochs", #history)
    local seconds, share = sum_of(history, "seconds"), waited_share(given)
    if seconds then add("training", duration(seconds)) end
    if share then add("waiting for data", percent(share)) end
    if given.model then
        local _, trainable = given.model:count()
        local text = ("%d"):format(trainable):reverse():gsub("(%d%d%d)", "%1,"):reverse()
        add("parameters", (text:gsub("^,", "")))
    end
    return list
end

local function time_rows(given, result)
    local history, rows = given.history, {}
    local function add(name, text) rows[#rows + 1] = {name, text} end
    local seconds, share = sum_of(history, "seconds"), waited_share(given)
    if seconds then
        add("training", duration(seconds))
        add("an epoch, on average", duration(seconds / #history))
    end
    local validation = sum_of(history, "val_seconds")
    if validation then add(given.held_out:lower(), duration(validation)) end
    if share then add("share of training spent waiting for data", percent(share)) end
    if result then add("predictions of the test images", duration(result.seconds)) end
    for _, row in ipairs(given.times or {}) do rows[#rows + 1] = row end
    return rows
end

---- The table of epochs ---------------------------------------------------------------------------

local FIRST = {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"}

local function columns_of(history)
    local columns, seen, has = {}, {}, {}
    for _, row in ipairs(history) do
        for name in pairs(row) do has[name] = true end
    end
    local rest = {}
    for name in pairs(has) do rest[#rest + 1] = name end
    table.sort(rest)
    for _, names in ipairs{FIRST, history.columns or {}, rest} do
        for _, name in ipairs(names) do
            if has[name] and not seen[name] then
                seen[name] = true
                columns[#columns + 1] = name
            end
        end
    end
    return columns
end

local function cell_text(name, value)
    if math.type(value) ~= "float" then return value == nil and "" or tostring(value) end
    if name:find("seconds") then return ("%.1f"):format(value) end
    if name == "waited" then return ("%.3f"):format(value) end
    if name == "lr" then return ("%.4g"):format(value) end
    if math.abs(value) >= 1000 then return ("%.0f"):format(value) end
    return ("%.4f"):format(value)
end

local function epoch_rows(history, columns)
    local rows = {{}}
    for i, name in ipairs(columns) do rows[1][i] = (name:gsub("_", " ")) end
    for _, row in ipairs(history) do
        local cells = {}
        for i, name in ipairs(columns) do cells[i] = cell_text(name, row[name]) end
        rows[#rows + 1] = cells
    end
    return rows
end

---- Writing ---------------------------------------------------------------------------------------

local function make_folder(path)
    if not files.make_folder(path) then
        check.fail("report.write: cannot write to the folder %s", path)
    end
end

--- Writes all files. Returns {path = ".../report.html"} and, where there were a model and test
--- images, accuracy, loss, counts (counts[true class][predicted class]) and seconds.
function report.write(options)
    local given = check.options("report.write", options, OPTIONS)
    local history = given.history
    make_folder(given.out)
    local result = given.model and given.test and judge.judge(given.model, given.test)
    local shown = pictures.all(given, result)
    for _, picture in ipairs(shown) do
        history_files.write_file(given.out .. "/" .. picture.file, picture.svg .. "\n")
    end
    local columns = columns_of(history)
    local table_of_rows = {columns = columns, table.unpack(history)}
    history_files.write_file(given.out .. "/history.csv", history_files.csv(table_of_rows))
    local path = given.out .. "/report.html"
    history_files.write_file(path, page.page{
        title = given.title, summary = given.summary, numbers = head_numbers(given, result),
        pictures = shown, rows = epoch_rows(history, columns), settings = given.settings,
        times = time_rows(given, result),
    })
    result = result or {}
    result.path = path
    return result
end

return report
