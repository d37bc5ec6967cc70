/**
 * Compressed messages (`permessage-deflate`) with real clients, over plain connections and TLS: socket.io-client with its
 * default options, and `ws`, which compresses what it sends. What comes over the wire is counted at the client's socket.
 *
 * Input: the server's binary, ECHO_BIN. Each test has a server of its own on a free port.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import WebSocket from 'ws';

const DEADLINE_MS = 30_000;
const TEST = { timeout: 2 * DEADLINE_MS };
const KEY = 'test-key';
const BIN = process.env.ECHO_BIN ?? new URL('../../target/debug/laravel-echo-server', import.meta.url).pathname;
const CLIENTS = { 'socket.io-client 2.5': 'sio-2', 'socket.io-client 4.8': 'sio-4' };
const ROWS = Array.from({ length: 120 }, (_, id) => ({ id, name: `Customer ${id}`, email: `customer${id}@example.com`, note: 'wörld ✓' }));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, probe) {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const found = await probe();
    if (found) return found;
    assert.ok(Date.now() < end, `timed out: ${what}`);
    await pause(10);
  }
}

async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  return port;
}

const listens = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true) || socket.destroy());
    socket.on('error', () => resolve(false));
  });

async function startServer(t, scheme) {
  const [port, folder] = [await freePort(), mkdtempSync(path.join(tmpdir(), 'echo-deflate-'))];
  const settings = { host: '127.0.0.1', port, clients: [{ appId: 'app', key: KEY, secret: 's' }], subscribers: { http: true, redis: false } };
  if (scheme === 'https') {
    execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', 'key', '-out', 'crt'], { cwd: folder, stdio: 'ignore' });
    Object.assign(settings, { protocol: 'https', sslCertPath: path.join(folder, 'crt'), sslKeyPath: path.join(folder, 'key') });
  }
  writeFileSync(path.join(folder, 'laravel-echo-server.json'), JSON.stringify(settings));
  const child = spawn(BIN, ['start', '--no-lock', '--dir', folder], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  });
  await until('the server to listen', () => {
    assert.equal(child.exitCode, null, 'the server has ended');
    return listens(port);
  });
  const api = (what, body) =>
    new Promise((resolve, reject) => {
      const request = scheme === 'https' ? httpsRequest : httpRequest;
      const options = { method: body ? 'POST' : 'GET', rejectUnauthorized: false };
      request(`${scheme}://127.0.0.1:${port}/apps/app/${what}?auth_key=${KEY}`, options, (answer) => {
        let text = '';
        answer.on('data', (part) => (text += part)).on('end', () => (answer.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(text))));
      }).on('error', reject).end(body && JSON.stringify(body));
    });
  return { port, api, publish: (name, data) => api('events', { name, channel: 'news', data: JSON.stringify(data) }) };
}

/** Bytes that came over the client's socket while `during` went on. */
async function bytesRead(websocket, during) {
  const { _socket: socket } = websocket;
  const before = socket.bytesRead;
  await during();
  return socket.bytesRead - before;
}

for (const scheme of ['http', 'https']) {
  for (const [title, name] of Object.entries(CLIENTS)) {
    test(`${title} over ${scheme} gets a long event compressed, and a short one as it is`, TEST, async (t) => {
      const server = await startServer(t, scheme);
      const { default: io } = await import(name);
      const socket = io(`${scheme}://127.0.0.1:${server.port}`, { forceNew: true, rejectUnauthorized: false });
      t.after(() => socket.close());
      const heard = [];
      let disconnects = 0;
      socket.on('told', (channel, data) => heard.push(data));
      socket.on('disconnect', () => disconnects++);
      await until('the client to connect', () => socket.connected);
      const { engine } = socket.io;
      await until('the upgrade', () => engine.transport.name === 'websocket');
      socket.emit('subscribe', { channel: 'news', auth: { headers: {}, padding: 'x'.repeat(3000) } });
      await until('the client to be in the channel', async () => (await server.api('channels/news')).subscription_count === 1);
      const { ws } = engine.transport;
      assert.equal(ws.extensions, 'permessage-deflate');
      const size = JSON.stringify(ROWS).length;
      for (let round = 1; round <= 3; round++) {
        const bytes = await bytesRead(ws, async () => {
          await server.publish('told', ROWS);
          await until('the event', () => heard.length === round);
        });
        assert.ok(bytes < size / 4, `${bytes} of ${size} bytes`);
        assert.deepEqual(heard.at(-1), ROWS);
      }
      await server.publish('told', { n: 1 });
      await until('the short event', () => heard.length === 4);
      assert.deepEqual([heard.at(-1), disconnects], [{ n: 1 }, 0]);
    });
  }

  test(`ws over ${scheme} speaks Pusher's protocol in compressed messages`, TEST, async (t) => {
    const server = await startServer(t, scheme);
    const url = `${scheme === 'https' ? 'wss' : 'ws'}://127.0.0.1:${server.port}/app/${KEY}?protocol=7`;
    const client = new WebSocket(url, { perMessageDeflate: { threshold: 0 }, rejectUnauthorized: false });
    t.after(() => client.terminate());
    const heard = [];
    client.on('message', (text) => heard.push(JSON.parse(text)));
    await until('the connection', () => heard.length);
    assert.equal(client.extensions, 'permessage-deflate');
    client.send(JSON.stringify({ event: 'pusher:subscribe', data: { channel: 'news' } }));
    await until('the subscription', () => heard.some(({ event }) => event === 'pusher_internal:subscription_succeeded'));
    const bytes = await bytesRead(client, async () => {
      await server.publish('told', ROWS);
      await until('the event', () => heard.at(-1).event === 'told');
    });
    assert.ok(bytes < JSON.stringify(ROWS).length / 4, `${bytes} bytes`);
    assert.deepEqual(JSON.parse(heard.at(-1).data), ROWS);
  });
}
