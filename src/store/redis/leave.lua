-- Takes a socket out. KEYS: sockets, users. ARGV: socket, expected, user, topic, node.
-- expected: when not empty, the entry must still be this one. user: when not empty, this is a leave whose first
-- answer was lost; a socket that is not there counts as taken out of that user just now.
-- node: when not empty, the entry must be this node's; one of another node stays.
-- Returns 0 (was not there), 1 (the user is still here) or 2 (the user is gone), and the member.
local sockets, users = KEYS[1], KEYS[2]
local socket, expected, user, topic, node = unpack(ARGV)

local old = redis.call('HGET', sockets, socket)
if not old then
  if user ~= '' and redis.call('HEXISTS', users, user) == 0 then return { 2, '' } end
  return { 0, '' }
end
if expected ~= '' and old ~= expected then return { 0, '' } end

local owner, length, at = string.match(old, '^%d+ (%S+) (%d+) ()')
if node ~= '' and owner ~= node then return { 1, '' } end
local old_user, member = string.sub(old, at, at + length - 1), string.sub(old, at + length)
redis.call('HDEL', sockets, socket)
local version = string.format('%.0f', redis.call('HINCRBY', sockets, 'version', 1))
local is_gone = redis.call('HINCRBY', users, old_user, -1) <= 0
if is_gone then
  redis.call('HDEL', users, old_user)
  if topic ~= '' then
    redis.call('PUBLISH', topic, '{"event":"presence:leaving","data":' .. member ..
      ',"socket":"' .. socket .. '","presence":' .. version .. '}')
  end
end
if redis.call('HLEN', sockets) == 1 then redis.call('DEL', sockets, users) end
return { is_gone and 2 or 1, member }
