import { RedisServer } from '../lib/redis.mjs';

export const name = 'redis-username';
export const server = 'manual';

/** databaseConfig.redis accepts the name and password of a Redis user. */
export async function run(ctx) {
  const redis = await RedisServer.start();
  ctx.onCleanup(() => redis.stop());
  await redis.client.acl('SETUSER', 'echo', 'on', '>secret', 'allkeys', 'allchannels', '+@all');
  await redis.client.acl('SETUSER', 'default', 'off');
  ctx.writeConfig({ ...ctx.config, databaseConfig: { redis: { host: '127.0.0.1', port: redis.port, username: 'echo', password: 'secret' } } });
  await ctx.start();
  const alice = await ctx.client('alice');
  alice.channel('news', '.sent');
  await ctx.subscribed('news');
  await redis.whenListening();
  await redis.publish('news', 'sent', { n: 1 });
  ctx.assert.deepEqual(await alice.event('news', '.sent'), { n: 1 });
}
