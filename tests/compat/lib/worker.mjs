/**
 * A worker of the pool: receives a run as a message, executes it, answers with the outcome
 * { failures, transcript, log, ms }. Ends when the pool disconnects.
 * Arguments: the target file, the range of ports.
 */
import { loadCombo } from './clients.mjs';
import { Context } from './context.mjs';
import { FakeLaravel } from './laravel.mjs';
import { loadScenario } from './plan.mjs';
import { killAll } from './process.mjs';
import { RedisServer } from './redis.mjs';
import { Target } from './target.mjs';
import { TimedOut, usePorts, withTimeout } from './util.mjs';

const [targetFile, ports] = process.argv.slice(2);
usePorts(ports);
process.on('exit', killAll);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));
process.on('disconnect', () => process.exit(0));

const target = new Target(targetFile);
let shared;

/** Redis and Laravel, started with the first run. */
async function services() {
  shared ??= { redis: await RedisServer.start(), laravel: await FakeLaravel.start() };
  return shared;
}

async function execute(run) {
  const scenario = await loadScenario(run.scenario);
  const ctx = new Context({
    ...(await services()),
    target,
    format: run.format,
    transport: run.transport,
    combo: run.combo === '-' ? null : await loadCombo(run.combo),
  });
  const onStray = (error) => ctx.fail('harness', error);
  process.on('unhandledRejection', onStray);
  process.on('uncaughtException', onStray);
  const step = async (label, action) => {
    try {
      await action();
    } catch (error) {
      ctx.fail(label, error);
      if (error instanceof TimedOut) ctx.cancel();
    }
  };
  await step('run', () => {
    const whole = ctx.prepare(scenario).then(() => scenario.run(ctx));
    return withTimeout(whole, scenario.timeout ?? 60_000, 'the scenario as a whole');
  });
  await step('server', () => ctx.checkAlive());
  const log = ctx.server?.text.slice(-4_000);
  await step('cleanup', () => ctx.cleanUp());
  process.off('unhandledRejection', onStray);
  process.off('uncaughtException', onStray);
  return { failures: ctx.failures, transcript: ctx.transcript.toJSON(), log };
}

process.on('message', async (run) => {
  const started = Date.now();
  let outcome;
  try {
    outcome = await execute(run);
  } catch (error) {
    outcome = { failures: [{ check: 'harness', message: error.stack }], transcript: {} };
  }
  process.send({ ...outcome, ms: Date.now() - started });
});
