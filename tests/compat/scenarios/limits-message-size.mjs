import { until } from '../lib/util.mjs';

export const name = 'limits-message-size';
export const requires = ['ours'];
export const transports = ['websocket', 'polling', 'upgrade'];

const MB = 1024 * 1024;

/** The maximum size of a client's message: maxHttpBufferSize, by default 1 MB, on every transport. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  alice.channel('news', '.sent');
  await ctx.subscribed('news');

  const send = async (label, size) => {
    const sender = await ctx.client(label, { user: null, options: { reconnection: false } });
    if (ctx.transport === 'upgrade') await until(() => sender.socket.io.engine.transport.name === 'websocket', 'the upgrade');
    sender.emit('subscribe', { channel: label, padding: 'x'.repeat(size) });
    return sender;
  };
  const refused = async (label, size) => {
    const before = alice.connections.length;
    const sender = await send(label, size);
    await until(() => !sender.connected, 'the sender to be disconnected');
    await ctx.subscribed(label, 0);
    await ctx.publish('news', 'sent', { label });
    ctx.assert.deepEqual(await alice.event('news', '.sent'), { label });
    ctx.assert.equal(alice.connections.length, before, 'another client lost its connection');
  };

  await ctx.check('900 KB', async () => {
    await send('fits', 900 * 1024);
    await ctx.subscribed('fits');
  });
  await ctx.check('1.1 MB', () => refused('too much', 1.1 * MB));
  await ctx.check('5 MB', () => refused('far too much', 5 * MB));

  await ctx.server.stop();
  ctx.writeConfig({ ...ctx.config, socketio: { maxHttpBufferSize: 20_000 } });
  await ctx.start();
  await until(() => alice.connections.length === 2, 'a client to connect again');
  await ctx.subscribed('news');
  await ctx.check('maxHttpBufferSize 20000: 15 KB', async () => {
    await send('small', 15_000);
    await ctx.subscribed('small');
  });
  await ctx.check('maxHttpBufferSize 20000: 30 KB', () => refused('not so small', 30_000));
}
