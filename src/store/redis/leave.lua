-- Removes a socket. KEYS: sockets, users. ARGV: socket, expected, user, topic, node.
-- expected: when not empty, remove only this exact entry. user: when not empty, this retries a leave whose reply
-- was lost; if neither the socket nor the user is there any more, the first attempt removed that user's last socket.
-- node: when not empty, remove the entry only if it belongs to this node.
-- Returns 0 (was not there), 1 (the user remains) or 2 (the user has left), and the member.
local sockets, users = KEYS[1], KEYS[2]
local socket, expected, user, topic, node = unpack(ARGV)

local old = redis.pcall('HGET', sockets, socket)
-- Something foreign is in its place; the next join puts it aside.
if type(old) == 'table' and not string.find(old.err, 'WRONGTYPE') then old = redis.call('HGET', sockets, socket) end
local is_ours = type(old) == 'string' and string.find(old, '^%d+ %S+ %d+ ')
-- Sockets without counts: Redis has lost them, and the nodes write their members again.
if is_ours and redis.call('EXISTS', users) == 0 then
  redis.call('DEL', sockets)
  is_ours = false
end
if not is_ours then
  if user ~= '' and not old and redis.call('HEXISTS', users, user) == 0 then return { 2, '' } end
  return { 0, '' }
end
if expected ~= '' and old ~= expected then return { 0, '' } end

local owner, length, at = string.match(old, '^%d+ (%S+) (%d+) ()')
if node ~= '' and not is_same_node(owner, node) then return { 1, '' } end
local old_user, member = string.sub(old, at, at + length - 1), string.sub(old, at + length)
redis.call('HDEL', sockets, socket)
local version = next_version(redis.call('HGET', sockets, 'version'))
redis.call('HSET', sockets, 'version', version)
local left = redis.pcall('HINCRBY', users, old_user, -1)
-- A count that is none, since another program has overwritten it, is that of a user who is gone.
local is_foreign = type(left) == 'table' and (string.find(left.err, 'WRONGTYPE') or string.find(left.err, 'not an integer'))
if type(left) == 'table' and not is_foreign then left = redis.call('HINCRBY', users, old_user, -1) end
local is_gone = is_foreign or left <= 0
if is_gone then
  if not is_foreign then redis.call('HDEL', users, old_user) end
  if topic ~= '' then
    redis.call('PUBLISH', topic, '{"event":"presence:leaving","data":' .. member ..
      ',"socket":"' .. socket .. '","presence":' .. version .. '}')
  end
end
if redis.call('HLEN', sockets) == 1 then redis.call('DEL', sockets, users) end
return { is_gone and 2 or 1, member }
