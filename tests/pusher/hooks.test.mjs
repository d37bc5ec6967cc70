/** Laravel's unmodified hooks for React and Vue, in a page without a browser, with Reverb's broadcaster and with Socket.IO's. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { JSDOM } from 'jsdom';
import { KEY, startAll, until } from './lib.mjs';

const require = createRequire(import.meta.url);
const io = require('socket.io-client');
const TEST = { timeout: 60_000 };

// The libraries check for a page when they are loaded.
const { window } = new JSDOM('<!doctype html><div id="page"></div>', { url: 'http://127.0.0.1/' });
const globals = { window, ...Object.fromEntries(['document', 'navigator', 'Element', 'SVGElement', 'HTMLElement'].map((name) => [name, window[name]])) };
for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true });
const [react, { createRoot }, vue, forReact, forVue] = await Promise.all([
  import('react'), import('react-dom/client'), import('vue'), import('@laravel/echo-react'), import('@laravel/echo-vue'),
]);

const EVENT = '.sent';

/** Shows the events of the channels; returns a function that unmounts the page. */
const PAGES = {
  react(place) {
    const { createElement, useState } = react;
    const { useEcho, useEchoPresence, useEchoPublic } = forReact;
    function Page() {
      const [heard, setHeard] = useState({});
      const note = (name) => ({ n }) => setHeard((before) => ({ ...before, [name]: n }));
      useEchoPublic('news', EVENT, note('news'));
      useEcho('orders', EVENT, note('orders'));
      useEchoPresence('room', EVENT, note('room'));
      return createElement('p', null, JSON.stringify(heard, Object.keys(heard).sort()));
    }
    const root = createRoot(place);
    root.render(createElement(Page));
    return () => root.unmount();
  },
  vue(place) {
    const { createApp, h, reactive } = vue;
    const { useEcho, useEchoPresence, useEchoPublic } = forVue;
    const page = createApp({
      setup() {
        const heard = reactive({});
        const note = (name) => ({ n }) => { heard[name] = n; };
        useEchoPublic('news', EVENT, note('news'));
        useEcho('orders', EVENT, note('orders'));
        useEchoPresence('room', EVENT, note('room'));
        return () => h('p', JSON.stringify(heard, Object.keys(heard).sort()));
      },
    });
    page.mount(place);
    return () => page.unmount();
  },
};
const HOOKS = { react: forReact, vue: forVue };

describe("Laravel's hooks", () => {
  let server;
  let publisher;
  let stop;
  before(async () => ({ server, publisher, stop } = await startAll()), TEST);
  after(() => stop?.(), TEST);

  const auth = { headers: { Authorization: 'Bearer user=1' } };
  const OPTIONS = {
    reverb: () => ({ broadcaster: 'reverb', key: KEY, wsHost: '127.0.0.1', wsPort: server.port, forceTLS: false, enabledTransports: ['ws'], auth, authEndpoint: `http://127.0.0.1:${server.port}/broadcasting/auth` }),
    'socket.io': () => ({ broadcaster: 'socket.io', client: io, host: `http://127.0.0.1:${server.port}`, auth }),
  };
  const counts = async () => {
    const channels = ['news', 'private-orders', 'presence-room'];
    const answers = channels.map(async (name) => (await publisher.get({ path: `/channels/${name}`, params: { info: 'subscription_count' } })).json());
    return (await Promise.all(answers)).map(({ subscription_count: count }) => count);
  };

  for (const [name, page] of Object.entries(PAGES)) {
    for (const [broadcaster, options] of Object.entries(OPTIONS)) {
      test(`${name}, ${broadcaster}: events appear, and an unmounted page leaves its channels`, TEST, async (t) => {
        HOOKS[name].configureEcho(options());
        t.after(() => HOOKS[name].echo().disconnect());
        const place = window.document.body.appendChild(window.document.createElement('div'));
        const takeAway = page(place);
        await until('the subscriptions', async () => (await counts()).every((count) => count === 1));
        await publisher.trigger(['news', 'private-orders', 'presence-room'], 'sent', { n: 7 });
        await until('the events to appear', () => place.textContent === '{"news":7,"orders":7,"room":7}');
        takeAway();
        await until('the channels to be left', async () => (await counts()).every((count) => count === 0));
        assert.equal(place.textContent, '');
      });
    }
  }
});
