// A socket.io server with connectionStateRecovery, as in its documentation, that sends Echo clients what Laravel publishes to
// Redis: `socket-io.mjs PORT REDIS_PORT`.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const { Server } = createRequire(new URL('../../tests/oracle/', import.meta.url))('socket.io-4');
const Redis = createRequire(new URL('../../tests/compat/', import.meta.url))('ioredis');

const [port, redisPort] = process.argv.slice(2).map(Number);
const http = createServer((request, response) => response.end(request.url === '/ready' ? 'ok' : ''));
const io = new Server(http, { connectionStateRecovery: { maxDisconnectionDuration: 120_000, skipMiddlewares: true } });

io.on('connection', (socket) => {
  socket.on('subscribe', ({ channel }) => socket.join(channel));
});

const redis = new Redis(redisPort, '127.0.0.1');
redis.psubscribe('*');
redis.on('pmessage', (_, channel, payload) => {
  const { event, data } = JSON.parse(payload);
  io.to(channel).emit(event, channel, data);
});

http.listen(port, '127.0.0.1');
process.on('SIGTERM', () => io.close(() => process.exit(0)));
