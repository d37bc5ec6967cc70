-- What one node says. KEYS: nodes, the node's counts, marks, batches, events. ARGV: node, lease in ms, number of the batch, whether it
-- says everything anew, most marks and events that wait, numbers of counts and marks, then these: channel and count; mark; event.
-- Returns whether the node was known, and how many events had no room.
local nodes, counts, marks, batches, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local node, lease, batch, anew = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local max_marks, max_events = tonumber(ARGV[5]), tonumber(ARGV[6])
local first_mark = 9 + 2 * tonumber(ARGV[7])
local first_event = first_mark + tonumber(ARGV[8])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local was_known = 1 - redis.call('ZADD', nodes, string.format('%.0f', now + lease), node)
if anew then redis.call('DEL', counts) end
for at = 9, first_mark - 1, 2 do
  if ARGV[at + 1] == '0' then
    redis.call('HDEL', counts, ARGV[at])
  else
    redis.call('HSET', counts, ARGV[at], ARGV[at + 1])
  end
end
if redis.call('LLEN', marks) + first_event - first_mark > max_marks then
  -- Everything is to be looked at then.
  if redis.call('LINDEX', marks, -1) ~= '[]' then redis.call('RPUSH', marks, '[]') end
else
  for at = first_mark, first_event - 1 do redis.call('RPUSH', marks, ARGV[at]) end
end
-- Said again, because the answer was lost, it happens once.
if batch <= tonumber(redis.call('HGET', batches, node) or '0') then return { was_known, 0 } end
redis.call('HSET', batches, node, batch)
local room = math.max(max_events - redis.call('LLEN', events), 0)
for at = first_event, math.min(#ARGV, first_event + room - 1) do redis.call('RPUSH', events, ARGV[at]) end
return { was_known, math.max(#ARGV - first_event + 1 - room, 0) }
