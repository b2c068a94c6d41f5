--- resnet{depth =, version =} and vgg{depth =, batch_norm =}: the ready-made families by one name
--- each.
local check = require "resin.nn.check"
local keras = require "resin.models.keras"
local parts = require "resin.models.parts"
local resnext = require "resin.models.resnext"
local torchvision = require "resin.models.torchvision"

local families = {}

-- The options that torchvision's networks take by way of this file.
local READY = {
    depth = check.required, classes = 1000, input = {224, 224, 3}, top = true,
    pooling = check.optional, classifier_activation = check.optional,
}

local function torchvision_resnet(options)
    options.depth = options.depth or 50
    options = check.options('resnet of version "torchvision"', options, READY)
    local make = torchvision["resnet" .. tostring(options.depth)]
    if not make then
        check.fail("resnet: depth must be 18, 34, 50, 101 or 152, got %s", tostring(options.depth))
    end
    local model = make{classes = options.classes, input = options.input}
    return parts.with_ending("resnet", model, options)
end

local VERSIONS = {
    v1 = function(options) return keras.resnet("v1", options) end,
    v2 = function(options) return keras.resnet("v2", options) end,
    next = resnext.resnext,
    torchvision = torchvision_resnet,
}

-- A copy of a network's options, for which a bare number stands for the depth.
local function copy(options)
    local given = {}
    if type(options) ~= "table" then options = {depth = options} end
    for name, value in pairs(options) do given[name == 1 and "depth" or name] = value end
    return given
end

--- resnet{depth = 50, version = "v1", classes = 1000, input = {224, 224, 3}}: whose ResNet it is,
--- says the version:
---
---   "v1", "v2"      Keras': see keras.lua. Also width = 64 (filters of the first stage), filters
---                   (of the four stages), blocks (in the four stages), kernel = 3, and the options
---                   of parts.lua; the end is a softmax (classifier_activation)
---   "torchvision"   torchvision's, as it is; of the options of parts.lua top, pooling (without the
---                   top) and classifier_activation (logits if left out)
---   "next"          resnext{...}
function families.resnet(options)
    local given = copy(options)
    local version = given.version == nil and "v1" or given.version
    given.version = nil
    local make = VERSIONS[version]
    if not make then
        check.fail('resnet: version must be "v1", "v2", "torchvision" or "next", got %s',
            tostring(version))
    end
    return make(given)
end

--- vgg{depth = 16, batch_norm = false, classes = 1000, input = {224, 224, 3}, dropout = 0.5}: depth
--- 11, 13, 16 or 19, torchvision's. The output is logits; classifier_activation, top and pooling
--- (without the top) as in parts.lua.
function families.vgg(options)
    local given = copy(options)
    local allowed = {batch_norm = false, dropout = 0.5}
    for name, default in pairs(READY) do allowed[name] = default end
    allowed.depth = 16
    given = check.options("vgg", given, allowed)
    local make = torchvision[("vgg%s%s"):format(given.depth, given.batch_norm and "_bn" or "")]
    if not make then
        check.fail("vgg: depth must be 11, 13, 16 or 19, got %s", tostring(given.depth))
    end
    local model = make{classes = given.classes, input = given.input, dropout = given.dropout}
    return parts.with_ending("vgg", model, given)
end

return families
