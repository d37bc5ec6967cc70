export const name = 'redis-weird-messages';
export const transports = ['websocket', 'polling'];

/** Messages that other programs may publish on the same Redis. */
const MESSAGES = {
  'an empty object': '{}',
  'a number': '5',
  null: 'null',
  true: 'true',
  text: '"text"',
  'a list': '[]',
  'a list with an event': '[{"event":"sent","data":{}}]',
  nothing: '',
  'no JSON': 'hello',
  'cut off': '{"event":"sent","data":{"a":',
  'two values': '{"event":"sent","data":{}}{"event":"sent","data":{}}',
  'no event': '{"data":{"a":1},"socket":null}',
  'event null': '{"event":null,"data":{}}',
  'event a number': '{"event":5,"data":{}}',
  'event an object': '{"event":{},"data":{}}',
  'event a list': '{"event":["sent"],"data":{}}',
  'no UTF-8': Buffer.from([0x7b, 0xff, 0xfe, 0x7d]),
  'no UTF-8 within': Buffer.concat([Buffer.from('{"event":"sent","data":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')]),
  'deeply nested': `{"event":${'['.repeat(100_000)}${']'.repeat(100_000)}}`,
};

/** Messages that are not events are skipped: clients see none of them, and the next event arrives. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  alice.channel('news', '.sent');
  alice.private('desk', '.sent');
  await ctx.subscribed('news');
  await ctx.subscribed('private-desk');
  for (const [label, message] of Object.entries(MESSAGES)) {
    await ctx.check(label, async () => {
      const before = alice.packets.length;
      alice.invalidPackets.length = 0;
      for (const channel of ['news', 'private-desk']) await ctx.redis.publishRaw(channel, message);
      await ctx.publish('news', 'sent', { label });
      // Not UTF-8: the original replaces these bytes and forwards the rest.
      if (!ctx.ours && label === 'no UTF-8 within') {
        await alice.wire('sent', 'news');
        await alice.wire('sent', 'private-desk');
      }
      ctx.assert.deepEqual((await alice.wire('sent'))[1], { label });
      alice.inbox.length = 0;
      ctx.assert.deepEqual(alice.invalidPackets, []);
      if (ctx.ours) ctx.assert.equal(alice.packets.length - before, 1);
    });
  }
}
