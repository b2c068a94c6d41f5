-- The report of a training: its files and what stands in them.
local resin = require "resin"
local report = require "resin.report"
local judge = require "resin.report.judge"
local nn, data = resin.nn, resin.data

local FILES = {"accuracy.svg", "confusion.svg", "filters.svg", "history.csv", "loss.svg",
    "mistakes.svg", "predictions.svg", "report.html"}

local function read(path)
    local file = io.open(path, "rb")
    local text = file and file:read("a")
    if file then file:close() end
    return text
end

local function count(text, pattern) return select(2, text:gsub(pattern, "")) end

-- Every element that is opened is closed, in order.
local function assert_well_formed(text)
    local open = {}
    text = text:gsub("^<!DOCTYPE html>", ""):gsub("<meta [^>]*>", "")
    for slash, name, rest in text:gmatch("<(/?)(%w+)([^>]*)>") do
        if slash == "/" then
            assert.equal(table.remove(open), name)
        elseif not rest:find("/$") then
            open[#open + 1] = name
        end
    end
    assert.equal(0, #open)
end

local HISTORY = {
    columns = {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "waited"},
    {epoch = 1, loss = 2.25, accuracy = 0.25, val_loss = 2, val_accuracy = 0.5, seconds = 10.0,
        waited = 0.25},
    {epoch = 2, loss = 1.5, accuracy = 0.5, val_loss = 1.75, val_accuracy = 0.625, seconds = 10.0,
        waited = 0.05},
}

local function small_model(classes)
    local input = nn.input{32, 32, 3}
    local x = nn.conv2d{5, kernel = 3}(input)
    x = nn.global_avg_pool()(x)
    return nn.model(input, nn.dense{classes, activation = "softmax"}(x))
end

describe("a report", function()
    local folder, test
    before_each(function()
        folder = os.tmpname()
        os.remove(folder)
        test = data.synthetic{split = "test", count = 50}
        resin.seed(3)
    end)
    after_each(function()
        for _, name in ipairs(FILES) do os.remove(folder .. "/" .. name) end
        local removed, message = os.remove(folder)
        assert.is_true(removed or message:find("No such file") ~= nil, "other files were left")
    end)

    it("writes its pictures, the history and one page", function()
        local result = report.write{out = folder, title = "A <training>", history = HISTORY,
            settings = {{"optimizer", "sgd"}, {"flip", true}}, model = small_model(10), test = test,
            times = {{"loading", "3 s"}}}
        for _, name in ipairs(FILES) do
            assert.is_truthy(read(folder .. "/" .. name), name .. " is missing")
        end
        local page = read(folder .. "/report.html")
        assert_well_formed(page)
        assert.equal(folder .. "/report.html", result.path)
        for _, words in ipairs{"<h1>A &lt;training&gt;</h1>", "Accuracy over Epochs",
            "Training Accuracy", "Validation Accuracy", "Loss over Epochs", "Training Loss",
            "Validation Loss", "Confusion Matrix", "First-Layer Filters", "Worst Mistakes",
            "<td>optimizer</td><td>sgd</td>", "<td>loading</td><td>3 s</td>",
            "<dt>waiting for data</dt><dd>1.50 %</dd>", "prefers-color-scheme:dark"} do
            assert.is_truthy(page:find(words, 1, true), words)
        end
        -- It needs nothing from elsewhere.
        assert.equal(0, count(page:gsub('xmlns="[^"]*"', ""), "https?://"))
        assert.equal(count(page, 'href="'), count(page, 'href="data:image/png;base64,'))
        for _, name in ipairs{"accuracy.svg", "confusion.svg", "predictions.svg"} do
            assert_well_formed(read(folder .. "/" .. name))
        end
        assert.equal("epoch,loss,accuracy,val_loss,val_accuracy,seconds,waited",
            read(folder .. "/history.csv"):match("^[^\n]*"))
        assert.equal(3, count(read(folder .. "/history.csv"), "\n"))
    end)
    it("needs neither a model nor test images", function()
        local result = report.write{out = folder, history = {{epoch = 1, loss = 0 / 0}},
            waited_share = 0.125}
        local page = read(result.path)
        assert_well_formed(page)
        assert.is_truthy(page:find("12.50 %", 1, true))
        assert.is_nil(page:find("Accuracy over Epochs", 1, true))
        assert.is_nil(result.accuracy)
    end)
    it("does without test pictures where the model gives no class scores", function()
        local input = nn.input{32, 32, 3}
        local model = nn.model(input, nn.conv2d{4, kernel = 1}(input))
        local result = report.write{out = folder, history = HISTORY, model = model, test = test}
        assert.is_nil(result.accuracy)
        assert.is_nil(read(folder .. "/confusion.svg"))
    end)
    it("calls the held-out images what they are", function()
        report.write{out = folder, history = HISTORY, held_out = "Test"}
        assert.is_truthy(read(folder .. "/accuracy.svg"):find("Test Accuracy", 1, true))
    end)
    it("judges as the loss and argmax do", function()
        local model = small_model(10)
        local result = judge.judge(model, test)
        local images, labels = test:batches{batch_size = 50}()
        local logits = model(images, {logits = true})
        local loss = resin.cross_entropy(logits, labels):item()
        local right = logits:argmax(-1):equal(labels):sum():item()
        assert.is_true(math.abs(result.loss - loss) < 1e-5)
        assert.equal(right / 50, result.accuracy)
        local sum, diagonal = 0, 0
        for i, row in ipairs(result.counts) do
            for j, number in ipairs(row) do
                sum, diagonal = sum + number, diagonal + (i == j and number or 0)
            end
        end
        assert.same({50, right}, {sum, diagonal})
        local worst, all = judge.mistakes(result, 3)
        assert.equal(50 - right, all)
        assert.equal(3, #worst)
        assert.is_true(worst[1].loss >= worst[2].loss and worst[2].loss >= worst[3].loss)
    end)
    it("says when its folder cannot be written", function()
        local ok, message = pcall(report.write, {out = "/proc/none", history = {}})
        assert.is_false(ok)
        assert.is_truthy(message:find("cannot write to the folder /proc/none", 1, true))
    end)
end)
