-- Adds a channel to a node's index if the node's lease exists. KEYS: lease, index. ARGV: channel.
-- Returns 0 when the lease has expired: members written under a dead id would never be removed.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
