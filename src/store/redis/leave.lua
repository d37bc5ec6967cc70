-- Removes a socket. KEYS: sockets, users. ARGV: socket, expected, user, topic, node.
-- expected: when not empty, remove only this exact entry. user: when not empty, this retries a leave whose reply
-- was lost; if neither the socket nor the user is there any more, the first attempt removed that user's last socket.
-- node: when not empty, remove the entry only if it belongs to this node.
-- Returns 0 (was not there), 1 (the user remains) or 2 (the user has left), and the member.
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
