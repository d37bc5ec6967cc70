/**
 * Step 3 of the README as it stands there, in a real browser, with a real Laravel: what a newcomer pastes works.
 * The browser finds the server's port behind the one that the README names.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { launchBrowser, Tab } from './lib/browser.mjs';
import { PageServer } from './lib/pages.mjs';
import { Stack } from './lib/stack.mjs';
import { target } from './lib/targets.mjs';
import { until } from './lib/wait.mjs';

const SETUP = { timeout: 60_000 };
const TEST = { timeout: 60_000 };

/** The first block of JavaScript below "Use it with Laravel". */
function snippet() {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
  const [, block] = /## Use it with Laravel[^]*?```js\n([^]*?)```/.exec(readme);
  return block;
}

const IMPORTS = { 'laravel-echo': '/laravel-echo.mjs', 'socket.io-client': '/socket.io-client.mjs' };

/** A page as a bundler would make it. */
const page = (script) => `<!doctype html><link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>
<script type="module">${script}</script>`;

// The original serves no socket.io-client 4.
const ours = process.env.TARGET === 'original' ? () => {} : test;

let stack;
let pages;
let browser;

before(async () => {
  stack = await Stack.start({ format: target.configFormats.at(-1) });
  pages = await PageServer.start();
  const { port } = new URL(stack.echo.url);
  browser = await launchBrowser(`--host-resolver-rules=MAP *:6001 127.0.0.1:${port}`);
}, SETUP);

after(async () => {
  await browser?.close();
  await pages?.stop();
  await stack?.stop();
}, SETUP);

/** A tab of Ann's with the page in it, which joins a private channel by `window.Echo`. */
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
  const { tab, logged } = await open(t, snippet());
  const bob = await stack.laravel.login('bob');
  const circumstances = () => `${tab.problems.join('\n')}\n${stack.echo.log}`;
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
  const script = snippet();
  const without = script.replace(/^.*withCredentials.*\n/m, '');
  assert.notEqual(without, script);
  const { tab } = await open(t, without);
  await until(
    async () => (await tab.page.evaluate(() => window.refused)) === 'private-orders.1 403',
    () => `the private channel to be refused; ${stack.echo.log}`,
  );
  assert.match(stack.echo.log, /set withCredentials: true/);
});
