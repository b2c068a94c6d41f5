-- What was built: fused multiply-adds in the hot kernels, the module's size, how long it loads.
local BUILD = os.getenv("RESIN_BUILD") or "build"
local LUA = os.getenv("LUA") or "lua5.4"

local function output_of(command)
    local pipe = io.popen(command .. " 2>/dev/null")
    local text = pipe:read("a")
    return pipe:close() and text
end

local function read(name)
    local file = io.open(name, "rb")
    if not file then return nil end
    local text = file:read("a")
    file:close()
    return text
end

local MODULE = BUILD .. "/lua/resin/core.so"

-- Sanitizers make it larger and slower.
local function is_sanitized() return read(MODULE):find("__asan_", 1, true) ~= nil end

---- Fused multiply-adds ------------------------------------------------------------------------

-- Of each set: where its objects are, what shows their code, the instructions that multiply and add
-- whole vectors, and those that only multiply.
local SETS = {
    {name = "v4", folder = "obj/v4", tool = "objdump", fused = "vfn?m[as][du][db]%d+ps%s.*zmm",
        separate = "vmulps%s.*zmm"},
    {name = "v3", folder = "obj/v3", tool = "objdump", fused = "vfn?m[as][du][db]%d+ps%s.*ymm",
        separate = "vmulps%s.*ymm"},
    {name = "NEON (make test-arm)", folder = "arm/obj/generic", tool = "aarch64-linux-gnu-objdump",
        fused = "fml[as]%sv%d+%.4s", separate = "fmul%sv%d+%.4s"},
}

-- The kernels that a step spends its time in, and how many fused instructions each has at least:
-- those of convolutions and products are made of them.
local KERNELS = {product = 20, conv_winograd = 20, conv_grouped = 8, norm = 8}

-- Numbers of fused and separate instructions in an object file; nil if it cannot be shown.
local function count_instructions(set, object)
    if not read(object) then return nil end
    local text = output_of(("%s -d --no-show-raw-insn '%s'"):format(set.tool, object))
    if not text or text == "" then return nil end
    local fused, separate = 0, 0
    for line in text:gmatch("[^\n]+") do
        if line:find(set.fused) then fused = fused + 1 end
        if line:find(set.separate) then separate = separate + 1 end
    end
    return fused, separate
end

describe("the hot kernels", function()
    for _, set in ipairs(SETS) do
        it("multiply and add in one instruction: " .. set.name, function()
            if not read(("%s/%s/product.o"):format(BUILD, set.folder)) then
                pending("not built here")
                return
            end
            if not output_of(set.tool .. " --version") then
                pending(set.tool .. " is not installed")
                return
            end
            for name, least in pairs(KERNELS) do
                local fused, separate = count_instructions(set,
                    ("%s/%s/%s.o"):format(BUILD, set.folder, name))
                assert.is_truthy(fused, name)
                assert.is_true(fused >= least, ("%s has %d fused multiply-adds of whole vectors, "
                    .. "expected %d: was -ffp-contract=fast lost?"):format(name, fused, least))
                assert.is_true(fused > separate, ("%s multiplies %d times without adding, %d with")
                    :format(name, separate, fused))
            end
        end)
    end
end)

---- Size and start -----------------------------------------------------------------------------

describe("the module", function()
    it("is below 2 MB without its symbols", function()
        if is_sanitized() then
            pending("built with sanitizers")
            return
        end
        local stripped = os.tmpname()
        if not output_of(("strip -o '%s' '%s'"):format(stripped, MODULE)) then
            os.remove(stripped)
            pending("strip is not installed")
            return
        end
        local size = #read(stripped)
        os.remove(stripped)
        assert.is_true(size > 0 and size < 2 * 2 ^ 20, ("%d bytes"):format(size))
    end)

    -- Time of the processor, and the least of several starts: others may be at work.
    it("is there within 20 ms", function()
        if is_sanitized() then
            pending("built with sanitizers")
            return
        end
        local least = math.huge
        for _ = 1, 8 do
            local text = output_of(LUA .. [[ -e 'local start = os.clock(); require "resin"; ]]
                .. [[print(os.clock() - start)']])
            local seconds = tonumber(text)
            assert.is_truthy(seconds, "require 'resin' failed")
            least = math.min(least, seconds)
        end
        assert.is_true(least < 0.02, ("%.1f ms"):format(least * 1e3))
    end)
end)
