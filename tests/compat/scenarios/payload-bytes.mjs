export const name = 'payload-bytes';
export const requires = ['ours'];
export const transports = ['websocket', 'polling', 'upgrade'];

const DATA = {
  'the order of keys': '{"z":1,"a":2,"10":3,"2":4}',
  numbers: '[1.0,1e2,-0,12345678901234567890,0.10]',
  'escapes as PHP writes them': '{"url":"https:\\/\\/a.test\\/","text":"\\u017e\\ud83d\\ude00"}',
  'white space': '{ "a" : [ 1 , 2 ] }',
  'the socket key that Laravel leaves in': '{"a":1,"socket":null}',
  'keys that come twice': '{"a":1,"a":2}',
  'text beyond ASCII': '{"text":"ž 日本語 😀"}',
};

/** `data` is forwarded byte for byte, even where JSON allows several spellings. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  alice.channel('news');
  await ctx.subscribed('news');
  for (const [label, data] of Object.entries(DATA)) {
    await ctx.check(label, async () => {
      await ctx.redis.publishRaw('news', `{"event":"sent","data":${data},"socket":null}`);
      await alice.wire('sent');
      const packet = alice.packets.at(-1).replace(/,"[0-9a-f]{1,16}-\d+"\]$/, ']'); // without its offset
      ctx.assert.equal(packet, `2["sent","news",${data}]`);
    });
  }
}
