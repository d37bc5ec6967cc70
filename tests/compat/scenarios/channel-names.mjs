export const name = 'channel-names';

const NAMES = [
  'constructor',
  '__proto__',
  'hasOwnProperty',
  'toString',
  'with space',
  'žluťoučký 😀',
  'a.b-c_d=@,;',
  '*',
  'news.*',
  '"quoted"',
  'line\nbreak',
  '0',
];

/** Any text is a valid channel name, even if it has a meaning in JavaScript or Redis patterns. */
export async function run(ctx) {
  for (const channel of NAMES) {
    await ctx.check(JSON.stringify(channel), async () => {
      const alice = await ctx.client('alice', { options: { reconnection: false } });
      alice.emit('subscribe', { channel });
      await ctx.subscribed(channel);
      await ctx.publish(channel, 'sent', { channel });
      ctx.assert.deepEqual(await alice.wire('sent', undefined, 5_000), [channel, { channel }]);
      alice.emit('unsubscribe', { channel });
      await ctx.subscribed(channel, 0);
      alice.close();
    });
  }
  await ctx.check('a number', async () => {
    const alice = await ctx.client('alice', { options: { reconnection: false } });
    alice.emit('subscribe', { channel: 5 });
    await ctx.subscribed('5');
    await ctx.publish('5', 'sent', { n: 1 });
    ctx.assert.deepEqual(await alice.wire('sent', undefined, 5_000), ['5', { n: 1 }]);
    // The original ends at this.
    if (ctx.ours) {
      alice.emit('unsubscribe', { channel: 5 });
      await ctx.subscribed('5', 0);
    }
    alice.close();
  });
  await ctx.check('a name with * takes no other channel', async () => {
    const alice = await ctx.client('alice');
    alice.emit('subscribe', { channel: 'orders.*' });
    await ctx.subscribed('orders.*');
    await ctx.publish('orders.1', 'sent', { n: 1 });
    await ctx.publish('orders.*', 'sent', { n: 2 });
    ctx.assert.deepEqual(await alice.wire('sent'), ['orders.*', { n: 2 }]);
  });
}
