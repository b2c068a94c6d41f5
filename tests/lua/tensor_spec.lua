-- Tensors in Lua: creation, indexing from 1, views, assignment, dtypes, text, and errors.
local resin = require "resin"

-- f must raise an error that contains every one of the texts.
local function fails(f, ...)
    local ok, message = pcall(f)
    assert.is_false(ok, "no error")
    for _, text in ipairs { ... } do
        if not tostring(message):find(text, 1, true) then
            error(('"%s" does not contain "%s"'):format(message, text), 2)
        end
    end
end

local function is(expected, tensor) assert.are.same(expected, tensor:totable()) end

-- 1 .. 12 as 3 rows of 4.
local function counting(dtype) return resin.arange(1, 12):to(dtype or "float32"):reshape(3, 4) end

describe("creating tensors:", function()
    it("zeros, ones, empty and full", function()
        is({ { 0, 0, 0 }, { 0, 0, 0 } }, resin.zeros(2, 3))
        is({ { 1, 1 } }, resin.ones({ 1, 2 }, "float64"))
        is({ 7, 7 }, resin.full({ 2 }, 7, "int32"))
        assert.are.same({ 4, 5 }, resin.empty(4, 5):shape())
        assert.are.equal("float32", resin.zeros(1):dtype())
        assert.are.equal("uint8", resin.zeros(2, 3, "uint8"):dtype())
        assert.are.equal(3.5, resin.full({}, 3.5):item())
        assert.are.same({}, resin.zeros():shape())
    end)

    it("arange includes its last value", function()
        is({ 1, 2, 3 }, resin.arange(1, 3))
        assert.are.equal("int64", resin.arange(1, 3):dtype())
        is({ 0, 0.5, 1 }, resin.arange(0, 1, 0.5))
        assert.are.equal("float32", resin.arange(0, 1, 0.5):dtype())
        assert.are.equal(11, resin.arange(0, 1, 0.1):count())
        is({ 5, 3, 1 }, resin.arange(5, 1, -2))
        is({}, resin.arange(2, 1))
        assert.are.equal("uint8", resin.arange(1, 4, "uint8"):dtype())
        fails(function() resin.arange(1, 2, 0) end, "step")
    end)

    it("from nested tables", function()
        is({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, resin.tensor { { 1, 2 }, { 3, 4 }, { 5, 6 } })
        assert.are.equal(2.5, resin.tensor(2.5):item())
        assert.are.same({ 0 }, resin.tensor({}):shape())
        assert.are.same({ 2, 0 }, resin.tensor({ {}, {} }):shape())
        is({ math.maxinteger, 1 - (1 << 62) },
            resin.tensor({ math.maxinteger, 1 - (1 << 62) }, "int64"))
        fails(function() resin.tensor { { 1, 2 }, { 3 } } end, "different lengths")
        fails(function() resin.tensor { 1, { 2 } } end, "number")
        fails(function() resin.tensor { { 1 }, 2 } end, "lengths")
        fails(function() resin.tensor { 1, "2x" } end, "number")
        fails(function() resin.tensor({ 1.5 }, "int64") end, "1.5", "int64")
        fails(function() resin.tensor({ 256 }, "uint8") end, "256", "uint8")
        fails(function() resin.tensor({ 1 }, "float16") end, "float16", "float32")
    end)

    it("random numbers in their ranges", function()
        resin.seed(1)
        local x = resin.uniform({ 1000 }, -2, 3)
        assert(x:min():item() >= -2 and x:max():item() < 3)
        local y = resin.rand(10, 10)
        assert(y:min():item() >= 0 and y:max():item() < 1)
        local z = resin.normal({ 20000 }, 5, 2, "float64")
        assert(math.abs(z:mean():item() - 5) < 0.1)
        assert(math.abs(z:variance():item() - 4) < 0.3)
        local order = resin.permutation(100)
        assert.are.equal(1, order:min():item())
        assert.are.equal(5050, order:sum():item())
        fails(function() resin.rand({ 2 }, "int64") end, "int64")
    end)

    it("refuses shapes that make no sense", function()
        fails(function() resin.zeros(2, -1) end, "(2, -1)")
        fails(function() resin.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1) end, "8")
        fails(function() resin.zeros { 1 << 40, 1 << 40 } end, "too large")
        fails(function() resin.zeros { 2, "x" } end, "integer")
        fails(function() resin.zeros { 2, 1.5 } end, "integer")
    end)
end)

describe("a tensor says", function()
    local x = counting()

    it("its shape, size, rank and count", function()
        assert.are.same({ 3, 4 }, x:shape())
        assert.are.equal(3, #x)
        assert.are.equal(4, x:size(2))
        assert.are.equal(4, x:size(-1))
        assert.are.equal(2, x:rank())
        assert.are.equal(12, x:count())
        assert.is_true(resin.is_tensor(x))
        assert.is_false(resin.is_tensor({}))
        assert.is_false(resin.is_tensor(io.stdout))
        fails(function() return x:size(3) end, "axis 3", "2 axes")
        fails(function() return x:size(0) end, "axis 0")
        fails(function() return #resin.zeros() end, "no length")
    end)

    it("its one element", function()
        assert.are.equal(3, resin.full({ 1, 1 }, 3):item())
        assert.are.equal("integer", math.type(resin.tensor(3, "int64"):item()))
        assert.are.equal("float", math.type(resin.tensor(3):item()))
        fails(function() return x:item() end, "12")
    end)

    it("what it is as text", function()
        assert.are.equal("tensor(2, 2) float32\n{{  1, 2.5},\n { -3,   4}}",
            tostring(resin.tensor { { 1, 2.5 }, { -3, 4 } }))
        assert.are.equal("tensor(3) int64\n{1, 2, 3}", tostring(resin.arange(1, 3)))
        assert.are.equal("tensor() float64\n0.5", tostring(resin.full({}, 0.5, "float64")))
        assert.are.equal("tensor(0) float32\n{}", tostring(resin.zeros(0)))
        local large = tostring(resin.zeros(100, 100))
        assert.truthy(large:find("...", 1, true))
        assert(#large < 1000)
        assert.truthy(tostring(resin.tensor { 0 / 0, 1 / 0 }):find("nan", 1, true))
    end)

    it("that it has no such method", function()
        fails(function() return x:no_such_thing() end, "no_such_thing")
        fails(function() x.color = 1 end, "color")
    end)
end)

describe("indexing", function()
    local x
    before_each(function() x = counting() end)

    it("counts from 1, and from the end", function()
        is({ 1, 2, 3, 4 }, x[1])
        is({ 9, 10, 11, 12 }, x[-1])
        assert.are.equal(7, x[{ 2, 3 }]:item())
        assert.are.equal(12, x[{ -1, -1 }]:item())
        assert.are.equal(6, x[2][2]:item())
        for _, position in ipairs { 0, 4, -4 } do
            fails(function() return x[position] end, tostring(position), "axis 1 of size 3")
        end
        fails(function() return x[{ 1, 5 }] end, "axis 2 of size 4")
        fails(function() return x[{ 1, 1, 1 }] end, "3 positions for 2 axes")
        fails(function() return x[1.5] end, "1.5")
        fails(function() return x[{ "a" }] end, "axis 1")
        fails(function() return resin.zeros()[1] end, "item")
    end)

    it("takes ranges, inclusive, with steps", function()
        is({ { 2, 3 }, { 6, 7 }, { 10, 11 } }, x[{ {}, { 2, 3 } }])
        is({ { 5, 6, 7, 8 }, { 9, 10, 11, 12 } }, x[{ { 2, 3 } }])
        is({ { 5, 6, 7, 8 }, { 9, 10, 11, 12 } }, x[{ { 2 } }])
        is({ { 1, 3 }, { 9, 11 } }, x[{ { 1, 3, 2 }, { 1, 4, 2 } }])
        is({ 4, 3, 2, 1 }, x[{ 1, { -1, 1, -1 } }])
        is({ 8, 6 }, x[{ 2, { 4, 1, -2 } }])
        is({ 2, 3, 4 }, x[{ 1, { -3, -1 } }])
        assert.are.same({ 0, 4 }, x[{ { 2, 1 } }]:shape())
        assert.are.same({ 0, 4 }, x[{ { 1, 0 } }]:shape())
        assert.are.same({ 0, 4 }, x[{ { 4, 3 } }]:shape())
        assert.are.same({ 3, 4 }, x[{}]:shape())
        fails(function() return x[{ { 1, 4 } }] end, "{1, 4}", "axis 1 of size 3")
        fails(function() return x[{ { 0, 2 } }] end, "{0, 2}")
        fails(function() return x[{ { 1, 3, 0 } }] end, "step")
        fails(function() return x[{ { 1, 2, 3, 4 } }] end, "step")
        fails(function() return x[{ { 1, "b" } }] end, "axis 1")
    end)

    it("any range is what a table gives", function()
        local values = { 10, 20, 30, 40, 50 }
        local tensor = resin.tensor(values)
        for first = 1, 5 do
            for last = 1, 5 do
                for _, step in ipairs { 1, 2, 3, -1, -2, -3 } do
                    local expected = {}
                    for i = first, last, step do expected[#expected + 1] = values[i] end
                    is(expected, tensor[{ { first, last, step } }])
                end
            end
        end
    end)

    it("by slice, select and split", function()
        is({ { 2, 3 }, { 6, 7 }, { 10, 11 } }, x:slice(2, 2, 3))
        is({ { 3, 4 }, { 7, 8 }, { 11, 12 } }, x:slice(-1, 3))
        is({ 3, 7, 11 }, x:select(2, 3))
        local parts = x:split({ 1, 3 }, 2)
        is({ { 1 }, { 5 }, { 9 } }, parts[1])
        assert.are.same({ 3, 3 }, parts[2]:shape())
        assert.are.equal(2, #x:split(2))
        fails(function() x:split({ 1, 1 }, 1) end, "2", "3")
        fails(function() x:split(0) end, "positive")
    end)
end)

describe("assignment", function()
    local x
    before_each(function() x = counting() end)

    it("writes numbers and tensors, broadcast", function()
        x[1] = 0
        is({ { 0, 0, 0, 0 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } }, x)
        x[{ {}, 2 }] = resin.tensor { -1, -2, -3 }
        is({ { 0, -1, 0, 0 }, { 5, -2, 7, 8 }, { 9, -3, 11, 12 } }, x)
        x[{ { 2, 3 }, { 3, 4 } }] = resin.tensor { 1, 2 }
        is({ { 0, -1, 0, 0 }, { 5, -2, 1, 2 }, { 9, -3, 1, 2 } }, x)
        x[{ 3, 4 }] = 0.5
        assert.are.equal(0.5, x[{ 3, 4 }]:item())
        x[{}] = 3
        assert.are.equal(36, x:sum():item())
    end)

    it("reads before it writes where both overlap", function()
        x[{ {}, { 2, 4 } }] = x[{ {}, { 1, 3 } }]
        is({ { 1, 1, 2, 3 }, { 5, 5, 6, 7 }, { 9, 9, 10, 11 } }, x)
        x[{ { 1, 3 } }] = x[{ { 3, 1, -1 } }]
        is({ 9, 9, 10, 11 }, x[1])
        is({ 1, 1, 2, 3 }, x[3])
    end)

    it("converts, and refuses what does not fit", function()
        local bytes = resin.zeros(2, "uint8")
        bytes[1] = 255
        bytes[2] = resin.tensor(3.7)
        is({ 255, 3 }, bytes)
        fails(function() bytes[1] = 256 end, "256", "uint8")
        fails(function() bytes[1] = 0.5 end, "0.5")
        fails(function() x[1] = "text" end, "tensor")
        fails(function() x[1] = resin.zeros(3) end, "(3)", "(4)")
        fails(function() x[4] = 1 end, "axis 1 of size 3")
    end)
end)

describe("views", function()
    it("share memory with what they are taken from", function()
        local x = counting()
        local views = {
            x[{ 2, 3 }], x[2][{ { 3, 3 } }], x:transpose()[{ 3, 2 }], x:reshape(12)[7],
            x:reshape(2, 6)[{ 2, 1 }], x:detach()[{ 2, 3 }], x:expand_dims(1)[{ 1, 2, 3 }],
            x:flatten()[7], x:slice(2, 3, 4)[{ 2, 1 }],
        }
        x[{ 2, 3 }] = 70
        for i, view in ipairs(views) do assert.are.equal(70, view:item(), "view " .. i) end
        views[1]:fill(5)
        assert.are.equal(5, x[{ 2, 3 }]:item())
    end)

    it("are copied by clone, contiguous and to when they must be", function()
        local x = counting()
        local y, z, w = x:clone(), x:transpose():contiguous(), x:to("float64")
        x:fill(0)
        assert.are.equal(7, y[{ 2, 3 }]:item())
        assert.are.equal(7, z[{ 3, 2 }]:item())
        assert.are.equal(7, w[{ 2, 3 }]:item())
        assert.is_false(x:transpose():is_contiguous())
        assert.is_true(z:is_contiguous())
    end)

    it("of broadcast tensors repeat without copying", function()
        local row = resin.tensor { 1, 2 }
        local tall = row:broadcast_to(3, 2)
        row[1] = 9
        is({ { 9, 2 }, { 9, 2 }, { 9, 2 } }, tall)
        fails(function() row:broadcast_to(3, 3) end, "broadcast_to", "(2)", "(3, 3)")
    end)
end)

describe("arithmetic", function()
    it("with operators, and numbers on either side", function()
        local x, y = resin.tensor { 1, 2, 4 }, resin.tensor { 2, 2, 2 }
        is({ 3, 4, 6 }, x + y)
        is({ -1, 0, 2 }, x - y)
        is({ 2, 4, 8 }, x * y)
        is({ 0.5, 1, 2 }, x / y)
        is({ 1, 4, 16 }, x ^ y)
        is({ -1, -2, -4 }, -x)
        is({ 11, 12, 14 }, 10 + x)
        is({ 9, 8, 6 }, 10 - x)
        is({ 4, 2, 1 }, 4 / x)
        is({ 2, 4, 16 }, 2 ^ x)
        is({ 1, 4, 16 }, x ^ 2)
        is({ 1, 2, 2 }, resin.minimum(x, 2))
    end)

    it("broadcasts from the last axis", function()
        local column, row = resin.tensor { { 1 }, { 2 } }, resin.tensor { 10, 20, 30 }
        is({ { 11, 21, 31 }, { 12, 22, 32 } }, column + row)
        fails(function() return resin.zeros(2, 3) + resin.zeros(2) end, "add", "(2, 3)", "(2)")
        fails(function() return resin.zeros(4, 3):multiply(resin.zeros(3, 4)) end, "multiply",
            "(4, 3)", "(3, 4)")
    end)

    it("keeps dtypes apart", function()
        local whole = resin.tensor({ 1, 2 }, "int64")
        is({ 3, 4 }, whole + 2)
        assert.are.equal("int64", (whole + 2):dtype())
        assert.are.equal("float64", (resin.ones(2, "float64") * 0.5):dtype())
        fails(function() return whole + 0.5 end, "0.5", "int64")
        fails(function() return resin.ones(2) + resin.ones(2, "float64") end, "add", "float32",
            "float64")
        fails(function() return resin.exp(whole) end, "exp", "int64")
        fails(function() return resin.matmul(whole, whole) end, "matmul")
    end)

    it("compares by methods only", function()
        local x = resin.tensor { 1, 2, 3 }
        is({ 1, 0, 0 }, x:less(2))
        is({ 0, 1, 1 }, x:greater_equal(2))
        is({ 0, 1, 0 }, x:equal(resin.tensor { 3, 2, 1 }))
        fails(function() return x < x end, "a:less(b)")
        fails(function() return x <= 2 end, "less_equal")
        assert.are.equal("uint8", x:less(2):dtype())
    end)
end)

describe("ops from Lua", function()
    local x = counting()

    it("take attributes in order, as a list or by name", function()
        is({ 10, 26, 42 }, x:sum(2))
        is({ 15, 18, 21, 24 }, resin.sum(x, 1))
        assert.are.equal(78, x:sum({ 1, 2 }):item())
        assert.are.same({ 3, 1 }, x:sum { axes = 2, keep = true }:shape())
        assert.are.same({ 3, 1 }, x:sum { axes = { -1 }, keep = true }:shape())
        assert.are.same({ 2, 6 }, x:reshape(2, 6):shape())
        assert.are.same({ 2, 6 }, x:reshape({ 2, -1 }):shape())
        assert.are.same({ 6, 4 }, resin.concatenate({ x, x }):shape())
        assert.are.same({ 3, 8 }, resin.concatenate({ x, x }, 2):shape())
        assert.are.same({ 3, 2, 4 }, resin.stack({ x, x }, { axis = 2 }):shape())
    end)

    it("count positions from 1, or from a base", function()
        is({ 4, 4, 4 }, x:argmax(2))
        is({ 3, 3, 3 }, x:argmax { axis = 2, base = 0 })
        assert.are.equal(12, x:argmax():item())
        is({ { 9, 10, 11, 12 }, { 1, 2, 3, 4 } }, resin.take(x, resin.tensor({ 3, 1 }, "int64")))
        is({ { 0, 1, 0 } }, resin.one_hot(resin.tensor({ 2 }, "int64"), 3))
        local logits = resin.zeros(2, 3)
        fails(function() resin.cross_entropy(logits, resin.tensor({ 0, 1 }, "int64")) end,
            "cross_entropy", "0", "base")
        fails(function() resin.cross_entropy(logits, resin.tensor({ 1, 4 }, "int64")) end,
            "cross_entropy", "4")
        fails(function() resin.take(x, resin.tensor({ 4 }, "int64")) end, "take", "4")
        fails(function() resin.take(x, resin.tensor({ 0 }, "int64")) end, "take", "0")
    end)

    it("say what is wrong with a call", function()
        fails(function() x:sum(3) end, "sum", "axis")
        fails(function() x:sum(0) end, "sum", "count from 1")
        fails(function() x:sum { axis = 1 } end, "sum", '"axis"', "axes")
        fails(function() x:sum("all") end, "sum", "axes")
        fails(function() x:elu(1, 2) end, "elu", "too many")
        fails(function() resin.exp() end, "exp", "x", "nothing")
        fails(function() resin.exp(3) end, "exp", "x")
        fails(function() resin.add(x) end, "add", "b", "nothing")
        fails(function() resin.concatenate { x, 3 } end, "concatenate", "position 2")
        fails(function() resin.concatenate {} end, "concatenate")
        fails(function() resin.concatenate { x, resin.zeros(3, 5) } end, "concatenate", "(3, 5)")
        fails(function() x:reshape(5, 2) end, "reshape", "(3, 4)", "(5, 2)")
        fails(function() x:reshape(-1, -1) end, "reshape")
        fails(function() x:transpose(1, 1) end, "transpose")
        fails(function() x:max_pool2d() end, "max_pool2d", "x")
        fails(function() resin.matmul(x, x) end, "matmul", "(3, 4)")
        fails(function() resin.linear(x, resin.zeros(3, 4)) end, "linear", "(3, 4)")
        local image, weights = resin.zeros(1, 5, 5, 3), resin.zeros(3, 3, 4, 8)
        fails(function() resin.conv2d(image, weights) end, "conv2d", "(1, 5, 5, 3)", "(3, 3, 4, 8)")
        fails(function() resin.conv2d(image, resin.zeros(7, 7, 3, 8)) end, "conv2d")
        fails(function() resin.conv2d(image, resin.zeros(3, 3, 3, 8), { stride = 0 }) end, "stride")
        fails(function() resin.conv2d(image, resin.zeros(3, 3, 3, 8), { strides = 2 }) end,
            '"strides"')
        fails(function() resin.max_pool2d(image) end, "max_pool2d", "kernel")
    end)

    it("leave tensors as they were after an error", function()
        local held = resin.memory().held
        for _ = 1, 10 do pcall(function() return x + resin.zeros(7) end) end
        collectgarbage()
        collectgarbage()
        assert(resin.memory().held <= held)
        is({ 1, 2, 3, 4 }, x[1])
    end)

    it("are all documented", function()
        for _, row in ipairs(resin.ops()) do
            assert(#row.doc > 0, row.name)
            assert.is_function(resin[row.name], row.name)
            assert.is_function(x[row.name], row.name)
        end
    end)
end)

describe("settings", function()
    it("are checked", function()
        local threads = resin.threads()
        resin.set_threads(3)
        assert.are.equal(3, resin.threads())
        resin.set_threads(threads)
        fails(function() resin.set_threads(0) end, "1 to 64")
        fails(function() resin.set_threads(1 << 40) end, "1 to 64")
        fails(function() resin.conv_method("fast") end, '"fast"', "direct")
        assert.are.equal("auto", resin.conv_method())
        assert.truthy(({ v4 = 1, v3 = 1, v2 = 1, generic = 1 })[resin.instruction_set()])
        assert.truthy(resin.version:match("^%d+%.%d+%.%d+$"))
    end)

    it("of cancelling", function()
        assert.is_false(resin.cancelled())
        resin.cancel()
        assert.is_true(resin.cancelled(true))
        assert.is_false(resin.cancelled())
    end)

    it("of time and memory", function()
        local start = resin.clock()
        assert(resin.clock() >= start)
        assert(resin.peak_rss() > 1 << 20)
    end)
end)
