import { createRequire } from 'node:module';

export const name = 'seed-flat-mode-off';
export const clients = 'none';

const io = createRequire(import.meta.url)('sio-2-plain');

/** Without flatChannels a socket receives only what it subscribed to, in one form. */
export async function run(ctx) {
  const page = await ctx.plainClient('page', io, { transports: ['websocket'] });
  page.emit('subscribe', { channel: 'orders' });
  await ctx.subscribed('orders');
  await ctx.publish('news', 'sent', { n: 1 });
  await ctx.publish('orders', 'sent', { n: 2 });
  ctx.assert.deepEqual(await page.next(), ['sent', 'orders', { n: 2 }]);
  await ctx.quiet();
  ctx.assert.equal(page.received.length, 1);
}
