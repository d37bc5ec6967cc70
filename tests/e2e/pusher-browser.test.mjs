/**
 * Stock Echo on pusher-js in a real browser that is logged in to Laravel: with Laravel's `pusher` driver, and with its
 * `redis` driver, which cannot sign.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launchBrowser, Tab } from './lib/browser.mjs';
import { PageServer } from './lib/pages.mjs';
import { PUSHER_APP } from './lib/pusher.mjs';
import { Stack } from './lib/stack.mjs';
import { target } from './lib/targets.mjs';

const SETUP = { timeout: 60_000 };
const TEST = { timeout: 60_000 };
const AUTH = '/broadcasting/auth';
const { appId, key, secret } = PUSHER_APP;

let browser;
before(async () => (browser = await launchBrowser()), SETUP);
after(() => browser?.close(), SETUP);

/** With the `redis` driver, this server is asked about presence channels instead of Laravel. */
const DRIVERS = {
  pusher: { start: () => Stack.startWithPusher(), asked: ({ laravel }) => laravel.url, joins: true },
  redis: { start: () => Stack.start({ settings: { clients: [{ appId, key, secret }] } }), asked: ({ laravel }) => laravel.url, joins: false },
  'redis, this server asked by authEndpoint': {
    start: () => Stack.start({ settings: { clients: [{ appId, key, secret }] } }), asked: ({ echo }) => echo.url, joins: true,
  },
};

for (const [driver, { start, asked, joins }] of target.pusherClients.length ? Object.entries(DRIVERS) : []) {
  describe(`Laravel's driver ${driver}`, () => {
    let stack;
    let pages;
    before(async () => {
      stack = await start();
      pages = await PageServer.start({ [AUTH]: asked(stack) });
    }, SETUP);
    after(async () => {
      await pages?.stop();
      await stack?.stop();
    }, SETUP);

    for (const broadcaster of ['pusher', 'reverb']) {
      /** A tab with the page, for a user or a guest. */
      async function openTab(t, user) {
        const tab = await Tab.open(browser, stack);
        t.after(() => tab.close());
        if (user) await tab.login(user);
        await tab.goto(pages.add({ echoUrl: stack.echo.url, key, echoOptions: { broadcaster }, joins: user ? joins : false }, 'pusher.html'));
        return tab;
      }

      test(`${broadcaster}: with the session cookie Laravel's events appear in the page`, TEST, async (t) => {
        const tab = await openTab(t, 'ann');
        await tab.shows('subscribed', 'news orders');
        const bob = await stack.laravel.login('bob');
        await bob.ship({ id: 8, note: 'from PHP ✓' }, ['public:news', 'private:orders.1']);
        for (const id of ['news', 'orders']) await tab.shows(id, '8: from PHP ✓');
        assert.equal(await tab.text('refused'), '');
        if (joins) {
          await tab.shows('here', 'Ann');
          const other = await openTab(t, 'bob');
          for (const each of [tab, other]) await each.shows('here', 'Ann, Bob');
          await other.close();
          await tab.shows('here', 'Ann');
        }
        assert.deepEqual(tab.problems, []);
      });

      test(`${broadcaster}: a guest gets only public events`, TEST, async (t) => {
        const tab = await openTab(t);
        await tab.shows('refused', 'orders 403');
        await tab.shows('subscribed', 'news');
      });
    }
  });
}
