import { until } from '../lib/util.mjs';

export const name = 'presence-disconnect-during-auth';
export const transports = ['websocket', 'polling'];

/** A client that has disconnected before Laravel answers does not become a member. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  alice.join('room', '.sent');
  await alice.event('presence-room', 'here');

  let answer;
  const hold = new Promise((resolve) => (answer = resolve));
  ctx.laravel.respond('presence-room', { hold, body: { channel_data: ctx.laravel.users.bob } });
  const bob = await ctx.client('bob');
  bob.join('room');
  await until(() => ctx.laravel.requestsFor('presence-room').length === 2, 'Laravel to be asked');

  await ctx.check('the server lives when the answer comes too late', async () => {
    bob.close();
    await ctx.quiet();
    answer();
    await ctx.quiet(300);
  });
  await ctx.check('nobody joined', async () => {
    ctx.assert.deepEqual([alice.seen('presence:joining'), alice.seen('presence:leaving')], [[], []]);
    await ctx.subscribed('presence-room', 1);
  });
  await ctx.check('others are served', async () => {
    await ctx.publish('presence-room', 'sent', { n: 1 });
    ctx.assert.deepEqual(await alice.event('presence-room', '.sent'), { n: 1 });
  });
}
