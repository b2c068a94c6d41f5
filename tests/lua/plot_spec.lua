-- Charts and reports: what stands in the text.
local plot = require "resin.plot"

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
        assert.equal(2, count(svg, 'fill="none" stroke="#%x+" stroke%-width="2"'))
        assert.equal(5, count(svg, "<circle"))
    end)
    it("leaves a gap where a value is not finite", function()
        local svg = plot.chart{series = {{name = "a", x = {1, 2, 3, 4}, y = {1, 0 / 0, 2, 1 / 0}}}}
        assert_well_formed(svg)
        assert.is_nil(svg:lower():find("nan"))
        assert.is_nil(svg:find("inf"))
        assert.equal(2, count(svg, "<circle"))
    end)
    it("can be empty, one point or constant", function()
        for _, series in ipairs{{x = {}, y = {}}, {x = {1}, y = {0.5}}, {x = {1, 2}, y = {0, 0}}} do
            local svg = plot.chart{series = {series}}
            assert_well_formed(svg)
            assert.is_nil(svg:lower():find("nan"))
        end
    end)
end)

describe("a report", function()
    it("is one page that needs nothing else", function()
        local page = plot.report{title = "t <1>", summary = "s", charts = {plot.chart{series = {}}},
            rows = {{"epoch", "loss"}, {1, 2.5}}, settings = {{"lr", 0.1}}}
        assert_well_formed(page)
        assert.is_truthy(page:find("<th>epoch</th>", 1, true))
        assert.is_truthy(page:find("<td>2.5</td>", 1, true))
        assert.is_nil(page:find("src=", 1, true))
        assert.equal(0, count(page:gsub('xmlns="[^"]*"', ""), "http"))
    end)
end)
