#!/usr/bin/env node
// How many events clients miss when connections break, at a deploy, and when a node is killed: two nodes of this server, and for
// comparison one of socket.io with connectionStateRecovery, each behind HAProxy with 200 events a second. A Markdown table.
//
//   for tests in pusher oracle compat; do (cd tests/$tests && npm ci); done
//   cargo build --release && ECHO_BIN=target/release/laravel-echo-server node bench/recovery.mjs [clients: 120]
//
// Needs redis-server and haproxy. Clients: socket.io-client 4.6, 4.7 and 4.8, Echo 1 and 2, over websockets, over polling, and
// with default transports.

import { fileURLToPath } from 'node:url';
import { freePort, listens } from '../tests/pusher/lib.mjs';
import { run, Site, twoNodes, until } from '../tests/pusher/nodes.mjs';

const clients = Number(process.argv[2] ?? 120);
if (!(clients > 0)) throw new Error('usage: recovery.mjs [clients]');
const SCRIPT = fileURLToPath(new URL('recovery/socket-io.mjs', import.meta.url));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function oneSocketIo(folder, redisPort) {
  const port = await freePort();
  const node = {
    port,
    async start() {
      node.process = run(process.execPath, [SCRIPT, String(port), String(redisPort)]);
      await until('socket.io', () => listens(port));
    },
  };
  return [node];
}

const again = (signal) => async ({ nodes }) => {
  for (const node of nodes) {
    await node.process.end(signal);
    await node.start();
    await sleep(5000);
  }
};

const PHASES = {
  'all connections break for two seconds': async (site) => {
    await site.proxy.end();
    await sleep(2000);
    await site.openProxy();
  },
  'restart, one node after the other': again('SIGTERM'),
  'kill -9, one node after the other': again('SIGKILL'),
};

const SERVERS = { 'here, two nodes': twoNodes, 'socket.io 4.8, one node': oneSocketIo };

console.log('| | server | came back | afresh | missed per client, Echo 2 | Echo 1 | doubled | out of order |\n|---|---|---|---|---|---|---|---|');
for (const [phase, cause] of Object.entries(PHASES)) {
  for (const [name, nodes] of Object.entries(SERVERS)) {
    const site = await Site.start(nodes);
    try {
      site.connect(clients);
      await site.hears(0);
      // The most recent events are not stored yet.
      await sleep(1000);
      const first = site.number;
      await cause(site);
      await until('everybody to be back', () => site.listeners.every(({ socket }) => socket.connected));
      await sleep(3000);
      const last = site.number;
      await sleep(3000);
      const faults = site.listeners.map((listener) => [listener, listener.faults(first, last)]);
      const sum = (of, is = () => true) => faults.filter(([listener]) => is(listener)).reduce((all, [, fault]) => all + fault[of], 0);
      const missed = (isEcho1) => {
        const count = site.listeners.filter((listener) => listener.isEcho1 === isEcho1).length;
        return `${Math.round((sum('missed', (listener) => listener.isEcho1 === isEcho1) / count) * 10) / 10} of ${last - first + 1}`;
      };
      const cells = [
        phase, name, site.sum(({ returns }) => returns.recovered), site.sum(({ returns }) => returns.afresh), missed(false), missed(true),
        sum('doubled'), sum('reordered'),
      ];
      console.log(`| ${cells.join(' | ')} |`);
    } finally {
      await site.stop();
    }
  }
}
process.exit(0);
