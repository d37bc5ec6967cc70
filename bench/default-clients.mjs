#!/usr/bin/env node
/**
 * The cost of real clients: with Echo's default options (polling, then the upgrade), with a websocket at once, and
 * with polling only; for this server and laravel-echo-server 1.6.3, in one run.
 *
 *   cargo build --release && (cd tests/compat && npm ci) && node bench/default-clients.mjs [CLIENTS=1000] [SECONDS=6]
 *
 * Input: ECHO_BIN or target/release/laravel-echo-server; clients and the original from tests/compat; redis-server.
 * Output: a Markdown table. CPU is that of the server's process, memory is its growth.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { connectClient, pause, require, startEcho, startRedis } from './lib/servers.mjs';
import { cpu, memory } from './lib/server.mjs';

const SELF = fileURLToPath(import.meta.url);
const OURS = process.env.ECHO_BIN ?? path.join(path.dirname(SELF), '../target/release/laravel-echo-server');
const KINDS = { default: 'polling, then websocket (default)', websocket: 'websocket at once', polling: 'polling alone' };
/** Clients that connect at the same time. */
const CROWD = 50;
const EVENTS_PER_SECOND = 20;
const SETTLE_MS = 2000;

/** The process with the clients: connects on demand, and counts events. */
async function clients(port, count, library, kind) {
  const transports = kind === 'default' ? ['polling', 'websocket'] : [kind];
  let received = 0;
  const listen = (socket) => socket.on('tick', () => received++);
  const one = () => connectClient({ port, library }, transports, kind === 'default', listen);
  process.on('message', async (message) => {
    if (message === 'connect') {
      for (let left = count; left > 0; left -= CROWD) await Promise.all(Array.from({ length: Math.min(CROWD, left) }, one));
    }
    process.send(received);
  });
}

const usage = (pid) => ({ cpu: cpu(pid) * 1e6, kib: memory(pid) / 1024 });

async function measure(isOurs, kind, count, seconds) {
  const redis = await startRedis();
  const server = await startEcho(isOurs ? OURS : 'original', redis.port);
  const crowd = fork(SELF, ['clients', server.port, count, server.library, kind]);
  const publisher = new (require('ioredis'))(redis.port, '127.0.0.1');
  const ask = async (what) => {
    crowd.send(what);
    return (await once(crowd, 'message'))[0];
  };
  try {
    await pause(SETTLE_MS);
    const before = usage(server.pid);
    await ask('connect');
    await pause(SETTLE_MS);
    const idle = usage(server.pid);
    const events = EVENTS_PER_SECOND * seconds;
    for (let event = 0; event < events; event++) {
      await publisher.publish('news', JSON.stringify({ event: 'tick', data: { event, text: 'x'.repeat(60) }, socket: null }));
      await pause(1000 / EVENTS_PER_SECOND);
    }
    await pause(SETTLE_MS);
    const received = await ask('count');
    const lost = events * count - received;
    return {
      connecting: (idle.cpu - before.cpu) / count,
      kib: (idle.kib - before.kib) / count,
      delivery: (usage(server.pid).cpu - idle.cpu) / received,
      lost,
    };
  } finally {
    publisher.disconnect();
    crowd.kill();
    await Promise.all([server.stop(), redis.stop()]);
  }
}

if (process.argv[2] === 'clients') {
  const [, , , port, count, library, kind] = process.argv;
  await clients(port, Number(count), library, kind);
} else {
  const [count, seconds] = [Number(process.argv[2] ?? 1000), Number(process.argv[3] ?? 6)];
  console.log('| | | CPU µs per connection | KiB per idle connection | CPU µs per delivery | lost |\n|---|---|---|---|---|---|');
  for (const [kind, title] of Object.entries(KINDS)) {
    for (const isOurs of [true, false]) {
      const { connecting, kib, delivery, lost } = await measure(isOurs, kind, count, seconds);
      console.log(`| ${title} | ${isOurs ? 'here' : 'original'} | ${connecting.toFixed(0)} | ${kib.toFixed(1)} | ${delivery.toFixed(1)} | ${lost} |`);
    }
  }
}
