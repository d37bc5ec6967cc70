-- Keeps the lead or takes it, and pulls work. KEYS: leader, nodes, marks, events. ARGV: token, lease in ms, maximum marks, maximum
-- events, whether this node leads already. Returns nothing if another node leads, otherwise: marks and events, which remain until they
-- are committed, live nodes, dead nodes.
local leader, nodes = KEYS[1], KEYS[2]
local token, lease = ARGV[1], ARGV[2]
local current = redis.call('GET', leader)
if current ~= token and (current or ARGV[5] == '1') then return false end
redis.call('SET', leader, token, 'PX', lease)
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
return {
  redis.call('LRANGE', KEYS[3], 0, ARGV[3] - 1), redis.call('LRANGE', KEYS[4], 0, ARGV[4] - 1),
  redis.call('ZRANGEBYSCORE', nodes, '(' .. now, '+inf'), redis.call('ZRANGEBYSCORE', nodes, '-inf', now),
}
