-- Records and queues what the leader sends. KEYS: leader, seq, told, marks, events, then the outbox of each target. ARGV: token,
-- prefix of the user sets, maximum events and bytes of an outbox, number of marks and events to remove, then for each event: its
-- change (`occupied`, `vacated`, `added`, `removed`, `count`, or nothing), channel, user or count, time, JSON, numbers of outboxes,
-- whether it is a client event. Returns nothing if another node leads, otherwise the dropped events: outbox number and JSON.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
local seq, told, users, max, max_bytes = KEYS[2], KEYS[3], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local marks_done, events_done = tonumber(ARGV[5]), tonumber(ARGV[6])
if marks_done > 0 then redis.call('LTRIM', KEYS[4], marks_done, -1) end
if events_done > 0 then
  local bytes = 0
  for _, event in ipairs(redis.call('LRANGE', KEYS[5], 0, events_done - 1)) do bytes = bytes + #event end
  redis.call('LTRIM', KEYS[5], events_done, -1)
  redis.call('DECRBY', KEYS[5] .. ':bytes', bytes)
  if redis.call('EXISTS', KEYS[5]) == 0 then redis.call('DEL', KEYS[5] .. ':bytes') end
end
local dropped = {}

-- Numbers an event and puts it into outboxes. Numbers start at the time in microseconds, so they grow even after data loss.
-- A full outbox drops the oldest client event first, then the oldest of all: `<outbox>:clients` lists client events, and
-- `<outbox>:bytes` is the size of all JSON. The newest event is kept regardless of its size.
local function append(time_ms, json, places, is_of_clients)
  if places == '' then return end
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local number = string.format('%.0f', math.max(now, tonumber(redis.call('GET', seq) or '0') + 1))
  redis.call('SET', seq, number)
  json = json .. ',"seq":' .. number .. '}'
  for place in string.gmatch(places, '%d+') do
    local outbox = KEYS[5 + tonumber(place)]
    local clients = outbox .. ':clients'
    local id = redis.call('XADD', outbox, '*', 't', time_ms, 'j', json, 'c', is_of_clients and 1 or 0)
    if is_of_clients then redis.call('RPUSH', clients, id) end
    local bytes = redis.call('INCRBY', outbox .. ':bytes', #json)
    local count = redis.call('XLEN', outbox)
    while count > 1 and (count > max or bytes > max_bytes) do
      local first = redis.call('LPOP', clients)
      local oldest = redis.call('XRANGE', outbox, first or '-', first or '+', 'COUNT', 1)[1]
      if oldest then
        redis.call('XDEL', outbox, oldest[1])
        bytes = redis.call('DECRBY', outbox .. ':bytes', #oldest[2][4])
        count = count - 1
        dropped[#dropped + 1] = { place, oldest[2][4] }
      end
    end
  end
end

for at = 7, #ARGV, 7 do
  local change, channel, what = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if change == 'occupied' then
    redis.call('HSET', told, channel, '0')
  elseif change == 'vacated' then
    redis.call('HDEL', told, channel)
    redis.call('DEL', users .. channel)
  elseif change == 'added' then
    redis.call('SADD', users .. channel, what)
  elseif change == 'removed' then
    redis.call('SREM', users .. channel, what)
  elseif change == 'count' then
    redis.call('HSET', told, channel, what)
  end
  append(ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6] == '1')
end
return dropped
