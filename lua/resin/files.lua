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

--- Writes a file under a temporary name first, so that a kill leaves an older one whole. fill(put)
--- writes its content: put(text), any number of times.
function files.replace(path, fill)
    local temporary = path .. ".new"
    local file, message = io.open(temporary, "wb")
    if not file then error(message, 0) end
    local function put(text)
        local written, why = file:write(text)
        if not written then error(("%s: %s"):format(temporary, why), 0) end
    end
    local filled, problem = pcall(fill, put)
    local closed, close_why = file:close()
    if filled and not closed then problem = ("%s: %s"):format(temporary, close_why) end
    if not (filled and closed) then
        os.remove(temporary)
        error(problem, 0)
    end
    local renamed, rename_why = os.rename(temporary, path)
    if not renamed then error(rename_why, 0) end
end

return files
