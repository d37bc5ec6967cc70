import { until } from '../lib/util.mjs';

export const name = 'stop-clients';
export const requires = ['ours'];
export const server = 'manual';
export const transports = ['websocket', 'polling', 'upgrade'];

/** A server that is told to stop exits soon, with status 0; its clients reconnect to the next one on their own. */
export async function run(ctx) {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    await ctx.check(signal, async () => {
      const first = await ctx.start();
      const alice = await ctx.client(`alice ${signal}`, { user: 'alice' });
      const bob = await ctx.client(`bob ${signal}`, { user: 'bob' });
      for (const client of [alice, bob]) {
        client.join('room', '.sent');
        await client.event('presence-room', 'here');
      }
      first.signal(signal);
      await until(() => !first.alive, 'the server to end');
      ctx.assert.deepEqual(first.exit, { code: 0, signal: null });

      await ctx.start();
      for (const client of [alice, bob]) await until(() => client.connections.length === 2, `${client.name} to connect again`);
      await ctx.subscribed('presence-room', 2);
      await ctx.publish('presence-room', 'sent', { signal });
      for (const client of [alice, bob]) {
        ctx.assert.deepEqual(await client.event('presence-room', '.sent'), { signal });
        client.close();
      }
      await ctx.server.stop();
    });
  }
}
