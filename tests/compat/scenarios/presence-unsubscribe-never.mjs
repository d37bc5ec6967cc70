export const name = 'presence-unsubscribe-never';
export const transports = ['websocket', 'polling'];

/** Unsubscribing from a presence channel without being in it has no effect, in particular not on its members. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  const bob = await ctx.client('bob');

  await ctx.check('an empty channel', async () => {
    bob.emit('unsubscribe', { channel: 'presence-nobody' });
    bob.channel('marker');
    await ctx.subscribed('marker');
  });
  await ctx.check('a channel with a member', async () => {
    alice.join('room', '.sent');
    await alice.event('presence-room', 'here');
    bob.emit('unsubscribe', { channel: 'presence-room' });
    bob.channel('second marker');
    await ctx.subscribed('second marker');
    ctx.assert.deepEqual(alice.seen('presence:leaving'), []);
    await ctx.subscribed('presence-room', 1);
  });
  await ctx.check('a second time', async () => {
    bob.join('room');
    await bob.event('presence-room', 'here');
    bob.emit('unsubscribe', { channel: 'presence-room' });
    bob.emit('unsubscribe', { channel: 'presence-room' });
    bob.channel('third marker');
    await ctx.subscribed('third marker');
    await alice.event('presence-room', 'leaving');
    await ctx.quiet();
    ctx.assert.equal(alice.seen('presence:leaving').length, 1);
  });
}
