--- nn.func{name, f}: any function of tensors as a layer.
local check = require "resin.nn.check"
local layer = require "resin.nn.layer"

--- nn.func{"double", function(x, options) return x * 2 end}; also {name =, f =, output_shape =}.
--- f gets the tensor (or the list of tensors) and options with options.training. The shape of the
--- result is found by running f once on a batch of one zero image, unless output_shape, a function
--- from the input's shape (without the batch axis) to the output's, is given. A model saves the
--- weights around it; export refuses and names it.
local Func = layer.class("Func")
Func.user = true

function Func:init(options)
    if type(options) == "function" then options = {f = options} end
    if type(options) ~= "table" then check.fail("func: expected nn.func{name, f}") end
    if type(options[1]) == "string" then rawset(self, "name", options[1]) end
    local f = options.f or options[2] or type(options[1]) == "function" and options[1]
    if type(f) ~= "function" then
        check.fail("%s: expected a function of tensors, as nn.func{name, f}", self:label())
    end
    rawset(self, "f", f)
    if options.output_shape then
        rawset(self, "output_shape", function(_, input_shape)
            return options.output_shape(input_shape)
        end)
    end
end

function Func:call(x, options) return self.f(x, options) end

return {layers = {func = Func}}
