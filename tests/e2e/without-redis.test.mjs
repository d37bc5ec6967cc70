/**
 * No Redis anywhere: a real Laravel broadcasts straight to the server (redisServer), through the connection `echo` of
 * its config/database.php. The probes that find out whether a channel was joined come from ioredis.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { EchoClient } from './lib/clients.mjs';
import { USERS } from './lib/laravel.mjs';
import { Stack } from './lib/stack.mjs';
import { target } from './lib/targets.mjs';

const SETUP = { timeout: 60_000 };
const TEST = { timeout: 60_000 };

const [name] = target.clients;

for (const redisClient of target.endpointClients) {
  describe(`Laravel with ${redisClient} and no Redis`, () => {
    let stack;
    before(async () => (stack = await Stack.startWithoutRedis({ redisClient, format: 'toml' })), SETUP);
    after(() => stack?.stop(), SETUP);

    async function connect(t, user) {
      const client = await EchoClient.connect(name, stack, await stack.laravel.login(user));
      t.after(() => client.close());
      return client;
    }

    test('events, toOthers() and notifications arrive', TEST, async (t) => {
      const ann = await connect(t, 'ann');
      const bob = await connect(t, 'bob');
      const anns = await ann.listen(ann.echo.private('orders.1'), 'OrderShipped');
      const bobs = await bob.listen(bob.echo.private('orders.1'), 'OrderShipped');
      const own = `App.Models.User.${USERS.bob.id}`;
      const notified = bob.record('a notification', (callback) => bob.echo.private(own).notification(callback));
      await bob.whenDelivering(`private-${own}`);

      const { socketId } = ann;
      await ann.visitor.ship({ id: 1, note: 'wörld ✓' }, ['private:orders.1', 'public:news'], { others: true, socketId });
      await ann.visitor.ship({ id: 2 }, ['private:orders.1'], { socketId });
      await ann.visitor.post(`/notify/${USERS.bob.id}`);

      assert.deepEqual(await bobs.next(), { order: { id: 1, note: 'wörld ✓' }, socket: socketId });
      assert.deepEqual(await anns.next(), { order: { id: 2 }, socket: null });
      assert.equal(anns.all.length, 1);
      assert.equal((await notified.next()).hello, 'wörld ✓');
    });
  });
}
