--- Networks by the names that predict.lua and finetune.lua take:
---
---   resnet50, vgg16_bn, ...   the functions of resin.models that take classes and input
---   resnet50-v1, resnet50-v2  Keras' networks, any of their depths
---   cifar20                   He et al. 2015 for small images, any depth 6 n + 2
---   tutorial                  the tutorial's ResNet
---
--- The last three are what train_resnet.lua calls its results.
local models = require "resin.models"

local network = {}

-- Every name that is one function of its own, for the error.
local function known()
    local names = {}
    for name, value in pairs(models) do
        if type(value) == "function" and name:find("%d") then names[#names + 1] = name end
    end
    table.sort(names)
    return table.concat(names, ", ") .. ", resnet50-v1, resnet50-v2, cifar20, tutorial"
end

--- The network with this name; classes and input {height, width, channels} may be nil.
function network.build(name, classes, input)
    local given = {classes = classes, input = input}
    local depth, version = name:match("^resnet(%d+)%-(v[12])$")
    if depth then
        given.depth, given.version = math.tointeger(depth), version
        return models.resnet(given)
    end
    depth = name:match("^cifar(%d+)$")
    if depth then
        given.depth = math.tointeger(depth)
        return models.cifar_resnet(given)
    end
    if name == "tutorial" then return models.tutorial_resnet(given) end
    local make = name:find("%d") and models[name]
    if type(make) ~= "function" then
        error(("--model: unknown network '%s'; known: %s"):format(name, known()), 0)
    end
    return make(given)
end

--- The name of the last layer with parameters, which has one output for each class.
function network.head(model)
    local last
    for name in model:named_parameters() do last = name end
    return last:match("^(.*)/[^/]*$")
end

--- A Lua pattern for names that begin with the layer's: "fc/weights", "fc.weight".
function network.pattern(layer)
    return "^" .. layer:gsub("%p", "%%%0") .. "[./]"
end

return network
