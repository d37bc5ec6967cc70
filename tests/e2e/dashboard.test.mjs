/** The dashboard in a real browser, with a real Laravel that broadcasts and authorizes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { launchBrowser } from './lib/browser.mjs';
import { EchoClient } from './lib/clients.mjs';
import { Stack } from './lib/stack.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const SETUP = { timeout: 60_000 };
const TEST = { timeout: 90_000 };
const PASSWORD = 'a password of the tests';
const CLIENT = 'echo 2, socket.io 4';
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const isOriginal = process.env.TARGET === 'original';

// The original has no dashboard.
describe('the dashboard', { skip: isOriginal }, () => {
  let stack;
  let browser;

  before(async () => {
    stack = await Stack.start({ settings: {
      devMode: false,
      dashboard: { enabled: true, password: PASSWORD, actions: true },
      limits: { subscriptions: 20_000, subscribesPerSecond: 100_000, clientQueue: 100_000 },
    } });
    browser = await launchBrowser();
  }, SETUP);

  after(async () => {
    await browser?.close();
    await stack?.stop();
  }, SETUP);

  /** A page with its own cookies; any error in it fails the test. */
  async function open(t, { path = '', signIn = true, ...options } = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    context.setDefaultTimeout(DEADLINE_MS);
    const page = await context.newPage();
    page.problems = [];
    page.on('pageerror', (error) => page.problems.push(String(error)));
    page.on('console', (message) => {
      // The request for the current session is answered 401, which the browser logs as an error.
      if (message.type() === 'error' && !message.location().url.endsWith('/dashboard/session')) page.problems.push(message.text());
    });
    t.after(async () => {
      await context.close();
      assert.deepEqual(page.problems, []);
    });
    await page.goto(`${stack.echo.url}/dashboard${path}`);
    if (signIn) {
      await page.getByLabel('Password, key or token').fill(PASSWORD);
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.locator('#link.live').waitFor();
    }
    return page;
  }

  async function connect(t, user) {
    const visitor = user ? await stack.laravel.login(user) : await stack.laravel.guest();
    const client = await EchoClient.connect(CLIENT, stack, visitor);
    t.after(() => client.close());
    return client;
  }

  /** axe's findings for the current state of the page. */
  async function findings(page) {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`);
  }

  test('a wrong password opens nothing', TEST, async (t) => {
    const page = await open(t, { signIn: false });
    await page.getByLabel('Password, key or token').fill('wrong');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').getByText('does not open the dashboard').waitFor();
    assert.equal(await page.locator('#app').isVisible(), false);
    await page.getByLabel('Password, key or token').fill(PASSWORD);
    await page.keyboard.press('Enter');
    await page.locator('#link.live').waitFor();
    await page.reload();
    await page.locator('#link.live').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Password, key or token').waitFor();
    await page.reload();
    await page.getByLabel('Password, key or token').waitFor();
  });

  test('the trace shows an event of Laravel, and why a subscribe was refused', TEST, async (t) => {
    const page = await open(t);
    const ann = await connect(t, 'ann');
    const shipped = await ann.listen(ann.echo.private('orders.77'), 'OrderShipped');
    await ann.visitor.ship({ id: 7, note: '<b>not bold</b>' }, ['private:orders.77']);
    await shipped.next();

    const event = page.locator('#trace [data-kind=event]', { hasText: 'OrderShipped' }).first();
    await event.getByText('delivered to 1').waitFor();
    await event.getByTitle('Show the data').click();
    await event.getByText('<b>not bold</b>').waitFor();
    await page.locator('#trace [data-kind=granted]', { hasText: 'private-orders.77' }).first().getByText('Laravel said yes').waitFor();

    const guest = await connect(t);
    guest.echo.private('orders.78').listen('OrderShipped', () => {});
    const refused = page.locator('#trace [data-kind=refused]', { hasText: 'private-orders.78' }).first();
    await refused.getByText('status 403').waitFor();
    await refused.getByText('fits this name').waitFor();
    const text = await page.locator('#trace').textContent();
    assert.doesNotMatch(text, /laravel_session|XSRF|Bearer/);

    assert.equal((await fetch(`${stack.echo.url}/apps/nobody/events`, { method: 'POST', body: '{}' })).ok, false);
    await page.locator('#trace [data-kind=dropped]', { hasText: 'Unauthorized' }).first().getByText('reached no client').waitFor();

    await page.evaluate((id) => (location.hash = `who/${id}`), ann.socketId);
    await page.locator('#found tr', { hasText: 'private-orders.77' }).getByText("Laravel's answer").waitFor();
    await page.getByRole('tab', { name: 'Trace' }).click();

    await page.getByLabel('Channel', { exact: true }).first().fill('orders.78');
    await page.locator('#trace [data-kind=granted]').first().waitFor({ state: 'detached' });
    await refused.waitFor();
  });

  test('an event that went to nearly the right channel is explained', TEST, async (t) => {
    const page = await open(t);
    const guest = await connect(t);
    await guest.listen(guest.echo.channel('offers'), 'OrderShipped');
    await guest.visitor.ship({ id: 1 }, ['public:Offers']);
    const event = page.locator('#trace [data-kind=event]', { hasText: 'Offers' }).first();
    await event.getByText('case sensitive').waitFor();

    await page.getByRole('tab', { name: 'Why not arrived?' }).click();
    const form = page.locator('#ask');
    await form.getByLabel('Channel').fill('Offers');
    await form.getByLabel('Event').fill('OrderShipped');
    await page.keyboard.press('Enter');
    await page.locator('#findings .wrong').getByText('but some are in "offers"').waitFor();
    // It updates live.
    await form.getByLabel('Channel').fill('later');
    await page.keyboard.press('Enter');
    await page.locator('#findings .wrong').getByText('no client is subscribed to "later"').waitFor();
    await guest.listen(guest.echo.channel('later'), 'OrderShipped');
    await guest.visitor.ship({ id: 1 }, ['public:later']);
    await page.locator('#findings .fine').getByText("listen('OrderShipped'").waitFor();
    // The checks of doctor, with the real Laravel and the real Redis.
    await page.locator('#checks .fine').getByText('to an unknown channel, as it should').waitFor();
    await page.locator('#checks .fine').getByText(`redis: 127.0.0.1:${stack.redis.port} answers`).waitFor();
  });

  test('a page of another origin cannot act for a signed-in user', TEST, async (t) => {
    const page = await open(t);
    const guest = await connect(t);
    await guest.listen(guest.echo.channel('quiet'), 'OrderShipped');
    // On another port of this machine, which cookies do not distinguish.
    const other = await page.context().newPage();
    await other.goto(`${stack.laravel.url}/me`);
    const event = JSON.stringify({ channel: 'quiet', name: 'said', data: 'stolen' });
    const reach = (path, options) => other.evaluate(([url, init]) => fetch(url, { credentials: 'include', ...init }).then(() => 'read', () => 'refused'), [`${stack.echo.url}/dashboard/${path}`, options]);
    // Nor may it read the response.
    assert.equal(await reach('api/event', { method: 'POST', mode: 'no-cors', headers: { 'Content-Type': 'text/plain' }, body: event }), 'refused');
    assert.equal(await reach('api/event', { method: 'POST', headers: { 'X-Dashboard': '1' }, body: event }), 'refused');
    assert.equal(await reach('api/channels', {}), 'refused');
    const form = other.waitForResponse((response) => response.url().endsWith('/dashboard/api/act'));
    await other.evaluate((url) => {
      const element = Object.assign(document.createElement('form'), { method: 'POST', action: url, enctype: 'text/plain' });
      element.append(Object.assign(document.createElement('input'), { name: '{"do":"closeUser","user":"1","x":"', value: '"}' }));
      document.body.append(element);
      element.submit();
    }, `${stack.echo.url}/dashboard/api/act`);
    assert.equal((await form).status(), 403);
    // If an earlier request had had an effect, it would be in the trace by now.
    await guest.visitor.ship({ id: 1 }, ['public:quiet']);
    await page.locator('#trace [data-kind=event]', { hasText: 'OrderShipped on quiet' }).first().waitFor();
    assert.equal(await page.locator('#trace [data-kind=event]', { hasText: 'said on quiet' }).count(), 0);
  });

  test('a test event reaches clients, and a member can be kicked', TEST, async (t) => {
    const page = await open(t);
    const ann = await connect(t, 'ann');
    const room = ann.echo.join('chat.9');
    const said = ann.record('a test event', (callback) => room.listen('.said', callback));
    await ann.whenDelivering('presence-chat.9');

    await page.getByRole('tab', { name: 'Send an event' }).click();
    const form = page.locator('#send');
    await form.getByLabel('Channel').fill('presence-chat.9');
    await form.getByLabel('Event').fill('said');
    await form.getByLabel('Data (JSON)').fill('{"text": oops}');
    await form.getByRole('button', { name: 'Send' }).click();
    await page.getByText('The data is not JSON').waitFor();
    await form.getByLabel('Data (JSON)').fill('{"text":"hello"}');
    await form.getByRole('button', { name: 'Send' }).click();
    assert.deepEqual(await said.next(), { text: 'hello' });
    await page.getByRole('button', { name: 'See it in the trace' }).click();
    await page.locator('#trace [data-kind=event]', { hasText: 'said' }).first().getByText('delivered to 1').waitFor();

    await page.locator('#trace').getByRole('button', { name: 'presence-chat.9' }).first().click();
    await page.locator('#channel').getByText('1 user').waitFor();
    const kick = page.locator('#channel tr', { hasText: 'Ann' }).getByRole('button');
    await kick.filter({ hasText: 'Kick' }).click();
    await page.locator('#channel').getByRole('button', { name: 'Kick out?' }).click();
    assert.equal(await ann.refusal('presence-chat.9'), 403);
    await page.getByText('1 socket of user 1 taken out.').waitFor();
  });

  test('10,000 channels are listed, found and scrolled with a few rows in the page', TEST, async (t) => {
    const COUNT = 10_000;
    const guest = await connect(t);
    for (let n = 0; n < COUNT; n += 1) guest.socket.emit('subscribe', { channel: `stock.${n}`, auth: { headers: {} } });
    const page = await open(t, { path: '#channels' });
    await until(async () => Number((await page.locator('#search-count').textContent()).replace(/\D/g, '')) >= COUNT, 'all channels to be listed');
    assert.ok((await page.locator('#channels .row').count()) < 100);

    const slowest = await page.evaluate(async () => {
      const list = document.getElementById('channels');
      let last = performance.now();
      let longest = 0;
      for (let step = 1; step <= 60; step += 1) {
        list.scrollTop = (list.scrollHeight * step) / 60;
        await new Promise(requestAnimationFrame);
        longest = Math.max(longest, performance.now() - last);
        last = performance.now();
      }
      return longest;
    });
    t.diagnostic(`the longest frame took ${Math.round(slowest)} ms`);
    // A table that holds all rows takes seconds; a busy machine some hundred milliseconds.
    assert.ok(slowest < 1000, `a frame took ${slowest} ms`);
    await until(async () => (await page.locator('#channels .row').last().getAttribute('aria-posinset')) === (await page.locator('#channels .row').last().getAttribute('aria-setsize')), 'the last row');

    await page.getByLabel('Search').fill('stock.4711');
    await page.locator('#channels .row').getByText('stock.4711').click();
    await page.locator('#channel h2').getByText('stock.4711').waitFor();
    await page.getByLabel('Search').fill('stock.');
    await page.locator('#channels').focus();
    await page.keyboard.press('Home');
    await page.keyboard.press('ArrowDown');
    await page.locator('#channels .row[aria-selected=true]').waitFor();
    await page.locator('#channel h2').getByText('stock.1', { exact: true }).waitFor();
  });

  for (const [name, options] of [
    ['light', {}],
    ['dark', { colorScheme: 'dark' }],
    ['on a phone', { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }],
  ]) {
    test(`axe finds nothing in any view, ${name}`, TEST, async (t) => {
      const ann = await connect(t, 'ann');
      ann.echo.join('chat.5');
      await ann.whenDelivering('presence-chat.5');
      const guest = await connect(t);
      guest.echo.private('orders.79');
      const page = await open(t, options);
      await page.locator('#trace [data-kind=event]').first().waitFor();
      for (const view of ['trace', 'channels/presence-chat.5', `who/${ann.socketId}`, 'why', 'send']) {
        await page.evaluate((hash) => (location.hash = hash), view);
        if (view.startsWith('channels')) await page.locator('#channel table').first().waitFor();
        if (view.startsWith('who')) await page.locator('#found table').waitFor();
        if (view === 'why') {
          await page.locator('#ask').getByLabel('Channel').fill('orders.79');
          await page.keyboard.press('Enter');
          await page.locator('#findings li').first().waitFor();
        }
        // Waits until the highlight of new rows has faded.
        await page.waitForFunction(() => document.getAnimations().length === 0);
        assert.deepEqual(await findings(page), [], view);
        const width = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.equal(width, 0, `${view} is wider than the screen`);
        if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name.replaceAll(' ', '-')}-${view.split('/')[0]}.png` });
      }
      await page.getByRole('button', { name: 'Sign out' }).click();
      await page.getByLabel('Password, key or token').waitFor();
      assert.deepEqual(await findings(page), [], 'sign-in');
      if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name.replaceAll(' ', '-')}-door.png` });
    });
  }
});
