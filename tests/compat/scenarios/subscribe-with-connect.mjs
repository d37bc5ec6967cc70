import WebSocket from 'ws';
import { withTimeout } from '../lib/util.mjs';

export const name = 'subscribe-with-connect';
export const clients = 'none';
export const formats = 'each';

const TOTAL = 400;
const AT_ONCE = 40;

/** A client that knows its channels subscribes as soon as it is connected: no subscribe is lost. */
export async function run(ctx) {
  const protocols = ctx.target.can('engine-io-4') ? [3, 4] : [3];
  for (const eio of protocols) {
    await ctx.check(`Engine.IO ${eio}`, async () => {
      const channel = `news-${eio}`;
      const sockets = [];
      ctx.onCleanup(() => sockets.forEach((socket) => socket.terminate()));
      while (sockets.length < TOTAL) {
        const batch = Array.from({ length: AT_ONCE }, () => open(ctx.port, eio, channel));
        sockets.push(...(await withTimeout(Promise.all(batch), 20_000, `${AT_ONCE} connections`)));
      }
      await ctx.subscribed(channel, TOTAL);
    });
  }
}

/** Subscribe at the moment in which the server confirms the connection. */
function open(port, eio, channel) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/socket.io/?EIO=${eio}&transport=websocket`);
    socket.once('error', reject);
    socket.on('message', (data) => {
      const packet = String(data);
      if (packet.startsWith('0') && eio === 4) socket.send('40');
      if (!packet.startsWith('40')) return;
      socket.send(`42${JSON.stringify(['subscribe', { channel }])}`);
      socket.off('error', reject);
      socket.on('error', () => {}); // shows as a subscription that is missing
      resolve(socket);
    });
  });
}
