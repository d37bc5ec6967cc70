export const name = 'config-engine-options';
export const config = { socketio: { path: '/ws/live', pingInterval: 7_000, pingTimeout: 3_000, transports: ['polling'], cookie: 'echo-id' } };
export const transports = ['polling'];

/** Options of Socket.IO under `socketio`: path, pingInterval, pingTimeout, transports, cookie. */
export async function run(ctx) {
  const query = `?EIO=${ctx.combo.eio}&transport=`;
  await ctx.check('the handshake', async () => {
    const { status, text, headers } = await ctx.http('GET', `/ws/live/${query}polling`);
    ctx.assert.equal(status, 200);
    const handshake = JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1));
    ctx.assert.deepEqual([handshake.pingInterval, handshake.pingTimeout, handshake.upgrades], [7_000, 3_000, []]);
    ctx.assert.match(String(headers['set-cookie']), new RegExp(`^echo-id=${handshake.sid}; Path=/; HttpOnly; SameSite=Strict`));
  });
  await ctx.check('the usual path is not served', async () => {
    ctx.assert.equal((await ctx.http('GET', `/socket.io/${query}polling`)).status, 404);
  });
  await ctx.check('a client on that path', async () => {
    const alice = await ctx.client('alice', { options: { path: '/ws/live' } });
    alice.channel('news', '.sent');
    await ctx.subscribed('news');
    await ctx.publish('news', 'sent', { n: 1 });
    ctx.assert.deepEqual(await alice.event('news', '.sent'), { n: 1 });
  });
  await ctx.check('a transport that is off', async () => {
    const refused = await ctx.client('late', { transport: 'websocket', wait: false, options: { path: '/ws/live', reconnection: false } });
    await ctx.quiet(1_000);
    ctx.assert.equal(refused.connected, false);
  });
}
