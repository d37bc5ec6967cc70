#!/bin/sh
# PUBLISH into the built-in endpoint and into a real Redis, with redis-benchmark, one after the other.
#
#   cargo build --release && ECHO_BIN=target/release/laravel-echo-server benches/publish.sh
#
# Nobody is subscribed. Prints publishes per second, and per second of CPU time (of the one or more cores used).
set -eu

bin=${ECHO_BIN:-target/release/laravel-echo-server}
count=${COUNT:-400000}
payload='{"event":"App\\Events\\OrderShipped","data":{"order":{"id":1,"note":"a note of some length"}},"socket":null}'
dir=$(mktemp -d)
trap 'kill $redis $echo 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

cat > "$dir/laravel-echo-server.toml" <<TOML
host = "127.0.0.1"
port = 17001
[subscribers]
redis = false
[redisServer]
enabled = true
port = 17380
TOML
redis-server --port 17379 --save '' --appendonly no --dir "$dir" > "$dir/redis.log" &
redis=$!
"$bin" start --dir "$dir" > "$dir/echo.log" 2>&1 &
echo=$!
for port in 17379 17380; do
  until redis-cli -p $port PING > /dev/null 2>&1; do sleep 0.1; done
done

# User and system time of a process, in hundredths of a second.
cpu() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

echo '| commands in flight | server | publishes/s | publishes per CPU second |'
echo '|---|---|---|---|'
for pipeline in 1 16; do
  for server in "Redis:$redis:17379" "this server:$echo:17380"; do
    name=${server%%:*}; rest=${server#*:}; pid=${rest%:*}; port=${rest#*:}
    before=$(cpu "$pid")
    rate=$(redis-benchmark -p "$port" -c 50 -n "$count" -P "$pipeline" -q PUBLISH news "$payload" 2> /dev/null | tr '\r' '\n' | sed -n 's/.*: \([0-9.]*\) requests per second.*/\1/p')
    used=$(($(cpu "$pid") - before))
    echo "| 50 x $pipeline | $name | ${rate%.*} | $((count * 100 / used)) |"
  done
done
