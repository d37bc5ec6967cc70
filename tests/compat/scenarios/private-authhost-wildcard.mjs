import { withHosts } from '../lib/tools.mjs';

export const name = 'private-authhost-wildcard';
export const server = 'manual';

const HOSTS = ['app.example.test', 'evil-example.test', 'example.test', 'other.test'];

/** An entry that starts with a dot stands for the names below it: the config decides where the request goes. */
export async function run(ctx) {
  ctx.laravel.respond('*', { body: true });
  const { port } = ctx.laravel;
  const wrap = withHosts(ctx.dir, Object.fromEntries(HOSTS.map((host) => [host, '127.0.0.1'])));
  let count = 0;

  /** The Host header that Laravel gets, or the error that the client gets. */
  const hostFor = async (headers) => {
    const channel = `private-w${++count}`;
    const client = await ctx.client(`client${count}`, { user: 'alice', headers });
    client.emit('subscribe', { channel });
    const outcome = await Promise.race([
      client.wire('subscription_error', channel).then(([, status]) => `error ${status}`),
      ctx.subscribed(channel).then(() => ctx.laravel.requestsFor(channel)[0].headers.host),
    ]).finally(() => client.close());
    return outcome;
  };
  const expect = async (cases) => {
    for (const [label, [headers, host]] of Object.entries(cases)) {
      await ctx.check(label, async () => {
        const found = await hostFor(headers);
        ctx.assert.ok([host].flat().includes(found), `expected ${[host].flat().join(' or ')}, got ${found}`);
      });
    }
    await ctx.server.stop();
  };
  const first = `127.0.0.1:${port}`;
  // The original supports only entries with a dot and without a scheme, and uses the last entry instead.
  const ours = (host) => (ctx.ours ? host : 'error 0');
  const page = (host, scheme = 'http') => ({ Referer: `${scheme}://${host}/page` });

  ctx.writeConfig({ ...ctx.config, authHost: [ctx.laravel.url, `http://.example.test:${port}`] });
  await ctx.start({ wrap });
  await expect({
    'a name under it': [page(`app.example.test:${port}`), ours(`app.example.test:${port}`)],
    'a name that only ends alike': [page(`evil-example.test:${port}`), ours(first)],
    'the name without a label before it': [page(`example.test:${port}`), ours(first)],
    'another name': [page(`other.test:${port}`), ours(first)],
    'a page elsewhere does not choose scheme and port': [page('app.example.test:1', 'https'), ours([first, `app.example.test:${port}`])],
  });

  ctx.writeConfig({ ...ctx.config, authHost: [ctx.laravel.url, '.example.test'] });
  await ctx.start({ wrap });
  await expect({
    'without a scheme in the entry only default ports are taken': [page(`app.example.test:${port}`), ctx.ours ? first : `app.example.test:${port}`],
  });

  ctx.writeConfig({ ...ctx.config, authHost: [`http://.example.test:${port}`] });
  await ctx.start({ wrap });
  await expect({ 'a wildcard alone is no address': [{}, 'error 0'] });
}
