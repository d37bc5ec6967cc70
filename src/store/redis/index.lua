-- Adds a channel to the index of a node that lives. KEYS: lease, index. ARGV: channel.
-- Returns 0 when the lease is gone: the id is dead, and nobody would look for what is written under it.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
