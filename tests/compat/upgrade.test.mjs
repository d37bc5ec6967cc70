/**
 * Upgrades of real clients through various proxies: ones that pass the handshake and then swallow, close or delay the
 * websocket, nginx, and HAProxy.
 *
 * Input: the server's binary, ECHO_BIN. Each test has its own server and proxy on free ports.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { CLIENTS, DEADLINE_MS, KEY, run, startServer, until } from './lib/standing.mjs';
import { freePort } from './lib/util.mjs';

const EVENTS = 20;

async function api(port, what, body) {
  const answer = await fetch(`http://127.0.0.1:${port}/apps/app/${what}?auth_key=${KEY}`, body && { method: 'POST', body: JSON.stringify(body) });
  assert.equal(answer.status, 200);
  return answer.json();
}

const publish = (port, number) => api(port, 'events', { name: 'told', channel: 'news', data: JSON.stringify(number) });

/** A connected client that has subscribed to the channel. */
async function join(t, name, through, server) {
  const { default: io } = await import(name);
  const socket = io(`http://127.0.0.1:${through}`, { forceNew: true });
  t.after(() => socket.close());
  const client = { socket, heard: [], connects: 0, disconnects: 0, transport: () => socket.io.engine.transport.name };
  socket.on('connect', () => client.connects++);
  socket.on('disconnect', () => client.disconnects++);
  socket.on('told', (channel, number) => client.heard.push(number));
  await until('the client to connect', () => client.connects);
  socket.emit('subscribe', { channel: 'news', auth: { headers: {} } });
  await until('the client to be in the channel', async () => (await api(server, 'channels/news')).subscription_count === 1);
  return client;
}

/** Asserts that events arrive in order, each before the next one is published. */
async function hears(client, server, from) {
  for (let number = from; number < from + EVENTS; number++) {
    await publish(server, number);
    await until(`event ${number}`, () => client.heard.at(-1) === number);
  }
  assert.deepEqual(client.heard, Array.from({ length: from + EVENTS }, (_, number) => number));
}

/** A proxy that counts requests and interferes with websockets after their handshake. */
async function startProxy(t, server, toWebsocket) {
  const proxy = { requests: 0, websockets: 0 };
  const listener = createServer((client) => {
    const upstream = connect(server, '127.0.0.1');
    const end = () => client.destroy() && upstream.destroy();
    for (const socket of [client, upstream]) socket.on('error', end).on('close', end);
    let change;
    client.on('data', (bytes) => {
      const line = bytes.toString('latin1').split('\r\n', 1)[0];
      if (/^(GET|POST) .*HTTP/.test(line)) proxy.requests++;
      if (/transport=websocket/.test(line)) {
        proxy.websockets++;
        change = toWebsocket;
        upstream.write(bytes);
      } else if (change) change({ client, upstream, bytes, end });
      else upstream.write(bytes);
    });
    upstream.on('data', (bytes) => client.write(bytes));
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => listener.close());
  return Object.assign(proxy, { port: listener.address().port });
}

/** Requests of a polling client: four or five until it has subscribed, and a poll for each event. */
const mostRequests = (events) => 8 + 2 * events;

for (const [title, name] of Object.entries(CLIENTS)) {
  for (const [kind, toWebsocket] of Object.entries({ swallowed: () => {}, closed: ({ end }) => end() })) {
    test(`${title}: an upgrade that is ${kind} leaves the client polling`, { timeout: 2 * DEADLINE_MS }, async (t) => {
      const server = await startServer(t);
      const proxy = await startProxy(t, server, toWebsocket);
      const client = await join(t, name, proxy.port, server);
      await until('the upgrade to begin', () => proxy.websockets);
      await hears(client, server, 0);
      assert.equal(client.transport(), 'polling');
      assert.deepEqual([client.connects, client.disconnects], [1, 0]);
      assert.ok(proxy.requests <= mostRequests(EVENTS), `${proxy.requests} requests for ${EVENTS} events`);
    });
  }

  test(`${title}: a late upgrade loses nothing`, { timeout: 2 * DEADLINE_MS }, async (t) => {
    const server = await startServer(t);
    const held = [];
    let isHeld = true;
    const proxy = await startProxy(t, server, ({ upstream, bytes }) => (isHeld ? held.push(() => upstream.write(bytes)) : upstream.write(bytes)));
    const client = await join(t, name, proxy.port, server);
    await until('the probe', () => held.length);
    await hears(client, server, 0);
    assert.equal(client.transport(), 'polling');
    isHeld = false;
    for (const write of held) write();
    // Events continue while the client upgrades.
    await hears(client, server, EVENTS);
    await until('the upgrade', () => client.transport() === 'websocket');
    await hears(client, server, 2 * EVENTS);
    assert.deepEqual([client.connects, client.disconnects], [1, 0]);
  });

  test(`${title}: the upgrade behind nginx`, { timeout: 2 * DEADLINE_MS }, async (t) => {
    const [server, port] = [await startServer(t), await freePort()];
    const location = `location / { proxy_pass http://127.0.0.1:${server}; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }`;
    await run(t, port, 'nginx', (folder) => ['-e', 'stderr', '-c', `${folder}/nginx.conf`], nginx(port, location));
    await upgrades(t, name, port, server);
  });

  test(`${title}: behind an nginx that drops the Upgrade header the client polls`, { timeout: 2 * DEADLINE_MS }, async (t) => {
    const [server, port] = [await startServer(t), await freePort()];
    // nginx's default: HTTP/1.0, and one connection per request.
    await run(t, port, 'nginx', (folder) => ['-e', 'stderr', '-c', `${folder}/nginx.conf`], nginx(port, `location / { proxy_pass http://127.0.0.1:${server}; }`));
    const client = await join(t, name, port, server);
    await hears(client, server, 0);
    assert.equal(client.transport(), 'polling');
    assert.deepEqual([client.connects, client.disconnects], [1, 0]);
  });

  test(`${title}: the upgrade behind HAProxy`, { timeout: 2 * DEADLINE_MS }, async (t) => {
    const [server, port] = [await startServer(t), await freePort()];
    const config = `defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 1h\nlisten echo\n  bind 127.0.0.1:${port}\n  server node 127.0.0.1:${server}\n`;
    await run(t, port, 'haproxy', (folder) => ['-db', '-f', `${folder}/haproxy.cfg`], () => ({ 'haproxy.cfg': config }));
    await upgrades(t, name, port, server);
  });
}

function nginx(port, location) {
  return (folder) => {
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((part) => `${part}_temp_path ${folder}/${part};`).join(' ');
    const http = `access_log off; ${paths} server { listen 127.0.0.1:${port}; ${location} }`;
    return { 'nginx.conf': `daemon off; pid ${folder}/pid; error_log stderr crit; events {} http { ${http} }\n` };
  };
}

async function upgrades(t, name, through, server) {
  const client = await join(t, name, through, server);
  await hears(client, server, 0);
  await until('the upgrade', () => client.transport() === 'websocket');
  await hears(client, server, EVENTS);
  assert.deepEqual([client.connects, client.disconnects], [1, 0]);
}
