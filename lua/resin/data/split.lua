--- split(set, fraction, part): what every data set's `split` does: part(first, last) of the first
--- floor(fraction n) images and of the rest. As with Keras' validation_split, nothing is shuffled.
local check = require "resin.nn.check"

return function(set, fraction, part)
    if type(fraction) ~= "number" or not (fraction > 0 and fraction < 1) then
        check.fail("split: expected a fraction between 0 and 1, got %s", tostring(fraction))
    end
    local count = #set
    local first = math.floor(fraction * count)
    if first == 0 or first == count then
        check.fail("split: a part would be empty: %g of %d images", fraction, count)
    end
    return part(1, first), part(first + 1, count)
end
