--- What a model says about test images: accuracy, loss, each class against each, and the images it
--- is most wrong about.
local core = require "resin.core"

local judge = {}

-- Images in a batch: 250 small ones, fewer large ones, so that the network's memory stays small.
local BATCH, PIXELS = 250, 250 << 10

local function batch_size(test)
    local height, width = test:image_shape()
    return math.max(1, math.min(BATCH, PIXELS // (height * width)))
end

-- Class numbers, probabilities of them and of the true class, of a batch: three lists.
local function predict(model, images, labels, classes)
    local logits <close> = model(images, {logits = true})
    if logits:rank() ~= 2 or logits:size(2) ~= classes then return nil end
    local logarithms <close> = logits:log_softmax(-1)
    local predicted <close> = logarithms:argmax(-1)
    local highest <close> = logarithms:max(-1)
    local positions <close> = labels:reshape{#labels, 1}
    local truth <close> = logarithms:gather(positions, {axis = 2})
    return predicted:totable(), highest:totable(), truth:reshape{#labels}:totable()
end

--- Over all images of a data set: {accuracy, loss, seconds, counts[true][predicted], images = list
--- of {number, class, predicted, probability, loss}}; nil if the model gives no class scores.
function judge.judge(model, test)
    local start, classes = core.clock(), test.classes
    local result = {counts = {}, images = {}}
    for class = 1, classes do
        result.counts[class] = {}
        for other = 1, classes do result.counts[class][other] = 0 end
    end
    local loss_sum, right = 0, 0
    for batch_images, batch_labels in test:batches{batch_size = batch_size(test)} do
        local images <close> = batch_images
        local labels <close> = batch_labels
        local predicted, highest, truth = core.no_grad(predict, model, images, labels, classes)
        if not predicted then return nil end
        for i, class in ipairs(labels:totable()) do
            local said = predicted[i]
            result.counts[class][said] = result.counts[class][said] + 1
            result.images[#result.images + 1] = {number = #result.images + 1, class = class,
                predicted = said, probability = math.exp(highest[i]), loss = -truth[i]}
            loss_sum, right = loss_sum - truth[i], right + (said == class and 1 or 0)
        end
    end
    result.accuracy, result.loss = right / #test, loss_sum / #test
    result.seconds = core.clock() - start
    return result
end

--- The images classified wrongly, the worst first, at most `count` of them; and how many there are.
function judge.mistakes(result, count)
    local wrong = {}
    for _, image in ipairs(result.images) do
        if image.predicted ~= image.class then wrong[#wrong + 1] = image end
    end
    -- A loss that is no number counts as the worst; the number makes the order the only one.
    local function size(image) return image.loss == image.loss and image.loss or math.huge end
    table.sort(wrong, function(a, b)
        if size(a) ~= size(b) then return size(a) > size(b) end
        return a.number < b.number
    end)
    return table.move(wrong, 1, math.min(count, #wrong), 1, {}), #wrong
end

return judge
