export const name = 'event-names-reserved';
export const transports = ['websocket', 'polling'];

/** Names with a meaning for Socket.IO's emitters; a server that forwards them confuses its clients. */
const RESERVED = ['connect', 'connect_error', 'disconnect', 'disconnecting', 'newListener', 'removeListener'];

/** Reserved names are skipped over Redis and refused over HTTP; the connection and later events are not affected. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  alice.channel('names', '.sent');
  await ctx.subscribed('names');
  const next = async (label) => {
    await ctx.publish('names', 'sent', { label });
    ctx.assert.deepEqual(await alice.event('names', '.sent'), { label });
    ctx.assert.equal(alice.connections.length, 1, 'the client lost its connection');
  };
  for (const event of RESERVED) {
    await ctx.check(`${event} over Redis`, async () => {
      await ctx.publish('names', event, { event });
      await next(event);
      ctx.assert.deepEqual(alice.packets.filter((packet) => packet.includes(`"${event}","names"`)), []);
    });
    await ctx.check(`${event} over HTTP`, async () => {
      const { status, json } = await ctx.api('POST', '/events', { channel: 'names', name: event, data: {} });
      ctx.assert.equal(status, 400);
      ctx.assert.equal(typeof json.error, 'string');
      await next(event);
      ctx.assert.deepEqual(alice.packets.filter((packet) => packet.includes(`"${event}","names"`)), []);
    });
  }
  await ctx.check('connection is reserved in no client and passes', async () => {
    await ctx.publish('names', 'connection', { n: 1 });
    ctx.assert.deepEqual(await alice.wire('connection', 'names', 3_000), ['names', { n: 1 }]);
  });
}
