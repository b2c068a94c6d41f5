--- What a network costs: multiply-adds, parameters and activations by layer.
local check = require "resin.nn.check"
local fusion = require "resin.nn.fusion"
local graph = require "resin.nn.graph"
local shape = require "resin.nn.shape"
local unfold = require "resin.nn.unfold"

local cost = {}

---- Multiply-adds ------------------------------------------------------------------------------

-- How many positions each weight of a layer meets, by the kind of layer.
local positions = {
    Conv2D = function(input, output) return output[1] * output[2] end,
    Conv2DTranspose = function(input) return input[1] * input[2] end,
    Dense = function(input) return shape.count(input) // input[#input] end,
}
positions.ConvBnAct = positions.Conv2D

-- All steps, with every layer made of layers opened whose inside is known.
local function steps_of(model)
    local steps, _, outputs = unfold.steps(model, function() return true end)
    return steps, outputs
end

-- Whether nothing is known of what a layer does: a function, or layers that could not be opened.
local function is_unknown(layer) return layer.user or layer.composite end

-- Those of convolutions and dense layers, counted directly (whatever method computes them).
-- Everything else is small beside them.
local function forward_of(step)
    local count = positions[step.layer.class_name]
    if not count or is_unknown(step.layer) then return 0 end
    return step.layer.weights:count() * count(step.inputs[1].sizes, step.sizes)
end

--- The multiply-adds for one image to go forward through a model; a training step costs three times
--- as many.
function cost.multiply_adds(model)
    local total = 0
    for _, step in ipairs(steps_of(model)) do total = total + forward_of(step) end
    return total
end

-- How often the multiply-adds of a step's forward are done in training: for the gradient of its
-- weights, too, unless they are frozen, and for that of its input if anything in front is trained.
-- Fills step.has_gradient.
local function training_factor(step)
    local trained, before = false, false
    for _, entry in ipairs(step.layer:variables()) do trained = trained or entry.trainable end
    for _, input in ipairs(step.inputs) do before = before or input.has_gradient end
    step.has_gradient = trained or before
    return 1 + (trained and 1 or 0) + (before and 1 or 0)
end

---- Activations --------------------------------------------------------------------------------

local BYTES = {float64 = 8, float32 = 4, int64 = 8, int32 = 4, int8 = 1, uint8 = 1}

-- Layers whose result is their input, or a view of it.
local function passes_on(step, training)
    local kind = step.layer.class_name
    return kind == "Flatten" or kind == "Reshape" or kind == "Dropout" and not training
        or kind == "Activation" and step.layer.kind == "linear"
end

-- Copies of steps that fusion.fuse may change, with the numbers of their readers.
local function copies_of(steps, outputs)
    local copy_of, copies, readers, last = {}, {}, {}, {}
    for position, step in ipairs(steps) do
        local inputs = {}
        for place, input in ipairs(step.inputs) do
            inputs[place] = copy_of[input]
            readers[input] = (readers[input] or 0) + 1
        end
        copies[position] = {layer = step.layer, inputs = inputs, step = step}
        copy_of[step] = copies[position]
    end
    for position, step in ipairs(outputs) do
        last[position], readers[step] = copy_of[step], math.huge
    end
    return copies, last, readers
end

-- Which steps make a tensor that is held, as a set: in inference those whose results nn.model sees,
-- chains of convolution, batch norm and activation fused; in training what backward keeps.
local function with_result(steps, outputs, training)
    local result = {}
    local copies, last, readers = copies_of(steps, outputs)
    for _, step in ipairs(steps) do -- a fused chain keeps its convolution's for the batch norm
        result[step] = training and step.layer.class_name == "Conv2D"
    end
    for _, copy in ipairs(fusion.fuse(copies, last)) do
        local step, input = copy.step, copy.step.inputs[1]
        local fused = copy.layer ~= step.layer
        local unwritten = training and fused and copy.layer.unwritten
        result[step] = not (passes_on(step, training) or unwritten)
        if training and step.layer.kind == "relu" and not fused and readers[input] == 1 then
            result[input] = false -- the gradient of relu needs its result only
        end
    end
    return result
end

-- The most bytes of results that are held at once in inference, where each is released behind its
-- last reader.
local function peak_of(steps, outputs, bytes)
    local owner, readers, held, peak = {}, {}, 0, 0
    for _, step in ipairs(steps) do
        owner[step] = bytes[step] == 0 and owner[step.inputs[1]] or step
    end
    for _, step in ipairs(steps) do
        for _, input in ipairs(step.inputs) do
            readers[owner[input]] = (readers[owner[input]] or 0) + 1
        end
    end
    for _, step in ipairs(outputs) do readers[owner[step]] = math.huge end
    for _, step in ipairs(steps) do
        held = held + bytes[step]
        -- The activation of a layer with weights reads what the layer has computed.
        local active = positions[step.layer.class_name] and step.layer.f
        peak = math.max(peak, held + (active and bytes[step] or 0))
        for _, input in ipairs(step.inputs) do
            local one = owner[input]
            readers[one] = readers[one] - 1
            if readers[one] == 0 then held = held - bytes[one] end
        end
    end
    return peak
end

---- The table ----------------------------------------------------------------------------------

local Table = {}
Table.__index = Table

-- "4,089,184,256"
local function grouped(number)
    local text = ("%d"):format(number):reverse():gsub("(%d%d%d)", "%1,"):reverse()
    return (text:gsub("^,", ""))
end

-- "4.09 G"
local function short(number)
    for _, unit in ipairs{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} do
        if number >= unit[1] then return ("%.2f %s"):format(number / unit[1], unit[2]) end
    end
    return ("%d"):format(number)
end

local COLUMNS = {"Layer (type)", "Output shape", "Multiply-adds", "Parameters", "Activation bytes"}

-- Names to the left, numbers to the right.
local function write_line(lines, cells, widths)
    local padded = {}
    for column, cell in ipairs(cells) do
        local space = (" "):rep(widths[column] - #cell)
        padded[column] = column <= 2 and cell .. space or space .. cell
    end
    lines[#lines + 1] = (table.concat(padded, "  "):gsub(" +$", ""))
end

local function cells_of(row)
    return {
        ("%s (%s)"):format(row.name, row.kind), shape.text(row.shape),
        row.multiply_adds and grouped(row.multiply_adds) or "?", grouped(row.parameters),
        grouped(row.activation_bytes),
    }
end

local function megabytes(bytes) return ("%.1f MB"):format(bytes / 2^20) end

-- The line below the table.
local function totals_text(self)
    local text = ("%s of batch %d: %s multiply-adds; %s of parameters"):format(
        self.training and "A training step" or "Inference", self.batch, short(self.multiply_adds),
        megabytes(self.parameter_bytes))
    if self.training then
        return text .. (" and gradients; activations: %s kept for backward"):format(
            megabytes(self.activation_bytes))
    end
    return text .. ("; activations: %s, at most %s at once"):format(
        megabytes(self.activation_bytes), megabytes(self.peak_bytes))
end

--- The table as text.
function Table:__tostring()
    local all, widths, lines = {COLUMNS}, {}, {}
    for position, row in ipairs(self.rows) do all[position + 1] = cells_of(row) end
    all[#all + 1] = {
        "Total", "", grouped(self.multiply_adds), grouped(self.parameters),
        grouped(self.activation_bytes),
    }
    for column = 1, #COLUMNS do
        widths[column] = 0
        for _, cells in ipairs(all) do widths[column] = math.max(widths[column], #cells[column]) end
    end
    local width = 2 * (#COLUMNS - 1)
    for _, one in ipairs(widths) do width = width + one end
    for position, cells in ipairs(all) do
        if position == 2 or position == #all then lines[#lines + 1] = ("-"):rep(width) end
        write_line(lines, cells, widths)
    end
    lines[#lines + 1] = totals_text(self)
    if self.unknown > 0 then
        lines[#lines + 1] = ("?: what functions and layers of one's own compute is not known (%d)")
            :format(self.unknown)
    end
    return table.concat(lines, "\n")
end

-- What the parameters of a layer are that stand in no row before: their number, and their bytes
-- (with those of the gradients in training).
local function own_parameters(step, seen, training)
    local count, bytes = 0, 0
    for _, entry in ipairs(step.layer:variables()) do
        if not seen[entry.tensor] then
            seen[entry.tensor] = true
            local size = entry.tensor:count() * BYTES[entry.tensor:dtype()]
            count = count + entry.tensor:count()
            bytes = bytes + (training and entry.trainable and 2 or 1) * size
        end
    end
    return count, bytes
end

--- model:cost{batch = 1, training = false}: what a call of the model costs, as a table
---
---   rows               by layer, in the order in which they run: {name, kind, shape (without the
---                      batch), multiply_adds (nil: not known), parameters, activation_bytes}
---   multiply_adds, parameters, activation_bytes   sums over the rows
---   parameter_bytes    of the parameters; with their gradients in training
---   peak_bytes         the most bytes of activations at once: in training all
---   unknown            the number of rows without multiply_adds
---
--- that tostring and print write as text. Multiply-adds are those of convolutions and dense layers;
--- training = true adds the gradients of weights (unless frozen) and inputs (unless nothing in
--- front is trained). Parameters count where they are used first, running statistics among them. The
--- activation bytes of a layer are those of the tensor that it makes: none if it is fused into the
--- next (batch norm into its activation) or passes on its input. Scratch memory, the gradients of
--- activations and the optimizer's state come on top.
function cost.cost(model, options)
    options = check.options("cost", options or {}, {batch = 1, training = false})
    local batch, training = check.integer("cost", "batch", options.batch, 1), options.training
    local steps, outputs = steps_of(model)
    local makes, seen, bytes = with_result(steps, outputs, training), {}, {}
    local result = setmetatable({
        rows = {}, batch = batch, training = training, multiply_adds = 0, parameters = 0,
        activation_bytes = 0, parameter_bytes = 0, unknown = 0,
    }, Table)
    for _, step in ipairs(steps) do
        bytes[step] = 0
        if getmetatable(step.layer) ~= graph.InputLayer then
            bytes[step] = makes[step] and batch * shape.count(step.sizes) * BYTES[step.dtype] or 0
            local factor = training and training_factor(step) or 1
            local parameters, parameter_bytes = own_parameters(step, seen, training)
            local row = {
                name = step.name, kind = step.layer.class_name, shape = shape.copy(step.sizes),
                multiply_adds = not is_unknown(step.layer) and batch * factor * forward_of(step)
                    or nil,
                parameters = parameters, activation_bytes = bytes[step],
            }
            result.rows[#result.rows + 1] = row
            result.multiply_adds = result.multiply_adds + (row.multiply_adds or 0)
            result.parameters = result.parameters + parameters
            result.parameter_bytes = result.parameter_bytes + parameter_bytes
            result.activation_bytes = result.activation_bytes + row.activation_bytes
            if not row.multiply_adds then result.unknown = result.unknown + 1 end
        end
    end
    result.peak_bytes = training and result.activation_bytes or peak_of(steps, outputs, bytes)
    return result
end

return cost
