#!/usr/bin/env node
// A burst of subscribes to private channels, against this server and laravel-echo-server 1.6.3.
//
//   cd tests/compat && npm ci && cd ../..
//   cargo build --release && ECHO_BIN=target/release/laravel-echo-server node bench/auth-storm.mjs
//
// 50 sockets subscribe to 100 channels each; a stand-in for Laravel takes 50 ms per callback. Prints per server: the
// maximum number of concurrent callbacks, the time until all are subscribed, the server's CPU time, and its memory at the end.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { BIN, cpu, freePort, memory } from './lib/server.mjs';

const COMPAT = fileURLToPath(new URL('../tests/compat/', import.meta.url));
const require = createRequire(path.join(COMPAT, 'package.json'));
const WebSocket = require('ws');

const SOCKETS = Number(process.env.SOCKETS ?? 50);
const CHANNELS = Number(process.env.CHANNELS ?? 100);
const DELAY = Number(process.env.DELAY ?? 50);
const TOTAL = SOCKETS * CHANNELS;
const KEY = 'storm-key';

const servers = {
  'laravel-echo-server 1.6.3': (dir) => [process.execPath, path.join(COMPAT, 'node_modules/laravel-echo-server/bin/server.js'), 'start', `--dir=${dir}`],
  'this server': (dir) => [BIN, 'start', `--dir=${dir}`],
};

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Answers every callback after DELAY, and counts callbacks. */
async function slowApp() {
  const counts = { now: 0, peak: 0, answered: 0 };
  const server = http.createServer((request, response) => {
    request.resume();
    counts.now += 1;
    counts.peak = Math.max(counts.peak, counts.now);
    setTimeout(() => {
      counts.now -= 1;
      counts.answered += 1;
      response.end('true');
    }, DELAY);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', 4096, resolve));
  return { server, counts, url: `http://127.0.0.1:${server.address().port}` };
}

async function get(url) {
  const response = await fetch(url, { headers: { authorization: `Bearer ${KEY}` } });
  return response.json();
}

async function until(what, probe) {
  const deadline = Date.now() + 120_000;
  while (!(await probe())) {
    if (Date.now() > deadline) throw new Error(`timed out waiting for ${what}`);
    await wait(10);
  }
}

/** A minimal socket.io-client 2 over a websocket. */
function connect(port) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/socket.io/?EIO=3&transport=websocket`);
    socket.on('message', (data) => String(data) === '40' && resolve(socket));
    socket.on('error', reject);
  });
}

function usage(pid) {
  return { cpu: cpu(pid), rss: memory(pid) / 1024 / 1024 };
}

async function storm(argv) {
  const app = await slowApp();
  const port = await freePort();
  const dir = mkdtempSync(path.join(tmpdir(), 'storm-'));
  const config = {
    authHost: app.url,
    host: '127.0.0.1',
    port: String(port),
    database: 'sqlite',
    databaseConfig: { redis: {}, sqlite: { databasePath: '/storm.sqlite' } },
    subscribers: { http: true, redis: false },
    clients: [{ appId: 'app', key: KEY }],
  };
  writeFileSync(path.join(dir, 'laravel-echo-server.json'), JSON.stringify(config));
  const [command, ...args] = argv(dir);
  const child = spawn(command, args, { cwd: dir, stdio: 'ignore' });
  try {
    await until('the server to answer', () => fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false));
    const sockets = await Promise.all(Array.from({ length: SOCKETS }, () => connect(port)));
    const before = usage(child.pid);
    const started = performance.now();
    sockets.forEach((socket, n) => {
      for (let channel = 0; channel < CHANNELS; channel += 1) {
        socket.send(`42${JSON.stringify(['subscribe', { channel: `private-${n}.${channel}`, auth: { headers: {} } }])}`);
      }
    });
    await until('all callbacks', () => app.counts.answered === TOTAL);
    const list = () => get(`http://127.0.0.1:${port}/apps/app/channels`);
    await until('all subscriptions', async () => Object.keys((await list()).channels).length >= TOTAL);
    const seconds = (performance.now() - started) / 1000;
    const after = usage(child.pid);
    sockets.forEach((socket) => socket.terminate());
    return { peak: app.counts.peak, seconds, cpu: after.cpu - before.cpu, rss: after.rss };
  } finally {
    child.kill('SIGKILL');
    app.server.closeAllConnections();
    app.server.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

console.log(`${TOTAL} subscribes to private channels by ${SOCKETS} sockets; ${DELAY} ms per callback\n`);
console.log('| server | callbacks at once | until all are in | CPU of the server | memory |\n|---|---|---|---|---|');
for (const [name, argv] of Object.entries(servers)) {
  const { peak, seconds, cpu, rss } = await storm(argv);
  console.log(`| ${name} | ${peak} | ${seconds.toFixed(2)} s | ${cpu.toFixed(2)} s | ${rss.toFixed(0)} MB |`);
}
