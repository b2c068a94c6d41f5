-- run.lua: runs the test programs one after the other and ends with one line for all of them,
--
--     N passed, N failed[, N skipped]
--
-- Each argument is a test: tests/lua/*_spec.lua runs in busted (the command is in BUSTED), test_* is a
-- program of cmocka, and any other program prints such a line itself. A test that dies, prints no
-- result, runs fewer tests than it announced or exceeds RESIN_TEST_SECONDS (900) has failed,
-- whatever it printed. The exit status is 0 when something passed and nothing failed.
-- RESIN_TEST_RUNNER stands before each program, as qemu for those of another processor.

local seconds = tonumber(os.getenv("RESIN_TEST_SECONDS")) or 900
local limit = os.execute("timeout 1 true >/dev/null 2>&1") and ("timeout %d "):format(seconds) or ""

-- What a line of output says: each returns a table of counts, or nothing.
local readers = {}

function readers.cmocka(line)
    local announced = line:match("^%[==========%] Running (%d+) test")
    local kind, count = line:match("^%[ +(%u+) +%] (%d+) test%(s%)")
    if announced then return { announced = announced } end
    if kind == "PASSED" then return { passed = count } end
    if kind == "FAILED" then return { failed = count } end
    if kind == "SKIPPED" then return { skipped = count } end
end

function readers.busted(line)
    local passed, failed, errors, pending =
        line:match("^(%d+) success%a* / (%d+) failures? / (%d+) errors? / (%d+) pending")
    if passed then return { passed = passed, failed = failed + errors, skipped = pending } end
end

function readers.plain(line)
    local passed, failed = line:match("^(%d+) passed, (%d+) failed")
    if passed then
        return { passed = passed, failed = failed, skipped = line:match(", (%d+) skipped") or 0 }
    end
end

local function kind_and_command(test)
    if test:match("_spec%.lua$") then return "busted", os.getenv("BUSTED") .. " " .. test end
    local runner = os.getenv("RESIN_TEST_RUNNER")
    local command = runner and runner .. " " .. test or test
    return test:match("test_[^/]+$") and "cmocka" or "plain", command
end

local function run(test)
    local kind, command = kind_and_command(test)
    local counts = { announced = 0, passed = 0, failed = 0, skipped = 0 }
    print("== " .. test)
    local output = assert(io.popen(limit .. command .. " 2>&1", "r"))
    for line in output:lines() do
        print(line)
        for name, count in pairs(readers[kind](line) or {}) do
            counts[name] = counts[name] + math.tointeger(count)
        end
    end
    local succeeded, how, status = output:close()
    local ran = counts.passed + counts.failed + counts.skipped
    local lost = math.max(counts.announced - ran, 0)
    if ran == 0 or (not succeeded and counts.failed == 0) then lost = math.max(lost, 1) end
    if lost > 0 then
        print(("== %s: %s %d, %d tests ran, %d counted as failed"):format(test, how, status, ran,
            lost))
        counts.failed = counts.failed + lost
    end
    return counts
end

local total = { passed = 0, failed = 0, skipped = 0 }
local failures = {}
for _, test in ipairs(arg) do
    local counts = run(test)
    for name in pairs(total) do total[name] = total[name] + counts[name] end
    if counts.failed > 0 then failures[#failures + 1] = test end
end

for _, test in ipairs(failures) do print("failed: " .. test) end
print(("%d passed, %d failed"):format(total.passed, total.failed)
    .. (total.skipped > 0 and (", %d skipped"):format(total.skipped) or ""))
os.exit(total.passed > 0 and total.failed == 0)
