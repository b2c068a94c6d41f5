-- resin: residual networks in Lua. `require "resin"` gives the engine's functions (tensors, ops,
-- settings: resin.core, written in C) and, loaded at first use, the modules built on them.
local core = require "resin.core"
require "resin.tensor"

local modules = {
    nn = true, models = true, optim = true, data = true, train = true, plot = true, report = true,
    boost = true, csv = true, slim = true,
}

local resin = {}
for name, value in pairs(core) do resin[name] = value end

-- resin.nn, resin.optim, ...: a program pays only for what it uses.
return setmetatable(resin, {
    __index = function(self, name)
        if not modules[name] then return nil end
        local module = require("resin." .. name)
        rawset(self, name, module)
        return module
    end,
})
