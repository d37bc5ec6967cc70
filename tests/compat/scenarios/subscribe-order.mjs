export const name = 'subscribe-order';
export const transports = ['websocket', 'polling', 'upgrade'];

const PAIRS = 100;

/** A client's messages take effect in the order in which it sent them. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  const bob = await ctx.client('bob');
  const marker = async (name) => {
    alice.emit('subscribe', { channel: name });
    await ctx.subscribed(name);
  };

  await ctx.check('subscribe, unsubscribe, many times', async () => {
    for (let n = 0; n < PAIRS; n++) {
      alice.emit('subscribe', { channel: 'off' });
      alice.emit('unsubscribe', { channel: 'off' });
    }
    await marker('after off');
    await ctx.subscribed('off', 0);
  });
  await ctx.check('ending with subscribe', async () => {
    for (let n = 0; n < PAIRS; n++) {
      alice.emit('subscribe', { channel: 'on' });
      alice.emit('unsubscribe', { channel: 'on' });
    }
    alice.emit('subscribe', { channel: 'on' });
    await marker('after on');
    await ctx.subscribed('on', 1, 4_000);
    await ctx.publish('on', 'sent', { n: 1 });
    ctx.assert.deepEqual(await alice.wire('sent', 'on'), ['on', { n: 1 }]);
  });
  await ctx.check('many channels at once', async () => {
    for (let n = 0; n < PAIRS; n++) {
      alice.emit('subscribe', { channel: `c${n}` });
      if (n % 2) alice.emit('unsubscribe', { channel: `c${n}` });
    }
    await marker('after many');
    const { channels } = (await ctx.api('GET', '/channels?filter_by_prefix=c')).json;
    ctx.assert.deepEqual(Object.keys(channels).sort(), Array.from({ length: PAIRS / 2 }, (_, n) => `c${2 * n}`).sort());
  });
  await ctx.check('a whisper before leaving is delivered', async () => {
    for (const client of [alice, bob]) client.emit('subscribe', { channel: 'private-desk', auth: {} });
    await ctx.subscribed('private-desk', 2);
    alice.emit('client event', { channel: 'private-desk', event: 'client-last', data: { n: 1 } });
    alice.emit('unsubscribe', { channel: 'private-desk' });
    alice.emit('client event', { channel: 'private-desk', event: 'client-late', data: {} });
    await ctx.subscribed('private-desk', 1);
    ctx.assert.deepEqual(await bob.wire('client-last'), ['private-desk', { n: 1 }]);
    await ctx.quiet();
    ctx.assert.deepEqual(bob.seen('client-late'), []);
  });
}
