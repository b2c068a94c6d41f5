--- resin.boost: regression trees, and sums of trees grown one after the other on what the sum still
--- gets wrong (gradient boosting).
---
---   local model = boost.gradient_boosting{n_estimators = 100, max_depth = 3, learning_rate = 0.1}
---   model:fit(x, y)                          -- tensors, Lua tables, or what resin.csv gives
---   local predicted = model:predict(x)       -- float64 (rows)
---   model:tree(1):draw("first.svg")
---   model:save("model.safetensors")          -- boost.load reads it back
---
--- boost.tree and boost.gradient_boosting give the splits, thresholds and predictions of
--- scikit-learn's DecisionTreeRegressor and GradientBoosting{Regressor, Classifier}; where features
--- are equally good the lowest is taken. method = "hist" puts values into at most 255 bins: for large
--- tables, missing values (NaN), categories and monotone features. Rows, features, stages and classes
--- count from 1; the result is the same at any number of threads. Where what is:
---   boost/settings.lua   the options and their defaults
---   boost/model.lua      fit, predict, save, load
---   boost/view.lua       one tree: its nodes, its text, its picture
local model = require "resin.boost.model"

return {
    tree = model.tree,
    gradient_boosting = model.gradient_boosting,
    load = model.load,
}
