-- model:summary{} against Keras 2's table.
local resin = require "resin"
local nn, models = resin.nn, resin.models

local function lines_of(text)
    local lines = {}
    for line in text:gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
    return lines
end

describe("summary", function()
    it("prints the tutorial's table to the digit", function()
        -- The file was written by a model of Keras' algorithm in another language.
        local file = assert(io.open("tests/fixtures/tutorial_summary.txt", "rb"))
        local expected = file:read("a")
        file:close()
        assert.equal(expected, models.tutorial_resnet():summary{print = false})
    end)

    it("has 79 rows of 98 columns for it", function()
        local rows = 0
        for _, line in ipairs(lines_of(models.tutorial_resnet():summary{print = false})) do
            if line:find("^ [%l_%d]+ %(") then rows = rows + 1 end
            if line:find("^[ _=]") then assert.equal(98, #line) end
        end
        assert.equal(79, rows)
    end)

    it("has 65 columns and no input row for a plain stack", function()
        local lines = lines_of(models.plain_cnn():summary{print = false})
        assert.equal('Model: "sequential"', lines[1])
        assert.equal(("_"):rep(65), lines[2])
        assert.equal(" Layer (type)                Output Shape              Param #   ", lines[3])
        assert.equal(" rescaling (Rescaling)       (None, 180, 180, 3)       0         ", lines[5])
        assert.equal(" max_pooling2d (MaxPooling2  (None, 89, 89, 32)        0         ", lines[9])
        assert.equal(" D)                                                              ", lines[10])
        assert.equal("Total params: 1658565 (6.33 MB)", lines[#lines - 3])
        assert.equal("Non-trainable params: 0 (0.00 Byte)", lines[#lines - 1])
    end)

    it("shows the input of a plain graph", function()
        local x = nn.input{8}
        local lines = lines_of(nn.model(x, nn.dense(3)(x)):summary{print = false})
        assert.equal(" input_1 (InputLayer)        [(None, 8)]               0         ", lines[5])
    end)

    it("shows fused layers one by one", function()
        local x = nn.input{8, 8, 3}
        local y = nn.relu(nn.batch_norm(nn.conv2d{4, kernel = 3}(x)))
        local model = nn.model(x, y)
        assert.equal(1, #model.plan.steps)
        local text = model:summary{print = false}
        for _, name in ipairs{"conv2d (Conv2D)", "batch_normalization (Batch", "re_lu (ReLU)"} do
            assert.truthy(text:find(name, 1, true))
        end
    end)

    it("gives one row to a layer of layers, and opens it", function()
        local model = models.class_resnet{blocks = 1}
        local closed = model:summary{print = false}
        assert.truthy(closed:find(" residual_block (ResidualBl  (None, 112, 112, 64)      74368 ", 1, true))
        assert.falsy(closed:find("conv1", 1, true))
        local open = model:summary{print = false, expand = true}
        assert.truthy(open:find("| conv1 (Conv2D)             (None, 112, 112, 64)      36928 ", 1, true))
        assert.truthy(open:find("|¯¯¯", 1, true))
    end)

    it("counts shared layers once and says that shapes differ", function()
        local a, b = nn.input{4, 4, 2}, nn.input{6, 6, 2}
        local conv = nn.conv2d{3, kernel = 1}
        local y = nn.concatenate{nn.global_avg_pool(conv(a)), nn.global_avg_pool(conv(b))}
        local text = nn.model({a, b}, y):summary{print = false}
        assert.truthy(text:find("conv2d (Conv2D)             multiple                     9 ", 1, true))
        assert.truthy(text:find("['input_1[0][0]',", 1, true))
        assert.truthy(text:find("'conv2d[1][0]'", 1, true))
        assert.truthy(text:find("Total params: 9 (36.00 Byte)", 1, true))
    end)

    it("writes line by line to a function", function()
        local count = 0
        models.plain_cnn():summary{print = function() count = count + 1 end}
        assert.equal(32, count)
    end)
end)
