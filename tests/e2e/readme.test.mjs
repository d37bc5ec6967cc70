/**
 * The README's steps 0 to 3, taken from it verbatim, in a project of Debian's Laravel 8 and a real browser: what a newcomer types
 * and pastes works. Three things differ: `npm i` finds its packages on this machine instead of downloading them, the server has a
 * free port behind the 6001 that the README names, and the commands for Laravel 11 and later are not run, since Debian has no
 * such version.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { launchBrowser, Tab } from './lib/browser.mjs';
import { LaravelApp } from './lib/laravel.mjs';
import { PageServer } from './lib/pages.mjs';
import { onFreePort } from './lib/process.mjs';
import { Project } from './lib/project.mjs';
import { steps } from './lib/readme.mjs';
import { RedisServer } from './lib/redis.mjs';
import { until } from './lib/wait.mjs';

const SETUP = { timeout: 60_000 };
const TEST = { timeout: 60_000 };

const IMPORTS = { 'laravel-echo': '/laravel-echo.mjs', 'socket.io-client': '/socket.io-client.mjs' };

/** A page as a bundler would build it. */
const page = (script) => `<!doctype html><link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>
<script type="module">${script}</script>`;

// The original does not serve socket.io-client 4.
const ours = process.env.TARGET === 'original' ? () => {} : test;

const started = [];
let project;
let stack;
let pages;
let browser;

/** Steps 0 to 2. */
async function follow() {
  const redis = await RedisServer.start();
  started.unshift(redis);
  project = Project.make(redis.port);
  for (const command of steps.install) await project.type(command);
  for (const { file, edit } of steps.edits) project.change(file, edit);
  const laravel = await LaravelApp.start({ app: project.folder });
  started.unshift(laravel);
  const queue = project.run(steps.queue);
  started.unshift(queue);
  const [init, start, ...more] = steps.server;
  assert.deepEqual(more, []);
  const echo = await onFreePort(async (port) => {
    const answers = [[/Port to listen on/, port], [/Address of the Laravel application/, laravel.url], [/Overwrite it/, 'y']];
    const said = await project.type(init, answers);
    const child = await project.run(start).whenReady(({ output }) => /Server ready!/.test(output));
    return { child, said, url: `http://127.0.0.1:${port}`, get log() { return child.output; } };
  });
  started.unshift(echo.child);
  return { redis, laravel, queue, echo };
}

before(async () => {
  if (process.env.TARGET === 'original') return;
  stack = await follow();
  pages = await PageServer.start();
  const { port } = new URL(stack.echo.url);
  browser = await launchBrowser(`--host-resolver-rules=MAP *:6001 127.0.0.1:${port}`);
}, SETUP);

after(async () => {
  await browser?.close();
  await pages?.stop();
  for (const part of started) await part.stop();
  project?.remove();
}, SETUP);

/** A tab of Ann's with the page, which joins a private channel through `window.Echo`. */
async function open(t, script) {
  const tab = await Tab.open(browser, stack);
  t.after(() => tab.close());
  const logged = [];
  tab.page.on('console', (message) => message.type() === 'log' && logged.push(message.text()));
  await tab.login('ann');
  await tab.goto(pages.addHtml(page(script)));
  await tab.page.waitForFunction(() => window.Echo);
  await tab.page.evaluate(() => {
    window.orders = [];
    window.Echo.connector.socket.on('subscription_error', (channel, status) => (window.refused = `${channel} ${status}`));
    window.Echo.private('orders.1').listen('OrderShipped', ({ order }) => window.orders.push(order.note));
  });
  return { tab, logged };
}

ours('public and private events arrive, with nothing but what the README says', TEST, async (t) => {
  const { tab, logged } = await open(t, steps.snippet);
  const bob = await stack.laravel.login('bob');
  const circumstances = () => `${tab.problems.join('\n')}\n${stack.echo.log}\n${stack.queue.output}`;
  await until(
    async () => {
      await bob.ship({ id: 8, note: 'from PHP' }, ['private:orders.1', 'public:news']);
      return (await tab.page.evaluate(() => window.orders.length > 0)) && logged.length > 0;
    },
    () => `the order to arrive on both channels; ${circumstances()}`,
  );
  assert.equal(await tab.page.evaluate(() => window.refused), undefined);
  assert.deepEqual(tab.problems, []);
  assert.match(logged[0], /order/);
});

ours('without withCredentials the private channel is refused, and the log says why', TEST, async (t) => {
  const script = steps.snippet;
  const without = script.replace(/^.*withCredentials.*\n/m, '');
  assert.notEqual(without, script);
  const { tab } = await open(t, without);
  await until(
    async () => (await tab.page.evaluate(() => window.refused)) === 'private-orders.1 403',
    () => `the private channel to be refused; ${stack.echo.log}`,
  );
  assert.match(stack.echo.log, /set withCredentials: true/);
});

ours('init took what the project says, and doctor finds nothing to mend', TEST, async () => {
  assert.match(stack.echo.said, /databaseConfig\.redis\.keyPrefix = first_shop_database_ \(APP_NAME in \.env\)/);
  assert.match(stack.echo.said, new RegExp(`databaseConfig\\.redis\\.port = ${stack.redis.port} `));
  assert.match(readFileSync(path.join(project.folder, 'laravel-echo-server.toml'), 'utf8'), /^keyPrefix = "first_shop_database_"$/m);
  assert.match(await project.type(`${steps.doctor} --listen 0`), /problems: 0/);
});

ours('npm i put both packages where a bundler looks for them', TEST, () => {
  for (const name of Object.keys(IMPORTS)) {
    const { version } = JSON.parse(readFileSync(path.join(project.folder, 'node_modules', name, 'package.json'), 'utf8'));
    assert.match(version, /^\d+\./, name);
  }
});
