-- Writes a node's report. KEYS: nodes, the node's counts, marks, batches, events. ARGV: node, lease in ms, number of the report, whether
-- it replaces earlier reports, maximum queued marks, events and bytes of events, number of counts and of marks, then the counts (channel
-- and count), marks and events.
-- Returns whether the node was known, and how many events were dropped for lack of room.
local nodes, counts, marks, batches, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local node, lease, batch, anew = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local max_marks, max_events, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local first_mark = 10 + 2 * tonumber(ARGV[8])
local first_event = first_mark + tonumber(ARGV[9])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local was_known = 1 - redis.call('ZADD', nodes, string.format('%.0f', now + lease), node)
if anew then redis.call('DEL', counts) end
for at = 10, first_mark - 1, 2 do
  if ARGV[at + 1] == '0' then
    redis.call('HDEL', counts, ARGV[at])
  else
    redis.call('HSET', counts, ARGV[at], ARGV[at + 1])
  end
end
if redis.call('LLEN', marks) + first_event - first_mark > max_marks then
  -- Too many marks: mark everything instead.
  if redis.call('LINDEX', marks, -1) ~= '[]' then redis.call('RPUSH', marks, '[]') end
else
  for at = first_mark, first_event - 1 do redis.call('RPUSH', marks, ARGV[at]) end
end
-- A report that is retried after a lost reply must not queue its events twice.
if batch <= tonumber(redis.call('HGET', batches, node) or '0') then return { was_known, 0 } end
redis.call('HSET', batches, node, batch)
local room = max_events - redis.call('LLEN', events)
local before = tonumber(redis.call('GET', events .. ':bytes') or '0')
local bytes, left = before, first_event
-- Stop at the first event without room: later events must not be sent before it.
while left <= #ARGV and room > 0 and bytes + #ARGV[left] <= max_bytes do
  redis.call('RPUSH', events, ARGV[left])
  bytes, room, left = bytes + #ARGV[left], room - 1, left + 1
end
if bytes > before then redis.call('SET', events .. ':bytes', string.format('%.0f', bytes)) end
return { was_known, #ARGV + 1 - left }
