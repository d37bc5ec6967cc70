import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { withTimeout } from '../lib/util.mjs';

export const name = 'config-errors';
export const requires = ['ours'];
export const clients = 'none';
export const formats = 'each';
export const server = 'manual';

/** Invalid config values: [overrides, what the message must name]. */
const WRONG = {
  'a port of letters': [{ port: 'http' }, ['port', 'http']],
  'a port that is too large': [{ port: 70_000 }, ['port', '70000']],
  'an unknown protocol': [{ protocol: 'ftp' }, ['protocol', 'ftp', 'https']],
  'an unknown database': [{ database: 'mongo' }, ['database', 'mongo', 'redis']],
  'a flag of text': [{ devMode: 'perhaps' }, ['devMode', 'perhaps']],
  'clients of text': [{ clients: 'me' }, ['clients']],
  'an unknown duration': [{ auth: { timeout: 'soon' } }, ['auth.timeout', 'soon']],
};

/** Config errors are reported with key and value, and by the exit status. */
export async function run(ctx) {
  const start = async (dir = ctx.dir) => {
    const server = ctx.launch({ dir });
    ctx.server = server;
    const { code } = await withTimeout(server.ended, 10_000, 'the server did not end').finally(() => server.stop(500));
    return { code, text: server.text };
  };
  const ends = async (parts, dir) => {
    const { code, text } = await start(dir);
    ctx.assert.notEqual(code, 0, 'it ended with status 0');
    for (const part of parts) ctx.assert.ok(text.includes(part), `"${part}" is not in: ${text.trim()}`);
  };
  for (const [label, [overrides, parts]] of Object.entries(WRONG)) {
    await ctx.check(label, async () => {
      ctx.writeConfig({ ...ctx.config, ...overrides });
      await ends(parts);
    });
  }
  await ctx.check('a file that cannot be read', async () => {
    writeFileSync(ctx.configFile, ctx.format === 'json' ? '{"port": 6001,\n "host": ' : 'port = 6001\nhost = ');
    await ends(['laravel-echo-server']);
  });
  await ctx.check('a port in use', async () => {
    ctx.writeConfig(ctx.config);
    const first = await ctx.start();
    const other = path.join(ctx.dir, 'other');
    ctx.writeConfig(ctx.config, { dir: other });
    await ends([String(ctx.port)], other);
    await first.stop();
  });
  await ctx.check('an unknown key: a warning with the nearest one, and the server runs', async () => {
    ctx.writeConfig({ ...ctx.config, authEndpiont: '/auth' });
    const server = await ctx.start();
    await server.waitForOutput(/authEndpiont.*authEndpoint/, 'a warning that names both keys', 5_000);
    await server.stop();
  });
}
