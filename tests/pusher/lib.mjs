/** Shared by the tests: a server process, an application that cannot sign, and recorders of what clients receive. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { createRequire } from 'node:module';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

const Publisher = createRequire(import.meta.url)('pusher');
export const KEY = 'app-key';
export const SECRET = 'app-secret';
const BIN = process.env.ECHO_BIN ?? (() => { throw new Error('set ECHO_BIN to the server binary'); })();
const DEADLINE = 15_000;

export const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

export const listens = (port) => new Promise((resolve) => {
  const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
  socket.on('error', () => resolve(false));
});

/** Waits for a condition, with a deadline. */
export async function until(what, probe, time = DEADLINE) {
  const end = Date.now() + time;
  while (!(await probe())) {
    if (Date.now() > end) throw new Error(`no ${what} in time`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Collects pushed values, and waits for the next one. */
export function record(what) {
  const all = [];
  let taken = 0;
  const push = (value) => all.push(value);
  push.all = all;
  push.next = async () => {
    await until(what, () => all.length > taken);
    taken += 1;
    return all[taken - 1];
  };
  return push;
}

/** Laravel with its `redis` driver: authorizes by cookie or token, and cannot sign. */
export async function application() {
  const calls = [];
  const server = createHttp((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      const channel = new URLSearchParams(body).get('channel_name');
      const user = /user=(\d+)/.exec(request.headers.cookie ?? request.headers.authorization ?? '')?.[1];
      calls.push({ channel, body, headers: request.headers });
      response.setHeader('Content-Type', 'text/html; charset=UTF-8');
      response.statusCode = user ? 200 : 403;
      if (!user) return response.end('{"message":"Forbidden"}');
      response.end(channel.startsWith('presence-') ? JSON.stringify({ channel_data: { user_id: Number(user), user_info: { name: `User ${user}` } } }) : 'true');
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, calls, stop: () => { server.closeAllConnections(); server.close(); } };
}

/** A server that is ready for clients. */
export async function startServer(settings = {}) {
  const port = await freePort();
  const folder = mkdtempSync(path.join(tmpdir(), 'echo-pusher-'));
  const config = {
    host: '127.0.0.1', port, database: 'memory', subscribers: { http: true, redis: false },
    clients: [{ appId: 'app', key: KEY, secret: SECRET }], ...settings,
  };
  writeFileSync(path.join(folder, 'laravel-echo-server.json'), JSON.stringify(config));
  const child = spawn(BIN, ['start', '--dir', folder], { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.on('data', (chunk) => (log += chunk));
  await until('server', async () => {
    if (child.exitCode !== null) throw new Error(`the server ended: ${log}`);
    return listens(port);
  });
  const stop = async () => {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  return { port, child, stop };
}

/** Publishes to the server at this port like Laravel's `pusher` driver. */
export const publisherTo = (port, options) => new Publisher({ appId: 'app', key: KEY, secret: SECRET, host: '127.0.0.1', port, useTLS: false, ...options });

/** An application, a server that asks it, and a publisher. */
export async function startAll() {
  const app = await application();
  const server = await startServer({ authHost: app.url }).catch((error) => {
    app.stop();
    throw error;
  });
  const stop = async () => {
    await server.stop();
    app.stop();
  };
  return { app, server, publisher: publisherTo(server.port), stop };
}
