-- path.lua: lets a script that stands in the project's tree use the modules of that tree, from any
-- working directory and before anything is installed. Scripts begin with
--
--     dofile((arg[0]:match("^(.*)/") or ".") .. "/path.lua")
--
-- Where there is no tree around it (an installed script) it changes nothing. RESIN_BUILD names
-- another build folder than build/.

local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
local root = here == "." and ".." or here:match("^(.*)/scripts$") or here == "scripts" and "."
    or here .. "/.."

local function exists(name)
    local file = io.open(name, "rb")
    if file then file:close() end
    return file ~= nil
end

if not exists(root .. "/lua/resin/init.lua") then return end

local build = os.getenv("RESIN_BUILD") or "build"
if not build:match("^/") then build = root .. "/" .. build end

if exists(build .. "/lua/resin/core.so") then
    package.path = ("%s/lua/?.lua;%s/lua/?/init.lua;%s"):format(root, root, package.path)
    package.cpath = ("%s/lua/?.so;%s"):format(build, package.cpath)
elseif not package.searchpath("resin.core", package.cpath) then
    io.stderr:write(("resin is not built yet: run `make` in %s\n"):format(root))
    os.exit(1)
end
