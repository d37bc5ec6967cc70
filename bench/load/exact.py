#!/usr/bin/env python3
"""`subscribers.redisMode`: the cost of "pattern" and "exact" with 100,000 channels. Prints one Markdown table per question.

    cargo build --release && bench/load/exact.py [--channels 100000] [--local 1000] [--rounds 3]

A fresh redis-server and a fresh server for each question and mode. CPU is user and system time of each process.
share    --local of --channels have a client on this node; one event is PUBLISHed to each of the channels
many     the node's clients are in all of the channels: memory of both, the time to subscribe, to subscribe again after
         the connection was cut, and to unsubscribe; the longest PING of another Redis client meanwhile
ECHO_BIN is the path of the server.
"""
import argparse, os, socket, subprocess, sys, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "checks")]
import bench
from wsraw import Ws, rss

PER_SOCKET = 1000  # limits.subscriptions
MODES = ("pattern", "exact")
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    """CPU seconds of a process so far."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Redis:
    """A connection that sends commands as they stand and counts answers."""

    def __init__(self, port):
        self.s = socket.create_connection(("127.0.0.1", port))
        self.f = self.s.makefile("rb")

    def ask(self, *words):
        words = [w.encode() if isinstance(w, str) else w for w in words]
        self.s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        line = self.f.readline()
        if line[:1] == b"$":
            return self.f.read(int(line[1:]) + 2)[:-2].decode()
        return line[1:-2].decode()

    def info(self, name):
        """One field of INFO, as a number."""
        text = self.ask("INFO", "everything")
        return int(text.split(f"\r\n{name}:", 1)[1].split("\r\n", 1)[0])

    def publish(self, channels, batch=500):
        """One event to each channel. Returns to how many connections Redis gave them."""
        data = b'{"event":"App\\\\Events\\\\OrderShipped","data":{"order":{"id":1,"note":"' + b"x" * 150 + b'"}},"socket":null}'
        given = 0
        for at in range(0, len(channels), batch):
            part = [c.encode() for c in channels[at:at + batch]]
            self.s.sendall(b"".join(b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(c), c, len(data), data) for c in part))
            given += sum(int(self.f.readline()[1:]) for _ in part)
        return given


class Node:
    """A server in one mode with its Redis."""

    def __init__(self, mode):
        os.environ["ECHO_CONF"] = f'[subscribers]\nredis = true\nredisMode = "{mode}"\n'
        self.c = bench.Ctx()
        self.redis_pid = self.c.start_redis()
        self.pid, _ = bench.ours(self.c)
        self.redis = Redis(self.c.redis)
        self.sockets = []
        self.wait(lambda: self.subscribed() > 0, "the server to listen")

    def subscribed(self):
        return self.redis.info("pubsub_channels") + self.redis.info("pubsub_patterns")

    def wait(self, probe, what, limit=120):
        end = time.time() + limit
        while not probe():
            if time.time() > end:
                raise RuntimeError(f"timed out waiting for {what}")
            time.sleep(0.005)

    def join(self, channels):
        """Joins all channels, so many on a socket; returns when the server has read all of it."""
        for at in range(0, len(channels), PER_SOCKET):
            w = Ws(self.c.port, timeout=60)
            w.connect()
            self.sockets.append(w)
            for channel in channels[at:at + PER_SOCKET]:
                w.send('42["subscribe",{"channel":"%s","auth":{"headers":{}}}]' % channel)
            w.send(b"fence", opcode=9)
        for w in self.sockets:
            while w.recv() != (10, b"fence"):
                pass

    def delivered(self, count):
        """Reads until so many events have come."""
        for w in self.sockets:
            w.s.settimeout(0.01)
        while count > 0:
            for w in self.sockets:
                try:
                    while True:
                        op, p = w.recv()
                        count -= op == 1 and b"OrderShipped" in p
                except socket.timeout:
                    pass

    def spent(self):
        return cpu(self.pid), cpu(self.redis_pid)

    def stop(self):
        for w in self.sockets:
            w.s.close()
        self.c.stop()


class Pinger:
    """Another client of Redis; notes the longest time a PING took."""

    def __init__(self, port):
        self.redis, self.longest, self.ends = Redis(port), 0, False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ends:
            started = time.time()
            self.redis.ask("PING")
            self.longest = max(self.longest, time.time() - started)
            time.sleep(0.001)

    def stop(self):
        self.ends = True
        self.thread.join()
        return self.longest * 1000


def share(a):
    names = [f"orders.{n}" for n in range(a.channels)]
    local = names[::a.channels // a.local][:a.local]
    print(f"\n{a.local:,} of {a.channels:,} channels have a client here, one event to each\n")
    print("| mode | messages to the node | CPU of the node, µs per event | CPU of Redis, µs per event |\n|---|---|---|---|")
    for mode in MODES:
        node = Node(mode)
        try:
            node.join(local)
            node.wait(lambda: mode == "pattern" or node.subscribed() == a.local + 1, "the channels")
            node.redis.publish(names)  # to warm up
            node.delivered(a.local)
            before = node.spent()
            given = sum(node.redis.publish(names) for _ in range(a.rounds))
            node.delivered(a.local * a.rounds)
            time.sleep(0.5)
            events = a.channels * a.rounds
            used = [(after - was) / events * 1e6 for after, was in zip(node.spent(), before)]
            print(f"| {mode} | {given / a.rounds:,.0f} | {used[0]:.2f} | {used[1]:.2f} |", flush=True)
        finally:
            node.stop()


def many(a):
    names = [f"orders.{n}" for n in range(a.channels)]
    print(f"\n{a.channels:,} channels, all with a client here\n")
    print("| mode | memory of the node, MiB | memory of Redis, MiB | join, s (CPU: node, Redis) | again after a cut, s (CPU: node, Redis) "
          "| release, CPU ms: node, Redis | longest PING, ms: join, again, release |\n|---|---|---|---|---|---|---|")
    for mode in MODES:
        node = Node(mode)
        try:
            at_redis = a.channels + 1 if mode == "exact" else 1

            def timed(act, until):
                ping, before, started = Pinger(node.c.redis), node.spent(), time.time()
                act()
                node.wait(until, "Redis")
                seconds = time.time() - started
                used = [after - was for after, was in zip(node.spent(), before)]
                return seconds, used, ping.stop()

            is_all = lambda: node.subscribed() == at_redis
            empty = node.redis.info("used_memory")
            join = timed(lambda: node.join(names), is_all)
            time.sleep(1)
            memory = rss(node.pid) / 1024, (node.redis.info("used_memory") - empty) / 2**20
            connects = node.redis.info("total_connections_received")

            def cut():
                node.redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
                node.wait(lambda: node.redis.info("total_connections_received") > connects + 1, "the next connection")

            again = timed(cut, is_all)

            def leave():
                for w in node.sockets:
                    w.s.close()
                time.sleep(11)

            release = timed(leave, lambda: node.subscribed() == 1)
            cells = [f"{s:.2f} ({u[0]:.2f}, {u[1]:.2f})" for s, u, _ in (join, again)]
            pings = ", ".join(f"{p:.0f}" for _, _, p in (join, again, release))
            used = ", ".join(f"{u * 1000:.0f}" for u in release[1])
            print(f"| {mode} | {memory[0]:.0f} | {memory[1]:.1f} | {cells[0]} | {cells[1]} | {used} | {pings} |", flush=True)
        finally:
            node.stop()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("question", nargs="*", help="share, many (both)")
    ap.add_argument("--channels", type=int, default=100_000)
    ap.add_argument("--local", type=int, default=1000)
    ap.add_argument("--rounds", type=int, default=3)
    a = ap.parse_args()
    if not os.path.exists(bench.OURS):
        sys.exit(f"{bench.OURS} is missing: cargo build --release, or name one with ECHO_BIN")
    for question in a.question or ["share", "many"]:
        {"share": share, "many": many}[question](a)


if __name__ == "__main__":
    main()
