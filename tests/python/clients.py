"""python-socketio as a client: events arrive in order by every transport, and clients come back after a stop.

Input: the server's binary, ECHO_BIN. Output: the exit status. Each test has a server of its own on a free port.
"""
import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request

import socketio

DEADLINE = 30
KEY = "test-key"
# These clients end a session when a poll response has more than 16 packets.
SETTINGS = "[socketio]\nmaxPollPackets = 16\n"
BURST = 100


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, probe):
    """Waits for a probe that says something, and returns it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"timed out: {what}")


class Server:
    """A server without Redis, which can be stopped and started again on its port."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="echo-python-")
        self.port = free_port()
        with open(os.path.join(self.folder.name, "laravel-echo-server.toml"), "w") as file:
            file.write(f'host = "127.0.0.1"\nport = {self.port}\nclients = [{{ appId = "app", key = "{KEY}" }}]\n')
            file.write(f"subscribers = {{ http = true, redis = false }}\n{SETTINGS}")
        self.start()

    def start(self):
        command = [os.environ["ECHO_BIN"], "start", "--no-lock", "--dir", self.folder.name]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("the server to listen", self.is_up)

    def is_up(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            assert self.process.poll() is None, "the server has ended"
            return False

    def ask(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/apps/app/{path}?auth_key={KEY}")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, DEADLINE) as answer:
            return json.load(answer)

    def subscribed(self, count=1):
        until(f"{count} in the channel", lambda: self.ask("channels/news")["subscription_count"] == count)

    def publish(self, data):
        self.ask("events", {"name": "told", "channel": "news", "data": json.dumps(data)})

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


class Client:
    """A client that joins the channel whenever it is connected, as an application would."""

    def __init__(self, server, transports):
        self.events = queue.Queue()
        self.io = socketio.Client(reconnection_delay=0.1, reconnection_delay_max=0.5)
        self.io.on("connect", lambda: self.io.emit("subscribe", {"channel": "news", "auth": {"headers": {}}}))
        # Engine.IO 4 clients get an offset after the data.
        self.io.on("told", lambda channel, data, *offset: self.events.put((channel, data)))
        self.io.connect(f"http://127.0.0.1:{server.port}", transports=transports)

    def transport(self):
        name = self.io.transport
        return name() if callable(name) else name

    def close(self):
        self.io.disconnect()


class Clients(unittest.TestCase):
    def served(self, transports, carried_by):
        server = Server()
        self.addCleanup(server.close)
        client = Client(server, transports)
        self.addCleanup(client.close)
        server.subscribed()
        until(f"the client on {carried_by}", lambda: client.transport() == carried_by)
        self.hears(server, client, 0)
        return server, client

    def hears(self, server, client, base):
        for number in range(base, base + BURST):
            server.publish({"n": number, "text": "wörld ✓"})
        for number in range(base, base + BURST):
            self.assertEqual(client.events.get(timeout=DEADLINE), ("news", {"n": number, "text": "wörld ✓"}))

    def comes_back(self, transports, carried_by):
        server, client = self.served(transports, carried_by)
        server.stop()
        server.start()
        server.subscribed()
        until(f"the client on {carried_by}", lambda: client.transport() == carried_by)
        self.hears(server, client, 1000)
        self.assertTrue(client.events.empty())

    def test_polling_alone_and_a_restart(self):
        self.comes_back(["polling"], "polling")

    def test_an_upgrade_and_a_restart(self):
        self.comes_back(["polling", "websocket"], "websocket")

    def test_a_websocket_at_once_and_a_restart(self):
        self.comes_back(["websocket"], "websocket")

    def test_what_waits_comes_in_pieces_that_a_poll_takes(self):
        server, client = self.served(["polling"], "polling")
        batch = [{"name": "told", "channel": "news", "data": json.dumps(number)} for number in range(BURST)]
        server.ask("batch_events", {"batch": batch})
        for number in range(BURST):
            self.assertEqual(client.events.get(timeout=DEADLINE), ("news", number))


if __name__ == "__main__":
    unittest.main()
