import { until } from '../lib/util.mjs';

export const name = 'presence-publish-updates';
export const config = { databaseConfig: { publishPresence: true } };

/** With publishPresence every change of a member list is published for Laravel, and not sent to clients. */
export async function run(ctx) {
  const tap = await ctx.redis.tap('PresenceChannelUpdated');
  ctx.onCleanup(tap.stop);
  const spy = await ctx.client('spy', { user: null });
  spy.channel('PresenceChannelUpdated');
  await ctx.subscribed('PresenceChannelUpdated');
  const alice = await ctx.client('alice');
  const last = () => JSON.parse(tap.messages.at(-1)?.text ?? 'null')?.event;

  await ctx.check('joining', async () => {
    alice.join('room');
    await alice.event('presence-room', 'here');
    await until(() => last()?.members.length === 1, 'a message with one member');
    ctx.assert.deepEqual(last(), { channel: 'presence-room:members', members: [{ ...ctx.laravel.users.alice, socketId: alice.id }] });
  });
  await ctx.check('leaving', async () => {
    alice.echo.leave('room');
    await until(() => last()?.members.length === 0, 'a message without members');
  });
  await ctx.check('a client that subscribed to that name receives nothing', async () => {
    await ctx.quiet();
    ctx.assert.deepEqual(spy.packets.filter((packet) => packet.includes('PresenceChannelUpdated')), []);
  });
}
