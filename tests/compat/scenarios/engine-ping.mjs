export const name = 'engine-ping';
export const transports = ['websocket', 'polling', 'upgrade'];
// As in the original: with recovery, a client that may resume stays a member until the window ends.
export const config = { recovery: { enabled: false }, socketio: { pingInterval: 1_000, pingTimeout: 1_500 } };

/** Pings keep an idle connection alive, and detect a client that no longer answers. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  alice.join('room', '.sent');
  await alice.event('presence-room', 'here');

  await ctx.check('a quiet connection stays', async () => {
    await ctx.quiet(4_000);
    ctx.assert.equal(alice.connections.length, 1);
    await ctx.publish('presence-room', 'sent', { n: 1 });
    ctx.assert.deepEqual(await alice.event('presence-room', '.sent'), { n: 1 });
  });
  await ctx.check('a client that froze leaves', async () => {
    const bob = await ctx.clientProcess('bob', 'room');
    ctx.assert.deepEqual(await alice.event('presence-room', 'joining'), ctx.laravel.users.bob.user_info);
    bob.signal('SIGSTOP');
    ctx.assert.deepEqual(await alice.event('presence-room', 'leaving'), ctx.laravel.users.bob.user_info);
    await ctx.subscribed('presence-room', 1);
  });
}
