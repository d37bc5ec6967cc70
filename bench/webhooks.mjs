#!/usr/bin/env node
/**
 * The cost of webhooks for the server: the same joins and leaves of public channels with and without them, alternating, in one run.
 *
 *   cargo build --release && (cd tests/compat && npm ci) && node bench/webhooks.mjs [CHANGES_PER_SECOND=10000] [SECONDS=10]
 *
 * Input: ECHO_BIN or target/release/laravel-echo-server; `ws` from tests/compat; redis-server. Output: a Markdown table. CPU is that
 * of the server's process. "told": every join is the first of its channel and every leave the last, and both are delivered.
 * "silent": the same channels are never empty, so there is nothing to deliver.
 */
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { BIN, cpu, freePort } from './lib/server.mjs';

const SELF = fileURLToPath(import.meta.url);
const ROOT = path.join(path.dirname(SELF), '..');
const require = createRequire(path.join(ROOT, 'tests/compat/package.json'));
const SOCKETS = 40;
const CHANNELS = 100; // of each socket
const TICK_MS = 10;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The process with the clients: joins and leaves at a steady rate. `kind`: "told" or "silent". */
async function clients(port, rate, kind) {
  const WebSocket = require('ws');
  const open = async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket`);
    socket.on('message', (data) => String(data) === '2' && socket.send('3'));
    await once(socket, 'open');
    socket.send('40');
    await once(socket, 'message');
    return socket;
  };
  const name = (socket, n) => (kind === 'told' ? `c-${socket}-${n}` : `c-${n}`);
  const sockets = [];
  for (let n = 0; n < SOCKETS; n++) sockets.push(await open());
  if (kind === 'silent') {
    const steady = await open();
    for (let n = 0; n < CHANNELS; n++) steady.send(`42${JSON.stringify(['subscribe', { channel: name(0, n), auth: {} }])}`);
  }
  const began = performance.now();
  let made = 0;
  const timer = setInterval(() => {
    for (const due = ((performance.now() - began) * rate) / 1000; made < due; made++) {
      const socket = made % SOCKETS;
      const turn = Math.floor(made / SOCKETS);
      const what = Math.floor(turn / CHANNELS) % 2 ? 'unsubscribe' : 'subscribe';
      sockets[socket].send(`42${JSON.stringify([what, { channel: name(socket, turn % CHANNELS), auth: {} }])}`);
    }
  }, TICK_MS);
  process.on('message', () => {
    clearInterval(timer);
    process.send(made);
  });
  process.send('ready');
}

const running = [];
function start(argv, options) {
  const child = spawn(argv[0], argv.slice(1), { stdio: 'ignore', ...options });
  running.push(child);
  return child;
}

async function listens(port) {
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const is = await new Promise((resolve) => socket.once('connect', () => resolve(true)).once('error', () => resolve(false)));
    socket.destroy();
    if (is) return;
    await pause(20);
  }
}

async function measure(store, kind, rate, seconds) {
  const folder = mkdtempSync(path.join(tmpdir(), 'echo-webhooks-'));
  let told = 0;
  const receiver = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk)).on('end', () => {
      told += JSON.parse(body).events.length;
      response.end();
    });
  }).listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const [port, redisPort] = [await freePort(), await freePort()];
  const redis = start(['redis-server', '--port', redisPort, '--bind', '127.0.0.1', '--save', '', '--dir', folder]);
  await listens(redisPort);
  writeFileSync(path.join(folder, 'laravel-echo-server.json'), JSON.stringify({
    host: '127.0.0.1', port, database: 'memory',
    databaseConfig: { redis: { host: '127.0.0.1', port: redisPort } },
    webhooks: store ? [{ url: `http://127.0.0.1:${receiver.address().port}/`, key: 'echo', secret: 'secret' }] : [],
    webhooksDelivery: { grace: 0, store: store ?? 'memory', queue: 1_000_000 },
  }));
  const server = start([BIN, 'start', '--dir', folder], { cwd: folder });
  await listens(port);
  const load = fork(SELF, ['clients', String(port), String(rate), kind]);
  running.push(load);
  await once(load, 'message');
  await pause(2000);
  const [before, at, toldBefore] = [cpu(server.pid), performance.now(), told];
  await pause(seconds * 1000);
  const [used, took, events] = [cpu(server.pid) - before, (performance.now() - at) / 1000, told - toldBefore];
  load.send('stop');
  const [made] = await once(load, 'message');
  for (const child of [load, server, redis]) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  receiver.closeAllConnections();
  receiver.close();
  rmSync(folder, { recursive: true, force: true });
  return { percent: (used / took) * 100, events: events / took, made };
}

if (process.argv[2] === 'clients') {
  await clients(Number(process.argv[3]), Number(process.argv[4]), process.argv[5]);
} else {
  process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
  const [rate = 10_000, seconds = 10] = process.argv.slice(2).map(Number);
  console.log(`| ${rate} changes a second | CPU, % of a core | events told a second |\n|---|---|---|`);
  for (const kind of ['told', 'silent']) {
    for (let turn = 0; turn < 3; turn++) {
      for (const store of [undefined, 'memory', 'redis']) {
        const { percent, events } = await measure(store, kind, rate, seconds);
        console.log(`| ${kind}, ${store ? `webhooks, store "${store}"` : 'no webhooks'} | ${percent.toFixed(1)} | ${events.toFixed(0)} |`);
      }
    }
  }
  process.exit();
}
