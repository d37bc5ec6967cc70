export const name = 'presence-user-ids';

/** User ids are equal if their text is; the type of an id is preserved. */
export async function run(ctx) {
  const { users } = ctx.laravel;
  users.number = { user_id: 7, user_info: { as: 'number' } };
  users.text = { user_id: '7', user_info: { as: 'text' } };
  users.uuid = { user_id: '0b2e9c1e-9f5c-4a9e-8f7b-2f1d5a6f0001', user_info: {} };
  users.zero = { user_id: 0, user_info: { as: 'zero' } };
  const join = async (name) => {
    const client = await ctx.client(name);
    client.join('room');
    const [, members] = await client.wire('presence:subscribed');
    return { client, members };
  };
  const alice = await join('alice');

  await ctx.check('1 and "1" are one user', async () => {
    const number = await join('number');
    ctx.assert.deepEqual(number.members.map(({ user_id: id }) => id), [7, 1]);
    ctx.assert.equal((await alice.client.wire('presence:joining'))[1].user_id, 7);
    const text = await join('text');
    ctx.assert.equal(text.members.length, 2);
    await ctx.quiet();
    ctx.assert.equal(alice.client.seen('presence:joining').length, 1);
    number.client.close();
    await ctx.subscribed('presence-room', 2);
    await ctx.quiet();
    ctx.assert.equal(alice.client.seen('presence:leaving').length, 0);
    text.client.close();
    ctx.assert.equal(String((await alice.client.wire('presence:leaving'))[1].user_id), '7');
  });
  for (const name of ['uuid', 'zero']) {
    await ctx.check(`the id of ${name} arrives as it is`, async () => {
      const { client, members } = await join(name);
      ctx.assert.deepEqual(members[0].user_id, users[name].user_id);
      ctx.assert.deepEqual((await alice.client.wire('presence:joining'))[1].user_id, users[name].user_id);
      client.close();
      ctx.assert.deepEqual((await alice.client.wire('presence:leaving'))[1].user_id, users[name].user_id);
    });
  }
}
