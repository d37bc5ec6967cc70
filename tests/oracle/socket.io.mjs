/**
 * A small server of socket.io 2 or 4: clients join channels, and events are published by `POST /publish`.
 *
 * Input: the version, as an argument; requests. Output: the port that it listens on, as a line on stdout.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const publish = async (request, response) => {
  if (request.url !== '/publish') return;
  let body = '';
  for await (const chunk of request) body += chunk;
  io.to('news').emit('told', 'news', JSON.parse(body));
  response.end();
};
const server = createServer(publish).listen(0, '127.0.0.1');
const io = process.argv[2] === '4' ? new (require('socket.io-4').Server)(server) : require('socket.io-2')(server, { pingTimeout: 20_000 });
io.on('connection', (socket) => socket.on('subscribe', ({ channel }) => socket.join(channel)));
await once(server, 'listening');
console.log(server.address().port);
