export const name = 'limits-channel-name';
export const requires = ['ours'];
export const transports = ['websocket', 'polling'];

const LONGEST = 200;

/** Channel names may have up to 200 bytes; a longer one is refused without asking Laravel. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  const marker = async (name) => {
    alice.emit('subscribe', { channel: name });
    await ctx.subscribed(name);
  };
  const FITS = { 'a name of 200 bytes': 'x'.repeat(LONGEST), '100 letters of two bytes': 'é'.repeat(LONGEST / 2), 'a private name of 200 bytes': `private-${'x'.repeat(LONGEST - 8)}` };
  for (const [label, channel] of Object.entries(FITS)) {
    await ctx.check(label, async () => {
      alice.emit('subscribe', { channel, auth: {} });
      await ctx.subscribed(channel);
      await ctx.publish(channel, 'sent', { label });
      ctx.assert.deepEqual(await alice.wire('sent', channel), [channel, { label }]);
    });
  }
  const TOO_LONG = { 'a name of 201 bytes': 'x'.repeat(LONGEST + 1), '101 letters of two bytes': 'é'.repeat(LONGEST / 2 + 1), 'a private name of 201 bytes': `private-${'x'.repeat(LONGEST - 7)}` };
  for (const [label, channel] of Object.entries(TOO_LONG)) {
    await ctx.check(label, async () => {
      alice.emit('subscribe', { channel, auth: {} });
      await marker(`after ${label}`);
      await ctx.publish(channel, 'sent', { label });
      await ctx.publish(`after ${label}`, 'sent', { marker: label });
      ctx.assert.deepEqual(await alice.wire('sent', `after ${label}`), [`after ${label}`, { marker: label }]);
      ctx.assert.deepEqual(alice.seen('sent', channel), []);
      ctx.assert.equal(ctx.laravel.requestsFor(channel).length, 0);
      ctx.assert.ok(alice.connected);
    });
  }
}
