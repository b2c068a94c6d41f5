--- models: ready-made networks. Each is a function of a table of options that returns an nn.model:
---
---   resin.models.cifar_resnet{depth = 20}
---   resin.models.resnet{depth = 50, version = "v2", input = {96, 96, 3}, classes = 10}
---
--- resnet.lua         resnet, vgg: the families by depth, whose ResNet it is by `version`
--- keras.lua          what resnet{version = "v1"|"v2"} is: Keras' ResNet50, 101, 152, and V2
--- torchvision.lua    resnet18 ... resnet152, resnext50, vgg16 ...
--- resnext.lua        resnext: ResNeXt for ImageNet and CIFAR, any cardinality and width
--- cifar.lua          cifar_resnet: He et al. 2015 for 32 x 32 images
--- wide.lua           wide_resnet: Zagoruyko and Komodakis 2016
--- preactivation.lua  preactivation_resnet: with ELU; residual_block(x, f, r): a bottleneck
--- tutorial.lua       tutorial_resnet, tutorial_resnext: the tutorials' networks
--- class_style.lua    class_resnet, plain_cnn; ResidualBlock, ResNet: classes of layers
---
--- parts.lua has what they share; its head lists the options that most of them take.
local models = {}

for _, file in ipairs{"torchvision", "resnet", "resnext", "cifar", "wide", "preactivation",
    "tutorial", "class_style"} do
    for name, make in pairs(require("resin.models." .. file)) do models[name] = make end
end

-- A function that makes a network of `name` with these options; what it is called with comes on top.
local function preset(name, options)
    return function(more)
        local all = {}
        for _, given in ipairs{options, more} do
            for key, value in pairs(given) do all[key] = value end
        end
        return models[name](all)
    end
end

--- What scripts/bench.lua measures, by name: make([{input =}]) without a final softmax, the default
--- batch, the side of the (colour) images and the number of classes, as the reference networks have
--- them.
models.bench = {
    resnet20 = {
        make = preset("cifar_resnet", {depth = 20}),
        batch = 128, side = 32, classes = 10,
    },
    resnet56 = {
        make = preset("cifar_resnet", {depth = 56}),
        batch = 128, side = 32, classes = 10,
    },
    ["cifar14-w64"] = {
        make = preset("cifar_resnet", {depth = 14, width = 64}),
        batch = 64, side = 32, classes = 10,
    },
    ["tutorial-resnet"] = {
        make = preset("tutorial_resnet", {softmax = false}),
        batch = 2, side = 224, classes = 10,
    },
    ["tutorial-resnext"] = {
        make = preset("tutorial_resnext", {softmax = false}),
        batch = 32, side = 32, classes = 10,
    },
    resnet18 = {make = models.resnet18, batch = 16, side = 224, classes = 1000},
    resnet50 = {make = models.resnet50, batch = 8, side = 224, classes = 1000},
    resnext50 = {make = models.resnext50, batch = 8, side = 224, classes = 1000},
    vgg16 = {make = models.vgg16, batch = 4, side = 224, classes = 1000},
}

return models
