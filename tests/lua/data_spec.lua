-- Data sets, batches, and files from Lua.
local resin = require "resin"
local data = resin.data

local function raises(words, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    assert.is_truthy(message:find(words, 1, true), ("no '%s' in: %s"):format(words, message))
    -- Errors point at the caller, not into the library.
    assert.is_nil(message:find("resin/data.lua", 1, true), message)
end

-- The path of a real file, or the test is pending.
local function shared(name)
    local path = (os.getenv("RESIN_SHARED") or "../shared") .. "/data/" .. name
    local file = io.open(path, "rb")
    if file then file:close() end
    return file and path
end

-- ---- Files made here --------------------------------------------------------------------------

local made
before_each(function() made = {} end)
after_each(function()
    for i = #made, 1, -1 do os.remove(made[i]) end
    collectgarbage()
end)

local function write(path, bytes)
    local file = assert(io.open(path, "wb"))
    file:write(bytes)
    file:close()
    made[#made + 1] = path
    return path
end

local function temporary(bytes)
    local path = os.tmpname()
    made[#made + 1] = path
    return bytes and write(path, bytes) or path
end

local function folder()
    local path = os.tmpname()
    os.remove(path)
    assert(os.execute("mkdir " .. path))
    made[#made + 1] = path
    return path
end

-- An IDX file of unsigned bytes.
local function idx(shape, bytes)
    local header = {string.pack("BBBB", 0, 0, 8, #shape)}
    for axis, length in ipairs(shape) do header[axis + 1] = string.pack(">I4", length) end
    return table.concat(header) .. bytes
end

-- ---- Data sets --------------------------------------------------------------------------------

describe("data.synthetic", function()
    it("gives both sets, or one", function()
        local train, test = data.synthetic{count = 50, seed = 3}
        assert.same({50, 10}, {#train, #test})
        assert.same({32, 32, 3}, {train:image_shape()})
        assert.equal("uint8", train.images:dtype())
        assert.equal("int64", train.labels:dtype())
        assert.equal(10, train.classes)
        assert.equal("disk", train.class_names[1])
        assert.same({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, test.labels:totable())
        local same, nothing = data.synthetic{count = 50, seed = 3, split = "train"}
        assert.is_nil(nothing)
        assert.equal(0, train.images:not_equal(same.images):to("int64"):sum():item())
        assert.equal("data set of 50 images 32x32x3 in 10 classes", tostring(same))
    end)

    it("states mean and deviation that fit", function()
        local train = data.synthetic{split = "train", count = 1000}
        local mean, deviation = resin.image_statistics(train.images)
        for channel = 1, 3 do
            assert.is_true(math.abs(mean[channel] - train.mean[channel]) < 0.02)
            assert.is_true(math.abs(deviation[channel] - train.deviation[channel]) < 0.02)
        end
    end)

    it("refuses wrong options", function()
        raises('expected the split "train" or "test", got tset', data.synthetic, {split = "tset"})
        raises('unknown option "sead"', data.synthetic, {sead = 1})
        raises("count must be an integer of at least 1, got 0", data.synthetic, {count = 0})
        raises("seed must be an integer", data.synthetic, {seed = "x"})
    end)
end)

describe("data.random", function()
    it("has any shape and labels from 1", function()
        local set = data.random{count = 60, height = 5, width = 4, channels = 1, classes = 3}
        assert.same({60, 5, 4, 1}, set.images:shape())
        assert.equal(1, set.labels:min():item())
        assert.equal(3, set.labels:max():item())
        assert.equal(1, #set.mean)
        assert.same({"0", "1", "2"}, set.class_names)
    end)
    it("refuses wrong options", function()
        raises('option "height" must be given', data.random, {count = 3, width = 1})
        raises("width must be an integer of at least 1", data.random,
            {count = 3, height = 2, width = 0})
    end)
end)

describe("a data set", function()
    it("is split without shuffling", function()
        local set = data.random{count = 10, height = 1, width = 1}
        local first, rest = set:split(0.75)
        assert.same({7, 3}, {#first, #rest})
        assert.same({set.labels:totable()[8], set.labels:totable()[10]},
            {rest.labels:totable()[1], rest.labels:totable()[3]})
        assert.equal(set.classes, rest.classes)
        raises("between 0 and 1, got 1", set.split, set, 1)
        raises("a part would be empty", set.split, set, 0.01)
    end)
end)

describe("CIFAR", function()
    local record = string.char(3) .. ("r"):rep(1024) .. ("g"):rep(1024) .. ("b"):rep(1024)
    it("is read with labels from 1", function()
        local place = folder()
        write(place .. "/test_batch.bin", record:rep(2))
        local set = data.cifar10(place, "test")
        assert.same({4, 4}, set.labels:totable())
        assert.equal("cat", set.class_names[set.labels[1]:item()])
        assert.same({114, 103, 98}, set.images[{2, 32, 32}]:totable())
        set = data.cifar10{folder = place, split = "test"}
        assert.equal(2, #set)
        raises("data_batch_1.bin is missing in " .. place, data.cifar10, place)
    end)
    it("says what is wrong", function()
        local place = folder()
        raises("train.bin is missing", data.cifar100, place)
        raises('option "folder" must be given', data.cifar10)
        raises("expected the path of a folder, got number", data.cifar10, 3)
        raises('expected the split "train" or "test", got val', data.cifar10, place, "val")
        write(place .. "/test_batch.bin", record:sub(1, -2))
        raises("is it truncated", data.cifar10, place, "test")
        write(place .. "/test_batch.bin", "\10" .. record:sub(2))
        raises("record 0 (counted from 0) has the label 10", data.cifar10, place, "test")
    end)
end)

describe("IDX", function()
    it("makes grey images of one channel", function()
        local place = folder()
        write(place .. "/t10k-images-idx3-ubyte", idx({2, 2, 3}, "abcdefghijkl"))
        write(place .. "/t10k-labels.idx1-ubyte", idx({2}, "\0\9"))
        local set = data.mnist(place, "test")
        assert.same({2, 2, 3, 1}, set.images:shape())
        assert.same({1, 10}, set.labels:totable())
        assert.equal("9", set.class_names[10])
        set = data.fashion_mnist{folder = place, split = "test"}
        assert.equal("ankle boot", set.class_names[10])
        raises("train-images-idx3-ubyte (or train-images-idx3-ubyte.gz) is missing", data.mnist,
            place)
    end)
    it("says what does not fit", function()
        local images, labels = temporary(idx({2, 1, 1}, "ab")), temporary(idx({3}, "\0\1\2"))
        raises("expected 2 labels (integers), got uint8 {3}", data.idx, images, labels)
        raises("expected uint8 images", data.idx, labels, labels)
        labels = temporary(idx({2}, "\0\7"))
        local set = data.idx(images, labels)
        assert.equal(8, set.classes)
        assert.is_true(math.abs(set.mean[1] - 97.5 / 255) < 1e-12)
        raises("the label 7, but there are 5 classes", data.idx, images, labels, {classes = 5})
        raises("cannot open /no/such", data.idx, "/no/such", labels)
        raises("is no IDX file", data.idx, temporary("hello"), labels)
        raises("is the file truncated", data.idx, temporary(idx({2, 1, 1}, "ab"):sub(1, 9)), labels)
    end)
    it("reads Fashion-MNIST", function()
        local path = shared("fashion-mnist/t10k-images-idx3-ubyte.gz")
        if not path then return pending("no shared data") end
        local set = data.fashion_mnist(path:match("^(.*)/"), "test")
        assert.same({10000, 28, 28, 1}, set.images:shape())
        assert.same({10, 3, 2, 2, 7, 2, 5, 7, 6, 8}, set.labels[{{1, 10}}]:totable())
    end)
end)

-- ---- Batches ----------------------------------------------------------------------------------

describe("batches", function()
    local set = data.synthetic{split = "train", count = 25}

    local function labels_of(options)
        local all, sizes = {}, {}
        for images, labels in set:batches(options) do
            sizes[#sizes + 1] = #images
            assert.equal("float32", images:dtype())
            assert.equal(#images, #labels)
            table.move(labels:totable(), 1, #labels, #all + 1, all)
        end
        assert.equal(#sizes, set:batch_count(options))
        return all, sizes
    end

    it("come in order, the last one short", function()
        local all, sizes = labels_of{batch_size = 10}
        assert.same({10, 10, 5}, sizes)
        assert.same(set.labels:totable(), all)
        assert.same({10, 10}, select(2, labels_of{batch_size = 10, drop_last = true}))
        assert.same({25}, select(2, labels_of{batch_size = 100}))
        assert.same({}, select(2, labels_of{batch_size = 100, drop_last = true}))
        assert.same({25}, select(2, labels_of()))
    end)

    it("are normalized", function()
        local images = set:batches{batch_size = 3}()
        local byte, value = set.images[{2, 5, 7, 3}]:item(), images[{2, 5, 7, 3}]:item()
        assert.is_true(math.abs(value - (byte / 255 - set.mean[3]) / set.deviation[3]) < 1e-6)
    end)

    it("are shuffled by seed and epoch", function()
        local function order(seed, epoch)
            return table.concat((labels_of{shuffle = true, seed = seed, epoch = epoch}), " ")
        end
        assert.equal(order(1, 1), order(1, 1))
        assert.not_equal(order(1, 1), order(1, 2))
        assert.not_equal(order(1, 1), order(2, 1))
        local sorted, all = set.labels:totable(), labels_of{shuffle = true}
        table.sort(sorted)
        table.sort(all)
        assert.same(sorted, all)
    end)

    it("have the same crops and flips in any batch and at any number of threads", function()
        local function sums(batch_size)
            local list = {}
            for images in set:batches{batch_size = batch_size, crop = 4, flip = true} do
                for i = 1, #images do list[#list + 1] = images[i]:flatten():sum():item() end
            end
            return list
        end
        local threads = resin.threads()
        resin.set_threads(1)
        local one = sums(25)
        resin.set_threads(7)
        assert.same(one, sums(25))
        assert.same(one, sums(4))
        resin.set_threads(threads)
    end)

    it("keep no memory", function()
        collectgarbage()
        local held = resin.memory().held
        for _ = 1, 20 do
            for images, labels in set:batches{batch_size = 5, crop = 2} do
                images:release()
                labels:release()
            end
        end
        collectgarbage()
        assert.equal(held, resin.memory().held)
    end)

    it("refuse wrong options", function()
        raises('unknown option "batchsize"', set.batches, set, {batchsize = 3})
        raises("batch_size must be an integer of at least 1, got 0", set.batches, set,
            {batch_size = 0})
        raises("crop must be an integer of at least 0, got -1", set.batches, set, {crop = -1})
        raises("pad of 0 to 4096 pixels, got 5000", set:batches{crop = 5000})
    end)
end)

-- ---- Files ------------------------------------------------------------------------------------

describe("npy", function()
    it("keeps what was written", function()
        local path = temporary()
        local x = resin.randn(3, 4)
        resin.write_npy(path, x:transpose())
        assert.same(x:transpose():totable(), resin.read_npy(path):totable())
        raises("no .npy file", resin.read_npy, temporary("hello world"))
        raises("zero byte", resin.read_npy, "a\0b")
    end)
end)

describe("safetensors", function()
    it("keeps tensors and strings", function()
        local path = temporary()
        local w, b = resin.randn(3, 4), resin.arange(1, 5, "int64")
        resin.safetensors_write(path, {{"w", w}, {"b", b}}, {note = "größer", a = ""})
        local file <close> = resin.safetensors_open(path)
        local names = file:names()
        table.sort(names)
        assert.same({"b", "w"}, names)
        assert.same({3, 4}, file:shape("w"))
        assert.same({"int64", "I64"}, {file:dtype("b")})
        assert.is_true(file:has("w"))
        assert.is_false(file:has("v"))
        assert.same({note = "größer", a = ""}, file:metadata())
        assert.same(w:totable(), file:load("w"):totable())
        local other = resin.zeros(3, 4)
        file:load_into("w", other)
        assert.same(w:totable(), other:totable())
        raises("has the shape (3, 4) in the file, expected (4, 3)", file.load_into, file, "w",
            resin.zeros(4, 3))
        raises("no tensor 'v'", file.load, file, "v")
        file:close()
        file:close()
        raises("was closed", file.names, file)
    end)

    it("gives the same bytes for the same contents", function()
        local x, first = resin.ones(2), nil
        for _ = 1, 5 do
            local path = temporary()
            local strings = {}
            for i = 1, 20 do strings["key" .. math.random(1, 1 << 30) .. i] = nil end
            for i = 1, 20 do strings["key" .. i] = "value" end
            resin.safetensors_write(path, {{"x", x}}, strings)
            local file <close> = assert(io.open(path, "rb"))
            local bytes = file:read("a")
            first = first or bytes
            assert.is_true(first == bytes)
        end
    end)

    it("refuses what it cannot write", function()
        local path, x = temporary(), resin.ones(1)
        raises("'x' is no tensor", resin.safetensors_write, path, {{"x", 1}})
        raises("expected a string as the name of a tensor, got number", resin.safetensors_write,
            path, {{1, x}})
        raises("expected {name, tensor} at position 1", resin.safetensors_write, path, {x = x, 3})
        raises("a value of the metadata, got number", resin.safetensors_write, path, {}, {a = 1})
        raises("holds a zero byte", resin.safetensors_write, path, {{"a\0b", x}})
        raises("'x' is given twice", resin.safetensors_write, path, {{"x", x}, {"x", x}})
        raises("cannot write /no/such/folder/x", resin.safetensors_write, "/no/such/folder/x", {})
        raises("cannot open", resin.safetensors_open, "/no/such/folder/x")
        x:release()
        raises("'x' is no tensor, or was released", resin.safetensors_write, path, {{"x", x}})
    end)
end)
