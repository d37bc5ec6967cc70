#!/usr/bin/env python3
"""Many connections for a while: 10,000 on 1,000 channels for five minutes, with others coming and going.

    scale.py [--conns 10000] [--groups 1000] [--secs 300] [--rate 500] [--churn 100]

One `load` keeps its connections and counts every message; a second one connects and leaves all the time, about --churn
connections a second. Prints the server's memory every half minute, CPU, latency, and what was lost. Ends with 1 when
anything was lost or out of order, or when memory at the end is more than a tenth above that after the first half minute.
"""
import argparse, json, os, subprocess, sys, tempfile, time

import bench

SAMPLE = 30


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("conns", 10_000), ("groups", 1_000), ("secs", 300), ("rate", 500), ("churn", 100)]:
        ap.add_argument(f"--{name}", type=int, default=default)
    a = ap.parse_args()
    ctx = bench.Ctx()
    try:
        redis_pid = ctx.start_redis()
        pid, _ = bench.ours(ctx)
        load = [os.path.join(bench.BIN, "load")]
        server = ["--addr", f"127.0.0.1:{ctx.port}", "--pid", str(pid), "--redis", f"127.0.0.1:{ctx.redis}",
                  "--redis-pid", str(redis_pid), "--proto", "sio4"]
        out = tempfile.TemporaryFile("w+")
        before = rss_mib(pid)
        print(f"before: {before:.1f} MiB", flush=True)
        argv = load + ["groups", *server, "--conns", str(a.conns), "--groups", str(a.groups), "--rate", str(a.rate), "--secs", str(a.secs)]
        main_load = subprocess.Popen(argv, stdout=out)
        begun, churned, samples, next_sample = time.time(), 0, [], time.time() + SAMPLE
        cpu = cpu_seconds(pid)
        while main_load.poll() is None:
            turn = time.time()
            if a.churn:
                run = subprocess.run(load + ["connect", *server, "--conns", str(a.churn)], capture_output=True, text=True)
                if run.returncode == 0:
                    churned += a.churn
                else:
                    print("churn:", run.stderr.strip()[-200:], flush=True)
            time.sleep(max(0, turn + 1 - time.time()))
            if time.time() >= next_sample and main_load.poll() is None:
                samples.append(rss_mib(pid))
                print(f"after {time.time() - begun:.0f} s: {samples[-1]:.1f} MiB", flush=True)
                next_sample += SAMPLE
        cpu = (cpu_seconds(pid) - cpu) / (time.time() - begun)
        out.seek(0)
        result = json.loads(out.read())
        latency = result["latency_ms"]
        print(f"{a.conns} connections on {a.groups} channels, {churned} more came and went; {result['deliveries_per_s']:.0f} deliveries/s, "
              f"p50 {latency['p50']} ms, p99 {latency['p99']} ms, lost {result['lost']}, misordered {result['misordered']}, "
              f"CPU {100 * cpu:.0f} % of a core")
        time.sleep(3)
        print(f"after all have gone: {rss_mib(pid):.1f} MiB")
        is_flat = len(samples) < 2 or samples[-1] <= samples[0] * 1.1
        sys.exit(0 if is_flat and not result["lost"] and not result["misordered"] else 1)
    finally:
        ctx.stop()


if __name__ == "__main__":
    main()
