export const name = 'env-redis-without-section';
export const clients = 'none';
export const server = 'manual';

/** The environment configures Redis; the config has no databaseConfig at all. */
export async function run(ctx) {
  const { databaseConfig, ...config } = ctx.config;
  ctx.writeConfig(config);
  await ctx.start({ env: { LARAVEL_ECHO_SERVER_REDIS_HOST: databaseConfig.redis.host, LARAVEL_ECHO_SERVER_REDIS_PORT: String(databaseConfig.redis.port) } });
  ctx.assert.equal((await ctx.http('GET', '/')).text, 'OK');
}
