-- Pictures: the pixels of PIL, torchvision's preparation, folders as data sets, fine-tuning, and
-- the scripts predict.lua and finetune.lua. The expected pixels: tests/fixtures/make_images.py.
local resin = require "resin"
local files = require "resin.files"
local network = require "resin.script.network"
local data, nn, optim = resin.data, resin.nn, resin.optim

local LUA = os.getenv("LUA") or "lua5.4"

local FIXTURES = "tests/fixtures/images/"
local PNG, JPEG = resin.image_format("png"), resin.image_format("jpeg")

-- A test that needs formats which this engine may have been built without.
local function with(formats, what, f)
    for format, there in pairs(formats) do
        if not there then
            return pending(("%s (built without the library for %s)"):format(what, format))
        end
    end
    it(what, f)
end

local function raises(words, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    assert.is_truthy(message:find(words, 1, true), ("no '%s' in: %s"):format(words, message))
    assert.is_nil(message:find("resin/data", 1, true), message)
end

local golden = resin.safetensors_open(FIXTURES .. "golden.safetensors")

local function largest_difference(a, b)
    assert.same(a:shape(), b:shape())
    return (a:to("float64") - b:to("float64")):abs():max():item()
end

-- ---- A folder to work in ------------------------------------------------------------------------

local scratch

local function write(path, bytes)
    local file = assert(io.open(path, "wb"))
    file:write(bytes)
    file:close()
end

local function read(path)
    local file = assert(io.open(path, "rb"))
    local bytes = file:read("a")
    file:close()
    return bytes
end

local function make_folder(name)
    assert.is_true(files.make_folder(scratch .. "/" .. name))
    return scratch .. "/" .. name
end

setup(function()
    scratch = os.tmpname()
    os.remove(scratch)
    assert(files.make_folder(scratch))
end)
teardown(function()
    golden:close()
    if scratch then os.execute(("rm -rf '%s'"):format(scratch)) end
end)

-- Noise around one colour, as PNG.
local function noise(height, width, colour)
    local centre = resin.tensor(colour):reshape{1, 1, 3}
    local image = (resin.randn(height, width, 3) * 30 + centre):clamp(0, 255):to("uint8")
    return resin.png(image)
end

local COLOURS = {blue = {40, 60, 200}, green = {30, 190, 60}, red = {210, 40, 30}}

-- A folder with `count` pictures of various sizes for each colour.
local function write_photographs(name, count)
    resin.seed(4)
    for class, colour in pairs(COLOURS) do
        make_folder(name .. "/" .. class)
        for i = 1, count do
            write(("%s/%s/%s/%02d.PNG"):format(scratch, name, class, i),
                noise(20 + 3 * i, 50 - 2 * i, colour))
        end
    end
    return scratch .. "/" .. name
end

-- ---- Pixels -------------------------------------------------------------------------------------

describe("read_image", function()
    for _, name in ipairs(golden:names()) do
        if name:find("%.png$") then
            with({png = PNG}, "gives PIL's pixels of " .. name, function()
                assert.equal(0, largest_difference(data.read_image(FIXTURES .. name),
                    golden:load(name)))
            end)
        elseif name:find("%.jpg$") then
            -- The same with the same version of libjpeg-turbo; others may round otherwise.
            with({jpeg = JPEG}, "gives PIL's pixels of " .. name, function()
                assert.is_true(largest_difference(data.read_image(FIXTURES .. name),
                    golden:load(name)) <= 3)
            end)
        end
    end

    with({png = PNG}, "goes by the bytes, not by the name", function()
        write(scratch .. "/wrong.jpg", read(FIXTURES .. "grey.png"))
        assert.same({23, 31, 3}, data.read_image(scratch .. "/wrong.jpg"):shape())
    end)

    it("names the file that it cannot read", function()
        raises("nothing.png", data.read_image, scratch .. "/nothing.png")
        write(scratch .. "/text.png", "no picture")
        raises("text.png: is neither a JPEG", data.read_image, scratch .. "/text.png")
        raises("is not a file", data.read_image, scratch)
        raises("expected the path", data.read_image, 3)
        for ending, there in pairs{png = PNG, jpg = JPEG} do
            local name = "grey." .. ending
            if there then
                write(scratch .. "/" .. name, read(FIXTURES .. name):sub(1, -20))
                raises(name, data.read_image, scratch .. "/" .. name)
            else
                raises("install its development files", data.read_image, FIXTURES .. name)
            end
        end
    end)
end)

local BYTES = {1 / 255, 1 / 255, 1 / 255} -- the deviation that leaves pixels as they were

describe("resizing", function()
    local photograph
    setup(function() photograph = PNG and data.read_image(FIXTURES .. "photograph.png") end)

    for _, name in ipairs(golden:names()) do
        local height, width = name:match("^resize (%d+) (%d+)$")
        local shorter = name:match("^Resize (%d+)$")
        if height or shorter then
            with({png = PNG}, "is PIL's, byte by byte: " .. name, function()
                local size = height and {tonumber(height), tonumber(width)} or tonumber(shorter)
                assert.equal(0, largest_difference(data.resize_image(photograph, size),
                    golden:load(name)))
            end)
        end
        local resize, crop = name:match("^fit (%d+) (%d+)$")
        if resize then
            with({png = PNG}, "and cutting are torchvision's: " .. name, function()
                local image = data.preprocess(photograph, {resize = tonumber(resize),
                    crop = tonumber(crop), mean = {0, 0, 0}, deviation = BYTES})
                local bytes = image:reshape{image:size(2), image:size(3), 3}:round():to("uint8")
                assert.equal(0, largest_difference(bytes, golden:load(name)))
            end)
        end
    end

    with({png = PNG}, "prepares a picture to torchvision's bits", function()
        local expected = golden:load("prepared 40 32")
        local image = data.preprocess(FIXTURES .. "photograph.png", {resize = 40, crop = 32})
        assert.same({1, 32, 32, 3}, image:shape())
        assert.equal(0, largest_difference(image:reshape{32, 32, 3}, expected))
    end)
    with({png = PNG}, "has the usual sizes", function()
        local image = data.preprocess({photograph, FIXTURES .. "photograph.png"},
            {mean = {0, 0, 0}, deviation = BYTES})
        assert.same({2, 224, 224, 3}, image:shape())
        for i = 1, 2 do
            local bytes = image[i]:round():reshape{224 * 224 * 3}:to("int64")
            local factors = resin.tensor((function()
                local list = {}
                for k = 0, 224 * 224 * 3 - 1 do list[k + 1] = k % 251 + 1 end
                return list
            end)(), "float64")
            assert.equal(2516545369, (bytes:to("float64") * factors):sum():item())
        end
    end)
    it("refuses what is no image", function()
        raises("(height, width, 3)", data.resize_image, resin.zeros({4, 4, 1}, "uint8"), 3)
        raises("(height, width, 3)", data.resize_image, resin.zeros({4, 4, 3}), 3)
        raises("size must be an integer", data.resize_image, resin.zeros({4, 4, 3}, "uint8"), 0)
        raises("unknown option", data.preprocess, "x.png", {size = 3})
        raises("expected the path", data.preprocess, {})
    end)
end)

-- ---- Folders ------------------------------------------------------------------------------------

describe("data.folder", function()
    local photographs
    setup(function() photographs = write_photographs("photographs", 10) end)
    after_each(function() collectgarbage() end)

    it("has a class for each folder, and holds a part of each out", function()
        local train, test = data.folder{photographs, seed = 3, size = 16}
        assert.same({"blue", "green", "red"}, train.class_names)
        assert.equal(24, #train)
        assert.equal(6, #test)
        local seen = {}
        for _, set in ipairs{train, test} do
            for i, path in ipairs(set.paths) do
                assert.is_nil(seen[path])
                seen[path] = true
                local class = set.class_names[set.labels[i]:item()]
                assert.is_truthy(path:find("/" .. class .. "/", 1, true))
            end
        end
        local _, again = data.folder{photographs, seed = 3, size = 16}
        local _, other = data.folder{photographs, seed = 4, size = 16}
        assert.same(test.paths, again.paths)
        assert.are_not.same(test.paths, other.paths)
        local only = data.folder{photographs, seed = 3, split = "test"}
        assert.same(test.paths, only.paths)
    end)

    with({png = PNG}, "gives validation images as preprocess does", function()
        local _, test = data.folder{photographs, size = {14, 21}, resize = 30}
        local expected = data.preprocess(test.paths, {resize = 30, crop = {14, 21}})
        local count = 0
        for images, labels in test:batches{batch_size = 4} do
            local part = expected[{{count + 1, count + #images}}]
            assert.equal(0, largest_difference(images, part))
            assert.equal(#labels, #images)
            count = count + #images
        end
        assert.equal(6, count)
        assert.equal(2, test:batch_count{batch_size = 4})
        assert.same({14, 21, 3}, test.images[2]:shape())
        assert.equal("uint8", test.images[2]:dtype())
    end)

    with({png = PNG}, "gives other rectangles in each epoch, the same for any workers", function()
        local train = data.folder{photographs, size = 12, split = "train"}
        local function epoch(number, workers)
            local loader <close> = train:loader{batch_size = 24, epoch = number, workers = workers,
                last_epoch = number}
            return (loader())
        end
        local first = epoch(1, 0)
        assert.equal(0, largest_difference(first, epoch(1, 3)))
        assert.is_true(largest_difference(first, epoch(2, 1)) > 0.1)
        -- Without chance they are the same.
        local still = data.folder{photographs, size = 12, split = "train", random = false}
        local one = still:batches{batch_size = 24, epoch = 1}()
        assert.equal(0, largest_difference(one, still:batches{batch_size = 24, epoch = 2}()))
    end)

    with({png = PNG}, "names the picture that it cannot read", function()
        local folder = make_folder("damaged")
        make_folder("damaged/a")
        make_folder("damaged/b")
        write(folder .. "/a/good.png", noise(9, 9, COLOURS.red))
        write(folder .. "/b/bad.png", read(FIXTURES .. "grey.png"):sub(1, 100))
        local set = data.folder{folder, size = 8, validation = 0, split = "train"}
        raises("bad.png", function() return set:batches{}() end)
        local loader <close> = set:loader{workers = 2}
        raises("bad.png", loader)
    end)

    it("takes train and val where they are", function()
        local folder = make_folder("two")
        for _, name in ipairs{"train/a", "train/b/deep", "val/b"} do make_folder("two/" .. name) end
        for _, name in ipairs{"train/a/1", "train/b/deep/2", "train/b/3", "val/b/4"} do
            write(("%s/%s.png"):format(folder, name), noise(9, 9, COLOURS.blue))
        end
        local train, test = data.folder{folder, size = 8}
        assert.same({"a", "b"}, test.class_names)
        assert.same({1, 2, 2}, train.labels:totable())
        assert.is_truthy(train.paths[2]:find("b/3.png", 1, true))
        assert.same({2}, test.labels:totable())
        make_folder("two/val/c")
        write(folder .. "/val/c/5.png", noise(9, 9, COLOURS.blue))
        raises("the class 'c'", data.folder, {folder})
    end)

    it("refuses what is no such folder", function()
        raises("nowhere", data.folder, {scratch .. "/nowhere"})
        raises("found none", data.folder, {photographs .. "/red"})
        raises("from 0 to below 1", data.folder, {photographs, validation = 1})
        raises("unknown option", data.folder, {photographs, sise = 3})
        raises('"train" or "test"', data.folder, {photographs, split = "val"})
        make_folder("foreign/a")
        raises("no pictures", data.folder, {scratch .. "/foreign"})
        write(scratch .. "/foreign/a/x.webp", "RIFF")
        raises("x.webp: only JPEG and PNG", data.folder, {scratch .. "/foreign"})
        raises("parts of the area", function()
            data.folder{photographs, split = "train", area = {0, 2}}:batches{}
        end)
    end)
end)

-- ---- Freezing and groups ------------------------------------------------------------------------

describe("fine-tuning", function()
    local function small()
        local x = nn.input{6, 6, 3}
        local y = nn.relu(nn.batch_norm{name = "bn1"}(nn.conv2d{4, kernel = 3, name = "conv1"}(x)))
        y = nn.batch_norm{name = "bn2"}(nn.conv2d{4, kernel = 3, name = "conv2"}(y))
        return nn.model(x, nn.dense{2, name = "fc"}(nn.global_avg_pool(nn.relu(y))))
    end

    local function step(model, optimizer)
        local x = resin.randn(5, 6, 6, 3)
        model(x, {training = true}):cross_entropy(resin.tensor({1, 2, 1, 2, 2}, "int64")):backward()
        optimizer:step()
    end

    it("leaves frozen layers as they are, running statistics too", function()
        local model = small()
        assert.equal(2, model:freeze("^%a+1$"))
        local before = {}
        for _, entry in ipairs(model:variables()) do
            before[entry.name] = entry.tensor:detach():clone()
        end
        step(model, optim.sgd{model, learning_rate = 0.5, weight_decay = 0.1})
        for _, entry in ipairs(model:variables()) do
            local moved = largest_difference(entry.tensor:detach(), before[entry.name])
            if entry.name:find("1/") then
                assert.equal(0, moved, entry.name)
            elseif not entry.name:find("conv2/bias") then -- batch norm takes it away
                assert.is_true(moved > 0, entry.name)
            end
        end
        -- In training, a frozen batch norm does what it does in inference.
        local all = small()
        all:freeze()
        local x = resin.randn(5, 6, 6, 3)
        assert.equal(0, largest_difference(all(x, {training = true}), all(x)))
        raises("no layer has a name", function() model:freeze("^layer9") end)
    end)

    it("freezes layers inside of others by their path", function()
        local a, b = nn.input{3}, nn.input{3}
        local inner = nn.model(a, nn.dense{2, name = "second"}(nn.dense{3, name = "first"}(a)),
            {name = "inner"})
        local outer = nn.model(b, inner(b))
        assert.equal(1, outer:freeze("^inner/first$"))
        assert.equal(8, (select(2, outer:count())))
    end)

    it("has a learning rate for each group of parameters", function()
        local model = small()
        local function weights(name) return model:get_layer(name).weights:detach() end
        local optimizer = optim.sgd{model, learning_rate = 0.1,
            groups = {{"", rate_scale = 0}, {"^fc/", rate_scale = 2, decay = 0}}}
        local conv, fc = weights("conv1"):clone(), weights("fc"):clone()
        step(model, optimizer)
        assert.equal(0, largest_difference(conv, weights("conv1")))
        local moved = fc - weights("fc")
        assert.is_true(largest_difference(moved, model:get_layer("fc").weights.grad * 0.2) < 1e-7)
        raises('matches "^top"', optim.sgd, {model, groups = {{"^top", rate_scale = 1}}})
        raises("unknown setting 'lr'", optim.sgd, {model, groups = {{"fc", lr = 1}}})
        raises("unknown setting 'frozen'", optim.sgd, {model, groups = {{"fc", frozen = true}}})
        raises("need a model", optim.adam, {model:parameters(), groups = {}})
    end)

    it("knows networks by name, and their last layer", function()
        local model = network.build("resnet18", 3, {32, 32, 3})
        assert.equal("fc", network.head(model))
        assert.same({3}, model.outputs[1].sizes)
        assert.equal("classifier.6", network.head(network.build("vgg11", 2, {32, 32, 3})))
        assert.is_truthy(("classifier.6.weight"):find(network.pattern("classifier.6")))
        assert.is_nil(("classifier.66/weights"):find(network.pattern("classifier.6")))
        assert.same({10}, network.build("cifar8").outputs[1].sizes)
        raises("unknown network 'resnet'", network.build, "resnet")
    end)
end)

-- ---- The scripts --------------------------------------------------------------------------------

-- Runs a script; returns whether it succeeded and what it printed.
local function run(script, arguments)
    local command = ("%s scripts/%s %s 2>&1"):format(LUA, script, arguments)
    local process = assert(io.popen(command))
    local text = process:read("a")
    return process:close() == true, text
end

describe("the scripts", function()
    local weights
    setup(function()
        weights = scratch .. "/weights.safetensors"
        resin.seed(1)
        network.build("resnet18", 7, {32, 32, 3}):save(weights, {naming = "torchvision"})
    end)

    with({png = PNG}, "train_resnet.lua takes a folder as its data", function()
        local ok, text = run("train_resnet.lua", ("--data %s --depth 8 --image-size 16 --epochs 8 "
            .. "--batch-size 8 --lr 0.05 --out %s/trained"):format(
                write_photographs("to_train", 8), scratch))
        assert.is_true(ok, text)
        local accuracy = tonumber(text:match("test accuracy: ([%d.]+)"))
        assert.is_true(accuracy > 0.6, text)
        ok, text = run("train_resnet.lua", "--data " .. scratch .. "/nowhere")
        assert.is_true(not ok and text:find("or a folder", 1, true) ~= nil, text)
        ok, text = run("train_resnet.lua", ("--data %s --samples 10"):format(scratch))
        assert.is_true(not ok and text:find("--samples", 1, true) ~= nil, text)
    end)

    with({png = PNG}, "teach a network from a folder, and use it", function()
        local photographs, out = write_photographs("album", 8), scratch .. "/run"
        local ok, text = run("finetune.lua", ("--data %s --model resnet18 --weights %s "
            .. "--naming torchvision --size 32 --epochs 4 --batch-size 8 --head-lr 0.05 "
            .. "--freeze all --out %s"):format(photographs, weights, out))
        assert.is_true(ok, text)
        assert.is_truthy(text:find("3 classes, 18 pictures for training, 6 held", 1, true), text)
        local accuracy = tonumber(text:match("\ntest accuracy: ([%d.]+)\nreport: [^\n]+\n$"))
        assert.is_true(accuracy ~= nil and accuracy >= 0.8, text)
        assert.equal("blue\ngreen\nred\n", read(out .. "/classes.txt"))
        -- What was frozen is what it was.
        local old, new = resin.safetensors_open(weights),
            resin.safetensors_open(out .. "/model.safetensors")
        assert.equal(0, largest_difference(old:load("bn1.running_mean"),
            new:load("bn1/moving_mean")))
        old:close()
        new:close()
        ok, text = run("predict.lua", ("--model resnet18 --weights %s/model.safetensors --classes "
            .. "%s/classes.txt --resize 36 --crop 32 --image %s/red/01.PNG %s/blue/02.PNG"):format(
            out, out, photographs, photographs))
        assert.is_true(ok, text)
        local sum, count = 0, 0
        for share in text:gmatch("([%d.]+) %%") do sum, count = sum + share, count + 1 end
        assert.equal(6, count)
        assert.near(200, sum, 0.01)
        assert.is_truthy(text:find("red/01.PNG\n", 1, true))
    end)

    it("compute prepared images exactly, in either order of axes", function()
        local model = network.build("resnet18", 7, {32, 40, 3})
        model:load(weights, {naming = "torchvision"})
        local x = resin.randn(3, 32, 40, 3)
        local expected = model(x)
        local names = scratch .. "/names.txt"
        write(names, "a\nb\nc\nd\ne\nf\ng\n")
        for _, input in ipairs{x, x:transpose{1, 4, 2, 3}:contiguous()} do
            resin.write_npy(scratch .. "/x.npy", input)
            local ok, text = run("predict.lua", ("--model resnet18 --naming torchvision "
                .. "--weights %s --classes %s --input %s/x.npy --output %s/y.npy"):format(weights,
                names, scratch, scratch))
            assert.is_true(ok, text)
            local output = resin.read_npy(scratch .. "/y.npy")
            assert.is_true(largest_difference(output, expected) < 1e-5)
        end
    end)

    it("say in one line what is wrong", function()
        local function fails(script, arguments, words)
            local ok, text = run(script, arguments)
            assert.is_false(ok)
            assert.is_truthy(text:find(words, 1, true), text)
            assert.equal(1, select(2, text:gsub("\n", "")))
        end
        fails("predict.lua", "", "--model and --weights")
        fails("predict.lua", "--model resnet18 --weights w", "--image, or --input")
        fails("predict.lua", "--model resnet18 --weights w --image", "its value FILE is missing")
        fails("predict.lua", "--model resnet18 --weights w --input x.npy", "--output")
        fails("predict.lua", ("--model resnet9000 --weights %s --image x.png"):format(weights),
            "unknown network 'resnet9000'")
        fails("finetune.lua", "", "--data")
        fails("finetune.lua", "--data " .. scratch .. "/nowhere", "nowhere")
    end)
end)
