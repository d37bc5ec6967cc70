/**
 * Runs the same scripted and random sessions against this server and against others: socket.io 2 and 4 (engine.io 3 and 6),
 * and socketioxide.
 *
 * Input: the server's binary, ECHO_BIN; that of oracle-socketioxide, OXIDE_BIN; ORACLE_RUNS and ORACLE_SEED for additional
 * sessions. Intended differences are listed in DECISIONS and LIMITS; any other difference fails.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { Session } from './session.mjs';

const built = (name) => fileURLToPath(new URL(`../../target/debug/${name}`, import.meta.url));
const BIN = process.env.ECHO_BIN ?? built('laravel-echo-server');
const OXIDE_BIN = process.env.OXIDE_BIN ?? built('oracle-socketioxide');
const KEY = 'test-key';
const RUNS = Number(process.env.ORACLE_RUNS ?? 10);
const SEED = Number(process.env.ORACLE_SEED ?? 1);
const SUBSCRIBE = '42["subscribe",{"channel":"news","auth":{"headers":{}}}]';

const ORACLES = [
  { name: 'socket.io 2', version: 3, program: [process.execPath, fileURLToPath(new URL('socket.io.mjs', import.meta.url)), '2'] },
  { name: 'socket.io 4', version: 4, program: [process.execPath, fileURLToPath(new URL('socket.io.mjs', import.meta.url)), '4'] },
  // Answers the first poll with what belongs to the handshake: `40` (Engine.IO 3), or a first ping (Engine.IO 4).
  { name: 'socketioxide', version: 3, program: [OXIDE_BIN], isLate: true },
  { name: 'socketioxide', version: 4, program: [OXIDE_BIN], isLate: true },
];

/** Intended differences, each as a rewrite of the observations into a common form. */
const DECISIONS = {
  'a session ends without a CLOSE packet: after `1`, some clients never reconnect': (seen) => seen.replace(/^(poll \d+): (dropped|200 1)$/, '$1: the end'),
  'a second poll is refused with 400, not 500': (seen) => seen.replace(/^(poll \d+): 500$/, '$1: 400'),
  'an unknown namespace is refused as by the socket.io of that version: with a text or an object': (seen) =>
    seen.replaceAll('{"message":"Invalid namespace"}', '"Invalid namespace"'),
};
/**
 * When a websocket without a session ends: here right after the client's `1`, there when the client closes it; and a
 * probe whose session is over ends here within 10 s, there at once.
 */
const isLeftOver = (seen) => /^websocket \d+ is closed$/.test(seen);
const decided = (seen) => Object.values(DECISIONS).reduce((text, rewrite) => rewrite(text), seen.trim());

/** Intended differences after which a session cannot be compared any further: the index of the step. */
const LIMITS = [
  {
    why: `A message before CONNECT, or DISCONNECT, ends the session on both servers; a pending poll is then answered with NOOP here and
      with 1 there. A second CONNECT is ignored here and ends the session there.`,
    with: ({ version }) => version === 4,
    at: firstOutOfTurn,
  },
  {
    why: 'Other invalid messages are ignored here and by socket.io 2, and end the session there.',
    with: ({ name }) => name !== 'socket.io 2',
    at: (steps) => steps.findIndex((step) => said(step).some((packet) => MALFORMED.includes(packet))),
  },
  {
    why: `NOOP from a client, and any message after DISCONNECT, end the session there; a PONG of Engine.IO 3 (no client sends one) is
      answered like a PING.`,
    with: ({ name }) => name === 'socketioxide',
    at: (steps) => steps.findIndex((step) => said(step).some((packet) => ['6', '3', '41'].includes(packet))),
  },
  {
    why: 'There, polls return NOOP as soon as a websocket is accepted, and an upgrade that is not completed ends the session.',
    with: ({ name }) => name === 'socketioxide',
    at: (steps) => steps.findIndex(([name]) => ['websocket', 'frame', 'closeWebsocket'].includes(name)),
  },
];

function limited(oracle, steps) {
  const ends = LIMITS.filter((limit) => limit.with(oracle)).map((limit) => limit.at(steps));
  return steps.slice(0, Math.min(steps.length, ...ends.filter((at) => at >= 0)));
}

/** The packets that a step sends. */
function said([name, what]) {
  return name === 'connect' ? ['40'] : name === 'post' ? what : name === 'frame' ? [what] : [];
}

function firstOutOfTurn(steps) {
  let isConnected = false;
  return steps.findIndex((step) => {
    for (const packet of said(step)) {
      if (packet === '40' && isConnected) return true;
      if (packet === '40') isConnected = true;
      if (packet === '41' || (/^4[23]/.test(packet) && !isConnected)) return true;
    }
    return false;
  });
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
    publish: (number) => post(`${url}/apps/app/events?auth_key=${KEY}`, { name: 'told', channel: 'news', data: JSON.stringify(number) }),
    stop: async () => {
      await killed(child);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function startOracle({ program: [command, ...words], isLate }) {
  const child = spawn(command, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = await Promise.race([once(createInterface(child.stdout), 'line'), once(child, 'error').then(([error]) => Promise.reject(error))]);
  return { port, isLate, publish: (number) => post(`http://127.0.0.1:${port}/publish`, number), stop: () => killed(child) };
}

async function post(url, value) {
  const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) });
  assert.equal(answer.status, 200);
  await answer.text();
}

async function killed(child) {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

/** What is seen of a session, step by step. */
async function transcript(server, version, steps) {
  const session = new Session(version, server);
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

/** With Engine.IO 3 clients are connected by the handshake. */
const CONNECTS = [['connect']];
const SUBSCRIBES = [['post', [SUBSCRIBE]]];
const PROBES = [['websocket'], ['frame', '2probe']];

const SCRIPTS = {
  'a session that polls': [...CONNECTS, ...SUBSCRIBES, ['waitingPoll'], ['event', 1], ['event', 2], ['event', 3], ['waitingPoll']],
  'an upgrade': [...CONNECTS, ...SUBSCRIBES, ...PROBES, ['frame', '5'], ['event', 1], ['frame', '1'], ['waitingPoll']],
  'an upgrade with a poll that waits': [...CONNECTS, ...SUBSCRIBES, ['waitingPoll'], ...PROBES, ['event', 1], ['frame', '5'], ['event', 2]],
  'events while it is probed': [...CONNECTS, ...SUBSCRIBES, ...PROBES, ['event', 1], ['waitingPoll'], ['event', 2], ['frame', '5'], ['event', 3]],
  'a probe that closes': [...CONNECTS, ...SUBSCRIBES, ...PROBES, ['closeWebsocket'], ['waitingPoll'], ['event', 1]],
  'a probe that is none': [...CONNECTS, ...SUBSCRIBES, ['websocket'], ['frame', 'garbage'], ['waitingPoll'], ['event', 1]],
  'two polls at a time': [...CONNECTS, ['waitingPoll'], ['waitingPoll'], ['waitingPoll']],
  'a close by post': [...CONNECTS, ['waitingPoll'], ['post', ['1']], ['waitingPoll']],
  'a namespace that is not there': [...CONNECTS, ['post', ['40/other,']], ['waitingPoll']],
  'several packets in a post': [...CONNECTS, ['post', [SUBSCRIBE, '42["nothing"]', SUBSCRIBE]], ['waitingPoll'], ['event', 1]],
  'requests of an unknown session': [['post', ['1']], ['post', ['40']], ['waitingPoll'], ['websocket']],
  'the end of a session that is probed': [...CONNECTS, ['waitingPoll'], ...PROBES, ['post', ['1']], ['frame', '5'], ['waitingPoll']],
  'an ack that nobody waits for': [...CONNECTS, ['post', ['431[1]']], ...SUBSCRIBES, ['waitingPoll'], ['event', 1]],
  'a whole upgrade': [...CONNECTS, ...SUBSCRIBES, ['waitingPoll'], ['event', 1], ['upgrade'], ['event', 2], ['waitingPoll']],
};

/**
 * Ignored by socket.io 2. Not sent: unknown packet types and messages that cannot be parsed, which are ignored here and end the
 * session elsewhere.
 */
const MALFORMED = ['4hello', '42', '42[1]', '43', '430[]', '44', '49'];
const packet = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(SUBSCRIBE, '41', '42["nothing"]', '431[1]', '40/other,', '6', '3', '1') },
  { weight: 1, arbitrary: fc.constantFrom(...MALFORMED) },
);
const step = fc.oneof(
  { weight: 4, arbitrary: fc.constant(['waitingPoll']) },
  // Without duplicates: two answers may arrive in one poll or in two.
  { weight: 4, arbitrary: fc.uniqueArray(packet, { minLength: 1, maxLength: 3 }).map((packets) => ['post', packets]) },
  // Alone: socket.io 4 closes a session that says something in the same payload as CONNECT, which waits for it here.
  { weight: 1, arbitrary: fc.constant(['post', ['40']]) },
  { weight: 3, arbitrary: fc.integer({ min: 0, max: 99 }).map((number) => ['event', number]) },
  { weight: 2, arbitrary: fc.constant(['upgrade']) },
  { weight: 2, arbitrary: fc.constant(['websocket']) },
  { weight: 2, arbitrary: fc.constant(['frame', '2probe']) },
  { weight: 2, arbitrary: fc.constant(['frame', '5']) },
  { weight: 1, arbitrary: packet.map((text) => ['frame', text]) },
  { weight: 1, arbitrary: fc.constant(['closeWebsocket']) },
);
/** Most sessions are those of a client that has subscribed. */
const sessions = fc.tuple(fc.boolean(), fc.array(step, { maxLength: 9 })).map(([isIn, steps]) => (isIn ? [...CONNECTS, ...SUBSCRIBES, ...steps] : steps));

for (const oracle of ORACLES) {
  let ours, theirs;
  before(async () => {
    [ours, theirs] = await Promise.all([startOurs(), startOracle(oracle)]);
  });
  after(() => Promise.all([ours.stop(), theirs.stop()]));

  const { name, version } = oracle;
  const compare = async (all) => {
    const steps = limited(oracle, all);
    const [seen, wanted] = await Promise.all([transcript(ours, version, steps), transcript(theirs, version, steps)]);
    assert.equal(told(seen), told(wanted));
  };

  for (const [title, steps] of Object.entries(SCRIPTS)) {
    test(`Engine.IO ${version}, as ${name}: ${title}`, () => compare(steps));
  }

  test(`Engine.IO ${version}, as ${name}: random sessions`, () =>
    fc.assert(fc.asyncProperty(sessions, compare), { numRuns: RUNS, seed: SEED, endOnFailure: false, includeErrorInReport: true }));
}
