/**
 * A real Laravel publishes through Redis and authorizes channels; real laravel-echo clients with
 * its session cookie receive the events. Every client generation runs all of these tests.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { allWaysArrive } from './lib/all-ways.mjs';
import { EchoClient } from './lib/clients.mjs';
import { USERS } from './lib/laravel.mjs';
import { Stack } from './lib/stack.mjs';
import { target } from './lib/targets.mjs';

const SETUP = { timeout: 60_000 };
const TEST = { timeout: 60_000 };

const FORBIDDEN = 403;

/** Connects a client for one test, as a user or as a guest. */
async function connect(t, name, stack, user) {
  const visitor = user ? await stack.laravel.login(user) : await stack.laravel.guest();
  const client = await EchoClient.connect(name, stack, visitor);
  t.after(() => client.close());
  return client;
}

let number = 0;
/** A number for channel names that no other test uses. */
const unusedNumber = () => (number += 1);

describe('Laravel with phpredis', () => {
  let stack;
  before(async () => (stack = await Stack.start()), SETUP);
  after(() => stack?.stop(), SETUP);

  for (const name of target.clients) {
    describe(name, () => {
      test('a public event reaches a guest', TEST, async (t) => {
        const guest = await connect(t, name, stack);
        const channel = `news.${unusedNumber()}`;
        const shipped = await guest.listen(guest.echo.channel(channel), 'OrderShipped');

        const order = { id: 7, note: 'wörld ✓ </script>', price: 12.5, tags: [], customer: null };
        await guest.visitor.ship(order, [`public:${channel}`]);

        assert.deepEqual(await shipped.next(), { order, socket: null });
      });

      test('a private channel is open to users whom Laravel grants it', TEST, async (t) => {
        const ann = await connect(t, name, stack, 'ann');
        const channel = `orders.${unusedNumber()}`;
        const shipped = await ann.listen(ann.echo.private(channel), 'OrderShipped');

        await ann.visitor.ship({ id: 1 }, [`private:${channel}`]);

        assert.deepEqual(await shipped.next(), { order: { id: 1 }, socket: null });
        assert.ok(ann.nothingRefused);
      });

      for (const user of ['eve', undefined]) {
        test(`a private channel is closed to ${user ?? 'a guest'}`, TEST, async (t) => {
          const client = await connect(t, name, stack, user);
          const number = unusedNumber();
          const secrets = client.record('a private order', (callback) => {
            client.echo.private(`orders.${number}`).listen('OrderShipped', callback);
          });
          const news = await client.listen(client.echo.channel(`news.${number}`), 'OrderShipped');
          assert.equal(await client.refusal(`private-orders.${number}`), FORBIDDEN);

          // Published on the private channel first: if it were delivered, it would arrive before the news.
          await client.visitor.ship({ id: 1 }, [`private:orders.${number}`, `public:news.${number}`]);
          assert.deepEqual(await news.next(), { order: { id: 1 }, socket: null });
          assert.deepEqual(secrets.all, []);
        });
      }

      for (const header of ['X-HTTP-Method-Override', 'x_http_method_override', 'X-Http-Method']) {
        test(`${header}: OPTIONS grants nothing, although Laravel answers it 200 with an empty body`, TEST, async (t) => {
          const guest = await connect(t, name, stack);
          const channel = `private-orders.${unusedNumber()}`;
          guest.echo.connector.socket.emit('subscribe', { channel, auth: { headers: { [header]: 'OPTIONS' } } });
          assert.equal(await guest.refusal(channel), FORBIDDEN);
        });
      }

      test('a presence channel shows who is here, joins and leaves', TEST, async (t) => {
        const ann = await connect(t, name, stack, 'ann');
        const channel = `chat.${unusedNumber()}`;
        const annsRoom = ann.echo.join(channel);
        const here = ann.record('here', (callback) => annsRoom.here(callback));
        const joining = ann.record('joining', (callback) => annsRoom.joining(callback));
        const leaving = ann.record('leaving', (callback) => annsRoom.leaving(callback));
        assert.deepEqual(await here.next(), [USERS.ann]);

        const bob = await connect(t, name, stack, 'bob');
        const bobsHere = bob.record('here', (callback) => bob.echo.join(channel).here(callback));
        assert.deepEqual(await bobsHere.next(), [USERS.bob, USERS.ann]);
        assert.deepEqual(await joining.next(), USERS.bob);

        bob.echo.leave(channel);
        assert.deepEqual(await leaving.next(), USERS.bob);

        const eve = await connect(t, name, stack, 'eve');
        const evesHere = eve.record('here', (callback) => eve.echo.join(channel).here(callback));
        assert.deepEqual(await evesHere.next(), [USERS.eve, USERS.ann]);
        assert.deepEqual(await joining.next(), USERS.eve);

        eve.close();
        assert.deepEqual(await leaving.next(), USERS.eve);
        assert.equal(here.all.length, 1);
      });

      test('a presence channel delivers events', TEST, async (t) => {
        const ann = await connect(t, name, stack, 'ann');
        const channel = `chat.${unusedNumber()}`;
        const shipped = await ann.listen(ann.echo.join(channel), 'OrderShipped');

        await ann.visitor.ship({ id: 2 }, [`presence:${channel}`]);

        assert.deepEqual(await shipped.next(), { order: { id: 2 }, socket: null });
      });

      test('a presence channel is closed to users whom Laravel refuses it', TEST, async (t) => {
        const ann = await connect(t, name, stack, 'ann');
        ann.echo.join('chat.closed');

        assert.equal(await ann.refusal('presence-chat.closed'), FORBIDDEN);
      });

      test('toOthers() excludes the sender', TEST, async (t) => {
        const ann = await connect(t, name, stack, 'ann');
        const bob = await connect(t, name, stack, 'bob');
        const channel = `orders.${unusedNumber()}`;
        const anns = await ann.listen(ann.echo.private(channel), 'OrderShipped');
        const bobs = await bob.listen(bob.echo.private(channel), 'OrderShipped');

        const { socketId } = ann;
        await ann.visitor.ship({ id: 1 }, [`private:${channel}`], { others: true, socketId });
        await ann.visitor.ship({ id: 2 }, [`private:${channel}`], { socketId });

        assert.deepEqual(await bobs.next(), { order: { id: 1 }, socket: socketId });
        assert.deepEqual(await bobs.next(), { order: { id: 2 }, socket: null });
        // A channel keeps its order, so the excluded event cannot arrive after this one.
        assert.deepEqual(await anns.next(), { order: { id: 2 }, socket: null });
        assert.equal(anns.all.length, 1);
      });

      test('a notification reaches only its user', TEST, async (t) => {
        const ann = await connect(t, name, stack, 'ann');
        const bob = await connect(t, name, stack, 'bob');
        const channel = `App.Models.User.${USERS.ann.id}`;
        bob.echo.private(channel);
        assert.equal(await bob.refusal(`private-${channel}`), FORBIDDEN);

        const notified = ann.record('a notification', (callback) => ann.echo.private(channel).notification(callback));
        await ann.whenDelivering(`private-${channel}`);
        await bob.visitor.post(`/notify/${USERS.ann.id}`);

        const { id, ...notification } = await notified.next();
        assert.match(id, /^[0-9a-f-]{36}$/);
        assert.deepEqual(notification, { hello: 'wörld ✓', type: 'App\\Notifications\\Pinged', socket: null });
      });
    });
  }
});

describe('Laravel with predis', () => {
  let stack;
  before(async () => (stack = await Stack.start({ redisClient: 'predis' })), SETUP);
  after(() => stack?.stop(), SETUP);

  const [name] = target.clients;

  test(`events, toOthers() and notifications arrive (${name})`, TEST, async (t) => {
    await allWaysArrive(await connect(t, name, stack, 'ann'), await connect(t, name, stack, 'bob'));
  });
});
