/**
 * Without Redis: a real Laravel broadcasts directly to the server (redisServer), through the connection `echo` in its
 * config/database.php. The probes that detect whether a channel was joined are published with ioredis.
 */
import { after, before, describe, test } from 'node:test';
import { allWaysArrive } from './lib/all-ways.mjs';
import { EchoClient } from './lib/clients.mjs';
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
      await allWaysArrive(await connect(t, 'ann'), await connect(t, 'bob'));
    });
  });
}
