/**
 * This server or laravel-echo-server 1.6.3, with the same settings, in a folder of its own.
 * Input: a binary, or `original`. Output: the process, once its port is open. Clients and the original are those of tests/compat.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { freePort } from './server.mjs';

export const require = createRequire(new URL('../../tests/compat/package.json', import.meta.url));

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function start(port, program, args, cwd) {
  const child = spawn(program, args, { stdio: 'ignore', cwd });
  for (const end = Date.now() + 20_000; ; await pause(20)) {
    if (child.exitCode !== null || Date.now() > end) throw new Error(`${program} does not listen`);
    const socket = connect(port, '127.0.0.1');
    const isUp = await Promise.race([once(socket, 'connect').then(() => true), once(socket, 'error').then(() => false)]).catch(() => false);
    socket.destroy();
    if (isUp) break;
  }
  const stop = async () => {
    child.kill('SIGKILL');
    await once(child, 'exit');
    rmSync(cwd, { recursive: true, force: true });
  };
  return { pid: child.pid, port, stop };
}

const folder = () => mkdtempSync(path.join(tmpdir(), 'echo-bench-'));

export async function startRedis() {
  const port = await freePort();
  return start(port, 'redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', ''], folder());
}

/** Also returns the package of the socket.io-client that goes with it. */
export async function startEcho(program, redisPort) {
  const [port, cwd] = [await freePort(), folder()];
  const settings = {
    authHost: 'http://127.0.0.1:1', clients: [], database: 'redis', databaseConfig: { redis: { host: '127.0.0.1', port: redisPort } },
    devMode: false, host: '127.0.0.1', port: String(port), protocol: 'http', socketio: {}, subscribers: { http: true, redis: true },
  };
  writeFileSync(path.join(cwd, 'laravel-echo-server.json'), JSON.stringify(settings));
  if (program !== 'original') return { ...(await start(port, program, ['start', '--dir', cwd], cwd)), library: 'sio-4' };
  const script = require.resolve('laravel-echo-server/bin/server.js');
  return { ...(await start(port, 'node', [script, 'start', '--force'], cwd)), library: 'sio-2' };
}

/** Connects a client, subscribes it, and waits until it has a websocket if `upgrades`. */
export function connectClient({ port, library }, transports, upgrades, listen = () => {}) {
  return new Promise((resolve, reject) => {
    const socket = require(library)(`http://127.0.0.1:${port}`, { forceNew: true, reconnection: false, transports });
    socket.on('connect_error', reject);
    socket.on('disconnect', () => reject(new Error('a client was disconnected')));
    listen(socket);
    socket.on('connect', () => {
      socket.emit('subscribe', { channel: 'news', auth: { headers: {} } });
      const { engine } = socket.io;
      if (!upgrades || engine.transport.name === 'websocket') resolve();
      else engine.on('upgrade', () => resolve());
    });
  });
}
