export const name = 'presence-auth-bodies';
// The original joins without a member, and crashes when that socket leaves.
export const requires = ['ours'];

const JSON_TYPE = 'application/json';

/** Answers with status 200 that name no user: [body, content type, statuses the client may be told]. */
const UNUSABLE = {
  true: ['true', undefined, [500]],
  'plain text': ['granted', 'text/plain', [500]],
  'invalid JSON': ['{"broken', JSON_TYPE, [500]],
  'an object without channel_data': ['{"auth":"x"}', undefined, [500]],
  'channel_data null': ['{"channel_data":null}', undefined, [500]],
  'channel_data true': ['{"channel_data":true}', undefined, [500]],
  'channel_data of a number': ['{"channel_data":5}', undefined, [500]],
  'channel_data of a list': ['{"channel_data":[]}', undefined, [500]],
  'channel_data without user_id': ['{"channel_data":{"user_info":{"id":1}}}', undefined, [500]],
  'channel_data as text that is no JSON': ['{"channel_data":"alice"}', undefined, [500]],
  // These explicitly refuse, and name no user either.
  empty: ['', undefined, [403, 500]],
  false: ['false', undefined, [403, 500]],
  null: ['null', undefined, [403, 500]],
  'a login page': ['<!DOCTYPE html><html></html>', 'text/html; charset=UTF-8', [403, 500]],
};

/** If the answer has no user, the client does not join and is told so, and other clients are served. */
export async function run(ctx) {
  const bob = await ctx.client('bob');
  for (const [label, [body, type, statuses]] of Object.entries(UNUSABLE)) {
    await ctx.check(label, async () => {
      const room = `b-${label.replaceAll(' ', '-')}`;
      const channel = `presence-${room}`;
      bob.join(room);
      await bob.event(channel, 'here');
      ctx.laravel.respond(channel, { body, type: type ?? 'text/html; charset=UTF-8' });
      const alice = await ctx.client(`alice (${label})`, { user: 'alice', options: { reconnection: false } });
      alice.join(room);
      const [where, status] = await alice.wire('subscription_error', undefined, 3_000);
      ctx.assert.equal(where, channel);
      ctx.assert.ok(statuses.includes(status), `status ${status}, expected ${statuses.join(' or ')}`);
      await ctx.subscribed(channel, 1);
      alice.close();
      await ctx.quiet(50);
      ctx.assert.deepEqual([bob.seen('presence:joining', channel), bob.seen('presence:leaving', channel)], [[], []]);
      ctx.laravel.behaviours.delete(channel);
    });
  }
  await ctx.check('an answer that names a user still counts', async () => {
    ctx.laravel.respond('presence-room', { body: { channel_data: ctx.laravel.users.bob }, type: JSON_TYPE });
    const last = await ctx.client('last', { user: 'bob' });
    last.join('room');
    ctx.assert.deepEqual(await last.event('presence-room', 'here'), [ctx.laravel.users.bob.user_info]);
  });
}
