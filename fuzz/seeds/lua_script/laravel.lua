for i = 2, #ARGV do
  redis.call('publish', ARGV[i], ARGV[1])
end