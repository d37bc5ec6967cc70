/**
 * Pages in a real browser: socket.io-client from the echo server, whose origin differs from the
 * page's, or the page's own 2.x; laravel-echo's browser build; real cookies and real CORS.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launchBrowser, Tab } from './lib/browser.mjs';
import { PageServer } from './lib/pages.mjs';
import { Stack } from './lib/stack.mjs';
import { target } from './lib/targets.mjs';

const SETUP = { timeout: 60_000 };
const TEST = { timeout: 60_000 };

const ORDER_EVENT = 'App\\Events\\OrderShipped';

const PAGES = [
  {
    name: 'socket.io.js from the echo server, Echo 2',
    protocol: target.script.protocol,
    scripts: ({ echo }) => ({ socketIoScript: `${echo.url}/socket.io/socket.io.js`, echoScript: '/echo-2.js' }),
  },
  {
    name: "socket.io-client 2's own file, Echo 1",
    protocol: 3,
    scripts: () => ({ socketIoScript: '/socket.io-2.js', echoScript: '/echo-1.js' }),
  },
];

let stack;
let pages;
let browser;

before(async () => {
  stack = await Stack.start({ format: target.configFormats.at(-1) });
  pages = await PageServer.start();
  browser = await launchBrowser();
}, SETUP);

after(async () => {
  await browser?.close();
  await pages?.stop();
  await stack?.stop();
}, SETUP);

/** A browser tab for one test. */
async function openTab(t) {
  const tab = await Tab.open(browser, stack);
  t.after(() => tab.close());
  return tab;
}

for (const { name, protocol, scripts } of PAGES) {
  describe(name, () => {
    /** The address of the page with these options for Echo. */
    const address = (echoOptions) => pages.add({ ...scripts(stack), echoUrl: stack.echo.url, echoOptions });

    test('an event published through Redis appears in the page', TEST, async (t) => {
      const tab = await openTab(t);
      await tab.goto(address({}));
      await tab.shows('protocol', String(protocol));
      await tab.shows('transport', 'websocket'); // upgraded from polling
      await tab.whenDelivering('news');

      await stack.redis.publish('news', ORDER_EVENT, { order: { id: 7, note: 'wörld ✓ <b>' }, socket: null });

      await tab.shows('news', '7: wörld ✓ <b>');
      assert.deepEqual(tab.problems, []);
    });

    test('a long event arrives compressed', TEST, async (t) => {
      const tab = await openTab(t);
      const protocol = await tab.context.newCDPSession(tab.page);
      const extensions = [];
      protocol.on('Network.webSocketHandshakeResponseReceived', ({ response }) => extensions.push(new Headers(response.headers).get('sec-websocket-extensions')));
      await protocol.send('Network.enable');
      await tab.goto(address({ transports: ['websocket'] }));
      await tab.whenDelivering('news');
      const note = 'wörld ✓ <b> '.repeat(1000);

      await stack.redis.publish('news', ORDER_EVENT, { order: { id: 9, note }, socket: null });

      await tab.shows('news', `9: ${note}`);
      assert.deepEqual(extensions, ['permessage-deflate; server_no_context_takeover; client_no_context_takeover']);
      assert.deepEqual(tab.problems, []);
    });

    test('without a session a private channel is refused', TEST, async (t) => {
      const tab = await openTab(t);
      await tab.goto(address({}));

      await tab.shows('refused', 'private-orders.1 403');
    });

    for (const transport of ['websocket', 'polling']) {
      test(`with the session cookie a private event arrives by ${transport}`, TEST, async (t) => {
        const tab = await openTab(t);
        await tab.login('ann');
        await tab.goto(address({ transports: [transport], withCredentials: true }));
        await tab.shows('transport', transport);
        await tab.whenDelivering('private-orders.1');

        const bob = await stack.laravel.login('bob');
        await bob.ship({ id: 8, note: 'from PHP' }, ['private:orders.1']);

        await tab.shows('orders', '8: from PHP');
        assert.equal(await tab.text('transport'), transport);
        assert.equal(await tab.text('refused'), '');
        assert.deepEqual(tab.problems, []);
      });
    }
  });
}
