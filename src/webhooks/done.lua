-- Removes events from an outbox. KEYS: the outbox. ARGV: their ids. Events that were removed already, because this is a retry after a
-- lost reply or because they were dropped, are skipped.
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
  -- The empty stream is kept, so that no id is used again.
  redis.call('DEL', outbox .. ':bytes')
elseif bytes > 0 then
  redis.call('DECRBY', outbox .. ':bytes', bytes)
end
