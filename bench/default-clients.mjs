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
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { cpu, freePort, memory } from './lib/server.mjs';

const SELF = fileURLToPath(import.meta.url);
const ROOT = path.join(path.dirname(SELF), '..');
const require = createRequire(path.join(ROOT, 'tests/compat/package.json'));
const KINDS = { default: 'polling, then websocket (default)', websocket: 'websocket at once', polling: 'polling alone' };
/** Clients that connect at the same time. */
const CROWD = 50;
const EVENTS_PER_SECOND = 20;
const SETTLE_MS = 2000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The process with the clients: connects on demand, and counts events. */
async function clients(port, count, library, kind) {
  const io = require(library);
  const transports = kind === 'default' ? ['polling', 'websocket'] : [kind];
  let received = 0;
  const one = () =>
    new Promise((resolve, reject) => {
      const socket = io(`http://127.0.0.1:${port}`, { forceNew: true, reconnection: false, transports });
      socket.on('connect_error', reject);
      socket.on('disconnect', () => reject(new Error('a client was disconnected')));
      socket.on('tick', () => received++);
      socket.on('connect', () => {
        socket.emit('subscribe', { channel: 'news', auth: { headers: {} } });
        const { engine } = socket.io;
        if (kind !== 'default' || engine.transport.name === 'websocket') resolve();
        else engine.on('upgrade', () => resolve());
      });
    });
  process.on('message', async (message) => {
    if (message === 'connect') {
      for (let left = count; left > 0; left -= CROWD) await Promise.all(Array.from({ length: Math.min(CROWD, left) }, one));
    }
    process.send(received);
  });
}

async function start(port, program, args, options) {
  const child = spawn(program, args, { stdio: 'ignore', ...options });
  for (const end = Date.now() + 20_000; ; await pause(20)) {
    if (child.exitCode !== null || Date.now() > end) throw new Error(`${program} does not listen`);
    const socket = connect(port, '127.0.0.1');
    const isUp = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'error').then(() => false)]).catch(() => false);
    socket.destroy();
    if (isUp) return child;
  }
}

const usage = (pid) => ({ cpu: cpu(pid) * 1e6, kib: memory(pid) / 1024 });

async function measure(isOurs, kind, count, seconds) {
  const folder = mkdtempSync(path.join(tmpdir(), 'echo-clients-'));
  const [port, redisPort] = [await freePort(), await freePort()];
  const settings = {
    authHost: 'http://127.0.0.1:1', clients: [], database: 'redis', databaseConfig: { redis: { host: '127.0.0.1', port: redisPort } },
    devMode: false, host: '127.0.0.1', port: String(port), protocol: 'http', socketio: {}, subscribers: { http: true, redis: true },
  };
  writeFileSync(path.join(folder, 'laravel-echo-server.json'), JSON.stringify(settings));
  const redis = await start(redisPort, 'redis-server', ['--port', String(redisPort), '--bind', '127.0.0.1', '--save', ''], { cwd: folder });
  const original = () => ['node', [require.resolve('laravel-echo-server/bin/server.js'), 'start', '--force']];
  const ours = () => [process.env.ECHO_BIN ?? path.join(ROOT, 'target/release/laravel-echo-server'), ['start', '--dir', folder]];
  const server = await start(port, ...(isOurs ? ours() : original()), { cwd: folder });
  const crowd = fork(SELF, ['clients', port, count, isOurs ? 'sio-4' : 'sio-2', kind]);
  const publisher = new (require('ioredis'))(redisPort, '127.0.0.1');
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
    server.kill('SIGKILL');
    redis.kill();
    await Promise.all([once(server, 'exit'), once(redis, 'exit')]);
    rmSync(folder, { recursive: true, force: true });
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
