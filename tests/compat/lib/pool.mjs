/** Distributes the runs over worker processes; each has its own Redis and fake Laravel. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { portRange } from './util.mjs';

const WORKER = fileURLToPath(new URL('./worker.mjs', import.meta.url));

/**
 * Execute `runs`, `jobs` at a time, and call `report(run, outcome)` for each, in the order of
 * `runs`. Resolves to the results of the calls. A worker that dies fails its run and is replaced.
 */
export async function runAll(runs, { targetFile, jobs }, report) {
  const outcomes = new Array(runs.length);
  const results = [];
  const flush = () => {
    while (outcomes[results.length]) results.push(report(runs[results.length], outcomes[results.length]));
  };
  let next = 0;
  const take = () => {
    while (next < runs.length && runs[next].skip) outcomes[next] = nothing(runs[next++].skip);
    flush();
    return next < runs.length ? next++ : -1;
  };
  const work = async (slot) => {
    let worker;
    for (let index = take(); index >= 0; index = take()) {
      worker ??= startWorker(targetFile, slot, jobs);
      outcomes[index] = await worker.execute(runs[index]);
      if (!worker.alive) worker = null;
      flush();
    }
    await worker?.stop();
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(jobs, runs.length)) }, (_, slot) => work(slot)));
  return results;
}

const nothing = (skipped) => ({ skipped, failures: [], transcript: {}, ms: 0 });

function startWorker(targetFile, slot, slots) {
  const child = fork(WORKER, [targetFile, portRange(slot, slots)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const worker = { alive: true };
  const ended = new Promise((resolve) => {
    child.once('exit', (code, signal) => {
      worker.alive = false;
      resolve(signal ?? `exit code ${code}`);
    });
  });
  worker.execute = (run) =>
    Promise.race([
      new Promise((resolve) => {
        child.once('message', resolve);
        child.send(run, () => {}); // a failure to send shows as the end of the worker
      }),
      ended.then((how) => ({
        failures: [{ check: 'harness', message: `the worker process ended (${how}); its output is above` }],
        transcript: {},
        ms: 0,
      })),
    ]);
  worker.stop = () => {
    if (worker.alive) child.disconnect();
    return ended;
  };
  return worker;
}
