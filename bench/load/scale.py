#!/usr/bin/env python3
"""Many connections for a while: each in a channel and a presence channel that it shares with others, some of which come and go.

    scale.py [--conns 10000] [--nodes 1] [--share 100] [--secs 300] [--rate 500] [--churn 50] [--settle 130]
    scale.py --conns 100000 --nodes 6 --rate 50

Starts --nodes servers on one Redis (several are one cluster), and one `load` for each of them, or more if a process may not have so
many files. Each `load` has channels of its own, of --share connections, which are spread over the nodes. Besides --conns it has a tenth
as many guests, of which --churn a second over all are replaced by new users, every other one without saying goodbye. --rate is that of
events over all channels. In the --settle seconds after them the sessions of those guests end. Prints the memory of each node every half
minute, and in the end CPU, latency, lost messages, and how many clients believe that too many or too few users are in their presence channel.
Exits with 1 when there were any, or when the memory at the end is more than a tenth above that after the first half minute.
"""
import argparse, json, os, resource, subprocess, sys, tempfile, time

import bench

SAMPLE = 30
PER_LOAD = 25_000  # connections: an address has 28,000 ports
SPARE_FILES = 900  # besides the connections
SETUP = 300  # seconds until all must be connected


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = {"conns": 10_000, "nodes": 1, "share": 100, "secs": 300, "rate": 500, "churn": 50, "settle": 130}
    for name, default in options.items():
        ap.add_argument(f"--{name}", type=int, default=default)
    a = ap.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    per_process = min(PER_LOAD, hard - SPARE_FILES)
    if a.conns * 1.1 / a.nodes > hard - SPARE_FILES:
        sys.exit(f"{a.conns} connections and a tenth of guests on {a.nodes} nodes: a process may have {hard} files (`ulimit -Hn`)")
    count = max(a.nodes, -(-a.conns * 11 // 10 // per_process))
    nodes, loads, outs = [], [], []
    gate = os.path.join(tempfile.mkdtemp(prefix="scale-"), "gate")
    try:
        first = bench.Ctx()
        nodes.append(first)
        redis = first.start_redis()
        nodes += [bench.Ctx() for _ in range(a.nodes - 1)]
        pids = []
        for node in nodes:
            node.redis, node.host = first.redis, "0.0.0.0"
            pids.append((bench.ours_cluster if a.nodes > 1 else bench.ours)(node)[0])
        time.sleep(1)
        show = lambda: " + ".join(f"{rss_mib(pid):.0f}" for pid in pids) + f" = {sum(map(rss_mib, pids)):.0f} MiB, Redis {rss_mib(redis):.0f}"
        print(f"before: {show()}", flush=True)
        conns = -(-a.conns // count)
        for number in range(count):
            # An address of its own for each: a port is free again at once.
            addresses = ",".join(f"127.0.0.{1 + number}:{node.port}" for node in nodes)
            argv = [os.path.join(bench.BIN, "load"), "groups", "--both", "--addr", addresses, "--pid", ",".join(map(str, pids)),
                    "--redis", f"127.0.0.1:{first.redis}", "--redis-pid", str(redis), "--conns", str(conns), "--guests", str(conns // 10),
                    "--groups", str(max(1, conns // a.share)), "--secs", str(a.secs), "--rate", str(a.rate / count), "--churn", str(a.churn / count),
                    "--channels", f"of-{number}", "--gate", gate, "--settle", str(a.settle), "--setup-timeout", str(SETUP), "--quiet", "5"]
            if number < a.nodes:
                argv += ["--auth-port", str(nodes[number].auth)]  # of this node
            outs.append(tempfile.TemporaryFile("w+"))
            loads.append(subprocess.Popen(argv, stdout=outs[-1]))
        begun = time.time()
        is_ready = lambda: all(os.path.exists(f"{gate}.of-{number}") for number in range(count))
        while not is_ready() and all(load.poll() is None for load in loads):
            time.sleep(0.1)
        cpu = lambda: (sum(map(cpu_seconds, pids)), cpu_seconds(redis))
        at_gate = cpu()
        print(f"all connected after {time.time() - begun:.0f} s: {show()}; {at_gate[0]:.0f} s of CPU, Redis {at_gate[1]:.0f}", flush=True)
        time.sleep(3)
        open(gate, "w").close()
        begun, before, samples = time.time(), cpu(), []
        while any(load.poll() is None for load in loads):
            time.sleep(0.1)
            elapsed = time.time() - begun
            if elapsed >= SAMPLE * (1 + len(samples)):
                samples.append(sum(map(rss_mib, pids)))
                used = cpu()
                print(f"after {elapsed:.0f} s: {show()}; CPU {100 * (used[0] - before[0]) / SAMPLE:.0f} %, "
                      f"Redis {100 * (used[1] - before[1]) / SAMPLE:.0f} % of a core", flush=True)
                before = used
        results = []
        for out in outs:
            out.seek(0)
            results.append(json.loads(out.read()))
        print(json.dumps(results), file=sys.stderr)
        total = {key: sum(result[key] for result in results) for key in ("ready", "closed", "deliveries_per_s", "lost", "misordered", "misinformed", "churned")}
        worst = {key: {q: max(result[key][q] for result in results) for q in ("p50", "p99", "max")} for key in ("latency_ms", "join_ms")}
        print(", ".join(f"{key} {value:.0f}" for key, value in total.items()), worst, [result["errors"] for result in results if result["errors"]])
        time.sleep(3)
        print(f"after all have gone: {show()}")
        is_flat = len(samples) < 2 or samples[-1] <= samples[0] * 1.1
        sys.exit(0 if is_flat and not any(total[key] for key in ("lost", "misordered", "misinformed", "closed")) else 1)
    finally:
        for load in loads:
            load.kill()
            load.wait()
        for node in reversed(nodes):
            node.stop()


if __name__ == "__main__":
    main()
