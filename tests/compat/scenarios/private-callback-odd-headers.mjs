export const name = 'private-callback-odd-headers';
export const requires = ['ours'];
export const transports = ['websocket', 'polling'];

const ODD = {
  'a number': { 'X-Odd': 5 },
  null: { 'X-Odd': null },
  true: { 'X-Odd': true },
  'a list': { 'X-Odd': ['a', 'b'] },
  'an object': { 'X-Odd': { a: 1 } },
  'a line break in the value': { 'X-Odd': 'a\r\nX-Injected: yes' },
  'a null byte in the value': { 'X-Odd': 'a\u0000b' },
  'a line break in the name': { 'X-Odd\r\nX-Injected': 'yes' },
  'a space in the name': { 'X Odd': 'a' },
  'no name': { '': 'a' },
};

/** Values that are not text, numbers or booleans, and invalid header names are ignored; the other headers count. */
export async function run(ctx) {
  const nobody = await ctx.client('nobody', { user: null });
  const ask = async (room, headers) => {
    nobody.emit('subscribe', { channel: `private-${room}`, auth: { headers } });
    await ctx.subscribed(`private-${room}`);
    return ctx.laravel.requestsFor(`private-${room}`)[0];
  };
  for (const [label, odd] of Object.entries(ODD)) {
    await ctx.check(label, async () => {
      const room = `odd-${label.replaceAll(' ', '-')}`;
      const { headers, rawHeaders } = await ask(room, { ...odd, Authorization: 'Bearer alice' });
      ctx.assert.equal(headers.authorization, 'Bearer alice');
      ctx.assert.equal(headers['x-odd'], { 'a number': '5', true: 'true' }[label]);
      ctx.assert.equal(rawHeaders.some((text) => /injected/i.test(text)), false, 'a header was injected');
    });
  }
  for (const [label, auth] of Object.entries({ 'headers of text': { headers: 'text' }, 'headers null': { headers: null }, 'headers a list': { headers: ['a'] }, 'auth of text': 'text', 'auth null': null })) {
    await ctx.check(label, async () => {
      const channel = `private-${label.replaceAll(' ', '-')}`;
      nobody.emit('subscribe', { channel, auth });
      ctx.assert.deepEqual(await nobody.wire('subscription_error', channel), [channel, 403]);
    });
  }
}
