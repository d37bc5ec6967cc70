import { until } from '../lib/util.mjs';

export const name = 'seed-socketio-1';
export const clients = ['e1s1'];
export const transports = ['websocket', 'polling', 'upgrade'];

/** socket.io-client 1.7 with Echo 1, as on sites that were never updated. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  const bob = await ctx.client('bob');
  const { alice: aliceMember, bob: bobMember } = ctx.laravel.users;
  for (const client of [alice, bob]) {
    client.channel('news', 'Sent');
    client.onWhisper(client.private('desk', '.sent'), 'typing');
    client.join('room');
    await client.event('presence-room', 'here');
  }
  for (const channel of ['news', 'private-desk', 'presence-room']) await ctx.subscribed(channel, 2);

  await ctx.check('a public event', async () => {
    await ctx.publish('news', 'App\\Events\\Sent', { n: 1 });
    for (const client of [alice, bob]) ctx.assert.deepEqual(await client.event('news', 'Sent'), { n: 1 });
  });
  await ctx.check('a private event, not to its sender', async () => {
    await ctx.publish('private-desk', 'sent', { n: 2 }, { socket: alice.id });
    ctx.assert.deepEqual(await bob.event('private-desk', '.sent'), { n: 2 });
    await ctx.quiet();
    ctx.assert.deepEqual(alice.seen('sent'), []);
  });
  await ctx.check('a refusal', async () => {
    alice.private('forbidden');
    ctx.assert.deepEqual(await alice.wire('subscription_error'), ['private-forbidden', 403]);
  });
  await ctx.check('a whisper', async () => {
    alice.private('desk').whisper('typing', { by: 'alice' });
    ctx.assert.deepEqual(await bob.event('private-desk', 'whisper typing'), { by: 'alice' });
  });
  await ctx.check('presence', async () => {
    ctx.assert.deepEqual(await alice.event('presence-room', 'joining'), bobMember.user_info);
    alice.echo.leave('room');
    ctx.assert.deepEqual(await bob.event('presence-room', 'leaving'), aliceMember.user_info);
  });
  await ctx.check('a lost connection', async () => {
    bob.dropConnection();
    await until(() => bob.connections.length === 2, 'the client to reconnect');
    await ctx.subscribed('news', 2);
    await ctx.publish('news', 'App\\Events\\Sent', { n: 3 });
    ctx.assert.deepEqual(await bob.event('news', 'Sent'), { n: 3 });
  });
}
