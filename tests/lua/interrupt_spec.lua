-- Ctrl-C: the first one ends a training after the step, the second one ends the program.
local resin = require "resin"

local LUA = os.getenv("LUA") or "lua5.4"

-- Runs Lua code in a program of its own: its output, how it ended ("exit", "signal"), its status.
-- A shell may tell a signal as exit status 128 + number.
local function run(code, ...)
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write(code)
    file:close()
    local command = ("echo $$ > %s.process; exec %s %s %s 2>&1"):format(path, LUA, path,
        table.concat({...}, " "))
    local pipe = io.popen(command)
    local output = pipe:read("a")
    local _, how, status = pipe:close()
    os.remove(path)
    os.remove(path .. ".process")
    return output, how, status
end

-- What the programs begin with: interrupt() sends them Ctrl-C's signal (not by os.execute, during
-- which a program is deaf to it).
local HEAD = [[
local resin = require "resin"
local file = assert(io.open(arg[0] .. ".process"))
local process = file:read("l")
file:close()
local function interrupt() io.popen("kill -INT " .. process):close() end
]]

local function was_killed(how, status)
    return how == "signal" and status == 2 or how == "exit" and status == 130
end

describe("resin.on_interrupt", function()
    it("sets the flag that a training polls, and the program goes on", function()
        local output, how, status = run(HEAD .. [[
            resin.on_interrupt()
            collectgarbage() -- a handle that nobody keeps stays in force
            print(resin.cancelled())
            interrupt()
            print(resin.cancelled(), resin.cancelled(true), resin.cancelled())
        ]])
        assert.equal("false\ntrue\ttrue\tfalse\n", output)
        assert.equal("exit", how)
        assert.equal(0, status)
    end)

    it("lets the second one end the program", function()
        local output, how, status = run(HEAD .. [[
            local handle = resin.on_interrupt()
            interrupt()
            print "first"
            io.stdout:flush()
            interrupt()
            print "second"
        ]])
        assert.equal("first\n", output)
        assert.is_true(was_killed(how, status))
    end)

    it("gives the old handler back at the end of a scope, in any order", function()
        -- The handler of the lua program raises an error.
        local output = run(HEAD .. [[
            do
                local handle <close> = resin.on_interrupt()
            end
            print(pcall(function() interrupt() for i = 1, 1e6 do end end))
            local first, second = resin.on_interrupt(), resin.on_interrupt()
            first:close()
            interrupt()
            print(resin.cancelled(true))
            second:close()
            second:close()
        ]])
        assert.is_truthy(output:find("^false\t[^\n]*interrupted!\ntrue\n$"), output)
    end)

    it("lets a training stop after its step and go on later, to the same bits", function()
        local folder = os.tmpname()
        os.remove(folder)
        os.execute("mkdir " .. folder)
        local child = ("exec %s tests/lua/training_child.lua %s %s 2>&1")
        local pipe = io.popen("echo $$; " .. child:format(LUA, folder, "0.05"))
        local process = pipe:read("l")
        for _ = 1, 10 do pipe:read("l") end -- in the second epoch
        os.execute("kill -INT " .. process)
        local output = pipe:read("a")
        assert.is_true(pipe:close())
        assert.is_truthy(output:find("stopped: interrupted\n$"), output)
        local _, steps = output:gsub("step ", "")
        assert.is_true(steps < 20, output)

        pipe = io.popen(child:format(LUA, folder, ""))
        output = pipe:read("a")
        pipe:close()
        assert.equal(tostring(10 + steps + 1), output:match("^step (%d+)\n"))
        assert.is_truthy(output:find("step 84\nstopped: nil\n$"))
        os.execute("rm -r " .. folder)
    end)
end)

describe("resin.terminal_width", function()
    it("is nil where output goes into a file", function()
        assert.equal("nil\n", (run('print(require("resin").terminal_width())')))
    end)
    it("is a number in a terminal", function()
        local width = resin.terminal_width()
        assert.is_true(width == nil or width > 0)
    end)
end)
