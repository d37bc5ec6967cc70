/** Unmodified pusher-js, laravel-echo, socket.io-client and npm's `pusher` on the same channels. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { application, KEY, publisherTo, record, startAll, startServer, until } from './lib.mjs';

const require = createRequire(import.meta.url);
const io = require('socket.io-client');
const PUSHERS = Object.fromEntries(['4', '7', '8'].map((version) => [version, require(`pusher-js-${version}`)]));
const [{ default: Echo2 }, { default: Echo1 }] = await Promise.all([import('echo'), import('echo-1')]);
const ECHOS = { 1: Echo1.default ?? Echo1, 2: Echo2.default ?? Echo2 };
const TEST = { timeout: 60_000 };

describe('Pusher clients beside Socket.IO', () => {
  let app;
  let server;
  let publisher;
  let stop;
  const open = [];
  before(async () => ({ app, server, publisher, stop } = await startAll()), TEST);
  after(async () => {
    for (const close of open) close();
    await stop?.();
  }, TEST);

  /** Signs like Laravel's `pusher` and `reverb` drivers. */
  const authorizer = (user) => (channel) => ({
    authorize: (socketId, callback) => {
      const data = channel.name.startsWith('presence-') ? { user_id: String(user), user_info: { name: `User ${user}` } } : undefined;
      callback(null, publisher.authorizeChannel(socketId, channel.name, data));
    },
  });

  function options(version, user) {
    const address = { wsHost: '127.0.0.1', wsPort: server.port, httpHost: '127.0.0.1', httpPort: server.port };
    return { ...address, cluster: 'mt1', forceTLS: false, encrypted: false, disableStats: true, enabledTransports: ['ws'], authorizer: authorizer(user) };
  }

  async function pusher(version, user) {
    const client = new PUSHERS[version](KEY, options(version, user));
    open.push(() => client.disconnect());
    await until(`connection of pusher-js ${version}`, () => client.connection.state === 'connected');
    return client;
  }

  async function socketIo(user) {
    const echo = new ECHOS[2]({ broadcaster: 'socket.io', client: io, host: `http://127.0.0.1:${server.port}`, extraHeaders: { Cookie: `user=${user}` } });
    open.push(() => echo.disconnect());
    await until('connection of socket.io-client', () => echo.socketId());
    return echo;
  }

  for (const version of Object.keys(PUSHERS)) {
    test(`pusher-js ${version}: public, private and presence, in both directions`, TEST, async () => {
      const client = await pusher(version, 1);
      const echo = await socketIo(2);
      const name = `room.${version}`;
      const heard = { pusher: record('event by Pusher'), echo: record('event by Socket.IO') };
      const news = client.subscribe(`news.${version}`);
      news.bind('sent', heard.pusher);
      echo.channel(`news.${version}`).listen('.sent', heard.echo);
      await until('subscription', () => news.subscribed);
      await until('both', async () => (await channelInfo(`news.${version}`)).subscription_count === 2);
      const order = { id: 7, note: 'wörld ✓ </script>', tags: [] };
      await publisher.trigger(`news.${version}`, 'sent', order);
      assert.deepEqual([await heard.pusher.next(), await heard.echo.next()], [order, order]);
      await publisher.trigger(`news.${version}`, 'sent', { n: 1 }, { socket_id: client.connection.socket_id });
      await publisher.trigger(`news.${version}`, 'sent', { n: 2 }, { socket_id: echo.socketId() });
      assert.deepEqual([await heard.pusher.next(), await heard.echo.next()], [{ n: 2 }, { n: 1 }]);

      const room = client.subscribe(`presence-${name}`);
      const added = record('member_added');
      const removed = record('member_removed');
      room.bind('pusher:member_added', added);
      room.bind('pusher:member_removed', removed);
      await until('members', () => room.subscribed);
      assert.deepEqual([room.members.count, room.members.me.id], [1, '1']);
      const here = record('here');
      const echoRoom = echo.join(name).here(here);
      assert.deepEqual((await here.next()).map((member) => member.name).sort(), ['User 1', 'User 2']);
      assert.deepEqual((await added.next()).info, { name: 'User 2' });

      const whispers = { pusher: record('whisper to Pusher'), echo: record('whisper to Socket.IO') };
      room.bind('client-typing', (data, metadata) => whispers.pusher([data, metadata?.user_id]));
      echoRoom.listenForWhisper('typing', whispers.echo);
      echoRoom.whisper('typing', { a: 1 });
      room.trigger('client-typing', { b: 2 });
      const [data, user] = await whispers.pusher.next();
      assert.deepEqual(data, { a: 1 });
      if (version !== '4') assert.equal(user, '2');
      assert.deepEqual(await whispers.echo.next(), { b: 2 });
      echo.leave(name);
      assert.equal((await removed.next()).id, '2');
    });
  }

  const channelInfo = async (channel) => {
    const response = await publisher.get({ path: `/channels/${channel}`, params: { info: 'subscription_count' } });
    return response.json();
  };

  for (const [version, broadcaster] of [['1', 'pusher'], ['2', 'pusher'], ['2', 'reverb']]) {
    test(`laravel-echo ${version} with broadcaster ${broadcaster}`, TEST, async () => {
      globalThis.window = globalThis.window ?? globalThis;
      const Pusher = PUSHERS[version === '1' ? '7' : '8'];
      const echo = new ECHOS[version]({ broadcaster, key: KEY, ...options(version, 5), client: undefined, Pusher, ...(version === '1' ? { client: new Pusher(KEY, options(version, 5)) } : {}) });
      open.push(() => echo.disconnect());
      await until('socket id', () => echo.socketId());
      const channel = `orders.${version}.${broadcaster}`;
      const heard = record('private event');
      const subscribed = record('subscribed');
      echo.private(channel).subscribed(() => subscribed(true)).listen('.sent', heard);
      await subscribed.next();
      await publisher.trigger(`private-${channel}`, 'sent', { n: 1 });
      assert.deepEqual(await heard.next(), { n: 1 });
    });
  }

  test('a refused subscribe reaches the error callback of Echo', TEST, async () => {
    const wrong = { ...options('8', 1), authorizer: () => ({ authorize: (id, callback) => callback(null, { auth: `${KEY}:${'0'.repeat(64)}` }) }) };
    const echo = new ECHOS[2]({ broadcaster: 'pusher', key: KEY, ...wrong, Pusher: PUSHERS['8'] });
    open.push(() => echo.disconnect());
    const failed = record('error');
    echo.private('forbidden').error(failed);
    assert.equal((await failed.next()).status, 401);
  });

  test('presence with Laravel\'s redis driver, signed by this server', TEST, async () => {
    const endpoint = `http://127.0.0.1:${server.port}/broadcasting/auth`;
    const { authorizer: _, ...rest } = options('8', 1);
    const client = new PUSHERS['8'](KEY, { ...rest, channelAuthorization: { endpoint, transport: 'ajax', headers: { Authorization: 'Bearer user=9' } } });
    open.push(() => client.disconnect());
    const room = client.subscribe('presence-redis-driver');
    await until('members', () => room.subscribed);
    assert.deepEqual([room.members.me.id, room.members.me.info], ['9', { name: 'User 9' }]);
  });

  test('a signed-in user gets events and can be terminated', TEST, async () => {
    const client = new PUSHERS['8'](KEY, {
      ...options('8', 1),
      userAuthentication: { customHandler: ({ socketId }, callback) => callback(null, publisher.authenticateUser(socketId, { id: '42' })) },
    });
    open.push(() => client.disconnect());
    client.signin();
    const heard = record('event of the user');
    client.user.bind('sent', heard);
    await until('sign-in', async () => (await channelInfo(encodeURIComponent('#server-to-user-42')).catch(() => ({}))).occupied);
    await publisher.sendToUser('42', 'sent', { n: 1 });
    assert.deepEqual(await heard.next(), { n: 1 });
    await publisher.terminateUserConnections('42');
    await until('end', () => ['disconnected', 'failed'].includes(client.connection.state));
  });

  test('encrypted channels are forwarded unchanged', TEST, async () => {
    const master = Buffer.alloc(32, 7).toString('base64');
    const secret = publisherTo(server.port, { encryptionMasterKeyBase64: master });
    const plain = io(`http://127.0.0.1:${server.port}`, { transports: ['websocket'], extraHeaders: { Cookie: 'user=1' } });
    open.push(() => plain.close());
    const heard = record('encrypted event');
    plain.on('sent', (channel, data) => heard(data));
    plain.emit('subscribe', { channel: 'private-encrypted-room' });
    await until('subscription', async () => (await channelInfo('private-encrypted-room')).subscription_count === 1);
    await secret.trigger('private-encrypted-room', 'sent', { secret: true });
    assert.deepEqual(Object.keys(await heard.next()).sort(), ['ciphertext', 'nonce']);
  });
});

test('clients reconnect at once after a drain', TEST, async () => {
  const app = await application();
  const server = await startServer({ authHost: app.url });
  const client = new PUSHERS['8'](KEY, { wsHost: '127.0.0.1', wsPort: server.port, cluster: 'mt1', forceTLS: false, enabledTransports: ['ws'], disableStats: true });
  await until('connection', () => client.connection.state === 'connected');
  const states = [];
  client.connection.bind('state_change', ({ current }) => states.push(current));
  await server.stop();
  await until('another try', () => states.includes('connecting'));
  assert.ok(!states.includes('failed'), states.join());
  client.disconnect();
  app.stop();
});
