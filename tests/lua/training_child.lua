-- A small training for checkpoint_spec.lua and interrupt_spec.lua:
--
--     lua5.4 training_child.lua FOLDER [seconds to pause after each step]
--
-- It goes on from FOLDER/checkpoint if there is one, prints a line after each step, and leaves the
-- weights and the history without its times in FOLDER. All that has a state takes part: dropout,
-- running statistics, averages, a group of batches as one step, a schedule, callbacks.
local resin = require "resin"
local history_text = require "resin.train.history"
local data, nn, optim, train = resin.data, resin.nn, resin.optim, resin.train

local folder, pause = arg[1], tonumber(arg[2] or "0")
resin.set_threads(1)
resin.seed(7)

local x = nn.input{32, 32, 3}
local y = nn.relu(nn.batch_norm()(nn.conv2d{4, kernel = 4, stride = 4, bias = false}(x)))
y = nn.dropout(0.3)(nn.global_avg_pool(y))
local model = nn.model(x, nn.dense{10, activation = "softmax", l2 = 1e-4}(y))

local train_set, test_set = data.synthetic{count = 160}
local interrupt <close> = resin.on_interrupt()

local function after_step(_, step)
    print("step " .. step)
    io.stdout:flush()
    local start = resin.clock()
    while resin.clock() - start < pause do end
end

local history = train.fit(model, train_set, {
    optimizer = optim.adam{model, learning_rate = 0.003}, epochs = 12, batch_size = 8,
    accumulate = 3, average = 0.95, augment = {crop = 2, flip = true, cutout = 4},
    validation_data = test_set, label_smoothing = 0.1, metrics = {"accuracy", "top_3"},
    callbacks = {
        train.reduce_on_plateau{patience = 1, factor = 0.7},
        train.early_stopping{patience = 20, restore_best = true},
        {on_step_end = after_step},
    },
    checkpoint = {folder .. "/checkpoint", every_steps = 1}, resume = true, verbose = false,
})

for _, row in ipairs(history) do
    row.seconds, row.waited, row.val_seconds = nil, nil, nil
end
model:save(folder .. "/weights")
history_text.write_file(folder .. "/history", history_text.encode_rows(history))
print("stopped: " .. tostring(history.stopped)) -- last: who reads it reads the files
