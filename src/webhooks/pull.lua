-- The leader goes on, or a node becomes it. KEYS: leader, nodes, marks, events. ARGV: token, lease in ms, most marks, most events, whether
-- it leads already. Returns nothing when somebody else leads, else: marks and events, which stay until they are committed, nodes that
-- live, nodes that died.
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
