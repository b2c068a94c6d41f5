--- Where the boxes and lines of a graph's picture lie.
---
--- Every box has a row: the length of the longest way to it from the inputs. A long graph is folded
--- into columns, at rows where few values cross. In a column the longest way down is its main lane
--- on the left; branches have lanes to the right of it, and a lane is used again below a branch
--- that has joined. Lines that leap over boxes of their own lane (shortcuts) are curves on its left.
local layout = {}

local BOX_HEIGHT = 32
local NEAR, APART = 3, 15 -- between rows: in front of followers and of others
local LANE_GAP, COLUMN_GAP, GUTTER, TRACK = 18, 40, 10, 16
-- Pictures that are taller than this are folded until they are this much wider than tall.
local MOST_HEIGHT, SHAPE = 960, 1.35
-- Lines leave a box below its middle and enter above it, so that both can happen at one side.
local LEAVE, ENTER = 6, -6

layout.BOX_HEIGHT = BOX_HEIGHT

---- Rows and columns ---------------------------------------------------------------------------

-- Moves what depends only on inputs that are read late down to where it is read.
local function lower_inputs(items)
    local latest, is_late = {}, {}
    for position = #items, 1, -1 do
        local item = items[position]
        latest[item] = latest[item] or item.row
        for _, input in ipairs(item.inputs) do
            latest[input] = math.min(latest[input] or math.huge, latest[item] - 1)
        end
    end
    for _, item in ipairs(items) do
        is_late[item] = latest[item] > 1
        for _, input in ipairs(item.inputs) do is_late[item] = is_late[item] and is_late[input] end
    end
    local first_reader = {}
    for position = #items, 1, -1 do
        local item = items[position]
        if is_late[item] and first_reader[item] then item.row = first_reader[item] - 1 end
        for _, input in ipairs(item.inputs) do
            first_reader[input] = math.min(first_reader[input] or math.huge, item.row)
        end
    end
end

-- Gives items their row, and lists for each row whether all in it are followers, and how many
-- values cross from it to the next.
local function find_rows(items)
    for _, item in ipairs(items) do
        item.row = 1
        for _, input in ipairs(item.inputs) do item.row = math.max(item.row, input.row + 1) end
    end
    lower_inputs(items)
    local rows, last_reader = {}, {}
    for _, item in ipairs(items) do
        for _, input in ipairs(item.inputs) do
            last_reader[input] = math.max(last_reader[input] or 0, item.row)
        end
        rows[item.row] = rows[item.row] or {follows = true, crossing = 0}
        rows[item.row].follows = rows[item.row].follows and item.follows
    end
    for item, last in pairs(last_reader) do
        for row = item.row, last - 1 do rows[row].crossing = rows[row].crossing + 1 end
    end
    return rows
end

local function gap_of(row) return row.follows and NEAR or APART end

-- How much two columns may differ in height for one value less that crosses, and for not cutting in
-- front of a follower.
local CROSSING, FOLLOWER = 12 * BOX_HEIGHT, 6 * BOX_HEIGHT

-- The places where columns may end: {row, y, price}. In a long graph these are blocks' ends only.
local function find_places(rows)
    local places, y, least = {{row = 0, y = 0}}, 0, math.huge
    for position = 1, #rows - 1 do least = math.min(least, rows[position].crossing) end
    for position, row in ipairs(rows) do
        y = y + gap_of(row) + BOX_HEIGHT
        local follower = position < #rows and rows[position + 1].follows
        local is_block = not follower and row.crossing <= least
        if #rows <= 200 or is_block or position == #rows then
            local price = row.crossing * CROSSING ^ 2 + (follower and FOLLOWER ^ 2 or 0)
            places[#places + 1] = {row = position, y = y, price = position < #rows and price or 0}
        end
    end
    return places
end

-- Returns a function that gives, for 1, 2, 3 ... columns in turn, their last rows: those for which
-- the sum of squared heights and prices is least.
local function cutter(rows)
    local places, best, from, count = find_places(rows), {[1] = 0}, {}, 0
    return function()
        count = count + 1
        local better, back = {}, {}
        for place = count + 1, #places do
            for before = count, place - 1 do
                local height = places[place].y - places[before].y
                local sum = (best[before] or math.huge) + height ^ 2 + places[place].price
                if sum < (better[place] or math.huge) then
                    better[place], back[place] = sum, before
                end
            end
        end
        best, from[count] = better, back
        if not back[#places] then return nil end
        local cuts, place = {}, #places
        for column = count, 1, -1 do
            cuts[column], place = places[place].row, from[column][place]
        end
        return cuts
    end
end

-- Columns of boxes {item, row, inputs (boxes)}, each in the order of the items. Values from columns
-- before come in through boxes with `ghost` in a row above.
local function fold(items, cuts)
    local columns, box_of, column_of = {}, {}, {}
    for position in ipairs(cuts) do columns[position] = {boxes = {}, ghosts = {}} end
    for _, item in ipairs(items) do
        local index = 1
        while item.row > cuts[index] do index = index + 1 end
        local column = columns[index]
        local box = {item = item, row = item.row - (cuts[index - 1] or 0), inputs = {}}
        for place, input in ipairs(item.inputs) do
            local from = box_of[input]
            if column_of[input] ~= index then
                from = column.ghosts[input]
                if not from then
                    from = {item = input, row = 0, inputs = {}, ghost = true, of = box_of[input]}
                    column.ghosts[input] = from
                    table.insert(column.boxes, from)
                end
            end
            box.inputs[place] = from
        end
        box_of[item], column_of[item] = box, index
        table.insert(column.boxes, box)
    end
    return columns
end

---- Lanes --------------------------------------------------------------------------------------

-- The boxes of the longest way down, with lane 0.
local function find_main(column)
    local box = column.boxes[1]
    for _, other in ipairs(column.boxes) do
        if other.row > box.row then box = other end
    end
    column.last = box
    while box do
        box.lane = 0
        local before
        for _, input in ipairs(box.inputs) do
            if not before or input.row > before.row then before = input end
        end
        box = before
    end
end

-- The other boxes in chains, each box behind the lowest of its inputs that no other follows yet.
local function find_chains(column)
    local chains, chain_of = {}, {}
    for _, box in ipairs(column.boxes) do
        if not box.lane then
            local chain
            for _, input in ipairs(box.inputs) do
                local other = chain_of[input]
                local is_tail = other and other[#other] == input
                if is_tail and (not chain or input.row > chain[#chain].row) then chain = other end
            end
            if not chain then
                chain = {}
                chains[#chains + 1] = chain
            end
            chain[#chain + 1], chain_of[box] = box, chain
        end
    end
    return chains, chain_of
end

-- Whether a chain is a shortcut: it ends where items with `sums` add it to something else.
local function is_shortcut(column, chain)
    local tail = chain[#chain]
    for _, box in ipairs(column.boxes) do
        for _, input in ipairs(box.inputs) do
            if input == tail then return box.item.sums == true end
        end
    end
    return false
end

-- Gives each chain the first lane that is free from where it leaves to where it joins.
local function find_lanes(column)
    find_main(column)
    local chains, chain_of = find_chains(column)
    for _, chain in ipairs(chains) do
        chain.first, chain.last = chain[1].row - 0.1, chain[#chain].row + 0.1
        for _, input in ipairs(chain[1].inputs) do
            chain.first = math.min(chain.first, input.row + 0.6)
        end
    end
    for _, box in ipairs(column.boxes) do
        for _, input in ipairs(box.inputs) do
            local chain = chain_of[input]
            if chain and chain ~= chain_of[box] then
                chain.last = math.max(chain.last, box.row + 0.4)
            end
        end
    end
    local lanes = {}
    for _, chain in ipairs(chains) do
        local lane, free = 0, false
        while not free do
            lane, free = lane + 1, true
            for _, other in ipairs(lanes[lane] or {}) do
                free = free and (other.last < chain.first or chain.last < other.first)
            end
        end
        lanes[lane] = lanes[lane] or {}
        table.insert(lanes[lane], chain)
        local shortcut = is_shortcut(column, chain)
        for _, box in ipairs(chain) do box.lane, box.in_shortcut = lane, shortcut end
    end
    column.lanes = #lanes
end

---- Lines --------------------------------------------------------------------------------------

-- What a line between two boxes of a column is like: straight down; a shortcut beside its lane;
-- forking to a lane on the right; joining from one; or loose, where boxes stand in these ways.
local function kind_of(from, to, taken)
    local function blocked(lane)
        for row = from.row + 1, to.row - 1 do
            if taken[lane .. " " .. row] then return true end
        end
        return false
    end
    if from.lane == to.lane then return blocked(to.lane) and "shortcut" or "straight" end
    if blocked(math.max(from.lane, to.lane)) then return "loose" end
    return from.lane < to.lane and "fork" or "join"
end

local function find_lines(column)
    local taken, lines = {}, {}
    for _, box in ipairs(column.boxes) do taken[box.lane .. " " .. box.row] = true end
    for _, box in ipairs(column.boxes) do
        local seen = {}
        for _, input in ipairs(box.inputs) do
            if not seen[input] then
                seen[input] = true
                local kind = kind_of(input, box, taken)
                lines[#lines + 1] = {
                    from = input, to = box, kind = kind,
                    shortcut = kind == "shortcut" or input.in_shortcut or box.in_shortcut,
                }
            end
        end
    end
    column.lines = lines
end

-- Shortcuts beside one lane that overlap lie in tracks, the longer ones outside.
local function find_tracks(column)
    local by_lane = {}
    column.tracks = {}
    for lane = 0, column.lanes do by_lane[lane], column.tracks[lane] = {}, 0 end
    for _, line in ipairs(column.lines) do
        if line.kind == "shortcut" then table.insert(by_lane[line.to.lane], line) end
    end
    for lane = 0, column.lanes do
        local list = by_lane[lane]
        table.sort(list, function(a, b)
            local one, other = a.to.row - a.from.row, b.to.row - b.from.row
            if one ~= other then return one < other end
            return a.to.row < b.to.row
        end)
        for position, line in ipairs(list) do
            line.track = 1
            for before = 1, position - 1 do
                local other = list[before]
                if other.from.row < line.to.row and line.from.row < other.to.row then
                    line.track = math.max(line.track, other.track + 1)
                end
            end
            column.tracks[lane] = math.max(column.tracks[lane], line.track)
        end
    end
end

---- Positions ----------------------------------------------------------------------------------

-- Gives the boxes of a column x and y, from its upper left corner; returns its width and height.
local function place(column, rows, first_row, left, top, box_width)
    local x_of, x = {}, left
    for lane = 0, column.lanes do
        local tracks = column.tracks[lane]
        x = x + (tracks > 0 and GUTTER + TRACK * tracks or 0)
        x_of[lane] = x
        x = x + box_width + (lane < column.lanes and LANE_GAP or 0)
    end
    local y_of, y = {}, top
    if next(column.ghosts) then
        y_of[0] = y
        y = y + BOX_HEIGHT + APART
    end
    for row = 1, column.last.row do
        if row > 1 then y = y + gap_of(rows[first_row + row - 1]) end
        y_of[row] = y
        y = y + BOX_HEIGHT
    end
    for _, box in ipairs(column.boxes) do box.x, box.y = x_of[box.lane], y_of[box.row] end
    column.left, column.right = left, x
    return x - left, y - top
end

-- The way of a line, as points of SVG's path.
local function path_of(line, width)
    local from, to = line.from, line.to
    local from_y, to_y = from.y + BOX_HEIGHT / 2 + LEAVE, to.y + BOX_HEIGHT / 2 + ENTER
    local from_x, to_x = from.x + width / 2, to.x + width / 2
    if line.kind == "straight" then
        return ("M%.1f %.1fV%.1f"):format(to_x, from.y + BOX_HEIGHT, to.y), to_x, to.y, "down"
    elseif line.kind == "shortcut" then
        -- A cubic curve goes three quarters of the way to its control points.
        local out = from.x - (GUTTER + TRACK * (line.track - 0.5)) * 4 / 3
        return ("M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f"):format(from.x, from_y, out, from_y,
            out, to_y, to.x, to_y), to.x, to_y, "right"
    elseif line.kind == "fork" then
        return ("M%.1f %.1fH%.1fq8 0 8 8V%.1f"):format(from.x + width, from_y, to_x - 8, to.y),
            to_x, to.y, "down"
    elseif line.kind == "join" then
        return ("M%.1f %.1fV%.1fq0 8 -8 8H%.1f"):format(from_x, from.y + BOX_HEIGHT, to_y - 8,
            to.x + width), to.x + width, to_y, "left"
    end
    local rightwards = from.lane < to.lane
    local start, stop = from.x + (rightwards and width or 0), to.x + (rightwards and 0 or width)
    local middle = (start + stop) / 2
    return ("M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f"):format(start, from_y, middle, from_y,
        middle, to_y, stop, to_y), stop, to_y, rightwards and "right" or "left"
end

-- From the foot of one column to the head of the next.
local function trunk_path(box, ghost, column, top, width)
    local x, foot, gap = box.x + width / 2, box.y + BOX_HEIGHT, column.right + 14
    local head, x_to = top - 12, ghost.x + width / 2
    return ("M%.1f %.1fv4q0 8 8 8H%.1fq8 0 8 -8V%.1fq0 -8 8 -8H%.1fq8 0 8 8V%.1f"):format(x, foot,
        gap - 8, head + 8, x_to - 8, ghost.y), x_to, ghost.y, "down"
end

-- The picture folded into columns with these last rows.
local function arrange(items, rows, cuts, box_width, left, top)
    local columns = fold(items, cuts)
    local result = {boxes = {}, lines = {}, width = 0, height = 0}
    local x = left
    for position, column in ipairs(columns) do
        find_lanes(column)
        find_lines(column)
        find_tracks(column)
        local width, height = place(column, rows, (cuts[position - 1] or 0) + 1, x, top, box_width)
        result.height = math.max(result.height, height)
        x = x + width + COLUMN_GAP
        for _, box in ipairs(column.boxes) do
            table.insert(result.boxes, box)
            local before = columns[position - 1]
            if box.ghost and box.of == before.last then
                local line = {kind = "trunk"}
                line.path, line.x, line.y, line.direction = trunk_path(box.of, box, before, top,
                    box_width)
                table.insert(result.lines, line)
            end
        end
        for _, line in ipairs(column.lines) do
            line.path, line.x, line.y, line.direction = path_of(line, box_width)
            table.insert(result.lines, line)
        end
    end
    result.width = x - COLUMN_GAP - left
    return result
end

--- Arranges items {inputs (items in front in the list), follows (whether it belongs to what is
--- above it), sums (whether one of its inputs may be a shortcut)} as boxes of a width, the upper left
--- corner at (left, top). columns: how many, or nil: as many as give the picture a screen's shape.
--- Returns {boxes = {{item, x, y, ghost (stands for a box of an earlier column)}}, lines = {{kind,
--- shortcut (whether it belongs to one), path (of SVG), x, y, direction (where it ends)}}, width,
--- height}.
function layout.arrange(items, box_width, left, top, columns)
    local rows = find_rows(items)
    local next_cuts, cuts, result = cutter(rows), nil, nil
    repeat
        local more = next_cuts()
        if not more then break end -- as many columns as there are places to cut
        cuts = more
        if not columns then result = arrange(items, rows, cuts, box_width, left, top) end
        local is_screen = result
            and (result.height <= MOST_HEIGHT or result.width >= SHAPE * result.height)
    until is_screen or #cuts == columns
    return result or arrange(items, rows, cuts, box_width, left, top)
end

return layout
