export const name = 'private-auth-timeout';
export const requires = ['ours'];
export const config = { auth: { timeout: '1s' } };

/** Laravel does not answer in time: status 0, and a later answer has no effect. */
export async function run(ctx) {
  let answer;
  ctx.laravel.respond('private-slow', { hold: new Promise((resolve) => (answer = resolve)), body: true });
  const alice = await ctx.client('alice');
  const started = Date.now();
  alice.private('slow');
  ctx.assert.deepEqual(await alice.wire('subscription_error'), ['private-slow', 0]);
  ctx.assert.ok(Date.now() - started >= 950, 'it did not wait');
  answer();
  await ctx.quiet();
  await ctx.subscribed('private-slow', 0);
  await ctx.check('the next subscription is asked for anew', async () => {
    ctx.laravel.respond('private-slow', { body: true });
    alice.emit('subscribe', { channel: 'private-slow', auth: {} });
    await ctx.subscribed('private-slow');
  });
}
