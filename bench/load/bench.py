#!/usr/bin/env python3
"""Runs `load` against the peers and writes one JSON line per run.

    bench.py --out results.jsonl [--runs 3] [--servers les,floor,...] [--scenarios fanout1000_rate,...]
    bench.py --table results.jsonl          medians of a results file as Markdown

Each run gets a fresh redis-server and a fresh server on random free ports of 127.0.0.1; both are killed, by pid,
after the run. Servers take turns within a scenario, so that drift of the machine affects all alike. A run during
which other processes used more than --max-other CPUs is repeated (up to --attempts in all).
Paths of the servers: ECHO_BIN (ours), PEERS or LES_DIR, SOKETI_ECHO_DIR, SOCKUDO_BIN, LOAD_BIN (directory of load, floor, sioxide).
"""
import argparse, json, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ.get("LOAD_BIN", os.path.join(HERE, "target/release"))
PEERS = os.environ.get("PEERS", os.path.join(HERE, "peers"))  # where the peers below are installed
ROOT = os.path.join(HERE, "../..")
LES = os.environ.get("LES_DIR", os.path.join(ROOT, "tests/compat"))  # its npm ci brings the original
SOKETI_ECHO = os.environ.get("SOKETI_ECHO_DIR", os.path.join(PEERS, "soketi-echo-load"))
SOCKUDO = os.environ.get("SOCKUDO_BIN", os.path.join(PEERS, "sockudo/bin/sockudo"))
OURS = os.environ.get("ECHO_BIN", os.path.join(ROOT, "target/release/laravel-echo-server"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, proc, limit=20):
    end = time.time() + limit
    while time.time() < end:
        if proc.poll() is not None:
            raise RuntimeError(f"process ended with {proc.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"port {port} did not open")


class Ctx:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="load-bench-")
        self.procs = []
        self.port, self.redis, self.auth = free_port(), free_port(), free_port()
        self.host = "127.0.0.1"  # where ours listens

    def spawn(self, argv, cwd=None, env=None, name="server"):
        log = open(os.path.join(self.dir, name + ".log"), "wb")
        p = subprocess.Popen(argv, cwd=cwd or self.dir, env={**os.environ, **(env or {})}, stdout=log, stderr=log,
                             stdin=subprocess.DEVNULL, start_new_session=True)
        self.procs.append(p)
        return p

    def start_redis(self):
        p = self.spawn(["redis-server", "--port", str(self.redis), "--bind", "127.0.0.1", "--save", "",
                        "--appendonly", "no", "--client-output-buffer-limit", "pubsub 0 0 0",
                        "--maxclients", "1000"], name="redis")
        wait_port(self.redis, p)
        return p.pid

    def stop(self):
        for p in reversed(self.procs):
            if p.poll() is None:
                p.kill()
            p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


# Each starter returns (pid, options for load).
def les(c):
    conf = {"authHost": f"http://127.0.0.1:{c.auth}", "authEndpoint": "/broadcasting/auth",
            "clients": [{"appId": "app", "key": "key"}], "database": "redis",
            "databaseConfig": {"redis": {"host": "127.0.0.1", "port": c.redis}}, "devMode": False,
            "host": "127.0.0.1", "port": str(c.port), "protocol": "http", "socketio": {},
            "subscribers": {"http": True, "redis": True}}
    with open(os.path.join(c.dir, "laravel-echo-server.json"), "w") as f:
        json.dump(conf, f)
    p = c.spawn(["node", os.path.join(LES, "node_modules/laravel-echo-server/bin/server.js"), "start", "--force"])
    wait_port(c.port, p)
    return p.pid, ["--proto", "sio3", "--auth-port", str(c.auth)]


def floor(c, *extra):
    p = c.spawn([os.path.join(BIN, "floor"), f"127.0.0.1:{c.port}", f"127.0.0.1:{c.redis}", *extra])
    wait_port(c.port, p)
    return p.pid, ["--proto", "sio4"]


def floor_batch(c):
    return floor(c, "batch")


def sioxide(c, name="sioxide", **env):
    e = {"LISTEN": f"127.0.0.1:{c.port}", "REDIS": f"127.0.0.1:{c.redis}", "BUFFER": "20000", "MAX_PAYLOAD": "1000000",
         "AUTH": f"http://127.0.0.1:{c.auth}/broadcasting/auth", **env}
    p = c.spawn([os.path.join(BIN, name)], env=e)
    wait_port(c.port, p)
    return p.pid, ["--proto", "sio4", "--auth-port", str(c.auth)]


def soketi_echo(c):
    e = {"SOCKET_HOST": "127.0.0.1", "SOCKET_PORT": str(c.port), "PRESENCE_MAX_MEMBERS": "100000",
         "APP_DEFAULT_ID": "app", "APP_DEFAULT_KEY": "key", "APP_DEFAULT_SECRET": "secret", "STATS_ENABLED": "false",
         "APP_DEFAULT_MAX_CLIENT_EVENTS_PER_MIN": "1000000000"}
    root = os.path.join(SOKETI_ECHO, "node_modules/@soketi/echo-server")
    p = c.spawn(["node", os.path.join(root, "bin/server.js"), "start"], env=e)
    wait_port(c.port, p)
    return p.pid, ["--proto", "sio4", "--nsp", "/key", "--ack-join", "--token", "--pub", "pusher"]


def sockudo(c):
    conf = {"debug": False, "host": "127.0.0.1", "port": c.port, "mode": "production",
            "adapter": {"driver": "local"}, "cache": {"driver": "memory"}, "queue": {"driver": "memory"},
            "metrics": {"enabled": False}, "rate_limiter": {"enabled": False},
            "presence": {"max_members_per_channel": 100000, "max_member_size_in_kb": 2},
            "app_manager": {"driver": "memory", "array": {"apps": [
                {"id": "app", "key": "key", "secret": "secret", "enabled": True, "max_connections": 100000,
                 "enable_client_messages": True, "max_client_events_per_second": 1000000,
                 "max_presence_members_per_channel": 100000,
                 "max_backend_events_per_second": 1000000, "max_read_requests_per_second": 1000000}]}}}
    path = os.path.join(c.dir, "config.json")
    with open(path, "w") as f:
        json.dump(conf, f)
    p = c.spawn([SOCKUDO, "--config", path], env={"RUST_LOG": "error", "LOG_LEVEL": "error"})
    wait_port(c.port, p)
    return p.pid, ["--proto", "pusher", "--pub", "pusher"]


def ours(c, more="", secret="", opts=("--proto", "sio4"), database="memory"):
    """laravel-echo-server in Rust, as released, on a config like les's; limits that no app meets are lifted."""
    conf = f"""host = "{c.host}"
port = {c.port}
authHost = "http://127.0.0.1:{c.auth}"
authEndpoint = "/broadcasting/auth"
database = "{database}"
[limits]
whispersPerSecond = 0
{more}[databaseConfig.redis]
host = "127.0.0.1"
port = {c.redis}
[[clients]]
appId = "app"
key = "key"
{secret}""" + os.environ.get("ECHO_CONF", "")
    with open(os.path.join(c.dir, "laravel-echo-server.toml"), "w") as f:
        f.write(conf)
    p = c.spawn([OURS, "start", "--dir", c.dir])
    wait_port(c.port, p)
    return p.pid, [*opts, "--auth-port", str(c.auth)]


def ours_cluster(c):
    """A node of a cluster: members in Redis, joins and leaves told by it."""
    return ours(c, more="[cluster]\nenabled = true\n", database="redis")


def ours_pusher(c):
    """The same with Pusher clients, which bring signatures, and events over the HTTP API, as sockudo has them."""
    return ours(c, secret='secret = "secret"\n', opts=("--proto", "pusher", "--pub", "pusher"))


def ours_http(c):
    """Socket.IO clients, with events over the HTTP API: what ours-pusher compares with."""
    return ours(c, secret='secret = "secret"\n', opts=("--proto", "sio4", "--pub", "pusher"))


SERVERS = {
    "ours": ours,
    "ours-http": ours_http, "ours-cluster": ours_cluster,
    "ours-norecovery": lambda c: ours(c, more="[recovery]\nenabled = false\n"),
    "ours-sio3": lambda c: ours(c, opts=("--proto", "sio3")),  # the clients that the original has
    "ours-pusher": ours_pusher,
    "les": les, "floor": floor, "floor-batch": floor_batch, "sockudo": sockudo, "soketi-echo": soketi_echo,
    "sioxide": sioxide,
    "sioxide-mimalloc": lambda c: sioxide(c, "sioxide-mimalloc"),
    "sioxide-jemalloc": lambda c: sioxide(c, "sioxide-jemalloc"),
    "sioxide-value": lambda c: sioxide(c, RAW="0"),
    "sioxide-1thread": lambda c: sioxide(c, WORKERS="1"),
    "sioxide-buf128": lambda c: sioxide(c, BUFFER="128"),
    "sioxide-rb512": lambda c: sioxide(c, READ_BUFFER="512"),
    "sioxide-whisper-async": lambda c: sioxide(c, WHISPER="async"),
}

SCENARIOS = {
    "fanout1000_rate": "fanout --conns 1000 --rate 20 --secs 6",
    "fanout1000_max": "fanout --conns 1000 --window 8 --secs 6",
    "fanout5000_rate": "fanout --conns 5000 --rate 4 --secs 6",
    "fanout5000_max": "fanout --conns 5000 --window 4 --secs 6",
    "unicast2000_rate": "unicast --conns 2000 --rate 2000 --secs 6",
    "unicast2000_max": "unicast --conns 2000 --window 500 --secs 6",
    "idle5000": "idle --conns 5000 --settle 3 --idle-secs 6",
    "connect2000_public": "connect --conns 2000",
    "connect2000_private": "connect --conns 2000 --private",
    "whisper500_max": "whisper --conns 500 --window 4 --secs 6",
    "presence500": "presence --conns 500",
    # By hand: some minutes.
    "presence10000": "presence --conns 10000 --inflight 10000 --joins 2000 --flaps 600 --visits 600 --setup-timeout 300",
    "burst5000x1": "burst --conns 1 --msgs 5000",
    "burst1000x100": "burst --conns 100 --msgs 1000",
}

# The same by clients as they come: with their default options, and by polling for good.
CLIENTS = ["connect2000_public", "idle5000", "fanout1000_rate"]
WAYS = {"polling": "polling, then websocket (default)", "polling-only": "polling for good"}
SCENARIOS |= {f"{scenario}_{way}": f"{SCENARIOS[scenario]} --via {way}" for way in WAYS for scenario in CLIENTS}


# Scenarios that a server does not support.
SKIP = {("floor", "presence500"), ("floor", "connect2000_private"), ("sioxide", "presence500")}
SKIP |= {(server, f"{scenario}_{way}") for server in ("floor", "sockudo", "soketi-echo") for way in WAYS for scenario in CLIENTS}
SKIP |= {("ours-pusher", f"{scenario}_{way}") for way in WAYS for scenario in CLIENTS}


def one(server, scenario, extra, timeout):
    c = Ctx()
    try:
        rpid = c.start_redis()
        pid, opts = SERVERS[server](c)
        time.sleep(0.7)
        mode = SCENARIOS[scenario].split()
        argv = [os.path.join(BIN, "load"), mode[0], "--addr", f"127.0.0.1:{c.port}", "--pid", str(pid),
                "--redis", f"127.0.0.1:{c.redis}", "--redis-pid", str(rpid), *opts]
        if "pusher" in opts:
            argv += ["--app-id", "app", "--key", "key", "--secret", "secret"]
        argv += [*mode[1:], *extra]
        r = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
        if r.returncode != 0:
            log = open(os.path.join(c.dir, "server.log"), errors="replace").read()[-300:]
            return {"failed": r.stderr.strip()[-300:], "server_log": log}
        return json.loads(r.stdout)
    except (RuntimeError, subprocess.TimeoutExpired) as e:
        try:
            log = open(os.path.join(c.dir, "server.log"), errors="replace").read()[-300:]
        except OSError:
            log = ""
        return {"failed": str(e)[-300:], "server_log": log}
    finally:
        c.stop()


def table(path):
    rows, order = {}, []
    for line in open(path):
        r = json.loads(line)
        if "failed" in r:
            rows.setdefault((r["scenario"], r["server"]), [])
            continue
        rows.setdefault((r["scenario"], r["server"]), []).append(r)
        if r["scenario"] not in order:
            order.append(r["scenario"])
    servers = [s for s in SERVERS if any(k[1] == s for k in rows)]
    cols = {
        "cpu_us_per_delivery": ("CPU µs/delivery", lambda r: r.get("cpu_us_per_delivery")),
        "dps": ("deliveries/s", lambda r: r.get("deliveries_per_s")),
        "p50": ("p50 ms", lambda r: r.get("latency_ms", {}).get("p50")),
        "p99": ("p99 ms", lambda r: r.get("latency_ms", {}).get("p99")),
        "p999": ("p99.9 ms", lambda r: r.get("latency_ms", {}).get("p999")),
        "max": ("max ms", lambda r: r.get("latency_ms", {}).get("max")),
        "lost": ("lost", lambda r: r.get("lost")),
        "mis": ("misordered", lambda r: r.get("misordered")),
        "cpc": ("CPU µs/conn", lambda r: r.get("cpu_us_per_conn", r.get("connect_cpu_us_per_conn"))),
        "sps": ("subscribed/s", lambda r: r.get("subscribed_per_s", r.get("joins_per_s"))),
        "setup": ("setup s", lambda r: r.get("setup_s")),
        "kib": ("KiB/conn", lambda r: r.get("rss_per_conn_kib")),
        "idle": ("idle CPU %", lambda r: r.get("idle_cpu_percent")),
        "peak": ("peak RSS MiB", lambda r: r.get("rss_peak_kib", 0) / 1024),
    }
    def fmt(v):
        return "" if v is None else f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.1f}" if abs(v) >= 100 else f"{v:.2f}"
    for sc in order:
        print(f"\n### {sc}: `{SCENARIOS.get(sc, '')}`\n")
        data = {}
        for s in servers:
            rs = rows.get((sc, s))
            if rs is None:
                continue
            data[s] = {}
            for k, (_, f) in cols.items():
                v = [f(r) for r in rs if f(r) is not None]
                data[s][k] = (statistics.median(v), min(v), max(v), len(v)) if v else None
        used = [k for k in cols if any(d[k] for d in data.values())]
        main = "cpu_us_per_delivery" if "cpu_us_per_delivery" in used else "cpc" if "cpc" in used else None
        base = data.get("floor", {}).get(main) if main else None
        print("| server | runs | " + " | ".join(cols[k][0] for k in used) + " | × floor |")
        print("|---|---|" + "---|" * (len(used) + 1))
        for s, d in data.items():
            n = max((v[3] for v in d.values() if v), default=0)
            cells = []
            for k in used:
                v = d[k]
                t = fmt(v[0]) if v else ""
                if v and k == main and v[3] > 1:
                    t += f" ({fmt(v[1])}–{fmt(v[2])})"
                cells.append(t)
            ratio = f"{d[main][0] / base[0]:.2f}" if base and d.get(main) and base[0] else ""
            print(f"| {s} | {n} | " + " | ".join(cells) + f" | {ratio} |")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out"); ap.add_argument("--table"); ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--servers", default="ours,les,floor")
    ap.add_argument("--scenarios", default=",".join(scenario for scenario in SCENARIOS if scenario != "presence10000"))
    ap.add_argument("--max-other", type=float, default=0.3)
    ap.add_argument("--attempts", type=int, default=3)
    ap.add_argument("--timeout", type=float, default=180)
    ap.add_argument("extra", nargs="*", help="further options for load, after --")
    a = ap.parse_args()
    if a.table:
        return table(a.table)
    out = open(a.out, "a") if a.out else sys.stdout
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for sc in a.scenarios.split(","):
        for run in range(a.runs):
            for s in a.servers.split(","):
                if (s.removesuffix("-batch").split("-")[0] if s != "soketi-echo" else s, sc) in SKIP:
                    continue
                for attempt in range(a.attempts):
                    r = one(s, sc, a.extra, a.timeout)
                    other = r.get("other_cpu_s", 0) / max(r.get("measured_s", 1), 1.0)
                    if other <= a.max_other or attempt == a.attempts - 1:
                        break
                    print(f"  {sc} {s}: others took {other:.2f} CPUs, again", file=sys.stderr)
                    time.sleep(5)
                r = {"scenario": sc, "server": s, "run": run, "other_cpus": round(other, 2), **r}
                print(json.dumps(r), file=out, flush=True)
                key = {k: r.get(k) for k in ("cpu_us_per_delivery", "deliveries_per_s", "lost", "misordered", "cpu_us_per_conn",
                       "subscribed_per_s", "setup_s", "rss_per_conn_kib", "failed", "errors") if r.get(k) is not None}
                print(f"{sc} {s} #{run} other={other:.2f} {key}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
