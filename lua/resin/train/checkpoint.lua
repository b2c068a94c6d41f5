--- The whole state of a training in one safetensors file: weights, running statistics, optimizer,
--- averages, random state, position in the data, history. A training that goes on from it gives the
--- same bits as one that never stopped. The file is replaced as a whole, so a kill at any moment
--- leaves a complete one.
---
---   model/NAME, optimizer/NAME, average/N, callback/N/NAME     tensors
---   position, settings, sums, random, callback_N, history      metadata: "name=value ..." lines
local core = require "resin.core"
local check = require "resin.nn.check"
local history = require "resin.train.history"

local checkpoint = {}

local FORMAT = "resin checkpoint 1"

-- All tensors of the state: a list of {name, tensor}.
local function tensors_of(run)
    local list = {}
    local function add(prefix, entries)
        for _, entry in ipairs(entries) do
            list[#list + 1] = {prefix .. entry[1], entry[2]:detach()}
        end
    end
    for _, entry in ipairs(run.model:variables()) do add("model/", {{entry.name, entry.tensor}}) end
    add("optimizer/", run.optimizer:state())
    if run.average then add("average/", run.average:state()) end
    for number, callback in ipairs(run.callbacks) do
        if callback.state then
            local _, tensors = callback:state()
            add(("callback/%d/"):format(number), tensors or {})
        end
    end
    return list
end

-- What must be the same for the position in the data to mean the same.
local function settings_of(run)
    return {batch_size = run.batch_size, seed = run.seed, shuffle = run.shuffle,
        accumulate = run.accumulate, samples = run.source.samples or -1}
end

local function metadata_of(run)
    local sums = run.sums and run.sums:stored() or {}
    sums.seconds, sums.waited = run.seconds, run.waited
    local metadata = {
        format = FORMAT, optimizer = run.optimizer.name,
        position = history.encode{epoch = run.epoch, batch = run.batch, step = run.step,
            rate = run.optimizer.state_in_c:rate(), next_rate = run.optimizer:learning_rate()},
        settings = history.encode(settings_of(run)),
        sums = history.encode(sums),
        random = history.encode(core.random_state()),
        history = history.encode_rows(run.history),
        stopped = run.ended_by_callback and run.stopped or "",
    }
    for number, callback in ipairs(run.callbacks) do
        if callback.state then
            metadata["callback_" .. number] = history.encode((callback:state()))
        end
    end
    return metadata
end

--- The name of a tensor of the model that holds a NaN or an infinity, or nil.
function checkpoint.find_bad_weights(model)
    for _, entry in ipairs(model:variables()) do
        if entry.tensor:dtype():find("float") then
            local tensor <close> = entry.tensor:detach()
            local zeros <close> = tensor * 0 -- NaN where it is not finite
            local sum <close> = zeros:sum()
            if sum:item() ~= 0 then return entry.name end
        end
    end
end

--- Writes the state of a run.
function checkpoint.save(run, path)
    core.safetensors_write(path, tensors_of(run), metadata_of(run))
end

---- Reading -------------------------------------------------------------------------------------

local function compare_settings(run, path, stored)
    local own = settings_of(run)
    for _, name in ipairs{"batch_size", "seed", "shuffle", "accumulate", "samples"} do
        if own[name] ~= stored[name] then
            check.fail("resume: %s was written with %s = %s, this training has %s", path, name,
                tostring(stored[name]), tostring(own[name]))
        end
    end
end

-- Nothing is changed before all is known to fit.
local function check_tensors(file, path, entries)
    for _, entry in ipairs(entries) do
        local name, tensor = entry[1], entry[2]
        if not file:has(name) then check.fail("resume: %s has no '%s'", path, name) end
        local stored = table.concat(file:shape(name), ", ")
        local own = table.concat(tensor:shape(), ", ")
        if stored ~= own then
            check.fail("resume: %s has %s of shape (%s), this training has (%s)", path, name,
                stored, own)
        end
    end
end

local function load_optimizer(run, file)
    local tensors = {}
    for _, entry in ipairs(run.optimizer:state()) do
        tensors[entry[1]] = file:load("optimizer/" .. entry[1])
    end
    run.optimizer:load_state(tensors)
end

local function load_callbacks(run, file, metadata)
    local tensors = {}
    for _, name in ipairs(file:names()) do
        local number, inner = name:match("^callback/(%d+)/(.*)$")
        if number then
            number = math.tointeger(number)
            tensors[number] = tensors[number] or {}
            tensors[number][inner] = file:load(name)
        end
    end
    for number, callback in ipairs(run.callbacks) do
        local stored = metadata["callback_" .. number]
        if callback.load_state and stored then
            callback:load_state(history.decode(stored), tensors[number] or {})
        end
    end
end

-- With other epochs a schedule is another one: the training goes on, but not as it would have.
local function warn_of_schedule(run, path, stored)
    local own = run.optimizer:learning_rate()
    if own == stored or own ~= own then return end
    io.stderr:write(("warning: resumed from %s, whose next learning rate was %g; this training's "
        .. "schedule says %g\n"):format(path, stored, own))
end

local function restore(run, file, path)
    local metadata = file:metadata()
    if metadata.format ~= FORMAT then
        check.fail("resume: %s is no checkpoint of a training (model:load reads weights)", path)
    end
    if metadata.optimizer ~= run.optimizer.name then
        check.fail("resume: %s was written with the optimizer %s, this training has %s", path,
            metadata.optimizer, run.optimizer.name)
    end
    compare_settings(run, path, history.decode(metadata.settings))
    local expected = {}
    for _, entry in ipairs(run.model:variables()) do
        expected[#expected + 1] = {"model/" .. entry.name, entry.tensor}
    end
    for _, entry in ipairs(run.optimizer:state()) do
        expected[#expected + 1] = {"optimizer/" .. entry[1], entry[2]}
    end
    for _, entry in ipairs(run.average and run.average:state() or {}) do
        expected[#expected + 1] = {"average/" .. entry[1], entry[2]}
    end
    check_tensors(file, path, expected)
    load_optimizer(run, file)
    for _, entry in ipairs(expected) do
        if not entry[1]:find("^optimizer/") then file:load_into(entry[1], entry[2]) end
    end
    load_callbacks(run, file, metadata)
    local position = history.decode(metadata.position)
    run.epoch, run.batch, run.step = position.epoch, position.batch, position.step
    run.optimizer.state_in_c:set_rate(position.rate)
    warn_of_schedule(run, path, position.next_rate)
    local sums = history.decode(metadata.sums)
    run.seconds, run.waited = sums.seconds, sums.waited
    run.stored_sums = run.batch > 0 and sums or nil
    core.random_state(history.decode(metadata.random))
    history.decode_rows(metadata.history, run.history)
    if metadata.stopped ~= "" then run:stop(metadata.stopped) end
end

--- Puts a run where the one was that wrote the file.
function checkpoint.load(run, path)
    local file = core.safetensors_open(path)
    local ok, message = pcall(restore, run, file, path)
    file:close()
    if not ok then error(message, 0) end
end

return checkpoint
