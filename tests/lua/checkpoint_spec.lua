-- Checkpoints: a training that was killed goes on to the same bits.
local resin = require "resin"
local nn, optim, train = resin.nn, resin.optim, resin.train

local LUA = os.getenv("LUA") or "lua5.4"

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("a")
    file:close()
    return text
end

local function new_folder()
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
    return folder
end

local function start(folder)
    local command = ("exec %s tests/lua/training_child.lua %s 2>&1"):format(LUA, folder)
    local pipe = io.popen("echo $$; " .. command)
    return pipe, pipe:read("l")
end

-- Runs until it is killed a random time after a random number of steps; whether it came to its end.
local function run_and_kill(folder, random)
    local pipe, process = start(folder)
    local steps, finished = random(0, 4), false
    for _ = 1, steps do
        local line = pipe:read("l")
        assert(line and (line:find("^step ") or line:find("^stopped")), line)
    end
    local wait, begun = random(0, 10) / 1000, resin.clock()
    while resin.clock() - begun < wait do end
    os.execute("kill -KILL " .. process .. " 2> /dev/null")
    for line in pipe:lines() do
        finished = finished or line:find("^stopped") ~= nil
    end
    pipe:close()
    return finished
end

local function run_to_end(folder)
    local pipe = start(folder)
    local output = pipe:read("a")
    assert(pipe:close(), output)
    return output
end

describe("a training that is killed again and again", function()
    it("ends with the same bits as one that never stopped", function()
        local whole, broken = new_folder(), new_folder()
        local output = run_to_end(whole)
        assert.equal(84, select(2, output:gsub("step ", "")))
        local state = 12345
        local function random(low, high) -- the same moments in steps each time, whoever draws
            state = (state * 1103515245 + 12345) % 2147483648
            return low + (state >> 8) % (high - low + 1)
        end
        local function compare()
            assert.equal(read(whole .. "/history"), read(broken .. "/history"))
            assert.is_true(read(whole .. "/weights") == read(broken .. "/weights"))
        end
        local kills = 0
        while kills < 20 do
            if run_and_kill(broken, random) then -- it was too fast: the next one begins anew
                compare()
                os.execute(("rm %s/*"):format(broken))
            else
                kills = kills + 1
            end
        end
        run_to_end(broken)
        compare()
        os.execute(("rm -r %s %s"):format(whole, broken))
    end)
end)

describe("a checkpoint", function()
    local path

    before_each(function() path = os.tmpname() end)
    after_each(function() os.remove(path) end)

    local function small_model(units)
        resin.seed(3)
        local x = nn.input{4}
        return nn.model(x, nn.dense{3}(nn.dense{units or 8, activation = "tanh"}(x)))
    end

    local function small_data()
        resin.seed(5)
        local x = resin.randn(40, 4)
        return {x, x[{{}, {1, 3}}]:argmax(-1)}
    end

    local function fit(model, options)
        local given = {optimizer = optim.sgd{model, learning_rate = 0.1, momentum = 0.9},
            batch_size = 8, seed = 1, verbose = false, checkpoint = path}
        for name, value in pairs(options) do given[name] = value end
        return train.fit(model, small_data(), given)
    end

    it("lets a training go on with more epochs", function()
        local whole, first = small_model(), small_model()
        local expected = fit(whole, {epochs = 5})
        fit(first, {epochs = 2})
        local second = small_model()
        local history = fit(second, {epochs = 5, resume = true})
        assert.equal(5, #history)
        for epoch = 1, 5 do assert.equal(expected[epoch].loss, history[epoch].loss) end
        for i, tensor in ipairs(whole:parameters()) do
            assert.same(tensor:totable(), second:parameters()[i]:totable())
        end
    end)

    it("warns when the schedule is another one", function()
        local function scheduled(model, epochs, more)
            local schedule = optim.cosine{rate = 0.1, steps = 5 * epochs}
            fit(model, {epochs = epochs, resume = more ~= nil,
                optimizer = optim.sgd{model, learning_rate = schedule}})
        end
        local written, stderr = {}, io.stderr
        io.stderr = {write = function(_, text) written[#written + 1] = text end}
        local ok, message = pcall(function()
            scheduled(small_model(), 2)
            scheduled(small_model(), 2, "resume")
            scheduled(small_model(), 4, "resume")
        end)
        io.stderr = stderr
        assert.is_true(ok, message)
        assert.equal(1, #written)
        assert.is_truthy(written[1]:find("next learning rate was 0; .* says 0.05"), written[1])
    end)

    it("starts anew where there is none", function()
        os.remove(path)
        assert.equal(1, #fit(small_model(), {epochs = 1, resume = true}))
    end)

    it("refuses what does not fit, and then has changed nothing", function()
        fit(small_model(), {epochs = 1})
        local other = small_model(9)
        local before = other:parameters()[1]:totable()
        assert.error_matches(function() fit(other, {epochs = 2, resume = true}) end,
            "of shape %(4, 8%).*%(4, 9%)")
        assert.same(before, other:parameters()[1]:totable())
        local model = small_model()
        assert.error_matches(function() fit(model, {epochs = 2, resume = true, batch_size = 4}) end,
            "batch_size = 8.*4")
        assert.error_matches(function()
            fit(model, {epochs = 2, resume = true, optimizer = "adam"})
        end, "sgd.*adam")
        model:save(path)
        assert.error_matches(function() fit(model, {epochs = 2, resume = true}) end,
            "no checkpoint of a training")
        local file = io.open(path, "wb")
        file:write("nonsense")
        file:close()
        assert.error_matches(function() fit(model, {epochs = 2, resume = true}) end, path)
    end)

    it("that was written at an early end says so", function()
        local function stop_at_two(_, epoch, _, run) if epoch == 2 then run:stop("enough") end end
        local callbacks = {{on_epoch_end = stop_at_two}}
        fit(small_model(), {epochs = 5, callbacks = callbacks})
        local history = fit(small_model(), {epochs = 5, callbacks = callbacks, resume = true})
        assert.equal("enough", history.stopped)
        assert.equal(2, #history)
    end)

    -- A limit of the size of files stands for the full disk.
    it("stays whole when there is no room for the next one", function()
        local folder = new_folder()
        local pipe, process = start(folder)
        for _ = 1, 3 do pipe:read("l") end
        os.execute("kill -KILL " .. process)
        pipe:close()
        local function files()
            local list <close> = io.popen("ls -A " .. folder)
            return list:read("a")
        end
        local good, before = read(folder .. "/checkpoint"), files()
        pipe = io.popen(("trap '' XFSZ; ulimit -f 2; exec %s tests/lua/training_child.lua %s 2>&1")
            :format(LUA, folder))
        local output = pipe:read("a")
        assert.is_nil(pipe:close())
        assert.is_truthy(output:find(folder .. "/checkpoint", 1, true), output)
        assert.is_true(good == read(folder .. "/checkpoint"))
        assert.equal(before, files())
        os.execute("rm -r " .. folder)
    end)

    it("is not replaced by weights that are not finite", function()
        local model = small_model()
        fit(model, {epochs = 1})
        local good = read(path)
        local calls = 0
        local function loss(output, target) -- the second one is finite, but not its gradient
            calls = calls + 1
            local value = resin.cross_entropy(output, target)
            return calls == 2 and value + (output * 0):sum():sqrt() or value
        end
        local ok, message = pcall(fit, model,
            {loss = loss, epochs = 2, checkpoint = {path, every_steps = 1}})
        assert.is_false(ok)
        assert.is_truthy(message:find("not finite after step 2", 1, true), message)
        assert.is_truthy(message:find(path, 1, true), message)
        assert.is_false(good == read(path)) -- that of step 1
        local file <close> = resin.safetensors_open(path)
        for _, name in ipairs(file:names()) do
            local tensor = file:load(name)
            if tensor:dtype() == "float32" then
                assert.equal(0, (tensor * 0):sum():item(), name)
            end
        end
    end)
end)
