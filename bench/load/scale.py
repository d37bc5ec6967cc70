#!/usr/bin/env python3
"""Many connections for a while: 10,000 on 1,000 channels for five minutes, while others connect and disconnect.

    scale.py [--conns 10000] [--groups 1000] [--secs 300] [--rate 500] [--churn 100]
    scale.py --conns 100000 --groups 10000

One `load` for every 25,000 connections holds them and counts every message, each with its own channels and address (127.0.0.1,
127.0.0.2, ...: an address has 28,000 ports); another one keeps connecting and disconnecting, about --churn connections a second.
Prints the server's memory every half minute, CPU, latency, and lost messages. Exits with 1 when anything was lost or out of
order, or when memory at the end is more than a tenth above that after the first half minute.
"""
import argparse, json, os, resource, subprocess, sys, tempfile, time

import bench

SAMPLE = 30
PER_LOAD = 25_000  # connections: the ports of an address
SPARE_FILES = 900  # besides the connections


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
    files = a.conns + SPARE_FILES
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < files:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        except (OSError, ValueError):
            sys.exit(f"{a.conns} connections take {files} open files; `ulimit -Hn` says {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}")
    ctx = bench.Ctx()
    ctx.host = "0.0.0.0"
    loads = []
    try:
        redis_pid = ctx.start_redis()
        pid, _ = bench.ours(ctx)
        load = [os.path.join(bench.BIN, "load")]

        def server(address):
            return ["--addr", f"127.0.0.{address}:{ctx.port}", "--pid", str(pid), "--redis", f"127.0.0.1:{ctx.redis}",
                    "--redis-pid", str(redis_pid), "--proto", "sio4"]

        before = rss_mib(pid)
        print(f"before: {before:.1f} MiB", flush=True)
        count = -(-a.conns // PER_LOAD)
        conns, groups, rate = (str(-(-whole // count)) for whole in (a.conns, a.groups, a.rate))
        outs = [tempfile.TemporaryFile("w+") for _ in range(count)]
        for number, out in enumerate(outs):
            argv = load + ["groups", *server(1 + number), "--conns", conns, "--groups", groups, "--rate", rate, "--secs", str(a.secs),
                           "--channels", f"of-{number}"]
            loads.append(subprocess.Popen(argv, stdout=out))
        begun, churned, samples, next_sample = time.time(), 0, [], time.time() + SAMPLE
        cpu = cpu_seconds(pid)
        is_on = lambda: any(load.poll() is None for load in loads)
        while is_on():
            turn = time.time()
            if a.churn:
                run = subprocess.run(load + ["connect", *server(1 + count), "--conns", str(a.churn)], capture_output=True, text=True)
                if run.returncode == 0:
                    churned += a.churn
                else:
                    print("churn:", run.stderr.strip()[-200:], flush=True)
            time.sleep(max(0, turn + 1 - time.time()))
            if time.time() >= next_sample and is_on():
                samples.append(rss_mib(pid))
                print(f"after {time.time() - begun:.0f} s: {samples[-1]:.1f} MiB", flush=True)
                next_sample += SAMPLE
        cpu = (cpu_seconds(pid) - cpu) / (time.time() - begun)
        results = []
        for out in outs:
            out.seek(0)
            results.append(json.loads(out.read()))
        deliveries, lost, misordered = (sum(result[key] for result in results) for key in ("deliveries_per_s", "lost", "misordered"))
        p50, p99 = (max(result["latency_ms"][key] for result in results) for key in ("p50", "p99"))
        print(f"{a.conns} connections on {a.groups} channels, {churned} more came and went; {deliveries:.0f} deliveries/s, "
              f"p50 {p50} ms, p99 {p99} ms, lost {lost}, misordered {misordered}, CPU {100 * cpu:.0f} % of a core")
        time.sleep(3)
        print(f"after all have gone: {rss_mib(pid):.1f} MiB")
        is_flat = len(samples) < 2 or samples[-1] <= samples[0] * 1.1
        sys.exit(0 if is_flat and not lost and not misordered else 1)
    finally:
        for load in loads:
            load.kill()
            load.wait()
        ctx.stop()


if __name__ == "__main__":
    main()
