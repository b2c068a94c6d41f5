--- resin.train: training as Keras has it.
---
---   local history = train.fit(model, train_set, {
---       optimizer = optim.adam{model}, epochs = 10, validation_data = test_set,
---       callbacks = {train.early_stopping{patience = 2}},
---   })
---   local result = train.evaluate(model, test_set)
---   local probabilities = train.predict(model, test_set)
---
--- Where what is:
---   train/fit.lua          fit and its options
---   train/evaluation.lua   evaluate, predict
---   train/losses.lua       losses by name        train/metrics.lua     accuracy, top-k
---   train/callbacks.lua    early_stopping, reduce_on_plateau, schedule, checkpoint, csv_log
---   train/checkpoint.lua   the state of a training in a file
---   train/source.lua       batches from data sets, tensors, functions
---   train/validation.lua   validation_split
---   train/progress.lua     the bar               train/history.lua     rows as text and CSV
---   train/average.lua      averaged weights
local callbacks = require "resin.train.callbacks"
local evaluation = require "resin.train.evaluation"
local history = require "resin.train.history"

local train = {
    fit = require "resin.train.fit",
    evaluate = evaluation.evaluate,
    predict = evaluation.predict,
    write_csv = history.write_csv,
}

for name, make in pairs(callbacks) do train[name] = make end

return train
