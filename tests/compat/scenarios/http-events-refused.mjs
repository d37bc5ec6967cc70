export const name = 'http-events-refused';
export const requires = ['ours'];
export const clients = 'one';

const EVENT = { channel: 'news', name: 'sent', data: { a: 1 } };

/** Bodies that are not events: [body, status]. */
const BODIES = {
  nothing: ['', 400],
  'no JSON': ['hello', 400],
  'cut off': ['{"channel":"news","name":"se', 400],
  null: ['null', 400],
  'a number': ['5', 400],
  'a list': ['[]', 400],
  'no UTF-8': [Buffer.from([0x7b, 0xff, 0x7d]), 400],
  'channels of text': [{ ...EVENT, channel: undefined, channels: 'abc' }, 400],
  'channels of numbers': [{ ...EVENT, channel: undefined, channels: [5] }, 400],
  'channel a number': [{ ...EVENT, channel: 5 }, 400],
  'no channel': [{ ...EVENT, channel: undefined }, 400],
  'no name': [{ ...EVENT, name: undefined }, 400],
  'name a number': [{ ...EVENT, name: 5 }, 400],
  'no data': [{ ...EVENT, data: undefined }, 400],
  'more than 10 MB': [{ ...EVENT, data: 'x'.repeat(11 * 1024 * 1024) }, 413],
};

/** Each is refused with a reason, and later requests are served. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  alice.channel('news', '.sent');
  await ctx.subscribed('news');
  const post = (body) => ctx.api('POST', '/events', body);

  for (const [label, [body, status]] of Object.entries(BODIES)) {
    await ctx.check(label, async () => {
      const response = await post(body);
      ctx.assert.equal(response.status, status);
      ctx.assert.equal(typeof response.json.error, 'string');
      ctx.assert.equal((await post({ ...EVENT, data: { label } })).status, 200);
      ctx.assert.deepEqual(await alice.event('news', '.sent'), { label });
    });
  }
  for (const socket of ['constructor', '__proto__', 'nobody']) {
    await ctx.check(`the socket_id ${socket} leaves nobody out`, async () => {
      ctx.assert.equal((await post({ ...EVENT, socket_id: socket })).status, 200);
      ctx.assert.deepEqual(await alice.event('news', '.sent'), EVENT.data);
    });
  }
}
