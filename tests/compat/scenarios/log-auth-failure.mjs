export const name = 'log-auth-failure';
export const requires = ['ours'];

/** A failed callback is logged even without --dev: address, status and the first line of the answer. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  const ask = async (channel, behaviour) => {
    ctx.laravel.respond(channel, behaviour);
    alice.emit('subscribe', { channel, auth: { headers: { Authorization: 'Bearer top-secret-token' } } });
    await alice.wire('subscription_error', channel);
  };
  const line = (...parts) => {
    const every = (text) => parts.every((part) => text.includes(part));
    return ctx.server.waitForOutput({ [Symbol.match]: (text) => text.split('\n').find(every) ?? null }, `a log line with ${parts.join(', ')}`, 3_000);
  };
  const url = `${ctx.laravel.url}/broadcasting/auth`;

  await ctx.check('a refusal', async () => {
    await ask('private-a', { status: 403, body: 'not you\nsecond line' });
    await line(url, '403', 'not you');
  });
  await ctx.check('a page that is not there', async () => {
    await ask('private-b', { status: 404, body: 'no route' });
    await line(url, '404', 'no route');
  });
  await ctx.check('an error of the application', async () => {
    await ask('private-c', { status: 500, body: 'Whoops' });
    await line(url, '500', 'Whoops');
  });
  await ctx.check('a presence channel without a user', async () => {
    await ask('presence-d', { body: 'true' });
    await line('presence-d', 'channel_data');
  });
  await ctx.check('no secrets', () => ctx.assert.doesNotMatch(ctx.server.text, /top-secret-token|laravel_session/));
}
