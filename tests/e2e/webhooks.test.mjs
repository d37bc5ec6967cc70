/** A real Laravel is notified of joins and leaves: by signed requests, and by jobs that its worker processes. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { EchoClient } from './lib/clients.mjs';
import { Stack } from './lib/stack.mjs';
import { target } from './lib/targets.mjs';
import { until } from './lib/wait.mjs';

const [client] = target.clients;

const settings = (laravelUrl) => ({
  webhooks: [
    { url: `${laravelUrl}/webhooks/echo`, key: 'echo', secret: 'webhook-secret' },
    { target: 'queue', job: 'App\\Jobs\\EchoWebhook' },
  ],
  webhooksDelivery: { grace: 0 },
});

for (const redisClient of ['phpredis', 'predis']) {
  const skip = process.env.TARGET === 'original' && 'it has no webhooks';
  test(`Laravel with ${redisClient} is notified of joins and leaves`, { timeout: 90_000, skip }, async (t) => {
    const stack = await Stack.start({ redisClient, settings });
    t.after(() => stack.stop());
    const worker = stack.laravel.artisan('queue:work', 'redis', '--sleep=0.1', '--tries=3');
    t.after(() => worker.stop());

    const told = (log) => {
      const file = `${stack.laravel.storage}/webhooks-${log}.log`;
      return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line)) : [];
    };
    const isTold = (name) =>
      until(
        () => ['http', 'queue'].every((log) => told(log).some((event) => event.name === name)),
        () => `${name}; the server's log:\n${stack.echo.log}\nthe worker's:\n${worker.output}`,
      );
    const ann = await EchoClient.connect(client, stack, await stack.laravel.login('ann'));
    ann.echo.join('chat.1');
    await isTold('member_added');
    ann.close();
    await isTold('channel_vacated');

    for (const log of ['http', 'queue']) {
      const events = told(log);
      assert.deepEqual(
        events.map(({ name, channel, user_id }) => [name, channel, user_id]),
        [
          ['channel_occupied', 'presence-chat.1', undefined],
          ['member_added', 'presence-chat.1', '1'],
          ['member_removed', 'presence-chat.1', '1'],
          ['channel_vacated', 'presence-chat.1', undefined],
        ],
      );
      const seqs = events.map(({ seq }) => seq);
      assert.deepEqual(seqs, [...new Set(seqs)].sort((a, b) => a - b), 'seq grows');
    }
    assert.match(worker.output, /(\[\w{32}\]) Processing: App\\Jobs\\EchoWebhook\n.*\1 Processing/, 'a job that failed is tried again');
  });
}
