/** Nodes behind HAProxy, a publisher like Laravel, and Echo clients that record what they receive. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { application, freePort, KEY, listens, SECRET, until as wait } from './lib.mjs';

const require = createRequire(import.meta.url);
const versions = { 4.6: require('socket.io-client-4-6'), 4.7: require('socket.io-client-4-7'), 4.8: require('socket.io-client') };
const { default: Echo2 } = await import('echo');
const Echo1 = require('echo-1').default ?? require('echo-1');

/** The default: polling, then a websocket. */
const DEFAULT = undefined;
const TRANSPORTS = [['websocket'], DEFAULT, ['polling'], DEFAULT];

/** Waits for a condition. On a busy machine clients take long to reconnect. */
export const until = (what, probe) => wait(what, probe, 60_000);

/** A process, and a way to end it. */
export function run(program, args, options = {}) {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], ...options });
  let log = '';
  child.stderr.on('data', (chunk) => (log = (log + chunk).slice(-4000)));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  return { end: async (signal = 'SIGKILL') => { child.kill(signal); await ended; }, log: () => log };
}

const isReady = async (port) => (await fetch(`http://127.0.0.1:${port}/ready`).catch(() => ({ status: 0 }))).status === 200;
const command = (words) => `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`;

/** How many sessions other nodes can resume. */
export const sessions = (port) => new Promise((resolve, reject) => {
  const socket = connect(port, '127.0.0.1', () => socket.write(command(['KEYS', 'laravel-echo:session:*'])));
  socket.once('data', (reply) => { socket.destroy(); resolve(Number(/^\*(\d+)/.exec(reply)[1])); }).once('error', reject);
});

/** One node of this server. */
class Node {
  constructor(folder, port, settings) {
    this.port = port;
    this.dir = mkdtempSync(path.join(folder, 'node-'));
    writeFileSync(path.join(this.dir, 'laravel-echo-server.json'), JSON.stringify({ host: '127.0.0.1', port, ...settings }));
  }

  async start() {
    this.process = run(process.env.ECHO_BIN, ['start', '--dir', this.dir]);
    await until(`node ${this.port}`, () => isReady(this.port));
  }
}

/** HAProxy in front of these ports. Clients in Node keep no cookies, unlike browsers, so it identifies them by their token. */
async function haproxy(folder, port, nodes) {
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
    stick-table type string len 64 size 10k
    stick on req.hdr(authorization)
    option redispatch 1
    option httpchk GET /ready
    default-server inter 200ms fall 2 rise 1
${nodes.map((to, n) => `    server n${n} 127.0.0.1:${to} check`).join('\n')}
`);
  const proxy = run('haproxy', ['-db', '-f', file]);
  await until('HAProxy', () => listens(port));
  await until('a node behind it', () => isReady(port));
  return proxy;
}

/** A client, the events it received, and its errors. */
export class Listener {
  constructor(port, n) {
    const [version, io] = Object.entries(versions)[n % 3];
    const transports = TRANSPORTS[Math.floor(n / 6) % TRANSPORTS.length];
    this.isEcho1 = n % 2 === 1;
    this.name = `${n}: Echo ${this.isEcho1 ? 1 : 2}, socket.io-client ${version}, ${transports ?? 'default'}`;
    this.heard = [];
    const Echo = this.isEcho1 ? Echo1 : Echo2;
    this.echo = new Echo({
      broadcaster: 'socket.io', client: io, host: `http://127.0.0.1:${port}`, ...(transports && { transports }), forceNew: true,
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

  /** Whether one of its channels has received nothing since this event. */
  isDeafSince(from) {
    return !this.heard.some((n) => n >= from && n % 2) || !this.heard.some((n) => n >= from && !(n % 2));
  }

  /** Events that are missing, and those that arrived twice or too late. */
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

  get state() {
    const { connected, io } = this.socket;
    return `${this.name}: ${JSON.stringify(this.returns)}, ${connected ? 'connected' : io._readyState} by ${io.engine?.transport?.name}`;
  }
}

/** Redis, nodes behind HAProxy, and two channels with an event every few milliseconds. */
export class Site {
  number = 0;
  listeners = [];

  /** `nodes(folder, redisPort, appUrl)`: the nodes, each with `port`, `start()` and, once started, `process`. */
  static async start(nodes, pause = 5) {
    const site = new Site();
    site.folder = mkdtempSync(path.join(tmpdir(), 'echo-nodes-'));
    site.app = await application();
    site.redisPort = await freePort();
    site.redis = run('redis-server', ['--port', String(site.redisPort), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', site.folder]);
    await until('Redis', () => listens(site.redisPort));
    site.nodes = await nodes(site.folder, site.redisPort, site.app.url);
    for (const node of site.nodes) await node.start();
    site.port = await freePort();
    await site.openProxy();
    const publisher = connect(site.redisPort, '127.0.0.1');
    await new Promise((resolve, reject) => publisher.once('connect', resolve).once('error', reject));
    publisher.resume();
    // Like Laravel, with Redis commands.
    site.traffic = setInterval(() => {
      const channel = site.number % 2 ? 'private-orders' : 'news';
      publisher.write(command(['PUBLISH', channel, JSON.stringify({ event: 'sent', data: { n: site.number }, socket: null })]));
      site.number += 1;
    }, pause);
    site.publisher = publisher;
    return site;
  }

  async openProxy() {
    this.proxy = await haproxy(this.folder, this.port, this.nodes.map(({ port }) => port));
  }

  connect(count) {
    for (let n = 0; n < count; n += 1) this.listeners.push(new Listener(this.port, n));
  }

  /** All have received something in both channels since this event. */
  async hears(from) {
    const deaf = () => this.listeners.filter((listener) => listener.isDeafSince(from));
    await until('event', () => deaf().length === 0).catch(() => {
      const logs = this.nodes.map(({ process }) => process.log()).join('\n');
      throw new Error(`deaf:\n${deaf().map(({ state }) => state).join('\n')}\n${logs}`);
    });
  }

  sum(what) {
    return this.listeners.reduce((all, listener) => all + what(listener), 0);
  }

  async stop() {
    clearInterval(this.traffic);
    for (const { echo } of this.listeners) echo.disconnect();
    await this.proxy.end();
    for (const node of this.nodes) await node.process.end();
    this.publisher.destroy();
    await this.redis.end();
    this.app.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Two nodes of this server in a cluster. */
export async function twoNodes(folder, redisPort, authHost) {
  const settings = {
    authHost, database: 'redis', databaseConfig: { redis: { host: '127.0.0.1', port: redisPort } }, cluster: { enabled: true },
    clients: [{ appId: 'app', key: KEY, secret: SECRET }], shutdown: { drain: '2s' }, trustProxies: ['127.0.0.1'],
    limits: { connectionsPerIp: 0 }, recovery: { events: 100_000 },
  };
  return [new Node(folder, await freePort(), settings), new Node(folder, await freePort(), settings)];
}
