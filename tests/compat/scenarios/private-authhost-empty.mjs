export const name = 'private-authhost-empty';
export const config = { authHost: '', host: null };
export const server = 'manual';

/** No authHost: the server reports that at the start, or refuses each private channel; it does not crash. */
export async function run(ctx) {
  const server = ctx.launch();
  ctx.server = server;
  try {
    await ctx.target.whenReady(server, ctx.url);
  } catch (error) {
    ctx.assert.match(server.text, /authHost/, `it ended without naming the key: ${error.message}`);
    ctx.assert.notEqual(server.exit.code, 0);
    return;
  }
  const alice = await ctx.client('alice');
  alice.private('desk');
  ctx.assert.deepEqual(await alice.wire('subscription_error', undefined, 5_000), ['private-desk', 0]);
  ctx.assert.ok(server.alive, 'the server died');
}
