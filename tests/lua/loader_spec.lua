-- Batches made in the background, from Lua.
local resin = require "resin"
local data = resin.data

local function raises(words, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    assert.is_truthy(message:find(words, 1, true), ("no '%s' in: %s"):format(words, message))
    -- Errors point at the caller, not into the library.
    assert.is_nil(message:find("resin/data.lua", 1, true), message)
end

local OPTIONS = {batch_size = 32, shuffle = true, seed = 5, crop = 4, flip = true, cutout = 6}

local function with(more)
    local options = {}
    for name, value in pairs(OPTIONS) do options[name] = value end
    for name, value in pairs(more) do options[name] = value end
    return options
end

-- The loader's next loop gives the batches of `epoch` from `step` on, and then ends.
local function assert_epoch(loader, set, epoch, step)
    local expected, count = set:batches(with{epoch = epoch}), 0
    for _ = 2, step or 1 do expected() end
    for images, labels in loader do
        local right_images, right_labels = expected()
        assert.is_true(resin.equal(images, right_images):min():item() == 1)
        assert.same(right_labels:totable(), labels:totable())
        count = count + 1
    end
    assert.is_nil((expected()))
    return count
end

describe("a loader", function()
    local set
    setup(function() set = data.synthetic{split = "train", count = 100} end)
    after_each(function() collectgarbage() end)

    it("gives what data.batches gives, for any number of workers", function()
        for _, workers in ipairs{0, 1, 4} do
            local loader <close> = set:loader(with{workers = workers, ahead = 1 + workers})
            assert.equal(4, loader:batch_count())
            for epoch = 1, 3 do assert.equal(4, assert_epoch(loader, set, epoch)) end
        end
    end)
    it("goes on from the middle of an epoch", function()
        local first <close> = set:loader(OPTIONS)
        first()
        first()
        first()
        local epoch, step = first:position()
        assert.same({1, 4}, {epoch, step})
        local second <close> = set:loader(with{epoch = epoch, step = step})
        assert.equal(1, assert_epoch(second, set, 1, 4))
        assert.equal(4, assert_epoch(second, set, 2))
        first()
        assert.same({1, 5}, {first:position()}) -- the end of the epoch is still to come
        local third <close> = set:loader(with{epoch = 1, step = 5})
        assert.is_nil((third()))
        assert.same({2, 1}, {third:position()})
        assert.equal(4, assert_epoch(third, set, 2))
    end)
    it("ends after the last epoch", function()
        local loader <close> = set:loader(with{epoch = 3, last_epoch = 4})
        assert.equal(4, assert_epoch(loader, set, 3))
        assert.equal(4, assert_epoch(loader, set, 4))
        for _ = 1, 3 do assert.is_nil((loader())) end
    end)
    it("tells how long it was waited for", function()
        local loader <close> = set:loader(OPTIONS)
        loader()
        assert.is_true(loader:waited() > 0)
        assert.is_true(loader:waited() < 10)
    end)
    it("can be closed, collected and left in an error", function()
        local loader = set:loader(OPTIONS)
        local images = loader()
        loader:close()
        loader:close()
        assert.same({32, 32, 32, 3}, images:shape()) -- batches given out stay valid
        assert.is_true(images:sum():item() == images:sum():item())
        raises("the loader was closed", loader)
        raises("the loader was closed", loader.position, loader)
        for _ = 1, 20 do set:loader(OPTIONS)() end
        collectgarbage()
        pcall(function()
            local inner <close> = set:loader(OPTIONS)
            inner()
            error("stop")
        end)
    end)
    it("keeps its images when the set is gone", function()
        local loader
        do
            local other = data.synthetic{split = "train", count = 100}
            loader = other:loader(OPTIONS)
        end
        collectgarbage()
        assert.equal(4, assert_epoch(loader, set, 1))
        loader:close()
    end)
    it("works on a part of a set", function()
        local _, part = set:split(0.5)
        local loader <close> = part:loader(OPTIONS)
        assert.equal(2, assert_epoch(loader, part, 1))
    end)
    it("gives its memory back", function()
        collectgarbage()
        local before = resin.memory().held
        for _ = 1, 5 do
            local loader <close> = set:loader(with{workers = 3})
            for batch_images, batch_labels in loader do
                batch_images:release()
                batch_labels:release()
            end
        end
        collectgarbage()
        assert.equal(before, resin.memory().held)
    end)
    it("refuses wrong options", function()
        raises('unknown option "batchsize"', data.loader, set, {batchsize = 3})
        raises("batch_size must be an integer of at least 1", data.loader, set, {batch_size = 0})
        raises("step must be an integer of at least 1", data.loader, set, {step = 0})
        raises("step", data.loader, set, {batch_size = 50, step = 4})
        raises("workers", data.loader, set, {workers = 65})
        raises("ahead", data.loader, set, {ahead = 0})
        raises("last_epoch must be an integer of at least 2", data.loader, set,
            {epoch = 2, last_epoch = 1})
        raises("cutout", data.batches, set, {cutout = -1})
    end)
end)

describe("an image as PNG", function()
    it("is a string with a PNG file", function()
        local image = resin.full({3, 4, 3}, 200, "uint8")
        local bytes = resin.png(image)
        assert.equal("\137PNG\r\n\26\n", bytes:sub(1, 8))
        local width, height = (">I4I4"):unpack(bytes, 17)
        assert.same({4, 3}, {width, height})
    end)
end)
