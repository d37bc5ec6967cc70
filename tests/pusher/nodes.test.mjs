/**
 * Unchanged socket.io-client with laravel-echo behind HAProxy and two nodes, 200 events a second: a rolling restart, then
 * a node that is killed. Every client gets every event, once and in order.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { application, freePort, KEY, SECRET } from './lib.mjs';

const require = createRequire(import.meta.url);
const versions = { 4.6: require('socket.io-client-4-6'), 4.7: require('socket.io-client-4-7'), 4.8: require('socket.io-client') };
const { default: Echo2 } = await import('echo');
const Echo1 = require('echo-1').default ?? require('echo-1');

const CLIENTS = Number(process.env.CLIENTS ?? 80);
const PAUSE = 5;
const folder = mkdtempSync(path.join(tmpdir(), 'echo-nodes-'));

/** Waits for a condition. On a busy machine clients take their time to come back. */
async function until(what, probe) {
  const end = Date.now() + 60_000;
  while (!(await probe())) {
    if (Date.now() > end) throw new Error(`no ${what} in time`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A process, and how to end it. */
function run(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.on('data', (chunk) => (log = (log + chunk).slice(-4000)));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  return { end: async (signal = 'SIGKILL') => { child.kill(signal); await ended; }, log: () => log };
}

const command = (words) => `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`;

/** Publishes as Laravel does, by the protocol of Redis. */
async function publisher(port) {
  const socket = connect(port, '127.0.0.1');
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  socket.resume();
  return (channel, data) => socket.write(command(['PUBLISH', channel, JSON.stringify({ event: 'sent', data, socket: null })]));
}

/** How many sessions other nodes can go on with. */
const sessions = (port) => new Promise((resolve, reject) => {
  const socket = connect(port, '127.0.0.1', () => socket.write(command(['KEYS', 'laravel-echo:session:*'])));
  socket.once('data', (reply) => { socket.destroy(); resolve(Number(/^\*(\d+)/.exec(reply)[1])); }).once('error', reject);
});

const isOpen = (port) => new Promise((resolve) => {
  const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
  socket.on('error', () => resolve(false));
});

const isReady = async (port) => (await fetch(`http://127.0.0.1:${port}/ready`).catch(() => ({ status: 0 }))).status === 200;

class Node {
  constructor(port, settings) {
    this.port = port;
    this.dir = mkdtempSync(path.join(folder, 'node-'));
    writeFileSync(path.join(this.dir, 'laravel-echo-server.json'), JSON.stringify({ host: '127.0.0.1', port, ...settings }));
  }

  async start() {
    this.process = run(process.env.ECHO_BIN, ['start', '--dir', this.dir]);
    await until(`node ${this.port}`, () => isReady(this.port));
  }
}

async function haproxy(nodes) {
  const port = await freePort();
  const file = path.join(folder, 'haproxy.cfg');
  writeFileSync(file, `global
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend echo
    bind 127.0.0.1:${port}
    default_backend nodes
backend nodes
    balance leastconn
    cookie node insert indirect nocache httponly
    option redispatch 1
    option httpchk GET /ready
    default-server inter 200ms fall 2 rise 1
${nodes.map(({ port: to }, n) => `    server n${n} 127.0.0.1:${to} check cookie n${n}`).join('\n')}
`);
  const proxy = run('haproxy', ['-db', '-f', file]);
  await until('HAProxy', () => isOpen(port));
  await until('both nodes', async () => (await fetch(`http://127.0.0.1:${port}/ready`)).status === 200);
  return { port, stop: () => proxy.end() };
}

/** What a client has heard, and what is wrong with it. */
class Listener {
  constructor(port, n) {
    const [version, io] = Object.entries(versions)[n % 3];
    this.name = `${n}: ${version}`;
    this.heard = [];
    const Echo = n % 2 ? Echo1 : Echo2;
    this.echo = new Echo({
      // Outside of a browser engine.io-client keeps sending the cookie of the node before, so that polls go to the wrong one.
      broadcaster: 'socket.io', client: io, host: `http://127.0.0.1:${port}`, transports: ['websocket'],
      extraHeaders: { Authorization: `Bearer user=${n}` }, auth: { headers: { Authorization: `Bearer user=${n}` } }, reconnectionDelayMax: 2000,
    });
    this.socket = this.echo.connector.socket;
    this.returns = { recovered: 0, afresh: 0 };
    let wasThere = false;
    this.socket.on('connect', () => {
      if (wasThere) this.returns[this.socket.recovered ? 'recovered' : 'afresh'] += 1;
      wasThere = true;
    });
    this.echo.channel('news').listen('.sent', ({ n: number }) => this.heard.push(number));
    this.echo.private('orders').listen('.sent', ({ n: number }) => this.heard.push(number));
  }

  /** Events that did not come, and those that came twice or too late. */
  faults(first, last) {
    const seen = new Set();
    let [doubled, reordered, before] = [0, 0, -1];
    for (const number of this.heard) {
      if (seen.has(number)) doubled += 1;
      else if (number < before) reordered += 1;
      seen.add(number);
      before = Math.max(before, number);
    }
    let missed = 0;
    for (let number = first; number <= last; number += 1) missed += seen.has(number) ? 0 : 1;
    return { missed, doubled, reordered };
  }
}

test('a rolling restart and a killed node cost no event', { timeout: 300_000 }, async (t) => {
  const app = await application();
  const redisPort = await freePort();
  const redis = run('redis-server', ['--port', String(redisPort), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder]);
  await until('Redis', () => isOpen(redisPort));
  const settings = {
    authHost: app.url, database: 'redis', databaseConfig: { redis: { host: '127.0.0.1', port: redisPort } }, cluster: { enabled: true },
    clients: [{ appId: 'app', key: KEY, secret: SECRET }], shutdown: { drain: '2s' }, trustProxies: ['127.0.0.1'],
    limits: { connectionsPerIp: 0 }, recovery: { events: 100_000 },
  };
  const nodes = [new Node(await freePort(), settings), new Node(await freePort(), settings)];
  for (const node of nodes) await node.start();
  const proxy = await haproxy(nodes);
  const listeners = [];
  const publish = await publisher(redisPort);
  let number = 0;
  const next = () => { publish(number % 2 ? 'private-orders' : 'news', { n: number }); number += 1; };
  const traffic = setInterval(next, PAUSE);
  t.after(async () => {
    clearInterval(traffic);
    for (const { echo } of listeners) echo.disconnect();
    await proxy.stop();
    for (const node of nodes) await node.process.end();
    await redis.end();
    app.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  for (let n = 0; n < CLIENTS; n += 1) listeners.push(new Listener(proxy.port, n));
  const hears = async (from) => {
    const isDeaf = ({ heard }) => !heard.some((n) => n >= from && n % 2) || !heard.some((n) => n >= from && !(n % 2));
    const deaf = () => listeners.filter(isDeaf);
    await until('event', () => deaf().length === 0).catch(() => {
      throw new Error(deaf().map(({ name, returns, socket }) => `${name} is deaf: ${JSON.stringify(returns)}, ${socket.connected}, ${socket.io._readyState}, ${socket.io.engine?.readyState} by ${socket.io.engine?.transport?.name}, ${socket.io._reconnecting}`).join('\n'));
    });
  };
  await hears(0);
  const first = number;
  const sum = (what) => listeners.reduce((all, listener) => all + what(listener), 0);
  const settled = async (phase, from) => {
    await until(`everybody to be back after ${phase}`, () => listeners.every(({ socket }) => socket.connected));
    const last = number;
    await until('the last events', () => listeners.every(({ heard }) => heard.at(-1) > last + 10));
    const faults = listeners.map((listener) => [listener.name, listener.returns, listener.faults(from, last)]);
    const recovered = sum(({ returns }) => returns.recovered);
    console.log(`${phase}: ${CLIENTS} clients, events ${from} to ${last}, ${recovered} came back, ${sum(({ returns }) => returns.afresh)} afresh`);
    assert.deepEqual(faults.filter(([, , fault]) => fault.missed || fault.doubled || fault.reordered), []);
    return recovered;
  };
  // Two restarts move every client once at least. Many come back to the node that has just started.
  for (const node of nodes) {
    await node.process.end('SIGTERM');
    await node.start();
    await hears(number);
  }
  const recovered = await settled('the rolling restart', first);
  assert.ok(recovered >= CLIENTS, `${recovered} came back`);
  // What came a moment ago is not written yet.
  await until('all sessions to be written', async () => (await sessions(redisPort)) === CLIENTS);
  const before = number;
  await nodes[0].process.end('SIGKILL');
  await hears(number);
  await settled('the kill', before);
});
