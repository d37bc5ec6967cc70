#!/usr/bin/env node
/**
 * What it costs when real clients with Echo's default options connect: some binaries beside each other, to compare before and after.
 *
 *   (cd tests/compat && npm ci) && node bench/connecting.mjs BEFORE AFTER original
 *
 * Input: paths of binaries, and `original` for laravel-echo-server 1.6.3; CLIENTS (1000) and ROUNDS (5) from the environment;
 * redis-server. Output: a Markdown table of medians. All servers run at once and clients come to them in turns, so the machine's speed
 * is the same for all: a binary differs from itself by 2 %, where runs one after the other differ by 30 %.
 */
import { readdirSync, readFileSync } from 'node:fs';

import { connectClient, pause, startEcho, startRedis } from './lib/servers.mjs';

const PROGRAMS = process.argv.slice(2);
const CLIENTS = Number(process.env.CLIENTS ?? 1000);
const ROUNDS = Number(process.env.ROUNDS ?? 5);
/** Clients that connect at the same time. */
const CROWD = 50;
const SETTLE_MS = 500;

/** CPU time of all threads of a process so far, in microseconds. */
function cpu(pid) {
  const nanoseconds = (task) => Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]);
  return readdirSync(`/proc/${pid}/task`).reduce((sum, task) => sum + nanoseconds(task), 0) / 1000;
}

const crowd = (server) => Promise.all(Array.from({ length: CROWD }, () => connectClient(server, ['polling', 'websocket'], true)));

/** CPU µs per client of each program. */
async function round() {
  const redis = await startRedis();
  const servers = await Promise.all(PROGRAMS.map((program) => startEcho(program, redis.port)));
  for (const server of servers) await crowd(server);
  await pause(SETTLE_MS);
  const before = servers.map(({ pid }) => cpu(pid));
  for (let turn = 0; turn < CLIENTS / CROWD; turn++) {
    for (const server of turn % 2 ? servers.toReversed() : servers) await crowd(server);
  }
  await pause(SETTLE_MS);
  const costs = servers.map(({ pid }, index) => (cpu(pid) - before[index]) / CLIENTS);
  await Promise.all([...servers, redis].map((process) => process.stop()));
  return costs;
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

if (PROGRAMS.length === 0) {
  console.error('usage: bench/connecting.mjs BINARY... [original]');
  process.exit(2);
}
const rounds = [];
while (rounds.length < ROUNDS) rounds.push(await round());
console.log('| | CPU µs per client | of the first |\n|---|---|---|');
PROGRAMS.forEach((program, index) => {
  const cost = median(rounds.map((costs) => costs[index]));
  const ratio = median(rounds.map((costs) => costs[index] / costs[0]));
  console.log(`| ${program} | ${cost.toFixed(0)} | ${ratio.toFixed(2)} |`);
});
process.exit(0);
