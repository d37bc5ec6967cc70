import path from 'node:path';
import { RedisServer } from '../lib/redis.mjs';

export const name = 'redis-unix-socket';
export const server = 'manual';

/** databaseConfig.redis accepts the path of a socket instead of host and port. */
export async function run(ctx) {
  const socket = path.join(ctx.dir, 'redis.sock');
  const redis = await RedisServer.start(['--unixsocket', socket]);
  ctx.onCleanup(() => redis.stop());
  ctx.writeConfig({ ...ctx.config, databaseConfig: { redis: { path: socket } } });
  await ctx.start();
  const alice = await ctx.client('alice');
  alice.channel('news', '.sent');
  await ctx.subscribed('news');
  await redis.whenListening();
  await redis.publish('news', 'sent', { n: 1 });
  ctx.assert.deepEqual(await alice.event('news', '.sent'), { n: 1 });
}
