--- ONNX export: model:export_onnx(path) writes a model for inference in onnxruntime and others.
---
---   local model = resin.models.resnet50()
---   model:load("resnet50.safetensors", {naming = "torchvision"})
---   model:export_onnx("resnet50.onnx")
---
--- Inputs and outputs are those of the model: (N, H, W, C) with a free batch, named as its layers
--- are. Inside, images lie (N, C, H, W) as ONNX wants them, behind one Transpose; weights are
--- turned when they are written. Batch norm and dropout have their form of inference.
---
---   onnx/protobuf.lua      the wire format
---   onnx/builder.lua       nodes, values and weights of a graph, and its bytes
---   onnx/layers.lua        what each layer becomes
---   onnx/activations.lua   what each activation becomes
local builder = require "resin.onnx.builder"
local check = require "resin.nn.check"
local files = require "resin.files"
local graph = require "resin.nn.graph"
local layers = require "resin.onnx.layers"
local protobuf = require "resin.onnx.protobuf"
local unfold = require "resin.nn.unfold"

local onnx = {}

-- Readers of protocol buffers refuse messages beyond this.
local MOST_BYTES = (1 << 31) - 1

-- A layer made of layers is opened where it promises that they are always the same; Sequential and
-- models do.
local function is_static(node) return node.layer.static == true end

-- All that stands in the way of an export, in one error.
local function check_steps(steps)
    local lines = {}
    for _, step in ipairs(steps) do
        local why = layers.problem(step.layer)
        if why then
            lines[#lines + 1] = ("  %s (%s): %s"):format(step.name, step.layer.class_name, why)
        elseif not builder.data_types[step.dtype] then
            lines[#lines + 1] = ("  %s (%s): is %s; only float32 is exported"):format(step.name,
                step.layer.class_name, step.dtype)
        end
    end
    if #lines == 0 then return end
    check.fail("export_onnx: these layers cannot be exported:\n%s\nA layer of one's own can where "
        .. "its class has static = true and it only calls other layers", table.concat(lines, "\n"))
end

-- The graph of a model in ONNX's operators.
local function convert(model)
    local steps, inputs, outputs = unfold.steps(model, is_static)
    check_steps(steps)
    local b, value_of = builder.new(), {}
    for _, step in ipairs(inputs) do
        value_of[step] = b:input(step.name, step.sizes, step.dtype)
    end
    for _, step in ipairs(steps) do
        if getmetatable(step.layer) ~= graph.InputLayer then
            local x = {}
            for position, input in ipairs(step.inputs) do x[position] = value_of[input] end
            b:start(step)
            local converter = layers.converters[getmetatable(step.layer)]
            value_of[step] = converter(b, step.layer, step.many and x or x[1])
        end
    end
    for _, step in ipairs(outputs) do
        b:start(step)
        b:output(value_of[step], step.name)
    end
    return b
end

--- model:export_onnx(path): the file appears under its name when it is complete. Layers that have
--- no form in ONNX (nn.func, layers of one's own that are not static) are an error that names them
--- all, and so is a model of 2 GB or more.
function onnx.export(model, path)
    if type(path) ~= "string" then
        check.fail("export_onnx: expected the path of a file, got %s", type(path))
    end
    local message = convert(model):message(model.name or model.default_name)
    local size = protobuf.size(message)
    if size > MOST_BYTES then
        check.fail("export_onnx: the file would have %.2f GB; ONNX files end at 2 GB", size / 1e9)
    end
    files.replace(path, function(put) protobuf.write(message, put) end)
end

return onnx
