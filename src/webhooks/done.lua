-- These events of an outbox wait no more. KEYS: the outbox. ARGV: their ids. Those that are gone already, because this was said before
-- and the answer was lost, or because they were dropped, do not count again.
local outbox = KEYS[1]
local bytes = 0
for _, id in ipairs(ARGV) do
  local event = redis.call('XRANGE', outbox, id, id)[1]
  if event then
    redis.call('XDEL', outbox, id)
    bytes = bytes + #event[2][4]
    if event[2][6] == '1' then redis.call('LREM', outbox .. ':clients', 1, id) end
  end
end
if redis.call('XLEN', outbox) == 0 then
  -- The empty stream stays, so that no id is used again.
  redis.call('DEL', outbox .. ':bytes')
elseif bytes > 0 then
  redis.call('DECRBY', outbox .. ':bytes', bytes)
end
