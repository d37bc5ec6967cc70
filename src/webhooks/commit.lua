-- What the leader tells. KEYS: leader, seq, told, marks, events, then the outbox of each target. ARGV: token, prefix of the sets of
-- users, most events of an outbox, how many marks and events this is the end of, then for each event: what it changes (`occupied`,
-- `vacated`, `added`, `removed`, `count`, or nothing, when a client caused it), channel, user or count, time, JSON, places of outboxes.
-- Returns nothing when somebody else leads, else what had to go: place and JSON.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
local seq, told, users, max = KEYS[2], KEYS[3], ARGV[2], tonumber(ARGV[3])
redis.call('LTRIM', KEYS[4], ARGV[4], -1)
redis.call('LTRIM', KEYS[5], ARGV[5], -1)
local dropped = {}

-- Numbers an event and puts it into outboxes. Numbers grow, also when they were lost: they start at the time in microseconds.
-- In a full outbox the oldest event of clients goes, then the oldest of all: `<outbox>:clients` lists the first kind.
local function append(time_ms, json, places, is_of_clients)
  if places == '' then return end
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local number = string.format('%.0f', math.max(now, tonumber(redis.call('GET', seq) or '0') + 1))
  redis.call('SET', seq, number)
  for place in string.gmatch(places, '%d+') do
    local outbox = KEYS[5 + tonumber(place)]
    local clients = outbox .. ':clients'
    local id = redis.call('XADD', outbox, '*', 't', time_ms, 'j', json .. ',"seq":' .. number .. '}', 'c', is_of_clients and 1 or 0)
    if is_of_clients then redis.call('RPUSH', clients, id) end
    while redis.call('XLEN', outbox) > max do
      local first = redis.call('LPOP', clients)
      local oldest = redis.call('XRANGE', outbox, first or '-', first or '+', 'COUNT', 1)[1]
      if oldest then
        redis.call('XDEL', outbox, oldest[1])
        dropped[#dropped + 1] = { place, oldest[2][4] }
      end
    end
  end
end

for at = 6, #ARGV, 6 do
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
  append(ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], change == '')
end
return dropped
