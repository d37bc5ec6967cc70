/** One large event to many clients costs no copy per client, on any transport. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { publisherTo, startServer, until } from './lib.mjs';

const require = createRequire(import.meta.url);
const io = require('socket.io-client');
const CLIENTS = 40;
const MIB = 1024 * 1024;

/** How much an event of 4 MB raises the server's peak memory. */
async function growth(transports) {
  const server = await startServer({ authHost: 'http://127.0.0.1:1', recovery: { enabled: false } });
  const peak = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${server.child.pid}/status`, 'utf8'))[1]) * 1024;
  const publisher = publisherTo(server.port);
  const sockets = Array.from({ length: CLIENTS }, () => io(`http://127.0.0.1:${server.port}`, { transports, forceNew: true }));
  let heard = 0;
  try {
    for (const socket of sockets) {
      socket.on('sent', () => (heard += 1));
      socket.emit('subscribe', { channel: 'news' });
    }
    const carried = transports.at(-1);
    await until(`${CLIENTS} by ${carried}`, () => sockets.every((socket) => socket.connected && socket.io.engine.transport.name === carried));
    await until('subscriptions', async () => (await (await publisher.get({ path: '/channels/news', params: { info: 'subscription_count' } })).json()).subscription_count === CLIENTS);
    const before = peak();
    await publisher.trigger('news', 'sent', { text: 'x'.repeat(4_000_000) });
    await until('the event everywhere', () => heard === CLIENTS);
    return peak() - before;
  } finally {
    for (const socket of sockets) socket.close();
    await server.stop();
  }
}

test('polling and upgraded clients share the bytes of an event as websockets do', { timeout: 120_000 }, async () => {
  const websocket = await growth(['websocket']);
  for (const transports of [['polling', 'websocket'], ['polling']]) {
    const grown = await growth(transports);
    // The allocator itself varies by a few megabytes.
    assert.ok(grown <= 1.5 * websocket + 8 * MIB, `${transports}: ${grown / MIB} MiB, by websocket ${websocket / MIB} MiB`);
  }
});
