/** The README's first command: the demo, with nothing else on the machine, in a real browser. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { launchBrowser } from './lib/browser.mjs';
import { makeFolder, removeFolder } from './lib/folder.mjs';
import { Child, onFreePort } from './lib/process.mjs';
import { target } from './lib/targets.mjs';
import { DEADLINE_MS } from './lib/wait.mjs';

// The original has no demo.
const demo = process.env.TARGET === 'original' ? () => {} : test;

demo('a visitor sends an event and sees it arrive in the dashboard', { timeout: 60_000 }, async (t) => {
  const folder = makeFolder('demo-');
  t.after(() => removeFolder(folder));
  const { child, url } = await onFreePort(async (port) => {
    const env = { LARAVEL_ECHO_SERVER_PORT: String(port), LARAVEL_ECHO_SERVER_HOST: '127.0.0.1', LARAVEL_ECHO_SERVER_REDIS_SERVER_PORT: String(port + 1) };
    const server = new Child([...target.command, 'start', '--demo'], { cwd: folder, env });
    const address = `http://127.0.0.1:${port}`;
    await server.whenReady(async () => (await (await fetch(address)).text()) === 'OK');
    return { child: server, url: address };
  });
  t.after(() => child.stop());
  const browser = await launchBrowser();
  t.after(() => browser.close());

  const page = await browser.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  await page.goto(`${url}/demo`);
  await page.getByRole('heading', { name: 'Your first event' }).waitFor();
  await page.locator('#trace [data-kind=subscribed]').waitFor();
  await page.locator('#first-send').click();
  await page.getByText('arrived: hello on demo: {"text":"Hi"}').waitFor();
  await page.locator('#trace [data-kind=event]', { hasText: 'delivered to 1' }).waitFor();
  assert.equal(new URL(page.url()).hash.includes('demo'), false, 'the key is not left in the address');

  // Laravel would publish to this port.
  const port = Number(new URL(url).port) + 1;
  assert.match(await page.locator('#laravel').textContent(), new RegExp(`REDIS_PORT=${port} .*REDIS_PREFIX= php artisan tinker --execute=`));
  assert.match(child.output, new RegExp(`REDIS_PORT=${port} `));

  // The command shown on the page and in the terminal does the same.
  const [, endpoint, body] = /POST '([^']+)' -d '([^']+)'/.exec(await page.locator('#curl').textContent());
  assert.match(child.output, new RegExp(endpoint.split('auth_key=')[1]));
  assert.equal((await fetch(endpoint, { method: 'POST', body })).status, 200);
  await page.locator('#trace [data-kind=event]').nth(1).waitFor();
});
