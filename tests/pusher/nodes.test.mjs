/**
 * Unmodified socket.io-client with laravel-echo behind HAProxy and two nodes, 200 events a second: a rolling restart, then
 * a killed node. Every client gets every event once and in order: over websockets, over polling, and with default transports.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sessions, Site, twoNodes, until } from './nodes.mjs';

const CLIENTS = Number(process.env.CLIENTS ?? 72);

test('a rolling restart and a killed node cost no event', { timeout: 300_000 }, async (t) => {
  const site = await Site.start(twoNodes);
  t.after(() => site.stop());
  const { listeners, nodes } = site;
  site.connect(CLIENTS);
  await site.hears(0);
  const first = site.number;
  const settled = async (phase, from) => {
    await until(`everybody to be back after ${phase}`, () => listeners.every(({ socket }) => socket.connected));
    const last = site.number;
    await until('the last events', () => listeners.every(({ heard }) => heard.at(-1) > last + 10));
    const faults = listeners.map((listener) => [listener.state, listener.faults(from, last)]);
    const recovered = site.sum(({ returns }) => returns.recovered);
    console.log(`${phase}: ${CLIENTS} clients, events ${from} to ${last}, ${recovered} came back, ${site.sum(({ returns }) => returns.afresh)} afresh`);
    assert.deepEqual(faults.filter(([, fault]) => fault.missed || fault.doubled || fault.reordered), []);
    return recovered;
  };
  // Two restarts move every client at least once. Many reconnect to the node that has just started.
  for (const node of nodes) {
    await node.process.end('SIGTERM');
    await node.start();
    await site.hears(site.number);
  }
  const recovered = await settled('the rolling restart', first);
  assert.ok(recovered >= CLIENTS, `${recovered} came back`);
  // The most recent events are not stored yet.
  await until('all sessions to be written', async () => (await sessions(site.redisPort)) === CLIENTS);
  const before = site.number;
  await nodes[0].process.end('SIGKILL');
  await site.hears(site.number);
  await settled('the kill', before);
});
