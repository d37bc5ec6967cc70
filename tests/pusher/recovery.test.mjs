/** Unmodified socket.io-client with laravel-echo: events missed during a lost connection arrive, once and in order. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { connect, createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { freePort, record, startAll, until } from './lib.mjs';

const require = createRequire(import.meta.url);
const io = require('socket.io-client');
const { default: Echo } = await import('echo');
const TEST = { timeout: 60_000 };

/** A network that can be interrupted. */
async function network(target) {
  const sockets = new Set();
  let isDown = false;
  const server = createServer((client) => {
    if (isDown) return client.destroy();
    const upstream = connect(target, '127.0.0.1');
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      sockets.add(one);
      one.on('data', (data) => other.write(data));
      one.on('close', () => { sockets.delete(one); other.destroy(); });
      one.on('error', () => other.destroy());
    }
  });
  const port = await freePort();
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  const cut = () => { isDown = true; for (const socket of sockets) socket.destroy(); };
  return { port, cut, mend: () => (isDown = false), stop: () => { cut(); server.close(); } };
}

describe('recovery', () => {
  let server;
  let publisher;
  let stop;
  before(async () => ({ server, publisher, stop } = await startAll()), TEST);
  after(() => stop?.(), TEST);

  for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
    test(`by ${transports}`, TEST, async (t) => {
      const net = await network(server.port);
      const options = { transports, extraHeaders: { Cookie: 'user=1' }, reconnectionDelay: 50, reconnectionDelayMax: 50 };
      const echo = new Echo({ broadcaster: 'socket.io', client: io, host: `http://127.0.0.1:${net.port}`, ...options });
      t.after(() => { echo.disconnect(); net.stop(); });
      const name = transports.join('-');
      const heard = record('event');
      const socket = echo.connector.socket;
      const subscribed = record('subscription');
      echo.join(`room.${name}`).here(subscribed).listen('.sent', heard);
      await subscribed.next();
      await publisher.trigger(`presence-room.${name}`, 'sent', { n: 0 });
      assert.deepEqual(await heard.next(), { n: 0 });
      const id = socket.id;
      net.cut();
      await until('the loss', () => !socket.connected);
      for (let n = 1; n <= 20; n += 1) await publisher.trigger(`presence-room.${name}`, 'sent', { n });
      net.mend();
      await until('the client to be back', () => socket.connected);
      await publisher.trigger(`presence-room.${name}`, 'sent', { n: 21 });
      for (let n = 1; n <= 21; n += 1) assert.deepEqual(await heard.next(), { n });
      assert.equal(heard.all.length, 22);
      assert.deepEqual([socket.recovered, socket.id], [true, id]);
    });
  }
});
