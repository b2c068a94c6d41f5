-- gradient_norm.lua: how large the gradient of each layer's weights is, at the start and after some
-- steps, with and without shortcuts, with and without batch norm.
--
--     lua5.4 scripts/experiments/gradient_norm.lua
--     lua5.4 scripts/experiments/gradient_norm.lua --depth 110 --steps 50
--
-- What is often said: without shortcuts the gradient vanishes on its way to the first layers. He et
-- al. 2015 (arXiv 1512.03385, section 4.1) found healthy gradients in plain networks with batch
-- norm. The weights start as He et al. 2015 (arXiv 1502.01852) have it, which was made to keep
-- activations and gradients at their size without batch norm.
--
-- Takes about a minute on two cores.
dofile((arg[0]:match("^(.*)/") or ".") .. "/../path.lua")
local resin = require "resin"
local experiment = require "resin.script.experiment"
local models, optim, plot = resin.models, resin.optim, resin.plot

local NETWORKS = {
    {name = "plain", shortcut = "none", batch_norm = false},
    {name = "shortcuts", shortcut = "identity", batch_norm = false},
    {name = "plain + batch norm", shortcut = "none", batch_norm = true},
    {name = "shortcuts + batch norm", shortcut = "identity", batch_norm = true},
}

-- How many layers at either end are compared; from which factor between them on a gradient counts
-- as vanishing or exploding, and up to which as even.
local ENDS, FACTOR, EVEN = 6, 100, 10

---- Measuring -------------------------------------------------------------------------------------

local function loss_of(model, images, labels)
    local logits <close> = model(images, {training = true})
    return resin.cross_entropy(logits, labels)
end

-- The norms of the gradients of all convolutions' weights, from the first layer on, and the loss.
local function measure(model, parameters, images, labels)
    local loss <close> = loss_of(model, images, labels)
    loss:backward()
    local norms = {}
    for _, tensor in model:named_parameters() do
        if tensor:rank() == 4 then
            local squares <close> = tensor.grad:to("float64"):square():sum()
            norms[#norms + 1] = squares:item() ^ 0.5
        end
    end
    parameters:clear_grads()
    return norms, loss:item()
end

local function is_finite(value) return value == value and math.abs(value) < math.huge end

-- Trains for some steps; returns how many were taken before the loss was no longer a number.
local function train(model, settings, images)
    local optimizer = optim.sgd{model, rule = "pytorch", momentum = 0.9,
        learning_rate = settings.lr, weight_decay = settings.weight_decay,
        clip_norm = settings.clip_norm}
    local epoch, next_batch = 0, function() end
    for step = 1, settings.steps do
        local x, y = next_batch()
        if not x then
            epoch = epoch + 1
            next_batch = images:batches{batch_size = settings.batch_size, shuffle = true,
                seed = settings.seed, epoch = epoch}
            x, y = next_batch()
        end
        local loss <close> = loss_of(model, x, y)
        if not is_finite(loss:item()) then return step - 1 end
        loss:backward()
        optimizer:step()
        optimizer:clear_grads()
        x:release()
        y:release()
        if resin.cancelled() then os.exit(130, true) end
    end
    return settings.steps
end

-- The mean of the logarithms' exponential; what is not finite or 0 makes it so.
local function geometric_mean(norms, first, last)
    local sum = 0
    for i = first, last do sum = sum + math.log(norms[i]) end
    return math.exp(sum / (last - first + 1))
end

-- What the first layers' gradient is to the last ones'.
local function ratio_of(norms)
    local count = math.min(ENDS, #norms // 2)
    return geometric_mean(norms, 1, count) / geometric_mean(norms, #norms - count + 1, #norms)
end

-- All of one network: {start, start_loss, after, after_loss, steps}.
local function run(network, settings)
    resin.seed(settings.seed)
    local model = models.cifar_resnet{depth = settings.depth, width = settings.width,
        input = settings.input, classes = settings.classes, shortcut = network.shortcut,
        batch_norm = network.batch_norm}
    local parameters = model:flat_parameters()
    local images, labels = settings.train:batches{
        batch_size = math.min(settings.measured, #settings.train)}()
    local result = {}
    result.start, result.start_loss = measure(model, parameters, images, labels)
    result.steps = train(model, settings, settings.train)
    result.after, result.after_loss = measure(model, parameters, images, labels)
    print(("%s: loss %.4g, after %d steps %.4g"):format(network.name, result.start_loss,
        result.steps, result.after_loss))
    return result
end

---- What came out ---------------------------------------------------------------------------------

local function number_text(value) return is_finite(value) and ("%.3g"):format(value) or "none" end

local function show_table(report, results, steps)
    local cells = {}
    for i, network in ipairs(NETWORKS) do
        for _, when in ipairs{"start", "after"} do
            local result = results[i]
            local norms = result[when]
            local name = when == "start" and "start" or ("%d steps"):format(result.steps)
            if when == "after" and result.steps < steps then name = name .. ", then no number" end
            cells[#cells + 1] = {network.name, name, number_text(result[when .. "_loss"]),
                number_text(norms[1]), number_text(norms[#norms // 2]), number_text(norms[#norms]),
                number_text(ratio_of(norms))}
        end
    end
    report:table({"network", "when", "loss", "first layer", "middle", "last", "first : last"},
        cells)
    report:say('"first : last" is the mean gradient norm of the first %d convolutions by that of '
        .. "the last %d (geometric means).", ENDS, ENDS)
end

local function between(ratio, factor) return ratio > 1 / factor and ratio < factor end

local function judge(report, results)
    local start, text = {}, {}
    for i, result in ipairs(results) do
        start[i] = ratio_of(result.start)
        text[i] = ("%s at the start, %s after %d steps"):format(number_text(start[i]),
            number_text(ratio_of(result.after)), result.steps)
    end
    local bare, alone, normed, both = 1, 2, 3, 4 -- as in NETWORKS
    local function middle(i) return results[i].start[#results[i].start // 2] end

    report:claim("without shortcuts and batch norm the gradient vanishes towards the first layers",
        start[bare] < 1 / FACTOR, "First : last is %s; below %g would be vanishing. Its size in "
        .. "the middle is %s at the start, with shortcuts and batch norm %s.", text[bare],
        1 / FACTOR, number_text(middle(bare)), number_text(middle(both)))
    report:claim("with batch norm the plain network's gradient does not vanish either",
        start[normed] >= 1 / FACTOR, "First : last is %s%s.", text[normed], start[normed] > FACTOR
        and ": it does not vanish, it explodes" or "")
    report:claim("shortcuts with batch norm keep the gradient even over the depth",
        between(start[both], EVEN) and not between(start[normed], EVEN),
        "First : last is %s; without shortcuts %s. Within a factor of %g would be even.",
        text[both], text[normed], EVEN)
    report:claim("shortcuts alone do it", between(start[alone], EVEN)
        and math.abs(math.log(middle(alone) / middle(both))) < math.log(FACTOR),
        "First : last is %s, but the sums of the blocks grow without batch norm: in the middle the "
        .. "norm is %s at the start, with batch norm %s.", text[alone], number_text(middle(alone)),
        number_text(middle(both)))
end

local function draw(results, when, title, y_range)
    local series = {}
    for i, network in ipairs(NETWORKS) do
        local layers = {}
        for layer = 1, #results[i][when] do layers[layer] = layer end
        series[i] = {name = network.name, x = layers, y = results[i][when],
            dashed = network.shortcut == "none"}
    end
    return plot.chart{title = title, x_label = "Convolution, counted from the image",
        y_label = "Norm of the weights' gradient", series = series, y_log = true,
        y_range = y_range, width = 600}
end

-- The ends of all norms, so that both charts have one scale.
local function common_range(results)
    local low, high = math.huge, 0
    for _, result in ipairs(results) do
        for _, when in ipairs{"start", "after"} do
            for _, norm in ipairs(result[when]) do
                if is_finite(norm) and norm > 0 then
                    low, high = math.min(low, norm), math.max(high, norm)
                end
            end
        end
    end
    return {low / 1.5, high * 1.5}
end

local function rows_of(results)
    local rows = {columns = {"network", "when", "layer", "gradient_norm"}}
    for i, network in ipairs(NETWORKS) do
        for _, when in ipairs{"start", "after"} do
            for layer, norm in ipairs(results[i][when]) do
                rows[#rows + 1] = {network = network.name, when = when,
                    layer = layer, gradient_norm = norm}
            end
        end
    end
    return rows
end

local function main(settings, report)
    local results = {}
    for i, network in ipairs(NETWORKS) do results[i] = run(network, settings) end
    show_table(report, results, settings.steps)
    judge(report, results)
    report:data(rows_of(results))
    local y_range = common_range(results)
    report:picture(plot.sheet{title = ("Gradients by depth, %d layers"):format(settings.depth),
        draw(results, "start", "At the start", y_range),
        draw(results, "after", ("After %d steps"):format(settings.steps), y_range)})
end

experiment.run{
    name = "gradient_norm",
    about = "Measures the gradient of each layer with and without shortcuts and batch norm.",
    defaults = {samples = 4000, image_size = 16, steps = 200, batch_size = 100, lr = 0.02,
        weight_decay = 1e-4, width = 16},
    rows = {
        {"depth", "N", "layers, 6 n + 2", kind = "integer", default = 56},
        {"measured", "N", "images whose gradient is measured", kind = "integer", low = 2,
            default = 500},
        {"clip-norm", "X", "the largest norm of all gradients together in training, so that "
            .. "networks without batch norm can be trained, too (0: any)", kind = "number",
            low = 0, default = 1},
    },
    main = main,
}
