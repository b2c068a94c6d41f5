-- compare.lua: training steps and inference of resin beside PyTorch's, in turn on one machine.
--
--     make compare                                  installs PyTorch from the system if missing
--     make compare COMPARE='--rows resnet20,infer-resnet18 --rounds 3'
--     lua5.4 scripts/compare.lua --onnxruntime FOLDER     inference beside onnxruntime, too
--
-- In each round resin runs, then PyTorch with images as NCHW and as NHWC (and onnxruntime), each in
-- a process of its own: A B A B ... A ratio is the median of the ratios of the rounds; PyTorch's
-- layout is the one with the lower median. Memory is the most that a process had resident. PyTorch
-- gets the OPENBLAS_CORETYPE of this processor, which OpenBLAS may not know.
--
-- The folder gets compare.md, compare.csv (a line a row) and compare.svg, written anew after each
-- row, and for onnxruntime the networks as ONNX files.
dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
local resin = require "resin"
local compare = require "resin.bench.compare"
local files = require "resin.files"
local options = require "resin.options"

local HERE = arg[0]:match("^(.*)/") or "."

-- The interpreter that runs this: the first of the command line.
local function own_lua()
    local position = 0
    while arg[position - 1] do position = position - 1 end
    return arg[position]
end

local function main()
    local names = {}
    for position, row in ipairs(compare.rows) do names[position] = row.name end
    local given = options.parse(arg, {
        about = "Times training and inference beside PyTorch, in turn.",
        {"rows", "NAMES", "which rows, separated by commas (all): " .. table.concat(names, ", ")},
        {"rounds", "N", "how often each engine runs in turn", kind = "integer", low = 1,
            default = 3},
        {"seconds", "S", "how long one run measures", kind = "number", low = 0, default = 5},
        {"threads", "N", "threads of each engine", kind = "integer", low = 1, high = 64,
            default = resin.threads()},
        {"out", "DIR", "where table and plot go", default = "runs/compare"},
        {"python", "COMMAND", "a Python that has PyTorch and torchvision (found by itself)"},
        {"onnxruntime", "DIR", "where `npm install onnxruntime-node` was run: compares with it"},
    })
    local rows = compare.choose(given.rows)
    if not files.make_folder(given.out) then
        options.fail("--out: cannot write to the folder %s", given.out)
    end
    local engines = compare.engines{lua = own_lua(), scripts = HERE, python = given.python,
        onnxruntime = given.onnxruntime, out = given.out}
    given.busy = compare.busy()
    if given.busy then io.stderr:write(given.busy, "\n") end
    local results = {}
    for _, row in ipairs(rows) do
        results[#results + 1] = compare.measure(row, engines, given, print)
        compare.write(given.out, results, given)
    end
    print()
    print(compare.markdown(results, given))
    print(("table and plot: %s/compare.md, compare.csv, compare.svg"):format(given.out))
end

options.run(main)
