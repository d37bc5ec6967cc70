#!/usr/bin/env python3
"""The cost of a large presence channel: its members join, and one client leaves and rejoins again and again.

    presence.py [--members 2000] [--flaps 600] [--at-once]

Input: ECHO_BIN or target/release/laravel-echo-server. The members are websockets that only read; the application that grants
runs here, too. Output: the server's sent bytes and CPU time: for the joins (one after the other, or with --at-once all at the same
moment), for the flaps of one member, and for as many visits with a new connection as a new user.
"""
import argparse, itertools, json, os, re, select, shutil, socket, subprocess, tempfile, threading, time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
QUIET = 2  # seconds without a byte: everything has come


def application():
    """Grants every channel to the user whose number is in the Authorization header. Returns its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1000)

    def serve(connection):
        head = b""
        while part := connection.recv(65536):
            head += part
            while (end := head.find(b"\r\n\r\n")) >= 0:
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
                if len(head) < end + 4 + length:
                    break
                user = int(re.search(rb"(?i)authorization: (\d+)", head)[1])
                head = head[end + 4 + length:]
                body = json.dumps({"channel_data": {"user_id": user, "user_info": {"name": f"User {user}"}}}).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def frame(text):
    text = text.encode()
    length = bytes([0x80 | len(text)]) if len(text) < 126 else bytes([0xFE]) + len(text).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text


class Clients:
    def __init__(self, port):
        self.port, self.poll, self.all, self.bytes = port, select.epoll(), {}, 0

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.port))
        client.sendall(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame("40"))
        client.setblocking(False)
        self.all[client.fileno()] = client
        self.poll.register(client, select.EPOLLIN)
        return client

    def close(self, client):
        self.poll.unregister(client)
        del self.all[client.fileno()]
        client.close()

    def read(self, seconds):
        """Reads for so long, or until nothing came for QUIET seconds. Returns the bytes."""
        before, last, end = self.bytes, time.time(), time.time() + seconds
        while time.time() < min(end, last + QUIET):
            for number, _ in self.poll.poll(min(0.05, seconds)):
                part = self.all[number].recv(1 << 20)
                assert part, "the server has closed a client"
                self.bytes += len(part)
                last = time.time()
        return self.bytes - before


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--members", type=int, default=2_000)
    ap.add_argument("--flaps", type=int, default=600)
    ap.add_argument("--at-once", action="store_true")
    a = ap.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="presence-bench-")
    settings = {"host": "127.0.0.1", "port": port, "authHost": f"http://127.0.0.1:{application()}", "subscribers": {"http": True, "redis": False}, "database": "memory",
                "socketio": {"pingInterval": 3_600_000}}
    with open(os.path.join(folder, "laravel-echo-server.json"), "w") as file:
        json.dump(settings, file)
    binary = os.environ.get("ECHO_BIN", os.path.join(ROOT, "target/release/laravel-echo-server"))
    server = subprocess.Popen([binary, "start", "--no-lock", "--dir", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        clients = Clients(port)

        def join(client, user):
            auth = {"headers": {"Authorization": str(user)}}
            client.send(frame("42" + json.dumps(["subscribe", {"channel": "presence-room", "auth": auth}])))

        leave = frame("42" + json.dumps(["unsubscribe", {"channel": "presence-room"}]))

        def measure(what, action):
            cpu, begun, start = cpu_seconds(server.pid), clients.bytes, time.time()
            action()
            took = time.time() - start
            clients.read(600)
            print(f"{what} in {took:.1f} s: {(clients.bytes - begun) / 1e6:.1f} MB sent, {cpu_seconds(server.pid) - cpu:.2f} s of CPU", flush=True)

        members = []

        def fill():
            for user in range(a.members):
                members.append(clients.connect())
                if not a.at_once:
                    join(members[-1], user)
                clients.read(0.001)
            if a.at_once:
                for user, member in enumerate(members):
                    join(member, user)

        def flap():
            for _ in range(a.flaps):
                members[0].send(leave)
                join(members[0], 0)
                clients.read(0.02)

        users = itertools.count(a.members)

        def visit(seconds):
            for _ in range(a.flaps):
                visitor = clients.connect()
                join(visitor, next(users))
                clients.read(seconds)
                clients.close(visitor)

        measure(f"{a.members} joins", fill)
        measure(f"{a.flaps} flaps of one of them", flap)
        measure(f"{a.flaps} visits of 20 ms, by new users", lambda: visit(0.02))
        measure(f"{a.flaps} visits of 5 ms, by new users", lambda: visit(0.005))
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
