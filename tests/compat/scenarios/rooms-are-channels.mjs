export const name = 'rooms-are-channels';
export const transports = ['websocket', 'polling'];

/** A channel named like another socket's id is an ordinary channel: it does not receive that socket's messages. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  const spy = await ctx.client('spy', { user: null });
  alice.private('desk', '.sent');
  await ctx.subscribed('private-desk');
  spy.emit('subscribe', { channel: alice.id });
  spy.channel('marker', '.sent');
  await ctx.subscribed('marker');

  await ctx.check('what a socket alone is told stays with it', async () => {
    alice.join('room');
    await alice.wire('presence:subscribed');
    alice.private('forbidden');
    await alice.wire('subscription_error');
    await ctx.publish('marker', 'sent', {});
    await spy.event('marker', '.sent');
    ctx.assert.deepEqual(spy.history.filter(({ via }) => via === 'wire').map(({ event }) => event), ['sent']);
  });
  await ctx.check('an event on a channel of that name does not reach that socket', async () => {
    await ctx.publish(alice.id, 'sent', { to: 'room' });
    await ctx.publish('private-desk', 'sent', { n: 1 });
    ctx.assert.deepEqual(await alice.event('private-desk', '.sent'), { n: 1 });
    ctx.assert.deepEqual(alice.seen('sent', alice.id), []);
  });
  await ctx.check('unsubscribing it takes nothing away', async () => {
    spy.emit('unsubscribe', { channel: alice.id });
    alice.emit('unsubscribe', { channel: alice.id });
    alice.channel('second marker');
    await ctx.subscribed('second marker');
    await ctx.publish('private-desk', 'sent', { n: 2 });
    ctx.assert.deepEqual(await alice.event('private-desk', '.sent'), { n: 2 });
  });
}
