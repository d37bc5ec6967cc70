#!/usr/bin/env node
// Clients that fall behind with `deliver = "latest"`, beside clients that keep up, and the cost of such a rule for the latter.
//
//   cargo build --release && node bench/slow-clients.mjs
//
// CLIENTS (1,000) websockets are in one channel; SLOW (100) of them stop reading. PER_SECOND (1,000) events are published for
// SECONDS (30); then all read again. Prints for each rule how many clients are still connected, how many received the newest
// event in the end, and the server's memory and CPU. Clients are sockets that inspect the end of their stream.

import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

import { command, connect, cpu, freePort, memory, startServer } from './lib/server.mjs';

const CLIENTS = Number(process.env.CLIENTS ?? 1000);
const SLOW = Number(process.env.SLOW ?? 100);
const PER_SECOND = Number(process.env.PER_SECOND ?? 1000);
const SECONDS = Number(process.env.SECONDS ?? 30);
/** How often per second a batch of events is published. */
const PORTIONS = 50;
/** How much of a client's stream is kept, to find the newest event in it. */
const TAIL = 2000;
const CHANNEL = 'positions';
/** Pads an event to about 300 bytes, so that the queue does not fit into the kernel's buffers. */
const WHO = 'x'.repeat(200);
const UPGRADE = 'GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';

/** A heartbeat; its first byte occurs in no event. */
const PING = Buffer.from([0x81, 1, 0x32]);

/** A text frame of a client, masked with zeros. */
function frame(text) {
  const bytes = Buffer.from(text);
  const head = bytes.length < 126 ? [0x81, 0x80 | bytes.length] : [0x81, 0xfe, bytes.length >> 8, bytes.length & 255];
  return Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), bytes]);
}

class Client {
  tail = Buffer.alloc(0);
  isOpen = true;

  static async open(port) {
    const client = new Client();
    client.socket = net.connect(port, '127.0.0.1');
    client.socket.on('close', () => (client.isOpen = false)).on('error', () => {});
    client.socket.on('data', (bytes) => {
      client.tail = bytes.length >= TAIL ? bytes.subarray(-TAIL) : Buffer.concat([client.tail, bytes]).subarray(-TAIL);
      if (bytes.includes(PING)) client.socket.write(frame('3'));
    });
    await once(client.socket, 'connect');
    client.socket.write(UPGRADE);
    client.socket.write(frame('40'));
    client.socket.write(frame(`42["subscribe",{"channel":"${CHANNEL}","auth":{}}]`));
    return client;
  }

  /** The number of the newest received event. */
  newest() {
    return Math.max(0, ...[...this.tail.toString('latin1').matchAll(/"n":(\d+)\}/g)].map(([, n]) => Number(n)));
  }
}

/** What happens to `slow` clients among all clients under this rule. */
async function run(rule, slow) {
  const [port, publishing] = [await freePort(), await freePort()];
  const server = await startServer(
    `host = "127.0.0.1"\nport = ${port}\n[subscribers]\nredis = false\n[redisServer]\nenabled = true\nport = ${publishing}\n${rule}`,
  );
  const clients = [];
  while (clients.length < CLIENTS) clients.push(...(await Promise.all(Array.from({ length: 50 }, () => Client.open(port)))));
  await pause(1000);
  const before = cpu(server.pid);
  clients.slice(0, slow).forEach((client) => client.socket.pause());
  const publisher = await connect(publishing);
  publisher.resume();
  const begin = Date.now();
  const last = PER_SECOND * SECONDS;
  for (let n = 0; n < last; ) {
    const due = Math.min(last, Math.ceil(((Date.now() - begin) / 1000) * PER_SECOND));
    let commands = '';
    while (n < due) commands += command('PUBLISH', CHANNEL, `{"event":"moved","data":{"who":"${WHO}","n":${++n}},"socket":null}`);
    if (commands !== '' && !publisher.write(commands)) await once(publisher, 'drain');
    await pause(1000 / PORTIONS);
  }
  const during = memory(server.pid);
  await pause(1000);
  clients.forEach((client) => client.socket.resume());
  const end = Date.now() + 10_000;
  const have = () => clients.filter((client) => client.newest() === last).length;
  while (have() < clients.filter((client) => client.isOpen).length && Date.now() < end) await pause(100);
  const open = clients.filter((client) => client.isOpen).length;
  const row = [open, have(), `${(during / 1e6).toFixed(0)} MB`, `${(((cpu(server.pid) - before) / last) * 1e6).toFixed(0)} µs`];
  clients.forEach((client) => client.socket.destroy());
  publisher.destroy();
  server.kill();
  return row;
}

console.log(`${CLIENTS} clients, ${PER_SECOND} events a second for ${SECONDS} s\n`);
console.log('| rule | clients that stop reading | connected in the end | have the newest event | memory | CPU for one event |\n|---|---|---|---|---|---|');
const rule = (text) => `[[channels]]\npattern = "${CHANNEL}"\n${text}\n`;
const other = '[[channels]]\npattern = "elsewhere.{id}"\nlast = 1\n';
for (const [name, settings, slow] of [
  ['none', '', 0],
  ['one for other channels', other, 0],
  ['`deliver = "latest"`', rule('deliver = "latest"'), 0],
  ['`deliver = "latest"`', rule('deliver = "latest"'), SLOW],
  ['`deliver = "volatile"`', rule('deliver = "volatile"'), SLOW],
  ['none', '', SLOW],
]) {
  console.log(`| ${[name, slow, ...(await run(settings, slow))].join(' | ')} |`);
}
process.exit();
