#!/usr/bin/env node
// A soak test: all kinds of clients connect and disconnect, some stop reading, Redis and the application go down and come back,
// while other clients stay and check that no event is lost. Reports what is left when all have gone.
//
//   cd tests/compat && npm ci && cd ../..
//   cargo build --release && node bench/soak.mjs [minutes: 30]
//
// Needs redis-server. ECHO_BIN overrides target/release/laravel-echo-server. Three rounds, of a tenth, four tenths and half
// of the time; after each all clients leave. Exit status 1 if something is wrong: an event lost, duplicated or out of order,
// a client disconnected, connections or members left over, memory that grows from round to round, or an unexpected
// log line.

import { sleep, until } from '../tests/compat/lib/util.mjs';
import { Stack } from './soak/stack.mjs';
import { Counts, Round } from './soak/traffic.mjs';

const minutes = Number(process.argv[2] ?? 30);
if (!(minutes > 0)) throw new Error('usage: soak.mjs [minutes]');
const ROUNDS = [0.1, 0.4, 0.5];
/** Memory after the last round may exceed that after the first by this factor and this many MB, for the allocator. */
const GROWTH = { factor: 1.25, extra: 8 };
/** Connections to the application and to Redis that may be kept open for reuse. */
const IDLE = 20;
/** Time for dead clients to be detected, and for the allocator to return memory. */
const REST = 15_000;

const findings = new Counts();
const counts = new Counts();
const table = [];

function note(when, most) {
  const { rss, files } = stack.usage();
  table.push({ when, rss, files, most });
  console.error(`${new Date().toISOString().slice(11, 19)} ${when}: ${rss.toFixed(1)} MB, ${files} open files`);
}

/** Waits until no client is left, and reports what is. */
async function rest(name) {
  const left = async () => {
    const metrics = await stack.metrics();
    const names = ['connections', 'subscriptions', 'presence_members', 'auth_callbacks_in_flight'];
    const here = names.filter((what) => metrics[what] !== 0).map((what) => `${metrics[what]} ${what}`);
    const channels = Object.keys(JSON.parse(await stack.get('/apps/app/channels')).channels).length;
    return [...here, ...(channels ? [`${channels} channels`] : []), ...(await stack.keysLeft())];
  };
  let last = [];
  await until(async () => (last = await left()).length === 0, 'everybody to be gone', 60_000, 250).catch(() => {
    last.forEach((what) => findings.add(`left over after ${name}: ${what}`));
  });
  await sleep(REST);
}

const stack = await Stack.start(process.env.ECHO_BIN ?? 'target/release/laravel-echo-server');
const started = Date.now();
let most = 0;
const watch = setInterval(() => {
  most = Math.max(most, stack.exit === undefined ? stack.usage().rss : 0);
}, 500);
try {
  note('at the start, nobody there');
  for (const [index, share] of ROUNDS.entries()) {
    most = 0;
    await new Round(stack, findings, counts).run(share * minutes * 60_000);
    await rest(`round ${index + 1}`);
    note(`after ${Math.round(((Date.now() - started) / 60_000) * 10) / 10} minutes, all gone`, most);
  }
  const [before, after] = [table[1], table.at(-1)];
  if (after.rss > before.rss * GROWTH.factor + GROWTH.extra) findings.add(`memory grows: ${before.rss.toFixed(1)} to ${after.rss.toFixed(1)} MB`);
  if (after.files > before.files + IDLE) findings.add(`open files grow: ${before.files} to ${after.files}`);
} catch (error) {
  findings.add(`the soak itself: ${error.stack}`);
}
clearInterval(watch);
if (stack.exit !== undefined) findings.add(`the server ended with ${stack.exit}`);
const seconds = (Date.now() - started) / 1000;
const cpu = stack.exit === undefined ? stack.usage().cpu : NaN;
const metrics = await stack.metrics().catch(() => ({}));
const status = await stack.stop();
if (status !== 0) findings.add(`the server's exit status is ${status}`);
stack.surprises.forEach((line) => findings.add(`in the log: ${line}`, stack.log.get(line)));

const list = (entries) => [...entries].sort().map(([what, count]) => `- ${what}: ${count}`).join('\n') || '- none';
console.log('| when | memory | most before | open files |\n|---|---|---|---|');
for (const { when, rss, most: peak, files } of table) {
  console.log(`| ${when} | ${rss.toFixed(1)} MB | ${peak ? `${peak.toFixed(1)} MB` : ''} | ${files} |`);
}
console.log(`\nThe server used ${((cpu / seconds) * 100).toFixed(0)} % of a core; ${metrics.connects_total} clients connected.`);
console.log(`\nDone:\n${list(counts)}\n- callbacks to the application: ${stack.app.callbacks}`);
console.log(`\nLog, WARN and above:\n${list(stack.log)}`);
console.log(`\nWrong:\n${list(findings)}`);
process.exit(findings.size ? 1 : 0);
