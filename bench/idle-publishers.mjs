#!/usr/bin/env node
// The cost of idle connections to the built-in Redis endpoint, and their effect on others.
//
//   cargo build --release && ECHO_BIN=target/release/laravel-echo-server node bench/idle-publishers.mjs
//
// Opens CONNECTIONS (10,000), each of which has published once and is then idle. Prints the server's memory before and
// after, the time of a PUBLISH on a new connection beside them, the reply to one connection too many, and the memory once
// all are closed. The server raises its limit of open files itself; so does this process, as Node always does.

import { once } from 'node:events';

import { ask, connect, freePort, memory, startServer } from './lib/server.mjs';

const CONNECTIONS = Number(process.env.CONNECTIONS ?? 10_000);
/** Connections opened at the same time: fewer than a listener's backlog. */
const AT_ONCE = 100;
const EVENT = JSON.stringify({ event: 'App\\Events\\OrderShipped', data: { order: { id: 1 } }, socket: null });

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const [port, publishing] = [await freePort(), await freePort()];
const server = await startServer(
  `host = "127.0.0.1"\nport = ${port}\n[subscribers]\nredis = false\n[redisServer]\nenabled = true\nport = ${publishing}\nmaxClients = ${CONNECTIONS + 1}\n`,
);

const before = memory(server.pid);
const idle = [];
while (idle.length < CONNECTIONS) {
  const batch = await Promise.all(Array.from({ length: Math.min(AT_ONCE, CONNECTIONS - idle.length) }, () => connect(publishing)));
  await Promise.all(batch.map((socket) => ask(socket, 'PUBLISH', 'news', EVENT)));
  idle.push(...batch);
}
const during = memory(server.pid);
console.log(`memory: ${megabytes(before)} before, ${megabytes(during)} with ${CONNECTIONS} idle connections`);
console.log(`that is ${((during - before) / CONNECTIONS / 1024).toFixed(1)} KiB for each`);

const publisher = await connect(publishing);
const begin = process.hrtime.bigint();
const answer = await ask(publisher, 'PUBLISH', 'news', EVENT);
console.log(`PUBLISH beside them: ${answer} after ${(Number(process.hrtime.bigint() - begin) / 1e6).toFixed(2)} ms`);

const refused = await connect(publishing);
const [words] = await once(refused, 'data');
console.log(`one more: ${words.toString().trim()}`);

for (const socket of [...idle, publisher]) socket.destroy();
const last = await (async () => {
  for (;;) {
    const socket = await connect(publishing);
    const answer = await ask(socket, 'PING').catch(() => '');
    socket.destroy();
    if (answer === '+PONG') return memory(server.pid);
  }
})();
console.log(`when they are gone: ${megabytes(last)}`);
process.exit(0);
