/**
 * Compressed messages (`permessage-deflate`) with real clients, over plain connections and TLS: socket.io-client with its
 * default options, and `ws`, which compresses what it sends. Received bytes are counted at the client's socket.
 *
 * Input: the server's binary, ECHO_BIN. Each test has its own server on a free port.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import WebSocket from 'ws';
import { request } from './lib/http.mjs';
import { CLIENTS, DEADLINE_MS, KEY, startServer, until } from './lib/standing.mjs';
import { makeCertificate } from './lib/tools.mjs';

const TEST = { timeout: 2 * DEADLINE_MS };
const ROWS = Array.from({ length: 120 }, (_, id) => ({ id, name: `Customer ${id}`, email: `customer${id}@example.com`, note: 'wörld ✓' }));

async function start(t, scheme) {
  const settings = {};
  if (scheme === 'https') {
    const folder = mkdtempSync(path.join(tmpdir(), 'echo-deflate-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const { cert, key } = await makeCertificate(folder, 'localhost');
    Object.assign(settings, { protocol: 'https', sslCertPath: cert, sslKeyPath: key });
  }
  const port = await startServer(t, settings);
  const api = async (what, body) => {
    const url = `${scheme}://127.0.0.1:${port}/apps/app/${what}?auth_key=${KEY}`;
    const { status, text } = await request(url, body && { method: 'POST', body: JSON.stringify(body) });
    assert.equal(status, 200, text);
    return JSON.parse(text);
  };
  return { port, api, publish: (name, data) => api('events', { name, channel: 'news', data: JSON.stringify(data) }) };
}

/** Bytes received on the client's socket while `during` ran. */
async function bytesRead(websocket, during) {
  const { _socket: socket } = websocket;
  const before = socket.bytesRead;
  await during();
  return socket.bytesRead - before;
}

for (const scheme of ['http', 'https']) {
  for (const [title, name] of Object.entries(CLIENTS)) {
    test(`${title} over ${scheme} gets a long event compressed and a short one uncompressed`, TEST, async (t) => {
      const server = await start(t, scheme);
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
    const server = await start(t, scheme);
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
