--- files: what Lua's io library has no function for.
local files = {}

--- Whether there is something at `path` that can be opened.
function files.exists(path)
    local file = io.open(path, "rb")
    if file then file:close() end
    return file ~= nil
end

--- Makes a folder with those above it; whether it is there and can be written to.
function files.make_folder(path)
    local quoted = "'" .. path:gsub("'", "'\\''") .. "'"
    return os.execute("mkdir -p -- " .. quoted .. " 2> /dev/null && test -w " .. quoted) == true
end

return files
