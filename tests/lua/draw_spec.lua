-- Pictures of graphs: every layer has its box, boxes lie apart, shortcuts are curves beside them.
local resin = require "resin"
local layout = require "resin.nn.draw_layout"
local nn, models, initializers = resin.nn, resin.models, resin.nn.initializers

local function count(text, pattern) return select(2, text:gsub(pattern, "")) end

-- Items as model:draw makes them, from {name = inputs} in order; those that start with "add" sum.
local function items_of(list)
    local items, by_name = {}, {}
    for position, one in ipairs(list) do
        local inputs = {}
        for place = 2, #one do inputs[place - 1] = assert(by_name[one[place]]) end
        items[position] = {name = one[1], inputs = inputs, sums = one[1]:find("^add") ~= nil}
        by_name[one[1]] = items[position]
    end
    return items
end

local WIDTH = 100

local function assert_apart(arranged)
    for i, a in ipairs(arranged.boxes) do
        assert(a.x >= 10 and a.x + WIDTH <= 10 + arranged.width + 0.01, a.item.name)
        assert(a.y >= 20 and a.y + layout.BOX_HEIGHT <= 20 + arranged.height + 0.01, a.item.name)
        for j = 1, i - 1 do
            local b = arranged.boxes[j]
            local apart = a.x + WIDTH < b.x or b.x + WIDTH < a.x
                or a.y + layout.BOX_HEIGHT < b.y or b.y + layout.BOX_HEIGHT < a.y
            assert(apart, (a.item.name or "") .. " lies on " .. (b.item.name or ""))
        end
    end
end

-- Lines as "from kind to", a star behind those that belong to a shortcut.
local function lines_of(arranged)
    local result = {}
    for _, line in ipairs(arranged.lines) do
        if line.kind ~= "trunk" then
            result[("%s %s %s%s"):format(line.from.item.name, line.kind, line.to.item.name,
                line.shortcut and " *" or "")] = true
        end
    end
    return result
end

local function lane_xs(arranged)
    local xs = {}
    for _, box in ipairs(arranged.boxes) do xs[box.item.name] = box.x end
    return xs
end

describe("the layout of a graph", function()
    it("puts shortcuts beside the main line and projections into a lane", function()
        local arranged = layout.arrange(items_of{
            {"in"}, {"a", "in"}, {"b", "a"}, {"add1", "b", "in"},
            {"c", "add1"}, {"d", "c"}, {"project", "add1"}, {"add2", "d", "project"},
        }, WIDTH, 10, 20)
        assert_apart(arranged)
        assert.same({
            ["in straight a"] = true, ["a straight b"] = true, ["b straight add1"] = true,
            ["in shortcut add1 *"] = true, ["add1 straight c"] = true, ["c straight d"] = true,
            ["add1 fork project *"] = true, ["d straight add2"] = true,
            ["project join add2 *"] = true,
        }, lines_of(arranged))
        local x = lane_xs(arranged)
        assert.equal(x["in"], x.add2)
        assert(x.project > x.d + WIDTH)
    end)

    it("gives parallel paths a lane each, and uses lanes again", function()
        local list = {{"in"}}
        local sum = {"join"}
        for path = 1, 8 do
            list[#list + 1] = {"p" .. path, "in"}
            sum[path + 1] = "p" .. path
        end
        list[#list + 1] = sum
        list[#list + 1] = {"q1", "join"}
        list[#list + 1] = {"q2", "join"}
        list[#list + 1] = {"end", "q1", "q2"}
        local arranged = layout.arrange(items_of(list), WIDTH, 10, 20)
        assert_apart(arranged)
        local x = lane_xs(arranged)
        for path = 2, 8 do assert(x["p" .. path] > x["p" .. path - 1] + WIDTH) end
        assert.equal(x.p2, x.q2)
        for line in pairs(lines_of(arranged)) do assert.is_nil(line:find("*", 1, true), line) end
    end)

    it("nests shortcuts that overlap", function()
        local arranged = layout.arrange(items_of{
            {"a"}, {"b", "a"}, {"c", "b", "a"}, {"d", "c", "b"}, {"e", "d", "a"},
        }, WIDTH, 10, 20)
        assert_apart(arranged)
        local out = {}
        for _, line in ipairs(arranged.lines) do
            if line.kind == "shortcut" then
                out[line.from.item.name .. line.to.item.name] =
                    tonumber(line.path:match("C([%d.-]+)"))
            end
        end
        assert(out.ae < out.ac and out.ae < out.bd and out.ac ~= out.bd)
    end)

    it("puts an input that is read late near to its reader", function()
        local arranged = layout.arrange(items_of{
            {"in"}, {"a", "in"}, {"b", "a"}, {"c", "b"}, {"late"}, {"end", "c", "late"},
        }, WIDTH, 10, 20)
        local y = {}
        for _, box in ipairs(arranged.boxes) do y[box.item.name] = box.y end
        assert.equal(y.c, y.late)
        assert.equal(20, y["in"])
    end)

    it("folds long graphs between blocks, with what comes in at the top", function()
        local list = {{"in"}}
        for block = 1, 12 do
            local before = list[#list][1]
            list[#list + 1] = {"a" .. block, before}
            list[#list + 1] = {"b" .. block, "a" .. block}
            list[#list + 1] = {"add" .. block, "b" .. block, before}
        end
        local items = items_of(list)
        local arranged = layout.arrange(items, WIDTH, 10, 20)
        assert_apart(arranged)
        local ghosts = 0
        for _, box in ipairs(arranged.boxes) do
            if box.ghost then
                ghosts = ghosts + 1
                assert.truthy(box.item.name:find("^add"))
                assert.equal(20, box.y)
            end
        end
        assert(ghosts >= 1)
        local trunks = 0
        for _, line in ipairs(arranged.lines) do
            if line.kind == "trunk" then trunks = trunks + 1 end
        end
        assert.equal(ghosts, trunks)
        for columns = 1, 4 do
            local folded, own = layout.arrange(items, WIDTH, 10, 20, columns), 0
            assert_apart(folded)
            for _, box in ipairs(folded.boxes) do own = own + (box.ghost and 1 or 0) end
            assert.equal(columns - 1, own)
        end
        assert.equal(37, #layout.arrange(items, WIDTH, 10, 20, 1).boxes)
        assert(layout.arrange(items, WIDTH, 10, 20, 1000).width > 0) -- as many as there can be
    end)

    it("copes with graphs of any form", function()
        resin.seed(5)
        for size = 1, 40 do
            local list = {}
            for position = 1, size do
                list[position] = {"n" .. position}
                for place = 1, position > 1 and resin.permutation(3)[1]:item() or 0 do
                    list[position][place + 1] = "n" .. resin.permutation(position - 1)[1]:item()
                end
            end
            local items = items_of(list)
            local arranged = layout.arrange(items, WIDTH, 10, 20)
            assert_apart(arranged)
            local drawn = {}
            for _, box in ipairs(arranged.boxes) do
                if not box.ghost then drawn[box.item] = true end
            end
            for _, item in ipairs(items) do assert(drawn[item]) end
        end
    end)
end)

describe("model:draw", function()
    local kept = {}

    setup(function() -- millions of random numbers are not looked at
        for _, name in ipairs{"kaiming_normal", "kaiming_normal_fan_out", "pytorch"} do
            kept[name], initializers[name] = initializers[name], initializers.zeros
        end
    end)
    teardown(function()
        for name, make in pairs(kept) do initializers[name] = make end
    end)

    local function assert_well_formed(text)
        local open = {}
        for slash, name, rest in text:gsub("<style>.-</style>", ""):gmatch("<(/?)(%w+)([^>]*)>") do
            if slash == "/" then
                assert.equal(table.remove(open), name)
            elseif not rest:find("/$") then
                open[#open + 1] = name
            end
        end
        assert.equal(0, #open)
        assert.is_nil(text:find("nan", 1, true))
        assert.is_nil(text:find("inf%f[%W]"))
    end

    it("shows every layer of ResNet-50 and its shortcuts, in a size that can be read", function()
        local model = models.resnet50()
        local text = model:draw{title = "ResNet-50"}
        assert_well_formed(text)
        for _, child in ipairs(model:children()) do
            assert.truthy(text:find(">" .. child[1] .. "</text>", 1, true), child[1])
        end
        assert.equal(175 + count(text, ">continued<"), count(text, 'font%-weight="600">') - 1)
        assert.truthy(text:find(">Conv2D 7×7 /2</text>", 1, true))
        assert.truthy(text:find(">112×112×64</text>", 1, true))
        assert.truthy(text:find(">ResNet-50</text>", 1, true))
        assert.truthy(text:find("prefers-color-scheme:dark", 1, true))
        -- 12 blocks without a projection: curves (their arrows are a second path each).
        assert.equal(12, count(text, '<path d="M[%d.]+ [%d.]+C[^"]+" fill="none" class="line2"'))
        local width, height = text:match('width="(%d+)" height="(%d+)"')
        assert(width / height > 1.2 and width / height < 2.4, width .. " x " .. height)
        for size in text:gmatch('font%-size="([%d.]+)"') do assert(tonumber(size) >= 10) end
        collectgarbage()
    end)

    it("opens layers made of layers when asked", function()
        local model = models.class_resnet{blocks = 2, filters = 4, input = {16, 16, 3}}
        local closed, opened = model:draw(), model:draw{expand = true}
        assert.truthy(closed:find(">ResidualBlock</text>", 1, true))
        assert.is_nil(closed:find("residual_block/conv1", 1, true))
        assert.truthy(opened:find(">residual_block_1/conv2</text>", 1, true))
        assert.equal(2, count(opened, '<path d="M[%d.]+ [%d.]+C[^"]+" fill="none" class="line2"'))
        assert_well_formed(opened)
    end)

    it("writes a file, the same each time, and takes names as they are", function()
        local x = nn.input{shape = {4, 4, 2}, name = "a <b> & \"c\""}
        local y = nn.activation{function(t) return t:abs() end, name = ("é"):rep(60)}(x)
        local model = nn.model(x, nn.func{"f", function(t) return t * 2 end}(y))
        local path = os.tmpname()
        model:draw(path)
        local file = io.open(path, "rb")
        local text = file:read("a")
        file:close()
        os.remove(path)
        assert_well_formed(text)
        assert.equal(text, model:draw())
        assert.truthy(text:find("a &lt;b&gt; &amp; &quot;c&quot;", 1, true))
        assert.truthy(utf8.len(text))
        assert.truthy(text:find("é…", 1, true))
    end)

    it("refuses wrong options and says when its file cannot be written", function()
        local model = models.plain_cnn{input = {32, 32, 3}}
        assert.has_error(function() model:draw{colour = "red"} end)
        assert.has_error(function() model:draw{columns = 0} end)
        local ok, message = pcall(model.draw, model, "/none/x.svg")
        assert.is_false(ok)
        assert.truthy(message:find("/none/x.svg", 1, true))
    end)
end)
