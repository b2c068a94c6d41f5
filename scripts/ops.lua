-- ops.lua: prints the table of ops (core/ops/table.c): name, signature and one line of maths.
--
--     lua5.4 scripts/ops.lua [NAME ...]
--
-- In a signature, tensors come before the semicolon and attributes behind it with their kind and
-- default; `?` marks a tensor that may be left out, `*` takes a list of tensors, `~` may be deferred
-- (conv_bn_act). resin.elu(x, {alpha = 0.5}), resin.elu(x, 0.5) and x:elu(0.5) are the same. Ops
-- without a star at their name have a gradient.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local options = require "resin.options"

options.run(function()
    local by_name, rows = {}, resin.ops()
    for _, op in ipairs(rows) do by_name[op.name] = op end
    if #arg > 0 then
        rows = {}
        for i, name in ipairs(arg) do
            rows[i] = by_name[name] or error(("ops.lua: there is no op '%s'"):format(name), 0)
        end
    end
    for _, op in ipairs(rows) do
        print(("%s%s(%s)\n    %s"):format(op.name, op.check and "" or "*", op.signature, op.doc))
    end
end)
