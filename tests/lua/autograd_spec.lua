-- The graph as Lua sees it: recording, backward, freed graphs, changes in place, given buffers.
local resin = require "resin"

local function fails(f, ...)
    local ok, message = pcall(f)
    assert.is_false(ok, "no error")
    for _, text in ipairs { ... } do
        if not tostring(message):find(text, 1, true) then
            error(('"%s" does not contain "%s"'):format(message, text), 2)
        end
    end
end

local function leaf(values) return resin.tensor(values, "float64"):require_grad() end

local function grad_is(expected, x) assert.are.same(expected, x.grad:totable()) end

describe("backward", function()
    it("leaves gradients in leaves, and only there", function()
        local x, c = leaf { 1, 2 }, resin.tensor({ 3, 4 }, "float64")
        local y = x * c
        assert.is_true(x:requires_grad())
        assert.is_true(y:requires_grad())
        assert.is_false(c:requires_grad())
        assert.is_nil(x.grad)
        y:sum():backward()
        grad_is({ 3, 4 }, x)
        assert.is_nil(c.grad)
        assert.is_nil(y.grad)
        assert.is_false(x.grad:requires_grad())
    end)

    it("adds up, and starts anew when cleared", function()
        local x = leaf { 1, 2 }
        for i = 1, 3 do
            (x * x):sum():backward()
            grad_is({ 2 * i, 4 * i }, x)
        end
        assert.are.equal(x, x:clear_grad())
        assert.is_nil(x.grad)
        x:sum():backward()
        grad_is({ 1, 1 }, x)
    end)

    it("takes a gradient for what is no scalar", function()
        local x = leaf { 1, 2 }
        local y = x * 2
        fails(function() y:backward() end, "(2)")
        fails(function() y:backward(resin.ones({ 3 }, "float64")) end, "(3)", "(2)")
        fails(function() y:backward(resin.ones(2)) end, "float32", "float64")
        assert.is_nil(x.grad)
        y:backward(resin.tensor({ 10, 20 }, "float64"))
        grad_is({ 20, 40 }, x)
    end)

    it("passes diamonds and shared results", function()
        local x = leaf { 2 }
        local a = x * x
        local b, c = a * 3, a * a
        local y = b + c + a -- x^4 + 4 x^2
        y:sum():backward()
        grad_is({ 4 * 8 + 8 * 2 }, x)
    end)

    it("goes through views, and writes from several places", function()
        local x = leaf { { 1, 2, 3 }, { 4, 5, 6 } }
        local y = x[1]:sum() * 2 + x[{ {}, { 2, 3 } }]:sum() * 10
        local z = y + x:transpose()[{ 3, { 2, 1, -1 } }]:sum()
        z:backward()
        grad_is({ { 2, 12, 13 }, { 0, 10, 11 } }, x)
    end)

    it("reaches a leaf that several graphs share", function()
        local w = leaf { 1, 2 }
        local first, second = (w * 2):sum(), (w * w):sum()
        second:backward()
        first:backward()
        grad_is({ 4, 6 }, w)
    end)

    it("ignores inputs that take no gradient", function()
        local x = leaf { { 1, 2 }, { 3, 4 } }
        local labels = resin.tensor({ 1, 2 }, "int64")
        resin.cross_entropy(x, labels):backward()
        assert.are.same({ 2, 2 }, x.grad:shape())
        local greatest = x:argmax(1)
        assert.is_false(greatest:requires_grad())
        fails(function() greatest:backward() end, "backward")
    end)

    it("of a long chain neither recurses nor keeps anything", function()
        collectgarbage()
        collectgarbage()
        local held = resin.memory().held
        do
            local x <close> = leaf { 1, -1 }
            local y = x
            for i = 1, 20000 do
                local next_y = -y
                if i > 1 then y:release() end
                y = next_y
            end
            y:backward(resin.tensor({ 5, 6 }, "float64"))
            grad_is({ 5, 6 }, x)
        end
        collectgarbage()
        collectgarbage()
        assert.are.equal(held, resin.memory().held)
    end)
end)

describe("a graph", function()
    it("is freed by backward", function()
        local x = leaf { 1, 2 }
        local y = (x * x):sum()
        y:backward()
        fails(function() y:backward() end, "freed", "keep_graph")
        grad_is({ 2, 4 }, x)
    end)

    it("is kept when asked", function()
        local x = leaf { 1, 2 }
        local y = (x * x):sum()
        y:backward { keep_graph = true }
        y:backward(nil, { keep_graph = true })
        y:backward(resin.full({}, 10, "float64"))
        grad_is({ 24, 48 }, x)
        fails(function() y:backward() end, "freed")
    end)

    it("refuses a result whose graph is gone", function()
        local x = leaf { 1, 2 }
        local a = x * x
        a:sum():backward()
        local later = (a * a):sum()
        fails(function() later:backward() end, "freed", "multiply")
    end)

    it("is not recorded in no_grad", function()
        local x = leaf { 1, 2 }
        local y, n = resin.no_grad(function(...)
            assert.is_false(resin.recording())
            return x * x, select("#", ...)
        end, 1, nil)
        assert.are.equal(2, n)
        assert.is_false(y:requires_grad())
        assert.is_true(resin.recording())
        fails(function() y:sum():backward() end, "requires a gradient")
    end)

    it("is recorded again after an error in no_grad", function()
        fails(function() resin.no_grad(function() error("inside") end) end, "inside")
        assert.is_true(resin.recording())
        resin.no_grad(function()
            pcall(resin.no_grad, error)
            assert.is_false(resin.recording())
        end)
        assert.is_true(resin.recording())
    end)

    it("ends at detach", function()
        local x = leaf { 1, 2 }
        local d = (x * 2):detach()
        assert.is_false(d:requires_grad())
        local y = x * d
        y:sum():backward()
        grad_is({ 2, 4 }, x)
    end)

    it("is not made for constants", function()
        local y = resin.ones(3) * 2
        assert.is_false(y:requires_grad())
        fails(function() y:sum():backward() end, "backward")
    end)

    it("takes only floats as leaves, and leaves alone", function()
        fails(function() resin.zeros(2, "int64"):require_grad() end, "int64")
        local x = leaf { 1 }
        fails(function() (x * 2):require_grad(false) end, "leaves")
        x:require_grad(false)
        assert.is_false((x * 2):requires_grad())
    end)
end)

describe("a change in place", function()
    it("of what backward reads is found", function()
        local x, c = leaf { 1, 2 }, resin.tensor({ 3, 4 }, "float64")
        local view = c[{ { 2, 2 } }]
        local y = (x * c):sum()
        c[1] = 5
        fails(function() y:backward() end, "multiply", "changed in place")
        y = (x * c):sum()
        view:fill(0)
        fails(function() y:backward() end, "changed in place")
        assert.is_nil(x.grad)
    end)

    it("of what it does not read is allowed", function()
        local x, c = leaf { 1, 2 }, resin.tensor({ 3, 4 }, "float64")
        local y = (x + c):sum()
        c:fill(0)
        y:backward()
        grad_is({ 1, 1 }, x)
    end)

    it("of leaves and results is refused while they are recorded", function()
        local x = leaf { 1, 2 }
        local y = x * 2
        for _, tensor in ipairs { x, y } do
            fails(function() tensor[1] = 0 end, "in place")
            fails(function() tensor:fill(0) end, "in place")
            fails(function() tensor:copy_(tensor * 0) end, "in place")
        end
        resin.no_grad(function()
            x[1] = 5
            y:fill(1)
        end)
        assert.are.same({ 5, 2 }, x:totable())
        x:detach()[2] = 7
        assert.are.same({ 5, 7 }, x:totable())
    end)

    it("between forward and backward does not go unnoticed as a step would make it", function()
        local w = leaf { 1, 2 }
        local loss = (w * w):sum()
        resin.no_grad(function() w:copy_(w - 0.1) end)
        fails(function() loss:backward() end, "changed in place")
    end)
end)

describe("gradients at points that are not smooth", function()
    local function slope(f, values)
        local x = leaf(values)
        f(x):sum():backward()
        return x.grad:totable()
    end

    it("are PyTorch's", function()
        assert.are.same({ 0 }, slope(resin.relu, { 0 }))
        assert.are.same({ 0 }, slope(resin.abs, { 0 }))
        assert.are.same({ 1, 1 }, slope(function(x) return x:clamp(-1, 1) end, { -1, 1 }))
        assert.are.same({ 0, 0 }, slope(resin.relu6, { 0, 6 }))
        assert.are.same({ 0.01 }, slope(resin.leaky_relu, { 0 }))
        -- Equals share the gradient of max and of maximum; max_pool2d gives it to the first.
        assert.are.same({ 0.5, 0, 0.5 }, slope(resin.max, { 3, 1, 3 }))
        local a, b = leaf { 1 }, leaf { 1 }
        resin.maximum(a, b):sum():backward()
        grad_is({ 0.5 }, a)
        grad_is({ 0.5 }, b)
        local image = resin.ones({ 1, 2, 2, 1 }, "float64"):require_grad()
        resin.max_pool2d(image, { kernel = 2 }):sum():backward()
        assert.are.same({ { { { 1 }, { 0 } }, { { 0 }, { 0 } } } }, image.grad:totable())
        -- The norm of zeros.
        assert.are.same({ 0, 0 }, slope(resin.norm, { 0, 0 }))
    end)
end)
