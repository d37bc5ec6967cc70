/** npm's `pusher` verifies deliveries of webhooks. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { application, freePort, KEY, publisherTo, startServer, until } from './lib.mjs';

const require = createRequire(import.meta.url);
const Client = require('pusher-js-8');

test('npm’s pusher accepts deliveries as valid and reads their events', { timeout: 60_000 }, async (t) => {
  const publisher = publisherTo(await freePort());
  const webhooks = [];
  const receiver = createServer((request, response) => {
    let rawBody = '';
    request.on('data', (chunk) => (rawBody += chunk));
    request.on('end', () => {
      webhooks.push(publisher.webhook({ headers: request.headers, rawBody }));
      response.end();
    });
  });
  await new Promise((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  const app = await application();
  const url = `http://127.0.0.1:${receiver.address().port}/`;
  const events = ['channel_occupied', 'channel_vacated', 'member_added', 'member_removed', 'client_event', 'connected'];
  const server = await startServer({ authHost: app.url, webhooks: [{ url, appId: 'app', events }], webhooksDelivery: { grace: 0 } });
  t.after(async () => {
    await server.stop();
    app.stop();
    receiver.closeAllConnections();
    receiver.close();
  });
  const client = new Client(KEY, {
    wsHost: '127.0.0.1', wsPort: server.port, cluster: 'mt1', forceTLS: false, enabledTransports: ['ws'], disableStats: true,
    authorizer: (channel) => ({
      authorize: (socketId, callback) => callback(null, publisher.authorizeChannel(socketId, channel.name, { user_id: '7' })),
    }),
  });
  const told = () => webhooks.flatMap((webhook) => webhook.getEvents());
  const names = () => told().map(({ name }) => name);
  const channel = client.subscribe('presence-room');
  await until('member_added', () => names().includes('member_added'));
  channel.trigger('client-typing', { at: 1 });
  await until('client_event', () => names().includes('client_event'));
  client.disconnect();
  await until('channel_vacated', () => names().includes('channel_vacated'));

  assert.ok(webhooks.every((webhook) => webhook.isValid()));
  assert.ok(webhooks.every((webhook) => webhook.getTime() instanceof Date));
  assert.deepEqual(told().filter(({ channel }) => channel === '').map(({ name }) => name), ['connected']);
  assert.deepEqual(told().filter(({ channel }) => channel !== '').map(({ name }) => name), ['channel_occupied', 'member_added', 'client_event', 'member_removed', 'channel_vacated']);
  assert.deepEqual(told().filter(({ user_id }) => user_id).map(({ user_id }) => user_id), ['7', '7', '7']);
  assert.equal(told().find(({ name }) => name === 'client_event').data, '{"at":1}');
  const forged = publisher.webhook({ headers: { 'x-pusher-key': KEY, 'x-pusher-signature': 'x', 'content-type': 'application/json' }, rawBody: '{}' });
  assert.ok(!forged.isValid());
});
