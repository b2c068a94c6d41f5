-- run_script(prefix): how specs run the scripts as a user does: {read, run, assert_refused}. `prefix`
-- stands before every command line, e.g. "experiments/".
local assert = require "luassert"

local LUA = os.getenv("LUA") or "lua5.4"

return function(prefix)
    local script = {}

    function script.read(name)
        local file = io.open(name, "rb") or error("there is no file " .. name)
        local text = file:read("a")
        file:close()
        return text
    end

    -- The exit status, standard output and standard error of scripts/<prefix><command_line>.
    function script.run(command_line)
        local errors = os.tmpname()
        local pipe = io.popen(("%s scripts/%s%s 2> %s"):format(LUA, prefix, command_line, errors))
        local output = pipe:read("a")
        local _, _, status = pipe:close()
        local message = script.read(errors)
        os.remove(errors)
        return status, output, message
    end

    -- A wrong call ends with status 1 and one line that has all the words.
    function script.assert_refused(command_line, ...)
        local status, _, message = script.run(command_line)
        assert.equal(1, status)
        assert.equal(1, select(2, message:gsub("\n", "")), "more than one line: " .. message)
        for _, word in ipairs{...} do
            assert.is_truthy(message:find(word, 1, true), ("no '%s' in: %s"):format(word, message))
        end
    end

    return script
end
