/**
 * Runs the same scripted and random sessions against this server and against socket.io 2 and 4 (engine.io 3 and 6).
 *
 * Input: the server's binary, ECHO_BIN; ORACLE_RUNS and ORACLE_SEED for additional sessions. Intended differences are
 * listed in DECISIONS; any other difference fails.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { Session } from './session.mjs';

const require = createRequire(import.meta.url);
const BIN = process.env.ECHO_BIN ?? new URL('../../target/debug/laravel-echo-server', import.meta.url).pathname;
const KEY = 'test-key';
const RUNS = Number(process.env.ORACLE_RUNS ?? 10);
const SEED = Number(process.env.ORACLE_SEED ?? 1);
const SUBSCRIBE = '42["subscribe",{"channel":"news","auth":{"headers":{}}}]';

/** Intended differences, each as a rewrite of the observations into a common form. */
const DECISIONS = {
  'a session ends without a CLOSE packet: after `1`, some clients never reconnect': (seen) => seen.replace(/^(poll \d+): (dropped|200 1)$/, '$1: the end'),
  'a second poll is refused with 400, not 500': (seen) => seen.replace(/^(poll \d+): 500$/, '$1: 400'),
};
/**
 * When a websocket without a session ends: here right after the client's `1`, there when the client closes it; and a
 * probe whose session is over ends here within 10 s, there at once.
 */
const isLeftOver = (seen) => /^websocket \d+ is closed$/.test(seen);
const decided = (seen) => Object.values(DECISIONS).reduce((text, rewrite) => rewrite(text), seen.trim());

/**
 * Engine.IO 4 clients that send something before CONNECT, or DISCONNECT. A message before CONNECT ends the session on
 * both servers; a pending poll is then answered with NOOP here and with `1` there. A second CONNECT is ignored here and
 * ends the session there.
 */
function firstOutOfTurn(steps) {
  let isConnected = false;
  const at = steps.findIndex(([name, what]) => {
    for (const packet of name === 'connect' ? ['40'] : name === 'post' ? what : name === 'frame' ? [what] : []) {
      if (packet === '40' && isConnected) return true;
      if (packet === '40') isConnected = true;
      if (packet === '41' || (/^4[23]/.test(packet) && !isConnected)) return true;
    }
    return false;
  });
  return at < 0 ? steps.length : at;
}

async function startOurs() {
  const folder = mkdtempSync(path.join(tmpdir(), 'echo-oracle-'));
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  await once(listener, 'close');
  writeFileSync(
    path.join(folder, 'laravel-echo-server.toml'),
    `host = "127.0.0.1"\nport = ${port}\nclients = [{ appId = "app", key = "${KEY}" }]\nsubscribers = { http = true, redis = false }\nrecovery = { enabled = false }\n`,
  );
  const child = spawn(BIN, ['start', '--no-lock', '--dir', folder], { cwd: folder, stdio: 'ignore' });
  const url = `http://127.0.0.1:${port}`;
  for (const end = Date.now() + 20_000; !(await fetch(`${url}/ready`).catch(() => null)); ) {
    assert.ok(Date.now() < end && child.exitCode === null, 'the server listens');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return {
    port,
    publish: async (number) => {
      const body = JSON.stringify({ name: 'told', channel: 'news', data: JSON.stringify(number) });
      const answer = await fetch(`${url}/apps/app/events?auth_key=${KEY}`, { method: 'POST', body });
      assert.equal(answer.status, 200);
      await answer.text();
    },
    stop: async () => {
      child.kill('SIGKILL');
      await once(child, 'exit');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function startOracle(version) {
  const server = createHttp().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const io = version === 4 ? new (require('socket.io-4').Server)(server) : require('socket.io-2')(server, { pingTimeout: 20_000 });
  io.on('connection', (socket) => socket.on('subscribe', ({ channel }) => socket.join(channel)));
  return {
    port: server.address().port,
    publish: async (number) => io.to('news').emit('told', 'news', number),
    stop: () => new Promise((resolve) => (io.close(resolve), server.closeAllConnections())),
  };
}

/** The observations of a session, step by step. */
async function transcript({ port, publish }, version, steps) {
  const session = new Session(version, port, publish);
  const seen = [];
  try {
    for (const step of [['open'], ...steps]) seen.push({ step, seen: await session.step(step) });
  } finally {
    await session.end();
  }
  return seen;
}

const told = (transcript) =>
  transcript.map(({ step, seen }) => `${JSON.stringify(step)} → ${seen.filter((what) => !isLeftOver(what)).map(decided).join('; ')}`).join('\n');

/** Engine.IO 3 clients are connected by the handshake. */
const CONNECTS = [['connect']];
const SUBSCRIBES = [['post', [SUBSCRIBE]]];
const PROBES = [['websocket'], ['frame', '2probe']];

const SCRIPTS = {
  'a session that polls': [...CONNECTS, ...SUBSCRIBES, ['waitingPoll'], ['event', 1], ['event', 2], ['event', 3], ['waitingPoll']],
  'an upgrade': [...CONNECTS, ...SUBSCRIBES, ...PROBES, ['frame', '5'], ['event', 1], ['frame', '1'], ['waitingPoll']],
  'an upgrade with a pending poll': [...CONNECTS, ...SUBSCRIBES, ['waitingPoll'], ...PROBES, ['event', 1], ['frame', '5'], ['event', 2]],
  'events during a probe': [...CONNECTS, ...SUBSCRIBES, ...PROBES, ['event', 1], ['waitingPoll'], ['event', 2], ['frame', '5'], ['event', 3]],
  'a probe that closes': [...CONNECTS, ...SUBSCRIBES, ...PROBES, ['closeWebsocket'], ['waitingPoll'], ['event', 1]],
  'an invalid probe': [...CONNECTS, ...SUBSCRIBES, ['websocket'], ['frame', 'garbage'], ['waitingPoll'], ['event', 1]],
  'concurrent polls': [...CONNECTS, ['waitingPoll'], ['waitingPoll'], ['waitingPoll']],
  'a close over POST': [...CONNECTS, ['waitingPoll'], ['post', ['1']], ['waitingPoll']],
  'an unknown namespace': [...CONNECTS, ['post', ['40/other,']], ['waitingPoll']],
  'several packets in a post': [...CONNECTS, ['post', [SUBSCRIBE, '42["nothing"]', SUBSCRIBE]], ['waitingPoll'], ['event', 1]],
  'requests of an unknown session': [['post', ['1']], ['post', ['40']], ['waitingPoll'], ['websocket']],
  'the end of a probed session': [...CONNECTS, ['waitingPoll'], ...PROBES, ['post', ['1']], ['frame', '5'], ['waitingPoll']],
  'an unexpected ack': [...CONNECTS, ['post', ['431[1]']], ...SUBSCRIBES, ['waitingPoll'], ['event', 1]],
};

const packet = fc.constantFrom(SUBSCRIBE, '41', '42["nothing"]', '431[1]', '40/other,', '6', '3', '1');
const step = fc.oneof(
  { weight: 4, arbitrary: fc.constant(['waitingPoll']) },
  { weight: 4, arbitrary: fc.array(packet, { minLength: 1, maxLength: 3 }).map((packets) => ['post', packets]) },
  // Alone: socket.io 4 closes a session with another packet in CONNECT's payload, which is held here.
  { weight: 1, arbitrary: fc.constant(['post', ['40']]) },
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 99 }).map((number) => ['event', number]) },
  { weight: 2, arbitrary: fc.constant(['websocket']) },
  { weight: 2, arbitrary: fc.constant(['frame', '2probe']) },
  { weight: 2, arbitrary: fc.constant(['frame', '5']) },
  { weight: 1, arbitrary: packet.map((text) => ['frame', text]) },
  { weight: 1, arbitrary: fc.constant(['closeWebsocket']) },
);
/** Most sessions have a client that has subscribed. */
const sessions = fc.tuple(fc.boolean(), fc.array(step, { maxLength: 9 })).map(([isIn, steps]) => (isIn ? [...CONNECTS, ...SUBSCRIBES, ...steps] : steps));

for (const version of [3, 4]) {
  let ours, oracle;
  before(async () => {
    [ours, oracle] = await Promise.all([startOurs(), startOracle(version)]);
  });
  after(() => Promise.all([ours.stop(), oracle.stop()]));

  const compare = async (all) => {
    const steps = all.slice(0, version === 4 ? firstOutOfTurn(all) : all.length);
    const [seen, wanted] = await Promise.all([transcript(ours, version, steps), transcript(oracle, version, steps)]);
    assert.equal(told(seen), told(wanted));
  };

  for (const [title, steps] of Object.entries(SCRIPTS)) {
    test(`Engine.IO ${version}: ${title}`, () => compare(steps));
  }

  test(`Engine.IO ${version}: random sessions`, () => fc.assert(fc.asyncProperty(sessions, compare), { numRuns: RUNS, seed: SEED, endOnFailure: false }));
}
