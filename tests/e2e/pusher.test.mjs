/**
 * A real Laravel with its `pusher` driver instead of `redis`: it publishes to the server's HTTP API and signs the answers of
 * /broadcasting/auth. Clients of both protocols share its channels.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { EchoClient } from './lib/clients.mjs';
import { USERS } from './lib/laravel.mjs';
import { PusherClient } from './lib/pusher.mjs';
import { Stack } from './lib/stack.mjs';
import { target } from './lib/targets.mjs';
import { until } from './lib/wait.mjs';

const SETUP = { timeout: 60_000 };
const TEST = { timeout: 60_000 };
const FORBIDDEN = 403;
const [socketIo] = target.clients;

let number = 0;
/** A number for channel names that no other test uses. */
const unusedNumber = () => (number += 1);

for (const name of target.pusherClients) {
  describe(`Laravel with its pusher driver, ${name} beside ${socketIo}`, () => {
    let stack;
    before(async () => (stack = await Stack.startWithPusher()), SETUP);
    after(() => stack?.stop(), SETUP);

    const kinds = { pusher: [PusherClient, name], 'socket.io': [EchoClient, socketIo] };
    const pairs = Object.keys(kinds).flatMap((one) => Object.keys(kinds).map((other) => [one, other]));

    async function connect(t, kind, user) {
      const visitor = user ? await stack.laravel.login(user) : await stack.laravel.guest();
      const [Client, name] = kinds[kind];
      const client = await Client.connect(name, stack, visitor);
      t.after(() => client.close());
      return client;
    }

    for (const kind of Object.keys(kinds)) {
      test(`${kind}: public and private events, for users whom Laravel authorizes`, TEST, async (t) => {
        const [ann, guest, eve] = [await connect(t, kind, 'ann'), await connect(t, kind), await connect(t, kind, 'eve')];
        const n = unusedNumber();
        const news = await guest.listen(guest.echo.channel(`news.${n}`), 'OrderShipped');
        const orders = await ann.listen(ann.echo.private(`orders.${n}`), 'OrderShipped');
        for (const client of [guest, eve]) {
          client.echo.private(`orders.${n}`);
          assert.equal(await client.refusal(`private-orders.${n}`), FORBIDDEN);
        }
        const order = { id: 7, note: 'wörld ✓ </script>', price: 12.5, tags: [], customer: null };
        await ann.visitor.ship(order, [`public:news.${n}`, `private:orders.${n}`]);
        assert.deepEqual([await news.next(), await orders.next()], [{ order }, { order }]);
      });

      test(`${kind}: a notification reaches its user`, TEST, async (t) => {
        const [ann, bob] = [await connect(t, kind, 'ann'), await connect(t, kind, 'bob')];
        const channel = `App.Models.User.${USERS.ann.id}`;
        const notified = ann.record('a notification', (callback) => ann.echo.private(channel).notification(callback));
        await ann.whenDelivering(`private-${channel}`);
        await bob.visitor.post(`/notify/${USERS.ann.id}`);
        const { id, ...notification } = await notified.next();
        assert.match(id, /^[0-9a-f-]{36}$/);
        assert.deepEqual(notification, { hello: 'wörld ✓', type: 'App\\Notifications\\Pinged' });
      });

      test(`${kind}: a presence channel that Laravel refuses stays closed`, TEST, async (t) => {
        const ann = await connect(t, kind, 'ann');
        ann.echo.join('chat.closed');
        assert.equal(await ann.refusal('presence-chat.closed'), FORBIDDEN);
      });
    }

    for (const [one, other] of pairs) {
      test(`toOthers() from ${one} reaches ${other}, and not the sender`, TEST, async (t) => {
        const [ann, bob] = [await connect(t, one, 'ann'), await connect(t, other, 'bob')];
        const channel = `orders.${unusedNumber()}`;
        const anns = await ann.listen(ann.echo.private(channel), 'OrderShipped');
        const bobs = await bob.listen(bob.echo.private(channel), 'OrderShipped');
        const { socketId } = ann;
        await ann.visitor.ship({ id: 1 }, [`private:${channel}`], { others: true, socketId });
        await ann.visitor.ship({ id: 2 }, [`private:${channel}`], { socketId });
        assert.deepEqual(await bobs.next(), { order: { id: 1 } });
        assert.deepEqual(await bobs.next(), { order: { id: 2 } });
        // A channel keeps its order, so the excluded event cannot arrive after this one.
        assert.deepEqual(await anns.next(), { order: { id: 2 } });
        assert.equal(anns.all.length, 1);
      });

      test(`${one} and ${other} see each other in a presence channel, and whisper`, TEST, async (t) => {
        const [ann, bob] = [await connect(t, one, 'ann'), await connect(t, other, 'bob')];
        const channel = `chat.${unusedNumber()}`;
        const annsRoom = ann.echo.join(channel);
        const here = ann.record('here', (callback) => annsRoom.here(callback));
        const joining = ann.record('joining', (callback) => annsRoom.joining(callback));
        const leaving = ann.record('leaving', (callback) => annsRoom.leaving(callback));
        const heard = ann.record('a whisper', (callback) => annsRoom.listenForWhisper('typing', callback));
        assert.deepEqual(await here.next(), [USERS.ann]);

        const bobsRoom = bob.echo.join(channel);
        const bobsHere = bob.record('here', (callback) => bobsRoom.here(callback));
        const byId = (a, b) => a.id - b.id;
        assert.deepEqual((await bobsHere.next()).sort(byId), [USERS.ann, USERS.bob]);
        assert.deepEqual(await joining.next(), USERS.bob);

        bobsRoom.whisper('typing', { text: 'wörld' });
        assert.deepEqual(await heard.next(), { text: 'wörld' });
        bob.echo.leave(channel);
        assert.deepEqual(await leaving.next(), USERS.bob);
      });
    }

    test('a user with a tab in each protocol is one member, and both are terminated', TEST, async (t) => {
      const [bob, first, second] = [await connect(t, 'pusher', 'bob'), await connect(t, 'pusher', 'ann'), await connect(t, 'socket.io', 'ann')];
      const channel = `chat.${unusedNumber()}`;
      for (const client of [first, second]) {
        const here = client.record('here', (callback) => client.echo.join(channel).here(callback));
        await here.next();
      }
      const room = bob.echo.join(channel);
      const here = bob.record('here', (callback) => room.here(callback));
      const leaving = bob.record('leaving', (callback) => room.leaving(callback));
      assert.equal((await here.next()).length, 2);

      first.pusher.signin();
      const greeted = first.record('an event of the user', (callback) => first.pusher.user.bind('Greeted', callback));
      await until(async () => {
        await bob.visitor.post(`/pusher/users/${USERS.ann.id}/send`, { event: 'Greeted', data: { n: 1 } });
        return greeted.all.length > 0;
      }, 'the user to be greeted');
      assert.deepEqual(await greeted.next(), { n: 1 });

      await bob.visitor.post(`/pusher/users/${USERS.ann.id}/terminate`);
      assert.deepEqual(await leaving.next(), USERS.ann);
      await until(() => ['disconnected', 'failed'].includes(first.pusher.connection.state), 'the Pusher tab to stay away');
      await until(() => second.socket.disconnected, 'the Socket.IO tab to stay away');
    });

    test('a batch reaches both protocols', TEST, async (t) => {
      const [ann, bob] = [await connect(t, 'pusher', 'ann'), await connect(t, 'socket.io', 'bob')];
      const n = unusedNumber();
      const heard = [await ann.listen(ann.echo.channel(`news.${n}`), '.sent'), await bob.listen(bob.echo.private(`orders.${n}`), '.sent')];
      const batch = [`news.${n}`, `private-orders.${n}`].map((channel) => ({ channel, name: 'sent', data: { channel } }));
      await ann.visitor.post('/pusher/batch', { batch });
      for (const [index, recording] of heard.entries()) assert.deepEqual(await recording.next(), batch[index].data);
    });
  });
}
