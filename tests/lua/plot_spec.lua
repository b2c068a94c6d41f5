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
    it("has a logarithmic axis, with a gap at 0", function()
        local svg = plot.chart{y_log = true, series = {{name = "a", x = {1, 2, 3, 4, 5},
            y = {1e-3, 0, 1, -1, 1000}}}}
        assert_well_formed(svg)
        assert.is_nil(svg:lower():find("nan"))
        for _, mark in ipairs{">0.01<", ">1<", ">100<"} do
            assert.is_truthy(svg:find(mark, 1, true), mark)
        end
        assert.equal(3 + 1, count(svg, "<circle"))
        local y = {}
        for at in svg:gmatch('<circle cx="[%d.]+" cy="([%d.]+)"') do y[#y + 1] = tonumber(at) end
        assert.near(y[1] - y[2], y[2] - y[3], 0.2) -- three decades each
        svg = plot.chart{y_log = true, series = {{name = "a", x = {1, 2}, y = {12, 70}}}}
        for _, mark in ipairs{">20<", ">50<"} do
            assert.is_truthy(svg:find(mark, 1, true), mark)
        end
    end)
    it("has the ends of the axis that it is given, and dashed lines", function()
        local function at(y_range)
            local svg = plot.chart{y_range = y_range, series = {
                {name = "a", x = {1, 2}, y = {1, 2}, dashed = true},
                {name = "b", x = {1, 2}, y = {1, 2}}}}
            assert.equal(1 + 1, count(svg, "stroke%-dasharray")) -- the line, and the legend's
            return tonumber(svg:match('<circle cx="[%d.]+" cy="([%d.]+)"'))
        end
        assert.near((at{0, 1} + at{0, 1e9}) / 2, at{0, 2}, 1)
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

describe("ranges", function()
    it("have a circle for each value, a bar from least to most, a stroke at the mean", function()
        local svg = plot.ranges{title = "Seeds", note = "three", x_label = "Error", rows = {
            {name = "a", note = "small", values = {1, 2, 6}}, {name = "b", values = {4}}}}
        assert_well_formed(svg)
        assert.equal(4, count(svg, "<circle"))
        local x = {}
        for at in svg:gmatch('<circle cx="([%d.]+)"') do x[#x + 1] = tonumber(at) end
        local from, width = svg:match('<rect x="([%d.]+)" y="[%d.]+" width="([%d.]+)"')
        assert.near(x[1], tonumber(from), 0.11)
        assert.near(x[3] - x[1], tonumber(width), 0.11)
        local mean = svg:match('<line x1="([%d.]+)" x2="%1" y1="[%d.]+" y2="[%d.]+" class="line1"')
        assert.near((x[1] + x[2] + x[3]) / 3, tonumber(mean), 0.11)
    end)
    it("can be one value", function()
        local svg = plot.ranges{rows = {{name = "a", values = {0}}}}
        assert_well_formed(svg)
        assert.is_nil(svg:lower():find("nan"))
    end)
end)

describe("a sheet", function()
    it("puts pictures into rows", function()
        local a = plot.chart{width = 300, height = 200, series = {}}
        local svg = plot.sheet{title = "All", note = "of them", columns = 2, a, a, a}
        assert_well_formed(svg)
        assert.equal(1 + 3, count(svg, "<svg "))
        local width, height = svg:match('width="(%d+)" height="(%d+)"')
        local places = {}
        for x, y in svg:gmatch('<svg x="(%d+)" y="(%d+)"') do
            places[#places + 1] = {tonumber(x), tonumber(y)}
        end
        local top = tonumber(height) - 400
        assert.same({{0, top}, {300, top}, {0, top + 200}}, places)
        assert.equal("600", width)
        assert.has_error(function() plot.sheet{"<p>"} end,
            "plot.sheet: expected pictures that resin.plot has made")
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

describe("bars", function()
    it("have names, values, ranges and marks", function()
        local svg = plot.bars{title = "Bars", x_label = "times", line = 1, marks = {"low", "high"},
            rows = {{name = "<a>", value = 2.5, low = 2, high = 3, text = "2.5 x",
                marks = {low = 2, high = 4}}, {name = "b", value = 0.1, marks = {low = 3}}}}
        assert_well_formed(svg)
        assert.equal(2, count(svg, '<rect [^>]*class="fill1"'))
        assert.equal(2 + 1, count(svg, 'class="line2"')) -- the marks and the legend's
        assert.equal(1 + 1, count(svg, 'class="line3"'))
        assert.equal(1 + 1, count(svg, 'class="line7"')) -- a range, the line at 1
        assert.is_truthy(svg:find(">2.5 x<", 1, true))
        assert.is_truthy(svg:find(">0.10<", 1, true))
        assert.is_truthy(svg:find(">&lt;a&gt;<", 1, true))
    end)
    it("lie in the picture, the longest almost across it", function()
        local svg = plot.bars{rows = {{name = "a", value = 7}, {name = "b", value = 0}}}
        local width = tonumber(svg:match('<rect [^>]*width="([%d.]+)"[^>]*class="fill1"'))
        assert.is_true(width > 600 and width < 760)
        assert.is_nil(svg:lower():find("nan"))
        assert_well_formed(plot.bars{rows = {}})
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
