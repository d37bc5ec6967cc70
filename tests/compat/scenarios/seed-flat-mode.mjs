import { createRequire } from 'node:module';

export const name = 'seed-flat-mode';
export const requires = ['ours'];
export const clients = 'none';
export const formats = 'each';
export const config = { flatChannels: ['news', 'public.*', '*-desk', '*-room'] };

const require = createRequire(import.meta.url);
const io = require('sio-2-plain');

/** A page without Echo listens for '<channel>:<event>' and subscribes to nothing. */
export async function run(ctx) {
  for (const transport of ['websocket', 'polling']) {
    const first = await ctx.plainClient(`first ${transport}`, io, { transports: [transport] });
    const second = await ctx.plainClient(`second ${transport}`, io, { transports: [transport] });
    const both = [first, second];
    const check = (label, run) => ctx.check(`${transport}: ${label}`, run);

    await check('every socket gets the event with its data alone', async () => {
      await ctx.publish('news', 'App\\Events\\Sent', { n: 1, socket: null });
      for (const client of both) ctx.assert.deepEqual(await client.next(), ['news:App\\Events\\Sent', { n: 1, socket: null }]);
    });
    await check('a pattern', async () => {
      await ctx.publish('public.orders.5', 'sent', [1, 'two']);
      for (const client of both) ctx.assert.deepEqual(await client.next(), ['public.orders.5:sent', [1, 'two']]);
    });
    await check('channels that no pattern names, and guarded ones, are not flat', async () => {
      for (const channel of ['other', 'newsletter', 'private-desk', 'x_private-desk', 'presence-room', 'public.presence-room']) {
        await ctx.publish(channel, 'sent', { channel });
      }
      await ctx.publish('news', 'marker', {});
      for (const client of both) ctx.assert.deepEqual(await client.next(), ['news:marker', {}]);
    });
    await check('the socket named in the message is left out', async () => {
      await ctx.publish('news', 'sent', { n: 2 }, { socket: first.id });
      await ctx.publish('news', 'sent', { n: 3 });
      ctx.assert.deepEqual(await first.next(), ['news:sent', { n: 3 }]);
      ctx.assert.deepEqual(await second.next(), ['news:sent', { n: 2 }]);
      ctx.assert.deepEqual(await second.next(), ['news:sent', { n: 3 }]);
    });
    await check('a subscriber of the channel gets both forms', async () => {
      first.emit('subscribe', { channel: 'news' });
      await ctx.subscribed('news');
      await ctx.publish('news', 'sent', { n: 4 });
      const forms = [await first.next(), await first.next()].map((form) => JSON.stringify(form)).sort();
      ctx.assert.deepEqual(forms, ['["news:sent",{"n":4}]', '["sent","news",{"n":4}]']);
      ctx.assert.deepEqual(await second.next(), ['news:sent', { n: 4 }]);
    });
    for (const client of both) client.close();
    await ctx.subscribed('news', 0);
  }
}
