-- Pictures: what stands in the text.
local resin = require "resin"
local plot = resin.plot

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

describe("ticks", function()
    it("are round numbers inside of the range", function()
        assert.same({0, 0.2, 0.4}, {table.unpack(plot.ticks(0, 1, 6), 1, 3)})
        assert.same({2.0, 4.0, 6.0}, (plot.ticks(1, 7, 3)))
        assert.same({-0.5, 0.0, 0.5}, (plot.ticks(-0.7, 0.9, 4)))
    end)
    it("of whole numbers stay whole", function()
        for _, value in ipairs((plot.ticks(1, 3, 8, true))) do assert.equal(0, value % 1) end
    end)
end)

describe("a chart", function()
    it("has title, labels, names and a line for each series", function()
        local svg = plot.chart{title = "Loss & more", x_label = "Epoch", y_label = "Loss <x>",
            series = {{name = "a", x = {1, 2, 3}, y = {3, 2, 1}},
                {name = "b", x = {1, 2}, y = {1, 2}}}}
        assert_well_formed(svg)
        assert.is_truthy(svg:find("Loss &amp; more", 1, true))
        assert.is_truthy(svg:find("Loss &lt;x&gt;", 1, true))
        assert.equal(1, count(svg, 'fill="none" class="line1"'))
        assert.equal(1, count(svg, 'fill="none" class="line2"'))
        assert.equal(3 + 1, count(svg, "<circle")) -- the points of a, and the legend's
        assert.equal(2 + 1, count(svg, 'class="fill2"')) -- squares
    end)
    it("leaves a gap where a value is not finite", function()
        local svg = plot.chart{series = {{name = "a", x = {1, 2, 3, 4}, y = {1, 0 / 0, 2, 1 / 0}}}}
        assert_well_formed(svg)
        assert.is_nil(svg:lower():find("nan"))
        assert.is_nil(svg:find("inf"))
        assert.equal(2 + 1, count(svg, "<circle"))
    end)
    it("is drawn for light and dark pages", function()
        local svg = plot.chart{series = {}}
        assert.is_truthy(svg:find("prefers-color-scheme:dark", 1, true))
    end)
    it("can be empty, one point or constant", function()
        for _, series in ipairs{{x = {}, y = {}}, {x = {1}, y = {0.5}}, {x = {1, 2}, y = {0, 0}}} do
            local svg = plot.chart{series = {series}}
            assert_well_formed(svg)
            assert.is_nil(svg:lower():find("nan"))
        end
    end)
end)

describe("a confusion matrix", function()
    it("has a number for each pair that came, names and recall", function()
        local svg = plot.confusion{title = "Confusion", names = {"a", "b <c>"},
            counts = {{3, 1}, {0, 7}}}
        assert_well_formed(svg)
        assert.is_truthy(svg:find(">75.0 %<", 1, true))
        assert.is_truthy(svg:find(">100.0 %<", 1, true))
        assert.is_truthy(svg:find("b &lt;c&gt;", 1, true))
        assert.equal(2, count(svg, 'class="fill1"'))
        assert.equal(1, count(svg, 'class="fill2"'))
    end)
    it("of many classes has no text in its cells", function()
        local counts = {}
        for i = 1, 100 do
            counts[i] = {}
            for j = 1, 100 do counts[i][j] = i == j and 9 or 0 end
        end
        local svg = plot.confusion{title = "t", counts = counts, names = {}}
        assert_well_formed(svg)
        assert.equal(100, count(svg, 'class="fill1"'))
        assert.equal(0, count(svg, ">9<"))
    end)
    it("may have a class without images", function()
        local svg = plot.confusion{counts = {{0, 0}, {1, 1}}, names = {"a", "b"}}
        assert_well_formed(svg)
        assert.is_nil(svg:lower():find("nan"))
    end)
end)

describe("images", function()
    it("are PNG files inside of the picture, with captions", function()
        local one = {image = resin.full({8, 8, 1}, 9, "uint8"), caption = {{"<a>", "fill1"}}}
        local svg = plot.images{title = "t", images = {one, one, one}, columns = 2}
        assert_well_formed(svg)
        assert.equal(3, count(svg, 'href="data:image/png;base64,iVBORw0KGgo'))
        assert.equal(3, count(svg, ">&lt;a&gt;<"))
    end)
    it("are made smaller when they are large", function()
        local large = {image = resin.full({224, 300, 3}, 9, "uint8")}
        local svg = plot.images{title = "t", images = {large}}
        local width, height = svg:match('<image [^>]*width="(%d+)" height="(%d+)"')
        assert.same({100, 74}, {tonumber(width), tonumber(height)})
    end)
    it("may be none", function() assert_well_formed(plot.images{title = "t", images = {}}) end)
end)
