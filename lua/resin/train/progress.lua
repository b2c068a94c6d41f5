--- What a training shows: in a terminal Keras' bar, rewritten in place; else one line an epoch.
local core = require "resin.core"

local progress = {}

local BAR, REDRAW_SECONDS = 30, 0.1

---- Words ---------------------------------------------------------------------------------------

--- "7s", "1:05", "2:03:04".
local function duration(seconds)
    seconds = math.floor(seconds + 0.5)
    if seconds < 60 then return ("%ds"):format(seconds) end
    if seconds < 3600 then return ("%d:%02d"):format(seconds // 60, seconds % 60) end
    return ("%d:%02d:%02d"):format(seconds // 3600, seconds // 60 % 60, seconds % 60)
end

local function per_step(seconds)
    if seconds >= 1 then return ("%.0fs/step"):format(seconds) end
    if seconds >= 1e-3 then return ("%.0fms/step"):format(seconds * 1e3) end
    return ("%.0fus/step"):format(seconds * 1e6)
end

local function number_text(value)
    if math.abs(value) >= 1e-3 or value == 0 then return ("%.4f"):format(value) end
    return ("%.4e"):format(value)
end

-- "loss: 0.5312 - accuracy: 0.8123", of the names in order.
local function values_text(names, values)
    local parts = {}
    for _, name in ipairs(names) do
        if values[name] then
            parts[#parts + 1] = ("%s: %s"):format(name, number_text(values[name]))
        end
    end
    return table.concat(parts, " - ")
end

---- The display ---------------------------------------------------------------------------------

local Progress = {}
Progress.__index = Progress

--- mode: "bar", "lines", false, or nil for what suits standard output. write and clock may be given
--- (for tests), width is the terminal's.
function progress.new(mode, given)
    given = given or {}
    local width = given.width or core.terminal_width()
    if mode == nil then mode = width and "bar" or "lines" end
    local function write(text)
        io.stdout:write(text)
        io.stdout:flush()
    end
    return setmetatable({mode = mode, width = width or 80, write = given.write or write,
        clock = given.clock or core.clock, shown = 0}, Progress)
end

--- A message of its own line.
function Progress:say(text)
    if not self.mode then return end
    self:leave_line()
    self.write(text .. "\n")
end

--- Ends a line that stands unfinished in the terminal.
function Progress:leave_line()
    if self.shown > 0 then self.write("\n") end
    self.shown = 0
end

--- `steps`: of the epoch, nil if unknown; `first`: how many of them were done before.
function Progress:start_epoch(epoch, epochs, steps, first)
    self.epoch, self.epochs, self.steps = epoch, epochs, steps
    self.first, self.done, self.started, self.after_first, self.drawn = first, first, self.clock(),
        nil, -math.huge
    if self.mode == "bar" then self:say(("Epoch %d/%d"):format(epoch, epochs)) end
end

-- Seconds a step, without the first one of the epoch, which warms up.
function Progress:step_seconds(now)
    local done = self.done - self.first
    if done <= 1 then return (now - self.started) / math.max(done, 1) end
    return (now - self.after_first) / (done - 1)
end

-- "  45/313 [====>.........]"
local function bar_text(done, steps, width)
    if not steps then return ("%7d/Unknown"):format(done) end
    local digits = #tostring(steps)
    local text = ("%" .. digits .. "d/%d"):format(done, steps)
    if width < 10 then return text end
    local filled = math.min(width, width * done // math.max(steps, 1))
    local arrow = filled > 0 and (done < steps and ("="):rep(filled - 1) .. ">"
        or ("="):rep(filled)) or ""
    return ("%s [%s%s]"):format(text, arrow, ("."):rep(width - filled))
end

function Progress:draw(text)
    text = text:sub(1, self.width - 1) -- a line that wraps cannot be rewritten
    local blank = (" "):rep(math.max(self.shown - #text, 0))
    self.write("\r" .. text .. blank)
    self.shown = #text
end

-- The bar gets shorter where the terminal has no room for it.
function Progress:bar_line(rest)
    local steps_width = self.steps and 2 * #tostring(self.steps) + 4 or 0
    local room = self.width - 1 - steps_width - #rest - 3
    return bar_text(self.done, self.steps, math.min(BAR, math.max(room, 0))) .. " - " .. rest
end

--- One more step is done; `values()` gives the means so far.
function Progress:step(names, values)
    local now = self.clock()
    self.done = self.done + 1
    if self.done - self.first == 1 then self.after_first = now end
    if self.mode ~= "bar" or now - self.drawn < REDRAW_SECONDS then return end
    self.drawn = now
    local seconds = self:step_seconds(now)
    local left = self.steps and ("ETA: %s - "):format(duration(
        math.max(self.steps - self.done, 0) * seconds)) or ""
    self:draw(self:bar_line(left .. per_step(seconds) .. " - " .. values_text(names, values())))
end

--- The training part of the epoch is over, now comes validation: the time stands still.
function Progress:end_steps() self.finished = self.clock() end

--- The epoch is over: its line with all values.
function Progress:end_epoch(names, row)
    if not self.mode then return end
    local elapsed = duration(self.clock() - self.started)
    local speed = per_step(self:step_seconds(self.finished))
    local rest = ("%s %s - %s"):format(elapsed, speed, values_text(names, row))
    if self.mode == "bar" then
        self.steps = self.steps or self.done
        local line = self:bar_line(rest) -- the last one may wrap
        self.write("\r" .. line .. (" "):rep(math.max(self.shown - #line, 0)) .. "\n")
        self.shown = 0
        return
    end
    self.write(("Epoch %d/%d - %s\n"):format(self.epoch, self.epochs, rest))
end

return progress
