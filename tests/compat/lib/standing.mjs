/** Programs for tests with node's test runner, each on its own port and in its own directory until its test ends. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Child } from './process.mjs';
import { freePort, GiveUp, until as poll } from './util.mjs';

export const DEADLINE_MS = 30_000;
export const KEY = 'test-key';
export const CLIENTS = { 'socket.io-client 2.5': 'sio-2', 'socket.io-client 4.8': 'sio-4' };
const BIN = process.env.ECHO_BIN ?? new URL('../../../target/debug/laravel-echo-server', import.meta.url).pathname;

export const until = (what, probe) => poll(probe, what, DEADLINE_MS);

const listens = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true) || socket.destroy());
    socket.on('error', () => resolve(false));
  });

/** Starts a program with the files it needs. `args` and `files` receive its directory. */
export async function run(t, port, program, args, files) {
  const folder = mkdtempSync(path.join(tmpdir(), 'echo-standing-'));
  for (const [name, text] of Object.entries(files(folder))) writeFileSync(path.join(folder, name), text);
  const child = new Child([program, ...args(folder)], { cwd: folder });
  t.after(async () => {
    await child.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  await until(`${program} to listen`, () => {
    if (!child.alive) throw new GiveUp(`${program} ended (${child.describeExit()})`);
    return listens(port);
  });
}

/** Starts the server with only the HTTP API and these settings. Returns its port. */
export async function startServer(t, settings) {
  const port = await freePort();
  const all = { host: '127.0.0.1', port, clients: [{ appId: 'app', key: KEY, secret: 'secret' }], subscribers: { http: true, redis: false }, ...settings };
  await run(t, port, BIN, (folder) => ['start', '--no-lock', '--dir', folder], () => ({ 'laravel-echo-server.json': JSON.stringify(all) }));
  return port;
}
