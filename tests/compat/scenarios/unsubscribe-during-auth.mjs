import { until } from '../lib/util.mjs';

export const name = 'unsubscribe-during-auth';
export const transports = ['websocket', 'polling'];

/** A client that unsubscribes while Laravel is being asked is not subscribed by the answer. */
export async function run(ctx) {
  const alice = await ctx.client('alice');
  const bob = await ctx.client('bob');
  const marker = async (name) => {
    alice.emit('subscribe', { channel: name });
    await ctx.subscribed(name);
  };
  const held = (channel, body) => {
    let answer;
    ctx.laravel.respond(channel, { hold: new Promise((resolve) => (answer = resolve)), body });
    return answer;
  };
  const asked = (channel, times) => until(() => ctx.laravel.requestsFor(channel).length === times, `Laravel to be asked for ${channel}`);

  await ctx.check('a private channel', async () => {
    const answer = held('private-desk', true);
    alice.emit('subscribe', { channel: 'private-desk', auth: {} });
    await asked('private-desk', 1);
    alice.emit('unsubscribe', { channel: 'private-desk' });
    await marker('after private');
    answer();
    await ctx.quiet(300);
    await ctx.subscribed('private-desk', 0, 4_000);
  });
  await ctx.check('a presence channel', async () => {
    bob.join('room');
    await bob.event('presence-room', 'here');
    const answer = held('presence-room', { channel_data: ctx.laravel.users.alice });
    alice.emit('subscribe', { channel: 'presence-room', auth: {} });
    await asked('presence-room', 2);
    alice.emit('unsubscribe', { channel: 'presence-room' });
    await marker('after presence');
    answer();
    await ctx.quiet(300);
    await ctx.subscribed('presence-room', 1);
    ctx.assert.deepEqual([bob.seen('presence:joining'), bob.seen('presence:leaving'), alice.seen('presence:subscribed')], [[], [], []]);
  });
  await ctx.check('subscribing again counts', async () => {
    const answer = held('private-again', true);
    alice.emit('subscribe', { channel: 'private-again', auth: {} });
    await asked('private-again', 1);
    alice.emit('unsubscribe', { channel: 'private-again' });
    alice.emit('subscribe', { channel: 'private-again', auth: {} });
    await marker('after again');
    answer();
    await ctx.subscribed('private-again', 1);
    await ctx.publish('private-again', 'sent', { n: 1 });
    ctx.assert.deepEqual(await alice.wire('sent'), ['private-again', { n: 1 }]);
  });
}
