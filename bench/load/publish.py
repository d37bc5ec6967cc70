#!/usr/bin/env python3
"""PUBLISH into the built-in Redis endpoint and into a real Redis, with redis-benchmark. Prints a Markdown table.

    cargo build --release && bench/load/publish.py [--rounds 5] [--count 200000]

Both run all the time; they take turns, and the table has medians. CPU is user and system time of each process.
The channel has no subscribers, neither here nor in Redis.
ECHO_BIN is the path of the server.
"""
import argparse, os, statistics, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "checks")]
import bench
from exact import cpu

EVENT = '{"event":"App\\\\Events\\\\OrderShipped","data":{"order":{"id":1,"note":"%s"}},"socket":null}'
SHORT, LONG = EVENT % "a note of some length", EVENT % ("x" * 700)
# Laravel's broadcast script, and the rest of the command: no keys, payload, channel.
SCRIPT = "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend"
CASES = [
    ("PUBLISH, 120 bytes", 1, ["PUBLISH", "news", SHORT]),
    ("PUBLISH, 120 bytes", 16, ["PUBLISH", "news", SHORT]),
    ("PUBLISH, 800 bytes", 1, ["PUBLISH", "news", LONG]),
    ("PUBLISH, 800 bytes", 16, ["PUBLISH", "news", LONG]),
    ("EVAL, 120 bytes", 1, ["EVAL", SCRIPT, "0", SHORT, "news"]),
    ("EVAL, 120 bytes", 16, ["EVAL", SCRIPT, "0", SHORT, "news"]),
]


def benchmark(port, pipeline, count, command):
    """Commands a second."""
    argv = ["redis-benchmark", "-p", str(port), "-c", "50", "-n", str(count), "-P", str(pipeline), "--csv", *command]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    # The command's name, which is quoted badly, and then numbers; the first one is the rate.
    return float(out.strip().splitlines()[-1].rsplit('","', 7)[1].strip('"'))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--count", type=int, default=200_000)
    args = args.parse_args()
    endpoint = bench.free_port()
    os.environ["ECHO_CONF"] = f"[subscribers]\nredis = false\n[redisServer]\nenabled = true\nport = {endpoint}\n"
    c = bench.Ctx()
    try:
        redis_pid = c.start_redis()
        pid, _ = bench.ours(c)
        servers = [("Redis", redis_pid, c.redis), ("this server", pid, endpoint)]
        print("| command | commands in flight | Redis: a second, µs of CPU each | this server | CPU, this server to Redis |")
        print("|---|---|---|---|---|")
        for what, pipeline, command in CASES:
            rates, costs = {}, {}
            for _ in range(args.rounds):
                for name, process, port in servers:
                    before = cpu(process)
                    rates.setdefault(name, []).append(benchmark(port, pipeline, args.count, command))
                    costs.setdefault(name, []).append((cpu(process) - before) * 1e6 / args.count)
            figures = [f"{statistics.median(rates[name]):,.0f}, {statistics.median(costs[name]):.2f}" for name, _, _ in servers]
            ratio = statistics.median(costs["this server"]) / statistics.median(costs["Redis"])
            print(f"| {what} | 50 × {pipeline} | {figures[0]} | {figures[1]} | {ratio:.0%} |", flush=True)
    finally:
        c.stop()


if __name__ == "__main__":
    main()
