import WebSocket from 'ws';
import { withTimeout } from '../lib/util.mjs';

export const name = 'malformed-frames';
export const clients = 'one';
export const transports = ['websocket', 'polling'];
export const timeout = 120_000;

/** Malformed Engine.IO and Socket.IO packets, below the level of events. */
const FRAMES = [
  '', '0', '1', '2', '3', '4', '5', '6', '7', '9', 'x', '\u0000', '2probe', '3probe', '4x', '40', '40{', '40null', '40[]', '40/other,', '40/other,{',
  '41', '41/other,', '42', '42[', '42[]', '42{}', '42null', '42"subscribe"', '42[null]', '42[5]', '42[["subscribe"]]', '42[{}]', '42["subscribe"', '42/other,["subscribe",{"channel":"x"}]',
  '42,["x"]', '4299999999999999999999["subscribe",{"channel":"x"}]', '42-1["subscribe"]', '43', '430[]', '4399[1]', '44', '44{}', '45', '451-', '451-["x",{"_placeholder":true,"num":0}]',
  '4599999999-["x"]', '45-1-["x"]', '461-[]', '47', '49', 'b', 'bAAAA', 'bb', '😀', `42${'['.repeat(20_000)}`, `42["${'\\u0000'.repeat(1_000)}"]`,
];
const BINARY = [Buffer.alloc(0), Buffer.from([0]), Buffer.from([4, 0x32]), Buffer.from([0xff, 0xfe, 0xfd]), Buffer.alloc(10_000, 0xff)];
const BODIES = [...FRAMES, '1:', '1:4', '-1:4', '99999999999:42[]', '2:42\u001e2:42', '\u001e', '\u001e\u001e42', 'd=4', ':', '0:', '3:42[3:42[3:42['];

/** Whatever one connection sends, the server survives and other connections are not affected. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  alice.channel('news', '.sent');
  await ctx.subscribed('news');
  const path = `/socket.io/?EIO=${ctx.combo.eio}&transport=`;
  const attack = { websocket: byWebSocket, polling: byPolling }[ctx.transport];

  for (const [n, frame] of (ctx.transport === 'websocket' ? [...FRAMES, ...BINARY] : BODIES).entries()) {
    await ctx.check(`${n} ${JSON.stringify(String(frame)).slice(0, 60)}`, async () => {
      await withTimeout(attack(ctx, path, frame), 10_000, 'the server neither goes on nor closes');
      await ctx.publish('news', 'sent', { n });
      ctx.assert.deepEqual(await alice.event('news', '.sent'), { n });
      ctx.assert.equal(alice.connections.length, 1, 'another client lost its connection');
    });
  }
}

/** Before and after joining the main namespace; done when the server answers a ping or closes. */
async function byWebSocket(ctx, path, frame) {
  for (const connect of [false, true]) {
    await new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://127.0.0.1:${ctx.port}${path}websocket`);
      socket.once('error', reject);
      socket.once('message', () => {
        socket.off('error', reject);
        socket.on('error', resolve);
        socket.on('close', resolve);
        socket.on('pong', () => resolve(socket.terminate()));
        if (connect) socket.send('40');
        socket.send(frame);
        socket.ping();
      });
    });
  }
}

async function byPolling(ctx, path, body) {
  const { text } = await ctx.http('GET', `${path}polling`);
  const [, sid] = /"sid":"([^"]+)"/.exec(text);
  const { status } = await ctx.http('POST', `${path}polling&sid=${sid}`, { headers: { 'Content-Type': 'text/plain;charset=UTF-8' }, body });
  ctx.assert.ok(status < 500, `status ${status}`);
}
