-- broadcast
local payload = ARGV[1]; for n = 2, #ARGV, 1 do
	local c = redis.pcall('spublish', ARGV[n], payload)
end
return 1