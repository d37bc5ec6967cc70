import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

export const name = 'client-script';
export const requires = ['ours'];
export const clients = 'none';

const FOLDER = path.join(path.dirname(createRequire(import.meta.url).resolve('sio-4/package.json')), 'dist');
export const config = { socketio: { clientPath: FOLDER } };

/** socketio.clientPath: the client library in that directory is served under /socket.io/. */
export async function run(ctx) {
  for (const file of ['socket.io.js', 'socket.io.min.js', 'socket.io.js.map', 'socket.io.min.js.map']) {
    await ctx.check(file, async () => {
      const { status, text, headers } = await ctx.http('GET', `/socket.io/${file}`);
      ctx.assert.equal(status, 200);
      ctx.assert.ok(text === readFileSync(path.join(FOLDER, file), 'utf8'), 'it is another file');
      ctx.assert.match(headers['content-type'], file.endsWith('.js') ? /javascript/ : /json/);
    });
  }
  for (const file of ['package.json', '../package.json', '%2e%2e/package.json', '..%2fpackage.json', 'nothing.js']) {
    await ctx.check(`${file} is not served`, async () => {
      const { status, text } = await ctx.http('GET', `/socket.io/${file}`);
      ctx.assert.ok(status >= 400 && status < 500, `status ${status}`);
      ctx.assert.doesNotMatch(text, /"dependencies"/);
    });
  }
}
