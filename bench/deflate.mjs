#!/usr/bin/env node
/**
 * The cost and savings of compression: the same events to clients that negotiated it and to clients that did not.
 *
 *   cargo build --release && node bench/deflate.mjs [CLIENTS=1000] [EVENTS=60]
 *
 * Input: ECHO_BIN or target/release/laravel-echo-server. The clients count bytes and decompress nothing. Output: a Markdown
 * table. CPU is that of the server's process, memory is its growth until all clients had subscribed.
 */
import { connect } from 'node:net';
import { cpu, freePort, memory, startServer } from './lib/server.mjs';

const SIZES = { '100 bytes': 100, '1 KB': 1_100, '10 KB': 10_000, '100 KB': 100_000 };
const CROWD = 50;
const PAUSE_MS = 50;
const DEADLINE_MS = 60_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, probe) {
  for (const end = Date.now() + DEADLINE_MS; !(await probe()); await pause(10)) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`);
  }
}

const frame = (text) => Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), Buffer.from(text)]);

/** A subscribed client that counts received bytes. */
async function client(port, extension) {
  const socket = connect(port, '127.0.0.1').setNoDelay();
  const state = { socket, bytes: 0 };
  let head = '';
  await new Promise((resolve, reject) => {
    socket.on('error', reject).on('data', (bytes) => {
      state.bytes += bytes.length;
      if (head.includes('"pingInterval"')) return;
      head += bytes.toString('latin1');
      if (head.includes('"pingInterval"')) resolve();
    });
    socket.write(`GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${extension}\r\n`);
  });
  if (/permessage-deflate/i.test(head) !== extension.length > 0) throw new Error('the extension is not as asked for');
  socket.write(Buffer.concat([frame('40'), frame('42["subscribe",{"channel":"news"}]')]));
  return state;
}

/** Rows of a table, as applications send them: text with repeated keys. */
function data(bytes) {
  const rows = [];
  for (let id = 0, length = 0; length < bytes; id++) {
    const row = { id, name: `Customer ${(id * 7919) % 9973}`, status: id % 3 ? 'active' : 'paused', total: (id * 17.25) % 1000, at: 1_700_000_000 + id * 3571 };
    rows.push(row);
    length += JSON.stringify(row).length + 1;
  }
  return JSON.stringify(bytes > 100 ? rows : { id: 7, note: 'x'.repeat(60) });
}

async function measure(isDeflated, size, count, events) {
  const port = await freePort();
  const server = await startServer(
    `host = "127.0.0.1"\nport = ${port}\nclients = [{ appId = "app", key = "key" }]\n[subscribers]\nredis = false\n[limits]\nclientQueueBytes = "100MB"\n`,
  );
  const api = (what, body) => fetch(`http://127.0.0.1:${port}${what}?auth_key=key`, body && { method: 'POST', body });
  const clients = [];
  try {
    const publish = async (text) => (await api('/apps/app/events', JSON.stringify({ name: 'sent', channel: 'news', data: text }))).text();
    for (let n = 0; n < 20; n++) await publish(data(size));
    const before = memory(server.pid);
    const extension = isDeflated ? 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n' : '';
    while (clients.length < count) clients.push(...(await Promise.all(Array.from({ length: CROWD }, () => client(port, extension)))));
    await until('the channel', async () => (await (await api('/apps/app/channels/news')).json()).subscription_count === count);
    await pause(1000);
    const [idle, used] = [memory(server.pid), cpu(server.pid)];
    const start = clients.reduce((sum, { bytes }) => sum + bytes, 0);
    const text = data(size);
    for (let n = 0; n < events; n++) {
      await publish(n % 2 ? text : text.replace('7', '8'));
      await pause(PAUSE_MS);
    }
    const received = () => clients.reduce((sum, { bytes }) => sum + bytes, 0) - start;
    let last;
    await until('the last bytes', async () => {
      [last] = [received(), await pause(500)];
      return last === received();
    });
    const deliveries = count * events;
    return { kib: (idle - before) / 1024 / count, micros: ((cpu(server.pid) - used) * 1e6) / deliveries, bytes: received() / deliveries };
  } finally {
    for (const { socket } of clients) socket.destroy();
    server.kill('SIGKILL');
  }
}

const [count, events] = [Number(process.argv[2] ?? 1000), Number(process.argv[3] ?? 60)];
console.log('| event | | bytes per delivery | CPU µs per delivery | KiB per idle connection |\n|---|---|---|---|---|');
for (const [title, size] of Object.entries(SIZES)) {
  for (const isDeflated of [false, true]) {
    const { kib, micros, bytes } = await measure(isDeflated, size, count, events);
    console.log(`| ${title} | ${isDeflated ? 'compressed' : 'as it is'} | ${bytes.toFixed(0)} | ${micros.toFixed(1)} | ${kib.toFixed(1)} |`);
  }
}
