--- One tree to look at: its nodes as a list, as text, and as a picture.
local check = require "resin.nn.check"
local svg = require "resin.plot.svg"

local view = {}

local Tree = {}
Tree.__index = Tree

local FIELDS = {"feature", "left", "right", "threshold", "value", "gain", "impurity", "weight",
    "samples", "missing_left", "set"}

-- The categories of a set, from its four words of 64 bits.
local function categories_of(words)
    local list = {}
    for category = 0, 255 do
        if words[category // 64 + 1] >> category % 64 & 1 == 1 then list[#list + 1] = category end
    end
    return list
end

--- Tree number `number` of a model's exported tensors. tree.nodes[1] is the root; a node has
--- feature (nil: a leaf), left, right (positions in the list), threshold, value, gain, impurity,
--- weight, samples, missing_left, and categories (a list) where the feature is categorical.
function view.tree(tensors, number, feature_names)
    local first = tensors.tree_first[number]:item() + 1
    local last = tensors.tree_first[number + 1]:item()
    local columns, nodes = {}, {}
    for _, name in ipairs(FIELDS) do columns[name] = tensors[name][{{first, last}}]:totable() end
    for i = 1, last - first + 1 do
        local node = {}
        for _, name in ipairs(FIELDS) do node[name] = columns[name][i] end
        node.missing_left = node.missing_left ~= 0
        if node.feature < 0 then
            node.feature, node.left, node.right, node.threshold = nil, nil, nil, nil
        else
            node.feature, node.left, node.right = node.feature + 1, node.left + 1, node.right + 1
        end
        if node.set >= 0 then
            node.categories = categories_of(tensors.sets[node.set + 1]:totable())
        end
        node.set = nil
        nodes[i] = node
    end
    return setmetatable({nodes = nodes, feature_names = feature_names}, Tree)
end

function Tree:__len() return #self.nodes end

--- The deepest leaf's depth; of a single node 0.
function Tree:depth()
    local function below(node)
        if not node.feature then return 0 end
        return 1 + math.max(below(self.nodes[node.left]), below(self.nodes[node.right]))
    end
    return below(self.nodes[1])
end

function view.write(path, text)
    local file, message = io.open(path, "wb")
    if not file then check.fail("boost: %s", message) end
    local ok, problem = file:write(text)
    if ok then ok, problem = file:close() end
    if not ok then check.fail("boost: %s: %s", path, problem) end
end

-- ---- Text ---------------------------------------------------------------------------------------

local function question(self, node)
    local name = self.feature_names and self.feature_names[node.feature] or "x" .. node.feature
    if not node.categories then return ("%s <= %.6g"):format(name, node.threshold) end
    return ("%s in {%s}"):format(name, table.concat(node.categories, ", "))
end

--- tree:dump(): one line for each node, branches below their question:
---     x1 <= 0.25  (100 rows, gain 4.2)
---       yes: 1.5  (60 rows)
---       no:  x2 <= 3 ...
function Tree:dump()
    local out = {}
    local function write(node, indent, label)
        if not node.feature then
            out[#out + 1] = ("%s%s%.6g  (%d rows)"):format(indent, label, node.value, node.samples)
            return
        end
        out[#out + 1] = ("%s%s%s  (%d rows, gain %.6g%s)"):format(indent, label,
            question(self, node), node.samples, node.gain,
            node.missing_left and ", missing: yes" or "")
        indent = indent .. "  "
        write(self.nodes[node.left], indent, "yes: ")
        write(self.nodes[node.right], indent, "no:  ")
    end
    write(self.nodes[1], "", "")
    return table.concat(out, "\n") .. "\n"
end

-- ---- Picture ------------------------------------------------------------------------------------

local BOX_HEIGHT, LEVEL, GAP, MARGIN, TOP = 52, 92, 14, 16, 16
local LETTER = 6.8 -- about the width of a letter of 12 pixels

local function box_lines(self, node)
    local rows = ("%d row%s"):format(node.samples, node.samples == 1 and "" or "s")
    local value = ("value %.4g"):format(node.value)
    if node.feature then return {svg.shorten(question(self, node), 40), value, rows} end
    return {value, rows}
end

local function width_of(lines)
    local longest = 0
    for _, line in ipairs(lines) do longest = math.max(longest, utf8.len(line) or #line) end
    return longest * LETTER + 18
end

-- Leaves side by side, each question above the middle of its two branches.
local function place(self, node, depth, placed, x)
    local lines = box_lines(self, node)
    local here = {node = node, lines = lines, width = width_of(lines), y = TOP + depth * LEVEL}
    placed[#placed + 1] = here
    if not node.feature then
        here.x = x + here.width / 2
        return here, x + here.width + GAP
    end
    here.left, x = place(self, self.nodes[node.left], depth + 1, placed, x)
    here.right, x = place(self, self.nodes[node.right], depth + 1, placed, x)
    here.x = (here.left.x + here.right.x) / 2
    return here, math.max(x, here.x + here.width / 2 + GAP)
end

local function draw_branch(picture, from, to, label)
    local y = from.y + BOX_HEIGHT
    picture:add('<path d="M%.1f %.1fL%.1f %.1f" fill="none" class="axis"/>', from.x, y, to.x, to.y)
    local anchor = to.x < from.x and "end" or "start"
    local x = (from.x + to.x) / 2 + (to.x < from.x and -6 or 6)
    picture:text(x, (y + to.y) / 2 - 3, label, {anchor = anchor, class = "faint"})
end

local function draw_box(picture, box)
    local leaf = not box.node.feature
    picture:add('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="%d" class="paper %s" '
        .. 'stroke-width="1.5"/>', box.x - box.width / 2, box.y, box.width, BOX_HEIGHT,
        leaf and 14 or 3, leaf and "line3" or "line1")
    local first = box.y + BOX_HEIGHT / 2 + 4 - (#box.lines - 1) * 7.5
    for i, line in ipairs(box.lines) do
        picture:text(box.x, first + (i - 1) * 15, line, {anchor = "middle",
            class = i == #box.lines and "faint" or "ink"})
    end
end

--- tree:draw([path]): the tree as an SVG picture; to a file if there is a path.
function Tree:draw(path)
    local placed, right, lowest = {}, 0, 0
    place(self, self.nodes[1], 0, placed, 0)
    local left = math.huge
    for _, box in ipairs(placed) do
        left = math.min(left, box.x - box.width / 2)
        right, lowest = math.max(right, box.x + box.width / 2), math.max(lowest, box.y)
    end
    for _, box in ipairs(placed) do box.x = box.x - left + MARGIN end
    local picture = svg.picture(right - left + 2 * MARGIN, lowest + BOX_HEIGHT + MARGIN,
        "Regression tree")
    for _, box in ipairs(placed) do
        if box.left then
            draw_branch(picture, box, box.left, "yes")
            draw_branch(picture, box, box.right, "no")
        end
    end
    for _, box in ipairs(placed) do draw_box(picture, box) end
    local text = tostring(picture)
    if path then view.write(path, text) end
    return text
end

return view
