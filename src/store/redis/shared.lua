-- What the scripts that change a channel have in common.

-- The version after `last`: the time in microseconds, so that versions keep growing also when Redis has lost its data or has gone back
-- to older data, as after a restart or a failover.
local function next_version(last)
  local now = redis.call('TIME')
  last = tonumber(last) or 0
  -- One that is no exact number is another program's.
  if last > 2 ^ 53 then last = 0 end
  return string.format('%.0f', math.max(now[1] * 1000000 + now[2], last + 1))
end

-- Whether two ids are those of one node, which has a new one with each lease: see `lease.rs`.
local function is_same_node(one, other)
  return string.match(one, '^[^-]+') == string.match(other, '^[^-]+')
end

