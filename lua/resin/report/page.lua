--- One HTML page that needs no other file, in light and dark.
local svg = require "resin.plot.svg"

local page = {}

local STYLE = [[
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
       color: var(--ink); background: var(--paper); max-width: 1240px; margin: 2.2em auto 4em;
       padding: 0 1.2em; }
h1 { font-size: 1.7em; line-height: 1.2; margin: 0 0 .3em; }
h2 { font-size: 1.15em; margin: 2.4em 0 .6em; padding-bottom: .3em;
     border-bottom: 1px solid var(--grid); }
.summary { color: var(--faint); margin: 0 0 1.4em; }
.numbers { display: flex; flex-wrap: wrap; gap: .8em 2.6em; margin: 1.4em 0; padding: 0; }
.numbers div { display: flex; flex-direction: column-reverse; }
.numbers dt { color: var(--faint); font-size: .85em; }
.numbers dd { margin: 0; font-size: 1.45em; font-weight: 600; font-variant-numeric: tabular-nums; }
.numbers div:first-child dd { color: var(--first); }
.pictures { display: flex; flex-wrap: wrap; gap: 18px 24px; align-items: flex-start; }
.pictures svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93em; }
th { font-weight: 600; color: var(--faint); }
td, th { padding: 3px 22px 3px 0; text-align: left; white-space: nowrap; }
td { border-top: 1px solid var(--grid); }
.epochs td, .epochs th { text-align: right; padding: 3px 0 3px 26px; }
.epochs td:first-child, .epochs th:first-child { padding-left: 0; }
.columns { display: flex; flex-wrap: wrap; gap: 0 70px; }
@media print { body { margin: 0; max-width: none; } }]]

local function html_table(rows, class, has_header)
    local out = {('<div class="scroll"><table class="%s">'):format(class)}
    for i, row in ipairs(rows) do
        local cell = has_header and i == 1 and "th" or "td"
        local cells = {}
        for j, value in ipairs(row) do
            cells[j] = ("<%s>%s</%s>"):format(cell, svg.escape(value), cell)
        end
        out[#out + 1] = "<tr>" .. table.concat(cells) .. "</tr>"
    end
    out[#out + 1] = "</table></div>"
    return table.concat(out, "\n")
end

local function number_list(numbers)
    local out = {'<dl class="numbers">'}
    for _, row in ipairs(numbers) do
        out[#out + 1] = ("<div><dt>%s</dt><dd>%s</dd></div>"):format(svg.escape(row[1]),
            svg.escape(row[2]))
    end
    out[#out + 1] = "</dl>"
    return table.concat(out, "\n")
end

local function section(heading, body)
    return ("<section><h2>%s</h2>\n%s</section>"):format(heading, body)
end

--- report.title, report.summary (a sentence), report.numbers ({{name, text}, ...}), report.pictures
--- ({{svg = ...}, ...}), report.rows (of epochs; the first one holds the headings), report.settings
--- and report.times ({{name, value}, ...}); all but the title may be left out.
function page.page(report)
    local title = svg.escape(report.title)
    local out = {
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<title>" .. title .. "</title>",
        "<style>" .. svg.page_colours() .. STYLE .. "</style></head><body>",
        "<h1>" .. title .. "</h1>",
    }
    local function add(text) out[#out + 1] = text end
    if report.summary then
        add('<p class="summary">' .. svg.escape(report.summary) .. "</p>")
    end
    if report.numbers then add(number_list(report.numbers)) end
    add('<div class="pictures">')
    for _, picture in ipairs(report.pictures or {}) do add(picture.svg) end
    add("</div>")
    if report.rows then add(section("Epochs", html_table(report.rows, "epochs", true))) end
    add('<div class="columns">')
    for _, part in ipairs{{"Settings", report.settings}, {"Times", report.times}} do
        if part[2] and #part[2] > 0 then
            add(section(part[1], html_table(part[2], "settings")))
        end
    end
    add("</div></body></html>\n")
    return table.concat(out, "\n")
end

return page
