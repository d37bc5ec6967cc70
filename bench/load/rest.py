#!/usr/bin/env python3
"""The server at rest: what heartbeats cost, and what memory is left when all have gone.

    rest.py [--conns 19000] [--rounds 2] [--secs 75] [--rest 60]

In each round, connections come over 25 s, so that their heartbeats are spread over the 25 s between two of them, stay for --secs, and
leave. Prints the server's memory (MiB) before, with all, and --rest seconds after they have left, and the CPU time per heartbeat. Sessions are not
kept for recovery here (`recovery.window` would keep them for two minutes).
"""
import argparse, json, os, resource, subprocess, time

import bench
from scale import rss_mib

INTERVAL = 25  # seconds between two heartbeats


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("conns", 19_000), ("rounds", 2), ("secs", 75), ("rest", 60)]:
        ap.add_argument(f"--{name}", type=int, default=default)
    a = ap.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ctx = bench.Ctx()
    try:
        redis_pid = ctx.start_redis()
        pid, options = bench.SERVERS["ours-norecovery"](ctx)
        time.sleep(1)
        print(f"before: {rss_mib(pid):.1f} MiB", flush=True)
        for number in range(1, a.rounds + 1):
            load = [os.path.join(bench.BIN, "load"), "idle", *options, "--addr", f"127.0.0.1:{ctx.port}", "--pid", str(pid),
                    "--redis", f"127.0.0.1:{ctx.redis}", "--redis-pid", str(redis_pid), "--conns", str(a.conns),
                    "--rate", str(a.conns / INTERVAL), "--settle", str(INTERVAL), "--idle-secs", str(a.secs - INTERVAL)]
            run = json.loads(subprocess.run(load, check=True, capture_output=True, text=True).stdout)
            beats = (a.secs - INTERVAL) / INTERVAL * a.conns
            cpu = run["idle_cpu_percent"] / 100 * (a.secs - INTERVAL)
            print(f"round {number}: {run['rss_end_kib'] / 1024:.1f} MiB with {run['ready']} connections; {run['idle_cpu_percent']:.2f} % of a core, "
                  f"{cpu * 1e6 / beats:.1f} µs a heartbeat", flush=True)
            for waited in (2, a.rest):
                time.sleep(waited if waited == 2 else a.rest - 2)
                print(f"  {waited} s after all have gone: {rss_mib(pid):.1f} MiB", flush=True)
    finally:
        ctx.stop()


if __name__ == "__main__":
    main()
