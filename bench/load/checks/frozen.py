#!/usr/bin/env python3
"""The server's memory with clients that never read, while more and more is published. Closed clients are replaced.

  cargo build --release && bench/load/checks/frozen.py [--clients 1000] [--queue-bytes 8000000] [--channels one|each]

`one`: all are on one channel, and get the same events. `each`: every client has its own channel and events, the worst case.
Needs only the server; ECHO_BIN overrides target/release/laravel-echo-server."""
import argparse, http.client, json, os, resource, socket, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from wsraw import Ws

BIN = os.environ.get("ECHO_BIN", os.path.join(HERE, "../../../target/release/laravel-echo-server"))
KEY = "frozen"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, queue_bytes):
        self.port = free_port()
        self.dir = tempfile.TemporaryDirectory()
        # These clients answer no heartbeats.
        config = {"host": "127.0.0.1", "port": self.port, "subscribers": {"redis": False}, "clients": [{"appId": "app", "key": KEY}],
                  "database": "memory", "limits": {"clientQueueBytes": queue_bytes}, "socketio": {"pingInterval": 3_600_000}, "log": {"level": "error"}}
        with open(os.path.join(self.dir.name, "laravel-echo-server.json"), "w") as f:
            json.dump(config, f)
        self.process = subprocess.Popen([BIN, "start", "--dir", self.dir.name], stdout=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                time.sleep(0.05)
        self.http = http.client.HTTPConnection("127.0.0.1", self.port)

    def ask(self, method, path, body=None):
        self.http.request(method, path, body, {"Authorization": f"Bearer {KEY}"})
        answer = self.http.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {text}")
        return text

    def metric(self, name):
        return sum(int(line.split()[-1]) for line in self.ask("GET", "/metrics").splitlines() if line.startswith("laravel_echo_" + name))

    def memory(self):
        """Resident MB now, and the most so far."""
        with open(f"/proc/{self.process.pid}/status") as f:
            lines = dict(line.split(":", 1) for line in f)
        return tuple(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))


class Crowd:
    """So many clients that never read. For each that the server has closed a new one comes."""

    def __init__(self, server, count, channel_of):
        self.server, self.channel_of = server, channel_of
        self.members = [self.connect(n) for n in range(count)]
        self.oldest = 0

    def connect(self, n):
        client = Ws(self.server.port, rcvbuf=4096, timeout=60)
        client.connect()
        client.subscribe(self.channel_of(n))
        return client

    def fill_up(self):
        # Clients that do not read do not notice that they were closed; the oldest are the likeliest.
        for _ in range(len(self.members) - self.server.metric("connections")):
            self.members[self.oldest].s.close()
            self.members[self.oldest] = self.connect(self.oldest)
            self.oldest = (self.oldest + 1) % len(self.members)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--clients", type=int, default=1000)
    options.add_argument("--queue-bytes", type=int, default=8_000_000)
    options.add_argument("--channels", choices=["one", "each"], default="one")
    options.add_argument("--event-bytes", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    channel_of = (lambda n: "news") if args.channels == "one" else (lambda n: f"news.{n}")
    server = Server(args.queue_bytes)
    crowd = Crowd(server, args.clients, channel_of)
    before = server.memory()[0]
    print(f"{args.clients} clients that never read, {args.channels} channel, limits.clientQueueBytes = {args.queue_bytes}\n")
    print("| published to each client | memory | most so far | above that without events, per client | closed so far |\n|---|---|---|---|---|")
    print(f"| nothing | {before:.0f} MB | | | 0 |")
    # A round is about what one client may have queued, in the kernel and in the server; twice that closes all clients.
    each_round = 2 * (args.queue_bytes + 300_000) // args.event_bytes
    channels = sorted({channel_of(n) for n in range(args.clients)})
    published = 0
    for _ in range(args.rounds):
        for n in range(each_round):
            data = {"n": n, "pad": "x" * args.event_bytes}
            for channel in channels:
                server.ask("POST", "/apps/app/events", json.dumps({"channel": channel, "name": "sent", "data": data}))
            published += args.event_bytes
            crowd.fill_up()
        now, most = server.memory()
        per_client = (most - before) * 1024 / args.clients
        print(f"| {published / 1e6:.0f} MB | {now:.0f} MB | {most:.0f} MB | {per_client:.0f} KB | {server.metric('slow_clients_closed')} |", flush=True)
    server.process.terminate()
    server.process.wait()


main()
