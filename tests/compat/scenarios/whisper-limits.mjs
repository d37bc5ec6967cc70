export const name = 'whisper-limits';
export const requires = ['ours'];
export const transports = ['websocket', 'polling'];
export const config = { limits: { whisperBytes: '2KB', whispersPerSecond: 10 } };

/** Whispers over the size or rate limit are dropped; the sender stays connected and may whisper again. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  const bob = await ctx.client('bob');
  for (const client of [alice, bob]) client.private('desk', '.sent');
  await ctx.subscribed('private-desk', 2);
  const whisper = (event, data) => alice.emit('client event', { channel: 'private-desk', event: `client-${event}`, data });

  await ctx.check('too large', async () => {
    whisper('fits', { text: 'x'.repeat(1_500) });
    whisper('large', { text: 'x'.repeat(3_000) });
    whisper('after', {});
    await bob.wire('client-fits');
    await bob.wire('client-after');
    ctx.assert.deepEqual(bob.seen('client-large'), []);
  });
  await ctx.check('too many', async () => {
    for (let n = 0; n < 200; n++) whisper('flood', { n });
    alice.emit('subscribe', { channel: 'marker' });
    await ctx.subscribed('marker');
    await ctx.quiet(300);
    const passed = bob.seen('client-flood').length;
    ctx.assert.ok(passed >= 5 && passed < 100, `${passed} of 200 were passed on`);
    ctx.assert.equal(alice.connections.length, 1, 'the sender lost its connection');
  });
  await ctx.check('later again', async () => {
    await ctx.quiet(2_500);
    whisper('again', { n: 1 });
    ctx.assert.deepEqual(await bob.wire('client-again'), ['private-desk', { n: 1 }]);
  });
}
