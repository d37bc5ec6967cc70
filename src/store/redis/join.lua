-- Adds a socket. KEYS: sockets, users. ARGV: socket, user, node, member, mode, topic, witness.
-- mode: `join` makes the socket the newest; `again` retries a join whose reply was lost; `assert` keeps the socket's place, and leaves
-- it to another node that has taken it over.
-- What another program wrote in the place of ours is overwritten; a key of another type is renamed to `…:foreign`.
-- Returns whether this is the user's first socket, the version, the member whose last socket this was, if replaced, the number of
-- sockets, whether the witness, another socket, is there, and whether something foreign was in the way.
local sockets, users = KEYS[1], KEYS[2]
local socket, user, node, member, mode, topic, witness = unpack(ARGV)
local met_foreign = 0

-- Calls a command on `key`; when it fails because of foreign data there, calls `replace`, and the command again.
local function call(replace, command, key, ...)
  local result = redis.pcall(command, key, ...)
  local problem = type(result) == 'table' and result.err
  if not problem then return result end
  if string.find(problem, 'WRONGTYPE') then
    redis.call('RENAME', key, key .. ':foreign')
  elseif not (string.find(problem, 'not an integer') or string.find(problem, 'overflow')) then
    -- It fails again, as it should.
    return redis.call(command, key, ...)
  end
  met_foreign = 1
  replace()
  return redis.call(command, key, ...)
end

local function count(field, by)
  return call(function() redis.call('HDEL', users, field) end, 'HINCRBY', users, field, by)
end

local last = call(function() end, 'HGET', sockets, 'version')
if not last then
  -- Counts without sockets are those of members whom Redis has lost.
  if redis.call('TYPE', users).ok == 'hash' then redis.call('DEL', users) end
elseif redis.call('EXISTS', users) == 0 then
  redis.call('DEL', sockets)
end
local old = redis.call('HGET', sockets, socket)
local old_place, owner, length, at
if old then old_place, owner, length, at = string.match(old, '^(%d+) (%S+) (%d+) ()') end
if mode == 'assert' and owner and not is_same_node(owner, node) then
  return { 0, last, '', redis.call('HLEN', sockets) - 1, redis.call('HEXISTS', sockets, witness), met_foreign }
end
if last and not tonumber(last) then met_foreign = 1 end
local version = next_version(last)
redis.call('HSET', sockets, 'version', version)

local function publish(name, json)
  if topic ~= '' then
    redis.call('PUBLISH', topic, '{"event":"presence:' .. name .. '","data":' .. json ..
      ',"socket":"' .. socket .. '","presence":' .. version .. '}')
  end
end

local place, is_new, replaced = version, true, ''
if length then
  local old_user = string.sub(old, at, at + length - 1)
  if old_user == user then
    is_new = false
    if mode == 'assert' then place = old_place end
  elseif count(old_user, -1) <= 0 then
    redis.call('HDEL', users, old_user)
    replaced = string.sub(old, at + length)
    publish('leaving', replaced)
  end
end

local is_first
if is_new then
  is_first = count(user, 1) == 1
else
  is_first = mode == 'again' and redis.call('HGET', users, user) == '1'
end
redis.call('HSET', sockets, socket, place .. ' ' .. node .. ' ' .. #user .. ' ' .. user .. member)
-- Nodes show others the data of a user's newest socket.
if is_first or mode ~= 'assert' then publish('joining', member) end
return { is_first and 1 or 0, version, replaced, redis.call('HLEN', sockets) - 1, redis.call('HEXISTS', sockets, witness),
  met_foreign }
