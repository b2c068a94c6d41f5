--- resin.plot: pictures as SVG, for light and dark pages. Nothing is needed to look at them but a
--- browser.
---
---   local svg = plot.chart{
---       title = "Loss over Epochs", x_label = "Epoch", y_label = "Loss",
---       series = {{name = "Training Loss", x = {1, 2, 3}, y = {2.3, 1.9, 1.7}}},
---   }
---
--- plot.chart and plot.ticks (plot/chart.lua), plot.bars (plot/bars.lua), plot.confusion
--- (plot/matrix.lua), plot.images (plot/images.lua), plot.ranges (plot/ranges.lua), plot.sheet
--- (plot/sheet.lua). resin.report puts them together for a training.
local chart = require "resin.plot.chart"

return {
    chart = chart.chart,
    ticks = chart.ticks,
    bars = require("resin.plot.bars").bars,
    confusion = require("resin.plot.matrix").confusion,
    images = require("resin.plot.images").images,
    ranges = require("resin.plot.ranges").ranges,
    sheet = require("resin.plot.sheet").sheet,
}
