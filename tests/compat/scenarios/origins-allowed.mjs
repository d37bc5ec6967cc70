import WebSocket from 'ws';

export const name = 'origins-allowed';
export const requires = ['ours'];
export const transports = ['polling'];
export const config = { allowedOrigins: ['http://app.test', 'https://*.good.test'] };

const ALLOWED = ['http://app.test', 'https://a.good.test', 'https://a.b.good.test'];
const REFUSED = ['http://evil.test', 'https://app.test', 'http://app.test:8080', 'http://a.good.test', 'https://good.test', 'https://evilgood.test', 'http://app.test.evil.test'];

/** allowedOrigins refuses polling and WebSocket handshakes of pages from other origins. */
export async function run(ctx) {
  const path = `/socket.io/?EIO=${ctx.combo.eio}&transport=`;
  const polling = (Origin) => ctx.http('GET', `${path}polling`, { headers: { Origin } });
  const websocket = (origin) =>
    new Promise((resolve) => {
      const socket = new WebSocket(`ws://127.0.0.1:${ctx.port}${path}websocket`, { origin });
      socket.once('open', () => socket.terminate() ?? resolve(true));
      socket.once('error', () => resolve(false));
    });

  for (const origin of ALLOWED) {
    await ctx.check(origin, async () => {
      const { status, headers } = await polling(origin);
      ctx.assert.equal(status, 200);
      ctx.assert.equal(headers['access-control-allow-origin'], origin);
      ctx.assert.equal(await websocket(origin), true);
    });
  }
  for (const origin of REFUSED) {
    await ctx.check(`${origin} is refused`, async () => {
      const { headers } = await polling(origin);
      ctx.assert.equal(headers['access-control-allow-origin'], undefined);
      ctx.assert.equal(await websocket(origin), false);
    });
  }
  await ctx.check('no origin, as outside of browsers', async () => {
    const alice = await ctx.client('alice');
    ctx.assert.ok(alice.connected);
  });
}
