-- One question to a central counter; the rule is stated in plinth_policy::limits::lease::central.
-- KEYS[1] the counter; ARGV: kind, now (0: the server's clock), want, unused, then
--   "rate": lost_for, num, den, tau, burst      "cap": window, spent, cap
-- Answers {granted, left, retry_after, ends_in, window}; all times in microseconds, whole numbers below 2^53.
local now = tonumber(ARGV[2])
if now == 0 then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local want, unused = tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('GET', KEYS[1]) or '0 0'
local first, second = string.match(kept, '^(%d+) (%d+)$')
first, second = tonumber(first or 0), tonumber(second or 0)

local function keep(a, b, millis)
    redis.call('SET', KEYS[1], string.format('%.0f %.0f', a, b), 'PX', string.format('%.0f', millis))
end

if ARGV[1] == 'rate' then
    local lost_for, num, den = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
    local tau, burst = tonumber(ARGV[8]), tonumber(ARGV[9])
    -- What is owed is never more than the burst, but for a limit that was just made smaller.
    local tat, seen = math.min(first, now + tau), second
    if lost_for > 0 and seen > 0 then
        local quiet = math.min(lost_for, math.max(now - seen, 0))
        tat = math.max(tat, now - quiet) + quiet
    end
    unused, want = math.min(unused, burst), math.min(want, burst)
    tat = math.max(tat - math.floor(unused * num / den), now)
    local room = math.max(tau - (tat - now), 0)
    local grant = math.min(want, math.floor(room * den / num))
    tat = tat + math.ceil(grant * num / den)
    local left = math.floor(math.max(tau - (tat - now), 0) * den / num)
    local worth = math.max(1, math.floor(want / 4))
    local retry = grant < want and math.max(tat + math.ceil(worth * num / den) - tau - now, 0) or 0
    -- A day longer than it is owed, so that nodes which were cut off find what time has not refilled.
    keep(tat, now, math.ceil((tat - now) / 1000) + 86400000)
    return {grant, left, retry, 0, 0}
end

local window, spent, cap = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local day, used = first, second
local today = math.floor(now / 86400000000)
if today > day then
    day, used = today, 0
end
if window == day then
    used = math.max(used - unused, 0)
end
used = math.min(used + spent, 281474976710655)
local grant = math.min(want, math.max(cap - used, 0))
used = used + grant
local midnight = math.max((day + 1) * 86400000000 - now, 0)
keep(day, used, math.ceil(midnight / 1000) + 86400000)
return {grant, math.max(cap - used, 0), grant < want and midnight or 0, midnight, day}
