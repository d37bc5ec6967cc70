import { loadWeapp } from '../lib/weapp.mjs';

export const name = 'seed-weapp';
export const clients = 'none';
export const requires = ['engine-io-4'];
export const formats = 'each';

const OPTIONS = { transports: ['websocket'] };

/** WeChat mini programs: WebSockets only, no cookies, a token in the headers of each subscription. */
export async function run(ctx) {
  for (const library of ['weapp-2', 'weapp-3']) {
    const io = loadWeapp(library);
    const check = (label, action) => ctx.check(`${library}: ${label}`, action);
    const alice = await ctx.plainClient(`${library} alice`, io, OPTIONS);
    const bob = await ctx.plainClient(`${library} bob`, io, OPTIONS);
    const news = `news-${library}`;
    const desk = `private-desk-${library}`;

    await check('a public channel', async () => {
      alice.emit('subscribe', { channel: news });
      await ctx.subscribed(news);
      await ctx.publish(news, 'App\\Events\\Sent', { text: 'ž😀' });
      ctx.assert.deepEqual(await alice.next(), ['App\\Events\\Sent', news, { text: 'ž😀' }]);
    });
    await check('a private channel by a token', async () => {
      for (const [client, user] of [[alice, 'alice'], [bob, 'bob']]) {
        client.emit('subscribe', { channel: desk, auth: { headers: { Authorization: `Bearer ${user}` } } });
      }
      await ctx.subscribed(desk, 2);
      const [{ headers }] = ctx.laravel.requestsFor(desk);
      ctx.assert.equal(headers.cookie, undefined);
    });
    await check('a whisper', async () => {
      alice.emit('client event', { channel: desk, event: 'client-typing', data: { by: 'alice' } });
      ctx.assert.deepEqual(await bob.next(), ['client-typing', desk, { by: 'alice' }]);
    });
    await check('not to the sender', async () => {
      await ctx.publish(desk, 'sent', { n: 1 }, { socket: bob.id });
      await ctx.publish(desk, 'sent', { n: 2 });
      ctx.assert.deepEqual(await bob.next(), ['sent', desk, { n: 2 }]);
      ctx.assert.deepEqual(await alice.next(), ['sent', desk, { n: 1 }]);
    });
    await check('a refusal without a token', async () => {
      bob.emit('subscribe', { channel: 'private-forbidden' });
      ctx.assert.deepEqual(await bob.next(), ['subscription_error', 'private-forbidden', 403]);
    });
    await check('going away', async () => {
      bob.close();
      await ctx.subscribed(desk, 1);
    });
  }
}
